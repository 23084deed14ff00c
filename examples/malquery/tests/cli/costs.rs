use crate::support::*;

#[test]
fn a_possibly_received_hunt_is_sent_once() {
    let server = Server::with_answers([refusal(500, "oops")]);
    let run = server.run(&format!("hunt --rule {RULE} --wait"));
    assert!(
        run.error(1).contains("it was not retried"),
        "{}",
        run.stderr
    );
    assert_eq!(
        server.asked(),
        ["POST /oauth2/token", "POST /malquery/queries/hunt/v1"]
    );
}

#[test]
fn a_short_quota_is_not_spent() {
    let other = "5eaab9f8a0f97240a9388ebdcf7e9c692dd1bc8764962bf354ed05506eecac77";
    let out = folder();
    let target = in_folder(&out, "out");
    let state = in_folder(&out, "state");
    fs::write(&state, "another job").unwrap();
    let hunts = "error: the number of hunts left this month is 0, but the ";
    let downloads = "error: the number of downloads left this month is 1, but the job needs 2; ";
    for (line, message) in [
        (format!("--check-quota hunt --rule {RULE}"), hunts),
        (
            format!("--check-quota hunt --rule {RULE} --state {state} --force"),
            hunts,
        ),
        (
            format!("--check-quota multidownload {A} {other}"),
            downloads,
        ),
        // `collect` checks the quotas by default.
        (
            format!("collect --rule {RULE} --limit 2 --output-dir {target}"),
            hunts,
        ),
    ] {
        let server = Server::with_answers([quotas(0, 1)]);
        assert!(server.run(&line).error(5).starts_with(message), "{line}");
        assert_eq!(server.asked().len(), 2);
    }
    // The state file was not replaced.
    assert_eq!(fs::read_to_string(state).unwrap(), "another job");
}

#[test]
fn an_unknown_quota_is_not_risked() {
    let errors = json!({"meta": {}, "errors": [{"code": 500, "message": "no database"}]});
    for (quotas, why) in [
        (
            json!({"meta": {"hunt_limit": 5}}),
            "the service does not report it",
        ),
        (errors, "no database"),
    ] {
        let server = Server::with_answers([answer(200, quotas)]);
        let run = server.run(&format!("multidownload {A} --check-quota"));
        assert!(run.error(5).contains(why), "{}", run.stderr);
        assert_eq!(server.asked().len(), 2);
    }
}

#[test]
fn the_rest_of_the_quota_is_offered() {
    let out = folder();
    let target = in_folder(&out, "out");
    let mut answers = collecting(&[HELLO, A], SEVERAL);
    answers.truncate(3);
    answers.insert(0, quotas(9, 1));
    answers.push(quotas(9, 1));
    let server = Server::with_answers(answers);
    let run = server.run(&format!("collect --yes --ascii a --output-dir {target}"));
    let error = run.error(5);
    assert!(
        error.starts_with(
            "error: the number of downloads left this month is 1, but the job needs 2; "
        ),
        "{error}"
    );
    run.says("hint: to use the remaining quota, collect the results of the search with: malquery");
    run.says(" collect --request r-1 --limit 1 --output-dir ");
}

#[test]
fn a_state_that_was_never_written_is_not_offered() {
    let out = folder();
    let [target, state] = ["out", "state"].map(|name| in_folder(&out, name));
    let known = json!({"resources": [{"sha256": A}, {"sha256": HELLO}]});
    let server = Server::with_answers([answer(200, known), quotas(9, 1), quotas(9, 1)]);
    let line = format!("collect {A} {HELLO} --state {state} --output-dir {target}");
    let run = server.run(&line);
    let error = run.error(5);
    assert!(error.contains("the job was not submitted"), "{error}");
    run.omits("continue with");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn collect_says_what_it_will_spend() {
    let out = folder();
    let target = in_folder(&out, "out");
    let run = demo(&format!(
        "collect --rule {RULE} --limit 3 --output-dir {target}"
    ));
    run.json();
    run.says("cost: 1 hunt, plus at most 3 downloads; hunts left this month: 100; downloads left this month: 50\n");
    let run = demo(&format!(
        "collect {A} --output-dir {target} --force --no-check-quota"
    ));
    run.json();
    run.says("cost: 1 download\n");
    // An exhausted quota is detected before the search.
    let server = Server::with_answers([quotas(9, 0)]);
    let run = server.run(&format!(
        "collect --ascii a --limit 1 --output-dir {target} --force"
    ));
    assert!(
        run.error(5).contains(
            "the number of downloads left this month is 0, but the command needs at least 1"
        ),
        "{}",
        run.stderr
    );
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn collect_without_a_limit_needs_a_yes() {
    let out = folder();
    let target = in_folder(&out, "out");
    let server = Server::with_answers([]);
    for source in ["--ascii a", "--request r-1", &format!("--rule {RULE}")] {
        let run = server.run(&format!("collect {source} --output-dir {target}"));
        assert!(run.error(2).contains("without --limit"), "{}", run.stderr);
        run.says("hint: use --limit N, or --yes");
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(names(&out), [""; 0]);
    let line = format!("collect --ascii GNU --yes --output-dir {target}");
    assert_eq!(demo(&line).json()["samples"].as_array().unwrap().len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_person_is_asked() {
    let out = folder();
    let line = format!(
        "collect --demo --ascii GNU --output-dir {}",
        in_folder(&out, "out")
    );
    let (code, shown) = answer_on_terminal(80, &mut command(&line), "n\n");
    assert!(code == 2 && shown.contains("[y/N]"), "{shown}");
    assert_eq!(names(&out), [""; 0]);
    let (code, shown) = answer_on_terminal(80, &mut command(&line), "y\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(names(out.path().join("out")).len(), 3);
}

#[test]
fn odd_fields_are_refused_and_types_warned_of() {
    let server = Server::with_answers([]);
    let run = server.run("exact-search --ascii a --meta sha256,labell");
    assert_eq!((run.code, server.asked().len()), (2, 0));
    run.says("unknown field; use one of: sha256");
    let run = demo("exact-search --ascii CrowdStrike --filetype pe23,pe32 --wait");
    run.json();
    run.says("warning: pe23 is not a known MalQuery file type")
        .omits("pe32 is not");
}

#[test]
fn an_id_that_arrived_is_shown() {
    let reply = json!({"meta": {"reqid": "r-9"}, "errors": [{"code": 500, "message": "oops"}]});
    for line in [format!("hunt {RULE}"), format!("hunt {RULE} --wait")] {
        let server = Server::with_answers([answer(500, reply.clone())]);
        let run = server.run(&format!("{line} --timeout 2"));
        assert_eq!(server.count("POST /malquery"), 1);
        assert_ne!(run.code, 0);
        run.says(" request r-9 --wait");
    }
}
