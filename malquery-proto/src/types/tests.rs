//! Tests that replies are parsed and serialized without losing values.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

type Job = Envelope<JobMeta, Sample>;

fn round_trip<T: serde::de::DeserializeOwned + serde::Serialize>(reply: &Value) -> T {
    let read: T = serde_json::from_value(reply.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&read).unwrap(), reply);
    read
}

#[test]
fn a_full_result_is_typed() {
    let job: Job = round_trip(&json!({
        "meta": {"reqid": "r", "reqtype": "hunt", "status": "done", "query_time": 91_234_567_890_u64,
            "stats": {"total_count": 2, "malware_count": 1, "pua_count": 0, "clean_count": 0, "unknown_count": 1},
            "options": {"limit": 5}, "patterns": [{"type": "hex", "value": "00"}], "yara_rule": "rule x {}"},
        "resources": [{
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "sha1": "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3", "md5": "098f6bcd4621d373cade4e832627b4f6",
            "filesize": 4, "filetype": "PE32", "first_seen": "2020/06/09", "label": "malware",
            "family": "Test", "samples": [{"filesize": 1}], "ignore_reason": "none", "label_confidence": "high",
            "pattern": "00", "pattern_type": "hex", "tags": ["a"], "yara_rule": "r", "yara_rules": ["r"]
        }],
        "errors": [{"code": 500, "message": "in part", "id": "x", "type": "t"}]
    }));
    assert_eq!(job.meta.status, Some(JobStatus::Done));
    assert_eq!(job.meta.reqtype, Some(RequestType::Hunt));
    assert_eq!(
        job.meta.query_time.as_ref().unwrap().as_u64(),
        Some(91_234_567_890)
    );
    assert_eq!(job.meta.stats.as_ref().unwrap().total_count, Some(2));
    assert_eq!(job.meta.patterns[0].pattern_type, Some(PatternType::Hex));
    let found = &job.resources[0];
    assert_eq!(found.filetype, Some(FileType::PE32));
    assert_eq!(found.first_seen.unwrap().to_string(), "2020/06/09");
    assert_eq!(found.label, Some(Label::Malware));
    assert_eq!(found.samples()[0].filesize, Some(1));
    assert_eq!(found.ignore_reason(), Some("none"));
    assert_eq!(found.label_confidence(), Some("high"));
    assert_eq!(found.pattern(), Some("00"));
    assert_eq!(found.pattern_type(), Some(PatternType::Hex));
    assert_eq!(found.tags(), ["a"]);
    assert_eq!(found.yara_rule(), Some("r"));
    assert_eq!(found.yara_rules(), ["r"]);
    assert_eq!(job.errors[0].code, Some(500));
    assert_eq!(job.errors[0].error_type.as_deref(), Some("t"));
    assert!(job.extra.is_empty() && job.meta.extra.is_empty());
}

#[test]
fn unknown_values_are_kept() {
    let job: Job = round_trip(&json!({
        "meta": {"status": "INPROGRESS", "stats": null, "query_time": "slow", "sample": 5, "new": [1]},
        "resources": [
            {"sha256": "nonsense", "filesize": "12", "label": 7, "filetype": null, "samples": null, "new": {"a": null}},
            "a text where a sample belongs",
            {"sha256": "", "first_seen": "9 June", "tags": "x", "filesize": -1, "family": 1.5},
            null
        ],
        "errors": "none",
        "extra": true
    }));
    assert_eq!(job.meta.status, Some(JobStatus::InProgress));
    assert_eq!(job.meta.stats, None);
    assert_eq!(job.resources.len(), 2);
    assert_eq!(job.resources[0].filesize, Some(12));
    assert_eq!(job.resources[0].sha256, None);
    assert_eq!(
        job.resources[0].extra.get("sha256").unwrap().as_str(),
        Some("nonsense")
    );
    assert_eq!(job.resources[1].filesize, None);
    assert_eq!(
        job.resources[1].extra.get("filesize").unwrap().to::<i32>(),
        Some(-1)
    );
    assert_eq!(job.extra.get("extra").unwrap().to_string(), "true");
}

