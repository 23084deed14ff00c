//! The contract of the `malquery` command line: what it prints, writes and exits with, offline and against a
//! server on a real socket.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{fs, io, thread};

use malquery_mock::Cassette;
use malquery_proto::Transport;
use serde_json::{Value, json};
use tempfile::TempDir;

const A: &str = "f599015c08658c5b730d3394cdb55cee238a8d82508a179b860fc201cde95e18";
const SEARCH: &str = "11111111-2222-6ea1-5f4f-000000000001";
const ARCHIVE: &str = "11111111-2222-6ea1-5f4f-000000000002";

/// What a run of the command line left.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Refused by the parser of the command line, which has more to say than a line.
    fn error_of_usage(&self) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (2, ""),
            "{}",
            self.stderr
        );
    }

    /// The one line that says what went wrong; nothing is printed on standard output then.
    fn error(&self, code: i32) -> &str {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (code, ""),
            "{}",
            self.stderr
        );
        let lines: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(lines.len(), 1, "{}", self.stderr);
        lines[0]
    }
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_malquery").into()
}

fn command(args: &[&str]) -> Command {
    let mut command = without_settings(Command::new(program()));
    command.args(args);
    command
}

fn without_settings(mut command: Command) -> Command {
    for name in [
        "CLIENT_ID",
        "CLIENT_SECRET",
        "CLOUD",
        "BASE_URL",
        "MEMBER_CID",
    ] {
        command.env_remove(format!("FALCON_{name}"));
    }
    command
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// On recorded replies.
fn offline(args: &[&str]) -> Run {
    run(command(&[
        "--replay",
        concat!(env!("CARGO_MANIFEST_DIR"), "/cassettes/offline.json"),
    ])
    .args(args))
}

/// Without credentials or anything else: over the files that ship with the examples.
fn demo(args: &[&str]) -> Run {
    run(&mut command(args))
}

/// A reply of the server: status, headers, body.
type Answer = (u16, Vec<(String, String)>, Vec<u8>);

fn answer(status: u16, body: Value) -> Answer {
    (
        status,
        vec![("content-type".into(), "application/json".into())],
        body.to_string().into_bytes(),
    )
}

/// A server on loopback that takes down what it is asked.
struct Server {
    http: Arc<tiny_http::Server>,
    base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(mut reply: impl FnMut(http::Request<Vec<u8>>) -> Answer + Send + 'static) -> Self {
        let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let base = format!("http://{}/prefix", http.server_addr());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (server, log) = (http.clone(), asked.clone());
        thread::spawn(move || {
            for mut incoming in server.incoming_requests() {
                let path = incoming
                    .url()
                    .strip_prefix("/prefix")
                    .unwrap_or("not the prefix")
                    .to_owned();
                log.lock()
                    .unwrap()
                    .push(format!("{} {path}", incoming.method()));
                let mut request = http::Request::builder()
                    .method(incoming.method().as_str())
                    .uri(&path)
                    .body(Vec::new())
                    .unwrap();
                for header in incoming.headers() {
                    let name: http::HeaderName = header.field.as_str().as_str().parse().unwrap();
                    request
                        .headers_mut()
                        .append(name, header.value.as_str().parse().unwrap());
                }
                io::copy(incoming.as_reader(), request.body_mut()).unwrap();
                let (status, headers, body) = reply(request);
                let mut response = tiny_http::Response::from_data(body).with_status_code(status);
                for (name, value) in headers {
                    response.add_header(tiny_http::Header::from_bytes(name, value).unwrap());
                }
                let _ = incoming.respond(response);
            }
        });
        Self { http, base, asked }
    }

    /// Answers with the cassette that ships with the examples.
    fn with_cassette() -> Self {
        let mock = Cassette::load(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/cassettes/offline.json"
        ))
        .unwrap()
        .transport();
        Self::start(move |request| {
            let (head, mut body) = mock.send(request).unwrap().into_parts();
            let mut bytes = Vec::new();
            io::copy(&mut body, &mut bytes).unwrap();
            let headers = head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            (head.status.as_u16(), headers.collect(), bytes)
        })
    }

    /// Gives out a token, and then these answers.
    fn with_answers(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        Self::start(move |request| match request.uri().path() {
            "/oauth2/token" => answer(201, json!({"access_token": "t0ken", "expires_in": 1799})),
            _ => answers.pop_front().unwrap_or_else(|| {
                answer(418, json!({"errors": [{"message": "no answer is left"}]}))
            }),
        })
    }

    fn run(&self, args: &[&str]) -> Run {
        run(command(&["--base-url", &self.base])
            .args(args)
            .env("FALCON_CLIENT_ID", "an-id")
            .env("FALCON_CLIENT_SECRET", "s3cret"))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
    }
}

