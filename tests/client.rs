//! The conveniences of the client: lookups of many hashes, job handles, the quota check, revoking.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malquery_mock::{Mock, Transcript, VirtualClock, reply, script};
use malquery_proto::client::{Error, ErrorKind, Progress, Step, TimeLeft};
use malquery_proto::credentials::BearerToken;
use malquery_proto::flow::{Auth, FlowError, JobFlow, RetryPolicy};
use malquery_proto::operation::MAX_JSON_BODY;
use malquery_proto::operations::{ExactSearch, GetDownload, Hunt};
use malquery_proto::request::BuildError;
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{
    Body, Client, Clock, Cloud, Credentials, OutputFile, Timestamp, Transport, TransportError,
};
use serde_json::json;

use crate::fake::fake;

fn client(transport: impl Transport + 'static, clock: VirtualClock) -> Client {
    Client::new(
        transport,
        clock,
        Auth::new(Cloud::Us1, Credentials::new("id", "secret")),
    )
}

/// Returns a client that has only a token.
fn with_token(transport: impl Transport + 'static) -> Client {
    let auth = Auth::with_token(Cloud::Us1, BearerToken::new("t0ken").unwrap());
    Client::new(transport, VirtualClock::new(), auth)
}

/// Returns a reply with a token.
fn issued() -> http::Response<Body> {
    http::Response::new(br#"{"access_token": "t0ken"}"#.to_vec().into())
}

fn play(replies: impl IntoIterator<Item = reply::Reply>) -> (Mock, malquery_mock::MockGuard) {
    script(replies).with_tokens().play()
}

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hello() -> GetDownload {
    GetDownload::new(HELLO.parse().unwrap())
}

fn hunt() -> Hunt {
    Hunt::new("rule a { condition: true }")
}

fn sample(number: usize) -> Sha256 {
    format!("{number:064x}").parse().unwrap()
}

fn job(word: &str) -> reply::Reply {
    reply::json(
        200,
        json!({"meta": {"reqid": "r-1", "status": word}, "resources": [{"sha256": sample(7).to_string()}]}),
    )
}

#[test]
fn many_hashes_are_looked_up_in_parts() {
    // 115 hashes fit into a URL below 8,000 bytes. Every third hash is unknown.
    let known = |number: usize| !number.is_multiple_of(3);
    let part = |numbers: std::ops::Range<usize>, trace: &str| {
        let resources: Vec<_> = numbers
            .filter(|number| known(*number))
            .map(|number| json!({"sha256": sample(number).to_string()}))
            .collect();
        let errors = json!([{"code": 404, "message": trace}]);
        reply::json(
            200,
            json!({"meta": {"trace_id": trace}, "resources": resources, "errors": errors}),
        )
    };
    let (mock, guard) = play([part(0..115, "a"), part(115..230, "b"), part(230..300, "c")]);
    let transport = Transcript::new(mock);
    let found = client(transport.clone(), VirtualClock::new())
        .metadata((0..300).map(sample))
        .unwrap();
    let hashes: Vec<_> = found
        .resources
        .iter()
        .map(|found| found.sha256.unwrap())
        .collect();
    assert_eq!(
        hashes,
        (0..300)
            .filter(|number| known(*number))
            .map(sample)
            .collect::<Vec<_>>()
    );
    assert_eq!(
        found.missing,
        (0..300)
            .filter(|number| !known(*number))
            .map(sample)
            .collect::<Vec<_>>()
    );
    assert_eq!(found.errors.len(), 3);
    assert_eq!(found.trace_id.as_deref(), Some("a"));
    let urls = transport.to_string();
    let lengths: Vec<_> = urls
        .lines()
        .filter(|line| line.starts_with("> GET"))
        .map(str::len)
        .collect();
    assert_eq!(lengths.len(), 3);
    assert!(lengths.iter().all(|length| *length < 8_000), "{lengths:?}");
    guard.finish();

    let (mock, guard) = play([]);
    let error = client(mock, VirtualClock::new())
        .metadata([] as [Sha256; 0])
        .unwrap_err();
    assert_eq!(error.to_string(), "at least one SHA-256 is required");
    guard.finish();
}

#[test]
fn a_job_handle_asks_and_waits() {
    let (mock, guard) = play([
        job("done"),
        job("inprogress"),
        job("inprogress"),
        job("done"),
    ]);
    let clock = VirtualClock::new();
    let client = client(mock, clock.clone());
    let hunt = client
        .hunt(&hunt())
        .unwrap()
        .poll_every(Duration::from_secs(60));
    assert_eq!(hunt.id().as_str(), "r-1");
    assert!(hunt.submitted().unwrap().trace_id.is_none());
    // The status `done` in the reply belongs to the submission.
    assert_eq!(
        hunt.status()
            .unwrap()
            .meta
            .status
            .as_ref()
            .unwrap()
            .as_str(),
        "inprogress"
    );
    assert_eq!(hunt.wait().unwrap().resources[0].sha256, Some(sample(7)));
    assert_eq!(clock.waits(), [2, 60].map(Duration::from_secs));
    guard.finish();
}

#[test]
fn another_client_resumes_a_stored_job() {
    let (mock, guard) = play([job("done"), job("inprogress"), job("done")]);
    let first = client(mock.clone(), VirtualClock::new());
    let search = ExactSearch::new([Pattern::ascii("a").unwrap()]);
    let mut flow = first.job_flow(search);
    // The call stops before the submission, so the flow can submit later.
    let error = first.run_job(&mut flow, |now: &Progress<'_>| match now.step {
        Step::Send => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(error, Err(Error::Stopped)));
    let mut stored = String::new();
    let error = first.run_job(&mut flow, |now: &Progress<'_>| {
        stored = serde_json::to_string(&now.job).unwrap();
        if matches!(now.step, Step::Wait(_)) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(error, Err(Error::Stopped)));
    let mut flow: JobFlow = serde_json::from_str(&stored).unwrap();
    assert_eq!(flow.id().unwrap().as_str(), "r-1");
    let second = client(mock, VirtualClock::new());
    second.run_job(&mut flow, ()).unwrap();
    guard.finish();
}

#[test]
fn the_quota_guard_refuses_before_anything_is_sent() {
    let quotas = |hunts: u64, downloads: u64| {
        let meta = json!({"hunt_count": 100 - hunts, "hunt_limit": 100, "download_count": 50 - downloads, "download_limit": 50});
        reply::json(200, json!({"meta": meta}))
    };
    let (mock, guard) = play([
        quotas(0, 50),
        quotas(1, 1),
        quotas(1, 2),
        job("done"),
        quotas(0, 0),
        quotas(0, 50),
        job("done"),
        reply::json(
            200,
            json!({"meta": {"hunt_count": 0, "hunt_limit": 1}, "errors": [{"message": "no"}]}),
        ),
        job("done"),
        reply::json(
            200,
            json!({"meta": {}, "errors": [{"code": 500, "message": "no database"}]}),
        ),
        reply::json(200, json!({"meta": {"hunt_count": 0, "hunt_limit": "x"}})),
        reply::json(200, json!({"meta": {"hunt_count": -1, "hunt_limit": 5}})),
        reply::json(200, json!({"meta": {"download_limit": 5}})),
        reply::json(200, json!({"meta": {"hunt_count": 1e30, "hunt_limit": 5}})),
        // A reply to another request does not contain a quota.
        reply::json(200, json!({"meta": {"trace_id": "t"}})),
        reply::json(
            200,
            json!({"meta": {"reqid": "r-1", "status": "done"}, "resources": []}),
        ),
        quotas(1, 0),
        job("done"),
    ]);
    let client = client(mock, VirtualClock::new()).check_quota(true);
    let short = |result: Result<(), Error>| match result {
        Err(Error::Flow {
            error: FlowError::QuotaShort { needed, left, .. },
            ..
        }) => (needed, left),
        other => panic!("{other:?}"),
    };
    assert_eq!(short(client.hunt(&hunt()).map(drop)), (1, 0));
    assert_eq!(
        short(
            client
                .samples_multidownload([sample(1), sample(2)])
                .map(drop)
        ),
        (2, 1)
    );
    // A sample that is listed twice is one download.
    drop(
        client
            .samples_multidownload([sample(1), sample(2), sample(1)])
            .unwrap(),
    );
    let mut flow = client.job_flow(hunt());
    assert_eq!(short(client.run_job(&mut flow, ()).map(drop)), (1, 0));
    // `Client::call` checks the quota too.
    assert_eq!(short(client.call(&hunt()).map(drop)), (1, 0));
    // A search has no documented cost, and a quota that is not needed may be unknown.
    drop(
        client
            .exact_search(&ExactSearch::new([Pattern::ascii("a").unwrap()]))
            .unwrap(),
    );
    drop(client.hunt(&hunt()).unwrap());
    // If the quota is unknown, nothing is submitted.
    let error = client.hunt(&hunt()).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the number of hunts left this month is unknown (no database); the job was not submitted; \
         to submit it anyway, turn off the quota check"
    );
    for _ in 0..3 {
        let error = client.hunt(&hunt()).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("(the service does not report it)"),
            "{error}"
        );
    }
    assert_eq!(short(client.hunt(&hunt()).map(drop)), (1, 0));
    drop(client.hunt(&hunt()).unwrap());
    guard.finish();
}

