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

/// The token of a session. It is requested when needed, renewed before it expires, and shared.
///
/// Any number of flows may share an `Auth`. Many 401 replies to one token lead to one new token:
/// one flow requests it while the others wait.
///
/// ```
/// use std::time::Duration;
///
/// use malquery_proto::flow::Auth;
/// use malquery_proto::credentials::BearerToken;
/// use malquery_proto::{Cloud, Credentials};
///
/// // Requests a token from this cloud alone, and renews it 30 seconds before it expires.
/// let auth = Auth::new(Cloud::Us2, Credentials::new("the id", "the secret"))
///     .margin(Duration::from_secs(30))
///     .follow_region(false);
/// assert_eq!(auth.base().as_str(), "https://api.us-2.crowdstrike.com");
///
/// // A token from elsewhere is used until it is refused.
/// let auth = Auth::with_token(Cloud::Us2, BearerToken::new("the-token")?);
/// # Ok::<(), malquery_proto::types::ParseError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Auth {
    /// Identifies the session.
    identity: Arc<()>,
    base: BaseUrl,
    source: Source,
    token: Option<Issued>,
    /// Counts the tokens.
    generation: u64,
    /// Counts the requests for tokens.
    serial: u64,
    fetching: Option<Fetching>,
    /// Counts the refusals: flows that wait for a refused token end with the error.
    refusals: u64,
    refusal: Option<FlowError>,
    /// Counts the requests for tokens that failed.
    failures: u64,
    /// No token request is sent before this time.
    token_pause: Option<Pause>,
    /// No request is sent before this time: a rate limit holds for all flows.
    pause: Option<Pause>,
    margin: Duration,
    follow_region: bool,
    /// The secrets that must not be shown: the client secret and every token.
    needles: Needles,
    /// The last tokens.
    recent: VecDeque<BearerToken>,
}

#[derive(Debug)]
enum Source {
    Credentials(Credentials),
    /// A token from elsewhere cannot be renewed.
    Supplied(BearerToken),
    /// A child customer of a token from elsewhere, which belongs to its parent.
    Nobody,
}

#[derive(Debug)]
struct Issued {
    bearer: BearerToken,
    renew_at: Timestamp,
    /// A token is used at least once, however short its life, so that a flow cannot request tokens
    /// for ever.
    used: bool,
}

#[derive(Debug)]
struct Fetching {
    serial: u64,
    lease: Pause,
}

/// How long one flow may fetch a token alone. If it never reports, another flow tries.
/// How many tokens are remembered.
const MOST_RECENT: usize = 4;
const LEASE: Duration = Duration::from_secs(90);
/// How often the other flows check for the token.
const LOOK: Duration = Duration::from_millis(10);

/// What a flow has seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The number of refusals when the flow began.
    refusals: u64,
    /// The number of failed token requests when the flow first needed a token.
    failures: Option<u64>,
}

