use std::fmt;

use super::cases::{Case, Outcome};

/// The result of [`check`](super::check): a [`Verdict`] for each case.
///
/// `Display` prints one line per case, with the failures last, followed by a summary.
#[derive(Debug, Clone)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

impl Report {
    pub(super) fn new(verdicts: Vec<Verdict>) -> Self {
        Self { verdicts }
    }

    /// Returns whether every case passed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Returns the verdicts, in the same order as the table in the [module documentation](super).
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Returns the verdicts of the cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.passed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in self.verdicts.iter().filter(|verdict| verdict.passed) {
            writeln!(f, "{verdict}")?;
        }
        for verdict in self.failures() {
            writeln!(f, "{verdict}")?;
        }
        let all = self.verdicts.len();
        match self.failures().count() {
            0 => write!(f, "all {all} cases passed"),
            failed => write!(f, "{failed} of {all} cases failed"),
        }
    }
}

/// The result of one case. `Display` prints one line.
#[derive(Debug, Clone)]
pub struct Verdict {
    name: &'static str,
    consequence: &'static str,
    passed: bool,
    detail: String,
}

impl Verdict {
    pub(super) fn new(case: &Case, outcome: Outcome) -> Self {
        let passed = outcome.is_ok();
        let (Ok(detail) | Err(detail)) = outcome;
        Self {
            name: case.name,
            consequence: case.consequence,
            passed,
            detail: detail.lines().map(str::trim).collect::<Vec<_>>().join(" "),
        }
    }

    /// Returns the name of the case, such as `redirect-to-another-host`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether the transport passed the case.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// Returns a one-line description of what happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns what can happen to users of a transport that fails the case.
    pub fn consequence(&self) -> &'static str {
        self.consequence
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            detail,
            consequence,
            ..
        } = self;
        match self.passed {
            true => write!(f, "pass  {name}: {detail}"),
            false => write!(
                f,
                "FAIL  {name}: {detail}. Failing this case can mean that {consequence}."
            ),
        }
    }
}