#[test]
fn a_revoked_token_is_replaced() {
    let quotas = || reply::json(200, json!({"meta": {"days_left": 3}}));
    let (mock, guard) = play([quotas(), reply::status(200), quotas()]);
    let transport = Transcript::new(mock);
    let clock = VirtualClock::new();
    let client = client(transport.clone(), clock.clone());
    client.revoke().unwrap();
    client.quotas().unwrap();
    client.revoke().unwrap();
    client.quotas().unwrap();
    // Nothing is sent after the deadline.
    let error = client.deadline(clock.now()).revoke().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let sent: Vec<String> = transport
        .to_string()
        .lines()
        .filter(|line| line.starts_with("> GET") || line.starts_with("> POST"))
        .map(Into::into)
        .collect();
    assert_eq!(
        sent,
        [
            "> POST /oauth2/token",
            "> GET /malquery/aggregates/quotas/v1",
            "> POST /oauth2/revoke",
            "> POST /oauth2/token",
            "> GET /malquery/aggregates/quotas/v1",
        ]
    );
    guard.finish();
}

#[test]
fn a_revocation_that_cannot_be_sent() {
    let transport = fake(|request| match request.uri().path() {
        "/oauth2/token" => Ok(issued()),
        _ => Err(TransportError::cannot_send("untrusted")),
    });
    let client = client(transport, VirtualClock::new());
    client.quotas().unwrap_err();
    let error = client.revoke().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CannotSend, "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn a_broken_download_restarts_by_policy() {
    let whole = || reply::bytes(200, "application/octet-stream", "hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample");
    let save = |replies: Vec<reply::Reply>, policy: RetryPolicy, deadline: Option<Duration>| {
        let (mock, guard) = play(replies);
        let clock = VirtualClock::new();
        let auth = Auth::with_token(Cloud::Us1, BearerToken::new("t0ken").unwrap());
        let mut client = Client::new(mock, clock.clone(), auth).retry(policy);
        if let Some(deadline) = deadline {
            client = client.deadline(clock.now().after(deadline));
        }
        let output = OutputFile::replace(&path).unwrap();
        let mut seen = Vec::new();
        let result = client.save(&hello(), output, |now: &Progress<'_>| {
            if let Step::Fetch { bytes, .. } = now.step {
                seen.push(bytes);
            }
        });
        guard.finish();
        (result, clock.waits(), seen)
    };
    // The first attempt receives more bytes than the later ones, and none of them remain.
    let broken = |at: usize| whole().truncate_after(at);
    let (result, waits, seen) = save(
        vec![broken(5), broken(4), broken(0), whole()],
        RetryPolicy::default(),
        None,
    );
    assert_eq!(result.unwrap().bytes, 5);
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(seen, [3, 5, 3, 4, 3, 5]);
    assert_eq!(waits.len(), 3);
    for (wait, most) in waits.iter().zip([500, 1000, 2000]) {
        assert!((most / 2..=most).contains(&wait.as_millis()), "{wait:?}");
    }
    fs::remove_file(&path).unwrap();
    for (replies, policy, deadline, waited) in [
        // All attempts are used, or there is only one, or no time is left for another.
        (vec![broken(1).times(4)], RetryPolicy::default(), None, 3),
        (vec![broken(1)], RetryPolicy::never(), None, 0),
        (
            vec![broken(1)],
            RetryPolicy::default(),
            Some(Duration::from_millis(200)),
            0,
        ),
        // Another attempt would receive the same bytes.
        (
            vec![reply::bytes(200, "", "hellO")],
            RetryPolicy::default(),
            None,
            0,
        ),
    ] {
        let (result, waits, _) = save(replies, policy, deadline);
        result.unwrap_err();
        assert_eq!((waits.len(), path.exists()), (waited, false));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A body in parts, with errors in between.
struct Parts(Vec<Result<&'static str, io::ErrorKind>>);

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let part = self.0.remove(0)?;
        buffer[..part.len()].copy_from_slice(part.as_bytes());
        Ok(part.len())
    }
}

