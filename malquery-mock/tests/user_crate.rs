//! A package outside the workspace records, replays offline, and reports what differs when it changes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const SECRET: &str = "s3cret/of+the=user&";
const JOB: &str = "2c8bf4a1-93d0-6ea1-8b4e-5d1f0c7a9e33";
const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// A service on loopback. It gives its URL and how often it was asked.
fn serve() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = Arc::clone(&counter);
            thread::spawn(move || answer(stream, &counter));
        }
    });
    (url, asked)
}

fn answer(stream: TcpStream, asked: &AtomicUsize) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
        let count = asked.fetch_add(1, Ordering::SeqCst);
        let (status, reply) = match head.split(' ').nth(1)? {
            "/oauth2/token" => (
                "201 Created",
                r#"{"access_token": "the-t0ken-of-the-user", "expires_in": 1799}"#.to_owned(),
            ),
            "/malquery/queries/exact-search/v1" => (
                "200 OK",
                format!(r#"{{"meta": {{"reqid": "{JOB}", "status": "done"}}}}"#),
            ),
            path => {
                assert_eq!(path, format!("/malquery/entities/requests/v1?ids={JOB}"));
                let (status, found) = match count {
                    ..4 => ("inprogress", String::new()),
                    _ => ("done", format!(r#"{{"sha256": "{SHA256}"}}"#)),
                };
                (
                    "200 OK",
                    format!(
                        r#"{{"meta": {{"reqid": "{JOB}", "status": "{status}"}}, "resources": [{found}]}}"#
                    ),
                )
            }
        };
        let length = reply.len();
        let stream = stream.get_mut();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{reply}"
        )
        .ok()?;
    }
}

/// The package, copied to where it is built.
struct Package(PathBuf);

impl Package {
    fn new() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = here.parent().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("user-crate");
        let _ = fs::remove_dir_all(&folder);
        for name in ["Cargo.toml", "src/lib.rs", "tests/find.rs"] {
            let text = fs::read_to_string(here.join("tests/user-crate").join(name)).unwrap();
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(
                path,
                text.replace(
                    "MALQUERY",
                    &workspace.display().to_string().replace('\\', "/"),
                ),
            )
            .unwrap();
        }
        // The versions and the profile with which the workspace was built.
        let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
        let profile = &manifest[manifest.find("[profile.").unwrap()..];
        let path = folder.join("Cargo.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + profile).unwrap();
        fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        Self(folder)
    }

    /// Runs its tests: whether they passed, and what was said.
    fn test(&self, variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["test", "--offline", "--quiet", "--test", "find"])
            .current_dir(&self.0);
        // What is of this package, and what would change its outcome.
        let of_others = [
            "FALCON_",
            "MALQUERY_",
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
            "RUST_",
        ];
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name == "CI" || of_others.iter().any(|start| name.starts_with(start)) {
                command.env_remove(&*name);
            }
        }
        // With what the workspace has built.
        command.env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(".."),
        );
        command.env("CARGO_TERM_COLOR", "never");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

#[test]
fn it_records_replays_and_reports_what_changed() {
    let package = Package::new();
    let cassette = package.0.join("tests/cassettes/find.json");

    // Without a cassette the error says how to make one.
    let (passed, said) = package.test(&[]);
    assert!(
        !passed && said.contains("to record it, run this with MALQUERY_MOCK=record"),
        "{said}"
    );

    // Nothing is recorded on a build server, nor with a mode that does not exist.
    let (url, asked) = serve();
    let live = [
        ("FALCON_CLIENT_ID", "the-id-of-the-user"),
        ("FALCON_CLIENT_SECRET", SECRET),
        ("FALCON_BASE_URL", &url),
    ];
    for (more, why) in [
        ([("MALQUERY_MOCK", "record"), ("CI", "true")], "CI is set"),
        (
            [("MALQUERY_MOCK", "rec"), ("CI", "")],
            "there are replay, record, append, verify, passthrough",
        ),
    ] {
        let (passed, said) = package.test(&[live.as_slice(), &more].concat());
        assert!(!passed && said.contains(why), "{said}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    let (passed, said) = package.test(&[live.as_slice(), &[("MALQUERY_MOCK", "record")]].concat());
    assert!(passed, "{said}");
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    let text = fs::read_to_string(&cassette).unwrap();
    for value in [SECRET, "the-id-of-the-user", "the-t0ken-of-the-user", JOB] {
        assert!(!text.contains(value), "{text}");
    }

    // Offline, and without credentials.
    for more in [[("CI", "")], [("CI", "1")]] {
        let (passed, said) = package.test(&more);
        assert!(passed, "{said}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 5);

    // The live service is as recorded.
    let (passed, said) = package.test(&[live.as_slice(), &[("MALQUERY_MOCK", "verify")]].concat());
    assert!(passed, "{said}");
    assert_eq!(fs::read_to_string(&cassette).unwrap(), text);

    // It asks for something else now.
    package.edit("src/lib.rs", "LIMIT: u32 = 10", "LIMIT: u32 = 25");
    package.edit("tests/find.rs", "\"hello\"", "\"hello, world\"");
    let (passed, said) = package.test(&[]);
    assert!(!passed, "{said}");
    let begin = said.find("nothing in ").unwrap_or_else(|| panic!("{said}"));
    let end = said[begin..].find("=record)").unwrap() + begin + "=record)".len();
    insta::assert_snapshot!(&said[begin..end]);
}
