//! The stand-in in memory, used by the client and by requests that the client never sends.

use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http::{Method, Request, Response};
use malquery_mock::service::Counts;
use malquery_mock::{Corpus, CorpusSample, Service, Transcript, VirtualClock};
use malquery_proto::client::Error;
use malquery_proto::flow::{Auth, FlowError, RetryPolicy};
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::types::{
    FileType, Label, MetaField, Pattern, RequestType, SearchOptions, Sha256,
};
use malquery_proto::{Archive, Client, Clock, Cloud, Credentials, Transport};
use serde_json::{Value, json};

use crate::schema::{self, Checked};

const HELLO: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const RULE: &str = "rule greeting { strings: $a = \"hello\" condition: $a }";

fn corpus() -> Corpus {
    let sample = |text: &str, day: &str| CorpusSample::new(text).first_seen(day.parse().unwrap());
    Corpus::from_bytes([
        sample("hello world", "2024/01/15")
            .label(Label::Malware)
            .family("Demo"),
        sample("hello night", "2024/02/15").label(Label::Clean),
        sample("%PDF-1.7 hello paper", "2024/03/15"),
    ])
}

fn service(clock: &VirtualClock) -> Service {
    Service::new(corpus()).clock(clock.clone())
}

fn credentials() -> Credentials {
    Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET)
}

fn client(service: Service, clock: &VirtualClock) -> Client {
    Client::new(
        Checked(service),
        clock.clone(),
        Auth::new(Cloud::Us1, credentials()),
    )
}

fn sha256(text: &str) -> Sha256 {
    text.parse().unwrap()
}

fn hello() -> [Pattern; 1] {
    [Pattern::ascii("hello").unwrap()]
}

/// Sends requests without the client, with a token.
struct Raw<T> {
    transport: T,
    token: String,
}

struct Got {
    status: u16,
    response: Response<()>,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn message(&self) -> String {
        let reply = self.json();
        assert_eq!(reply["errors"][0]["code"], self.status, "{reply}");
        reply["errors"][0]["message"].as_str().unwrap().into()
    }

    fn reqid(&self) -> String {
        self.json()["meta"]["reqid"].as_str().unwrap().into()
    }

    fn header(&self, name: &str) -> Option<&str> {
        Some(self.response.headers().get(name)?.to_str().unwrap())
    }
}

fn form(id: &str, secret: &str, more: &str) -> String {
    format!("client_id={id}&client_secret={secret}{more}")
}

impl<T: Transport> Raw<T> {
    fn new(transport: T) -> Self {
        let mut raw = Self {
            transport,
            token: String::new(),
        };
        raw.renew();
        raw
    }

    fn renew(&mut self) {
        let got = self.post(
            "/oauth2/token",
            &form(Service::CLIENT_ID, Service::CLIENT_SECRET, ""),
        );
        assert_eq!(got.status, 201);
        self.token = got.json()["access_token"].as_str().unwrap().into();
    }

    fn send(&self, request: Request<Vec<u8>>) -> Got {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.transport.send(request).unwrap();
        let (head, bytes) = schema::checked(&method, uri.path(), response).into_parts();
        let got = Got {
            status: head.status.as_u16(),
            response: Response::from_parts(head, ()),
            body: bytes,
        };
        for name in ["x-cs-traceid", "x-ratelimit-limit", "x-ratelimit-remaining"] {
            assert!(got.header(name).is_some(), "{name}");
        }
        assert_eq!(
            got.header("content-length"),
            Some(&*got.body.len().to_string())
        );
        got
    }

    fn request(&self, method: Method, uri: &str, body: &str) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://api.crowdstrike.com{uri}"));
        let request = match self.token.is_empty() {
            true => request,
            false => request.header("authorization", format!("Bearer {}", self.token)),
        };
        self.send(request.body(body.into()).unwrap())
    }

    fn get(&self, uri: &str) -> Got {
        self.request(Method::GET, uri, "")
    }

    fn post(&self, uri: &str, body: &str) -> Got {
        self.request(Method::POST, uri, body)
    }

    fn poll(&self, id: &str) -> Got {
        self.get(&format!("/malquery/entities/requests/v1?ids={id}"))
    }

    fn fetch(&self, id: &str) -> Got {
        self.get(&format!("/malquery/entities/samples-fetch/v1?ids={id}"))
    }

    fn exact(&self, body: &Value) -> Got {
        self.post("/malquery/queries/exact-search/v1", &body.to_string())
    }

    fn multidownload(&self, samples: &[&str]) -> Got {
        let body = json!({"samples": samples});
        self.post(
            "/malquery/entities/samples-multidownload/v1",
            &body.to_string(),
        )
    }
}

#[test]
fn every_operation_replies_as_documented() {
    let clock = VirtualClock::new();
    let transcript = Transcript::new(
        service(&clock)
            .seed(1)
            .polls(0)
            .fail_jobs(|number| number == 3),
    );
    let raw = Raw::new(transcript.clone());
    let body =
        json!({"patterns": [{"type": "hex", "value": "68656c6c6f"}], "options": {"limit": 2}});
    raw.post("/malquery/combined/fuzzy-search/v1", &body.to_string());
    raw.get(&format!(
        "/malquery/entities/metadata/v1?ids={HELLO}&ids={UNKNOWN}"
    ));
    let body = json!({
        "patterns": [{"type": "ascii", "value": "hello"}, {"type": "ascii", "value": "\"\\o"}],
        "options": {},
    });
    let none = raw.exact(&body).reqid();
    clock.advance(Duration::from_millis(1500));
    raw.poll(&none);
    let body = json!({
        "patterns": [{"type": "ascii", "value": "hello"}],
        "options": {"filter_meta": ["sha256", "type", "size"], "min_date": "2024/02/01", "unknown": 1},
    });
    for id in [raw.exact(&body).reqid(), raw.exact(&body).reqid()] {
        raw.poll(&id);
    }
    raw.fetch(&none);
    let request = Request::post("https://api.crowdstrike.com/oauth2/revoke")
        .header("authorization", basic(Service::CLIENT_SECRET))
        .body(format!("token={}", raw.token).into_bytes());
    raw.send(request.unwrap());
    raw.get("/malquery/aggregates/quotas/v1");
    insta::assert_snapshot!(transcript);
}