/// Returns a client whose replies have this length and this body.
fn in_parts(length: Option<usize>, parts: &[Result<&'static str, io::ErrorKind>]) -> Client {
    let parts = parts.to_vec();
    with_token(fake(move |_| {
        let mut response = http::Response::new(Body::new(Parts(parts.clone())));
        if let Some(length) = length {
            let headers = response.headers_mut();
            headers.insert("content-length", length.into());
        }
        Ok(response)
    }))
}

#[test]
fn only_an_interrupted_read_continues() {
    let open = |length, parts: &[_]| in_parts(length, parts).open(&hello()).unwrap().output;
    let (interrupted, reset, cut) = (
        io::ErrorKind::Interrupted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::UnexpectedEof,
    );
    let mut download = open(
        Some(5),
        &[Err(interrupted), Ok("hel"), Err(interrupted), Ok("lo")],
    );
    assert_eq!((download.length(), download.received()), (Some(5), None));
    assert!(format!("{download:?}").starts_with("Download { state: Reading"));
    let mut bytes = Vec::new();
    download.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"hello");
    assert_eq!(
        (download.length(), download.received().unwrap().bytes),
        (Some(5), 5)
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample");
    open(None, &[Err(interrupted), Ok("hello")])
        .write_to(OutputFile::create_new(&path).unwrap())
        .unwrap();

    // The same applies to a reply that is read as a whole.
    for (length, parts, expected) in [
        (
            Some(5),
            [Ok("{"), Err(cut)],
            "the body of the reply could not be read: the body ended after 1 of 5 bytes",
        ),
        (
            Some(5),
            [Ok("{"), Err(reset)],
            "the body of the reply could not be read: connection reset",
        ),
        (
            None,
            [Ok("{"), Err(cut)],
            "the body of the reply could not be read: unexpected end of file",
        ),
    ] {
        let client = in_parts(length, &parts).retry(RetryPolicy::never());
        let error = client.quotas().unwrap_err();
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            expected
        );
    }

    // If a body is cut, the error says what is missing. Other errors are returned unchanged. After
    // an error, the body does not end.
    for (length, parts, expected) in [
        (
            Some(5),
            [Ok("hel"), Err(cut)],
            "the body ended after 3 of 5 bytes",
        ),
        (Some(5), [Ok("hel"), Err(reset)], "connection reset"),
        (Some(5), [Ok("hello"), Err(cut)], "unexpected end of file"),
        (None, [Ok("hel"), Err(cut)], "unexpected end of file"),
    ] {
        let mut download = open(length, &parts);
        let error = download.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        download.read(&mut [0; 9]).unwrap_err();
        assert_eq!(download.received(), None);
    }
}

