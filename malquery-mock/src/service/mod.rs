//! An embedded MalQuery: it searches files you name, for tests and for a first look without an account.
//!
//! A [`Service`] answers as MalQuery does: tokens, the nine operations, jobs, quotas, rate limits, errors. What it
//! finds, it really finds, in a [`Corpus`] of your files. It is a [`Transport`], so that a test needs no
//! socket:
//!
//! ```
//! use std::io::Read;
//!
//! use malquery_mock::{Corpus, Service, VirtualClock};
//! use malquery_proto::flow::Auth;
//! use malquery_proto::operations::ExactSearch;
//! use malquery_proto::types::Pattern;
//! use malquery_proto::{Client, Cloud, Credentials};
//!
//! let corpus = Corpus::from_bytes([b"hello world".to_vec(), b"good night".to_vec()]);
//! let clock = VirtualClock::new();
//! let service = Service::new(corpus).clock(clock.clone()).polls(3).downloads(1);
//!
//! // From here on all is as with the real one.
//! let auth = Auth::new(Cloud::Us1, Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET));
//! let client = Client::new(service.clone(), clock.clone(), auth);
//! let found = client.exact_search(&ExactSearch::new([Pattern::ascii("world")?]))?.wait()?;
//! assert_eq!(found.resources.len(), 1);
//! assert_eq!(clock.waits().len(), 3); // It said `inprogress` three times.
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
    doc = r#"Over HTTP any client can talk to it, in any language. [`Server`](crate::Server) does that:

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
//! - **Tokens** cost nothing and live for [`token_life`](Service::token_life). Unknown and expired ones are refused
//!   with a 401, missing [`scopes`](Service::scopes) with a 403. A client that asks another commercial
//!   [`cloud`](Service::cloud) than the account's is sent there.
//! - **Jobs** begin at once. The reply to a submission says `done` of itself; the job is `inprogress` for
//!   [`polls`](Service::polls) polls and for [`job_time`](Service::job_time), and longer if the search takes longer.
//!   The poll that could be the first to say `done` waits up to 5 seconds for that.
//! - **Quotas**: a hunt costs a hunt, a download a download, a multi-download one for each sample. What is refused
//!   costs nothing, a job that fails later does. Beyond the limit there is a 429 of MalQuery itself. They begin anew
//!   with the month of the clock.
//! - **Rate limits**: [`rate_limit`](Service::rate_limit) requests a minute, 300 for the token endpoint, 15 with bad
//!   tokens. Beyond that a 429 of the gateway says when to try again.
//!
//! # Where it differs, or MalQuery is not known
//!
//! - The fuzzy search finds what the exact search finds. `app` and `submitted_by_customer` change nothing.
//! - A KB of a file size has 1,024 bytes. A label that is not known is `unknown`.
//! - `query_time` is the time that passed on the service's clock: seconds, and for the status of a job nanoseconds.
//! - Messages of refusals say more than the real ones, to help whoever writes a client.
//! - Ids come from the [`seed`](Service::seed) and the order of the requests, and are no secret. **The credentials
//!   protect nothing**: they are there so that clients can be tried.
//! - A hunt needs the feature `yara`; without it, it is a 400 that says so.
//!
//! # Limits
//!
//! At most 4 jobs are worked on at once, and as many requests that search or look a sample up. With 64 jobs that are
//! not finished, a further one is refused with a 429 of the gateway and costs nothing. The last 1,000 jobs are kept.
//! Archives are temporary files without a name, kept as long as their jobs; nothing stays on disk. A search takes at most
//! 100 patterns, and a rule may be 64 KiB long. A job is never given up: a rule that takes its 60 seconds for every file
//! of a large corpus holds one of the four places for as long. So give it to those who mean well.

mod ask;
mod call;
mod corpus;
mod jobs;
#[cfg(feature = "server")]
mod server;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Request, Response};
use malquery_proto::types::Date;
use malquery_proto::{Clock, Cloud, Timestamp, Transport};

use self::call::Call;
pub use self::corpus::{Corpus, CorpusError, CorpusSample, Skipped};
use self::jobs::{Gate, Jobs};
#[cfg(feature = "server")]
pub use self::server::Server;
use crate::digest;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A stand-in for MalQuery over a corpus of your files.
///
/// Clones are the same service: they share tokens, jobs and quotas, also from several threads. Set it up before you
/// clone it: a clone keeps the settings it was made with.
///
/// It answers as a [`Transport`], over [`Server`](crate::Server), or request by request:
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
    polls: u64,
    job_time: Duration,
    fails: Arc<dyn Fn(u64) -> bool + Send + Sync>,
    clock: Arc<dyn Clock + Send + Sync>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// The tokens that were issued, with the end of their life.
    tokens: HashMap<String, Timestamp>,
    jobs: Jobs,
    /// When the quotas begin anew.
    refresh: Option<Timestamp>,
    requests: Window,
    token_requests: Window,
    bad_tokens: Window,
}

