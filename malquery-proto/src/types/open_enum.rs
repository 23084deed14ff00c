//! The words of the service, as open enums: a word that is not listed is kept.

use std::fmt;
use std::str::FromStr;

use super::ParseError;
use super::lenient::text_item;

/// A word that is not listed. Only parsing makes one, so it is never a listed word.
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
            /// The word as it is on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )+
                    Self::_Other(word) => &word.0,
                }
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            /// Reads any word, in any case. It fails for an empty word and for white space around
            /// it.
            fn from_str(text: &str) -> Result<Self, ParseError> {
                $( if text.eq_ignore_ascii_case($text) { return Ok(Self::$variant); } )+
                if text.is_empty() {
                    return Err(ParseError::new($what, "it is empty"));
                }
                if text.trim() != text {
                    return Err(ParseError::new($what, "there is white space around it"));
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
    /// A field of a sample that a search can be asked to return (`filter_meta`).
    MetaField, "a metadata field", {
        /// The SHA-256.
        Sha256 = "sha256",
        /// The MD5.
        Md5 = "md5",
        /// The file type, which arrives as `filetype`.
        Type = "type",
        /// The size in bytes, which arrives as `filesize`.
        Size = "size",
        /// The day the sample was first seen.
        FirstSeen = "first_seen",
        /// The verdict.
        Label = "label",
        /// The malware family.
        Family = "family",
    }
);
words!(
    /// The verdict on a sample.
    Label, "a label", {
        /// Malware.
        Malware = "malware",
        /// No verdict.
        Unknown = "unknown",
        /// Harmless.
        Clean = "clean",
        /// Potentially unwanted.
        Unwanted = "unwanted",
        /// Malicious.
        Malicious = "malicious",
    }
);
words!(
    /// The status of a job. A word that is not listed means that the job is not finished.
    JobStatus, "a job status", {
        /// The job runs.
        InProgress = "inprogress",
        /// The job is finished and its results are complete.
        Done = "done",
        /// The job ended without results.
        Failed = "failed",
    }
);
words!(
    /// What kind of job a request id stands for.
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
        /// A text of one byte a character.
        Ascii = "ascii",
        /// A text of two bytes a character.
        Wide = "wide",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_known_in_any_case_and_others_kept() {
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
