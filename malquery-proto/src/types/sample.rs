use serde::de::DeserializeOwned;

use super::lenient::model;
use super::{Date, FileType, Json, Label, Md5, PatternType, Sha1, Sha256};

model! {
    /// The metadata of a sample: a result of a search, a hunt or a metadata request. Every field
    /// may be missing, because a search returns only the selected fields.
    ///
    /// The methods read values that only some results of jobs have from `extra`. Separate fields
    /// for them would double the size of each result.
    #[derive(Default)]
    pub struct Sample {
        /// The SHA-256. Use it to download the sample.
        pub sha256: Option<Sha256>,
        /// The SHA-1. The service returns it only if no fields were selected.
        pub sha1: Option<Sha1>,
        /// The MD5.
        pub md5: Option<Md5>,
        /// The size in bytes.
        pub filesize: Option<u64>,
        /// The file type.
        pub filetype: Option<FileType>,
        /// The day on which the sample was first seen, in UTC.
        pub first_seen: Option<Date>,
        /// The verdict.
        pub label: Option<Label>,
        /// The malware family.
        pub family: Option<String>,
    }
}

impl Sample {
    /// Returns the samples nested in this result (`samples`).
    pub fn samples(&self) -> Vec<Self> {
        self.list("samples")
    }

    /// Returns the reason the service ignored the result (`ignore_reason`).
    pub fn ignore_reason(&self) -> Option<&str> {
        self.text("ignore_reason")
    }

    /// Returns the confidence of the label (`label_confidence`).
    pub fn label_confidence(&self) -> Option<&str> {
        self.text("label_confidence")
    }

    /// Returns the pattern that matched.
    pub fn pattern(&self) -> Option<&str> {
        self.text("pattern")
    }

    /// Returns the type of the pattern that matched.
    pub fn pattern_type(&self) -> Option<PatternType> {
        self.text("pattern_type")?.parse().ok()
    }

    /// Returns the tags.
    pub fn tags(&self) -> Vec<String> {
        self.list("tags")
    }

    /// Returns the YARA rule that matched (`yara_rule`).
    pub fn yara_rule(&self) -> Option<&str> {
        self.text("yara_rule")
    }

    /// Returns the YARA rules that matched (`yara_rules`).
    pub fn yara_rules(&self) -> Vec<String> {
        self.list("yara_rules")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.extra.get(name)?.as_str()
    }

    /// Returns the elements of a list that can be parsed.
    fn list<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        self.extra.get(name).map_or_else(Vec::new, Json::elements)
    }
}
