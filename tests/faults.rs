//! Each operation with each fault, over real sockets: the outcome of the call, and the number of
//! requests.
//!
//! The expected outcomes are the two snapshots. [`Cell::check`] checks rules that hold for all
//! cases.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use malquery_proto::client::Error;
use malquery_proto::endpoint::Resend;
use malquery_proto::error::ResponseError;
use malquery_proto::flow::{Auth, FlowError, RetryPolicy};
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::types::{JobStatus, Label, Pattern, Sha256};
use malquery_proto::{BaseUrl, Credentials};
use malquery_test_support::{Server, peek_request};
use malquery_ureq::{Client, SystemClock, UreqTransport};

/// Far longer than a call takes, even on a slow machine.
const NO_HANG: Duration = Duration::from_secs(40);
/// The timeout if the service is silent. Other cases have a longer one, so that a slow machine does
/// not look like a silent service.
const SILENCE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 40;

const POLICY: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    first_delay: Duration::from_millis(5),
    max_delay: Duration::from_millis(20),
    max_rate_limit_wait: Duration::from_secs(10),
    time_limit: Duration::from_secs(120),
};

const SECRET: &str = "p4ssw0rd";
const SAMPLE: &[u8] = b"hello";
const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
/// An empty zip archive, the smallest one.
const ARCHIVE: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const SUBMITTED: &str =
    r#"{"meta": {"reqid": "job-1", "status": "done", "query_time": 0.1}, "resources": []}"#;

// Operations.

struct Call {
    name: &'static str,
    id: &'static str,
    line: String,
    billed: bool,
    /// The body of a successful reply.
    body: &'static [u8],
    /// Makes the call, reads the whole reply and checks its content.
    run: fn(&Client) -> Result<(), Error>,
}

fn call<O: Operation>(
    name: &'static str,
    body: &'static [u8],
    run: fn(&Client) -> Result<(), Error>,
) -> Arc<Call> {
    let meta = O::ENDPOINT;
    let line = format!("{} {}", meta.method, meta.path);
    Arc::new(Call {
        name,
        id: meta.id,
        line,
        billed: meta.resend == Resend::Billed,
        body,
        run,
    })
}

fn calls() -> Vec<Arc<Call>> {
    fn pattern() -> [Pattern; 1] {
        [Pattern::ascii("a").unwrap()]
    }
    fn sample() -> Sha256 {
        SHA256.parse().unwrap()
    }
    let found = br#"{"meta": {}, "resources": [{"label": "malware", "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}]}"#;
    vec![
        call::<GetQuotas>(
            "quotas",
            br#"{"meta": {"hunt_limit": 100}, "errors": []}"#,
            |client| {
                assert_eq!(client.quotas()?.meta.hunt_limit, Some(100));
                Ok(())
            },
        ),
        call::<FuzzySearch>("fuzzy_search", found, |client| {
            let reply = client.fuzzy_search(&FuzzySearch::new(pattern()))?;
            assert_eq!(reply.resources[0].label, Some(Label::Malware));
            Ok(())
        }),
        call::<GetMetadata>("metadata", found, |client| {
            let reply = client.metadata([sample()])?;
            assert_eq!((reply.missing.len(), reply.resources.len()), (0, 1));
            Ok(())
        }),
        call::<GetRequest>(
            "request",
            br#"{"meta": {"reqid": "job-1", "status": "done"}, "resources": []}"#,
            |client| {
                let reply = client.request(&"job-1".parse().unwrap())?;
                assert_eq!(reply.meta.status, Some(JobStatus::Done));
                Ok(())
            },
        ),
        call::<GetDownload>("download", SAMPLE, |client| {
            let mut bytes = Vec::new();
            client
                .download(sample())?
                .output
                .read_to_end(&mut bytes)
                .map_err(Error::of_download)?;
            assert_eq!(bytes, SAMPLE);
            Ok(())
        }),
        call::<GetSamples>("samples", ARCHIVE, |client| {
            let mut bytes = Vec::new();
            client
                .samples(&"job-1".parse().unwrap())?
                .output
                .read_to_end(&mut bytes)
                .map_err(Error::of_download)?;
            assert_eq!(bytes, ARCHIVE);
            Ok(())
        }),
        call::<ExactSearch>("exact_search", SUBMITTED.as_bytes(), |client| {
            assert_eq!(
                client
                    .exact_search(&ExactSearch::new(pattern()))?
                    .id()
                    .as_str(),
                "job-1"
            );
            Ok(())
        }),
        call::<Hunt>("hunt", SUBMITTED.as_bytes(), |client| {
            assert_eq!(
                client
                    .hunt(&Hunt::new("rule a { condition: true }"))?
                    .id()
                    .as_str(),
                "job-1"
            );
            Ok(())
        }),
        call::<SamplesMultidownload>("samples_multidownload", SUBMITTED.as_bytes(), |client| {
            assert_eq!(
                client.samples_multidownload([sample()])?.id().as_str(),
                "job-1"
            );
            Ok(())
        }),
    ]
}

