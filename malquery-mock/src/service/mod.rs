//! A stand-in for MalQuery that searches your files, for tests and for trying MalQuery without an
//! account.
//!
//! A [`Service`] behaves like MalQuery: it implements tokens, the nine operations, jobs, quotas,
//! rate limits and errors. It searches a [`Corpus`], and its replies follow the official schemas.
//! [`Service::client`] returns a client that needs no sockets. By default, that client waits on a
//! virtual clock, so a test does not pause between polls:
//!
//! ```
//! use std::io::Read;
//!
//! use malquery_mock::{Corpus, Service};
//! use malquery_proto::operations::ExactSearch;
//! use malquery_proto::types::Pattern;
//!
//! let service = Service::new(Corpus::from_bytes([b"hello world".to_vec(), b"good night".to_vec()])).downloads(1);
//! let client = service.client();
//!
//! let found = client.exact_search(&ExactSearch::new([Pattern::ascii("world")?]))?.wait()?;
//! assert_eq!(found.resources.len(), 1);
//!
//! let sha256 = found.resources[0].sha256.unwrap_or_else(|| unreachable!("the stand-in returns every field"));
//! let mut bytes = Vec::new();
//! client.download(sha256)?.output.read_to_end(&mut bytes)?;
//! assert_eq!(bytes, b"hello world");
//! assert_eq!(service.counts().downloads, 1);
//!
//! let refused = client.download(sha256).unwrap_err();
//! assert!(refused.to_string().contains("the monthly quota is exhausted"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    feature = "server",
    doc = r#"[`Server`] makes a service available over HTTP, to clients in any language:

```
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use malquery_mock::{Corpus, Server, Service};

let service = Service::new(Corpus::from_bytes([b"hello world".to_vec()]));
let server = Server::start(service, (Ipv4Addr::LOCALHOST, 0).into())?;
// Pass `server.url()` to a client as its base URL, or speak HTTP directly:
let mut stream = TcpStream::connect(server.address())?;
write!(stream, "GET /malquery/aggregates/quotas/v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
let mut reply = String::new();
stream.read_to_string(&mut reply)?;
assert!(reply.starts_with("HTTP/1.1 401 Unauthorized\r\n"));
assert!(reply.contains("access denied, invalid bearer token"));
# Ok::<(), std::io::Error>(())
```
"#
)]
//!
//! # How it resembles MalQuery
//!
//! - **Tokens** expire after [`token_life`](Service::token_life). An operation needs a valid token
//!   (otherwise 401) and the required [scope](Service::scopes) (otherwise 403). A token request
//!   with valid credentials that is sent to the wrong cloud is redirected to the account's
//!   [`cloud`](Service::cloud), if both clouds are commercial.
//! - **Jobs**: the reply to a submission has the status `done`, which is not the status of the job.
//!   The job is `inprogress` for at least [`polls`](Service::polls) polls, and until
//!   [`job_time`](Service::job_time) has passed and its work is finished.
//! - **Results** are sorted by `first_seen`, newest first. The `total_count` of a job is the number
//!   of its results, unless its `limit` is 0. The `total_count` of a fuzzy search is the total
//!   number of matches. The counts by label cover the results. If `filter_meta` has fields but not
//!   `label`, all results count as unknown.
//! - **Quotas**: a hunt costs one hunt, a download costs one download, and a multi-download costs
//!   one download per sample. A refused request costs nothing. A failed job costs the same as a
//!   successful one. A request that exceeds a quota gets a 429 from MalQuery, not from the gateway.
//!   The quotas renew on the first day of each month at 00:00 UTC.
//! - **Rate limits** per minute: [`rate_limit`](Service::rate_limit) requests with a valid token,
//!   15 with an invalid token, and 300 to the token endpoints. A request that exceeds a limit gets
//!   a 429 from the gateway, with the time at which to retry.
//! - **Archives** are zip files with the password `infected` (ZipCrypto). Their entries are not
//!   compressed and are named by SHA-256.
//!
//! # What MalQuery does not document
//!
//! Do not rely on the following. MalQuery may behave differently.
//!
//! - The order of results, and the counts of results without `label`, match recorded replies.
//! - A fuzzy search finds the same samples as an exact search without filters.
//! - In size filters, a KB is 1,024 bytes, and KiB, MiB and GiB are refused. A missing label is
//!   reported as `unknown`. A `filesize` above 2,147,483,647 bytes, which the schema does not
//!   allow, is omitted.
//! - `submitted_by_customer: true` selects the samples that the corpus marks as submitted by the
//!   customer. `app` does not affect the results. Unknown options are ignored.
//! - `query_time` is invented. In the status of a job, it is in milliseconds and includes the time
//!   since the submission. Elsewhere, it is in seconds.
//! - A job can report `pending` before `inprogress`. See [`pending`](Service::pending).
//! - Messages about invalid input are more detailed than MalQuery's.
//! - A poll of an unknown job gets a 400. A request for a missing or unfinished archive gets a 404.
//!   A search or hunt with a `limit` of 0 reports the number of matches in `total_count`, and
//!   returns no results.
//! - Ids and tokens are derived from the [`seed`](Service::seed) and counters. They are
//!   predictable, and **the credentials protect nothing**: they exist only to test clients.
//! - A hunt with several public rules that are neither global nor used by other rules gets a 400.
//!   Without the feature `yara`, all hunts get a 400.
//!
//! # Limits
//!
//! At most 4 jobs run at once, and at most 4 requests search the corpus at once. While 64 jobs are
//! unfinished, a further submission gets a 429 from the gateway and costs nothing. The last 1,000
//! jobs are kept. Archives are temporary files that are kept as long as their jobs. A search
//! accepts at most 100 patterns. A hunt skips samples that are larger than 256 MiB or on which the
//! rule runs longer than 60 seconds. The status of the job lists up to 10 skipped samples in
//! `errors`.

