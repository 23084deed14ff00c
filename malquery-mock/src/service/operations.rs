//! The nine operations of MalQuery.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, StatusCode};
use malquery_proto::Timestamp;
use malquery_proto::types::Sha256;
use serde_json::{Value, json};

use super::archive::Archive;
use super::ask::{self, Fields, Options};
use super::call::{Answer, Call, Refusal};
use super::corpus::{Entry, Filter, Found, Skipped};
use super::jobs::{Job, Kind, Outcome};
use super::{DAY, State, reply};

enum Cost {
    Nothing,
    #[cfg(feature = "yara")]
    Hunt,
    Downloads(usize),
}

impl Call {
    pub(super) fn quotas(&self, _: &Request<Vec<u8>>) -> Answer {
        let settings = &self.service.settings;
        let state = self.state();
        let (counts, refresh) = (state.counts, state.refresh.unwrap_or(Timestamp::MAX));
        drop(state);
        let int32 = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let (hunts, downloads) = (int32(counts.hunts), int32(counts.downloads));
        let days_left = refresh
            .since(self.now)
            .as_millis()
            .div_ceil(DAY.as_millis());
        let body = json!({
            "meta": {
                "hunt_count": hunts,
                "hunt_limit": int32(settings.hunts),
                "download_count": downloads,
                "download_limit": int32(settings.downloads),
                "monitor_count": 0,
                "monitor_limit": 0,
                "days_left": days_left as u64,
                "refresh_time": refresh.to_string(),
                "hunt_counts": [{"userid": "", "counter": hunts}],
                "download_counts": [{"userid": "", "counter": downloads}],
            },
            "errors": [],
        });
        Ok(self.json(StatusCode::OK, &body))
    }

    pub(super) fn fuzzy_search(&self, request: &Request<Vec<u8>>) -> Answer {
        let search: ask::Search = ask::body(request.body()).map_err(Refusal::input)?;
        let patterns = search.patterns().map_err(Refusal::input)?;
        let (filter, fields, _) = options(search.options)?;
        // A fuzzy search has a limit but no filters.
        let filter = Filter {
            limit: filter.limit,
            ..Filter::default()
        };
        let turn = self.service.requests.enter();
        let found = self.service.corpus.search(&patterns, &filter);
        drop(turn);
        let found = found.map_err(Refusal::corpus)?;
        let mut document = self.document();
        document["meta"]["status"] = "done".into();
        document["meta"]["stats"] = reply::stats(&found, &fields, found.total);
        let sample = |entry| reply::sample(entry, &fields);
        document["resources"] = found.entries.iter().map(sample).collect();
        reply::add_skipped(&mut document, &found.skipped);
        Ok(self.json(StatusCode::OK, &document))
    }

    pub(super) fn metadata(&self, request: &Request<Vec<u8>>) -> Answer {
        let ids = ask::ids(request.uri()).map_err(Refusal::input)?;
        let hashes = ask::hashes(&ids).map_err(Refusal::input)?;
        let mut document = self.document();
        document["errors"] = json!([]);
        let mut resources = Vec::new();
        for hash in &hashes {
            match self.find(hash)? {
                Ok(entry) => resources.push(reply::sample(&entry, &Fields::default())),
                Err(skipped) => reply::add_skipped(&mut document, &skipped),
            }
        }
        document["resources"] = resources.into();
        Ok(self.json(StatusCode::OK, &document))
    }

    pub(super) fn download(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let hashes = ask::hashes(&[id]).map_err(Refusal::input)?;
        let entry = self.find_all(&hashes)?.remove(0);
        let bytes = entry.open().map_err(Refusal::corpus)?;
        self.spend(&mut self.state(), Cost::Downloads(1))?;
        let media_type = Some("application/octet-stream");
        Ok(self.reply(StatusCode::OK, media_type, entry.size(), bytes))
    }

    pub(super) fn exact_search(&self, request: &Request<Vec<u8>>) -> Answer {
        let search: ask::Search = ask::body(request.body()).map_err(Refusal::input)?;
        let patterns = search.patterns().map_err(Refusal::input)?;
        let (filter, fields, options) = options(search.options)?;
        let corpus = self.service.corpus.clone();
        let kind = Kind::Search(patterns.clone());
        self.submit(kind, options, fields, Cost::Nothing, move || {
            outcome(corpus.search(&patterns, &filter))
        })
    }