#[test]
fn an_odd_element_beside_others_is_not_lost() {
    // Found with random replies: the order of unknown fields must not matter.
    let job: Job = round_trip(&json!({
        "meta": {"patterns": [{"type": "hex"}, 5]},
        "resources": [{"yara_rules": ["r", 1], "label_confidence": 0.9, "samples": [{"filesize": 1}, null]}, null],
        "errors": [{"code": 1, "z": 1, "a": 2}, "a text"],
    }));
    assert_eq!(job.resources[0].samples().len(), 1);
    assert_eq!(job.resources[0].yara_rules(), ["r"]);
    let text = r#"{"meta":{},"resources":[{"z":1,"a":2},null],"errors":[{"z":1,"a":2},7]}"#;
    let job: Job = serde_json::from_str(text).unwrap();
    assert_eq!(
        serde_json::to_string(&job)
            .unwrap()
            .replace(r#""a":2,"z":1"#, r#""z":1,"a":2"#),
        text
    );
}

#[test]
fn many_unknown_fields_take_little_time() {
    let fields: serde_json::Map<String, Value> =
        (0..50_000).map(|i| (i.to_string(), Value::Null)).collect();
    let meta: PlainMeta = serde_json::from_value(Value::Object(fields)).unwrap();
    assert_eq!(meta.extra.iter().count(), 50_000);
}

#[test]
fn a_repeated_field_takes_little_time() {
    let fields: String = (0..30_000)
        .map(|i| format!("\"{i}\":0,\"label\":{i},"))
        .collect();
    let sample: Sample = serde_json::from_str(&format!("{{{fields}\"label\":null}}")).unwrap();
    assert_eq!(sample.extra.iter().count(), 30_001);
    assert_eq!(sample.extra.get("label").unwrap().to_string(), "null");
    assert_eq!(sample.label, None);
}

#[test]
fn missing_null_and_empty_stay_what_they_were() {
    for reply in [
        json!({}),
        json!({"meta": null}),
        json!({"meta": {}, "resources": null, "errors": null}),
        json!({"meta": {}, "resources": [], "errors": []}),
        json!({"meta": {"trace_id": null}, "resources": [{}]}),
    ] {
        let read: Envelope<PlainMeta, Sample> = serde_json::from_value(reply.clone()).unwrap();
        assert!(read.errors.is_empty());
        let written = serde_json::to_value(&read).unwrap();
        // If `meta` is missing, an empty one is written.
        let expected = if reply.get("meta").is_some() {
            reply
        } else {
            json!({"meta": {}})
        };
        assert_eq!(written, expected);
    }
    assert!(serde_json::from_str::<Envelope<PlainMeta, Sample>>("[]").is_err());
    assert!(serde_json::from_str::<Envelope<PlainMeta, Sample>>("null").is_err());
    assert!(serde_json::from_str::<Envelope<PlainMeta, Sample>>("").is_err());
}

#[test]
fn a_query_time_is_any_number() {
    for (text, value) in [
        ("1.27e-07", 1.27e-7),
        ("0.5", 0.5),
        ("123456789012", 123_456_789_012.0),
        ("0", 0.0),
    ] {
        let meta: PlainMeta =
            serde_json::from_str(&format!(r#"{{"query_time": {text}}}"#)).unwrap();
        assert_eq!(meta.query_time.unwrap().as_f64(), Some(value));
    }
}

#[test]
fn a_submission_without_an_id_is_an_error() {
    type Reply = Envelope<SubmitMeta, Json>;
    let reply: Reply =
        round_trip(&json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}));
    assert_eq!(reply.meta.reqid.as_str(), "r-1");
    // This `done` is not the status of the job.
    assert_eq!(
        reply.meta.extra.get("status").unwrap().as_str(),
        Some("done")
    );
    for meta in [
        json!({}),
        json!({"reqid": null}),
        json!({"reqid": ""}),
        json!({"reqid": [1]}),
        Value::Null,
    ] {
        let error =
            serde_json::from_value::<Reply>(json!({"meta": meta, "resources": []})).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
    let reply: Reply = round_trip(&json!({"meta": {"reqid": 17}, "resources": []}));
    assert_eq!(reply.meta.reqid.as_str(), "17");
    let error = serde_json::from_str::<Reply>("{}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "missing field `reqid` at line 1 column 2"
    );
}

#[test]
fn the_last_of_repeated_fields_counts() {
    // Found by fuzzing: the kept value of the first field appeared next to the second value, or was
    // written instead of it.
    let read = |text: &str| serde_json::from_str::<Sample>(text).unwrap();
    let sample = read(
        r#"{"md5": "nonsense", "label": "Malware", "md5": "098f6bcd4621d373cade4e832627b4f6", "label": "malware"}"#,
    );
    assert_eq!(sample.label, Some(Label::Malware));
    assert!(sample.md5.is_some() && sample.extra.is_empty());
    let written = r#"{"md5":"098f6bcd4621d373cade4e832627b4f6","label":"malware"}"#;
    assert_eq!(serde_json::to_string(&sample).unwrap(), written);
    let sample = read(r#"{"filesize": 7, "filesize": null}"#);
    assert_eq!(sample.filesize, None);
    assert_eq!(
        serde_json::to_string(&sample).unwrap(),
        r#"{"filesize":null}"#
    );
}

#[test]
fn a_change_by_the_caller_is_written() {
    let mut sample: Sample =
        serde_json::from_value(json!({"label": null, "filesize": "7"})).unwrap();
    sample.label = Some(Label::Clean);
    sample.filesize = Some(8);
    assert_eq!(
        serde_json::to_value(&sample).unwrap(),
        json!({"label": "clean", "filesize": 8})
    );
}

#[test]
fn a_result_at_its_limit_may_be_cut() {
    let job = |meta: Value, results: usize| -> Job {
        serde_json::from_value(
            json!({"meta": meta, "resources": vec![json!({"filesize": 1}); results]}),
        )
        .unwrap()
    };
    let limit = json!({"options": {"limit": 2}, "stats": {"total_count": 2}});
    assert!(!job(limit.clone(), 1).may_be_truncated());
    assert!(job(limit, 2).may_be_truncated());
    assert!(!job(json!({}), 2).may_be_truncated());
    assert!(!job(json!({"options": {"limit": "2"}}), 2).may_be_truncated());
    let fuzzy = |total| -> Envelope<SearchMeta, Sample> {
        serde_json::from_value(
            json!({"meta": {"stats": {"total_count": total}}, "resources": [{}]}),
        )
        .unwrap()
    };
    assert!(fuzzy(2).may_be_truncated() && !fuzzy(1).may_be_truncated());
}

#[test]
fn counts_without_labels_are_known_to_say_nothing() {
    let meta = |meta: Value| {
        serde_json::from_value::<JobMeta>(meta)
            .unwrap()
            .counts_lack_labels()
    };
    let stats = json!({"total_count": 1});
    assert!(meta(
        json!({"stats": stats, "options": {"filter_meta": ["sha256"]}})
    ));
    for other in [
        json!({"options": {"filter_meta": ["sha256"]}}),
        json!({"stats": stats}),
        json!({"stats": stats, "options": {"filter_meta": []}}),
        json!({"stats": stats, "options": {"filter_meta": ["sha256", "label"]}}),
        json!({"stats": stats, "options": [1]}),
    ] {
        assert!(!meta(other));
    }
}

#[test]
fn a_result_is_small() {
    // A reply may have 100,000 results.
    assert!(size_of::<Sample>() <= 176, "{}", size_of::<Sample>());
    assert_eq!(size_of::<Extra>(), 8);
}

#[test]
fn an_unknown_shape_is_shown_as_json() {
    let sample: Sample =
        serde_json::from_value(json!({"new": {"a": [1, null]}, "score": 7.5})).unwrap();
    assert_eq!(
        format!("{:?}", sample.extra),
        r#"{"new": {"a":[1,null]}, "score": 7.5}"#
    );
    assert_eq!(
        sample.extra.get("new").unwrap().to_string(),
        r#"{"a":[1,null]}"#
    );
    let meta: PlainMeta = serde_json::from_str(r#"{"query_time": 1.5}"#).unwrap();
    let time = meta.query_time.unwrap();
    assert_eq!(
        (format!("{time:?}"), time.to_string()),
        ("1.5".into(), "1.5".into())
    );
    assert!(!sample.extra.is_empty() && Extra::default().is_empty());
    let id: RequestId = "job-1".parse().unwrap();
    let date: Date = "2020/06/09".parse().unwrap();
    assert_eq!(
        format!("{id:?} {date:?}"),
        "RequestId(job-1) Date(2020/06/09)"
    );
}

#[test]
fn replies_are_equal_in_any_order() {
    let read = |text: &str| serde_json::from_str::<Sample>(text).unwrap();
    let one = read(r#"{"a": 1, "b": 2}"#);
    assert_eq!(one, read(r#"{"b": 2, "a": 1}"#));
    for other in [
        r#"{"a": 1, "b": 3}"#,
        r#"{"a": 1}"#,
        r#"{"a": 1, "c": 2}"#,
        "{}",
    ] {
        assert_ne!(one, read(other), "{other}");
    }
}

#[test]
fn a_code_may_be_a_text() {
    let reply: Job = round_trip(
        &json!({"meta": {}, "errors": [{"code": " 404 "}, {"code": "-1"}, {"code": "x"}]}),
    );
    let codes: Vec<_> = reply.errors.iter().map(|error| error.code).collect();
    assert_eq!(codes, [Some(404), Some(-1), None]);
}

#[test]
fn every_kind_of_meta_gives_its_trace_id() {
    fn of<M: ReplyMeta>() -> Option<String> {
        let reply: Envelope<M, Sample> =
            serde_json::from_value(json!({"meta": {"reqid": "r", "trace_id": "t-1"}})).unwrap();
        reply.meta.trace_id().map(str::to_owned)
    }
    let found = [
        of::<PlainMeta>(),
        of::<SubmitMeta>(),
        of::<JobMeta>(),
        of::<SearchMeta>(),
    ];
    assert_eq!(found, [(); 4].map(|()| Some("t-1".to_owned())));
    assert_eq!(of::<crate::operations::Quotas>(), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "done",
            "Done",
            "malware",
            "PE32",
            "pe32",
            "2020/06/09",
            "9f86d081884c7d659a2feaa0c55ad015",
            "7",
            "ü"
        ])
        .prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "meta",
        "resources",
        "errors",
        "sha256",
        "md5",
        "filesize",
        "filetype",
        "first_seen",
        "label",
        "family",
        "samples",
        "tags",
        "status",
        "reqtype",
        "stats",
        "total_count",
        "query_time",
        "patterns",
        "type",
        "new",
        "",
    ]);
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(String::from), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_read_and_comes_back(mut reply in any_json(), meta in any_json()) {
        if let Value::Object(members) = &mut reply {
            // If `meta` is missing, an empty one is written.
            let meta = if meta.is_object() { meta } else { json!({}) };
            members.insert("meta".into(), meta);
            let read: Job = serde_json::from_value(reply.clone()).unwrap();
            prop_assert_eq!(serde_json::to_value(&read).unwrap(), reply.clone());
            let text: Job = serde_json::from_str(&reply.to_string()).unwrap();
            prop_assert_eq!(text, read);
        } else {
            prop_assert!(serde_json::from_value::<Job>(reply).is_err());
        }
    }
}