mod archive;
mod ask;
mod call;
mod corpus;
mod jobs;
mod operations;
mod reply;
#[cfg(feature = "server")]
mod server;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use malquery_proto::flow::Auth;
use malquery_proto::types::Date;
use malquery_proto::{
    Body, Client, Clock, Cloud, Credentials, SystemClock, Timestamp, Transport, TransportError,
};

use self::call::Call;
pub use self::corpus::{Corpus, CorpusError, CorpusSample, Skipped};
use self::jobs::{Gate, Jobs};
#[cfg(feature = "server")]
pub use self::server::Server;
use crate::clock::VirtualClock;
use crate::digest;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A stand-in for MalQuery that searches a corpus of your files.
///
/// Clones share tokens, jobs and counts. Change the settings before you clone a service, because a
/// later change affects only one clone.
///
/// Use a service through its own [`client`](Self::client), as the [`Transport`] of any client, over
/// HTTP with `Server`, or request by request:
///
/// ```
/// use malquery_mock::{Corpus, Service};
///
/// let service = Service::new(Corpus::from_bytes([b"hello world".to_vec()]));
/// let response = service.answer(&http::Request::new(Vec::new()));
/// assert_eq!(response.status(), 404);
/// ```
#[derive(Clone)]
pub struct Service {
    corpus: Corpus,
    settings: Arc<Settings>,
    requests: Arc<Gate>,
    state: Arc<Mutex<State>>,
}

type Log = dyn Fn(&str) + Send + Sync;

#[derive(Clone)]
struct Settings {
    seed: u64,
    client_id: String,
    client_secret: String,
    children: Vec<String>,
    read: bool,
    write: bool,
    token_life: Duration,
    cloud: Cloud,
    hunts: u64,
    downloads: u64,
    rate_limit: usize,
    pending: u64,
    polls: u64,
    job_time: Duration,
    names_rules: bool,
    fails: Arc<dyn Fn(u64) -> bool + Send + Sync>,
    log: Option<Arc<Log>>,
    /// Set on first use, unless the user set it.
    clock: Arc<OnceLock<Arc<dyn Clock>>>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// The tokens, and the times at which they expire.
    tokens: HashMap<String, Timestamp>,
    jobs: Jobs,
    /// The time at which the quotas renew.
    refresh: Option<Timestamp>,
    requests: Window,
    token_requests: Window,
    bad_tokens: Window,
}

/// The request, token, hunt and download counts of a [`Service`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The number of requests so far, including refused ones.
    pub requests: u64,
    /// The number of tokens issued so far.
    pub tokens: u64,
    /// The number of hunts charged to the quota this month.
    pub hunts: u64,
    /// The number of sample downloads charged to the quota this month.
    pub downloads: u64,
}

