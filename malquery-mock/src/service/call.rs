//! One request on its way to a reply.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use malquery_proto::credentials::MemberCid;
use malquery_proto::endpoint::{Endpoint, Scope};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::types::{Date, Md5, MetaField, Pattern, PatternType, Sha1, Sha256};
use malquery_proto::{BaseUrl, Cloud, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::corpus::{Entry, Filter, Found};
use super::jobs::{Archive, Job, Kind, Work};
use super::{DAY, Service, ServiceBody, State, Window, ask};
use crate::digest;

const GATEWAY: &str = "crowdstrike-api-gateway";
const MALQUERY: &str = "malquery-api";
/// Requests a minute for the token endpoint.
const TOKEN_LIMIT: usize = 300;
/// Requests a minute with bad tokens.
const BAD_TOKEN_LIMIT: usize = 15;

/// One request on its way to a reply.
pub(super) struct Call {
    service: Service,
    now: Timestamp,
    trace_id: String,
    /// The rate limit that applies, and what is left of it.
    rate: Cell<(usize, usize)>,
}

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    powered_by: &'static str,
    message: String,
    retry_at: Option<Timestamp>,
    /// Whether the reply is of the shape of a submission, as when its quota is used up.
    is_submission: bool,
}

impl Refusal {
    fn gateway(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            powered_by: GATEWAY,
            message: message.into(),
            retry_at: None,
            is_submission: false,
        }
    }

    fn malquery(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            powered_by: MALQUERY,
            ..Self::gateway(status, message)
        }
    }

    fn input(message: impl fmt::Display) -> Self {
        Self::malquery(
            StatusCode::BAD_REQUEST,
            format!("Invalid user input: {message}"),
        )
    }

    fn quota(what: &str) -> Self {
        Self::malquery(
            StatusCode::TOO_MANY_REQUESTS,
            format!("the monthly quota of {what} is exhausted"),
        )
    }

    fn corpus(error: &io::Error) -> Self {
        let message = format!("the corpus could not be read: {error}");
        Self::malquery(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

type Answer = Result<Response<ServiceBody>, Refusal>;
type Handler = fn(&Call, &Request<Vec<u8>>) -> Answer;

impl Call {
    pub(super) fn new(service: &Service) -> Self {
        let now = service.settings.clock.now();
        let mut state = service.state(now);
        state.counts.requests += 1;
        let number = state.counts.requests;
        drop(state);
        let limit = service.settings.rate_limit;
        let trace_id = service.id("trace", number);
        Self {
            service: service.clone(),
            now,
            trace_id,
            rate: Cell::new((limit, limit)),
        }
    }

    pub(super) fn answer(&self, request: &Request<Vec<u8>>) -> Response<ServiceBody> {
        self.try_answer(request)
            .unwrap_or_else(|refusal| self.refused(refusal))
    }

    #[cfg(feature = "server")]
    pub(super) fn refuse(&self, status: StatusCode, message: &str) -> Response<ServiceBody> {
        self.refused(Refusal::gateway(status, message))
    }

    fn try_answer(&self, request: &Request<Vec<u8>>) -> Answer {
        let path = request.uri().path();
        let (method, scope, handler) = route(path)
            .ok_or_else(|| Refusal::gateway(StatusCode::NOT_FOUND, "404: Page Not Found"))?;
        if request.method() != method {
            let message = format!("method not allowed; it is {method}");
            return Err(Refusal::gateway(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        if let Some(scope) = scope {
            self.authorize(request, scope)?;
        } else {
            self.take(|state| &mut state.token_requests, TOKEN_LIMIT)?;
        }
        handler(self, request)
    }

    /// Checks the token, the rate limit and the scope.
    fn authorize(&self, request: &Request<Vec<u8>>, scope: Scope) -> Result<(), Refusal> {
        let settings = &self.service.settings;
        let at_home = asked(request).is_none_or(|cloud| cloud == settings.cloud);
        let alive = credentials(request.headers(), "bearer").is_some_and(|token| {
            self.state()
                .tokens
                .get(token)
                .is_some_and(|end| self.now < *end)
        });
        if !at_home || !alive {
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

    /// Counts the request against a rate limit.
    fn take(
        &self,
        window: impl FnOnce(&mut State) -> &mut Window,
        limit: usize,
    ) -> Result<(), Refusal> {
        let left = window(&mut self.state()).take(self.now, limit);
        self.rate.set((limit, left.unwrap_or(0)));
        left.map(|_| ()).map_err(|retry_at| Refusal {
            retry_at: Some(retry_at),
            ..Refusal::gateway(StatusCode::TOO_MANY_REQUESTS, "API rate limit exceeded.")
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.service.state(self.now)
    }

    // Tokens.

    fn token(&self, request: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let form: HashMap<_, _> = form_urlencoded::parse(request.body()).collect();
        let field = |name: &str| form.get(name).map_or("", |value| &**value);
        let (id, secret) = (field("client_id"), field("client_secret"));
        let elsewhere = asked(request).filter(|cloud| *cloud != settings.cloud);
        if id != settings.client_id
            || secret != settings.client_secret
            // A government account is known nowhere else.
            || elsewhere.is_some_and(|cloud| cloud.is_government() || settings.cloud.is_government())
        {
            let message = format!(
                "Failed to generate access token for clientID={}",
                id.chars().take(64).collect::<String>()
            );
            return Err(Refusal::gateway(StatusCode::BAD_REQUEST, message));
        }
        if elsewhere.is_some() {
            let location = format!("{}/oauth2/token", BaseUrl::from(settings.cloud));
            let mut response = self.reply(StatusCode::PERMANENT_REDIRECT, None, 0, io::empty());
            set(&mut response, header::LOCATION, &location);
            set(
                &mut response,
                HeaderName::from_static("x-cs-region"),
                settings.cloud.name(),
            );
            return Ok(response);
        }
        if let Some(cid) = form.get("member_cid") {
            // Whatever the case, and with or without the checksum.
            let plain = |cid: &str| cid.to_ascii_uppercase().parse::<MemberCid>().ok();
            if !settings
                .children
                .iter()
                .any(|child| plain(child).is_some_and(|child| plain(cid) == Some(child)))
            {
                let cid: String = cid.chars().take(64).collect();
                let message = format!("Failed to generate access token for customer ID={cid}");
                return Err(Refusal::gateway(StatusCode::FORBIDDEN, message));
            }
        }
        let mut state = self.state();
        state.counts.tokens += 1;
        let token =
            digest::sha256(format!("{} token {}", settings.seed, state.counts.tokens).as_bytes());
        state.tokens.retain(|_, end| self.now < *end);
        state
            .tokens
            .insert(token.clone(), self.now.after(settings.token_life));
        drop(state);
        let body = json!({
            "access_token": token,
            "expires_in": settings.token_life.as_secs(),
            "token_type": "bearer",
        });
        let mut response = self.json(StatusCode::CREATED, &body);
        set(
            &mut response,
            HeaderName::from_static("x-cs-region"),
            settings.cloud.name(),
        );
        Ok(response)
    }

    fn revoke(&self, request: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let expected =
            STANDARD.encode(format!("{}:{}", settings.client_id, settings.client_secret));
        if credentials(request.headers(), "basic") != Some(&expected) {
            let message = "access denied, invalid client credentials";
            return Err(Refusal::gateway(StatusCode::UNAUTHORIZED, message));
        }
        let Some((_, token)) =
            form_urlencoded::parse(request.body()).find(|(name, _)| name == "token")
        else {
            return Err(Refusal::gateway(
                StatusCode::BAD_REQUEST,
                "token is missing",
            ));
        };
        self.state().tokens.remove(&*token);
        Ok(self.json(
            StatusCode::OK,
            &json!({"meta": self.meta(GATEWAY), "errors": []}),
        ))
    }

    // Operations.

    fn quotas(&self, _: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let state = self.state();
        let (counts, refresh) = (state.counts, state.refresh.unwrap_or(Timestamp::MAX));
        drop(state);
        let body = json!({
            "meta": {
                "hunt_count": counts.hunts,
                "hunt_limit": settings.hunts,
                "download_count": counts.downloads,
                "download_limit": settings.downloads,
                "monitor_count": 0,
                "monitor_limit": 0,
                "days_left": refresh.since(self.now).as_millis().div_ceil(DAY.as_millis()) as u64,
                "refresh_time": refresh.to_string(),
                "hunt_counts": [{"userid": "", "counter": counts.hunts}],
                "download_counts": [{"userid": "", "counter": counts.downloads}],
            },
            "errors": [],
        });
        Ok(self.json(StatusCode::OK, &body))
    }

    fn fuzzy_search(&self, request: &Request<Vec<u8>>) -> Answer {
        let document = ask::document(request.body()).map_err(Refusal::input)?;
        let patterns = ask::patterns(&document).map_err(Refusal::input)?;
        let mut options = ask::options(&document).map_err(Refusal::input)?;
        // It knows no other filter.
        options.filter = Filter {
            limit: options.filter.limit,
            ..Default::default()
        };
        let turn = self.service.requests.enter();
        let found = self.service.corpus.search(&patterns, &options.filter);
        drop(turn);
        let found = found.map_err(|error| Refusal::corpus(&error))?;
        let mut document = Document::new(self.meta(MALQUERY));
        document.meta["status"] = "done".into();
        document.found(&found, options.fields.as_deref(), None);
        Ok(self.json(StatusCode::OK, &document))
    }

    fn metadata(&self, request: &Request<Vec<u8>>) -> Answer {
        let ids = ask::ids(request.uri()).map_err(Refusal::input)?;
        let hashes = ask::hashes(ids.iter().map(String::as_str)).map_err(Refusal::input)?;
        let mut entries = Vec::new();
        for hash in &hashes {
            entries.extend(self.find(hash)?);
        }
        let mut document = Document::new(self.meta(MALQUERY));
        document.resources = entries
            .iter()
            .map(|entry| Resource::new(entry, None, None))
            .collect();
        Ok(self.json(StatusCode::OK, &document))
    }

    fn download(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let hashes = ask::hashes([&*id]).map_err(Refusal::input)?;
        let entry = self.find_all(&hashes)?.remove(0);
        let bytes = entry.open().map_err(|error| Refusal::corpus(&error))?;
        spend(
            &mut self.state().counts.downloads,
            self.service.settings.downloads,
            1,
            "downloads",
        )?;
        Ok(self.reply(
            StatusCode::OK,
            Some("application/octet-stream"),
            entry.size(),
            bytes,
        ))
    }

    fn exact_search(&self, request: &Request<Vec<u8>>) -> Answer {
        let document = ask::document(request.body()).map_err(Refusal::input)?;
        let patterns = ask::patterns(&document).map_err(Refusal::input)?;
        let options = ask::options(&document).map_err(Refusal::input)?;
        let corpus = self.service.corpus.clone();
        let (kind, filter) = (Kind::Search(patterns.clone()), options.filter);
        self.submit(
            kind,
            options.sent,
            options.fields,
            |_| Ok(()),
            move || {
                let found = corpus
                    .search(&patterns, &filter)
                    .map_err(|error| error.to_string())?;
                Ok(Work::Found(Arc::new(found)))
            },
        )
    }

    #[cfg(feature = "yara")]
    fn hunt(&self, request: &Request<Vec<u8>>) -> Answer {
        let document = ask::document(request.body()).map_err(Refusal::input)?;
        let text = ask::rule(&document).map_err(Refusal::input)?;
        let options = ask::options(&document).map_err(Refusal::input)?;
        let rule = super::corpus::Rule::compile(text)
            .map_err(|error| Refusal::input(format_args!("yara_rule does not compile: {error}")))?;
        let corpus = self.service.corpus.clone();
        let (kind, filter) = (
            Kind::Hunt {
                text: text.into(),
                name: rule.name().into(),
            },
            options.filter,
        );
        let spend = |state: &mut State| {
            spend(
                &mut state.counts.hunts,
                self.service.settings.hunts,
                1,
                "hunts",
            )
        };
        self.submit(kind, options.sent, options.fields, spend, move || {
            let found = corpus
                .hunt(&rule, &filter)
                .map_err(|error| error.to_string())?;
            Ok(Work::Found(Arc::new(found)))
        })
    }

    #[cfg(not(feature = "yara"))]
    fn hunt(&self, request: &Request<Vec<u8>>) -> Answer {
        let document = ask::document(request.body()).map_err(Refusal::input)?;
        ask::rule(&document).map_err(Refusal::input)?;
        Err(Refusal::input(
            "there is no YARA in this stand-in; turn on the feature `yara` of malquery-mock",
        ))
    }

    fn multidownload(&self, request: &Request<Vec<u8>>) -> Answer {
        let document = ask::document(request.body()).map_err(Refusal::input)?;
        let hashes = ask::samples(&document).map_err(Refusal::input)?;
        let entries = self.find_all(&hashes)?;
        let count = entries.len() as u64;
        let spend = |state: &mut State| {
            spend(
                &mut state.counts.downloads,
                self.service.settings.downloads,
                count,
                "downloads",
            )
        };
        self.submit(Kind::Archive, None, None, spend, move || {
            Archive::make(&entries).map(Work::Archive)
        })
    }

    fn request(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let Some(job) = self.state().jobs.find(&id) else {
            return Err(Refusal::input(format_args!(
                "there is no job {}",
                ask::quoted(&id)
            )));
        };
        let work = if self.is_due(&job, job.polled()) {
            job.outcome()
        } else {
            Work::Running
        };
        let mut document = Document::new(self.meta(MALQUERY));
        let meta = &mut document.meta;
        meta["query_time"] = (self.now.since(job.submitted).as_nanos() as u64).into();
        meta["reqid"] = job.id.clone().into();
        let mut rule = None;
        match &job.kind {
            Kind::Search(patterns) => {
                meta["reqtype"] = "search".into();
                meta["patterns"] = json!(patterns);
                meta["yara_rule"] = rule_of(patterns).into();
            }
            #[cfg(feature = "yara")]
            Kind::Hunt { text, name } => {
                meta["reqtype"] = "hunt".into();
                meta["yara_rule"] = text.clone().into();
                rule = Some(&**name);
            }
            Kind::Archive => {}
        }
        if let Some(options) = &job.options {
            meta["options"] = options.clone();
        }
        let status = match &work {
            Work::Running => "inprogress",
            Work::Archive(_) => "done",
            Work::Found(found) => {
                document.found(found, job.fields.as_deref(), rule.take());
                "done"
            }
            Work::Failed(why) => {
                document.errors = vec![json!({"code": 500, "message": &**why})];
                "failed"
            }
        };
        document.meta["status"] = status.into();
        Ok(self.json(StatusCode::OK, &document))
    }

    fn samples(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let job = self.state().jobs.find(&id);
        let archive = job
            .filter(|job| matches!(job.kind, Kind::Archive) && self.is_due(job, job.polls()))
            .and_then(|job| match job.outcome() {
                Work::Archive(archive) => Some(archive),
                _ => None,
            })
            .ok_or_else(|| {
                Refusal::malquery(StatusCode::NOT_FOUND, "Could not find sample archive")
            })?;
        Ok(self.reply(
            StatusCode::OK,
            Some("application/zip"),
            archive.length,
            archive.read(),
        ))
    }

    /// Whether a job may be over, after this many polls.
    fn is_due(&self, job: &Job, polls: u64) -> bool {
        let settings = &self.service.settings;
        polls >= settings.polls && self.now >= job.submitted.after(settings.job_time)
    }

    /// A sample, if it is there. The corpus may have to hash all that it has.
    fn find(&self, hash: &Sha256) -> Result<Option<Entry>, Refusal> {
        let _turn = self.service.requests.enter();
        self.service
            .corpus
            .find(hash)
            .map_err(|error| Refusal::corpus(&error))
    }

    /// These samples, if all of them are there.
    fn find_all(&self, hashes: &[Sha256]) -> Result<Vec<Entry>, Refusal> {
        let missing = |hash| {
            Refusal::malquery(
                StatusCode::NOT_FOUND,
                format!("Could not find sample {hash}"),
            )
        };
        hashes
            .iter()
            .map(|hash| self.find(hash)?.ok_or_else(|| missing(hash)))
            .collect()
    }

    /// Takes a job on, if its quota can be spent.
    fn submit(
        &self,
        kind: Kind,
        options: Option<Value>,
        fields: Option<Vec<MetaField>>,
        spend: impl FnOnce(&mut State) -> Result<(), Refusal>,
        work: impl FnOnce() -> Result<Work, String> + Send + 'static,
    ) -> Answer {
        let mut state = self.state();
        if state.jobs.is_full() {
            let retry_at = Some(self.now.after(Duration::from_secs(1)));
            let refusal = Refusal::gateway(
                StatusCode::TOO_MANY_REQUESTS,
                "too many jobs are not finished",
            );
            return Err(Refusal {
                retry_at,
                ..refusal
            });
        }
        spend(&mut state).map_err(|refusal| Refusal {
            is_submission: true,
            ..refusal
        })?;
        state.jobs.count += 1;
        let number = state.jobs.count;
        let id = self.service.id("job", number);
        let job = Arc::new(Job::new(id, kind, options, fields, self.now));
        let pending = state.jobs.keep(job.clone());
        drop(state);
        let settings = self.service.settings.clone();
        pending.start(self.service.jobs.clone(), move || {
            if (settings.fails)(number) {
                Err("the job was made to fail".into())
            } else {
                work()
            }
        });
        let mut document = Document::new(self.meta(MALQUERY));
        document.meta["reqid"] = job.id.clone().into();
        document.meta["status"] = "done".into();
        Ok(self.json(StatusCode::OK, &document))
    }

    // Replies.

    fn meta(&self, powered_by: &str) -> Value {
        let time = self
            .service
            .settings
            .clock
            .now()
            .since(self.now)
            .as_secs_f64();
        json!({"query_time": time, "powered_by": powered_by, "trace_id": self.trace_id})
    }

    fn refused(&self, refusal: Refusal) -> Response<ServiceBody> {
        let Refusal {
            status,
            powered_by,
            message,
            retry_at,
            is_submission,
        } = refusal;
        let errors = json!([{"code": status.as_u16(), "message": message}]);
        let mut document = json!({"meta": self.meta(powered_by), "errors": errors});
        if is_submission {
            document["meta"]["reqid"] = "".into();
            document["meta"]["status"] = "".into();
            document["resources"] = json!([]);
        }
        let mut response = self.json(status, &document);
        if let Some(time) = retry_at {
            let seconds = time.as_millis().div_ceil(1000).to_string();
            set(
                &mut response,
                HeaderName::from_static("x-ratelimit-retryafter"),
                &seconds,
            );
        }
        response
    }

    fn json(&self, status: StatusCode, body: &impl Serialize) -> Response<ServiceBody> {
        // None of these has a key that is no text, or fails otherwise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.reply(
            status,
            Some("application/json"),
            body.len() as u64,
            Cursor::new(body),
        )
    }

    fn reply(
        &self,
        status: StatusCode,
        media_type: Option<&str>,
        length: u64,
        body: impl Read + Send + 'static,
    ) -> Response<ServiceBody> {
        let mut response = Response::new(ServiceBody(Box::new(body)));
        *response.status_mut() = status;
        if let Some(media_type) = media_type {
            set(&mut response, header::CONTENT_TYPE, media_type);
        }
        set(&mut response, header::CONTENT_LENGTH, &length.to_string());
        set(
            &mut response,
            HeaderName::from_static("x-cs-traceid"),
            &self.trace_id,
        );
        let (limit, left) = self.rate.get();
        set(
            &mut response,
            HeaderName::from_static("x-ratelimit-limit"),
            &limit.to_string(),
        );
        set(
            &mut response,
            HeaderName::from_static("x-ratelimit-remaining"),
            &left.to_string(),
        );
        response
    }
}

/// The endpoint at a path: its method, its scope and what answers.
fn route(path: &str) -> Option<(Method, Option<Scope>, Handler)> {
    let operations: [(Endpoint, Handler); 9] = [
        (GetQuotas::ENDPOINT, Call::quotas),
        (FuzzySearch::ENDPOINT, Call::fuzzy_search),
        (GetDownload::ENDPOINT, Call::download),
        (GetMetadata::ENDPOINT, Call::metadata),
        (GetRequest::ENDPOINT, Call::request),
        (GetSamples::ENDPOINT, Call::samples),
        (SamplesMultidownload::ENDPOINT, Call::multidownload),
        (ExactSearch::ENDPOINT, Call::exact_search),
        (Hunt::ENDPOINT, Call::hunt),
    ];
    match path {
        "/oauth2/token" => Some((Method::POST, None, Call::token)),
        "/oauth2/revoke" => Some((Method::POST, None, Call::revoke)),
        _ => operations
            .into_iter()
            .find(|(meta, _)| meta.path == path)
            .map(|(meta, handler)| (meta.method, meta.scope, handler)),
    }
}

/// The cloud whose host a request names.
fn asked(request: &Request<Vec<u8>>) -> Option<Cloud> {
    let host = request.uri().host()?;
    format!("https://{host}").parse::<BaseUrl>().ok()?.cloud()
}

/// What an `Authorization` header holds, if it is of this scheme.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (given, value) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then_some(value.trim())
}

/// Spends a quota, or nothing.
fn spend(used: &mut u64, limit: u64, count: u64, what: &str) -> Result<(), Refusal> {
    match used.checked_add(count) {
        Some(sum) if sum <= limit => {
            *used = sum;
            Ok(())
        }
        _ => Err(Refusal::quota(what)),
    }
}

fn set(response: &mut Response<ServiceBody>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A JSON reply. The service leaves out errors where there are none.
#[derive(Serialize)]
struct Document<'a> {
    meta: Value,
    resources: Vec<Resource<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Value>,
}

impl<'a> Document<'a> {
    fn new(meta: Value) -> Self {
        Self {
            meta,
            resources: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// The results of a search, and what was left out of it.
    fn found(&mut self, found: &'a Found, fields: Option<&[MetaField]>, rule: Option<&'a str>) {
        self.meta["stats"] = json!({
            "clean_count": found.clean,
            "malware_count": found.malware,
            "pua_count": found.pua,
            "total_count": found.total,
            "unknown_count": found.unknown,
        });
        self.resources = found
            .entries
            .iter()
            .map(|entry| Resource::new(entry, fields, rule))
            .collect();
        // The first of them tell enough.
        self.errors = found
            .skipped
            .iter()
            .take(10)
            .map(|skipped| json!({"code": 500, "message": format!("not searched: {skipped}")}))
            .collect();
    }
}

/// A sample as a result.
#[derive(Serialize)]
struct Resource<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha1: Option<Sha1>,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5: Option<Md5>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filetype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yara_rule: Option<&'a str>,
}

impl<'a> Resource<'a> {
    fn new(entry: &'a Entry, fields: Option<&[MetaField]>, rule: Option<&'a str>) -> Self {
        let wanted = |field| fields.is_none_or(|fields| fields.contains(&field));
        Self {
            sha256: wanted(MetaField::Sha256).then(|| entry.sha256()),
            // There is no field that selects it.
            sha1: fields.is_none().then(|| entry.sha1()),
            md5: wanted(MetaField::Md5).then(|| entry.md5()),
            filesize: wanted(MetaField::Size).then(|| entry.size()),
            filetype: wanted(MetaField::Type).then(|| entry.filetype()),
            first_seen: wanted(MetaField::FirstSeen).then(|| entry.first_seen()),
            label: wanted(MetaField::Label).then(|| entry.label().unwrap_or("unknown")),
            family: entry.family().filter(|_| wanted(MetaField::Family)),
            yara_rule: rule,
        }
    }
}

/// The rule the service makes of patterns.
fn rule_of(patterns: &[Pattern]) -> String {
    let strings: String = patterns
        .iter()
        .enumerate()
        .map(|(number, pattern)| {
            let text = pattern.value();
            let kind = pattern.pattern_type();
            if *kind == PatternType::Hex || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                format!("    $p{number} = {{ {} }}\n", digest::hex(pattern.bytes()))
            } else {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                format!("    $p{number} = \"{text}\" {kind}\n")
            }
        })
        .collect();
    format!("rule search\n{{\n  strings:\n{strings}  condition:\n    all of them\n}}\n")
}
