//! Runs the examples against servers on loopback.

use std::collections::VecDeque;
use std::process::Command;

use malquery_mock::conformance;
use serde_json::{Value, json};

#[allow(dead_code)]
#[path = "own_transport.rs"]
mod own_transport;

const A: &str = "f599015c08658c5b730d3394cdb55cee238a8d82508a179b860fc201cde95e18";

/// A status and a JSON body.
type Answer = (u16, Value);

/// A server on loopback that records requests.
struct Server(malquery_test_support::Server);

impl Server {
    fn start(mut reply: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        Self(malquery_test_support::Server::answering(move |seen| {
            let (status, body) = reply(seen.path());
            (status, Vec::new(), body.to_string().into_bytes())
        }))
    }

    /// Starts a server that issues tokens and gives these answers, in order, to other requests.
    fn with_answers(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        Self::start(move |path| match path {
            "/oauth2/token" => token(),
            _ => answers.pop_front().expect("an answer"),
        })
    }

    /// Returns the method and the path of each request.
    fn asked(&self) -> Vec<String> {
        let seen = self.0.seen();
        let asked = seen
            .iter()
            .map(|seen| seen.line().split(['?', ' ']).take(2));
        asked
            .map(|words| words.collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Returns a command that runs an example against this server.
    fn example(&self, name: &str) -> Command {
        // Tests are in target/PROFILE/deps, and examples in target/PROFILE/examples.
        let tests = std::env::current_exe().unwrap();
        let program = tests
            .parent()
            .unwrap()
            .with_file_name("examples")
            .join(name)
            .with_extension(std::env::consts::EXE_EXTENSION);
        let mut command = Command::new(program);
        command
            .env("FALCON_CLIENT_ID", "an-id")
            .env("FALCON_CLIENT_SECRET", "s3cret")
            .env("FALCON_BASE_URL", self.0.url(""))
            .env_remove("FALCON_MEMBER_CID");
        command
    }
}

fn token() -> Answer {
    (201, json!({"access_token": "t0ken", "expires_in": 1799}))
}

/// Runs a command and returns its standard output.
fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn quotas() -> Answer {
    let meta =
        json!({"hunt_count": 2, "hunt_limit": 100, "download_count": 5, "download_limit": 50});
    (200, json!({"meta": meta, "errors": []}))
}

#[test]
fn the_quickstart_prints_what_it_found() {
    let found = json!({"meta": {}, "resources": [{"sha256": A, "label": "malware", "family": "Demo"}, {"sha256": A, "label": "clean"}]});
    let server = Server::with_answers([quotas(), (200, found)]);
    assert_eq!(
        stdout(&mut server.example("quickstart")),
        format!("98 hunts and 45 downloads are left this month\n{A} malware Demo\n{A} clean -\n"),
    );
}

#[test]
fn an_own_transport_renews_its_token() {
    let server = Server::with_answers([(401, json!({})), quotas()]);
    assert_eq!(
        stdout(&mut server.example("own_transport")),
        "98 hunts left this month\n"
    );
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn an_own_transport_keeps_the_contract() {
    let report = conformance::check(|_| own_transport::Attohttpc);
    assert!(report.passed(), "{report}");
    // The transport has root certificates, so it reaches the server, which does not support TLS.
    let https = report
        .verdicts()
        .iter()
        .find(|verdict| verdict.name() == "https-is-encrypted");
    assert!(https.unwrap().detail().contains("reset"), "{report}");
}

#[cfg(feature = "async")]
#[test]
fn an_asynchronous_driver_runs_the_same_flows() {
    let mut polls = 0;
    let server = Server::start(move |path| match path {
        "/oauth2/token" => token(),
        "/malquery/aggregates/quotas/v1" => quotas(),
        "/malquery/queries/exact-search/v1" => {
            (200, json!({"meta": {"reqid": "r-1", "status": "done"}}))
        }
        path => {
            assert_eq!(path, "/malquery/entities/requests/v1");
            polls += 1;
            match polls {
                1 => (503, json!({})),
                2 => (200, json!({"meta": {"status": "inprogress"}})),
                _ => (
                    200,
                    json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"sha256": A}]}),
                ),
            }
        }
    });
    assert_eq!(
        stdout(server.example("async_driver").arg("ascii:CrowdStrike")),
        format!("45 downloads are left this month\n{A}\n")
    );
    let asked = server.asked();
    for once in [
        "POST /oauth2/token",
        "POST /malquery/queries/exact-search/v1",
    ] {
        let count = asked.iter().filter(|line| *line == once).count();
        assert_eq!(count, 1, "{asked:?}");
    }
    let usage = server.example("async_driver").output().unwrap();
    assert!(usage.stderr.starts_with(b"usage: async_driver TYPE:VALUE"));
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(server.asked().len(), asked.len());
}

#[test]
fn an_unknown_quota_is_not_printed() {
    let done = json!({"meta": {"reqid": "r-1", "status": "done"}});
    let server = Server::start(move |path| match path {
        "/oauth2/token" => token(),
        "/malquery/aggregates/quotas/v1" => (200, json!({"meta": {"hunt_limit": 5}})),
        _ => (200, done.clone()),
    });
    assert_eq!(stdout(&mut server.example("own_transport")), "");
    #[cfg(feature = "async")]
    assert_eq!(stdout(server.example("async_driver").arg("ascii:a")), "");
}
