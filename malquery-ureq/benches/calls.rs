//! Measures whole calls over loopback, for the quotas and for a small fuzzy search: malquery
//! against a default `ureq::Agent` that sends the same request and reads the reply into a
//! `serde_json::Value`.
//!
//! ```text
//! cargo bench -p malquery-ureq --bench calls
//! ```
//!
//! Both use the same server, a separate process, over one open connection each. They alternate call
//! by call, so that other programs slow down both. The server is addressed by name and by IP
//! address. `MALQUERY_BENCH_CALLS` sets the number of calls of each side (default 3,000). CPU time
//! is available only on Linux.
//!
//! `valgrind --tool=callgrind BENCH malquery quotas localhost 3000` runs only malquery. Replace
//! `malquery` by `bare` to run only ureq.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use malquery_proto::BaseUrl;
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::Auth;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{FuzzySearch, GetQuotas};
use malquery_proto::types::Pattern;
use malquery_test_support::{Then, hang};
use malquery_ureq::{Client, SystemClock, UreqTransport};
use serde_json::Value;

const RESULTS: usize = 10;
/// The number of calls that open the connections and are not measured.
const WARM_UP: usize = 100;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        [
            who @ ("malquery" | "bare"),
            what @ ("quotas" | "search"),
            host,
            calls,
        ] => {
            let server = Server::start()?;
            let both = Both::new(host, server.port)?;
            let call = match (who, what) {
                ("malquery", "quotas") => Both::quotas,
                ("malquery", _) => Both::search,
                (_, "quotas") => Both::bare_quotas,
                _ => Both::bare_search,
            };
            (0..calls.parse::<u32>()?).try_for_each(|_| call(&both))
        }
        _ if arguments.contains(&"--bench") => compare(),
        // In a test run, it is enough that this compiles.
        _ => Ok(()),
    }
}

fn compare() -> Result<()> {
    let calls = match std::env::var("MALQUERY_BENCH_CALLS") {
        Ok(text) => text.parse::<usize>()?.max(4),
        Err(_) => 3_000,
    };
    let server = Server::start()?;
    println!("{calls} calls each, microseconds a call");
    println!("                                    malquery       ureq     ratio");
    for host in ["localhost", "127.0.0.1"] {
        let both = Both::new(host, server.port)?;
        let quotas: [Call<'_>; 2] = [&|| both.quotas(), &|| both.bare_quotas()];
        measure(&format!("quotas, {host}"), calls, quotas)?;
        let search: [Call<'_>; 2] = [&|| both.search(), &|| both.bare_search()];
        measure(&format!("search, {host}"), calls, search)?;
    }
    Ok(())
}

type Call<'a> = &'a dyn Fn() -> Result<()>;

fn measure(what: &str, calls: usize, both: [Call<'_>; 2]) -> Result<()> {
    // Reading the CPU time takes CPU time itself.
    let reading = median(
        &mut (0..1_000)
            .map(|_| processor_time_of(|| Ok(())))
            .collect::<Result<Vec<_>>>()?,
    );
    let mut wall = [Vec::new(), Vec::new()];
    let mut processor = [Vec::new(), Vec::new()];
    for round in 0..calls + WARM_UP {
        // The first side in a round may have an advantage, so alternate.
        for turn in [round % 2, (round + 1) % 2] {
            let mut elapsed = Duration::ZERO;
            let busy = processor_time_of(|| {
                let start = Instant::now();
                both[turn]()?;
                elapsed = start.elapsed();
                Ok(())
            })?;
            if round >= WARM_UP {
                wall[turn].push(elapsed);
                processor[turn].push(busy.saturating_sub(reading));
            }
        }
    }
    for (name, [mut with, mut without]) in [("wall", wall), ("processor", processor)] {
        let line = |pick: &str, with: Duration, without: Duration| {
            let [with, without] = [with, without].map(|time| time.as_secs_f64() * 1e6);
            let ratio = with / without;
            println!("{what:<18}{name:<10}{pick:<7} {with:>9.2}  {without:>9.2}  {ratio:>8.3}");
        };
        let mean = |times: &[Duration]| times.iter().sum::<Duration>() / times.len() as u32;
        line("mean", mean(&with), mean(&without));
        line("median", median(&mut with), median(&mut without));
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn processor_time_of(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let before = processor_time();
    work()?;
    Ok(processor_time() - before)
}

/// Returns the CPU time of this thread, or zero if it is not available.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

// The two sides.

struct Both {
    client: Client,
    agent: ureq::Agent,
    base: String,
    search: FuzzySearch,
    /// The body of the search, as sent by malquery.
    body: Vec<u8>,
}

impl Both {
    fn new(host: &str, port: u16) -> Result<Self> {
        let base: BaseUrl = format!("http://{host}:{port}").parse()?;
        let token = BearerToken::new("a-token")?;
        let search = FuzzySearch::new([Pattern::ascii("CreateRemoteThread")?]).limit(10);
        let body = search.request(&base, &token)?.into_body();
        Ok(Self {
            base: base.to_string(),
            client: Client::new(
                UreqTransport::builder().no_proxy().build()?,
                SystemClock,
                Auth::with_token(base, token),
            ),
            agent: ureq::Agent::new_with_defaults(),
            search,
            body,
        })
    }

    fn quotas(&self) -> Result<()> {
        let reply = self.client.quotas()?;
        assert_eq!(reply.meta.hunt_limit, Some(100));
        Ok(())
    }

    fn bare_quotas(&self) -> Result<()> {
        let url = format!("{}{}", self.base, GetQuotas::ENDPOINT.path);
        let reply = self
            .agent
            .get(&url)
            .header("accept", "application/json")
            .header("authorization", "Bearer a-token")
            .call()?;
        let read: Value = read(reply)?;
        assert_eq!(read["meta"]["hunt_limit"], 100);
        Ok(())
    }

    fn search(&self) -> Result<()> {
        let reply = self.client.fuzzy_search(&self.search)?;
        assert_eq!(reply.resources.len(), RESULTS);
        Ok(())
    }

    fn bare_search(&self) -> Result<()> {
        let url = format!("{}{}", self.base, FuzzySearch::ENDPOINT.path);
        let reply = self
            .agent
            .post(&url)
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("authorization", "Bearer a-token")
            .send(&self.body[..])?;
        let read: Value = read(reply)?;
        assert_eq!(read["resources"].as_array().map(Vec::len), Some(RESULTS));
        Ok(())
    }
}

fn read(mut reply: http::Response<ureq::Body>) -> Result<Value> {
    Ok(serde_json::from_slice(&reply.body_mut().read_to_vec()?)?)
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

/// Answers everything, and prints where.
fn serve() -> Result<()> {
    let (quotas, search) = (reply(&quotas()), reply(&search()));
    let server = malquery_test_support::Server::start(move |request, out| {
        let is_get = request.line().starts_with("GET ");
        // A client may leave early.
        let _ = out.write_all(if is_get { &quotas } else { &search });
        Then::Go
    });
    println!("{}", server.port);
    hang()
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