/// Reads a whole request. To a server that answers before, and closes, the rest is a broken connection.
fn read_request(stream: &std::net::TcpStream) {
    use io::{BufRead, Read};
    let mut reader = io::BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink()).unwrap();
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn in_folder(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// What a folder holds, hidden files included.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every command with a JSON reply, with what the cassette has for it.
const JSON_COMMANDS: [&[&str]; 10] = [
    &["quotas"],
    &[
        "fuzzy-search",
        "--pattern",
        "ascii:CrowdStrike",
        "--limit",
        "3",
    ],
    &["exact-search", "--pattern", "ascii:CrowdStrike"],
    &[
        "exact-search",
        "--pattern",
        "ascii:CrowdStrike",
        "--limit",
        "3",
        "--wait",
        "--poll-interval",
        "0.01",
    ],
    &[
        "hunt",
        "--rule",
        concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar"),
    ],
    &[
        "hunt",
        "--rule",
        concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar"),
        "--wait",
        "--poll-interval",
        "0.01",
    ],
    &["request", SEARCH],
    &["request", SEARCH, "--wait", "--poll-interval", "0.01"],
    &["metadata", A],
    &[
        "multidownload",
        A,
        "5eaab9f8a0f97240a9388ebdcf7e9c692dd1bc8764962bf354ed05506eecac77",
        "53aa078d114019465100a6f1a11cfa1338db0f209db33f3c7711ade2bfcba1f6",
        "--wait",
        "--poll-interval",
        "0.01",
    ],
];

#[test]
fn every_json_command_prints_one_document_offline_and_the_same_from_a_server() {
    for args in JSON_COMMANDS {
        let replayed = offline(args);
        let document = replayed.json();
        assert!(
            ["meta", "resources", "errors"]
                .iter()
                .all(|name| document.get(name).is_some()),
            "{document}"
        );
        let server = Server::with_cassette();
        let served = server.run(args);
        assert_eq!(served.json(), document, "{args:?}");
        assert_eq!(
            served
                .stderr
                .replace(&format!(" --base-url {}", server.base), ""),
            replayed.stderr
        );
    }
}

#[test]
fn downloads_give_files_and_say_what_they_are() {
    for run in [offline as fn(&[&str]) -> Run, |args| {
        Server::with_cassette().run(args)
    }] {
        let out = folder();
        let target = in_folder(&out, "sample.bin");
        let document = run(&["download", A, "--output", &target]).json();
        assert_eq!(document, json!({"path": target, "bytes": 103, "sha256": A}));
        assert_eq!(fs::read(&target).unwrap().len(), 103);
        let target = in_folder(&out, "samples.zip");
        let document = run(&["samples", ARCHIVE, "--output", &target]).json();
        assert_eq!(document["bytes"], fs::metadata(&target).unwrap().len());
        assert_eq!(names(&out), ["sample.bin", "samples.zip"]);
        let folder = in_folder(&out, "new");
        let document = run(&[
            "samples",
            ARCHIVE,
            "--output",
            &target,
            "--force",
            "--extract",
            &folder,
        ])
        .json();
        assert_eq!(document["contents"]["damaged"], json!([]));
        assert_eq!(document["contents"]["files"].as_array().unwrap().len(), 3);
        assert_eq!(document["bytes"], fs::metadata(&target).unwrap().len());
        assert_eq!(names(&folder).len(), 3);
        assert_eq!(fs::metadata(Path::new(&folder).join(A)).unwrap().len(), 103);
    }
}

#[test]
fn collect_does_the_whole_job() {
    for server in [None, Some(Server::with_cassette())] {
        let out = folder();
        let target = in_folder(&out, "new/folder");
        let args = [
            "collect",
            "--pattern",
            "ascii:CrowdStrike",
            "--limit",
            "3",
            "--output-dir",
            &target,
            "--poll-interval",
            "0.01",
        ];
        let document = server
            .as_ref()
            .map_or_else(|| offline(&args), |server| server.run(&args))
            .json();
        assert_eq!(document["samples"].as_array().unwrap().len(), 3);
        assert_eq!(
            (&document["search"], &document["download"]),
            (&json!(SEARCH), &json!(ARCHIVE))
        );
        assert_eq!(document["contents"]["missing"], json!([]));
        // Each sample under its SHA-256, beside the archive.
        let mut files: Vec<_> = document["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sample| sample.as_str().unwrap())
            .collect();
        files.push("samples.zip");
        files.sort();
        assert_eq!(names(&target), files);
        assert!(
            fs::read(Path::new(&target).join("samples.zip"))
                .unwrap()
                .starts_with(b"PK")
        );
        assert_eq!(fs::metadata(Path::new(&target).join(A)).unwrap().len(), 103);
        if let Some(server) = &server {
            let asked = server.asked();
            let submissions = asked
                .iter()
                .filter(|line| line.starts_with("POST /malquery"))
                .count();
            assert_eq!(submissions, 2, "{asked:?}");
        }
    }
}

#[test]
fn nothing_received_is_left_out() {
    let reply = json!({
        "meta": {"trace_id": "t", "query_time": 1.27e-7, "new": {"a": [1, null]}},
        "resources": [{"sha256": A, "label": "odd", "filetype": "PE32", "family": null, "score": 0.5, "tags": []}],
        "more": true,
    });
    let mut expected = reply.clone();
    expected["errors"] = json!([]);
    assert_eq!(
        Server::with_answers([answer(200, reply)])
            .run(&["metadata", A])
            .json(),
        expected
    );
}

#[test]
fn invalid_input_is_refused_before_anything_is_sent() {
    let server = Server::with_answers([]);
    let out = folder();
    let existing = in_folder(&out, "existing");
    fs::write(&existing, "mine").unwrap();
    let empty = in_folder(&out, "empty.yar");
    fs::write(&empty, " \n").unwrap();
    let missing = in_folder(&out, "missing/file");
    let cases: [&[&str]; 27] = [
        &[],
        &["quota"],
        &["quotas", "--cloud", "us-9"],
        &["quotas", "--timeout", "-1"],
        &["quotas", "--timeout", "nan"],
        &["quotas", "--timeout", "soon"],
        &["fuzzy-search"],
        &["fuzzy-search", "--pattern", "hex:123"],
        &["fuzzy-search", "--pattern", "hex:12 34"],
        &["fuzzy-search", "--pattern", "ascii:"],
        &["fuzzy-search", "--pattern", "text:a"],
        &["fuzzy-search", "--pattern", "ascii:a", "--limit", "0"],
        &[
            "exact-search",
            "--pattern",
            "ascii:a",
            "--min-date",
            "2024-01-01",
        ],
        &[
            "exact-search",
            "--pattern",
            "ascii:a",
            "--min-date",
            "2024/02/30",
        ],
        &[
            "exact-search",
            "--pattern",
            "ascii:a",
            "--min-date",
            "2024/02/02",
            "--max-date",
            "2024/02/01",
        ],
        &[
            "exact-search",
            "--pattern",
            "ascii:a",
            "--min-size",
            "2mb",
            "--max-size",
            "1mb",
            "--wait",
        ],
        &["hunt", "--rule", &missing],
        &["hunt", "--rule", &empty],
        &["hunt", "--rule", &empty, "--wait"],
        &["request", ""],
        &["metadata", "f599"],
        &["download", A, "--output", &existing],
        &["download", A, "--output", &missing],
        &["download", A, "--output", "-"],
        &["samples", ARCHIVE, "--output", "-"],
        &["samples", ARCHIVE, "--output", out.path().to_str().unwrap()],
        &["collect", "--pattern", "ascii:a", "--output-dir", &existing],
    ];
    for args in cases {
        let run = server.run(args);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (2, ""),
            "{args:?}: {}",
            run.stderr
        );
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(fs::read(&existing).unwrap(), b"mine");
    assert_eq!(names(&out), ["empty.yar", "existing"]);

    let message = |args: &[&str]| server.run(args).error(2).to_owned();
    assert_eq!(
        message(&["download", A, "--output", &existing]),
        format!("error: {existing} exists; give --force to replace it")
    );
    let no_folder = format!("error: there is no folder {}", in_folder(&out, "missing"));
    assert_eq!(message(&["download", A, "--output", &missing]), no_folder);
    assert_eq!(
        message(&["exact-search", "--pattern", "ascii:a", "--state", &missing]),
        no_folder
    );
    assert_eq!(
        message(&["hunt", "--rule", &empty]),
        format!("error: {empty}:1:1: there is no rule")
    );
    assert_eq!(
        message(&["hunt", "--rule", &empty, "--no-check-rule"]),
        "error: the YARA rule is empty"
    );
}

#[test]
fn what_a_command_costs_is_said_before() {
    let help = |command: &str| {
        demo(&[command, "--help"])
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let collect = help("collect");
    assert!(
        collect.contains("Costs a download for each sample, and with --rule a hunt."),
        "{collect}"
    );
    assert!(
        collect.contains("Without --limit everything that is found is downloaded"),
        "{collect}"
    );
    assert!(
        collect.contains("A hunt may take an hour: --timeout 3600"),
        "{collect}"
    );
    let serve = help("serve");
    for setting in [
        "FALCON_BASE_URL",
        "FALCON_CLIENT_ID",
        "FALCON_CLIENT_SECRET",
    ] {
        assert!(serve.contains(&format!("{setting}=...")), "{serve}");
    }
}

#[test]
fn settings_that_are_half_set_or_wrong_are_refused() {
    let refused = |pairs: &[(&str, &str)], args: &[&str]| {
        let run = run(command(args).envs(pairs.iter().copied()));
        run.error(2).to_owned()
    };
    assert!(
        refused(&[("FALCON_CLIENT_ID", "an-id")], &["quotas"]).contains("FALCON_CLIENT_SECRET")
    );
    assert!(
        refused(&[("FALCON_CLIENT_SECRET", "s3cret")], &["quotas"]).contains("FALCON_CLIENT_ID")
    );
    let both = [
        ("FALCON_CLIENT_ID", "an-id"),
        ("FALCON_CLIENT_SECRET", "s3cret"),
    ];
    let with = |name, value| [both[0], both[1], (name, value)];
    assert!(refused(&with("FALCON_CLOUD", "mars-1"), &["quotas"]).contains("mars-1"));
    assert!(refused(&with("FALCON_BASE_URL", "http://10.0.0.1"), &["quotas"]).contains("https"));
    assert!(
        refused(&[], &["--replay", "/no/such/cassette.json", "quotas"])
            .contains("/no/such/cassette.json")
    );
}

#[test]
fn an_option_beats_the_environment() {
    let server = Server::with_cassette();
    let run = run(command(&["quotas", "--base-url", &server.base])
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret")
        .env("FALCON_CLOUD", "nonsense")
        .env("FALCON_BASE_URL", "nonsense"));
    run.json();
}

#[test]
fn an_error_is_one_line_with_status_message_trace_id_and_hint() {
    let body = json!({"meta": {"trace_id": "trace-7"}, "errors": [{"code": 403, "message": "access denied, authorization failed"}]});
    let run = Server::with_answers([answer(403, body)]).run(&["quotas"]);
    assert_eq!(
        run.error(1),
        "error: GetMalQueryQuotasV1 answered 403 Forbidden: access denied, authorization failed (trace id trace-7); hint: \
         the API client lacks the scope malquery:read, the address you send from is not on its allowlist, or the \
         member CID is wrong"
    );
}

/// A caret is of use only below what it points at; but nothing from elsewhere looks like a message of ours, or steers the
/// terminal.
#[test]
fn lines_of_the_service_stay_lines_and_are_indented() {
    let message = "line 1, column 3:\r\n  ab\n    ^\n\nerror: \u{1b}[2Jforged";
    let error = json!({"errors": [{"code": 400, "message": message}]});
    let run = Server::with_answers([answer(400, error)]).run(&["quotas"]);
    let shown = "error: GetMalQueryQuotasV1 answered 400 Bad Request: line 1, column 3:\n    ab\n      ^\n  error:  [2Jforged\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, shown));
    let done = json!({"meta": {"status": "done"}, "resources": [{}], "errors": [{"message": "one\nerror: two"}]});
    let run = Server::with_answers([answer(200, done)]).run(&["request", "r-1", "--wait"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (0, "warning: one\n  error: two\n")
    );
}

#[test]
fn what_differs_from_a_cassette_is_shown_with_what_to_do() {
    let run = offline(&["fuzzy-search", "--pattern", "ascii:other"]);
    assert!(
        run.error(1).ends_with("offline.json answers the request"),
        "{}",
        run.stderr
    );
    let differs = "\n    body          differs\n      /patterns/0/value: \"CrowdStrike\" in the cassette, \"other\" in the request\n";
    assert!(run.stderr.contains(differs), "{}", run.stderr);
    let fix = "\n  to fix it: record it anew, with `--record FILE --force` in place of --replay\n";
    assert!(
        run.stderr.ends_with(fix) && !run.stderr.contains("MALQUERY_MOCK"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_service_that_is_not_there_is_an_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let run = run(command(&[
        "--base-url",
        &format!("http://127.0.0.1:{port}"),
        "--timeout",
        "1",
        "quotas",
    ])
    .env("FALCON_CLIENT_ID", "an-id")
    .env("FALCON_CLIENT_SECRET", "s3cret"));
    assert!(run.error(1).contains("refused"), "{}", run.stderr);
}

#[test]
fn a_hunt_that_may_have_arrived_is_sent_once() {
    let server = Server::with_answers([answer(
        500,
        json!({"errors": [{"code": 500, "message": "oops"}]}),
    )]);
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let run = server.run(&["hunt", "--rule", rule, "--wait"]);
    assert!(
        run.error(1).contains("it was not sent again"),
        "{}",
        run.stderr
    );
    assert_eq!(
        server.asked(),
        ["POST /oauth2/token", "POST /malquery/queries/hunt/v1"]
    );
}

#[test]
fn a_job_that_fails_or_takes_too_long_is_an_error_that_says_how_to_go_on() {
    let status = |word: &str| {
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": word}, "resources": []}),
        )
    };
    let run = Server::with_answers([status("inprogress"), status("failed")]).run(&[
        "request",
        "r-1",
        "--wait",
        "--poll-interval",
        "0.01",
    ]);
    assert!(run.error(1).contains("the job failed"), "{}", run.stderr);

    let run = Server::with_answers((0..1000).map(|_| status("inprogress"))).run(&[
        "request",
        "r-1",
        "--wait",
        "--poll-interval",
        "0.05",
        "--timeout",
        "0.5",
    ]);
    assert!(run.error(1).contains("time"), "{}", run.stderr);
    assert!(run.stderr.contains(" request r-1 --wait"), "{}", run.stderr);
}

#[test]
fn what_the_service_does_not_know_is_not_to_be_asked_for_again() {
    let out = folder();
    let (target, folder) = (in_folder(&out, "samples.zip"), in_folder(&out, "out"));
    for args in [
        &["request", "r-1", "--wait"][..],
        &["samples", "r-1", "--output", &target],
        &["samples", "r-1", "--output", &target, "--extract", &folder],
        &["collect", "--request", "r-1", "--output-dir", &folder],
    ] {
        for status in [400, 404] {
            let gone = json!({"errors": [{"code": status, "message": "there is no such job"}]});
            let run = Server::with_answers([answer(status, gone)]).run(args);
            assert!(run.error(1).contains("there is no such job"));
            assert!(
                !run.stderr.contains("malquery --base-url"),
                "{}",
                run.stderr
            );
        }
    }
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_search_without_hits_says_so() {
    let done = || {
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        )
    };
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    for args in [
        &["fuzzy-search", "--pattern", "ascii:a"][..],
        &["exact-search", "--pattern", "ascii:a", "--wait"],
        &["hunt", "--rule", rule, "--wait"],
    ] {
        let run = Server::with_answers([done(), done()]).run(args);
        run.json();
        assert!(
            run.stderr.ends_with("nothing was found\n"),
            "{}",
            run.stderr
        );
    }
    // An archive has no results.
    let server = Server::with_answers([done(), done()]);
    let run = server.run(&["multidownload", A, "--wait"]);
    run.json();
    let fetch = format!(
        "fetch it with: malquery --base-url {} samples r-1 --output FILE\n",
        server.base
    );
    assert!(
        run.stderr.ends_with(&fetch) && !run.stderr.contains("nothing was found"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_download_that_is_not_what_was_asked_for_leaves_nothing() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    let bytes = |body: &[u8]| (200, vec![], body.to_vec());
    let run =
        Server::with_answers([bytes(b"other bytes")]).run(&["download", A, "--output", &target]);
    assert!(run.error(1).contains("have the SHA-256"), "{}", run.stderr);
    let run = Server::with_answers([bytes(b"{\"errors\": []}")])
        .run(&["samples", "r-1", "--output", &target]);
    assert!(run.error(1).contains("not a zip archive"), "{}", run.stderr);
    let run = Server::with_answers([answer(
        404,
        json!({"errors": [{"code": 404, "message": "not here"}]}),
    )])
    .run(&["download", A, "--output", &target]);
    assert!(run.error(1).contains("not here"), "{}", run.stderr);
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_download_that_breaks_off_is_begun_anew() {
    let out = folder();
    let target = in_folder(&out, "samples.zip");
    // tiny_http does not send less than it declares, so this is the work of a server by hand
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let empty = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    thread::spawn(move || {
        use std::io::Write;
        for (status, body, declared) in [
            ("201 Created", br#"{"access_token": "t"}"#.as_slice(), 21),
            ("200 OK", &empty[..9], 22),
            ("200 OK", empty.as_slice(), 22),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&stream);
            write!(
                stream,
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {declared}\r\n\r\n"
            )
            .unwrap();
            stream.write_all(body).unwrap();
        }
    });
    let run = run(
        command(&["--base-url", &base, "samples", "r-1", "--output", &target])
            .env("FALCON_CLIENT_ID", "an-id")
            .env("FALCON_CLIENT_SECRET", "s3cret"),
    );
    assert_eq!(run.json()["bytes"], 22);
    assert_eq!(fs::read(&target).unwrap(), empty);
}

#[test]
fn force_replaces_a_file_only_by_a_whole_one() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    fs::write(&target, "mine").unwrap();
    let broken = Server::with_answers([(200, vec![], b"other bytes".to_vec())]);
    broken
        .run(&["download", A, "--output", &target, "--force"])
        .error(1);
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    offline(&["download", A, "--output", &target, "--force"]).json();
    assert_eq!(fs::read(&target).unwrap().len(), 103);
    assert_eq!(names(&out), ["sample.bin"]);
}

#[cfg(unix)]
#[test]
fn a_sample_is_for_its_owner_and_not_to_be_executed() {
    use std::os::unix::fs::PermissionsExt;
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    offline(&["download", A, "--output", &target]).json();
    assert_eq!(
        fs::metadata(&target).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_search_without_results_costs_no_download() {
    let out = folder();
    let server = Server::with_answers([
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
    ]);
    let run = server.run(&[
        "collect",
        "--pattern",
        "ascii:a",
        "--output-dir",
        &in_folder(&out, "out"),
    ]);
    assert_eq!(run.json()["samples"], json!([]));
    assert!(run.stderr.contains("nothing was found"));
    assert_eq!(server.asked().len(), 3);
    assert_eq!(names(&out), [""; 0]);

    let server = Server::with_answers([
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"label": "malware"}]}),
        ),
    ]);
    let run = server.run(&[
        "collect",
        "--pattern",
        "ascii:a",
        "--output-dir",
        &in_folder(&out, "out"),
    ]);
    assert_eq!(
        run.error(1),
        "error: none of the 1 results has a SHA-256 to download it by"
    );
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_paid_download_that_is_not_fetched_says_how_to_fetch_it() {
    let out = folder();
    let server = Server::with_answers([
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"sha256": A}, {"sha256": A}]}),
        ),
        answer(
            200,
            json!({"meta": {"reqid": "r-2", "status": "done"}, "resources": []}),
        ),
        answer(
            200,
            json!({"meta": {"reqid": "r-2", "status": "done"}, "resources": []}),
        ),
        answer(
            404,
            json!({"errors": [{"code": 404, "message": "Could not find sample archive"}]}),
        ),
    ]);
    let target = in_folder(&out, "out");
    let run = server.run(&["collect", "--pattern", "ascii:a", "--output-dir", &target]);
    assert!(run.error(1).contains("Could not find sample archive"));
    assert!(
        run.stderr.contains(&format!(
            " samples r-2 --output {target}/samples.zip --extract {target}\n"
        )),
        "{}",
        run.stderr
    );
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn an_output_that_cannot_be_written_is_found_out_before_it_is_paid_for() {
    let out = folder();
    let server = Server::with_answers([]);
    for target in [
        "new/",
        "new/.",
        "new/file",
        &"x".repeat(300),
        "/dev/null",
        ".",
    ] {
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            in_folder(&out, target)
        };
        let run = server.run(&["download", A, "--force", "--output", &target]);
        assert_eq!(run.code, 2, "{target}: {}", run.stderr);
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(names(&out), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_unicode_is_written_all_the_same() {
    use std::os::unix::ffi::OsStringExt;
    let out = folder();
    let target = out
        .path()
        .join(std::ffi::OsString::from_vec(b"s\xff".to_vec()));
    let run = run(command(&["download", A, "--output"]).arg(&target));
    assert_eq!(run.json()["bytes"], 103);
    assert_eq!(fs::read(&target).unwrap().len(), 103);
}

#[test]
fn a_request_id_is_told_even_if_standard_output_is_full() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return;
    };
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let cassette = concat!(env!("CARGO_MANIFEST_DIR"), "/cassettes/offline.json");
    let output = command(&["hunt", "--rule", rule, "--replay", cassette])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("the request id is 11111111-2222-6ea1-5f4f-000000000003"),
        "{stderr}"
    );
    assert!(
        stderr.contains("error: standard output could not be written"),
        "{stderr}"
    );
}

