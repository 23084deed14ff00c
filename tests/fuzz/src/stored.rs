use std::cell::Cell;
use std::ops::ControlFlow;

use malquery_proto::client::{
    Client, Clock, Collect, CollectStep, Error, JobStep, Transport, TransportError,
};
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::flow::{JobFlow, SendFailure};
use malquery_proto::{OutputFile, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::flows::{Run, renewable};
use super::input::{Input, assert_harmless};

/// A stored job, which anyone may have written, is refused or goes on. Up to the first zero it is JSON, and what follows
/// decides what happens then.
pub fn stored(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(data.len());
    let (json, rest) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    if ["a-secret", "a-token"]
        .iter()
        .any(|secret| String::from_utf8_lossy(json).contains(secret))
    {
        // It could not be told from one that should not be stored.
        return;
    }
    if let Some(flow) = read::<JobFlow>(json) {
        Run::new([flow], renewable()).steps(&mut Input(rest));
    }
    if let Some(job) = read::<Collect>(json) {
        collect(job, &mut Input(rest));
    }
}

fn read<T: Serialize + DeserializeOwned>(json: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(json).ok()?;
    let text = serde_json::to_string(&read).expect("it is written");
    let again: T = serde_json::from_str(&text).expect("it is read again");
    assert_eq!(serde_json::to_string(&again).expect("it is written"), text);
    Some(again)
}

fn collect(job: Collect, input: &mut Input<'_>) {
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing is written where the stored job says.
    let mut job = job.extract(folder.path());
    let replies: Vec<u8> = std::iter::from_fn(|| (!input.is_empty()).then(|| input.byte()))
        .take(64)
        .collect();
    let service = Service {
        replies: Cell::new(&replies),
        arrived: Cell::new(0),
    };
    let clock = Clocked(Cell::new(1_700_000_000_000));
    let client = Client::new(service, clock, renewable());
    let mut steps = 0;
    // After an error it is taken up again.
    for _ in 0..3 {
        let output = OutputFile::create(folder.path().join("samples.zip"), true).expect("a file");
        let result = client.collect(&mut job, output, |job, step| {
            steps += 1;
            if matches!(step, CollectStep::Job(JobStep::Send)) {
                assert!(serde_json::to_string(job).is_ok_and(|text| !text.contains("a-secret")));
            }
            if steps > 500 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match result {
            Ok(_) | Err(Error::Stopped) => return,
            Err(error) => assert_harmless(&error.to_string()),
        }
    }
}

/// An empty archive.
const ARCHIVE: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

struct Service<'a> {
    /// What happens to the next requests; what they should get when there is nothing left.
    replies: Cell<&'a [u8]>,
    /// The paths of submissions that may have arrived, a bit for each.
    arrived: Cell<u8>,
}

impl Transport for Service<'_> {
    type Body = &'static [u8];
    type Error = Lost;

    fn execute(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<&'static [u8]>, Lost> {
        let (choice, rest) = self
            .replies
            .get()
            .split_first()
            .map_or((&0, &[][..]), |split| split);
        self.replies.set(rest);
        let meta = request
            .extensions()
            .get::<Endpoint>()
            .expect("every request has it");
        let bit = match (meta.resend, meta.id) {
            (Resend::Safe, _) => 0,
            (_, "PostMalQueryEntitiesSamplesMultidownloadV1") => 1,
            _ => 2,
        };
        assert_eq!(
            self.arrived.get() & bit,
            0,
            "a job that may have been billed is submitted again"
        );
        let body: &[u8] = match meta.id {
            "oauth2AccessToken" => br#"{"access_token": "a-token"}"#,
            "GetMalQueryRequestV1" => {
                br#"{"meta": {"status": "done"}, "resources": [{"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}]}"#
            }
            "GetMalQueryEntitiesSamplesFetchV1" => ARCHIVE,
            _ => br#"{"meta": {"reqid": "job-1"}}"#,
        };
        let (status, body): (u16, &[u8]) = match choice % 16 {
            0..=5 => (200, body),
            6 => (401, b""),
            7 => (429, b""),
            8 => (500, b""),
            9 => (404, b""),
            10 => (200, b"{}"),
            11 => (200, b"not JSON"),
            12 => (200, br#"{"meta": {"status": "inprogress"}}"#),
            13 => (200, br#"{"meta": {"status": "done"}}"#),
            14 => return Err(Lost(SendFailure::NotSent)),
            _ => {
                self.arrived.set(self.arrived.get() | bit);
                return Err(Lost(SendFailure::Unknown));
            }
        };
        if !matches!(status, 300..=499) {
            self.arrived.set(self.arrived.get() | bit);
        }
        Ok(http::Response::builder()
            .status(status)
            .body(body)
            .expect("a response"))
    }
}

#[derive(Debug)]
struct Lost(SendFailure);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}

impl std::error::Error for Lost {}

impl TransportError for Lost {
    fn failure(&self) -> SendFailure {
        self.0
    }
}

struct Clocked(Cell<u64>);

impl Clock for Clocked {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.get())
    }

    fn sleep_until(&self, time: Timestamp) {
        self.0.set(self.0.get().max(time.as_millis()));
    }
}
