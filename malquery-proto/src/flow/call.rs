use serde::{Deserialize, Serialize};

use super::auth::Bearer;
use super::{Attempt, Auth, FlowError, Kind, MAX_JSON_BODY, RetryPolicy, SendFailure, Step, Ticket};
use crate::error::{ApiErrorKind, ResponseError};
use crate::operation::{
    JsonOperation, JsonReply, Meta, Operation, Replay, Reply, ResponseHead, StreamOperation, unsigned,
};
use crate::stream::StreamCheck;
use crate::time::Timestamp;

/// One operation with its retries. The operation itself is given to each step, so that this holds no YARA rule
/// and no secret, and serialises.
///
/// | outcome | [`Safe`](Replay::Safe) | [`Billed`](Replay::Billed) |
/// |---|---|---|
/// | 2xx | done | done |
/// | 401, once | new token, again | new token, again |
/// | 429 of the gateway | again when it says, else after a pause | the same |
/// | 429 of MalQuery (quota) | error | error |
/// | other 4xx, 3xx | error | error |
/// | 5xx, 408, or a failure after sending | again after a pause | [`FlowError::Unsure`] |
/// | surely not sent | again after a pause | the same |
/// | attempts or time used up | error | error |
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallFlow {
    policy: RetryPolicy,
    seed: u64,
    // Times and the refusals of tokens belong to this process; in another one they begin anew.
    #[serde(skip)]
    deadline: Option<Timestamp>,
    #[serde(skip)]
    started: Option<Timestamp>,
    not_before: Option<Timestamp>,
    attempts: u32,
    /// Failures to get a token since the last one.
    token_attempts: u32,
    /// Whether the one replay after a 401 is used up.
    replayed: bool,
    /// The request that was handed out and not reported. For a billed one that may have arrived it stays, so
    /// that it is not sent again, not even by another process.
    in_flight: Option<u64>,
    #[serde(skip)]
    refusals_seen: Option<u64>,
}

/// What is to be done about a failed attempt.
enum Verdict {
    /// Again at this time, or right away.
    Again(Option<Timestamp>),
    Fail(FlowError),
}

