use crate::support::*;

#[test]
fn bad_input_is_refused_before_sending() {
    let server = Server::with_answers([]);
    let out = folder();
    let existing = in_folder(&out, "existing");
    fs::write(&existing, "mine").unwrap();
    let empty = in_folder(&out, "empty.yar");
    fs::write(&empty, " \n").unwrap();
    let missing = in_folder(&out, "missing/file");
    let root = out.path().display();
    for line in [
        "",
        "quota",
        "quotas --cloud us-9",
        "quotas --timeout -1",
        "quotas --timeout nan",
        "quotas --timeout 0",
        "request r-1 --wait --poll-interval 0s",
        "quotas --timeout soon",
        "quotas -q -v",
        "fuzzy-search",
        "fuzzy-search --hex 123",
        "fuzzy-search --hex 8948??8b",
        "fuzzy-search --pattern ascii:",
        "fuzzy-search --pattern text:a",
        "fuzzy-search --ascii a --limit 0",
        "exact-search --ascii a --min-date 2024/02/30",
        "exact-search --ascii a --min-date 2024-02-02 --max-date 2024/02/01",
        "exact-search --ascii a --min-size 2MiB --max-size 1mb --wait",
        "hunt",
        &format!("hunt {RULE} --rule {RULE}"),
        &format!("hunt --rule {missing}"),
        &format!("hunt --rule {empty}"),
        &format!("hunt --rule {empty} --wait"),
        "request",
        "metadata",
        "metadata f599",
        &format!("download {A} --output {existing}"),
        &format!("download {A} --output {missing}"),
        &format!("download {A} --output -"),
        &format!("samples {ARCHIVE} --output -"),
        &format!("hunt {RULE} --state -"),
        "resume -",
        "quotas --record -",
        &format!("samples {ARCHIVE} --output {root}"),
        &format!("collect --ascii a --limit 1 --output-dir {existing}"),
    ] {
        let run = server.run(line);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (2, ""),
            "{line}: {}",
            run.stderr
        );
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(fs::read(&existing).unwrap(), b"mine");
    assert_eq!(names(&out), ["empty.yar", "existing"]);

    let message = |line: &str| server.run(line).error(2).to_owned();
    let exists = format!("error: {existing} already exists; use --force to replace it");
    assert_eq!(
        message(&format!("download {A} --output {existing}")),
        exists
    );
    // --force is not suggested if it would not help.
    for target in [out.path(), Path::new("/dev/null")] {
        let error = message(&format!("download {A} --output {}", target.display()));
        assert!(!error.contains("--force"), "{error}");
        let line = format!("quotas --record {}", target.display());
        server.run(&line).omits("--force").error(2);
    }
    let no_folder = format!("error: folder not found: {}", in_folder(&out, "missing"));
    assert_eq!(
        message(&format!("download {A} --output {missing}")),
        no_folder
    );
    assert_eq!(
        message(&format!("exact-search --ascii a --state {missing}")),
        no_folder
    );
    let no_rule = message(&format!("hunt --rule {empty}"));
    assert!(
        no_rule.starts_with(&format!("error: {empty}:1:1: ")),
        "{no_rule}"
    );
    let line = format!("hunt --rule {empty} --no-check-rule");
    assert_eq!(message(&line), "error: the YARA rule is empty");
}

