//! A reply read result by result, so that the memory it takes does not grow with their number.

use std::io::{self, Read};
use std::marker::PhantomData;
use std::ops::ControlFlow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use super::lenient::{Element, Item};
use super::{Envelope, ReplyMeta};

/// The list that is not kept.
const LIST: &str = "resources";

/// Reads a reply as [`Envelope`] does, but hands every result of its list to `each`, which may end the reading.
/// Elements that are not understood stay in `extra`.
pub(crate) fn read_each<M: ReplyMeta, R: Item>(
    body: impl Read,
    mut each: impl FnMut(R) -> ControlFlow<()>,
) -> serde_json::Result<Envelope<M, R>> {
    let text = io::BufReader::with_capacity(64 * 1024, Utf8::new(body));
    let mut json = serde_json::Deserializer::from_reader(text);
    let reply = json.deserialize_map(Outer(
        Each {
            each: &mut each,
            result: PhantomData,
        },
        PhantomData,
    ))?;
    json.end()?;
    Ok(reply)
}

struct Each<'a, R> {
    each: &'a mut dyn FnMut(R) -> ControlFlow<()>,
    result: PhantomData<R>,
}

struct Outer<'a, M, R>(Each<'a, R>, PhantomData<M>);

impl<'de, M: ReplyMeta, R: Item> Visitor<'de> for Outer<'_, M, R> {
    type Value = Envelope<M, R>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let rest = Rest {
            map,
            each: self.0,
            left: None,
        };
        serde::Deserialize::deserialize(MapAccessDeserializer::new(rest))
    }
}

/// The document without the results that were understood.
struct Rest<'a, A, R> {
    map: A,
    each: Each<'a, R>,
    /// What is left of the list.
    left: Option<Value>,
}

impl<'de, A: MapAccess<'de>, R: Item> MapAccess<'de> for Rest<'_, A, R> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.map.next_key::<String>()? else {
            return Ok(None);
        };
        if key == LIST {
            let each = Each {
                each: &mut *self.each.each,
                result: PhantomData,
            };
            self.left = Some(self.map.next_value_seed(each)?);
        }
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.left.take() {
            Some(left) => seed.deserialize(left).map_err(A::Error::custom),
            None => self.map.next_value_seed(seed),
        }
    }
}

impl<'de, R: Item> DeserializeSeed<'de> for Each<'_, R> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Item> Visitor<'de> for Each<'_, R> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut odd = Vec::new();
        while let Some(Element::<R>(element)) = seq.next_element()? {
            match element.value {
                Some(result) => {
                    if (self.each)(result).is_break() {
                        return Err(A::Error::custom("stopped"));
                    }
                }
                None => odd.extend(element.keep),
            }
        }
        Ok(Value::Array(odd))
    }

    // Anything but a list in the place of one.

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        serde::Deserialize::deserialize(MapAccessDeserializer::new(map))
    }
}

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// Text without a byte order mark, in which what is no UTF-8 is replaced: neither is a reason to lose a result.
struct Utf8<R> {
    inner: R,
    /// Bytes that were read and not given yet, from `at` on.
    text: Vec<u8>,
    at: usize,
    /// The beginning of a character whose rest is not read yet.
    open: Vec<u8>,
    begun: bool,
    chunk: Box<[u8]>,
}

