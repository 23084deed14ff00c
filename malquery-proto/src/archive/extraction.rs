use std::io;
use std::path::{Path, PathBuf};

use super::report::ArchiveError;
use crate::atomic_file::AtomicFile;
use crate::stream::Received;

/// A folder for extracted samples.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a> {
    pub(super) path: &'a Path,
    pub(super) overwrite: bool,
}

/// A sample that is being written to a folder. Dropping it deletes the sample.
pub(super) struct Part<'a> {
    folder: Folder<'a>,
    file: AtomicFile,
}

impl<'a> Part<'a> {
    pub(super) fn begin(folder: Folder<'a>) -> Result<Self, ArchiveError> {
        let file = AtomicFile::create(folder.path).map_err(|error| failed(folder.path, error))?;
        Ok(Self { folder, file })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let result = self.file.write_all(bytes);
        result.map_err(|error| failed(self.folder.path, error))
    }

    /// Stores a complete sample. Returns its path, and whether the same file already existed.
    pub(super) fn keep(self, received: Received) -> Result<(PathBuf, bool), ArchiveError> {
        let Folder { path, overwrite } = self.folder;
        let path = path.join(received.sha256.to_string());
        match self.file.persist_once(&path, received, overwrite) {
            Ok(written) => Ok((path, !written)),
            Err(error) => Err(failed(&path, error)),
        }
    }
}

fn failed(path: &Path, error: io::Error) -> ArchiveError {
    let path = path.to_owned();
    ArchiveError::File { path, error }
}