#[cfg(feature = "yara")]
#[test]
fn a_whole_hunt_gives_one_transcript() {
    let run = || {
        let clock = VirtualClock::new();
        let service = service(&clock);
        let transcript = Transcript::new(Checked(service));
        let auth = Auth::new(Cloud::Us1, credentials());
        let client = Client::new(transcript.clone(), clock, auth);
        let rule = "rule night { strings: $a = \"night\" condition: $a }";
        let found = client.hunt(&Hunt::new(rule)).unwrap().wait().unwrap();
        let samples: Vec<_> = found
            .resources
            .iter()
            .filter_map(|found| found.sha256)
            .collect();
        let job = client.samples_multidownload(samples.clone()).unwrap();
        job.wait().unwrap();
        let mut archive = Vec::new();
        client
            .samples(job.id())
            .unwrap()
            .output
            .read_to_end(&mut archive)
            .unwrap();
        client.download(samples[0]).unwrap();
        client.quotas().unwrap();
        transcript
    };
    let first = run();
    for _ in 0..5 {
        assert_eq!(run().to_string(), first.to_string());
    }
    malquery_mock::assert_transcript!(first);
}

fn basic(secret: &str) -> String {
    use base64::Engine;
    let pair = format!("{}:{secret}", Service::CLIENT_ID);
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

#[test]
fn every_mistake_is_refused_and_costs_nothing() {
    let clock = VirtualClock::new();
    let service = service(&clock);
    let raw = Raw::new(service.clone());
    let pattern = json!([{"type": "ascii", "value": "a"}]);
    let options = |options: Value| json!({"patterns": pattern, "options": options}).to_string();
    let patterns = |patterns: Value| json!({"patterns": patterns}).to_string();
    let exact = "POST /malquery/queries/exact-search/v1";
    let multi = "POST /malquery/entities/samples-multidownload/v1";
    let cases: Vec<(&str, String)> = vec![
        ("GET /", "".into()),
        ("GET /malquery/aggregates/quotas/v2", "".into()),
        ("POST /malquery/aggregates/quotas/v1", "".into()),
        ("DELETE /malquery/queries/hunt/v1", "".into()),
        ("HEAD /malquery/aggregates/quotas/v1", "".into()),
        (exact, "".into()),
        (exact, "{\"patterns\": [".into()),
        (exact, "[]".into()),
        (exact, "{}".into()),
        (exact, patterns(json!([]))),
        (exact, patterns(json!("ascii:a"))),
        (exact, patterns(json!(["ascii:a"]))),
        (exact, patterns(json!([{"type": "ascii"}]))),
        (exact, patterns(json!([{"type": "utf8", "value": "a"}]))),
        (
            exact,
            patterns(json!([{"type": "ascii", "value": "a"}, {"type": "hex", "value": "89 48"}])),
        ),
        (exact, patterns(json!([{"type": "hex", "value": "894"}]))),
        (exact, patterns(json!([{"type": "ascii", "value": "é"}]))),
        (exact, patterns(json!([{"type": "wide", "value": 1}]))),
        (exact, options(json!([]))),
        (exact, options(json!({"limit": "3"}))),
        (exact, options(json!({"limit": -1}))),
        (exact, options(json!({"filter_meta": "sha256,md5"}))),
        (exact, options(json!({"filter_meta": ["sha-256"]}))),
        (exact, options(json!({"filter_filetypes": [1]}))),
        (exact, options(json!({"min_date": "2024-01-01"}))),
        (exact, options(json!({"max_size": 128000}))),
        (exact, options(json!({"max_size": "8 PB"}))),
        (
            "POST /malquery/combined/fuzzy-search/v1",
            options(json!([])),
        ),
        (multi, "{}".into()),
        (multi, json!({"samples": []}).to_string()),
        (multi, json!({"samples": HELLO}).to_string()),
        (multi, json!({"samples": ["abc"]}).to_string()),
        (multi, json!({"samples": [HELLO, UNKNOWN]}).to_string()),
        ("GET /malquery/entities/download-files/v1", "".into()),
        (
            "GET /malquery/entities/download-files/v1?ids=abc",
            "".into(),
        ),
        (
            "GET /malquery/entities/download-files/v1?ids=a&ids=b",
            "".into(),
        ),
        ("GET /malquery/entities/metadata/v1?ids=", "".into()),
        ("GET /malquery/entities/metadata/v1?ids=a%2Cb", "".into()),
        (
            "GET /malquery/entities/requests/v1?ids=no-such-job",
            "".into(),
        ),
        (
            "GET /malquery/entities/samples-fetch/v1?ids=no-such-job",
            "".into(),
        ),
        ("POST /oauth2/token", "".into()),
        (
            "POST /oauth2/token",
            form("another", Service::CLIENT_SECRET, ""),
        ),
        ("POST /oauth2/token", form(Service::CLIENT_ID, "wrong", "")),
        (
            "POST /oauth2/token",
            form(
                Service::CLIENT_ID,
                Service::CLIENT_SECRET,
                "&member_cid=abc",
            ),
        ),
        ("POST /oauth2/revoke", "token=abc".into()),
    ];
    let mut text = String::new();
    for (line, body) in cases {
        let (method, uri) = line.split_once(' ').unwrap();
        let got = raw.request(method.parse().unwrap(), uri, &body);
        let by = got.json()["meta"]["powered_by"]
            .as_str()
            .unwrap()
            .to_owned();
        text += &format!(
            "{line} {body}\n    {} {by}: {}\n",
            got.status,
            got.message()
        );
    }
    let unknown = format!("/malquery/entities/download-files/v1?ids={UNKNOWN}");
    assert_eq!(raw.get(&unknown).status, 404);
    let Counts {
        hunts, downloads, ..
    } = service.counts();
    assert_eq!((hunts, downloads), (0, 0));
    insta::assert_snapshot!(text);
}

#[test]
fn a_client_searches_and_downloads() {
    let clock = VirtualClock::new();
    let service = service(&clock);
    let client = client(service.clone(), &clock);

    let found = client
        .fuzzy_search(&FuzzySearch::new(hello()).filter_meta([MetaField::Label]))
        .unwrap();
    assert_eq!(found.resources.len(), 3);
    assert_eq!(found.resources[0].sha256, None);

    let options = SearchOptions::new()
        .filter_filetypes([FileType::PDF])
        .max_size("1 KB".parse().unwrap())
        .min_date("2024/03/15".parse().unwrap());
    let job = client
        .exact_search(&ExactSearch::new(hello()).options(options))
        .unwrap();
    let found = job.wait().unwrap();
    assert_eq!(found.resources.len(), 1);
    assert_eq!(found.resources[0].filetype, Some(FileType::PDF));
    assert_eq!(found.resources[0].label, Some(Label::Unknown));
    assert_eq!(found.meta.reqtype, Some(RequestType::Search));

    let known = client.metadata([sha256(HELLO), sha256(UNKNOWN)]).unwrap();
    assert_eq!(known.missing, [sha256(UNKNOWN)]);
    assert_eq!(known.resources[0].family.as_deref(), Some("Demo"));

    let samples: Vec<_> = client
        .fuzzy_search(&FuzzySearch::new(hello()))
        .unwrap()
        .resources
        .iter()
        .map(|found| found.sha256.unwrap())
        .collect();
    let job = client.samples_multidownload(samples.clone()).unwrap();
    job.wait().unwrap();
    // The archive can be fetched several times, even at once.
    let mut readers = [
        client.samples(job.id()).unwrap(),
        client.samples(job.id()).unwrap(),
    ];
    let mut archives = [Vec::new(), Vec::new()];
    loop {
        let mut buffer = [0; 7];
        let mut ended = true;
        for (reader, archive) in readers.iter_mut().zip(&mut archives) {
            let count = reader.output.read(&mut buffer).unwrap();
            archive.extend_from_slice(&buffer[..count]);
            ended &= count == 0;
        }
        if ended {
            break;
        }
    }
    assert_eq!(archives[0], archives[1]);
    let mut archive = Archive::open(Cursor::new(&archives[0]))
        .unwrap()
        .expect_samples(samples);
    assert!(archive.check().unwrap().is_complete());
    assert!(archive.entries().iter().all(|entry| entry.is_encrypted()));

    let mut bytes = Vec::new();
    client
        .download(sha256(HELLO))
        .unwrap()
        .output
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, b"hello world");
    let counts = service.counts();
    assert_eq!((counts.hunts, counts.downloads, counts.tokens), (0, 4, 1));
}

