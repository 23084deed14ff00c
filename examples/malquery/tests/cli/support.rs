//! Code that the tests share: runs of the program, a server on loopback, and a terminal.

use std::collections::VecDeque;
pub(crate) use std::fs;
use std::io::{self, Read};
pub(crate) use std::path::Path;
pub(crate) use std::process::Command;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::thread;
pub(crate) use std::time::Duration;

use malquery_mock::Cassette;
use malquery_proto::Transport;
pub(crate) use malquery_test_support::Answer;
use malquery_test_support::Seen;
pub(crate) use serde_json::{Value, json};
pub(crate) use tempfile::TempDir;

pub(crate) const A: &str = "f599015c08658c5b730d3394cdb55cee238a8d82508a179b860fc201cde95e18";
pub(crate) const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
pub(crate) const SEARCH: &str = "11111111-2222-6ea1-5f4f-000000000001";
pub(crate) const ARCHIVE: &str = "11111111-2222-6ea1-5f4f-000000000002";
pub(crate) const RULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo.yar");
pub(crate) const CASSETTE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cassettes/offline.json");

/// An archive with `HELLO` only.
pub(crate) const ONE: &[u8] =
    include_bytes!("../../../../malquery-proto/tests/archives/zipcrypto-stored.zip");
/// An archive with `HELLO` and three other samples.
pub(crate) const SEVERAL: &[u8] =
    include_bytes!("../../../../malquery-proto/tests/archives/zipcrypto-several.zip");
/// An archive with a bomb (3 MB of zeros) and `HELLO`.
pub(crate) const BOMB: &[u8] =
    include_bytes!("../../../../malquery-proto/tests/archives/bomb-and-sample.zip");

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code, or 128 plus the number of the signal, as in a shell.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn of(output: Output) -> Self {
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        #[cfg(not(unix))]
        let signal = None;
        Self {
            code: output.status.code().unwrap_or(128 + signal.unwrap_or(0)),
            signal,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Returns the only error line. Checks the exit code, and that standard output is empty.
    pub(crate) fn error(&self, code: i32) -> &str {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (code, ""),
            "{}",
            self.stderr
        );
        let mut lines = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        let line = lines.next().expect("an error");
        assert_eq!(lines.next(), None, "{}", self.stderr);
        line
    }

    /// Checks that standard error contains this text.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text),
            "{text}\n-- is not in --\n{}",
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn omits(&self, text: &str) -> &Self {
        assert!(
            !self.stderr.contains(text),
            "{text}\n-- is in --\n{}",
            self.stderr
        );
        self
    }
}

/// Returns a command with the words of a line as arguments, and without `FALCON_*` variables.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_malquery"));
    for name in [
        "CLIENT_ID",
        "CLIENT_SECRET",
        "CLOUD",
        "BASE_URL",
        "MEMBER_CID",
    ] {
        command.env_remove(format!("FALCON_{name}"));
    }
    // A short interval, so that tests are fast. The line may override it.
    command.args(["--poll-interval", "0.01"]);
    command.args(line.split_whitespace());
    command
}

pub(crate) fn run(command: &mut Command) -> Run {
    Run::of(command.output().unwrap())
}

/// Returns a command with credentials for a service at this address.
pub(crate) fn with_credentials(base: &str, line: &str) -> Command {
    let mut command = command(&format!("--base-url {base} {line}"));
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    command
}

/// Runs the program without credentials.
pub(crate) fn plain(line: &str) -> Run {
    run(&mut command(line))
}

/// Runs the program on recorded replies.
pub(crate) fn offline(line: &str) -> Run {
    plain(&format!("--replay {CASSETTE} {line}"))
}

/// Runs the program with --demo.
pub(crate) fn demo(line: &str) -> Run {
    plain(&format!("--demo {line}"))
}

/// Runs the program on a terminal of this width. Returns the exit code and what is shown.
#[cfg(target_os = "linux")]
pub(crate) fn on_terminal(columns: u16, command: &mut Command) -> (i32, String) {
    answer_on_terminal(columns, command, "")
}

/// Like `on_terminal`, but also types some text.
#[cfg(target_os = "linux")]
pub(crate) fn answer_on_terminal(
    columns: u16,
    command: &mut Command,
    typed: &str,
) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    use std::io::Write;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let size = Winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();
    let mut child = command
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    // The command keeps the terminal open as well.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut master = fs::File::from(master);
    master.write_all(typed.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // Reading fails once nothing keeps the other side open.
    let _ = master.read_to_end(&mut shown);
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&shown).replace('\r', ""))
}

/// Sends a signal to a command as soon as a condition holds.
#[cfg(unix)]
pub(crate) fn signal_when(signal: &str, command: &mut Command, so_far: impl Fn() -> bool) -> Run {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !so_far() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        thread::sleep(Duration::from_millis(5));
    }
    kill(signal, child.id());
    Run::of(child.wait_with_output().unwrap())
}

