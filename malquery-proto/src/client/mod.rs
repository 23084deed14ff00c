//! The blocking client: it drives the flows over a [`Transport`] and a [`Clock`].

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
use crate::flow::{Auth, CallFlow, DownloadFlow, FlowError, JobFlow, RetryPolicy, Submission};
use crate::oauth2::Revoke;
use crate::operation::{
    JsonOperation, JsonReply, MAX_ERROR_BODY, Operation, StreamOperation, unsigned,
};
use crate::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use crate::reply::{Reply, ResponseHead};
use crate::time::Timestamp;
use crate::types::{Json, RequestId, Sample, Sha256, SubmitMeta};

/// A client for MalQuery.
///
/// Clones are cheap and share the token, the rate limit and the connections, also between threads.
/// The settings ([`timeout`](Self::timeout), [`deadline`](Self::deadline), [`retry`](Self::retry),
/// [`check_quota`](Self::check_quota)) belong to one clone alone.
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

/// The state that clones share.
struct Shared {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    auth: Mutex<Auth>,
    calls: AtomicU64,
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

/// The metadata of samples, joined from one or more replies, and the samples that were not found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetadataReply {
    /// The reply. Its `meta` is from the first reply.
    pub reply: JsonReply<GetMetadata>,
    /// The samples that are not in MalQuery.
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

impl IntoIterator for MetadataReply {
    type Item = Sample;
    type IntoIter = std::vec::IntoIter<Sample>;

    fn into_iter(self) -> Self::IntoIter {
        self.reply.into_iter()
    }
}

impl Client {
    /// Creates a client that sends over `transport` with the tokens of `auth`.
    pub fn new(
        transport: impl Transport + 'static,
        clock: impl Clock + 'static,
        auth: Auth,
    ) -> Self {
        Self::over(Arc::new(transport), Arc::new(clock), auth)
    }

    fn over(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, auth: Auth) -> Self {
        let (auth, calls) = (Mutex::new(auth), AtomicU64::new(0));
        Self {
            shared: Arc::new(Shared {
                transport,
                clock,
                auth,
                calls,
            }),
            retry: RetryPolicy::default(),
            deadline: None,
            timeout: None,
            check_quota: false,
        }
    }

    /// Returns a client with the same settings, credentials and connections that acts for a child
    /// of a Flight Control parent. It has its own token.
    ///
    /// Every call of a child fails before anything is sent if this client has a [token from
    /// elsewhere](Auth::with_token), which acts for one customer.
    pub fn child(&self, member_cid: MemberCid) -> Self {
        let auth = self.auth().child(member_cid);
        let Shared {
            transport, clock, ..
        } = &*self.shared;
        Self {
            shared: Self::over(transport.clone(), clock.clone(), auth).shared,
            ..self.clone()
        }
    }

    /// Sets how often and how long calls are retried.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Ends each call this long after it began, with [`FlowError::Deadline`]. The wait for a job
    /// counts as one call; [`Job::timeout`] gives one job more or less time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Ends every call at this time, and afterwards every call at once, with
    /// [`FlowError::Deadline`]. Where a timeout is set as well, the earlier one counts.
    #[must_use]
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets whether to ask for the quotas before every hunt and multi-download. A job that they do
    /// not cover fails with [`FlowError::QuotaShort`] before it is sent, or with
    /// [`FlowError::QuotaUnknown`] if the reply has errors instead of a quota. This takes one more
    /// request, and another client may use the quota in between.
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

    /// Returns the base URL of requests.
    pub fn base(&self) -> BaseUrl {
        self.auth().base().clone()
    }

    /// Returns the monthly quotas and how much of them is used. Costs nothing. See [`GetQuotas`].
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
    pub fn exact_search(&self, search: &ExactSearch) -> Result<Job, Error> {
        self.submit(search)
    }

    /// Starts a hunt, which costs one. See [`Hunt`].
    ///
    /// # Errors
    /// See [`Client::call`]; also [`FlowError::QuotaShort`] with [`Client::check_quota`].
    pub fn hunt(&self, hunt: &Hunt) -> Result<Job, Error> {
        self.submit(hunt)
    }

    /// Returns the status of a job, and its results. Costs nothing. See [`GetRequest`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn request(&self, id: &RequestId) -> Result<JsonReply<GetRequest>, Error> {
        self.call(&GetRequest::new(id.clone()))
    }

    /// Returns the metadata of any number of samples, with one request for about 115 of them. Costs
    /// nothing. The results are in the order of the service; [`MetadataReply::missing`] lists the
    /// samples that are not in MalQuery. See [`GetMetadata`].
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn metadata(
        &self,
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Result<MetadataReply, Error> {
        let samples: Vec<_> = samples.into_iter().map(|sample| *sample.borrow()).collect();
        let mut requests = GetMetadata::split(&samples, &self.base()).into_iter();
        // Without samples a request is still built, for its error.
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
        samples: impl IntoIterator<Item = impl Borrow<Sha256>>,
    ) -> Result<Job, Error> {
        self.submit(&SamplesMultidownload::new(samples))
    }

    /// Downloads a sample, the raw malware, which costs one download. See [`GetDownload`].
    ///
    /// It is retried until the head of a reply arrives. If the bytes break off after that, reading
    /// ends with an error. [`Client::save`] then starts over, with a file that is created before
    /// anything is billed.
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

    /// Fetches the archive of a multi-download that is done. See [`GetSamples`]. If the bytes break
    /// off, reading ends with an error; [`Client::save`] starts over.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn samples(&self, id: &RequestId) -> Result<Reply<Download>, Error> {
        self.open(&GetSamples::new(id.clone()))
    }

