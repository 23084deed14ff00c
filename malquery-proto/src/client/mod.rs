//! The blocking client: it drives the flows over a [`Transport`] and a [`Clock`].

#[cfg(all(feature = "fs", feature = "archive"))]
mod collect;
mod download;
mod error;
mod job;

use std::cell::Cell;
use std::collections::HashSet;
use std::error::Error as StdError;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(all(feature = "fs", feature = "archive"))]
pub use collect::{Collect, CollectStep, Collected};
pub use download::Download;
pub use error::Error;
pub use job::Job;

use crate::cloud::BaseUrl;
use crate::error::{DecodeError, ResponseError, excerpt};
use crate::request::BuildError;
use zeroize::Zeroize;

use crate::endpoint::{Cost, Endpoint, Resend};
use crate::flow::{
    Attempt, Auth, CallFlow, FlowError, JobFlow, JobProgress, RetryPolicy, SendFailure, Step,
    Submission, Ticket,
};
use crate::oauth2::Revoke;
use crate::operation::{
    JsonOperation, JsonReply, MAX_ERROR_BODY, MAX_JSON_BODY, Operation, StreamOperation, unsigned,
};
use crate::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use crate::reply::{Reply, ResponseHead};
use crate::request::RequestParts;
use crate::stream::{StreamCheck, StreamError};
use crate::time::Timestamp;
use crate::types::each::read_each;
use crate::types::{Json, ReplyMeta, RequestId, Sha256, SubmitMeta};

/// Sends a request and gives the reply, whatever its status. Implement it for the HTTP client of your choice.
///
/// Send the request as it is, follow no redirect, and check certificates. A request carries what is known of
/// its operation ([`Endpoint`]) and, where there is a limit, the time that is left ([`TimeLeft`])
/// as extensions. A download has no limit unless the client has a deadline, so bound the silence between two bytes.
/// An empty body means none: a GET goes out without `content-length`. A transport that decodes a body (gzip) takes
/// `content-length` and `content-encoding` out of the head, and leaves alone what was asked for as `identity`.
pub trait Transport {
    /// The body of a reply, read as it arrives.
    type Body: Read;
    /// Why there is no reply.
    type Error: TransportError;

    /// Sends the request and waits for the head of the reply.
    ///
    /// # Errors
    /// Only when there is no reply: any status is `Ok`.
    fn execute(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Self::Body>, Self::Error>;
}

macro_rules! pointer_to_transport {
    ($($pointer:ty),+) => {$(
        impl<T: Transport + ?Sized> Transport for $pointer {
            type Body = T::Body;
            type Error = T::Error;

            fn execute(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<T::Body>, T::Error> {
                (**self).execute(request)
            }
        }
    )+};
}

pointer_to_transport!(&T, Box<T>, std::sync::Arc<T>);

/// Why there is no reply. What it says of the failure decides whether a request may be sent again.
///
/// ```
/// use malquery_proto::client::TransportError;
/// use malquery_proto::flow::SendFailure;
///
/// #[derive(Debug)]
/// struct NoReply(std::io::Error);
///
/// impl TransportError for NoReply {
///     fn failure(&self) -> SendFailure {
///         match self.0.kind() {
///             // There was no connection, so nothing was sent.
///             std::io::ErrorKind::ConnectionRefused => SendFailure::NotSent,
///             // When in doubt: a hunt is not sent again then.
///             _ => SendFailure::Unknown,
///         }
///     }
/// }
/// # impl std::error::Error for NoReply {}
/// # impl std::fmt::Display for NoReply {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
/// # }
/// ```
pub trait TransportError: StdError + Send + Sync + 'static {
    /// Whether the service may have seen the request. When in doubt, [`SendFailure::Unknown`].
    fn failure(&self) -> SendFailure;
}

/// Of a transport that always has a reply.
impl TransportError for std::convert::Infallible {
    fn failure(&self) -> SendFailure {
        match *self {}
    }
}

/// Tells the time and waits.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Timestamp;
    /// Returns at `time` or later.
    fn sleep_until(&self, time: Timestamp);
}

