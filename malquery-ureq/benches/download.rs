//! Measures the download of a large sample over loopback: malquery, which verifies while it reads,
//! against a bare loop of ureq and sha2. Also measures the peak memory of a process that only
//! downloads.
//!
//! ```text
//! cargo bench -p malquery-ureq --bench download
//! ```
//!
//! `MALQUERY_BENCH_MIB` sets the size of the sample in MiB (default 1024), and
//! `MALQUERY_BENCH_ROUNDS` sets the number of rounds (default 5). Both sides use the same server, a
//! separate process, with the same buffer size, and alternate. Each side reads 64 KiB at a time,
//! hashes the bytes and discards them. Memory and CPU time are available only on Linux.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use malquery_proto::BaseUrl;
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::Auth;
use malquery_proto::types::Sha256;
use malquery_test_support::{Then, hang};
use malquery_ureq::{Client, SystemClock, UreqTransport};
use sha2::Digest;

/// The number of bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// The best size of the input buffer, which malquery-ureq uses as well.
const INPUT_BUFFER: usize = 512 * 1024;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match arguments[..] {
        ["serve", mib] => serve(mib.parse()?),
        ["download", port, sha256] => {
            malquery(&client(port.parse()?)?, sha256.parse()?)?;
            println!("{}", peak_kib().unwrap_or_default());
            Ok(())
        }
        _ if arguments.contains(&"--bench") => compare(),
        // In a test run, it is enough that this compiles.
        _ => Ok(()),
    }
}

fn compare() -> Result<()> {
    let mib = number("MALQUERY_BENCH_MIB", 1024)?;
    let rounds = number("MALQUERY_BENCH_ROUNDS", 5)?.max(1);
    let sha256 = {
        let mut hasher = sha2::Sha256::new();
        let block = block();
        (0..mib).for_each(|_| hasher.update(&block));
        Sha256::from_bytes(hasher.finalize().into())
    };
    let server = Server::start(mib)?;
    let (client, agent) = (client(server.port)?, agent());
    let url = format!("http://127.0.0.1:{}/", server.port);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut cpu_with, mut cpu_without) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // The first side in a round may have an advantage, so alternate.
        for turn in [round % 2, (round + 1) % 2] {
            let (start, cpu) = (Instant::now(), cpu_time());
            if turn == 0 {
                malquery(&client, sha256)?;
                with.push(start.elapsed());
                cpu_with.push(cpu_time() - cpu);
            } else {
                bare(&agent, &url, sha256)?;
                without.push(start.elapsed());
                cpu_without.push(cpu_time() - cpu);
            }
        }
    }
    println!("{mib} MiB over loopback, {rounds} rounds");
    print(with, without);
    println!("CPU time, which other programs affect less:");
    print(cpu_with, cpu_without);
    let child = Command::new(std::env::current_exe()?)
        .args(["download", &server.port.to_string(), &sha256.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    if !child.status.success() {
        return Err("the download of the memory measurement failed".into());
    }
    match String::from_utf8(child.stdout)?.trim().parse::<u64>()? {
        0 => println!("peak memory of a download: not available"),
        kib => println!(
            "peak memory of a download: {kib} KiB, {:.1} MiB",
            kib as f64 / 1024.0
        ),
    }
    Ok(())
}

fn print(with: Vec<Duration>, without: Vec<Duration>) {
    let (with, without) = (Times::new(with), Times::new(without));
    println!("               best      median");
    println!(
        "malquery   {:>8.3} s {:>8.3} s",
        with.best.as_secs_f64(),
        with.median.as_secs_f64()
    );
    println!(
        "ureq, sha2 {:>8.3} s {:>8.3} s",
        without.best.as_secs_f64(),
        without.median.as_secs_f64()
    );
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!(
        "ratio      {:>8.3}   {:>8.3}",
        ratio(with.best, without.best),
        ratio(with.median, without.median)
    );
}

/// Returns the CPU time of this thread, or zero if it is not available.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn number(variable: &str, default: usize) -> Result<usize> {
    std::env::var(variable).map_or(Ok(default), |text| {
        text.parse()
            .map_err(|_| format!("{variable} is not a number: {text:?}").into())
    })
}

struct Times {
    best: Duration,
    median: Duration,
}

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self {
            best: times[0],
            median: times[times.len() / 2],
        }
    }
}

// The two sides.

fn client(port: u16) -> Result<Client> {
    let base: BaseUrl = format!("http://127.0.0.1:{port}").parse()?;
    let auth = Auth::with_token(base, BearerToken::new("a-token")?);
    Ok(Client::new(
        UreqTransport::builder().no_proxy().build()?,
        SystemClock,
        auth,
    ))
}

fn malquery(client: &Client, sha256: Sha256) -> Result<()> {
    let mut download = client.download(sha256)?.output;
    let mut chunk = vec![0; CHUNK];
    loop {
        match download.read(&mut chunk)? {
            0 => break,
            count => io::sink().write_all(&chunk[..count])?,
        }
    }
    download
        .received()
        .map(drop)
        .ok_or_else(|| "not whole".into())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .input_buffer_size(INPUT_BUFFER)
        .build()
        .into()
}

fn bare(agent: &ureq::Agent, url: &str, sha256: Sha256) -> Result<()> {
    let mut body = agent
        .get(url)
        .header("accept-encoding", "identity")
        .call()?
        .into_body()
        .into_reader();
    let mut hasher = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match body.read(&mut chunk)? {
            0 => break,
            count => {
                hasher.update(&chunk[..count]);
                io::sink().write_all(&chunk[..count])?;
            }
        }
    }
    if Sha256::from_bytes(hasher.finalize().into()) != sha256 {
        Err("another hash".into())
    } else {
        Ok(())
    }
}

/// Returns the peak memory of this process, in KiB.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

// The server.

/// Returns one MiB of the sample: harmless bytes.
fn block() -> Vec<u8> {
    (0..1u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(mib: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &mib.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        let mut server = Self { child, port: 0 };
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

/// Answers every request with the sample, and prints where.
fn serve(mib: usize) -> Result<()> {
    let block = block();
    let server = malquery_test_support::Server::start(move |_, out| {
        let length = mib << 20;
        let head =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        let sent = out.write_all(head.as_bytes());
        // A client may leave early.
        let _ = (0..mib).fold(sent, |sent, _| sent.and_then(|()| out.write_all(&block)));
        Then::Close
    });
    println!("{}", server.port);
    hang()
}
