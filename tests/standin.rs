//! The stand-in beside what was recorded: every request of every cassette gets a reply of the same shape. And the whole
//! way over sockets, with the client that users have.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Cursor, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use malquery_mock::{Corpus, CorpusSample, Server, Service, VirtualClock};
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt};
use malquery_proto::types::{Label, Pattern, Sha256};
use malquery_proto::{Archive, BaseUrl, Credentials};
use malquery_ureq::Client;
use serde_json::{Value, json};

/// Where cassettes are, as far as there are any.
const FOLDERS: [&str; 2] = ["../examples/malquery/cassettes", "cassettes"];

/// What a reply may hold and may lack, whatever was recorded: fields of a sample that is not known so well, counts that
/// come only at the end of a job, errors that were none. `*` stands for an index.
const OPTIONAL: &[&str] = &[
    "/errors",
    "/resources",
    "/meta/download_counts",
    "/meta/hunt_counts",
    "/meta/options",
    "/meta/patterns",
    "/meta/reqtype",
    "/meta/sample",
    "/meta/stats",
    "/meta/trace_id",
    "/meta/yara_rule",
    "/resources/*/family",
    "/resources/*/ignore_reason",
    "/resources/*/label_confidence",
    "/resources/*/pattern",
    "/resources/*/pattern_type",
    "/resources/*/samples",
    "/resources/*/tags",
    "/resources/*/yara_rule",
    "/resources/*/yara_rules",
    "/errors/*/id",
];

