//! Labels and dates of samples, from the file `malquery-corpus.json`.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use malquery_proto::types::{Date, Label, Sha256};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::CorpusError;

const NAME: &str = "malquery-corpus.json";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Annotation {
    pub(super) first_seen: Option<Date>,
    pub(super) label: Option<Label>,
    pub(super) family: Option<String>,
    #[serde(default)]
    pub(super) submitted_by_customer: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Annotations {
    sha256: Table<Sha256>,
    path: Table<RelativePath>,
}

/// A JSON object without duplicate keys.
struct Table<K>(HashMap<K, Annotation>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'de, K: Deserialize<'de> + Hash + Eq> Deserialize<'de> for Table<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de, K: Deserialize<'de> + Hash + Eq> Visitor<'de> for Table<K> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((key, annotation)) = map.next_entry()? {
            if self.0.insert(key, annotation).is_some() {
                return Err(de::Error::custom("duplicate key"));
            }
        }
        Ok(self)
    }
}

/// The relative path of a file in the corpus, with slashes.
#[derive(PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
struct RelativePath(String);

impl TryFrom<String> for RelativePath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        let plain =
            |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
        if path.split('/').all(plain) {
            Ok(Self(path))
        } else {
            Err(format!(
                "{path:?} is not a plain relative path; use one such as \"a/b.exe\""
            ))
        }
    }
}

impl Annotations {
    /// Reads `malquery-corpus.json`, if it exists, and removes it from `files`.
    pub(super) fn load(root: &Path, files: &mut Vec<PathBuf>) -> Result<Self, CorpusError> {
        let path = root.join(NAME);
        match files.iter().position(|file| *file == path) {
            Some(index) => drop(files.remove(index)),
            // Do not read a link or a pipe with this name.
            None => match fs::symlink_metadata(&path) {
                Ok(_) => return Err(CorpusError::new(path, "not a regular file")),
                Err(_) => return Ok(Self::default()),
            },
        }
        let text = fs::read_to_string(&path).map_err(|error| CorpusError::io(&path, error))?;
        serde_json::from_str(&text).map_err(|error| {
            let message = error.to_string();
            let message = message
                .rsplit_once(" at line ")
                .map_or(&*message, |(why, _)| why);
            let (line, column) = (error.line(), error.column());
            CorpusError::new(format!("{}:{line}:{column}", path.display()), message)
        })
    }

    /// Removes and returns the annotation of a path, or returns an empty one if it has none.
    pub(super) fn take(&mut self, root: &Path, file: &Path) -> Annotation {
        let parts: Option<Vec<_>> = file
            .strip_prefix(root)
            .into_iter()
            .flatten()
            .map(|part| part.to_str())
            .collect();
        parts
            .and_then(|parts| self.path.0.remove(&RelativePath(parts.join("/"))))
            .unwrap_or_default()
    }

    /// Fails unless `take` has removed every annotated path.
    pub(super) fn check(&self, root: &Path) -> Result<(), CorpusError> {
        match self.path.0.keys().min_by_key(|path| &path.0) {
            None => Ok(()),
            Some(RelativePath(path)) => Err(CorpusError::new(
                root.join(NAME),
                format!("the path {path:?} is not a file in the corpus"),
            )),
        }
    }

    /// Returns whether the date of a sample may depend on its hash.
    pub(super) fn has_dates(&self) -> bool {
        self.sha256
            .0
            .values()
            .any(|annotation| annotation.first_seen.is_some())
    }

    pub(super) fn of(&self, sha256: &Sha256) -> Option<&Annotation> {
        self.sha256.0.get(sha256)
    }
}
