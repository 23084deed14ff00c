use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{Envelope, ErrorItem, JobMeta, Json, Sample};

fn read(text: &str) -> serde_json::Result<Value> {
    read_reply(text.as_bytes())
}

#[test]
fn lone_surrogates_and_control_characters_are_read() {
    for (text, value) in [
        (r#"["a\udc80b"]"#, json!(["a\u{fffd}b"])),
        (r#"["\ud800"]"#, json!(["\u{fffd}"])),
        (
            r#"{"\ud800": 1, "\"\\\udfff\"": 2}"#,
            json!({"\u{fffd}": 1, "\"\\\u{fffd}\"": 2}),
        ),
        (
            r#"["\ud83d\ud83d\ude00\ude00"]"#,
            json!(["\u{fffd}😀\u{fffd}"]),
        ),
        (r#"["\uD83D\uDE00\uDE00"]"#, json!(["😀\u{fffd}"])),
        (r#"["\\ud800", "\ud800"]"#, json!(["\\ud800", "\u{fffd}"])),
        ("[\"a\tb\0\r\n\x1f\"\t]\n", json!(["a\tb\0\r\n\x1f"])),
        ("{\"\n\": \"\\\"\n\\\\\"}", json!({"\n": "\"\n\\"})),
        ("\u{feff}[\"é\t\"]", json!(["é\t"])),
    ] {
        assert_eq!(read(text).unwrap(), value, "{text}");
    }
    let body = b"[\"a\xff\t\\ud800\"]";
    assert_eq!(
        read_reply::<Value>(body).unwrap(),
        json!(["a\u{fffd}\t\u{fffd}"])
    );
}

#[test]
fn one_odd_character_does_not_lose_a_job() {
    let reply = |family: &str| {
        let body =
            format!(r#"{{"meta": {{"status": "done"}}, "resources": [{{"family": "{family}"}}]}}"#);
        read_reply::<Envelope<JobMeta, Sample>>(body.as_bytes()).unwrap()
    };
    let family = |family| reply(family).resources[0].family.clone().unwrap();
    assert_eq!(family(r"Example\udc80fam"), "Example\u{fffd}fam");
    assert_eq!(family("Example\tfam"), "Example\tfam");
}

#[test]
fn other_faults_stay_errors() {
    for text in [
        "[\"\\ud800\"",
        "[\"a\t",
        "[\t\u{b}]",
        r#"["\u12"]"#,
        r#"["\ud8"#,
        "[1,]",
        "",
        "\\",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    assert_eq!(
        read("[\u{0}]").unwrap_err().to_string(),
        "expected value at line 1 column 2"
    );
    let error = read_reply::<Value>(&[b'"'; 1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "EOF while parsing a string at line 1 column 1"
    );
    let bytes = vec![0xff; 9 << 20];
    assert_eq!(
        read_reply::<Value>(&bytes).unwrap_err().to_string(),
        "it is not valid UTF-8"
    );
}

#[test]
fn a_text_of_control_characters_is_not_repaired() {
    let text = "\"".to_owned() + &"\0".repeat(1000);
    assert!(repair(&text, 5000).is_some());
    assert!(repair(&text, 4999).is_none());
}

fn repeated(before: &str, part: &str, bytes: usize, after: &str) -> String {
    let parts = vec![part; bytes / (part.len() + 1)].join(",");
    [before, &parts, after].concat()
}

/// Parses a reply with a memory budget. Returns whether it succeeded, and the peak memory in bytes.
fn peak<R: crate::types::lenient::Item>(budget: usize, text: &str) -> (bool, usize) {
    let mut read = false;
    let info = allocation_counter::measure(|| {
        let reply = within(budget, || {
            serde_json::from_str::<Envelope<JobMeta, R>>(text)
        });
        read = reply.is_ok();
    });
    (read, info.bytes_max as usize)
}

#[test]
fn many_small_values_do_not_exceed_the_budget() {
    const BUDGET: usize = 1 << 20;
    for (before, after) in [
        (r#"{"resources":["#, "]}"),
        (r#"{"errors":["#, "]}"),
        (r#"{"new":["#, "]}"),
        (r#"{"meta":{"patterns":["#, "]}}"),
        (r#"{"resources":[{"samples":["#, "]}]}"),
    ] {
        for value in [
            "{}",
            "[]",
            "0",
            "null",
            r#""a""#,
            r#"{"":0}"#,
            r#"{"md5":null}"#,
            r#"{"family":"a"}"#,
            "[[]]",
            r#"{"a":{}}"#,
        ] {
            let text = repeated(before, value, 125_000, after);
            for peak in [peak::<Sample>(BUDGET, &text), peak::<Json>(BUDGET, &text)] {
                // When a list grows, the old and the new buffer exist at the same time.
                assert!(
                    !peak.0 && peak.1 < 3 * BUDGET / 2 + text.len(),
                    "{before}{value}: {peak:?}"
                );
            }
        }
    }
    let names: Vec<_> = (0..15_000).map(|name| format!(r#""{name}":0"#)).collect();
    for (before, after) in [
        ("{", "}"),
        (r#"{"meta":{"#, "}}"),
        (r#"{"new":{"#, "}}"),
        (r#"{"resources":[{"#, "}]}"),
    ] {
        let text = [before, &names.join(","), after].concat();
        let peak = peak::<Sample>(BUDGET, &text);
        assert!(
            !peak.0 && peak.1 < 3 * BUDGET / 2 + text.len(),
            "{before}: {peak:?}"
        );
    }
}

#[test]
fn three_hundred_thousand_results_fit_into_the_budget() {
    let result = format!(
        r#"{{"sha256":"{}","md5":"{}","filesize":484872,"filetype":"PE32","label":"malware","first_seen":"2014/05/09","samples":[]}}"#,
        "0f".repeat(32),
        "cd".repeat(16)
    );
    let share = BUDGET / 300_000;
    let text = repeated(
        r#"{"resources":["#,
        &result,
        1000 * (result.len() + 1),
        "]}",
    );
    assert!(peak::<Sample>(1000 * share, &text).0);
    assert!(size_of::<ErrorItem>() <= size_of::<Sample>());
}

#[test]
fn a_budget_holds_for_one_reply() {
    let error = within(1_000, || {
        serde_json::from_str::<Envelope<JobMeta, Json>>(r#"{"a":[{},{},{}]}"#)
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "its values exceed the memory limit at line 1 column 11"
    );
    assert!(LEFT.get().is_none());
}

proptest! {
    #[test]
    fn only_what_is_broken_is_repaired(
        parts in prop::collection::vec(
            prop_oneof![
                Just("\\ud800".to_owned()), Just("\\udfff".to_owned()), Just("\\ud83d\\ude00".to_owned()),
                Just("\\\\".to_owned()), Just("\\\"".to_owned()), Just("\t".to_owned()), Just("u".to_owned()),
                Just("\\n".to_owned()), "[a-fé]{0,4}",
            ],
            0..12,
        ),
    ) {
        let text = format!("[\"{}\"]", parts.concat());
        let read: Vec<String> = read_reply(text.as_bytes()).unwrap();
        if let Ok(whole) = serde_json::from_str::<Vec<String>>(&text) {
            prop_assert!(repair(&text, REPAIR).is_none());
            prop_assert_eq!(read, whole);
        } else {
            let repaired = repair(&text, REPAIR).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&repaired).unwrap(), read);
            prop_assert!(repair(&repaired, REPAIR).is_none());
        }
    }
}

#[test]
fn a_large_reply_is_read_in_time() {
    // serde_json skips whitespace without calling a visitor.
    let large = format!("{{\"a\": {}1}}", " ".repeat(LARGE));
    let looks = Rc::new(Cell::new(0));
    let seen = looks.clone();
    let is_over = move || {
        seen.set(seen.get() + 1);
        seen.get() > 3
    };
    assert!(until(is_over, || read(&large)).unwrap_err().is_io());
    assert!((4..8).contains(&looks.get()), "{looks:?}");
    assert_eq!(until(|| true, || read("[1]")).unwrap(), json!([1]));
    // The deadline does not apply to the next reply of this thread.
    assert!(IS_OVER.with_borrow(Option::is_none));
    let timed = |is_over| {
        serde_json::from_reader::<_, Value>(Timed {
            rest: &large.as_bytes()[LARGE - 3 * STRIDE..],
            stride: 0,
            is_over,
        })
    };
    assert!(timed(&|| false).unwrap_err().is_syntax());
    assert!(timed(&|| true).unwrap_err().is_io());
}
