//! Threads that share a client: they use one token, one refusal and one rate limit.
//!
//! The service is in memory and uses the time of the machine. The clock keeps the time that each
//! thread read last, and the service judges each request by that time. Therefore it does not matter
//! if the machine delays a thread between the two.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use malquery_proto::client::Error;
use malquery_proto::flow::RetryPolicy;
use malquery_proto::{Auth, Client, Clock, Cloud, Credentials, Timestamp, Transport};

use crate::fake::fake;

const THREADS: usize = 16;
/// Far longer than a test waits for anything.
const NO_HANG: Duration = Duration::from_secs(40);

/// The life of a token in milliseconds, and the age at which it is renewed, after three quarters of
/// its life.
const LIFE: u64 = 50;
const RENEW: u64 = 37;

thread_local! {
    /// The time that this thread read last, which is when its request was made.
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// The machine's clock, unless a test sets the time.
struct TestClock {
    start: Instant,
    /// The threads that have waited since the last wave.
    waiting: Mutex<HashSet<ThreadId>>,
    changed: Condvar,
}

impl TestClock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn millis(&self) -> u64 {
        1_700_000_000_000 + u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    /// Waits until this many threads wait.
    fn until_waiting(&self, count: usize) {
        let waiting = self.waiting.lock().unwrap();
        let few = |waiting: &mut HashSet<ThreadId>| waiting.len() < count;
        let (mut waiting, timeout) = self
            .changed
            .wait_timeout_while(waiting, NO_HANG, few)
            .unwrap();
        assert!(!timeout.timed_out(), "only {} threads wait", waiting.len());
        waiting.clear();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let now = self.millis();
        MADE.set(now);
        Timestamp::from_millis(now)
    }

    fn sleep_until(&self, time: Timestamp) {
        self.waiting.lock().unwrap().insert(thread::current().id());
        self.changed.notify_all();
        while let Some(left) = time
            .as_millis()
            .checked_sub(self.millis())
            .filter(|left| *left > 0)
        {
            thread::sleep(Duration::from_millis(left));
        }
    }
}

/// The reply of a service.
struct Answer {
    status: u16,
    header: Option<(&'static str, String)>,
    body: String,
}

fn answer(status: u16, body: impl Into<String>) -> Answer {
    Answer {
        status,
        header: None,
        body: body.into(),
    }
}

fn issue(number: usize) -> Answer {
    answer(
        201,
        format!(r#"{{"access_token": "{number}", "expires_in": 0.05}}"#),
    )
}

/// Returns a transport for a service. A request without a token is a token request.
fn transport(service: impl Fn(Option<usize>) -> Answer + Send + Sync + 'static) -> impl Transport {
    fake(move |request| {
        let bearer = request.headers().get("authorization");
        let bearer = bearer.map(|value| value.to_str().unwrap());
        assert_eq!(bearer.is_none(), request.uri().path() == "/oauth2/token");
        let token = bearer.map(|bearer| bearer.strip_prefix("Bearer ").unwrap().parse().unwrap());
        let Answer {
            status,
            header,
            body,
        } = service(token);
        let mut response = http::Response::builder().status(status);
        if let Some((name, value)) = header {
            response = response.header(name, value);
        }
        Ok(response.body(body.into_bytes().into()).unwrap())
    })
}

const QUOTAS: &str = r#"{"meta": {"hunt_limit": 100}, "errors": []}"#;

/// Leaks a value, because a client needs values that live as long as the program.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn client<F>(service: F, clock: &'static TestClock) -> Client
where
    F: Fn(Option<usize>) -> Answer + Send + Sync + 'static,
{
    let policy = RetryPolicy {
        max_attempts: 3,
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
        max_rate_limit_wait: Duration::from_secs(10),
        time_limit: NO_HANG,
    };
    let auth = Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
    Client::new(transport(service), clock, auth).retry(policy)
}

/// Runs a function in all threads at once, and returns the results.
fn in_threads<R: Send>(run: impl Fn() -> R + Sync) -> Vec<R> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    run()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

// Tokens that live 50 ms.

#[derive(Default)]
struct Tokens {
    issued: Vec<Issued>,
    asking: bool,
    calls: usize,
    refused: usize,
    complaints: Vec<String>,
}

struct Issued {
    /// The time at which it was requested.
    asked: u64,
    /// The time of its first use. Its life begins then, so that it cannot expire before it arrives.
    used: Option<u64>,
    uses: usize,
    /// The number of uses after it was due for renewal. One is allowed, if the token arrived that
    /// late.
    late: usize,
    refused: bool,
}

impl Tokens {
    /// Records a token request. The previous token must need a renewal.
    fn ask(&mut self, made: u64) {
        if std::mem::replace(&mut self.asking, true) {
            self.complaints
                .push("two requests for a token at once".into());
        }
        let number = self.issued.len();
        if let Some(last) = self.issued.last() {
            let age = made.saturating_sub(last.asked);
            if !last.refused && age < RENEW {
                self.complaints.push(format!(
                    "token {number} was asked for when the last was {age} ms old"
                ));
            }
        }
    }

    fn issue(&mut self, made: u64) -> Answer {
        self.asking = false;
        self.issued.push(Issued {
            asked: made,
            used: None,
            uses: 0,
            late: 0,
            refused: false,
        });
        issue(self.issued.len() - 1)
    }

    fn call(&mut self, made: u64, number: usize) -> Answer {
        let token = &mut self.issued[number];
        token.uses += 1;
        token.late += usize::from(made >= token.asked + RENEW);
        if token.late > 1 {
            self.complaints
                .push(format!("token {number} was not renewed in time"));
        }
        if made >= *token.used.get_or_insert(made) + LIFE {
            self.complaints
                .push(format!("token {number} was used when it had expired"));
            token.refused = true;
        }
        // Some tokens are revoked early.
        if number % 10 == 3 && token.uses > 5 {
            token.refused = true;
        }
        if token.refused {
            self.refused += 1;
            return answer(
                401,
                r#"{"errors": [{"code": 401, "message": "access denied, invalid bearer token"}]}"#,
            );
        }
        self.calls += 1;
        answer(200, QUOTAS)
    }
}

#[test]
fn tokens_that_live_50_ms() {
    let calls = std::env::var("MALQUERY_TOKEN_CALLS").map_or(200, |calls| calls.parse().unwrap());
    let clock = leak(TestClock::new());
    let tokens = leak(Mutex::new(Tokens::default()));
    let service = move |token: Option<usize>| {
        let made = MADE.get();
        let answer = match token {
            None => {
                lock(tokens).ask(made);
                thread::sleep(Duration::from_millis(1));
                lock(tokens).issue(made)
            }
            Some(number) => lock(tokens).call(made, number),
        };
        // The delays lead to many tokens, and to requests in progress in all threads. Some threads
        // see a refusal after a new token has arrived.
        let late = if answer.status == 401 {
            5 * (lock(tokens).refused % 4)
        } else {
            0
        };
        thread::sleep(Duration::from_millis(1 + late as u64));
        answer
    };
    let client = client(service, clock);
    in_threads(|| {
        for _ in 0..calls {
            assert_eq!(client.quotas().unwrap().meta.hunt_limit, Some(100));
        }
    });

    let tokens = lock(tokens);
    assert_eq!(tokens.complaints, [""; 0]);
    assert_eq!(tokens.calls, THREADS * calls);
    // Each token except the last was replaced once, and for a reason.
    let (last, replaced) = tokens.issued.split_last().unwrap();
    let end = clock.millis();
    assert!(last.uses > 0);
    assert!(
        replaced
            .iter()
            .all(|token| token.refused || end - token.asked >= RENEW)
    );
    // A thread makes at most one call per millisecond, and uses a token until it is 37 ms old.
    assert!(replaced.len() >= calls / 40, "{}", replaced.len());
    // When a token is revoked, all threads may have a request in progress.
    let revoked = replaced.iter().filter(|token| token.refused).count();
    assert!(
        revoked > 0 && (revoked..=revoked * THREADS).contains(&tokens.refused),
        "{}",
        tokens.refused
    );
}

/// A thread may read the clock, and be overtaken by another before it checks for a pending token
/// request.
#[test]
fn an_overtaken_thread_requests_no_second_token() {
    /// Holds one thread between the clock and that check, until the other has requested a token.
    struct Overtaken {
        clock: TestClock,
        told: AtomicUsize,
        turn: Mutex<usize>,
        changed: Condvar,
    }

    impl Overtaken {
        fn wait_for(&self, turn: usize, until: Duration) {
            let _ = self
                .changed
                .wait_timeout_while(lock(&self.turn), until, |now| *now < turn)
                .unwrap();
        }

        fn next(&self, turn: usize) {
            *lock(&self.turn) = turn;
            self.changed.notify_all();
        }
    }

    impl Clock for Overtaken {
        fn now(&self) -> Timestamp {
            let now = self.clock.now();
            // The first read of the clock is only for a seed.
            if thread::current().name() == Some("overtaken")
                && self.told.fetch_add(1, Ordering::SeqCst) == 1
            {
                self.next(1);
                // If the client held a lock here, the other thread could not pass.
                self.wait_for(2, Duration::from_secs(1));
            }
            now
        }

        fn sleep_until(&self, time: Timestamp) {
            self.clock.sleep_until(time);
        }
    }

    let clock = leak(Overtaken {
        clock: TestClock::new(),
        told: AtomicUsize::new(0),
        turn: Mutex::new(0),
        changed: Condvar::new(),
    });
    let asked = leak(Mutex::new(0));
    let service = move |token: Option<usize>| match token {
        None => {
            let number = {
                let mut asked = lock(asked);
                *asked += 1;
                *asked
            };
            clock.next(2);
            thread::sleep(Duration::from_millis(100));
            answer(
                201,
                format!(r#"{{"access_token": "{number}", "expires_in": 1799}}"#),
            )
        }
        Some(_) => answer(200, QUOTAS),
    };
    let auth = Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
    let client = Client::new(transport(service), clock, auth);
    thread::scope(|scope| {
        let call = || client.quotas().map(drop).unwrap();
        thread::Builder::new()
            .name("overtaken".into())
            .spawn_scoped(scope, call)
            .unwrap();
        clock.wait_for(1, NO_HANG);
        assert_eq!(*lock(&clock.turn), 1);
        // Let the clock advance.
        thread::sleep(Duration::from_millis(5));
        call();
    });
    assert_eq!(*lock(asked), 1);
}

// Refused tokens.

/// Makes three waves of calls while the token endpoint returns this reply. Returns the errors of
/// each wave and the number of its token requests. In a wave, all threads call, and all of them
/// wait for the token before it is refused.
fn waves(status: u16, header: Option<(&'static str, String)>) -> Vec<(Vec<Error>, usize)> {
    let clock = leak(TestClock::new());
    let asked = leak(Mutex::new(0));
    let service = move |token: Option<usize>| {
        assert_eq!(token, None);
        let first = {
            let mut asked = lock(asked);
            *asked += 1;
            *asked == 1
        };
        if first {
            clock.until_waiting(THREADS - 1);
        }
        let body =
            r#"{"meta": {"trace_id": "t-1"}, "errors": [{"code": 1, "message": "access denied"}]}"#;
        Answer {
            status,
            header: header.clone(),
            body: body.into(),
        }
    };
    let client = client(service, clock);
    (0..3)
        .map(|_| {
            lock(&clock.waiting).clear();
            let errors = in_threads(|| client.quotas().unwrap_err());
            (errors, std::mem::take(&mut *lock(asked)))
        })
        .collect()
}

#[test]
fn a_refused_token_is_requested_once_by_all() {
    for (errors, asked) in waves(403, None) {
        assert_eq!(asked, 1);
        assert_eq!(errors.len(), THREADS);
        for error in errors {
            assert_eq!(error.status().unwrap().as_u16(), 403, "{error:?}");
            assert_eq!(error.trace_id(), Some("t-1"));
        }
    }
}

#[test]
fn all_threads_request_tokens_as_often_as_one() {
    for (errors, asked) in waves(500, None) {
        assert_eq!(asked, 3);
        for error in errors {
            assert_eq!(error.status().unwrap().as_u16(), 500, "{error:?}");
        }
    }
}

// Rate limits.

#[derive(Default)]
struct Limit {
    before: usize,
    during: usize,
    after: HashSet<ThreadId>,
    /// The thread that received the limit, and the time from which all threads know it.
    told: Option<ThreadId>,
    known: Option<u64>,
    until: u64,
}

#[test]
fn a_rate_limit_of_one_holds_all_back() {
    /// Detects when that thread begins to wait for the end of the limit.
    struct Watch<'a> {
        clock: TestClock,
        limit: &'a Mutex<Limit>,
    }

    impl Clock for Watch<'_> {
        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        fn sleep_until(&self, time: Timestamp) {
            {
                let mut limit = lock(self.limit);
                if limit.told == Some(thread::current().id()) && limit.known.is_none() {
                    limit.known = Some(self.clock.millis());
                    assert_eq!(time.as_millis(), limit.until);
                }
            }
            self.clock.sleep_until(time);
        }
    }

    let limit = leak(Mutex::new(Limit::default()));
    let clock = leak(Watch {
        clock: TestClock::new(),
        limit,
    });
    let service = move |token: Option<usize>| {
        let made = MADE.get();
        if token.is_none() {
            return answer(201, r#"{"access_token": "1", "expires_in": 1799}"#);
        }
        thread::sleep(Duration::from_millis(1));
        let mut limit = lock(limit);
        if limit.told.is_none() {
            limit.before += 1;
            if limit.before < 100 {
                return answer(200, QUOTAS);
            }
            limit.told = Some(thread::current().id());
            limit.until = clock.clock.millis() + 1000;
            return Answer {
                status: 429,
                header: Some(("x-ratelimit-retryafter", limit.until.to_string())),
                body: r#"{"meta": {"powered_by": "crowdstrike-api-gateway"}}"#.into(),
            };
        }
        if made >= limit.until {
            limit.after.insert(thread::current().id());
        } else if limit.known.is_some_and(|known| made > known) {
            limit.during += 1;
        }
        answer(200, QUOTAS)
    };
    let auth = Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
    let client = Client::new(transport(service), clock, auth);
    let start = Instant::now();
    in_threads(|| {
        while !lock(limit).after.contains(&thread::current().id()) {
            client.quotas().unwrap();
            assert!(start.elapsed() < NO_HANG);
        }
    });
    let limit = lock(limit);
    assert!(limit.known.is_some());
    assert_eq!((limit.during, limit.after.len()), (0, THREADS));
}
