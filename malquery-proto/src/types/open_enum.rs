//! The service's enumerations. An unknown word is kept, not rejected.

use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// A word that this crate does not know. Parsing is the only way to create one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OtherWord(Box<str>);

impl fmt::Debug for OtherWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_doc])* $variant, )+
            #[doc(hidden)]
            _Other(OtherWord),
        }

        impl $name {
            /// Returns the value as a string. Known values are lowercase.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )+
                    Self::_Other(word) => &word.0,
                }
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            /// Parses a word. The case of known words is ignored, and unknown words are kept. Fails
            /// if the word is empty or has leading or trailing whitespace.
            fn from_str(text: &str) -> Result<Self, ParseError> {
                $( if text.eq_ignore_ascii_case($text) { return Ok(Self::$variant); } )+
                if text.is_empty() {
                    return Err(ParseError::new($what, "it is empty"));
                }
                if text.trim() != text {
                    return Err(ParseError::new($what, "it has leading or trailing whitespace"));
                }
                Ok(Self::_Other(OtherWord(text.into())))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        text_item!($name, |word, text| word.as_str() == text, as_str);
    };
}

words!(
    /// A metadata field that a search or a hunt can return. Select it with `filter_meta`.
    MetaField, "a metadata field", {
        /// The SHA-256.
        Sha256 = "sha256",
        /// The MD5.
        Md5 = "md5",
        /// The file type. In replies, the field is called `filetype`.
        Type = "type",
        /// The size in bytes. In replies, the field is called `filesize`.
        Size = "size",
        /// The day on which the sample was first seen.
        FirstSeen = "first_seen",
        /// The verdict on the sample.
        Label = "label",
        /// The malware family.
        Family = "family",
    }
);
words!(
    /// The verdict on a sample.
    Label, "a label", {
        /// The sample is malware.
        Malware = "malware",
        /// There is no verdict.
        Unknown = "unknown",
        /// The sample is harmless.
        Clean = "clean",
        /// The sample is potentially unwanted.
        Unwanted = "unwanted",
        /// The sample is malicious. Observed replies contain `malware` instead.
        Malicious = "malicious",
    }
);
words!(
    /// The status of a job. A job with an unknown status is treated as unfinished.
    JobStatus, "a job status", {
        /// The job is running.
        InProgress = "inprogress",
        /// The job is done.
        Done = "done",
        /// The job failed.
        Failed = "failed",
    }
);
words!(
    /// The kind of job.
    RequestType, "a request type", {
        /// A YARA hunt.
        Hunt = "hunt",
        /// An exact search.
        Search = "search",
    }
);
words!(
    /// The type of a pattern.
    PatternType, "a pattern type", {
        /// Pairs of hex digits.
        Hex = "hex",
        /// Text with one byte per character.
        Ascii = "ascii",
        /// Text with two bytes per character.
        Wide = "wide",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_in_any_case() {
        assert_eq!("inprogress".parse(), Ok(JobStatus::InProgress));
        assert_eq!("DONE".parse(), Ok(JobStatus::Done));
        let other: JobStatus = "Queued".parse().unwrap();
        assert_eq!(other.as_str(), "Queued");
        assert_eq!(other.to_string(), "Queued");
        assert_eq!(
            "".parse::<MetaField>().unwrap_err().to_string(),
            "not a metadata field: it is empty"
        );
    }
}
