//! A whole collect: the order of its requests, the files that it leaves, and that it pays for
//! nothing twice.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use malquery_mock::{Corpus, Mock, MockGuard, Service, Transcript, VirtualClock, reply, script};
use malquery_proto::archive::{ArchiveError, Limits};
use malquery_proto::client::{
    Collect, Collected, Error, ErrorKind, Observer, Progress, Source, Step,
};
use malquery_proto::flow::{Auth, FlowError};
use malquery_proto::operations::{ExactSearch, FuzzySearch, Hunt, SamplesMultidownload};
use malquery_proto::request::BuildError;
use malquery_proto::types::{MetaField, Pattern, RequestId, SearchOptions, Sha256};
use malquery_proto::{Client, Cloud, Credentials, OutputFile};
use serde_json::{Value, json};
use sha2::Digest;

use crate::log::{listen, logged};

/// An archive with these three samples and an empty one.
const ARCHIVE: &[u8] = include_bytes!("../malquery-proto/tests/archives/zipcrypto-several.zip");
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const WORLD: &str = "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7";
const NUMBERS: &str = "079c7f8c11c1f937511ef9b17fdcc14345730c69d29d3d269175eb545ce02f45";
/// A sample that is in no archive.
const OTHER: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn sha256(text: &str) -> Sha256 {
    text.parse().unwrap()
}

fn search(limit: u32) -> ExactSearch {
    ExactSearch::new([Pattern::ascii("hello").unwrap()]).options(SearchOptions::new().limit(limit))
}

fn hunt(options: SearchOptions) -> Hunt {
    Hunt::new("rule a { condition: true }").options(options)
}

fn submitted(id: &str) -> reply::Reply {
    reply::json(
        200,
        json!({"meta": {"reqid": id, "status": "done"}, "resources": []}),
    )
}

fn job(id: &str, word: &str, found: &[&str]) -> reply::Reply {
    let resources: Vec<Value> = found
        .iter()
        .map(|sha256| json!({"sha256": sha256}))
        .collect();
    reply::json(
        200,
        json!({"meta": {"reqid": id, "status": word}, "resources": resources}),
    )
}

fn quotas(hunts: u64, downloads: u64) -> reply::Reply {
    let meta = json!({"hunt_count": 0, "hunt_limit": hunts, "download_count": 0, "download_limit": downloads});
    reply::json(200, json!({"meta": meta}))
}

fn zip(bytes: &[u8]) -> reply::Reply {
    reply::bytes(200, "application/zip", bytes)
}

/// Returns the replies to a whole collect.
fn service(found: &[&str], archive: &[u8]) -> Vec<reply::Reply> {
    vec![
        submitted("search-1"),
        job("search-1", "inprogress", &[]),
        job("search-1", "done", found),
        submitted("download-1"),
        job("download-1", "inprogress", &[]),
        job("download-1", "done", &[]),
        zip(archive),
    ]
}

struct Run {
    client: Client,
    clock: VirtualClock,
    transcript: Transcript<Mock>,
    guard: MockGuard,
    folder: tempfile::TempDir,
}

