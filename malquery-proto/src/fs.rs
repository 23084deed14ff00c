//! A checked download written to a file, whole or not at all. The one place of this crate that touches files.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Read, Write};
use std::path::Path;

use crate::client::{Download, Error};
use crate::stream::Received;

/// How much is read and written at a time.
const CHUNK: usize = 64 * 1024;

impl<B: Read> Download<B> {
    /// Writes the download to a file, which appears when it is complete and found to be right, or not at all.
    ///
    /// It is written beside the target under another name, readable by its owner alone and not executable, synced
    /// to the disk and then renamed. An existing file is replaced only when `overwrite` is set.
    ///
    /// # Errors
    /// [`Error::Body`] when the download is not whole, [`Error::File`] when the file cannot be written or, without
    /// `overwrite`, is there already. In both cases nothing is left behind.
    pub fn to_file(mut self, path: impl AsRef<Path>, overwrite: bool) -> Result<Received, Error> {
        let path = path.as_ref();
        let failed = |error| Error::File { path: path.to_owned(), error };
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        // An empty parent is the current directory.
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".malquery-")
            .suffix(".part")
            .tempfile_in(folder)
            .map_err(failed)?;
        let mut chunk = vec![0; CHUNK];
        let received = loop {
            match self.read(&mut chunk) {
                Ok(0) => match self.received() {
                    Some(received) => break received,
                    None => return Err(Error::Body(io::ErrorKind::UnexpectedEof.into())),
                },
                Ok(count) => file.write_all(&chunk[..count]).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Body(error)),
            }
        };
        file.as_file().sync_all().map_err(failed)?;
        let persisted = if overwrite { file.persist(path) } else { file.persist_noclobber(path) };
        persisted.map_err(|error| failed(error.error))?;
        // The name is on the disk once the folder is. Not every system can sync one.
        if let Ok(folder) = std::fs::File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(received)
    }
}
