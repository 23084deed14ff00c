use boreal::scanner::ScanParams;

use super::*;

#[test]
fn a_refused_rule_shows_the_place() {
    let cases = [
        "",
        "rule a { condition: }",
        "rule a {\n    strings:\n        $a = \"x\n    condition: $a\n}",
        "rule a {\n    strings:\n        $a = { 4D 5A ZZ }\n    condition: $a\n}",
        "rule a {\n    strings:\n\t\t$a = /(/\n    condition: $a\n}",
        "rule a {\n    condition: $b\n}",
        "rule a { strings: $a = \"x\" condition: true }",
        "rule a {\r\n    condition: filesise < 5\r\n}",
        "/* \u{fc}\u{fc} */ rule a { condition: \"\u{4e2d}\u{6587}\" + foo }",
        "import \"vt\"\nrule a { condition: vt.metadata.file_type == 1 }",
        "rule a { condition: pe.is_dll() }",
        "include \"other.yar\"\nrule a { condition: true }",
        "private rule a { condition: true }",
        "rule a { condition: true }\nrule b { condition: a }",
        "private rule a { condition: true }\nrule b { condition: a }",
        "rule a { condition: true }\nrule a { condition: true }",
        "rule a { strings: $a = /a{1000}{1000}{1000}/ condition: $a }",
        "import \"math\"",
    ];
    let shown = |text: &str| {
        let error = Rule::compile(text).map_or_else(|error| error.to_string(), |_| "taken".into());
        format!("{text}\n=> {error}\n")
    };
    insta::assert_snapshot!(cases.map(shown).join("\n"));
}

#[test]
fn a_rule_has_a_name_and_an_error_its_place() {
    let rule = Rule::compile("rule a_name { condition: true }").unwrap();
    assert_eq!(
        (rule.name(), format!("{rule:?}")),
        ("a_name", "Rule(a_name)".into())
    );
    let error = Rule::compile("rule a {\n    condition: $b\n}").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 16));
    assert_eq!(TimedOut.to_string(), "the rule took longer than 60 seconds");
}

#[test]
fn modules_look_into_files() {
    let matches = |rule: &str, bytes: &[u8]| Rule::compile(rule).unwrap().matches(bytes).unwrap();
    let hash = "import \"hash\" rule h { condition: hash.sha256(0, filesize) ==
        \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }";
    assert!(matches(hash, b"test"));
    assert!(!matches(hash, b"tesT"));
    let math = "import \"math\" rule m { condition: math.entropy(0, filesize) > 2 }";
    assert!(matches(math, b"abcdefgh"));
    assert!(!matches(math, b"aaaaaaaa"));
    let elf =
        "import \"elf\" import \"pe\" rule e { condition: elf.type == elf.ET_EXEC or pe.is_pe }";
    assert!(!matches(elf, b"\x7fELF"));
    let count = "rule c { strings: $a = \"ab\" condition: #a == 5000 }";
    assert!(matches(count, "ab".repeat(5000).as_bytes()));
    assert!(matches("rule empty { condition: filesize == 0 }", b""));
    assert!(matches(
        "global rule g { strings: $a = /a.c/ nocase condition: $a }",
        b"xABC"
    ));
}

#[test]
fn hostile_rules_end() {
    let endless = "rule a { condition: for all i in (0..9000000000000) : (i >= 0) }";
    let mut rule = Rule::compile(endless).unwrap();
    let soon = ScanParams::default().timeout_duration(Some(Duration::from_millis(20)));
    rule.scanner.set_scan_params(soon);
    assert_eq!(rule.matches(b"x"), Err(TimedOut));
    let deep = |open: &str, close: &str, depth| {
        format!(
            "rule a {{ condition: {}true{} }}",
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    for (sign, end) in [
        ("not ", "true"),
        ("- ", "1 == 1"),
        ("-", "1 == 1"),
        ("~", "1 == 1"),
        ("defined ", "true"),
        ("not defined ", "true"),
        ("1+", "1 == 2"),
        ("true == ", "true"),
        ("\"a\" contains ", "\"a\""),
        ("1 < ", "2"),
    ] {
        let text = format!(
            "rule a {{ condition: {}{end} }}",
            sign.repeat(250_000 / sign.len())
        );
        let error = Rule::compile(&text).unwrap_err();
        assert_eq!(error.kind(), RuleErrorKind::Unchecked, "{sign}: {error}");
    }
    let long = format!("rule a {{ condition: true{} }}", " or true".repeat(40_000));
    let error = Rule::compile(&long).unwrap_err();
    assert_eq!(
        error.message(),
        "a condition over 256 KiB cannot be checked here"
    );
    for rule in [
        deep("(", ")", 10_000),
        deep("uint8(", ")", 100_000),
        format!(
            "rule a {{ strings: $a = /{}a{}/ condition: $a }}",
            "(".repeat(100_000),
            ")".repeat(100_000)
        ),
        format!(
            "rule a {{ strings: $a = {{ 00 {}00{} }} condition: $a }}",
            "(".repeat(100_000),
            ")".repeat(100_000)
        ),
        "(".repeat(100_000),
    ] {
        assert!(Rule::compile(&rule).is_err());
    }
}
