//! How the text of a reply is read: what is nearly JSON is repaired, and memory is bounded.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use serde::de::{DeserializeOwned, Error};

/// What the values of one reply may take beside their text, in bytes: about 300,000 results. The
/// largest reply that is read has 256 MiB. That, a repaired copy, its strings and, at the peak, one
/// and a half budgets are less than 1 GiB.
const BUDGET: usize = 160 << 20;

/// How many bytes of a reply's text may be added when it is repaired.
const REPAIR: usize = 16 << 20;

/// A text of this size is read within a second. A longer one is read more slowly, so that reading
/// can end when the time is up.
const LARGE: usize = 64 << 20;
/// How many bytes of it are read between two readings of the clock.
const STRIDE: usize = 64 << 10;

/// Reads a reply.
///
/// A byte order mark, bytes that are not UTF-8, half a surrogate pair and raw control characters
/// are no reason to lose the results of a hunt. Where no character is meant, U+FFFD takes its
/// place.
pub(crate) fn read_reply<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let bytes = without_mark(body);
    let invalid = || {
        bytes
            .utf8_chunks()
            .map(|chunk| chunk.invalid().len())
            .sum::<usize>()
    };
    // It is checked once as a whole, which is faster than string by string.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if invalid() > REPAIR / 2 => {
            return Err(serde_json::Error::custom("it is not text in UTF-8"));
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
        Err(error) if error.is_syntax() => repair(&text).ok_or(error)?,
        result => return result,
    };
    drop(text);
    read(&repaired)
}

/// A body without a byte order mark.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Replaces escapes of half a surrogate pair and escapes control characters, both within strings.
/// `None` if the text has no such characters, or too many.
fn repair(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut repaired = String::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        let (length, instead) = match bytes[at] {
            b'"' => {
                in_string = !in_string;
                (1, None)
            }
            b'\\' if in_string => match (surrogate(bytes, at), surrogate(bytes, at + 6)) {
                (Some(Half::High), Some(Half::Low)) => (12, None),
                (Some(_), _) => (6, Some(r"\ufffd".to_owned())),
                (None, _) => (2, None),
            },
            control @ ..0x20 if in_string => (1, Some(format!(r"\u{control:04x}"))),
            _ => (1, None),
        };
        if let Some(instead) = instead {
            repaired.push_str(&text[copied..at]);
            repaired.push_str(&instead);
            copied = at + length;
            if repaired.len() > copied + REPAIR {
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

/// Half of a surrogate pair.
enum Half {
    High,
    Low,
}

/// The half that is escaped at this place, if one is.
fn surrogate(bytes: &[u8], at: usize) -> Option<Half> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(br"\u")?;
    match digits.to_ascii_lowercase()[..] {
        [b'd', b'8'..=b'9' | b'a'..=b'b', a, b] if is_hex(a) && is_hex(b) => Some(Half::High),
        [b'd', b'c'..=b'f', a, b] if is_hex(a) && is_hex(b) => Some(Half::Low),
        _ => None,
    }
}

fn is_hex(digit: u8) -> bool {
    digit.is_ascii_hexdigit()
}

thread_local! {
    /// What the reply that this thread reads may still take. serde has no way to pass it along.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whether the time for reading is up.
    static IS_OVER: RefCell<Option<Rc<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// Reads something until the time is up. A large reply then ends with an error that
/// [`is_io`](serde_json::Error::is_io).
pub(crate) fn until<T>(is_over: impl Fn() -> bool + 'static, read: impl FnOnce() -> T) -> T {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            IS_OVER.set(None);
        }
    }
    let _clear = Clear;
    IS_OVER.set(Some(Rc::new(is_over)));
    read()
}

/// A text that ends with an error when the time is up.
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

/// Reads something that may take this much memory.
fn within<T>(budget: usize, read: impl FnOnce() -> T) -> T {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let _restore = Restore(LEFT.replace(Some(budget)));
    read()
}

/// Takes this much of the budget, if there is one.
pub(crate) fn charge<E: Error>(bytes: usize) -> Result<(), E> {
    match LEFT.get() {
        None => Ok(()),
        Some(left) => match left.checked_sub(bytes) {
            Some(left) => {
                LEFT.set(Some(left));
                Ok(())
            }
            None => Err(E::custom("it has more values than fit into memory")),
        },
    }
}

#[cfg(test)]
mod tests;
