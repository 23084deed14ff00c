//! The cassettes in `cassettes`: every operation, every documented error, and a whole job.
//!
//! The recorder made them from replies like those of the service. Each cassette is played through
//! the client, and the outcome is compared with a snapshot. Each is also recorded again, to check
//! that the recorder still writes the same file. To change a cassette, change the replies, run the
//! tests, and copy the file that the message names. An earlier version of the recorder wrote the
//! cassettes with tokens, which are no longer recorded.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use malquery_mock::reply::Reply;
use malquery_mock::{Mode, Session, VirtualClock, reply, script};
use malquery_proto::client::Error;
use malquery_proto::flow::{Auth, RetryPolicy};
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::types::{JobStatus, Pattern, RequestId, SearchOptions, Sha256};
use malquery_proto::{Cloud, Credentials};
use serde_json::{Value, json};

use malquery_proto::Client;

const SAMPLE: &[u8] = b"hello\n";
const SAMPLE_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
const SEARCH: &str = "2c8bf4a1-93d0-6ea1-8b4e-5d1f0c7a9e33";
const ARCHIVE: &str = "9a41e07b-5c2d-5f4f-a1d6-7e80b3c9f214";
const RULE: &str = "rule greeting\n{\n  strings:\n    $a = \"hello\"\n  condition:\n    $a\n}\n";
const CLIENT_ID: &str = "3f9d1c0b7a824e56b1d2c3e4f5a69788";
const SECRET: &str = "Zk7sP2vQ9xR4tW6yB8nM1cD3fG5hJ0lKaEiOuXqY";

// Replies.

/// Adds the parts that all replies have.
fn dressed(reply: Reply, trace: u32) -> Reply {
    reply
        .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
        .header("x-cs-region", "us-1")
        .header("x-cs-traceid", &trace_id(trace))
        .header("x-ratelimit-limit", "6000")
        .header("x-ratelimit-remaining", "5994")
}

fn trace_id(number: u32) -> String {
    format!("b7d3{number:04x}-1f5e-4c2a-9d80-6a4be1c07f25")
}

