//! A checked download written to a file, whole or not at all. The one place of this crate that touches files.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::client::{Client, Clock, Download, Error, Transport};
use crate::operation::StreamOperation;
use crate::stream::Received;

/// How much is read and written at a time.
const CHUNK: usize = 64 * 1024;

/// A file to be written whole or not at all.
///
/// Until it is complete it stands beside its target under another name, readable by its owner alone and not
/// executable. Dropping it leaves nothing behind. Make it before you ask for what it is to hold, and you are not
/// billed for a download that cannot be written.
///
/// ```
/// # fn example<T: malquery_proto::Transport, C: malquery_proto::Clock>(
/// #     client: &malquery_proto::Client<T, C>,
/// #     sha256: malquery_proto::types::Sha256,
/// # ) -> Result<(), malquery_proto::client::Error> {
/// use std::ops::ControlFlow;
///
/// use malquery_proto::OutputFile;
/// use malquery_proto::operations::GetDownload;
///
/// let output = OutputFile::create("sample.bin", false)?; // refused here, it costs nothing
/// let received = client.save(&GetDownload::new(sha256), output, |bytes, total| {
///     eprintln!("{bytes} of {total:?}");
///     ControlFlow::Continue(())
/// })?;
/// # let _ = received;
/// # Ok(())
/// # }
/// ```
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
    /// [`Error::File`] when there is something already (with `overwrite`: something else than a file or a link to one), or
    /// when no file can be written there.
    pub fn create(path: impl Into<PathBuf>, overwrite: bool) -> Result<Self, Error> {
        let path = path.into();
        match Self::open(&path, overwrite) {
            Ok(file) => Ok(Self {
                path,
                file,
                overwrite,
            }),
            Err(error) => Err(Error::File { path, error }),
        }
    }

    fn open(path: &Path, overwrite: bool) -> io::Result<NamedTempFile> {
        Self::check(path, overwrite)?;
        part(folder(path))
    }

    fn check(path: &Path, overwrite: bool) -> io::Result<()> {
        // `Path` overlooks these two, and they are found out only when the file is renamed.
        let text = path.to_string_lossy();
        let names_a_folder = ["/", "/."].iter().any(|end| text.ends_with(end));
        if path.file_name().is_none() || names_a_folder {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it names a folder, not a file",
            ));
        }
        match path.symlink_metadata() {
            Ok(found) if !overwrite => {
                let what = if found.is_dir() { "a folder" } else { "a file" };
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("there is {what} of that name"),
                ));
            }
            // Also at the end of a link, such as `/dev/stdout`: what takes its place would be a file.
            Ok(found) if !(found.is_file() || found.is_symlink() && leads_to_file(path)) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "what is there is no file",
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A name that is too long, say.
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Where it is to appear.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it stands until it is complete, for a program that may be ended before it can drop this.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Begins anew.
    fn clear(&mut self) -> Result<(), Error> {
        let file = self.file.as_file_mut();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map(drop)
            .map_err(|error| Error::File {
                path: self.path.clone(),
                error,
            })
    }

    /// A second handle of the file, at its beginning.
    #[cfg(feature = "archive")]
    pub(crate) fn reader(&mut self) -> Result<fs::File, Error> {
        let file = self.file.as_file_mut();
        let reader = file.seek(SeekFrom::Start(0)).and_then(|_| file.try_clone());
        reader.map_err(|error| Error::File {
            path: self.path.clone(),
            error,
        })
    }

    #[cfg(feature = "archive")]
    pub(crate) fn overwrites(&self) -> bool {
        self.overwrite
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        let Self {
            path,
            file,
            overwrite,
        } = self;
        persist(file, &path, overwrite).map_err(|error| Error::File { path, error })
    }
}

/// Whether there is a folder to write into.
#[cfg(feature = "archive")]
pub(crate) fn check_folder(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is no folder",
        )),
        Err(error) => Err(error),
    }
    .map_err(|error| Error::File {
        path: path.to_owned(),
        error,
    })
}

