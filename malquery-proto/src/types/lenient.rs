//! Lenient parsing of replies.
//!
//! A typed field contains the received value if it can be parsed. Unknown fields, `null`, empty
//! lists and values in an unexpected form are kept in [`Extra`] and serialized again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::charge;

/// A JSON value whose structure this crate does not know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Value);

impl Json {
    /// Deserializes the value as `T`. Returns `None` if that fails.
    pub fn to<T: DeserializeOwned>(&self) -> Option<T> {
        T::deserialize(&self.0).ok()
    }

    /// Deserializes the elements of a list as `T`, and skips those that fail. A value that is not a
    /// list has no elements.
    pub(crate) fn elements<T: DeserializeOwned>(&self) -> Vec<T> {
        let elements = self.0.as_array().into_iter().flatten();
        elements
            .filter_map(|element| T::deserialize(element).ok())
            .collect()
    }

    /// Returns the value of the member `name`, if this is an object that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns the value if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A JSON number: an integer or a floating-point number.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Number(serde_json::Number);

impl Number {
    /// Returns the value as an `f64`, possibly rounded, or `None` if it is out of range.
    pub fn as_f64(&self) -> Option<f64> {
        self.0.as_f64()
    }

    /// Returns the value if it is written as an integer and fits in a `u64`.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.as_u64()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The unknown fields of an object, and the values that its typed fields cannot represent exactly.
///
/// For example, a `u64` field cannot represent `null` or a number in quotes exactly. In a kept
/// value, numbers may be rounded to 64 bits, and objects may lose duplicate members and the order
/// of their members.
///
/// ```
/// # use malquery_proto::types::Sample;
/// let sample: Sample = serde_json::from_str(r#"{"label": "malware", "score": 7}"#)?;
/// assert_eq!(sample.extra.get("score").and_then(|score| score.to::<u32>()), Some(7));
/// assert_eq!(serde_json::to_string(&sample)?, r#"{"label":"malware","score":7}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Comparisons ignore the order of the fields. If a field is repeated, only its last value is
/// compared.
#[derive(Clone, Default)]
// The list is boxed so that an empty `Extra` is small.
#[allow(clippy::box_collection)]
pub struct Extra(Option<Box<Vec<Entry>>>);

type Entry = (Cow<'static, str>, Json);

impl Extra {
    /// Returns the value of the field `name`, if it was kept.
    pub fn get(&self, name: &str) -> Option<&Json> {
        // If a name occurs twice, the last value counts.
        self.entries()
            .iter()
            .rev()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Returns an iterator over the kept fields, in the order in which they were received.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.entries().iter().map(|(name, value)| (&**name, value))
    }

    /// Returns `true` if no fields were kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn keep(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        self.0
            .get_or_insert_with(|| Box::new(Vec::with_capacity(1)))
            .push((name.into(), Json(value)));
    }

    /// Drops the values that were kept for earlier occurrences of a repeated typed field. `kept`
    /// contains, for each typed field, whether a value was kept for its last occurrence.
    pub(crate) fn settle(&mut self, mut kept: Vec<(&'static str, bool)>) {
        let Some(entries) = &mut self.0 else { return };
        entries.reverse();
        entries.retain(
            |(key, _)| match kept.iter_mut().find(|(name, _)| key == name) {
                Some((_, kept)) => std::mem::take(kept),
                None => true,
            },
        );
        entries.reverse();
        if entries.is_empty() {
            self.0 = None;
        }
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Writes the kept value of a typed field, if it still parses to the field's value. Otherwise,
    /// writes the field, or nothing if it is empty.
    pub(crate) fn write<F: Field, M: SerializeMap>(
        &self,
        map: &mut M,
        name: &'static str,
        field: &F,
    ) -> Result<(), M::Error> {
        if let Some(kept) = self.get(name) {
            let same = F::read(&kept.0).is_ok_and(|read| read.value == *field);
            if same {
                return map.serialize_entry(name, kept);
            }
        }
        if field.is_empty() {
            Ok(())
        } else {
            map.serialize_entry(name, field)
        }
    }
}

impl PartialEq for Extra {
    fn eq(&self, other: &Self) -> bool {
        // In most cases, both are empty or have the same order.
        self.entries() == other.entries()
            || self.iter().collect::<BTreeMap<_, _>>() == other.iter().collect()
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A parsed value, and the received value if it must be kept in an [`Extra`].
pub struct Read<T> {
    pub(crate) value: T,
    pub(crate) keep: Option<Value>,
}

/// A type that a field of a model can have.
pub trait Field: Sized + PartialEq + Serialize {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Read<Self>, D::Error>;
    /// Returns the value for a missing field. Fails if the field is required.
    fn missing<E: Error>(name: &'static str) -> Result<Self, E>;
    fn is_empty(&self) -> bool;
}

impl<'de, T: Field> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer)
    }
}

/// A type that an optional field or a list element can have.
pub trait Item: Sized + PartialEq + Serialize {
    /// Parses a string. Returns `None` if the string is not valid.
    fn from_text(_text: &str) -> Option<Self> {
        None
    }

    /// Returns whether the value, parsed from this string, serializes to an equivalent string.
    fn is_text(&self, _text: &str) -> bool {
        false
    }

    /// Parses a value that is not a string. A model parses objects with `from_map` instead.
    fn from_value(_value: &Value) -> Option<Self> {
        None
    }

    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Read<Option<Self>>, A::Error> {
        read_object(map).map(loose)
    }
}

/// The target of a parsed JSON value. Strings, lists and objects have their own methods, which call
/// `other` by default.
trait Place<'de>: Sized {
    type Value;

    fn other<E: Error>(self, value: Value) -> Result<Self::Value, E>;

    fn text<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        // A short string takes about this much space on the heap.
        charge(32)?;
        self.other(text.into())
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Any(Kept))? {
            charge(2 * size_of::<Value>())?;
            list.push(value);
        }
        self.other(list.into())
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.other(read_object(map)?)
    }
}

/// A visitor that passes a JSON value to a [`Place`].
struct Any<P>(P);

impl<'de, P: Place<'de>> DeserializeSeed<'de> for Any<P> {
    type Value = P::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<P::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Place<'de>> Visitor<'de> for Any<P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<P::Value, E> {
        self.0.other(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<P::Value, E> {
        self.0.other(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<P::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<P::Value, E> {
        self.0.other(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<P::Value, E> {
        self.0.other(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<P::Value, E> {
        self.0.other(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<P::Value, E> {
        self.0.other(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<P::Value, E> {
        self.0.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<P::Value, A::Error> {
        self.0.list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<P::Value, A::Error> {
        self.0.object(map)
    }
}

/// A [`Place`] that returns the value unchanged.
struct Kept;

impl<'de> Place<'de> for Kept {
    type Value = Value;

    fn other<E>(self, value: Value) -> Result<Value, E> {
        Ok(value)
    }
}

fn read_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Value, A::Error> {
    // The first member allocates a B-tree node with space for eleven members.
    charge(640)?;
    let mut object = serde_json::Map::new();
    while let Some(name) = map.next_key::<String>()? {
        charge(160)?;
        object.insert(name, map.next_value_seed(Any(Kept))?);
    }
    // This is how serde_json represents a number if another crate has enabled its feature
    // `arbitrary_precision`.
    if object
        .keys()
        .next()
        .is_some_and(|name| name == "$serde_json::private::Number")
    {
        return Value::deserialize(Value::Object(object)).map_err(A::Error::custom);
    }
    Ok(Value::Object(object))
}

/// Reads the next value of an object, for an [`Extra`].
pub(crate) fn next_kept<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Value, A::Error> {
    charge(160)?;
    map.next_value_seed(Any(Kept))
}

/// Reads any JSON value.
pub(crate) fn kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_any(Any(Kept))
}

/// Converts a parsed value back to JSON.
fn written<E: Error>(value: &impl Serialize) -> Result<Value, E> {
    let text = serde_json::to_string(value).map_err(E::custom)?;
    kept(&mut serde_json::Deserializer::from_str(&text)).map_err(E::custom)
}

/// A [`Place`] that parses an item, and keeps the value if the item cannot represent it exactly.
struct Loose<T>(PhantomData<T>);

impl<'de, T: Item> Place<'de> for Loose<T> {
    type Value = Read<Option<T>>;

    fn other<E>(self, value: Value) -> Result<Self::Value, E> {
        Ok(loose(value))
    }

    fn text<E>(self, text: &str) -> Result<Self::Value, E> {
        let value = T::from_text(text);
        let exact = value.as_ref().is_some_and(|value| value.is_text(text));
        Ok(Read {
            value,
            keep: (!exact).then(|| Value::from(text)),
        })
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::from_map(map)
    }
}

fn loose<T: Item>(received: Value) -> Read<Option<T>> {
    let value = T::from_value(&received);
    let exact = value
        .as_ref()
        .is_some_and(|v| serde_json::to_value(v).is_ok_and(|written| written == received));
    Read {
        value,
        keep: (!exact).then_some(received),
    }
}

impl<T: Item> Field for Option<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Read<Self>, D::Error> {
        deserializer.deserialize_any(Any(Loose(PhantomData)))
    }

    fn missing<E: Error>(_: &'static str) -> Result<Self, E> {
        Ok(None)
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

/// A [`Place`] that parses a list of items. Any other value is kept, and parsed as an empty list.
struct List<T>(PhantomData<T>);

impl<'de, T: Item> Place<'de> for List<T> {
    type Value = Read<Vec<T>>;

    fn other<E>(self, received: Value) -> Result<Self::Value, E> {
        Ok(Read {
            value: Vec::new(),
            keep: Some(received),
        })
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut value = Vec::new();
        let mut keep = None;
        while let Some(element) = seq.next_element::<Read<Option<T>>>()? {
            charge(2 * size_of::<T>())?;
            // If an element must be kept, keep the whole list.
            if element.keep.is_some() && keep.is_none() {
                keep = Some(value.iter().map(written).collect::<Result<Vec<_>, _>>()?);
            }
            if let Some(keep) = &mut keep {
                keep.push(match element.keep {
                    Some(received) => received,
                    None => written(&element.value)?,
                });
                charge(2 * size_of::<Value>())?;
            }
            value.extend(element.value);
        }
        let keep = keep
            .or_else(|| value.is_empty().then(Vec::new))
            .map(Value::Array);
        Ok(Read { value, keep })
    }
}

impl<T: Item> Field for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Read<Self>, D::Error> {
        deserializer.deserialize_any(Any(List(PhantomData)))
    }

    fn missing<E: Error>(_: &'static str) -> Result<Self, E> {
        Ok(Vec::new())
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

impl Item for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn is_text(&self, _: &str) -> bool {
        true
    }
}

impl Item for u64 {
    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl Item for i64 {
    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

impl Item for Number {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self(number.clone())),
            _ => None,
        }
    }
}

impl Item for Json {
    fn from_text(text: &str) -> Option<Self> {
        Some(Self(text.into()))
    }

    fn is_text(&self, _: &str) -> bool {
        true
    }

    fn from_value(value: &Value) -> Option<Self> {
        Some(Self(value.clone()))
    }
}

/// Implements [`Item`], the serde traits and the text conversions for a type that is a string in
/// JSON. The type must implement `FromStr` and `Display`. `$same` returns whether `Display` writes
/// a string that is equivalent to the parsed one.
macro_rules! text_item {
    ($name:ident, $same:expr $(, $as_str:ident)?) => {
        $crate::types::text::text_value!($name $(, $as_str)?);

        impl $crate::types::lenient::Item for $name {
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn is_text(&self, text: &str) -> bool {
                let same: fn(&Self, &str) -> bool = $same;
                same(self, text)
            }
        }

    };
}

/// The JSON name of a field: the given name, or else the name of the Rust field.
macro_rules! wire_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $wire:literal) => {
        $wire
    };
}

/// Declares a model: a struct that is parsed leniently from a JSON object.
macro_rules! model {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(< $($param:ident : $bound:ident),+ >)? {
            $( $(#[$field_meta:meta])* pub $field:ident $(= $wire:literal)? : $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name $(< $($param),+ >)? {
            $( $(#[$field_meta])* pub $field: $type, )*
            /// The unknown fields, and the values that the other fields cannot represent exactly.
            pub extra: $crate::types::Extra,
        }

        const _: () = {
            use $crate::types::lenient::{Extra, Field, Item, Read, next_kept, read_model, read_required, write_unknown};
            use $crate::types::read::charge;

            const FIELDS: &[&str] = &[$($crate::types::lenient::wire_name!($field $($wire)?)),*];

            #[allow(non_camel_case_types)]
            enum Key {
                $($field,)*
                Other(Box<str>),
            }

            impl<'de> serde::Deserialize<'de> for Key {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    struct Keys;

                    impl serde::de::Visitor<'_> for Keys {
                        type Value = Key;

                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                            f.write_str("a field name")
                        }

                        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Key, E> {
                            Ok(match name {
                                $($crate::types::lenient::wire_name!($field $($wire)?) => Key::$field,)*
                                other => Key::Other(other.into()),
                            })
                        }
                    }

                    deserializer.deserialize_identifier(Keys)
                }
            }

            impl $(< $($param: $bound),+ >)? Item for $name $(< $($param),+ >)? {
                fn from_map<'de, A: serde::de::MapAccess<'de>>(mut map: A) -> Result<Read<Option<Self>>, A::Error> {
                    // Each field, and whether a value was kept for it.
                    $( let mut $field: Option<($type, bool)> = None; )*
                    let mut extra = Extra::default();
                    let mut again = false;
                    while let Some(key) = map.next_key()? {
                        match key {
                            $(
                                Key::$field => {
                                    let read: Read<$type> = map.next_value()?;
                                    // If a name occurs twice, the last value counts.
                                    again |= $field.replace((read.value, read.keep.is_some())).is_some();
                                    if let Some(received) = read.keep {
                                        charge(160)?;
                                        extra.keep($crate::types::lenient::wire_name!($field $($wire)?), received);
                                    }
                                }
                            )*
                            Key::Other(name) => extra.keep(String::from(name), next_kept(&mut map)?),
                        }
                    }
                    if again {
                        extra.settle(vec![$(
                            ($crate::types::lenient::wire_name!($field $($wire)?), $field.as_ref().is_some_and(|field| field.1)),
                        )*]);
                    }
                    let model = Self {
                        $( $field: match $field { Some((value, _)) => value, None => Field::missing($crate::types::lenient::wire_name!($field $($wire)?))? }, )*
                        extra,
                    };
                    Ok(Read { value: Some(model), keep: None })
                }
            }

            impl $(< $($param: $bound),+ >)? Field for $name $(< $($param),+ >)? {
                fn read<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Read<Self>, D::Error> {
                    read_required(deserializer)
                }

                fn missing<E: serde::de::Error>(_: &'static str) -> Result<Self, E> {
                    read_model(serde::de::value::MapDeserializer::<_, E>::new(std::iter::empty::<(&str, &str)>()))
                }

                fn is_empty(&self) -> bool {
                    false
                }
            }

            impl<'de $(, $($param: $bound),+ )?> serde::Deserialize<'de> for $name $(< $($param),+ >)? {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    read_model(deserializer)
                }
            }

            impl $(< $($param: $bound),+ >)? serde::Serialize for $name $(< $($param),+ >)? {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    use serde::ser::SerializeMap;
                    let mut map = serializer.serialize_map(None)?;
                    $( self.extra.write(&mut map, $crate::types::lenient::wire_name!($field $($wire)?), &self.$field)?; )*
                    write_unknown::<S>(&mut map, &self.extra, FIELDS)?;
                    map.end()
                }
            }
        };
    };
}

pub(crate) use {model, text_item, wire_name};

/// Parses a model. Fails if the value is not an object, or a required field is missing or invalid.
pub(crate) fn read_model<'de, T: Item, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer
        .deserialize_any(Any(Loose(PhantomData)))?
        .value
        .ok_or_else(|| D::Error::custom("expected a JSON object"))
}

/// Parses a model. A value that is not an object becomes an empty model. Fails if a required field
/// is missing or invalid.
pub(crate) fn read_required<'de, T: Item + Field, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Read<T>, D::Error> {
    let Read { value, keep } = deserializer.deserialize_any(Any(Loose::<T>(PhantomData)))?;
    let value = value.map_or_else(|| T::missing(""), Ok)?;
    Ok(Read { value, keep })
}

pub(crate) fn write_unknown<S: Serializer>(
    map: &mut S::SerializeMap,
    extra: &Extra,
    known: &[&str],
) -> Result<(), S::Error> {
    extra
        .iter()
        .filter(|(name, _)| !known.contains(name))
        .try_for_each(|(name, value)| map.serialize_entry(name, value))
}