macro_rules! pointer_to_clock {
    ($($pointer:ty),+) => {$(
        impl<C: Clock + ?Sized> Clock for $pointer {
            fn now(&self) -> Timestamp {
                (**self).now()
            }

            fn sleep_until(&self, time: Timestamp) {
                (**self).sleep_until(time);
            }
        }
    )+};
}

pointer_to_clock!(&C, Box<C>, std::sync::Arc<C>);

/// What the observer of a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStep {
    /// A request is about to be sent. The flow knows that it is under way.
    Send,
    /// The outcome of a request was taken.
    Reported,
    /// Nothing is sent until this time.
    Wait(Timestamp),
}

/// The time that is left for a request, its whole body included. A transport should give up by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft(pub Duration);

/// A client for MalQuery.
///
/// It can be shared by threads when its transport and clock can: they use one token and one rate limit.
///
/// ```
/// use malquery_proto::client::Error;
/// use malquery_proto::types::Sha256;
/// use malquery_proto::{Client, Clock, Transport};
///
/// /// Any client will do: one over a network, or one of a test.
/// fn known<T: Transport, C: Clock>(client: &Client<T, C>, samples: Vec<Sha256>) -> Result<(), Error> {
///     let quotas = client.quotas()?;
///     println!("{:?} downloads are left this month", quotas.meta.downloads_left());
///     let found = client.metadata(samples)?;
///     for sample in &found.resources {
///         println!("{:?} {:?} {:?}", sample.sha256, sample.label, sample.family);
///     }
///     println!("{} are not known", found.missing.len());
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Client<T, C> {
    transport: T,
    clock: C,
    auth: Mutex<Auth>,
    retry: RetryPolicy,
    deadline: Option<Timestamp>,
    check_quota: bool,
    calls: AtomicU64,
}

/// What is known of samples: a reply, joined from as many as it took, and what was not found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetadataReply {
    /// The reply. Its `meta` is that of the first, if there were several.
    pub reply: JsonReply<GetMetadata>,
    /// The samples that were asked for and of which nothing is known.
    pub missing: Vec<Sha256>,
}

impl MetadataReply {
    fn new(reply: JsonReply<GetMetadata>, mut samples: Vec<Sha256>) -> Self {
        let found: HashSet<_> = reply
            .resources
            .iter()
            .filter_map(|sample| sample.sha256)
            .collect();
        samples.retain(|sample| !found.contains(sample));
        Self {
            reply,
            missing: samples,
        }
    }
}

impl std::ops::Deref for MetadataReply {
    type Target = JsonReply<GetMetadata>;

    fn deref(&self) -> &Self::Target {
        &self.reply
    }
}

impl<T: Transport, C: Clock> Client<T, C> {
    /// A client that sends over `transport` with the tokens of `auth`.
    pub fn new(transport: T, clock: C, auth: Auth) -> Self {
        Self {
            transport,
            clock,
            auth: Mutex::new(auth),
            retry: RetryPolicy::default(),
            deadline: None,
            check_quota: false,
            calls: AtomicU64::new(0),
        }
    }

    /// How often and how long calls are tried.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Ends every call at this time, and afterwards every call at once: it is for a client that lives as long as a command
    /// does. A single job takes [`Job::deadline`].
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Asks for the quotas before every hunt and multi-download, and refuses what they do not cover before it is sent, with
    /// [`FlowError::QuotaShort`], or with [`FlowError::QuotaUnknown`] where errors stand in the place of a quota. It takes a
    /// request more, and another client may be faster; but it keeps a month's downloads from being half spent on a job that
    /// cannot be finished.
    pub fn check_quota(mut self, check: bool) -> Self {
        self.check_quota = check;
        self
    }

    /// The clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Where requests go.
    pub fn base(&self) -> BaseUrl {
        self.auth().base().clone()
    }

