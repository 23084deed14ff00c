use serde::{Deserialize, Serialize};

use super::auth::{Bearer, Call, Seen};
use super::{
    Attempt, Auth, FlowError, Kind, Pause, RetryPolicy, SendFailure, Step, Ticket, Version,
};
use crate::endpoint::{Endpoint, Resend};
use crate::error::{ApiErrorKind, Fault, ResponseError};
use crate::oauth2::GetToken;
use crate::operation::{MAX_JSON_BODY, MAX_TOKEN_BODY, Operation, unsigned};
use crate::operations::GetRequest;
use crate::reply::ResponseHead;
use crate::request::NewConnection;
use crate::time::Timestamp;

/// The attempts of one call. Each step gets the operation as an argument, so this state contains no
/// YARA rule and no secret. The table in [`CallFlow`] shows the consequence of each outcome.
///
/// [`CallFlow`]: super::CallFlow
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempts {
    version: Version,
    policy: RetryPolicy,
    /// Spreads out the retries of calls that fail at the same time, and distinguishes the tickets
    /// of different flows.
    seed: u64,
    // The next three fields apply only to this process, so they are not stored.
    #[serde(skip)]
    deadline: Option<Timestamp>,
    #[serde(skip)]
    started: Option<Timestamp>,
    #[serde(skip)]
    seen: Option<Seen>,
    pause: Option<Pause>,
    /// The number of failed attempts.
    attempts: u32,
    /// The number of failed token requests in all flows while this flow needed a token.
    token_attempts: u32,
    /// Whether the one retry after a 401 has been used.
    replayed: bool,
    /// The number of requests so far, not counting token requests.
    serial: u64,
    /// Whether the outcome of the last request is still unreported. If a billed request fails but
    /// may have arrived, this stays set, so that no process sends the request again.
    in_flight: bool,
    /// Whether the last request may have been billed.
    #[serde(default)]
    billed: bool,
    /// Whether the next request needs a new connection, because the last reply was unreadable or
    /// wrong.
    #[serde(skip)]
    dirty: bool,
}

/// The number of failed attempts after which a request that got an unreadable or wrong reply is not
/// retried.
const MAX_UNREADABLE: u32 = 4;

/// The result of a failed attempt: an error, or the time of the retry. `None` means an immediate
/// retry.
type Verdict = Result<Option<Timestamp>, FlowError>;

impl Attempts {
    /// Creates a call with this policy. Flows that run at the same time need different seeds.
    pub(crate) fn new(policy: RetryPolicy, seed: u64) -> Self {
        Self {
            version: Version::default(),
            policy,
            seed,
            deadline: None,
            started: None,
            seen: None,
            pause: None,
            attempts: 0,
            token_attempts: 0,
            replayed: false,
            serial: 0,
            in_flight: false,
            billed: false,
            dirty: false,
        }
    }

    /// Sets the time by which the call must end. The policy may end it earlier.
    pub(crate) fn set_deadline(&mut self, deadline: Option<Timestamp>) {
        self.deadline = deadline;
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Returns the state for the job's next call.
    pub(super) fn next(&self, policy: RetryPolicy) -> Self {
        Self {
            deadline: self.deadline,
            serial: self.serial,
            ..Self::new(policy, self.seed)
        }
    }

    /// Returns whether the outcome of the last request has not been reported, or whether a billed
    /// request failed but may have arrived.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Starts the time limit, unless it is already running. Returns the time at which the call must
    /// end, or fails if that time has come.
    fn begin(&mut self, now: Timestamp, operation: &'static str) -> Result<Timestamp, FlowError> {
        // If the clock was set back to before the start, the time limit starts over.
        let started = self
            .started
            .filter(|started| *started <= now)
            .unwrap_or(now);
        self.started = Some(started);
        let ends = self.ends(now);
        if now < ends {
            return Ok(ends);
        }
        self.reset_attempts();
        Err(match self.deadline {
            Some(deadline) if deadline <= now => FlowError::late(operation),
            _ => FlowError::TimeUp { operation },
        })
    }

    /// Returns the step that waits before the call begins. The time limit is not running yet; only
    /// the deadline applies.
    pub(super) fn wait(
        &self,
        now: Timestamp,
        until: Timestamp,
        endpoint: &Endpoint,
    ) -> Result<Step, FlowError> {
        match self.deadline {
            Some(deadline) if deadline <= now => Err(FlowError::late(endpoint.id)),
            deadline => Ok(Step::Wait(
                deadline.map_or(until, |deadline| deadline.min(until)),
            )),
        }
    }

    /// Returns the next step for an operation with a JSON reply.
    pub(crate) fn poll<O: Operation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
    ) -> Result<Step, FlowError> {
        self.step(now, auth, operation, Some(MAX_JSON_BODY))
    }

