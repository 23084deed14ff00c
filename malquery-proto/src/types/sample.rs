use serde::de::DeserializeOwned;

use super::lenient::model;
use super::{Date, FileType, Json, Label, Md5, PatternType, Sha1, Sha256};

model! {
    /// The metadata of a sample, as returned by a search, a hunt or a metadata request.
    ///
    /// Any field may be missing, because a search returns only the selected fields. The methods
    /// return values that only some results have. To keep each result small, those values are
    /// stored in `extra`.
    #[derive(Default)]
    pub struct Sample {
        /// The SHA-256. Use it to download the sample.
        pub sha256: Option<Sha256>,
        /// The SHA-1, which `filter_meta` cannot select.
        pub sha1: Option<Sha1>,
        /// The MD5.
        pub md5: Option<Md5>,
        /// The size in bytes.
        pub filesize: Option<u64>,
        /// The file type.
        pub filetype: Option<FileType>,
        /// The day on which the sample was first seen, in UTC.
        pub first_seen: Option<Date>,
        /// The verdict on the sample.
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

    /// Returns the service's confidence in the label (`label_confidence`).
    pub fn label_confidence(&self) -> Option<&str> {
        self.text("label_confidence")
    }

    /// Returns the pattern that matched (`pattern`).
    pub fn pattern(&self) -> Option<&str> {
        self.text("pattern")
    }

    /// Returns the type of the pattern that matched (`pattern_type`).
    pub fn pattern_type(&self) -> Option<PatternType> {
        self.text("pattern_type")?.parse().ok()
    }

    /// Returns the tags of the sample (`tags`).
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

    fn list<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        self.extra.get(name).map_or_else(Vec::new, Json::elements)
    }
}
