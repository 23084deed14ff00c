//! The command line: its commands, options and help texts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use malquery_proto::archive::Limits;
use malquery_proto::credentials::MemberCid;
use malquery_proto::types::{
    Date, FileSize, FileType, MetaField, Pattern, RequestId, SearchOptions, Sha256,
};
use malquery_proto::{BaseUrl, Cloud};

use crate::format::{DOCUMENTS, Format, RESULTS};
use crate::input;
use crate::list::{self, Samples};
use crate::output::{Failure, note, quoted};
use crate::values::{at_least_one, duration, field, file, login, some_time, trimmed};

/// Search the malware samples of CrowdStrike Falcon MalQuery and download them
///
/// Set FALCON_CLIENT_ID and FALCON_CLIENT_SECRET to the credentials of an API client with the
/// scopes malquery:read and malquery:write. The options --cloud, --base-url and --member-cid
/// override FALCON_CLOUD, FALCON_BASE_URL and FALCON_MEMBER_CID. To try the program without an
/// account, use --demo, which searches eight harmless files.
///
/// Results go to standard output: by default, a table on a terminal, otherwise one JSON document.
/// If standard output is closed, results are discarded, as with /dev/null. Messages go to standard
/// error.
///
/// Exit codes: 0 success; 1 any other error; 2 refused before anything was submitted; 3 the job
/// failed, or the archive is incomplete or damaged; 4 bad credentials or access denied; 5 quota
/// exceeded or unknown, or rate limit exceeded; 6 --timeout expired, or left no time for another
/// attempt, while a job was running.
#[derive(Debug, Parser)]
#[command(name = "malquery", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) session: Session,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Session {
    /// The cloud that hosts the account: us-1, us-2, us-3, eu-1, us-gov-1 or us-gov-2
    #[arg(long, value_name = "NAME")]
    pub(crate) cloud: Option<Cloud>,

    /// Send requests to this base URL: https, or http on loopback
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<BaseUrl>,

    /// Act on behalf of this Flight Control child
    #[arg(long, value_name = "CID")]
    pub(crate) member_cid: Option<MemberCid>,

    /// Also trust the certificates in this file; the environment variable SSL_CERT_FILE has the
    /// same effect
    #[arg(long, value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Stay with the chosen cloud even if another cloud hosts the account
    #[arg(long)]
    pub(crate) no_region_redirect: bool,

    /// Search eight harmless files that are built into this program; nothing is sent
    #[arg(long)]
    pub(crate) demo: bool,

    /// Search the files in this folder instead of MalQuery; nothing is sent. Jobs are lost
    /// when the command ends
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,

    /// Replay the recorded replies in this cassette; nothing is sent
    #[arg(long, value_name = "CASSETTE")]
    pub(crate) replay: Option<PathBuf>,

    /// Record requests and replies, without secrets, in this cassette, for --replay and for tests
    #[arg(long, value_name = "CASSETTE", value_parser = file())]
    pub(crate) record: Option<PathBuf>,

    /// The output format: table or json, and for samples also jsonl, csv or sha256 [default: table
    /// on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_enum)]
    pub(crate) format: Option<Format>,

    /// Suppress warnings, notes and progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print a line for each request
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,

    /// Give up after this time, such as 90, 90s, 10m or 1h. A hunt can take an hour
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = some_time, allow_negative_numbers = true)]
    pub(crate) timeout: Duration,

    /// The time between polls of a job; the minimum is 0.1 seconds
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time, allow_negative_numbers = true)]
    pub(crate) poll_interval: Duration,

    /// Refuse a hunt or a multi-download if the remaining monthly quota is too low or unknown
    #[arg(long)]
    pub(crate) check_quota: bool,

    /// The maximum compression ratio of an archive entry that unpacks to more than 1 MiB [default:
    /// 500]. Samples padded with zeros may need up to 1100. The limit protects against zip bombs
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true)]
    pub(crate) max_ratio: Option<u64>,

    /// Whether jobs end with the command, as they do with --demo and --corpus.
    #[arg(skip)]
    pub(crate) jobs_end: bool,
}