impl Run {
    fn new(replies: impl IntoIterator<Item = reply::Reply>) -> Self {
        let (mock, guard) = script(replies).with_tokens().play();
        let transcript = Transcript::new(mock);
        let auth = Auth::new(Cloud::Us1, Credentials::new("an-id", "a-secret"));
        let clock = VirtualClock::new();
        let client = Client::new(transcript.clone(), clock.clone(), auth);
        Self {
            client,
            clock,
            transcript,
            guard,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("samples.zip")
    }

    fn collect(&self, job: &mut Collect, observer: impl Observer) -> Result<Collected, Error> {
        self.client.collect(
            job,
            OutputFile::create_new(self.archive()).unwrap(),
            observer,
        )
    }

    fn all(&self, job: impl Into<Source>) -> Result<Collected, Error> {
        self.collect(&mut Collect::new(job), ())
    }

    /// Returns the requests, except token requests.
    fn asked(&self) -> Vec<String> {
        let text = self.transcript.to_string();
        let lines = text.lines().filter_map(|line| line.strip_prefix("> "));
        let paths =
            lines.filter(|line| line.starts_with("GET /") || line.starts_with("POST /malquery"));
        paths
            .map(|line| line.replace("/malquery/", "").replace("/v1", ""))
            .collect()
    }
}

fn stop_if(stop: bool) -> ControlFlow<()> {
    match stop {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn hashes(found: &[malquery_proto::archive::Found]) -> Vec<Sha256> {
    found.iter().map(|found| found.sha256).collect()
}

#[test]
fn the_whole_job_in_its_order() {
    let run = Run::new(service(&[HELLO, NUMBERS, HELLO, OTHER], ARCHIVE));
    let mut steps = Vec::new();
    let mut verified = 0;
    let mut collect = Collect::new(search(10)).extract(run.folder.path());
    assert_eq!(
        (collect.extracts_to(), collect.search()),
        (Some(run.folder.path()), None)
    );
    let collected = run
        .collect(&mut collect, |now: &Progress<'_>| {
            let (job, step) = (now.collect.unwrap(), now.step);
            let step = match step {
                Step::Send => "send",
                Step::Fetch { .. } => "fetch",
                Step::Verify { bytes, .. } => {
                    verified = verified.max(bytes);
                    "verify"
                }
                _ => return ControlFlow::Continue(()),
            };
            let line = format!(
                "{step} search={} found={} download={}",
                job.search().is_some(),
                job.found().len(),
                job.download().is_some()
            );
            if steps.last() != Some(&line) {
                steps.push(line);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        run.asked(),
        [
            "POST queries/exact-search",
            "GET entities/requests?ids=000000-1",
            "GET entities/requests?ids=000000-1",
            "POST entities/samples-multidownload",
            "GET entities/requests?ids=00000000-2",
            "GET entities/requests?ids=00000000-2",
            "GET entities/samples-fetch?ids=00000000-2",
        ]
    );
    assert_eq!(
        steps,
        [
            "send search=false found=0 download=false",
            "send search=true found=0 download=false",
            "send search=true found=3 download=false",
            "send search=true found=3 download=true",
            "fetch search=true found=3 download=true",
            "verify search=true found=3 download=true",
        ]
    );
    // The directory is read separately and does not count.
    assert!(verified >= ARCHIVE.len() as u64 / 2, "{verified}");
    assert_eq!(collect.search().unwrap().as_str(), "search-1");
    assert_eq!(collected.search.unwrap().as_str(), "search-1");
    assert_eq!(collected.download.unwrap().as_str(), "download-1");
    assert_eq!(collected.results.len(), 4);
    assert_eq!(collected.found, [HELLO, NUMBERS, OTHER].map(sha256));
    assert_eq!(collected.archive.unwrap().bytes, ARCHIVE.len() as u64);
    assert_eq!(
        hashes(&collected.samples.found),
        [HELLO, NUMBERS].map(sha256)
    );
    assert_eq!(collected.samples.missing, [sha256(OTHER)]);
    assert_eq!(collected.samples.unexpected.len(), 2);
    // Samples that were not requested are not written.
    assert_eq!(names(run.folder.path()), [NUMBERS, HELLO, "samples.zip"]);
    assert_eq!(fs::read(run.archive()).unwrap(), ARCHIVE);
    assert_eq!(fs::read(run.folder.path().join(HELLO)).unwrap(), b"hello");
    run.guard.finish();
}

#[test]
fn it_downloads_no_more_than_the_limit() {
    let run = Run::new(service(&[HELLO, NUMBERS, OTHER], ARCHIVE));
    let options = SearchOptions::new()
        .limit(2)
        .filter_meta([MetaField::Label]);
    let collected = run.all(hunt(options)).unwrap();
    assert_eq!(collected.found, [HELLO, NUMBERS].map(sha256));
    assert!(collected.samples.is_complete());
    let text = run.transcript.to_string();
    let wanted = "    \"filter_meta\": [\n        \"label\",\n        \"sha256\"\n      ]";
    assert!(text.contains(wanted), "{text}");
    run.guard.finish();
    // Without `filter_meta`, the reply contains all fields.
    let run = Run::new(service(&[HELLO], ARCHIVE));
    run.all(search(1)).unwrap();
    assert!(!run.transcript.to_string().contains("filter_meta"));
    run.guard.finish();
}

#[test]
fn samples_that_are_known_need_no_search() {
    let run = Run::new(service(&[], ARCHIVE).split_off(3));
    let download = SamplesMultidownload::new([HELLO, WORLD].map(sha256));
    let collected = run.all(download).unwrap();
    assert_eq!(collected.search, None);
    assert_eq!(hashes(&collected.samples.found), [HELLO, WORLD].map(sha256));
    run.guard.finish();

    // A multi-download of another process: all its samples are extracted.
    let run = Run::new([zip(ARCHIVE)]);
    let id: RequestId = "download-1".parse().unwrap();
    let mut job = Collect::fetch(id.clone()).extract(run.folder.path());
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(collected.download, Some(id));
    assert_eq!(collected.samples.found.len(), 4);
    assert_eq!(names(run.folder.path()).len(), 5);
    run.guard.finish();
}

#[test]
fn known_samples_keep_to_the_limit() {
    let run = Run::new([
        submitted("download-1"),
        job("download-1", "done", &[]),
        zip(ARCHIVE),
    ]);
    let mut job = Collect::new(SamplesMultidownload::new(
        [HELLO, WORLD, NUMBERS].map(sha256),
    ))
    .limit(1);
    assert_eq!(job.found(), [sha256(HELLO)]);
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(collected.found, [sha256(HELLO)]);
    let transcript = run.transcript.to_string();
    assert!(
        transcript.contains(HELLO) && !transcript.contains(WORLD),
        "{transcript}"
    );
    run.guard.finish();
}

#[test]
fn a_limit_holds_until_the_download_is_submitted() {
    // Stop between the search and the download.
    let run = Run::new(service(&[HELLO, WORLD, NUMBERS], ARCHIVE));
    let mut job = Collect::new(search(9));
    let stop = |now: &Progress<'_>| {
        let job = now.collect.unwrap();
        stop_if(!job.found().is_empty())
    };
    assert!(matches!(run.collect(&mut job, stop), Err(Error::Stopped)));
    assert_eq!(run.asked().len(), 3);
    let mut job = job.limit(2);
    assert_eq!(
        (job.max_samples(), job.found()),
        (Some(2), [HELLO, WORLD].map(sha256).as_slice())
    );
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(collected.found.len(), 2);
    let text = run.transcript.to_string();
    assert!(
        text.contains(WORLD) && text.matches(NUMBERS).count() == 1,
        "{text}"
    );
    run.guard.finish();
    // A new limit comes too late, and `max_samples` does not return it.
    let job = job.limit(1);
    assert_eq!((job.max_samples(), job.found().len()), (Some(2), 2));
    // The same applies as soon as the download is submitted, because another one would be billed.
    let run = Run::new(service(&[HELLO, WORLD, NUMBERS], ARCHIVE));
    let mut job = Collect::new(search(9));
    let stop = |now: &Progress<'_>| match now.collect.unwrap().download() {
        None => ControlFlow::Continue(()),
        Some(_) => ControlFlow::Break(()),
    };
    assert!(matches!(run.collect(&mut job, stop), Err(Error::Stopped)));
    let mut job = job.limit(1);
    assert_eq!((job.max_samples(), job.found().len()), (Some(9), 3));
    run.collect(&mut job, ()).unwrap();
    assert_eq!(
        run.asked()
            .iter()
            .filter(|line| line.starts_with("POST entities"))
            .count(),
        1
    );
    run.guard.finish();
}

#[test]
fn an_exchanged_archive_is_not_vouched_for() {
    let run = Run::new(service(&[HELLO], ARCHIVE));
    let mut job = Collect::new(search(1));
    let results = run.collect(&mut job, ()).unwrap().results;
    assert!(!results.is_empty());
    assert_eq!(job.verify(false, ()).unwrap().results, results);
    let stored = serde_json::to_string(&job).unwrap();
    let other = include_bytes!("../malquery-proto/tests/archives/zipcrypto-stored.zip");
    fs::write(run.archive(), other).unwrap();
    let mut job: Collect = serde_json::from_str(&stored).unwrap();
    listen();
    let collected = job.verify(false, ()).unwrap();
    assert!(logged().contains("samples.zip has changed since it was downloaded"));
    let archive = collected.archive.unwrap();
    assert_eq!(archive.bytes, other.len() as u64);
    assert_eq!(
        archive.sha256,
        Sha256::from_bytes(sha2::Sha256::digest(other).into())
    );
    assert!(collected.samples.is_complete());
}

#[test]
fn a_limit_of_zero_costs_nothing() {
    let run = Run::new([]);
    for mut job in [
        Collect::new(hunt(SearchOptions::new())).limit(0),
        Collect::new(SamplesMultidownload::new([sha256(HELLO)])).limit(0),
        Collect::attach("search-1".parse().unwrap()).limit(0),
    ] {
        let error = run.collect(&mut job, ()).unwrap_err();
        assert_eq!(error.invalid(), Some(&BuildError::ZeroLimit));
    }
    run.guard.finish();
}

#[test]
fn an_archive_beyond_the_limits_is_kept() {
    let run = Run::new([
        submitted("download-1"),
        job("download-1", "done", &[]),
        zip(ARCHIVE),
    ]);
    let few = Limits {
        entries: 1,
        ..Limits::default()
    };
    let mut job = Collect::new(SamplesMultidownload::new(
        [HELLO, WORLD, NUMBERS].map(sha256),
    ))
    .limits(few);
    let error = run.collect(&mut job, ()).unwrap_err();
    assert!(
        matches!(error, Error::Archive(ArchiveError::Limit { .. })),
        "{error:?}"
    );
    assert_eq!(fs::read(run.archive()).unwrap(), ARCHIVE);
    // Another process can do the same.
    let stored: Collect = serde_json::from_value(serde_json::to_value(&job).unwrap()).unwrap();
    for mut job in [job.limits(Limits::default()), stored] {
        let collected = job.verify(false, ()).unwrap();
        assert!(collected.samples.missing.is_empty());
    }
    run.guard.finish();
}

#[test]
fn nothing_found_is_no_error_and_costs_nothing() {
    let run = Run::new(service(&[], b"").into_iter().take(3));
    let collected = run.all(search(3)).unwrap();
    assert!(
        collected.found.is_empty() && collected.archive.is_none() && collected.download.is_none()
    );
    assert_eq!(names(run.folder.path()), [""; 0]);
    run.guard.finish();
}

#[test]
fn a_job_beyond_the_quota_costs_nothing() {
    let guarded = |replies: Vec<reply::Reply>| {
        let mut run = Run::new(replies);
        run.client = run.client.check_quota(true);
        run
    };
    // A hunt is not submitted if its samples could not be downloaded.
    for (hunts, downloads, limit, message) in [
        (
            0,
            50,
            3,
            "the number of hunts left this month is 0, but the job needs 1; the job was not submitted",
        ),
        (
            5,
            2,
            3,
            "the number of downloads left this month is 2, but the job needs 3; the job was not submitted",
        ),
    ] {
        let run = guarded(vec![quotas(hunts, downloads)]);
        let error = run
            .all(hunt(SearchOptions::new().limit(limit)))
            .unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(run.asked(), ["GET aggregates/quotas"]);
        assert_eq!(names(run.folder.path()), [""; 0]);
        run.guard.finish();
    }
    // The number of results of an exact search is known only later, and the search costs nothing.
    // Its results are not lost.
    let mut replies: Vec<_> = service(&[HELLO, WORLD, NUMBERS], b"")
        .into_iter()
        .take(3)
        .collect();
    replies.push(quotas(5, 2));
    replies.push(quotas(5, 3));
    replies.extend(service(&[], ARCHIVE).split_off(3));
    let run = guarded(replies);
    let mut job = Collect::new(search(9));
    let error = run.collect(&mut job, ()).unwrap_err();
    let short = matches!(
        error.flow(),
        Some(FlowError::QuotaShort {
            needed: 3,
            left: 2,
            what: "downloads"
        })
    );
    assert!(short, "{error}");
    assert_eq!(run.asked().len(), 4);
    assert_eq!(job.found().len(), 3);
    assert_eq!(job.clone().limit(2).found().len(), 2);
    // In the next month, the quota suffices.
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(collected.samples.found.len(), 3);
    run.guard.finish();
}

/// Stops after each step in turn, and resumes from the stored state like another process.
#[test]
fn any_step_resumes_without_a_second_submission() {
    let mut fetches = Vec::new();
    for stop in 0.. {
        let corpus = Corpus::from_bytes([b"hello".to_vec(), b"hello again".to_vec()]);
        let clock = VirtualClock::new();
        let service = Service::new(corpus).clock(clock.clone());
        let transcript = Transcript::new(service.clone());
        let auth = || {
            Auth::new(
                Cloud::Us1,
                Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET),
            )
        };
        let client = || Client::new(transcript.clone(), clock.clone(), auth());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.zip");
        let mut step = 0;
        let mut job = Collect::new(search(9));
        let mut stored = serde_json::to_string(&job).unwrap();
        let output = OutputFile::create_new(&path).unwrap();
        let result = client().collect(&mut job, output, |now: &Progress<'_>| {
            let job = now.collect.unwrap();
            // Do not stop during a submission. A program should wait for the reply as well.
            let submitting = now.step == Step::Send
                && job
                    .flow()
                    .is_some_and(|flow| flow.id().is_none() && flow.to_submit().is_none());
            stored = serde_json::to_string(job).unwrap();
            step += i32::from(!submitting);
            stop_if(step > stop && !submitting)
        });
        let ended = result.is_ok();
        assert!(
            ended || matches!(result, Err(Error::Stopped)),
            "{stop}: {result:?}"
        );
        let mut job: Collect = serde_json::from_str(&stored).unwrap();
        let collected = if job.archive().is_some() {
            // The collect stopped during verification, which needs no request.
            job.verify(false, ()).unwrap()
        } else {
            assert_eq!(names(folder.path()), [""; 0], "{stop}");
            let output = OutputFile::create_new(&path).unwrap();
            client().collect(&mut job, output, ()).unwrap()
        };
        assert!(
            collected.samples.is_complete() && collected.samples.found.len() == 2,
            "{stop}: {collected:?}"
        );
        assert_eq!(
            collected.archive.unwrap().bytes,
            fs::metadata(&path).unwrap().len()
        );
        assert_eq!(service.counts().downloads, 2);
        let text = transcript.to_string();
        let count = |line: &str| text.lines().filter(|shown| shown.starts_with(line)).count();
        assert_eq!(count("> POST /malquery"), 2, "{stop}");
        fetches.push(count("> GET /malquery/entities/samples-fetch"));
        if ended {
            break;
        }
    }
    fetches.dedup();
    // The collect stopped before the fetch, during it, and after it.
    assert_eq!(fetches, [1, 2, 1]);
}