#[test]
fn counts_cover_the_results_and_need_labels() {
    let clock = VirtualClock::new();
    let raw = Raw::new(service(&clock).polls(0));
    let counts = |reply: Value| {
        let stats = reply["meta"]["stats"].clone();
        let names = ["total", "malware", "clean", "pua", "unknown"];
        names.map(|name| stats[format!("{name}_count")].as_u64().unwrap())
    };
    let body = |options: Value| {
        let pattern = json!({"type": "ascii", "value": "hello"});
        json!({"patterns": [pattern], "options": options})
    };
    let fuzzy = |options: Value| {
        let path = "/malquery/combined/fuzzy-search/v1";
        counts(raw.post(path, &body(options).to_string()).json())
    };
    let exact = |options: Value| counts(raw.poll(&raw.exact(&body(options)).reqid()).json());
    // The newest sample has no label, and the next one is clean.
    assert_eq!(fuzzy(json!({})), [3, 1, 1, 0, 1]);
    assert_eq!(exact(json!({})), [3, 1, 1, 0, 1]);
    assert_eq!(fuzzy(json!({"limit": 2})), [3, 0, 1, 0, 1]);
    assert_eq!(exact(json!({"limit": 2})), [2, 0, 1, 0, 1]);
    let without_label = json!({"filter_meta": ["sha256"]});
    assert_eq!(fuzzy(without_label.clone()), [3, 0, 0, 0, 3]);
    assert_eq!(exact(without_label), [3, 0, 0, 0, 3]);
    assert_eq!(fuzzy(json!({"limit": 0})), [3, 0, 0, 0, 0]);
    assert_eq!(exact(json!({"limit": 0})), [3, 0, 0, 0, 0]);
    let with_label = json!({"filter_meta": ["label"], "limit": 1});
    assert_eq!(exact(with_label), [1, 0, 0, 0, 1]);
}

#[test]
fn each_label_has_its_count() {
    let labels = ["clean", "malware", "malicious", "unwanted", "PUA", "odd"];
    let sample =
        |label: &&str| CorpusSample::new(format!("hello {label}")).label(label.parse().unwrap());
    let service = Service::new(Corpus::from_bytes(labels.iter().map(sample)));
    let clock = VirtualClock::new();
    let client = client(service.clock(clock.clone()), &clock);
    let found = client.fuzzy_search(&FuzzySearch::new(hello())).unwrap();
    let stats = found.meta.stats.as_ref().unwrap();
    assert_eq!((stats.clean_count, stats.malware_count), (Some(1), Some(2)));
    assert_eq!((stats.pua_count, stats.unknown_count), (Some(2), Some(1)));
}