/// Limits for archives. Some are higher than the defaults of the library.
const LIMITS: Limits = Limits {
    entries: 100_000,
    directory_size: 32 << 20,
    entry_size: 2 << 30,
    total_size: 64 << 30,
    ratio: 500,
};

impl Session {
    /// Returns whether an option names a cloud, a base URL or a member CID.
    pub(crate) fn names_a_service(&self) -> bool {
        self.cloud.is_some() || self.base_url.is_some() || self.member_cid.is_some()
    }

    /// Returns the names of the given options that replace the service.
    fn stand_ins(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("--demo", self.demo),
            ("--corpus", self.corpus.is_some()),
            ("--replay", self.replay.is_some()),
        ];
        all.into_iter()
            .filter(|(_, is_given)| *is_given)
            .map(|(name, _)| name)
    }

    /// Returns the name of the first given option that replaces the service, if any.
    pub(crate) fn stand_in(&self) -> Option<&'static str> {
        self.stand_ins().next()
    }

    /// Returns the beginning of the commands that hints suggest: `malquery`, with the given options
    /// that affect how the service is reached and whether the quota is checked.
    pub(crate) fn program(&self) -> String {
        let options = [
            self.cloud.map(|cloud| format!(" --cloud {cloud}")),
            self.base_url
                .as_ref()
                .map(|url| format!(" --base-url {}", quoted(url.as_str()))),
            self.member_cid
                .as_ref()
                .map(|cid| format!(" --member-cid {}", quoted(&cid.to_string()))),
            self.ca_file
                .as_ref()
                .map(|path| format!(" --ca-file {}", quoted(path))),
            self.no_region_redirect
                .then(|| " --no-region-redirect".into()),
            self.check_quota.then(|| " --check-quota".into()),
        ];
        options
            .into_iter()
            .flatten()
            .fold("malquery".into(), |program, option| program + &option)
    }

    /// Returns the command that shows the status or the results of a job.
    pub(crate) fn request(&self, id: &RequestId) -> String {
        format!("{} request {}", self.program(), quoted(id.as_str()))
    }

    /// Returns the limits for an archive, with the ratio from --max-ratio if it is given.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            ratio: self.max_ratio.unwrap_or(LIMITS.ratio),
            ..LIMITS
        }
    }

    /// Fails if global options contradict each other. clap does not detect a conflict between an
    /// option before the command and one after it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.cloud.is_some() && self.base_url.is_some() {
            return Err(Failure::refused("use --cloud or --base-url, not both"));
        }
        if self.quiet && self.verbose {
            return Err(Failure::refused("use --quiet or --verbose, not both"));
        }
        if let (Some(option), true) = (self.stand_in(), self.record.is_some()) {
            return Err(Failure::refused(format!(
                "--record requires the real service; remove {option}"
            )));
        }
        if self.replay.is_none()
            && let (Some(option), true) = (self.stand_in(), self.names_a_service())
        {
            return Err(Failure::refused(format!(
                "{option} does not contact the service; remove --cloud, --base-url and --member-cid"
            )));
        }
        if self.stand_ins().count() > 1 {
            return Err(Failure::refused(
                "use only one of --demo, --corpus and --replay",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Call(Call),
    #[command(flatten)]
    Local(Local),
}

/// Commands that send nothing to the service.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Check a YARA rule offline before you use it in a hunt
    #[command(after_help = "Example:\n  malquery check-rule rules.yar --rule-name small_pe")]
    CheckRule {
        #[command(flatten)]
        rule: CheckedRule,
    },

    /// Verify an archive offline, and unpack each sample into a file named after its SHA-256
    #[command(after_help = "Example:\n  malquery extract samples.zip --output-dir samples")]
    Extract {
        /// The archive to unpack
        #[arg(value_name = "FILE")]
        archive: PathBuf,
        /// The folder to write the samples to
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
    },

    /// Run a stand-in for MalQuery, for clients on this machine, until Ctrl-C
    ///
    /// It searches the files in --corpus, or eight harmless files. It prints FALCON_BASE_URL=...,
    /// FALCON_CLIENT_ID=... and FALCON_CLIENT_SECRET=..., one per line, for clients to use.
    #[command(
        after_help = "Example:\n  malquery serve --corpus DIR > serve.env &\n  sleep 1; set -a; source serve.env; malquery quotas"
    )]
    Serve {
        #[command(flatten)]
        options: ServeOptions,
    },

    /// Print a shell completion script
    #[command(
        after_help = "Example:\n  malquery completions bash > /etc/bash_completion.d/malquery"
    )]
    Completions {
        /// The shell to generate the script for
        shell: Shell,
    },

    /// Print the manual in troff format
    #[command(after_help = "Example:\n  malquery man | man -l -")]
    Man,
}