    /// Calls an operation that answers with JSON.
    ///
    /// # Errors
    /// [`Error::Flow`], after the attempts that the operation and the [`RetryPolicy`] allow. For a
    /// hunt or a multi-download also the errors of [`Client::check_quota`].
    pub fn call<O: JsonOperation>(&self, operation: &O) -> Result<JsonReply<O>, Error> {
        self.guard(operation, operation.cost())?;
        let mut flow = CallFlow::new(operation, self.retry, self.seed());
        flow.set_deadline(self.ends(self.timeout));
        Ok(self.drive(&mut flow, &mut ())?.0)
    }

    /// Calls an operation that answers with bytes. The body is checked as it is read.
    ///
    /// # Errors
    /// As [`Client::call`]. Errors in the bytes come from reading the [`Download`].
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

    /// Returns the handle of a job that was submitted before.
    pub fn attach(&self, id: RequestId) -> Job {
        self.handle(id, None)
    }

    /// Returns the state of a new job for [`Client::run_job`]. It can be stored before it is
    /// submitted.
    pub fn job_flow(&self, job: impl Into<Submission>) -> JobFlow {
        JobFlow::new(job, self.retry, self.seed())
    }

    /// Submits a job, unless it is submitted already, and waits for its end. Polling costs nothing.
    ///
    /// The observer sees the flow before every request of the job and its token, and after every
    /// reply, but not while the quotas are checked. It can store the flow, so that another process
    /// can continue. A flow keeps the [`RetryPolicy`] it was made with.
    ///
    /// # Errors
    /// [`Error::Flow`]; [`Error::Stopped`] when the observer stopped the run. A request that was
    /// about to be sent is then taken back, and the observer sees the flow once more.
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
        if let Some(submission) = flow.to_submit() {
            self.guard_submission(submission, submission.cost())?;
        }
        self.run_guarded(flow, timeout, observer)
    }

    fn run_guarded(
        &self,
        flow: &mut JobFlow,
        timeout: Option<Duration>,
        observer: &mut dyn Observer,
    ) -> Result<JsonReply<GetRequest>, Error> {
        let own = flow.deadline();
        flow.set_deadline(own.into_iter().chain(self.ends(timeout)).min());
        let result = self.drive(flow, observer);
        // The next client that runs the flow has its own limits.
        flow.set_deadline(own);
        Ok(result?.0)
    }

    /// Returns the text with `[redacted]` in place of the session's secrets, in any encoding: the
    /// client secret and every token. For programs that print what the service sent.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // A search may take a moment, and the other threads need the lock.
        let needles = self.auth().needles().clone();
        needles.mask(text)
    }

    /// Waits, but not beyond the deadline.
    #[cfg(feature = "samples")]
    fn pause(&self, time: Duration) -> Result<(), Error> {
        let until = self.clock().now().after(time);
        match self.deadline.filter(|deadline| *deadline <= until) {
            Some(_) => {
                let operation = GetSamples::ENDPOINT.id;
                Err(FlowError::Deadline {
                    operation,
                    status: None,
                }
                .into())
            }
            None => {
                self.clock().sleep_until(until);
                Ok(())
            }
        }
    }

    /// Returns when a call that begins now must end.
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

    fn guard_submission(&self, submission: &Submission, cost: Cost) -> Result<(), Error> {
        match submission {
            Submission::Hunt(hunt) => self.guard(hunt, cost),
            Submission::ExactSearch(search) => self.guard(search, cost),
            Submission::SamplesMultidownload(download) => self.guard(download, cost),
        }
    }

    /// Refuses a submission that the remaining quota does not cover, if the check is on and the
    /// service reports the quota.
    fn guard<O: Operation>(&self, operation: &O, cost: Cost) -> Result<(), Error> {
        if !self.check_quota || O::ENDPOINT.resend != Resend::Billed || cost == Cost::default() {
            return Ok(());
        }
        // A request that cannot be sent fails before anything is sent.
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
                // The quotas failed. A service that reports no quota at all does not prevent a
                // hunt.
                None if needed > 0 && !quotas.errors.is_empty() => {
                    let why = quotas.errors[0]
                        .message
                        .as_deref()
                        .unwrap_or("it does not say why");
                    let why = self.mask(&excerpt(why.as_bytes(), 500)).into();
                    return Err(FlowError::QuotaUnknown { what, why }.into());
                }
                None if needed > 0 => {
                    log::warn!("the service does not report how many {what} are left")
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Revokes the token, if this client has requested one. The next call requests a new token.
    ///
    /// # Errors
    /// Fails when the token could not be revoked. It is not used any more, and expires by itself.
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
        let ends = self.ends(self.timeout);
        if let Some(ends) = ends {
            request
                .extensions_mut()
                .insert(TimeLeft(ends.since(self.clock().now())));
        }
        match self.send(request, Some(MAX_ERROR_BODY), ends) {
            Ok((head, payload)) => {
                let head = ResponseHead {
                    status: head.status,
                    headers: &head.headers,
                };
                revoke
                    .response(head, payload.bytes())
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

    /// A seed is not secret. It only differs between calls and processes.
    fn seed(&self) -> u64 {
        let calls = self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.clock().now().as_millis() ^ calls.rotate_left(32)
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        // If encoding a request panics, the state is still valid: it is from the last step.
        self.shared
            .auth
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
