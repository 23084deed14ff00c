//! A blocking client for CrowdStrike Falcon MalQuery: [`malquery_proto`] over [`ureq`](https://docs.rs/ureq) and
//! rustls. No asynchronous runtime, no OpenSSL.
//!
//! ```no_run
//! use malquery_proto::operations::FuzzySearch;
//! use malquery_proto::types::Pattern;
//!
//! // From FALCON_CLIENT_ID, FALCON_CLIENT_SECRET and, unless the account lives in us-1, FALCON_CLOUD.
//! let client = malquery_ureq::from_env()?;
//! let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
//! for sample in &client.fuzzy_search(&search)?.resources {
//!     println!("{sample:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`from_env`] and [`client`] make a [`Client`], which has all the calls. [`Settings`] reads the
//! environment for programs that have options of their own, and [`UreqTransport::builder`] sets
//! timeouts, a proxy and further root certificates:
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
//! # What is done about ureq, and why
//!
//! - **Every status is a reply.** By default ureq makes errors of 4xx and 5xx without their bodies, and those hold
//!   the reason and the trace id.
//! - **No redirect is followed**, and a redirect is no error either: `malquery-proto` decides about the 308 with
//!   which the token endpoint names another cloud.
//! - **Plain http is for loopback alone**, and then without a proxy, whatever the environment says: a proxy would
//!   carry it, and the credentials in it, over the network.
//! - **A request without a body is sent without one.** Of an empty `Vec` ureq makes `content-length: 0`, even on
//!   a GET. A POST keeps it: with no body at all ureq would send it chunked.
//! - **Certificates are checked, always.** Root certificates can be added to the built-in ones. Those of ureq are
//!   used either in full or not at all, so they are joined with yours here.
//! - **gzip is decoded here, not by ureq.** ureq decodes whatever arrives compressed and takes the header away. A
//!   sample is asked for as it is; when it comes compressed all the same, that must be seen, since its bytes
//!   are about to be checked. (Should another crate of your program enable ureq's `gzip`, ureq decodes such a
//!   reply. The checksum of gzip and the SHA-256 of a sample still hold.)
//! - **A request that may be billed opens its own connection.** The service may have closed an idle one just then,
//!   and it would be unknown whether it saw the request.
//! - **What surely was not sent is known.** A broken connection looks the same to ureq before and after the
//!   request went out. So its resolver and connector are wrapped here, and mark what fails before there is a
//!   connection. They are of ureq's `unversioned` interface, which may change in a minor version of ureq.
//! - **A broken connection is not the end of a body.** ureq takes a reset, or TLS cut off without notice, for the
//!   end of a body that declares no length. Only an end by plain TCP's own rules cannot be told apart, and plain
//!   TCP is for loopback.
//! - **Errors have a source.** ureq's do not.
//! - **A body is read 512 KiB at a time**, four times of what ureq does: large downloads are faster.
//! - **An error in a body stays.** After one, ureq reports the end of the body to who reads on.
//! - **There are timeouts.** ureq has none. See [`Builder`].
//! - **Logs show no secret, but for one level of one crate**: at `trace`, and only there, `ureq_proto` (which ureq is
//!   built on) dumps every byte it sends and receives, tokens and samples among them. A library cannot turn that
//!   off. Keep that target at `debug` in the logger you install.
//! - **A user agent is checked.** ureq panics on one that is not a header.

mod body;
mod connect;
mod transport;
mod ureq_error;

#[doc(no_inline)]
pub use http;
#[doc(no_inline)]
pub use malquery_proto::{self, *};

pub use malquery_proto::client::{EnvError, Settings};
use transport::environment_proxy;
pub use transport::{Builder, UreqTransport};
pub use ureq_error::{ConfigError, UreqError};

/// A client with the [`Settings`] of the environment: `FALCON_CLIENT_ID`, `FALCON_CLIENT_SECRET`,
/// `FALCON_CLOUD` (or `FALCON_BASE_URL`) and `FALCON_MEMBER_CID`. The proxy comes from the
/// environment as well.
///
/// # Errors
/// Names the variable that is missing or not valid. It does not show the secret.
pub fn from_env() -> Result<Client, EnvError> {
    let Settings { base, credentials } = Settings::from_env()?;
    let proxy = environment_proxy().map_err(EnvError::Proxy)?;
    let transport = UreqTransport::through(proxy);
    Ok(Client::new(
        transport,
        SystemClock,
        Auth::new(base, credentials),
    ))
}

/// A client for a cloud, or for a URL of your own.
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

/// The README's code compiles.
#[cfg(all(doctest, feature = "samples"))]
#[doc = include_str!("../README.md")]
struct Readme;
