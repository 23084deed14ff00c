use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::atomic_file::{self, AtomicFile, folder};

/// An output file that appears only when it is complete.
///
/// Until it is complete, the file has a temporary name in the target folder. On Unix, only its
/// owner can read it, and it is not executable. Dropping an `OutputFile` deletes the incomplete
/// file. Create the `OutputFile` before a download, so that nothing is billed if the file cannot be
/// created.
///
/// ```
/// # fn example(
/// #     client: &malquery_proto::Client,
/// #     sha256: malquery_proto::types::Sha256,
/// # ) -> Result<(), malquery_proto::client::Error> {
/// use malquery_proto::OutputFile;
/// use malquery_proto::client::Progress;
/// use malquery_proto::operations::GetDownload;
///
/// // Fails here, before anything is billed, if the file exists.
/// let output = OutputFile::create_new("sample.bin")?;
/// let received = client.save(&GetDownload::new(sha256), output, |progress: &Progress<'_>| {
///     eprintln!("{:?}", progress.step);
/// })?;
/// println!("{} bytes", received.bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: AtomicFile,
    overwrite: bool,
}

impl OutputFile {
    /// Creates a file that will appear at `path`.
    ///
    /// # Errors
    /// Returns [`Error::File`] if `path` already exists, or if no file can be created there.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::create(path.into(), false)
    }

    /// Creates a file that will appear at `path` and replace any existing file there.
    ///
    /// # Errors
    /// Returns [`Error::File`] if `path` exists but is not a file, or if no file can be created.
    pub fn replace(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::create(path.into(), true)
    }

    fn create(path: PathBuf, overwrite: bool) -> Result<Self, Error> {
        let file = atomic_file::check(&path, overwrite).and_then(|()| {
            atomic_file::remove_abandoned(folder(&path));
            AtomicFile::create(folder(&path))
        });
        match file {
            Ok(file) => Ok(Self {
                path,
                file,
                overwrite,
            }),
            Err(error) => Err(Error::File { path, error }),
        }
    }

    /// Returns the path at which the file will appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the temporary path of the incomplete file. If a program must exit without dropping
    /// the `OutputFile`, it can delete this file first.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Appends bytes to the file.
    ///
    /// # Errors
    /// Returns [`Error::File`] if the bytes cannot be written.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        self.explain(written)
    }

    /// Flushes the file to disk and renames it to its final path.
    ///
    /// # Errors
    /// Returns [`Error::File`] if the file cannot be flushed or renamed. A file that cannot be
    /// flushed is deleted. A file that cannot be renamed is kept under another name if possible,
    /// and the error contains its path.
    pub fn finish(self) -> Result<(), Error> {
        let Self {
            path,
            file,
            overwrite,
        } = self;
        file.persist_or_keep(&path, overwrite)
            .map_err(|error| Error::File { path, error })
    }

    pub(super) fn clear(&mut self) -> Result<(), Error> {
        let cleared = self.file.clear();
        self.explain(cleared)
    }

    /// Returns a second handle to the file, positioned at the beginning.
    pub(super) fn reader(&mut self) -> Result<File, Error> {
        let reader = self.file.reader();
        self.explain(reader)
    }

    pub(super) fn overwrites(&self) -> bool {
        self.overwrite
    }

    pub(super) fn explain<T>(&self, result: io::Result<T>) -> Result<T, Error> {
        result.map_err(|error| Error::File {
            path: self.path.clone(),
            error,
        })
    }
}