#[test]
fn a_submission_under_way_is_not_sent_again() {
    let run = Run::new([submitted("search-1")]);
    let mut stored = String::new();
    let mut job = Collect::new(search(9));
    let error = run.collect(&mut job, |now: &Progress<'_>| {
        let (job, step) = (now.collect.unwrap(), now.step);
        let under_way = job.flow().is_some_and(|flow| flow.to_submit().is_none());
        if step == Step::Send && under_way && stored.is_empty() {
            stored = serde_json::to_string(job).unwrap();
        }
        stop_if(job.flow().is_some_and(|flow| flow.id().is_some()))
    });
    assert!(matches!(error, Err(Error::Stopped)));
    // As if the process had ended before the reply arrived.
    let mut job: Collect = serde_json::from_str(&stored).unwrap();
    let error = run.collect(&mut job, ()).unwrap_err();
    assert!(
        matches!(error.flow(), Some(FlowError::OutcomeUnknown { .. })),
        "{error}"
    );
    run.guard.finish();
}

#[test]
fn a_search_of_another_process_is_collected() {
    let run = Run::new(service(&[HELLO, WORLD], ARCHIVE).split_off(1));
    let mut job = Collect::attach("search-1".parse().unwrap()).limit(1);
    job = job.poll_every(std::time::Duration::from_secs(60));
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(collected.found, [sha256(HELLO)]);
    assert_eq!(collected.search.unwrap().as_str(), "search-1");
    let waits = [60, 2, 60].map(std::time::Duration::from_secs);
    assert_eq!(run.clock.waits(), waits);
    run.guard.finish();
}