/// Options of the stand-in.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Listen on this port; 0 selects a free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port: u16,
    /// Allow this many hunts per month
    #[arg(long, value_name = "N")]
    pub(crate) hunts: Option<u64>,
    /// Allow this many downloads per month
    #[arg(long, value_name = "N")]
    pub(crate) downloads: Option<u64>,
    /// Reply `inprogress` to at least this many polls of each job
    #[arg(long, value_name = "N")]
    pub(crate) polls: Option<u64>,
    /// Make each job run for at least this time, such as 90, 90s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) job_time: Option<Duration>,
    /// Make all jobs fail, or only those with these numbers; the first job is number 1
    #[arg(long, value_name = "a,b", value_delimiter = ',', num_args = 0..=1, require_equals = false)]
    pub(crate) fail_jobs: Option<Vec<u64>>,
    /// Make each token expire after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) token_life: Option<Duration>,
    /// Allow this many requests with a valid token in any 60-second period
    #[arg(long, value_name = "N")]
    pub(crate) rate_limit: Option<usize>,
    /// Write one line per request to this file; without FILE, to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) log: Option<PathBuf>,
}

/// Commands that use MalQuery, a stand-in or a cassette.
#[derive(Debug, Subcommand)]
pub(crate) enum Call {
    /// Show the monthly quotas and how much of each is used
    #[command(after_help = "Example:\n  malquery quotas")]
    Quotas,

