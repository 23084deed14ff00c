//! An exact search over a folder of 10,000 files and 1 GiB, beside `rg` that looks for the same
//! patterns.
//!
//! ```text
//! cargo bench -p malquery-mock --features service --bench corpus
//! ```
//!
//! `rg --count` has to read every file to its end; `rg --files-with-matches` may stop at the first
//! line that has one of the patterns. The search wants all of the patterns and may stop at the
//! last. Most files have none, so that all three read nearly everything. `rg` searches all files,
//! hidden or binary (`--no-ignore --hidden --text`), and for bytes, not expressions
//! (`--fixed-strings`). The search lists the folder again in each round, as `rg` does, hashes what
//! it finds, and is a job of the stand-in from its submission to its results; that takes less than
//! a millisecond. Both read from the page cache.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use malquery_mock::{Corpus, Service, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::operations::ExactSearch;
use malquery_proto::types::Pattern;
use malquery_proto::{Client, Cloud, Credentials};

const FILES: usize = 10_000;
const TOTAL: usize = 1 << 30;
const ROUNDS: usize = 7;
const PATTERNS: [&str; 3] = [
    "CreateRemoteThread",
    "VirtualAllocEx",
    "http://stage.example/",
];
/// One file in as many has all the patterns.
const HITS: usize = 500;
/// One in as many is large, and has nearly all of a pattern where a search that reads in pieces
/// would miss it.
const LARGE: usize = 100;
const EDGES: [usize; 3] = [64 * 1024, 256 * 1024, 1024 * 1024];

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make(folder.path());
    let patterns = PATTERNS.map(|pattern| Pattern::ascii(pattern).expect("a pattern"));
    let search = || {
        let corpus = Corpus::open(folder.path()).expect("the corpus");
        assert_eq!(corpus.len(), FILES);
        let auth = Auth::new(
            Cloud::Us1,
            Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET),
        );
        let client = Client::new(Service::new(corpus), VirtualClock::new(), auth);
        let job = client
            .exact_search(&ExactSearch::new(patterns.clone()))
            .expect("a search");
        assert_eq!(
            job.wait().expect("its results").resources.len(),
            FILES / HITS
        );
    };
    let rg = |mode: &str| {
        let mut command = Command::new("rg");
        command.args([
            "--no-config",
            "--no-ignore",
            "--hidden",
            "--text",
            "--fixed-strings",
            mode,
        ]);
        for pattern in PATTERNS {
            command.args(["-e", pattern]);
        }
        command.arg(folder.path()).stdout(Stdio::null()).status()
    };
    search();
    if let Err(error) = rg("--count") {
        let ours = (0..ROUNDS).map(|_| time(search)).collect();
        println!(
            "rg cannot be run ({error}); this search alone: {}",
            shown(ours)
        );
        return;
    }
    let (mut ours, mut counting, mut listing) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(time(search));
        counting.push(time(|| drop(rg("--count"))));
        listing.push(time(|| drop(rg("--files-with-matches"))));
    }
    for (name, theirs) in [("--count", &counting), ("--files-with-matches", &listing)] {
        let ratio = median(&ours).as_secs_f64() / median(theirs).as_secs_f64();
        println!("{ratio:.2} of the time of rg {name}");
    }
    println!("this search: {}", shown(ours));
    println!("rg --count: {}", shown(counting));
    println!("rg --files-with-matches: {}", shown(listing));
    if let Some(peak) = peak() {
        println!("peak memory of this search: {peak}");
    }
}

fn time(run: impl Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!(
        "{:.3?} to {:.3?}, median {:.3?}",
        times[0],
        times[times.len() - 1],
        median(&times)
    )
}

/// Where the system reports it.
fn peak() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?
            .trim()
            .to_owned(),
    )
}

/// Writes the files: half of them random bytes, half of them words, many small ones and a few of
/// some megabytes.
fn make(folder: &Path) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::new();
    let small = TOTAL / (FILES + FILES / LARGE * 49);
    for index in 0..FILES {
        let is_large = index % LARGE == 0;
        bytes.resize(if is_large { 50 * small } else { small }, 0);
        if index % 3 == 0 {
            random.fill(&mut bytes)
        } else {
            random.fill_with_words(&mut bytes)
        }
        if is_large {
            for (pattern, edge) in PATTERNS.iter().zip(EDGES) {
                let missing = usize::from(index % HITS != 0);
                let at = edge - pattern.len() / 2;
                let part = &pattern.as_bytes()[..pattern.len() - missing];
                bytes[at..at + part.len()].copy_from_slice(part);
            }
        }
        let folder = folder.join(format!("{:02}", index % 97));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(index.to_string()), &bytes).expect("a file");
    }
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    fn fill_with_words(&mut self, bytes: &mut [u8]) {
        let words: [&[u8]; 8] = [
            b"thread ",
            b"Create",
            b"Virtual ",
            b"http://",
            b"stage ",
            b"remote\n",
            b"the Process ",
            b"Alloc(0);\n",
        ];
        let mut at = 0;
        while at < bytes.len() {
            let word = words[(self.next() >> 32) as usize % words.len()];
            let count = word.len().min(bytes.len() - at);
            bytes[at..at + count].copy_from_slice(&word[..count]);
            at += count;
        }
    }
}
