//! The tests of malquery-mock, in one program.

mod collect;
#[cfg(feature = "server")]
mod conformance;
mod corpus;
mod format;
mod play;
mod record;
mod recorder;
#[cfg(feature = "service")]
mod schema;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "service")]
mod service;
mod transcript;
