//! Compiles and runs the code in the documents: `cargo test -p malquery-tests --doc`.

/// The README of the workspace.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The guide, which uses all crates.
#[cfg(doctest)]
#[doc = include_str!("../malquery-proto/docs/guide.md")]
struct Guide;
