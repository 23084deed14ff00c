use std::time::Duration;

use super::{FlowError, Kind, SendFailure, Ticket};
use crate::cloud::{BaseUrl, Cloud};
use crate::error::{ApiError, ApiErrorKind, ResponseError};
use crate::oauth2::{BearerToken, Credentials, Token};
use crate::operation::ResponseHead;
use crate::time::Timestamp;

/// The token of a session: asked for when it is needed, renewed before it expires, and shared.
///
/// Any number of flows may use one. A counter tells the tokens apart, so that many replies of 401 to one token
/// lead to one new token; while a flow asks for it, the others wait.
#[derive(Debug)]
pub struct Auth {
    base: BaseUrl,
    source: Source,
    token: Option<Issued>,
    /// Counts the tokens.
    generation: u64,
    fetching: Option<Fetching>,
    /// Counts the refusals: the flows that waited for a token that was refused end with the error.
    refusals: u64,
    refusal: Option<FlowError>,
    /// No token request before this time.
    not_before: Option<Timestamp>,
    /// No request at all before this time: a rate limit holds for all flows.
    paused: Option<Timestamp>,
    margin: Duration,
    follow_region: bool,
}

#[derive(Debug)]
enum Source {
    Credentials(Credentials),
    /// A token from elsewhere cannot be renewed.
    Supplied,
}

#[derive(Debug)]
struct Issued {
    bearer: BearerToken,
    renew_at: Timestamp,
    /// A token is used at least once, however short it lives, so that a flow cannot ask for tokens for ever.
    used: bool,
}

#[derive(Debug)]
struct Fetching {
    serial: u64,
    since: Timestamp,
}

/// How long a flow has the right to fetch a token alone. Should it never report, another one may try.
const LEASE: Duration = Duration::from_secs(90);
/// How often the other flows look whether the token is there.
const LOOK: Duration = Duration::from_millis(10);

pub(super) enum Bearer {
    Use(BearerToken, u64),
    Fetch(Box<http::Request<Vec<u8>>>, Ticket),
    Wait(Timestamp),
}

impl Auth {
    /// Asks `base` for tokens for these credentials.
    pub fn new(base: impl Into<BaseUrl>, credentials: Credentials) -> Self {
        Self::from(base.into(), Source::Credentials(credentials), None)
    }

    /// Uses a token from elsewhere. When it has expired, calls fail with [`FlowError::TokenRejected`].
    pub fn with_token(base: impl Into<BaseUrl>, bearer: BearerToken) -> Self {
        let token = Issued { bearer, renew_at: Timestamp::MAX, used: false };
        Self::from(base.into(), Source::Supplied, Some(token))
    }

    fn from(base: BaseUrl, source: Source, token: Option<Issued>) -> Self {
        Self {
            base,
            source,
            token,
            generation: 0,
            fetching: None,
            refusals: 0,
            refusal: None,
            not_before: None,
            paused: None,
            margin: Duration::from_secs(120),
            follow_region: true,
        }
    }

    /// Renews a token this long before it expires (120 s unless set), or after three quarters of its life if
    /// that is later.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Whether to follow the token endpoint to the cloud the account lives in (`true` unless set). It is
    /// followed once, and only to a host of [`Cloud`].
    pub fn follow_region(mut self, follow: bool) -> Self {
        self.follow_region = follow;
        self
    }

    /// Where requests go. It changes when the token endpoint names another cloud.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// A token to use, or how to get one. `seen` belongs to the flow and counts the refusals it knows of.
    pub(super) fn bearer(&mut self, now: Timestamp, seen: &mut Option<u64>) -> Result<Bearer, FlowError> {
        let seen = seen.get_or_insert(self.refusals);
        if let Some(paused) = self.paused.filter(|paused| *paused > now) {
            return Ok(Bearer::Wait(paused));
        }
        if let Some(token) = self.token.as_mut().filter(|token| now < token.renew_at || !token.used) {
            token.used = true;
            return Ok(Bearer::Use(token.bearer.clone(), self.generation));
        }
        let Source::Credentials(credentials) = &self.source else { return Err(FlowError::TokenRejected) };
        if *seen < self.refusals
            && let Some(refusal) = &self.refusal
        {
            *seen = self.refusals;
            return Err(refusal.clone());
        }
        if self.fetching.as_ref().is_some_and(|fetching| now.since(fetching.since) < LEASE) {
            return Ok(Bearer::Wait(now.after(LOOK)));
        }
        if let Some(time) = self.not_before.filter(|time| *time > now) {
            return Ok(Bearer::Wait(time));
        }
        let request = Token::new(credentials).request(&self.base)?;
        let serial = self.fetching.as_ref().map_or(self.generation, |fetching| fetching.serial) + 1;
        self.fetching = Some(Fetching { serial, since: now });
        Ok(Bearer::Fetch(request.into(), Ticket(Kind::Token { serial })))
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
        let Source::Credentials(credentials) = &self.source else { return Ok(()) };
        match Token::new(credentials).response(head, body) {
            Ok(reply) => {
                let life = reply.expires_in;
                self.generation += 1;
                self.not_before = None;
                self.token = Some(Issued {
                    bearer: reply.output.bearer,
                    renew_at: since.after(life - self.margin.min(life / 4)),
                    used: false,
                });
                Ok(())
            }
            Err(ResponseError::Api(error)) if error.kind() == ApiErrorKind::Redirect => {
                match head.location().and_then(cloud_of).filter(|_| self.follow_region) {
                    Some(cloud) => {
                        log::info!("the account lives in {cloud}; asking there");
                        self.base = cloud.into();
                        self.follow_region = false;
                        Ok(())
                    }
                    None => Err(ResponseError::Api(error.asked(&self.base).into())),
                }
            }
            Err(ResponseError::Api(error)) => Err(ResponseError::Api(error.asked(&self.base).into())),
            Err(error) => Err(error),
        }
    }

    /// Takes note that a token request got no reply.
    pub(super) fn on_failure(&mut self, serial: u64, _why: SendFailure) {
        self.end_fetching(serial);
    }

    fn end_fetching(&mut self, serial: u64) -> Option<Timestamp> {
        self.fetching.take_if(|fetching| fetching.serial == serial).map(|fetching| fetching.since)
    }

    /// No flow asks for a token before this time.
    pub(super) fn retry_token_at(&mut self, time: Timestamp) {
        self.not_before = Some(time);
    }

    /// No token is to be had: every flow that waits for one ends with this error.
    pub(super) fn refuse(&mut self, error: &FlowError) {
        self.refusals += 1;
        self.refusal = Some(error.clone());
        self.not_before = None;
    }

    /// A reply of 401 to a token of this generation.
    pub(super) fn reject(&mut self, generation: u64) {
        if self.generation == generation {
            self.token = None;
        }
    }

    /// No request before this time.
    pub(super) fn pause(&mut self, until: Timestamp) {
        self.paused = self.paused.max(Some(until));
    }

    /// Lets an error compare the account's region with this session's.
    pub(super) fn explain(&self, error: ApiError) -> ApiError {
        error.asked(&self.base)
    }

    /// The token and its credentials, to revoke it; the session forgets it.
    #[cfg(feature = "client")]
    pub(crate) fn take_token(&mut self) -> Option<(Credentials, BearerToken)> {
        match &self.source {
            Source::Credentials(credentials) => Some((credentials.clone(), self.token.take()?.bearer)),
            Source::Supplied => None,
        }
    }
}

/// The cloud a redirection of the token endpoint leads to. Any other host could be after the credentials.
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