#[test]
fn a_job_can_be_pending_first() {
    let clock = VirtualClock::new();
    let raw = Raw::new(service(&clock).pending(2).polls(1));
    let job = raw
        .exact(&json!({"patterns": [{"type": "ascii", "value": "hello"}]}))
        .reqid();
    let statuses: Vec<_> = (0..4)
        .map(|_| {
            raw.poll(&job).json()["meta"]["status"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(statuses, ["pending", "pending", "inprogress", "done"]);
}

#[test]
fn samples_of_the_customer_can_be_selected() {
    let clock = VirtualClock::new();
    let corpus = Corpus::from_bytes([
        CorpusSample::new("hello corpus"),
        CorpusSample::new("hello upload").submitted_by_customer(),
    ]);
    let client = client(Service::new(corpus).clock(clock.clone()), &clock);
    let count = |options: SearchOptions| {
        let search = ExactSearch::new(hello()).options(options);
        client
            .exact_search(&search)
            .unwrap()
            .wait()
            .unwrap()
            .resources
            .len()
    };
    assert_eq!(count(SearchOptions::new().submitted_by_customer(true)), 1);
    assert_eq!(count(SearchOptions::new().submitted_by_customer(false)), 2);
    assert_eq!(count(SearchOptions::new().app("malquery")), 2);
}

#[test]
fn ids_come_repeated_or_with_commas() {
    let clock = VirtualClock::new();
    let raw = Raw::new(service(&clock));
    let path = "/malquery/entities/metadata/v1";
    let [repeated, commas] = ["&ids=", "%2C"].map(|between| {
        raw.get(&format!("{path}?ids={HELLO}{between}{UNKNOWN}"))
            .json()["resources"]
            .clone()
    });
    assert_eq!(
        (repeated.as_array().unwrap().len(), &repeated),
        (1, &commas)
    );
}

#[test]
fn an_archive_has_the_same_bytes_each_time() {
    let archive = || {
        let clock = VirtualClock::new();
        let raw = Raw::new(service(&clock).polls(0));
        let job = raw.multidownload(&[HELLO]).reqid();
        clock.advance(Duration::from_secs(60));
        raw.poll(&job);
        raw.fetch(&job).body
    };
    let bytes = archive();
    assert_eq!(bytes, archive());
    // Encrypted, stored, and named by its SHA-256.
    assert_eq!(bytes[6] & 1, 1);
    assert_eq!((bytes[8], bytes[9]), (0, 0));
    assert_eq!(&bytes[30..94], HELLO.as_bytes());
}

#[test]
fn a_file_that_is_gone_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(folder.path().join(name), format!("hello {name}")).unwrap();
    }
    let clock = VirtualClock::new();
    let service = Service::over(folder.path()).unwrap().clock(clock.clone());
    std::fs::remove_file(folder.path().join("a")).unwrap();
    let client = client(service, &clock);
    let found = client
        .exact_search(&ExactSearch::new(hello()))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(found.resources.len(), 1);
    let says = format!("not searched: {}: ", folder.path().join("a").display());
    let message = found.errors[0].message.as_deref().unwrap();
    assert!(message.starts_with(&says), "{message}");
    let found = client.metadata([sha256(HELLO)]).unwrap();
    let message = found.errors[0].message.as_deref().unwrap();
    assert!(message.starts_with(&says), "{message}");
    let message = client.download(sha256(HELLO)).unwrap_err().to_string();
    let says = format!("Could not find sample {HELLO}; {says}");
    assert!(message.contains(&says), "{message}");
}

#[test]
fn a_corpus_that_is_gone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "hello world").unwrap();
    let clock = VirtualClock::new();
    let service = Service::over(folder.path()).unwrap().polls(0);
    let raw = Raw::new(service.clock(clock));
    let says = format!("cannot read the corpus: {}: ", folder.path().display());
    folder.close().unwrap();
    let body = json!({"patterns": [{"type": "ascii", "value": "hello"}]});
    let fuzzy = "/malquery/combined/fuzzy-search/v1";
    for got in [
        raw.post(fuzzy, &body.to_string()),
        raw.get(&format!("/malquery/entities/metadata/v1?ids={HELLO}")),
        raw.get(&format!("/malquery/entities/download-files/v1?ids={HELLO}")),
        raw.multidownload(&[HELLO]),
    ] {
        assert_eq!(got.status, 500);
        assert!(got.message().starts_with(&says), "{}", got.message());
    }
    let failed = raw.poll(&raw.exact(&body).reqid()).json();
    assert_eq!(failed["meta"]["status"], "failed", "{failed}");
    let message = failed["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with(&says), "{message}");
}

#[cfg(feature = "yara")]
#[test]
fn a_hunt_takes_helpers_and_signatures() {
    let clock = VirtualClock::new();
    let client = client(service(&clock), &clock);
    let count = |rule: &str| {
        client
            .hunt(&Hunt::new(rule))
            .unwrap()
            .wait()
            .unwrap()
            .resources
            .len()
    };
    let helper = "private rule is_pdf { condition: uint32be(0) == 0x25504446 }\n";
    assert_eq!(
        count(&format!("{helper}rule pdf {{ condition: is_pdf }}")),
        1
    );
    let two = format!("{helper}rule a {{ condition: is_pdf }} rule b {{ condition: true }}");
    let refused = client.hunt(&Hunt::new(two)).unwrap_err();
    assert_eq!(refused.status().unwrap(), 400);
    let unsigned =
        "import \"pe\"\nrule unsigned { condition: not defined pe.number_of_signatures }";
    assert_eq!(count(unsigned), 3);
}

#[test]
fn requests_are_logged_without_secrets() {
    let clock = VirtualClock::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let service = service(&clock).log(move |line| log.lock().unwrap().push(line.to_owned()));
    let raw = Raw::new(service);
    raw.get("/oauth2/token?client_secret=hidden");
    raw.poll("no-such-job");
    raw.fetch("no-such-job");
    assert_eq!(
        *lines.lock().unwrap(),
        [
            "POST /oauth2/token 201",
            "GET /oauth2/token 405: method not allowed; use POST",
            "GET /malquery/entities/requests/v1?ids=no-such-job 400: \
             Invalid user input: unknown job \"no-such-job\"",
            "GET /malquery/entities/samples-fetch/v1?ids=no-such-job 404: \
             Could not find sample archive",
        ]
    );
}

