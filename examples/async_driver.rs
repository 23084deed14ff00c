//! malquery in an async program: the flows of `malquery-proto`, driven with tokio and reqwest.
//!
//! `Session::run` is like the loop of the blocking client, with `.await` in two places. The program
//! submits an exact search for the patterns in its arguments, such as `ascii:CrowdStrike`, and
//! prints the SHA-256 hashes of the results. At the same time, it requests the quotas. The
//! `FALCON_*` environment variables are the same as for the quickstart.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use malquery_proto::client::Settings;
use malquery_proto::flow::{
    Attempt, CallFlow, Flow, FlowError, JobFlow, RetryPolicy, SendFailure, Step,
};
use malquery_proto::operation::MAX_ERROR_BODY;
use malquery_proto::operations::{ExactSearch, GetQuotas};
use malquery_proto::reply::ResponseHead;
use malquery_proto::types::Pattern;
use malquery_proto::{Auth, Timestamp};

/// The state that all calls share.
struct Session {
    http: reqwest::Client,
    auth: Mutex<Auth>,
}

/// A reply with its body in memory.
type Response = http::Response<Vec<u8>>;

impl Session {
    fn new(auth: Auth) -> Result<Self, reqwest::Error> {
        // malquery decides which redirects to follow, so that credentials go only to allowed hosts.
        // Connections are not reused, because the service may close an idle connection just as a
        // hunt is sent. It is then unknown whether the hunt arrived.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            http,
            auth: Mutex::new(auth),
        })
    }

    /// Runs a flow to completion. Never holds the lock across an `.await`.
    async fn run<F: Flow>(&self, flow: &mut F) -> Result<F::Output, FlowError> {
        loop {
            let step = flow.poll(now(), &mut self.auth())?;
            let Attempt {
                request,
                ticket,
                max_body,
                deadline,
                ..
            } = match step {
                Step::Wait(time) => {
                    tokio::time::sleep(time.since(now())).await;
                    continue;
                }
                Step::Send(attempt) => *attempt,
            };
            let left = deadline.map_or(Duration::from_secs(600), |deadline| deadline.since(now()));
            let result = tokio::time::timeout(left, self.send(request, max_body)).await;
            match result.unwrap_or(Err(SendFailure::Unknown)) {
                Ok(reply) => {
                    let head = ResponseHead::from(&reply);
                    if ticket.is_token() {
                        flow.on_token(now(), &mut self.auth(), ticket, head, reply.body())?;
                        continue;
                    }
                    let reply = flow.read(head, reply.body());
                    if let Some(output) = flow.take(now(), &mut self.auth(), ticket, reply)? {
                        return Ok(output);
                    }
                }
                Err(why) => flow.on_failure(now(), &mut self.auth(), ticket, why)?,
            }
        }
    }

    /// Sends a request and reads the reply. Stops reading once the body exceeds the maximum size.
    async fn send(
        &self,
        request: http::Request<Vec<u8>>,
        max_body: Option<u64>,
    ) -> Result<Response, SendFailure> {
        let request = reqwest::Request::try_from(request).map_err(|_| SendFailure::CannotSend)?;
        let failure = |error: reqwest::Error| {
            eprintln!("{error}");
            if error.is_connect() {
                SendFailure::NotSent
            } else {
                SendFailure::Unknown
            }
        };
        let mut reply = self.http.execute(request).await.map_err(failure)?;
        let most = if reply.status().is_success() {
            max_body
        } else {
            Some(MAX_ERROR_BODY)
        };
        let mut response = http::Response::new(Vec::new());
        *response.status_mut() = reply.status();
        *response.headers_mut() = reply.headers().clone();
        let body = response.body_mut();
        while let Some(chunk) = reply.chunk().await.map_err(failure)? {
            body.extend_from_slice(&chunk);
            if most.is_some_and(|most| body.len() as u64 > most) {
                break;
            }
        }
        Ok(response)
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Returns a random seed, so that concurrent flows do not retry at the same time.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

async fn run(patterns: Vec<Pattern>) -> Result<(), Box<dyn Error>> {
    let Settings { base, credentials } = Settings::from_env()?;
    let session = Session::new(Auth::new(base, credentials))?;

    let mut job = JobFlow::new(ExactSearch::new(patterns), RetryPolicy::default(), seed());
    job.set_interval(Duration::from_secs(2));
    let mut quotas = CallFlow::new(&GetQuotas, RetryPolicy::default(), seed());
    let (quotas, found) = tokio::join!(session.run(&mut quotas), session.run(&mut job));
    if let (Err(_), Some(id)) = (&found, job.id()) {
        eprintln!("the request id of the job is {id}");
    }
    if let Some(downloads) = quotas?.meta.downloads_left() {
        println!("{downloads} downloads are left this month");
    }
    for sample in &found?.resources {
        if let Some(sha256) = sample.sha256 {
            println!("{sha256}");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let patterns: Vec<Pattern> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    if patterns.is_empty() {
        eprintln!("usage: async_driver TYPE:VALUE..., such as ascii:CrowdStrike");
        std::process::exit(2);
    }
    // reqwest is built without a crypto provider, so the program installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let run = async {
        // The future is `Send`, so it can also be spawned on a multi-threaded runtime.
        fn is_send<T: Send>(future: T) -> T {
            future
        }
        is_send(run(patterns)).await
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run)
}