    /// Search faster than exact-search; the results may include false positives
    #[command(
        after_help = "Example:\n  malquery fuzzy-search --ascii CreateRemoteThread --hex '89 48 20 8b' --limit 10"
    )]
    FuzzySearch {
        #[command(flatten)]
        patterns: Patterns,
        #[command(flatten)]
        results: Results,
    },

    /// Start a search for samples that contain all the patterns
    ///
    /// Without --wait or --state, the printed status describes the submission, not the job. For the
    /// status of the job, use --wait or `request`.
    #[command(
        after_help = "Example:\n  malquery exact-search --pattern ascii:CrowdStrike --filetype pe32,pe64 --limit 100 --wait"
    )]
    ExactSearch {
        #[command(flatten)]
        patterns: Patterns,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        wait: Wait,
    },

    /// Start a search with a YARA rule; this costs a hunt
    ///
    /// Without --wait or --state, the printed status describes the submission, not the job. For the
    /// status of the job, use --wait or `request`.
    #[command(
        after_help = "Example:\n  malquery hunt rule.yar --limit 100 --min-date 2024-01-01 --wait --timeout 1h"
    )]
    Hunt {
        #[command(flatten)]
        rule: HuntRule,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        wait: Wait,
    },

    /// Show the status or the results of a job
    #[command(after_help = "Example:\n  malquery request REQID --wait --format csv")]
    Request {
        /// The request id of the job
        #[arg(value_name = "REQID")]
        id: RequestId,
        #[command(flatten)]
        wait: Wait,
    },

    /// Resume a job or a `collect` command from its state file
    #[command(after_help = "Example:\n  malquery resume state.json --timeout 1h")]
    Resume {
        /// The state file
        #[arg(value_name = "FILE", value_parser = file())]
        state: PathBuf,
    },

    /// Show the metadata of samples; this costs nothing
    #[command(
        visible_alias = "lookup",
        after_help = "Example:\n  malquery metadata --from hashes.txt --format csv"
    )]
    Metadata {
        #[command(flatten)]
        samples: Samples,
    },

    /// Download a sample, which may be raw malware; this costs a download
    #[command(after_help = "Example:\n  malquery download SHA256 --output sample.bin")]
    Download {
        /// The SHA-256 of the sample
        #[arg(value_name = "SHA256", value_parser = list::hash)]
        sample: Sha256,
        /// The file to write
        #[arg(long, value_name = "FILE", value_parser = file())]
        output: PathBuf,
    },

    /// Start a job that packs samples into an archive; this costs a download per sample
    ///
    /// Without --wait or --state, the printed status describes the submission, not the job. For the
    /// status of the job, use --wait or `request`.
    #[command(after_help = "Example:\n  malquery multidownload --from hashes.txt --wait")]
    Multidownload {
        #[command(flatten)]
        samples: Samples,
        #[command(flatten)]
        wait: Wait,
    },

    /// Fetch the zip archive of a multi-download; the password is `infected`
    #[command(
        after_help = "Example:\n  malquery samples REQID --output samples.zip --extract samples"
    )]
    Samples {
        /// The request id of the multi-download
        #[arg(value_name = "REQID")]
        id: RequestId,
        /// The file to write
        #[arg(long, value_name = "FILE", value_parser = file())]
        output: PathBuf,
        /// Also unpack each sample into this folder, in a file named after its SHA-256
        #[arg(long, value_name = "DIR")]
        extract: Option<PathBuf>,
    },

    /// Search, wait, download, verify and unpack; this costs a download per sample, plus a hunt
    /// with --rule
    ///
    /// Without --limit, all samples found are downloaded, and each costs a download. In that case,
    /// the command asks for confirmation first, unless you give SHA-256 hashes or --yes. If it
    /// cannot ask, it fails.
    #[command(
        after_help = "Examples:\n  malquery collect --demo --pattern ascii:CrowdStrike --limit 3 --output-dir out\n  malquery collect --from hashes.txt --output-dir out"
    )]
    Collect(Box<CollectArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    pub(crate) samples: Samples,
    #[command(flatten)]
    pub(crate) patterns: Patterns,
    #[command(flatten)]
    pub(crate) rule: RuleOptions,

    /// Collect the results of the search or hunt with this request id
    #[arg(long, value_name = "REQID")]
    pub(crate) request: Option<RequestId>,

    #[command(flatten)]
    pub(crate) options: Options,

    /// The folder for the archive, `samples.zip`, and for the samples, each in a file named after
    /// its SHA-256. With --force, samples from an earlier run stay in the folder; use one folder
    /// per run to keep them apart
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,
    /// Do not unpack the archive
    #[arg(long)]
    pub(crate) no_extract: bool,
    /// Save the state of the job in this file, so that `resume` can continue it
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) state: Option<PathBuf>,
    /// Download all samples found, without asking
    #[arg(long, help_heading = "Cost")]
    pub(crate) yes: bool,
    /// Skip the quota check
    #[arg(long, help_heading = "Cost", conflicts_with = "check_quota")]
    pub(crate) no_check_quota: bool,
}

/// Where the samples to collect come from.
pub(crate) enum Source {
    Samples,
    Patterns,
    Rule(PathBuf),
    Request(RequestId),
}