#[test]
fn a_named_service_without_credentials_is_no_reason_to_run_offline() {
    for option in [
        ["--cloud", "us-2"],
        ["--base-url", "http://127.0.0.1:1"],
        ["--member-cid", "x"],
    ] {
        let run = demo(&[option[0], option[1], "quotas"]);
        assert!(run.error(2).contains("FALCON_CLIENT_ID"), "{}", run.stderr);
    }
    demo(&[
        "--cloud",
        "us-2",
        "quotas",
        "--base-url",
        "http://127.0.0.1:1",
    ])
    .error(2);
}

#[test]
fn a_job_is_taken_up_again_from_its_state() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let job = |word: &str| {
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": word}, "resources": []}),
        )
    };
    let server = Server::with_answers([job("done"), job("inprogress"), answer(403, json!({}))]);
    let interrupted = server.run(&[
        "hunt",
        "--rule",
        rule,
        "--state",
        &state,
        "--poll-interval",
        "0.01",
    ]);
    assert!(
        interrupted.stderr.contains(&format!(
            "go on with: malquery --base-url {} resume {state}\n",
            server.base
        )),
        "{}",
        interrupted.stderr
    );
    interrupted.error(1);
    let stored = fs::read_to_string(&state).unwrap();
    assert!(
        stored.contains("r-1") && !stored.contains("CrowdStrike") && !stored.contains("s3cret"),
        "{stored}"
    );

    // it does not take the place of another job
    server
        .run(&["hunt", "--rule", rule, "--state", &state])
        .error(2);
    let server = Server::with_answers([job("inprogress"), job("done")]);
    assert_eq!(
        server
            .run(&["resume", &state, "--poll-interval", "0.01"])
            .json()["meta"]["status"],
        "done"
    );
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|line| line.starts_with("GET"))
            .count(),
        2
    );
    assert_eq!(names(&out), ["state.json"]);
    fs::write(&state, "{}").unwrap();
    assert!(
        server
            .run(&["resume", &state])
            .error(2)
            .contains("is no state of a job")
    );
}