#[test]
fn its_own_client_needs_no_time() {
    let service = Service::new(corpus()).job_time(Duration::from_secs(3600));
    let client = service.client();
    let found = client
        .exact_search(&ExactSearch::new(hello()))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(found.resources.len(), 3);
    client.download(sha256(HELLO)).unwrap();
    assert_eq!(service.counts().downloads, 1);
    // The virtual clock starts at the beginning of January.
    assert_eq!(client.quotas().unwrap().meta.days_left, Some(31));
}

#[cfg(feature = "yara")]
#[test]
fn a_hunt_costs_one_a_bad_rule_none() {
    let clock = VirtualClock::new();
    let service = service(&clock).hunts(1);
    let client = client(service.clone(), &clock);
    let error = client
        .hunt(&Hunt::new("rule a {\n  condition: $b\n}"))
        .unwrap_err();
    assert_eq!(error.status().unwrap(), 400);
    assert!(
        error
            .to_string()
            .contains("Invalid user input: yara_rule does not compile: "),
        "{error}"
    );
    assert!(error.to_string().contains("line 2"), "{error}");
    assert_eq!(service.counts().hunts, 0);

    let found = client.hunt(&Hunt::new(RULE)).unwrap().wait().unwrap();
    assert_eq!(found.resources.len(), 3);
    assert_eq!(found.resources[0].yara_rule(), None);
    assert_eq!(found.meta.yara_rule.as_deref(), Some(RULE));
    assert_eq!(found.meta.reqtype, Some(RequestType::Hunt));
    assert_eq!(service.counts().hunts, 1);

    let named = self::client(self::service(&clock).name_rules(true), &clock)
        .hunt(&Hunt::new(RULE))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(named.resources[0].yara_rule(), Some("greeting"));

    let error = client.hunt(&Hunt::new(RULE)).unwrap_err();
    assert_eq!(
        error.api().unwrap().kind(),
        malquery_proto::error::ApiErrorKind::QuotaExhausted
    );
    assert_eq!(service.counts().hunts, 1);
    assert_eq!(client.quotas().unwrap().meta.hunts_left(), Some(0));
}

#[cfg(not(feature = "yara"))]
#[test]
fn a_hunt_without_yara_names_the_feature() {
    let clock = VirtualClock::new();
    let service = service(&clock);
    let error = client(service.clone(), &clock)
        .hunt(&Hunt::new(RULE))
        .unwrap_err();
    assert!(
        error.to_string().contains("enable the feature `yara`"),
        "{error}"
    );
    assert_eq!(service.counts().hunts, 0);
}

#[test]
fn tokens_end_and_are_renewed() {
    let clock = VirtualClock::new();
    let service = service(&clock).token_life(Duration::from_secs(100));
    let mut raw = Raw::new(service.clone());
    let quotas = "/malquery/aggregates/quotas/v1";
    clock.advance(Duration::from_millis(99_999));
    assert_eq!(raw.get(quotas).status, 200);
    clock.advance(Duration::from_millis(1));
    let refused = raw.get(quotas);
    assert_eq!(
        (refused.status, &*refused.message()),
        (401, "access denied, invalid bearer token")
    );
    let first = raw.token.clone();
    raw.renew();
    assert_ne!(raw.token, first);
    assert_eq!(raw.get(quotas).status, 200);

    // The client renews its token.
    let client = client(service.clone(), &clock);
    for _ in 0..10 {
        client.quotas().unwrap();
        clock.advance(Duration::from_secs(60));
    }
    assert!(service.counts().tokens > 5);
}

#[test]
fn a_revoked_token_is_refused() {
    let clock = VirtualClock::new();
    let raw = Raw::new(service(&clock));
    let revoke = |secret: &str| {
        let request = Request::post("/oauth2/revoke").header("authorization", basic(secret));
        raw.send(
            request
                .body(format!("token={}", raw.token).into_bytes())
                .unwrap(),
        )
    };
    assert_eq!(revoke("wrong").status, 401);
    assert_eq!(raw.get("/malquery/aggregates/quotas/v1").status, 200);
    assert_eq!(revoke(Service::CLIENT_SECRET).status, 200);
    assert_eq!(raw.get("/malquery/aggregates/quotas/v1").status, 401);
    assert_eq!(revoke(Service::CLIENT_SECRET).status, 200);
}

#[test]
fn scopes_and_children_are_checked() {
    let clock = VirtualClock::new();
    let without = |read, write| client(service(&clock).scopes(read, write), &clock);
    let error = without(false, true).quotas().unwrap_err();
    assert_eq!(error.status().unwrap(), 403);
    assert!(
        error.to_string().contains("lacks the scope malquery:read"),
        "{error}"
    );
    let error = without(true, false)
        .fuzzy_search(&FuzzySearch::new(hello()))
        .unwrap_err();
    assert!(
        error.to_string().contains("lacks the scope malquery:write"),
        "{error}"
    );
    without(true, false).quotas().unwrap();

    let cid = "0123456789ABCDEF0123456789ABCDEF";
    let parent = service(&clock).member_cids([format!("{}-4F", cid.to_lowercase())]);
    let act_for = |cid: &str| {
        let auth = Auth::new(Cloud::Us1, credentials().member_cid(cid.parse().unwrap()));
        Client::new(parent.clone(), clock.clone(), auth).quotas()
    };
    act_for(cid).unwrap();
    let error = act_for("ffffffffffffffffffffffffffffffff").unwrap_err();
    assert_eq!(error.status().unwrap(), 403);
    assert!(
        error.to_string().contains("check the member CID"),
        "{error}"
    );
}