impl CollectArgs {
    /// Returns the given source. Fails unless exactly one is given.
    pub(crate) fn source(&self) -> Result<Source, Failure> {
        let patterns = !self.patterns.all().is_empty();
        let all = [
            (!self.samples.is_empty()).then_some(Source::Samples),
            patterns.then_some(Source::Patterns),
            self.rule.rule.clone().map(Source::Rule),
            self.request.clone().map(Source::Request),
        ];
        let mut given: Vec<_> = all.into_iter().flatten().collect();
        match (given.pop(), given.is_empty()) {
            (Some(source), true) => Ok(source),
            (given, _) => {
                let only = if given.is_some() { "only " } else { "" };
                Err(Failure::refused(format!(
                    "use {only}one of: patterns, --rule FILE, --request REQID, or SHA-256 hashes"
                )))
            }
        }
    }
}

/// The rule for `hunt`: a file, as an argument or with --rule, and its options.
#[derive(Debug, Args)]
pub(crate) struct HuntRule {
    /// The file with the YARA rule; use this argument or --rule FILE
    #[arg(
        value_name = "FILE",
        conflicts_with = "rule",
        required_unless_present = "rule"
    )]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: RuleOptions,
}

impl HuntRule {
    pub(crate) fn path(&self) -> &Path {
        let path = self.file.as_deref().or(self.options.rule.as_deref());
        path.unwrap_or(Path::new(""))
    }
}

#[derive(Debug, Args)]
pub(crate) struct RuleOptions {
    /// The file with the YARA rule for a hunt
    #[arg(long, value_name = "FILE")]
    pub(crate) rule: Option<PathBuf>,
    /// Send only this rule and the global rules, along with the rules that they refer to
    #[arg(long, value_name = "NAME")]
    pub(crate) rule_name: Option<String>,
    /// Skip the local check, for example for a rule that only the service can check
    #[arg(long)]
    pub(crate) no_check_rule: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckedRule {
    /// The file with the YARA rules
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check only this rule and the global rules, along with the rules that they refer to
    #[arg(long, value_name = "NAME")]
    pub(crate) rule_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait until the job is done and print its results. A hunt can take an hour, longer than the
    /// default --timeout
    #[arg(long)]
    pub(crate) wait: bool,

    /// Wait, and save the state of the job in this file, so that `resume` can continue it
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) state: Option<PathBuf>,
}

impl Wait {
    pub(crate) fn is_set(&self) -> bool {
        self.wait || self.state.is_some()
    }
}