/// The replies of a service from a submission to an archive.
fn collecting(found: &[&str], archive: &'static [u8]) -> Vec<Answer> {
    let job = |id: &str, word: &str, found: &[&str]| {
        let resources: Vec<_> = found
            .iter()
            .map(|sha256| json!({"sha256": sha256}))
            .collect();
        answer(
            200,
            json!({"meta": {"reqid": id, "status": word}, "resources": resources}),
        )
    };
    vec![
        job("r-1", "done", &[]),
        job("r-1", "inprogress", &[]),
        job("r-1", "done", found),
        job("r-2", "done", &[]),
        job("r-2", "done", &[]),
        (
            200,
            vec![("content-type".into(), "application/zip".into())],
            archive.to_vec(),
        ),
    ]
}

/// An archive with `HELLO` and three others.
const SEVERAL: &[u8] =
    include_bytes!("../../../malquery-proto/tests/archives/zipcrypto-several.zip");
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn collect_says_what_is_missing_and_keeps_the_rest() {
    let out = folder();
    let target = in_folder(&out, "out");
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let server = Server::with_answers(collecting(&[HELLO, A], SEVERAL));
    let run = server.run(&[
        "collect",
        "--rule",
        rule,
        "--limit",
        "2",
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
    ]);
    // It is not done, and yet there is something to show.
    assert_eq!(run.code, 1);
    let error = "error: the archive is not complete: samples missing: 1, entries damaged: 0";
    assert_eq!(run.stderr.lines().last(), Some(error));
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["contents"]["missing"], json!([A]));
    assert_eq!(document["contents"]["files"][0]["sha256"], HELLO);
    assert_eq!(
        document["contents"]["unexpected"].as_array().unwrap().len(),
        3
    );
    assert!(
        run.stderr
            .contains(&format!("warning: {A} is not in the archive")),
        "{}",
        run.stderr
    );
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert!(
        server
            .asked()
            .iter()
            .any(|line| line == "POST /malquery/queries/hunt/v1")
    );
    // In the archive alone.
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    let target = in_folder(&out, "other");
    let document = server
        .run(&[
            "collect",
            "--pattern",
            "ascii:a",
            "--no-extract",
            "--poll-interval",
            "0.01",
            "--output-dir",
            &target,
        ])
        .json();
    assert_eq!(document["contents"]["files"][0]["path"], Value::Null);
    assert_eq!(names(&target), ["samples.zip"]);
}

#[test]
fn a_collect_is_taken_up_again_from_its_state() {
    let out = folder();
    let (state, target) = (in_folder(&out, "state.json"), in_folder(&out, "out"));
    let args = [
        "collect",
        "--pattern",
        "ascii:s3arch",
        "--state",
        &state,
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
    ];
    let mut answers = collecting(&[HELLO], SEVERAL);
    let archive = answers.pop().unwrap();
    answers.push(answer(
        404,
        json!({"errors": [{"code": 404, "message": "Could not find sample archive"}]}),
    ));
    let server = Server::with_answers(answers);
    let run = server.run(&args);
    let hint = format!(
        "go on with: malquery --base-url {} resume {state}\n",
        server.base
    );
    assert!(run.stderr.contains(&hint), "{}", run.stderr);
    run.error(1);
    let stored = fs::read_to_string(&state).unwrap();
    assert!(
        stored.contains("r-2") && !stored.contains("s3arch") && !stored.contains("s3cret"),
        "{stored}"
    );
    // It does not take the place of another.
    Server::with_answers([]).run(&args).error(2);
    // The folder that was made for it is gone, since nothing was in it.
    assert_eq!(names(&out), ["state.json"]);
    let done = answer(
        200,
        json!({"meta": {"reqid": "r-2", "status": "done"}, "resources": []}),
    );
    let server = Server::with_answers([done, archive]);
    let run = server.run(&["resume", &state]);
    assert!(!run.stderr.contains("costs a download"), "{}", run.stderr);
    let document = run.json();
    assert_eq!(
        (&document["search"], &document["download"]),
        (&json!("r-1"), &json!("r-2"))
    );
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert!(
        server
            .asked()
            .iter()
            .all(|line| !line.starts_with("POST /malquery")),
        "{:?}",
        server.asked()
    );
}

/// The state knows where its files are, wherever who goes on with it stands; and once the archive is there, nothing is
/// asked for any more.
#[test]
fn a_collect_goes_on_from_another_folder_and_without_a_request() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let credentials = [
        ("FALCON_CLIENT_ID", "an-id"),
        ("FALCON_CLIENT_SECRET", "s3cret"),
    ];
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    // Something of that name is there already, and no --force.
    fs::create_dir(out.path().join("new")).unwrap();
    fs::write(out.path().join("new").join(HELLO), "mine").unwrap();
    let mut command = command(&[
        "--base-url",
        &server.base,
        "collect",
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
    ]);
    command
        .args(["--state", "state.json", "--output-dir", "new"])
        .current_dir(&out)
        .envs(credentials);
    let stopped = run(&mut command);
    assert_eq!(stopped.code, 1);
    assert!(stopped.stderr.contains("resume"), "{}", stopped.stderr);
    assert_eq!(names(out.path().join("new")), [HELLO, "samples.zip"]);
    let asked = server.asked().len();
    let document = server.run(&["resume", &state, "--force"]).json();
    assert_eq!(document["download"], "r-2");
    assert_eq!(server.asked().len(), asked);
    assert_eq!(
        fs::read(out.path().join("new").join(HELLO)).unwrap(),
        b"hello"
    );
    // Without a state the archive can be unpacked all the same.
    let target = in_folder(&out, "other folder");
    let archive = in_folder(&out, "new/samples.zip");
    let document = demo(&["extract", &archive, "--output-dir", &target]).json();
    assert_eq!(document["contents"]["files"].as_array().unwrap().len(), 4);
    assert_eq!(names(&target).len(), 4);
    // What is not there is named once, and no folder is made for it.
    let (none, target) = (in_folder(&out, "none.zip"), in_folder(&out, "none"));
    let run = demo(&["extract", &none, "--output-dir", &target]);
    assert!(
        run.error(2)
            .starts_with(&format!("error: there is no file {none}")),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.matches(&none).count(), 1);
    assert_eq!(names(&out), ["new", "other folder", "state.json"]);
}

#[test]
fn what_a_search_found_is_not_lost_when_the_download_is_refused() {
    let out = folder();
    let target = in_folder(&out, "my out");
    let mut answers: Vec<_> = collecting(&[HELLO, A], SEVERAL)
        .into_iter()
        .take(3)
        .collect();
    answers.push(answer(
        403,
        json!({"errors": [{"code": 403, "message": "access denied, authorization failed"}]}),
    ));
    let server = Server::with_answers(answers);
    let run = server.run(&[
        "collect",
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
    ]);
    let hint = format!("collect --request r-1 --output-dir '{target}'\n");
    assert!(run.stderr.contains(&hint), "{}", run.stderr);
    run.error(1);
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL).into_iter().skip(2));
    let args = [
        "collect",
        "--request",
        "r-1",
        "--limit",
        "1",
        "--output-dir",
        &target,
    ];
    let document = server.run(&args).json();
    assert_eq!(
        (&document["search"], &document["download"]),
        (&json!("r-1"), &json!("r-2"))
    );
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
}