#[test]
fn a_client_is_sent_to_its_cloud() {
    let clock = VirtualClock::new();
    let at_home = client(service(&clock).cloud(Cloud::Eu1), &clock);
    at_home.quotas().unwrap();
    assert_eq!(at_home.base(), Cloud::Eu1.into());

    let error = client(service(&clock).cloud(Cloud::UsGov1), &clock)
        .quotas()
        .unwrap_err();
    assert_eq!(error.status().unwrap(), 400);
    assert!(
        error
            .to_string()
            .contains("credentials for a government cloud work only in that cloud"),
        "{error}"
    );

    let raw = Raw::new(service(&clock));
    let elsewhere = |uri: &str, body: String| {
        let request = Request::builder()
            .method(if body.is_empty() {
                Method::GET
            } else {
                Method::POST
            })
            .uri(format!("https://api.us-2.crowdstrike.com{uri}"))
            .header("authorization", format!("Bearer {}", raw.token));
        raw.send(request.body(body.into()).unwrap())
    };
    assert_eq!(
        elsewhere("/malquery/aggregates/quotas/v1", String::new()).status,
        401
    );
    let token = form(Service::CLIENT_ID, Service::CLIENT_SECRET, "");
    let moved = elsewhere("/oauth2/token", token);
    assert_eq!((moved.status, &*moved.body), (308, &b""[..]));
    assert_eq!(
        moved.header("location"),
        Some("https://api.crowdstrike.com/oauth2/token")
    );
    assert_eq!(moved.header("x-cs-region"), Some("us-1"));
    assert_eq!(elsewhere("/oauth2/token", form("x", "y", "")).status, 400);
}

#[test]
fn quotas_are_spent_whole_and_renew_monthly() {
    let clock = VirtualClock::new();
    let service = service(&clock).downloads(3);
    let raw = Raw::new(service.clone());
    let download = || raw.get(&format!("/malquery/entities/download-files/v1?ids={HELLO}"));
    assert_eq!(raw.multidownload(&[HELLO, UNKNOWN]).status, 404);
    assert_eq!(service.counts().downloads, 0);
    assert_eq!(
        raw.multidownload(&[HELLO, &HELLO.to_uppercase()]).status,
        200
    );
    assert_eq!(service.counts().downloads, 1);
    let second = raw
        .exact(&json!({"patterns": [{"type": "ascii", "value": "night"}]}))
        .reqid();
    raw.poll(&second);
    let night = raw.poll(&second).json()["resources"][0]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(download().status, 200);
    // Two more downloads exceed the quota.
    let refused = raw.multidownload(&[HELLO, &night]);
    assert_eq!(
        (refused.status, &*refused.message()),
        (429, "the request exceeds the monthly quota of downloads")
    );
    assert_eq!(refused.json()["meta"]["powered_by"], "malquery-api");
    assert_eq!(refused.header("x-ratelimit-retryafter"), None);
    assert_eq!(service.counts().downloads, 2);
    assert_eq!(download().status, 200);
    assert_eq!(download().status, 429);
    let client = client(service.clone(), &clock);
    let quotas = client.quotas().unwrap();
    assert_eq!(
        (quotas.meta.downloads_left(), quotas.meta.days_left),
        (Some(0), Some(31))
    );
    // The virtual clock starts at the beginning of January.
    clock.advance(Duration::from_secs(31 * 24 * 60 * 60 - 1));
    assert_eq!(client.quotas().unwrap().meta.days_left, Some(1));
    assert_eq!(client.quotas().unwrap().meta.downloads_left(), Some(0));
    clock.advance(Duration::from_secs(1));
    let quotas = client.quotas().unwrap();
    assert_eq!(
        (quotas.meta.downloads_left(), quotas.meta.days_left),
        (Some(3), Some(28))
    );
}

