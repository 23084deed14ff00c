//! Environment variables, read in a separate process.

use std::process::Command;
use std::thread;

use malquery_proto::flow::RetryPolicy;
use malquery_ureq::{BaseUrl, Credentials};

use crate::server::{Ca, QUOTAS, Server, Then, json, reply, serve, token};

/// Set in the child process, in which the test runs itself again.
const CHILD: &str = "MALQUERY_TEST_CHILD";

const CREDENTIALS: [(&str, &str); 2] = [
    ("FALCON_CLIENT_ID", "an-id"),
    ("FALCON_CLIENT_SECRET", "p4ssw0rd"),
];

/// Runs in the child process: three calls, and a count of the threads that they start.
fn child() {
    let client = match malquery_ureq::from_env() {
        Ok(client) => client.retry(RetryPolicy::never()),
        Err(error) => {
            println!("environment: {error:?}");
            let base: BaseUrl = "http://127.0.0.1:1".parse().unwrap();
            let client = malquery_ureq::client(base, Credentials::new("an-id", "a-secret"));
            let client = client.retry(RetryPolicy::never());
            return println!("call: {:?}", client.quotas().unwrap_err());
        }
    };
    for _ in 0..3 {
        let before = number_of_a_thread();
        match client.quotas() {
            Ok(quotas) => println!("hunts: {:?}", quotas.meta.hunt_count),
            Err(error) => return println!("error: {error:?}"),
        }
        println!("threads: {}", number_of_a_thread() - before - 1);
    }
}

/// Returns the id of a new thread. Ids are consecutive, so two of them count the threads in
/// between.
fn number_of_a_thread() -> u64 {
    let id = thread::spawn(|| thread::current().id()).join().unwrap();
    let digits: String = format!("{id:?}")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}

fn run(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "environment::a_client_of_the_environment";
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1");
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("SSL_CERT_FILE");
    for name in [
        "CLIENT_ID",
        "CLIENT_SECRET",
        "CLOUD",
        "BASE_URL",
        "MEMBER_CID",
    ] {
        command.env_remove(format!("FALCON_{name}"));
    }
    let variables = variables.iter().copied();
    let output = command.envs(CREDENTIALS).envs(variables).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("p4ssw0rd"), "{said}");
    said
}

fn server() -> Server {
    Server::start(|request, out| match token(request, out) {
        true => Then::Go,
        false => json(out, QUOTAS),
    })
}

#[test]
fn a_client_of_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let (server, proxy) = (server(), server());
    // Loopback never uses a proxy.
    let said = run(&[
        ("FALCON_MEMBER_CID", "0123456789abcdef0123456789abcdef-4F"),
        ("FALCON_CLOUD", "us-2"),
        ("FALCON_BASE_URL", &server.url("")),
        ("HTTPS_PROXY", &proxy.url("")),
    ]);
    assert!(said.contains("hunts: Some(9)"), "{said}");
    let form = "client_id=an-id&client_secret=p4ssw0rd&member_cid=0123456789abcdef0123456789abcdef";
    assert_eq!(server.seen()[0].body, form);
    assert_eq!(proxy.connections(), 0);
    let said = run(&[("FALCON_CLIENT_SECRET", "")]);
    assert!(
        said.contains("environment: FALCON_CLIENT_SECRET is not set"),
        "{said}"
    );
}

/// A name lookup runs in its own thread, so that it can time out.
#[test]
fn a_reused_connection_needs_no_lookup() {
    let server = server();
    let url = format!("http://localhost:{}", server.port);
    let said = run(&[("FALCON_BASE_URL", &url)]);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("threads"))
        .collect();
    // The token uses its own connection.
    assert_eq!(lines, ["threads: 2", "threads: 0", "threads: 0"]);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_proxy_of_the_environment() {
    let (proxy, other) = (refusing(), refusing());
    let (url, other_url) = (proxy.url(""), other.url(""));
    for (number, variables) in [
        vec![("HTTPS_PROXY", url.as_str()), ("ALL_PROXY", &other_url)],
        vec![
            ("https_proxy", &url),
            ("NO_PROXY", "example.com, eu-1.crowdstrike.org"),
        ],
        vec![("ALL_PROXY", &url), ("HTTP_PROXY", &other_url)],
        vec![("all_proxy", &url)],
    ]
    .into_iter()
    .enumerate()
    {
        let said = run(&[&variables[..], &[("FALCON_CLOUD", "eu-1")]].concat());
        let says = "could not connect to api.eu-1.crowdstrike.com:443 through the proxy";
        assert!(said.contains(says), "{said}");
        assert_eq!(
            proxy.seen()[number].line(),
            "CONNECT api.eu-1.crowdstrike.com:443 HTTP/1.1"
        );
    }
    assert_eq!((proxy.connections(), other.connections()), (4, 0));
    let said = run(&[("HTTPS_PROXY", "ftp://p4ssw0rd@host")]);
    assert!(said.contains("environment: HTTPS_PROXY does not"), "{said}");
    // Nothing is sent without the proxy.
    let says = "from the environment cannot be used: HTTPS_PROXY does not";
    assert!(said.contains(says), "{said}");
}

fn refusing() -> Server {
    Server::start(|_, out| reply(out, "403 Forbidden", "", b""))
}

#[test]
fn hosts_without_a_proxy_and_their_roots() {
    let ca = Ca::new();
    let file = std::env::temp_dir().join(format!("malquery-env-{}.pem", std::process::id()));
    std::fs::write(&file, &ca.pem).unwrap();
    let file = file.to_str().unwrap();
    let server = serve(ca.server("localhost"));
    let proxy = refusing();
    let base = format!("https://localhost:{}", server.port);
    let with_port = format!("example.com localhost:{}", server.port);
    for name in ["NO_PROXY", "no_proxy"] {
        for direct in ["example.com , LocalHost", "*", &with_port] {
            let said = run(&[
                ("FALCON_BASE_URL", &base),
                ("HTTPS_PROXY", &proxy.url("")),
                ("SSL_CERT_FILE", file),
                (name, direct),
            ]);
            assert!(said.contains("hunts: Some(9)"), "{said}");
        }
    }
    assert_eq!(proxy.connections(), 0);

    let said = run(&[("FALCON_BASE_URL", &base)]);
    assert!(
        said.contains("is not trusted") && said.contains("SSL_CERT_FILE"),
        "{said}"
    );
    let said = run(&[("SSL_CERT_FILE", "no such file")]);
    let says = "from the environment cannot be used: SSL_CERT_FILE=no such file cannot be loaded";
    assert!(said.contains(says) && said.contains("os error 2"), "{said}");
    assert!(
        said.contains("environment: SSL_CERT_FILE=no such file cannot be loaded"),
        "{said}"
    );
}
