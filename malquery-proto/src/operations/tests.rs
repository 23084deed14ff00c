use serde_json::{Value, json};

use super::*;
use crate::cloud::Cloud;
use crate::operation::{Operation, unsigned};
#[cfg(feature = "samples")]
use crate::types::MetaField;
use crate::types::{FileSize, Pattern, Sha256};

fn sent(operation: &impl Operation) -> Result<Value, String> {
    let request = unsigned(operation, &Cloud::Us1.into()).map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(request.body()).unwrap())
}

fn hunt() -> Hunt {
    Hunt::new("rule x { condition: true }")
}

fn exact() -> ExactSearch {
    ExactSearch::new([Pattern::ascii("x").unwrap()])
}

fn fuzzy() -> FuzzySearch {
    FuzzySearch::new([Pattern::ascii("x").unwrap()])
}

#[test]
fn a_range_without_values_is_refused() {
    let options = SearchOptions::new;
    let refused = |options: SearchOptions| check_ranges(&options).unwrap_err().to_string();
    let date = |text: &str| text.parse().unwrap();
    let size = |text: &str| text.parse::<FileSize>().unwrap();
    assert_eq!(
        refused(
            options()
                .min_date(date("2024/01/02"))
                .max_date(date("2024/01/01"))
        ),
        "the minimum date 2024/01/02 is greater than the maximum 2024/01/01, so nothing can match"
    );
    assert_eq!(
        refused(options().min_size(size("8mb")).max_size(size("1000"))),
        "the minimum size 8mb is greater than the maximum 1000, so nothing can match"
    );
    let (day, bytes) = (date("2024/01/01"), size("5"));
    let one = options()
        .min_date(day)
        .max_date(day)
        .min_size(bytes.clone())
        .max_size(bytes);
    assert!(check_ranges(&one).is_ok());
}

#[test]
fn a_limit_is_an_int32() {
    let limits = |limit| {
        [
            sent(&hunt().limit(limit)),
            sent(&exact().limit(limit)),
            sent(&fuzzy().limit(limit)),
        ]
    };
    for sent in limits(2_147_483_647) {
        assert_eq!(sent.unwrap()["options"], json!({"limit": 2_147_483_647}));
    }
    for refused in limits(0) {
        assert_eq!(refused.unwrap_err(), "the limit is 0; set it to at least 1");
    }
    for refused in limits(2_147_483_648) {
        assert_eq!(
            refused.unwrap_err(),
            "a limit of 2147483648 is too large; the maximum is 2147483647"
        );
    }
    let counted = [
        sent(&hunt().limit(7).count_only()),
        sent(&exact().count_only()),
        sent(&fuzzy().count_only()),
    ];
    for sent in counted {
        assert_eq!(sent.unwrap()["options"], json!({"limit": 0}));
    }
    assert_eq!(
        sent(&hunt().count_only().limit(7)).unwrap()["options"],
        json!({"limit": 7})
    );
}

#[test]
fn unknown_options_are_sent_beside_the_others() {
    let options = |sent: Result<Value, String>| sent.map(|body| body["options"].clone());
    assert_eq!(
        options(sent(&hunt().limit(2).option("new", json!({"a": [1]})))),
        Ok(json!({"limit": 2, "new": {"a": [1]}}))
    );
    assert_eq!(
        options(sent(&exact().option("new", "x"))),
        Ok(json!({"new": "x"}))
    );
    assert_eq!(
        options(sent(&fuzzy().option("new", true).count_only())),
        Ok(json!({"limit": 0, "new": true}))
    );
    assert_eq!(
        sent(&hunt().limit(2).option("limit", 3)).unwrap_err(),
        "the request cannot be encoded: the option \"limit\" cannot be set with `option`; use its setter, if it has one"
    );
    let unwritable = std::collections::HashMap::from([([1], 2)]);
    assert_eq!(
        sent(&hunt().option("new", unwritable)).unwrap_err(),
        "the request cannot be encoded: not a valid option: the value of \"new\" cannot be serialized as JSON: key must be a string"
    );
}

#[test]
fn stored_requests_come_back_and_refuse_other_keys() {
    fn stored<T>(value: T)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let text = serde_json::to_value(&value).unwrap();
        assert_eq!(serde_json::from_value::<T>(text.clone()).unwrap(), value);
        for place in ["", "/options"] {
            let mut text = text.clone();
            let Some(Value::Object(members)) = text.pointer_mut(place) else {
                continue;
            };
            members.insert("limt".into(), 5.into());
            let error = serde_json::from_value::<T>(text).unwrap_err().to_string();
            assert!(
                error.starts_with("unknown field `limt`, expected "),
                "{error}"
            );
        }
    }
    stored(hunt());
    stored(hunt().limit(3).option("new", [1]));
    stored(exact().count_only().min_date("2024-01-01".parse().unwrap()));
    stored(fuzzy().limit(3).option("new", Value::Null));
    stored(SearchOptions::new().option("limt", 5));
    stored(SamplesMultidownload::new([Sha256::from([1; 32])]));
    // A fuzzy search does not have this filter.
    let dated = json!({"patterns": [], "options": {"min_date": "2024/01/01"}});
    assert!(serde_json::from_value::<FuzzySearch>(dated).is_err());
}

#[test]
fn hashes_are_owned_or_borrowed_and_billed_once() {
    let hashes = [
        Sha256::from([1; 32]),
        Sha256::from([2; 32]),
        Sha256::from([1; 32]),
    ];
    let download = SamplesMultidownload::new(hashes.iter());
    assert_eq!(download.samples(), &hashes[..2]);
    assert_eq!(download, SamplesMultidownload::new(hashes));
    assert_eq!(download, SamplesMultidownload::new(hashes.to_vec()));
    let stored = json!({"samples": hashes});
    assert_eq!(
        serde_json::from_value::<SamplesMultidownload>(stored).unwrap(),
        download
    );
    assert_eq!(GetMetadata::new(hashes.iter()), GetMetadata::new(hashes));
}

#[test]
#[cfg(feature = "samples")]
fn a_collection_always_asks_for_the_hash() {
    let selected = |fields: &[MetaField]| {
        let mut hunt = hunt().filter_meta(fields.iter().cloned()).limit(7);
        hunt.want_sha256();
        assert_eq!(hunt.most(), Some(7));
        sent(&hunt).unwrap()["options"]["filter_meta"].clone()
    };
    // If no fields are selected, the service returns all of them.
    assert_eq!(selected(&[]), Value::Null);
    assert_eq!(selected(&[MetaField::Label]), json!(["label", "sha256"]));
    assert_eq!(selected(&[MetaField::Sha256]), json!(["sha256"]));
}

#[test]
fn a_stored_limit_excludes_a_count() {
    let stored = r#"{"yara_rule": "rule a { condition: true }", "options": {"limit": 5, "count_only": true}}"#;
    let hunt: Hunt = serde_json::from_str(stored).unwrap();
    assert!(sent(&hunt).is_err());
}