// Faults.

/// What the service does with a request.
enum Act {
    Well,
    /// Resets the connection after it has received the whole request.
    Reset,
    Silence,
    /// Sends half of the body and closes the connection.
    Cut,
    /// Sends half of the body and then nothing more.
    Stall,
    Answer {
        status: &'static str,
        headers: String,
        body: &'static str,
    },
}

struct Fault {
    name: &'static str,
    /// Whether nothing listens. If so, the other fields have no effect.
    refused: bool,
    /// Whether the call waits for a silent service.
    silent: bool,
    /// Returns what to do with a request to the faulty endpoint. Requests are counted from 1.
    act: fn(&Asked, usize) -> Act,
}

/// The parts of a request that a fault may use.
struct Asked {
    port: u16,
    path: String,
    /// The time in milliseconds since the epoch.
    at: u64,
}

const GATEWAY_429: &str = r#"{"meta": {"powered_by": "crowdstrike-api-gateway"}, "errors": [{"code": 429, "message": "API rate limit exceeded."}]}"#;
const QUOTA_429: &str = r#"{"meta": {"powered_by": "malquery-api", "reqid": ""}, "resources": []}"#;

fn answer(status: &'static str, body: &'static str) -> Act {
    Act::Answer {
        status,
        headers: String::new(),
        body,
    }
}

fn error(status: &'static str) -> Act {
    answer(
        status,
        r#"{"meta": {"trace_id": "t-1"}, "errors": [{"code": 1, "message": "said so"}]}"#,
    )
}

fn limit(header: &str, value: u64) -> Act {
    let headers = format!("{header}: {value}\r\n");
    Act::Answer {
        status: "429 Too Many Requests",
        headers,
        body: GATEWAY_429,
    }
}

fn redirect(to: &str) -> Act {
    let headers = format!("location: {to}\r\nx-cs-region: us-2\r\n");
    Act::Answer {
        status: "308 Permanent Redirect",
        headers,
        body: "",
    }
}

/// Acts on the first request only.
fn once(n: usize, act: Act) -> Act {
    if n == 1 { act } else { Act::Well }
}

/// Returns a time one to two seconds later, in whole seconds.
fn seconds_ahead(now: u64) -> u64 {
    now / 1000 + 2
}

fn millis_ahead(now: u64) -> u64 {
    now + 1200
}

fn faults() -> Vec<Fault> {
    const SERVER: &str = "500 Internal Server Error";
    let on_socket = |name, act| Fault {
        name,
        refused: false,
        silent: false,
        act,
    };
    let silent = |name, act| Fault {
        silent: true,
        ..on_socket(name, act)
    };
    vec![
        on_socket("none", |_, _| Act::Well),
        Fault {
            refused: true,
            ..on_socket("refused", |_, _| Act::Well)
        },
        on_socket("reset before the head, once", |_, n| once(n, Act::Reset)),
        on_socket("reset before the head, always", |_, _| Act::Reset),
        silent("no head, always", |_, _| Act::Silence),
        on_socket("cut body, once", |_, n| once(n, Act::Cut)),
        on_socket("cut body, always", |_, _| Act::Cut),
        silent("stalled body, once", |_, n| once(n, Act::Stall)),
        silent("stalled body, always", |_, _| Act::Stall),
        on_socket("401 once", |_, n| once(n, error("401 Unauthorized"))),
        on_socket("401 always", |_, _| error("401 Unauthorized")),
        on_socket("403", |_, _| error("403 Forbidden")),
        on_socket("404", |_, _| error("404 Not Found")),
        on_socket("429 once, with seconds", |asked, n| {
            once(n, limit("x-ratelimit-retryafter", seconds_ahead(asked.at)))
        }),
        on_socket("429 once, with milliseconds", |asked, n| {
            once(n, limit("X-RateLimit-RetryAfter", millis_ahead(asked.at)))
        }),
        on_socket("429 once, with retry-after", |_, n| {
            once(n, limit("retry-after", 1))
        }),
        on_socket("429 once, with nothing", |_, n| {
            once(n, answer("429 Too Many Requests", GATEWAY_429))
        }),
        on_socket("429 always, with nothing", |_, _| {
            answer("429 Too Many Requests", GATEWAY_429)
        }),
        on_socket("429 with an hour", |asked, _| {
            limit("x-ratelimit-retryafter", asked.at / 1000 + 3600)
        }),
        on_socket("quota 429", |_, _| {
            answer("429 Too Many Requests", QUOTA_429)
        }),
        on_socket(
            "500 twice",
            |_, n| if n <= 2 { error(SERVER) } else { Act::Well },
        ),
        on_socket("500 always", |_, _| error(SERVER)),
        on_socket("502 HTML, always", |_, _| {
            answer(
                "502 Bad Gateway",
                "<html>\r\n<title>502 Bad Gateway</title>\r\n</html>",
            )
        }),
        on_socket("308 to a host of CrowdStrike", |asked, _| {
            redirect(&format!("https://api.us-2.crowdstrike.com{}", asked.path))
        }),
        on_socket("308 to a foreign host", |asked, _| {
            redirect(&format!(
                "https://api.us-2.crowdstrike.com.evil.example{}",
                asked.path
            ))
        }),
        on_socket("308 to another name of this machine", |asked, _| {
            redirect(&format!("http://localhost:{}{}", asked.port, asked.path))
        }),
    ]
}

