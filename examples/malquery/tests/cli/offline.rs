use crate::support::*;

#[test]
fn the_demonstration_searches_eight_files() {
    let out = folder();
    let target = in_folder(&out, "out");
    let line = "collect --pattern ascii:CrowdStrike --limit 3 --output-dir";
    let run = demo(&format!("{line} {target}"));
    run.says("offline: searching 8 harmless demo files, not MalQuery\n");
    run.says("\nthe search was submitted; the request id is ")
        .says("\nthe multi-download was submitted; the request id is ")
        .says(&format!(
            "\n3 samples verified and written to {target}; the archive is {target}/samples.zip\n"
        ));
    assert_eq!(run.json()["contents"]["missing"], json!([]));
    assert_eq!(names(&target).len(), 4);
    let file = in_folder(&out, "file");
    for run in [run, demo(&format!("download {A} --output {file}"))] {
        run.json();
        run.omits("malware");
    }
    let line = format!("extract {target}/samples.zip --output-dir {target} --force");
    plain(&line).says("warning: the files in ").json();
    let found = demo("exact-search --wait --filetype pe32 --wide powershell").json();
    assert_eq!(found["resources"].as_array().unwrap().len(), 1);
    assert_eq!(found["resources"][0]["family"], "Demo");
}

const NO_CREDENTIALS: &str = "error: FALCON_CLIENT_ID and FALCON_CLIENT_SECRET are not set";

#[test]
fn resume_looks_for_its_file_first() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let run = plain(&format!("resume {state}"));
    assert!(run.error(2).starts_with(&format!("error: {state}: ")));
    fs::write(&state, "{}").unwrap();
    let run = plain(&format!("resume {state}"));
    assert_eq!(run.error(2), NO_CREDENTIALS);
    run.says(" to its id and secret\n").omits("--demo");
}

#[test]
fn nothing_is_invented_without_credentials() {
    let out = folder();
    let target = in_folder(&out, "out");
    for line in [
        "quotas".to_owned(),
        format!("lookup {A}"),
        format!("download {A} --output {target}"),
        format!("collect --ascii a --limit 1 --output-dir {target}"),
        format!("hunt {RULE} --wait"),
    ] {
        // A blank variable counts as unset.
        for blank in [None, Some(""), Some("  ")] {
            let mut command = command(&line);
            for name in [
                "CLIENT_ID",
                "CLIENT_SECRET",
                "CLOUD",
                "BASE_URL",
                "MEMBER_CID",
            ] {
                blank.map(|value| command.env(format!("FALCON_{name}"), value));
            }
            let run = run(&mut command);
            assert_eq!(run.error(2), NO_CREDENTIALS);
            let hint = "create an API client in the Falcon console, and set FALCON_CLIENT_ID and \
                 FALCON_CLIENT_SECRET to its id and secret, or use --demo to try the program on \
                 harmless files";
            run.says(&format!("\nhint: {hint}\n"));
        }
    }
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn blank_settings_mean_the_default() {
    let mut command = command("--base-url http://127.0.0.1:9 quotas --timeout 0.5");
    command
        .env("FALCON_CLIENT_ID", "an-id")
        .env("FALCON_CLIENT_SECRET", "s3cret");
    for name in ["CLOUD", "BASE_URL", "MEMBER_CID"] {
        command.env(format!("FALCON_{name}"), " ");
    }
    // The command contacts the real service and fails.
    let run = run(&mut command);
    let error = run.error(1);
    assert!(
        error.contains("could not connect to 127.0.0.1:9"),
        "{error}"
    );
}

#[test]
fn offline_jobs_end_with_the_command() {
    let out = folder();
    let state = in_folder(&out, "state.json");
    let target = in_folder(&out, "out");
    for line in [
        format!("exact-search --ascii a --state {state}"),
        format!("collect --ascii a --limit 1 --state {state} --output-dir {target}"),
        format!("resume {state}"),
    ] {
        let run = demo(&line);
        run.error(2);
        run.says("hint: start `malquery serve` and export the settings");
    }
    for line in [
        "exact-search --ascii a".to_owned(),
        format!("multidownload {A}"),
    ] {
        let run = demo(&line);
        run.json();
        run.says("use --wait, or start `malquery serve`\n");
    }
    let run = demo(&format!("multidownload {A} --wait"));
    run.json();
    run.says("use `malquery collect` or `malquery serve`\n");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn a_corpus_is_searched() {
    let corpus = folder();
    fs::write(corpus.path().join("one"), b"some bytes \x00\x01\x02").unwrap();
    fs::write(corpus.path().join("other"), b"more bytes").unwrap();
    let corpus = corpus.path().to_str().unwrap();
    let found = |line: &str| {
        let document = plain(&format!("--corpus {corpus} {line}")).json();
        let samples = document["resources"].as_array().unwrap().iter();
        let mut sizes: Vec<_> = samples.map(|s| s["filesize"].as_u64().unwrap()).collect();
        sizes.sort();
        sizes
    };
    assert_eq!(
        found("exact-search --wait --pattern hex:000102 ascii:some"),
        [14]
    );
    assert_eq!(found("fuzzy-search --pattern ascii:bytes"), [10, 14]);
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    let text = "rule more { strings: $a = \"more\" condition: $a at 0 and filesize < 11 }";
    fs::write(&rule, text).unwrap();
    assert_eq!(found(&format!("hunt --wait --rule {rule}")), [10]);
    let none = in_folder(&out, "none");
    plain(&format!("--corpus {none} quotas")).error(2);
    fs::create_dir(&none).unwrap();
    let run = plain(&format!("--corpus {none} quotas"));
    run.says(&format!(
        "warning: no files to search in {none}\noffline: searching 0 files in {none}, not MalQuery\n"
    ));
}

#[test]
fn stand_ins_do_not_contact_the_service() {
    let server = Server::with_answers([]);
    let stand_ins = ["--demo", "--corpus .", &format!("--replay {CASSETTE}")];
    for option in &stand_ins {
        let run = plain(&format!("{option} quotas --record x.json"));
        assert!(
            run.error(2).contains("--record requires the real service"),
            "{}",
            run.stderr
        );
    }
    for option in &stand_ins[..2] {
        for service in [
            format!("--base-url {}", server.base),
            "--cloud us-2".into(),
            "--member-cid x".into(),
        ] {
            assert!(
                plain(&format!("{option} quotas {service}"))
                    .error(2)
                    .contains("does not contact the service")
            );
        }
    }
    for two in [[0, 1], [0, 2], [1, 2]] {
        let [a, b] = two.map(|index| stand_ins[index]);
        for line in [format!("{a} {b} quotas"), format!("{a} quotas {b}")] {
            assert_eq!(plain(&line).code, 2, "{line}");
        }
    }
    assert_eq!(server.asked(), [""; 0]);
}
