//! Handles requests as the gateway does: tokens, rate limits, routes and errors.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::MutexGuard;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use malquery_proto::Body;
use malquery_proto::credentials::MemberCid;
use malquery_proto::endpoint::{Endpoint, Scope};
use malquery_proto::oauth2::{GetToken, Revoke};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::{BaseUrl, Cloud, Timestamp};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{Service, State, Window};
use crate::digest;

const GATEWAY: &str = "crowdstrike-api-gateway";
const MALQUERY: &str = "malquery-api";
/// The maximum number of requests per minute to the token endpoints.
const TOKEN_LIMIT: usize = 300;
/// The maximum number of requests per minute with invalid tokens.
const BAD_TOKEN_LIMIT: usize = 15;

const REGION: HeaderName = HeaderName::from_static("x-cs-region");
const TRACE_ID: HeaderName = HeaderName::from_static("x-cs-traceid");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RETRY_AFTER: HeaderName = HeaderName::from_static("x-ratelimit-retryafter");

/// The state for handling one request. The request itself is passed separately.
pub(super) struct Call {
    pub(super) service: Service,
    pub(super) now: Timestamp,
    trace_id: String,
    /// The rate limit that applies, and the number of requests left.
    rate: Cell<(usize, usize)>,
}

/// The reason why a request is refused.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    powered_by: &'static str,
    pub(super) message: String,
    retry_at: Option<Timestamp>,
}

