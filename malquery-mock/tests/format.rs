//! Tests which cassettes are accepted and which are refused.

use std::error::Error;
use std::io::Read;

use malquery_mock::Cassette;
use malquery_proto::Transport;
use proptest::prelude::*;

fn folder() -> String {
    format!("{}/tests/cassettes", env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Result<Cassette, String> {
    Cassette::parse("test.json", text).map_err(|error| error.to_string())
}

/// A cassette with one interaction.
fn one(interaction: &str) -> String {
    format!("{{\"version\": 1, \"interactions\": [\n{interaction}\n]}}")
}

const GET: &str = r#""request": {"method": "GET", "uri": "/x"}"#;

fn reply(response: &str) -> String {
    one(&format!(r#"{{"id": "a", {GET}, "response": {response}}}"#))
}

fn sent(uri_and_method: &str) -> String {
    one(&format!(
        r#"{{"id": "a", "request": {uri_and_method}, "response": {{"status": 200}}}}"#
    ))
}

#[test]
fn everything_else_is_refused_with_its_place() {
    let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let body = |body: &str| reply(&format!(r#"{{"status": 200, "body": {body}}}"#));
    let get = |more: &str| one(&format!(r#"{{"id": "a", {GET}, {more}}}"#));
    let texts = [
        String::new(),
        "{\"version\": 1,\n  \"interactions\": [}".into(),
        "{\"version\": 1,\n  \"x\": \"\\ud800\"}".into(),
        "[]".into(),
        "{}".into(),
        r#"{"version": 2, "new": 1}"#.into(),
        r#"{"version": 1.0, "interactions": []}"#.into(),
        r#"{"version": "1", "interactions": []}"#.into(),
        r#"{"version": 1}"#.into(),
        r#"{"version": 1, "features": ["delays"], "delays": 1, "interactions": []}"#.into(),
        r#"{"version": 1, "features": {}, "interactions": []}"#.into(),
        r#"{"version": 1, "recorded_with": 1, "interactions": []}"#.into(),
        r#"{"version": 1, "interactions": [], "interactions": []}"#.into(),
        "{\"version\": 1,\n\"interactions\": [\n<<<<<<< HEAD\n{}\n=======\n]}".into(),
        one("1"),
        one("{}"),
        one(r#"{"id": ""}"#),
        one(&format!(r#"{{"id": "a", {GET}}}"#)),
        get(r#""response": {"status": 200}, "error": {"kind": "dns"}"#),
        get(r#""error": {"kind": "boredom"}"#),
        get(r#""error": {"kind": "dns", "after": 1}"#),
        get(r#""response": {"status": 200}, "times": 0"#),
        get(r#""response": {"status": 200}, "times": -1"#),
        get(r#""response": {"status": 200}, "repeat_last": "yes""#),
        get(r#""response": {"status": 200}, "repeat": true"#),
        one(r#"{"id": "a", "response": {"status": 200}}"#),
        sent(r#"{"method": "get", "uri": "/x"}"#),
        sent(r#"{"method": "", "uri": "/x"}"#),
        sent(r#"{"method": "GET"}"#),
        sent(r#"{"method": "GET", "uri": ""}"#),
        sent(r#"{"method": "GET", "uri": "host:80"}"#),
        sent(r#"{"method": "GET", "uri": "/a b"}"#),
        sent(r##"{"method": "GET", "uri": "/a#b"}"##),
        sent(r#"{"method": "GET", "uri": "/x", "headers": {"a": "b"}}"#),
        sent(r#"{"method": "GET", "uri": "/x", "headers": [["a"]]}"#),
        sent(r#"{"method": "GET", "uri": "/x", "headers": [["a b", ""]]}"#),
        sent(r#"{"method": "GET", "uri": "/x", "headers": [["a", "\n"]]}"#),
        reply(r#"{"status": 99}"#),
        reply(r#"{"status": 101}"#),
        reply(r#"{"status": 1000}"#),
        reply(r#"{"status": 200.0}"#),
        reply(r#"{"status": "200"}"#),
        reply(r#"{"status": 200, "reason": "OK"}"#),
        reply(r#"{"status": 200, "headers": [["content-length", "2"]], "body": {"json": {}}}"#),
        reply(r#"{"status": 200, "fault": {"truncate_after": 1}}"#),
        reply(
            r#"{"status": 200, "body": {"text": "abc"}, "fault": {"truncate_after": 1, "x": 1}}"#,
        ),
        body("{}"),
        body(r#""abc""#),
        body(r#"{"json": {"a": {"b": 1, "b": 2}}}"#),
        body(r#"{"json": 1, "text": "a"}"#),
        body(r#"{"text": 1}"#),
        body(r#"{"text": "a", "len": 1}"#),
        body(r#"{"xml": "a"}"#),
        body(r#"{"form": [["a", 1]]}"#),
        body(&format!(r#"{{"base64": ["aGVsbG8="], "sha256": "{sha}"}}"#)),
        body(r#"{"base64": ["aGVsbG8="], "len": 5}"#),
        body(&format!(
            r#"{{"base64": ["aGVsbG8="], "len": 6, "sha256": "{sha}"}}"#
        )),
        body(r#"{"base64": ["aGVsbG8="], "len": 5, "sha256": "2cf2"}"#),
        body(&format!(
            r#"{{"base64": "aGVsbG8=", "len": 5, "sha256": "{sha}"}}"#
        )),
        body(&format!(
            r#"{{"base64": ["aGV", "sb G8="], "len": 5, "sha256": "{sha}"}}"#
        )),
        body(&format!(
            r#"{{"base64": ["aGV", "sbG8"], "len": 5, "sha256": "{sha}"}}"#
        )),
        body(r#"{"file": "greeting.zip"}"#),
        r#"{"version": 1, "interactions": [], "comment": "by hand"}"#.into(),
        r#"{"version": 1e0, "interactions": []}"#.into(),
        "{\"version\": 1, \"interactions\": [\n||||||| base\n]}".into(),
        "{\"version\": 1, \"interactions\": [\n=======\n]}".into(),
        "{\"version\": 1, \"interactions\": [\n>>>>>>> branch\n]}".into(),
        "{\"version\": 1, \"interactions\": []".into(),
        "{\"version\": 1, \"interactions\": []}\n{}".into(),
        "\u{feff}{\"version\": 1, \"interactions\": []}".into(),
        get(r#""response": {"status": 200}, "times": 4294967296"#),
        sent(r#"{"method": "GET", "uri": "/x", "header": []}"#),
        body(r#"{"base64": ["aGVsbG8=", "aGVsbG8="], "len": 10, "sha256": "0"}"#),
        body(r#"{"file": "a", "json": 1}"#),
    ];
    let messages: Vec<String> = texts
        .iter()
        .map(|text| {
            parse(text)
                .map(|cassette| format!("{text} is taken: {cassette:?}"))
                .unwrap_or_else(|e| e)
        })
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn bodies_are_sent_as_recorded() {
    let body = |body: &str| {
        let text = reply(&format!(r#"{{"status": 200, "body": {body}}}"#));
        let mock = parse(&text).unwrap().transport();
        let request = http::Request::get("/x").body(Vec::new()).unwrap();
        let mut text = String::new();
        mock.send(request)
            .unwrap()
            .into_body()
            .read_to_string(&mut text)
            .unwrap();
        text
    };
    assert_eq!(
        body(
            "{\"json\": { \"z\": [1.2700e-07, 12345678901234567890],\n \"a\": \" \\u00fc \\\" \" }}"
        ),
        r#"{"z":[1.2700e-07,12345678901234567890],"a":" ü \" "}"#
    );
    assert_eq!(body(r#"{"text": "<html>\n"}"#), "<html>\n");
    assert_eq!(
        body(r#"{"form": [["a b", "&"], ["a", "ü"]]}"#),
        "a+b=%26&a=%C3%BC"
    );
    // A JSON string has quotes, and plain text does not.
    assert_eq!(body(r#"{"json": "word"}"#), "\"word\"");
    assert_eq!(body(r#"{"text": "word"}"#), "word");
    let hello = r#"{"base64": ["aGV", "sbG8="], "len": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}"#;
    assert_eq!(body(hello), "hello");
}

#[test]
fn files_stay_in_the_folder() {
    // The files to load are variants of a valid one.
    let good = std::fs::read_to_string(format!("{}/faults.json", folder())).unwrap();
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("files_stay_in_the_folder");
    std::fs::create_dir_all(dir.join("bodies")).unwrap();
    std::fs::copy(
        format!("{}/bodies/greeting.zip", folder()),
        dir.join("bodies/greeting.zip"),
    )
    .unwrap();
    let path = dir.join("cassette.json");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Cassette::load(&path)
            .map(|_| String::new())
            .unwrap_or_else(|error| {
                let source = error
                    .source()
                    .map(|_| " (and a source)")
                    .unwrap_or_default();
                error
                    .to_string()
                    .replace(&path.display().to_string(), "cassette.json")
                    + source
            })
    };
    assert_eq!(load(&good), "");
    let file = |name: &str| load(&good.replacen("bodies/greeting.zip", name, 1));
    let outside = dir.with_extension("outside");
    std::fs::write(&outside, "outside").unwrap();
    let mut messages = vec![
        load(&good.replacen("\"len\": 128", "\"len\": 127", 1)),
        load(&good.replacen("\"sha256\": \"8", "\"sha256\": \"9", 1)),
        file("../files_stay_in_the_folder.outside"),
        file(&outside.display().to_string()),
        file("bodies/../bodies/greeting.zip"),
        file(""),
        file("bodies"),
        file("missing"),
        file("a\\u0000b"),
    ];
    #[cfg(unix)]
    {
        let link = dir.join("link");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        messages.push(file("link"));
    }
    insta::assert_snapshot!(messages.join("\n"));

    let error = Cassette::load(dir.join("missing.json")).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("missing.json: the file could not be read"),
        "{error}"
    );
    assert!(error.source().is_some() && error.place().is_none());
    std::fs::write(&path, b"\xff").unwrap();
    assert!(
        Cassette::load(&path)
            .unwrap_err()
            .to_string()
            .ends_with(": the file is not valid UTF-8")
    );
}

/// Cassettes of every kind, as bytes.
fn corpus() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for folder in ["corpus-v1", "cassettes"] {
        for entry in
            std::fs::read_dir(format!("{}/tests/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                files.push(std::fs::read(path).unwrap());
            }
        }
    }
    files
}

proptest! {
    // For a long run, set PROPTEST_CASES=100000.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_damage_to_a_file_makes_it_panic(
        file in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        damage in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        thread_local! {
            static CORPUS: (Vec<Vec<u8>>, tempfile::TempDir) = (corpus(), tempfile::TempDir::new().unwrap());
        }
        CORPUS.with(|(corpus, folder)| {
            let mut bytes = corpus[file.index(corpus.len())].clone();
            let other = &corpus[other.index(corpus.len())];
            for (kind, from, to, byte) in &damage {
                let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
                let range = from.min(to)..from.max(to);
                match kind {
                    0 => if let Some(place) = bytes.get_mut(range.start) { *place ^= byte },
                    1 => bytes.truncate(range.end),
                    2 => { bytes.drain(range.start..range.end.min(range.start + usize::from(*byte))); }
                    _ => {
                        let start = from % other.len();
                        let piece = other[start..(start + usize::from(*byte)).min(other.len())].to_vec();
                        bytes.splice(range.start..range.start, piece);
                    }
                }
            }
            let path = folder.path().join("damaged.json");
            std::fs::write(&path, &bytes).unwrap();
            match Cassette::load(&path) {
                Ok(cassette) => {
                    let _ = cassette.transport().check();
                }
                // The place is missing only if the bytes are not text.
                Err(error) => assert!(error.place().is_some() || std::str::from_utf8(&bytes).is_err(), "{error}"),
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_change_of_a_cassette_makes_it_panic(
        faults in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, any::<prop::sample::Index>()), 1..4),
    ) {
        let (collect, other) = (include_str!("cassettes/collect.json"), include_str!("cassettes/faults.json"));
        let pieces = [
            "{", "}", "[", "]", ",", ":", "\"", "0", "-1", "1e999999999999", "null", "true", "\\", "\n", "ü", "/", "#", "?", "%",
            "<<<<<<< ", "\"len\": 1,", "\"body\": {}", "[[", "{}", "\"\"", "=", " ",
        ];
        let mut text = if faults { other } else { collect }.to_owned();
        for (at, cut, piece) in changes {
            let mut from = at.index(text.len() + 1);
            while !text.is_char_boundary(from) { from -= 1; }
            let mut to = (from + cut).min(text.len());
            while !text.is_char_boundary(to) { to -= 1; }
            text.replace_range(from..to.max(from), pieces[piece.index(pieces.len())]);
        }
        match Cassette::parse("x", &text) {
            Ok(cassette) => {
                let request = http::Request::get("/malquery/entities/requests/v1?ids=1").body(text.into_bytes()).unwrap();
                let mock = cassette.transport();
                let _ = mock.send(request);
                let _ = mock.check();
            }
            Err(error) => prop_assert!(error.place().is_some(), "{}", error),
        }
    }
}
