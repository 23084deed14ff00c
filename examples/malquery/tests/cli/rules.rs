use crate::support::*;

const HELPERS: &str = "import \"pe\"\nimport \"math\"\n\
    private rule is_pe { condition: uint16(0) == 0x5a4d }\n\
    rule small_pe { condition: is_pe and filesize < 20KB }\n\
    rule text_note { strings: $a = \"ransom note\" nocase condition: $a }\n";

#[test]
fn a_rule_with_a_typo_costs_no_hunt() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    fs::write(
        &rule,
        "rule more {\n  strings: $a = \"more\"\n  condition: $b\n}",
    )
    .unwrap();
    let target = in_folder(&out, "out");
    let place = format!("error: {rule}:3:14: ");
    let server = Server::with_answers([]);
    for line in [
        format!("check-rule {rule}"),
        format!("hunt {rule}"),
        format!("collect --rule {rule} --limit 1 --output-dir {target}"),
    ] {
        let run = server.run(&line);
        assert!(run.error(2).starts_with(&place), "{}", run.stderr);
        run.says("\n    condition: $b\n               ^\n");
    }
    assert_eq!(server.asked(), [""; 0]);
    server.run(&format!("hunt {rule} --no-check-rule"));
    assert!(server.asked().last().unwrap().contains("hunt"));
    assert_eq!(names(&out), ["rule.yar"]);
}

#[test]
fn a_doubtful_refusal_names_the_way_out() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    for text in [
        "import \"vt\"\nrule a { condition: vt.metadata.file_type == 1 }",
        "rule a { strings: $a = /x.*?(y|z+){2}/ condition: $a }",
        "rule by_name { condition: filename matches /invoice/i }",
        "include \"other.yar\"\nrule a { condition: true }",
        HELPERS,
    ] {
        fs::write(&rule, text).unwrap();
        for command in ["check-rule", "hunt"] {
            let run = Server::with_answers([]).run(&format!("{command} {rule}"));
            run.error(2);
            run.says("use --no-check-rule with `hunt` or `collect`");
        }
    }
    // For a syntax error, skipping the check is not suggested.
    fs::write(&rule, "rule a { condition: ").unwrap();
    plain(&format!("check-rule {rule}")).omits("--no-check-rule");
}

#[test]
fn one_rule_of_a_file_is_sent() {
    let out = folder();
    let rule = in_folder(&out, "rules.yar");
    fs::write(&rule, HELPERS).unwrap();
    let run = plain(&format!("hunt {rule} --demo"));
    assert!(
        run.error(2).contains("small_pe, text_note"),
        "{}",
        run.stderr
    );
    run.says("--rule-name");
    let run = plain(&format!("hunt {rule} --demo --rule-name other"));
    assert!(
        run.error(2).contains("small_pe, text_note"),
        "{}",
        run.stderr
    );

    let sent = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let body = sent.clone();
    let server = Server::start(move |request| {
        if request.uri().path() == "/oauth2/token" {
            return token();
        }
        let json: Value = serde_json::from_slice(request.body()).unwrap();
        *body.lock().unwrap() = json["yara_rule"].as_str().unwrap().to_owned();
        job("r-1", "done")
    });
    server
        .run(&format!("hunt {rule} --rule-name small_pe"))
        .json();
    let text = sent.lock().unwrap().clone();
    assert!(
        text.contains("is_pe") && text.contains("small_pe"),
        "{text}"
    );
    assert!(
        !text.contains("text_note") && !text.contains("import"),
        "{text}"
    );
    let run = server.run(&format!("hunt {rule} --no-check-rule"));
    run.json();
    run.says("warning: ");
    assert_eq!(*sent.lock().unwrap(), HELPERS);
}

#[test]
fn warnings_do_not_refuse_a_rule() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    let hash = "AB".repeat(32);
    for (text, warning) in [
        (
            "rule a { strings: $a = \"abc\" condition: $a }".to_owned(),
            "4 bytes",
        ),
        (
            format!(
                "import \"hash\"\nrule a {{ condition: hash.sha256(0, filesize) == \"{hash}\" }}"
            ),
            "case",
        ),
    ] {
        fs::write(&rule, &text).unwrap();
        let run = plain(&format!("check-rule {rule}"));
        assert_eq!(run.json()["rule"], "a");
        run.says("warning: ").says(warning);
    }
    let long = "x".repeat(65_536);
    fs::write(
        &rule,
        format!("rule a {{ strings: $a = \"some text\" condition: $a }} // {long}"),
    )
    .unwrap();
    demo(&format!("hunt {rule} --wait"))
        .says("the source is 65 KiB long")
        .omits("the rule has");
    demo(&format!("hunt {rule} --wait --no-check-rule")).says("warning: the rule is ");

    // A hunt accepts one rule with its global rules.
    let global = "global rule g { condition: true } rule a { condition: true }";
    fs::write(&rule, global).unwrap();
    demo(&format!("hunt {rule} --wait --no-check-rule")).omits("public rules");
}

#[test]
fn a_rule_may_begin_with_a_mark() {
    let out = folder();
    let rule = in_folder(&out, "rule.yar");
    fs::write(&rule, "\u{feff}rule a { condition: true }").unwrap();
    assert_eq!(plain(&format!("check-rule {rule}")).json()["rule"], "a");
    fs::write(
        &rule,
        b"rule a {\n strings: $a = \"gr\xf6\xdfe\" condition: $a }",
    )
    .unwrap();
    for line in [
        format!("check-rule {rule}"),
        format!("hunt {rule} --demo --no-check-rule"),
    ] {
        let run = plain(&line);
        assert!(
            run.error(2).starts_with(&format!("error: {rule}:2:19: ")),
            "{}",
            run.stderr
        );
        run.says("UTF-8").omits("--no-check-rule");
    }
}
