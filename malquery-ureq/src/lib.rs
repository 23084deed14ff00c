//! A blocking client for CrowdStrike Falcon MalQuery: [`malquery_proto`] over
//! [`ureq`](https://docs.rs/ureq) and rustls. It needs no async runtime and no OpenSSL.
//!
//! ```no_run
//! use malquery_ureq::operations::FuzzySearch;
//! use malquery_ureq::types::Pattern;
//!
//! // Reads FALCON_CLIENT_ID, FALCON_CLIENT_SECRET and FALCON_CLOUD (us-1 if it is not set).
//! let client = malquery_ureq::from_env()?;
//! let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
//! for sample in &client.fuzzy_search(&search)?.resources {
//!     println!("{sample:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate re-exports all of [`malquery_proto`]. Use [`UreqTransport::builder`] to set time
//! limits, a proxy, headers and root certificates:
//!
//! ```
//! use std::time::Duration;
//!
//! use malquery_ureq::{Auth, Client, Cloud, Credentials, SystemClock, UreqTransport};
//!
//! let transport = UreqTransport::builder()
//!     .proxy("http://proxy.example:3128")
//!     .reply_timeout(Duration::from_secs(90))
//!     .build()?;
//! let auth = Auth::new(Cloud::Us2, Credentials::new("the id", "the secret"));
//! let client = Client::new(transport, SystemClock, auth);
//! # Ok::<(), malquery_ureq::ConfigError>(())
//! ```
//!
//! # Time limits
//!
//! | limit | default | applies to |
//! |---|---|---|
//! | [`Builder::connect_timeout`] | 10 s | opening a connection: name lookup, TCP, proxy and TLS together |
//! | [`Builder::reply_timeout`] | 60 s | each wait to send or receive bytes; the whole head of a reply must arrive within 1.25 times this limit |
//! | [`Builder::search_timeout`] | 180 s | each wait to receive bytes from a fuzzy search; the longer of this limit and the reply timeout applies |
//! | [`Builder::total_timeout`] | none | each request, including the whole body of its reply |
//! | [`RetryPolicy::time_limit`](flow::RetryPolicy::time_limit) | 10 min | each call, including all its attempts and pauses; for a download, each attempt must start within this limit, but the reply may take longer |
//! | [`Client::timeout`] | none | each call, and each wait for a job |
//! | [`Job::timeout`](client::Job::timeout) | the client's timeout | each wait for one job; this limit replaces [`Client::timeout`] |
//! | [`Client::deadline`] | none | all calls, and all waits for jobs |
//!
//! **The earliest limit wins.** No limit extends another, except where the table says so. If a call
//! has a time limit, the transport receives the remaining time as [`TimeLeft`](client::TimeLeft).
//! This time covers every phase of a request: a server or proxy cannot extend the time by sending a
//! byte every so often. [`Duration::MAX`](std::time::Duration::MAX) means no limit.
//!
//! # The environment
//!
//! | variable | meaning |
//! |---|---|
//! | `FALCON_CLIENT_ID`, `FALCON_CLIENT_SECRET`, `FALCON_CLOUD`, ... | see [`Settings`] |
//! | `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` | the proxy; the first variable that is set and not empty applies. `HTTP_PROXY` is ignored, because it is for plain http |
//! | `no_proxy`, `NO_PROXY` | hosts to reach without this proxy; the first variable that is not empty applies. Entries are separated by commas or whitespace. Each entry is a domain such as `example.com` (which includes its subdomains), an address such as `10.1.2.3`, a network such as `10.0.0.0/8` or `2001:db8::/32`, or `*`, optionally followed by `:port` |
//! | `SSL_CERT_FILE` | a file of root certificates in PEM format, trusted in addition to Mozilla's |
//!
//! If the proxy or the certificates are invalid, [`from_env`] and [`Builder::build`] fail. With
//! [`client()`] and [`UreqTransport::new`], each request fails instead.
//!
//! # Behavior
//!
//! - **A reply with an error status is not an error**, and redirects are not followed.
//!   `malquery-proto` handles both kinds of reply.
//! - **Plain http is allowed only for loopback**, and it never uses a proxy.
//! - **Certificates are always verified.**
//! - **A refusal by a proxy is not retried.** Examples are a 407, a 403 and the equivalent SOCKS
//!   replies. Retrying a wrong password could lock the account.
//! - **Replies are not mixed up.** Each fuzzy search and each [`Billed`](endpoint::Resend::Billed)
//!   request, such as a hunt, uses a new connection. After the reply to a token request or a
//!   `Billed` request, the connection is closed. A connection that delivers unrequested bytes is
//!   not reused.
//! - **If connecting fails, no request was sent**, so even a hunt may be retried.
//! - **A broken connection is an error**, never the end of a body. Further reads fail too.
//! - **JSON may be compressed with gzip**, and this crate decompresses it. Downloads are requested
//!   uncompressed. If the service still compresses a download, and another crate enables ureq's
//!   `gzip` feature, ureq decompresses the download; the SHA-256 of a sample is still verified.
//! - **Logs contain no secrets**, with one exception: at the `trace` level, the `ureq_proto` crate
//!   logs the raw bytes of requests and replies, including tokens and samples. Do not enable
//!   `trace` for the log target `ureq_proto`.
//!
//! This crate uses ureq's `unversioned` API, which may change in a minor version of ureq.

mod body;
mod builder;
mod connect;
mod proxy;
mod transport;
mod ureq_error;

#[doc(no_inline)]
pub use http;
#[doc(no_inline)]
pub use malquery_proto::{self, *};

pub use builder::Builder;
pub use malquery_proto::client::{EnvError, Settings};
pub use transport::UreqTransport;
pub use ureq_error::{ConfigError, UreqError, UreqErrorKind};

/// Creates a client from the environment: [`Settings`], the proxy and the root certificates.
///
/// # Errors
/// Fails if the client id or secret is missing, or a variable is invalid. The error names the
/// variable and contains no secrets.
pub fn from_env() -> Result<Client, EnvError> {
    let Settings { base, credentials } = Settings::from_env()?;
    let transport = UreqTransport::builder().build()?;
    Ok(Client::new(
        transport,
        SystemClock,
        Auth::new(base, credentials),
    ))
}

/// Creates a client for a [`Cloud`] or a [`BaseUrl`], with the proxy and the root certificates from
/// the environment.
///
/// If the proxy or the certificates are invalid, each request fails.
///
/// ```
/// use malquery_ureq::{Cloud, Credentials};
///
/// let client = malquery_ureq::client(Cloud::Eu1, Credentials::new("the id", "the secret"));
/// assert_eq!(client.base().as_str(), "https://api.eu-1.crowdstrike.com");
/// ```
pub fn client(base: impl Into<BaseUrl>, credentials: Credentials) -> Client {
    Client::new(
        UreqTransport::new(),
        SystemClock,
        Auth::new(base, credentials),
    )
}

/// Compiles the code in the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