#[test]
fn samples_within_a_result_are_collected_too() {
    let mut replies = service(&[], ARCHIVE);
    let nested = json!([{"samples": [{"sha256": WORLD}, {"sha256": HELLO}, {"sha256": "no hash"}]}, {"sha256": HELLO}]);
    replies[2] = reply::json(
        200,
        json!({"meta": {"reqid": "search-1", "status": "done"}, "resources": nested}),
    );
    let run = Run::new(replies);
    assert_eq!(
        run.all(search(9)).unwrap().found,
        [WORLD, HELLO].map(sha256)
    );
    run.guard.finish();
}

#[test]
fn files_are_replaced_only_on_request() {
    for overwrite in [false, true] {
        let run = Run::new(service(&[HELLO], ARCHIVE));
        let sample = run.folder.path().join(HELLO);
        fs::write(&sample, "mine").unwrap();
        let mut job = Collect::new(search(9)).extract(run.folder.path());
        let output = match overwrite {
            true => OutputFile::replace(run.archive()),
            false => OutputFile::create_new(run.archive()),
        };
        let result = run.client.collect(&mut job, output.unwrap(), ());
        assert_eq!(result.is_ok(), overwrite, "{result:?}");
        assert_eq!(
            fs::read(&sample).unwrap(),
            if overwrite { "hello" } else { "mine" }.as_bytes()
        );
        // The archive was paid for, and can be unpacked elsewhere.
        assert_eq!(fs::read(run.archive()).unwrap(), ARCHIVE);
        run.guard.finish();
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("samples.zip"), ARCHIVE).unwrap();
    let mut job = Collect::unpack(folder.path().join("samples.zip")).extract(folder.path());
    let collected = job.verify(false, ()).unwrap();
    assert_eq!(collected.samples.found.len(), 4);
    assert_eq!(names(folder.path()).len(), 5);
    let mut job = Collect::new(search(1));
    assert!(matches!(job.verify(false, ()), Err(Error::Archive(_))));
}

