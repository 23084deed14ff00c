use boreal::scanner::ScanParams;
use proptest::prelude::*;

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
fn messages_of_boreal_are_rephrased() {
    let nested = |open: &str, inner: &str, close: &str| {
        let (open, close) = (open.repeat(300), close.repeat(300));
        format!("rule a {{ condition: {open}{inner}{close} }}")
    };
    let large = "rule a { condition: \"abc\" matches /(abcdefgh{1,900}){1,900}(x{1,900}){1,900}/ }";
    for (rule, message) in [
        (
            nested("(", "true", ")"),
            "too many nested expressions; YARA may accept deeper nesting",
        ),
        (large.into(), "regex failed to build; YARA may accept it"),
    ] {
        assert_eq!(Rule::compile(&rule).unwrap_err().message(), message);
    }
}

#[test]
fn a_rule_error_has_its_place() {
    let rule = Rule::compile("rule a_name { condition: true }").unwrap();
    assert_eq!(
        (rule.name(), format!("{rule:?}")),
        ("a_name", "Rule(a_name)".into())
    );
    let error = Rule::compile("rule a {\n    condition: $b\n}").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 16));
    assert_eq!(TimedOut.to_string(), "the scan took longer than 60 seconds");
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
    let signed =
        "import \"pe\" rule s { condition: for any i in (0 .. pe.number_of_signatures - 1) :
        (pe.signatures[i].serial == \"01:23:45:67:89:ab:cd:ef\") }";
    assert!(!matches(signed, b"MZ"));
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
    // A minus sign needs the most stack, so there are more of them than of the other operators.
    for (operator, end, length) in [
        ("-", "1 == 1", 80_000),
        ("~", "1 == 1", 20_000),
        ("not ", "true", 20_000),
        ("defined ", "true", 20_000),
        ("not defined ", "true", 20_000),
        ("1+", "1 == 2", 20_000),
        ("\"a\" contains ", "\"a\"", 20_000),
    ] {
        let text = operator.repeat(length / operator.len());
        let error = Rule::compile(&format!("rule a {{ condition: {text}{end} }}")).unwrap_err();
        assert_eq!(
            error.kind(),
            RuleErrorKind::Unchecked,
            "{operator}: {error}"
        );
    }
    let long = format!("rule a {{ condition: true{} }}", " or true".repeat(40_000));
    let error = Rule::compile(&long).unwrap_err();
    assert_eq!(
        error.message(),
        "a condition larger than 256 KiB cannot be checked locally"
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

#[test]
fn deep_rules_run_on_small_stacks() {
    let nested = |open: &str, inner: &str, depth| {
        format!("{}{inner}{}", open.repeat(depth), ")".repeat(depth))
    };
    for condition in [
        nested("(", "filesize == 0", 90),
        nested("not (", "filesize == 0", 56),
        nested("(true and (false or ", "filesize == 0", 28) + &")".repeat(28),
        "not defined ".to_owned() + &nested("uint8(", "filesize", 56),
        "1 + ".repeat(56) + "filesize == 56",
    ] {
        let text = format!("rule a {{ condition: {condition} }}");
        assert!(
            Rule::compile(&text).unwrap().matches(b"").unwrap(),
            "{text}"
        );
    }
}

/// Returns a rule with one string and this condition.
fn with_condition(condition: &str) -> String {
    format!("rule a {{ strings: $a = \"abcd\" condition: $a and ({condition}) }}")
}

/// Returns a rule with this string.
fn with_string(string: &str) -> String {
    format!("rule a {{ strings: $a = {string} condition: $a }}")
}

/// libyara 4.5.4 rejects all of these rules. The command `yara` 4.2.3 rejects all except those with
/// a reversed range or a negative count.
#[test]
fn what_yara_refuses_is_refused() {
    let named = |name: &str| format!("rule {name} {{ condition: true }}");
    let mut cases: Vec<String> = [
        "/a.*b.*?c/",
        "/a.?b.??c/",
        "/a{1,2}b{1,2}?/",
        "/(a)\\1/",
        "/a\\0/",
        "/a{3,2}/",
        "/a{40000}/",
        "/a{2}{3}/",
        "/a*{2}/",
        "/^{2}a/",
        "/a**/",
        "/a|*b/",
        "/(|a)/",
        "/()a/",
        "/|a/",
        "/a)/",
        "/(?:a)/",
        "/[a/",
        "/[z-a]/",
        "/[\\w-.]/",
        "/[\u{e9}]/",
        "/a\\xZZ/",
        "/a",
        "//",
        "\"first\nsecond\"",
        "\"a\\qb\"",
        "\"a\\x4\"",
        "\"\"",
        "{ 41 [-3] 42 }",
        "{ 41 [0] 42 }",
        "{ 41 [5-3] 42 }",
        "{ [2] 41 }",
        "{ 41 4 }",
        "{ 41 (42|43 [300] 44) 45 }",
        "\"abcd\" xor nocase",
        "\"abcd\" wide wide",
        "\"abcd\" xor(5-1)",
        "\"abcd\" base64 fullword",
    ]
    .map(with_string)
    .to_vec();
    cases.extend(
        [
            "for any a in (1..2) : (for any b in (1..2) : (for any c in (1..2) : (for any d in (1..2) : (for any e in (1..2) : (a+b+c+d+e == 5)))))",
            "for any of them : (for any of them : ($))",
            "for any i in (5..1) : (i == 1)",
            "for any i in (-1..1) : (i == 1)",
            "for any i in (2*3..5) : (i == 1)",
            "$a in (10..2)",
            "#a in (10..2) == 1",
            "any of them in (10..2)",
            "0% of them",
            "101% of them",
            "-1 of them",
            "for 50% of them : ($)",
            "50% of them in (0..10)",
            "for any rule in (1..2) : (true)",
            "for any i, j, k in (1..2) : (true)",
            "$",
            "# == 1",
            "filesize \\ 0 == 1",
            "filesize % 0 == 1",
            "9223372036854775807 + 1 == 1",
            "1 << -1 == 1",
            "true == true",
            "$a == 1",
            "any of (zz*)",
            "filesize.x == 1",
        ]
        .map(with_condition),
    );
    cases.extend(["rule", "all", "uint8", "int32be", "them", "base64wide"].map(named));
    cases.extend([
        named(&"x".repeat(129)),
        named("a : b b"),
        named("a : private"),
        "rule a { meta: strings = 1 condition: true }".to_owned(),
        "rule a { condition: true } }".to_owned(),
        "rule a { condition: true".to_owned(),
        "rule a { strings: $a = \"abcd\" }".to_owned(),
        "import pe\nrule a { condition: true }".to_owned(),
        "include a.yar\nrule a { condition: true }".to_owned(),
        "private import \"pe\" rule a { condition: true }".to_owned(),
        "rule a { condition: true }\n\u{a0}".to_owned(),
        "private rule a { condition: b }\nrule b { condition: true }".to_owned(),
    ]);
    cases.extend([
        with_string(&format!("\"{}\"", "x".repeat(8191))),
        with_string(&format!("/{}/", "x".repeat(8191))),
        with_string(&format!("/({}y)/", "x|".repeat(129))),
        with_string(&format!("/{}/", "xy*".repeat(129))),
        with_string(&format!("/{}/", "(x|y){2,3}".repeat(33))),
        with_string(&format!("{{ 41 ({}43) }}", "42|".repeat(129))),
        with_condition(&format!("\"x\" matches /{}/", "xy+".repeat(129))),
    ]);
    let shown = |text: &String| {
        let error = RuleFile::parse(text.as_str()).and_then(|file| file.check());
        let error = error.expect_err(text);
        assert_eq!(error.kind(), RuleErrorKind::Invalid, "{error}");
        let (line, column, message) = (error.line(), error.column(), error.message());
        let excerpt: String = text.chars().take(100).collect();
        format!("{excerpt}\n=> {line}:{column} {message}")
    };
    let shown: Vec<_> = cases.iter().map(shown).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn what_yara_accepts_is_accepted() {
    let strings = [
        "/a.*b.+c/",
        "/a.*?b.+?c/",
        "/a|/",
        "/a||b/",
        "/(a|)/",
        "/a{,3}b{2,}c{0}/",
        "/a{ 2}b{/",
        "/[]a][^]a][a-][-a][\\w-]/",
        "/[\\1]/",
        "/\\q\\-\\//is",
        "{ 41 /* } */ 42 // }\n 43 }",
        "{ 41 [0-5] (42|4? 43 [2-3] 44) [-] ~45 }",
        "\"rule x { condition: /* \" // \"\n",
        "\"caf\u{e9}\" wide ascii fullword private",
        "\"abcd\" xor(1-255) wide",
        "\"abcd\" base64 base64wide",
    ]
    .map(with_string);
    let conditions = [
        "for any a in (1..2) : (for any b in (1..2) : (for any c in (1..2) : (for any d in (1..2) : (a+b+c+d == 5))))",
        "for any of them : (for any i in (1..2) : ($ at i))",
        "\"x\" matches /a.*b.*?c/",
        "1% of them and 100% of them",
        "0 of them or none of them",
        "$a in (5..5)",
        "$a in (filesize - 5..3)",
        "for 2 i in (1, 2, 3) : (i == 2)",
        "any of ($a, $a*)",
        "@a[1] + !a[1] > #a in (0..filesize)",
        "not defined uint16be(filesize)",
    ]
    .map(with_condition);
    let whole = [
        "rule a : b c_d { meta: a = \"b\" a = -1 include = true condition: true } /* open",
        "private global rule x { condition: true }\r\nrule include { condition: x } // end",
        "import \"pe\" import \"pe\"\nrule a { condition: pe.number_of_signatures > 0 and
            pe.signatures[0].verified }",
        "import \"console\" import \"cuckoo\"\nrule a { condition: console.log(\"x\") }",
        "rule any_a { condition: true }\nrule true_b { condition: not any_a }",
        "rule a1 { condition: true }\nrule b { condition: any of (a*) and all of (a1) }",
    ]
    .map(str::to_owned);
    let long = [
        format!("\"{}\\x41\"", "x".repeat(8189)),
        format!("/{}\\//", "x".repeat(8189)),
        format!("/({}y)/", "x|".repeat(128)),
        format!("/{}/", "(x|y){2,3}".repeat(32)),
        format!("/{}/", "xy*".repeat(128)),
        format!(
            "{{ 41 ({}43) [300] ({}43) }}",
            "42|".repeat(128),
            "42|".repeat(128)
        ),
    ]
    .map(|string| with_string(&string));
    for text in strings
        .into_iter()
        .chain(conditions)
        .chain(whole)
        .chain(long)
    {
        RuleFile::parse(text)
            .unwrap()
            .select_last()
            .check()
            .unwrap();
    }
}

#[test]
fn what_cannot_be_checked_says_so() {
    for (text, place, message) in [
        (
            "rule a { condition: filename matches /a/ }",
            (1, 21),
            "unknown identifier \"filename\"",
        ),
        (
            "import \"vt\"\nrule a { condition: vt.x }",
            (1, 1),
            "unknown import vt",
        ),
        (
            "include \"b.yar\"\nrule a { condition: b }",
            (1, 1),
            "includes are not allowed",
        ),
        (
            "rule a { condition: a }",
            (1, 21),
            "unknown identifier \"a\"",
        ),
    ] {
        let error = RuleFile::parse(text).unwrap().check().unwrap_err();
        assert_eq!(error.kind(), RuleErrorKind::Unchecked, "{error}");
        assert_eq!((error.line(), error.column()), place, "{error}");
        assert!(error.message().starts_with(message), "{error}");
    }
    let error = RuleFile::parse("rule a { condition: pe.is_pe }");
    let error = error.unwrap().check().unwrap_err();
    assert_eq!(error.kind(), RuleErrorKind::Invalid, "{error}");
    assert!(
        error.message().ends_with("`import \"pe\"` is missing"),
        "{error}"
    );
}

const FILE: &str = "// A file.\r
import \"pe\"
import \"hash\" include \"more.yar\"
/* rule hidden { condition: true } */
private rule is_pe { condition: uint16(0) == 0x5a4d }
global private rule small { condition: filesize < 1MB and not huge }\r
rule a1 : tag { meta: text = \"rule no { }\" strings: $a = \"} rule no2 {\" $b = /\\/}{/ $c = { 7B 7D } condition: all of them }
rule a2 { condition: pe.is_dll() and is_pe }
rule b { condition: any of (a*) }
rule c { condition: for any a1 in (1..2) : (a1 == 1) }
rule d { condition: (for any i in (1..2) : (i == 1)) and a1 }
rule e { condition: hash.md5(0, 1) == \"x\" and b }
import \"pe\"
";

#[test]
fn a_selection_has_what_it_needs() {
    let file = RuleFile::parse(FILE).unwrap();
    let names: Vec<_> = file.rules().iter().map(RuleEntry::name).collect();
    assert_eq!(names, ["is_pe", "small", "a1", "a2", "b", "c", "d", "e"]);
    for rule in file.rules() {
        assert_eq!(rule.is_private(), ["is_pe", "small"].contains(&rule.name()));
        assert_eq!(rule.is_global(), rule.name() == "small");
        assert!(FILE[rule.span()].ends_with('}'));
    }
    for (name, rules, imports) in [
        ("a1", &["small", "a1"][..], &[][..]),
        ("a2", &["is_pe", "small", "a2"], &["import \"pe\""]),
        (
            "b",
            &["is_pe", "small", "a1", "a2", "b"],
            &["import \"pe\""],
        ),
        ("c", &["small", "c"], &[]),
        ("d", &["small", "a1", "d"], &[]),
        (
            "e",
            &["is_pe", "small", "a1", "a2", "b", "e"],
            &["import \"pe\"", "import \"hash\""],
        ),
    ] {
        let selected = file.select(name).unwrap();
        let mut expected: Vec<_> = imports.to_vec();
        expected.push("include \"more.yar\"");
        let spans = file
            .rules()
            .iter()
            .filter(|rule| rules.contains(&rule.name()));
        expected.extend(spans.map(|rule| &FILE[rule.span()]));
        assert_eq!(selected.text(), expected.join("\n") + "\n", "{name}");
        let again = selected.select(name).unwrap();
        assert_eq!(again.text(), selected.text());
    }
}

#[test]
fn a_selection_needs_a_public_rule() {
    let file = RuleFile::parse(FILE).unwrap();
    for (error, message) in [
        (
            file.check().unwrap_err(),
            "a hunt takes one rule; select one of a1, a2, b, c, d, e",
        ),
        (
            file.select("x").unwrap_err(),
            "there is no rule named `x`; select a public rule: a1, a2, b, c, d, e",
        ),
        (
            file.select("small").unwrap_err(),
            "the rule `small` is private; select a public rule",
        ),
    ] {
        assert_eq!(error.kind(), RuleErrorKind::Selection);
        assert_eq!(error.message(), message);
    }
    let private = RuleFile::parse("private rule a { condition: true }").unwrap();
    let error = private.select("b").unwrap_err();
    assert_eq!(error.message(), "the source has no public rule");
    let globals = "global rule a { condition: true } global rule b { condition: true }";
    RuleFile::parse(globals).unwrap().check().unwrap();
    let chain = "rule a { condition: true }\nrule b { condition: a }";
    let chain = RuleFile::parse(chain).unwrap();
    assert_eq!(chain.check().unwrap_err().kind(), RuleErrorKind::Selection);
    let warnings = chain.select("b").unwrap().check().unwrap();
    assert_eq!(
        warnings[0].to_string(),
        "line 1, column 6: the rule `a` is not private, so the hunt also finds samples that \
         match only this rule"
    );
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let error = RuleFile::from_bytes(b"\xef\xbb\xbfrule a {\r\n\t\xc3\xa9\xff }").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 3));
    assert_eq!(error.message(), "the byte 0xff is not valid UTF-8");
    let file = RuleFile::from_bytes(b"\xef\xbb\xbfrule a { condition: true }").unwrap();
    assert_eq!(file.text(), "rule a { condition: true }");
}

#[test]
fn what_is_probably_a_mistake_is_warned_of() {
    let md5 = "0CC175B9C0F1B6A831C399E269772661";
    let cases = [
        with_string("\"MZ\""),
        with_string("\"MZ\" wide"),
        with_string("\"a\" wide"),
        with_string("\"abc\" base64"),
        with_string("{ 4D 5A }"),
        with_string("{ 4D ?? ?? ?? 5A }"),
        with_string("{ 00 00 00 00 }"),
        with_string("{ 41 [300-400] 41 42 43 44 }"),
        with_string("{ (41 42 43 | 44) ?? ?? ?? }"),
        with_string("/a?b.{3}/"),
        with_string("/[a-z]{20}/"),
        with_string("/https?:.*/"),
        format!("import \"hash\"\nrule a {{ condition: hash.md5(0, filesize) == \"{md5}\" }}"),
        format!("import \"hash\"\nrule a {{ condition: \"{md5}\" == hash.sha1(0, filesize) }}"),
        format!(
            "import \"hash\"\nrule a {{ condition: for any h in (\"{md5}\", \"{}\") : (hash.md5(0, 5) == h) }}",
            md5.to_lowercase()
        ),
        format!("import \"pe\"\nrule a {{ condition: pe.imphash() == \"{md5}\" }}"),
        format!("import \"elf\"\nrule a {{ condition: elf.import_md5() == \"{md5}\" }}"),
        format!("import \"hash\"\nrule a {{ condition: hash.md5(0, 5) iequals \"{md5}\" }}"),
    ];
    let shown = |text: &String| {
        let warnings = RuleFile::parse(text.as_str()).unwrap().check().unwrap();
        let warnings: Vec<_> = warnings
            .iter()
            .map(|warning| format!("=> {warning}\n"))
            .collect();
        format!("{text}\n{}", warnings.concat())
    };
    insta::assert_snapshot!(cases.iter().map(shown).collect::<Vec<_>>().join("\n"));
    let comment = format!("rule a {{ condition: true }} // {}", "x".repeat(70_000));
    let warnings = RuleFile::parse(comment).unwrap().check().unwrap();
    assert_eq!(
        warnings[0].message(),
        "the source is 69 KiB long, but the service may reject a source larger than 64 KiB"
    );
}

/// Random combinations of pieces of rules.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "rule ",
            "a",
            "b",
            " { ",
            " } ",
            "strings: ",
            "condition: ",
            "$a",
            " = ",
            "\"x\"",
            "\"",
            "/",
            "/x/",
            "{ 41 }",
            "(",
            ")",
            "[",
            "]",
            " of ",
            "them",
            "any",
            " in ",
            "1",
            "..",
            "\n",
            "//",
            "/*",
            "*/",
            "\\",
            "for ",
            ":",
            "meta: ",
            "import \"pe\" ",
            "include \"a\" ",
            "pe.",
            "private ",
            "global ",
            "and ",
            "not ",
            "-",
            "#",
            "%",
            "\u{e9}",
            "\0",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Rules that refer to rules above them, with comments and other traps in between.
fn rule_texts() -> impl Strategy<Value = Vec<String>> {
    let modifier = proptest::sample::select(vec!["", "", "private ", "global ", "private global "]);
    let trap = proptest::sample::select(vec![
        "meta: m = \"rule r0 { condition: r1 }\"",
        "strings: $r0 = \"r1 }\" $x = /}r2{/ condition: any of them and",
        "strings: $x = { 7B /* } */ 7D } condition: $x and",
        "/* } */",
        "// }\r\n",
    ]);
    let rule = (modifier, trap, any::<u8>());
    proptest::collection::vec(rule, 1..8).prop_map(|rules| {
        let text = |(index, (modifier, trap, need)): (usize, (&str, &str, u8))| {
            let condition = if trap.contains("condition: any") || trap.contains("condition: $x") {
                ""
            } else {
                "condition:"
            };
            let need = match usize::from(need) % (index + 2) {
                need if need < index => format!("r{need}"),
                need if need == index && index > 0 => "any of (r*)".to_owned(),
                _ => "filesize > 0".to_owned(),
            };
            format!("{modifier}rule r{index} {{ {trap} {condition} {need} }}")
        };
        // YARA rejects a rule whose name matches a wildcard above it, so only the last rule may
        // have a wildcard.
        let last = rules.len() - 1;
        let texts = rules.into_iter().enumerate().map(text);
        let plain = |(index, rule): (usize, String)| match index == last {
            true => rule,
            false => rule.replace("any of (r*)", "filesize > 1"),
        };
        texts.enumerate().map(plain).collect()
    })
}

proptest! {
    #[test]
    fn any_text_is_checked_without_a_panic(text in hostile_text()) {
        if let Ok(file) = RuleFile::parse(text.as_str()) {
            let _ = file.check();
            for rule in file.rules() {
                prop_assert_eq!(&file.text()[rule.name_span.clone()], rule.name());
                if let Ok(selected) = file.select(rule.name()) {
                    let _ = selected.check();
                }
            }
        }
        let _ = RuleFile::from_bytes(text.as_bytes());
    }
}

proptest! {
    // Compiling is slow.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_selected_rule_compiles_alone(rules in rule_texts()) {
        let file = RuleFile::parse(rules.join("\r\n// rule r9 { condition: r0 }\n")).unwrap();
        prop_assert_eq!(file.rules().len(), rules.len());
        for (rule, text) in file.rules().iter().zip(&rules) {
            prop_assert_eq!(&file.text()[rule.span()], text);
            if rule.is_private() {
                continue;
            }
            let selected = file.select(rule.name()).unwrap();
            prop_assert!(selected.text().contains(text.as_str()));
            for kept in selected.rules() {
                prop_assert!(rules.iter().any(|rule| rule == &selected.text()[kept.span()]));
            }
            let compiled = selected.compile().unwrap();
            prop_assert_eq!(compiled.name(), rule.name());
            let text = String::from(selected);
            Rule::compile(&text).unwrap();
        }
    }
}
