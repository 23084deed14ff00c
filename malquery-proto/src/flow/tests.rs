//! Tests the flows against a simulated service and a simulated clock.

use std::collections::VecDeque;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::attempts::Attempts;
use super::*;
use crate::cloud::{BaseUrl, Cloud};
use crate::credentials::{BearerToken, Credentials};
use crate::error::ApiErrorKind;
use crate::operation::{JsonOperation, JsonReply, Operation};
use crate::operations::{GetDownload, GetQuotas, Hunt};
use crate::reply::ResponseHead;
use crate::request::NewConnection;
use crate::types::SearchOptions;

/// The outcome of the next request.
#[derive(Debug, Clone)]
enum Answer {
    Reply(u16, Vec<(&'static str, String)>, String),
    Lost(SendFailure),
}

fn reply(status: u16, body: &str) -> Answer {
    Answer::Reply(status, vec![], body.into())
}

fn with(answer: Answer, name: &'static str, value: impl ToString) -> Answer {
    match answer {
        Answer::Reply(status, mut headers, body) => {
            headers.push((name, value.to_string()));
            Answer::Reply(status, headers, body)
        }
        lost => lost,
    }
}

fn token() -> Answer {
    reply(201, r#"{"access_token": "t0ken", "expires_in": 1799}"#)
}

fn quotas() -> Answer {
    reply(200, r#"{"meta": {"hunt_count": 1, "hunt_limit": 5}}"#)
}

fn submitted() -> Answer {
    reply(
        200,
        r#"{"meta": {"reqid": "job-1", "status": "done"}, "resources": []}"#,
    )
}

fn status(word: &str) -> Answer {
    reply(
        200,
        &format!(r#"{{"meta": {{"reqid": "job-1", "status": "{word}"}}, "resources": []}}"#),
    )
}

const GATEWAY_429: &str = r#"{"meta": {"powered_by": "crowdstrike-api-gateway"}, "errors": [{"code": 429, "message": "slow down"}]}"#;
const QUOTA_429: &str =
    r#"{"meta": {"powered_by": "malquery-api"}, "errors": [{"code": 429, "message": "quota"}]}"#;

/// Runs flows against a list of answers, and records the requests and pauses.
struct Service {
    now: Timestamp,
    auth: Auth,
    answers: VecDeque<Answer>,
    sent: Vec<String>,
    new_connections: Vec<bool>,
    waits: Vec<Duration>,
}

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

impl Service {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            now: START,
            auth: session(),
            answers: answers.into_iter().collect(),
            sent: vec![],
            new_connections: vec![],
            waits: vec![],
        }
    }

    fn answer(&mut self, attempt: &Attempt) -> Answer {
        let uri = attempt.request.uri();
        let extensions = attempt.request.extensions();
        self.new_connections
            .push(extensions.get::<NewConnection>().is_some());
        self.sent.push(format!(
            "{} {}",
            attempt.request.method(),
            uri.path().rsplit('/').nth(1).unwrap_or_default()
        ));
        self.answers
            .pop_front()
            .unwrap_or_else(|| panic!("unexpected request {:?}", self.sent))
    }

    fn run<F: Flow>(&mut self, flow: &mut F) -> Result<F::Output, FlowError> {
        for _ in 0..1000 {
            match flow.poll(self.now, &mut self.auth)? {
                Step::Wait(time) => {
                    assert!(time > self.now, "the wait is already over");
                    self.waits.push(time.since(self.now));
                    self.now = time;
                }
                Step::Send(attempt) => match self.answer(&attempt) {
                    Answer::Lost(why) => {
                        flow.on_failure(self.now, &mut self.auth, attempt.ticket, why)?
                    }
                    Answer::Reply(status, headers, body) => {
                        let headers = headers_of(&headers);
                        let head = head(status, &headers);
                        let (ticket, body) = (attempt.ticket, body.as_bytes());
                        if let Some(output) =
                            flow.on_response(self.now, &mut self.auth, ticket, head, body)?
                        {
                            return Ok(output);
                        }
                    }
                },
            }
        }
        panic!("the flow does not end: {:?}", self.sent)
    }

    fn call<O: JsonOperation>(&mut self, operation: &O) -> Result<JsonReply<O>, FlowError> {
        self.run(&mut CallFlow::new(operation, RetryPolicy::default(), 7))
    }

    fn job(&mut self, flow: &mut JobFlow) -> Result<JsonReply<GetRequest>, FlowError> {
        self.run(flow)
    }
}

impl Attempts {
    fn on_response<O: JsonOperation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Option<JsonReply<O>>, FlowError> {
        if ticket.is_token() {
            return self.on_token(now, auth, ticket, head, body).map(|()| None);
        }
        self.on_reply(now, auth, ticket, operation.response(head, body))
    }
}

fn hunt() -> Hunt {
    Hunt::new("rule private_rule { condition: true }").options(SearchOptions::new().limit(3))
}

fn job() -> JobFlow {
    JobFlow::new(hunt(), RetryPolicy::default(), 7)
}

fn attached() -> JobFlow {
    JobFlow::attach("job-1".parse().unwrap(), RetryPolicy::default(), 7)
}

fn call(seed: u64) -> Attempts {
    Attempts::new(RetryPolicy::default(), seed)
}

/// Returns a session that requests tokens.
fn session() -> Auth {
    Auth::new(Cloud::Us1, Credentials::new("id", "s3cret"))
}

/// Returns a session with a token that was obtained elsewhere.
fn supplied() -> Auth {
    Auth::with_token(Cloud::Us1, BearerToken::new("t0ken").unwrap())
}

fn sent(step: Result<Step, FlowError>) -> Attempt {
    match step {
        Ok(Step::Send(attempt)) => *attempt,
        step => panic!("{step:?}"),
    }
}

fn head(status: u16, headers: &HeaderMap) -> ResponseHead<'_> {
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
    }
}

fn headers_of(headers: &[(&'static str, String)]) -> HeaderMap {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn api_kind(error: &FlowError) -> Option<ApiErrorKind> {
    match error {
        FlowError::Response(ResponseError::Api(error)) => Some(error.kind()),
        _ => None,
    }
}

#[test]
fn a_token_without_lifetime_serves_one_call() {
    let dead = || reply(201, r#"{"access_token": "t", "expires_in": 0}"#);
    let mut service = Service::new([dead(), quotas(), dead(), quotas()]);
    service.call(&GetQuotas).unwrap();
    service.call(&GetQuotas).unwrap();
}

#[test]
fn invalid_calls_are_refused_without_a_token() {
    let mut service = Service::new([]);
    let error = service.call(&Hunt::new(" ")).unwrap_err();
    assert!(
        matches!(error, FlowError::Build(BuildError::EmptyRule)),
        "{error}"
    );
    service.auth = Auth::new(Cloud::Us1, Credentials::new("id", ""));
    let error = service.call(&GetQuotas).unwrap_err();
    assert_eq!(error.to_string(), "the client secret is empty");
    assert!(service.sent.is_empty());
}

#[test]
fn a_401_repeats_once_with_another_token() {
    let denied = || {
        reply(
            401,
            r#"{"errors": [{"code": 401, "message": "access denied, invalid bearer token"}]}"#,
        )
    };
    for billed in [false, true] {
        let mut service = Service::new([token(), denied(), token()]);
        service
            .answers
            .push_back(if billed { submitted() } else { quotas() });
        let result = if billed {
            service.call(&hunt()).map(drop)
        } else {
            service.call(&GetQuotas).map(drop)
        };
        result.unwrap();
        let mut service = Service::new([token(), denied(), token(), denied()]);
        let error = if billed {
            service.call(&hunt()).map(drop)
        } else {
            service.call(&GetQuotas).map(drop)
        };
        assert_eq!(
            api_kind(&error.unwrap_err()),
            Some(ApiErrorKind::Unauthorized)
        );
        assert!(service.waits.is_empty());
    }
}

#[test]
fn wrong_credentials_are_tried_once() {
    let mut service = Service::new([reply(
        403,
        r#"{"errors": [{"code": 403, "message": "access denied, authorization failed"}]}"#,
    )]);
    let error = service.call(&GetQuotas).unwrap_err();
    assert_eq!(
        error.to_string(),
        "oauth2AccessToken returned 403 Forbidden: access denied, authorization failed; hint: your IP \
         address is probably not on the API client's allowlist"
    );
    assert!(!error.to_string().contains("s3cret"));
}

#[test]
fn only_safe_calls_repeat_after_failures() {
    let failures = [
        reply(500, ""),
        reply(502, "<html>"),
        Answer::Lost(SendFailure::Unknown),
    ];
    let mut service = Service::new(
        [token()]
            .into_iter()
            .chain(failures.clone())
            .chain([quotas()]),
    );
    service.call(&GetQuotas).unwrap();
    assert_eq!(service.waits.len(), 3);
    for (wait, most) in service.waits.iter().zip([500, 1000, 2000]) {
        assert!(
            wait.as_millis() >= most / 2 && wait.as_millis() <= most,
            "{wait:?} of {most}"
        );
    }
    for failure in failures {
        let mut service = Service::new([token(), failure]);
        let error = service.call(&hunt()).unwrap_err();
        assert!(matches!(error, FlowError::OutcomeUnknown { .. }), "{error}");
        assert_eq!(service.sent, ["POST oauth2", "POST hunt"]);
    }
}

#[test]
fn what_was_surely_not_sent_is_sent_again() {
    let refused = || Answer::Lost(SendFailure::NotSent);
    let mut service = Service::new([refused(), token(), refused(), refused(), submitted()]);
    service.call(&hunt()).unwrap();
    let mut service = Service::new([token(), refused(), refused(), refused(), refused()]);
    let error = service.call(&hunt()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PostMalQueryHuntV1 failed after 4 attempts; the last attempt did not receive a complete reply"
    );
    let mut service = Service::new([refused(), refused(), refused(), refused()]);
    let error = service.call(&hunt()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "oauth2AccessToken failed after 4 attempts; the last attempt did not receive a complete reply"
    );
}

/// 1,600,000,000 seconds after the Unix epoch, as an HTTP date.
const DATE: &str = "Sun, 13 Sep 2020 12:26:40 GMT";

#[test]
fn only_a_rate_limit_is_waited_for() {
    let seconds = START.as_millis() / 1000 + 7;
    for (answer, expected) in [
        (
            with(reply(429, GATEWAY_429), "x-ratelimit-retryafter", seconds),
            7_000,
        ),
        (
            with(
                reply(429, GATEWAY_429),
                "x-ratelimit-retryafter",
                seconds * 1000,
            ),
            7_000,
        ),
        (with(reply(429, GATEWAY_429), "retry-after", 9), 9_000),
        (with(reply(429, QUOTA_429), "retry-after", 9), 9_000),
        // The pause is measured with the service's clock.
        (
            with(
                with(
                    reply(429, GATEWAY_429),
                    "x-ratelimit-retryafter",
                    1_600_000_008,
                ),
                "date",
                DATE,
            ),
            8_000,
        ),
        (
            with(
                with(
                    reply(429, GATEWAY_429),
                    "x-ratelimit-retryafter",
                    1_600_000_008_000_u64,
                ),
                "date",
                DATE,
            ),
            8_000,
        ),
        (
            with(
                with(
                    reply(429, GATEWAY_429),
                    "retry-after",
                    "Sun, 13 Sep 2020 12:26:46 GMT",
                ),
                "date",
                DATE,
            ),
            6_000,
        ),
    ] {
        let mut service = Service::new([token(), answer, submitted()]);
        service.call(&hunt()).unwrap();
        assert_eq!(service.waits, [Duration::from_millis(expected)]);
    }
    // Without a retry time, or with one in the past, the policy sets the pause.
    for answer in [
        reply(429, GATEWAY_429),
        with(
            reply(429, GATEWAY_429),
            "x-ratelimit-retryafter",
            seconds - 60,
        ),
    ] {
        let mut service = Service::new([token(), answer, submitted()]);
        service.call(&hunt()).unwrap();
        assert_eq!(service.waits.len(), 1);
    }
    let mut service = Service::new([token(), reply(429, QUOTA_429)]);
    assert_eq!(
        api_kind(&service.call(&hunt()).unwrap_err()),
        Some(ApiErrorKind::QuotaExhausted)
    );
    // The requested pause is longer than the policy allows.
    let far = with(reply(429, GATEWAY_429), "retry-after", 3600);
    let mut service = Service::new([token(), far]);
    let error = service.call(&hunt()).unwrap_err();
    let FlowError::Response(ResponseError::Api(api)) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        api.retry_at(service.now),
        Some(START.after(Duration::from_secs(3600)))
    );
}

#[test]
fn the_account_is_followed_to_its_cloud_once() {
    let moved = |to: &str| with(with(reply(308, ""), "location", to), "x-cs-region", "us-2");
    let us2 = "https://api.us-2.crowdstrike.com/oauth2/token";
    let mut service = Service::new([moved(us2), token(), quotas()]);
    service.call(&GetQuotas).unwrap();
    assert_eq!(service.auth.base(), &BaseUrl::from(Cloud::Us2));

    let mut service = Service::new([moved(us2), moved(us2)]);
    assert_eq!(
        api_kind(&service.call(&GetQuotas).unwrap_err()),
        Some(ApiErrorKind::Redirect)
    );

    for elsewhere in [
        "https://evil.example/oauth2/token",
        "http://api.us-2.crowdstrike.com/oauth2/token",
        "https://api.us-2.crowdstrike.com.evil.example/",
        "https://api.us-2.crowdstrike.com@evil.example/",
        "https://user@api.us-2.crowdstrike.com/",
        "https://:word@api.us-2.crowdstrike.com/",
        "https://api.us-2.crowdstrike.com:8443/",
        "/oauth2/token",
    ] {
        let mut service = Service::new([moved(elsewhere)]);
        let error = service.call(&GetQuotas).unwrap_err();
        assert_eq!(
            api_kind(&error),
            Some(ApiErrorKind::Redirect),
            "{elsewhere}"
        );
        assert!(
            error
                .to_string()
                .ends_with("select that cloud, for example with FALCON_CLOUD=us-2"),
            "{error}"
        );
    }
    // Only a redirect leads to another cloud.
    let mut service = Service::new([with(reply(403, ""), "location", us2)]);
    assert_eq!(
        api_kind(&service.call(&GetQuotas).unwrap_err()),
        Some(ApiErrorKind::Forbidden)
    );
    assert_eq!(service.auth.base(), &BaseUrl::from(Cloud::Us1));
    // Government accounts exist only in their own clouds.
    for (from, to) in [
        (Cloud::Us1, Cloud::UsGov1),
        (Cloud::Us1, Cloud::UsGov2),
        (Cloud::UsGov1, Cloud::Us2),
        (Cloud::UsGov2, Cloud::UsGov1),
    ] {
        let mut service = Service::new([moved(&format!("{}/oauth2/token", BaseUrl::from(to)))]);
        service.auth = Auth::new(from, Credentials::new("id", "s3cret"));
        assert_eq!(
            api_kind(&service.call(&GetQuotas).unwrap_err()),
            Some(ApiErrorKind::Redirect),
            "{from} {to}"
        );
    }
    let mut service = Service::new([moved(us2)]);
    service.auth = Auth::new(Cloud::Us1, Credentials::new("id", "s3cret")).follow_region(false);
    assert_eq!(
        api_kind(&service.call(&GetQuotas).unwrap_err()),
        Some(ApiErrorKind::Redirect)
    );
}

#[test]
fn a_401_names_the_right_cloud() {
    let denied = || with(reply(401, ""), "x-cs-region", "us-2");
    let mut service = Service::new([token(), denied(), token(), denied()]);
    assert_eq!(
        service.call(&GetQuotas).unwrap_err().to_string(),
        "GetMalQueryQuotasV1 returned 401 Unauthorized; hint: the request was sent to us-1, but the reply names the cloud us-2; \
         select that cloud, for example with FALCON_CLOUD=us-2"
    );
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    let short = || reply(201, r#"{"access_token": "t", "expires_in": 100}"#);
    let cid = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let child = session().margin(Duration::from_secs(60)).child(cid);
    for (auth, answer, last, renewed) in [
        (session(), token as fn() -> Answer, 1_678_999, 1_679_000),
        (session(), short, 74_999, 75_000),
        (child, token, 1_738_999, 1_739_000),
    ] {
        let mut service = Service::new([answer(), quotas(), quotas(), answer(), quotas()]);
        service.auth = auth;
        service.call(&GetQuotas).unwrap();
        service.now = START.after(Duration::from_millis(last));
        service.call(&GetQuotas).unwrap();
        assert_eq!(service.sent.len(), 3);
        service.now = START.after(Duration::from_millis(renewed));
        service.call(&GetQuotas).unwrap();
        assert_eq!(service.sent.len(), 5);
    }
}

#[test]
fn what_needs_a_change_is_not_retried() {
    let never = || Answer::Lost(SendFailure::CannotSend);
    for (answers, operation) in [
        (vec![never()], "oauth2AccessToken"),
        (vec![token(), never(), never()], "GetMalQueryQuotasV1"),
    ] {
        let mut service = Service::new(answers);
        while !service.answers.is_empty() {
            let error = service.call(&GetQuotas).unwrap_err();
            let expected = format!("the request for {operation} cannot be sent");
            assert_eq!(error.to_string(), expected);
            assert!(!error.is_retryable());
        }
    }
    let mut auth = supplied();
    let mut flow = call(1);
    flow.set_deadline(Some(START));
    let error = flow.poll(START, &mut auth, &GetQuotas).unwrap_err();
    assert!(
        matches!(error, FlowError::Deadline { .. }) && !error.is_retryable(),
        "{error}"
    );
    // If the policy ends a call before the deadline, the next run has the full time limit again.
    let limit = Duration::from_secs(1);
    let policy = RetryPolicy {
        time_limit: limit,
        ..RetryPolicy::default()
    };
    let mut flow = Attempts::new(policy, 1);
    flow.set_deadline(Some(START.after(Duration::from_secs(60))));
    let _lost = sent(flow.poll(START, &mut auth, &GetQuotas));
    let error = flow
        .poll(START.after(limit), &mut auth, &GetQuotas)
        .unwrap_err();
    assert!(
        matches!(error, FlowError::TimeUp { .. }) && error.is_retryable(),
        "{error}"
    );
}

#[test]
fn only_a_failing_token_endpoint_is_retried() {
    let limited = with(reply(429, ""), "retry-after", 3);
    let mut service = Service::new([reply(503, ""), limited, token(), quotas()]);
    service.call(&GetQuotas).unwrap();
    assert_eq!(service.waits.len(), 2);
    assert_eq!(service.waits[1], Duration::from_secs(3));
    let mut service = Service::new([reply(400, "")]);
    assert_eq!(
        api_kind(&service.call(&GetQuotas).unwrap_err()),
        Some(ApiErrorKind::BadRequest)
    );
}

#[test]
fn a_pause_ends_before_its_call() {
    let limited = |seconds| with(reply(429, GATEWAY_429), "retry-after", seconds);
    // The first policy limits requested pauses to 120 seconds, and the second limits the call to
    // 100 seconds.
    for (policy, longest) in [
        (RetryPolicy::default(), 120),
        (
            RetryPolicy {
                time_limit: Duration::from_secs(100),
                ..RetryPolicy::default()
            },
            99,
        ),
    ] {
        for (seconds, waits) in [(longest, true), (longest + 1, false)] {
            let mut service = Service::new([token(), limited(seconds), quotas()]);
            let result = service.run(&mut CallFlow::new(&GetQuotas, policy, 7));
            assert_eq!(result.is_ok(), waits, "{seconds}");
            assert_eq!(
                service.waits.iter().sum::<Duration>().as_secs(),
                if waits { seconds } else { 0 }
            );
        }
    }
}

#[test]
fn a_poll_waits_as_the_service_asks() {
    let limited = |seconds| with(reply(429, GATEWAY_429), "retry-after", seconds);
    let attach = || attached();
    // No other call would wait this long.
    let mut service = Service::new([token(), status("inprogress"), limited(300), status("done")]);
    service.job(&mut attach()).unwrap();
    assert_eq!(service.waits, [5, 300].map(Duration::from_secs));
}

#[test]
fn of_two_rate_limits_the_longer_holds() {
    let mut auth = supplied();
    let ready = |auth: &mut Auth| match call(1).poll(START, auth, &GetQuotas) {
        Ok(Step::Wait(time)) => time.since(START).as_secs(),
        step => panic!("{step:?}"),
    };
    for (seconds, expected) in [(10, 10), (5, 10), (20, 20)] {
        auth.pause(START, START.after(Duration::from_secs(seconds)));
        assert_eq!(ready(&mut auth), expected);
    }
}

#[test]
fn a_pause_outlasts_a_clock_one_second_behind() {
    let pause = Pause::new(
        START.after(Duration::from_secs(10)),
        START.after(Duration::from_secs(20)),
    );
    let ends_at = |millis| {
        pause
            .end(START.after(Duration::from_millis(millis)))
            .is_some()
    };
    assert!(!ends_at(8_999) && ends_at(9_000) && ends_at(19_999) && !ends_at(20_000));
}

#[test]
fn flows_share_failures_of_the_token() {
    let mut auth = session();
    let mut flows = [1, 2].map(call);
    let (mut now, mut sent) = (START, 0);
    // Both flows take turns, and together send no more requests than one flow would.
    let error = loop {
        let steps = flows
            .each_mut()
            .map(|flow| flow.poll(now, &mut auth, &GetQuotas).unwrap());
        let report = steps
            .into_iter()
            .zip(&mut flows)
            .find_map(|(step, flow)| match step {
                Step::Send(attempt) => {
                    Some(flow.on_failure(now, &mut auth, attempt.ticket, SendFailure::NotSent))
                }
                Step::Wait(_) => None,
            });
        sent += u32::from(report.is_some());
        if let Some(Err(error)) = report {
            break error;
        }
        flows.reverse();
        now = now.after(Duration::from_millis(100));
    };
    assert_eq!(
        error.to_string(),
        "oauth2AccessToken failed after 4 attempts; the last attempt did not receive a complete reply"
    );
    assert_eq!(sent, 4);
}

#[test]
fn a_late_token_report_ends_no_other_request() {
    let mut auth = session();
    let mut flows = [1, 2, 3].map(call);
    let late = sent(flows[0].poll(START, &mut auth, &GetQuotas));
    let later = START.after(Duration::from_secs(90));
    let _under_way = sent(flows[1].poll(later, &mut auth, &GetQuotas));
    flows[0].cancel(&mut auth, late.ticket).unwrap();
    assert!(matches!(
        flows[2].poll(later, &mut auth, &GetQuotas).unwrap(),
        Step::Wait(_)
    ));
}

#[test]
fn a_job_has_its_submission_until_sent() {
    let mut auth = supplied();
    let mut flow = job();
    assert!(matches!(flow.to_submit(), Some(Submission::Hunt(_))));
    let attempt = sent(flow.poll(START, &mut auth));
    assert!(flow.to_submit().is_none());
    flow.on_failure(START, &mut auth, attempt.ticket, SendFailure::NotSent)
        .unwrap();
    assert!(flow.to_submit().is_some());
    assert!(attached().to_submit().is_none());
}

#[test]
fn an_attempt_says_how_much_to_read() {
    let mut auth = session();
    let token = sent(call(1).poll(START, &mut auth, &GetQuotas));
    assert_eq!(
        format!("{token:?}"),
        "Attempt(POST https://api.crowdstrike.com/oauth2/token)"
    );
    assert!(token.ticket.is_token());
    let mut auth = supplied();
    let mut flow = call(1);
    let call = sent(flow.poll(START, &mut auth, &GetQuotas));
    assert_eq!(
        (token.max_body, call.max_body),
        (Some(65_536), Some(268_435_456))
    );
    let sample = GetDownload::new(crate::types::Sha256::from_bytes([1; 32]));
    let mut flow = DownloadFlow::new(&sample, RetryPolicy::default(), 1);
    let download = sent(flow.poll(START, &mut auth));
    assert_eq!(download.max_body, None);
    let headers = HeaderMap::new();
    let head = head(200, &headers);
    let reply = flow
        .on_response(START, &mut auth, download.ticket, head, b"")
        .unwrap();
    assert!(reply.is_some());
}

#[test]
fn pauses_are_spread_over_their_second_half() {
    // The first numbers of splitmix64 with the seed 0.
    assert_eq!(
        [1, 2, 3].map(|round| mix(0, round)),
        [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f
        ]
    );
    let pauses: Vec<_> = (0..2000)
        .map(|seed| RetryPolicy::default().delay(2, seed).as_millis())
        .collect();
    assert_eq!(
        (pauses.iter().min(), pauses.iter().max()),
        (Some(&500), Some(&1000))
    );
}

#[test]
fn an_error_gives_what_the_reply_said() {
    let headers: HeaderMap = [
        (
            HeaderName::from_static("x-cs-traceid"),
            HeaderValue::from_static("trace-1"),
        ),
        (
            HeaderName::from_static("retry-after"),
            HeaderValue::from_static("5"),
        ),
    ]
    .into_iter()
    .collect();
    let head = |status| head(status, &headers);
    let api = |status| GetQuotas.error(head(status), b"");
    let seen = |error: &FlowError| {
        (
            error.api().is_some(),
            error.status().map(|status| status.as_u16()),
            error.trace_id().map(str::to_owned),
            error.is_retryable(),
            error
                .retry_at(START)
                .map(|time| time.since(START).as_secs()),
        )
    };
    let trace = || Some("trace-1".to_owned());
    let busy = FlowError::from(ResponseError::Api(api(503).into()));
    assert_eq!(seen(&busy), (true, Some(503), trace(), true, Some(5)));
    let denied = FlowError::from(ResponseError::Api(api(403).into()));
    assert_eq!(seen(&denied), (true, Some(403), trace(), false, Some(5)));
    let unsure = |reply| FlowError::OutcomeUnknown {
        operation: "x",
        reply,
        id: None,
    };
    assert_eq!(
        seen(&unsure(Some(api(502).into()))),
        (true, Some(502), trace(), false, Some(5))
    );
    assert_eq!(seen(&unsure(None)), (false, None, None, false, None));
    let decode = FlowError::from(JsonOperation::response(&GetQuotas, head(200), b"[").unwrap_err());
    assert_eq!(seen(&decode), (false, Some(200), trace(), false, None));
    let failed =
        br#"{"meta": {"reqid": "job-1", "status": "failed"}, "errors": [{"message": "no"}, {"message": "way"}]}"#;
    let reply = GetRequest::new("job-1".parse().unwrap())
        .response(head(200), failed)
        .unwrap();
    let failed = FlowError::JobFailed(reply.into());
    assert_eq!(seen(&failed), (false, Some(200), trace(), false, None));
    assert_eq!(
        failed.to_string(),
        "the job failed: no; way (trace id trace-1)"
    );
    for error in [
        FlowError::NoReply {
            operation: "x",
            attempts: 1,
        },
        FlowError::TimeUp { operation: "x" },
    ] {
        assert_eq!(seen(&error), (false, None, None, true, None));
    }
}

#[test]
fn a_supplied_token_is_not_renewed() {
    let mut service = Service::new([quotas(), reply(401, "")]);
    service.auth = supplied();
    service.call(&GetQuotas).unwrap();
    let error = service.call(&GetQuotas).unwrap_err();
    assert_eq!(
        api_kind(&error),
        Some(ApiErrorKind::Unauthorized),
        "{error}"
    );
    assert_eq!(service.sent.len(), 2);
}

#[test]
fn flows_wait_for_one_token() {
    let mut auth = session();
    let mut flows = [1, 2, 3].map(call);
    let fetch = sent(flows[0].poll(START, &mut auth, &GetQuotas));
    for flow in &mut flows[1..] {
        assert!(
            matches!(flow.poll(START, &mut auth, &GetQuotas).unwrap(), Step::Wait(time) if time > START)
        );
    }
    let headers = HeaderMap::new();
    let head = head(401, &headers);
    flows[0]
        .on_response(START, &mut auth, &GetQuotas, fetch.ticket, head, b"")
        .unwrap_err();
    let later = START.after(Duration::from_millis(20));
    for flow in &mut flows[1..] {
        assert_eq!(
            api_kind(&flow.poll(later, &mut auth, &GetQuotas).unwrap_err()),
            Some(ApiErrorKind::Unauthorized)
        );
    }
    // A call that begins now may request a token again.
    let mut flow = call(4);
    assert!(matches!(
        flow.poll(later, &mut auth, &GetQuotas).unwrap(),
        Step::Send(_)
    ));
}

#[test]
fn a_silent_flow_blocks_no_token() {
    let mut auth = session();
    let _lost = call(1).poll(START, &mut auth, &GetQuotas).unwrap();
    let mut flow = call(2);
    assert!(matches!(
        flow.poll(START, &mut auth, &GetQuotas).unwrap(),
        Step::Wait(_)
    ));
    let later = START.after(Duration::from_secs(90));
    assert!(matches!(
        flow.poll(later, &mut auth, &GetQuotas).unwrap(),
        Step::Send(_)
    ));
}

#[test]
fn a_job_outlasts_a_done_submission() {
    let mut service = Service::new([
        token(),
        submitted(),
        status("inprogress"),
        status("queued"),
        status("done"),
    ]);
    let mut flow = job();
    let reply = service.job(&mut flow).unwrap();
    assert_eq!(reply.meta.reqid, flow.id().cloned());
    assert_eq!(service.waits, [2, 5, 5].map(Duration::from_secs));
    assert_eq!(
        service.sent,
        [
            "POST oauth2",
            "POST hunt",
            "GET requests",
            "GET requests",
            "GET requests"
        ]
    );
}

#[test]
fn polling_outlasts_an_outage() {
    let mut answers = vec![token(), submitted()];
    answers.extend((0..19).map(|i| {
        if i % 2 == 0 {
            reply(503, "")
        } else {
            Answer::Lost(SendFailure::Unknown)
        }
    }));
    answers.push(status("done"));
    Service::new(answers).job(&mut job()).unwrap();
}

#[test]
fn a_job_resumes_after_a_deadline() {
    let mut service = Service::new(
        [token(), submitted()]
            .into_iter()
            .chain((0..99).map(|_| status("inprogress"))),
    );
    let mut flow = job();
    let deadline = START.after(Duration::from_secs(12));
    flow.set_deadline(Some(deadline));
    let error = service.job(&mut flow).unwrap_err();
    assert_eq!(
        error.to_string(),
        "GetMalQueryRequestV1 timed out: its deadline has passed"
    );
    assert_eq!(service.now, deadline);
    service.answers = [status("done")].into();
    flow.set_deadline(None);
    service.job(&mut flow).unwrap();
}

#[test]
fn a_stored_job_continues_without_its_rule() {
    let mut service = Service::new([token(), submitted(), status("inprogress")]);
    let mut flow = job();
    flow.set_deadline(Some(START.after(Duration::from_secs(3))));
    service.job(&mut flow).unwrap_err();
    let stored = serde_json::to_string(&flow).unwrap();
    for secret in ["private_rule", "s3cret", "t0ken"] {
        assert!(!stored.contains(secret), "{stored}");
    }
    let mut flow: JobFlow = serde_json::from_str(&stored).unwrap();
    service.answers = [status("done")].into();
    service.job(&mut flow).unwrap();
    let newer = stored.replacen("\"version\":1", "\"version\":2", 1);
    assert!(
        serde_json::from_str::<JobFlow>(&newer)
            .unwrap_err()
            .to_string()
            .contains("version 2")
    );
}

#[test]
fn a_possibly_received_submission_is_never_resent() {
    // The outcome was reported as unknown, or the process ended before the report.
    for reported in [true, false] {
        let mut auth = supplied();
        let mut flow = job();
        let attempt = sent(flow.poll(START, &mut auth));
        if reported {
            flow.on_failure(START, &mut auth, attempt.ticket, SendFailure::Unknown)
                .unwrap_err();
        }
        let mut flow = restored(&flow);
        for _ in 0..2 {
            assert!(matches!(
                flow.poll(START, &mut auth).unwrap_err(),
                FlowError::OutcomeUnknown { .. }
            ));
        }
    }
    // The reply has a 2xx status, but no request id.
    for (body, kind) in [
        (r#"{"meta": {}}"#, None),
        (
            r#"{"meta": {}, "errors": [{"code": 500, "message": "no id"}]}"#,
            Some(ApiErrorKind::Partial),
        ),
    ] {
        let mut service = Service::new([token(), reply(200, body)]);
        let mut flow = job();
        let error = service.job(&mut flow).unwrap_err();
        assert!(matches!(error, FlowError::Response(_)), "{error}");
        assert_eq!(api_kind(&error), kind);
        assert!(matches!(
            service.job(&mut flow).unwrap_err(),
            FlowError::OutcomeUnknown { .. }
        ));
    }
    // A submission that was provably not sent is retried.
    let lost = || Answer::Lost(SendFailure::NotSent);
    let mut service = Service::new([
        token(),
        lost(),
        lost(),
        lost(),
        lost(),
        submitted(),
        status("done"),
    ]);
    let mut flow = job();
    service.job(&mut flow).unwrap_err();
    service.job(&mut flow).unwrap();
}

#[test]
fn a_late_submission_under_way_is_unsure() {
    let mut auth = supplied();
    let mut flow = job();
    let _dropped = sent(flow.poll(START, &mut auth));
    let later = START.after(Duration::from_secs(100_000));
    let error = flow.poll(later, &mut auth).unwrap_err();
    assert!(
        matches!(error, FlowError::OutcomeUnknown { .. }) && !error.is_retryable(),
        "{error}"
    );
}

#[test]
fn errors_of_a_submission_stand_in_the_result() {
    let partly =
        r#"{"meta": {"reqid": "job-1"}, "errors": [{"code": 404, "message": "no such sample"}]}"#;
    for word in ["done", "failed"] {
        let end = format!(
            r#"{{"meta": {{"reqid": "job-1", "status": "{word}"}}, "errors": [{{"message": "and more"}}]}}"#
        );
        let mut service = Service::new([
            token(),
            reply(200, partly),
            status("inprogress"),
            reply(200, &end),
        ]);
        let mut flow = JobFlow::new(
            Hunt::new("rule a { condition: true }"),
            RetryPolicy::default(),
            1,
        );
        let reply = match service.job(&mut flow) {
            Ok(reply) => reply,
            Err(FlowError::JobFailed(reply)) => *reply,
            Err(error) => panic!("{error}"),
        };
        let messages: Vec<_> = reply
            .errors
            .iter()
            .filter_map(|error| error.message.as_deref())
            .collect();
        assert_eq!(messages, ["no such sample", "and more"], "{word}");
    }
}

#[test]
fn an_interval_may_exceed_a_calls_time() {
    let mut service = Service::new([token(), status("inprogress"), token(), status("done")]);
    let mut flow = attached();
    flow.set_interval(Duration::from_secs(7200));
    service.job(&mut flow).unwrap();
    assert_eq!(service.waits, [Duration::from_secs(7200)]);
}

#[test]
fn an_unknown_job_is_an_error_at_once() {
    let unknown = reply(
        200,
        r#"{"meta": {}, "resources": null, "errors": [{"code": 404, "message": "no such request"}]}"#,
    );
    let mut service = Service::new([token(), unknown]);
    let error = service.job(&mut attached()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "GetMalQueryRequestV1 returned 200 OK: no such request"
    );
}

#[test]
fn polls_without_a_status_end() {
    for body in [
        r#"{"meta": {}, "resources": []}"#,
        r#"{"resources": [{"label": "malware"}]}"#,
    ] {
        let silent = (0..99).map(|_| reply(200, body));
        let (mut service, mut flow) = submitted_then(silent);
        let error = service.job(&mut flow).unwrap_err();
        assert!(matches!(error, FlowError::NoStatus), "{error}");
        assert_eq!(service.sent.len(), 12);
    }
}

#[test]
fn a_flow_resumes_after_its_time() {
    let mut auth = supplied();
    let mut flow = call(7);
    let attempt = sent(flow.poll(START, &mut auth, &GetQuotas));
    flow.on_failure(START, &mut auth, attempt.ticket, SendFailure::NotSent)
        .unwrap();
    let later = START.after(Duration::from_secs(601));
    assert!(matches!(
        flow.poll(later, &mut auth, &GetQuotas).unwrap_err(),
        FlowError::TimeUp { .. }
    ));
    assert!(matches!(
        flow.poll(later, &mut auth, &GetQuotas).unwrap(),
        Step::Send(_)
    ));
}

#[test]
fn a_rate_limit_without_hint_holds_for_others() {
    let mut auth = supplied();
    let [mut one, mut other] = [1, 2].map(call);
    let attempt = sent(one.poll(START, &mut auth, &GetQuotas));
    let headers = HeaderMap::new();
    let head = head(429, &headers);
    one.on_response(
        START,
        &mut auth,
        &GetQuotas,
        attempt.ticket,
        head,
        GATEWAY_429.as_bytes(),
    )
    .unwrap();
    assert!(matches!(
        other.poll(START, &mut auth, &GetQuotas).unwrap(),
        Step::Wait(_)
    ));
}

#[test]
fn a_flows_timeout_ends_no_other_flow() {
    let mut auth = session();
    let [mut short, mut long] = [1, 2].map(call);
    short.set_deadline(Some(START.after(Duration::from_millis(10))));
    let fetch = sent(short.poll(START, &mut auth, &GetQuotas));
    assert!(matches!(
        long.poll(START, &mut auth, &GetQuotas).unwrap(),
        Step::Wait(_)
    ));
    short
        .on_failure(START, &mut auth, fetch.ticket, SendFailure::Unknown)
        .unwrap_err();
    let Step::Wait(time) = long.poll(START, &mut auth, &GetQuotas).unwrap() else {
        panic!()
    };
    assert!(matches!(
        long.poll(time, &mut auth, &GetQuotas).unwrap(),
        Step::Send(_)
    ));
}

#[test]
fn a_failure_at_the_deadline_names_it() {
    let end = START.after(Duration::from_secs(60));
    for policy in [RetryPolicy::default(), RetryPolicy::never()] {
        for is_token in [true, false] {
            let mut auth = match is_token {
                true => session(),
                false => supplied(),
            };
            let mut flow = CallFlow::new(&GetQuotas, policy, 1);
            flow.set_deadline(Some(end));
            let attempt = sent(flow.poll(START, &mut auth));
            flow.on_failure(end, &mut auth, attempt.ticket, SendFailure::Unknown)
                .unwrap();
            // Even if the clock is set back, no further request is sent.
            let before = START.after(Duration::from_millis(59_500));
            assert!(!matches!(flow.poll(before, &mut auth), Ok(Step::Send(_))));
            flow.set_deadline(Some(end));
            let error = flow.poll(end, &mut auth).unwrap_err();
            assert!(matches!(error, FlowError::Deadline { .. }), "{error}");
        }
    }
}

#[test]
fn a_failed_job_says_why() {
    let failed = reply(
        200,
        r#"{"meta": {"reqid": "job-1", "status": "failed", "trace_id": "t-1"}, "errors": [{"message": "line 3"}]}"#,
    );
    for (mut service, mut flow) in [
        submitted_then([failed.clone()]),
        (Service::new([token(), failed]), attached()),
    ] {
        let error = service.job(&mut flow).unwrap_err();
        assert!(matches!(error, FlowError::JobFailed(_)), "{error}");
        assert_eq!(error.to_string(), "the job failed: line 3 (trace id t-1)");
        assert_eq!(
            (error.trace_id(), error.status().unwrap().as_u16()),
            (Some("t-1"), 200)
        );
    }
}

#[test]
fn a_flow_resumes_after_it_got_no_token() {
    let lost = || Answer::Lost(SendFailure::NotSent);
    let mut service = Service::new([lost(), lost(), lost(), lost()]);
    let mut flow = job();
    service.job(&mut flow).unwrap_err();
    // The second run has all its attempts again, and does not return the old error.
    service.answers = [lost(), lost(), lost(), token(), submitted(), status("done")].into();
    service.job(&mut flow).unwrap();
}

#[test]
fn a_new_token_outlives_an_old_refusal() {
    let mut auth = session();
    let headers = HeaderMap::new();
    let head = |status| head(status, &headers);
    let token = br#"{"access_token": "t", "expires_in": 1799}"#;
    fn send(flow: &mut Attempts, auth: &mut Auth) -> Ticket {
        match flow.poll(START, auth, &GetQuotas).unwrap() {
            Step::Send(attempt) => attempt.ticket,
            Step::Wait(_) => panic!(),
        }
    }
    let [mut f, mut g, mut k] = [1, 2, 3].map(call);
    let ticket = send(&mut f, &mut auth);
    f.on_token(START, &mut auth, ticket, head(201), token)
        .unwrap();
    let under_way = send(&mut f, &mut auth);
    auth.reject(1);
    let ticket = send(&mut g, &mut auth);
    g.on_token(START, &mut auth, ticket, head(403), b"")
        .unwrap_err();
    let ticket = send(&mut k, &mut auth);
    k.on_token(START, &mut auth, ticket, head(201), token)
        .unwrap();
    f.on_response(START, &mut auth, &GetQuotas, under_way, head(401), b"")
        .unwrap();
    // The token that K requested is valid, so F may retry after the 401.
    let _ = send(&mut f, &mut auth);
}

#[test]
fn the_tickets_of_flows_are_not_mixed_up() {
    let mut auth = supplied();
    let mut quotas = call(1);
    let mut job = JobFlow::new(hunt(), RetryPolicy::default(), 2);
    let safe = sent(quotas.poll(START, &mut auth, &GetQuotas));
    let _billed = sent(job.poll(START, &mut auth));
    let error = job
        .on_failure(START, &mut auth, safe.ticket, SendFailure::Unknown)
        .unwrap_err();
    assert!(matches!(error, FlowError::WrongTicket));
    assert!(matches!(
        job.poll(START, &mut auth).unwrap_err(),
        FlowError::OutcomeUnknown { .. }
    ));
    // A reply with the wrong ticket changes nothing.
    let mut job = JobFlow::attach("job-1".parse().unwrap(), RetryPolicy::default(), 3);
    job.set_submitted(START);
    let before = serde_json::to_string(&job).unwrap();
    for seed in 4..12 {
        let mut quotas = call(seed);
        let safe = sent(quotas.poll(START, &mut auth, &GetQuotas));
        let headers = HeaderMap::new();
        let head = head(404, &headers);
        let error = job.on_response(START, &mut auth, safe.ticket, head, b"");
        assert!(matches!(error, Err(FlowError::WrongTicket)), "{error:?}");
        assert_eq!(serde_json::to_string(&job).unwrap(), before);
    }
}

#[test]
fn a_cancelled_attempt_was_not_sent() {
    let mut service = Service::new([submitted(), status("done")]);
    service.auth = supplied();
    let mut flow = job();
    let attempt = sent(flow.poll(START, &mut service.auth));
    flow.cancel(&mut service.auth, attempt.ticket).unwrap();
    service.job(&mut flow).unwrap();
}

#[test]
fn a_rate_limit_outlives_its_call() {
    let mut service = Service::new([
        token(),
        with(reply(429, GATEWAY_429), "retry-after", 30),
        quotas(),
    ]);
    let mut once = CallFlow::new(&GetQuotas, RetryPolicy::never(), 1);
    service.run(&mut once).unwrap_err();
    service.call(&GetQuotas).unwrap();
    assert_eq!(service.waits, [Duration::from_secs(30)]);
}

#[test]
fn an_error_page_does_not_end_polling() {
    let page = || reply(200, "<html>maintenance</html>");
    let attach = || attached();
    let mut service = Service::new([
        token(),
        status("inprogress"),
        page(),
        page(),
        page(),
        status("done"),
    ]);
    service.job(&mut attach()).unwrap();
    // A poll is not retried forever, and other calls are not retried at all.
    let mut service = Service::new(std::iter::once(token()).chain((0..4).map(|_| page())));
    assert!(matches!(
        service.job(&mut attach()).unwrap_err(),
        FlowError::Response(ResponseError::Decode(_))
    ));
    let mut service = Service::new([token(), page()]);
    service.call(&GetQuotas).unwrap_err();
    assert_eq!(service.sent.len(), 2);
}

#[test]
fn a_token_in_a_page_is_not_shown() {
    let bearer = "a-token-of-the-user";
    for (code, body) in [
        (502, format!("<pre>authorization: Bearer {bearer}</pre>")),
        (
            403,
            format!(
                "{{\"errors\": [{{\"code\": 403, \"message\": \"no {bearer}\", \"sent\": \"{bearer}\"}}]}}"
            ),
        ),
        (200, format!("<pre>{bearer}</pre>")),
    ] {
        let mut service = Service::new((0..4).map(|_| reply(code, &body)));
        service.auth = Auth::with_token(Cloud::Us1, BearerToken::new(bearer).unwrap());
        let error = service.call(&GetQuotas).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("[redacted]") && !shown.contains(bearer),
            "{shown}"
        );
    }
}

proptest! {
    #[test]
    fn the_beginning_of_a_token_is_hidden(
        token in "[a-zA-Z0-9_.-]{20,1500}",
        before in 0usize..2_200,
        status in prop::sample::select(vec![200u16, 403]),
    ) {
        // The excerpt of a page may end in the middle of a token.
        let page = format!("<pre>{}{token}", " x".repeat(before / 2));
        let mut service = Service::new([reply(status, &page)]);
        service.auth = Auth::with_token(Cloud::Us1, BearerToken::new(&*token).unwrap());
        let error = service.call(&GetQuotas).unwrap_err();
        let shown = format!("{error} {error:?}");
        prop_assert!(!shown.contains(&token[..4]), "{}", shown);
    }
}

#[test]
fn a_replaced_token_is_not_shown() {
    let mut auth = session();
    let headers = HeaderMap::new();
    let head = |status| head(status, &headers);
    let mut login = |flow: &mut Attempts, now, token: &str| {
        let attempt = sent(flow.poll(now, &mut auth, &GetQuotas));
        let body = format!(r#"{{"access_token": "{token}"}}"#);
        flow.on_token(now, &mut auth, attempt.ticket, head(201), body.as_bytes())
            .unwrap();
        let attempt = sent(flow.poll(now, &mut auth, &GetQuotas));
        attempt.ticket
    };
    let mut slow = Attempts::new(RetryPolicy::never(), 1);
    let ticket = login(&mut slow, START, "the-first-token");
    let later = START.after(Duration::from_secs(1_750));
    let _ticket = login(
        &mut Attempts::new(RetryPolicy::never(), 2),
        later,
        "the-second-token",
    );
    let page = b"<pre>Bearer the-first-token</pre>";
    let error = slow
        .on_response(later, &mut auth, &GetQuotas, ticket, head(502), page)
        .unwrap_err();
    assert!(
        error.to_string().contains("<pre>Bearer [redacted]</pre>"),
        "{error}"
    );
}

#[test]
fn only_the_requesting_session_takes_a_token() {
    let session = |name: &str| Auth::new(Cloud::Us1, Credentials::new(name, "s3cret"));
    let (mut one, mut other) = (session("one"), session("other"));
    let headers = HeaderMap::new();
    let mut flow = call(1);
    let mut ticket = |auth: &mut Auth, now| match flow.poll(now, auth, &GetQuotas).unwrap() {
        Step::Send(attempt) => attempt.ticket,
        Step::Wait(_) => panic!("it waits"),
    };
    // Both sessions have sent the same number of token requests, so only the session differs.
    let _of_other = ticket(&mut other, START);
    let head = head(201, &headers);
    let body = br#"{"access_token": "of-one"}"#;
    let mut flow = call(2);
    let error = flow.on_token(START, &mut other, ticket(&mut one, START), head, body);
    assert!(matches!(error, Err(FlowError::WrongTicket)));
    let again = START.after(Duration::from_secs(100));
    let error = flow.on_failure(
        again,
        &mut other,
        ticket(&mut one, again),
        SendFailure::Unknown,
    );
    assert!(matches!(error, Err(FlowError::WrongTicket)));
    let again = again.after(Duration::from_secs(100));
    let error = flow.cancel(&mut other, ticket(&mut one, again));
    assert!(matches!(error, Err(FlowError::WrongTicket)));
}

#[test]
fn a_flow_remembers_its_hunt() {
    let mut auth = supplied();
    let mut flow = call(1);
    let _lost = sent(flow.poll(START, &mut auth, &hunt()));
    let mut flow: Attempts = serde_json::from_value(serde_json::to_value(&flow).unwrap()).unwrap();
    for _ in 0..2 {
        let error = flow.poll(START, &mut auth, &GetQuotas).unwrap_err();
        assert!(matches!(error, FlowError::OutcomeUnknown { .. }), "{error}");
        assert!(matches!(
            flow.poll(START, &mut auth, &hunt()),
            Err(FlowError::OutcomeUnknown { .. })
        ));
    }
}

#[test]
fn an_error_with_odd_bytes_is_understood() {
    let headers = HeaderMap::new();
    let head = |status| head(status, &headers);
    let (before, after) = QUOTA_429.split_once("quota").unwrap();
    for body in [
        [b"\xef\xbb\xbf", QUOTA_429.as_bytes()].concat(),
        [before.as_bytes(), b"qu\xffta", after.as_bytes()].concat(),
    ] {
        let error = GetQuotas.error(head(429), &body);
        assert_eq!(error.kind(), ApiErrorKind::QuotaExhausted, "{error}");
    }
    let credentials = Credentials::new("id", "s3cret");
    let body = [
        b"\xef\xbb\xbf{\"access_token\": \"t0ken\", \"scope\": \"",
        &b"\xff\"}"[..],
    ]
    .concat();
    let token = crate::oauth2::GetToken::new(&credentials);
    assert_eq!(
        token.response(head(201), &body).unwrap().bearer.expose(),
        "t0ken"
    );
}

#[test]
fn polls_are_retried_more_often_than_calls() {
    for (policy, attempts) in [
        (RetryPolicy::never(), 1),
        (
            RetryPolicy {
                max_attempts: 2,
                ..RetryPolicy::default()
            },
            10,
        ),
    ] {
        let mut service =
            Service::new(std::iter::once(token()).chain((0..attempts).map(|_| reply(503, ""))));
        let mut flow = JobFlow::attach("job-1".parse().unwrap(), policy, 7);
        service.job(&mut flow).unwrap_err();
        assert_eq!(service.sent.len(), 1 + attempts);
    }
}

#[test]
fn a_clock_set_back_silences_nothing() {
    let mut service = Service::new([token(), submitted(), status("inprogress"), status("done")]);
    let mut flow = job();
    flow.set_deadline(Some(START.after(Duration::from_secs(3))));
    service.job(&mut flow).unwrap_err();
    flow.set_deadline(None);
    service.now = Timestamp::from_millis(START.as_millis() - 86_400_000);
    service.job(&mut flow).unwrap();
    assert_eq!(service.waits.len(), 2);
}

#[test]
fn unreported_polls_keep_their_pause() {
    let mut auth = supplied();
    let mut flow = attached();
    let mut now = START;
    for _ in 0..100 {
        let _dropped = sent(flow.poll(now, &mut auth));
        flow = restored(&flow);
        let Step::Wait(time) = flow.poll(now, &mut auth).unwrap() else {
            panic!()
        };
        now = time;
    }
}

/// Generates the numbers that [`answer_to`] turns into answers.
fn any_answer() -> impl Strategy<Value = u8> {
    0u8..24
}

/// Returns an answer to a token request, a submission or a poll.
fn answer_to(path: &str, number: u8) -> Answer {
    let seconds = u64::from(number) * 5;
    match (path, number) {
        (_, 0) => reply(500, ""),
        (_, 1) => reply(503, "<html>"),
        (_, 2) => Answer::Lost(SendFailure::NotSent),
        (_, 3) => Answer::Lost(SendFailure::Unknown),
        (_, 4) => with(reply(429, GATEWAY_429), "retry-after", seconds),
        (_, 5) => reply(429, GATEWAY_429),
        (_, 6) => reply(400, r#"{"errors": [{"code": 400, "message": "no"}]}"#),
        (_, 7) => reply(308, ""),
        (_, 8) => reply(200, "garbage"),
        (_, 9) => Answer::Lost(SendFailure::CannotSend),
        ("/oauth2/token", _) => token(),
        (_, 10 | 11) => reply(401, ""),
        (_, 12) => reply(403, ""),
        (_, 13) => reply(429, QUOTA_429),
        (_, 14) => reply(
            200,
            r#"{"meta": {}, "errors": [{"message": "in the place of an id"}]}"#,
        ),
        (_, 15) => reply(408, ""),
        ("/malquery/queries/hunt/v1", _) => submitted(),
        (_, 16) => status("failed"),
        (_, 17) => status("a new word"),
        (_, 18) => status("done"),
        _ => status("inprogress"),
    }
}

/// Returns whether a submission with this answer may have been billed.
fn may_be_billed(answer: &Answer) -> bool {
    match answer {
        Answer::Reply(status, ..) => matches!(status, 200..=299 | 408 | 500..),
        Answer::Lost(why) => *why == SendFailure::Unknown,
    }
}

/// The events during one request.
#[derive(Debug, Clone)]
struct Event {
    answer: u8,
    /// Whether the process ends before the outcome is reported.
    lost: bool,
    /// Whether the process ends after the report.
    restart: bool,
    /// The number of seconds by which the clock jumps, forward or back.
    jump: i64,
}

fn any_event() -> impl Strategy<Value = Event> {
    let jump = prop_oneof![8 => Just(0), 1 => -600i64..0, 1 => 0..100_000i64];
    (
        any_answer(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        jump,
    )
        .prop_map(|(answer, lost, restart, jump)| Event {
            answer,
            lost,
            restart,
            jump,
        })
}

fn restored(flow: &JobFlow) -> JobFlow {
    serde_json::from_str(&serde_json::to_string(flow).unwrap()).unwrap()
}

fn path_of(attempt: &Attempt) -> String {
    attempt.request.uri().path().to_owned()
}

proptest! {
    #[test]
    fn every_hunt_ends_and_is_billed_once(
        events in prop::collection::vec(any_event(), 1..40),
        seed: u64,
    ) {
        let mut now = START;
        let mut auth = session();
        let mut flow = JobFlow::new(hunt(), RetryPolicy::default(), seed);
        // The clock jumps are not repeated: with a clock that runs backward forever, no flow ends.
        let calm = events.clone().into_iter().map(|event| Event { jump: 0, ..event }).collect::<Vec<_>>();
        let mut events = events.into_iter().chain(calm.into_iter().cycle());
        let mut billed = 0;
        // The job is resumed three times after an error. Each run ends at its deadline at the
        // latest.
        for _ in 0..4 {
            let deadline = now.after(Duration::from_secs(300));
            flow.set_deadline(Some(deadline));
            let mut sent_at = (now, 0);
            loop {
                let attempt = match flow.poll(now, &mut auth) {
                    Ok(Step::Wait(time)) => {
                        prop_assert!(time > now, "the wait is already over");
                        now = time;
                        continue;
                    }
                    Ok(Step::Send(attempt)) => attempt,
                    Err(_) => break,
                };
                // Only a few requests may be sent without a pause: the submission and the first
                // poll, each with a token, a 401, another token and a retry. Otherwise, the
                // deadline might never come.
                sent_at = if sent_at.0 == now { (now, sent_at.1 + 1) } else { (now, 1) };
                prop_assert!(sent_at.1 <= 8, "too many requests without a pause");
                prop_assert!(now < deadline, "a request was sent after the deadline");
                let event = events.next().unwrap();
                let path = path_of(&attempt);
                let answer = answer_to(&path, event.answer);
                if path == "/malquery/queries/hunt/v1" {
                    // The request may have arrived, even if the process ended.
                    billed += u32::from(event.lost || may_be_billed(&answer));
                    prop_assert!(billed <= 1, "the hunt was billed twice");
                }
                let ended = if event.lost {
                    drop(attempt);
                    flow = restored(&flow);
                    auth = session();
                    flow.set_deadline(Some(deadline));
                    now = now.after(Duration::from_secs(1));
                    false
                } else {
                    match answer {
                        Answer::Lost(why) => flow.on_failure(now, &mut auth, attempt.ticket, why).is_err(),
                        Answer::Reply(status, headers, body) => {
                            let headers = headers_of(&headers);
                            let head = head(status, &headers);
                            let taken = flow.on_response(now, &mut auth, attempt.ticket, head, body.as_bytes());
                            !matches!(taken, Ok(None))
                        }
                    }
                };
                if event.restart {
                    let stored = serde_json::to_string(&flow).unwrap();
                    prop_assert!(!stored.contains("s3cret") && !stored.contains("t0ken"));
                    prop_assert_eq!(stored.contains("private_rule"), flow.id().is_none());
                    flow = restored(&flow);
                    flow.set_deadline(Some(deadline));
                    auth = session();
                    now = now.after(Duration::from_secs(1));
                }
                now = Timestamp::from_millis(now.as_millis().saturating_add_signed(event.jump * 1000));
                if ended {
                    break;
                }
            }
        }
    }

    #[test]
    fn storing_a_flow_changes_no_outcome(
        answers in prop::collection::vec(any_answer(), 1..60),
        seed: u64,
    ) {
        let run = |restart: bool| {
            let mut now = START;
            // A supplied token does not expire during the job, so a new session needs no token
            // request.
            let mut auth = supplied();
            let mut flow = JobFlow::new(hunt(), RetryPolicy::default(), seed);
            let mut sent = vec![];
            for answer in answers.iter().cycle().take(500) {
                let attempt = loop {
                    match flow.poll(now, &mut auth) {
                        Ok(Step::Wait(time)) => now = time,
                        Ok(Step::Send(attempt)) => break attempt,
                        Err(error) => return (sent, error.to_string()),
                    }
                };
                sent.push((path_of(&attempt), now));
                let outcome = match answer_to(&path_of(&attempt), *answer) {
                    Answer::Lost(why) => flow.on_failure(now, &mut auth, attempt.ticket, why).map(|()| None),
                    Answer::Reply(status, headers, body) => {
                        let headers = headers_of(&headers);
                            let head = head(status, &headers);
                        flow.on_response(now, &mut auth, attempt.ticket, head, body.as_bytes())
                    }
                };
                match outcome {
                    Ok(None) => {}
                    Ok(Some(_)) => return (sent, "done".to_owned()),
                    Err(error) => return (sent, error.to_string()),
                }
                if restart {
                    flow = restored(&flow);
                }
            }
            (sent, "still running".to_owned())
        };
        prop_assert_eq!(run(true), run(false));
    }
}

#[test]
fn a_stored_job_may_hold_any_number() {
    // Even the largest numbers in a stored state must not cause a panic.
    let flow = attached();
    let mut stored = serde_json::to_value(&flow).unwrap();
    stored["silent"] = u32::MAX.into();
    stored["call"]["serial"] = u64::MAX.into();
    stored["call"]["attempts"] = u32::MAX.into();
    stored["call"]["token_attempts"] = u32::MAX.into();
    for answers in [
        vec![reply(500, "")],
        vec![token(), Answer::Lost(SendFailure::NotSent)],
        vec![token(), Answer::Lost(SendFailure::CannotSend)],
        vec![token(), reply(500, "")],
        vec![token(), reply(200, r#"{"meta": {}}"#)],
        vec![token(), reply(200, "<html>")],
        vec![Answer::Lost(SendFailure::Unknown)],
    ] {
        let mut flow: JobFlow = serde_json::from_value(stored.clone()).unwrap();
        let mut service = Service::new(answers);
        assert!(service.job(&mut flow).is_err());
        assert!(service.answers.is_empty());
    }
}

#[test]
fn a_stored_interval_of_zero_is_a_pause() {
    let flow = attached();
    let mut stored = serde_json::to_value(&flow).unwrap();
    stored["interval"] = serde_json::json!({"secs": 0, "nanos": 0});
    let mut flow: JobFlow = serde_json::from_value(stored).unwrap();
    let mut service = Service::new([token(), status("inprogress"), status("done")]);
    service.job(&mut flow).unwrap();
    assert_eq!(service.waits, [Duration::from_millis(100)]);
}

// Replies that are late, belong to another job, are truncated, or contain a secret.

/// Returns a job, and a service that accepts the submission and then returns these answers.
fn submitted_then(answers: impl IntoIterator<Item = Answer>) -> (Service, JobFlow) {
    let service = Service::new([token(), submitted()].into_iter().chain(answers));
    (service, job())
}

#[test]
fn a_fresh_job_may_be_unknown_briefly() {
    let unknown = |code| {
        let body = format!(r#"{{"errors": [{{"code": {code}, "message": "no such request"}}]}}"#);
        reply(code, &body)
    };
    let late = [
        vec![unknown(404)],
        vec![unknown(400), unknown(404), unknown(200)],
        vec![unknown(404); 5],
    ];
    for answers in late {
        let polls = answers.len();
        let answers = answers
            .into_iter()
            .chain([status("inprogress"), status("done")]);
        let (mut service, mut flow) = submitted_then(answers);
        service.job(&mut flow).unwrap();
        assert_eq!(service.sent.len(), 2 + polls + 2);
    }
    // An unknown job is not polled forever. It is not polled again if it was known before, or if
    // another process submitted it.
    let (mut service, mut flow) = submitted_then(vec![unknown(404); 6]);
    assert_eq!(service.job(&mut flow).unwrap_err().status().unwrap(), 404);
    let (mut service, mut flow) = submitted_then([status("inprogress"), unknown(404)]);
    assert_eq!(service.job(&mut flow).unwrap_err().status().unwrap(), 404);
    let mut service = Service::new([token(), unknown(404)]);
    let mut flow = attached();
    assert_eq!(service.job(&mut flow).unwrap_err().status().unwrap(), 404);
}

#[test]
fn an_unknown_status_is_named_at_the_deadline() {
    for (word, is_named) in [("aborted", true), ("pending", false), ("inprogress", false)] {
        let (mut service, mut flow) = submitted_then((0..9).map(|_| status(word)));
        flow.set_deadline(Some(START.after(Duration::from_secs(30))));
        let error = service.job(&mut flow).unwrap_err();
        assert!(matches!(error, FlowError::Deadline { .. }), "{error}");
        assert_eq!(error.to_string().contains(word), is_named, "{error}");
    }
}

#[test]
fn an_end_of_another_job_is_refused() {
    let other = r#"{"meta": {"reqid": "job-2", "status": "done"}, "resources": []}"#;
    for (body, why) in [
        (other, "it is about job job-2, not job-1"),
        (
            r#"{"meta": {"status": "done"}, "resources": [{}]}"#,
            "poll job job-1 again",
        ),
        (
            r#"{"meta": {"reqid": null, "status": "done"}}"#,
            "`done`, but it has no request id",
        ),
        (
            r#"{"meta": {"status": "failed"}}"#,
            "`failed`, but it has no request id",
        ),
    ] {
        let (mut service, mut flow) = submitted_then([reply(200, body), status("done")]);
        assert_eq!(
            service.job(&mut flow).unwrap().meta.reqid,
            flow.id().cloned()
        );
        let (mut service, mut flow) = submitted_then((0..4).map(|_| reply(200, body)));
        let error = service.job(&mut flow).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        // The same flow continues to poll, and submits nothing.
        service.answers = [status("done")].into();
        service.job(&mut flow).unwrap();
        assert_eq!(
            service
                .sent
                .iter()
                .filter(|sent| *sent == "POST hunt")
                .count(),
            1
        );
    }
    // The request id may be missing while the job is running.
    let running = r#"{"meta": {"status": "inprogress"}}"#;
    let (mut service, mut flow) = submitted_then([reply(200, running), status("done")]);
    service.job(&mut flow).unwrap();
}

#[test]
fn a_reply_to_another_request_is_refused() {
    fn refused<O: JsonOperation>(operation: &O, body: &str) -> bool {
        let headers = HeaderMap::new();
        let head = head(200, &headers);
        matches!(
            operation.response(head, body.as_bytes()),
            Err(ResponseError::Decode(_))
        )
    }
    use crate::operations::{ExactSearch, FuzzySearch, GetMetadata, SamplesMultidownload};
    let pattern = || [crate::types::Pattern::ascii("a").unwrap()];
    let sample = crate::types::Sha256::from_bytes([1; 32]);
    for body in [
        "{}",
        r#"{"access_token": "t0ken", "expires_in": 1799}"#,
        r#"{"status": "ok"}"#,
    ] {
        assert!(refused(&GetQuotas, body), "{body}");
        assert!(refused(&FuzzySearch::new(pattern()), body), "{body}");
        assert!(refused(&ExactSearch::new(pattern()), body), "{body}");
        assert!(refused(&hunt(), body), "{body}");
        assert!(refused(&GetMetadata::new([sample]), body), "{body}");
        assert!(
            refused(&SamplesMultidownload::new([sample]), body),
            "{body}"
        );
        assert!(
            refused(&GetRequest::new("job-1".parse().unwrap()), body),
            "{body}"
        );
    }
    // A reply that lacks the members required by its operation is refused too.
    let other = "02".repeat(32);
    let of_another = format!(r#"{{"resources": [{{"sha256": "{other}"}}]}}"#);
    let search = FuzzySearch::new(pattern());
    let metadata = GetMetadata::new([sample]);
    let request = GetRequest::new("job-1".parse().unwrap());
    for (body, expected) in [
        // Whether the body is refused as quotas, as a fuzzy search, as metadata and as a job.
        (r#"{"meta": {"trace_id": "x"}}"#, [true; 4]),
        (r#"{"error": "boom", "meta": {"trace_id": "x"}}"#, [true; 4]),
        (r#"{"errors": [{"message": "x"}]}"#, [false; 4]),
        (r#"{"resources": []}"#, [true, false, false, false]),
        (
            r#"{"meta": {}, "resources": null}"#,
            [true, false, false, false],
        ),
        (&of_another, [true, false, true, false]),
        (r#"{"meta": {"status": "done"}}"#, [true, false, true, true]),
        (r#"{"meta": {"hunt_count": 1}}"#, [false, true, true, true]),
        (
            r#"{"meta": {"hunt_limit": "x"}}"#,
            [false, true, true, true],
        ),
        (r#"{"meta": {"reqid": "job-1"}}"#, [true, true, true, false]),
        // If a member occurs twice, the last one counts.
        (
            r#"{"meta": {}, "meta": {"reqid": "job-1"}}"#,
            [true, true, true, false],
        ),
    ] {
        let found = [
            refused(&GetQuotas, body),
            refused(&search, body),
            refused(&metadata, body),
            refused(&request, body),
        ];
        assert_eq!(found, expected, "{body}");
    }
}

#[test]
fn a_reply_to_another_request_is_requested_again() {
    use crate::operations::GetMetadata;
    let sample = |byte| crate::types::Sha256::from_bytes([byte; 32]);
    let about = |byte| {
        reply(
            200,
            &format!(r#"{{"resources": [{{"sha256": "{}"}}]}}"#, sample(byte)),
        )
    };
    let metadata = GetMetadata::new([sample(1)]);
    let mut service = Service::new([token(), about(2), about(1)]);
    assert_eq!(service.call(&metadata).unwrap().resources.len(), 1);
    assert_eq!(service.new_connections, [false, false, true]);

    // After a canceled request, the next one still needs a new connection.
    let mut service = Service::new([about(1)]);
    service.auth = supplied();
    let mut flow = CallFlow::new(&metadata, RetryPolicy::default(), 7);
    let attempt = sent(flow.poll(START, &mut service.auth));
    let Answer::Reply(status, _, body) = about(2) else {
        unreachable!()
    };
    let headers = http::HeaderMap::new();
    let wrong = head(status, &headers);
    let answered = flow.on_response(
        START,
        &mut service.auth,
        attempt.ticket,
        wrong,
        body.as_bytes(),
    );
    assert!(answered.unwrap().is_none());
    service.now = START.after(Duration::from_secs(60));
    let attempt = sent(flow.poll(service.now, &mut service.auth));
    flow.cancel(&mut service.auth, attempt.ticket).unwrap();
    service.run(&mut flow).unwrap();
    assert_eq!(service.new_connections, [true]);

    let mut service = Service::new([token()].into_iter().chain((0..4).map(|_| about(2))));
    let error = service.call(&metadata).unwrap_err();
    assert!(error.to_string().contains("was not requested"), "{error}");
    // A submission is not sent again.
    let other = reply(200, r#"{"meta": {"hunt_count": 1}}"#);
    let mut service = Service::new([token(), other]);
    service.call(&hunt()).unwrap_err();
}

#[test]
fn the_id_of_a_failed_submission_is_kept() {
    let named = r#"{"meta": {"reqid": "job-1"}, "errors": [{"code": 1, "message": "odd"}]}"#;
    let damaged = r#"{"meta": {"reqid": "job-1", "status": "do"#;
    let answers = [300, 304, 307, 400, 404, 409, 421, 425, 429, 499, 500, 503]
        .map(|code| reply(code, named))
        .into_iter()
        .chain([reply(200, damaged)]);
    for answer in answers {
        let mut service = Service::new([token(), answer.clone(), status("done")]);
        let mut flow = job();
        let error = service.job(&mut flow).unwrap_err();
        assert_eq!(
            error.request_id().unwrap().as_str(),
            "job-1",
            "{answer:?}: {error}"
        );
        assert!(
            error.to_string().ends_with("; to continue, poll job job-1"),
            "{error}"
        );
        // The stored state polls the job, and does not submit it again.
        let stored = serde_json::to_string(&flow).unwrap();
        let mut flow: JobFlow = serde_json::from_str(&stored).unwrap();
        service.job(&mut flow).unwrap();
        assert_eq!(service.sent, ["POST oauth2", "POST hunt", "GET requests"]);
    }
    // The id may be a number. The error quotes an invalid id.
    let long = "x".repeat(201);
    let meta = |id: &str| {
        let errors = r#""errors": [{"code": 500, "message": "odd"}]"#;
        format!(r#"{{"meta": {{"powered_by": "malquery-api", "reqid": {id}}}, {errors}}}"#)
    };
    for (id, found, shown) in [
        ("12345", Some("12345"), "poll job 12345"),
        ("\"two words\"", None, "two words"),
        (&format!("{long:?}"), None, &long[..50]),
    ] {
        let mut service = Service::new([token(), reply(500, &meta(id))]);
        let error = service.call(&hunt()).unwrap_err();
        assert_eq!(error.request_id().map(|id| id.as_str()), found, "{error}");
        let text = format!("{error:?}");
        assert!(text.contains(shown), "{text}");
    }
    // A 400 without a request id did not start a job.
    let refused = r#"{"meta": {"trace_id": "t"}, "errors": [{"code": 400, "message": "no"}]}"#;
    let mut service = Service::new([token(), reply(400, refused)]);
    let error = service.call(&hunt()).unwrap_err();
    assert!(matches!(error, FlowError::Response(_)) && error.request_id().is_none());
}

#[test]
fn a_secret_in_a_failed_job_is_hidden() {
    let secret = "s3cret+/=&%";
    let spellings = [
        secret.to_owned(),
        "s3cret%2B%2F%3D%26%25".into(),
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    for spelling in spellings {
        let body = serde_json::json!({
            "meta": {"reqid": "job-1", "status": "failed", "trace_id": spelling},
            "resources": [],
            "errors": [{"code": 500, "message": format!("no {spelling}"), "id": spelling}],
        });
        let failed = with(reply(200, &body.to_string()), "x-cs-traceid", &spelling);
        let (mut service, mut flow) = submitted_then([failed]);
        service.auth = Auth::new(Cloud::Us1, Credentials::new("id", secret));
        let error = service.job(&mut flow).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.trace_id());
        assert!(
            shown.contains("[redacted]") && !shown.contains(&spelling),
            "{shown}"
        );
    }
}

#[test]
fn a_damaged_refusal_with_a_job_is_final() {
    let whole = r#"{"meta": {"powered_by": "malquery-api", "reqid": "job-1"}, "errors": []}"#;
    let after_id = whole.find("job-1\"").unwrap() + 6;
    for body in [
        &whole[..after_id],
        &whole[..whole.len() - 5],
        &format!("{whole}}}rest"),
    ] {
        for code in [307, 401, 403, 409, 429, 500, 503] {
            let mut service = Service::new([token(), reply(code, body), status("done")]);
            let mut flow = job();
            let error = service.job(&mut flow).unwrap_err();
            assert_eq!(
                error.request_id().unwrap().as_str(),
                "job-1",
                "{code} {body}"
            );
            service.job(&mut flow).unwrap();
            assert_eq!(
                service.sent,
                ["POST oauth2", "POST hunt", "GET requests"],
                "{code}"
            );
        }
    }
    // A truncated id is not usable, and a 304 has no body.
    for answer in [
        reply(401, &whole[..after_id - 3]),
        reply(429, &whole[..after_id - 3]),
        reply(304, ""),
    ] {
        let mut service = Service::new([token(), answer]);
        let mut flow = job();
        for _ in 0..2 {
            let error = service.job(&mut flow).unwrap_err();
            assert!(matches!(error, FlowError::OutcomeUnknown { .. }), "{error}");
        }
        assert_eq!(service.sent, ["POST oauth2", "POST hunt"]);
    }
}

#[test]
fn tokens_of_long_ago_are_forgotten() {
    let long = "x".repeat(1_000);
    let tokens = (0..50).map(|number| {
        let body = format!(r#"{{"access_token": "{number:04}-{long}", "expires_in": 0}}"#);
        reply(201, &body)
    });
    let mut service = Service::new(tokens.flat_map(|token| [token, quotas()]));
    for _ in 0..50 {
        service.call(&GetQuotas).unwrap();
        service.now = service.now.after(Duration::from_secs(1));
    }
    let needles = service.auth.needles();
    assert!(needles.find(&format!("0049-{long}")).is_some());
    assert!(needles.find(&format!("0046-{long}")).is_some());
    assert!(needles.find(&format!("0045-{long}")).is_none());
}
