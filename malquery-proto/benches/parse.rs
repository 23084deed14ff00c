//! Parses replies with 10, 1,000 and 100,000 results. Compares the models of this crate with
//! `serde_json::IgnoredAny`, which only tokenizes, with a model of plain strings, as in generated
//! clients, and with `serde_json::Value`. Also measures peak memory.

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, StatusCode};
use malquery_proto::operation::JsonOperation;
use malquery_proto::operations::GetRequest;
use malquery_proto::reply::ResponseHead;
use serde::Deserialize;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const RESULTS: [usize; 3] = [10, 1_000, 100_000];

fn main() {
    divan::main();
}

/// A model as a code generator writes it: every field is a string.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Strings {
    meta: StringsMeta,
    resources: Vec<StringsResource>,
    errors: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct StringsMeta {
    reqid: Option<String>,
    status: Option<String>,
    query_time: Option<f64>,
    powered_by: Option<String>,
    trace_id: Option<String>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct StringsResource {
    family: Option<String>,
    filesize: Option<i32>,
    filetype: Option<String>,
    first_seen: Option<String>,
    ignore_reason: Option<String>,
    label: Option<String>,
    label_confidence: Option<String>,
    md5: Option<String>,
    pattern: Option<String>,
    pattern_type: Option<String>,
    samples: Option<Vec<serde_json::Value>>,
    sha1: Option<String>,
    sha256: Option<String>,
    tags: Option<Vec<String>>,
    yara_rule: Option<String>,
    yara_rules: Option<Vec<String>>,
}

/// Returns a reply with about 300 bytes per result.
fn reply(results: usize) -> Vec<u8> {
    let hex = |seed: usize, bytes: usize| -> String {
        let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
        (0..bytes)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                format!("{:02x}", state >> 56)
            })
            .collect()
    };
    let resources: Vec<String> = (0..results)
        .map(|i| {
            format!(
                r#"{{"sha256":"{}","sha1":"{}","md5":"{}","filesize":{},"filetype":"PE32","first_seen":"2020/06/{:02}","label":"{}","family":"{}"}}"#,
                hex(i, 32),
                hex(i + 1, 20),
                hex(i + 2, 16),
                i * 37 + 512,
                i % 28 + 1,
                ["malware", "unknown", "clean"][i % 3],
                ["Emotet", "AgentTesla", "Mirai"][i % 3],
            )
        })
        .collect();
    format!(
        r#"{{"meta":{{"query_time":91234567,"powered_by":"malquery-api","trace_id":"t","reqid":"r","reqtype":"hunt","status":"done"}},"resources":[{}],"errors":[]}}"#,
        resources.join(",")
    )
    .into_bytes()
}

fn bench<T: for<'de> Deserialize<'de>>(bencher: Bencher<'_, '_>, results: usize) {
    let reply = reply(results);
    bencher
        .counter(BytesCount::of_slice(&reply))
        .bench_local(|| {
            serde_json::from_slice::<T>(black_box(&reply)).expect("the reply is right")
        });
}

#[divan::bench(args = RESULTS, sample_count = 20)]
fn a_floor_ignored_any(bencher: Bencher<'_, '_>, results: usize) {
    bench::<serde::de::IgnoredAny>(bencher, results);
}

#[divan::bench(args = RESULTS, sample_count = 20)]
fn b_malquery(bencher: Bencher<'_, '_>, results: usize) {
    let reply = reply(results);
    let headers = HeaderMap::new();
    let head = ResponseHead {
        status: StatusCode::OK,
        headers: &headers,
    };
    let operation = GetRequest::new("r".parse().expect("an id"));
    bencher
        .counter(BytesCount::of_slice(&reply))
        .bench_local(|| {
            operation
                .response(head, black_box(&reply))
                .expect("the reply is right")
        });
}

#[divan::bench(args = RESULTS, sample_count = 20)]
fn c_strings(bencher: Bencher<'_, '_>, results: usize) {
    bench::<Strings>(bencher, results);
}

#[divan::bench(args = RESULTS, sample_count = 20)]
fn d_value(bencher: Bencher<'_, '_>, results: usize) {
    bench::<serde_json::Value>(bencher, results);
}
