//! Jobs: what a submission starts, and what polls and fetches find of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::Timestamp;
use malquery_proto::types::{MetaField, Pattern};
use serde_json::Value;
use zip::unstable::write::FileOptionsExt;
use zip::write::SimpleFileOptions;

use super::corpus::{Entry, Found};

/// How many jobs may wait or work at once.
const MAX_PENDING: usize = 64;
/// How many are worked on at once: jobs, and requests that take as much work.
const MAX_WORKING: usize = 4;
/// How many jobs are kept. Beyond that, the oldest finished one is forgotten.
const MAX_KEPT: usize = 1000;
/// How long a poll waits for work that should be over by now.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a job is about, as its status tells.
pub(super) enum Kind {
    Search(Vec<Pattern>),
    #[cfg(feature = "yara")]
    Hunt {
        text: String,
        name: String,
    },
    Archive,
}

pub(super) struct Job {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) options: Option<Value>,
    pub(super) fields: Option<Vec<MetaField>>,
    pub(super) submitted: Timestamp,
    polls: AtomicU64,
    work: Mutex<Work>,
    finished: Condvar,
}

/// What came of a job.
#[derive(Clone)]
pub(super) enum Work {
    Running,
    Found(Arc<Found>),
    Archive(Archive),
    Failed(Arc<str>),
}

impl Job {
    pub(super) fn new(
        id: String,
        kind: Kind,
        options: Option<Value>,
        fields: Option<Vec<MetaField>>,
        submitted: Timestamp,
    ) -> Self {
        let (work, finished) = (Mutex::new(Work::Running), Condvar::new());
        Self {
            id,
            kind,
            options,
            fields,
            submitted,
            polls: AtomicU64::new(0),
            work,
            finished,
        }
    }

    /// Counts a poll, and gives how many came before it.
    pub(super) fn polled(&self) -> u64 {
        self.polls.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// What came of it, after a while at most.
    pub(super) fn outcome(&self) -> Work {
        let end = Instant::now() + PATIENCE;
        let mut work = self.work();
        while matches!(*work, Work::Running) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            work = self
                .finished
                .wait_timeout(work, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        work.clone()
    }

    fn finish(&self, work: Work) {
        *self.work() = work;
        self.finished.notify_all();
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The jobs that are kept, oldest first.
#[derive(Default)]
pub(super) struct Jobs {
    kept: VecDeque<Arc<Job>>,
    pending: Arc<AtomicUsize>,
    /// How many there ever were.
    pub(super) count: u64,
}

impl Jobs {
    pub(super) fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.kept.iter().find(|job| job.id == id).cloned()
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.load(Ordering::SeqCst) >= MAX_PENDING
    }

    /// Keeps a job; what it gives ends when the job is no longer pending.
    pub(super) fn keep(&mut self, job: Arc<Job>) -> Pending {
        if self.kept.len() >= MAX_KEPT
            && let Some(oldest) = self
                .kept
                .iter()
                .position(|job| !matches!(*job.work(), Work::Running))
        {
            self.kept.remove(oldest);
        }
        self.kept.push_back(job.clone());
        self.pending.fetch_add(1, Ordering::SeqCst);
        Pending {
            job,
            count: self.pending.clone(),
        }
    }
}

/// A job whose work is not over. Dropping it ends it, whatever happened.
pub(super) struct Pending {
    job: Arc<Job>,
    count: Arc<AtomicUsize>,
}

impl Pending {
    /// Starts the work in a thread of its own.
    pub(super) fn start(
        self,
        gate: Arc<Gate>,
        work: impl FnOnce() -> Result<Work, String> + Send + 'static,
    ) {
        let run = move || {
            let _turn = gate.enter();
            self.job.finish(match work() {
                Ok(work) => work,
                Err(why) => Work::Failed(why.into()),
            });
        };
        // Without a thread, the closure is dropped, and with it the job fails.
        let _ = thread::Builder::new()
            .name("malquery-job".into())
            .spawn(run);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        if matches!(*self.job.work(), Work::Running) {
            self.job
                .finish(Work::Failed("the work on the job ended early".into()));
        }
    }
}

/// Lets only so many work at once; the others wait.
#[derive(Default)]
pub(super) struct Gate {
    working: Mutex<usize>,
    left: Condvar,
}

impl Gate {
    pub(super) fn enter(self: &Arc<Self>) -> Turn {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let mut working = self
            .left
            .wait_while(working, |working| *working >= MAX_WORKING)
            .unwrap_or_else(PoisonError::into_inner);
        *working += 1;
        Turn(self.clone())
    }
}

pub(super) struct Turn(Arc<Gate>);

impl Drop for Turn {
    fn drop(&mut self) {
        *self
            .0
            .working
            .lock()
            .unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

/// An archive of samples in a temporary file without a name, which is gone when nobody reads it.
#[derive(Clone)]
pub(super) struct Archive {
    file: Arc<Mutex<File>>,
    pub(super) length: u64,
}

impl Archive {
    /// Makes a zip with the password `infected`, which holds each sample under its SHA-256.
    pub(super) fn make(samples: &[Entry]) -> Result<Self, String> {
        let error =
            |error: &dyn std::fmt::Display| format!("the archive could not be made: {error}");
        let mut zip = zip::ZipWriter::new(tempfile::tempfile().map_err(|why| error(&why))?);
        for sample in samples {
            let options = SimpleFileOptions::default()
                // It is read once, and soon.
                .compression_level(Some(1))
                .large_file(sample.size() > u64::from(u32::MAX) / 2)
                .with_deprecated_encryption(b"infected")
                .map_err(|why| error(&why))?;
            zip.start_file(sample.sha256().to_string(), options)
                .map_err(|why| error(&why))?;
            let mut bytes = sample.open().map_err(|why| error(&why))?;
            io::copy(&mut bytes, &mut zip).map_err(|why| error(&why))?;
        }
        let mut file = zip.finish().map_err(|why| error(&why))?;
        file.flush()
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|why| error(&why))
            .map(|length| Self {
                file: Arc::new(Mutex::new(file)),
                length,
            })
    }

    /// Its bytes. Several may read at once.
    pub(super) fn read(&self) -> impl Read + Send + use<> {
        ArchiveReader {
            file: self.file.clone(),
            at: 0,
        }
    }
}

struct ArchiveReader {
    file: Arc<Mutex<File>>,
    at: u64,
}

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at))?;
        let count = file.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}
