use std::path::Path;

use crate::support::*;

#[test]
fn a_command_is_recorded_and_replayed() {
    let out = folder();
    let cassette = in_folder(&out, "tape.json");
    let line = format!("hunt --rule {RULE} --wait");
    let server = Server::with_answers([
        job(SEARCH, "done"),
        job(SEARCH, "inprogress"),
        job(SEARCH, "done"),
    ]);
    let recorded = server.run(&format!("{line} --record {cassette}"));
    recorded.says(&format!("the recording was saved to {cassette}"));
    // The client id in the tests is only 5 bytes long.
    let warning = format!("warning: {cassette}: a secret is shorter than 6 bytes");
    recorded.says(&warning);
    assert_eq!(recorded.json()["meta"]["reqid"], SEARCH);
    let text = fs::read_to_string(&cassette).unwrap();
    for secret in ["s3cret", "an-id", "t0ken-of-it", SEARCH] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(names(&out), ["tape.json"]);
    // Waits take no time during replay.
    let replayed = plain(&format!("hunt {RULE} --wait --replay {cassette}"));
    assert_eq!(replayed.json()["meta"]["status"], "done");

    // A request id from the command line matches the recording.
    let server = Server::with_answers([job(SEARCH, "done")]);
    let line = format!("request {SEARCH}");
    server.run(&format!("{line} --record {cassette}")).error(2);
    assert_eq!(server.asked(), [""; 0]);
    server
        .run(&format!("{line} --record {cassette} --force --quiet"))
        .omits(&warning)
        .json();
    let replayed = plain(&format!("{line} --replay {cassette}"));
    assert_eq!(replayed.json()["meta"]["status"], "done");

    // Nothing is sent, so the file stays as it is.
    let line = format!("hunt nothing.yar --record {cassette} --force");
    let refused = server.run(&line);
    refused.omits("the recording is saved").error(2);
}

#[test]
fn a_recording_of_malware_says_so() {
    let out = folder();
    let (tape, target) = (in_folder(&out, "tape.json"), in_folder(&out, "out"));
    let warning =
        format!("warning: {tape} or the folder {tape}.bodies may contain the downloaded malware\n");
    for (line, holds) in [
        (format!("download {A} --output {target}"), true),
        (format!("samples {ARCHIVE} --output {target}"), true),
        ("fuzzy-search --ascii CrowdStrike --limit 3".into(), false),
    ] {
        let recorded = Server::with_cassette().run(&format!("{line} --force --record {tape}"));
        recorded.json();
        assert_eq!(
            recorded.stderr.contains(&warning),
            holds,
            "{line}: {}",
            recorded.stderr
        );
    }
}

#[test]
fn errors_are_recorded_too() {
    let out = folder();
    let cassette = in_folder(&out, "tape.json");
    let server = Server::with_answers([refusal(403, "access denied")]);
    server.run(&format!("quotas --record {cassette}")).error(4);
    assert!(
        plain(&format!("quotas --replay {cassette}"))
            .error(4)
            .contains("access denied")
    );
}