impl Refusal {
    fn gateway(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            powered_by: GATEWAY,
            message: message.into(),
            retry_at: None,
        }
    }

    pub(super) fn malquery(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            powered_by: MALQUERY,
            ..Self::gateway(status, message)
        }
    }

    pub(super) fn input(message: impl fmt::Display) -> Self {
        let message = format!("Invalid user input: {message}");
        Self::malquery(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn too_many(message: &str, retry_at: Timestamp) -> Self {
        Self {
            retry_at: Some(retry_at),
            ..Self::gateway(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    pub(super) fn corpus(error: io::Error) -> Self {
        let message = format!("cannot read the corpus: {error}");
        Self::malquery(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

pub(super) type Answer = Result<Response<Body>, Refusal>;
type Handler = fn(&Call, &Request<Vec<u8>>) -> Answer;

/// The error statuses for which a reply has `resources`. They follow MalQuery's schemas, but cover
/// only the errors that the service can return.
#[derive(Clone, Copy, PartialEq)]
enum Lists {
    Never,
    /// The statuses 400, 404 and 500.
    Searches,
    /// The statuses 400, 404, 429 and 500.
    Submissions,
}

impl Call {
    pub(super) fn new(service: &Service) -> Self {
        let now = service.now();
        let mut state = service.state(now);
        state.counts.requests += 1;
        let number = state.counts.requests;
        drop(state);
        let limit = service.settings.rate_limit;
        Self {
            service: service.clone(),
            now,
            trace_id: service.id("trace", number),
            rate: Cell::new((limit, limit)),
        }
    }

    pub(super) fn answer(&self, request: &Request<Vec<u8>>) -> Response<Body> {
        let route = route(request.uri().path());
        let (lists, scope) = match &route {
            Some((to, _, lists)) => (*lists, to.scope),
            None => (Lists::Never, None),
        };
        let (response, why) = match self.try_answer(route, request) {
            Ok(response) => (response, None),
            Err(refusal) => (self.refused(&refusal, lists), Some(refusal.message)),
        };
        if let Some(log) = &self.service.settings.log {
            let uri = request.uri();
            // A query that does not belong to an operation could contain credentials.
            let query = uri.query().filter(|_| scope.is_some());
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            let why = why.map(|why| format!(": {}", why.lines().next().unwrap_or_default()));
            log(&format!(
                "{} {}{query} {}{}",
                request.method(),
                uri.path(),
                response.status().as_u16(),
                why.unwrap_or_default()
            ));
        }
        response
    }

    /// Returns an error reply like the gateway's.
    #[cfg(feature = "server")]
    pub(super) fn refuse(&self, status: StatusCode, message: &str) -> Response<Body> {
        self.refused(&Refusal::gateway(status, message), Lists::Never)
    }

    fn try_answer(&self, route: Option<Route>, request: &Request<Vec<u8>>) -> Answer {
        let Some((to, handler, _)) = route else {
            return Err(Refusal::gateway(
                StatusCode::NOT_FOUND,
                "404: Page Not Found",
            ));
        };
        if request.method() != to.method {
            let message = format!("method not allowed; use {}", to.method);
            return Err(Refusal::gateway(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        match to.scope {
            Some(scope) => self.authorize(request, scope)?,
            None => self.take(|state| &mut state.token_requests, TOKEN_LIMIT)?,
        }
        handler(self, request)
    }

    /// Checks the token, the rate limit and the scope.
    fn authorize(&self, request: &Request<Vec<u8>>, scope: Scope) -> Result<(), Refusal> {
        let settings = &self.service.settings;
        let at_home = named_cloud(request).is_none_or(|cloud| cloud == settings.cloud);
        let token = credentials(request.headers(), "bearer").unwrap_or_default();
        let end = self.state().tokens.get(token).copied();
        if !at_home || end.is_none_or(|end| end <= self.now) {
            self.take(|state| &mut state.bad_tokens, BAD_TOKEN_LIMIT)?;
            let message = "access denied, invalid bearer token";
            return Err(Refusal::gateway(StatusCode::UNAUTHORIZED, message));
        }
        self.take(|state| &mut state.requests, settings.rate_limit)?;
        let allowed = match scope {
            Scope::Read => settings.read,
            Scope::Write => settings.write,
        };
        if !allowed {
            let message = "access denied, authorization failed";
            return Err(Refusal::gateway(StatusCode::FORBIDDEN, message));
        }
        Ok(())
    }

    /// Counts the request against a rate limit. Fails if the limit has been reached.
    fn take(&self, window: fn(&mut State) -> &mut Window, limit: usize) -> Result<(), Refusal> {
        let left = window(&mut self.state()).take(self.now, limit);
        self.rate.set((limit, left.unwrap_or(0)));
        left.map(|_| ())
            .map_err(|retry_at| Refusal::too_many("API rate limit exceeded.", retry_at))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.service.state(self.now)
    }

    fn token(&self, request: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let form: HashMap<_, _> = form_urlencoded::parse(request.body()).collect();
        let field = |name: &str| form.get(name).map_or("", |value| &**value);
        let refuse = |status, what, id: &str| {
            let id: String = id.chars().take(64).collect();
            let message = format!("Failed to generate access token for {what}={id}");
            Err(Refusal::gateway(status, message))
        };
        let (id, secret) = (field("client_id"), field("client_secret"));
        let elsewhere = named_cloud(request).filter(|cloud| *cloud != settings.cloud);
        let is_known = id == settings.client_id && secret == settings.client_secret;
        // There are no redirects to or from a government cloud.
        let is_government = |cloud: Cloud| cloud.is_government() || settings.cloud.is_government();
        if !is_known || elsewhere.is_some_and(is_government) {
            return refuse(StatusCode::BAD_REQUEST, "clientID", id);
        }
        if elsewhere.is_some() {
            let location = format!("{}/oauth2/token", BaseUrl::from(settings.cloud));
            let mut response = self.reply(StatusCode::PERMANENT_REDIRECT, None, 0, io::empty());
            set(&mut response, header::LOCATION, &location);
            set(&mut response, REGION, settings.cloud.name());
            return Ok(response);
        }
        if let Some(cid) = form.get("member_cid") {
            // Accept upper and lower case, with or without the checksum.
            let parse = |cid: &str| cid.to_ascii_uppercase().parse::<MemberCid>().ok();
            let mut children = settings.children.iter().filter_map(|child| parse(child));
            if !children.any(|child| parse(cid) == Some(child)) {
                return refuse(StatusCode::FORBIDDEN, "customer ID", cid);
            }
        }
        let mut state = self.state();
        state.counts.tokens += 1;
        let number = state.counts.tokens;
        let token = digest::sha256(format!("{} token {number}", settings.seed).as_bytes());
        state.tokens.retain(|_, end| self.now < *end);
        let end = self.now.after(settings.token_life);
        state.tokens.insert(token.clone(), end);
        drop(state);
        let body = json!({
            "access_token": token,
            "expires_in": i32::try_from(settings.token_life.as_secs()).unwrap_or(i32::MAX),
            "token_type": "bearer",
        });
        let mut response = self.json(StatusCode::CREATED, &body);
        set(&mut response, REGION, settings.cloud.name());
        Ok(response)
    }

    fn revoke(&self, request: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let pair = format!("{}:{}", settings.client_id, settings.client_secret);
        if credentials(request.headers(), "basic") != Some(&STANDARD.encode(pair)) {
            let message = "access denied, invalid client credentials";
            return Err(Refusal::gateway(StatusCode::UNAUTHORIZED, message));
        }
        let mut form = form_urlencoded::parse(request.body());
        let Some((_, token)) = form.find(|(name, _)| name == "token") else {
            let message = "the form field `token` is missing";
            return Err(Refusal::gateway(StatusCode::BAD_REQUEST, message));
        };
        self.state().tokens.remove(&*token);
        let body = json!({"meta": self.meta(GATEWAY), "errors": []});
        Ok(self.json(StatusCode::OK, &body))
    }

    /// Returns the JSON of a MalQuery reply, with empty `resources`.
    pub(super) fn document(&self) -> Value {
        json!({"meta": self.meta(MALQUERY), "resources": []})
    }

    fn meta(&self, powered_by: &str) -> Value {
        let query_time = self.query_time();
        json!({"query_time": query_time, "powered_by": powered_by, "trace_id": self.trace_id})
    }

    /// Returns an invented time from 0.005 to 0.857 seconds, which depends only on the trace id.
    pub(super) fn query_time(&self) -> f64 {
        let digits = self.trace_id.get(..4).unwrap_or_default();
        let part = u16::from_str_radix(digits, 16).unwrap_or_default();
        f64::from(5_000 + u32::from(part) * 13) / 1e6
    }

    fn refused(&self, refusal: &Refusal, lists: Lists) -> Response<Body> {
        let status = refusal.status;
        let error = json!({"code": status.as_u16(), "message": refusal.message});
        let mut document = json!({"meta": self.meta(refusal.powered_by), "errors": [error]});
        let has_resources = match status.as_u16() {
            400 | 404 | 500 => lists != Lists::Never,
            429 => lists == Lists::Submissions,
            _ => false,
        };
        if has_resources {
            document["resources"] = json!([]);
        }
        let mut response = self.json(status, &document);
        if let Some(time) = refusal.retry_at {
            let seconds = time.as_millis().div_ceil(1000).to_string();
            set(&mut response, RETRY_AFTER, &seconds);
        }
        response
    }

    pub(super) fn json(&self, status: StatusCode, body: &Value) -> Response<Body> {
        let body = body.to_string().into_bytes();
        let length = body.len() as u64;
        self.reply(status, Some("application/json"), length, Cursor::new(body))
    }

    pub(super) fn reply(
        &self,
        status: StatusCode,
        media_type: Option<&str>,
        length: u64,
        body: impl Read + Send + 'static,
    ) -> Response<Body> {
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = status;
        if let Some(media_type) = media_type {
            set(&mut response, header::CONTENT_TYPE, media_type);
        }
        set(&mut response, header::CONTENT_LENGTH, &length.to_string());
        set(&mut response, TRACE_ID, &self.trace_id);
        let (limit, left) = self.rate.get();
        set(&mut response, LIMIT, &limit.to_string());
        set(&mut response, REMAINING, &left.to_string());
        response
    }
}

/// An endpoint, its handler, and the error statuses for which a reply has `resources`.
type Route = (Endpoint, Handler, Lists);

fn route(path: &str) -> Option<Route> {
    let routes: [Route; 11] = [
        (GetToken::ENDPOINT, Call::token, Lists::Never),
        (Revoke::ENDPOINT, Call::revoke, Lists::Never),
        (GetQuotas::ENDPOINT, Call::quotas, Lists::Never),
        (FuzzySearch::ENDPOINT, Call::fuzzy_search, Lists::Searches),
        (GetDownload::ENDPOINT, Call::download, Lists::Never),
        (GetMetadata::ENDPOINT, Call::metadata, Lists::Searches),
        (GetRequest::ENDPOINT, Call::request, Lists::Searches),
        (GetSamples::ENDPOINT, Call::samples, Lists::Never),
        (
            SamplesMultidownload::ENDPOINT,
            Call::multidownload,
            Lists::Submissions,
        ),
        (
            ExactSearch::ENDPOINT,
            Call::exact_search,
            Lists::Submissions,
        ),
        (Hunt::ENDPOINT, Call::hunt, Lists::Submissions),
    ];
    routes.into_iter().find(|(to, ..)| to.path == path)
}

/// Returns the cloud that the host of a request belongs to, if any.
fn named_cloud(request: &Request<Vec<u8>>) -> Option<Cloud> {
    let host = request.uri().host()?;
    format!("https://{host}").parse::<BaseUrl>().ok()?.cloud()
}

/// Returns the credentials in the `Authorization` header, if it has this scheme.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, value) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then_some(value.trim())
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