    /// The monthly quotas and how much of them is used. Costs nothing. See [`GetQuotas`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn quotas(&self) -> Result<JsonReply<GetQuotas>, Error> {
        self.call(&GetQuotas)
    }

    /// Finds samples fast, with false positives. See [`FuzzySearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn fuzzy_search(&self, search: &FuzzySearch) -> Result<JsonReply<FuzzySearch>, Error> {
        self.call(search)
    }

    /// Starts an exact search. See [`ExactSearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn exact_search(&self, search: &ExactSearch) -> Result<Job<'_, T, C>, Error> {
        self.submit(search)
    }

    /// Starts a hunt, which costs one. See [`Hunt`].
    ///
    /// # Errors
    /// See [`Client::call`]; also [`FlowError::QuotaShort`] with [`Client::check_quota`].
    pub fn hunt(&self, hunt: &Hunt) -> Result<Job<'_, T, C>, Error> {
        self.submit(hunt)
    }

    /// Asks where a job is, and for its results. Costs nothing. See [`GetRequest`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn request(&self, id: &RequestId) -> Result<JsonReply<GetRequest>, Error> {
        self.call(&GetRequest::new(id.clone()))
    }

    /// Asks what is known of samples, however many: it takes a request for each 115 or so. Costs nothing.
    /// The results come in the order in which the service gives them; see [`MetadataReply::missing`] for those not known.
    /// See [`GetMetadata`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn metadata(
        &self,
        samples: impl IntoIterator<Item = Sha256>,
    ) -> Result<MetadataReply, Error> {
        let samples: Vec<_> = samples.into_iter().collect();
        let mut requests = GetMetadata::split(&samples, &self.base()).into_iter();
        // Without samples there is still a request, for its error.
        let mut reply = self.call(
            &requests
                .next()
                .unwrap_or_else(|| GetMetadata::new(&samples)),
        )?;
        for request in requests {
            let next = self.call(&request)?.output;
            reply.output.resources.extend(next.resources);
            reply.output.errors.extend(next.errors);
        }
        Ok(MetadataReply::new(reply, samples))
    }

    /// Starts a job that makes an archive of samples, which costs one download for each.
    /// See [`SamplesMultidownload`].
    ///
    /// # Errors
    /// See [`Client::call`]; also [`FlowError::QuotaShort`] with [`Client::check_quota`].
    pub fn samples_multidownload(
        &self,
        samples: impl IntoIterator<Item = Sha256>,
    ) -> Result<Job<'_, T, C>, Error> {
        self.submit(&SamplesMultidownload::new(samples))
    }

    /// Downloads a sample, the raw malware, which costs one download. See [`GetDownload`].
    ///
    /// It is tried again until the head of a reply is there. If the bytes break off after that, reading ends with an error:
    /// [`Client::save`] begins anew then, into a file that is made before anything is billed.
    ///
    /// ```
    /// # #[cfg(feature = "fs")]
    /// # fn example<T: malquery_proto::Transport, C: malquery_proto::Clock>(
    /// #     client: &malquery_proto::Client<T, C>,
    /// #     sha256: malquery_proto::types::Sha256,
    /// # ) -> Result<(), malquery_proto::client::Error> {
    /// use malquery_proto::OutputFile;
    ///
    /// // Made before anything is billed. Readable by you alone, and there only when all bytes came and have this hash.
    /// let file = OutputFile::create("sample.bin", false)?;
    /// let received = client.download(sha256)?.output.write_to(file)?;
    /// println!("{} bytes", received.bytes);
    /// # Ok(())
    /// # }
    /// ```
    /// # Errors
    /// See [`Client::call`].
    pub fn download(&self, sample: Sha256) -> Result<Reply<Download<T::Body>>, Error> {
        self.open(&GetDownload::new(sample))
    }

    /// Fetches the archive of a multi-download that is done. See [`GetSamples`]. If its bytes break off, reading ends with an
    /// error; [`Client::save`] begins anew.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn samples(&self, id: &RequestId) -> Result<Reply<Download<T::Body>>, Error> {
        self.open(&GetSamples::new(id.clone()))
    }

    /// Calls an operation that answers with JSON.
    ///
    /// # Errors
    /// [`Error::Flow`], after the attempts its operation and the [`RetryPolicy`] allow; of a hunt and a multi-download also
    /// what [`Client::check_quota`] finds.
    pub fn call<O: JsonOperation>(&self, operation: &O) -> Result<JsonReply<O>, Error> {
        self.guard(operation, operation.cost())?;
        let mut flow = self.call_flow();
        self.drive(
            &mut flow,
            |flow| flow,
            |flow, now, auth| flow.poll(now, auth, operation),
            |_, response| {
                operation.response(ResponseHead::from(&response), response.body().bytes())
            },
            CallFlow::on_reply,
            |_, _| ControlFlow::Continue(()),
        )
    }

    /// Calls an operation that answers with bytes. The body is checked as it is read.
    ///
    /// # Errors
    /// As [`Client::call`]. Errors in the bytes come from reading the [`Download`].
    pub fn open<O: StreamOperation>(
        &self,
        operation: &O,
    ) -> Result<Reply<Download<T::Body>>, Error> {
        self.open_in(&mut self.call_flow(), operation)
    }

    /// The same as a part of a call that goes on when the bytes break off.
    pub(crate) fn open_in<O: StreamOperation>(
        &self,
        flow: &mut CallFlow,
        operation: &O,
    ) -> Result<Reply<Download<T::Body>>, Error> {
        self.drive(
            flow,
            |flow| flow,
            |flow, now, auth| flow.poll_stream(now, auth, operation),
            |_, response| {
                let head = ResponseHead::from(&response);
                match operation.response(head) {
                    Some(reply) => {
                        Ok(reply
                            .map(|check| Download::new(response.into_body().into_stream(), check)))
                    }
                    None => Err(ResponseError::Api(
                        operation.error(head, response.body().bytes()).into(),
                    )),
                }
            },
            CallFlow::on_reply,
            |_, _| ControlFlow::Continue(()),
        )
    }

    /// Calls an operation that answers with JSON, and hands its results to `each` one by one, as they arrive: the memory
    /// it takes does not grow with their number, and there is no limit to that: only between two results no more than
    /// 256 MiB may come. The reply has all but those results.
    ///
    /// For the results of a job that is done, give it [`GetRequest`]; of one that is not there are none.
    ///
    /// ```
    /// # fn example<T: malquery_proto::Transport, C: malquery_proto::Clock>(
    /// #     client: &malquery_proto::Client<T, C>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::ops::ControlFlow;
    ///
    /// use malquery_proto::operations::GetRequest;
    /// use malquery_proto::types::{JobStatus, Sample};
    ///
    /// let mut bytes = 0;
    /// let reply = client.each(&GetRequest::new("the-request-id".parse()?), |sample: Sample| {
    ///     bytes += sample.filesize.unwrap_or(0);
    ///     ControlFlow::Continue(())
    /// })?;
    /// if reply.meta.status == Some(JobStatus::Done) {
    ///     println!("{bytes} bytes in all");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::call`], until the first bytes of the body arrive. A body that breaks off later is not asked for again,
    /// since results were handed out: [`Error::Stream`], [`Error::Body`] also for JSON that ends too soon, or
    /// [`ResponseError::Decode`] for what is no JSON.
    /// [`Error::Stopped`] when `each` said so. Of a `resources` that comes twice, the results of both are handed out, where
    /// [`Client::call`] keeps the last.
    pub fn each<O: JsonOperation>(
        &self,
        operation: &O,
        each: impl FnMut(O::Resource) -> ControlFlow<()>,
    ) -> Result<JsonReply<O>, Error> {
        self.each_within(MAX_JSON_BODY, operation, each)
    }

    /// The same with no more than so many bytes between two results.
    fn each_within<O: JsonOperation>(
        &self,
        most: u64,
        operation: &O,
        mut each: impl FnMut(O::Resource) -> ControlFlow<()>,
    ) -> Result<JsonReply<O>, Error> {
        self.guard(operation, operation.cost())?;
        let reply = self.open(&Streamed(operation))?;
        let mut stopped = false;
        let Reply {
            output: download,
            status,
            trace_id,
            rate_limit,
        } = reply;
        let left = Cell::new(most);
        let read = read_each(
            Bounded {
                body: download,
                left: &left,
            },
            |result| {
                left.set(most);
                let step = each(result);
                stopped = step.is_break();
                step
            },
        );
        match read {
            Ok(output) => {
                let trace_id =
                    trace_id.or_else(|| ReplyMeta::trace_id(&output.meta).map(Into::into));
                Ok(Reply {
                    output,
                    status,
                    trace_id,
                    rate_limit,
                })
            }
            Err(_) if stopped => Err(Error::Stopped),
            // It arrived, and what it said of itself is lost.
            Err(_) if O::ENDPOINT.resend == Resend::Billed => Err(FlowError::OutcomeUnknown {
                operation: O::ENDPOINT.id,
                reply: None,
            }
            .into()),
            // A cut one is not JSON, and may come whole the next time.
            Err(error) if error.is_io() || error.is_eof() => Err(Error::of_download(error.into())),
            Err(error) => {
                let error = DecodeError::of_stream(&O::ENDPOINT, status, trace_id, error);
                Err(FlowError::from(ResponseError::Decode(error.into())).into())
            }
        }
    }

    /// A job that was submitted before.
    pub fn attach(&self, id: RequestId) -> Job<'_, T, C> {
        self.handle(id, None)
    }

    /// A job to be submitted and waited for by [`Client::run_job`], which can be stored before it is submitted.
    pub fn job_flow(&self, job: impl Into<Submission>) -> JobFlow {
        JobFlow::new(job, self.retry, self.seed())
    }

    /// Submits a job, if that is not done yet, and waits for its end. Polling costs nothing.
    ///
    /// Before every request of the job and of its token, and after every reply, `observe` is shown the flow and what comes next
    /// (of a question for the quotas it is not told). A flow keeps the [`RetryPolicy`] it was made with. `observe` may store
    /// the flow, so that another process can go on with it, or end the run with [`ControlFlow::Break`]: before a request,
    /// that is taken back, and the flow shown once more.
    ///
    /// # Errors
    /// [`Error::Flow`]; [`Error::Stopped`] when the observer ended the run.
    pub fn run_job(
        &self,
        flow: &mut JobFlow,
        observe: impl FnMut(&JobFlow, JobStep) -> ControlFlow<()>,
    ) -> Result<JsonReply<GetRequest>, Error> {
        if let Some(submission) = flow.to_submit() {
            self.guard_submission(submission, submission.cost())?;
        }
        self.run_guarded(flow, observe)
    }

    fn run_guarded(
        &self,
        flow: &mut JobFlow,
        observe: impl FnMut(&JobFlow, JobStep) -> ControlFlow<()>,
    ) -> Result<JsonReply<GetRequest>, Error> {
        let own = flow.call_mut().deadline();
        flow.set_deadline(own.into_iter().chain(self.deadline).min());
        let result = self.drive(
            flow,
            JobFlow::call_mut,
            JobFlow::poll,
            |flow, response| flow.read(ResponseHead::from(&response), response.body().bytes()),
            |flow, now, auth, ticket, reply| match flow.on_reply(now, auth, ticket, reply)? {
                JobProgress::Pending => Ok(None),
                JobProgress::Done(reply) => Ok(Some(*reply)),
            },
            observe,
        );
        // The one of this client is not for the next that runs it.
        flow.set_deadline(own);
        result
    }

    fn submit<O>(&self, operation: &O) -> Result<Job<'_, T, C>, Error>
    where
        O: JsonOperation<Meta = SubmitMeta, Resource = Json>,
    {
        let reply = self.call(operation)?;
        Ok(self.handle(reply.meta.reqid.clone(), Some(reply)))
    }

    fn handle(&self, id: RequestId, submitted: Option<JsonReply<Hunt>>) -> Job<'_, T, C> {
        let flow = JobFlow::attach(id.clone(), self.retry, self.seed());
        Job::new(self, id, flow, submitted)
    }

    fn guard_submission(&self, submission: &Submission, cost: Cost) -> Result<(), Error> {
        match submission {
            Submission::Hunt(hunt) => self.guard(hunt, cost),
            Submission::ExactSearch(search) => self.guard(search, cost),
            Submission::SamplesMultidownload(download) => self.guard(download, cost),
        }
    }

    /// Refuses a submission that the remaining quota does not cover, if that is wanted and the service tells.
    fn guard<O: Operation>(&self, operation: &O, cost: Cost) -> Result<(), Error> {
        if !self.check_quota || O::ENDPOINT.resend != Resend::Billed || cost == Cost::default() {
            return Ok(());
        }
        // What cannot be sent is refused before anything is.
        unsigned(operation, &self.base()).map_err(FlowError::from)?;
        let quotas = self.quotas()?;
        for (what, needed, left) in [
            ("hunts", cost.hunts, quotas.meta.hunts_left()),
            ("downloads", cost.downloads, quotas.meta.downloads_left()),
        ] {
            match left {
                Some(left) if left < needed => {
                    return Err(FlowError::QuotaShort { what, needed, left }.into());
                }
                // It could not tell, where one that does not tell at all must not keep anyone from a hunt.
                None if needed > 0 && !quotas.errors.is_empty() => {
                    let why = quotas.errors[0]
                        .message
                        .as_deref()
                        .unwrap_or("it does not say why");
                    let why = excerpt(why.as_bytes(), 500).into();
                    return Err(FlowError::QuotaUnknown { what, why }.into());
                }
                None if needed > 0 => {
                    log::warn!("the service does not tell how many {what} are left")
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the life of the token, if there is one that this client asked for. Afterwards it asks for a new one.
    ///
    /// # Errors
    /// When the token could not be revoked. It is not used any more, and expires by itself.
    pub fn revoke(&self) -> Result<(), Error> {
        let (taken, base) = {
            let mut auth = self.auth();
            (auth.take_token(), auth.base().clone())
        };
        let Some((credentials, token)) = taken else {
            return Ok(());
        };
        let revoke = Revoke::new(&credentials, &token);
        let mut request = revoke.request(&base).map_err(FlowError::from)?;
        if let Some(deadline) = self.deadline {
            request
                .extensions_mut()
                .insert(TimeLeft(deadline.since(self.clock.now())));
        }
        match self.send(request, Some(MAX_ERROR_BODY)) {
            Ok(response) => {
                let body = response.body().bytes();
                revoke
                    .response(ResponseHead::from(&response), body)
                    .map_err(FlowError::from)?;
                Ok(())
            }
            Err(cause) => Err(Error::new(
                FlowError::NoReply {
                    operation: "oauth2RevokeToken",
                    attempts: 1,
                },
                Some(cause),
            )),
        }
    }

    pub(crate) fn call_flow(&self) -> CallFlow {
        let mut flow = CallFlow::new(self.retry, self.seed());
        flow.set_deadline(self.deadline);
        flow
    }

    /// A seed need not be secret, only different from call to call and from process to process.
    fn seed(&self) -> u64 {
        self.clock.now().as_millis() ^ self.calls.fetch_add(1, Ordering::Relaxed).rotate_left(32)
    }

    /// Runs a flow to its end: the one loop in which something is sent. `read` reads a reply, which may take a while
    /// and needs no lock; `take` tells the flow. `call` gives the call under way.
    fn drive<F, P, R>(
        &self,
        flow: &mut F,
        call: impl Fn(&mut F) -> &mut CallFlow,
        poll: impl Fn(&mut F, Timestamp, &mut Auth) -> Result<Step, FlowError>,
        read: impl Fn(&F, http::Response<Payload<T::Body>>) -> P,
        take: impl Fn(&mut F, Timestamp, &mut Auth, Ticket, P) -> Result<Option<R>, FlowError>,
        mut observe: impl FnMut(&F, JobStep) -> ControlFlow<()>,
    ) -> Result<R, Error> {
        let mut cause = None;
        loop {
            let now = self.clock.now();
            let step = poll(flow, now, &mut self.auth());
            let attempt = match step {
                Ok(Step::Send(attempt)) => attempt,
                Ok(Step::Wait(time)) => {
                    if observe(flow, JobStep::Wait(time)).is_break() {
                        return Err(Error::Stopped);
                    }
                    self.clock.sleep_until(time);
                    continue;
                }
                Err(error) => return Err(Error::new(error, cause)),
            };
            let Attempt {
                mut request,
                ticket,
                max_body,
                deadline,
            } = *attempt;
            let operation = request
                .extensions()
                .get::<Endpoint>()
                .map_or("a request", |meta| meta.id);
            if observe(flow, JobStep::Send).is_break() {
                // Nothing was sent, and the flow is to know that.
                call(flow).cancel(&mut self.auth(), ticket)?;
                let _ = observe(flow, JobStep::Reported);
                return Err(Error::Stopped);
            }
            if let Some(deadline) = deadline {
                request
                    .extensions_mut()
                    .insert(TimeLeft(deadline.since(now)));
            }
            let result = self.send(request, max_body);
            let now = self.clock.now();
            let outcome = match result {
                Ok(mut response) if ticket.is_token() => {
                    cause = None;
                    let head = ResponseHead {
                        status: response.status(),
                        headers: &response.headers().clone(),
                    };
                    let result = call(flow).on_token(
                        now,
                        &mut self.auth(),
                        ticket,
                        head,
                        response.body().bytes(),
                    );
                    response.body_mut().wipe();
                    result.map(|()| None)
                }
                Ok(response) => {
                    cause = None;
                    let reply = read(flow, response);
                    take(flow, self.clock.now(), &mut self.auth(), ticket, reply)
                }
                Err(error) => {
                    let why = error.failure();
                    if why != SendFailure::CannotSend {
                        // It may be tried again for a long time, and in silence it would seem to be the job that takes it.
                        log::warn!("no reply to {operation}: {error}");
                    }
                    cause = Some(error);
                    call(flow)
                        .on_failure(now, &mut self.auth(), ticket, why)
                        .map(|()| None)
                }
            };
            // Also told when the flow has ended, so that what is stored is its last state.
            let stopped = observe(flow, JobStep::Reported).is_break();
            match outcome {
                Ok(Some(result)) => return Ok(result),
                Err(error) => return Err(Error::new(error, cause)),
                Ok(None) if stopped => return Err(Error::Stopped),
                Ok(None) => {}
            }
        }
    }

    /// Sends a request and reads the body, unless it is a stream that is to be handed on.
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        max_body: Option<u64>,
    ) -> Result<http::Response<Payload<T::Body>>, Box<dyn TransportError>> {
        let response = self
            .transport
            .execute(request)
            .map_err(|error| Box::new(error) as Box<dyn TransportError>)?;
        let (head, body) = response.into_parts();
        let (most, whole) = match max_body {
            None if head.status.is_success() => {
                return Ok(http::Response::from_parts(head, Payload::Stream(body)));
            }
            Some(most) if head.status.is_success() => (most, true),
            // The beginning of an error is enough.
            _ => (MAX_ERROR_BODY, false),
        };
        let bytes = read_body(&head, body, most, whole)?;
        Ok(http::Response::from_parts(head, Payload::Bytes(bytes)))
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        // Should encoding a request panic, the state is still that of the last step.
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a body of at most `most` bytes, and one more of a longer one. Where `whole` is set, a cut one is an error; one that
/// is too long is for who reads it: to ask for it again would not make it shorter.
fn read_body(
    head: &http::response::Parts,
    body: impl Read,
    most: u64,
    whole: bool,
) -> Result<Vec<u8>, Box<dyn TransportError>> {
    // Beside chunks a length counts for nothing (RFC 9112, 6.3). JSON shows by itself whether it is whole; a sample does not,
    // and there it is an error.
    let is_chunked = head.headers.contains_key(http::header::TRANSFER_ENCODING);
    let declared = ResponseHead {
        status: head.status,
        headers: &head.headers,
    }
    .content_length();
    let declared = declared.filter(|_| !is_chunked);
    let capacity = declared.unwrap_or(0).min(most).min(1 << 20);
    let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or(0));
    let result = body.take(most.saturating_add(1)).read_to_end(&mut bytes);
    if !whole {
        // A status that tells of an error does so without its body, too.
        bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        return Ok(bytes);
    }
    let received = bytes.len() as u64;
    let short = declared.filter(|declared| received < *declared);
    match result {
        // That the connection was closed says less than how much is missing.
        Err(error) if short.is_none() || error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(Box::new(BodyError(error)));
        }
        _ => {}
    }
    // A transport that decodes a body has to take the length out of the head.
    match short.filter(|_| received <= most) {
        Some(declared) => Err(Box::new(BodyError(io::Error::other(StreamError::Short {
            received,
            declared,
        })))),
        None => Ok(bytes),
    }
}

/// The body of a reply could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the body of the reply could not be read: {0}")]
struct BodyError(io::Error);

impl TransportError for BodyError {
    fn failure(&self) -> SendFailure {
        SendFailure::Unknown
    }
}

/// An operation whose reply is read while it arrives.
struct Streamed<'a, O>(&'a O);

impl<O: Operation> Operation for Streamed<'_, O> {
    const ENDPOINT: Endpoint = O::ENDPOINT;

    fn encode(&self, out: &mut RequestParts) -> Result<(), BuildError> {
        self.0.encode(out)
    }
}