// The service.

#[derive(Clone, Copy, PartialEq)]
enum Endpoint {
    Data,
    Token,
}

/// The requests to the service, and to the proxy, which is the same server.
#[derive(Default)]
struct Log {
    /// The time of each request in milliseconds since the epoch, and its token.
    data: Vec<(u64, String)>,
    token: Vec<u64>,
    /// Requests that belong elsewhere, or that should not have been sent.
    elsewhere: Vec<String>,
}

struct Running {
    server: Server,
    log: Arc<Mutex<Log>>,
}

impl Running {
    fn start(call: &Arc<Call>, fault: &Arc<Fault>, faulty: Endpoint) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let service = Service {
            faulty,
            call: Arc::clone(call),
            fault: Arc::clone(fault),
            log: Arc::clone(&log),
        };
        let serve = move |stream| service.serve(stream);
        let server = match (fault.refused, faulty) {
            (false, _) => Server::raw(serve),
            // After the token request, nothing listens.
            (true, Endpoint::Data) => Server::once(serve),
            (true, Endpoint::Token) => Server::none(),
        };
        Self { server, log }
    }
}

/// The handler of a connection.
struct Service {
    faulty: Endpoint,
    call: Arc<Call>,
    fault: Arc<Fault>,
    log: Arc<Mutex<Log>>,
}

impl Service {
    fn serve(&self, mut stream: TcpStream) {
        let port = stream.local_addr().unwrap().port();
        while let Some((head, length)) = peek_request(&stream) {
            let (act, status, body) = self.judge(port, &head);
            if let Act::Reset = act {
                // The system resets the connection, because the request is unread.
                return;
            }
            stream.read_exact(&mut vec![0; length]).unwrap();
            let (status, headers, body) = match &act {
                Act::Silence => return wait_for_end(stream),
                Act::Answer {
                    status,
                    headers,
                    body,
                } => (*status, headers.clone(), body.as_bytes().to_vec()),
                _ if self.fault.refused => (status, "connection: close\r\n".into(), body),
                _ => (status, String::new(), body),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
                body.len()
            );
            let sent = if let Act::Cut | Act::Stall = act {
                body.len() / 2
            } else {
                body.len()
            };
            let _ = stream.write_all(&[head.as_bytes(), &body[..sent]].concat());
            match act {
                Act::Cut => return,
                Act::Stall => return wait_for_end(stream),
                _ if self.fault.refused => return,
                _ => {}
            }
        }
    }

