use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{FlowError, Kind, Pause, Ticket};
use crate::cloud::{BaseUrl, Cloud};
use crate::credentials::{BearerToken, Credentials, MemberCid};
use crate::endpoint::Resend;
use crate::error::{ApiErrorKind, ResponseError};
use crate::needles::Needles;
use crate::oauth2::GetToken;
use crate::reply::ResponseHead;
use crate::request::BuildError;
use crate::time::Timestamp;

/// A session, which consists of a base URL and a token. Any number of flows can share a session.
///
/// If the session has credentials, a flow requests a token when it needs one, and replaces a token
/// that is about to expire. If several flows get a 401, one requests a new token while the others
/// wait.
///
/// ```
/// use std::time::Duration;
///
/// use malquery_proto::flow::Auth;
/// use malquery_proto::credentials::BearerToken;
/// use malquery_proto::{Cloud, Credentials};
///
/// // Requests tokens only from this cloud, and renews them 30 seconds before they expire.
/// let auth = Auth::new(Cloud::Us2, Credentials::new("the id", "the secret"))
///     .margin(Duration::from_secs(30))
///     .follow_region(false);
/// assert_eq!(auth.base().as_str(), "https://api.us-2.crowdstrike.com");
///
/// // Uses a token that was obtained elsewhere.
/// let auth = Auth::with_token(Cloud::Us2, BearerToken::new("the-token")?);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Auth {
    identity: Arc<()>,
    base: BaseUrl,
    source: Source,
    token: Option<Issued>,
    /// The number of tokens received so far.
    generation: u64,
    /// The number of token requests so far.
    serial: u64,
    fetching: Option<Fetching>,
    /// The number of token requests that failed and were not retried. Flows that are waiting for
    /// the token fail with the same error.
    refusals: u64,
    refusal: Option<FlowError>,
    /// The number of failed token requests.
    failures: u64,
    /// The pause during which no token request is sent.
    token_pause: Option<Pause>,
    /// The pause for a rate limit. Until it ends, only a revocation is sent.
    pause: Option<Pause>,
    margin: Duration,
    follow_region: bool,
    /// The secrets to mask, such as the client secret and recent tokens.
    needles: Needles,
    recent: VecDeque<BearerToken>,
}

#[derive(Debug)]
enum Source {
    Credentials(Credentials),
    /// A token that was obtained elsewhere, which cannot be renewed.
    Supplied(BearerToken),
    /// No source: the session is for a child, but the parent has only a supplied token.
    Unavailable,
}

#[derive(Debug)]
struct Issued {
    bearer: BearerToken,
    renew_at: Timestamp,
    /// Whether the token has been used. A token is used at least once, even if it has expired, so
    /// that a flow cannot request tokens forever.
    used: bool,
}

#[derive(Debug)]
struct Fetching {
    serial: u64,
    lease: Pause,
}

/// The number of recent tokens to mask.
const MAX_RECENT: usize = 4;
/// How long flows wait for the outcome of a token request before one of them sends another.
const LEASE: Duration = Duration::from_secs(90);
/// The interval at which waiting flows check for the token.
const TOKEN_POLL: Duration = Duration::from_millis(100);

/// The counters that a flow has read from an [`Auth`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The number of refusals when the call began.
    refusals: u64,
    /// The number of failed token requests when the flow last counted them. `None` unless the flow
    /// needs a new token.
    failures: Option<u64>,
}

/// The call to which a ticket belongs.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) resend: Resend,
    pub(super) generation: u64,
}

pub(super) enum Bearer {
    Use(BearerToken, u64),
    Fetch(Box<http::Request<Vec<u8>>>, Ticket),
    Wait(Timestamp),
}

impl Auth {
    /// Creates a session that requests tokens from `base` with these credentials.
    pub fn new(base: impl Into<BaseUrl>, credentials: Credentials) -> Self {
        Self::from(base.into(), Source::Credentials(credentials))
    }

    /// Creates a session with a token that was obtained elsewhere. The token cannot be renewed:
    /// once it has expired, calls fail with a 401.
    pub fn with_token(base: impl Into<BaseUrl>, bearer: BearerToken) -> Self {
        Self::from(base.into(), Source::Supplied(bearer))
    }