impl<R: Read> Utf8<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            text: Vec::new(),
            at: 0,
            open: Vec::new(),
            begun: false,
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// Reads more, and tells whether that was all. It may be no more than the beginning of a character.
    fn fill(&mut self) -> io::Result<bool> {
        self.at = 0;
        let mut bytes = std::mem::take(&mut self.text);
        bytes.clear();
        bytes.append(&mut self.open);
        bytes.reserve(CHUNK);
        // At the beginning enough for a byte order mark.
        let enough = bytes.len() + if self.begun { 1 } else { 3 };
        let mut is_end = false;
        while bytes.len() < enough && !is_end {
            let count = loop {
                match self.inner.read(&mut self.chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result?.min(CHUNK),
                }
            };
            bytes.extend_from_slice(&self.chunk[..count]);
            is_end = count == 0;
        }
        if !self.begun {
            self.begun = true;
            if bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            if error.error_len().is_none() && !is_end {
                self.open = bytes.split_off(error.valid_up_to());
            } else {
                let last = bytes
                    .utf8_chunks()
                    .last()
                    .map_or(&[][..], |chunk| chunk.invalid());
                // Whether the last bytes are the beginning of a character shows when more is read.
                let may_go_on =
                    !is_end && std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none());
                if may_go_on {
                    self.open = bytes.split_off(bytes.len() - last.len());
                }
                bytes = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
            }
        }
        self.text = bytes;
        Ok(is_end)
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !self.fill()? {}
        let text = &self.text[self.at..];
        let count = text.len().min(buffer.len());
        buffer[..count].copy_from_slice(&text[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{PlainMeta, Sample};

    /// Gives a few bytes at a time.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    type Reply = Envelope<PlainMeta, Sample>;

    fn read(body: &[u8], chunk: usize) -> serde_json::Result<(Reply, Vec<Sample>)> {
        let mut results = Vec::new();
        let reply = read_each(Slowly(body, chunk), |result| {
            results.push(result);
            ControlFlow::Continue(())
        })?;
        Ok((reply, results))
    }

    #[test]
    fn results_come_one_by_one_and_nothing_is_lost() {
        let body =
            br#"{"other": [1], "resources": [{"label": "malware"}, 7, {"family": "x", "new": 1}, null],
            "meta": {"trace_id": "t", "k": 1}, "errors": null}"#;
        let (reply, results) = read(body, 5).unwrap();
        assert_eq!(reply.meta.trace_id.as_deref(), Some("t"));
        assert_eq!(results.len(), 2);
        assert_eq!(results[1].family.as_deref(), Some("x"));
        assert_eq!(results[1].extra.get("new").unwrap().to_string(), "1");
        // Beside the results, all is as it would be with a list.
        let written = serde_json::to_string(&reply).unwrap();
        let rest =
            r#"{"meta":{"trace_id":"t","k":1},"resources":[7,null],"errors":null,"other":[1]}"#;
        assert_eq!(written, rest);
        for list in ["null", "7", "true", "-1", "1.5", "\"text\"", "{\"a\": 1}"] {
            let (reply, results) =
                read(format!("{{\"resources\": {list}}}").as_bytes(), 3).unwrap();
            assert!(results.is_empty());
            let written = serde_json::to_value(&reply).unwrap();
            assert_eq!(
                written["resources"],
                serde_json::from_str::<Value>(list).unwrap()
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let whole = r#"{"resources": [{"label": "malware"}]}"#;
        for end in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..end], 1).is_err(), "{end}");
        }
        for body in ["[]", "null", "7", "{} {}", r#"{"resources": [}"#] {
            assert!(read(body.as_bytes(), 1).is_err(), "{body}");
        }
        read(format!("{whole}\n ").as_bytes(), 1).unwrap();
        let mut seen = 0;
        let stopped =
            read_each::<PlainMeta, Sample>(r#"{"resources": [{}, {}, {}]}"#.as_bytes(), |_| {
                seen += 1;
                if seen == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        assert!(stopped.is_err());
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_text_that_is_none_is_mended_as_in_a_whole_reply() {
        let body = b"\xef\xbb\xbf{\"resources\": [{\"family\": \"a\xff\xe2\x82b\xe2\x82\xac\"}]}";
        for chunk in 1..9 {
            let (_, results) = read(body, chunk).unwrap();
            assert_eq!(
                results[0].family.as_deref(),
                Some("a\u{fffd}\u{fffd}b€"),
                "{chunk}"
            );
        }
    }

    #[test]
    fn a_read_that_was_interrupted_is_repeated_and_one_that_failed_is_not() {
        struct Failing<'a>(&'a [u8], Option<io::ErrorKind>);

        impl Read for Failing<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.1.take() {
                    Some(kind) => Err(kind.into()),
                    None => self.0.read(buffer),
                }
            }
        }

        let read = |kind| {
            read_each::<PlainMeta, Sample>(
                Failing(b"{}", Some(kind)),
                |_| ControlFlow::Continue(()),
            )
        };
        read(io::ErrorKind::Interrupted).unwrap();
        assert_eq!(
            read(io::ErrorKind::TimedOut).unwrap_err().io_error_kind(),
            Some(io::ErrorKind::TimedOut)
        );
    }

    #[test]
    fn what_is_expected_is_said() {
        let refused = |body: &str| read(body.as_bytes(), 7).unwrap_err().to_string();
        assert_eq!(
            refused("[]"),
            "invalid type: sequence, expected a JSON object at line 1 column 1"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_the_same_text_in_any_chunks(
            body in prop::collection::vec(prop_oneof![any::<u8>(), 0xc0u8..=0xf5, 0x80u8..=0xbf], 0..60),
            chunk in 1usize..8,
        ) {
            let mut text = String::new();
            Utf8::new(Slowly(&body, chunk)).read_to_string(&mut text).unwrap();
            let whole = String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body));
            prop_assert_eq!(text, whole);
        }
    }
}
