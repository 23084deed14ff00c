//! What every value that is written as text can be made from and turned into.

/// `TryFrom` of text, from the type's `FromStr`; with `as_str` also `AsRef<str>`.
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

/// The same, and serde as text: `Display` writes it, `FromStr` reads it.
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
