//! The static description of an operation, and its cost.

use std::fmt;

use http::Method;

/// The static description of an operation: its method, path and scope, and whether its request may
/// be sent again.
///
/// Every request carries its endpoint as an extension, so that a transport can, for example, allow
/// more time for a slow operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The operation id in CrowdStrike's API specification.
    pub id: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path to append to the base URL.
    pub path: &'static str,
    /// The value of the `Accept` header: the media type of the reply.
    pub accept: &'static str,
    /// The scope that the API client needs. `None` for the token endpoints.
    pub scope: Option<Scope>,
    /// Whether the request may be sent again if its outcome is unknown.
    pub resend: Resend,
}

impl Endpoint {
    /// Describes a GET that needs the scope `malquery:read`, returns JSON and may be
    /// [sent again](Resend::Safe).
    pub const fn get(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::GET, id, path, Scope::Read, Resend::Safe)
    }

    /// Describes a POST that needs the scope `malquery:write` and returns JSON. The request counts
    /// as [billed](Resend::Billed) unless you call [`safe`](Endpoint::safe).
    pub const fn post(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::POST, id, path, Scope::Write, Resend::Billed)
    }

    const fn new(
        method: Method,
        id: &'static str,
        path: &'static str,
        scope: Scope,
        resend: Resend,
    ) -> Self {
        Self {
            id,
            method,
            path,
            accept: "application/json",
            scope: Some(scope),
            resend,
        }
    }

    /// Sets the media type of the reply. The default is `application/json`.
    pub const fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// Allows the request to be sent again: see [`Resend::Safe`].
    pub const fn safe(mut self) -> Self {
        self.resend = Resend::Safe;
        self
    }

    /// Removes the scope, which the token endpoints do not need.
    pub(crate) const fn unscoped(mut self) -> Self {
        self.scope = None;
        self
    }
}

/// The cost of an operation, counted against the monthly quotas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// The number of hunts.
    pub hunts: u64,
    /// The number of downloads: one for each sample.
    pub downloads: u64,
}

impl Cost {
    /// Returns a cost of this many hunts and no downloads.
    pub const fn hunts(hunts: u64) -> Self {
        Self {
            hunts,
            downloads: 0,
        }
    }

    /// Returns a cost of this many downloads and no hunts.
    pub const fn downloads(downloads: u64) -> Self {
        Self {
            hunts: 0,
            downloads,
        }
    }
}

/// A permission granted to an API client. The Falcon console shows it as "MalQuery: Read" or
/// "MalQuery: Write".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `malquery:read`, which GET operations need.
    Read,
    /// `malquery:write`, which is needed to search or to start a job.
    Write,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "malquery:read",
            Self::Write => "malquery:write",
        })
    }
}

/// Whether a request may be sent again when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resend {
    /// The request may be sent again. No cost is documented for a request that fails.
    Safe,
    /// The request may use quota. It is retried only if it provably never reached the service, or
    /// if the reply is a 401 or a rate-limit error (429).
    Billed,
}