#[cfg(unix)]
pub(crate) fn interrupt_when(command: &mut Command, so_far: impl Fn() -> bool) -> Run {
    signal_when("INT", command, so_far)
}

/// Sends a signal with the program `kill`.
#[cfg(unix)]
pub(crate) fn kill(signal: &str, id: u32) {
    let mut kill = Command::new("kill");
    let status = kill.args([&format!("-{signal}"), &id.to_string()]).status();
    assert!(status.unwrap().success());
}

pub(crate) fn answer(status: u16, body: Value) -> Answer {
    let headers = vec![("content-type".into(), "application/json".into())];
    (status, headers, body.to_string().into_bytes())
}

pub(crate) fn token() -> Answer {
    answer(
        201,
        json!({"access_token": "t0ken-of-it", "expires_in": 1799}),
    )
}

/// Returns a reply with the status of a job.
pub(crate) fn job(id: &str, status: &str) -> Answer {
    answer(
        200,
        json!({"meta": {"reqid": id, "status": status}, "resources": []}),
    )
}

/// Returns a reply with this many hunts and downloads left.
pub(crate) fn quotas(hunts: u64, downloads: u64) -> Answer {
    let meta = json!({
        "hunt_count": 100 - hunts, "hunt_limit": 100, "download_count": 50 - downloads, "download_limit": 50,
    });
    answer(200, json!({"meta": meta, "errors": []}))
}

/// Returns the replies to a `collect`, from the submission of the search to the archive.
pub(crate) fn collecting(found: &[&str], archive: &'static [u8]) -> Vec<Answer> {
    let resources: Vec<_> = found
        .iter()
        .map(|sha256| json!({"sha256": sha256}))
        .collect();
    vec![
        job("r-1", "done"),
        job("r-1", "inprogress"),
        answer(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": resources}),
        ),
        job("r-2", "done"),
        job("r-2", "done"),
        (
            200,
            vec![("content-type".into(), "application/zip".into())],
            archive.to_vec(),
        ),
    ]
}

/// Returns an error reply from the service.
pub(crate) fn refusal(status: u16, message: &str) -> Answer {
    answer(
        status,
        json!({"errors": [{"code": status, "message": message}]}),
    )
}

/// Holds a reply back until the test opens the gate.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn wait(&self) {
        while !self.0.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A server on loopback whose base URL has a path.
pub(crate) struct Server {
    http: malquery_test_support::Server,
    pub(crate) base: String,
}

impl Server {
    pub(crate) fn start(
        mut reply: impl FnMut(http::Request<Vec<u8>>) -> Answer + Send + 'static,
    ) -> Self {
        let http = malquery_test_support::Server::answering(move |seen| {
            let mut request = seen.request();
            *request.uri_mut() = below_prefix(seen.target()).parse().unwrap();
            reply(request)
        });
        let base = http.url("/prefix");
        Self { http, base }
    }

    /// Starts a server that replays the cassette.
    pub(crate) fn with_cassette() -> Self {
        let mock = Cassette::load(CASSETTE).unwrap().transport();
        Self::start(move |request| {
            if request.uri().path() == "/oauth2/token" {
                return token();
            }
            let (head, mut body) = match mock.send(request) {
                Ok(reply) => reply.into_parts(),
                Err(error) => return refusal(500, &error.to_string()),
            };
            let mut bytes = Vec::new();
            io::copy(&mut body, &mut bytes).unwrap();
            let headers = head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            (head.status.as_u16(), headers.collect(), bytes)
        })
    }

    /// Starts a server that issues tokens and gives these answers, in order, to other requests.
    pub(crate) fn with_answers(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        Self::start(move |request| match request.uri().path() {
            "/oauth2/token" => token(),
            _ => answers.pop_front().unwrap_or_else(|| {
                answer(418, json!({"errors": [{"message": "no answer is left"}]}))
            }),
        })
    }

    /// Returns a command with credentials for this server.
    pub(crate) fn command(&self, line: &str) -> Command {
        with_credentials(&self.base, line)
    }

    pub(crate) fn run(&self, line: &str) -> Run {
        run(&mut self.command(line))
    }

    /// Returns the number of requests whose line contains this text.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = |seen: &Seen| {
            let method = seen.line().split(' ').next().unwrap();
            format!("{method} {}", below_prefix(seen.target()))
        };
        self.http.seen().iter().map(asked).collect()
    }
}

fn below_prefix(target: &str) -> &str {
    target.strip_prefix("/prefix").unwrap_or("/not-the-prefix")
}

/// A command that collects all samples found, without a quota check.
pub(crate) const COLLECT: &str = "collect --yes --no-check-quota";

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn in_folder(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// Returns the names of the files in a folder, including hidden files.
pub(crate) fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