/// Opens a file to read it, and tells its length.
#[cfg(feature = "archive")]
pub(crate) fn open(path: &Path) -> Result<(fs::File, u64), Error> {
    let open = || {
        let file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open().map_err(|error| Error::File {
        path: path.to_owned(),
        error,
    })
}

/// Lets a file that is complete appear.
fn persist(file: NamedTempFile, path: &Path, overwrite: bool) -> io::Result<()> {
    file.as_file().sync_all()?;
    if overwrite {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    }
    .map_err(|error| error.error)?;
    // The name is on the disk once the folder is. Not every system can sync one.
    if let Ok(folder) = fs::File::open(folder(path)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A file that is not complete: readable and writable by its owner alone, and gone when it is dropped.
fn part(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".malquery-")
        .suffix(".part")
        .tempfile_in(folder)
}

/// A file of a folder that gets its name once its bytes are known. Otherwise as [`OutputFile`].
#[cfg(feature = "archive")]
#[derive(Debug)]
pub(crate) struct UnnamedFile(NamedTempFile);

#[cfg(feature = "archive")]
impl UnnamedFile {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        part(folder).map(Self)
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Lets it appear as `path`, in the folder it was made in. Tells whether it does: a file that is there already
    /// and has the same bytes is left as it is.
    pub(crate) fn name(self, path: &Path, received: Received, overwrite: bool) -> io::Result<bool> {
        if holds(path, received) {
            return Ok(false);
        }
        match OutputFile::check(path, overwrite).and_then(|()| persist(self.0, path, overwrite)) {
            // Another process was faster.
            Err(_) if holds(path, received) => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Whether there is a file with these bytes. A link is none.
#[cfg(feature = "archive")]
fn holds(path: &Path, received: Received) -> bool {
    let is_alike = |found: fs::Metadata| found.is_file() && found.len() == received.bytes;
    path.symlink_metadata().is_ok_and(is_alike) && digest(path).is_ok_and(|found| found == received)
}

/// What is in a file.
#[cfg(feature = "archive")]
pub(crate) fn digest(path: &Path) -> Result<Received, Error> {
    use sha2::{Digest, Sha256};

    let read = || {
        let mut file = fs::File::open(path)?;
        let (mut bytes, mut hasher) = (0, Sha256::new());
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&chunk[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let sha256 = crate::types::Sha256::from_bytes(hasher.finalize().into());
        Ok(Received { bytes, sha256 })
    };
    read().map_err(|error| Error::File {
        path: path.to_owned(),
        error,
    })
}

/// Whether a link leads to a file, or nowhere.
fn leads_to_file(link: &Path) -> bool {
    link.metadata().map_or(true, |found| found.is_file())
}

/// The folder of a file. An empty parent is the current directory.
fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

impl<B: Read> Download<B> {
    /// Writes the download to a file that was made before, and appears when it is complete and found to be right, or not at
    /// all. [`Client::save`] also begins anew when the bytes break off.
    ///
    /// # Errors
    /// [`Error::Stream`] or [`Error::Body`] when the download is not whole, [`Error::File`] when the file cannot be
    /// written. In all cases nothing is left behind.
    pub fn write_to(mut self, mut output: OutputFile) -> Result<Received, Error> {
        let received = copy(&mut self, &mut output, |_| ControlFlow::Continue(()))?;
        output.finish()?;
        Ok(received)
    }
}

impl<T: Transport, C: Clock> Client<T, C> {
    /// Downloads into a file that was made before. A download that breaks off is begun anew, as the retry policy
    /// allows; one with the wrong bytes is not, since they would be the same. See [`GetDownload`] for what another
    /// try of a sample may cost.
    ///
    /// `progress` is told the bytes that were read and, if it was declared, their total, and may end the download.
    ///
    /// [`GetDownload`]: crate::operations::GetDownload
    ///
    /// # Errors
    /// As [`Client::open`] and [`Download::write_to`]. In all cases nothing is left behind.
    pub fn save<O: StreamOperation>(
        &self,
        operation: &O,
        mut output: OutputFile,
        progress: impl FnMut(u64, Option<u64>) -> ControlFlow<()>,
    ) -> Result<Received, Error> {
        let received = self.fetch(operation, &mut output, progress)?;
        output.finish()?;
        Ok(received)
    }

    /// Downloads into a file that does not appear yet.
    pub(crate) fn fetch<O: StreamOperation>(
        &self,
        operation: &O,
        output: &mut OutputFile,
        mut progress: impl FnMut(u64, Option<u64>) -> ControlFlow<()>,
    ) -> Result<Received, Error> {
        let mut flow = self.call_flow();
        loop {
            let mut download = self.open_in(&mut flow, operation)?.output;
            let total = download.length();
            match copy(&mut download, output, |bytes| progress(bytes, total)) {
                Ok(received) => return Ok(received),
                Err(error) => {
                    if !(error.is_retryable() && flow.broke_off(self.clock().now())) {
                        return Err(error);
                    }
                    log::debug!("the download broke off and is begun anew: {error}");
                    output.clear()?;
                }
            }
        }
    }
}

/// Copies a download into a file, and checks that it is whole.
fn copy<B: Read>(
    download: &mut Download<B>,
    output: &mut OutputFile,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Received, Error> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match download.read(&mut chunk) {
            Ok(0) => {
                return download
                    .received()
                    .ok_or(Error::Body(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(count) => {
                let written = output.file.write_all(&chunk[..count]);
                written.map_err(|error| Error::File {
                    path: output.path.clone(),
                    error,
                })?;
                bytes += count as u64;
                if progress(bytes).is_break() {
                    return Err(Error::Stopped);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::of_download(error)),
        }
    }
}