    /// Records a request. Returns what to do with it, and the status and the body of a normal
    /// reply.
    fn judge(&self, port: u16, head: &str) -> (Act, &'static str, Vec<u8>) {
        let at = now();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
        let (method, target) = line.split_once(' ').unwrap();
        let here = header(head, "host") == Some(&format!("127.0.0.1:{port}"));
        let asked = Asked {
            port,
            path: target.into(),
            at,
        };
        let log = &mut *self.log.lock().unwrap();
        let act = |endpoint, count| {
            if self.faulty == endpoint {
                (self.fault.act)(&asked, count)
            } else {
                Act::Well
            }
        };
        let path = target.split('?').next().unwrap();
        if here && line == "POST /oauth2/token" {
            log.token.push(at);
            let count = log.token.len();
            let body = format!(r#"{{"access_token": "token-{count}", "expires_in": 1799}}"#);
            (
                act(Endpoint::Token, count),
                "201 Created",
                body.into_bytes(),
            )
        } else if here && format!("{method} {path}") == self.call.line {
            log.data
                .push((at, header(head, "authorization").unwrap_or_default().into()));
            (
                act(Endpoint::Data, log.data.len()),
                "200 OK",
                self.call.body.to_vec(),
            )
        } else {
            let secrets = header(head, "authorization").is_some() || head.contains("token-");
            log.elsewhere.push(format!(
                "{line}{}",
                if secrets { " with a secret" } else { "" }
            ));
            (Act::Well, "502 Bad Gateway", Vec::new())
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Sends nothing until the client closes.
fn wait_for_end(mut stream: TcpStream) {
    let _ = stream.read(&mut [0]);
}

fn now() -> u64 {
    u64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}

// A call and a fault.

struct Cell {
    row: usize,
    call: Arc<Call>,
    fault: Arc<Fault>,
    faulty: Endpoint,
    /// The server, if it has already started.
    server: Option<Running>,
}

impl Cell {
    fn serve(&self) -> Running {
        Running::start(&self.call, &self.fault, self.faulty)
    }

    /// Makes the call and returns its outcome as one line.
    fn run(mut self) -> String {
        let Running { server, log } = self.server.take().unwrap_or_else(|| self.serve());
        let limit = if self.fault.silent { SILENCE } else { NO_HANG };
        let transport = UreqTransport::builder()
            // Requests to loopback do not use the proxy, and no others may leave the machine.
            .proxy(server.url(""))
            .connect_timeout(NO_HANG)
            .reply_timeout(limit)
            .search_timeout(limit)
            .build()
            .unwrap();
        let base: BaseUrl = server.url("").parse().unwrap();
        let auth = Auth::new(base, Credentials::new("an-id", SECRET));
        let client = Client::new(transport, SystemClock, auth).retry(POLICY);
        let start = Instant::now();
        let result = (self.call.run)(&client);
        let took = start.elapsed();
        let log = log.lock().unwrap();
        self.check(&result, took, &log);
        let mut line = format!(
            "{}; requests: {} data, {} token",
            self.outcome(&result),
            log.data.len(),
            log.token.len()
        );
        for asked in &log.elsewhere {
            line += &format!(", {asked}");
        }
        line
    }

    fn outcome(&self, result: &Result<(), Error>) -> String {
        let error = match result {
            Ok(()) => return "ok".into(),
            Err(error) => error,
        };
        let what = |operation: &str| {
            if operation == self.call.id {
                "reply"
            } else {
                assert_eq!(operation, "oauth2AccessToken");
                "token"
            }
        };
        let said = match error {
            Error::Flow {
                error:
                    FlowError::NoReply {
                        operation,
                        attempts,
                    },
                cause,
                ..
            } => {
                assert!(cause.is_some());
                format!("no {} in {attempts} attempts", what(operation))
            }
            Error::Flow {
                error:
                    FlowError::OutcomeUnknown {
                        operation, reply, ..
                    },
                cause,
                ..
            } => {
                // The outcome is unknown because of a reply, or because there was none.
                assert_eq!(
                    (*operation, reply.is_some()),
                    (self.call.id, cause.is_none())
                );
                match reply {
                    Some(reply) => format!(
                        "unsure, after {:?} {}",
                        reply.kind(),
                        reply.status().as_str()
                    ),
                    None => "unsure".into(),
                }
            }
            Error::Flow {
                error: FlowError::Response(ResponseError::Api(api)),
                ..
            } => {
                format!("{:?} {}", api.kind(), api.status().as_str())
            }
            Error::Body(error) => format!("the body: {error}"),
            error => format!("{error}"),
        };
        said + if error.is_retryable() {
            ", may be tried again"
        } else {
            ""
        }
    }

    /// Checks the rules that hold for all cases.
    fn check(&self, result: &Result<(), Error>, took: Duration, log: &Log) {
        let (call, fault) = (self.call.name, self.fault.name);
        let context = format!("{call}, {fault}: {result:?}");
        assert!(took < NO_HANG, "{context} took {took:?}");
        if let Err(error) = result {
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains(SECRET) && !shown.contains("token-"),
                "{context}"
            );
            assert!(!error.to_string().contains('\n'), "{context}");
        }
        // A billed request that may have arrived is not sent again.
        if self.call.billed && self.faulty == Endpoint::Data {
            let lost = ["reset", "no head", "cut", "stalled", "500", "502"];
            if lost.iter().any(|start| fault.starts_with(start)) {
                assert_eq!(log.data.len(), 1, "{context}");
                let unsure = matches!(
                    result,
                    Err(Error::Flow {
                        error: FlowError::OutcomeUnknown { .. },
                        ..
                    })
                );
                assert!(unsure, "{context}");
            }
        }
        // A token is used until it is refused, and then replaced.
        let refused = fault.starts_with("401") && self.faulty == Endpoint::Data;
        for (number, (_, authorization)) in log.data.iter().enumerate() {
            let expected = if refused {
                format!("token-{}", number + 1)
            } else {
                "token-".into()
            };
            assert!(
                authorization.starts_with(&format!("Bearer {expected}")),
                "{context}: {authorization}"
            );
        }
        // Only a redirect of the token endpoint is followed, and only to a host of CrowdStrike.
        let follows = self.faulty == Endpoint::Token && fault == "308 to a host of CrowdStrike";
        assert_eq!(
            !log.elsewhere.is_empty(),
            follows,
            "{context}: {:?}",
            log.elsewhere
        );
        // The client waits as long as the service asks.
        let times: Vec<u64> = match self.faulty {
            Endpoint::Data => log.data.iter().map(|(at, _)| *at).collect(),
            Endpoint::Token => log.token.clone(),
        };
        let hint: Option<fn(u64) -> u64> = match fault {
            "429 once, with seconds" => Some(|at| 1000 * seconds_ahead(at)),
            "429 once, with milliseconds" => Some(millis_ahead),
            "429 once, with retry-after" => Some(|at| at + 1000),
            _ => None,
        };
        if let Some(hint) = hint {
            assert_eq!(times.len(), 2, "{context}");
            assert!(times[1] >= hint(times[0]), "{context}: {times:?}");
        }
    }
}

/// Runs the calls concurrently, and returns the row and the outcome of each.
fn run(mut cells: Vec<Cell>) -> Vec<(usize, String)> {
    let count = cells.len();
    // Start the slow calls first.
    cells.sort_by_key(|cell| !cell.fault.silent);
    let queue = Arc::new(Mutex::new(VecDeque::from(cells)));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..AT_ONCE.min(count) {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        thread::spawn(move || {
            loop {
                let Some(cell) = queue.lock().unwrap().pop_front() else {
                    return;
                };
                sender.send((cell.row, cell.run())).unwrap();
            }
        });
    }
    drop(sender);
    let next = |_| receiver.recv_timeout(2 * NO_HANG);
    let lines: Result<_, _> = (0..count).map(next).collect();
    lines.expect("a call hangs, or panicked: see above")
}

/// Returns the outcomes of each fault. `lines` has them in the order of the faults and the calls.
fn table(faults: &[Arc<Fault>], calls: &[Arc<Call>], lines: &mut VecDeque<String>) -> String {
    let mut text = String::new();
    for fault in faults {
        // Operations with the same outcome share a line.
        let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
        for (call, line) in calls.iter().zip(lines.drain(..calls.len())) {
            match outcomes.iter_mut().find(|(other, _)| *other == line) {
                Some((_, names)) => names.push(call.name),
                None => outcomes.push((line, vec![call.name])),
            }
        }
        text += &format!("{}\n", fault.name);
        for (line, names) in outcomes {
            text += &format!("    {}\n        {line}\n", names.join(" "));
        }
    }
    text
}

/// Includes the faults of the token endpoint, because most cases only wait.
#[test]
fn faults_of_the_operations() {
    let faults: Vec<_> = faults().into_iter().map(Arc::new).collect();
    let all = calls();
    // If a billed request was not sent, the outcome is known.
    let few = all
        .iter()
        .filter(|call| ["quotas", "hunt"].contains(&call.name));
    let few: Vec<_> = few.cloned().collect();
    let mut cells = Vec::new();
    for (faulty, calls) in [(Endpoint::Data, &all), (Endpoint::Token, &few)] {
        for (fault, call) in faults
            .iter()
            .flat_map(|fault| calls.iter().map(move |call| (fault, call)))
        {
            cells.push(Cell {
                row: cells.len(),
                call: Arc::clone(call),
                fault: Arc::clone(fault),
                faulty,
                server: None,
            });
        }
    }
    // A port on which nothing listens must not be reused by another server. Therefore these cases
    // run first, and get their ports before any of them releases its own.
    let (mut refused, others): (Vec<_>, Vec<_>) =
        cells.into_iter().partition(|cell| cell.fault.refused);
    for cell in &mut refused {
        cell.server = Some(cell.serve());
    }
    let mut lines = [run(refused), run(others)].concat();
    lines.sort();
    let mut lines = lines.into_iter().map(|(_, line)| line).collect();
    insta::assert_snapshot!("data", table(&faults, &all, &mut lines));
    insta::assert_snapshot!("token", table(&faults, &few, &mut lines));
}