#[test]
fn only_an_error_may_be_cut() {
    let large = json!({"meta": {"hunt_limit": 5, "padding": "x".repeat(100_000)}});
    let (mock, guard) = play([
        reply::json(200, &large),
        reply::json(404, json!({"errors": [{"message": "gone"}]})).truncate_after(5),
        reply::json(200, &large)
            .header("content-length", "200000")
            .times(4),
        reply::json(200, &large).truncate_after(90_000).times(4),
        reply::json(200, json!({"meta": {"hunt_limit": 5}}))
            .header("content-length", "9999")
            .header("transfer-encoding", "chunked"),
    ]);
    let client = client(mock, VirtualClock::new());
    assert_eq!(client.quotas().unwrap().meta.hunt_limit, Some(5));
    assert_eq!(client.quotas().unwrap_err().status().unwrap(), 404);
    for cause in [
        "ended after 100038 of 200000 bytes",
        "the body of the reply could not be read",
    ] {
        let error = client.quotas().unwrap_err();
        assert!(
            matches!(error.flow(), Some(FlowError::NoReply { attempts: 4, .. })),
            "{error}"
        );
        let shown = format!(
            "{error} {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        );
        assert!(shown.contains(cause), "{shown}");
    }
    // The length of a chunked body is ignored.
    assert_eq!(client.quotas().unwrap().meta.hunt_limit, Some(5));
    guard.finish();
}

#[test]
fn an_unsent_request_is_known_as_unsent() {
    let (mock, guard) = play([reply::status(404)]);
    let client = client(mock, VirtualClock::new());
    let error = client.hunt(&Hunt::new("")).map(drop).unwrap_err();
    assert_eq!(error.invalid(), Some(&BuildError::EmptyRule));
    assert_eq!(client.quotas().unwrap_err().invalid(), None);
    guard.finish();
    // This also applies if the quotas would be requested first.
    let (mock, guard) = play([]);
    let client = self::client(mock, VirtualClock::new()).check_quota(true);
    let results = [
        client.hunt(&Hunt::new("")).map(drop),
        client.samples_multidownload([] as [Sha256; 0]).map(drop),
        client
            .run_job(&mut client.job_flow(Hunt::new("")), ())
            .map(drop),
    ];
    for result in results {
        assert!(result.unwrap_err().invalid().is_some());
    }
    guard.finish();
}

#[test]
fn a_too_large_reply_is_not_requested_again() {
    for (is_token, why) in [
        (false, "larger than 256 MiB; set a lower `limit`"),
        (true, "larger than 64 KiB"),
    ] {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let service = fake(move |request| {
            let body = match (request.uri().path(), is_token) {
                ("/oauth2/token", false) => return Ok(issued()),
                // The transport stops reading.
                ("/oauth2/token", true) => Body::new(Parts(vec![Err(io::ErrorKind::FileTooLarge)])),
                _ => Body::new(io::repeat(b' ').take(MAX_JSON_BODY + 1)),
            };
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(http::Response::new(body))
        });
        let error = client(service, VirtualClock::new()).quotas().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_submission_whose_reply_breaks_off_is_unsure() {
    let (mock, guard) = play([job("done").truncate_after(20)]);
    let client = client(mock, VirtualClock::new());
    let error = client.call(&hunt()).map(drop).unwrap_err();
    assert!(
        matches!(error.flow(), Some(FlowError::OutcomeUnknown { .. })) && !error.is_retryable(),
        "{error}"
    );
    guard.finish();
}

#[test]
fn a_broken_download_keeps_to_the_policy() {
    let cut = || reply::bytes(200, "application/octet-stream", "hello").truncate_after(2);
    let (mock, guard) = play([reply::status(503), cut(), reply::status(503), cut()]);
    let clock = VirtualClock::new();
    let client = client(mock, clock.clone());
    let folder = tempfile::tempdir().unwrap();
    let output = OutputFile::create_new(folder.path().join("sample")).unwrap();
    let error = client.save(&hello(), output, ()).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(clock.waits().len(), 3);
    guard.finish();
}

/// A body that never ends.
struct Drips(VirtualClock);

impl Read for Drips {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .sleep_until(self.0.now().after(Duration::from_secs(1)));
        buffer[0] = b' ';
        Ok(1)
    }
}

#[test]
fn a_body_that_drips_ends_by_the_deadline() {
    for dripping in ["oauth2", "quotas", "hunt"] {
        let clock = VirtualClock::new();
        let start = clock.now();
        let time = clock.clone();
        // The transport ignores the time limit.
        let transport = fake(
            move |request| match request.uri().path().contains(dripping) {
                true => Ok(http::Response::new(Body::new(Drips(time.clone())))),
                false => Ok(issued()),
            },
        );
        let client = client(transport, clock.clone()).timeout(Duration::from_secs(60));
        let error = match dripping {
            "hunt" => client.hunt(&hunt()).map(drop),
            _ => client.quotas().map(drop),
        }
        .unwrap_err();
        let text = format!("{error:?}");
        assert!(
            text.contains("the call timed out before the body was complete"),
            "{text}"
        );
        assert_eq!(
            clock.now().since(start),
            Duration::from_secs(60),
            "{dripping}: {text}"
        );
        let unsure = matches!(error.flow(), Some(FlowError::OutcomeUnknown { .. }));
        assert_eq!(unsure, dripping == "hunt", "{text}");
        assert_eq!(error.kind() == ErrorKind::Timeout, !unsure, "{text}");
    }
}

/// The end of a body, at which the time is up.
struct End(VirtualClock);

impl Read for End {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.advance(Duration::from_secs(60));
        Ok(0)
    }
}

#[test]
fn no_reply_is_parsed_after_the_deadline() {
    let errors = ["quotas", "job", "hunt"].map(|what| {
        let clock = VirtualClock::new();
        let time = clock.clone();
        let transport = fake(move |request| {
            if request.uri().path() == "/oauth2/token" {
                return Ok(issued());
            }
            let start = io::Cursor::new(r#"{"meta": {"reqid": "r-1"}, "errors": "#);
            let blanks = io::repeat(b' ').take(65 << 20);
            let body = start.chain(blanks).chain(End(time.clone()));
            Ok(http::Response::new(Body::new(body)))
        });
        let client = client(transport, clock).timeout(Duration::from_secs(60));
        match what {
            "quotas" => client.quotas().map(drop),
            "job" => client.attach("r-1".parse().unwrap()).wait().map(drop),
            _ => client.hunt(&hunt()).map(drop),
        }
        .unwrap_err()
    });
    let [quotas, job, hunt] = &errors;
    for error in [quotas, job] {
        assert!(
            matches!(error.flow(), Some(FlowError::Deadline { .. })),
            "{error}"
        );
    }
    // The hunt may have been billed, so its request id is returned.
    assert_eq!(hunt.request_id().unwrap().as_str(), "r-1");
    assert!(hunt.to_string().contains("allow more time"), "{hunt}");
}

/// A body that claims to have read more bytes than the buffer holds.
struct Boaster;

impl Read for Boaster {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len() + 1)
    }
}

