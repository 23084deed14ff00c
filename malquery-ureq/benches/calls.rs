//! Whole calls over loopback, quotas and a small fuzzy search: by malquery, against bare ureq with the same settings
//! that sends the same and parses the reply into the same model.
//!
//! ```text
//! cargo bench -p malquery-ureq --bench calls
//! ```
//!
//! Both ask the same server, a process of its own, over one connection each that is kept open, and take turns call by
//! call, so that whatever else the machine does slows down both. `MALQUERY_BENCH_CALLS` is how many calls each makes
//! (20,000 unless set).

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use malquery_proto::BaseUrl;
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::Auth;
use malquery_proto::operation::{JsonOperation, Operation};
use malquery_proto::operations::{FuzzySearch, GetQuotas};
use malquery_proto::types::{Envelope, Pattern};
use malquery_ureq::{Client, SystemClock, UreqTransport};

/// The input buffer of malquery-ureq, and its timeouts.
const INPUT_BUFFER: usize = 512 * 1024;
const CONNECT: Option<Duration> = Some(Duration::from_secs(10));
const REPLY: Option<Duration> = Some(Duration::from_secs(60));
const SEARCH: Option<Duration> = Some(Duration::from_secs(180));
const TOTAL: Option<Duration> = Some(Duration::from_secs(600));

const RESULTS: usize = 10;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        // For a profiler: so many calls of one kind.
        [
            who @ ("malquery" | "bare"),
            what @ ("quotas" | "search"),
            calls,
        ] => {
            let server = Server::start()?;
            let both = Both::new(server.port)?;
            let calls = calls.parse()?;
            match (who, what) {
                ("malquery", "quotas") => both.quotas(calls),
                ("malquery", _) => both.search(calls),
                (_, "quotas") => both.bare_quotas(calls),
                _ => both.bare_search(calls),
            }
        }
        _ if arguments.contains(&"--bench") => compare(),
        // A test run only wants to know that it compiles.
        _ => Ok(()),
    }
}

fn compare() -> Result<()> {
    let calls = match std::env::var("MALQUERY_BENCH_CALLS") {
        Ok(text) => text.parse::<usize>()?.max(4),
        Err(_) => 20_000,
    };
    let server = Server::start()?;
    let both = Both::new(server.port)?;
    println!("{calls} calls each, microseconds a call");
    println!("                        malquery       bare     ratio");
    measure(
        "quotas",
        calls,
        |calls| both.quotas(calls),
        |calls| both.bare_quotas(calls),
    )?;
    measure(
        "fuzzy search",
        calls,
        |calls| both.search(calls),
        |calls| both.bare_search(calls),
    )
}

