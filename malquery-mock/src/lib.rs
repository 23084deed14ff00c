//! Test programs that use MalQuery offline.
//!
//! Everything here gives a [`Client`](malquery_proto::Client), the same type as in production, or a
//! [`Transport`](malquery_proto::Transport) for a client with settings of your own.
//!
//! | to test | use |
//! |---|---|
//! | what a program does with a reply or an error | a [`script`] |
//! | that it works with what the service really answers | a [`Session`], which records once and replays for ever |
//! | what it does when one call of a recording goes wrong | [`Cassette::on`] |
//! | what it sends | a [`Transcript`] |
//!
//! # Scripts
//!
//! A [`script`] gives replies and faults in their order, whatever is sent. Requests for tokens are
//! answered without it, and no pause takes time:
//!
//! ```
//! use malquery_mock::{reply, script};
//! use malquery_proto::Client;
//! use malquery_proto::client::Error;
//!
//! // What is tested.
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
//! [`mod@reply`] has a function for each reply of the service, and [`reply::json`] for any other.
//!
//! # Record once, replay for ever
//!
//! In a package of your own, `cargo add --dev malquery-mock`. A test begins a [`Session`] with the
//! path of its cassette, and a function that makes what a live call needs:
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
//! 1. **Record.** Set the credentials of an API client, and run `MALQUERY_MOCK=record cargo test
//!    hunts_are_left`. The cassette is written when the test has passed, and
//!    [`format`](mod@format#what-is-recorded) says what is in it. Read it, and commit it.
//! 2. **Replay.** `cargo test` answers from the cassette from now on. It needs no network and no
//!    credentials, and a job of half an hour takes no time.
//! 3. **When the program changes** and sends something else, the test fails and says what differs.
//!    Record again if that is meant. `MALQUERY_MOCK=append` adds what it sends in addition.
//! 4. **When the service may have changed**, `MALQUERY_MOCK=verify` compares it with the cassette
//!    and writes nothing.
//!
//! Recording, appending and verifying use the monthly quotas as every live call does. See [`Mode`].
//!
//! # Cassettes
//!
//! A [`Cassette`] is a JSON file that people can read and edit. [`mod@format`] explains it, and says
//! which requests it answers. Equal requests are answered in the recorded order, each once, so a
//! job goes from `inprogress` to `done`. A request that nothing answers is an error of the
//! transport, and its message names the closest interaction and what differs. At its end the guard
//! fails the test if there was such a request, or if a reply was not used.
//!
//! ```no_run
//! use malquery_mock::Cassette;
//!
//! let cassette = Cassette::load("tests/cassettes/collect.json")?;
//! let (client, guard) = cassette.client(); // for a test
//! # std::mem::forget(guard);
//! let mock = cassette.with_tokens().transport(); // for a program that replays: nothing panics
//! // … Client::new(mock.clone(), …) …
//! mock.check()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    feature = "service",
    doc = "**A [`Service`]** stands in for MalQuery, and searches files that you name: see [`mod@service`]."
)]
//!
#![cfg_attr(
    feature = "server",
    doc = "**[`conformance::check`]** checks a transport of your own against servers that misbehave."
)]
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `service` | `Service` and the `Corpus` it searches |
//! | `yara` | hunts: YARA rules run over the corpus |
//! | `server` | `Server`, which serves it over HTTP, and `conformance` |

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

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