fn token() -> Reply {
    let token = json!({"access_token": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl", "expires_in": 1799, "token_type": "bearer"});
    dressed(reply::json(201, token), 1)
}

/// A reply of MalQuery with its own trace id.
fn malquery(trace: u32, meta: Value, resources: Value) -> Reply {
    let mut all = json!({"query_time": 0.012 * f64::from(trace), "powered_by": "malquery-api", "trace_id": trace_id(trace)});
    all.as_object_mut()
        .unwrap()
        .extend(meta.as_object().unwrap().clone());
    dressed(
        reply::json(
            200,
            json!({"meta": all, "resources": resources, "errors": []}),
        ),
        trace,
    )
}

fn submitted(trace: u32, id: &str) -> Reply {
    malquery(trace, json!({"reqid": id, "status": "done"}), json!([]))
}

fn poll(trace: u32, id: &str, status: &str, resources: Value) -> Reply {
    let mut meta = json!({"reqid": id, "reqtype": "search", "status": status, "query_time": 1_593_098_000 + u64::from(trace)});
    if status == "done" && resources != json!([]) {
        meta["stats"] = json!({"clean_count": 0, "malware_count": 0, "pua_count": 0, "total_count": 1, "unknown_count": 1});
    }
    malquery(trace, meta, resources)
}

fn found() -> Value {
    json!([{
        "sha256": SAMPLE_SHA256, "sha1": "f572d396fae9206628714fb2ce00f72e94f2258f", "md5": "b1946ac92492d2347c6235b4d2611184",
        "filesize": 6, "filetype": "text", "first_seen": "2020/06/09", "label": "unknown", "family": "",
    }])
}

fn quotas() -> Reply {
    let meta = json!({
        "hunt_count": 2, "hunt_limit": 100, "download_count": 5, "download_limit": 50, "monitor_count": 0, "monitor_limit": 0,
        "days_left": 12, "refresh_time": "2026-02-01T00:00:00Z",
        "hunt_counts": [{"userid": "f0e1d2c3b4a5968778695a4b3c2d1e0f", "counter": 2}, {"userid": "", "counter": 0}],
        "download_counts": [{"userid": "f0e1d2c3b4a5968778695a4b3c2d1e0f", "counter": 5}],
    });
    dressed(reply::json(200, json!({"meta": meta, "errors": []})), 2)
}

/// An archive of the sample, without a password so that this test can read it.
fn archive() -> Reply {
    let bytes = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../malquery-mock/tests/cassettes/bodies/greeting.zip"),
    );
    let bytes = bytes.unwrap();
    let length = bytes.len().to_string();
    dressed(
        reply::bytes(200, "application/zip", bytes).header("content-length", &length),
        9,
    )
}

/// An error reply of the API gateway.
fn error(status: u16, message: &str) -> Reply {
    let trace = u32::from(status);
    let meta = json!({"query_time": 1.27e-7, "powered_by": "crowdstrike-api-gateway", "trace_id": trace_id(trace)});
    dressed(
        reply::json(
            status,
            json!({"meta": meta, "errors": [{"code": status, "message": message}]}),
        ),
        trace,
    )
}

fn rate_limited() -> Reply {
    // Ten seconds after the `date` header.
    error(429, "API rate limit exceeded.").header("x-ratelimit-retryafter", "1767225610")
}

/// MalQuery's own reply when the monthly quota is exhausted.
fn quota_exhausted() -> Reply {
    let meta = json!({"query_time": 0.003, "powered_by": "malquery-api", "trace_id": trace_id(429), "reqid": "", "status": ""});
    dressed(
        reply::json(429, json!({"meta": meta, "resources": []})),
        429,
    )
}

/// Returns the replies to one call for each of these statuses.
fn errors(statuses: &[u16], limit: fn() -> Reply, not_found: &str) -> Vec<Reply> {
    let mut replies = vec![token()];
    for status in statuses {
        match status {
            400 => replies.push(error(400, "Invalid user input")),
            // The client tries again with a new token.
            401 => {
                let refused = || error(401, "access denied, invalid bearer token");
                replies.extend([refused(), token(), refused()]);
            }
            403 => replies.push(error(403, "access denied, authorization failed")),
            404 => replies.push(error(404, not_found)),
            429 => replies.push(limit()),
            500 => {
                let message = format!(
                    "Internal Server Error: Please provide trace-id='{}' to support",
                    trace_id(500)
                );
                replies.push(error(500, &message));
            }
            _ => panic!("{status}"),
        }
    }
    replies
}

// Calls.

fn pattern() -> [Pattern; 1] {
    [Pattern::ascii("hello").unwrap()]
}

fn sample() -> Sha256 {
    SAMPLE_SHA256.parse().unwrap()
}

fn id() -> RequestId {
    SEARCH.parse().unwrap()
}

fn read(body: &mut impl Read) -> Result<String, Error> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map_err(Error::of_download)?;
    Ok(format!("{} bytes", bytes.len()))
}

type Call = fn(&Client) -> Result<String, Error>;

/// The operations, each with its documented error statuses.
const OPERATIONS: [(&str, &[u16], Call); 9] = [
    ("quotas", &[400, 401, 403, 404, 429, 500], |client| {
        Ok(format!(
            "{:?} hunts left",
            client.quotas()?.meta.hunts_left()
        ))
    }),
    ("fuzzy-search", &[400, 401, 403, 429, 500], |client| {
        Ok(format!(
            "{:?}",
            client.fuzzy_search(&FuzzySearch::new(pattern()))?.resources
        ))
    }),
    (
        "download-files",
        &[400, 401, 403, 404, 429, 500],
        |client| read(&mut client.download(sample())?.output),
    ),
    ("metadata", &[400, 401, 403, 429, 500], |client| {
        let reply = client.metadata([sample(), Sha256::from_bytes([7; 32])])?;
        Ok(format!(
            "{:?}, missing {:?}",
            reply.resources[0].family, reply.missing
        ))
    }),
    ("requests", &[400, 401, 403, 429, 500], |client| {
        Ok(format!("{:?}", client.request(&id())?.meta.status))
    }),
    ("samples-fetch", &[401, 403, 404, 429, 500], |client| {
        read(&mut client.samples(&id())?.output)
    }),
    (
        "samples-multidownload",
        &[400, 401, 403, 404, 429, 500],
        |client| Ok(client.samples_multidownload([sample()])?.id().to_string()),
    ),
    ("exact-search", &[400, 401, 403, 429, 500], |client| {
        let options = SearchOptions::new()
            .limit(10)
            .min_size("1KB".parse().unwrap());
        Ok(client
            .exact_search(&ExactSearch::new(pattern()).options(options))?
            .id()
            .to_string())
    }),
    ("hunt", &[400, 401, 403, 429, 500], |client| {
        Ok(client.hunt(&Hunt::new(RULE))?.id().to_string())
    }),
];

