//! Checks a [`Transport`] of your own against servers that misbehave.
//!
//! [`check`] runs some forty cases over loopback sockets, in about two seconds. It needs no network, no credentials
//! and no runtime. Each case gets a server and a transport of its own.
//!
//! ```
//! use malquery_mock::conformance;
//! use malquery_ureq::UreqTransport;
//!
//! let report = conformance::check(|_base| UreqTransport::new());
//! assert!(report.passed(), "{report}");
//! ```
//!
//! A case that fails says what happened, and what would come of it:
//!
//! ```text
//! pass  client-errors-are-replies: [400, 401, 403, 404, 429] were passed on with their bodies
//! FAIL  redirect-to-another-host: the GET was sent again to the location of a 301. So the token goes to another host.
//! ```
//!
//! # What is checked
//!
//!
//! # What is not checked
//!
//! - Certificates: the servers do not speak TLS. Let your HTTP client check certificates, as it does unless it is
//!   told otherwise.
//! - How long a transport waits for a request without a time limit. Limit the silence between two bytes.
//! - Proxies. A proxy of the environment must not be used for loopback addresses, or every case fails.

mod cases;
mod report;
mod servers;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::{BaseUrl, Transport};

pub use report::{Report, Verdict};

/// The time in which all cases must end.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs every case over transports that `make` returns.
///
/// `make` is called once for each case, with the base URL of its server. It may also return clones
/// of one transport. The cases run in parallel.
///
/// A transport that panics or hangs fails its case; the check ends after 10 seconds at the latest.
/// The thread of a transport that hangs is left behind.
pub fn check<T: Transport + 'static>(mut make: impl FnMut(BaseUrl) -> T) -> Report {
    let (sender, outcomes) = mpsc::channel();
    let mut verdicts: Vec<_> = cases::all().map(|case| (case, None)).collect();
    for (index, (case, outcome)) in verdicts.iter_mut().enumerate() {
        match start(case, &mut make, index, sender.clone()) {
            Ok(()) => {}
            Err(error) => *outcome = Some(Err(error)),
        }
    }
    drop(sender);
    let end = Instant::now() + LIMIT;
    while let Ok((index, outcome)) =
        outcomes.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        verdicts[index].1 = Some(outcome);
    }
    let verdict = |(case, outcome): (_, Option<_>)| {
        let hangs = || Err(format!("the transport hangs: no result after {LIMIT:?}"));
        Verdict::new(case, outcome.unwrap_or_else(hangs))
    };
    Report::new(verdicts.into_iter().map(verdict).collect())
}

/// Runs a case in a thread, which sends its outcome.
fn start<T: Transport + 'static>(
    case: &cases::Case,
    make: &mut impl FnMut(BaseUrl) -> T,
    index: usize,
    sender: mpsc::Sender<(usize, cases::Outcome)>,
) -> Result<(), String> {
    let prepared = (case.prepare)().map_err(|error| format!("no server on loopback: {error}"))?;
    let transport = catch_unwind(AssertUnwindSafe(|| make(prepared.base)))
        .map_err(|panic| format!("no transport: {}", message(&*panic)))?;
    let run = prepared.run;
    let thread = thread::Builder::new()
        .name(case.name.into())
        .spawn(move || {
            // The transport is dropped inside as well.
            let outcome = catch_unwind(AssertUnwindSafe(move || run(&transport)))
                .unwrap_or_else(|panic| Err(format!("the transport {}", message(&*panic))));
            let _ = sender.send((index, outcome));
        });
    thread
        .map(drop)
        .map_err(|error| format!("no thread for the case: {error}"))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}