impl Call {
    pub(crate) fn formats(&self) -> &'static [Format] {
        match self {
            Self::ExactSearch { wait, .. } | Self::Hunt { wait, .. } if !wait.is_set() => DOCUMENTS,
            Self::Quotas | Self::Download { .. } | Self::Multidownload { .. } => DOCUMENTS,
            Self::Samples { extract: None, .. } => DOCUMENTS,
            _ => RESULTS,
        }
    }

    /// Returns the state file of this command, if it has one.
    pub(crate) fn state(&self) -> Option<&Path> {
        match self {
            Self::ExactSearch { wait, .. }
            | Self::Hunt { wait, .. }
            | Self::Request { wait, .. }
            | Self::Multidownload { wait, .. } => wait.state.as_deref(),
            Self::Collect(collect) => collect.state.as_deref(),
            Self::Resume { state } => Some(state),
            _ => None,
        }
    }

    /// Fails if the command writes a file that it also uses for another purpose.
    pub(crate) fn check_files(&self, session: &Session) -> Result<(), Failure> {
        let mut read: Vec<&Path> = [&session.replay, &session.ca_file]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect();
        let mut written: Vec<PathBuf> = session.record.iter().cloned().collect();
        written.extend(self.state().map(Path::to_owned));
        match self {
            Self::Download { output, .. } | Self::Samples { output, .. } => {
                written.push(output.clone());
            }
            Self::Collect(collect) => {
                written.push(collect.output_dir.join("samples.zip"));
                read.extend(collect.rule.rule.as_deref());
                read.extend(collect.samples.files());
            }
            Self::Hunt { rule, .. } => read.push(rule.path()),
            Self::Metadata { samples } | Self::Multidownload { samples, .. } => {
                read.extend(samples.files());
            }
            _ => {}
        }
        let read = read.into_iter().filter(|path| path.as_os_str() != "-");
        let mut used: Vec<_> = read.map(input::place).collect();
        for path in written {
            let place = input::place(&path);
            if used.contains(&place) {
                return Err(Failure::refused(format!(
                    "the command already uses {} for another purpose; choose another file",
                    path.display()
                )));
            }
            used.push(place);
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Patterns {
    /// Find this pattern: hex:8948208b, ascii:TEXT, wide:TEXT, utf8:TEXT or utf16:TEXT. With
    /// several patterns, find samples that contain all of them
    #[arg(long = "pattern", value_name = "TYPE:VALUE", num_args = 1.., help_heading = "Patterns")]
    patterns: Vec<Pattern>,
    /// Find these bytes, such as 8948, '89 48', '\x89\x48' or 0x89,0x48
    #[arg(long, value_name = "BYTES", help_heading = "Patterns", value_parser = |text: &str| Pattern::hex(text))]
    hex: Vec<Pattern>,
    /// Find this text, with one byte per character
    #[arg(long, value_name = "TEXT", help_heading = "Patterns", value_parser = |text: &str| Pattern::ascii(text))]
    ascii: Vec<Pattern>,
    /// Find this text, with two bytes per character
    #[arg(long, value_name = "TEXT", help_heading = "Patterns", value_parser = |text: &str| Pattern::wide(text))]
    wide: Vec<Pattern>,
}

impl Patterns {
    pub(crate) fn all(&self) -> Vec<Pattern> {
        let all = [&self.patterns, &self.hex, &self.ascii, &self.wide];
        all.into_iter().flatten().cloned().collect()
    }

    /// Returns all patterns. Fails if no pattern is given.
    pub(crate) fn some(&self) -> Result<Vec<Pattern>, Failure> {
        let all = self.all();
        if all.is_empty() {
            return Err(Failure::refused(
                "no pattern was given; use --pattern TYPE:VALUE, --hex, --ascii or --wide",
            ));
        }
        Ok(all)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Results {
    /// Return at most this many results
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>, allow_negative_numbers = true, help_heading = "Filters")]
    pub(crate) limit: Option<u32>,

    /// Return only the given fields: any of sha256, md5, type, size, first_seen, label and family
    #[arg(long, value_name = "a,b", value_delimiter = ',', value_parser = field, help_heading = "Filters")]
    pub(crate) meta: Vec<MetaField>,
}

impl Results {
    /// Returns whether the results have no label, which makes the counts by label meaningless.
    pub(crate) fn lacks_label(&self) -> bool {
        !self.meta.is_empty() && !self.meta.contains(&MetaField::Label)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) results: Results,

    /// Find only files of these types, such as pe32,pe64
    #[arg(long, value_name = "a,b", value_delimiter = ',', value_parser = trimmed::<FileType>, help_heading = "Filters")]
    filetype: Vec<FileType>,

    /// Find only samples first seen after (or possibly on) this date, such as 2024-01-01
    #[arg(long, value_name = "DATE", help_heading = "Filters")]
    min_date: Option<Date>,

    /// Find only samples first seen before (or possibly on) this date
    #[arg(long, value_name = "DATE", help_heading = "Filters")]
    max_date: Option<Date>,

    /// Find only files of at least this size: bytes, or a number with a unit such as KB or MiB
    #[arg(long, value_name = "SIZE", help_heading = "Filters")]
    min_size: Option<FileSize>,

    /// Find only files of at most this size
    #[arg(long, value_name = "SIZE", help_heading = "Filters")]
    max_size: Option<FileSize>,
}

impl Options {
    /// Returns the search options, and warns about unknown file types.
    pub(crate) fn search(&self) -> SearchOptions {
        for filetype in self.filetype.iter().filter(|filetype| !filetype.is_known()) {
            note(format_args!(
                "warning: {filetype} is not a known MalQuery file type; the search may find nothing"
            ));
        }
        let mut search = SearchOptions::new()
            .filter_meta(self.results.meta.clone())
            .filter_filetypes(self.filetype.clone());
        if let Some(limit) = self.results.limit {
            search = search.limit(limit);
        }
        if let Some(date) = self.min_date {
            search = search.min_date(date);
        }
        if let Some(date) = self.max_date {
            search = search.max_date(date);
        }
        if let Some(size) = self.min_size.clone() {
            search = search.min_size(size);
        }
        if let Some(size) = self.max_size.clone() {
            search = search.max_size(size);
        }
        search
    }
}

/// The global options, each with its help heading and the commands that show it in their help. A
/// star stands for all commands in [`Call`].
const GLOBAL: [(&str, &str, &str); 17] = [
    ("cloud", "Service", "*"),
    ("base_url", "Service", "*"),
    ("member_cid", "Service", "*"),
    ("ca_file", "Service", "*"),
    ("no_region_redirect", "Service", "*"),
    ("demo", "Offline", "* serve"),
    ("corpus", "Offline", "* serve"),
    ("replay", "Offline", "*"),
    ("record", "Offline", "*"),
    ("format", "Output", "* extract check-rule"),
    ("quiet", "Output", "* extract check-rule serve"),
    ("verbose", "Output", "*"),
    ("force", "Output", "* extract"),
    ("max_ratio", "Output", "samples extract collect resume"),
    ("timeout", "Time", "* check-rule"),
    (
        "poll_interval",
        "Time",
        "exact-search hunt request resume multidownload collect",
    ),
    ("check_quota", "Cost", "hunt multidownload resume"),
];
/// The commands in [`Local`].
const LOCAL: [&str; 5] = ["check-rule", "extract", "serve", "completions", "man"];

/// Builds the command line. The help of a command hides the global options that it does not use.
pub(crate) fn command() -> clap::Command {
    let rule = "The file with the YARA rule; use this option or the argument [FILE]";
    let mut root =
        Cli::command().mut_subcommand("hunt", |hunt| hunt.mut_arg("rule", |arg| arg.help(rule)));
    for (id, heading, uses) in GLOBAL {
        root = root.mut_arg(id, |arg| arg.global(true).help_heading(heading));
        let hidden = root.get_arguments().find(|arg| arg.get_id() == id).cloned();
        let Some(hidden) = hidden.map(|arg| arg.hide(true)) else {
            continue;
        };
        for command in root.get_subcommands_mut() {
            let name = command.get_name();
            let is_used = uses.split(' ').any(|word| match word {
                "*" => !LOCAL.contains(&name),
                word => word == name,
            });
            if !is_used {
                // The option is hidden, but still accepted.
                *command = std::mem::take(command).arg(hidden.clone());
            }
        }
    }
    root
}

/// Parses the command line. Exits with code 2 if it is invalid, or with 0 for --help or --version.
pub(crate) fn parse() -> Cli {
    let matches = command().try_get_matches();
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.unwrap_or_else(|error| refuse(&error))
}

/// Prints a parse error, the help or the version, and exits. Masks the credentials in URLs, because
/// the message may contain them.
fn refuse(error: &clap::Error) -> ! {
    let message = error.to_string();
    let mut masked = message.clone();
    for argument in std::env::args_os().filter_map(|argument| argument.into_string().ok()) {
        let login = login(&argument).filter(|login| !login.is_empty() && argument.contains("://"));
        if let Some(login) = login {
            masked = masked.replace(&format!("{login}@"), "[redacted]@");
        }
    }
    if masked == message {
        error.exit();
    }
    eprint!("{masked}");
    std::process::exit(error.exit_code())
}