#[test]
fn a_stop_holds_when_a_job_ends() {
    let fuzzy = || FuzzySearch::new([Pattern::ascii("hello").unwrap()]);
    let found = || vec![job("", "done", &[HELLO])];
    let replies = || service(&[HELLO], ARCHIVE);
    let sources: [(Source, Vec<_>); 2] = [
        (search(9).into(), replies()),
        (
            fuzzy().into(),
            found().into_iter().chain(replies().split_off(3)).collect(),
        ),
    ];
    for (source, replies) in sources {
        for stop in 0.. {
            let run = Run::new(replies.clone());
            let mut steps = Vec::new();
            let mut job = Collect::new(source.clone());
            let result = run.collect(&mut job, |progress: &Progress<'_>| {
                assert!(progress.collect.is_some());
                steps.push(progress.step);
                stop_if(steps.len() > stop)
            });
            if steps.len() <= stop {
                run.guard.finish();
                // The observer sees the token and the search first.
                let search = [Step::Send, Step::Reported, Step::Send, Step::Reported];
                assert_eq!(steps[..4], search);
                break;
            }
            assert!(matches!(result, Err(Error::Stopped)), "{stop}: {result:?}");
            std::mem::forget(run.guard);
            assert!(steps.len() <= stop + 2, "{stop}: {steps:?}");
        }
    }
}