    #[cfg(feature = "yara")]
    pub(super) fn hunt(&self, request: &Request<Vec<u8>>) -> Answer {
        let hunt: ask::Hunt = ask::body(request.body()).map_err(Refusal::input)?;
        let (filter, fields, options) = options(hunt.options)?;
        let rule = super::corpus::Rule::compile(&hunt.yara_rule)
            .map_err(|error| Refusal::input(format_args!("yara_rule does not compile: {error}")))?;
        let corpus = self.service.corpus.clone();
        let kind = Kind::Hunt {
            rule: rule.name().to_owned(),
            text: hunt.yara_rule,
        };
        self.submit(kind, options, fields, Cost::Hunt, move || {
            outcome(corpus.hunt(&rule, &filter))
        })
    }

    #[cfg(not(feature = "yara"))]
    pub(super) fn hunt(&self, _: &Request<Vec<u8>>) -> Answer {
        Err(Refusal::input(
            "this stand-in does not support hunts; enable the `yara` feature of malquery-mock",
        ))
    }

    pub(super) fn multidownload(&self, request: &Request<Vec<u8>>) -> Answer {
        let asked: ask::Multidownload = ask::body(request.body()).map_err(Refusal::input)?;
        let hashes = asked.hashes().map_err(Refusal::input)?;
        let entries = self.find_all(&hashes)?;
        let (fields, cost) = (Fields::default(), Cost::Downloads(entries.len()));
        self.submit(Kind::Archive, None, fields, cost, move || {
            let archive = Archive::make(&entries);
            archive
                .map(Outcome::Archive)
                .map_err(|error| format!("cannot create the archive: {error}"))
        })
    }

    pub(super) fn request(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let job = self.state().jobs.find(&id);
        let job =
            job.ok_or_else(|| Refusal::input(format_args!("unknown job {}", ask::quoted(&id))))?;
        let polls = job.polls.fetch_add(1, Ordering::Relaxed);
        let mut document = self.document();
        let meta = &mut document["meta"];
        // Whole milliseconds, as in recordings.
        let passed = self.now.since(job.submitted).as_millis();
        meta["query_time"] = json!(passed as u64 + (self.query_time() * 1e3) as u64);
        meta["reqid"] = job.id.clone().into();
        let named = match &job.kind {
            Kind::Search(patterns) => {
                meta["reqtype"] = "search".into();
                meta["patterns"] = json!(patterns);
                meta["yara_rule"] = reply::rule_of(patterns).into();
                None
            }
            #[cfg(feature = "yara")]
            Kind::Hunt { text, rule } => {
                meta["reqtype"] = "hunt".into();
                meta["yara_rule"] = text.clone().into();
                Some(&**rule).filter(|_| self.service.settings.names_rules)
            }
            Kind::Archive => None::<&str>,
        };
        if let Some(options) = &job.options {
            meta["options"] = options.clone();
        }
        let outcome = match self.is_due(&job, polls) {
            true => job.outcome(),
            false => None,
        };
        let status = match outcome {
            None if polls < self.service.settings.pending => "pending",
            None => "inprogress",
            Some(Outcome::Archive(_)) => "done",
            Some(Outcome::Found(found)) => {
                let total = match found.entries.len() {
                    // With a limit of 0, only the count is requested.
                    0 => found.total,
                    count => count,
                };
                meta["stats"] = reply::stats(found, &job.fields, total);
                let result = |entry: &Entry| {
                    let mut result = reply::sample(entry, &job.fields);
                    result["samples"] = json!([]);
                    if let Some(rule) = named {
                        result["yara_rule"] = rule.into();
                    }
                    result
                };
                document["resources"] = found.entries.iter().map(result).collect();
                reply::add_skipped(&mut document, &found.skipped);
                "done"
            }
            Some(Outcome::Failed(why)) => {
                document["errors"] = json!([{"code": 500, "message": why}]);
                "failed"
            }
        };
        document["meta"]["status"] = status.into();
        Ok(self.json(StatusCode::OK, &document))
    }

