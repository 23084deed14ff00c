//! A package outside the workspace records, replays offline, and reports what differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use malquery_test_support::{Server, json, reply};

const SECRET: &str = "s3cret/of+the=user&";
const JOB: &str = "2c8bf4a1-93d0-6ea1-8b4e-5d1f0c7a9e33";
const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

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

/// A copy of the package.
struct Package(PathBuf);

impl Package {
    fn new() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = here.parent().unwrap();
        let package = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join("user-crate"));
        let _ = fs::remove_dir_all(&package.0);
        for name in ["Cargo.toml", "src/lib.rs", "tests/find.rs"] {
            let path = package.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(here.join("tests/user-crate").join(name), path).unwrap();
        }
        let path = workspace.display().to_string().replace('\\', "/");
        package.edit("Cargo.toml", "MALQUERY/", &format!("{path}/"));
        // Use the versions and the profile of the workspace, so that its builds are reused.
        let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
        let profile = &manifest[manifest.find("[profile.").unwrap()..];
        package.edit(
            "Cargo.toml",
            "[workspace]",
            &format!("[workspace]\n{profile}"),
        );
        fs::copy(workspace.join("Cargo.lock"), package.0.join("Cargo.lock")).unwrap();
        package
    }

    /// Runs the test of the package. Returns whether it passed, and its output.
    fn test(&self, variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--offline", "--quiet", "--test", "find"]);
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            let of_this_run = [
                "FALCON_",
                "MALQUERY_",
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "RUST_",
            ];
            if shown == "CI" || of_this_run.iter().any(|start| shown.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("..");
        command
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_TERM_COLOR", "never");
        command.current_dir(&self.0).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

#[test]
fn it_records_replays_and_reports_what_changed() {
    let package = Package::new();
    let cassette = package.0.join("tests/cassettes/find.json");
    let test = |variables: &[_]| package.test(variables);
    // Without a cassette, the error explains how to record one.
    let (passed, said) = test(&[]);
    assert!(
        !passed
            && said.contains(
                "to record a cassette, use the mode `record`, for example with MALQUERY_MOCK=record"
            ),
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
            r#"MALQUERY_MOCK="rec" is not a valid mode; use one of: replay, record, append, verify, "#,
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

    // The program sends a different request.
    package.edit("src/lib.rs", "LIMIT: u32 = 10", "LIMIT: u32 = 25");
    package.edit("tests/find.rs", "\"hello\"", "\"hello, world\"");
    let (passed, said) = test(&[]);
    assert!(!passed, "{said}");
    let begin = said
        .find("no reply in ")
        .unwrap_or_else(|| panic!("{said}"));
    let end = said[begin..].find("=record)").unwrap() + begin + "=record)".len();
    insta::assert_snapshot!(&said[begin..end]);
}
