//! What is known of an operation before it is called.

use std::fmt;

use http::Method;

/// What is known of an operation before it is called. Every request carries it as an extension, so that a
/// transport can, say, wait longer for a slow one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The operation id of CrowdStrike's API description.
    pub id: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The media type asked for.
    pub accept: &'static str,
    /// The scope the API client needs; `None` for the token endpoints.
    pub scope: Option<Scope>,
    /// Whether the request may be sent again.
    pub resend: Resend,
}

impl Endpoint {
    /// An operation that only looks: a GET with the scope `malquery:read` that answers with JSON and may be sent again.
    pub const fn get(id: &'static str, path: &'static str) -> Self {
        Self::new(Method::GET, id, path, Scope::Read, Resend::Safe)
    }

    /// An operation that starts something: a POST with the scope `malquery:write` that answers with JSON. Each arrival may be
    /// [billed](Resend::Billed), unless it is said to be [safe](Endpoint::safe).
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

    /// The same that answers with this media type.
    pub const fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// The same that may be sent again: see [`Resend::Safe`].
    pub const fn safe(mut self) -> Self {
        self.resend = Resend::Safe;
        self
    }

    /// The same without a scope, as the token endpoints are.
    pub(crate) const fn unscoped(mut self) -> Self {
        self.scope = None;
        self
    }
}

/// What an operation takes of the monthly quotas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// So many hunts.
    pub hunts: u64,
    /// So many downloads, one for each sample.
    pub downloads: u64,
}

impl Cost {
    /// So many hunts.
    pub const fn hunts(hunts: u64) -> Self {
        Self {
            hunts,
            downloads: 0,
        }
    }

    /// So many downloads.
    pub const fn downloads(downloads: u64) -> Self {
        Self {
            hunts: 0,
            downloads,
        }
    }
}

/// A scope an API client is given in the Falcon console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `malquery:read`, for what only looks.
    Read,
    /// `malquery:write`, for what starts a search or a download job.
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
    /// Sending it again after a failure is not known to cost anything more.
    Safe,
    /// Each arrival may be billed to a monthly quota: sent again only when it surely did not arrive.
    Billed,
}
