//! A sans-I/O client for CrowdStrike Falcon **MalQuery**: search a corpus of malware samples by
//! bytes, strings and YARA rules, and download samples.
//!
//! This crate builds `http::Request`s and parses the replies. It never opens a socket. With no
//! features enabled, it does not read the clock, start threads or touch files. `malquery-ureq` adds
//! a transport, and `malquery-mock` adds tools for tests.
//!
//! The crate has three layers. You can use each layer without the later ones.
//!
//! # 1. Operations
//!
//! [`operations`] has one type for each of the nine operations, and [`types`] has the types of
//! their arguments and results. A request that is known to be invalid cannot be built. Replies are
//! parsed leniently: unknown fields are kept.
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
//! // ... send the request, then parse the reply:
//! let headers = HeaderMap::new();
//! let head = ResponseHead { status: StatusCode::OK, headers: &headers };
//! let reply = search.response(head, br#"{"meta": {}, "resources": [{"label": "malware"}]}"#)?;
//! assert_eq!(reply.resources[0].label, Some(Label::Malware));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # 2. Flows
//!
//! [`flow`] keeps the state between requests: [`Auth`] obtains and renews the token,
//! [`CallFlow`](flow::CallFlow) retries a call, and [`JobFlow`](flow::JobFlow) submits a job and
//! waits for it to finish. A flow returns the next step; you carry it out and report the outcome. A
//! job can be stored, and another process can resume it.
//!
//! # 3. The client
//!
//! [`Client`] is a blocking client that runs the flows with a [`Transport`] and a [`Clock`]. To use
//! an HTTP client of your choice, implement `Transport`. An asynchronous program runs the flows
//! itself.
//!
//! # What the client does for you
//!
//! - **Token.** A client with credentials requests a token when it needs one, replaces a token that
//!   is about to expire, and shares the token with its clones. After a 401, it retries the call
//!   once with a new token.
//! - **Cloud.** If the token endpoint redirects to another commercial cloud, later requests go
//!   there. The client follows one redirect, and only to the host of a known [`Cloud`].
//!   [`Auth::follow_region`] can turn this off. Redirects from or to a government cloud are not
//!   followed: select such a cloud yourself.
//! - **Quota.** A hunt, an exact search or a multi-download may be billed, so it is retried only if
//!   the request provably never reached the service, or was refused with a 401 or a rate limit
//!   (429). After a 5xx, or if the request may have arrived but no complete reply did, the error is
//!   [`FlowError::OutcomeUnknown`](flow::FlowError::OutcomeUnknown).
//! - **Failures.** The other operations, including downloads, are retried with growing pauses, for
//!   example after a 5xx ([`RetryPolicy`](flow::RetryPolicy)). CrowdStrike does not document
//!   whether a failed download counts against the quota.
//! - **Rate limits.** A pause after a 429 applies to all clones of the client. If the monthly quota
//!   is exhausted, the call is not retried.
//! - **Jobs.** The reply to a submission has `status: done` although the job has not finished; only
//!   polls report the status of the job. Waiting for a job that fails returns an error.
//! - **Downloads.** Bodies are streamed. The client checks the declared length, if any, the SHA-256
//!   of a sample, and the beginning and end of an archive.
//! - **All steps in one call.** `Client::collect` runs a search or a hunt, downloads the samples
//!   that it finds, and verifies them. It can resume after an error or a restart.
//! - **Secrets.** They are hidden in `Debug` output, omitted from stored state, wiped from memory
//!   on drop and, if they have at least 6 bytes, masked in errors. The transport owns the body of a
//!   token request and the `Authorization` header; these are not wiped.
//!
//! # Design decisions
//!
//! - [`FileType`](types::FileType) is not an enum, because CrowdStrike does not document a complete
//!   list of names, and their case varies.
//! - The `status` in the reply to a submission is hidden in `extra`, so that nobody mistakes it for
//!   the job's status.
//! - Methods of [`Sample`](types::Sample) return the values that only some job results have. Fields
//!   for these values would double the size of each result.
//! - If a result or a field has an unexpected type, the rest of the reply is still parsed, and the
//!   value is kept in `extra`. A reply to a submission must have a request id, and a token reply
//!   must have a token.
//! - CrowdStrike documents no cost for a fuzzy search or an exact search. If the connection breaks
//!   after the request is sent, only the fuzzy search is retried, because an exact search creates a
//!   job.
//! - SHA-256 is always compiled in, because downloads of samples are always verified.
//!
//! # Further reading
//!
//! The `guide` module has chapters on the topics above, on migrating from FalconPy and on
//! troubleshooting. It also has a cookbook. `security` lists the protections and their tests,
//! `proof` lists the measurements, and `dependencies` lists the licenses and the reason for each
//! dependency.
//!
//! # Features
//!
//! No features are enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `samples` | [`OutputFile`], `Client::save`, `Client::collect` and [`archive`], which reads archives of samples |
//! | `system` | [`SystemClock`], and [`Settings`](client::Settings), which reads the `FALCON_*` environment variables |
//! | `yara` | [`yara`], which compiles YARA rules (in a thread with a large stack) and scans bytes with them |

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
// The package `malquery-tests` compiles the code in the guide, which uses all crates.
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

/// Compiles the code in the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
