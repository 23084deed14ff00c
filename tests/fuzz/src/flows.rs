use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use malquery_proto::credentials::{BearerToken, Credentials};
use malquery_proto::flow::{
    Auth, Flow, FlowError, JobFlow, RetryPolicy, SendFailure, Step, Submission, Ticket,
};
use malquery_proto::operation::JsonReply;
use malquery_proto::operations::{ExactSearch, GetRequest, Hunt, SamplesMultidownload};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{Cloud, Timestamp};

use super::input::{Input, assert_harmless};

/// Runs two jobs that share a token through any events in any order. A job that may have been
/// submitted is not submitted again, no flow waits for a time in the past, and both jobs end.
pub fn flows(data: &[u8]) {
    let mut input = Input(data);
    let policy = match input.byte() % 4 {
        0 => RetryPolicy::default(),
        1 => RetryPolicy::never(),
        2 => RetryPolicy {
            max_attempts: u32::from(input.byte()),
            first_delay: Duration::from_millis(u64::from(input.byte())),
            max_delay: Duration::from_millis(u64::from(input.byte())),
            max_rate_limit_wait: Duration::from_secs(u64::from(input.byte())),
            time_limit: Duration::from_secs(u64::from(input.byte())),
        },
        _ => RetryPolicy {
            max_attempts: u32::MAX,
            first_delay: Duration::MAX,
            max_delay: Duration::MAX,
            max_rate_limit_wait: Duration::MAX,
            time_limit: Duration::MAX,
        },
    };
    let sample = Sha256::from_bytes([7; 32]);
    let mut flow = |seed| -> JobFlow {
        let job: Submission = match input.byte() % 4 {
            0 => Hunt::new("rule a { condition: true }").into(),
            1 => ExactSearch::new([Pattern::ascii("a").expect("a pattern")]).into(),
            2 => SamplesMultidownload::new([sample]).into(),
            _ => return JobFlow::attach("job-1".parse().expect("an id"), policy, seed),
        };
        JobFlow::new(job, policy, seed)
    };
    let sides = [flow(1), flow(2)];
    let auth = if input.bit() { supplied() } else { renewable() };
    Run::new(sides, auth).steps(&mut input);
}

fn supplied() -> Auth {
    Auth::with_token(Cloud::Us1, BearerToken::new("a-token").expect("a token"))
}

pub fn renewable() -> Auth {
    Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"))
}

/// Running jobs.
pub struct Run<const N: usize> {
    sides: [Side; N],
    auth: Auth,
    now: Timestamp,
    open: Vec<Open>,
}

struct Side {
    flow: JobFlow,
    /// The number of submissions that may have arrived.
    arrived: u32,
}

/// A request that was sent, and whose outcome was not reported yet.
struct Open {
    side: usize,
    ticket: Ticket,
    is_submission: bool,
}

