//! The kit over good transports and bad ones.

#[path = "conformance/plain.rs"]
mod plain;

use malquery_mock::conformance;
use malquery_ureq::UreqTransport;

#[test]
fn ureq_passes() {
    let report = conformance::check(|_| UreqTransport::new());
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[test]
fn a_plain_socket_passes() {
    let report = conformance::check(|_| plain::Plain);
    println!("{report}");
    assert!(report.passed(), "{report}");
}