    /// Returns the next step. `max_body` is `None` for an operation whose reply is a file.
    pub(crate) fn step<O: Operation>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        operation: &O,
        max_body: Option<u64>,
    ) -> Result<Step, FlowError> {
        let endpoint = O::ENDPOINT;
        if self.in_flight && (self.billed || endpoint.resend == Resend::Billed) {
            // The request may have arrived. Report this before anything else.
            return Err(FlowError::unsure(endpoint.id, None));
        }
        // An invalid request must fail before anything is sent, even a token request.
        let mut request = unsigned(operation, auth.base())?;
        let ends = self.begin(now, endpoint.id)?;
        if std::mem::take(&mut self.in_flight) {
            // A process that restarts repeatedly must not send requests without pauses.
            let delay = self.policy.delay(1, self.seed ^ self.serial);
            self.pause = Some(Pause::new(now, now.after(delay)));
        }
        if let Some(time) = self.pause.and_then(|pause| pause.end(now)) {
            return Ok(Step::Wait(time.min(ends)));
        }
        let bearer = auth
            .bearer(now, &mut self.seen)
            .inspect_err(|_| self.reset_attempts())?;
        match bearer {
            Bearer::Wait(time) => Ok(Step::Wait(time.min(ends))),
            Bearer::Fetch(request, ticket) => Ok(Step::Send(
                Attempt {
                    request: *request,
                    ticket,
                    max_body: Some(MAX_TOKEN_BODY),
                    deadline: Some(ends),
                }
                .into(),
            )),
            Bearer::Use(bearer, generation) => {
                request
                    .headers_mut()
                    .insert(http::header::AUTHORIZATION, bearer.header());
                if self.dirty {
                    request.extensions_mut().insert(NewConnection);
                }
                // The number may come from a stored state, so it can have any value.
                self.serial = self.serial.wrapping_add(1);
                self.in_flight = true;
                self.billed = endpoint.resend == Resend::Billed;
                self.token_attempts = 0;
                let call = Call {
                    operation: endpoint.id,
                    resend: endpoint.resend,
                    generation,
                };
                let ticket = Ticket(Kind::Call {
                    flow: self.seed,
                    serial: self.serial,
                    call,
                });
                let deadline = if max_body.is_some() {
                    Some(ends)
                } else {
                    self.deadline
                };
                Ok(Step::Send(
                    Attempt {
                        request,
                        ticket,
                        max_body,
                        deadline,
                    }
                    .into(),
                ))
            }
        }
    }

    pub(crate) fn on_token(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<(), FlowError> {
        let Kind::Token { of, serial } = ticket.0 else {
            return Err(FlowError::WrongTicket);
        };
        auth.check_own(&of)?;
        let error = match auth.on_response(now, serial, head, body) {
            Ok(()) => {
                self.token_attempts = 0;
                return Ok(());
            }
            Err(error) => error,
        };
        let again = match &error {
            ResponseError::Api(api) if api.is_retryable() => Some(api.retry_at(now)),
            _ => None,
        };
        self.token_attempts = self
            .token_attempts
            .saturating_add(auth.token_failed(&mut self.seen));
        self.token_failed(now, auth, again, error.into())
    }

    /// Processes the reply to an attempt, as parsed by its operation.
    pub(crate) fn on_reply<R>(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        reply: Result<R, ResponseError>,
    ) -> Result<Option<R>, FlowError> {
        let call = self.reported(ticket)?;
        self.dirty = false;
        let error = match reply {
            Ok(result) => {
                self.in_flight = false;
                return Ok(Some(result));
            }
            Err(error) => auth.explain(error),
        };
        let verdict = self.judge(now, auth, &call, error);
        self.settle(now, call.resend, verdict).map(|()| None)
    }

    pub(crate) fn on_failure(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        ticket: Ticket,
        why: SendFailure,
    ) -> Result<(), FlowError> {
        if let Kind::Token { of, serial } = ticket.0 {
            auth.check_own(&of)?;
            auth.end_fetching(serial);
            self.token_attempts = self
                .token_attempts
                .saturating_add(auth.token_failed(&mut self.seen));
            let (operation, attempts) = (GetToken::ENDPOINT.id, self.token_attempts);
            let (again, error) = match why {
                SendFailure::CannotSend => (None, FlowError::CannotSend { operation }),
                _ => (
                    Some(None),
                    FlowError::NoReply {
                        operation,
                        attempts,
                    },
                ),
            };
            return self.token_failed(now, auth, again, error);
        }
        let Call {
            operation, resend, ..
        } = self.reported(ticket)?;
        let verdict = match why {
            SendFailure::Unknown if resend == Resend::Billed => {
                Err(FlowError::unsure(operation, None))
            }
            SendFailure::CannotSend => Err(FlowError::CannotSend { operation }),
            // The next poll reports that the time is up.
            _ if self.ends(now) <= now => Ok(Some(self.ends(now))),
            _ => {
                let error = FlowError::NoReply {
                    operation,
                    attempts: self.attempts.saturating_add(1),
                };
                self.again(now, None, error)
            }
        };
        self.settle(now, resend, verdict)
    }

    /// Counts an interrupted download as a failed attempt. Returns whether a retry is allowed. The
    /// time limit starts over, because reading the body took time.
    pub(crate) fn broke_off(&mut self, now: Timestamp) -> bool {
        self.started = None;
        // The token may have expired during the download, so allow another retry after a 401.
        self.replayed = false;
        let time = self.next_attempt(now, None);
        self.pause = time.map(|time| Pause::new(now, time));
        time.is_some()
    }

    /// Undoes an attempt that was not sent.
    pub(crate) fn cancel(&mut self, auth: &mut Auth, ticket: Ticket) -> Result<(), FlowError> {
        if let Kind::Token { of, serial } = ticket.0 {
            auth.check_own(&of)?;
            auth.end_fetching(serial);
            return Ok(());
        }
        self.reported(ticket).map(|_| self.in_flight = false)
    }

    /// Returns the ticket's call, or fails if the ticket does not belong to the current request.
    fn reported(&self, ticket: Ticket) -> Result<Call, FlowError> {
        match ticket.0 {
            Kind::Call { flow, serial, call }
                if self.in_flight && flow == self.seed && serial == self.serial =>
            {
                Ok(call)
            }
            _ => Err(FlowError::WrongTicket),
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        call: &Call,
        error: ResponseError,
    ) -> Verdict {
        let api = match &error {
            ResponseError::Api(api) => api,
            // This may be a gateway's web page instead of the job status. The job may have been
            // billed, so keep polling. After a reply that belongs to another request, retry any
            // safe operation.
            ResponseError::Decode(why)
                if (call.operation == GetRequest::ENDPOINT.id
                    || (why.fault == Fault::Foreign && call.resend == Resend::Safe))
                    && !matches!(why.fault, Fault::TooLarge | Fault::TooLate)
                    && self.attempts < MAX_UNREADABLE - 1 =>
            {
                self.dirty = true;
                return self.again(now, None, error.into());
            }
            ResponseError::Decode(why)
                if why.fault == Fault::TooLate && call.resend == Resend::Safe =>
            {
                self.begin(now, call.operation)?;
                return Err(error.into());
            }
            // For a submission, if the error has a request id, the job continues.
            ResponseError::Decode(_) => return Err(error.into()),
        };
        // The job may exist, whatever the HTTP status is.
        if call.resend == Resend::Billed && api.has_job() {
            return Err(FlowError::unsure(call.operation, Some(api.clone())));
        }
        match api.kind() {
            ApiErrorKind::Unauthorized if !self.replayed && auth.can_renew() => {
                // This retry does not count as an attempt, because the service did not fail.
                self.replayed = true;
                auth.reject(call.generation);
                Ok(None)
            }
            ApiErrorKind::RateLimited => {
                let hint = api.retry_at(now);
                let verdict = self.again(now, hint, error.into());
                // The pause applies to other calls too, but not for longer than the default policy
                // allows.
                if let Some(time) = *verdict.as_ref().unwrap_or(&hint) {
                    auth.pause(
                        now,
                        time.min(now.after(RetryPolicy::default().max_rate_limit_wait)),
                    );
                }
                verdict
            }
            _ if api.is_retryable() && call.resend == Resend::Billed => {
                Err(FlowError::unsure(call.operation, Some(api.clone())))
            }
            _ if api.is_retryable() => {
                let hint = api.retry_at(now);
                self.again(now, hint, error.into())
            }
            _ => Err(error.into()),
        }
    }

    /// Retries after a pause, or fails with this error if no retry is allowed.
    fn again(&mut self, now: Timestamp, hint: Option<Timestamp>, error: FlowError) -> Verdict {
        self.next_attempt(now, hint).map(Some).ok_or(error)
    }

    /// Counts a failure. Returns the time of the next attempt, if one is allowed.
    fn next_attempt(&mut self, now: Timestamp, hint: Option<Timestamp>) -> Option<Timestamp> {
        self.attempts = self.attempts.saturating_add(1);
        self.pause_after(now, self.attempts, hint)
            .filter(|time| *time < self.ends(now))
    }

    /// Returns the time of the next attempt, if the policy allows one. The call may end earlier.
    fn pause_after(
        &self,
        now: Timestamp,
        attempts: u32,
        hint: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let time = match hint.filter(|hint| *hint > now) {
            Some(hint) if hint.since(now) > self.policy.max_rate_limit_wait => return None,
            Some(hint) => hint,
            None => now.after(self.policy.delay(attempts, self.seed)),
        };
        (attempts < self.policy.max_attempts).then_some(time)
    }

    /// Returns the time at which the call must end.
    fn ends(&self, now: Timestamp) -> Timestamp {
        let limit = self.started.unwrap_or(now).after(self.policy.time_limit);
        self.deadline.map_or(limit, |deadline| deadline.min(limit))
    }

    fn settle(
        &mut self,
        now: Timestamp,
        resend: Resend,
        verdict: Verdict,
    ) -> Result<(), FlowError> {
        let error = match verdict {
            Ok(time) => {
                self.in_flight = false;
                self.pause = time.map(|time| Pause::new(now, time));
                return Ok(());
            }
            Err(error) => error,
        };
        // A 2xx status means that the request arrived, even if the reply cannot be parsed.
        let arrived = match &error {
            FlowError::OutcomeUnknown { .. } | FlowError::Response(ResponseError::Decode(_)) => {
                true
            }
            FlowError::Response(ResponseError::Api(api)) => api.status().is_success(),
            _ => false,
        };
        self.in_flight = resend == Resend::Billed && arrived;
        self.reset_attempts();
        Err(error)
    }

    /// Resets the attempts, so that a call continued after an error has all its attempts again.
    fn reset_attempts(&mut self) {
        self.attempts = 0;
        self.token_attempts = 0;
        self.replayed = false;
        self.seen = None;
        self.started = None;
        self.pause = None;
    }

    /// Processes a failed token request. `again` is `None` if a retry cannot help; otherwise it
    /// contains the retry time in the reply, if any.
    fn token_failed(
        &mut self,
        now: Timestamp,
        auth: &mut Auth,
        again: Option<Option<Timestamp>>,
        error: FlowError,
    ) -> Result<(), FlowError> {
        let ends = self.ends(now);
        let is_again = match again.and_then(|hint| self.pause_after(now, self.token_attempts, hint))
        {
            // Other flows retry even if this one has no time left.
            Some(time) => {
                auth.retry_token_at(now, time);
                time < ends
            }
            None => {
                auth.refuse(&error);
                false
            }
        };
        // If no reply arrived and the time is up, the next poll reports this.
        if is_again || (ends <= now && matches!(error, FlowError::NoReply { .. })) {
            return Ok(());
        }
        self.reset_attempts();
        Err(error)
    }
}
