#![cfg(target_os = "linux")]

use crate::support::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::Instant;

fn fifo(path: &str) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_lock_follows_no_link_and_never_waits() {
    let server = Server::with_answers([]);
    for kind in ["link", "loop", "dangling", "pipe", "socket", "folder"] {
        let out = folder();
        let lock = in_folder(&out, ".state.lock");
        match kind {
            "link" => symlink(RULE, &lock).unwrap(),
            "loop" => symlink(&lock, &lock).unwrap(),
            "dangling" => symlink(in_folder(&out, "elsewhere"), &lock).unwrap(),
            "pipe" => fifo(&lock),
            "socket" => drop(UnixListener::bind(&lock).unwrap()),
            _ => fs::create_dir(&lock).unwrap(),
        }
        let begun = Instant::now();
        let state = in_folder(&out, "state");
        let run = server.run(&format!("hunt {RULE} --state {state} --timeout 60"));
        run.error(2);
        run.says(".state.lock: it is not a regular file; remove the lock file");
        assert!(begun.elapsed() < Duration::from_secs(20), "{kind}");
        assert_eq!(names(&out), [".state.lock"], "{kind}");
    }
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn a_pipe_holds_nobody_up() {
    let out = folder();
    let pipe = in_folder(&out, "pipe");
    fifo(&pipe);
    let target = in_folder(&out, "out");
    for line in [
        format!("resume {pipe}"),
        format!("extract {pipe} --output-dir {target}"),
        format!("hunt {pipe}"),
        format!("metadata --from {pipe}"),
        format!("check-rule {pipe}"),
        format!("quotas --replay {pipe}"),
        format!("quotas --ca-file {pipe}"),
        "quotas".into(),
        format!("quotas --record {pipe} --force"),
        format!("download {A} --output {pipe} --force"),
        format!("hunt {RULE} --state {pipe} --force"),
        "hunt -".into(),
        "metadata --from -".into(),
    ] {
        let begun = Instant::now();
        let server = Server::with_answers([]);
        let mut command = server.command(&format!("{line} --timeout 0.2"));
        // Nothing writes to the pipe.
        let input = fs::File::options().read(true).write(true).open(&pipe);
        if line == "quotas" {
            command.env("SSL_CERT_FILE", &pipe);
        }
        run(command.stdin(input.unwrap())).error(2);
        assert_eq!(server.asked(), [""; 0], "{line}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{line}");
    }
    assert_eq!(names(&out), ["pipe"]);
}

#[test]
fn two_downloads_to_one_file_send_one_request() {
    for line in [format!("download {A}"), "samples r-1".into()] {
        let out = folder();
        let line = format!("{line} --output {}", in_folder(&out, "file"));
        let gate = Gate::default();
        let held = gate.clone();
        let server = Server::start(move |request| match request.uri().path() {
            "/oauth2/token" => token(),
            _ => {
                held.wait();
                refusal(403, "not here")
            }
        });
        let mut first = server.command(&line);
        let running = thread::spawn(move || run(&mut first));
        while server.count("GET") == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        for force in ["", "--force"] {
            let run = server.run(&format!("{line} {force}"));
            assert!(
                run.error(2)
                    .contains("another malquery process is using it"),
                "{}",
                run.stderr
            );
        }
        gate.open();
        running.join().unwrap().error(4);
        assert_eq!(server.count("GET"), 1);
        assert_eq!(names(&out), [""; 0]);
    }
}

#[test]
fn files_are_private_whatever_the_umask_is() {
    let out = folder();
    let program = env!("CARGO_BIN_EXE_malquery");
    for (umask, name) in [("0777", "none"), ("0000", "all")] {
        let target = in_folder(&out, name);
        let line =
            format!("umask {umask}; exec {program} --demo -q collect {A} --output-dir {target}");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for file in [A, "samples.zip"] {
            let mode = fs::metadata(Path::new(&target).join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{umask} {file}");
        }
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o700, 0o700, "{umask}");
    }
}

#[test]
fn a_folder_is_tried_before_the_fetch() {
    let out = folder();
    let target = in_folder(&out, "samples.zip");
    let server = Server::with_answers([]);
    for folder in ["/proc/nothing", "/dev/null", "/proc"] {
        for line in [
            format!("samples r-1 --output {target} --extract {folder}"),
            format!("{COLLECT} --ascii a --output-dir {folder}"),
        ] {
            let run = server.run(&line);
            assert!(
                run.error(2).contains("as the output folder: "),
                "{}",
                run.stderr
            );
        }
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(names(&out), [""; 0]);
}

/// As in an editor, the link stays and its target is written.
#[test]
fn links_to_states_and_cassettes_are_followed() {
    let out = folder();
    let [link, state, tape] = ["link", "state", "tape"].map(|name| in_folder(&out, name));
    fs::create_dir(in_folder(&out, "real")).unwrap();
    symlink("real/state", &state).unwrap();
    symlink("real/tape", &link).unwrap();
    symlink("link", &tape).unwrap();
    let line = format!("hunt {RULE} --state {state} --record {tape}");
    let server = Server::with_answers([job("r-1", "done"), refusal(403, "no")]);
    server.run(&line).error(4);
    // The targets of links are not replaced either.
    server.run(&line).error(2);
    assert_eq!(names(in_folder(&out, "real")), ["state", "tape"]);
    let line = format!("resume {state} --record {tape} --force");
    Server::with_answers([job("r-1", "done")]).run(&line).json();
    assert_eq!(names(in_folder(&out, "real")), ["state", "tape"]);
    for path in [state, link, tape] {
        assert!(fs::symlink_metadata(path).unwrap().is_symlink());
    }
}

#[test]
fn a_run_removes_what_a_killed_one_left() {
    let out = folder();
    // A state file is written in the same way as a download.
    fs::write(in_folder(&out, ".malquery-x.part"), "half a state").unwrap();
    let state = in_folder(&out, "state");
    Server::with_answers([job("r-1", "done"), job("r-1", "done")])
        .run(&format!("hunt {RULE} --state {state}"))
        .json();
    assert_eq!(names(&out), ["state"]);
    fs::remove_file(state).unwrap();
    let target = in_folder(&out, "sample");
    let server = Server::start(|request| match request.uri().path() {
        "/oauth2/token" => token(),
        _ => {
            thread::sleep(Duration::from_secs(2));
            refusal(403, "not here")
        }
    });
    let mut child = server
        .command(&format!("download {A} --output {target}"))
        .spawn()
        .unwrap();
    while server.count("GET") == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    // A process that is still running keeps its partial file.
    let other = format!("{target}-2");
    demo(&format!("download {A} --output {other}")).json();
    let is_part = |name: &String| name.ends_with(".part");
    assert_eq!(names(&out).iter().filter(|name| is_part(name)).count(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    demo(&format!("download {A} --output {target}")).json();
    assert_eq!(names(&out), ["sample", "sample-2"]);
}
