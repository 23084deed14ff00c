//! Checks your own [`Transport`] against local servers, including some that misbehave.
//!
//! With a faulty transport, a hunt can be billed twice, or a truncated sample can look complete.
//! [`check`] runs 42 cases (41 on some systems) over loopback sockets. A good transport passes them
//! in about two seconds. No network and no credentials are needed.
//!
//! ```
//! use malquery_mock::conformance;
//! use malquery_ureq::UreqTransport;
//!
//! let report = conformance::check(|_base| UreqTransport::new());
//! assert!(report.passed(), "{report}");
//! ```
//!
//! For a failed case, the report states what happened and a possible consequence:
//!
//! ```text
//! pass  client-errors-are-replies: the [400, 401, 403, 404, 429] replies were returned with their bodies
//! FAIL  redirect-to-another-host: the transport followed a redirect with status 301 after a GET. Failing this case can mean that the token is sent to another host.
//! 1 of 42 cases failed
//! ```
//!
//! # What is checked
//!
//! | case | the transport must |
//! |---|---|
//! | `get-without-a-body` | send a GET without `content-length` or `transfer-encoding`, with the correct `host` |
//! | `post-with-its-exact-body` | send a body unchanged, with `content-length` |
//! | `uri-unchanged` | send the path and query unchanged |
//! | `request-headers-unchanged` | send all headers unchanged, including repeated ones, and add no duplicates |
//! | `https-is-encrypted` | use TLS for an `https` URL, and fail if the server does not support it |
//! | `post-sent-once` | send a POST once, even if the connection breaks |
//! | `stale-connection` | send a POST over an open connection, not over one that the service has already closed |
//! | `concurrent-requests` | return to each thread the reply to its own request |
//! | `client-errors-are-replies` | return a 4xx as a reply |
//! | `server-errors-are-replies` | return a 5xx as a reply |
//! | `interim-replies` | skip 100 and 103, and return the final reply; if its HTTP library cannot skip them, fail with `unknown` |
//! | `redirect-to-the-same-host` | return 301, 302, 303, 307 and 308 as replies, without following them |
//! | `redirect-to-another-host` | return 301, 302, 303, 307 and 308 as replies, without following them |
//! | `reply-headers-unchanged` | return all headers unchanged, including repeated ones |
//! | `body-with-a-length` | return every byte, and end at the declared length |
//! | `chunked-body` | return the bytes of the chunks, without the chunk sizes |
//! | `body-until-close` | accept HTTP/1.0, and a body that ends when the connection closes |
//! | `reply-without-a-body` | expect no body after the head of a 204 or 304 |
//! | `body-longer-than-its-length` | return no bytes beyond the declared length |
//! | `streams-a-body-with-a-length` | return bytes as they arrive |
//! | `streams-a-chunked-body` | return each chunk as it arrives |
//! | `two-replies-at-a-time` | send a request while the body of an earlier reply is still being read |
//! | `identity-is-left-alone` | not decode the body if the request has `accept-encoding: identity` |
//! | `decoded-body-without-its-old-length` | remove `content-length` and `content-encoding` if it decodes the body |
//! | `refused-connection` | fail with [`not_sent`](TransportError::not_sent) |
//! | `failed-lookup` | fail with `not_sent`, or refuse the URL with `cannot_send` before the lookup |
//! | `reset-before-the-reply` | fail with [`unknown`](TransportError::unknown) |
//! | `closed-before-the-reply` | fail with `unknown` |
//! | `closed-in-the-head` | fail with `unknown` |
//! | `reset-in-the-head` | fail with `unknown` |
//! | `silent-service` | fail with `unknown` once [`TimeLeft`] has passed |
//! | `service-that-does-not-read` | stop sending a long body once `TimeLeft` has passed, and fail with `unknown` |
//! | `endless-head` | fail with `unknown` once `TimeLeft` has passed, even if bytes keep arriving |
//! | `stalled-body` | fail, or end the body before its declared length, once `TimeLeft` has passed |
//! | `dripping-body` | fail, or end the body before its declared length, once `TimeLeft` has passed, even if bytes keep arriving |
//! | `no-time-left` | fail promptly, without a panic |
//! | `endless-time-left` | accept a `TimeLeft` of millions of years |
//! | `cut-body-with-a-length` | fail, or return `content-length` so that the client can detect the missing bytes |
//! | `cut-chunked-body` | fail, because the client cannot detect the missing bytes |
//! | `malformed-chunks` | fail, without a panic |
//! | `reset-in-a-body` | fail, even if the body has no declared length (only on Linux, Android and Windows) |
//! | `hostile-heads` | return any reply or fail with `unknown`, without a panic or a hang |
//!
//! # What is not checked
//!
//! - TLS, because the servers do not support it. Make sure that your transport verifies
//!   certificates. A transport that refuses every `https` URL passes, although it cannot reach the
//!   service.
//! - How long a transport waits for the reply to a request without [`TimeLeft`].
//! - Proxies. If your transport uses a proxy for loopback addresses, some cases fail.

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

/// The time limit for all cases together, measured from the start of the last case.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs all cases with the transports that `make` returns.
///
/// `make` is called for each case, with the base URL of its requests. It may return clones of the
/// same transport. The cases run in parallel.
///
/// A transport that panics or hangs fails its case. The check ends at most 10 seconds after the
/// last case has started. It does not end the thread of a transport that hangs.
pub fn check<T: Transport + 'static>(mut make: impl FnMut(BaseUrl) -> T) -> Report {
    let (sender, outcomes) = mpsc::channel();
    let mut verdicts: Vec<_> = cases::all().map(|case| (case, None)).collect();
    for (index, (case, outcome)) in verdicts.iter_mut().enumerate() {
        if let Err(error) = start(case, &mut make, index, sender.clone()) {
            *outcome = Some(Err(error));
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

/// Starts a thread that runs a case and sends its outcome.
fn start<T: Transport + 'static>(
    case: &cases::Case,
    make: &mut impl FnMut(BaseUrl) -> T,
    index: usize,
    sender: mpsc::Sender<(usize, cases::Outcome)>,
) -> Result<(), String> {
    let prepared =
        (case.prepare)().map_err(|error| format!("cannot start a server on loopback: {error}"))?;
    let transport = catch_unwind(AssertUnwindSafe(|| make(prepared.base)))
        .map_err(|panic| format!("`make` {}", message(&*panic)))?;
    let run = prepared.run;
    let thread = thread::Builder::new()
        .name(case.name.into())
        .spawn(move || {
            // The closure owns the transport, so a panic in its `drop` is also caught.
            let outcome = catch_unwind(AssertUnwindSafe(move || run(&transport)))
                .unwrap_or_else(|panic| Err(format!("the transport {}", message(&*panic))));
            let _ = sender.send((index, outcome));
        });
    thread
        .map(drop)
        .map_err(|error| format!("cannot start a thread for the case: {error}"))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("(no message)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_every_case_in_order() {
        let table: Vec<_> = include_str!("mod.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
            .filter(|name| {
                cfg!(any(target_os = "linux", target_os = "android", windows))
                    || *name != "reset-in-a-body"
            })
            .collect();
        let cases: Vec<_> = cases::all().map(|case| case.name).collect();
        assert_eq!(table, cases);
    }
}
