//! The `Debug` of errors.

use std::error::Error;
use std::fmt;

/// Writes an error and its sources in one line, since a `main` that returns an error and `unwrap`
/// print its `Debug`.
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

/// Gives errors a `Debug` that reads like `Display`, followed by the sources.
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