/// The call that a ticket belongs to.
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
    /// Requests tokens for these credentials from `base`.
    pub fn new(base: impl Into<BaseUrl>, credentials: Credentials) -> Self {
        Self::from(base.into(), Source::Credentials(credentials))
    }

    /// Uses a token from elsewhere. It cannot be renewed: when it has expired, calls fail with a
    /// 401.
    pub fn with_token(base: impl Into<BaseUrl>, bearer: BearerToken) -> Self {
        Self::from(base.into(), Source::Supplied(bearer))
    }

    fn from(base: BaseUrl, source: Source) -> Self {
        let needles = match &source {
            Source::Credentials(credentials) => credentials.needles(),
            Source::Supplied(bearer) => Needles::new([bearer.expose()]),
            Source::Nobody => Needles::default(),
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

    /// Sets how long before its expiry a token is renewed: 120 s unless set. A token is never
    /// renewed before three quarters of its life are over.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Sets whether to follow the token endpoint to the cloud of the account: `true` unless set. A
    /// redirect is followed once, and only to the host of a commercial [`Cloud`]; a redirect of a
    /// government cloud is not followed. A base URL of your own is left as well; set `false` if
    /// requests must stay there.
    pub fn follow_region(mut self, follow: bool) -> Self {
        self.follow_region = follow;
        self
    }

    /// Returns the base URL of requests. It changes when the token endpoint names another cloud.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Returns a token to use, or how to get one. `seen` belongs to the flow.
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
            // Its life is not known, so it is used until the service refuses it.
            Source::Supplied(bearer) => return Ok(Bearer::Use(bearer.clone(), 0)),
            Source::Nobody => return Err(BuildError::NoChildToken.into()),
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
            return Ok(Bearer::Wait(now.after(LOOK)));
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

    /// Whether the ticket of a token request belongs to this session.
    pub(super) fn is_own(&self, of: &Arc<()>) -> Result<(), FlowError> {
        if Arc::ptr_eq(of, &self.identity) {
            Ok(())
        } else {
            Err(FlowError::WrongTicket)
        }
    }

    /// Takes the reply to a token request.
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
                        log::info!("the account lives in {cloud}; asking there");
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

    /// Takes note of a token that must not be shown. A reply that is under way may repeat an earlier
    /// token, but not one of long ago.
    fn remember(&mut self, bearer: &BearerToken, secrets: Needles) {
        self.recent.push_back(bearer.clone());
        if self.recent.len() > MOST_RECENT {
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

    /// Forgets a request whose driver panicked: the other flows do not wait for its token.
    pub(crate) fn abandon(&mut self, ticket: &Ticket) {
        if let Kind::Token { serial, .. } = ticket.0 {
            self.end_fetching(serial);
        }
    }

    /// Ends a token request, and returns when it was sent.
    pub(super) fn end_fetching(&mut self, serial: u64) -> Option<Timestamp> {
        self.fetching
            .take_if(|fetching| fetching.serial == serial)
            .map(|fetching| fetching.lease.since)
    }

    /// Counts a failed token request. Returns the number of failures since the flow last checked,
    /// by whichever flow: all together request no more often than one.
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

    /// Ends every flow that waits for a token with this error.
    pub(super) fn refuse(&mut self, error: &FlowError) {
        self.refusals += 1;
        self.refusal = Some(error.clone());
        self.token_pause = None;
    }

    /// Whether a new token can be requested.
    pub(super) fn can_renew(&self) -> bool {
        matches!(self.source, Source::Credentials(_))
    }

    /// Takes a 401 reply to a token of this generation.
    pub(super) fn reject(&mut self, generation: u64) {
        if self.generation == generation {
            self.token = None;
        }
    }

    /// Delays every request until this time.
    pub(super) fn pause(&mut self, now: Timestamp, until: Timestamp) {
        if self
            .pause
            .and_then(|pause| pause.end(now))
            .is_none_or(|end| end < until)
        {
            self.pause = Some(Pause::new(now, until));
        }
    }

    /// Lets an error compare the account's region with the session's, and masks the secrets in it:
    /// a page may repeat what was sent.
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

    /// The secrets of this session.
    pub(crate) fn needles(&self) -> &Needles {
        &self.needles
    }

    /// A session for a child of this one's customer, with the same settings.
    pub(crate) fn child(&self, member_cid: MemberCid) -> Self {
        let source = match &self.source {
            Source::Credentials(credentials) => {
                Source::Credentials(credentials.clone().member_cid(member_cid))
            }
            Source::Supplied(_) | Source::Nobody => Source::Nobody,
        };
        Self {
            margin: self.margin,
            follow_region: self.follow_region,
            ..Self::from(self.base.clone(), source)
        }
    }

    /// The token and its credentials, to revoke it; the session forgets it.
    pub(crate) fn take_token(&mut self) -> Option<(Credentials, BearerToken)> {
        match &self.source {
            Source::Credentials(credentials) => {
                Some((credentials.clone(), self.token.take()?.bearer))
            }
            Source::Supplied(_) | Source::Nobody => None,
        }
    }
}

/// The cloud that a redirect of the token endpoint names. Any other host could be after the
/// credentials.
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