fn success(operation: &str) -> Reply {
    match operation {
        "quotas" => quotas(),
        "fuzzy-search" => malquery(
            3,
            json!({"stats": {"clean_count": 0, "malware_count": 7, "pua_count": 0, "total_count": 8, "unknown_count": 1}, "status": "done"}),
            found(),
        ),
        "download-files" => dressed(
            reply::bytes(200, "application/octet-stream", SAMPLE).header("content-length", "6"),
            4,
        ),
        "metadata" => malquery(5, json!({}), found()),
        "requests" => poll(6, SEARCH, "done", found()),
        "samples-fetch" => archive(),
        _ => submitted(7, SEARCH),
    }
}

fn collect(client: &Client) -> Result<String, Error> {
    let wait = |id: &RequestId| -> Result<Vec<Sha256>, Error> {
        loop {
            let job = client.request(id)?;
            if job.meta.status == Some(JobStatus::Done) {
                return Ok(job
                    .resources
                    .iter()
                    .filter_map(|found| found.sha256)
                    .collect());
            }
        }
    };
    let search = client
        .exact_search(&ExactSearch::new(pattern()))?
        .id()
        .clone();
    let found = wait(&search)?;
    let download = client.samples_multidownload(found)?.id().clone();
    wait(&download)?;
    Ok(format!(
        "{search} {download} {}",
        read(&mut client.samples(&download)?.output)?
    ))
}

/// A cassette: its name, the replies, and the calls.
struct Case {
    name: String,
    replies: Vec<Reply>,
    cloud: Cloud,
    run: Box<dyn Fn(&Client) -> String>,
}

fn show(result: Result<String, Error>) -> String {
    result.unwrap_or_else(|error| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(source) = next {
            let _ = write!(text, ": {source}");
            next = source.source();
        }
        text
    })
}

