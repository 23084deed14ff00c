//! A checked download written to a file, whole or not at all. The one place of this crate that touches files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::client::{Download, Error};
use crate::stream::Received;

/// How much is read and written at a time.
const CHUNK: usize = 64 * 1024;

/// A file to be written whole or not at all.
///
/// Until it is complete it stands beside its target under another name, readable by its owner alone and not
/// executable. Dropping it leaves nothing behind. Make it before you ask for what it is to hold, and you are not
/// billed for a download that cannot be written.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: NamedTempFile,
    overwrite: bool,
}

impl OutputFile {
    /// A file that is to appear at `path`. One that is there already is replaced only when `overwrite` is set.
    ///
    /// # Errors
    /// [`Error::File`] when there is something already (with `overwrite`: something else than a file or a link), or
    /// when no file can be written there.
    pub fn create(path: impl Into<PathBuf>, overwrite: bool) -> Result<Self, Error> {
        let path = path.into();
        match Self::open(&path, overwrite) {
            Ok(file) => Ok(Self { path, file, overwrite }),
            Err(error) => Err(Error::File { path, error }),
        }
    }

    fn open(path: &Path, overwrite: bool) -> io::Result<NamedTempFile> {
        // `Path` overlooks these two, and they are found out only when the file is renamed.
        let text = path.to_string_lossy();
        let names_a_folder = ["/", "/."].iter().any(|end| text.ends_with(end));
        if path.file_name().is_none() || names_a_folder {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it names a folder, not a file"));
        }
        match path.symlink_metadata() {
            Ok(found) if !overwrite => {
                let what = if found.is_dir() { "a folder" } else { "a file" };
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("there is {what} of that name"),
                ));
            }
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no file"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A name that is too long, say.
            Err(error) => return Err(error),
        }
        tempfile::Builder::new().prefix(".malquery-").suffix(".part").tempfile_in(folder(path))
    }

    /// Where it is to appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn finish(self) -> Result<(), Error> {
        let Self { path, file, overwrite } = self;
        let finish = || {
            file.as_file().sync_all()?;
            if overwrite { file.persist(&path) } else { file.persist_noclobber(&path) }
                .map_err(|error| error.error)
        };
        finish().map_err(|error| Error::File { path: path.clone(), error })?;
        // The name is on the disk once the folder is. Not every system can sync one.
        if let Ok(folder) = fs::File::open(folder(&path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// The folder of a file. An empty parent is the current directory.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl<B: Read> Download<B> {
    /// Writes the download to a file, which appears when it is complete and found to be right, or not at all.
    /// See [`OutputFile`].
    ///
    /// # Errors
    /// [`Error::Stream`] or [`Error::Body`] when the download is not whole, [`Error::File`] when the file cannot be
    /// written or, without `overwrite`, is there already. In all cases nothing is left behind.
    pub fn to_file(self, path: impl Into<PathBuf>, overwrite: bool) -> Result<Received, Error> {
        self.write_to(OutputFile::create(path, overwrite)?)
    }

    /// Writes the download to a file that was made before.
    ///
    /// # Errors
    /// As [`Download::to_file`].
    pub fn write_to(mut self, mut output: OutputFile) -> Result<Received, Error> {
        let mut chunk = vec![0; CHUNK];
        let received = loop {
            match self.read(&mut chunk) {
                Ok(0) => match self.received() {
                    Some(received) => break received,
                    None => return Err(Error::Body(io::ErrorKind::UnexpectedEof.into())),
                },
                Ok(count) => output
                    .file
                    .write_all(&chunk[..count])
                    .map_err(|error| Error::File { path: output.path.clone(), error })?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        output.finish()?;
        Ok(received)
    }
}
