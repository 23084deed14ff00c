use std::io;
use std::path::{Path, PathBuf};

use super::report::ArchiveError;
use crate::atomic_file::AtomicFile;
use crate::stream::Received;

/// A destination for extracted samples.
pub(super) trait Store {
    /// A sample that is being written. Dropping it deletes the sample.
    type Part;

    fn begin(&mut self) -> Result<Self::Part, ArchiveError>;
    fn write(&mut self, part: &mut Self::Part, bytes: &[u8]) -> Result<(), ArchiveError>;
    /// Stores a complete sample. Returns its file, and whether the file already existed.
    fn keep(
        &mut self,
        part: Self::Part,
        received: Received,
    ) -> Result<(Option<PathBuf>, bool), ArchiveError>;
}

pub(super) struct Nowhere;

impl Store for Nowhere {
    type Part = ();

    fn begin(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn write(&mut self, (): &mut (), _: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn keep(&mut self, (): (), _: Received) -> Result<(Option<PathBuf>, bool), ArchiveError> {
        Ok((None, false))
    }
}

pub(super) struct Folder<'a> {
    pub(super) path: &'a Path,
    pub(super) overwrite: bool,
}

impl Folder<'_> {
    fn error(&self, error: io::Error) -> ArchiveError {
        ArchiveError::File {
            path: self.path.to_owned(),
            error,
        }
    }
}

impl Store for Folder<'_> {
    type Part = AtomicFile;

    fn begin(&mut self) -> Result<Self::Part, ArchiveError> {
        AtomicFile::create(self.path).map_err(|error| self.error(error))
    }

    fn write(&mut self, part: &mut Self::Part, bytes: &[u8]) -> Result<(), ArchiveError> {
        part.write_all(bytes).map_err(|error| self.error(error))
    }

    fn keep(
        &mut self,
        part: Self::Part,
        received: Received,
    ) -> Result<(Option<PathBuf>, bool), ArchiveError> {
        let path = self.path.join(received.sha256.to_string());
        match part.persist_once(&path, received, self.overwrite) {
            Ok(written) => Ok((Some(path), !written)),
            Err(error) => Err(ArchiveError::File { path, error }),
        }
    }
}