fn cases() -> Vec<Case> {
    let case = |name: &str, replies: Vec<Reply>, run: Box<dyn Fn(&Client) -> String>| Case {
        name: name.into(),
        replies,
        cloud: Cloud::Us1,
        run,
    };
    let mut cases = Vec::new();
    for (name, statuses, call) in OPERATIONS {
        cases.push(case(
            name,
            vec![token(), success(name)],
            Box::new(move |client| show(call(client))),
        ));
        let limit = if ["samples-multidownload", "exact-search", "hunt"].contains(&name) {
            quota_exhausted
        } else {
            rate_limited
        };
        cases.push(case(
            &format!("{name}.errors"),
            errors(
                statuses,
                limit,
                if name == "samples-fetch" {
                    "Could not find sample archive"
                } else {
                    "Not Found"
                },
            ),
            Box::new(move |client| {
                let lines: Vec<_> = statuses.iter().map(|_| show(call(client))).collect();
                lines.join("\n")
            }),
        ));
    }
    let quotas_call = OPERATIONS[0].2;
    cases.push(case(
        "token",
        vec![
            token(),
            quotas(),
            dressed(
                reply::json(
                    200,
                    json!({"meta": {"query_time": 0.1, "trace_id": trace_id(8)}, "errors": []}),
                ),
                8,
            ),
        ],
        Box::new(move |client| {
            let called = show(quotas_call(client));
            format!(
                "{called}\n{}",
                show(client.revoke().map(|()| "revoked".into()))
            )
        }),
    ));
    cases.push(case(
        "token.errors",
        vec![
            error(
                400,
                &format!("Failed to generate access token for clientID={CLIENT_ID}"),
            ),
            error(401, "access denied, invalid client credentials"),
            error(
                403,
                "Failed to generate access token for customer ID=0123456789abcdef0123456789abcdef",
            ),
            error(403, "access denied, authorization failed"),
            rate_limited(),
            error(500, "Internal Server Error"),
        ],
        Box::new(move |client| {
            let lines: Vec<_> = (0..6).map(|_| show(quotas_call(client))).collect();
            lines.join("\n")
        }),
    ));
    let moved = reply::status(308)
        .header("location", "https://api.us-2.crowdstrike.com/oauth2/token")
        .header("content-length", "0")
        .header("x-cs-region", "us-2");
    cases.push(case(
        "token.redirect",
        vec![moved, token(), quotas()],
        Box::new(move |client| {
            format!(
                "{} at {}",
                show(quotas_call(client)),
                client.base().as_str()
            )
        }),
    ));
    cases.push(case(
        "collect",
        vec![
            token(),
            submitted(10, SEARCH),
            poll(11, SEARCH, "inprogress", json!([])),
            poll(12, SEARCH, "inprogress", json!([])),
            poll(13, SEARCH, "done", found()),
            submitted(14, ARCHIVE),
            poll(15, ARCHIVE, "inprogress", json!([])),
            poll(16, ARCHIVE, "done", json!([])),
            archive(),
        ],
        Box::new(|client| show(collect(client))),
    ));
    cases
}

fn run(case: &Case, path: &Path, mode: Mode) -> String {
    let live = || {
        assert_ne!(mode, Mode::Replay);
        let credentials = Credentials::new(CLIENT_ID, SECRET)
            .member_cid("0123456789abcdef0123456789abcdef-4F".parse().unwrap());
        let auth = Auth::new(case.cloud, credentials).follow_region(true);
        (
            script(case.replies.iter().cloned()).transport(),
            VirtualClock::new(),
            auth,
        )
    };
    let (client, guard) = Session::new(path).mode(mode).client(live).unwrap();
    let outcome = (case.run)(&client.retry(RetryPolicy::never()));
    guard.finish();
    outcome
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cassettes/{name}.json"))
}

#[test]
fn each_plays_and_gives_its_outcome() {
    let mut outcomes = String::new();
    for case in cases() {
        let outcome = run(&case, &shipped(&case.name), Mode::Replay);
        let _ = writeln!(
            outcomes,
            "{}\n  {}",
            case.name,
            outcome.replace('\n', "\n  ")
        );
    }
    insta::assert_snapshot!("outcomes", outcomes);
}

#[test]
fn each_is_what_the_recorder_writes() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cassettes");
    let cases = cases();
    // The version of this crate does not matter.
    let read = |path: &Path| -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter(|line| !line.contains("\"recorded_with\""))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut different = Vec::new();
    for case in cases.iter().filter(|case| !case.name.starts_with("token")) {
        let path = folder.join(format!("{}.json", case.name));
        run(case, &path, Mode::Record);
        if read(&path) != read(&shipped(&case.name)) {
            different.push(path);
        }
    }
    assert!(
        different.is_empty(),
        "the recorder writes these in another way: {different:?}"
    );
    let mut names: Vec<_> = fs::read_dir(shipped("x").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut known: Vec<_> = cases
        .iter()
        .map(|case| format!("{}.json", case.name))
        .collect();
    names.sort();
    known.sort();
    assert_eq!(names, known);
}

#[test]
fn none_holds_a_secret_or_an_id() {
    for entry in fs::read_dir(shipped("x").parent().unwrap()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for value in [
            CLIENT_ID,
            SECRET,
            "0123456789abcdef0123456789abcdef",
            "eyJ",
            SEARCH,
            ARCHIVE,
            "b7d3",
            "f0e1d2c3",
        ] {
            assert!(!text.contains(value), "{value}");
        }
    }
}