#[test]
fn a_boastful_transport_ends_no_program() {
    let client = with_token(fake(|_| Ok(http::Response::new(Body::new(Boaster)))));
    let mut download = client.open(&hello()).unwrap().output;
    assert_eq!(download.read(&mut [0; 10]).unwrap(), 10);
}

#[test]
fn every_failed_wait_names_its_job() {
    for (reply, kind, text) in [
        (
            reply::failed("r-1"),
            ErrorKind::JobFailed,
            "job r-1: the job failed",
        ),
        (
            reply::status(403),
            ErrorKind::Forbidden,
            "job r-1: GetMalQueryRequestV1 returned 403 Forbidden",
        ),
    ] {
        let (mock, _guard) = play([reply::submitted("r-1"), reply]);
        let client = client(mock, VirtualClock::new());
        let hunt = client.hunt(&hunt());
        let error = hunt.and_then(|job| job.wait()).unwrap_err();
        assert_eq!(
            (error.kind(), error.request_id().unwrap().as_str()),
            (kind, "r-1")
        );
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn a_wait_ends_with_its_time() {
    let mock = script((0..20).map(|_| job("inprogress")))
        .with_tokens()
        .transport();
    let clock = VirtualClock::new();
    let (start, minute) = (clock.now(), Duration::from_secs(60));
    let client = client(mock, clock.clone());
    let handle = client
        .attach("r-1".parse().unwrap())
        .deadline(start.after(minute));
    let error = handle.wait().unwrap_err();
    assert!(
        matches!(error.flow(), Some(FlowError::Deadline { .. })),
        "{error:?}"
    );
    assert_eq!(error.request_id(), Some(handle.id()));
    assert!(error.to_string().starts_with("job r-1: "), "{error}");
    assert_eq!(clock.now().since(start), minute);
    // The earlier deadline applies.
    let client = client.deadline(clock.now().after(Duration::from_secs(7)));
    let handle = client
        .attach("r-1".parse().unwrap())
        .deadline(clock.now().after(minute));
    handle.wait().unwrap_err();
    assert_eq!(clock.now().since(start), minute + Duration::from_secs(7));
    // A deadline of one client does not apply to the next.
    let (mock, _guard) = play([job("inprogress")]);
    let first =
        self::client(mock, clock.clone()).deadline(clock.now().after(Duration::from_secs(1)));
    let mut flow = JobFlow::attach("r-1".parse().unwrap(), RetryPolicy::default(), 1);
    assert!(matches!(
        first.run_job(&mut flow, ()).unwrap_err().flow(),
        Some(FlowError::Deadline { .. })
    ));
    let (mock, _guard) = play([job("done")]);
    self::client(mock, clock).run_job(&mut flow, ()).unwrap();
}

#[cfg(unix)]
#[test]
fn only_a_link_to_a_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for (target, is_refused) in [("/dev/null", true), ("/", true), ("/nowhere/at/all", false)] {
        let link = folder.path().join(target.replace('/', "-"));
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(OutputFile::replace(&link).is_err(), is_refused, "{target}");
        assert!(link.is_symlink());
    }
}

#[test]
fn an_impossible_path_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("file"), "").unwrap();
    let refused = |path: &str, overwrite| {
        let create = if overwrite {
            OutputFile::replace
        } else {
            OutputFile::create_new
        };
        let error = create(at(path)).map(drop).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    for (path, overwrite, why) in [
        ("folder", true, "the path exists but is not a file"),
        ("folder", false, "a folder with that name already exists"),
        ("file", false, "a file with that name already exists"),
        ("folder/..", true, "the path names a folder, not a file"),
        ("new/", true, "the path names a folder, not a file"),
        ("new/.", true, "the path names a folder, not a file"),
    ] {
        let shown = refused(path, overwrite);
        assert!(shown.contains(why), "{path}: {shown}");
    }
    assert!(OutputFile::replace(at(&"x".repeat(300))).is_err());
    drop(OutputFile::replace(at("file")).unwrap());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        drop(OutputFile::replace(at("link")).unwrap());
        OutputFile::create_new(at("link")).unwrap_err();
    }
}

