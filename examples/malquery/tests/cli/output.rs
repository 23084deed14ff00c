use crate::support::*;

#[test]
fn json_is_the_same_offline_and_served() {
    let several = "5eaab9f8a0f97240a9388ebdcf7e9c692dd1bc8764962bf354ed05506eecac77 \
                   53aa078d114019465100a6f1a11cfa1338db0f209db33f3c7711ade2bfcba1f6";
    for line in [
        "quotas".to_owned(),
        "fuzzy-search --ascii CrowdStrike --limit 3".into(),
        "exact-search --pattern ascii:CrowdStrike".into(),
        "exact-search --pattern ascii:CrowdStrike --limit 3 --wait".into(),
        format!("hunt --rule {RULE}"),
        format!("hunt {RULE} --wait"),
        format!("request {SEARCH}"),
        format!("request {SEARCH} --wait"),
        format!("metadata {A}"),
        format!("multidownload {A} {several} --wait"),
    ] {
        let replayed = offline(&line);
        let document = replayed.json();
        for name in ["meta", "resources", "errors"] {
            assert!(document.get(name).is_some(), "{document}");
        }
        let server = Server::with_cassette();
        let served = server.run(&line);
        assert_eq!(served.json(), document, "{line}");
        let said = served
            .stderr
            .replace(&format!(" --base-url {}", server.base), "");
        let offline = format!("offline: replaying {CASSETTE}\n");
        assert_eq!(offline + &said, replayed.stderr);
    }
}

#[test]
fn nothing_received_is_left_out() {
    let reply = json!({
        "meta": {"trace_id": "t", "query_time": 1.27e-7, "new": {"a": [1, null]}},
        "resources": [{"sha256": A, "label": "odd", "filetype": "PE32", "family": null, "score": 0.5, "tags": []}],
        "more": true,
    });
    let mut expected = reply.clone();
    expected["errors"] = json!([]);
    let line = format!("metadata {A}");
    assert_eq!(
        Server::with_answers([answer(200, reply.clone())])
            .run(&line)
            .json(),
        expected
    );
    let run =
        Server::with_answers([answer(200, reply.clone())]).run(&format!("{line} --format jsonl"));
    let result: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(result, reply["resources"][0]);
}

#[test]
fn every_format_has_its_form() {
    let all = demo(&format!("metadata {A} {HELLO} --format csv")).stdout;
    let lines: Vec<_> = all.lines().collect();
    assert_eq!(
        lines[0],
        "sha256,sha1,md5,filesize,filetype,first_seen,label,family"
    );
    let row = lines.iter().find(|line| line.starts_with(A)).unwrap();
    assert!(row.ends_with(",103,text,2024/01/15,malware,Demo"), "{row}");
    assert_eq!(lines.len(), 2);
    let hashes = demo("exact-search --ascii CrowdStrike --wait --format sha256").stdout;
    assert!(
        hashes.lines().count() == 4 && hashes.lines().all(|line| line.len() == 64),
        "{hashes}"
    );
    let table = demo(&format!("metadata {A} --format table")).stdout;
    let head = format!(
        "{:<64}  TYPE  BYTES  FIRST SEEN  LABEL    FAMILY",
        "SHA-256"
    );
    assert_eq!(
        table,
        format!("{head}\n{A}  text    103  2024/01/15  malware  Demo\n")
    );
    let csv = demo(&format!(
        "collect {A} --output-dir {} --format csv",
        in_folder(&folder(), "o")
    ));
    assert!(csv.stdout.contains(A), "{}", csv.stderr);
}

