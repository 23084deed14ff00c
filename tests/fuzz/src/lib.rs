//! The fuzz targets. Each function takes any bytes and panics if it finds a bug. The programs in
//! `fuzz_targets` run them with libFuzzer. The test `fuzz_targets` of the workspace runs them with
//! the seeds.

mod archive;
mod cassette;
mod errors;
mod flows;
mod input;
mod replies;
mod stored;
mod stream;
mod values;

pub use archive::{archive_open, archive_read};
pub use cassette::cassette;
pub use errors::errors;
pub use flows::flows;
pub use replies::replies;
pub use stored::stored;
pub use stream::stream;
pub use values::values;

/// A function that panics if these bytes reveal a bug.
pub type Target = fn(&[u8]);

/// All targets by name. The seeds of each are in the folder of that name.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive_open", archive_open),
    ("archive_read", archive_read),
    ("cassette", cassette),
    ("errors", errors),
    ("flows", flows),
    ("replies", replies),
    ("stored", stored),
    ("stream", stream),
    ("values", values),
];
