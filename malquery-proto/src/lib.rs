//! CrowdStrike Falcon **MalQuery** without I/O: a corpus of malware samples, searched by bytes, strings and YARA
//! rules, and downloaded.
//!
//! This crate builds `http::Request`s and reads `http::Response`s. It opens no socket, reads no clock, starts no
//! thread, draws no random number and, but for the feature `fs`, touches no file. (To compile a YARA rule, the feature `yara`
//! takes a thread for the sake of its stack.) `malquery-ureq` adds what it
//! takes to call the service, `malquery-mock` what it takes to test without it.
//!
//! It has three layers, each of use without the next.
//!
//! # 1. Operations
//!
//! [`operations`] has a type for each of the nine, which says what to ask, and [`types`] what they are made of.
//! What you send is checked when it is made, or at the latest before anything is sent; what arrives is read leniently, and
//! nothing of it is lost.
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use malquery_proto::credentials::BearerToken;
//! use malquery_proto::operation::{JsonOperation, Operation};
//! use malquery_proto::reply::ResponseHead;
//! use malquery_proto::operations::FuzzySearch;
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
//! [`flow`] has what outlives one exchange: [`Auth`](flow::Auth) gets and renews the token,
//! [`CallFlow`](flow::CallFlow) tries a call again where that is right, [`JobFlow`](flow::JobFlow) submits a job
//! and waits for its end. They say what to do next and are told what came of it, and when. A job can be stored
//! and taken up by another process.
//!
//! # 3. The client
//!
//! [`Client`] (feature `client`, on by default) drives the flows over a [`Transport`] and a [`Clock`], and blocks.
//! Implement those two for the HTTP client of your choice; an asynchronous program drives the flows itself.
//!
//! # What the client does for you
//!
//! - **The token** is asked for when it is needed and renewed two minutes before it expires. Threads share it.
//!   After a 401 there is one new token and one replay, never more.
//! - **The cloud**: when the token endpoint says that the account lives in another commercial cloud, requests go
//!   there, once, and only to a host of [`Cloud`]; also from a base URL of your own, unless
//!   [`Auth::follow_region`](flow::Auth::follow_region) says no. Government clouds have to be named.
//! - **Quota**: a job that may be billed (a hunt, an exact search, a multi-download) is sent again only if it surely
//!   did not arrive. If that is not known, the error is [`FlowError::OutcomeUnknown`](flow::FlowError::OutcomeUnknown).
//! - **Failures** of everything else are retried, with growing pauses ([`RetryPolicy`](flow::RetryPolicy)). A download of a
//!   sample is among it, whether or not one that failed counts, which is not documented.
//! - **Rate limits** are waited for as the service asks, and hold for all threads. An exhausted monthly quota is
//!   an error at once.
//! - **Jobs**: the reply to a submission says `done` while the job has not begun. Only the requests operation
//!   tells, and a `failed` job is an error.
//! - **Downloads** are checked as they are read: length, SHA-256, and the beginning and end of an archive. They stream.
//! - **The whole job**, from a rule to verified samples, is one call, `Client::collect`, and goes on where it was after an
//!   error or a restart.
//! - **Secrets** are in no `Debug`, no error and no stored state, and are wiped from memory when dropped. (The request
//!   for a token and the `Authorization` headers are not wiped: they belong to the transport.)
//!
//! # Where this departs from what one might expect
//!
//! - [`FileType`](types::FileType) is not an enum but keeps the word as it is written, since neither the list nor
//!   its case is settled.
//! - The `status` of a reply to a submission is no field, so that nobody takes it for the job's. It is in `extra`.
//! - What only results of jobs have, and seldom, are methods of [`Sample`](types::Sample) and no fields. That
//!   halves the size of 100,000 results.
//! - A result, a list or a field that is not understood never fails a reply. It is in `extra`, as received.
//!   The exceptions are the request id of a submission and the token: without them the reply is worth nothing.
//! - A [`Step`](flow::Step) sends or waits; that a flow is done is what its report gives, where the reply is at hand.
//!   There is no third, so that a driver that does both needs no arm for what it does not know.
//! - An operation names the types of its reply, and one function reads them all: there is no `decode` to write. What
//!   [`Operation`](operation::Operation) and its kin provide is not to be replaced.
//! - A fuzzy search is tried again and an exact search is not, though of neither it is documented what it costs: the one
//!   is over with its reply, the other leaves a job behind each time.
//! - SHA-256 is always there: a download that nobody verifies is not on offer.
//!
//! # Further reading
//!
//! The module `guide` goes through all of it, from one request to testing offline and handling samples safely; `security` says
//! what is protected and which test shows it; `proof` what was measured, fuzzed and mutated; `dependencies` why each is there.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `client` | yes | [`Client`], [`Transport`], [`Clock`] |
//! | `fs` | no (`malquery-ureq` turns it on) | [`OutputFile`], `Client::save` |
//! | `archive` | no | [`archive`]: reads the archive of samples, and with `fs` extracts it; and `Client::collect` |
//! | `yara` | no | [`yara`]: compiles a YARA rule and runs it over bytes, without the service |

// Pages of the documentation alone. They show all features, and links lead nowhere in what is built with fewer.
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
