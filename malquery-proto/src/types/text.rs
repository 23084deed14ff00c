//! Macros that implement conversions for values with a text form.

/// Implements `TryFrom<&str>` and `TryFrom<String>` with the type's `FromStr`. If a method such as
/// `as_str` is given, also implements `AsRef<str>` with it.
macro_rules! text_conversions {
    ($name:ident $(, $as_str:ident)?) => {
        impl TryFrom<&str> for $name {
            type Error = $crate::types::ParseError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::types::ParseError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        $(
            impl AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    self.$as_str()
                }
            }
        )?
    };
}

/// Like `text_conversions`, but also implements `Serialize` with the type's `Display`, and
/// `Deserialize` with its `FromStr`.
macro_rules! text_value {
    ($name:ident $(, $as_str:ident)?) => {
        $crate::types::text::text_conversions!($name $(, $as_str)?);

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {text_conversions, text_value};