    fn from(base: BaseUrl, source: Source) -> Self {
        let needles = match &source {
            Source::Credentials(credentials) => credentials.needles(),
            Source::Supplied(bearer) => Needles::new([bearer.expose()]),
            Source::Unavailable => Needles::default(),
        };
        Self {
            recent: VecDeque::new(),
            needles,
            identity: Arc::default(),
            base,
            source,
            token: None,
            generation: 0,
            serial: 0,
            fetching: None,
            refusals: 0,
            refusal: None,
            failures: 0,
            token_pause: None,
            pause: None,
            margin: Duration::from_secs(120),
            follow_region: true,
        }
    }

    /// Sets how long before expiry a token is renewed. The default is 120 seconds. The maximum is a
    /// quarter of the token's lifetime.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Sets whether to follow a redirect from the token endpoint to the account's cloud. The
    /// default is `true`.
    ///
    /// At most one redirect is followed, and only to the host of a commercial [`Cloud`]. Redirects
    /// from a government cloud are not followed. A redirect from a custom base URL is followed too;
    /// pass `false` if all requests must go to that URL.
    pub fn follow_region(mut self, follow: bool) -> Self {
        self.follow_region = follow;
        self
    }

    /// Returns the base URL for requests. Following a redirect from the token endpoint changes it.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Returns a token, or the step that leads to one. `seen` belongs to the calling flow.
    pub(super) fn bearer(
        &mut self,
        now: Timestamp,
        seen: &mut Option<Seen>,
    ) -> Result<Bearer, FlowError> {
        let seen = seen.get_or_insert(Seen {
            refusals: self.refusals,
            failures: None,
        });
        if let Some(time) = self.pause.and_then(|pause| pause.end(now)) {
            return Ok(Bearer::Wait(time));
        }
        if let Some(token) = self
            .token
            .as_mut()
            .filter(|token| now < token.renew_at || !token.used)
        {
            token.used = true;
            seen.failures = None;
            return Ok(Bearer::Use(token.bearer.clone(), self.generation));
        }
        seen.failures.get_or_insert(self.failures);
        let credentials = match &self.source {
            Source::Credentials(credentials) => credentials,
            // The token's lifetime is unknown, so let the service reject it once it has expired.
            Source::Supplied(bearer) => return Ok(Bearer::Use(bearer.clone(), 0)),
            Source::Unavailable => return Err(BuildError::NoChildToken.into()),
        };
        if seen.refusals < self.refusals
            && let Some(refusal) = &self.refusal
        {
            return Err(refusal.clone());
        }
        if self
            .fetching
            .as_ref()
            .is_some_and(|fetching| fetching.lease.end(now).is_some())
        {
            return Ok(Bearer::Wait(now.after(TOKEN_POLL)));
        }
        if let Some(time) = self.token_pause.and_then(|pause| pause.end(now)) {
            return Ok(Bearer::Wait(time));
        }
        let request = GetToken::new(credentials).request(&self.base)?;
        self.serial += 1;
        self.fetching = Some(Fetching {
            serial: self.serial,
            lease: Pause::new(now, now.after(LEASE)),
        });
        let ticket = Ticket(Kind::Token {
            of: self.identity.clone(),
            serial: self.serial,
        });
        Ok(Bearer::Fetch(request.into(), ticket))
    }

    /// Fails if the ticket of a token request belongs to another session.
    pub(super) fn check_own(&self, of: &Arc<()>) -> Result<(), FlowError> {
        if Arc::ptr_eq(of, &self.identity) {
            Ok(())
        } else {
            Err(FlowError::WrongTicket)
        }
    }