    pub(super) fn samples(&self, request: &Request<Vec<u8>>) -> Answer {
        let id = ask::id(request.uri()).map_err(Refusal::input)?;
        let job = self.state().jobs.find(&id);
        let job = job.filter(|job| {
            let polls = job.polls.load(Ordering::Relaxed);
            matches!(job.kind, Kind::Archive) && self.is_due(job, polls)
        });
        match job.as_deref().and_then(Job::outcome) {
            Some(Outcome::Archive(archive)) => {
                let media_type = Some("application/zip");
                Ok(self.reply(StatusCode::OK, media_type, archive.length, archive.read()))
            }
            _ => {
                let message = "Could not find sample archive";
                Err(Refusal::malquery(StatusCode::NOT_FOUND, message))
            }
        }
    }

    /// Returns whether a job may report its outcome after this many polls.
    fn is_due(&self, job: &Job, polls: u64) -> bool {
        let settings = &self.service.settings;
        polls >= settings.pending.saturating_add(settings.polls)
            && self.now >= job.submitted.after(settings.job_time)
    }

    /// Returns the sample with this hash. If it is not found, returns the samples that could not be
    /// read. This may hash all samples.
    fn find(&self, hash: &Sha256) -> Result<Result<Entry, Vec<Skipped>>, Refusal> {
        let _turn = self.service.requests.enter();
        self.service.corpus.find(hash).map_err(Refusal::corpus)
    }

    /// Returns the samples with these hashes. Fails if one is missing.
    fn find_all(&self, hashes: &[Sha256]) -> Result<Vec<Entry>, Refusal> {
        let find = |hash| {
            self.find(hash)?.map_err(|skipped| {
                let why = match &*skipped {
                    [] => String::new(),
                    [one] => format!("; not searched: {one}"),
                    [one, ..] => format!(
                        "; {} items were not searched, including {one}",
                        skipped.len()
                    ),
                };
                let message = format!("Could not find sample {hash}{why}");
                Refusal::malquery(StatusCode::NOT_FOUND, message)
            })
        };
        hashes.iter().map(find).collect()
    }

    /// Charges a cost to the quota. If this would exceed the quota, fails and charges nothing.
    fn spend(&self, state: &mut State, cost: Cost) -> Result<(), Refusal> {
        let settings = &self.service.settings;
        let (used, limit, count, what) = match cost {
            Cost::Nothing => return Ok(()),
            #[cfg(feature = "yara")]
            Cost::Hunt => (&mut state.counts.hunts, settings.hunts, 1, "hunts"),
            Cost::Downloads(count) => {
                let used = &mut state.counts.downloads;
                (used, settings.downloads, count as u64, "downloads")
            }
        };
        if used.saturating_add(count) > limit {
            let message = format!("the request exceeds the monthly quota of {what}");
            return Err(Refusal::malquery(StatusCode::TOO_MANY_REQUESTS, message));
        }
        *used += count;
        Ok(())
    }

    /// Charges for a job and starts it. Fails if this would exceed the quota or the job limit.
    fn submit(
        &self,
        kind: Kind,
        options: Option<Value>,
        fields: Fields,
        cost: Cost,
        work: impl FnOnce() -> Result<Outcome, String> + Send + 'static,
    ) -> Answer {
        let mut state = self.state();
        if state.jobs.is_full() {
            let retry_at = self.now.after(Duration::from_secs(1));
            return Err(Refusal::too_many("too many unfinished jobs", retry_at));
        }
        self.spend(&mut state, cost)?;
        state.jobs.count += 1;
        let number = state.jobs.count;
        let id = self.service.id("job", number);
        let settings = self.service.settings.clone();
        let work = move || match (settings.fails)(number) {
            true => Err("the stand-in was configured to fail this job".into()),
            false => work(),
        };
        let jobs = &mut state.jobs;
        jobs.start(id.clone(), self.now, kind, options, fields, work);
        drop(state);
        let mut document = self.document();
        document["meta"]["reqid"] = id.into();
        document["meta"]["status"] = "done".into();
        Ok(self.json(StatusCode::OK, &document))
    }
}

fn outcome(found: io::Result<Found>) -> Result<Outcome, String> {
    found
        .map(Outcome::Found)
        .map_err(|error| Refusal::corpus(error).message)
}

/// Returns the filter of a search, the fields of its results, and the options to repeat in the
/// status of its job.
fn options(sent: Option<Options>) -> Result<(Filter, Fields, Option<Value>), Refusal> {
    let Some(sent) = sent else {
        return Ok(Default::default());
    };
    let filter = sent.filter().map_err(Refusal::input)?;
    let fields = sent.fields().map_err(Refusal::input)?;
    Ok((filter, fields, Some(sent.echo())))
}
