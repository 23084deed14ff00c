//! What is known of samples beside their bytes.

use std::collections::BTreeMap;
use std::path::Path;

use malquery_proto::types::{Date, Label, Sha256};

use super::CorpusError;

#[derive(Debug, Clone, Default)]
pub(super) struct Annotation {
    pub(super) first_seen: Option<Date>,
    pub(super) label: Option<Label>,
    pub(super) family: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Annotations {
    sha256: BTreeMap<Sha256, Annotation>,
}

impl Annotations {
    pub(super) fn load(_root: &Path) -> Result<Self, CorpusError> {
        Ok(Self::default())
    }

    pub(super) fn take(&mut self, _root: &Path, _path: &Path) -> Annotation {
        Annotation::default()
    }

    pub(super) fn check(&self, _root: &Path) -> Result<(), CorpusError> {
        Ok(())
    }

    /// Whether a date depends on a hash.
    pub(super) fn has_dates(&self) -> bool {
        self.sha256.values().any(|annotation| annotation.first_seen.is_some())
    }

    pub(super) fn of(&self, sha256: &Sha256) -> Option<&Annotation> {
        self.sha256.get(sha256)
    }
}
