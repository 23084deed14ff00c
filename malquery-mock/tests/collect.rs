//! Runs whole jobs with the client.

use std::io::{Read, copy, sink};
use std::time::Duration;

use malquery_mock::{Cassette, Transcript, VirtualClock, assert_transcript, reply, script};
use malquery_proto::client::{Download, Error};
use malquery_proto::flow::Auth;
use malquery_proto::operations::{ExactSearch, Hunt};
use malquery_proto::types::{JobStatus, Label, Pattern, RequestId, SearchOptions, Sha256};
use malquery_proto::{Client, Cloud, Credentials};

fn load(name: &str) -> Cassette {
    Cassette::load(format!(
        "{}/tests/cassettes/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn auth() -> Auth {
    Auth::new(
        Cloud::Us1,
        Credentials::new("an-id", "a-secret-of-some-length"),
    )
}

fn poll(client: &Client, id: &RequestId) -> Result<Vec<Sha256>, Error> {
    loop {
        let job = client.request(id)?;
        if job.meta.status == Some(JobStatus::Done) {
            return Ok(job
                .resources
                .iter()
                .filter_map(|found| found.sha256)
                .collect());
        }
        let clock = client.clock();
        clock.sleep_until(clock.now().after(Duration::from_secs(300)));
    }
}

/// Searches, waits, and fetches an archive of the results.
fn collect(client: &Client) -> Result<Download, Error> {
    let search = ExactSearch::new([Pattern::ascii("hello").unwrap()])
        .options(SearchOptions::new().limit(10));
    let search = client.exact_search(&search)?.id().clone();
    let found = poll(client, &search)?;
    let job = client.samples_multidownload(found)?.id().clone();
    poll(client, &job)?;
    Ok(client.samples(&job)?.output)
}

#[test]
fn a_job_runs_from_in_progress_to_done() {
    let (mock, guard) = load("collect.json").play();
    let transcript = Transcript::new(mock);
    let clock = VirtualClock::new();
    let client = Client::new(transcript.clone(), clock.clone(), auth());
    let mut archive = collect(&client).unwrap();
    copy(&mut archive, &mut sink()).unwrap();
    assert_eq!(archive.received().unwrap().bytes, 128);
    assert_eq!(clock.waits(), [Duration::from_secs(300); 3]);
    guard.finish();
    assert_transcript!(transcript);
}

#[test]
fn a_cassette_plays_again_for_any_base_url() {
    let cassette = load("collect.json");
    for base in [
        "https://api.eu-1.crowdstrike.com",
        "http://127.0.0.1:1/falcon/v2",
    ] {
        let (mock, _guard) = cassette.play();
        let auth = Auth::new(
            base.parse::<malquery_proto::BaseUrl>().unwrap(),
            Credentials::new("another-id", "another-secret"),
        );
        let client = Client::new(mock, VirtualClock::new(), auth);
        copy(&mut collect(&client).unwrap(), &mut sink()).unwrap();
    }
}

#[test]
fn faults_of_a_cassette_arrive_as_faults() {
    let (mock, guard) = load("faults.json").with_tokens().play();
    let transcript = Transcript::new(mock);
    let client = Client::new(transcript.clone(), VirtualClock::new(), auth());
    let rule = "rule gnu {\n  strings:\n    $a = \"GNU\"\n  condition:\n    $a\n}";
    let job = client.hunt(&Hunt::new(rule)).unwrap().id().clone();
    let mut bytes = Vec::new();
    let error = client
        .samples(&job)
        .unwrap()
        .output
        .read_to_end(&mut bytes)
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes.len(), 57);
    for _ in 0..2 {
        copy(&mut client.samples(&job).unwrap().output, &mut sink()).unwrap();
    }
    guard.finish();
    assert_transcript!(transcript);
}

#[test]
fn typed_replies_are_those_of_the_service() {
    const JOB: &str = "3c9d5b1e-4a2f-6ea1-5f4f-0123456789ab";
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let hunt = Hunt::new("rule a { condition: true }");
    let (client, guard) = script([
        reply::quotas().set("/meta/hunt_count", 3),
        reply::submitted(JOB),
        reply::running(JOB),
        reply::rate_limited(7),
        reply::done(JOB, [HELLO]).set("resources/0/label", "malware"),
        reply::sample("hello"),
        reply::quota_exhausted(),
        reply::submitted(JOB),
        reply::failed(JOB),
        reply::api_error(403, "access denied, authorization failed"),
        reply::archive("PK"),
    ])
    .client();
    assert_eq!(client.quotas().unwrap().meta.hunts_left(), Some(97));
    let done = client.hunt(&hunt).unwrap().wait().unwrap();
    let found = &done.resources[0];
    assert_eq!(
        (found.sha256, found.label.clone()),
        (HELLO.parse().ok(), Some(Label::Malware))
    );
    assert!(guard.clock().waits().contains(&Duration::from_secs(7)));
    let mut sample = client.download(found.sha256.unwrap()).unwrap().output;
    assert_eq!(copy(&mut sample, &mut sink()).unwrap(), 5);
    let error = client.hunt(&hunt).unwrap_err().to_string();
    assert!(error.contains("quota"), "{error}");
    let error = client.hunt(&hunt).unwrap().wait().unwrap_err().to_string();
    assert!(error.contains("failed"), "{error}");
    let error = client.quotas().unwrap_err().to_string();
    assert!(error.contains("access denied"), "{error}");
    drop(client.samples(&JOB.parse().unwrap()).unwrap());
    guard.finish();
}

#[test]
fn no_retry_makes_a_mismatch_a_success() {
    let (mock, guard) = load("faults.json").with_tokens().play();
    let client = Client::new(mock.clone(), VirtualClock::new(), auth());
    let error = client
        .hunt(&Hunt::new("rule other { condition: true }"))
        .unwrap_err();
    // Nothing was sent, so no quota was used.
    assert_eq!(
        error.to_string(),
        "the request for PostMalQueryHuntV1 cannot be sent"
    );
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with("no reply in ")
            && source.contains("the closest interaction is \"refused\" (line 4)"),
        "{source}"
    );
    let all = mock.check().unwrap_err().to_string();
    assert!(all.contains(&source) && !all.contains("asked"), "{all}");
    std::panic::catch_unwind(|| guard.finish()).unwrap_err();
}