#[test]
fn wrong_settings_are_refused() {
    let refused = |pairs: &[(&str, &str)], line: &str| {
        run(command(line).envs(pairs.iter().copied()))
            .error(2)
            .to_owned()
    };
    let [id, secret] = [
        ("FALCON_CLIENT_ID", "an-id"),
        ("FALCON_CLIENT_SECRET", "s3cret"),
    ];
    let missing = "error: FALCON_CLIENT_SECRET is not set";
    assert_eq!(refused(&[id], "quotas"), missing);
    let missing = "error: FALCON_CLIENT_ID is not set";
    assert_eq!(refused(&[secret], "quotas"), missing);
    let with = |name, value| [id, secret, (name, value)];
    assert!(refused(&with("FALCON_CLOUD", "mars-1"), "quotas").contains("mars-1"));
    assert!(refused(&with("FALCON_BASE_URL", "http://10.0.0.1"), "quotas").contains("https"));
    let no_file = "--replay /no/such/cassette.json quotas";
    assert!(refused(&[], no_file).contains("/no/such/cassette.json"));
    let both = "--cloud us-2 quotas --base-url http://127.0.0.1:1";
    assert_eq!(
        refused(&[], both),
        "error: use --cloud or --base-url, not both"
    );
    let both = "error: use --quiet or --verbose, not both";
    assert_eq!(refused(&[], "-q quotas -v"), both);
    let both = "error: use --check-quota or --no-check-quota, not both";
    let none = "--check-quota collect --ascii x --output-dir /no/such/folder --no-check-quota";
    assert_eq!(refused(&[id, secret], none), both);
    for option in [
        "--cloud us-2",
        "--base-url http://127.0.0.1:1",
        "--member-cid x",
    ] {
        assert!(refused(&[], &format!("{option} quotas")).contains("FALCON_CLIENT_ID"));
    }
    for pem in ["/no/such/file.pem", RULE] {
        assert!(refused(&with("X", "x"), &format!("quotas --ca-file {pem}")).contains(pem));
    }
}

#[test]
fn an_option_beats_the_environment() {
    let server = Server::with_cassette();
    let mut command = server.command("quotas");
    command
        .env("FALCON_CLOUD", "nonsense")
        .env("FALCON_BASE_URL", "nonsense");
    run(&mut command).json();
}

#[test]
fn an_unwritable_output_costs_nothing() {
    let out = folder();
    let server = Server::with_answers([]);
    for target in [
        "new/",
        "new/.",
        "new/file",
        &"x".repeat(300),
        "/dev/null",
        ".",
    ] {
        let target = out.path().join(target);
        let target = target.to_str().unwrap();
        let run = server.run(&format!("download {A} --force --output {target}"));
        assert_eq!(run.code, 2, "{target}: {}", run.stderr);
    }
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn an_unreadable_proxy_is_refused() {
    let server = Server::with_answers([]);
    let mut command = server.command("quotas");
    for name in [
        "ALL_PROXY",
        "all_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "http_proxy",
    ] {
        command.env_remove(name);
    }
    let run = run(command.env("https_proxy", "ftp://user:p4ssw0rd@host"));
    let error = run.error(2);
    assert!(
        error.starts_with("error: https_proxy does not contain the URL of a proxy"),
        "{error}"
    );
    run.omits("p4ssw0rd");
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn hex_and_texts_are_sent_as_bytes() {
    for (pattern, sent) in [
        (
            "--hex=89\u{20}48\u{20}20",
            json!({"type": "hex", "value": "894820"}),
        ),
        ("--hex=\\x89\\x48", json!({"type": "hex", "value": "8948"})),
        ("--hex=0x89,0x48", json!({"type": "hex", "value": "8948"})),
        (
            "--pattern=hex:89:48",
            json!({"type": "hex", "value": "8948"}),
        ),
        (
            "--pattern=hex:{ 89 48 }",
            json!({"type": "hex", "value": "8948"}),
        ),
        ("--ascii=a b", json!({"type": "ascii", "value": "a b"})),
        ("--wide=ab", json!({"type": "wide", "value": "ab"})),
        (
            "--pattern=utf8:gr\u{f6}\u{df}e",
            json!({"type": "hex", "value": "6772c3b6c39f65"}),
        ),
    ] {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Value::Null));
        let body = seen.clone();
        let server = Server::start(move |request| {
            if request.uri().path() == "/oauth2/token" {
                return token();
            }
            *body.lock().unwrap() = serde_json::from_slice(request.body()).unwrap();
            answer(200, json!({"meta": {}, "resources": []}))
        });
        run(server.command("fuzzy-search").arg(pattern)).json();
        assert_eq!(seen.lock().unwrap()["patterns"], json!([sent]), "{pattern}");
    }
    let run = plain("fuzzy-search --demo --hex 8948??8b");
    assert!(run.stderr.contains("YARA rule"), "{}", run.stderr);
}

#[test]
fn values_are_read_as_people_write_them() {
    for line in [
        "--min-date 2024-01-01 --max-date 2024/12/31",
        "--min-size 1 --max-size 1MiB",
        "--timeout 1h --poll-interval 90s",
        "--timeout 10m",
    ] {
        demo(&format!("exact-search --ascii CrowdStrike --wait {line}")).json();
    }
}