/// What differs in shape. What one has and the other lacks, and other types; nulls stand for anything.
fn differences(recorded: &Value, given: &Value, place: &str, found: &mut Vec<String>) {
    match (recorded, given) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(recorded), Value::Object(given)) => {
            let names: BTreeSet<&String> = recorded.keys().chain(given.keys()).collect();
            for name in names {
                let place = format!("{place}/{name}");
                match (recorded.get(name), given.get(name)) {
                    // It repeats what was sent.
                    _ if place == "/meta/options" => {}
                    (Some(recorded), Some(given)) => differences(recorded, given, &place, found),
                    _ if OPTIONAL.contains(&&*place) => {}
                    (Some(_), None) => found.push(format!("{place} is missing")),
                    _ => found.push(format!("{place} was not recorded")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(given)) => {
            // All elements have one shape, so each is compared with the first one recorded.
            for (given, recorded) in given.iter().zip(recorded.iter().take(1).cycle()) {
                differences(recorded, given, &format!("{place}/*"), found);
            }
            if recorded.is_empty() != given.is_empty() && place != "/errors" {
                found.push(format!(
                    "{place} has {} elements, not {}",
                    given.len(),
                    recorded.len()
                ));
            }
        }
        (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        _ => found.push(format!("{place} is {given}, not like {recorded}")),
    }
}

/// The bytes of a recorded body.
fn bytes(body: &Value) -> Vec<u8> {
    let text = |value: &Value| -> String {
        match value {
            Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().unwrap_or_default().to_owned(),
        }
    };
    if let Some(base64) = body.get("base64") {
        STANDARD.decode(text(base64)).unwrap()
    } else if let Some(json) = body.get("json") {
        json.to_string().into_bytes()
    } else {
        text(&body["text"]).into_bytes()
    }
}

fn path(uri: &str) -> &str {
    let path = uri.split_once("://").map_or(uri, |(_, rest)| {
        &rest[rest.find('/').unwrap_or(rest.len())..]
    });
    path.split('?').next().unwrap_or_default()
}

/// The stand-in in the place of the service that was recorded.
struct StandIn {
    service: Service,
    token: String,
    samples: Vec<String>,
    /// What was submitted, by the recorded id of the job.
    jobs: HashMap<String, Value>,
}

struct Given {
    status: StatusCode,
    media_type: String,
    body: Vec<u8>,
}

impl StandIn {
    /// Its corpus holds the samples that were recorded, and one in which every pattern occurs.
    fn new(interactions: &[Value]) -> Self {
        let mut corpus = vec![CorpusSample::new("found by nothing else").label(Label::Malware)];
        let mut all = Vec::new();
        for interaction in interactions {
            if path(interaction["request"]["uri"].as_str().unwrap()).contains("/download-files/") {
                corpus.push(bytes(&interaction["response"]["body"]).into());
            }
            for pattern in interaction["request"]["body"]["json"]["patterns"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let pattern: Pattern = serde_json::from_value(pattern.clone()).unwrap();
                all.extend(pattern.bytes());
            }
        }
        corpus.push(all.into());
        // The clock stands still, so that the token lives as long as it takes.
        let service = Service::new(Corpus::from_bytes(corpus)).clock(VirtualClock::new());
        let service = service.hunts(1000).downloads(1000);
        let mut stand_in = Self {
            service,
            token: String::new(),
            samples: Vec::new(),
            jobs: HashMap::new(),
        };
        let form = format!(
            "client_id={}&client_secret={}",
            Service::CLIENT_ID,
            Service::CLIENT_SECRET
        );
        let token = stand_in.send("POST", "/oauth2/token", form.into_bytes());
        let token: Value = serde_json::from_slice(&token.body).unwrap();
        stand_in.token = token["access_token"].as_str().unwrap().into();
        let search = json!({"patterns": [{"type": "ascii", "value": "found by nothing else"}]});
        let found = stand_in.send(
            "POST",
            "/malquery/combined/fuzzy-search/v1",
            search.to_string().into(),
        );
        let found: Value = serde_json::from_slice(&found.body).unwrap();
        let sample = found["resources"][0]["sha256"].as_str().unwrap();
        stand_in.samples.push(sample.into());
        stand_in
    }

    fn send(&self, method: &str, uri: &str, body: Vec<u8>) -> Given {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", format!("Bearer {}", self.token));
        let (head, mut content) = self
            .service
            .answer(&request.body(body).unwrap())
            .into_parts();
        let mut body = Vec::new();
        content.read_to_end(&mut body).unwrap();
        let media_type = head
            .headers
            .get("content-type")
            .map_or("", |value| value.to_str().unwrap());
        Given {
            status: head.status,
            media_type: media_type.into(),
            body,
        }
    }

    /// Whether it has this sample; if not, one that it has.
    fn sample(&self, sha256: &str) -> String {
        let known = self.send(
            "GET",
            &format!("/malquery/entities/metadata/v1?ids={sha256}"),
            Vec::new(),
        );
        let known: Value = serde_json::from_slice(&known.body).unwrap();
        if known["resources"] == json!([]) {
            self.samples[0].clone()
        } else {
            sha256.into()
        }
    }

    /// Submits a recorded job anew, so that nothing was asked about it yet.
    fn submit(&self, recorded_id: &str, is_archive: bool) -> String {
        // Where only the poll or the archive was recorded, any job will do.
        let (path, body) = match is_archive {
            true => (
                "entities/samples-multidownload",
                json!({"samples": [&self.samples[0]]}),
            ),
            false => (
                "queries/exact-search",
                json!({"patterns": [{"type": "ascii", "value": "found by nothing else"}]}),
            ),
        };
        let any = json!({"method": "POST", "uri": format!("/malquery/{path}/v1"), "body": {"json": body}});
        let given = self.ask(self.jobs.get(recorded_id).unwrap_or(&any), &json!({}));
        let given: Value = serde_json::from_slice(&given.body).unwrap();
        given["meta"]["reqid"].as_str().unwrap().to_owned()
    }

    /// The reply to a recorded request, in the same situation.
    fn ask(&self, request: &Value, recorded: &Value) -> Given {
        let (method, uri) = (
            request["method"].as_str().unwrap(),
            request["uri"].as_str().unwrap(),
        );
        let path = path(uri);
        let ids: Vec<String> = url::Url::parse("https://host")
            .and_then(|base| base.join(uri))
            .unwrap()
            .query_pairs()
            .filter(|(name, _)| name == "ids")
            .map(|(_, value)| value.into_owned())
            .collect();
        let with_ids = |ids: Vec<String>| {
            let ids: Vec<_> = ids.iter().map(|id| format!("ids={id}")).collect();
            if ids.is_empty() {
                path.to_owned()
            } else {
                format!("{path}?{}", ids.join("&"))
            }
        };
        if path.starts_with("/oauth2/") {
            let form = format!(
                "client_id={}&client_secret={}&token=x",
                Service::CLIENT_ID,
                Service::CLIENT_SECRET
            );
            return self.send(method, path, form.into_bytes());
        }
        if path.contains("/requests/") || path.contains("/samples-fetch/") {
            let id = self.submit(&ids[0], path.contains("/samples-fetch/"));
            let poll = |id: &str| {
                self.send(
                    "GET",
                    &format!("/malquery/entities/requests/v1?ids={id}"),
                    Vec::new(),
                )
            };
            let first = poll(&id);
            if path.contains("/requests/") && recorded["meta"]["status"] == "inprogress" {
                return first;
            }
            let done = poll(&id);
            if path.contains("/requests/") {
                return done;
            }
            return self.send(method, &with_ids(vec![id]), Vec::new());
        }
        let mut body = request["body"].clone();
        if let Some(samples) = body["json"]["samples"].as_array_mut() {
            for sample in samples {
                *sample = self.sample(sample.as_str().unwrap()).into();
            }
        }
        let ids = ids.iter().map(|id| self.sample(id)).collect();
        self.send(
            method,
            &with_ids(ids),
            if body.is_null() {
                Vec::new()
            } else {
                bytes(&body)
            },
        )
    }
}

fn check(cassette: &Path) -> Vec<String> {
    let document: Value = serde_json::from_slice(&fs::read(cassette).unwrap()).unwrap();
    let interactions = document["interactions"].as_array().unwrap();
    let mut stand_in = StandIn::new(interactions);
    let mut found = Vec::new();
    for interaction in interactions {
        let (request, response) = (&interaction["request"], &interaction["response"]);
        // A fault of the network is no reply.
        let Some(status) = response["status"].as_u64() else {
            continue;
        };
        let recorded = &response["body"]["json"];
        // A quota that is used up has a reply of the shape of the operation.
        let is_used_up = status == 429 && recorded["meta"]["reqid"].is_string();
        let costs_nothing = path(request["uri"].as_str().unwrap()).contains("/exact-search/");
        // There is no other cloud, what is revoked here is no token of its own, and a search uses no quota up.
        if (300..400).contains(&status)
            || interaction["id"] == "revoke"
            || (is_used_up && costs_nothing)
        {
            continue;
        }
        if recorded["meta"]["reqid"].is_string() && request["method"] == "POST" {
            let id = recorded["meta"]["reqid"].as_str().unwrap().to_owned();
            stand_in.jobs.insert(id, request.clone());
        }
        let given = if status < 400 {
            stand_in.ask(request, recorded)
        } else if is_used_up {
            let with_quota = stand_in.service.clone();
            stand_in.service = stand_in.service.hunts(0).downloads(0);
            let given = stand_in.ask(request, recorded);
            stand_in.service = with_quota;
            assert_eq!(given.status, 429);
            given
        } else {
            // Why it was refused then, is not known; but all refusals have one shape.
            stand_in.send("GET", "/malquery/entities/requests/v1?ids=x", Vec::new())
        };
        let mut differs = Vec::new();
        if status < 400 && u64::from(given.status.as_u16()) != status {
            differs.push(format!("the status is {}, not {status}", given.status));
        }
        let media_type = response["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|header| header[0] == "content-type")
            .and_then(|header| header[1].as_str());
        if status < 400 && media_type.is_some_and(|media_type| media_type != given.media_type) {
            differs.push(format!(
                "the media type is {}, not {media_type:?}",
                given.media_type
            ));
        }
        if recorded.is_null() {
            let recorded = bytes(&response["body"]);
            if recorded.get(..2) == Some(b"PK") && given.body.get(..2) != Some(b"PK") {
                differs.push("it is no archive".into());
            }
        } else {
            let given: Value = serde_json::from_slice(&given.body).unwrap_or_default();
            differences(recorded, &given, "", &mut differs);
            if given.is_null() {
                differs.push("it is no JSON".into());
            }
            if recorded["meta"]["status"] != given["meta"]["status"] {
                differs.push(format!("/meta/status is {}", given["meta"]["status"]));
            }
        }
        let (name, id) = (cassette.display(), &interaction["id"]);
        found.extend(
            differs
                .iter()
                .map(|differs| format!("{name}: {id}: {differs}")),
        );
    }
    found
}

#[test]
fn every_recorded_request_gets_a_reply_of_the_same_shape() {
    let mut checked = 0;
    let mut found = Vec::new();
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                found.extend(check(&path));
                checked += 1;
            }
        }
    }
    assert!(checked > 0);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn other_shapes_are_found() {
    let differs = |recorded: Value, given: Value| {
        let mut found = Vec::new();
        differences(&recorded, &given, "", &mut found);
        found
    };
    let recorded = json!({"meta": {"reqid": "a", "query_time": 0.1}, "resources": [{"filesize": 1}], "errors": null});
    assert!(differs(recorded.clone(), recorded.clone()).is_empty());
    let given = json!({"meta": {"query_time": "1", "new": 1}, "resources": [{"filesize": 2}, {"filesize": "3"}]});
    assert_eq!(
        differs(recorded.clone(), given),
        [
            "/meta/new was not recorded",
            "/meta/query_time is \"1\", not like 0.1",
            "/meta/reqid is missing",
            "/resources/*/filesize is \"3\", not like 1",
        ]
    );
    let given = json!({"meta": {"reqid": "a", "query_time": 1}, "resources": []});
    assert_eq!(
        differs(recorded, given),
        ["/resources has 0 elements, not 1"]
    );
}

#[test]
fn the_whole_way_over_sockets() {
    let service = Service::new(Corpus::from_bytes([
        b"hello world".to_vec(),
        b"hello night".to_vec(),
    ]));
    let server = Server::start(service.clone(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let base: BaseUrl = server.url().parse().unwrap();
    let credentials = Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET);
    let client = Client::new(base, credentials);
    let hello = || [Pattern::ascii("hello").unwrap()];
    let soon = Duration::from_millis(5);

    assert_eq!(
        client
            .fuzzy_search(&FuzzySearch::new(hello()).limit(1))
            .unwrap()
            .resources
            .len(),
        1
    );
    let found = client
        .exact_search(&ExactSearch::new(hello()))
        .unwrap()
        .interval(soon)
        .wait()
        .unwrap();
    let samples: Vec<Sha256> = found
        .resources
        .iter()
        .map(|found| found.sha256.unwrap())
        .collect();
    assert_eq!(samples.len(), 2);
    let rule = "rule night { strings: $a = \"night\" condition: $a }";
    let hunted = client
        .hunt(&Hunt::new(rule))
        .unwrap()
        .interval(soon)
        .wait()
        .unwrap();
    assert_eq!(hunted.resources.len(), 1);
    assert!(client.metadata(samples.clone()).unwrap().missing.is_empty());

    let mut job = client
        .samples_multidownload(samples.clone())
        .unwrap()
        .interval(soon);
    job.wait().unwrap();
    let mut archive = Vec::new();
    client
        .samples(job.id())
        .unwrap()
        .output
        .read_to_end(&mut archive)
        .unwrap();
    let mut archive = Archive::open(Cursor::new(archive))
        .unwrap()
        .expect_samples(samples.clone());
    assert!(archive.check().unwrap().is_complete());
    for sample in &samples {
        let mut bytes = Vec::new();
        client
            .download(*sample)
            .unwrap()
            .output
            .read_to_end(&mut bytes)
            .unwrap();
        assert!(bytes.starts_with(b"hello "));
    }
    let quotas = client.quotas().unwrap();
    assert_eq!(
        (quotas.meta.hunt_count, quotas.meta.download_count),
        (Some(1), Some(4))
    );
    client.revoke().unwrap();
    assert_eq!(service.counts().tokens, 1);
}
