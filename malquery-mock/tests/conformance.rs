//! Checks correct transports, and one transport for each mistake.

mod plain;
mod wrong;

use std::thread;
use std::time::{Duration, Instant};

use http::{Request, Response};
use malquery_mock::conformance;
use malquery_proto::{Body, Transport, TransportError};
use malquery_ureq::UreqTransport;

use self::plain::Plain;
use self::wrong::{MISTAKES, Mistake, Wrong};

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

/// Gives each case a transport with a mistake that it must detect. `mistakes.rs` checks that a
/// mistake fails no other case.
#[test]
fn each_case_detects_its_mistakes() {
    let plain: Mistake = |_, request| Plain.send(request);
    let report = conformance::check(|_| Plain);
    let mistakes = |case| {
        let detected = MISTAKES
            .iter()
            .filter(move |mistake| mistake.2.contains(&case));
        detected.map(|(name, mistake, _)| (*name, *mistake))
    };
    let cases: Vec<_> = report
        .verdicts()
        .iter()
        .map(|verdict| verdict.name())
        .collect();
    let rounds = cases
        .iter()
        .map(|case| mistakes(case).count())
        .max()
        .unwrap();
    let check = |round| {
        // The kit asks for the transports in the order of its verdicts.
        let mut transports = cases.iter().map(|case| mistakes(case).nth(round));
        let report = conformance::check(|_| {
            let mistake = transports.next().unwrap();
            Wrong::new(mistake.map_or(plain, |(_, mistake)| mistake))
        });
        for verdict in report.verdicts() {
            let mistake = mistakes(verdict.name()).nth(round).map(|(name, _)| name);
            assert_eq!(
                verdict.passed(),
                mistake.is_none() && round > 0,
                "{mistake:?}: {verdict}"
            );
            let line = verdict.to_string();
            assert_eq!(line.starts_with("FAIL"), !verdict.passed(), "{line}");
            assert!(
                verdict.passed() || line.contains(verdict.consequence()),
                "{line}"
            );
        }
    };
    // They mostly wait.
    thread::scope(|scope| (0..rounds).for_each(|round| drop(scope.spawn(move || check(round)))));
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
        "FAIL  get-without-a-body: the transport panicked: no good. Failing this case can mean that gateways reject a GET"
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
