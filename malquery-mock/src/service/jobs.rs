//! Jobs: the work that a submission starts, and its outcome.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::Timestamp;
use malquery_proto::types::Pattern;
use serde_json::Value;

use super::archive::Archive;
use super::ask::Fields;
use super::corpus::Found;

/// The maximum number of jobs that wait or run at once.
const MAX_UNFINISHED: usize = 64;
/// The maximum number of jobs that run at once, and of requests that search the corpus at once.
const MAX_WORKING: usize = 4;
/// The maximum number of jobs that are kept. Further jobs displace the oldest ones.
const MAX_KEPT: usize = 1000;
/// The maximum time that a request waits for a job to finish.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) enum Kind {
    Search(Vec<Pattern>),
    #[cfg(feature = "yara")]
    Hunt {
        text: String,
        rule: String,
    },
    Archive,
}

pub(super) struct Job {
    pub(super) id: String,
    pub(super) submitted: Timestamp,
    pub(super) kind: Kind,
    /// The options to repeat in the status of the job.
    pub(super) options: Option<Value>,
    pub(super) fields: Fields,
    pub(super) polls: AtomicU64,
    receiver: Mutex<Receiver<Outcome>>,
    outcome: OnceLock<Outcome>,
}

pub(super) enum Outcome {
    Found(Found),
    Archive(Archive),
    Failed(String),
}

impl Job {
    /// Returns the outcome of the job, or `None` if it does not finish within [`PATIENCE`].
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        // Another request may hold the lock while it waits.
        let end = Instant::now() + PATIENCE;
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        if self.outcome.get().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            let outcome = match receiver.recv_timeout(left) {
                Ok(outcome) => outcome,
                Err(RecvTimeoutError::Timeout) => return None,
                // The thread panicked or could not be started.
                Err(RecvTimeoutError::Disconnected) => {
                    Outcome::Failed("the job ended unexpectedly".into())
                }
            };
            let _ = self.outcome.set(outcome);
        }
        self.outcome.get()
    }
}

/// The jobs that are kept, oldest first.
#[derive(Default)]
pub(super) struct Jobs {
    kept: VecDeque<Arc<Job>>,
    gate: Arc<Gate>,
    /// Each unfinished job holds a clone.
    unfinished: Arc<()>,
    /// The number of jobs submitted so far.
    pub(super) count: u64,
}

impl Jobs {
    pub(super) fn find(&self, id: &str) -> Option<Arc<Job>> {
        self.kept.iter().find(|job| job.id == id).cloned()
    }

    pub(super) fn is_full(&self) -> bool {
        Arc::strong_count(&self.unfinished) > MAX_UNFINISHED
    }

    pub(super) fn start(
        &mut self,
        id: String,
        submitted: Timestamp,
        kind: Kind,
        options: Option<Value>,
        fields: Fields,
        work: impl FnOnce() -> Result<Outcome, String> + Send + 'static,
    ) {
        let (sender, receiver) = mpsc::channel();
        let (gate, unfinished) = (self.gate.clone(), self.unfinished.clone());
        let run = move || {
            let _turn = gate.enter();
            let _ = sender.send(work().unwrap_or_else(Outcome::Failed));
            drop(unfinished);
        };
        // If the thread cannot be started, the sender is dropped and the job fails.
        let name = "malquery-job".to_owned();
        let _ = thread::Builder::new().name(name).spawn(run);
        if self.kept.len() >= MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Job {
            id,
            submitted,
            kind,
            options,
            fields,
            polls: AtomicU64::new(0),
            receiver: Mutex::new(receiver),
            outcome: OnceLock::new(),
        }));
    }
}

/// Lets up to [`MAX_WORKING`] threads work at once. Further threads wait.
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
        let working = &self.0.working;
        *working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}