impl CallFlow {
    /// A call under this policy. The seed spreads the pauses of calls that fail together.
    pub fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self {
            policy,
            seed,
            deadline: None,
            started: None,
            not_before: None,
            attempts: 0,
            token_attempts: 0,
            replayed: false,
            in_flight: None,
            refusals_seen: None,
        }
    }

    /// Ends the call at this time, if the policy does not end it sooner.
    pub fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.deadline = deadline;
    }

    /// The next call of the same job.
    pub(super) fn next(&self, policy: RetryPolicy) -> Self {
        Self { deadline: self.deadline, ..Self::new(policy, self.seed.wrapping_add(1)) }
    }

    /// When the call has to end.
    fn ends(&self, now: Timestamp) -> Timestamp {
        let limit = self.started.unwrap_or(now).after(self.policy.time_limit);
        self.deadline.map_or(limit, |deadline| deadline.min(limit))
    }

    /// Starts the time limit, if it does not run yet, and tells when the call has to end.
    fn begin(&mut self, now: Timestamp, meta: &Meta) -> Result<Timestamp, FlowError> {
        self.started.get_or_insert(now);
        let ends = self.ends(now);
        if now < ends { Ok(ends) } else { Err(FlowError::TimeUp { operation: meta.id }) }
    }

    /// Waits, but not beyond the end of the call.
    pub(super) fn wait(&mut self, now: Timestamp, until: Timestamp, meta: &Meta) -> Result<Step, FlowError> {
        self.begin(now, meta).map(|ends| Step::Wait(until.min(ends)))
    }

    /// What to do next for an operation with a JSON reply.
    ///
    /// # Errors
    /// Ends the call.
    pub fn poll<O: Operation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
    ) -> Result<Step, FlowError> {
        self.step(now, auth, operation, Some(MAX_JSON_BODY))
    }

    /// What to do next for an operation that answers with bytes.
    ///
    /// # Errors
    /// Ends the call.
    pub fn poll_stream<O: StreamOperation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
    ) -> Result<Step, FlowError> {
        self.step(now, auth, operation, None)
    }

    fn step<O: Operation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
        max_body: Option<u64>,
    ) -> Result<Step, FlowError> {
        let meta = O::META;
        // Refused before anything is sent, even the request for a token.
        let mut request = unsigned(operation, auth.base())?;
        let ends = self.begin(now, &meta)?;
        if self.in_flight.is_some() && meta.replay == Replay::Billed {
            // The request was handed out, and what came of it was not reported.
            return Err(FlowError::Unsure { operation: meta.id, reply: None });
        }
        if let Some(time) = self.not_before.filter(|time| *time > now) {
            return Ok(Step::Wait(time.min(ends)));
        }
        match auth.bearer(now, &mut self.refusals_seen)? {
            Bearer::Wait(time) => Ok(Step::Wait(time.min(ends))),
            Bearer::Fetch(request, ticket) => Ok(Step::Send(
                Attempt { request: *request, ticket, max_body: Some(MAX_JSON_BODY), deadline: Some(ends) }
                    .into(),
            )),
            Bearer::Use(bearer, generation) => {
                request.headers_mut().insert(http::header::AUTHORIZATION, bearer.header());
                self.attempts += 1;
                let serial = u64::from(self.attempts);
                self.in_flight = Some(serial);
                let ticket =
                    Ticket(Kind::Call { serial, generation, operation: meta.id, replay: meta.replay });
                let deadline = if max_body.is_some() { Some(ends) } else { self.deadline };
                Ok(Step::Send(Attempt { request, ticket, max_body, deadline }.into()))
            }
        }
    }

    /// Takes the reply to an attempt; `Some` is the result, `None` means to go on.
    ///
    /// # Errors
    /// Ends the call.
    pub fn on_response<O: JsonOperation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Option<JsonReply<O>>, FlowError> {
        self.take(now, auth, ticket, head, body, || operation.response(head, body))
    }

    /// Takes the head of the reply to an attempt of an operation that answers with bytes, and its body unless
    /// the reply is a success. `Some` is the check for the bytes to come, `None` means to go on.
    ///
    /// # Errors
    /// Ends the call.
    pub fn on_stream<O: StreamOperation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Option<Reply<StreamCheck>>, FlowError> {
        self.take(now, auth, ticket, head, body, || {
            operation.response(head).ok_or_else(|| ResponseError::Api(operation.error(head, body).into()))
        })
    }

    fn take<R>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
        read: impl FnOnce() -> Result<R, ResponseError>,
    ) -> Result<Option<R>, FlowError> {
        match ticket.0 {
            Kind::Token { serial } => {
                match auth.on_response(now, serial, head, body) {
                    Ok(()) => self.token_attempts = 0,
                    Err(error) => self.token_failed(now, auth, error)?,
                }
                Ok(None)
            }
            Kind::Call { serial, generation, operation, replay } => {
                self.reported(serial)?;
                let error = match read() {
                    Ok(result) => {
                        self.in_flight = None;
                        return Ok(Some(result));
                    }
                    Err(ResponseError::Api(error)) => ResponseError::Api(auth.explain(*error).into()),
                    Err(error) => error,
                };
                let verdict = self.judge(now, auth, operation, replay, generation, error);
                self.settle(replay, verdict).map(|()| None)
            }
        }
    }

    fn reported(&self, serial: u64) -> Result<(), FlowError> {
        if self.in_flight == Some(serial) { Ok(()) } else { Err(FlowError::WrongTicket) }
    }

    fn settle(&mut self, replay: Replay, verdict: Verdict) -> Result<(), FlowError> {
        match verdict {
            Verdict::Again(time) => {
                self.in_flight = None;
                self.not_before = time;
                Ok(())
            }
            Verdict::Fail(error) => {
                let arrived =
                    matches!(error, FlowError::Unsure { .. } | FlowError::Response(ResponseError::Decode(_)));
                if replay == Replay::Safe || !arrived {
                    self.in_flight = None;
                }
                Err(error)
            }
        }
    }

    /// Takes note that an attempt got no reply.
    ///
    /// # Errors
    /// Ends the call.
    pub fn on_failure(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        why: SendFailure,
    ) -> Result<(), FlowError> {
        match ticket.0 {
            Kind::Token { serial } => {
                auth.on_failure(serial, why);
                self.token_attempts += 1;
                let error =
                    FlowError::NoReply { operation: crate::oauth2::TOKEN_ID, attempts: self.token_attempts };
                self.retry_token(now, auth, None, error)
            }
            Kind::Call { serial, operation, replay, .. } => {
                self.reported(serial)?;
                let verdict = if why == SendFailure::Unknown && replay == Replay::Billed {
                    Verdict::Fail(FlowError::Unsure { operation, reply: None })
                } else {
                    self.pause(now, None, FlowError::NoReply { operation, attempts: self.attempts })
                };
                self.settle(replay, verdict)
            }
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &'static str,
        replay: Replay,
        generation: u64,
        error: ResponseError,
    ) -> Verdict {
        let ResponseError::Api(api) = &error else { return Verdict::Fail(error.into()) };
        match api.kind() {
            ApiErrorKind::Unauthorized if !self.replayed => {
                self.replayed = true;
                // The replay is not one of the attempts: it is not the service that failed.
                self.attempts -= 1;
                auth.reject(generation);
                Verdict::Again(None)
            }
            ApiErrorKind::RateLimited => {
                let hint = api.retry_at(now);
                let verdict = self.pause(now, hint, error.into());
                if let Verdict::Again(Some(time)) = verdict {
                    auth.pause(time);
                }
                verdict
            }
            _ if api.is_retryable() && replay == Replay::Billed => {
                Verdict::Fail(FlowError::Unsure { operation, reply: Some(api.clone()) })
            }
            _ if api.is_retryable() => {
                let hint = api.retry_at(now);
                self.pause(now, hint, error.into())
            }
            _ => Verdict::Fail(error.into()),
        }
    }

    /// Again after a pause, unless attempts or time are used up.
    fn pause(&self, now: Timestamp, hint: Option<Timestamp>, error: FlowError) -> Verdict {
        let attempts = self.attempts.max(1);
        self.pause_after(now, attempts, hint).map_or(Verdict::Fail(error), |time| Verdict::Again(Some(time)))
    }

    fn pause_after(&self, now: Timestamp, attempts: u32, hint: Option<Timestamp>) -> Option<Timestamp> {
        let time = match hint.filter(|hint| *hint > now) {
            Some(hint) if hint.since(now) > self.policy.max_rate_limit_wait => return None,
            Some(hint) => hint,
            None => now.after(self.policy.delay(attempts, self.seed)),
        };
        (attempts < self.policy.max_attempts && time < self.ends(now)).then_some(time)
    }

    fn token_failed(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        error: ResponseError,
    ) -> Result<(), FlowError> {
        self.token_attempts += 1;
        match &error {
            ResponseError::Api(api) if api.is_retryable() => {
                let hint = api.retry_at(now);
                self.retry_token(now, auth, hint, error.into())
            }
            _ => {
                let error = error.into();
                auth.refuse(&error);
                Err(error)
            }
        }
    }

    fn retry_token(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        hint: Option<Timestamp>,
        error: FlowError,
    ) -> Result<(), FlowError> {
        match self.pause_after(now, self.token_attempts, hint) {
            Some(time) => {
                auth.retry_token_at(time);
                Ok(())
            }
            None => {
                auth.refuse(&error);
                Err(error)
            }
        }
    }
}
