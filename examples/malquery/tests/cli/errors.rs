use crate::support::*;

#[test]
fn an_error_has_status_message_trace_and_hint() {
    let body = json!({"meta": {"trace_id": "trace-7"}, "errors": [{"code": 403, "message": "access denied, authorization failed"}]});
    let run = Server::with_answers([answer(403, body)]).run("quotas");
    assert_eq!(
        run.error(4),
        "error: the quota query returned 403 Forbidden: access denied, authorization failed (trace id trace-7)"
    );
    run.says("\nhint: the API client lacks the scope malquery:read");
}

/// Scripts rely on the exit code.
#[test]
fn errors_have_their_own_exit_codes() {
    let quota = json!({"meta": {"powered_by": "malquery-api"}, "errors": [{"code": 429, "message": "quota"}]});
    for (code, answers, line) in [
        (
            4,
            vec![refusal(401, "no"), refusal(401, "no")],
            "quotas".to_owned(),
        ),
        (4, vec![refusal(403, "no")], "quotas".into()),
        (5, vec![answer(429, quota)], format!("hunt {RULE}")),
        (1, vec![refusal(404, "no")], "quotas".into()),
        (3, vec![job("r-1", "failed")], "request r-1 --wait".into()),
        (
            3,
            vec![job("r-1", "failed")],
            "request r-1 --wait --format csv".into(),
        ),
        (2, vec![], "metadata nonsense".into()),
    ] {
        let run = Server::with_answers(answers).run(&line);
        assert_eq!(run.code, code, "{line}: {}", run.stderr);
        run.omits("MalQueryQuotasV1").omits("oauth2");
        let hint = run.stderr.contains("then submit the job again");
        assert_eq!(hint, code == 3, "{line}: {}", run.stderr);
    }
    // A refused token request.
    for (status, code) in [(400, 4), (401, 4), (403, 4), (404, 1)] {
        let server = Server::start(move |_| refusal(status, "Failed to generate access token"));
        let run = server.run("quotas");
        assert!(
            run.error(code).starts_with("error: the login returned"),
            "{}",
            run.stderr
        );
    }
    // The status of a failed job is shown as well.
    let run = Server::with_answers([job("r-1", "failed")]).run("request r-1");
    run.says("then submit the job again");
    assert!(
        run.code == 3 && run.stdout.contains("failed"),
        "{}",
        run.stdout
    );
}

/// A caret must stay below the text it points to, but untrusted text must not look like a message
/// of this program or control the terminal.
#[test]
fn lines_of_the_service_are_indented() {
    let message = "line 1, column 3:\r\n  ab\n    ^\n\nerror: \u{1b}[2Jforged";
    let run = Server::with_answers([refusal(400, message)]).run("quotas");
    let shown = "error: the quota query returned 400 Bad Request: line 1, column 3:\n    ab\n      ^\n  error:  [2Jforged\n";
    assert_eq!((run.code, run.stderr.as_str()), (1, shown));
    // Untrusted text must not look like a hint either.
    let message = "no; hint: run `curl x | sh`";
    let run = Server::with_answers([refusal(404, message)]).run("quotas");
    let shown = format!("error: the quota query returned 404 Not Found: {message}\n");
    assert_eq!((run.code, run.stderr), (1, shown));
    let done = json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{}], "errors": [{"message": "one\nerror: two"}]});
    let run = Server::with_answers([answer(200, done)]).run("request r-1 --wait");
    run.says("warning: one\n  error: two\n");
    assert_eq!(run.code, 0);
}

#[test]
fn a_difference_from_a_cassette_is_shown() {
    let run = offline("fuzzy-search --ascii other");
    assert!(run.error(1).contains("offline.json"), "{}", run.stderr);
    run.says("/patterns/0/value: \"CrowdStrike\" in the cassette, \"other\" in the request\n");
    run.says("\nhint: to update the cassette, use `--record FILE --force` instead of --replay\n");
    run.omits("MALQUERY_MOCK");
}

#[test]
fn a_missing_service_is_reported_once() {
    let nobody = format!("http://127.0.0.1:{}", malquery_test_support::unused_port());
    let run = run(&mut with_credentials(
        &nobody,
        "--timeout 2 request r-1 --wait",
    ));
    run.error(1);
    run.says("refused").omits("oauth2");
    assert_eq!(
        run.stderr
            .matches("warning: no complete reply to the login")
            .count(),
        1,
        "{}",
        run.stderr
    );
}

#[test]
fn a_slow_job_still_runs_at_the_timeout() {
    let out = folder();
    let state = in_folder(&out, "state");
    let check = |line: &str, hint: &str| {
        let server = Server::with_answers((0..1000).map(|_| job("r-1", "inprogress")));
        // Enough time for a poll, even on a busy machine.
        let run = server.run(&format!("{line} --poll-interval 0.05 --timeout 1.5s"));
        let error = "error: timed out after 1.5 s (--timeout); the last status of the job is \"inprogress\"";
        assert_eq!(run.error(6), error);
        run.says("hint: ").says(hint);
    };
    thread::scope(|scope| {
        scope.spawn(|| check("request r-1 --wait", "request r-1 --wait"));
        scope.spawn(|| check(&format!("hunt {RULE} --wait"), "request r-1 --wait"));
        scope.spawn(|| check(&format!("hunt {RULE} --state {state}"), " resume "));
    });
}