    /// Processes the reply to a token request.
    pub(super) fn on_response(
        &mut self,
        now: Timestamp,
        serial: u64,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<(), ResponseError> {
        let since = self.end_fetching(serial).unwrap_or(now);
        let Source::Credentials(credentials) = &self.source else {
            return Ok(());
        };
        match GetToken::new(credentials).response(head, body) {
            Ok(reply) => {
                let life = reply.expires_in;
                self.remember(&reply.bearer, credentials.needles());
                self.generation += 1;
                self.token_pause = None;
                self.refusal = None;
                self.token = Some(Issued {
                    bearer: reply.output.bearer,
                    renew_at: since.after(life - self.margin.min(life / 4)),
                    used: false,
                });
                Ok(())
            }
            Err(ResponseError::Api(error)) if error.kind() == ApiErrorKind::Redirect => {
                match head
                    .location()
                    .and_then(cloud_of)
                    .filter(|to| self.may_follow(*to))
                {
                    Some(cloud) => {
                        log::info!("the account belongs to {cloud}; requests now go there");
                        self.base = cloud.into();
                        self.follow_region = false;
                        Ok(())
                    }
                    None => Err(self.explain(ResponseError::Api(error))),
                }
            }
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Adds a token to the secrets to mask. Only the most recent tokens are kept.
    fn remember(&mut self, bearer: &BearerToken, secrets: Needles) {
        self.recent.push_back(bearer.clone());
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        self.needles = secrets;
        for bearer in &self.recent {
            self.needles.add(bearer.expose());
        }
    }

    fn may_follow(&self, to: Cloud) -> bool {
        self.follow_region
            && !to.is_government()
            && !self.base.cloud().is_some_and(Cloud::is_government)
    }

    /// Ends a token request, so that other flows stop waiting for it. Returns the time at which the
    /// request was built, or `None` if it has already ended or another request has replaced it.
    pub(crate) fn end_fetching(&mut self, serial: u64) -> Option<Timestamp> {
        self.fetching
            .take_if(|fetching| fetching.serial == serial)
            .map(|fetching| fetching.lease.since)
    }

    /// Counts a failed token request. Returns the number of failures in all flows since this flow
    /// last counted them, so that all flows together send no more requests than one flow would.
    pub(super) fn token_failed(&mut self, seen: &mut Option<Seen>) -> u32 {
        let seen = seen.as_mut().and_then(|seen| seen.failures.as_mut());
        let before = seen.as_ref().map_or(self.failures, |seen| **seen);
        self.failures += 1;
        if let Some(seen) = seen {
            *seen = self.failures;
        }
        u32::try_from(self.failures - before).unwrap_or(u32::MAX)
    }

    /// Delays token requests until this time.
    pub(super) fn retry_token_at(&mut self, now: Timestamp, time: Timestamp) {
        self.token_pause = Some(Pause::new(now, time));
    }

    /// Makes every flow that is waiting for a token fail with this error.
    pub(super) fn refuse(&mut self, error: &FlowError) {
        self.refusals += 1;
        self.refusal = Some(error.clone());
        self.token_pause = None;
    }

    /// Returns whether a new token can be requested.
    pub(super) fn can_renew(&self) -> bool {
        matches!(self.source, Source::Credentials(_))
    }

    /// Drops the token after a 401, unless it has already been replaced.
    pub(super) fn reject(&mut self, generation: u64) {
        if self.generation == generation {
            self.token = None;
        }
    }

    /// Delays every request, except a revocation, until this time or later.
    pub(super) fn pause(&mut self, now: Timestamp, until: Timestamp) {
        if self
            .pause
            .and_then(|pause| pause.end(now))
            .is_none_or(|end| end < until)
        {
            self.pause = Some(Pause::new(now, until));
        }
    }

    /// Masks secrets in an error, because an error page may quote the request. Also adds the cloud
    /// of the session to an API error, for its hint.
    pub(super) fn explain(&self, error: ResponseError) -> ResponseError {
        match error {
            ResponseError::Api(error) => {
                ResponseError::Api(Box::new(error.asked(&self.base).masked(&self.needles)))
            }
            ResponseError::Decode(error) => {
                ResponseError::Decode(Box::new(error.masked(&self.needles)))
            }
        }
    }

    /// Returns the secrets to mask.
    pub(crate) fn needles(&self) -> &Needles {
        &self.needles
    }

    /// Creates a session for a Flight Control child, with the same settings.
    pub(crate) fn child(&self, member_cid: MemberCid) -> Self {
        let source = match &self.source {
            Source::Credentials(credentials) => {
                Source::Credentials(credentials.clone().member_cid(member_cid))
            }
            Source::Supplied(_) | Source::Unavailable => Source::Unavailable,
        };
        Self {
            margin: self.margin,
            follow_region: self.follow_region,
            ..Self::from(self.base.clone(), source)
        }
    }

    /// Takes the token that this session requested, if any, with the credentials to revoke it.
    pub(crate) fn take_token(&mut self) -> Option<(Credentials, BearerToken)> {
        match &self.source {
            Source::Credentials(credentials) => {
                Some((credentials.clone(), self.token.take()?.bearer))
            }
            Source::Supplied(_) | Source::Unavailable => None,
        }
    }
}

/// Returns the cloud to which a redirect from the token endpoint leads. `None` if it leads
/// elsewhere: another host could steal the credentials.
fn cloud_of(location: &str) -> Option<Cloud> {
    let url = url::Url::parse(location).ok()?;
    if url.scheme() != "https"
        || url.port().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return None;
    }
    Cloud::of_host(url.host_str()?)
}
