use serde::de::DeserializeOwned;

use super::lenient::model;
use super::{Date, FileType, Json, Label, Md5, PatternType, Sha1, Sha256};

model! {
    /// What MalQuery knows about a sample, from the metadata, a search or a hunt. Every field may
    /// be missing: a search returns the fields it was asked for.
    ///
    /// The methods read from `extra` what only some results of jobs have. Fields for it would
    /// double the size of each of 100,000 results.
    #[derive(Default)]
    pub struct Sample {
        /// The SHA-256, by which a sample is downloaded.
        pub sha256: Option<Sha256>,
        /// The SHA-1. It comes only if no fields were selected.
        pub sha1: Option<Sha1>,
        /// The MD5.
        pub md5: Option<Md5>,
        /// The size in bytes.
        pub filesize: Option<u64>,
        /// The file type.
        pub filetype: Option<FileType>,
        /// The day the sample was first seen, in UTC.
        pub first_seen: Option<Date>,
        /// The verdict.
        pub label: Option<Label>,
        /// The malware family.
        pub family: Option<String>,
    }
}

impl Sample {
    /// The samples that the result groups.
    pub fn samples(&self) -> Vec<Self> {
        self.list("samples")
    }

    /// Why the service left the result out.
    pub fn ignore_reason(&self) -> Option<&str> {
        self.text("ignore_reason")
    }

    /// How sure the label is.
    pub fn label_confidence(&self) -> Option<&str> {
        self.text("label_confidence")
    }

    /// The pattern that matched.
    pub fn pattern(&self) -> Option<&str> {
        self.text("pattern")
    }

    /// The type of that pattern.
    pub fn pattern_type(&self) -> Option<PatternType> {
        self.text("pattern_type")?.parse().ok()
    }

    /// The tags.
    pub fn tags(&self) -> Vec<String> {
        self.list("tags")
    }

    /// The YARA rule that matched.
    pub fn yara_rule(&self) -> Option<&str> {
        self.text("yara_rule")
    }

    /// The YARA rules that matched.
    pub fn yara_rules(&self) -> Vec<String> {
        self.list("yara_rules")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.extra.get(name)?.as_str()
    }

    /// The elements of a list that are understood.
    fn list<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        self.extra.get(name).map_or_else(Vec::new, Json::elements)
    }
}
