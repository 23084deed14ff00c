//! A stand-in for MalQuery that searches your files, for tests and for trying MalQuery without an
//! account.
//!
//! A [`Service`] behaves like MalQuery: it implements tokens, the nine operations, jobs, quotas,
//! rate limits and errors. It searches a [`Corpus`] of your files, and its replies follow the
//! official schemas. [`Service::client`] returns a client on a virtual clock, so a test needs no
//! sockets and never waits:
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
//! assert!(refused.to_string().contains("the monthly quota is used up"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    feature = "server",
    doc = r#"[`Server`] makes it available over HTTP, to clients in any language:

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
//! - **Tokens** expire after [`token_life`](Service::token_life). Unknown and expired tokens are
//!   refused with a 401, and missing [`scopes`](Service::scopes) with a 403. A client that uses
//!   another commercial [`cloud`](Service::cloud) is redirected to the account's cloud.
//! - **Jobs** start at once. The reply to a submission has the status `done`, which is not the
//!   status of the job. The job stays `inprogress` until [`polls`](Service::polls) polls and
//!   [`job_time`](Service::job_time) have passed and the search has finished.
//! - **Results** are sorted, newest first. The `total_count` of a job is the number of its results.
//!   The `total_count` of a fuzzy search is the number of all matches. The other counts cover the
//!   results. If `filter_meta` omits `label`, all results count as `unknown_count`.
//! - **Quotas**: a hunt costs a hunt, a download costs a download, and a multi-download costs a
//!   download per sample. A refused request costs nothing, but a job that fails later costs its
//!   quota. A request that exceeds the quota gets a 429 from MalQuery. The quotas renew on the
//!   first day of each month at 00:00 UTC.
//! - **Rate limits**: [`rate_limit`](Service::rate_limit) requests per minute, 300 for the token
//!   endpoint, and 15 with bad tokens. A request that exceeds the limit gets a 429 from the gateway
//!   with the time at which to retry.
//! - **Archives** are stored, not compressed, and encrypted with ZipCrypto. Each entry is named by
//!   its SHA-256. The same samples produce the same bytes.
//!
//! # What MalQuery does not document
//!
//! Do not rely on the following. MalQuery may behave differently.
//!
//! - Two facts come from recordings: the order of results, and that the counts need `label`.
//! - The fuzzy search finds the same samples as the exact search.
//! - In file sizes, a KB has 1,024 bytes. A missing label is `unknown`. Sizes above 2,147,483,647,
//!   which the schema does not allow, are omitted.
//! - `submitted_by_customer` selects the samples that are marked in the corpus. `app` has no
//!   effect. Unknown options are ignored.
//! - `query_time` is invented. It is in seconds, or in milliseconds for the status of a job.
//! - A job can report `pending` before `inprogress`. See [`pending`](Service::pending).
//! - Error messages explain more than MalQuery's, to help the author of a client.
//! - A request for an unknown job gets a 400 or, for its archive, a 404. With a `limit` of 0, the
//!   reply has the number of matches in `total_count`, and no results.
//! - Ids and tokens depend only on the [`seed`](Service::seed) and the order of the requests. They
//!   are not secret, and **the credentials protect nothing**. They exist only to test clients.
//! - A hunt takes one public rule and the private rules that it needs. A rule file with several
//!   public rules gets a 400. Without the feature `yara`, every hunt gets a 400.
//!
//! # Limits
//!
//! At most 4 jobs and at most 4 searching requests run at once. While 64 jobs are unfinished, a
//! further submission gets a 429 from the gateway and costs nothing. The last 1,000 jobs are kept.
//! Archives are unnamed temporary files that are kept as long as their jobs. A search takes at most
//! 100 patterns, and a rule has at most 64 KiB. A hunt skips files larger than 256 MiB and files on
//! which the rule runs longer than 60 seconds. The reply lists them in `errors`.

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
/// Clones are the same service: they share tokens, jobs and quotas, even across threads. Change
/// settings before you clone it, because a clone keeps its settings.
///
/// Use it through its own [`client`](Self::client), through any client as a [`Transport`], over
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
    jobs: Arc<Gate>,
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
    /// The tokens that were issued, and when they expire.
    tokens: HashMap<String, Timestamp>,
    jobs: Jobs,
    /// When the quotas renew.
    refresh: Option<Timestamp>,
    requests: Window,
    token_requests: Window,
    bad_tokens: Window,
}

/// What a [`Service`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All requests since the start.
    pub requests: u64,
    /// Tokens issued since the start.
    pub tokens: u64,
    /// Hunts this month.
    pub hunts: u64,
    /// Samples downloaded this month.
    pub downloads: u64,
}