#[test]
fn a_state_is_not_kept_where_the_archive_goes() {
    let out = folder();
    let target = in_folder(&out, "out");
    let state = in_folder(&out, "out/samples.zip");
    let server = Server::with_answers([]);
    server
        .run(&[
            "collect",
            "--pattern",
            "ascii:a",
            "--state",
            &state,
            "--output-dir",
            &target,
        ])
        .error(2);
    assert_eq!(server.asked(), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_lookup_is_a_table_on_a_terminal_and_a_document_elsewhere() {
    let document = offline(&["lookup", A]).json();
    assert_eq!(document["resources"][0]["sha256"], A);
    // `script` gives it a terminal.
    let line = format!("{} lookup {A} {HELLO}", program().display());
    let script = without_settings(Command::new("script"))
        .args(["-qec", &line, "/dev/null"])
        .output();
    let output = script.expect("script, of util-linux");
    let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let row = format!("{A}  text    103  2024/01/15  malware  Demo");
    let head = format!(
        "{:<64}  TYPE  BYTES  FIRST SEEN  LABEL    FAMILY",
        "SHA-256"
    );
    assert!(shown.contains(&format!("{head}\n{row}\n")), "{shown}");
}

#[test]
fn a_quota_that_does_not_suffice_is_found_out_before_it_is_spent() {
    let quotas = json!({"meta": {"hunt_count": 100, "hunt_limit": 100, "download_count": 49, "download_limit": 50}});
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let other = "5eaab9f8a0f97240a9388ebdcf7e9c692dd1bc8764962bf354ed05506eecac77";
    let out = folder();
    let target = in_folder(&out, "out");
    for (args, message) in [
        (
            ["hunt", "--rule", rule].as_slice(),
            "error: hunts needed: 1, left this month: 0; the job was not submitted",
        ),
        (
            &["hunt", "--rule", rule, "--wait"],
            "error: hunts needed: 1, left this month: 0; the job was not submitted",
        ),
        (
            &["multidownload", A, other],
            "error: downloads needed: 2, left this month: 1; the job was not submitted",
        ),
        (
            &[
                "collect",
                "--rule",
                rule,
                "--limit",
                "2",
                "--output-dir",
                &target,
            ],
            "error: hunts needed: 1, left this month: 0; the job was not submitted",
        ),
    ] {
        let server = Server::with_answers([answer(200, quotas.clone())]);
        let args = [&["--check-quota"], args].concat();
        assert_eq!(server.run(&args).error(1), message);
        assert_eq!(server.asked().len(), 2);
    }
}

/// Ends a command with Ctrl-C as soon as it has come so far.
#[cfg(unix)]
fn interrupt_when(command: &mut Command, so_far: impl Fn() -> bool) -> Run {
    use std::process::Stdio;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !so_far() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        thread::sleep(std::time::Duration::from_millis(5));
    }
    // The name of the signal is enough for kill(1), and there is no other way without unsafe code.
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_the_state_of_a_job_and_says_how_to_go_on() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let job = |word: &str| {
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": word}, "resources": []}),
        )
    };
    let server = Server::with_answers([job("done"), job("inprogress")]);
    let args = [
        "--base-url",
        &server.base,
        "hunt",
        "--rule",
        rule,
        "--state",
        &state,
        "--poll-interval",
        "2",
    ];
    let mut command = command(&args);
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    let interrupted = interrupt_when(&mut command, || {
        fs::read_to_string(&state).is_ok_and(|stored| stored.contains("r-1"))
    });
    assert_eq!(interrupted.error(1), "error: interrupted");
    assert!(
        interrupted.stderr.contains(&format!(
            "go on with: malquery --base-url {} resume {state}\n",
            server.base
        )),
        "{}",
        interrupted.stderr
    );
    let server = Server::with_answers([job("done")]);
    server.run(&["resume", &state]).json();
    assert_eq!(names(&out), ["state.json"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_what_was_recorded_so_far() {
    let out = folder();
    let (state, cassette) = (
        in_folder(&out, "state.json"),
        in_folder(&out, "cassette.json"),
    );
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let job = answer(
        200,
        json!({"meta": {"reqid": "r-1", "status": "inprogress"}, "resources": []}),
    );
    let server = Server::with_answers([job.clone(), job]);
    let base = ["--base-url", &server.base, "--record", &cassette];
    let args = [
        &base[..],
        &[
            "hunt",
            "--rule",
            rule,
            "--state",
            &state,
            "--poll-interval",
            "20",
        ],
    ]
    .concat();
    let mut command = command(&args);
    command
        .env("FALCON_CLIENT_ID", "an-id-of-a-client")
        .env("FALCON_CLIENT_SECRET", "s3cret-of-it");
    let run = interrupt_when(&mut command, || {
        server
            .asked()
            .iter()
            .any(|line| line.contains("/requests/"))
            && fs::read_to_string(&state).is_ok_and(|stored| stored.contains("r-1"))
    });
    assert_eq!(run.code, 1);
    let told = format!("recorded in {cassette}\n");
    assert!(
        run.stderr.contains("error: interrupted\n") && run.stderr.contains(&told),
        "{}",
        run.stderr
    );
    let text = fs::read_to_string(&cassette).unwrap();
    assert!(
        text.contains("\"id\": \"hunt\"") && !text.contains("s3cret-of-it"),
        "{text}"
    );
    assert_eq!(names(&out), ["cassette.json", "state.json"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_half_of_a_sample() {
    use std::io::Write;
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let token = r#"{"access_token": "t"}"#;
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&stream);
        write!(
            stream,
            "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{token}",
            token.len()
        )
        .unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
            .unwrap();
        // A sample that never ends, until the client goes away.
        while stream.write_all(&[b'x'; 1000]).is_ok() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let mut command = command(&["--base-url", &base, "download", A, "--output", &target]);
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    let run = interrupt_when(&mut command, || {
        fs::read_dir(out.path())
            .unwrap()
            .any(|entry| entry.unwrap().metadata().is_ok_and(|found| found.len() > 0))
    });
    assert_eq!(run.error(1), "error: interrupted");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn the_account_is_not_followed_to_its_cloud_when_that_is_not_wanted() {
    let server = Server::start(|_| {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let location = header("location", "https://api.us-2.crowdstrike.com/oauth2/token");
        (308, vec![location, header("x-cs-region", "us-2")], vec![])
    });
    let run = server.run(&["quotas", "--no-region-redirect"]);
    assert_eq!(
        run.error(1),
        "error: oauth2AccessToken answered 308 Permanent Redirect; hint: the account lives in another cloud: set \
         FALCON_CLOUD=us-2, or name that cloud"
    );
    assert_eq!(server.asked(), ["POST /oauth2/token"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_during_a_submission_waits_for_its_id() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let server = Server::start(|request| {
        let path = request.uri().path();
        if path == "/oauth2/token" {
            return answer(201, json!({"access_token": "t0ken", "expires_in": 1799}));
        }
        assert_eq!(path, "/malquery/queries/hunt/v1");
        // long enough for the signal to arrive in between
        thread::sleep(std::time::Duration::from_secs(2));
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        )
    });
    for options in [["--state", state.as_str()].as_slice(), &[]] {
        let mut command = command(&["--base-url", &server.base, "hunt", "--rule", rule]);
        command
            .args(options)
            .env("FALCON_CLIENT_ID", "an-id")
            .env("FALCON_CLIENT_SECRET", "s3cret");
        let before = server.asked().len();
        let run = interrupt_when(&mut command, || {
            server.asked()[before..]
                .iter()
                .any(|line| line.contains("hunt"))
        });
        assert!(
            run.stderr.contains("waiting for the reply to a submission"),
            "{}",
            run.stderr
        );
        assert!(
            run.stderr.contains("the request id is r-1"),
            "{}",
            run.stderr
        );
        assert_eq!(run.code, i32::from(!options.is_empty()), "{}", run.stderr);
    }
    assert!(fs::read_to_string(&state).unwrap().contains("r-1"));
    assert_eq!(names(&out), ["state.json"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_before_a_submission_goes_out_ends_at_once() {
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let server = Server::start(|_| {
        // long enough for the signal to arrive in between
        thread::sleep(std::time::Duration::from_secs(2));
        answer(201, json!({"access_token": "t0ken", "expires_in": 1799}))
    });
    for args in [
        &["hunt", "--rule", rule][..],
        &["exact-search", "--pattern", "ascii:a"],
        &["multidownload", A],
    ] {
        let mut command = command(&["--base-url", &server.base]);
        command
            .args(args)
            .env("FALCON_CLIENT_ID", "an-id")
            .env("FALCON_CLIENT_SECRET", "s3cret");
        let before = server.asked().len();
        let run = interrupt_when(&mut command, || server.asked().len() > before);
        assert_eq!(run.error(1), "error: interrupted");
        assert!(
            run.stderr.contains("nothing was submitted\n"),
            "{}",
            run.stderr
        );
    }
    assert_eq!(server.asked(), ["POST /oauth2/token"; 3]);
}

#[cfg(unix)]
#[test]
fn a_submission_that_is_refused_is_not_sent_again_after_ctrl_c() {
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let server = Server::start(|request| {
        if request.uri().path() == "/oauth2/token" {
            return answer(201, json!({"access_token": "t0ken", "expires_in": 1799}));
        }
        thread::sleep(std::time::Duration::from_secs(2));
        answer(
            429,
            json!({"errors": [{"code": 429, "message": "API rate limit exceeded."}]}),
        )
    });
    let mut command = command(&["--base-url", &server.base, "hunt", "--rule", rule]);
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    let run = interrupt_when(&mut command, || {
        server.asked().iter().any(|line| line.contains("hunt"))
    });
    assert!(
        run.stderr.contains("waiting for the reply to a submission"),
        "{}",
        run.stderr
    );
    assert_eq!(run.error(1), "error: interrupted");
    assert!(
        run.stderr.contains("nothing was submitted\n"),
        "{}",
        run.stderr
    );
    assert_eq!(
        server.asked(),
        ["POST /oauth2/token", "POST /malquery/queries/hunt/v1"]
    );
}

#[test]
fn two_processes_do_not_go_on_with_one_job() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let server = Server::start(|request| match request.uri().path() {
        "/oauth2/token" => {
            // Until the token comes, the state says that nothing was submitted.
            thread::sleep(std::time::Duration::from_secs(2));
            answer(201, json!({"access_token": "t0ken", "expires_in": 1799}))
        }
        _ => answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
    });
    let mut first = command(&[
        "--base-url",
        &server.base,
        "hunt",
        "--rule",
        rule,
        "--state",
        &state,
    ]);
    first
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    let running = thread::spawn(move || run(&mut first));
    while server.asked().is_empty() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    for args in [
        ["resume", state.as_str()].as_slice(),
        &["hunt", "--rule", rule, "--state", &state, "--force"],
    ] {
        assert!(
            server
                .run(args)
                .error(2)
                .contains("another malquery is busy with it")
        );
    }
    running.join().unwrap().json();
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|line| line.contains("hunt"))
            .count(),
        1
    );
    assert_eq!(names(&out), ["state.json"]);
    server.run(&["resume", &state]).json();
}

#[test]
fn without_credentials_it_searches_the_files_that_ship_with_it() {
    let out = folder();
    let target = in_folder(&out, "out");
    let run = demo(&[
        "collect",
        "--pattern",
        "ascii:CrowdStrike",
        "--limit",
        "3",
        "--output-dir",
        &target,
    ]);
    assert!(
        run.stderr.contains("offline, over 8 harmless files"),
        "{}",
        run.stderr
    );
    let document = run.json();
    assert_eq!(document["contents"]["missing"], json!([]));
    assert_eq!(names(&target).len(), 4);
    // The newest comes first.
    let newest = "63b8b9f7076fc162ff8389debef083e3e8e150d46db1b8641216a8622d5b96c6";
    assert!(names(&target).contains(&newest.to_owned()));
    let found = demo(&[
        "exact-search",
        "--wait",
        "--filetype",
        "pe32",
        "--pattern",
        "wide:powershell",
    ])
    .json();
    assert_eq!(found["resources"].as_array().unwrap().len(), 1);
    assert_eq!(found["resources"][0]["family"], "Demo");
}

#[test]
fn what_outlives_a_command_is_not_promised_offline() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let target = in_folder(&out, "out");
    for args in [
        &["exact-search", "--pattern", "ascii:a", "--state", &state][..],
        &[
            "collect",
            "--pattern",
            "ascii:a",
            "--state",
            &state,
            "--output-dir",
            &target,
        ],
    ] {
        assert!(
            demo(args)
                .error(2)
                .contains("start `malquery serve`, and export the three settings")
        );
    }
    // What goes on with a job, or needs the service, is told the same.
    let tape = in_folder(&out, "tape.json");
    for args in [
        ["resume", state.as_str()].as_slice(),
        &["quotas", "--record", &tape],
    ] {
        assert!(
            demo(args)
                .error(2)
                .contains("start `malquery serve`, and export the three settings")
        );
    }
    for args in [
        &["exact-search", "--pattern", "ascii:a"][..],
        &["multidownload", A],
    ] {
        let run = demo(args);
        run.json();
        assert!(
            run.stderr
                .ends_with("give --wait, or start `malquery serve`\n"),
            "{}",
            run.stderr
        );
    }
    let archived = demo(&["multidownload", A, "--wait"]);
    archived.json();
    let hint = "use `malquery collect`, or start `malquery serve`\n";
    assert!(archived.stderr.ends_with(hint), "{}", archived.stderr);
    let mut quotas = command(&["quotas"]);
    assert!(
        run(quotas.env("FALCON_BASE_URL", "http://127.0.0.1:1"))
            .error(2)
            .contains("FALCON_CLIENT_ID")
    );
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn it_searches_the_files_of_a_folder() {
    let corpus = folder();
    fs::write(corpus.path().join("one"), b"some bytes \x00\x01\x02").unwrap();
    fs::write(corpus.path().join("other"), b"more bytes").unwrap();
    let corpus = corpus.path().to_str().unwrap();
    let found = |args: &[&str]| {
        let document = demo(&[&["--corpus", corpus], args].concat()).json();
        let names = document["resources"].as_array().unwrap().iter();
        names
            .map(|sample| sample["filesize"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found(&[
            "exact-search",
            "--wait",
            "--pattern",
            "hex:000102",
            "ascii:some"
        ]),
        [14]
    );
    assert_eq!(
        found(&["fuzzy-search", "--pattern", "ascii:bytes"]),
        [14, 10]
    );
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    fs::write(
        &rule,
        "rule more { strings: $a = \"more\" condition: $a at 0 and filesize < 11 }",
    )
    .unwrap();
    assert_eq!(found(&["hunt", "--wait", "--rule", &rule]), [10]);
    assert_eq!(
        demo(&["check-rule", &rule]).json(),
        json!({"path": rule, "rule": "more"})
    );
    // With credentials, too: who names a corpus means it.
    let mut command = command(&["--corpus", corpus, "quotas"]);
    run(command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret"))
    .json();
    demo(&["--corpus", &in_folder(&out, "none"), "quotas"]).error(2);
    demo(&["--corpus", corpus, "--replay", &rule, "quotas"]).error_of_usage();
    // It would not be asked.
    for service in [
        ["--base-url", "http://127.0.0.1:1"],
        ["--cloud", "us-2"],
        ["--member-cid", "x"],
    ] {
        let args = [&["--corpus", corpus, "quotas"], &service[..]].concat();
        assert!(demo(&args).error(2).contains("--corpus asks no service"));
    }
    let (one, none) = (folder(), folder());
    fs::write(one.path().join("one"), "bytes").unwrap();
    let said =
        |corpus: &TempDir| demo(&["--corpus", corpus.path().to_str().unwrap(), "quotas"]).stderr;
    assert!(said(&one).contains("over 1 file of "));
    let path = none.path().display();
    let empty =
        format!("warning: there is nothing to search in {path}\noffline, over 0 files of {path}\n");
    assert_eq!(said(&none), empty);
}

#[test]
fn a_rule_with_a_typo_costs_no_hunt() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    fs::write(
        &rule,
        "rule more {\n  strings: $a = \"more\"\n  condition: $b\n}",
    )
    .unwrap();
    let target = in_folder(&out, "out");
    let message = format!("error: {rule}:3:14: unknown variable $b");
    let server = Server::with_answers([]);
    for args in [
        &["check-rule", &rule][..],
        &["hunt", "--rule", &rule],
        &["collect", "--rule", &rule, "--output-dir", &target],
    ] {
        assert_eq!(server.run(args).error(2), message);
    }
    assert_eq!(server.asked(), [""; 0]);
    let shown = demo(&["check-rule", &rule]).stderr;
    assert_eq!(
        shown,
        format!("{message}\n    condition: $b\n               ^\n")
    );
    server.run(&["hunt", "--rule", &rule, "--no-check-rule"]);
    assert!(server.asked().last().unwrap().contains("hunt"));
    assert_eq!(names(&out), ["rule.yar"]);
    fs::write(
        &rule,
        "import \"vt\"\nrule a { condition: vt.metadata.file_type == 1 }",
    )
    .unwrap();
    assert_eq!(
        demo(&["check-rule", &rule]).error(2),
        format!("error: {rule}:1:1: unknown import vt; if the service knows it: --no-check-rule")
    );
}

#[cfg(unix)]
#[test]
fn the_stand_in_serves_other_programs() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let mut serving = command(&["serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let url = next();
    let settings: Vec<String> = (0..3).map(|_| next()).collect();
    assert_eq!(settings[0], format!("FALCON_BASE_URL={url}"));
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let ask = |args: &[&str]| {
        let mut command = command(args);
        run(command.envs(settings.iter().map(|line| line.split_once('=').unwrap()))).json()
    };
    // A job of one process is there for another.
    let submitted = ask(&["exact-search", "--pattern", "ascii:CrowdStrike"]);
    let id = submitted["meta"]["reqid"].as_str().unwrap();
    let done = ask(&["request", id, "--wait", "--poll-interval", "0.01"]);
    assert_eq!(done["resources"].as_array().unwrap().len(), 4);
    let out = folder();
    let target = in_folder(&out, "out");
    ask(&[
        "collect",
        "--pattern",
        "ascii:GNU",
        "--output-dir",
        &target,
        "--poll-interval",
        "0.01",
    ]);
    assert_eq!(names(&target).len(), 3);
    assert_eq!(ask(&["quotas"])["meta"]["download_count"], 2);
    assert!(
        Command::new("kill")
            .args(["-INT", &serving.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(serving.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_command_does_is_recorded_and_replayed() {
    let out = folder();
    let cassette = in_folder(&out, "tape.json");
    let job = |word: &str| {
        answer(
            200,
            json!({"meta": {"reqid": SEARCH, "status": word}, "resources": []}),
        )
    };
    let rule = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
    let hunt = ["hunt", "--rule", rule, "--wait", "--poll-interval", "0.01"];
    let server = Server::with_answers([job("done"), job("inprogress"), job("done")]);
    let recorded = server.run(&[&hunt[..], &["--record", &cassette]].concat());
    assert!(
        recorded.stderr.contains(&format!("recorded in {cassette}")),
        "{}",
        recorded.stderr
    );
    assert_eq!(recorded.json()["meta"]["reqid"], SEARCH);
    let text = fs::read_to_string(&cassette).unwrap();
    for secret in ["s3cret", "an-id", "t0ken", SEARCH] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(names(&out), ["tape.json"]);
    // Recorded time passes at once.
    let replayed = demo(&[&hunt[..4], &["--replay", &cassette]].concat());
    assert_eq!(replayed.json()["meta"]["status"], "done");

    // A request id from the command line is recognised.
    let server = Server::with_answers([job("done")]);
    server
        .run(&["request", SEARCH, "--record", &cassette])
        .error(2);
    assert_eq!(server.asked(), [""; 0]);
    server
        .run(&["request", SEARCH, "--record", &cassette, "--force"])
        .json();
    assert_eq!(
        demo(&["request", SEARCH, "--replay", &cassette]).json()["meta"]["status"],
        "done"
    );
}

#[test]
fn a_recording_that_holds_malware_says_so() {
    let out = folder();
    let (tape, target) = (in_folder(&out, "tape.json"), in_folder(&out, "out"));
    let warning = format!("warning: {tape} holds what was downloaded: raw malware\n");
    let sample = in_folder(&out, "sample");
    let zip = in_folder(&out, "samples.zip");
    let search = ["--pattern", "ascii:CrowdStrike", "--limit", "3"];
    for (args, holds) in [
        (&["download", A, "--output", &sample][..], true),
        (&["samples", ARCHIVE, "--output", &zip], true),
        (
            &[
                &[
                    "collect",
                    "--output-dir",
                    &target,
                    "--poll-interval",
                    "0.01",
                ],
                &search[..],
            ]
            .concat(),
            true,
        ),
        (&[&["fuzzy-search"], &search[..]].concat(), false),
    ] {
        let recorded =
            Server::with_cassette().run(&[args, &["--force", "--record", &tape]].concat());
        recorded.json();
        assert_eq!(
            recorded.stderr.contains(&warning),
            holds,
            "{args:?}: {}",
            recorded.stderr
        );
    }
}

#[test]
fn a_recording_that_would_hold_a_secret_is_not_written() {
    let out = folder();
    let cassette = in_folder(&out, "tape.json");
    let job = answer(
        200,
        json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
    );
    let server = Server::with_answers([job]);
    let rule = in_folder(&out, "rule.yar");
    fs::write(
        &rule,
        "rule leak { strings: $a = \"s3cret\" condition: $a }",
    )
    .unwrap();
    let run = server.run(&["hunt", "--rule", &rule, "--record", &cassette]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("/malquery/queries/hunt/v1 holds a secret of this session in its body"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    assert_eq!(names(&out), ["rule.yar"]);

    // Errors are recorded, too.
    let server = Server::with_answers([answer(
        403,
        json!({"errors": [{"code": 403, "message": "access denied"}]}),
    )]);
    server.run(&["quotas", "--record", &cassette]).error(1);
    assert!(
        demo(&["quotas", "--replay", &cassette])
            .error(1)
            .contains("access denied")
    );
    demo(&["quotas", "--replay", &cassette, "--record", &cassette]).error(2);
    assert!(
        demo(&["quotas", "--record", &in_folder(&out, "x.json")])
            .error(2)
            .contains("FALCON_CLIENT_ID")
    );
}

#[test]
fn what_comes_from_the_service_is_quoted_in_hints() {
    let id = "x;touch${IFS}pwned;#";
    let server = Server::with_answers([answer(
        200,
        json!({"meta": {"reqid": id, "status": "done"}}),
    )]);
    let run = server.run(&["exact-search", "--pattern", "ascii:abc"]);
    run.json();
    assert!(
        run.stderr.contains(&format!(" request '{id}' --wait")),
        "{}",
        run.stderr
    );
}

#[test]
fn a_hint_to_collect_keeps_what_limits_it() {
    let out = folder();
    let found =
        json!({"meta": {"status": "done"}, "resources": [{"sha256": A}, {"sha256": HELLO}]});
    let refused = || answer(403, json!({"errors": [{"code": 403, "message": "no"}]}));
    let server = Server::with_answers([answer(200, found), refused()]);
    let target = in_folder(&out, "out");
    let run = server.run(&[
        "collect",
        "--request",
        "r-1",
        "--limit",
        "1",
        "--no-extract",
        "--output-dir",
        &target,
    ]);
    run.error(1);
    let hint = format!(" collect --request r-1 --limit 1 --output-dir {target} --no-extract\n");
    assert!(run.stderr.contains(&hint), "{}", run.stderr);
}

#[test]
fn an_error_in_the_place_of_results_is_an_error() {
    let failed = || {
        answer(
            200,
            json!({"meta": {}, "resources": [], "errors": [{"code": 500, "message": "backend down"}]}),
        )
    };
    for args in [
        ["fuzzy-search", "--pattern", "ascii:abc"].as_slice(),
        &["lookup", A],
        &["metadata", A],
    ] {
        let run = Server::with_answers([failed()]).run(args);
        run.error(1);
        assert!(
            run.stderr.contains("backend down") && !run.stderr.contains("nothing"),
            "{args:?}: {}",
            run.stderr
        );
    }
    // So it is for a job that is done.
    let submitted = || {
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        )
    };
    let done = || {
        let meta = json!({"reqid": "r-1", "status": "done", "reqtype": "search"});
        answer(
            200,
            json!({"meta": meta, "resources": [], "errors": [{"message": "backend down"}]}),
        )
    };
    let out = folder();
    let (rule, state) = (
        concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar"),
        in_folder(&out, "state"),
    );
    for args in [
        ["exact-search", "--pattern", "ascii:abc", "--wait"].as_slice(),
        &["hunt", "--rule", rule, "--state", &state],
        &[
            "collect",
            "--pattern",
            "ascii:abc",
            "--output-dir",
            &in_folder(&out, "out"),
        ],
    ] {
        let run = Server::with_answers([submitted(), done()]).run(args);
        assert!(
            run.error(1)
                .ends_with("the service reports errors, and no results")
        );
        assert!(
            run.stderr.contains("warning: backend down"),
            "{args:?}: {}",
            run.stderr
        );
    }
    for args in [["request", "r-1", "--wait"].as_slice(), &["resume", &state]] {
        let run = Server::with_answers([done()]).run(args);
        run.error(1);
        assert!(
            run.stderr.contains("warning: backend down"),
            "{args:?}: {}",
            run.stderr
        );
    }
    // What has an odd form is told as it is.
    let odd = answer(
        200,
        json!({"meta": {}, "resources": {"a": 1}, "errors": ["boom"]}),
    );
    let run = Server::with_answers([odd]).run(&["fuzzy-search", "--pattern", "ascii:abc"]);
    run.error(1);
    assert!(
        run.stderr
            .contains("warning: the errors of the reply could not be read: [\"boom\"]"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("warning: the resources of the reply could not be read: {\"a\":1}"),
        "{}",
        run.stderr
    );
    // What stands beside a request id is said, waited for or not.
    let partly = || {
        let errors = json!([{"code": 404, "message": "no such sample"}]);
        answer(
            200,
            json!({"meta": {"reqid": "r-1"}, "resources": [], "errors": errors}),
        )
    };
    let done = answer(200, json!({"meta": {"reqid": "r-1", "status": "done"}}));
    for args in [
        ["multidownload", A].as_slice(),
        &["multidownload", A, "--wait"],
    ] {
        let run = Server::with_answers([partly(), done.clone()]).run(args);
        run.json();
        assert!(
            run.stderr.contains("warning: no such sample"),
            "{args:?}: {}",
            run.stderr
        );
    }
    // Beside a result it is a warning.
    for args in [["quotas"].as_slice(), &["request", "r-1"]] {
        let run = Server::with_answers([failed()]).run(args);
        run.json();
        assert!(
            run.stderr.contains("warning: backend down"),
            "{args:?}: {}",
            run.stderr
        );
    }
}

#[test]
fn a_recording_that_cannot_be_written_is_refused_before_anything_is_sent() {
    let out = folder();
    let server = Server::with_answers([]);
    let file = in_folder(&out, "file");
    let slash = format!("{file}/");
    for args in [
        ["download", A, "--output", &file, "--record", &file].as_slice(),
        &[
            "hunt",
            "--rule",
            &file,
            "--record",
            &file,
            "--no-check-rule",
        ],
        &["request", "r-1", "--state", &file, "--record", &file],
        &["quotas", "--record", &slash],
        &["quotas", "--record", "/dev/null", "--force"],
    ] {
        server.run(args).error(2);
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn a_quota_that_is_not_told_is_said_and_one_that_cannot_be_is_not_risked() {
    let submitted = answer(200, json!({"meta": {"reqid": "r-1"}, "resources": []}));
    let server = Server::with_answers([answer(200, json!({"meta": {}})), submitted]);
    let run = server.run(&["multidownload", A, "--check-quota"]);
    run.json();
    assert!(
        run.stderr
            .contains("warning: the service does not tell how many downloads are left"),
        "{}",
        run.stderr
    );
    let errors = json!({"meta": {}, "errors": [{"code": 500, "message": "no database"}]});
    let server = Server::with_answers([answer(200, errors)]);
    assert!(
        server
            .run(&["multidownload", A, "--check-quota"])
            .error(1)
            .contains("(no database)")
    );
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_proxy_that_cannot_be_read_is_not_passed_over() {
    let server = Server::with_answers([]);
    let mut command = command(&["--base-url", &server.base, "quotas"]);
    let command = command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    for name in [
        "ALL_PROXY",
        "all_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
    ] {
        command.env_remove(name);
    }
    let run = run(command.env("https_proxy", "ftp://user:p4ssw0rd@host"));
    assert!(
        run.error(2)
            .starts_with("error: https_proxy is not the URL of a proxy"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("p4ssw0rd"));
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn nothing_in_a_document_steers_a_terminal() {
    let family = "a\u{9b}31m\u{7f}\u{85}\u{202e}\u{200b}\u{1b}z\u{e9}";
    let reply = json!({"meta": {}, "resources": [{"sha256": A, "family": family}]});
    let run = Server::with_answers([answer(200, reply)]).run(&["metadata", A]);
    assert_eq!(run.json()["resources"][0]["family"], family);
    assert!(
        run.stdout
            .contains("a\\u009b31m\\u007f\\u0085\\u202e\\u200b\\u001bz\u{e9}"),
        "{}",
        run.stdout
    );
}

/// An archive with a bomb, 3 MB of zeros, and `HELLO`.
const BOMB: &[u8] = include_bytes!("../../../malquery-proto/tests/archives/bomb-and-sample.zip");

#[test]
fn a_padded_sample_does_not_keep_the_others_and_is_taken_when_that_is_wanted() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers(collecting(&[HELLO], BOMB));
    let run = server.run(&[
        "collect",
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
    ]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert!(run.stderr.contains("--max-ratio 1100"), "{}", run.stderr);
    let archive = format!("{target}/samples.zip");
    let other = in_folder(&out, "other");
    let document = demo(&[
        "extract",
        &archive,
        "--output-dir",
        &other,
        "--max-ratio",
        "1100",
    ])
    .json();
    assert_eq!(document["contents"]["files"].as_array().unwrap().len(), 2);
    assert_eq!(names(&other).len(), 2);
}

#[test]
fn what_was_not_needed_is_not_left() {
    let out = folder();
    let deep = in_folder(&out, "one/two/three");
    demo(&["extract", "nothing.zip", "--output-dir", &deep]).error(2);
    assert_eq!(names(out.path()), [""; 0]);
    let run = Server::with_answers([answer(400, json!({"errors": [{"message": "bad rule"}]}))]);
    run.run(&["collect", "--pattern", "ascii:abc", "--output-dir", &deep])
        .error(1);
    assert_eq!(names(out.path()), [""; 0]);
}

#[test]
fn an_archive_that_is_gone_can_be_fetched_again() {
    let out = folder();
    let (target, state) = (in_folder(&out, "out"), in_folder(&out, "state"));
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    let args = [
        "collect",
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
        "--state",
        &state,
    ];
    server.run(&args).json();
    fs::remove_file(format!("{target}/samples.zip")).unwrap();
    let run = server.run(&["resume", &state]);
    run.error(1);
    assert!(
        run.stderr
            .contains("the archive can be fetched with: malquery"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains(" samples r-2 --output "),
        "{}",
        run.stderr
    );
}

#[test]
fn a_file_in_the_way_says_how_to_replace_it() {
    let out = folder();
    fs::create_dir(in_folder(&out, "out")).unwrap();
    fs::write(in_folder(&out, &format!("out/{HELLO}")), "other").unwrap();
    let archive = in_folder(&out, "samples.zip");
    fs::write(&archive, SEVERAL).unwrap();
    let args = ["extract", &archive, "--output-dir", &in_folder(&out, "out")];
    assert!(
        demo(&args)
            .error(1)
            .ends_with("; give --force to replace it")
    );
    demo(&[args.as_slice(), &["--force"]].concat()).json();
}

#[test]
fn a_rule_may_begin_with_a_byte_order_mark() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    fs::write(&rule, "\u{feff}rule a { condition: true }").unwrap();
    assert_eq!(demo(&["check-rule", &rule]).json()["rule"], "a");
}

#[test]
fn a_job_that_was_refused_leaves_no_state() {
    let out = folder();
    let state = in_folder(&out, "state");
    let args = [
        "exact-search",
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
        "--state",
        &state,
    ];
    let refused = answer(
        400,
        json!({"errors": [{"code": 400, "message": "bad pattern"}]}),
    );
    Server::with_answers([refused]).run(&args).error(1);
    assert_eq!(names(out.path()), [""; 0]);
    // What may go on keeps it, and so does what was submitted.
    Server::with_answers([answer(403, json!({}))])
        .run(&args)
        .error(1);
    assert_eq!(names(out.path()), ["state"]);
    fs::remove_file(&state).unwrap();
    let submitted = answer(200, json!({"meta": {"reqid": "r-1"}}));
    let gone = answer(404, json!({"errors": [{"message": "no such job"}]}));
    Server::with_answers([submitted, gone]).run(&args).error(1);
    assert_eq!(names(out.path()), ["state"]);
}

#[test]
fn what_the_rest_of_the_month_covers_can_be_downloaded() {
    let out = folder();
    let target = in_folder(&out, "out");
    let quotas = json!({"meta": {"hunt_count": 0, "hunt_limit": 9, "download_count": 49, "download_limit": 50}});
    let mut answers = collecting(&[HELLO, A], SEVERAL);
    answers.truncate(3);
    answers.push(answer(200, quotas));
    let server = Server::with_answers(answers);
    let pattern = [
        "--pattern",
        "ascii:a",
        "--poll-interval",
        "0.01",
        "--output-dir",
        &target,
    ];
    let run = server.run(&[&["collect", "--check-quota"], pattern.as_slice()].concat());
    assert!(
        run.error(1)
            .starts_with("error: downloads needed: 2, left this month: 1")
    );
    let hint = "for as many as are left, collect what the search found with: malquery";
    assert!(run.stderr.contains(hint), "{}", run.stderr);
    assert!(
        run.stderr
            .contains(" collect --request r-1 --limit 1 --output-dir "),
        "{}",
        run.stderr
    );
}

#[test]
fn a_poll_without_a_reply_is_told_at_once() {
    // Nothing listens there any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let run = run(command(&[
        "--base-url",
        &nobody,
        "--timeout",
        "2",
        "request",
        "r-1",
        "--wait",
    ])
    .env("FALCON_CLIENT_ID", "an-id")
    .env("FALCON_CLIENT_SECRET", "s3cret"));
    run.error(1);
    let warning = "warning: no reply to oauth2AccessToken: ";
    assert_eq!(run.stderr.matches(warning).count(), 1, "{}", run.stderr);
}
