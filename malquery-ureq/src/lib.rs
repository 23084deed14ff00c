//! A blocking client for CrowdStrike Falcon MalQuery: [`malquery_proto`] over [`ureq`](https://docs.rs/ureq) and
//! rustls. No asynchronous runtime, no OpenSSL.
//!
//! ```no_run
//! use malquery_proto::operations::FuzzySearch;
//! use malquery_proto::types::Pattern;
//! use malquery_ureq::Client;
//!
//! // From FALCON_CLIENT_ID, FALCON_CLIENT_SECRET and, unless the account lives in us-1, FALCON_CLOUD.
//! let client = Client::from_env()?;
//! let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
//! for sample in &client.fuzzy_search(&search)?.resources {
//!     println!("{sample:?}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Client`] is a client of `malquery-proto` with the parts filled in, and dereferences to it: all calls are
//! documented [there](malquery_proto::Client). [`Settings`] reads the environment for programs that have options
//! of their own, and [`UreqTransport::builder`] sets timeouts, a proxy and further root certificates:
//!
//! ```
//! use std::time::Duration;
//!
//! use malquery_proto::flow::Auth;
//! use malquery_proto::{Cloud, Credentials};
//! use malquery_ureq::{Client, UreqTransport};
//!
//! let transport = UreqTransport::builder()
//!     .proxy("http://proxy.example:3128")
//!     .reply_timeout(Duration::from_secs(90))
//!     .build()?;
//! let auth = Auth::new(Cloud::Us2, Credentials::new("the id", "the secret"));
//! let client = Client::with_transport(transport, auth);
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
mod clock;
mod connect;
mod env;
mod error;
mod transport;

use std::ops::Deref;

use malquery_proto::flow::{Auth, RetryPolicy};
use malquery_proto::{BaseUrl, Credentials, Timestamp};

#[doc(no_inline)]
pub use malquery_proto;

pub use body::Body;
pub use clock::SystemClock;
pub use env::{EnvError, Settings};
pub use error::{ConfigError, UreqError};
use transport::environment_proxy;
pub use transport::{Builder, UreqTransport};

/// A client for MalQuery: [`malquery_proto::Client`] over [`UreqTransport`] and [`SystemClock`].
///
/// It dereferences to that client, which has all the calls. It is a type of its own, and not an alias, only so
/// that there can be [`Client::from_env`]: functions cannot be added to a type of another crate, and that crate
/// does not know of the environment. Where the other type is wanted, `&client` coerces to it, and
/// [`Client::into_inner`] gives it away.
///
/// Threads can share it: they use one token and one rate limit.
#[derive(Debug)]
pub struct Client(malquery_proto::Client<UreqTransport, SystemClock>);

impl Client {
    /// A client with the [`Settings`] of the environment: `FALCON_CLIENT_ID`, `FALCON_CLIENT_SECRET`,
    /// `FALCON_CLOUD` (or `FALCON_BASE_URL`) and `FALCON_MEMBER_CID`. A proxy is taken from the environment, too.
    ///
    /// # Errors
    /// Names the variable that is missing or not valid. It does not show the secret.
    pub fn from_env() -> Result<Self, EnvError> {
        let Settings { base, credentials } = Settings::from_env()?;
        let proxy = environment_proxy().map_err(EnvError::Proxy)?;
        Ok(Self::with_transport(
            UreqTransport::through(proxy),
            Auth::new(base, credentials),
        ))
    }

    /// A client for a cloud, or for a URL of your own.
    ///
    /// ```
    /// use malquery_proto::{Cloud, Credentials};
    ///
    /// let client = malquery_ureq::Client::new(Cloud::Eu1, Credentials::new("the id", "the secret"));
    /// assert_eq!(client.base().as_str(), "https://api.eu-1.crowdstrike.com");
    /// ```
    pub fn new(base: impl Into<BaseUrl>, credentials: Credentials) -> Self {
        Self::with_transport(UreqTransport::new(), Auth::new(base, credentials))
    }

    /// A client with a transport of other settings, or with a token from elsewhere.
    pub fn with_transport(transport: UreqTransport, auth: Auth) -> Self {
        Self(malquery_proto::Client::new(transport, SystemClock, auth))
    }

    /// How often and how long calls are tried.
    pub fn retry(self, policy: RetryPolicy) -> Self {
        Self(self.0.retry(policy))
    }

    /// Ends every call at this time, and afterwards every call at once. A single job takes
    /// [`Job::deadline`](malquery_proto::client::Job::deadline).
    pub fn deadline(self, deadline: Timestamp) -> Self {
        Self(self.0.deadline(deadline))
    }

    /// Refuses a hunt or a multi-download the rest of the month does not cover, before it is sent.
    pub fn check_quota(self, check: bool) -> Self {
        Self(self.0.check_quota(check))
    }

    /// The client of `malquery-proto`.
    pub fn into_inner(self) -> malquery_proto::Client<UreqTransport, SystemClock> {
        self.0
    }
}

impl Deref for Client {
    type Target = malquery_proto::Client<UreqTransport, SystemClock>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
