//! One function for each command.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use malquery_proto::client::{Download, JobStep};
use malquery_proto::flow::{JobFlow, Submission};
use malquery_proto::operation::JsonReply;
use malquery_proto::operations::{ExactSearch, FuzzySearch, GetRequest, Hunt, SamplesMultidownload};
use malquery_proto::types::{RequestId, Sample, SearchOptions, Sha256};
use malquery_proto::{Client, Clock, Transport};
use serde_json::json;

use crate::args::{Command, Patterns, Results, Session};
use crate::output::{Failure, bar, note, print, print_reply, spinner};

pub(crate) fn run<T: Transport, C: Clock>(
    client: &Client<T, C>,
    session: &Session,
    command: Command,
) -> Result<(), Failure> {
    let commands = Commands { client, session };
    match command {
        Command::Quotas => print_reply(&client.quotas()?.output),
        Command::FuzzySearch { patterns, results } => commands.fuzzy_search(patterns, results),
        Command::ExactSearch { patterns, options, wait } => {
            let search = ExactSearch::new(patterns.patterns).options(options.into());
            if wait {
                commands.submit_and_wait(search)
            } else {
                print_reply(&client.exact_search(&search)?.output)
            }
        }
        Command::Hunt { rule, options, wait } => {
            let hunt = Hunt::new(read_rule(&rule)?).options(options.into());
            if wait { commands.submit_and_wait(hunt) } else { print_reply(&client.hunt(&hunt)?.output) }
        }
        Command::Request { id, wait: true } => print_reply(&commands.wait(client.attach(id))?.output),
        Command::Request { id, wait: false } => print_reply(&client.request(&id)?.output),
        Command::Metadata { samples } => print_reply(&client.metadata(samples)?.output),
        Command::Multidownload { samples, wait: true } => {
            commands.submit_and_wait(SamplesMultidownload::new(samples))
        }
        Command::Multidownload { samples, wait: false } => {
            print_reply(&client.samples_multidownload(samples)?.output)
        }
        Command::Download { sample, output } => commands.download(sample, &output),
        Command::Samples { id, output } => {
            commands.check_output(&output)?;
            print(&commands.fetch(&id, &output)?)
        }
        Command::Collect { patterns, limit, output_dir } => commands.collect(patterns, limit, &output_dir),
    }
}

struct Commands<'a, T, C> {
    client: &'a Client<T, C>,
    session: &'a Session,
}

impl<T: Transport, C: Clock> Commands<'_, T, C> {
    fn fuzzy_search(&self, patterns: Patterns, results: Results) -> Result<(), Failure> {
        let mut search = FuzzySearch::new(patterns.patterns).filter_meta(results.meta);
        if let Some(limit) = results.limit {
            search = search.limit(limit);
        }
        let searching = spinner("searching");
        let reply = self.client.fuzzy_search(&search)?;
        searching.finish_and_clear();
        print_reply(&reply.output)
    }

    fn submit_and_wait(&self, job: impl Into<Submission>) -> Result<(), Failure> {
        print_reply(&self.wait(self.client.job(job))?.output)
    }

    /// Waits for the end of a job, and says how to go on should that be interrupted.
    fn wait(&self, mut flow: JobFlow) -> Result<JsonReply<GetRequest>, Failure> {
        flow.set_interval(self.session.poll_interval);
        let mut told = flow.id().cloned();
        let waiting = spinner("submitting");
        let result = self.client.run_job(&mut flow, |flow, step| {
            if told.is_none()
                && let Some(id) = flow.id()
            {
                waiting.suspend(|| note(format_args!("submitted; the request id is {id}")));
                told = Some(id.clone());
            }
            match (step, flow.id()) {
                (JobStep::Wait(_), Some(id)) => waiting.set_message(format!("waiting for {id}")),
                (JobStep::Send, Some(id)) => waiting.set_message(format!("asking for {id}")),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        waiting.finish_and_clear();
        result.map_err(|error| {
            if let Some(id) = flow.id() {
                note(format_args!("the job may go on; look at it with: malquery request {id} --wait"));
            }
            error.into()
        })
    }

    fn download(&self, sample: Sha256, output: &Path) -> Result<(), Failure> {
        self.check_output(output)?;
        note(format_args!("warning: {} will be raw, unencrypted malware", output.display()));
        let reply = self.client.download(sample)?;
        print(&self.write(reply.output, output)?)
    }

    fn fetch(&self, id: &RequestId, output: &Path) -> Result<serde_json::Value, Failure> {
        note(format_args!("{} will be a zip of malware; its password is `infected`", output.display()));
        let reply = self.client.samples(id)?;
        self.write(reply.output, output)
    }

    fn write(&self, download: Download<T::Body>, output: &Path) -> Result<serde_json::Value, Failure> {
        let bar = bar(download.length());
        let shown = bar.clone();
        let received = download
            .on_progress(move |bytes| shown.set_position(bytes))
            .to_file(output, self.session.force)?;
        bar.finish_and_clear();
        Ok(json!({"path": output, "bytes": received.bytes, "sha256": received.sha256}))
    }

    /// Refuses an output file before anything is sent, since what is sent may cost quota.
    fn check_output(&self, output: &Path) -> Result<(), Failure> {
        let refuse = |why: &str| Err(Failure::Invalid(format!("{} {why}", output.display())));
        if output.is_dir() {
            return refuse("is a folder; name a file");
        }
        if !self.session.force && output.symlink_metadata().is_ok() {
            return refuse("exists; give --force to replace it");
        }
        match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                refuse("cannot be written: its folder does not exist")
            }
            _ => Ok(()),
        }
    }

    fn collect(&self, patterns: Patterns, limit: Option<u32>, folder: &Path) -> Result<(), Failure> {
        let archive = folder.join("samples.zip");
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::Invalid(format!("{} cannot be made: {error}", folder.display())))?;
        self.check_output(&archive)?;

        let options = limit.map_or_else(SearchOptions::new, |limit| SearchOptions::new().limit(limit));
        let search = self.wait(self.client.job(ExactSearch::new(patterns.patterns).options(options)))?;
        let found = samples(&search.resources, limit);
        if found.is_empty() {
            note(format_args!("nothing was found"));
            return print(&json!({
                "search": search.meta.reqid, "download": null, "samples": [], "path": null, "bytes": 0, "sha256": null,
            }));
        }

        note(format_args!("downloading {} samples, each of which costs a download", found.len()));
        let submitted = self.client.samples_multidownload(found.iter().copied())?;
        let id = &submitted.meta.reqid;
        self.wait(self.client.attach(id.clone()))?;
        let mut report = self.fetch(id, &archive)?;
        report["search"] = json!(search.meta.reqid);
        report["download"] = json!(id);
        report["samples"] = json!(found);
        print(&report)
    }
}

/// The SHA-256 of every sample of the results, each once, and no more than were asked for.
fn samples(results: &[Sample], limit: Option<u32>) -> Vec<Sha256> {
    let mut found = Vec::new();
    for result in results {
        let nested = result.samples();
        for sha256 in std::iter::once(result).chain(&nested).filter_map(|sample| sample.sha256) {
            if !found.contains(&sha256) {
                found.push(sha256);
            }
        }
    }
    found.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
    found
}

fn read_rule(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::Invalid(format!("{}: {error}", path.display())))
}
