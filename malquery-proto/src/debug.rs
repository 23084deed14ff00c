//! `Debug` for errors.

use std::error::Error;
use std::fmt;

/// Writes an error and its sources, separated by colons. `Debug` uses this, because `unwrap` and a
/// `main` that returns an error print the `Debug` output.
pub(crate) fn with_sources(
    error: &(dyn Error + 'static),
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "{error}")?;
    let mut source = error.source();
    while let Some(error) = source {
        write!(f, ": {error}")?;
        source = error.source();
    }
    Ok(())
}

/// Implements `Debug` for errors: the `Display` output, followed by the sources.
macro_rules! debug_with_sources {
    ($($error:ty),+) => {$(
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::debug::with_sources(self, f)
            }
        }
    )+};
}

pub(crate) use debug_with_sources;
