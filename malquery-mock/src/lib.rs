//! Tools for offline tests of programs that use CrowdStrike Falcon MalQuery.
//!
//! Most of the tools return a [`Client`](malquery_proto::Client), the same type as in production,
//! or a [`Transport`](malquery_proto::Transport) for a client with your own settings.
//!
//! | to test | use |
//! |---|---|
//! | how a program handles a reply or an error | a [`script`] |
//! | that a program works with real replies | a [`Session`], which records and replays them |
//! | how a program handles the failure of a recorded call | [`Cassette::on`] |
//! | which requests a program sends | a [`Transcript`] |
//! | a whole job on your own files | a `Service` (feature `service`) |
//! | your own transport | `conformance::check` (feature `server`) |
//!
//! # Scripts
//!
//! A [`script`] returns replies and faults in order, whatever the requests are. The client in this
//! example gets tokens automatically, and its virtual clock skips the waits between retries:
//!
//! ```
//! use malquery_mock::{reply, script};
//! use malquery_proto::Client;
//! use malquery_proto::client::Error;
//!
//! // The function under test.
//! fn hunts_left(client: &Client) -> Result<u64, Error> {
//!     Ok(client.quotas()?.meta.hunts_left().unwrap_or(0))
//! }
//!
//! let (client, guard) = script([
//!     reply::status(500).times(2),
//!     reply::quotas().set("meta/hunt_count", 98),
//! ])
//! .client();
//! assert_eq!(hunts_left(&client)?, 2);
//! assert_eq!(guard.clock().waits().len(), 2);
//! guard.finish();
//! # Ok::<(), Error>(())
//! ```
//!
//! [`mod@reply`] has functions for common replies. For other JSON replies, use [`reply::json`].
//!
//! # Record and replay
//!
//! A [`Session`] needs the path of its cassette and a function that returns the parts of a live
//! client:
//!
//! ```no_run
//! use malquery_mock::Session;
//! use malquery_ureq::{Auth, Settings, SystemClock, UreqTransport};
//!
//! # /*
//! #[test]
//! # */
//! fn hunts_are_left() {
//!     let (client, guard) = Session::new("tests/cassettes/quotas.json")
//!         .client(|| {
//!             let Settings { base, credentials, .. } = Settings::from_env().unwrap();
//!             (UreqTransport::new(), SystemClock, Auth::new(base, credentials))
//!         })
//!         .unwrap();
//!     let quotas = client.quotas().unwrap();
//!     assert!(quotas.meta.hunts_left().unwrap() > 0);
//!     guard.finish();
//! }
//! ```
//!
//! 1. **Record.** Set `FALCON_CLIENT_ID` and `FALCON_CLIENT_SECRET`, and run `MALQUERY_MOCK=record
//!    cargo test hunts_are_left`. If the test passes, the session writes the cassette. Review it
//!    before you commit it: [`format`](mod@format#what-is-recorded) lists what it may contain.
//! 2. **Replay.** From now on, `cargo test` replays the cassette. It needs no network and no
//!    credentials, and does not wait between the polls of a job.
//! 3. **If your program changes** and sends different requests, the test fails and shows the
//!    differences. If they are intended, record again, or add requests with `MALQUERY_MOCK=append`.
//! 4. **If the service may have changed**, run the test with `MALQUERY_MOCK=verify`. In this mode,
//!    the session compares the structure of live and recorded replies, and writes nothing.
//!
//! All modes except replay can send live requests, which may use quota. See [`Mode`].
//!
//! # Cassettes
//!
//! A [`Cassette`] is a script, or a JSON file that people can read and edit. [`mod@format`]
//! describes the file and how requests are matched. Repeated requests get the recorded replies in
//! order, so a job goes from `inprogress` to `done`. A request without a match fails with an error
//! that explains why. At the end of a test, the guard reports such requests and unused replies.
//!
//! ```no_run
//! use malquery_mock::Cassette;
//!
//! let cassette = Cassette::load("tests/cassettes/collect.json")?;
//! let (client, guard) = cassette.client(); // in a test
//! # std::mem::forget(guard);
//! let mock = cassette.with_tokens().transport(); // in a program: never panics
//! // … Client::new(mock.clone(), …) …
//! mock.check()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    feature = "service",
    doc = "**A [`Service`]** stands in for MalQuery and searches your files: see [`mod@service`]."
)]
//!
#![cfg_attr(
    feature = "server",
    doc = "**[`conformance::check`]** tests your own transport against local servers, including some that misbehave."
)]
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `service` | `Service`, and the `Corpus` that it searches |
//! | `yara` | hunts, which run YARA rules on the corpus of a `Service` |
//! | `server` | `conformance`, and `Server`, which makes a `Service` available over HTTP |

mod cassette;
mod clock;
#[cfg(feature = "server")]
pub mod conformance;
mod diff;
mod digest;
mod json;
mod pseudonym;
mod record;
pub mod reply;
mod script;
#[cfg(feature = "service")]
pub mod service;
mod session;
mod transcript;
mod verify;

pub use cassette::Cassette;
pub use cassette::file as format;
pub use cassette::load::CassetteError;
pub use cassette::overlay::Overlay;
pub use cassette::play::{Mock, MockError, MockGuard, Unfinished};
pub use clock::VirtualClock;
pub use reply::Fault;
pub use script::script;
#[cfg(feature = "server")]
pub use service::Server;
#[cfg(feature = "service")]
pub use service::{Corpus, CorpusError, CorpusSample, Service, Skipped};
pub use session::{Mode, OpenError, Session, SessionGuard, SessionTransport};
pub use transcript::Transcript;

/// Runs the examples in the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
