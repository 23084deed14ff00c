//! Checks a [`Transport`] of your own against servers that misbehave.
//!
//! A transport that makes a mistake can bill a hunt twice or store half a sample. [`check`] runs 42
//! cases over loopback sockets in about two seconds. It needs no network and no credentials. Each
//! case has a server and a transport of its own.
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
//! 1 of 42 cases failed
//! ```
//!
//! # What is checked
//!
//! | case | what the transport must do |
//! |---|---|
//! | `get-without-a-body` | send a GET without `content-length`, with the right `host` |
//! | `post-with-its-exact-body` | send the bytes of a body as they are, with `content-length` |
//! | `uri-unchanged` | send path and query as they are |
//! | `request-headers-unchanged` | send every header once and as it is, also a repeated one |
//! | `https-is-encrypted` | send nothing to an `https` URL without TLS |
//! | `post-sent-once` | send a POST once, even if the connection breaks |
//! | `stale-connection` | send a POST over an open connection, not over one that the service has closed |
//! | `concurrent-requests` | give each thread its own reply |
//! | `client-errors-are-replies` | return a 4xx as a reply |
//! | `server-errors-are-replies` | return a 5xx as a reply |
//! | `interim-replies` | skip 100 and 103 and return the final reply; a library that cannot skip them may fail with `unknown` |
//! | `redirect-to-the-same-host` | return 301, 302, 303, 307 and 308, and follow none of them |
//! | `redirect-to-another-host` | the same |
//! | `reply-headers-unchanged` | pass every header on as it is, also a repeated one |
//! | `body-with-a-length` | pass every byte on, and end with the length |
//! | `chunked-body` | pass the bytes of the chunks on |
//! | `body-until-close` | accept HTTP/1.0 and a body without a length |
//! | `reply-without-a-body` | end a 204 and a 304 with their heads |
//! | `body-longer-than-its-length` | pass on no byte after the length |
//! | `streams-a-body-with-a-length` | pass bytes on as they arrive |
//! | `streams-a-chunked-body` | pass a chunk on when it has arrived |
//! | `two-replies-at-a-time` | send a request while the body of another reply is being read |
//! | `identity-is-left-alone` | decode nothing if the request has `accept-encoding: identity` |
//! | `decoded-body-without-its-old-length` | remove `content-length` and `content-encoding` from what it decodes |
//! | `refused-connection` | fail with [`not_sent`](TransportError::not_sent) |
//! | `failed-lookup` | the same |
//! | `reset-before-the-reply` | fail with [`unknown`](TransportError::unknown) |
//! | `closed-before-the-reply` | the same |
//! | `closed-in-the-head` | the same |
//! | `reset-in-the-head` | the same |
//! | `silent-service` | fail with `unknown` when the [`TimeLeft`] is over |
//! | `service-that-does-not-read` | the same, while a long body is being sent |
//! | `endless-head` | the same, though bytes arrive |
//! | `stalled-body` | fail when the `TimeLeft` is over, also in a body |
//! | `dripping-body` | the same, though bytes arrive |
//! | `no-time-left` | fail at once, and not panic |
//! | `endless-time-left` | accept a `TimeLeft` of millions of years |
//! | `cut-body-with-a-length` | fail, or pass the `content-length` on: the client compares it |
//! | `cut-chunked-body` | fail: nothing else shows that bytes are missing |
//! | `malformed-chunks` | fail, and not panic |
//! | `reset-in-a-body` | fail, even if the body has no length (not checked on macOS) |
//! | `hostile-heads` | return anything or fail with `unknown`, and not panic or hang |
//!
//! # What is not checked
//!
//! - Certificates: the servers do not speak TLS. A client checks them unless you turn that off.
//! - The time that a transport waits for a request without [`TimeLeft`].
//! - Proxies. If the environment names one that is used for loopback addresses, every case fails.

mod cases;
mod report;
mod servers;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use malquery_proto::{BaseUrl, Transport};
#[cfg(doc)]
use malquery_proto::{TransportError, client::TimeLeft};

pub use report::{Report, Verdict};

/// The time in which all cases must end.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs every case over transports that `make` returns.
///
/// `make` is called once for each case, with the base URL of its server. It may also return clones
/// of one transport. The cases run in parallel.
///
/// A transport that panics or hangs fails its case. The check ends 10 seconds after the last case
/// has started, and leaves the thread of a transport that hangs behind.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_every_case_in_order() {
        let table: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
            .filter(|name| cfg!(any(target_os = "linux", windows)) || *name != "reset-in-a-body")
            .collect();
        let cases: Vec<_> = cases::all().map(|case| case.name).collect();
        assert_eq!(table, cases);
    }
}
