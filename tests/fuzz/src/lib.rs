//! What is fuzzed. Each function takes any bytes and panics when something does not hold. The programs in
//! `fuzz_targets` give them to libFuzzer; the test `fuzz_targets` of the workspace feeds them the seeds.

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

/// Panics when something does not hold for these bytes.
pub type Target = fn(&[u8]);

/// All of them, by name. The seeds of each are in a folder of that name.
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