impl Service {
    /// The default client id.
    pub const CLIENT_ID: &'static str = "00000000000000000000000000000001";
    /// The default client secret.
    pub const CLIENT_SECRET: &'static str = "this_is_not_a_secret_of_any_real_account";

    /// Creates a service that searches these samples.
    ///
    /// By default its account is in US-1 and has 100 hunts and 50 downloads per month, both scopes,
    /// and 6,000 requests per minute. Tokens expire after 1,799 seconds, and a job reports
    /// `inprogress` once.
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
            jobs: Arc::default(),
            requests: Arc::default(),
            state: Arc::default(),
        }
    }

    /// Creates a service that searches the files in a folder, or a single file.
    ///
    /// # Errors
    /// The same as [`Corpus::open`].
    pub fn over(folder: impl AsRef<Path>) -> Result<Self, CorpusError> {
        Corpus::open(folder).map(Self::new)
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sets the seed that determines request ids, trace ids and tokens. The default is 0.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|settings| settings.seed = seed)
    }

    /// Sets the credentials of the API client. Only these get tokens.
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

    /// Sets the CIDs of the Flight Control children that a client may act for. By default, a client
    /// may act for no child.
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
    /// It matters only to requests whose host belongs to a [`Cloud`]. Any other host, such as a
    /// loopback address, counts as the account's cloud.
    pub fn cloud(self, cloud: Cloud) -> Self {
        self.set(|settings| settings.cloud = cloud)
    }

    /// Sets the number of hunts per month. The default is 100.
    pub fn hunts(self, limit: u64) -> Self {
        self.set(|settings| settings.hunts = limit)
    }

    /// Sets the number of downloaded samples per month. The default is 50.
    pub fn downloads(self, limit: u64) -> Self {
        self.set(|settings| settings.downloads = limit)
    }

    /// Sets the number of requests per minute, counted over the last 60 seconds. The default is
    /// 6,000.
    pub fn rate_limit(self, per_minute: usize) -> Self {
        self.set(|settings| settings.rate_limit = per_minute)
    }

    /// Sets the number of polls for which a job reports `pending`, before `inprogress`. The default
    /// is 0.
    pub fn pending(self, polls: u64) -> Self {
        self.set(|settings| settings.pending = polls)
    }

    /// Sets the number of polls for which a job reports `inprogress`. The default is 1.
    pub fn polls(self, polls: u64) -> Self {
        self.set(|settings| settings.polls = polls)
    }

    /// Sets the minimum time from the submission of a job until it is done. The default is 0.
    pub fn job_time(self, time: Duration) -> Self {
        self.set(|settings| settings.job_time = time)
    }

    /// Sets whether each result of a hunt has the name of the rule in `yara_rule`. The default is
    /// `false`, as in recorded replies.
    pub fn name_rules(self, names: bool) -> Self {
        self.set(|settings| settings.names_rules = names)
    }

    /// Makes jobs fail. `fails` takes the number of a job, counted from 1, and returns whether that
    /// job fails. A failed job still costs its quota.
    pub fn fail_jobs(self, fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.fails = Arc::new(fails))
    }

    /// Calls `log` with one line per request: method, path, status and, for a refused request, the
    /// reason. The line contains no secrets.
    pub fn log(self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.log = Some(Arc::new(log)))
    }

    /// Sets the clock for tokens, quotas, rate limits and jobs. The service only reads it and never
    /// waits.
    ///
    /// By default the first use decides: [`client`](Self::client) sets a virtual clock, and any
    /// other use sets the system clock.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        self.set(|settings| settings.clock = Arc::new(OnceLock::from(Arc::new(clock) as Arc<_>)))
    }

    /// Returns a client of this service, with valid credentials. It waits on the service's clock,
    /// which is a [`VirtualClock`] unless another clock is set.
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

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        match self.settings.clock.get() {
            Some(clock) => self.state(clock.now()).counts,
            None => Counts::default(),
        }
    }

    /// Answers a request. This blocks while a fuzzy search reads the files.
    pub fn answer(&self, request: &Request<Vec<u8>>) -> Response<Body> {
        Call::new(self).answer(request)
    }

    /// Refuses bytes that are not a valid request, as the gateway does.
    #[cfg(feature = "server")]
    fn refuse(&self, status: http::StatusCode, message: &str) -> Response<Body> {
        Call::new(self).refuse(status, message)
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

    /// Returns an id in MalQuery's format, which looks like a UUID but has no version or variant of
    /// RFC 4122.
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

/// The requests of the last minute.
#[derive(Default)]
struct Window(VecDeque<Timestamp>);

impl Window {
    /// Counts a request. Returns how many requests are left, or when the next one is allowed.
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
