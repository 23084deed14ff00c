//! The blocking client, which sends requests over a [`Transport`] and waits with a [`Clock`].

#[cfg(feature = "samples")]
mod collect;
mod download;
mod driver;
mod error;
mod job;
mod observer;
#[cfg(feature = "samples")]
mod output;
#[cfg(feature = "samples")]
mod save;
#[cfg(feature = "system")]
mod system;
mod transport;

use std::borrow::{Borrow, Cow};
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "samples")]
pub use collect::{Collect, Collected, Source};
pub use download::Download;
pub use error::{Error, ErrorKind};
pub use job::Job;
pub use observer::{Observer, Progress, Step};
#[cfg(feature = "samples")]
pub use output::OutputFile;
#[cfg(feature = "system")]
pub use system::{EnvError, Settings, SystemClock};
pub use transport::{Body, Clock, TimeLeft, Transport, TransportError};

use driver::Payload;

use crate::cloud::BaseUrl;
use crate::credentials::MemberCid;
use crate::endpoint::{Cost, Resend};
use crate::error::excerpt;
use crate::flow::{
    Auth, CallFlow, DownloadFlow, FlowError, JobFlow, RetryPolicy, SendFailure, Submission,
    for_operation,
};
use crate::oauth2::Revoke;
use crate::operation::{
    JsonOperation, JsonReply, MAX_ERROR_BODY, Operation, StreamOperation, unsigned,
};
use crate::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use crate::reply::Reply;
use crate::time::Timestamp;
use crate::types::{Json, RequestId, Sample, Sha256, SubmitMeta};

/// A blocking client for MalQuery.
///
/// Cloning is cheap. Clones share the token, the transport and the pauses for rate limits, and can
/// be used in other threads. A clone starts with the same [`timeout`](Self::timeout),
/// [`deadline`](Self::deadline), [`retry`](Self::retry) and [`check_quota`](Self::check_quota).
/// Setting one of these later does not affect other clones.
///
/// ```
/// use malquery_proto::Client;
/// use malquery_proto::client::Error;
/// use malquery_proto::types::Sha256;
///
/// fn known(client: &Client, samples: Vec<Sha256>) -> Result<(), Error> {
///     let quotas = client.quotas()?;
///     println!("{:?} downloads left this month", quotas.meta.downloads_left());
///     let found = client.metadata(samples)?;
///     for sample in &found.resources {
///         println!("{:?} {:?} {:?}", sample.sha256, sample.label, sample.family);
///     }
///     println!("{} not in MalQuery", found.missing.len());
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    retry: RetryPolicy,
    deadline: Option<Timestamp>,
    timeout: Option<Duration>,
    check_quota: bool,
}

struct Shared {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    auth: Mutex<Auth>,
    /// The number of seeds created so far. A child and its parent share this counter.
    calls: Arc<AtomicU64>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base().as_str())
            .field("retry", &self.retry)
            .field("deadline", &self.deadline)
            .field("timeout", &self.timeout)
            .field("check_quota", &self.check_quota)
            .finish_non_exhaustive()
    }
}

/// The metadata of samples, combined from one or more replies, and the samples that were not found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetadataReply {
    /// The first reply, with the results and errors of all replies.
    pub reply: JsonReply<GetMetadata>,
    /// The requested samples that do not appear in any result, usually because they are not in
    /// MalQuery.
    pub missing: Vec<Sha256>,
}

impl std::ops::Deref for MetadataReply {
    type Target = JsonReply<GetMetadata>;

    fn deref(&self) -> &Self::Target {
        &self.reply
    }
}

impl IntoIterator for MetadataReply {
    type Item = Sample;
    type IntoIter = std::vec::IntoIter<Sample>;

    fn into_iter(self) -> Self::IntoIter {
        self.reply.into_iter()
    }
}