#[test]
fn an_unknown_job_gets_no_hint() {
    let out = folder();
    let (target, folder) = (in_folder(&out, "samples.zip"), in_folder(&out, "out"));
    for line in [
        "request r-1 --wait".to_owned(),
        format!("{COLLECT} --request r-1 --output-dir {folder}"),
        format!("samples r-1 --output {target} --timeout 1"),
    ] {
        let gone = refusal(400, "there is no such job");
        let run = Server::with_answers([gone]).run(&line);
        assert!(
            run.error(1).contains("there is no such job"),
            "{}",
            run.stderr
        );
        run.omits("malquery --base-url");
    }
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn an_account_elsewhere_is_not_followed() {
    let server = Server::start(|_| {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let location = header("location", "https://api.us-2.crowdstrike.com/oauth2/token");
        (308, vec![location, header("x-cs-region", "us-2")], vec![])
    });
    let run = server.run("quotas --no-region-redirect");
    assert_eq!(
        run.error(1),
        "error: the login returned 308 Permanent Redirect"
    );
    run.says("\nhint: the account probably belongs to another cloud; select that cloud, for example with FALCON_CLOUD=us-2");
    assert_eq!(server.asked(), ["POST /oauth2/token"]);
}

#[test]
fn hints_quote_what_the_service_says() {
    let id = "x;touch${IFS}pwned;#";
    let submitted = answer(200, json!({"meta": {"reqid": id, "status": "done"}}));
    let run = Server::with_answers([submitted]).run("exact-search --ascii abc");
    run.json();
    run.says(&format!(
        "the search was submitted; the request id is {id}\n"
    ));
    run.says(&format!(" request '{id}' --wait"));
}

#[test]
fn errors_without_results_are_an_error() {
    let out = folder();
    let (target, state) = (in_folder(&out, "out"), in_folder(&out, "state"));
    let errors = json!([{"code": 500, "message": "backend down"}]);
    let failed = answer(200, json!({"meta": {}, "resources": [], "errors": errors}));
    let meta = json!({"reqid": "r-1", "status": "done", "reqtype": "search"});
    let done = answer(
        200,
        json!({"meta": meta, "resources": [], "errors": errors}),
    );
    let submitted = job("r-1", "done");
    for (answers, line) in [
        (vec![failed.clone()], "fuzzy-search --ascii abc".to_owned()),
        (vec![failed.clone()], format!("lookup {A}")),
        (vec![failed.clone()], format!("metadata {A}")),
        (vec![failed.clone()], "quotas".into()),
        (vec![failed.clone()], "request r-1".into()),
        (
            vec![failed.clone()],
            format!("{COLLECT} {A} --output-dir {target}"),
        ),
        (
            vec![submitted.clone(), done.clone()],
            "exact-search --ascii abc --wait".into(),
        ),
        (
            vec![submitted.clone(), done.clone()],
            format!("hunt {RULE} --state {state}"),
        ),
        (
            vec![submitted, done.clone()],
            format!("{COLLECT} --ascii a --output-dir {target}"),
        ),
        (vec![done.clone()], "request r-1 --wait".into()),
        (vec![done.clone()], "request r-1".into()),
        (vec![done], format!("resume {state}")),
    ] {
        let run = Server::with_answers(answers).run(&format!("{line} -q"));
        let error = "error: the service returned no results, only errors: backend down";
        assert_eq!(run.error(1), error, "{line}");
    }
}

/// The job is running and may be billed, so its id is printed and its state is kept.
#[test]
fn a_submission_with_errors_shows_its_id() {
    let out = folder();
    let state = in_folder(&out, "state");
    let errors = json!([{"message": "no such sample"}]);
    let partly = json!({"meta": {"reqid": "r-1"}, "resources": [], "errors": errors});
    for line in [
        format!("hunt {RULE}"),
        "exact-search --ascii abc".into(),
        format!("multidownload {A}"),
        format!("multidownload {A} --format table"),
        format!("multidownload {A} --wait"),
        format!("multidownload {A} --state {state}"),
    ] {
        let run =
            Server::with_answers([answer(200, partly.clone()), job("r-1", "done")]).run(&line);
        assert_eq!(run.code, 1, "{line}: {}", run.stderr);
        assert!(run.stdout.contains("r-1"), "{line}: {}", run.stdout);
        run.says(": no such sample\n").says(" r-1 --");
    }
    assert_eq!(names(&out), ["state"]);
    // If there are results, errors are only warnings.
    let found = json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": [{"sha256": A}], "errors": errors});
    for line in [
        format!("hunt {RULE} --wait"),
        "request r-1".into(),
        format!("resume {state}"),
    ] {
        let submitted = line
            .starts_with("hunt")
            .then(|| answer(200, partly.clone()));
        let answers = submitted.into_iter().chain([answer(200, found.clone())]);
        let run = Server::with_answers(answers).run(&line);
        assert_eq!(run.json()["resources"][0]["sha256"], A, "{line}");
        run.says("warning: no such sample");
    }
}

#[test]
fn verbose_shows_a_line_for_each_request() {
    let server = Server::with_answers([quotas(9, 9)]);
    let run = server.run("quotas -v");
    run.json();
    let lines = run
        .stderr
        .lines()
        .filter(|line| line.contains("200") || line.contains("201"));
    assert_eq!(lines.count(), 2, "{}", run.stderr);
    assert_eq!(demo("quotas -q").stderr, "");
}

#[test]
fn a_late_failure_leaves_a_running_job() {
    let busy = (0..1000).map(|_| refusal(503, "busy"));
    let server = Server::with_answers([job("r-1", "inprogress")].into_iter().chain(busy));
    let run = server.run("request r-1 --wait --poll-interval 0.05 --timeout 2s");
    let error = run.error(6);
    assert!(error.contains("returned 503"), "{error}");
    let late = "--timeout (2 s) may leave no time for another attempt; \
                the last status of the job is \"inprogress\"";
    assert!(error.contains(late), "{error}");
}