#[test]
fn the_verification_ends_at_the_deadline() {
    let run = Run::new(service(&[HELLO], ARCHIVE));
    let minute = std::time::Duration::from_secs(60);
    let client = run.client.clone().timeout(minute);
    let mut job = Collect::new(search(9));
    let mut steps = 0;
    let output = OutputFile::create_new(run.archive()).unwrap();
    let result = client.collect(&mut job, output, |progress: &Progress<'_>| {
        if let Step::Verify { .. } = progress.step {
            steps += 1;
            run.clock.advance(minute);
        }
    });
    let error = result.unwrap_err();
    let is_deadline = matches!(error.flow(), Some(FlowError::Deadline { .. }));
    assert!(is_deadline && steps == 2, "{steps}: {error}");
    // The archive is kept and can be verified later.
    assert_eq!(job.archive(), Some(&*run.archive()));
    assert_eq!(job.verify(false, ()).unwrap().found, [sha256(HELLO)]);
    run.guard.finish();
}

#[test]
fn a_missing_folder_costs_nothing() {
    let run = Run::new([]);
    for folder in ["none", "samples"] {
        fs::write(run.folder.path().join("samples"), "a file").unwrap();
        let mut job = Collect::new(search(9)).extract(run.folder.path().join(folder));
        let error = run.collect(&mut job, ()).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error:?}");
    }
    run.guard.finish();
}

#[test]
fn what_is_no_archive_leaves_nothing() {
    let cut = [
        b"PK\x03\x04 no directory ".as_slice(),
        b"PK\x05\x06",
        &[9; 16],
        &[0, 0],
    ]
    .concat();
    let mut replies = service(&[HELLO], &cut);
    replies.push(zip(ARCHIVE));
    let run = Run::new(replies);
    let mut job = Collect::new(search(1));
    let error = run.collect(&mut job, ()).unwrap_err();
    assert!(matches!(error, Error::Archive(_)), "{error:?}");
    assert_eq!(names(run.folder.path()), [""; 0]);
    assert_eq!(job.download().unwrap().as_str(), "download-1");
    let collected = run.collect(&mut job, ()).unwrap();
    assert_eq!(hashes(&collected.samples.found), [sha256(HELLO)]);
    run.guard.finish();
}

