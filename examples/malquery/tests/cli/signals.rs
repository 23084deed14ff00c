#![cfg(unix)]

use malquery_test_support::Then;

use crate::support::*;

#[test]
fn a_signal_leaves_a_state_and_a_hint() {
    let check = |signal, number| {
        let out = folder();
        let state = in_folder(&out, "state.json");
        let server = Server::with_answers([job("r-1", "done"), job("r-1", "inprogress")]);
        let mut command = server.command(&format!("hunt {RULE} --state {state} --poll-interval 2"));
        let run = signal_when(signal, &mut command, || {
            fs::read_to_string(&state).is_ok_and(|stored| stored.contains("r-1"))
        });
        // The signal itself ends the process, so that a shell loop stops.
        assert_eq!(run.signal, Some(number), "{}", run.stderr);
        run.error(128 + number);
        let resume = format!("malquery --base-url {} resume {state}", server.base);
        run.says("error: interrupted\n")
            .says(&format!("hint: continue with: {resume}\n"));
        let server = Server::with_answers([job("r-1", "done")]);
        server.run(&format!("resume {state}")).json();
        assert_eq!(names(&out), ["state.json"]);
    };
    thread::scope(|scope| {
        for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
            scope.spawn(move || check(signal, number));
        }
    });
}

#[test]
fn ctrl_c_writes_the_recording() {
    let out = folder();
    let (state, cassette) = (
        in_folder(&out, "state.json"),
        in_folder(&out, "cassette.json"),
    );
    let server = Server::with_answers((0..1000).map(|_| job("r-1", "inprogress")));
    let line = format!("--record {cassette} hunt {RULE} --state {state} --poll-interval 0.2");
    let run = interrupt_when(&mut server.command(&line), || {
        server.count("/requests/") > 0
            && fs::read_to_string(&state).is_ok_and(|stored| stored.contains("r-1"))
    });
    assert_eq!(run.signal, Some(2));
    run.says("error: interrupted\n")
        .says(&format!("the recording was saved to {cassette}\n"));
    let text = fs::read_to_string(&cassette).unwrap();
    assert!(
        text.contains("\"id\": \"hunt\"") && !text.contains("s3cret"),
        "{text}"
    );
    assert_eq!(names(&out), ["cassette.json", "state.json"]);
}

#[test]
fn ctrl_c_leaves_no_half_of_a_sample() {
    let out = folder();
    let target = in_folder(&out, "sample.bin");
    let server = malquery_test_support::Server::start(|request, out| {
        if !malquery_test_support::token(request, out) {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
            // Send a sample until the client disconnects.
            while out.write_all(&[b'x'; 1000]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        Then::Close
    });
    let mut command = with_credentials(&server.url(""), &format!("download {A} --output {target}"));
    let run = interrupt_when(&mut command, || {
        let mut entries = fs::read_dir(out.path()).unwrap();
        entries.any(|entry| entry.unwrap().metadata().is_ok_and(|found| found.len() > 0))
    });
    assert_eq!(run.error(130), "error: interrupted");
    assert_eq!(names(&out), [""; 0]);
}

/// A server that delays all replies except those to token requests.
fn slow(answer: Answer) -> Server {
    Server::start(move |request| match request.uri().path() {
        "/oauth2/token" => token(),
        _ => {
            // Long enough for the signal to arrive before the reply.
            thread::sleep(Duration::from_secs(1));
            answer.clone()
        }
    })
}

#[test]
fn ctrl_c_waits_for_a_submissions_id() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let check = |options| {
        let server = slow(job("r-1", "done"));
        let mut command = server.command(&format!("hunt {RULE} {options}"));
        let run = interrupt_when(&mut command, || server.count("hunt") > 0);
        run.says("waiting for the reply to a submission")
            .says("the request id is r-1");
        assert_eq!(run.signal, Some(2), "{}", run.stderr);
    };
    thread::scope(|scope| {
        scope.spawn(|| check(format!("--state {state}")));
        scope.spawn(|| check(String::new()));
    });
    assert!(fs::read_to_string(&state).unwrap().contains("r-1"));
    assert_eq!(names(&out), ["state.json"]);
}

#[test]
fn ctrl_c_before_a_submission_ends_at_once() {
    let server = Server::start(|_| {
        thread::sleep(Duration::from_secs(1));
        token()
    });
    for line in [
        format!("hunt {RULE}"),
        "exact-search --ascii a".into(),
        format!("multidownload {A}"),
    ] {
        let before = server.asked().len();
        let run = interrupt_when(&mut server.command(&line), || server.asked().len() > before);
        assert_eq!(run.error(130), "error: interrupted");
        run.says("hint: nothing was submitted\n");
    }
    assert_eq!(server.asked(), ["POST /oauth2/token"; 3]);
}

#[test]
fn a_refused_submission_ends_after_ctrl_c() {
    let server = slow(refusal(429, "API rate limit exceeded."));
    let mut command = server.command(&format!("hunt {RULE}"));
    let run = interrupt_when(&mut command, || server.count("hunt") > 0);
    run.says("waiting for the reply to a submission");
    assert_eq!(run.error(130), "error: interrupted");
    run.says("hint: nothing was submitted\n");
    assert_eq!(
        server.asked(),
        ["POST /oauth2/token", "POST /malquery/queries/hunt/v1"]
    );
}

#[test]
fn nohup_keeps_a_command_running() {
    let server = slow(quotas(9, 9));
    let program = env!("CARGO_BIN_EXE_malquery");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' HUP; exec {program} quotas")]);
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    command.env("FALCON_BASE_URL", &server.base);
    let run = signal_when("HUP", &mut command, || server.count("quotas") > 0);
    run.json();
}

#[test]
fn a_served_stand_in_ends_by_the_signal() {
    use std::io::Read;
    use std::process::Stdio;
    let mut command = command("serve");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 20])
        .unwrap();
    kill("INT", child.id());
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(2)
    );
}

#[test]
fn ctrl_c_stops_an_extraction() {
    let out = folder();
    let (archive, target) = (in_folder(&out, "samples.zip"), in_folder(&out, "out"));
    sparse_archive(&archive);
    let mut command = command(&format!("extract {archive} --output-dir {target}"));
    let run = interrupt_when(&mut command, || {
        let entries = fs::read_dir(&target).into_iter().flatten();
        entries
            .flatten()
            .any(|entry| entry.metadata().is_ok_and(|found| found.len() > 0))
    });
    assert_eq!(run.error(130), "error: interrupted");
    assert_eq!(names(&out), ["samples.zip"]);
}

/// Writes an archive with a 400 MB entry of zeros, which takes a while to extract.
fn sparse_archive(path: &str) {
    use std::io::{Seek, SeekFrom, Write};
    const SIZE: u32 = 400_000_000;
    let size = SIZE.to_le_bytes();
    let common = [
        &[10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x28, 0, 0, 0, 0],
        &size[..],
        &size,
        &[1, 0, 0, 0],
    ]
    .concat();
    let entry = [b"PK\x03\x04", &common[..], b"a"].concat();
    let listed = [b"PK\x01\x02\x14\x03", &common[..], &[0; 14], b"a"].concat();
    let start = u32::try_from(entry.len()).unwrap() + SIZE;
    let length = u32::try_from(listed.len()).unwrap();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        &length.to_le_bytes()[..],
        &start.to_le_bytes(),
        &[0, 0],
    ]
    .concat();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&entry).unwrap();
    file.seek(SeekFrom::Start(start.into())).unwrap();
    file.write_all(&[listed, end].concat()).unwrap();
}
