//! Parses the body of a reply: repairs invalid JSON strings, and limits memory and time.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use serde::de::{DeserializeOwned, Error};

/// The memory budget in bytes for the values of one reply, excluding the text of their strings. It
/// is enough for about 300,000 typical results.
const BUDGET: usize = 160 << 20;

/// The maximum number of bytes that each repair, of UTF-8 or of strings, may add to a reply.
const REPAIR: usize = 16 << 20;

/// The size in bytes up to which a reply is parsed without checking the deadline. Inside [`until`],
/// a slower reader parses larger replies and checks the deadline.
const LARGE: usize = 64 << 20;
/// The number of bytes to parse between two checks of the deadline.
const STRIDE: usize = 64 << 10;

/// Parses a reply.
///
/// Accepts a byte order mark, unpaired surrogates, and a limited amount of invalid UTF-8 and of raw
/// control characters in strings, so that the results of a hunt are not lost. U+FFFD replaces
/// invalid UTF-8 and unpaired surrogates.
pub(crate) fn read_reply<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let bytes = without_mark(body);
    let invalid = || {
        bytes
            .utf8_chunks()
            .map(|chunk| chunk.invalid().len())
            .sum::<usize>()
    };
    // Checking the whole text once is faster than checking each string.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if invalid() > REPAIR / 2 => {
            return Err(serde_json::Error::custom("it is not valid UTF-8"));
        }
        Err(_) => String::from_utf8_lossy(bytes),
    };
    let is_over = IS_OVER
        .with_borrow(Clone::clone)
        .filter(|_| text.len() > LARGE);
    let read = |text: &str| {
        within(BUDGET, || match &is_over {
            None => serde_json::from_str(text),
            Some(is_over) => serde_json::from_reader(Timed {
                rest: text.as_bytes(),
                stride: 0,
                is_over: &**is_over,
            }),
        })
    };
    let repaired = match read(&text) {
        Err(error) if error.is_syntax() => repair(&text, REPAIR).ok_or(error)?,
        result => return result,
    };
    drop(text);
    read(&repaired)
}

/// Returns the body without its byte order mark, if it has one.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Replaces unpaired surrogates and escapes control characters in strings. Returns `None` if the
/// text needs no repair, or if it would grow by more than `most` bytes.
fn repair(text: &str, most: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let mut repaired = String::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let (length, instead) = match bytes[at] {
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'\\' if in_string => match (unit(bytes, at), unit(bytes, at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
                (Some(0xd800..=0xdfff), _) => (6, Some(r"\ufffd".to_owned())),
                _ => (2, None),
            },
            control @ ..0x20 if in_string => (1, Some(format!(r"\u{control:04x}"))),
            _ => (1, None),
        };
        if let Some(instead) = instead {
            repaired.push_str(&text[copied..at]);
            repaired.push_str(&instead);
            copied = at + length;
            if repaired.len() > copied + most {
                return None;
            }
        }
        at += length;
    }
    if copied == 0 {
        return None;
    }
    repaired.push_str(&text[copied..]);
    Some(repaired)
}

/// Returns the UTF-16 code unit of the `\u` escape at this position, if any.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

thread_local! {
    /// The remaining memory budget for the reply that this thread is parsing. It is thread-local
    /// because it cannot be passed through `Deserialize`.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// A function that returns whether the deadline has passed. It is set only inside [`until`].
    static IS_OVER: RefCell<Option<Rc<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// Calls `read` with a deadline. If `is_over` returns true, parsing a large reply fails with an
/// error for which [`is_io`](serde_json::Error::is_io) is true.
pub(crate) fn until<T>(is_over: impl Fn() -> bool + 'static, read: impl FnOnce() -> T) -> T {
    let _clear = OnDrop(|| IS_OVER.set(None));
    IS_OVER.set(Some(Rc::new(is_over)));
    read()
}

/// A reader that checks the deadline.
struct Timed<'a> {
    rest: &'a [u8],
    stride: usize,
    is_over: &'a dyn Fn() -> bool,
}

impl io::Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stride >= STRIDE {
            self.stride = 0;
            if (self.is_over)() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let count = self.rest.read(buffer)?;
        self.stride += count;
        Ok(count)
    }
}

/// Calls `read` with this memory budget in bytes.
fn within<T>(budget: usize, read: impl FnOnce() -> T) -> T {
    let _clear = OnDrop(|| LEFT.set(None));
    LEFT.set(Some(budget));
    read()
}

/// A guard that calls a function when dropped, even during a panic.
struct OnDrop(fn());

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0();
    }
}

/// Takes this number of bytes from the budget, if one is set. Fails if too few are left.
pub(crate) fn charge<E: Error>(bytes: usize) -> Result<(), E> {
    let Some(left) = LEFT.get() else {
        return Ok(());
    };
    let left = left.checked_sub(bytes);
    LEFT.set(Some(left.ok_or_else(|| {
        E::custom("its values exceed the memory limit")
    })?));
    Ok(())
}

#[cfg(test)]
mod tests;