impl Service {
    /// The default client id.
    pub const CLIENT_ID: &'static str = "00000000000000000000000000000001";
    /// The default client secret.
    pub const CLIENT_SECRET: &'static str = "this_is_not_a_secret_of_any_real_account";

    /// Creates a service that searches a corpus.
    ///
    /// By default, its account is in US-1 and may use 100 hunts and 50 downloads per month. Its API
    /// client has the scopes `malquery:read` and `malquery:write`, and may send 6,000 requests per
    /// minute. Tokens expire after 1,799 seconds, and a job reports `inprogress` at least once.
    pub fn new(corpus: Corpus) -> Self {
        Self {
            corpus,
            settings: Arc::new(Settings {
                seed: 0,
                client_id: Self::CLIENT_ID.into(),
                client_secret: Self::CLIENT_SECRET.into(),
                children: Vec::new(),
                read: true,
                write: true,
                token_life: Duration::from_secs(1799),
                cloud: Cloud::Us1,
                hunts: 100,
                downloads: 50,
                rate_limit: 6000,
                pending: 0,
                polls: 1,
                job_time: Duration::ZERO,
                names_rules: false,
                fails: Arc::new(|_| false),
                log: None,
                clock: Arc::default(),
            }),
            requests: Arc::default(),
            state: Arc::default(),
        }
    }