#[test]
fn calls_that_fail_together_retry_apart() {
    let pauses = |start: u64, calls: usize| {
        let replies = (0..calls).flat_map(|_| {
            [
                reply::status(503),
                reply::json(200, json!({"meta": {"days_left": 3}})),
            ]
        });
        let (mock, guard) = play(replies);
        let clock = VirtualClock::starting_at(Timestamp::from_millis(1_767_225_600_000 + start));
        let client = client(mock, clock.clone());
        (0..calls).for_each(|_| drop(client.quotas().unwrap()));
        guard.finish();
        clock.waits()
    };
    let different = |mut pauses: Vec<Duration>| {
        pauses.sort();
        pauses.dedup();
        pauses.len()
    };
    // The pauses of one client, and of processes that started in different milliseconds. There are
    // 251 different pauses.
    assert!(different(pauses(0, 30)) > 10);
    assert!(different((0..30).flat_map(|start| pauses(start, 1)).collect()) > 10);
    let parent = client(play([]).0, VirtualClock::new());
    let child = parent.child("0123456789abcdef0123456789abcdef".parse().unwrap());
    let seed = |client: &Client| {
        let flow = client.job_flow(hunt());
        serde_json::to_value(flow).unwrap()["call"]["seed"].clone()
    };
    assert_ne!(seed(&parent), seed(&child));
}

