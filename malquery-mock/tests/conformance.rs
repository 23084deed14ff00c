//! Checks correct transports, and one transport for each mistake.

mod plain;
mod wrong;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, Response};
use malquery_mock::conformance::{self, Report};
use malquery_proto::{Body, Transport, TransportError};
use malquery_ureq::UreqTransport;

use self::plain::Plain;
use self::wrong::{MISTAKES, Wrong};

fn failed(report: &Report) -> BTreeSet<&'static str> {
    report.failures().map(|verdict| verdict.name()).collect()
}

#[test]
fn ureq_passes() {
    let report = conformance::check(|_| UreqTransport::new());
    assert!(report.passed(), "{report}");
    assert!(report.verdicts().len() >= 20);
}

#[test]
fn a_plain_socket_passes() {
    let report = conformance::check(|_| Plain);
    assert!(report.passed(), "{report}");
}

/// Clones share the state of a transport.
#[test]
fn one_transport_for_all_cases_passes() {
    let transport = UreqTransport::new();
    let report = conformance::check(|_| transport.clone());
    assert!(report.passed(), "{report}");
}

#[test]
fn each_mistake_fails_its_cases() {
    let mistakes = Mutex::new(MISTAKES.iter());
    let caught = Mutex::new(BTreeSet::new());
    let check = || {
        loop {
            let next = mistakes.lock().unwrap().next();
            let Some((name, mistake, cases)) = next else {
                return;
            };
            let report = conformance::check(|_| Wrong::new(*mistake));
            let cases: BTreeSet<_> = cases.iter().copied().collect();
            assert_eq!(failed(&report), cases, "a transport that {name}:\n{report}");
            for verdict in report.failures() {
                let line = verdict.to_string();
                assert!(line.starts_with("FAIL"), "{line}");
                assert!(line.contains(verdict.consequence()), "{line}");
            }
            caught.lock().unwrap().extend(cases);
        }
    };
    // The checks mostly wait, so run several at once.
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(check))));
    let report = conformance::check(|_| Plain);
    let all: BTreeSet<_> = report
        .verdicts()
        .iter()
        .map(|verdict| verdict.name())
        .collect();
    assert_eq!(caught.into_inner().unwrap(), all);
}

struct Always(fn() -> Response<Body>);

impl Transport for Always {
    fn send(&self, _: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        Ok((self.0)())
    }
}

#[test]
fn a_transport_that_hangs_fails() {
    let begun = Instant::now();
    let report = conformance::check(|_| {
        Always(|| {
            loop {
                thread::park();
            }
        })
    });
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(
        report.failures().count(),
        report.verdicts().len(),
        "{report}"
    );
    assert!(
        report
            .to_string()
            .contains("get-without-a-body: the transport hangs")
    );
}

#[test]
fn a_transport_that_panics_fails() {
    let report = conformance::check(|_| Always(|| panic!("no\ngood")));
    assert_eq!(
        report.failures().count(),
        report.verdicts().len(),
        "{report}"
    );
    let text = report.to_string();
    let all = report.verdicts().len();
    assert_eq!(text.lines().count(), all + 1, "{text}");
    assert!(
        text.ends_with(&format!("\n{all} of {all} cases failed")),
        "{text}"
    );
    assert!(text.starts_with(
        "FAIL  get-without-a-body: the transport panicked: no good. This can mean: gateways reject a GET"
    ));

    let report = conformance::check(|base| -> Plain { panic!("no transport for {base}") });
    assert_eq!(
        report.failures().count(),
        report.verdicts().len(),
        "{report}"
    );
    assert!(
        report
            .to_string()
            .contains("`make` panicked: no transport for http://127")
    );
}