    /// Creates a service that searches the files in a folder, or a single file.
    ///
    /// # Errors
    /// Returns any error from [`Corpus::open`].
    pub fn over(folder: impl AsRef<Path>) -> Result<Self, CorpusError> {
        Corpus::open(folder).map(Self::new)
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sets the seed for request ids, trace ids and tokens. The default is 0.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|settings| settings.seed = seed)
    }

    /// Sets the credentials of the API client. Token requests with other credentials fail.
    pub fn credentials(
        self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
    ) -> Self {
        self.set(|settings| {
            settings.client_id = client_id.into();
            settings.client_secret = client_secret.into();
        })
    }

    /// Sets the CIDs of the Flight Control children that the client may act for. The default is an
    /// empty list.
    pub fn member_cids(self, children: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.set(|settings| settings.children = children.into_iter().map(Into::into).collect())
    }

    /// Sets whether the API client has the scopes `malquery:read` and `malquery:write`. It has both
    /// by default.
    pub fn scopes(self, read: bool, write: bool) -> Self {
        self.set(|settings| (settings.read, settings.write) = (read, write))
    }

    /// Sets the time after which a token expires. The default is 1,799 seconds.
    pub fn token_life(self, life: Duration) -> Self {
        self.set(|settings| settings.token_life = life)
    }

    /// Sets the cloud of the account. The default is US-1.
    ///
    /// A host that belongs to no [`Cloud`], such as a loopback address, counts as a host of the
    /// account's cloud.
    pub fn cloud(self, cloud: Cloud) -> Self {
        self.set(|settings| settings.cloud = cloud)
    }

    /// Sets the monthly quota of hunts. The default is 100.
    pub fn hunts(self, limit: u64) -> Self {
        self.set(|settings| settings.hunts = limit)
    }

    /// Sets the monthly quota of downloaded samples. The default is 50.
    pub fn downloads(self, limit: u64) -> Self {
        self.set(|settings| settings.downloads = limit)
    }

    /// Sets the maximum number of requests with a valid token in any 60-second period. The default
    /// is 6,000.
    pub fn rate_limit(self, per_minute: usize) -> Self {
        self.set(|settings| settings.rate_limit = per_minute)
    }

    /// Sets the number of polls for which a job reports `pending` before it reports `inprogress`.
    /// The default is 0.
    pub fn pending(self, polls: u64) -> Self {
        self.set(|settings| settings.pending = polls)
    }

    /// Sets the minimum number of polls for which a job reports `inprogress`. The default is 1.
    pub fn polls(self, polls: u64) -> Self {
        self.set(|settings| settings.polls = polls)
    }

    /// Sets the minimum time from the submission of a job to its end. The default is 0.
    pub fn job_time(self, time: Duration) -> Self {
        self.set(|settings| settings.job_time = time)
    }

    /// Sets whether the field `yara_rule` of each hunt result contains the name of the rule. The
    /// default is `false`, which matches recorded replies.
    pub fn name_rules(self, names: bool) -> Self {
        self.set(|settings| settings.names_rules = names)
    }

    /// Sets which jobs fail. `fails` takes the number of a job, counted from 1, and returns whether
    /// that job fails. A failed job costs the same as a successful one.
    pub fn fail_jobs(self, fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.fails = Arc::new(fails))
    }

    /// Sets a function that logs requests. The function gets one line for each request that
    /// [`answer`](Self::answer) handles: the method, the path, the status and, for a refused
    /// request, the reason. The line can include the query of an operation, but not the
    /// `Authorization` header or the client secret of a token request.
    pub fn log(self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.log = Some(Arc::new(log)))
    }

    /// Sets the clock for tokens, quotas, rate limits and jobs. Only the [`client`](Self::client)
    /// waits on it.
    ///
    /// By default, the first call decides: [`client`](Self::client) sets a virtual clock, and
    /// [`answer`](Self::answer) sets the system clock.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        self.set(|settings| settings.clock = Arc::new(OnceLock::from(Arc::new(clock) as Arc<_>)))
    }

    /// Returns a client for this service, with valid credentials. It waits on the service's clock,
    /// which is a [`VirtualClock`] unless another clock is already set.
    pub fn client(&self) -> Client {
        let Settings {
            client_id,
            client_secret,
            cloud,
            clock,
            ..
        } = &*self.settings;
        let clock = clock.get_or_init(|| Arc::new(VirtualClock::new()));
        let credentials = Credentials::new(client_id, client_secret);
        Client::new(self.clone(), clock.clone(), Auth::new(*cloud, credentials))
    }

    /// Returns the request, token, hunt and download counts.
    pub fn counts(&self) -> Counts {
        match self.settings.clock.get() {
            Some(clock) => self.state(clock.now()).counts,
            None => Counts::default(),
        }
    }

    /// Answers a request. Blocks while the service reads files or waits for a job to finish.
    pub fn answer(&self, request: &Request<Vec<u8>>) -> Response<Body> {
        Call::new(self).answer(request)
    }

    fn now(&self) -> Timestamp {
        let clock = &self.settings.clock;
        clock.get_or_init(|| Arc::new(SystemClock)).now()
    }

    /// Locks the state, and renews the quotas if a new month has begun.
    fn state(&self, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.refresh.is_none_or(|refresh| refresh <= now) {
            state.refresh = Some(next_month(now));
            (state.counts.hunts, state.counts.downloads) = (0, 0);
        }
        state
    }

    /// Returns an id that looks like a UUID, as MalQuery's ids do.
    fn id(&self, what: &str, number: u64) -> String {
        let mut id = digest::sha256(format!("{} {what} {number}", self.settings.seed).as_bytes());
        id.truncate(32);
        id.replace_range(12..13, "6");
        id.replace_range(16..17, "5");
        for at in [20, 16, 12, 8] {
            id.insert(at, '-');
        }
        id
    }
}

impl fmt::Debug for Service {
    /// Omits the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({} samples)", self.corpus.len())
    }
}

impl Transport for Service {
    fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, TransportError> {
        Ok(self.answer(&request))
    }
}

/// The times of recent requests that count against a rate limit.
#[derive(Default)]
struct Window(VecDeque<Timestamp>);

impl Window {
    /// Counts a request if the limit allows it, and returns the number of requests left. If the
    /// limit is reached, returns the time at which to retry.
    fn take(&mut self, now: Timestamp, limit: usize) -> Result<usize, Timestamp> {
        while self.0.front().is_some_and(|time| time.after(MINUTE) <= now) {
            self.0.pop_front();
        }
        if self.0.len() >= limit {
            return Err(self.0.front().copied().unwrap_or(now).after(MINUTE));
        }
        self.0.push_back(now);
        Ok(limit - self.0.len())
    }
}

/// Returns the start of the next month, in UTC.
fn next_month(now: Timestamp) -> Timestamp {
    let day = DAY.as_millis() as u64;
    let today = Timestamp::from_millis(now.as_millis() / day * day);
    (1..=31)
        .map(|days| today.after(DAY * days))
        .find(|day| Date::of(*day).day() == 1)
        .unwrap_or(Timestamp::MAX)
}