#[test]
fn an_archive_with_damage_is_kept_and_reported() {
    let mut damaged = ARCHIVE.to_vec();
    // The last byte of the data of the first entry, after its header of 30 bytes, its name, its
    // extra field and the 12 bytes of the encryption header.
    let length = |at: usize| usize::from(u16::from_le_bytes([ARCHIVE[at], ARCHIVE[at + 1]]));
    let at = 30 + length(26) + length(28) + 12 + 4;
    damaged[at] ^= 1;
    let run = Run::new(service(&[HELLO, WORLD, NUMBERS], &damaged));
    let mut job = Collect::new(search(9)).extract(run.folder.path());
    let collected = run.collect(&mut job, ()).unwrap();
    assert!(!collected.samples.is_complete(), "{:?}", collected.samples);
    assert_eq!(collected.samples.missing, [sha256(HELLO)]);
    assert_eq!(collected.samples.damaged.len(), 1);
    assert_eq!(names(run.folder.path()), [NUMBERS, WORLD, "samples.zip"]);
    run.guard.finish();
}

#[test]
fn a_stop_leaves_no_half_file() {
    // Stop during the fetch, while opening, and during verification. In the last round, nothing
    // stops.
    let mut appeared = Vec::new();
    for stop in 0.. {
        let run = Run::new(service(&[HELLO, WORLD, NUMBERS], ARCHIVE));
        let mut job = Collect::new(search(9)).extract(run.folder.path());
        let mut looks = 0;
        let result = run.collect(&mut job, |now: &Progress<'_>| {
            looks += i32::from(matches!(now.step, Step::Fetch { .. } | Step::Verify { .. }));
            stop_if(looks > stop)
        });
        run.guard.finish();
        let left = names(run.folder.path());
        assert!(left.iter().all(|name| !name.contains("part")), "{left:?}");
        appeared.push(left.len());
        match result {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Stopped), "{error:?}"),
        }
    }
    appeared.dedup();
    assert_eq!(appeared, [0, 1, 2, 3, 4]);
}

#[test]
fn every_source_is_collected_in_one_call() {
    let found = json!({"meta": {}, "resources": [{"sha256": HELLO}]});
    let fuzzy = || FuzzySearch::new([Pattern::ascii("hello").unwrap()]);
    let download = || service(&[HELLO], ARCHIVE).split_off(3);
    let mut searched = vec![reply::json(200, found)];
    searched.extend(download());
    for (source, replies) in [
        (Source::from(fuzzy()), searched),
        (Source::from(vec![sha256(HELLO)]), download()),
        (Source::from([sha256(HELLO)]), download()),
        (Source::from(&search(9)), service(&[HELLO], ARCHIVE)),
    ] {
        let run = Run::new(replies);
        let folder = run.folder.path().join("new/folder");
        let collected = run.client.collect_to(source, &folder).unwrap();
        assert_eq!(collected.found, [sha256(HELLO)]);
        assert_eq!(fs::read(folder.join(HELLO)).unwrap(), b"hello");
        assert!(folder.join("samples.zip").exists());
        run.guard.finish();
    }
}

#[test]
fn a_failed_collect_in_one_call_continues() {
    let mut replies = service(&[HELLO], ARCHIVE);
    replies.insert(6, reply::status(403));
    let run = Run::new(replies);
    let error = run
        .client
        .collect_to(search(9), run.folder.path())
        .unwrap_err();
    let text = "search search-1: multi-download download-1: GetMalQueryEntitiesSamplesFetchV1";
    assert!(error.to_string().starts_with(text), "{error}");
    assert_eq!(error.request_id().unwrap().as_str(), "download-1");
    assert_eq!(
        (error.kind(), error.status().unwrap().as_u16()),
        (ErrorKind::Forbidden, 403)
    );
    let Error::Collect { mut job, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(run.collect(&mut job, ()).unwrap().found, [sha256(HELLO)]);
    run.guard.finish();
    // If nothing was submitted, there is no request id.
    let run = Run::new([reply::status(403)]);
    let error = run
        .client
        .collect_to(search(9), run.folder.path())
        .unwrap_err();
    assert!(
        matches!(error, Error::Flow { .. }) && error.request_id().is_none(),
        "{error:?}"
    );
    run.guard.finish();
}
