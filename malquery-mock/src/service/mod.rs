//! A stand-in for MalQuery that searches your files, for tests and for a first look without an
//! account.
//!
//! A [`Service`] answers as MalQuery does: tokens, the nine operations, jobs, quotas, rate limits,
//! errors. It searches a [`Corpus`] of your files, and its replies follow the official schemas.
//! [`Service::client`] gives a client on a virtual clock, so a test needs no socket and no time:
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
//! let sha256 = found.resources[0].sha256.unwrap_or_else(|| unreachable!("all fields come"));
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
    doc = r#"[`Server`] serves it over HTTP, to clients in any language:

```
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use malquery_mock::{Corpus, Server, Service};

let service = Service::new(Corpus::from_bytes([b"hello world".to_vec()]));
let server = Server::start(service, (Ipv4Addr::LOCALHOST, 0).into())?;
// Give `server.url()` to a client as its base URL, or speak HTTP with it:
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
//! # What it does as MalQuery does
//!
//! - **Tokens** live for [`token_life`](Service::token_life). Unknown and expired tokens are
//!   refused with a 401, missing [`scopes`](Service::scopes) with a 403. A client that asks another
//!   commercial [`cloud`](Service::cloud) is redirected to the account's cloud.
//! - **Jobs** start at once. The reply to a submission has the status `done`, which is not the
//!   job's. The job reports `inprogress` for [`polls`](Service::polls) polls and for
//!   [`job_time`](Service::job_time), and as long as the search runs.
//! - **Results** come newest first. `total_count` of a job is the number of its results,
//!   `total_count` of a fuzzy search the number of all matches. The other counts cover the results,
//!   and are `unknown_count` if `filter_meta` leaves out `label`.
//! - **Quotas**: a hunt costs a hunt, a download a download, a multi-download one for each sample.
//!   A refused request costs nothing; a job that fails later costs its quota. A request beyond the
//!   quota gets a 429 of MalQuery. The quotas renew on the first day of each month at 00:00 UTC.
//! - **Rate limits**: [`rate_limit`](Service::rate_limit) requests a minute, 300 for the token
//!   endpoint, 15 with bad tokens. A request beyond the limit gets a 429 of the gateway with the
//!   time of the next try.
//! - **Archives** are stored, not compressed, and encrypted with ZipCrypto. Each entry is named by
//!   its SHA-256. The same samples give the same bytes.
//!
//! # What MalQuery does not document
//!
//! Do not rely on the following; MalQuery may do otherwise.
//!
//! - The order of results, and that the counts need `label`, come from recordings.
//! - The fuzzy search finds the same samples as the exact search.
//! - A KB of a file size has 1,024 bytes. A missing label is `unknown`. A size above 2,147,483,647,
//!   which the schema cannot hold, is left out.
//! - `submitted_by_customer` selects the samples that the corpus marks. `app` has no effect.
//!   Options with other names are ignored.
//! - `query_time` is made up: seconds, and for the status of a job milliseconds.
//! - A job can report `pending` before `inprogress`; see [`pending`](Service::pending).
//! - Refusals explain more than MalQuery's, to help the author of a client.
//! - An unknown job is refused with a 400 or, for its archive, a 404. A `limit` of 0 gives the
//!   number of matches in `total_count`, and no results.
//! - Ids and tokens come from the [`seed`](Service::seed) and the order of the requests. They are
//!   not secret, and **the credentials protect nothing**: they only let clients be tried.
//! - A hunt takes one rule that reports, with the private rules that it needs; a text with several
//!   gets a 400. Without the feature `yara`, every hunt does.
//!
//! # Limits
//!
//! At most 4 jobs run at once, and at most 4 requests that search. A submission while 64 jobs are
//! unfinished gets a 429 of the gateway and costs nothing. The last 1,000 jobs are kept. Archives
//! are temporary files without a name, kept as long as their jobs. A search takes at most 100
//! patterns; a rule is at most 64 KiB long. A hunt leaves out files above 256 MiB and files on
//! which the rule runs longer than 60 seconds; `errors` of the reply names them.

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

/// A stand-in for MalQuery over a corpus of your files.
///
/// Clones are the same service: they share tokens, jobs and quotas, also from several threads. Set
/// it up before you clone it: a clone keeps its settings.
///
/// It answers a [`client`](Self::client) of its own, any client as a [`Transport`], over
/// `Server`, or request by request:
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
    /// Set by the first use, if not before.
    clock: Arc<OnceLock<Arc<dyn Clock>>>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// The tokens that were issued, with the end of their life.
    tokens: HashMap<String, Timestamp>,
    jobs: Jobs,
    /// When the quotas renew.
    refresh: Option<Timestamp>,
    requests: Window,
    token_requests: Window,
    bad_tokens: Window,
}

/// The counts of a [`Service`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests of any kind.
    pub requests: u64,
    /// Tokens issued.
    pub tokens: u64,
    /// Hunts of this month.
    pub hunts: u64,
    /// Samples downloaded this month.
    pub downloads: u64,
}

impl Service {
    /// The client id that it accepts unless another is set.
    pub const CLIENT_ID: &'static str = "00000000000000000000000000000001";
    /// The client secret that it accepts unless another is set.
    pub const CLIENT_SECRET: &'static str = "this_is_not_a_secret_of_any_real_account";

    /// A service over these samples. Its account lives in US-1 and has 100 hunts and 50 downloads a
    /// month, both scopes, and 6,000 requests a minute. Tokens live for 1,799 seconds, and a job
    /// reports `inprogress` once.
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

    /// A service over the files of a folder, or over one file.
    ///
    /// # Errors
    /// As [`Corpus::open`].
    pub fn over(folder: impl AsRef<Path>) -> Result<Self, CorpusError> {
        Corpus::open(folder).map(Self::new)
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// The source of request ids, trace ids and tokens; 0 unless set.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|settings| settings.seed = seed)
    }

    /// The API client that gets tokens.
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

    /// The CIDs of the Flight Control children that a client may act for; none unless set.
    pub fn member_cids(self, children: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.set(|settings| settings.children = children.into_iter().map(Into::into).collect())
    }

    /// Whether the API client has the scopes `malquery:read` and `malquery:write`.
    pub fn scopes(self, read: bool, write: bool) -> Self {
        self.set(|settings| (settings.read, settings.write) = (read, write))
    }

    /// The life of a token.
    pub fn token_life(self, life: Duration) -> Self {
        self.set(|settings| settings.token_life = life)
    }

    /// The cloud of the account. It matters to requests that name the host of a [`Cloud`]; at any
    /// other host, such as a loopback address, the account is at home.
    pub fn cloud(self, cloud: Cloud) -> Self {
        self.set(|settings| settings.cloud = cloud)
    }

    /// Hunts a month.
    pub fn hunts(self, limit: u64) -> Self {
        self.set(|settings| settings.hunts = limit)
    }

    /// Downloaded samples a month.
    pub fn downloads(self, limit: u64) -> Self {
        self.set(|settings| settings.downloads = limit)
    }

    /// Requests a minute, counted over the last 60 seconds.
    pub fn rate_limit(self, per_minute: usize) -> Self {
        self.set(|settings| settings.rate_limit = per_minute)
    }

    /// The number of polls for which a job reports `pending`, before `inprogress`; 0 unless set.
    pub fn pending(self, polls: u64) -> Self {
        self.set(|settings| settings.pending = polls)
    }

    /// The number of polls for which a job reports `inprogress`.
    pub fn polls(self, polls: u64) -> Self {
        self.set(|settings| settings.polls = polls)
    }

    /// The shortest time from the submission of a job until it is done; 0 unless set.
    pub fn job_time(self, time: Duration) -> Self {
        self.set(|settings| settings.job_time = time)
    }

    /// Whether the results of a hunt name the rule in `yara_rule`; recorded results do not.
    pub fn name_rules(self, names: bool) -> Self {
        self.set(|settings| settings.names_rules = names)
    }

    /// Which jobs fail: `fails` gets the number of each job, counted from 1. Their quota is spent.
    pub fn fail_jobs(self, fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.fails = Arc::new(fails))
    }

    /// Where a line goes for each request that is answered: method, path, status and, if it is
    /// refused, why. It holds no secret.
    pub fn log(self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.log = Some(Arc::new(log)))
    }

    /// The clock for tokens, quotas, rate limits and jobs. Without one, [`client`](Self::client)
    /// sets a virtual clock and any other use the system's. It is read, never waited for.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        self.set(|settings| settings.clock = Arc::new(OnceLock::from(Arc::new(clock) as Arc<_>)))
    }

    /// A client of this service with its credentials. It waits on the service's clock, a
    /// [`VirtualClock`] unless another is set.
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

    /// The counts up to now.
    pub fn counts(&self) -> Counts {
        match self.settings.clock.get() {
            Some(clock) => self.state(clock.now()).counts,
            None => Counts::default(),
        }
    }

    /// Answers a request. A fuzzy search takes its time before it returns.
    pub fn answer(&self, request: &Request<Vec<u8>>) -> Response<Body> {
        Call::new(self).answer(request)
    }

    /// Refuses bytes that are no request, as the gateway does.
    #[cfg(feature = "server")]
    fn refuse(&self, status: http::StatusCode, message: &str) -> Response<Body> {
        Call::new(self).refuse(status, message)
    }

    fn now(&self) -> Timestamp {
        let clock = &self.settings.clock;
        clock.get_or_init(|| Arc::new(SystemClock)).now()
    }

    /// The state, with the quotas of this month.
    fn state(&self, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.refresh.is_none_or(|refresh| refresh <= now) {
            state.refresh = Some(next_month(now));
            (state.counts.hunts, state.counts.downloads) = (0, 0);
        }
        state
    }

    /// An id of the shape of MalQuery's: like a UUID, but of no version and variant of RFC 4122.
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
    /// Leaves out the credentials.
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
    /// Counts a request and gives how many are left, or when the next one may come.
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

/// When the next month begins, in UTC.
fn next_month(now: Timestamp) -> Timestamp {
    let day = DAY.as_millis() as u64;
    let today = Timestamp::from_millis(now.as_millis() / day * day);
    (1..=31)
        .map(|days| today.after(DAY * days))
        .find(|day| Date::of(*day).day() == 1)
        .unwrap_or(Timestamp::MAX)
}