/// Returns the permissions of a file or folder.
#[cfg(unix)]
fn mode(path: impl AsRef<Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[cfg(unix)]
#[test]
fn a_recording_is_readable_whatever_the_umask() {
    let out = folder();
    let program = env!("CARGO_BIN_EXE_malquery");
    let server = Server::with_answers([quotas(1, 1)]);
    let cassette = in_folder(&out, "tape.json");
    let line = format!(
        "umask 0777; exec {program} --base-url {} quotas --record {cassette}",
        server.base
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).envs(
        server
            .command("")
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    run(&mut command).json();
    assert_eq!(mode(&cassette), 0o600);
}

#[cfg(unix)]
#[test]
fn a_recording_survives_a_lost_folder() {
    let (out, temporary) = (folder(), folder());
    let cassettes = in_folder(&out, "cassettes");
    fs::create_dir(&cassettes).unwrap();
    let moved = in_folder(&out, "moved");
    let there = cassettes.clone();
    // Like a full disk, this prevents writing next to the cassette.
    let server = Server::start(move |request| match request.uri().path() {
        "/oauth2/token" => token(),
        _ => {
            fs::rename(&there, &moved).unwrap();
            fs::write(&there, "").unwrap();
            quotas(1, 1)
        }
    });
    let mut command = server.command(&format!("quotas --record {cassettes}/tape.json"));
    let run = run(command.env("TMPDIR", temporary.path()));
    assert_eq!(run.code, 1, "{}", run.stderr);
    let kept = temporary.path().join(&names(&temporary)[0]);
    let tape = kept.join("tape.json");
    assert_eq!((mode(&kept), mode(&tape)), (0o700, 0o600));
    run.says("was not written");
    run.says(&format!(
        "hint: the exchanges that could be recorded were saved to {}",
        tape.display()
    ));
    plain(&format!("quotas --replay {}", tape.display())).json();
}

#[test]
fn a_recording_with_a_secret_is_refused() {
    let out = folder();
    let cassette = in_folder(&out, "tape.json");
    let rule = in_folder(&out, "rule.yar");
    fs::write(
        &rule,
        "rule leak { strings: $a = \"s3cret\" condition: $a }",
    )
    .unwrap();
    let line = format!("hunt --rule {rule} --record {cassette} --wait");
    for _ in 0..2 {
        let server = Server::with_answers([job("r-1", "done"), job("r-1", "done")]);
        let run = server.run(&line);
        assert_eq!(run.code, 1, "{}", run.stderr);
        run.says("was not written")
            .says("hint: the exchanges that could be recorded were saved to ");
        run.omits("s3cret").omits("source.rs");
    }
    // Nothing is written if all exchanges were refused.
    let server = Server::with_answers([job("r-1", "done")]);
    server
        .run(&line.replace("--wait", ""))
        .says("was not written")
        .omits("could be recorded");
    // The rest of each run is saved.
    let rest = ["tape.rest-2.json", "tape.rest.json"];
    assert_eq!(names(&out)[1..], rest);
    for name in rest {
        let text = fs::read_to_string(in_folder(&out, name)).unwrap();
        assert!(
            text.contains("/requests/") && !text.contains("s3cret"),
            "{text}"
        );
    }
}

#[test]
fn an_unwritable_recording_is_refused() {
    let out = folder();
    let server = Server::with_answers([]);
    let file = in_folder(&out, "file");
    fs::write(&file, "mine").unwrap();
    let (folder, name) = (out.path().display(), out.path().file_name().unwrap());
    let name = name.to_str().unwrap();
    for line in [
        format!("download {A} --output {file} --record {file}"),
        format!("hunt --rule {file} --record {file} --no-check-rule"),
        format!("request r-1 --state {file} --record {file}"),
        format!("metadata --from {file} --record {file}"),
        format!("quotas --record {file}/"),
        "quotas --record /dev/null --force".into(),
        // A file is never both read and written, not even under two names.
        format!("hunt {file} --state {folder}/../{name}/file --force --no-check-rule"),
        format!("multidownload --from {file} --state {file} --force"),
        format!("download {A} --output {file} --ca-file {file} --force"),
        format!("download {A} --output {file} --replay {file} --force"),
        format!("collect --rule {folder}/samples.zip --output-dir {folder} --limit 1 --force"),
    ] {
        server.run(&line).error(2);
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_long_wait_says_so_once_a_minute() {
    let out = folder();
    let tape = in_folder(&out, "tape.json");
    let mut answers = vec![job(SEARCH, "inprogress"); 9];
    answers.push(job(SEARCH, "done"));
    let line = format!("request {SEARCH} --wait");
    Server::with_answers(answers)
        .run(&format!("{line} --record {tape}"))
        .json();
    let run = plain(&format!("{line} --replay {tape} --poll-interval 30"));
    run.json();
    let lines = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("waiting for "));
    assert!((3..6).contains(&lines.clone().count()), "{}", run.stderr);
    assert!(
        lines
            .clone()
            .all(|line| line.contains(": inprogress, elapsed: ") && line.contains(" min, polls: "))
    );
}