const REPLIES: &[(u16, &str)] = &[
    (201, r#"{"access_token": "a-token", "expires_in": 1799}"#),
    (
        200,
        r#"{"meta": {"reqid": "job-1", "status": "done"}, "resources": []}"#,
    ),
    (200, r#"{"meta": {"status": "inprogress"}}"#),
    (
        200,
        r#"{"meta": {"reqid": "job-1", "status": "done"}, "resources": [{"label": "malware"}]}"#,
    ),
    (
        200,
        r#"{"meta": {"reqid": "job-1", "status": "failed"}, "errors": [{"code": 500, "message": "no"}]}"#,
    ),
    (
        200,
        r#"{"meta": {}, "errors": [{"code": 404, "message": "no such job"}]}"#,
    ),
    (200, r#"{"meta": {}, "resources": []}"#),
    (200, "not JSON"),
    (201, r#"{"access_token": "a-token", "expires_in": 0}"#),
    (201, r#"{"access_token": "a-token", "expires_in": 1e300}"#),
    (204, ""),
    (308, ""),
    (400, r#"{"errors": [{"code": 400, "message": "bad"}]}"#),
    (
        401,
        r#"{"errors": [{"code": 401, "message": "access denied, invalid bearer token"}]}"#,
    ),
    (403, ""),
    (404, ""),
    (408, ""),
    (
        429,
        r#"{"meta": {"powered_by": "crowdstrike-api-gateway"}}"#,
    ),
    (429, r#"{"meta": {"powered_by": "malquery-api"}}"#),
    (500, r#"{"errors": [{"code": 500, "message": "internal"}]}"#),
    (502, "<html>"),
    (503, ""),
    (102, ""),
    (999, ""),
];

const HEADERS: &[(&str, &str)] = &[
    ("x-none", ""),
    ("retry-after", "0"),
    ("retry-after", "3"),
    ("retry-after", "86400"),
    ("retry-after", "18446744073709551615"),
    ("x-ratelimit-retryafter", "1700000060"),
    ("x-ratelimit-retryafter", "1700000060000"),
    ("x-ratelimit-retryafter", "18446744073709551615"),
    ("location", "https://api.us-2.crowdstrike.com/oauth2/token"),
    ("location", "https://elsewhere.example/oauth2/token"),
];

impl<const N: usize> Run<N> {
    pub fn new(flows: [JobFlow; N], auth: Auth) -> Self {
        let sides = flows.map(|flow| Side { flow, arrived: 0 });
        Self {
            sides,
            auth,
            now: Timestamp::from_millis(1_700_000_000_000),
            open: Vec::new(),
        }
    }

    /// Takes a step for each byte, and then runs every job to its end.
    pub fn steps(mut self, input: &mut Input<'_>) {
        let mut count = 0;
        while !input.is_empty() && count < 300 {
            count += 1;
            let choice = input.byte();
            let side = usize::from(choice >> 4) % N;
            match choice & 15 {
                0..=3 => {
                    if let Ok(Step::Wait(time)) = self.poll(side)
                        && choice & 1 == 1
                    {
                        self.now = time;
                    }
                }
                4..=7 => self.reply(input),
                8 => self.fail(input),
                9 => self.cancel(input),
                10 => self.open.clear(),
                11 => self.store(side),
                12 => {
                    self.now = self
                        .now
                        .after(Duration::from_millis(u64::from(input.byte()) * 10))
                }
                13 => {
                    self.now = self
                        .now
                        .after(Duration::from_secs(u64::from(input.byte()) * 10))
                }
                14 => {
                    let earlier = u64::from(input.byte()) * 1000;
                    self.now = Timestamp::from_millis(self.now.as_millis().saturating_sub(earlier));
                }
                _ => self.set(side, input),
            }
        }
        for side in 0..N {
            self.finish(side);
        }
    }

    fn poll(&mut self, side: usize) -> Result<Step, FlowError> {
        let flow = &mut self.sides[side].flow;
        let was_submission = flow.id().is_none();
        let step = flow.poll(self.now, &mut self.auth);
        match step {
            Ok(Step::Wait(time)) => {
                assert!(
                    time > self.now,
                    "a wait leads on: {time:?} at {:?}",
                    self.now
                );
                Ok(Step::Wait(time))
            }
            Ok(Step::Send(attempt)) => {
                let is_submission = was_submission && !attempt.ticket.is_token();
                assert!(attempt.deadline.is_none_or(|deadline| deadline > self.now));
                if is_submission {
                    let arrived = &mut self.sides[side].arrived;
                    assert_eq!(
                        *arrived, 0,
                        "a job that may have been billed is submitted again"
                    );
                    // Assume that it arrived until the outcome is known.
                    *arrived = 1;
                }
                self.open.push(Open {
                    side,
                    ticket: attempt.ticket,
                    is_submission,
                });
                // No other step exists.
                Ok(Step::Wait(self.now))
            }
            Err(error) => {
                assert_harmless(&error.to_string());
                Err(error)
            }
        }
    }

    fn take(&mut self, input: &mut Input<'_>) -> Option<(usize, Open)> {
        let which = input.byte();
        if self.open.is_empty() {
            return None;
        }
        let open = self
            .open
            .swap_remove(usize::from(which & 127) % self.open.len());
        // Sometimes the outcome goes to the wrong job.
        let to = if which & 128 != 0 {
            (open.side + 1) % N
        } else {
            open.side
        };
        Some((to, open))
    }

    fn reply(&mut self, input: &mut Input<'_>) {
        let Some((to, open)) = self.take(input) else {
            return;
        };
        let ((status, body), (name, value)) = (input.pick(REPLIES), input.pick(HEADERS));
        let _ = self.answer(to, open, status, body, (name, value));
    }

    fn answer(
        &mut self,
        to: usize,
        open: Open,
        status: u16,
        body: &str,
        (name, value): (&'static str, &'static str),
    ) -> Result<Option<JsonReply<GetRequest>>, FlowError> {
        let Open {
            side,
            ticket,
            is_submission,
        } = open;
        let headers = HeaderMap::from_iter([(
            name.parse().expect("a name"),
            HeaderValue::from_static(value),
        )]);
        let head = ResponseHead {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: &headers,
        };
        // A refused submission costs nothing.
        if is_submission && matches!(status, 300..=499) && status != 408 {
            self.sides[side].arrived = 0;
        }
        let is_stray = to != side && !ticket.is_token();
        let body = body.as_bytes();
        let flow = &mut self.sides[to].flow;
        let result = flow.on_response(self.now, &mut self.auth, ticket, head, body);
        match &result {
            Err(error) => assert_harmless(&error.to_string()),
            Ok(_) => assert!(!is_stray, "a reply was taken for one to another job"),
        }
        result
    }

    fn fail(&mut self, input: &mut Input<'_>) {
        let Some((to, open)) = self.take(input) else {
            return;
        };
        let why = input.pick(&[
            SendFailure::NotSent,
            SendFailure::CannotSend,
            SendFailure::Unknown,
        ]);
        if open.is_submission && why != SendFailure::Unknown {
            self.sides[open.side].arrived = 0;
        }
        let _ = self.sides[to]
            .flow
            .on_failure(self.now, &mut self.auth, open.ticket, why);
    }

    fn cancel(&mut self, input: &mut Input<'_>) {
        let Some((to, open)) = self.take(input) else {
            return;
        };
        if open.is_submission {
            self.sides[open.side].arrived = 0;
        }
        let _ = self.sides[to].flow.cancel(&mut self.auth, open.ticket);
    }

    /// Stores and restores the job, as if another process resumed it.
    fn store(&mut self, side: usize) {
        let flow = &mut self.sides[side].flow;
        let text = serde_json::to_string(flow).expect("it is written");
        assert!(!text.contains("a-secret") && !text.contains("a-token"));
        *flow = serde_json::from_str(&text).expect("it is read");
        assert_eq!(serde_json::to_string(flow).expect("it is written"), text);
    }

    fn set(&mut self, side: usize, input: &mut Input<'_>) {
        let flow = &mut self.sides[side].flow;
        let number = u64::from(input.byte());
        match input.byte() % 4 {
            0 => flow.set_interval(Duration::from_millis(number * 100)),
            1 => flow.set_deadline(Some(self.now.after(Duration::from_secs(number)))),
            2 => flow.set_deadline(None),
            _ => flow.set_interval(Duration::MAX),
        }
    }

    /// From here on, the service works. Unreported requests are lost. A flow that was fetching a
    /// token for all flows has had enough time, even if the clock was set back.
    fn finish(&mut self, side: usize) {
        self.open.clear();
        self.now = self.now.after(Duration::from_secs(100_000));
        for _ in 0..200 {
            match self.poll(side) {
                Err(_) => return,
                Ok(Step::Wait(time)) if time > self.now => self.now = time,
                Ok(_) => {
                    let Some(open) = self.open.pop() else {
                        continue;
                    };
                    let (status, body) = match (&open.is_submission, open.ticket.is_token()) {
                        (_, true) => REPLIES[0],
                        (true, _) => REPLIES[1],
                        (false, _) => REPLIES[3],
                    };
                    match self.answer(side, open, status, body, HEADERS[0]) {
                        Ok(Some(_)) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
            }
        }
        panic!("the job does not end");
    }
}