impl<O: Operation> StreamOperation for Streamed<'_, O> {
    fn check(&self, head: ResponseHead<'_>) -> StreamCheck {
        StreamCheck::for_head(head)
    }
}

/// A body of which no more than so much may come.
struct Bounded<'a, R> {
    body: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        let Some(left) = self.left.get().checked_sub(count as u64) else {
            return Err(io::Error::other("more came without a result than is read"));
        };
        self.left.set(left);
        Ok(count)
    }
}

enum Payload<B> {
    Bytes(Vec<u8>),
    Stream(B),
}

impl<B> Payload<B> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Stream(_) => &[],
        }
    }

    /// Wipes a reply that holds a token.
    fn wipe(&mut self) {
        if let Self::Bytes(bytes) = self {
            bytes.zeroize();
        }
    }

    fn into_stream(self) -> Option<B> {
        match self {
            Self::Bytes(_) => None,
            Self::Stream(body) => Some(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::str::FromStr;

    use super::*;
    use crate::cloud::Cloud;
    use crate::credentials::BearerToken;

    /// A service that answers everything with these bytes, and a clock that stands still.
    struct Always(Vec<u8>);

    impl Transport for &Always {
        type Body = io::Cursor<Vec<u8>>;
        type Error = Infallible;

        fn execute(
            &self,
            _: http::Request<Vec<u8>>,
        ) -> Result<http::Response<Self::Body>, Infallible> {
            Ok(http::Response::new(io::Cursor::new(self.0.clone())))
        }
    }

    impl Clock for Always {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }

        fn sleep_until(&self, _: Timestamp) {}
    }

    #[test]
    fn a_reply_of_any_length_is_read_result_by_result_if_there_are_results() {
        let count = |results: usize, gap: usize| {
            let list = vec![format!("{}{{}}", " ".repeat(gap)); results].join(",");
            let service = Always(format!(r#"{{"resources": [{list}]}}"#).into_bytes());
            let auth = Auth::with_token(Cloud::Us1, BearerToken::new("t0ken").unwrap());
            let client = Client::new(&service, Always(Vec::new()), auth);
            let mut count = 0;
            let id = RequestId::from_str("r-1").unwrap();
            // More than is read from the body at once.
            let read = client.each_within(200_000, &GetRequest::new(id), |_| {
                count += 1;
                ControlFlow::Continue(())
            });
            read.map(|_| count)
        };
        assert_eq!(count(20, 100_000).unwrap(), 20);
        let error = count(2, 300_000).unwrap_err();
        assert_eq!(
            format!("{error:?}"),
            "the download broke off: more came without a result than is read"
        );
    }
}
