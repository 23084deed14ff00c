//! The conveniences of the client: many hashes at once, job handles, the quota guard, revoking.

use std::ops::ControlFlow;
use std::time::Duration;

use malquery_mock::{Mock, Transcript, VirtualClock, reply, script};
use malquery_proto::client::{Error, JobStep};
use malquery_proto::flow::{Auth, FlowError, JobFlow};
use malquery_proto::operations::{ExactSearch, GetRequest, Hunt};
use malquery_proto::types::{Pattern, Sha256};
use malquery_proto::{Client, Cloud, Credentials, Transport};
use serde_json::json;

fn client<T: Transport>(transport: T, clock: VirtualClock) -> Client<T, VirtualClock> {
    Client::new(transport, clock, Auth::new(Cloud::Us1, Credentials::new("id", "secret")))
}

fn play(replies: impl IntoIterator<Item = reply::Reply>) -> (Mock, malquery_mock::MockGuard) {
    script(replies).with_tokens().play()
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
fn metadata_of_any_number_of_hashes_is_asked_in_parts_and_joined_in_order() {
    // 115 fit into a URL below 8,000 bytes; of every third nothing is known
    let known = |number: usize| !number.is_multiple_of(3);
    let part = |numbers: std::ops::Range<usize>, trace: &str| {
        let resources: Vec<_> = numbers
            .filter(|number| known(*number))
            .map(|number| json!({"sha256": sample(number).to_string()}))
            .collect();
        let errors = json!([{"code": 404, "message": trace}]);
        reply::json(200, json!({"meta": {"trace_id": trace}, "resources": resources, "errors": errors}))
    };
    let (mock, guard) = play([part(0..115, "a"), part(115..230, "b"), part(230..300, "c")]);
    let transport = Transcript::new(mock);
    let found = client(transport.clone(), VirtualClock::new()).metadata((0..300).map(sample)).unwrap();
    let hashes: Vec<_> = found.resources.iter().map(|found| found.sha256.unwrap()).collect();
    assert_eq!(hashes, (0..300).filter(|number| known(*number)).map(sample).collect::<Vec<_>>());
    assert_eq!(found.missing, (0..300).filter(|number| !known(*number)).map(sample).collect::<Vec<_>>());
    assert_eq!(found.errors.len(), 3);
    assert_eq!(found.trace_id.as_deref(), Some("a"));
    let urls = transport.to_string();
    let lengths: Vec<_> = urls.lines().filter(|line| line.starts_with("> GET")).map(str::len).collect();
    assert_eq!(lengths.len(), 3);
    assert!(lengths.iter().all(|length| *length < 8_000), "{lengths:?}");
    guard.finish();

    let (mock, guard) = play([]);
    let error = client(mock, VirtualClock::new()).metadata([]).unwrap_err();
    assert_eq!(error.to_string(), "name at least one SHA-256");
    guard.finish();
}

#[test]
fn a_job_handle_tells_asks_and_waits() {
    let (mock, guard) = play([job("done"), job("inprogress"), job("inprogress"), job("done")]);
    let clock = VirtualClock::new();
    let client = client(mock, clock.clone());
    let mut hunt =
        client.hunt(&Hunt::new("rule a { condition: true }")).unwrap().interval(Duration::from_secs(60));
    assert_eq!(hunt.id().as_str(), "r-1");
    assert!(hunt.submitted().unwrap().trace_id.is_none());
    // the submission said `done` of itself
    assert_eq!(hunt.status().unwrap().meta.status.as_ref().unwrap().as_str(), "inprogress");
    assert_eq!(hunt.wait().unwrap().resources[0].sha256, Some(sample(7)));
    assert_eq!(clock.waits(), [Duration::from_secs(60)]);
    guard.finish();
}

#[test]
fn a_stored_job_is_taken_up_by_another_client_and_a_stopped_one_was_not_sent() {
    let (mock, guard) = play([job("done"), job("inprogress"), job("done")]);
    let first = client(mock.clone(), VirtualClock::new());
    let search = ExactSearch::new([Pattern::ascii("a").unwrap()]);
    let mut flow = first.job(search);
    // stopped before the submission: nothing was sent, so it may be sent later
    let error = first.run_job(&mut flow, |_, step| match step {
        JobStep::Send => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(error, Err(Error::Stopped)));
    let mut stored = String::new();
    let error = first.run_job(&mut flow, |flow, step| {
        stored = serde_json::to_string(flow).unwrap();
        if matches!(step, JobStep::Wait(_)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error, Err(Error::Stopped)));
    let mut flow: JobFlow = serde_json::from_str(&stored).unwrap();
    assert_eq!(flow.id().unwrap().as_str(), "r-1");
    let second = client(mock, VirtualClock::new());
    second.run_job(&mut flow, |_, _| ControlFlow::Continue(())).unwrap();
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
        reply::json(200, json!({"meta": {}})),
        job("done"),
    ]);
    let client = client(mock, VirtualClock::new()).check_quota(true);
    let hunt = Hunt::new("rule a { condition: true }");
    let short = |result: Result<(), Error>| match result {
        Err(Error::Flow { error: FlowError::QuotaShort { needed, left, .. }, .. }) => (needed, left),
        other => panic!("{other:?}"),
    };
    assert_eq!(short(client.hunt(&hunt).map(drop)), (1, 0));
    assert_eq!(short(client.samples_multidownload([sample(1), sample(2)]).map(drop)), (2, 1));
    // a sample named twice is one download
    drop(client.samples_multidownload([sample(1), sample(2), sample(1)]).unwrap());
    let mut flow = client.job(hunt.clone());
    assert_eq!(short(client.run_job(&mut flow, |_, _| ControlFlow::Continue(())).map(drop)), (1, 0));
    // where the service does not tell, it is not kept from anything
    drop(client.hunt(&hunt).unwrap());
    guard.finish();
}

#[test]
fn a_revoked_token_is_followed_by_a_new_one() {
    let quotas = || reply::json(200, json!({"meta": {}}));
    let (mock, guard) = play([quotas(), reply::status(200), quotas()]);
    let transport = Transcript::new(mock);
    let client = client(transport.clone(), VirtualClock::new());
    client.revoke().unwrap();
    client.quotas().unwrap();
    client.revoke().unwrap();
    client.quotas().unwrap();
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
fn results_come_one_by_one() {
    let body = json!({"meta": {"reqid": "r-1", "status": "done", "trace_id": "t"}, "resources": [
        {"sha256": sample(1).to_string()}, {"sha256": sample(2).to_string()}, 7,
    ]});
    let id = GetRequest::new("r-1".parse().unwrap());
    let run = |replies: Vec<reply::Reply>, most: usize| {
        let (mock, guard) = play(replies);
        let mut seen = Vec::new();
        let result = client(mock, VirtualClock::new()).each(&id, |result| {
            seen.push(result.sha256.unwrap());
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        guard.finish();
        (result, seen.len())
    };
    // What comes before the body is tried again.
    let (result, seen) = run(vec![reply::status(503), reply::json(200, &body)], 9);
    let reply = result.unwrap();
    assert_eq!((seen, reply.resources.len(), reply.trace_id.as_deref()), (2, 0, Some("t")));
    assert_eq!(serde_json::to_value(&reply.output).unwrap()["resources"], json!([7]));
    // A body that breaks off is not, since results were handed out.
    let length = body.to_string().len();
    let (result, seen) = run(vec![reply::json(200, &body).truncate_after(length - 4)], 9);
    assert_eq!(result.unwrap_err().to_string(), "the download broke off");
    assert_eq!(seen, 2);
    let (result, seen) = run(vec![reply::json(200, &body)], 1);
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!(seen, 1);
    let (result, _) = run(vec![reply::bytes(200, "text/html", "<html>").header("x-cs-traceid", "t-1")], 9);
    let error = result.unwrap_err();
    assert_eq!(error.trace_id(), Some("t-1"));
    assert!(error.to_string().contains("could not be read"), "{error}");
    let (result, _) = run(vec![reply::status(404)], 9);
    assert_eq!(result.unwrap_err().status().unwrap(), 404);
}
