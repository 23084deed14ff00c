use crate::support::*;

#[test]
fn a_job_resumes_from_its_state() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let server = Server::with_answers([
        job("r-1", "done"),
        job("r-1", "inprogress"),
        refusal(403, "no"),
    ]);
    let line = format!("hunt --rule {RULE} --state {state}");
    let run = server.run(&line);
    run.says(&format!(
        "hint: continue with: malquery --base-url {} resume {state}\n",
        server.base
    ));
    run.error(4);
    let stored = fs::read_to_string(&state).unwrap();
    assert!(stored.contains("r-1"), "{stored}");
    assert!(
        !stored.contains("CrowdStrike") && !stored.contains("s3cret"),
        "{stored}"
    );

    // A state file never replaces that of another job.
    let run = server.run(&line);
    run.error(2);
    run.says(&format!("resume {state}\n"));
    let server = Server::with_answers([job("r-1", "inprogress"), job("r-1", "done")]);
    let document = server.run(&format!("resume {state}")).json();
    assert_eq!(document["meta"]["status"], "done");
    assert_eq!(server.count("GET"), 2);
    assert_eq!(names(&out), ["state.json"]);
    fs::write(&state, "{}").unwrap();
    assert!(
        server
            .run(&format!("resume {state}"))
            .error(2)
            .contains("is not a valid state file")
    );
}

/// Runs a `collect` that finds these samples and fails because the archive is refused.
fn stopped(out: &TempDir, found: &[&str]) -> (String, String) {
    let (state, target) = (in_folder(out, "state.json"), in_folder(out, "out"));
    let mut answers = collecting(found, SEVERAL);
    answers.pop();
    answers.push(refusal(403, "not now"));
    let server = Server::with_answers(answers);
    let line = format!("{COLLECT} --ascii s3arch --state {state} --output-dir {target}");
    let run = server.run(&line);
    run.says(&format!(
        "hint: continue with: malquery --base-url {} resume {state}\n",
        server.base
    ));
    run.error(4);
    (state, target)
}

#[test]
fn a_collect_resumes_from_its_state() {
    let out = folder();
    let (state, target) = stopped(&out, &[HELLO]);
    let stored = fs::read_to_string(&state).unwrap();
    assert!(stored.contains("r-2"), "{stored}");
    assert!(
        !stored.contains("s3arch") && !stored.contains("s3cret"),
        "{stored}"
    );
    // The folder created for the samples is removed, because it is empty.
    assert_eq!(names(&out), ["state.json"]);
    // A state file never replaces another one.
    let line = format!("{COLLECT} --ascii s3arch --state {state} --output-dir {target}");
    Server::with_answers([]).run(&line).error(2);
    let archive = collecting(&[], SEVERAL).pop().unwrap();
    let server = Server::with_answers([job("r-2", "done"), archive]);
    let run = server.run(&format!("resume {state}"));
    run.omits("costs a download");
    let document = run.json();
    assert_eq!(
        (&document["search"], &document["download"]),
        (&json!("r-1"), &json!("r-2"))
    );
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert_eq!(server.count("POST /malquery"), 0);
}

#[test]
fn an_archive_without_its_state_is_taken_up() {
    // The process was killed after the archive was complete, but before the state was saved.
    let stopped = |found: &[&str], archive: &[u8]| {
        let out = folder();
        let (state, target) = stopped(&out, found);
        fs::create_dir(&target).unwrap();
        fs::write(format!("{target}/samples.zip"), archive).unwrap();
        (out, state, target)
    };
    let server = Server::with_answers([]);
    // MalQuery may omit a sample. A padded sample may need a higher limit.
    for (found, archive, option, code) in [
        (&[HELLO][..], SEVERAL, "", 0),
        (&[HELLO, A], ONE, "", 3),
        (&[HELLO], BOMB, " --max-ratio 1100", 0),
    ] {
        let (_out, state, target) = stopped(found, archive);
        let run = server.run(&format!("resume {state}{option}"));
        assert_eq!(run.code, code, "{}", run.stderr);
        run.omits("nothing was found");
        let document: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(document["path"], format!("{target}/samples.zip"));
        assert_eq!(document["bytes"], archive.len());
        assert_eq!(
            (&document["samples"], &document["download"]),
            (&json!(found), &json!("r-2"))
        );
        assert_eq!(names(&target), [HELLO, "samples.zip"]);
    }
    // A different file is neither used nor replaced.
    for (found, archive) in [
        (&[HELLO][..], &BOMB[..99]),
        (&[HELLO, A], SEVERAL),
        (&[A], ONE),
    ] {
        let (_out, state, target) = stopped(found, archive);
        server.run(&format!("resume {state}")).error(2);
        assert_eq!(fs::read(format!("{target}/samples.zip")).unwrap(), archive);
    }
    assert_eq!(server.asked(), [""; 0]);
}