#[test]
fn rate_limits_hold_for_a_minute() {
    let clock = VirtualClock::new();
    let service = service(&clock).rate_limit(3);
    let raw = Raw::new(service.clone());
    let quotas = "/malquery/aggregates/quotas/v1";
    let left = |got: &Got| {
        got.header("x-ratelimit-remaining")
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    for remaining in [2, 1, 0] {
        assert_eq!(left(&raw.get(quotas)), remaining);
        clock.advance(Duration::from_millis(1100));
    }
    let refused = raw.get(quotas);
    assert_eq!((refused.status, left(&refused)), (429, 0));
    assert_eq!(
        refused.json()["meta"]["powered_by"],
        "crowdstrike-api-gateway"
    );
    // The first request was at 2026-01-01T00:00:00Z.
    assert_eq!(refused.header("x-ratelimit-retryafter"), Some("1767225660"));
    assert_eq!(refused.header("x-ratelimit-limit"), Some("3"));
    let client = client(service, &clock);
    client.quotas().unwrap();
    assert!(clock.waits().iter().sum::<Duration>() > Duration::from_secs(50));

    // After 15 bad tokens, further bad ones are limited, but a good one still works.
    let mut raw = Raw::new(Service::new(corpus()).clock(clock.clone()));
    let good = std::mem::replace(&mut raw.token, "bad".into());
    let statuses: Vec<_> = (0..17).map(|_| raw.get(quotas).status).collect();
    assert_eq!(statuses, [[401; 15].as_slice(), &[429; 2]].concat());
    raw.token = good;
    assert_eq!(raw.get(quotas).status, 200);
    // The limit is 300 token requests, and one was already sent.
    for _ in 0..299 {
        raw.renew();
    }
    assert_eq!(raw.post("/oauth2/token", "").status, 429);
}

#[test]
fn jobs_take_time_and_fail_on_demand() {
    let clock = VirtualClock::new();
    let service = service(&clock)
        .polls(0)
        .job_time(Duration::from_secs(60))
        .fail_jobs(|number| number == 2);
    let client = client(service, &clock);
    let job = client.exact_search(&ExactSearch::new(hello())).unwrap();
    assert_eq!(job.wait().unwrap().resources.len(), 3);
    let waits = clock.waits();
    assert_eq!(waits[0], Duration::from_secs(2));
    assert_eq!(waits[1..], [Duration::from_secs(5); 12]);
    let job = client.exact_search(&ExactSearch::new(hello())).unwrap();
    let error = job.wait().unwrap_err();
    assert!(
        matches!(error.flow(), Some(FlowError::JobFailed(_))),
        "{error}"
    );
    assert!(
        error.to_string().contains("configured to fail this job"),
        "{error}"
    );
}

#[test]
fn a_few_jobs_are_unfinished_at_once() {
    let clock = VirtualClock::new();
    let block = Arc::new(Mutex::new(()));
    let held = block.lock().unwrap();
    let blocked = block.clone();
    let service = service(&clock).fail_jobs(move |job| {
        drop(blocked.lock());
        // The later jobs fail, because that is faster than a search.
        job > 64
    });
    let raw = Raw::new(service.clone());
    let body = json!({"patterns": [{"type": "ascii", "value": "hello"}]});
    let jobs: Vec<_> = (0..64).map(|_| raw.exact(&body).reqid()).collect();
    let refused = raw.exact(&body);
    assert_eq!(
        (refused.status, &*refused.message()),
        (429, "too many unfinished jobs")
    );
    assert!(refused.header("x-ratelimit-retryafter").is_some());
    assert_eq!(raw.poll(&jobs[0]).json()["meta"]["status"], "inprogress");
    drop(held);
    for job in &jobs {
        raw.poll(job);
        assert_eq!(raw.poll(job).json()["meta"]["status"], "done");
    }
    assert_eq!(raw.exact(&body).status, 200);
    // The last 1,000 jobs are kept.
    for _ in 0..1000 {
        let job = raw.exact(&body).reqid();
        raw.poll(&job);
        assert_eq!(raw.poll(&job).json()["meta"]["status"], "failed");
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(raw.poll(&jobs[0]).status, 400);
}

#[test]
fn a_job_that_panics_fails() {
    let clock = VirtualClock::new();
    let service = service(&clock).fail_jobs(|_| std::panic::resume_unwind(Box::new("on purpose")));
    let error = client(service, &clock)
        .exact_search(&ExactSearch::new(hello()))
        .unwrap()
        .wait()
        .unwrap_err();
    assert!(
        error.to_string().contains("the job ended unexpectedly"),
        "{error}"
    );
}

#[test]
fn threads_share_tokens_jobs_and_quotas() {
    let clock = VirtualClock::new();
    let service = service(&clock).downloads(50).polls(0);
    let client = Client::new(
        service.clone(),
        clock.clone(),
        Auth::new(Cloud::Us1, credentials()),
    )
    .retry(RetryPolicy::never());
    let succeeded: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let download = |_: &usize| -> Result<(), Error> {
                        let mut bytes = Vec::new();
                        client
                            .download(sha256(HELLO))?
                            .output
                            .read_to_end(&mut bytes)
                            .map_err(Error::of_download)?;
                        assert_eq!(bytes, b"hello world");
                        client.exact_search(&ExactSearch::new(hello()))?.wait()?;
                        Ok(())
                    };
                    (0..10).filter(|number| download(number).is_ok()).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(succeeded, 50);
    assert_eq!(service.counts().downloads, 50);
}

#[test]
fn ids_come_from_the_seed() {
    let ids = |seed| {
        let clock = VirtualClock::new();
        let raw = Raw::new(service(&clock).seed(seed));
        let body = json!({"patterns": [{"type": "ascii", "value": "hello"}]});
        let got = raw.exact(&body);
        let id = got.reqid();
        // Like a UUID, but not a variant of RFC 4122.
        assert!(matches!(id.as_bytes()[19], b'5') && id.len() == 36, "{id}");
        (
            id,
            got.header("x-cs-traceid").unwrap().to_owned(),
            raw.token,
        )
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
}

#[test]
fn nothing_secret_is_shown() {
    let service = Service::new(corpus()).credentials("an-id", "p4ssw0rd");
    assert_eq!(format!("{service:?}"), "Service(3 samples)");
    let raw = Raw {
        transport: service,
        token: String::new(),
    };
    assert_eq!(
        raw.post("/oauth2/token", &form("an-id", "p4ssw0rd", ""))
            .status,
        201
    );
    assert_eq!(
        raw.post(
            "/oauth2/token",
            &form(Service::CLIENT_ID, Service::CLIENT_SECRET, "")
        )
        .status,
        400
    );
    let refused = raw.post("/oauth2/token", &form("other", "p4ssw0rd", ""));
    assert!(
        !String::from_utf8(refused.body)
            .unwrap()
            .contains("p4ssw0rd")
    );
}

mod random {
    use malquery_proto::operation::{JsonOperation, Operation};
    use malquery_proto::operations::{GetMetadata, GetQuotas, GetRequest, SamplesMultidownload};
    use malquery_proto::reply::ResponseHead;
    use proptest::prelude::*;

    use super::*;

    /// A request. The numbers select a sample or a job.
    #[derive(Debug, Clone)]
    enum Ask {
        Quotas,
        Fuzzy(String),
        Exact(String),
        Hunt(String),
        Metadata(usize),
        Multi(Vec<usize>),
        Download(usize),
        Poll(usize),
        Fetch(usize),
        Token(String),
        Raw(String, String),
        Later(u32),
    }

    fn ask() -> impl Strategy<Value = Ask> {
        let search = prop_oneof![
            Just(json!({"patterns": [{"type": "ascii", "value": "hello"}]}).to_string()),
            (0..5u64).prop_map(|limit| {
                json!({"patterns": [{"type": "wide", "value": "a"}], "options": {"limit": limit}}).to_string()
            }),
            r#"[{}\[\]":,a-z0-9]{0,40}"#,
        ];
        let rule = prop_oneof![
            Just(json!({"yara_rule": RULE}).to_string()),
            "[ a-z{}:$]{0,30}".prop_map(|rule| json!({"yara_rule": rule}).to_string()),
        ];
        prop_oneof![
            Just(Ask::Quotas),
            search.clone().prop_map(Ask::Fuzzy),
            search.prop_map(Ask::Exact),
            rule.prop_map(Ask::Hunt),
            (0..4usize).prop_map(Ask::Metadata),
            prop::collection::vec(0..4usize, 0..5).prop_map(Ask::Multi),
            (0..4usize).prop_map(Ask::Download),
            (0..8usize).prop_map(Ask::Poll),
            (0..8usize).prop_map(Ask::Fetch),
            "[a-z=&%0-9]{0,30}".prop_map(Ask::Token),
            ("(GET|POST|PUT|HEAD|X)", "/[a-z0-9/?=&%.-]{0,40}")
                .prop_map(|(method, path)| Ask::Raw(method, path)),
            (0..100_000u32).prop_map(Ask::Later),
        ]
    }

    /// Reads the reply with its operation. It must succeed or return an API error.
    fn read<O: JsonOperation>(operation: &O, got: &Got) {
        let head = ResponseHead::from(&got.response);
        match operation.response(head, &got.body) {
            Ok(_) => assert_eq!(got.status, 200),
            Err(malquery_proto::error::ResponseError::Api(error)) => {
                assert!(
                    error.body().is_none() && error.trace_id().is_some(),
                    "{error}"
                );
                assert!(got.status >= 400);
            }
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn no_sequence_of_requests_breaks_the_service(asks in prop::collection::vec(ask(), 1..40)) {
            let clock = VirtualClock::new();
            let service = service(&clock).hunts(3).downloads(4).polls(1);
            let mut raw = Raw::new(service.clone());
            let all = client(Service::new(corpus()), &clock).fuzzy_search(&FuzzySearch::new(hello())).unwrap();
            let mut samples: Vec<Sha256> = all.resources.iter().map(|found| found.sha256.unwrap()).collect();
            samples.push(sha256(UNKNOWN));
            let mut jobs = vec!["no-such-job".to_owned()];
            let mut month = 1;
            let (mut hunts, mut downloads) = (0, 0);
            for ask in asks {
                let job = |jobs: &Vec<String>, number: usize| jobs[number % jobs.len()].clone();
                match ask {
                    Ask::Quotas => read(&GetQuotas, &raw.get("/malquery/aggregates/quotas/v1")),
                    Ask::Fuzzy(body) => {
                        read(&FuzzySearch::new(hello()), &raw.post("/malquery/combined/fuzzy-search/v1", &body));
                    }
                    Ask::Exact(body) => {
                        let got = raw.post("/malquery/queries/exact-search/v1", &body);
                        read(&ExactSearch::new(hello()), &got);
                        if got.status == 200 { jobs.push(got.reqid()); }
                    }
                    Ask::Hunt(body) => {
                        let got = raw.post("/malquery/queries/hunt/v1", &body);
                        read(&Hunt::new(RULE), &got);
                        if got.status == 200 { jobs.push(got.reqid()); hunts += 1; }
                    }
                    Ask::Metadata(number) => {
                        let operation = GetMetadata::new([samples[number]]);
                        let got = raw.get(&format!("{}?ids={}", GetMetadata::ENDPOINT.path, samples[number]));
                        read(&operation, &got);
                    }
                    Ask::Multi(numbers) => {
                        let wanted: Vec<_> = numbers.iter().map(|number| samples[*number].to_string()).collect();
                        let got = raw.multidownload(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
                        read(&SamplesMultidownload::new([] as [Sha256; 0]), &got);
                        if got.status == 200 {
                            jobs.push(got.reqid());
                            downloads += wanted.iter().collect::<std::collections::HashSet<_>>().len() as u64;
                        }
                    }
                    Ask::Download(number) => {
                        let got = raw.get(&format!("/malquery/entities/download-files/v1?ids={}", samples[number]));
                        if got.status == 200 { downloads += 1; } else { got.message(); }
                    }
                    Ask::Poll(number) => {
                        let id = job(&jobs, number);
                        read(&GetRequest::new(id.parse().unwrap()), &raw.poll(&id));
                    }
                    Ask::Fetch(number) => {
                        let got = raw.fetch(&job(&jobs, number));
                        if got.status == 200 { assert_eq!(&got.body[..2], b"PK"); } else { got.message(); }
                    }
                    Ask::Token(body) => {
                        raw.post("/oauth2/token", &body).message();
                    }
                    Ask::Raw(method, path) => {
                        raw.request(method.parse().unwrap(), &path, "x").message();
                    }
                    Ask::Later(seconds) => {
                        clock.advance(Duration::from_secs(seconds.into()));
                        raw.renew();
                        let now = malquery_proto::types::Date::of(clock.now()).month();
                        if now != month { (month, hunts, downloads) = (now, 0, 0); }
                    }
                }
                let counts = service.counts();
                assert_eq!((counts.hunts, counts.downloads), (hunts, downloads));
                assert!(hunts <= 3 && downloads <= 4);
            }
        }
    }
}

#[test]
fn the_service_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Service>();
}

#[test]
fn replies_that_break_the_schema_are_found() {
    let wrong = |body: Value| {
        let path = "/malquery/entities/requests/v1";
        schema::wrong(&Method::GET, path, 200, body.to_string().as_bytes())
    };
    let good = json!({
        "meta": {"trace_id": "a", "query_time": 1.5, "patterns": [{"type": "hex", "value": "00"}]},
        "resources": [{"samples": [], "filesize": 2_147_483_647, "tags": ["a"]}],
    });
    assert_eq!(wrong(good), [""; 0]);
    let bad = json!({
        "meta": {"query_time": "1", "new": 1, "patterns": {}},
        "resources": [{"filesize": 2_147_483_648_u64, "tags": [1]}],
        "errors": null,
    });
    assert_eq!(
        wrong(bad),
        [
            "/meta/trace_id is missing",
            "/meta/query_time is \"1\", not double",
            "/meta/patterns is {}, not []SearchParameter",
            "/meta/new is not in RequestMetaInfo",
            "/resources/0/samples is missing",
            "/resources/0/filesize is 2147483648, not int32",
            "/resources/0/tags/0 is 1, not string",
            "/errors is null, not []QueryError",
        ]
    );
}
