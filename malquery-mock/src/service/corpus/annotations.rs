//! What is known of samples beside their bytes: the file `malquery-corpus.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use malquery_proto::types::{Date, Label, Sha256};
use serde::Deserialize;

use super::CorpusError;
use crate::json::{self, Json, Value};

/// The name of the file.
const NAME: &str = "malquery-corpus.json";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Annotation {
    pub(super) first_seen: Option<Date>,
    pub(super) label: Option<Label>,
    pub(super) family: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Annotations {
    sha256: BTreeMap<Sha256, Annotation>,
    path: BTreeMap<RelativePath, Annotation>,
}

/// The path of a file in the corpus, with slashes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
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
            let path = json::quote(&path);
            Err(format!(
                "{path} is not the path of a file in the folder, such as \"a/b.exe\""
            ))
        }
    }
}

impl Annotations {
    /// Takes the file out of those that are samples and reads it.
    pub(super) fn load(root: &Path, files: &mut Vec<PathBuf>) -> Result<Self, CorpusError> {
        let path = root.join(NAME);
        match files.iter().position(|file| *file == path) {
            Some(index) => drop(files.remove(index)),
            // A single file as the corpus, or nothing of this name; a link or a pipe is not read.
            None => match fs::symlink_metadata(&path) {
                Ok(_) => return Err(CorpusError::new(&path, "it is not a regular file")),
                Err(_) => return Ok(Self::default()),
            },
        }
        let text = fs::read_to_string(&path)
            .map_err(|error| CorpusError::io(&path, "it could not be read", error))?;
        let refuse = |(line, column): (usize, usize), message: &str| {
            CorpusError::new(
                format!("{}:{line}:{column}", path.display()).as_ref(),
                message,
            )
        };
        // What serde lets pass: a key that comes twice, and a list of values instead of an object.
        let json = Json::parse(&text)
            .map_err(|error| refuse(json::line_column(&text, error.at), &error.message))?;
        if let Some(list) = first_list(&json) {
            return Err(refuse(
                json::line_column(&text, list.at),
                "a list has no place here",
            ));
        }
        serde_json::from_str(&text).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            refuse((error.line(), error.column()), message)
        })
    }

    /// What is said of a file.
    pub(super) fn take(&mut self, root: &Path, file: &Path) -> Annotation {
        let parts: Option<Vec<_>> = file
            .strip_prefix(root)
            .into_iter()
            .flatten()
            .map(|part| part.to_str())
            .collect();
        parts
            .and_then(|parts| self.path.remove(&RelativePath(parts.join("/"))))
            .unwrap_or_default()
    }

    /// Refuses what is said of files that are not there.
    pub(super) fn check(&self, root: &Path) -> Result<(), CorpusError> {
        match self.path.keys().next() {
            None => Ok(()),
            Some(RelativePath(path)) => Err(CorpusError::new(
                &root.join(NAME),
                format!("path: {} is not a file of the corpus", json::quote(path)),
            )),
        }
    }

    /// Whether a date depends on a hash.
    pub(super) fn has_dates(&self) -> bool {
        self.sha256
            .values()
            .any(|annotation| annotation.first_seen.is_some())
    }

    /// What is said of a hash.
    pub(super) fn of(&self, sha256: &Sha256) -> Option<&Annotation> {
        self.sha256.get(sha256)
    }
}

fn first_list(json: &Json) -> Option<&Json> {
    match &json.value {
        Value::Array(_) => Some(json),
        Value::Object(members) => members.iter().find_map(|(_, value)| first_list(value)),
        _ => None,
    }
}
