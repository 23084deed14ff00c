//! The facts about an operation that are known before a call.

use std::fmt;

use http::Method;

/// The facts about an operation: its method, path and scope, and whether it may be sent again.
/// Every request carries them as an extension, so that a transport can wait longer for a slow
/// operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The operation id of CrowdStrike's API description.
    pub id: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The media type of the reply.
    pub accept: &'static str,
    /// The scope that the API client needs. `None` for the token endpoints.
    pub scope: Option<Scope>,
    /// Whether the request may be sent again.
    pub resend: Resend,
}

impl Endpoint {
    /// Describes a GET with the scope `malquery:read` that answers with JSON and may be sent again.
    pub const fn get(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::GET, id, path, Scope::Read, Resend::Safe)
    }

    /// Describes a POST with the scope `malquery:write` that answers with JSON. Each arrival may be
    /// [billed](Resend::Billed), unless you call [`safe`](Endpoint::safe).
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

    /// Sets the media type of the reply.
    pub const fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// Allows sending it again: see [`Resend::Safe`].
    pub const fn safe(mut self) -> Self {
        self.resend = Resend::Safe;
        self
    }

    /// Removes the scope, as for the token endpoints.
    pub(crate) const fn unscoped(mut self) -> Self {
        self.scope = None;
        self
    }
}

/// The cost of an operation in monthly quotas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// The number of hunts.
    pub hunts: u64,
    /// The number of downloads, one for each sample.
    pub downloads: u64,
}

impl Cost {
    /// A cost of this many hunts.
    pub const fn hunts(hunts: u64) -> Self {
        Self {
            hunts,
            downloads: 0,
        }
    }

    /// A cost of this many downloads.
    pub const fn downloads(downloads: u64) -> Self {
        Self {
            hunts: 0,
            downloads,
        }
    }
}

/// A scope of an API client. The Falcon console calls it "MalQuery: Read" or "MalQuery: Write".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `malquery:read`, for the GETs.
    Read,
    /// `malquery:write`, for the POSTs: searches and jobs.
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

/// Whether a request may be sent again when its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resend {
    /// A retry is not known to cost anything more.
    Safe,
    /// Each arrival may be billed to a monthly quota. Retried only if the request provably never
    /// reached the service.
    Billed,
}