fn measure(
    what: &str,
    calls: usize,
    with: impl Fn(u32) -> Result<()>,
    without: impl Fn(u32) -> Result<()>,
) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    // The first calls open the connections, and do not count.
    for round in 0..calls + 100 {
        // Who is first in a round may have it easier.
        for turn in [round % 2, (round + 1) % 2] {
            let start = Instant::now();
            if turn == 0 {
                with(1)?
            } else {
                without(1)?
            }
            if round >= 100 {
                times[turn].push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times
        .iter_mut()
        .for_each(|times| times.sort_by(f64::total_cmp));
    let line = |name: &str, pick: fn(&[f64]) -> f64| {
        let [with, without] = [pick(&times[0]), pick(&times[1])];
        println!(
            "{what:<13}{name:<10} {with:>9.2}  {without:>9.2}  {:>8.3}",
            with / without
        );
    };
    line("median", |times| times[times.len() / 2]);
    line("a quarter", |times| times[times.len() / 4]);
    Ok(())
}

// The two.

struct Both {
    client: Client,
    agent: ureq::Agent,
    base: String,
    search: FuzzySearch,
    /// The body of the search, as malquery sends it.
    body: Vec<u8>,
}

type Document<O> = Envelope<<O as JsonOperation>::Meta, <O as JsonOperation>::Resource>;

impl Both {
    fn new(port: u16) -> Result<Self> {
        let base: BaseUrl = format!("http://127.0.0.1:{port}").parse()?;
        let token = BearerToken::new("a-token")?;
        let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
        let body = search.request(&base, &token)?.into_body();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("malquery-ureq/0.1.0")
            .timeout_resolve(CONNECT)
            .timeout_connect(CONNECT)
            .timeout_per_write(REPLY)
            .input_buffer_size(INPUT_BUFFER)
            .build()
            .into();
        Ok(Self {
            base: base.to_string(),
            client: Client::new(
                UreqTransport::builder().no_proxy().build()?,
                SystemClock,
                Auth::with_token(base, token),
            ),
            agent,
            search,
            body,
        })
    }

    fn quotas(&self, calls: u32) -> Result<()> {
        for _ in 0..calls {
            let reply = self.client.quotas()?;
            assert_eq!(reply.meta.hunt_limit, Some(100));
        }
        Ok(())
    }

    fn bare_quotas(&self, calls: u32) -> Result<()> {
        let url = format!("{}{}", self.base, GetQuotas::ENDPOINT.path);
        for _ in 0..calls {
            let reply = self
                .agent
                .get(&url)
                .header("accept", "application/json")
                .header("accept-encoding", "gzip")
                .header("authorization", "Bearer a-token")
                .config()
                .timeout_global(TOTAL)
                .timeout_recv_response(REPLY)
                .timeout_per_read(REPLY)
                .build()
                .call()?;
            let read: Document<GetQuotas> = read(reply)?;
            assert_eq!(read.meta.hunt_limit, Some(100));
        }
        Ok(())
    }

    fn search(&self, calls: u32) -> Result<()> {
        for _ in 0..calls {
            let reply = self.client.fuzzy_search(&self.search)?;
            assert_eq!(reply.resources.len(), RESULTS);
        }
        Ok(())
    }

    fn bare_search(&self, calls: u32) -> Result<()> {
        let url = format!("{}{}", self.base, FuzzySearch::ENDPOINT.path);
        for _ in 0..calls {
            let reply = self
                .agent
                .post(&url)
                .header("accept", "application/json")
                .header("content-type", "application/json")
                .header("accept-encoding", "gzip")
                .header("authorization", "Bearer a-token")
                .config()
                .timeout_global(TOTAL)
                .timeout_recv_response(SEARCH)
                .timeout_per_read(SEARCH)
                .build()
                .send(&self.body[..])?;
            let read: Document<FuzzySearch> = read(reply)?;
            assert_eq!(read.resources.len(), RESULTS);
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(reply: http::Response<ureq::Body>) -> Result<T> {
    let mut body = Vec::new();
    reply.into_body().into_reader().read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

// The server.

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut server = Self { child, port: 0 };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        server.port = line.trim().parse()?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers whatever is asked over a connection, a thread for each.
fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let (quotas, search) = (reply(&quotas()), reply(&search()));
    std::thread::scope(|scope| {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                continue;
            };
            // Who goes away early is not the server's trouble.
            scope.spawn(|| answer(stream, &quotas, &search).unwrap_or_default());
        }
    })
}

fn reply(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-cs-traceid: a-trace-id\r\n\
                x-ratelimit-limit: 6000\r\nx-ratelimit-remaining: 5999\r\n";
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

fn quotas() -> String {
    r#"{"meta":{"hunt_count":3,"hunt_limit":100,"download_count":49,"download_limit":50,"monitor_count":0,"monitor_limit":10,"days_left":12,"refresh_time":"2026-12-01T00:00:00Z","hunt_counts":[{"userid":"an-id","counter":3}],"download_counts":[{"userid":"an-id","counter":49}]},"errors":[]}"#.into()
}

fn search() -> String {
    let result = |number: usize| {
        format!(
            r#"{{"sha256":"{number:064x}","sha1":"{number:040x}","md5":"{number:032x}","filesize":{number},"filetype":"PE32","first_seen":"2020/06/09","label":"malware","family":"Emotet"}}"#
        )
    };
    let results: Vec<_> = (0..RESULTS).map(result).collect();
    let meta = r#"{"query_time":0.5,"powered_by":"malquery-api","trace_id":"t","status":"done","stats":{"total_count":12345}}"#;
    format!(
        r#"{{"meta":{meta},"resources":[{}],"errors":[]}}"#,
        results.join(",")
    )
}

fn answer(stream: TcpStream, quotas: &[u8], search: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut is_get, mut length) = (false, 0);
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.trim_end().to_ascii_lowercase();
            is_get |= lower.starts_with("get ");
            if let Some(number) = lower.strip_prefix("content-length: ") {
                length = number.parse().map_err(io::Error::other)?;
            }
            if lower.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        stream
            .get_mut()
            .write_all(if is_get { quotas } else { search })?;
    }
}