#[test]
fn formats_without_sense_are_refused() {
    let out = folder();
    let target = in_folder(&out, "out");
    for (line, formats) in [
        ("quotas".to_owned(), "jsonl csv sha256"),
        (format!("hunt {RULE}"), "jsonl csv sha256"),
        (format!("multidownload {A} --wait"), "csv"),
        (
            format!("download {A} --output {target}"),
            "jsonl csv sha256",
        ),
        (format!("check-rule {RULE}"), "jsonl csv sha256"),
        ("serve".into(), "table json"),
        ("man".into(), "json"),
        ("quotas".into(), "xml"),
    ] {
        for format in formats.split(' ') {
            let run = demo(&format!("{line} --format {format}"));
            assert_eq!(run.code, 2, "{line} {format}: {}", run.stderr);
        }
    }
    assert_eq!(
        demo("quotas --format csv").error(2),
        "error: this command does not support --format csv; use table or json"
    );
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_search_without_hits_says_so() {
    for line in [
        "fuzzy-search --ascii a".to_owned(),
        "exact-search --ascii a --wait".into(),
        format!("hunt {RULE} --wait"),
    ] {
        let run = Server::with_answers([job("r-1", "done"), job("r-1", "done")]).run(&line);
        run.json();
        assert!(
            run.stderr.ends_with("nothing was found\n"),
            "{}",
            run.stderr
        );
    }
    // An archive has no results.
    let run = Server::with_answers([job("r-1", "done"), job("r-1", "done")])
        .run(&format!("multidownload {A} --wait"));
    run.json();
    run.omits("nothing was found")
        .says(" samples r-1 --output FILE\n");
}

#[test]
fn results_that_may_be_truncated_are_reported() {
    for line in [
        "fuzzy-search --ascii CrowdStrike --limit 3",
        "exact-search --ascii CrowdStrike --limit 3 --wait",
    ] {
        demo(line).says("warning: the results may be truncated, because --limit 3 was reached");
        demo(&line.replace('3', "9")).omits("truncated");
    }
    let run = demo("exact-search --ascii CrowdStrike --wait --meta sha256,size");
    run.says("warning: the counts by label are meaningless");
    demo("exact-search --ascii CrowdStrike --wait --meta sha256,label").omits("the counts");
    // The job was submitted by another command.
    let options = json!({"filter_meta": ["sha256"]});
    let meta = json!({"reqid": "r-1", "status": "done", "reqtype": "search", "stats": {"total_count": 1}, "options": options});
    let done = answer(200, json!({"meta": meta, "resources": [{"sha256": A}]}));
    let run = Server::with_answers([done]).run("request r-1");
    run.says("warning: the counts by label are meaningless");
}

#[test]
fn documents_cannot_steer_a_terminal() {
    let family = "a\u{9b}31m\u{7f}\u{85}\u{202e}\u{200b}\u{1b}z\u{e9}";
    let reply = json!({"meta": {}, "resources": [{"sha256": A, "family": family}]});
    let line = format!("metadata {A}");
    let run = Server::with_answers([answer(200, reply)]).run(&line);
    assert_eq!(run.json()["resources"][0]["family"], family);
    let escaped = "a\\u009b31m\\u007f\\u0085\\u202e\\u200b\\u001bz\u{e9}";
    assert!(run.stdout.contains(escaped), "{}", run.stdout);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_still_shows_the_id() {
    for options in ["", "-q", "-q --wait"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(&format!("hunt {RULE} --replay {CASSETTE} {options}"));
        let output = command.stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr.contains(" request 11111111-2222-6ea1-5f4f-000000000003"),
            "{stderr}"
        );
        assert!(
            stderr.contains("error: cannot write to standard output"),
            "{stderr}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_may_be_thrown_away() {
    let shell = |line: &str| {
        let program = env!("CARGO_BIN_EXE_malquery");
        let output = Command::new("sh")
            .args(["-c", &line.replace("malquery", program)])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // A closed standard output cannot be distinguished from Python's `subprocess.DEVNULL`, and
    // discarding the results is not a failure.
    for output in [">&-", "> /dev/null", "1<> /dev/null"] {
        let line = format!("malquery quotas --demo -q {output}");
        assert_eq!(shell(&line), (Some(0), String::new()), "{line}");
    }
    let line = "{ malquery fuzzy-search --ascii CrowdStrike --demo -q; echo $? >&2; } | true";
    assert_eq!(
        shell(&line.replace("malquery", "sleep 0.2; malquery")).1,
        "0\n"
    );
}
