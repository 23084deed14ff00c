//! A blocking client for CrowdStrike Falcon MalQuery: [`malquery_proto`] over
//! [`ureq`](https://docs.rs/ureq) and rustls. It needs no asynchronous runtime and no OpenSSL.
//!
//! ```no_run
//! use malquery_ureq::operations::FuzzySearch;
//! use malquery_ureq::types::Pattern;
//!
//! // From FALCON_CLIENT_ID, FALCON_CLIENT_SECRET and, unless the account is in us-1, FALCON_CLOUD.
//! let client = malquery_ureq::from_env()?;
//! let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
//! for sample in &client.fuzzy_search(&search)?.resources {
//!     println!("{sample:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All of [`malquery_proto`] is here, too, so a program needs no other crate.
//! [`UreqTransport::builder`] sets time limits, a proxy, headers and root certificates:
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
//! | limit | unless set | bounds |
//! |---|---|---|
//! | [`Builder::connect_timeout`] | 10 s | a new connection: the lookup of the name, TCP, a proxy and TLS together |
//! | [`Builder::reply_timeout`] | 60 s | the silence of the service, until the next byte of a reply. The whole head must arrive within 1.25 times this limit. |
//! | [`Builder::search_timeout`] | 180 s | the same for a fuzzy search; the longer of the two holds |
//! | [`Builder::total_timeout`] | none | one request with the whole body of its reply |
//! | [`RetryPolicy::time_limit`](flow::RetryPolicy::time_limit) | 10 min | one call with all its attempts and pauses, without the body of a download |
//! | [`Client::timeout`] | none | one call, or the wait for one job |
//! | [`Job::timeout`](client::Job::timeout) | as the client's | the wait for this job; it replaces [`Client::timeout`] |
//! | [`Client::deadline`] | none | every call, and every wait for a job |
//!
//! **The earliest end wins.** No limit extends another, except as the table says. What is left of
//! the limits of a call goes to the transport as [`TimeLeft`](client::TimeLeft), and bounds every
//! phase of a request: a server or a proxy that sends a byte now and then gains no time.
//! [`Duration::MAX`](std::time::Duration::MAX) is no limit.
//!
//! # The environment
//!
//! | variable | meaning |
//! |---|---|
//! | `FALCON_CLIENT_ID`, `FALCON_CLIENT_SECRET`, `FALCON_CLOUD`, ... | see [`Settings`] |
//! | `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` | the proxy; the first that is set holds. `HTTP_PROXY` is for plain http, which needs none here |
//! | `no_proxy`, `NO_PROXY` | hosts without a proxy, between commas or spaces: `example.com` with all hosts below it, `10.1.2.3`, `10.0.0.0/8`, `2001:db8::/32`, each with or without `:port`, or `*` |
//! | `SSL_CERT_FILE` | root certificates in PEM form, in addition to Mozilla's |
//!
//! [`from_env`] and [`Builder::build`] refuse a proxy and certificates that cannot be used.
//! [`client()`] and [`UreqTransport::new`] let the first request fail.
//!
//! # Behaviour
//!
//! - **Every status is a reply**, and no redirect is followed: `malquery-proto` decides about both.
//! - **Plain http is for loopback alone**, and never goes through a proxy.
//! - **Certificates are always checked.**
//! - **A proxy's 407 or 403 is final.** A wrong password, sent several times, locks an account.
//! - **A reply answers its own request.** A request that may be billed opens a new connection,
//!   since an idle one may be closed at that moment. The connection of a token is closed after its
//!   reply. A connection with unrequested bytes is closed.
//! - **A failure to connect sends nothing**, so the request is sent again, even a hunt.
//! - **A broken connection is an error**, never the end of a body; reading on repeats the error.
//! - **JSON may come compressed with gzip**, and is decoded here. A sample is asked for as it is.
//!   Should ureq's feature `gzip` be enabled by another crate, ureq decodes a compressed sample;
//!   its SHA-256 is checked all the same.
//! - **Logs show no secret**, with one exception: at level `trace` the target `ureq_proto` dumps
//!   every byte sent and received, tokens and samples included. Keep it at `debug`.
//!
//! The connector uses ureq's `unversioned` interface, which may change in a minor version of ureq.

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

/// Makes a client from the environment: [`Settings`], the proxy and the root certificates.
///
/// # Errors
/// Names the variable that is missing or cannot be used. Shows no secret.
pub fn from_env() -> Result<Client, EnvError> {
    let Settings { base, credentials } = Settings::from_env()?;
    let transport = UreqTransport::builder().build()?;
    Ok(Client::new(
        transport,
        SystemClock,
        Auth::new(base, credentials),
    ))
}

/// Makes a client for a cloud or a URL of your own, with the proxy and the root certificates of the
/// environment.
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

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
