use crate::support::*;

#[test]
fn collect_does_the_whole_job() {
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    let out = folder();
    // Missing folders are created, as with `mkdir -p`.
    let target = in_folder(&out, "other/../new/folder");
    let run = server.run(&format!("{COLLECT} --ascii a --output-dir {target}"));
    let document = run.json();
    assert_eq!(document["samples"], json!([HELLO]));
    assert_eq!(
        (&document["search"], &document["download"]),
        (&json!("r-1"), &json!("r-2"))
    );
    assert_eq!(document["contents"]["missing"], json!([]));
    // Each sample is in a file named after its SHA-256, next to the archive.
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert_eq!(
        fs::read(Path::new(&target).join("samples.zip")).unwrap(),
        SEVERAL
    );
    assert_eq!(fs::read(Path::new(&target).join(HELLO)).unwrap(), b"hello");
    assert_eq!(server.count("POST /malquery"), 2);
    run.says("cost: a download per sample found");
    run.says("samples to download: 1");
}

#[test]
fn missing_samples_are_named_and_others_kept() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers(collecting(&[HELLO, A], SEVERAL));
    let run = server.run(&format!(
        "{COLLECT} --rule {RULE} --limit 2 --output-dir {target}"
    ));
    // The archive is incomplete, but its samples are printed.
    assert_eq!(run.code, 3, "{}", run.stderr);
    let error = "error: the archive is not complete (missing samples: 1, damaged entries: 0)";
    assert_eq!(run.stderr.lines().last(), Some(error));
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["contents"]["missing"], json!([A]));
    assert_eq!(document["contents"]["files"][0]["sha256"], HELLO);
    run.says("the hunt was submitted; the request id is r-1\n");
    run.omits("verified and written");
    assert_eq!(
        document["contents"]["unexpected"].as_array().unwrap().len(),
        3
    );
    run.says(&format!("warning: {A} was not found in the archive"));
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
    assert_eq!(server.count("POST /malquery/queries/hunt/v1"), 1);
    // The result is the same if the samples are not unpacked.
    for options in [
        format!("{COLLECT} --ascii a --no-extract --output-dir {target}-2"),
        format!("{COLLECT} {HELLO} {A} --no-extract --output-dir {target}-3"),
    ] {
        let mut answers = collecting(&[HELLO, A], SEVERAL);
        if !options.contains("--ascii") {
            answers.splice(..3, [answers[2].clone()]);
        }
        let run = Server::with_answers(answers).run(&options);
        assert_eq!(run.code, 3, "{}", run.stderr);
        assert_eq!(run.stderr.lines().last(), Some(error));
    }
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL));
    let target = in_folder(&out, "other");
    let line = format!("{COLLECT} --ascii a --no-extract --output-dir {target}");
    let run = server.run(&line);
    run.says(&format!(
        "\n1 sample verified; the archive is {target}/samples.zip\n"
    ));
    let document = run.json();
    assert_eq!(document["contents"]["files"][0]["path"], Value::Null);
    assert_eq!(names(&target), ["samples.zip"]);
}

#[test]
fn a_refused_download_keeps_what_was_found() {
    let out = folder();
    let target = in_folder(&out, "my out");
    let mut answers = collecting(&[HELLO, A], SEVERAL);
    answers.truncate(3);
    answers.push(refusal(403, "access denied, authorization failed"));
    let server = Server::with_answers(answers);
    let mut command = server.command(&format!("{COLLECT} --ascii a --output-dir"));
    let run = run(command.arg(&target));
    // The limit is the number of samples found.
    run.says(&format!(
        "collect --request r-1 --limit 2 --output-dir '{target}'\n"
    ));
    run.error(4);
    let server = Server::with_answers(collecting(&[HELLO], SEVERAL).into_iter().skip(2));
    let target = in_folder(&out, "out");
    let line = format!("{COLLECT} --request r-1 --limit 1 --output-dir {target}");
    let document = server.run(&line).json();
    assert_eq!(
        (&document["search"], &document["download"]),
        (&json!("r-1"), &json!("r-2"))
    );
    assert_eq!(names(&target), [HELLO, "samples.zip"]);
}

#[test]
fn a_hint_to_collect_keeps_its_limit() {
    let out = folder();
    let found = json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"sha256": A}, {"sha256": HELLO}]});
    let server = Server::with_answers([answer(200, found), refusal(403, "no")]);
    let target = in_folder(&out, "out");
    let line = "--request r-1 --limit 1 --no-extract --output-dir";
    let run = server.run(&format!("{COLLECT} {line} {target}"));
    run.error(4);
    run.says(&format!(
        " collect --request r-1 --limit 1 --output-dir {target} --no-extract\n"
    ));
}

#[test]
fn empty_folders_are_removed() {
    let out = folder();
    let deep = in_folder(&out, "one/two/three");
    plain(&format!("extract nothing.zip --output-dir {deep}")).error(2);
    assert_eq!(names(out.path()), [""; 0]);
    let server = Server::with_answers([refusal(400, "bad rule")]);
    server
        .run(&format!("{COLLECT} --ascii abc --output-dir {deep}"))
        .error(1);
    assert_eq!(names(out.path()), [""; 0]);
}

#[test]
fn a_search_without_results_costs_no_download() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers([job("r-1", "done"), job("r-1", "done")]);
    let run = server.run(&format!("{COLLECT} --ascii a --output-dir {target}"));
    assert_eq!(run.json()["samples"], json!([]));
    run.says("nothing was found");
    assert_eq!(server.asked().len(), 3);
    assert_eq!(names(&out), [""; 0]);

    let odd =
        json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"label": "malware"}]});
    let server = Server::with_answers([job("r-1", "done"), answer(200, odd)]);
    let run = server.run(&format!("{COLLECT} --ascii a --output-dir {target}"));
    let error = "error: nothing to download: no result has a SHA-256 (results: 1)";
    assert_eq!(run.error(1), error);
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_list_is_looked_up_before_paying() {
    let out = folder();
    let target = in_folder(&out, "out");
    let list = in_folder(&out, "list");
    fs::write(&list, format!("{HELLO}  hello\n{A}\n")).unwrap();
    let known = answer(200, json!({"meta": {}, "resources": [{"sha256": HELLO}]}));
    let archive = collecting(&[], SEVERAL).split_off(3);
    let server = Server::with_answers([known].into_iter().chain(archive));
    let run = server.run(&format!("{COLLECT} --from {list} --output-dir {target}"));
    assert_eq!(run.json()["samples"], json!([HELLO]));
    run.says("cost: 1 download\n");
    run.says(&format!("not in MalQuery: {A}\n"));
    assert_eq!(run.stderr.lines().last(), Some("in MalQuery: 1 of 2"));
    // If no sample is in MalQuery, nothing is paid for.
    let server = Server::with_answers([answer(200, json!({"meta": {}, "resources": []}))]);
    let run = server.run(&format!("collect {A} --output-dir {target} --force"));
    assert_eq!(run.json()["samples"], json!([]));
    run.says("in MalQuery: 0 of 1\n").omits("cost: ");
    assert_eq!(server.count("quotas") + server.count("POST /malquery"), 0);
}

#[test]
fn samples_come_from_one_source() {
    for (line, what) in [
        ("", "use one of: patterns"),
        ("--ascii a --request r-1", "use only one of: patterns"),
        ("--ascii a --rule x.yar", "use only one of: patterns"),
        (&format!("{A} --ascii a"), "use only one of: patterns"),
    ] {
        let run = plain(&format!("collect --demo --limit 1 --output-dir out {line}"));
        assert!(run.error(2).contains(what), "{}", run.stderr);
    }
}
