use super::extra::model;
use super::{Date, FileType, Label, Md5, Sha1, Sha256};

model! {
    /// What MalQuery knows of a sample. Every field may be missing: a search returns those it was asked for.
    #[derive(Default)]
    pub struct Sample {
        /// The SHA-256, by which a sample is downloaded.
        pub sha256: Option<Sha256>,
        /// The SHA-1; comes only when no fields were selected.
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