impl Client {
    /// Creates a client that sends requests over `transport` and gets tokens from `auth`.
    pub fn new(
        transport: impl Transport + 'static,
        clock: impl Clock + 'static,
        auth: Auth,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                transport: Arc::new(transport),
                clock: Arc::new(clock),
                auth: Mutex::new(auth),
                calls: Arc::default(),
            }),
            retry: RetryPolicy::default(),
            deadline: None,
            timeout: None,
            check_quota: false,
        }
    }

    /// Returns a client that acts for a Flight Control child.
    ///
    /// The new client has the same settings, credentials and transport as this one, but a separate
    /// token and separate pauses for rate limits. If this client uses a [token that was obtained
    /// elsewhere](Auth::with_token), the new client cannot send requests, because the token is not
    /// valid for the child.
    pub fn child(&self, member_cid: MemberCid) -> Self {
        let shared = Shared {
            transport: self.shared.transport.clone(),
            clock: self.shared.clock.clone(),
            auth: Mutex::new(self.auth().child(member_cid)),
            calls: self.shared.calls.clone(),
        };
        Self {
            shared: Arc::new(shared),
            ..self.clone()
        }
    }

    /// Sets how often, and for how long, calls are retried.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets the maximum duration of a call. A longer call fails with [`FlowError::Deadline`] or
    /// with the error of its last request. By default, only [`RetryPolicy::time_limit`] applies,
    /// which limits each poll of a job separately.
    ///
    /// The duration includes the [quota check](Self::check_quota). [`Client::collect`] counts as one
    /// call, and so does waiting for a job (see also [`Job::timeout`]).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time by which calls must end. After that, calls fail as described in
    /// [`timeout`](Self::timeout). If both are set, the earlier limit applies.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets whether to check the remaining quota before every hunt and multi-download. The default
    /// is `false`.
    ///
    /// The check calls [`GetQuotas`], which costs no quota. The job is not submitted if that call
    /// fails, if the quota does not cover the job ([`FlowError::QuotaShort`]), or if the count or
    /// the limit in the reply is missing or invalid ([`FlowError::QuotaUnknown`]). The check is not
    /// a guarantee: another client may use the quota before the job is submitted.
    #[must_use]
    pub fn check_quota(mut self, check: bool) -> Self {
        self.check_quota = check;
        self
    }

    /// Returns the clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    fn transport(&self) -> &dyn Transport {
        &*self.shared.transport
    }

    /// Returns the base URL for requests.
    pub fn base(&self) -> BaseUrl {
        self.auth().base().clone()
    }

    /// Returns the monthly quotas and their current use. Costs no quota. See [`GetQuotas`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn quotas(&self) -> Result<JsonReply<GetQuotas>, Error> {
        self.call(&GetQuotas)
    }

    /// Runs a fuzzy search, which may return false positives. No cost is documented. See
    /// [`FuzzySearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn fuzzy_search(&self, search: &FuzzySearch) -> Result<JsonReply<FuzzySearch>, Error> {
        self.call(search)
    }

    /// Starts an exact search. No cost is documented. See [`ExactSearch`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn exact_search(&self, search: &ExactSearch) -> Result<Job, Error> {
        self.submit(search)
    }

    /// Starts a hunt. Costs one hunt. See [`Hunt`].
    ///
    /// # Errors
    /// See [`Client::call`] and [`Client::check_quota`].
    pub fn hunt(&self, hunt: &Hunt) -> Result<Job, Error> {
        self.submit(hunt)
    }

    /// Returns the status of a job, and its results once it is done. Costs no quota. See
    /// [`GetRequest`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn request(&self, id: &RequestId) -> Result<JsonReply<GetRequest>, Error> {
        self.call(&GetRequest::new(id.clone()))
    }

    /// Returns the metadata of one or more samples. Costs no quota. See [`GetMetadata`].
    ///
    /// A request has room for about 115 samples; a longer list is split across several requests.
    /// The results are in the order in which the service returns them. [`MetadataReply::missing`]
    /// lists the samples without a result.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn metadata(
        &self,
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Result<MetadataReply, Error> {
        let mut missing: Vec<_> = samples.into_iter().map(|sample| *sample.borrow()).collect();
        let mut requests = GetMetadata::split(&missing, &self.base()).into_iter();
        let ends = self.ends(self.timeout);
        let call = |request: &GetMetadata| self.call_until(ends, request, &mut ());
        // Without samples, try to send a request anyway: it fails with the right error.
        let first = requests.next();
        let mut reply = call(&first.unwrap_or_else(|| GetMetadata::new(&missing)))?;
        for request in requests {
            let next = call(&request)?.output;
            reply.output.resources.extend(next.resources);
            reply.output.errors.extend(next.errors);
        }
        let found = reply.resources.iter().filter_map(|sample| sample.sha256);
        let found: HashSet<_> = found.collect();
        missing.retain(|sample| !found.contains(sample));
        Ok(MetadataReply { reply, missing })
    }

    /// Starts a job that creates an archive of samples. Costs one download for each sample. See
    /// [`SamplesMultidownload`].
    ///
    /// # Errors
    /// See [`Client::call`] and [`Client::check_quota`].
    pub fn samples_multidownload(
        &self,
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Result<Job, Error> {
        self.submit(&SamplesMultidownload::new(samples))
    }

    /// Downloads a sample as a stream. Costs one download. **The bytes are raw malware.** See
    /// [`GetDownload`].
    ///
    /// Failures are retried only until the head of a successful reply arrives. If the body is
    /// interrupted later, reading it returns an error. [`Client::save`] also retries an interrupted
    /// download.
    ///
    /// ```
    /// # #[cfg(feature = "samples")]
    /// # fn example(
    /// #     client: &malquery_proto::Client,
    /// #     sha256: malquery_proto::types::Sha256,
    /// # ) -> Result<(), malquery_proto::client::Error> {
    /// use malquery_proto::OutputFile;
    ///
    /// // Fails here, before anything is billed, if the file exists.
    /// let file = OutputFile::create_new("sample.bin")?;
    /// let received = client.download(sha256)?.output.write_to(file)?;
    /// println!("{} bytes", received.bytes);
    /// # Ok(())
    /// # }
    /// ```
    /// # Errors
    /// See [`Client::call`].
    pub fn download(&self, sample: Sha256) -> Result<Reply<Download>, Error> {
        self.open(&GetDownload::new(sample))
    }

    /// Downloads the archive of a finished multi-download as a stream. No cost is documented.
    /// See [`GetSamples`].
    ///
    /// If the body is interrupted, reading it returns an error. [`Client::save`] retries instead.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn samples(&self, id: &RequestId) -> Result<Reply<Download>, Error> {
        self.open(&GetSamples::new(id.clone()))
    }

    /// Calls an operation whose reply is a JSON document. See the operation for its cost.
    ///
    /// # Errors
    /// Returns [`Error::Flow`] if the request is not valid, or if the call fails after the retries
    /// that the operation and the [`RetryPolicy`] allow. For a hunt or a multi-download, see also
    /// [`Client::check_quota`].
    pub fn call<O: JsonOperation>(&self, operation: &O) -> Result<JsonReply<O>, Error> {
        self.call_with(operation, &mut ())
    }

    fn call_with<O: JsonOperation>(
        &self,
        operation: &O,
        observer: &mut dyn Observer,
    ) -> Result<JsonReply<O>, Error> {
        let ends = self.ends(self.timeout);
        self.guard(operation, operation.cost(), ends)?;
        self.call_until(ends, operation, observer)
    }

    fn call_until<O: JsonOperation>(
        &self,
        ends: Option<Timestamp>,
        operation: &O,
        observer: &mut dyn Observer,
    ) -> Result<JsonReply<O>, Error> {
        let mut flow = CallFlow::new(operation, self.retry, self.seed());
        flow.set_deadline(ends);
        Ok(self.drive(&mut flow, observer)?.0)
    }

    /// Calls an operation whose reply is a file. The body is checked as it is read. See the
    /// operation for its cost.
    ///
    /// # Errors
    /// See [`Client::call`]. If the body is interrupted or fails a check, reading the [`Download`]
    /// returns an error.
    pub fn open<O: StreamOperation>(&self, operation: &O) -> Result<Reply<Download>, Error> {
        self.open_in(&mut self.download_flow(operation))
    }

    fn download_flow<'a, O: StreamOperation>(&self, operation: &'a O) -> DownloadFlow<'a, O> {
        let mut flow = DownloadFlow::new(operation, self.retry, self.seed());
        flow.set_deadline(self.ends(self.timeout));
        flow
    }

    fn open_in<O: StreamOperation>(
        &self,
        flow: &mut DownloadFlow<'_, O>,
    ) -> Result<Reply<Download>, Error> {
        let (reply, payload) = self.drive(flow, &mut ())?;
        let body = match payload {
            Payload::Stream(body) => body,
            Payload::Bytes(bytes) => bytes.into(),
        };
        let needles = self.auth().needles().clone();
        Ok(reply.map(|check| Download::new(body, check, needles)))
    }

    /// Returns a handle to a job that was submitted earlier. Sends nothing.
    pub fn attach(&self, id: RequestId) -> Job {
        self.handle(id, None)
    }

    /// Returns the state of a new job for [`Client::run_job`]. Sends nothing. You can store the
    /// state before the job is submitted.
    pub fn job_flow(&self, job: impl Into<Submission>) -> JobFlow {
        JobFlow::new(job, self.retry, self.seed())
    }

    /// Submits a job, unless it has already been submitted, and waits until it is done. Polling
    /// costs no quota.
    ///
    /// The observer is called at every step, including token requests, but not during the
    /// [quota check](Self::check_quota). It can store the flow, so that another process can
    /// continue the job. The flow keeps the [`RetryPolicy`] with which it was created.
    ///
    /// # Errors
    /// Returns [`Error::Flow`] if a call or the job fails, and [`Error::Stopped`] if the observer
    /// stops the run before it ends. If the observer stops the run at [`Step::Send`], the request
    /// is not sent, and the observer is called once more with the final state.
    pub fn run_job(
        &self,
        flow: &mut JobFlow,
        mut observer: impl Observer,
    ) -> Result<JsonReply<GetRequest>, Error> {
        self.run_within(flow, self.timeout, &mut observer)
    }

    fn run_within(
        &self,
        flow: &mut JobFlow,
        timeout: Option<Duration>,
        observer: &mut dyn Observer,
    ) -> Result<JsonReply<GetRequest>, Error> {
        let ends = self.ends(timeout);
        if let Some(submission) = flow.to_submit() {
            let ends = flow.deadline().into_iter().chain(ends).min();
            self.guard_submission(submission, submission.cost(), ends)?;
        }
        self.run_guarded(flow, ends, observer)
    }

    fn run_guarded(
        &self,
        flow: &mut JobFlow,
        ends: Option<Timestamp>,
        observer: &mut dyn Observer,
    ) -> Result<JsonReply<GetRequest>, Error> {
        let own = flow.deadline();
        flow.set_deadline(own.into_iter().chain(ends).min());
        let result = self.drive(flow, observer);
        // This client's limits must not remain in the flow.
        flow.set_deadline(own);
        Ok(result?.0)
    }

    /// Replaces the client secret and recent tokens in `text` with `[redacted]`. Use this before
    /// printing text from the service.
    ///
    /// [`Needles`](crate::needles::Needles) describes which secrets are found.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Searching may take a moment, so do not hold the lock.
        let needles = self.auth().needles().clone();
        needles.mask(text)
    }

    /// Waits for `time`, or fails immediately if the wait would not end before the deadline.
    #[cfg(feature = "samples")]
    fn pause(&self, time: Duration) -> Result<(), Error> {
        let until = self.clock().now().after(time);
        if self.deadline.is_some_and(|deadline| deadline <= until) {
            return Err(FlowError::late(GetSamples::ENDPOINT.id).into());
        }
        self.clock().sleep_until(until);
        Ok(())
    }

    /// Returns the time by which a call that begins now must end, if a timeout or deadline is set.
    fn ends(&self, timeout: Option<Duration>) -> Option<Timestamp> {
        let timeout = timeout.map(|timeout| self.clock().now().after(timeout));
        self.deadline.into_iter().chain(timeout).min()
    }

    fn submit<O>(&self, operation: &O) -> Result<Job, Error>
    where
        O: JsonOperation<Meta = SubmitMeta, Resource = Json>,
    {
        let reply = self.call(operation)?;
        Ok(self.handle(reply.meta.reqid.clone(), Some(reply)))
    }

    fn handle(&self, id: RequestId, submitted: Option<JsonReply<Hunt>>) -> Job {
        let mut flow = JobFlow::attach(id.clone(), self.retry, self.seed());
        if submitted.is_some() {
            flow.set_submitted(self.clock().now());
        }
        Job::new(self.clone(), id, flow, submitted)
    }

    fn guard_submission(
        &self,
        submission: &Submission,
        cost: Cost,
        ends: Option<Timestamp>,
    ) -> Result<(), Error> {
        for_operation!(submission, job => self.guard(job, cost, ends))
    }

    /// Checks the remaining quota before a billed request, if the check is on.
    fn guard<O: Operation>(
        &self,
        operation: &O,
        cost: Cost,
        ends: Option<Timestamp>,
    ) -> Result<(), Error> {
        if !self.check_quota || O::ENDPOINT.resend != Resend::Billed || cost == Cost::default() {
            return Ok(());
        }
        // An invalid request must fail before anything is sent.
        unsigned(operation, &self.base()).map_err(FlowError::from)?;
        let quotas = self.call_until(ends, &GetQuotas, &mut ())?;
        for (what, needed, left) in [
            ("hunts", cost.hunts, quotas.meta.hunts_left()),
            ("downloads", cost.downloads, quotas.meta.downloads_left()),
        ] {
            match left {
                Some(left) if left < needed => {
                    return Err(FlowError::QuotaShort { what, needed, left }.into());
                }
                None if needed > 0 => {
                    let error = quotas.errors.first();
                    let why = error
                        .and_then(|error| error.message.as_deref())
                        .unwrap_or("the service does not report it");
                    let why = self.mask(&excerpt(why.as_bytes(), 500)).into();
                    return Err(FlowError::QuotaUnknown { what, why }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Revokes the token that this client shares with its clones. The next call requests a new
    /// token. Does nothing if there is no token, or if the token was obtained elsewhere. Costs no
    /// quota.
    ///
    /// # Errors
    /// Fails if the token cannot be revoked. The client drops it anyway, and it expires on its own,
    /// usually within 30 minutes.
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
        let (ends, now) = (self.ends(self.timeout), self.clock().now());
        if let Some(ends) = ends {
            if ends <= now {
                return Err(FlowError::late(Revoke::ENDPOINT.id).into());
            }
            request.extensions_mut().insert(TimeLeft(ends.since(now)));
        }
        match self.send(request, Some(MAX_ERROR_BODY), ends) {
            Ok(reply) => {
                revoke
                    .response((&reply).into(), reply.body().bytes())
                    .map_err(FlowError::from)?;
                Ok(())
            }
            Err(cause) => {
                let operation = Revoke::ENDPOINT.id;
                let error = match cause.failure() {
                    SendFailure::CannotSend => FlowError::CannotSend { operation },
                    _ => FlowError::NoReply {
                        operation,
                        attempts: 1,
                    },
                };
                Err(Error::new(error, Some(cause), None))
            }
        }
    }

    /// Returns a seed that is likely to differ between calls and processes. It is not secret.
    fn seed(&self) -> u64 {
        let calls = self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.clock().now().as_millis() ^ calls.rotate_left(32)
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        // The state is still valid after a thread panics, for example while encoding a request.
        self.shared
            .auth
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