/// A state file contains absolute paths, so `resume` works in any folder. Once the archive is
/// complete, nothing is requested.
#[test]
fn a_collect_resumes_without_a_request() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    // The file already exists, and --force is not given.
    fs::create_dir(out.path().join("new")).unwrap();
    fs::write(out.path().join("new").join(HELLO), "mine").unwrap();
    let line = format!("{COLLECT} --ascii a --state state.json --output-dir new");
    let run = run(server.command(&line).current_dir(&out));
    assert_eq!(run.code, 1);
    run.says("resume");
    assert_eq!(names(out.path().join("new")), [HELLO, "samples.zip"]);
    let asked = server.asked().len();
    let document = server.run(&format!("resume {state} --force")).json();
    assert_eq!(document["download"], "r-2");
    assert_eq!(server.asked().len(), asked);
    assert_eq!(
        fs::read(out.path().join("new").join(HELLO)).unwrap(),
        b"hello"
    );
    // The archive can also be unpacked without a state file.
    let target = in_folder(&out, "other");
    let archive = in_folder(&out, "new/samples.zip");
    let document = plain(&format!("extract {archive} --output-dir {target}")).json();
    assert_eq!(document["contents"]["files"].as_array().unwrap().len(), 4);
    assert_eq!(names(&target).len(), 4);
    // A missing file is reported once, and no folder is created for it.
    let (none, target) = (in_folder(&out, "none.zip"), in_folder(&out, "none"));
    let run = plain(&format!("extract {none} --output-dir {target}"));
    assert_eq!(run.error(2), format!("error: file not found: {none}"));
    assert_eq!(names(&out), ["new", "other", "state.json"]);
}

#[test]
fn a_state_is_not_the_archive() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers([]);
    let line = format!("{COLLECT} --ascii a --state {target}/samples.zip --output-dir {target}");
    server.run(&line).error(2);
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn two_processes_do_not_resume_one_job() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let gate = Gate::default();
    let held = gate.clone();
    let server = Server::start(move |request| match request.uri().path() {
        "/oauth2/token" => {
            // Until the token arrives, the state records that nothing was submitted.
            held.wait();
            token()
        }
        _ => job("r-1", "done"),
    });
    let mut first = server.command(&format!("hunt {RULE} --state {state}"));
    let running = thread::spawn(move || run(&mut first));
    while server.asked().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    for line in [
        format!("resume {state}"),
        format!("hunt {RULE} --state {state} --force"),
    ] {
        assert!(
            server
                .run(&line)
                .error(2)
                .contains("another malquery process is using it")
        );
    }
    gate.open();
    running.join().unwrap().json();
    assert_eq!(server.count("hunt"), 1);
    assert_eq!(names(&out), ["state.json"]);
    server.run(&format!("resume {state}")).json();
}

#[test]
fn a_missing_archive_can_be_fetched_again() {
    let out = folder();
    let (target, state) = (in_folder(&out, "out"), in_folder(&out, "state"));
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    server
        .run(&format!(
            "{COLLECT} --ascii a --output-dir {target} --state {state}"
        ))
        .json();
    fs::remove_file(format!("{target}/samples.zip")).unwrap();
    let run = server.run(&format!("resume {state}"));
    run.error(1);
    run.says("hint: fetch the archive with: malquery")
        .says(" samples r-2 --output ");
}

#[test]
fn a_refused_job_leaves_no_state() {
    let out = folder();
    let state = in_folder(&out, "state");
    let line = format!("exact-search --ascii a --state {state}");
    Server::with_answers([refusal(400, "bad pattern")])
        .run(&line)
        .error(1);
    assert_eq!(names(out.path()), [""; 0]);
    // A job that can continue or was submitted keeps its state.
    Server::with_answers([refusal(403, "no")])
        .run(&line)
        .error(4);
    assert_eq!(names(out.path()), ["state"]);
    // The message names the job to be submitted.
    let (target, state) = (in_folder(&out, "out"), in_folder(&out, "hunt"));
    let line = format!("{COLLECT} --rule {RULE} --state {state} --output-dir {target}");
    Server::with_answers([refusal(403, "no")])
        .run(&line)
        .error(4);
    Server::with_answers([job("r-1", "done"), job("r-1", "done")])
        .run(&format!("resume {state}"))
        .says("the hunt was submitted; the request id is r-1\n")
        .json();
}