#[test]
fn the_id_in_a_cut_reply_is_kept() {
    let body = json!({"meta": {"reqid": "r-1", "trace_id": "t"}, "resources": []}).to_string();
    let at = body.find("r-1").unwrap();
    let cut = |at: usize| reply::bytes(200, "application/json", body.as_bytes()).truncate_after(at);
    let (mock, guard) = play([cut(at + 4), job("done"), cut(at + 2)]);
    let client = client(mock, VirtualClock::new());
    let mut flow = client.job_flow(hunt());
    let error = client.run_job(&mut flow, ()).unwrap_err();
    assert_eq!(error.request_id().unwrap().as_str(), "r-1", "{error:?}");
    // The same flow attaches to the job and submits nothing.
    client.run_job(&mut flow, ()).unwrap();
    // The readable part of the id is shown.
    let error = client.hunt(&hunt()).map(drop).unwrap_err();
    assert!(
        format!("{error:?}").contains("begins with \"r-\""),
        "{error:?}"
    );
    guard.finish();
}

#[test]
fn what_comes_instead_of_a_file_is_shown() {
    let page = "<html><body>Please log in</body></html>";
    let error = r#"{"meta": {"trace_id": "t-1"}, "errors": [{"code": 404, "message": "gone"}]}"#;
    let text = |body: &str| reply::bytes(200, "text/html; charset=utf-8", body);
    let json = |body: &str| reply::bytes(200, "application/json", body);
    let seven = b"7z\xbc\xaf\x27\x1c\x00\x04".as_slice();
    for (reply, shown) in [
        (text(page), vec!["HTML page", "Please log in"]),
        (json(error), vec!["gone", "t-1"]),
        (
            reply::bytes(200, "application/zip", seven),
            vec!["7z archive"],
        ),
    ] {
        let (mock, guard) = play([reply.clone(), reply]);
        let client = client(mock, VirtualClock::new());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let sample = client
            .download_to(HELLO.parse().unwrap(), &path)
            .unwrap_err();
        let archive = client
            .samples_to(&"r-1".parse().unwrap(), &path)
            .unwrap_err();
        for error in [sample, archive] {
            for part in &shown {
                assert!(error.to_string().contains(part), "{error}");
            }
            let trace_id = shown.contains(&"t-1").then_some("t-1");
            assert_eq!(error.trace_id(), trace_id, "{error}");
        }
        assert!(!path.exists());
        guard.finish();
    }
}

#[test]
fn a_file_not_ready_is_requested_again() {
    let whole = || reply::bytes(200, "application/octet-stream", "hello");
    let (mock, guard) = play([reply::status(202), reply::status(204), whole()]);
    let client = client(mock, VirtualClock::new());
    let mut bytes = Vec::new();
    client
        .download(HELLO.parse().unwrap())
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, b"hello");
    guard.finish();
    // A partial reply is not a file, and another request would not help.
    let part = reply::bytes(206, "application/octet-stream", "hello");
    let (mock, guard) = play([part.header("content-range", "bytes 0-4/9")]);
    let error = self::client(mock, VirtualClock::new())
        .download(HELLO.parse().unwrap())
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("206"), "{error}");
    guard.finish();
}

/// An observer, a transport with its bodies, and a clock. One of their steps panics.
#[derive(Clone)]
struct Panics {
    mock: Arc<Mock>,
    clock: VirtualClock,
    left: Arc<AtomicU32>,
}

impl Panics {
    fn step(&self) {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(left, 1, "as the test wants it");
    }
}

impl Clock for Panics {
    fn now(&self) -> Timestamp {
        self.step();
        self.clock.now()
    }

