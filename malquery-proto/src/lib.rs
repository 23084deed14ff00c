//! CrowdStrike Falcon **MalQuery** without I/O: search a corpus of malware samples by bytes,
//! strings and YARA rules, and download samples.
//!
//! This crate builds `http::Request`s and reads `http::Response`s. It opens no socket. Without
//! features it reads no clock, starts no thread, draws no random number and touches no file.
//! `malquery-ureq` adds a transport, `malquery-mock` what tests need.
//!
//! The crate has three layers, and each works without the next.
//!
//! # 1. Operations
//!
//! [`operations`] has a type for each of the nine operations, and [`types`] the values in them. A
//! request is checked before it is sent. A reply is read leniently: unknown fields are kept.
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use malquery_proto::credentials::BearerToken;
//! use malquery_proto::operation::{JsonOperation, Operation};
//! use malquery_proto::operations::FuzzySearch;
//! use malquery_proto::reply::ResponseHead;
//! use malquery_proto::types::{Label, Pattern};
//! use malquery_proto::{BaseUrl, Cloud};
//!
//! let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(1);
//! let request = search.request(&BaseUrl::from(Cloud::Us1), &BearerToken::new("the-token")?)?;
//! assert_eq!(request.uri(), "https://api.crowdstrike.com/malquery/combined/fuzzy-search/v1");
//!
//! // … send it, and read the reply:
//! let headers = HeaderMap::new();
//! let head = ResponseHead { status: StatusCode::OK, headers: &headers };
//! let reply = search.response(head, br#"{"meta": {}, "resources": [{"label": "malware"}]}"#)?;
//! assert_eq!(reply.resources[0].label, Some(Label::Malware));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # 2. Flows
//!
//! [`flow`] has the state between exchanges: [`Auth`] gets and renews the token,
//! [`CallFlow`](flow::CallFlow) retries a call, and [`JobFlow`](flow::JobFlow) submits a job and
//! waits for its end. A flow says what to do next and takes the outcome, with the time. A job can
//! be stored and continued by another process.
//!
//! # 3. The client
//!
//! [`Client`] drives the flows over a [`Transport`] and a [`Clock`], and blocks. Implement those
//! two for the HTTP client of your choice. An asynchronous program drives the flows itself.
//!
//! # What the client does for you
//!
//! - **Token.** It is requested when needed, renewed two minutes before it expires, and shared
//!   between threads. A 401 leads to one new token and one retry.
//! - **Cloud.** If the token endpoint names another commercial cloud, requests go there. The client
//!   follows once, and only to a host of [`Cloud`], unless [`Auth::follow_region`] forbids it. Name
//!   government clouds yourself.
//! - **Quota.** A hunt, an exact search or a multi-download may be billed, so it is retried only if
//!   the request provably never reached the service. Otherwise the error is
//!   [`FlowError::OutcomeUnknown`](flow::FlowError::OutcomeUnknown).
//! - **Failures** of other calls are retried with growing pauses
//!   ([`RetryPolicy`](flow::RetryPolicy)). Downloads of samples are among them. Whether a failed
//!   download counts is not documented.
//! - **Rate limits.** All threads wait as the service asks. An exhausted monthly quota is an error
//!   at once.
//! - **Jobs.** A submission replies `status: done` before the job starts. Only polls report the
//!   status of the job, and a `failed` job is an error.
//! - **Downloads** stream. The client checks their length and SHA-256, and the beginning and end of
//!   an archive.
//! - **The whole job**, from a rule to verified samples, is one call: `Client::collect`. It
//!   continues after an error or a restart.
//! - **Secrets** appear in no `Debug`, error or stored state, and are wiped from memory on drop.
//!   The body of a token request and the `Authorization` header belong to the transport and are not
//!   wiped.
//!
//! # Design decisions
//!
//! - [`FileType`](types::FileType) is not an enum: neither its list of words nor their case is
//!   documented.
//! - A submission replies `status: done` before the job starts. That field is hidden, in `extra`,
//!   so that nobody takes it for the status of the job.
//! - Fields that only results of jobs have are methods of [`Sample`](types::Sample). That halves
//!   the memory of 100,000 results.
//! - A result or a field that is not understood does not fail the reply. It is kept in `extra`. A
//!   submission without a request id and a token reply without a token are errors.
//! - An operation names the types of its reply, and one function reads them all. The provided
//!   methods of [`Operation`](operation::Operation) are not for overriding.
//! - A fuzzy search is retried and an exact search is not, although the cost of neither is
//!   documented: an exact search leaves a job behind each time.
//! - SHA-256 is always built in: downloads are always verified.
//!
//! # Further reading
//!
//! The module `guide` has chapters on all of this, a FalconPy migration table, a cookbook and
//! troubleshooting. `security` lists what is protected, with the tests that show it; `proof` what
//! was measured; `dependencies` the reason for each dependency, and the licences.
//!
//! # Features
//!
//! No feature is on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `samples` | [`OutputFile`], `Client::save`, `Client::collect` and [`archive`], which reads the archive of samples |
//! | `system` | [`SystemClock`], and [`Settings`](client::Settings) from the `FALCON_*` variables |
//! | `yara` | [`yara`]: compiles a YARA rule and runs it over bytes, in a thread for the sake of its stack |

// The documentation links to items of all features.
#![cfg_attr(
    not(all(feature = "samples", feature = "system", feature = "yara")),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "samples")]
pub mod archive;
#[cfg(feature = "samples")]
mod atomic_file;
pub mod client;
pub mod cloud;
pub mod credentials;
mod debug;
#[cfg(doc)]
#[doc = include_str!("../docs/dependencies.md")]
pub mod dependencies {}
pub mod endpoint;
pub mod error;
pub mod flow;
// The package of tests compiles its code, which uses all crates.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
pub mod needles;
pub mod oauth2;
pub mod operation;
pub mod operations;
#[cfg(doc)]
#[doc = include_str!("../docs/proof.md")]
pub mod proof {}
pub mod reply;
pub mod request;
mod secret;
mod sniff;
#[cfg(doc)]
#[doc = include_str!("../docs/security.md")]
pub mod security {}
pub mod stream;
mod time;
pub mod types;
#[cfg(feature = "yara")]
pub mod yara;

#[cfg(feature = "samples")]
pub use archive::Archive;
#[cfg(feature = "samples")]
pub use client::OutputFile;
#[cfg(feature = "system")]
pub use client::SystemClock;
pub use client::{Body, Client, Clock, Transport, TransportError};
pub use cloud::{BaseUrl, Cloud};
pub use credentials::{BearerToken, Credentials, MemberCid};
pub use flow::Auth;
pub use time::Timestamp;

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