/// What a [`Service`] has counted.
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
    /// The client id that it takes unless another is set.
    pub const CLIENT_ID: &'static str = "00000000000000000000000000000001";
    /// The client secret that it takes unless another is set.
    pub const CLIENT_SECRET: &'static str = "this_is_not_a_secret_of_any_real_account";

    /// A service over these samples. Its account lives in US-1, has 100 hunts and 50 downloads a month, both scopes,
    /// and 6,000 requests a minute; tokens live for 1,799 seconds, and a job says `inprogress` once.
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
                polls: 1,
                job_time: Duration::ZERO,
                fails: Arc::new(|_| false),
                clock: Arc::new(SystemClock),
            }),
            jobs: Arc::default(),
            requests: Arc::default(),
            state: Arc::default(),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// What request ids, trace ids and tokens are made from; 0 unless set.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|settings| settings.seed = seed)
    }

    /// The API client it issues tokens to.
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

    /// The Flight Control children a client may act for, by their CID; none unless set.
    pub fn member_cids(self, children: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.set(|settings| settings.children = children.into_iter().map(Into::into).collect())
    }

    /// Whether the API client has the scopes `malquery:read` and `malquery:write`.
    pub fn scopes(self, read: bool, write: bool) -> Self {
        self.set(|settings| (settings.read, settings.write) = (read, write))
    }

    /// How long a token lives.
    pub fn token_life(self, life: Duration) -> Self {
        self.set(|settings| settings.token_life = life)
    }

    /// The cloud the account lives in. It matters to requests that name a host of a [`Cloud`]; at any other host,
    /// such as a loopback address, the account is at home.
    pub fn cloud(self, cloud: Cloud) -> Self {
        self.set(|settings| settings.cloud = cloud)
    }

    /// Hunts a month.
    pub fn hunts(self, limit: u64) -> Self {
        self.set(|settings| settings.hunts = limit)
    }

    /// Samples to download a month.
    pub fn downloads(self, limit: u64) -> Self {
        self.set(|settings| settings.downloads = limit)
    }

    /// Requests a minute, counted over the last 60 seconds.
    pub fn rate_limit(self, per_minute: usize) -> Self {
        self.set(|settings| settings.rate_limit = per_minute)
    }

    /// How many polls of a job find it `inprogress`.
    pub fn polls(self, polls: u64) -> Self {
        self.set(|settings| settings.polls = polls)
    }

    /// How long a job is `inprogress` at least; no time unless set.
    pub fn job_time(self, time: Duration) -> Self {
        self.set(|settings| settings.job_time = time)
    }

    /// Which jobs fail: `fails` is asked with the number of each, counted from 1. Their quota is spent.
    pub fn fail_jobs(self, fails: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.fails = Arc::new(fails))
    }

    /// The clock that tokens, quotas, rate limits and jobs go by: the system's unless set. It is read, never waited
    /// for.
    pub fn clock(self, clock: impl Clock + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.clock = Arc::new(clock))
    }

    /// What was counted until now.
    pub fn counts(&self) -> Counts {
        let now = self.settings.clock.now();
        self.state(now).counts
    }

    /// The reply to a request. Any request has one. A fuzzy search takes its time before it returns.
    pub fn answer(&self, request: &Request<Vec<u8>>) -> Response<ServiceBody> {
        Call::new(self).answer(request)
    }

    /// A reply of the gateway to what is no request that can be answered.
    #[cfg(feature = "server")]
    pub(crate) fn refuse(&self, status: http::StatusCode, message: &str) -> Response<ServiceBody> {
        Call::new(self).refuse(status, message)
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

    /// An id of the shape MalQuery's have: like a UUID, but of no version and variant of RFC 4122.
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
    type Body = ServiceBody;
    type Error = Infallible;

    fn execute(&self, request: Request<Vec<u8>>) -> Result<Response<ServiceBody>, Infallible> {
        Ok(self.answer(&request))
    }
}

/// The body of a reply of a [`Service`]. Its length is the `content-length` of the reply.
pub struct ServiceBody(Box<dyn Read + Send>);

impl Read for ServiceBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl fmt::Debug for ServiceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceBody")
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

/// The clock of the system.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0).after(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        )
    }

    fn sleep_until(&self, time: Timestamp) {
        std::thread::sleep(time.since(self.now()));
    }
}