    fn sleep_until(&self, time: Timestamp) {
        self.clock.sleep_until(time);
    }
}

impl Transport for Panics {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Body>, TransportError> {
        self.step();
        let reply = self.mock.send(request)?;
        Ok(reply.map(|body| Body::new(PanickingBody(body, self.clone()))))
    }
}

struct PanickingBody(Body, Panics);

impl Read for PanickingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.step();
        self.0.read(buffer)
    }
}

#[test]
fn a_panic_keeps_nobody_waiting() {
    let id: malquery_proto::types::RequestId = "r-1".parse().unwrap();
    for step in 1.. {
        let parts = Panics {
            mock: Arc::new(
                script([job("done").repeat_last()])
                    .with_tokens()
                    .transport(),
            ),
            clock: VirtualClock::new(),
            left: Arc::default(),
        };
        let auth = Auth::new(Cloud::Us1, Credentials::new("id", "secret"));
        let client = Client::new(parts.clone(), parts.clone(), auth);
        let mut flow = JobFlow::attach(id.clone(), RetryPolicy::default(), 1);
        parts.left.store(step, Ordering::SeqCst);
        let run = std::panic::AssertUnwindSafe(|| {
            client.run_job(&mut flow, |_: &Progress<'_>| parts.step())
        });
        let is_done = std::panic::catch_unwind(run).is_ok();
        parts.left.store(u32::MAX, Ordering::SeqCst);
        client.request(&id).unwrap();
        assert!(parts.clock.waits().is_empty(), "step {step}");
        if is_done {
            // The token and the poll each have an observer, a transport, a body and a clock.
            assert!(step > 14, "{step}");
            break;
        }
    }
}

#[test]
fn a_timeout_ends_one_call_and_one_wait() {
    let clock = VirtualClock::new();
    let mock = script((0..99).map(|_| job("inprogress")))
        .with_tokens()
        .transport();
    let client = client(mock, clock.clone()).timeout(Duration::from_secs(60));
    let id: malquery_proto::types::RequestId = "r-1".parse().unwrap();
    for (job, seconds) in [
        (client.attach(id.clone()), 60),
        (client.attach(id.clone()), 60),
        (client.attach(id.clone()).timeout(Duration::from_secs(7)), 7),
        (
            client.clone().timeout(Duration::from_secs(30)).attach(id),
            30,
        ),
    ] {
        let start = clock.now();
        let error = job.wait().unwrap_err();
        assert!(
            matches!(error.flow(), Some(FlowError::Deadline { .. })),
            "{error}"
        );
        assert_eq!(clock.now().since(start), Duration::from_secs(seconds));
    }
    client.request(&"r-1".parse().unwrap()).unwrap();
}

#[test]
fn the_timeout_includes_the_quota_check() {
    let quotas = || json!({"meta": {"hunt_count": 0, "hunt_limit": 9}});
    for way in ["call", "job", "own deadline"] {
        let replies = [reply::json(200, quotas()), reply::submitted("r-1")];
        let mock = script(replies).with_tokens().transport();
        let (clock, left) = (VirtualClock::new(), Arc::new(Mutex::new(Vec::new())));
        let (time, seen) = (clock.clone(), left.clone());
        let slow = fake(move |request| {
            let TimeLeft(left) = *request.extensions().get().unwrap();
            seen.lock().unwrap().push(left.as_secs());
            time.advance(Duration::from_secs(20));
            mock.send(request)
        });
        let client = client(slow, clock.clone()).check_quota(true);
        let limit = Duration::from_secs(61);
        let mut flow = client.job_flow(hunt());
        let result = match way {
            "call" => client.timeout(limit).hunt(&hunt()).map(drop),
            "job" => client.timeout(limit).run_job(&mut flow, ()).map(drop),
            _ => {
                flow.set_deadline(Some(clock.now().after(limit)));
                client.run_job(&mut flow, ()).map(drop)
            }
        };
        // The token, the quotas and the submission.
        assert_eq!(*left.lock().unwrap(), [61, 41, 21], "{way}: {result:?}");
        let is_late = matches!(&result, Err(error) if error.kind() == ErrorKind::Timeout);
        assert_eq!(is_late, way != "call", "{way}: {result:?}");
    }
}

#[test]
fn a_child_needs_credentials_of_its_parent() {
    let (mock, guard) = play([]);
    let child = with_token(mock).child("0123456789abcdef0123456789abcdef".parse().unwrap());
    // Nothing is sent, because the parent would be billed.
    let error = child.hunt(&hunt());
    let error = error.map(drop).unwrap_err();
    assert_eq!(error.invalid(), Some(&BuildError::NoChildToken));
    guard.finish();
}
