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
    /// Downloads a sample into a new file. Costs one download. The file appears when all bytes
    /// arrived and have the SHA-256. It is raw malware: readable by its owner alone, and not
    /// executable.
    ///
    /// # Errors
    /// As [`Client::save`]. If `path` exists, it fails before anything is billed.
    pub fn download_to(&self, sample: Sha256, path: impl Into<PathBuf>) -> Result<Received, Error> {
        self.save(&GetDownload::new(sample), OutputFile::create_new(path)?, ())
    }

    /// Fetches the archive of a multi-download that is done into a new file. It is a zip with the
    /// password `infected`. A cost is not documented.
    ///
    /// # Errors
    /// As [`Client::save`]. If `path` exists, it fails before anything is sent.
    pub fn samples_to(&self, id: &RequestId, path: impl Into<PathBuf>) -> Result<Received, Error> {
        self.save(
            &GetSamples::new(id.clone()),
            OutputFile::create_new(path)?,
            (),
        )
    }

    /// Downloads into a file that was created before. A download that breaks off is retried as the
    /// retry policy allows. A download with the wrong bytes is not retried, since they would be the
    /// same. See [`GetDownload`] for what another try of a sample may cost.
    ///
    /// # Errors
    /// As [`Client::open`] and [`Download::write_to`]. In all cases nothing is left behind.
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

    /// Downloads into a file that does not appear yet.
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
                    log::debug!("the download broke off and starts over: {error}");
                    output.clear()?;
                }
            }
        }
    }
}

impl Download {
    /// Writes the download to a file that was created before. The file appears when the download is
    /// complete and checked. [`Client::save`] also retries when the bytes break off.
    ///
    /// # Errors
    /// [`Error::Stream`] or [`Error::Body`] when the download is not whole, [`Error::File`] when
    /// the file cannot be written. In all cases nothing is left behind.
    pub fn write_to(mut self, mut output: OutputFile) -> Result<Received, Error> {
        let received = copy(&mut self, &mut output, |_| ControlFlow::Continue(()))?;
        output.finish()?;
        Ok(received)
    }
}

/// Copies a download into a file, and checks that it is whole.
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
                return download.received().ok_or(Error::Body(end.into()));
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
