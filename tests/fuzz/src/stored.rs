use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use malquery_proto::client::{
    Body, Client, Clock, Collect, Error, Progress, Step, Transport, TransportError,
};
use malquery_proto::endpoint::{Endpoint, Resend};
use malquery_proto::flow::JobFlow;
use malquery_proto::{OutputFile, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::flows::{Run, renewable};
use super::input::{Input, assert_harmless};

/// Refuses or resumes a stored job, which anyone may have written. The JSON ends at the first zero
/// byte. The bytes after it control the service.
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
        // The text would look like one that must not be stored.
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
    // Use this folder instead of the one in the stored job.
    let mut job = job.extract(folder.path());
    let replies: Vec<u8> = std::iter::from_fn(|| (!input.is_empty()).then(|| input.byte()))
        .take(64)
        .collect();
    let service = Service(Mutex::new(State {
        replies: replies.into_iter(),
        arrived: 0,
    }));
    let clock = Clocked(AtomicU64::new(1_700_000_000_000));
    let client = Client::new(service, clock, renewable());
    let mut steps = 0;
    // After an error, continue.
    for _ in 0..3 {
        let output = OutputFile::replace(folder.path().join("samples.zip")).expect("a file");
        let result = client.collect(&mut job, output, |now: &Progress<'_>| {
            steps += 1;
            if now.step == Step::Send {
                assert!(
                    serde_json::to_string(&now.collect)
                        .is_ok_and(|text| !text.contains("a-secret"))
                );
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

struct Service(Mutex<State>);

struct State {
    /// The outcomes of the next requests. After the last one, requests succeed.
    replies: std::vec::IntoIter<u8>,
    /// The paths of submissions that may have arrived, one bit for each.
    arrived: u8,
}

impl Transport for Service {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        let mut state = self.0.lock().expect("no panic");
        let choice = state.replies.next().unwrap_or(0);
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
            state.arrived & bit,
            0,
            "a job that may have been billed is submitted again"
        );
        let body: &[u8] = match meta.id {
            "oauth2AccessToken" => br#"{"access_token": "a-token"}"#,
            "GetMalQueryRequestV1" => {
                br#"{"meta": {"reqid": "job-1", "status": "done"}, "resources": [{"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}]}"#
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
            14 => return Err(TransportError::not_sent("lost")),
            _ => {
                state.arrived |= bit;
                return Err(TransportError::unknown("lost"));
            }
        };
        if !matches!(status, 300..=499) {
            state.arrived |= bit;
        }
        Ok(http::Response::builder()
            .status(status)
            .body(body.to_vec().into())
            .expect("a response"))
    }
}

struct Clocked(AtomicU64);

impl Clock for Clocked {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, time: Timestamp) {
        self.0.fetch_max(time.as_millis(), Ordering::Relaxed);
    }
}
