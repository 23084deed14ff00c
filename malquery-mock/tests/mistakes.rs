//! A transport with one mistake fails the cases of that mistake, and no others.

#[path = "conformance/plain.rs"]
mod plain;
#[path = "conformance/wrong.rs"]
mod wrong;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use malquery_mock::conformance;

use self::wrong::{MISTAKES, Wrong};

#[test]
fn a_mistake_fails_no_other_case() {
    let mistakes = Mutex::new(MISTAKES.iter());
    let check = || {
        loop {
            let next = mistakes.lock().unwrap().next();
            let Some((name, mistake, cases)) = next else {
                return;
            };
            let report = conformance::check(|_| Wrong::new(*mistake));
            let failed: BTreeSet<_> = report.failures().map(|verdict| verdict.name()).collect();
            let cases: BTreeSet<_> = cases.iter().copied().collect();
            assert_eq!(failed, cases, "a transport that {name}:\n{report}");
        }
    };
    // They mostly wait.
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(check))));
}
