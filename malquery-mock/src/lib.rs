//! Test programs that use MalQuery offline.
//!
//! Everything here is a [`Transport`](malquery_proto::Transport), so it takes the place of the network below a
//! [`Client`](malquery_proto::Client): the program under test stays as it is, if it takes its client, or the
//! client's transport and clock, from outside.
//!
//! | to see | take |
//! |---|---|
//! | that a program works with what the service really answers | a [`Session`], which records once and replays for ever |
//! | what it makes of an error | a [`script`] of replies and faults, or [`Cassette::on`] to lay them over a recording |
//! | what it sends | a [`Transcript`] |
//!
//! # Record once, replay for ever
//!
//! In a package of your own, `cargo add --dev malquery-mock`. A test begins a [`Session`] with the path of its
//! cassette, and a function that makes what is needed to send something:
//!
//! ```no_run
//! use malquery_mock::Session;
//! use malquery_proto::flow::Auth;
//! use malquery_ureq::{Settings, SystemClock, UreqTransport};
//!
//! # /*
//! #[test]
//! # */
//! fn hunts_are_left() {
//!     let (client, guard) = Session::new("tests/cassettes/quotas.json")
//!         .client(|| {
//!             let Settings { base, credentials } = Settings::from_env().unwrap();
//!             (UreqTransport::new(), SystemClock, Auth::new(base, credentials))
//!         })
//!         .unwrap();
//!     let quotas = client.quotas().unwrap();
//!     assert!(quotas.meta.hunts_left().unwrap() > 0);
//!     guard.finish();
//! }
//! ```
//!
//! 1. **Record.** Set the credentials of an API client, and run `MALQUERY_MOCK=record cargo test hunts_are_left`. The
//!    cassette is written when the test has passed, without secrets: read it, and commit it.
//! 2. **Replay.** `cargo test` answers from the cassette from now on. It needs no network and no credentials, and a
//!    job of half an hour takes no time.
//! 3. **When the program changes** and asks for something else, the test fails and tells what differs. Record anew if
//!    that is meant. `MALQUERY_MOCK=append` is for what it asks for in addition: what was recorded has to be played, too.
//! 4. **When the service may have changed**, `MALQUERY_MOCK=verify` compares it with the cassette and writes nothing.
//!
//! Recording, appending and verifying use the monthly quotas as every live call does. See [`Mode`] for all modes,
//! and [`format`](mod@format#what-is-recorded) for what is written and what becomes of secrets.
//!
//! # Scripts, cassettes, clock and transcript
//!
//! **A [`script`] gives replies and faults in their order**, whatever is asked. It is the quickest way to see
//! how a program takes an error:
//!
//! ```
//! use malquery_mock::{Mock, VirtualClock, reply, script};
//! use malquery_proto::client::Error;
//! use malquery_proto::flow::Auth;
//! use malquery_proto::{Client, Cloud, Credentials};
//!
//! // What is to be tested. It takes any client.
//! fn hunts_left(client: &Client) -> Result<u64, Error> {
//!     let quotas = client.quotas()?;
//!     Ok(quotas.meta.hunt_limit.unwrap_or(0).saturating_sub(quotas.meta.hunt_count.unwrap_or(0)))
//! }
//!
//! fn client(mock: Mock, clock: &VirtualClock) -> Client {
//!     let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
//!     Client::new(mock, clock.clone(), auth)
//! }
//!
//! let (mock, guard) = script([
//!     reply::status(500).times(2),
//!     reply::json(200, serde_json::json!({"meta": {"hunt_limit": 100, "hunt_count": 98}})),
//! ])
//! .with_tokens()
//! .play();
//! let clock = VirtualClock::new();
//! assert_eq!(hunts_left(&client(mock, &clock))?, 2);
//! assert_eq!(clock.waits().len(), 2); // It took two pauses, and no time.
//! guard.finish();
//! # Ok::<(), Error>(())
//! ```
//!
//! **A [`Cassette`] holds whole exchanges**, and answers a request only if it is the recorded one: the same
//! method, path, query, body and kind of authorization. It is a JSON file, and [`mod@format`] explains
//! it. `Cassette::load("tests/cassettes/collect.json")` reads it; here it is a part of the program:
//!
//! ```
//! use malquery_mock::{Cassette, VirtualClock};
//! use malquery_proto::flow::Auth;
//! use malquery_proto::types::RequestId;
//! use malquery_proto::{Client, Cloud, Credentials};
//!
//! let cassette = Cassette::parse("poll.json", r#"{
//!     "version": 1,
//!     "interactions": [
//!         { "id": "running",
//!           "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!           "response": { "status": 200, "body": { "json": { "meta": { "status": "inprogress" } } } },
//!           "times": 2 },
//!         { "id": "done",
//!           "request": { "method": "GET", "uri": "/malquery/entities/requests/v1?ids=a-job" },
//!           "response": { "status": 200, "body": { "json": { "meta": { "status": "done" } } } } }
//!     ]
//! }"#)?;
//! let (mock, guard) = cassette.with_tokens().play();
//! let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
//! let client = Client::new(mock, VirtualClock::new(), auth);
//! let job: RequestId = "a-job".parse()?;
//! let mut seen = Vec::new();
//! for _ in 0..3 {
//!     seen.push(client.request(&job)?.meta.status.as_ref().map(ToString::to_string).unwrap_or_default());
//! }
//! assert_eq!(seen, ["inprogress", "inprogress", "done"]);
//! guard.finish();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Equal requests are answered in the recorded order, each once, so a job goes on from `inprogress` to `done`.
//! A request that nothing answers is an error of the transport, never an invented reply. It is strict at the
//! end, too: [`MockGuard`] fails the test when something else was asked for, even when the program swallowed the
//! error, and when not all was played. Its messages name the closest interaction, and what differs.
//!
//! **A program that replays**, say a command line with an option for it, takes [`Cassette::transport`]: there is
//! no guard, nothing panics, and [`Mock::check`] tells at the end whether all was played.
//!
//! ```no_run
//! use malquery_mock::Cassette;
//!
//! let mock = Cassette::load("demo.json")?.transport();
//! // … Client::new(mock.clone(), …) …
//! mock.check()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A [`VirtualClock`]** jumps instead of waiting, and tells what was waited for.
//!
//! **A [`Transcript`]** goes around any transport and shows what went over it, for a snapshot.
//!
#![cfg_attr(
    feature = "service",
    doc = "**A [`Service`]** stands in for MalQuery, and searches files that you name: see [`mod@service`]."
)]
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `service` | `Service` and the `Corpus` it searches |
//! | `yara` | hunts: YARA rules run over the corpus |
//! | `server` | `Server`, which serves it over HTTP |

mod cassette;
mod clock;
mod diff;
mod digest;
mod drift;
pub mod format;
mod json;
mod matching;
mod overlay;
mod play;
mod pseudonym;
mod record;
mod redact;
pub mod reply;
mod save;
mod secret;
#[cfg(feature = "service")]
pub mod service;
mod session;
mod transcript;

pub use cassette::{Cassette, CassetteError, script};
pub use clock::VirtualClock;
pub use overlay::Overlay;
pub use play::{Mock, MockError, MockGuard, Unfinished};
pub use reply::Fault;
#[cfg(feature = "server")]
pub use service::Server;
#[cfg(feature = "service")]
pub use service::Service;
#[cfg(feature = "service")]
pub use service::{Corpus, CorpusError, CorpusSample, Skipped};
pub use session::{Mode, OpenError, Session, SessionClock, SessionGuard, SessionTransport};
pub use transcript::Transcript;
