//! Builds the request of each operation with typical arguments. Measures time and memory.

use divan::{AllocProfiler, Bencher, black_box};
use malquery_proto::credentials::BearerToken;
use malquery_proto::operation::Operation;
use malquery_proto::operations::{
    ExactSearch, FuzzySearch, GetDownload, GetMetadata, GetQuotas, GetRequest, GetSamples, Hunt,
    SamplesMultidownload,
};
use malquery_proto::types::{FileType, MetaField, Pattern, RequestId, SearchOptions, Sha256};
use malquery_proto::{BaseUrl, Cloud};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn bench(bencher: Bencher<'_, '_>, operation: &impl Operation) {
    let base = BaseUrl::from(Cloud::Us1);
    let token = BearerToken::new("t".repeat(1000)).expect("a token");
    bencher.bench_local(|| {
        black_box(operation)
            .request(&base, &token)
            .expect("it is right")
    });
}

fn patterns() -> [Pattern; 2] {
    [Pattern::hex("8948208b48"), Pattern::wide("powershell")]
        .map(|pattern| pattern.expect("a pattern"))
}

fn options() -> SearchOptions {
    SearchOptions::new()
        .limit(100)
        .filter_meta([MetaField::Sha256, MetaField::Label])
        .filter_filetypes([FileType::PE32, FileType::PE64])
        .min_date("2024/01/01".parse().expect("a date"))
        .max_size("8mb".parse().expect("a size"))
}

fn id() -> RequestId {
    "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab"
        .parse()
        .expect("an id")
}

fn samples(count: u8) -> impl Iterator<Item = Sha256> {
    (0..count).map(|number| Sha256::from_bytes([number; 32]))
}

#[divan::bench]
fn quotas(bencher: Bencher<'_, '_>) {
    bench(bencher, &GetQuotas);
}

#[divan::bench]
fn fuzzy_search(bencher: Bencher<'_, '_>) {
    bench(bencher, &FuzzySearch::new(patterns()).limit(10));
}

#[divan::bench]
fn exact_search(bencher: Bencher<'_, '_>) {
    bench(bencher, &ExactSearch::new(patterns()).options(options()));
}

#[divan::bench]
fn hunt(bencher: Bencher<'_, '_>) {
    let rule = r#"rule gnu { strings: $a = "GNU" condition: $a }"#;
    bench(bencher, &Hunt::new(rule).options(options()));
}

#[divan::bench]
fn request(bencher: Bencher<'_, '_>) {
    bench(bencher, &GetRequest::new(id()));
}

#[divan::bench(args = [1, 100])]
fn metadata(bencher: Bencher<'_, '_>, count: u8) {
    bench(bencher, &GetMetadata::new(samples(count)));
}

#[divan::bench]
fn download(bencher: Bencher<'_, '_>) {
    bench(bencher, &GetDownload::new(Sha256::from_bytes([7; 32])));
}

#[divan::bench(args = [1, 100])]
fn samples_multidownload(bencher: Bencher<'_, '_>, count: u8) {
    bench(bencher, &SamplesMultidownload::new(samples(count)));
}

#[divan::bench]
fn samples_fetch(bencher: Bencher<'_, '_>) {
    bench(bencher, &GetSamples::new(id()));
}
