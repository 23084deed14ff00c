//! Runs a user's test in a separate process, because the environment sets the mode of its session.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use malquery_mock::Session;
use malquery_proto::flow::Auth;
use malquery_proto::operations::ExactSearch;
use malquery_proto::types::Pattern;
use malquery_test_support::{Server, json, reply};
use malquery_ureq::{Settings, SystemClock, UreqTransport};

const SECRET: &str = "s3cret/of+the=user&";
const JOB: &str = "2c8bf4a1-93d0-6ea1-8b4e-5d1f0c7a9e33";
const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// Set in the process that the test starts, which runs the test again: a limit, and what to find.
const CHILD: &str = "MALQUERY_TEST_CHILD";

/// The test of a user, from the guide in the docs of malquery-mock.
fn a_sample_is_found(limit: u32, text: &str) {
    let (client, guard) = Session::new("tests/cassettes/find.json")
        .client(|| {
            let Settings { base, credentials } = Settings::from_env().unwrap();
            let auth = Auth::new(base, credentials);
            (UreqTransport::new(), SystemClock, auth)
        })
        .unwrap();
    let search = ExactSearch::new([Pattern::ascii(text).unwrap()]).limit(limit);
    let job = client.exact_search(&search).unwrap();
    let found = job.poll_every(Duration::from_millis(20)).wait().unwrap();
    assert_eq!(found.resources.len(), 1);
    guard.finish();
}

/// The service that the user's test calls.
fn serve() -> Server {
    let polls = AtomicUsize::new(0);
    Server::start(move |request, out| match request.target() {
        "/oauth2/token" => {
            let body = r#"{"access_token": "the-t0ken-of-the-user", "expires_in": 1799}"#;
            reply(out, "201 Created", "", body.as_bytes())
        }
        "/malquery/queries/exact-search/v1" => {
            let meta = format!(r#""reqid": "{JOB}", "status": "done""#);
            json(out, &format!(r#"{{"meta": {{{meta}}}}}"#))
        }
        target => {
            assert_eq!(target, format!("/malquery/entities/requests/v1?ids={JOB}"));
            let (status, found) = match polls.fetch_add(1, Ordering::SeqCst) {
                ..2 => ("inprogress", String::new()),
                _ => ("done", format!(r#"{{"sha256": "{SHA256}"}}"#)),
            };
            let meta = format!(r#""reqid": "{JOB}", "status": "{status}""#);
            json(
                out,
                &format!(r#"{{"meta": {{{meta}}}, "resources": [{found}]}}"#),
            )
        }
    })
}

/// Runs the user's test in a folder. Returns whether it passed, and its output.
fn run(folder: &Path, test: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let this = "session::it_records_replays_and_reports_what_changed";
    command.args(["--exact", this, "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown == "CI" || shown.starts_with("FALCON_") || shown.starts_with("MALQUERY_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder).env(CHILD, test);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn it_records_replays_and_reports_what_changed() {
    if let Ok(test) = std::env::var(CHILD) {
        let (limit, text) = test.split_once(' ').unwrap();
        return a_sample_is_found(limit.parse().unwrap(), text);
    }
    let folder = tempfile::tempdir().unwrap();
    let cassette = folder.path().join("tests/cassettes/find.json");
    let test = |variables: &[_]| run(folder.path(), "10 hello", variables);
    // Without a cassette, the error explains how to record one.
    let (passed, said) = test(&[]);
    assert!(
        !passed && said.contains("to record it, run again with MALQUERY_MOCK=record"),
        "{said}"
    );

    // Nothing is recorded on a build server or with an unknown mode.
    let server = serve();
    let url = server.url("");
    let live = [
        ("FALCON_CLIENT_ID", "the-id-of-the-user"),
        ("FALCON_CLIENT_SECRET", SECRET),
        ("FALCON_BASE_URL", &url),
    ];
    for (more, why) in [
        ([("MALQUERY_MOCK", "record"), ("CI", "true")], "CI is set"),
        (
            [("MALQUERY_MOCK", "rec"), ("CI", "")],
            "use one of: replay, record, append, verify, passthrough",
        ),
    ] {
        let (passed, said) = test(&[live.as_slice(), &more].concat());
        assert!(!passed && said.contains(why), "{said}");
    }
    assert_eq!(server.seen().len(), 0);

    let (passed, said) = test(&[live.as_slice(), &[("MALQUERY_MOCK", "record")]].concat());
    assert!(passed, "{said}");
    assert_eq!(server.seen().len(), 5);
    let text = fs::read_to_string(&cassette).unwrap();
    for value in [SECRET, "the-id-of-the-user", "the-t0ken-of-the-user", JOB] {
        assert!(!text.contains(value), "{text}");
    }

    // The replay needs no network and no credentials.
    for more in [[("CI", "")], [("CI", "1")]] {
        let (passed, said) = test(&more);
        assert!(passed, "{said}");
    }
    assert_eq!(server.seen().len(), 5);

    // The live service matches the recording.
    let (passed, said) = test(&[live.as_slice(), &[("MALQUERY_MOCK", "verify")]].concat());
    assert!(passed, "{said}");
    assert_eq!(fs::read_to_string(&cassette).unwrap(), text);

    // The test now sends a different request.
    let (passed, said) = run(folder.path(), "25 hello, world", &[]);
    assert!(!passed, "{said}");
    let begin = said
        .find("no reply in ")
        .unwrap_or_else(|| panic!("{said}"));
    let end = said[begin..].find("=record)").unwrap() + begin + "=record)".len();
    insta::assert_snapshot!(&said[begin..end]);
}
