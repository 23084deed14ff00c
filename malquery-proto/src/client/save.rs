use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::{Client, Download, Error, Observer, OutputFile, Progress, Step};
use crate::atomic_file::CHUNK;
use crate::operation::StreamOperation;
use crate::operations::{GetDownload, GetSamples};
use crate::stream::Received;
use crate::types::{RequestId, Sha256};

impl Client {
    /// Downloads a sample into a new file. Costs one download. **The file is raw malware.** On
    /// Unix, only its owner can read it, and it is not executable. It appears only after all bytes
    /// have arrived and their SHA-256 has been verified.
    ///
    /// # Errors
    /// See [`Client::save`]. If `path` exists, this fails before anything is billed.
    pub fn download_to(&self, sample: Sha256, path: impl Into<PathBuf>) -> Result<Received, Error> {
        self.save(&GetDownload::new(sample), OutputFile::create_new(path)?, ())
    }

    /// Downloads the archive of a finished multi-download into a new file. The archive is a zip
    /// with the password `infected`. No cost is documented. This does not check the samples in the
    /// archive: see [`Archive::check`](crate::archive::Archive::check).
    ///
    /// # Errors
    /// See [`Client::save`]. If `path` exists, this fails before anything is sent.
    pub fn samples_to(&self, id: &RequestId, path: impl Into<PathBuf>) -> Result<Received, Error> {
        self.save(
            &GetSamples::new(id.clone()),
            OutputFile::create_new(path)?,
            (),
        )
    }

    /// Calls an operation whose reply is a file, and downloads the file into `output`. See the
    /// operation for its cost.
    ///
    /// An interrupted download is retried, within the limits of the retry policy. For a sample, a
    /// retry may cost another download (see [`GetDownload`]). A download with the wrong SHA-256 is
    /// not retried, because the bytes would most likely be wrong again.
    ///
    /// # Errors
    /// See [`Client::open`] and [`Download::write_to`]. Returns [`Error::Stopped`] if the observer
    /// stops the download.
    pub fn save<O: StreamOperation>(
        &self,
        operation: &O,
        mut output: OutputFile,
        mut observer: impl Observer,
    ) -> Result<Received, Error> {
        let received = self.fetch(operation, &mut output, &mut observer)?;
        output.finish()?;
        Ok(received)
    }

    /// Like [`Client::save`], but does not finish the file.
    pub(super) fn fetch<O: StreamOperation>(
        &self,
        operation: &O,
        output: &mut OutputFile,
        observer: &mut dyn Observer,
    ) -> Result<Received, Error> {
        let begun = self.clock().now();
        let mut flow = self.download_flow(operation);
        loop {
            let mut download = self.open_in(&mut flow)?.output;
            let total = download.length();
            let copied = copy(&mut download, output, |bytes| {
                let elapsed = self.clock().now().since(begun);
                observer.observe(&Progress::new(Step::Fetch { bytes, total }, elapsed, None))
            });
            match copied {
                Ok(received) => return Ok(received),
                Err(error) => {
                    if !(error.is_retryable() && flow.broke_off(self.clock().now())) {
                        return Err(error);
                    }
                    log::debug!("restarting the download after an error: {error}");
                    output.clear()?;
                }
            }
        }
    }
}

impl Download {
    /// Writes the download to `output`. The file appears only after the download is complete and
    /// verified. Unlike [`Client::save`], this does not retry an interrupted download.
    ///
    /// # Errors
    /// Returns [`Error::Stream`] or [`Error::Body`] if the download is rejected or interrupted, and
    /// [`Error::File`] if the file cannot be written, or if part of the download has already been
    /// read. After an error, the incomplete file is deleted.
    pub fn write_to(mut self, mut output: OutputFile) -> Result<Received, Error> {
        let received = copy(&mut self, &mut output, |_| ControlFlow::Continue(()))?;
        output.finish()?;
        Ok(received)
    }
}

/// Copies a download into a file. Fails if the download is incomplete or the callback stops it.
fn copy(
    download: &mut Download,
    output: &mut OutputFile,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Received, Error> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match download.read(&mut chunk) {
            Ok(0) => {
                let end = io::ErrorKind::UnexpectedEof;
                let received = download.received().ok_or(Error::Body(end.into()))?;
                if received.bytes != bytes {
                    let why =
                        "the file would be incomplete: part of the download has already been read";
                    output.explain(Err(io::Error::new(io::ErrorKind::InvalidInput, why)))?;
                }
                return Ok(received);
            }
            Ok(count) => {
                output.write_all(&chunk[..count])?;
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
