use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::atomic_file::{self, AtomicFile, folder};

/// A file that appears whole or not at all.
///
/// Until it is complete, it has another name in the folder of its target, is readable by its owner
/// alone, and is not executable. Dropping it removes it. Create it before you start a download: if
/// it cannot be written, nothing is billed.
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
    /// Creates a file that will appear at `path`, where nothing may exist.
    ///
    /// # Errors
    /// [`Error::File`] when something exists at `path`, or when no file can be written there.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::create(path.into(), false)
    }

    /// Creates a file that will appear at `path`, and replaces a file that exists there.
    ///
    /// # Errors
    /// [`Error::File`] when something other than a file or a link to one exists at `path`, or when
    /// no file can be written there.
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

    /// Returns the path of the incomplete file, for a program that may end before it drops this
    /// value.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Appends these bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        self.explain(written)
    }

    /// Lets the file appear.
    ///
    /// # Errors
    /// [`Error::File`]. Nothing is left behind.
    pub fn finish(self) -> Result<(), Error> {
        let Self {
            path,
            file,
            overwrite,
        } = self;
        file.persist(&path, overwrite)
            .map_err(|error| Error::File { path, error })
    }

    /// Starts over.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        let cleared = self.file.clear();
        self.explain(cleared)
    }

    /// A second handle of the file, at its beginning.
    pub(super) fn reader(&mut self) -> Result<File, Error> {
        let reader = self.file.reader();
        self.explain(reader)
    }

    pub(super) fn overwrites(&self) -> bool {
        self.overwrite
    }

    fn explain<T>(&self, result: io::Result<T>) -> Result<T, Error> {
        result.map_err(|error| Error::File {
            path: self.path.clone(),
            error,
        })
    }
}
