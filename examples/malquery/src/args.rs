//! What can be said on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use malquery_proto::credentials::MemberCid;
use malquery_proto::types::{
    Date, FileSize, FileType, MetaField, Pattern, RequestId, SearchOptions, Sha256,
};
use malquery_proto::{BaseUrl, Cloud};

use crate::format::{DOCUMENTS, Format, RESULTS};
use crate::input;
use crate::list::{self, Samples};
use crate::output::{Failure, note, quoted};
use crate::values::{self, at_least_one, duration, field, file, some_time, trimmed};

/// Searches the malware samples of CrowdStrike Falcon MalQuery, and downloads them
///
/// FALCON_CLIENT_ID and FALCON_CLIENT_SECRET hold the credentials of an API client with the scopes
/// malquery:read and malquery:write. FALCON_CLOUD, FALCON_BASE_URL and FALCON_MEMBER_CID say where
/// it lives; the options of the same names come first. Without an account, --demo answers from
/// eight harmless files.
///
/// Results go to standard output: as a table on a terminal, elsewhere as one JSON document. A
/// closed standard output discards them, as /dev/null does. Messages go to standard error.
///
/// Exit status: 0 done; 1 failed; 2 refused before anything was sent; 3 the job failed or the
/// archive is incomplete; 4 credentials or permission; 5 quota or rate limit; 6 the job still runs
/// at --timeout.
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
    /// The cloud the account lives in: us-1, us-2, us-3, eu-1, us-gov-1 or us-gov-2
    #[arg(long, value_name = "NAME")]
    pub(crate) cloud: Option<Cloud>,

    /// Send requests to this address instead: https, or http on loopback
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<BaseUrl>,

    /// Act for this Flight Control child
    #[arg(long, value_name = "CID")]
    pub(crate) member_cid: Option<MemberCid>,

    /// Also trust the certificates in this file, as SSL_CERT_FILE does
    #[arg(long, value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Stay with the named cloud even if the account lives in another
    #[arg(long)]
    pub(crate) no_region_redirect: bool,

    /// Answer from eight harmless files that are part of this program; nothing is sent
    #[arg(long)]
    pub(crate) demo: bool,

    /// Search the files of this folder instead of MalQuery; nothing is sent. Jobs end with the
    /// command
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,

    /// Answer from this cassette of recorded replies; nothing is sent
    #[arg(long, value_name = "CASSETTE")]
    pub(crate) replay: Option<PathBuf>,

    /// Record requests and replies into this cassette, without secrets, for --replay and for tests
    #[arg(long, value_name = "CASSETTE")]
    pub(crate) record: Option<PathBuf>,

    /// How results are written [default: table on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_enum)]
    pub(crate) format: Option<Format>,

    /// Show errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Show a line for each request
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Replace a file that exists
    #[arg(long)]
    pub(crate) force: bool,

    /// End the whole command after this time: 90, 90s, 10m or 1h. A hunt may take an hour
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = some_time, allow_negative_numbers = true)]
    pub(crate) timeout: Duration,

    /// Ask for the status of a job this often
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time, allow_negative_numbers = true)]
    pub(crate) poll_interval: Duration,

    /// Refuse a hunt or a multi-download that the rest of the monthly quota does not cover
    #[arg(long)]
    pub(crate) check_quota: bool,

    /// Allow this many bytes out of an entry of an archive for each byte in it; 500 unless given.
    /// Samples that are padded with zeros need up to 1100; so does a zip bomb
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, allow_negative_numbers = true)]
    pub(crate) max_ratio: Option<u64>,

    /// Whether the jobs end with the command, in a stand-in of its own.
    #[arg(skip)]
    pub(crate) jobs_end: bool,
}

impl Session {
    /// Whether an option names the service.
    pub(crate) fn names_a_service(&self) -> bool {
        self.cloud.is_some() || self.base_url.is_some() || self.member_cid.is_some()
    }

    /// The option that answers in place of the service.
    pub(crate) fn stand_in(&self) -> Option<&'static str> {
        match self {
            Self { demo: true, .. } => Some("--demo"),
            Self {
                corpus: Some(_), ..
            } => Some("--corpus"),
            Self {
                replay: Some(_), ..
            } => Some("--replay"),
            _ => None,
        }
    }

    /// How the program is called for the same service, with the same care.
    pub(crate) fn program(&self) -> String {
        let options = [
            self.cloud.map(|cloud| format!(" --cloud {cloud}")),
            self.base_url
                .as_ref()
                .map(|url| format!(" --base-url {}", quoted(url.as_str().as_ref()))),
            self.member_cid
                .as_ref()
                .map(|cid| format!(" --member-cid {}", quoted(cid.to_string().as_ref()))),
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

    /// Refuses options that contradict each other. The parser does not see one before the command
    /// and one after it together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.cloud.is_some() && self.base_url.is_some() {
            return Err(Failure::refused("give --cloud or --base-url, not both"));
        }
        if let (Some(option), true) = (self.stand_in(), self.record.is_some()) {
            return Err(Failure::refused(format!(
                "--record needs the service: leave out {option}"
            )));
        }
        if self.replay.is_none()
            && let (Some(option), true) = (self.stand_in(), self.names_a_service())
        {
            return Err(Failure::refused(format!(
                "{option} asks no service: leave out --cloud, --base-url and --member-cid"
            )));
        }
        let offline = [self.demo, self.corpus.is_some(), self.replay.is_some()];
        if offline.iter().filter(|given| **given).count() > 1 {
            return Err(Failure::refused(
                "give only one of --demo, --corpus and --replay",
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

/// What asks no service.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Check a YARA rule as the service would, so that a mistake does not cost a hunt. Sends
    /// nothing
    #[command(after_help = "Example:\n  malquery check-rule rules.yar --rule-name small_pe")]
    CheckRule {
        #[command(flatten)]
        rule: CheckedRule,
    },

    /// Verify and unpack an archive of samples, each into a file named by its SHA-256. Sends
    /// nothing
    #[command(after_help = "Example:\n  malquery extract samples.zip --output-dir samples")]
    Extract {
        /// The archive
        #[arg(value_name = "FILE")]
        archive: PathBuf,
        /// The folder for the samples
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
    },

    /// Serve a stand-in for MalQuery to any client on this machine, until Ctrl-C
    ///
    /// It searches the files of --corpus, or eight harmless ones. It prints FALCON_BASE_URL=...,
    /// FALCON_CLIENT_ID=... and FALCON_CLIENT_SECRET=..., a line each, for clients to use.
    #[command(
        after_help = "Example:\n  malquery serve --corpus DIR > serve.env &\n  set -a; source serve.env; malquery quotas"
    )]
    Serve {
        #[command(flatten)]
        options: ServeOptions,
    },

    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  malquery completions bash > /etc/bash_completion.d/malquery"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual, as troff
    #[command(after_help = "Example:\n  malquery man | man -l -")]
    Man,
}

/// How the stand-in behaves.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Listen on this port; 0 is any that is free
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port: u16,
    /// Allow this many hunts a month
    #[arg(long, value_name = "N")]
    pub(crate) hunts: Option<u64>,
    /// Allow this many downloads a month
    #[arg(long, value_name = "N")]
    pub(crate) downloads: Option<u64>,
    /// Answer this many polls of a job with `inprogress` before it is done
    #[arg(long, value_name = "N")]
    pub(crate) polls: Option<u64>,
    /// Let a job run this long: 90, 90s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) job_time: Option<Duration>,
    /// Let every job fail, or only those with these numbers; the first job has the number 1
    #[arg(long, value_name = "a,b", value_delimiter = ',', num_args = 0..=1, require_equals = false)]
    pub(crate) fail_jobs: Option<Vec<u64>>,
    /// Let a token live this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) token_life: Option<Duration>,
    /// Allow this many requests a minute
    #[arg(long, value_name = "N")]
    pub(crate) rate_limit: Option<usize>,
    /// Write a line for each request to this file, or to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) log: Option<PathBuf>,
}

/// What asks MalQuery, or what stands in for it.
#[derive(Debug, Subcommand)]
pub(crate) enum Call {
    /// Show the monthly quotas and how much of them is used
    #[command(after_help = "Example:\n  malquery quotas")]
    Quotas,

    /// Search and get results immediately; may include false positives
    #[command(
        after_help = "Example:\n  malquery fuzzy-search --ascii CreateRemoteThread --hex '89 48 20 8b' --limit 10"
    )]
    FuzzySearch {
        #[command(flatten)]
        patterns: Patterns,
        #[command(flatten)]
        results: Results,
    },

    /// Start a search for samples that hold all of the patterns
    ///
    /// Without --wait it prints the reply to the submission, whose status is always `done`. --wait
    /// or `request` gives the status of the job.
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

    /// Start a search with a YARA rule. Costs a hunt
    ///
    /// Without --wait it prints the reply to the submission, whose status is always `done`. --wait
    /// or `request` gives the status of the job.
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

    /// Show the status of a job, and its results
    #[command(after_help = "Example:\n  malquery request REQID --wait --format csv")]
    Request {
        /// The request id of the job
        #[arg(value_name = "REQID")]
        id: RequestId,
        #[command(flatten)]
        wait: Wait,
    },

    /// Resume a job or a collect from its state file
    #[command(after_help = "Example:\n  malquery resume state.json --timeout 1h")]
    Resume {
        /// The state file
        #[arg(value_name = "FILE")]
        state: PathBuf,
    },

    /// Show what MalQuery knows of samples. Costs nothing
    #[command(
        visible_alias = "lookup",
        after_help = "Example:\n  malquery metadata --from hashes.txt --format csv"
    )]
    Metadata {
        #[command(flatten)]
        samples: Samples,
    },

    /// Download a sample: raw malware. Costs a download
    #[command(after_help = "Example:\n  malquery download SHA256 --output sample.bin")]
    Download {
        /// The SHA-256 of the sample
        #[arg(value_name = "SHA256", value_parser = list::hash)]
        sample: Sha256,
        /// The file to write
        #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(file))]
        output: PathBuf,
    },

    /// Start to archive samples. Costs a download for each
    ///
    /// Without --wait it prints the reply to the submission, whose status is always `done`. --wait
    /// or `request` gives the status of the job.
    #[command(after_help = "Example:\n  malquery multidownload --from hashes.txt --wait")]
    Multidownload {
        #[command(flatten)]
        samples: Samples,
        #[command(flatten)]
        wait: Wait,
    },

    /// Fetch the archive of a multi-download, a zip with the password `infected`
    #[command(
        after_help = "Example:\n  malquery samples REQID --output samples.zip --extract samples"
    )]
    Samples {
        /// The request id of the multi-download
        #[arg(value_name = "REQID")]
        id: RequestId,
        /// The file to write
        #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(file))]
        output: PathBuf,
        /// Also write each sample into this folder, in a file named by its SHA-256
        #[arg(long, value_name = "DIR")]
        extract: Option<PathBuf>,
    },

    /// Search, wait, download, verify and unpack. Costs a download for each sample, and with a rule
    /// a hunt
    ///
    /// Without --limit all samples that are found are downloaded, and each costs a download. So it
    /// asks first, or, without a terminal, needs --yes.
    #[command(
        after_help = "Example:\n  malquery collect --demo --pattern ascii:CrowdStrike --limit 3 --output-dir out\n  malquery collect --from hashes.txt --output-dir out"
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

    /// Collect what a search or a hunt found that was submitted before, by its request id
    #[arg(long, value_name = "REQID")]
    pub(crate) request: Option<RequestId>,

    #[command(flatten)]
    pub(crate) options: Options,

    /// The folder for the archive, `samples.zip`, and for the samples, each in a file named by its
    /// SHA-256. With --force, samples of an earlier run stay in the folder: give each run a folder
    /// of its own to keep them apart
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,
    /// Leave the samples in the archive
    #[arg(long)]
    pub(crate) no_extract: bool,
    /// Keep the state of the job in this file, so that `resume` can continue it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Download all samples that are found, without asking
    #[arg(long, help_heading = "Cost")]
    pub(crate) yes: bool,
    /// Do not ask for the quotas first
    #[arg(long, help_heading = "Cost", conflicts_with = "check_quota")]
    pub(crate) no_check_quota: bool,
}

/// What finds the samples to collect.
pub(crate) enum Source {
    Samples,
    Patterns,
    Rule(PathBuf),
    Request(RequestId),
}

impl CollectArgs {
    /// What to collect: one of the four.
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
                    "give {only}one of: patterns, --rule FILE, --request REQID, or samples by their SHA-256"
                )))
            }
        }
    }
}

/// A rule to hunt with.
#[derive(Debug, Args)]
pub(crate) struct HuntRule {
    /// The file with the YARA rule; give this or --rule FILE
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
    /// The file with a YARA rule, for a hunt
    #[arg(long, value_name = "FILE")]
    pub(crate) rule: Option<PathBuf>,
    /// Send this rule of the file, with what it needs of the other rules
    #[arg(long, value_name = "NAME")]
    pub(crate) rule_name: Option<String>,
    /// Send the rule without checking it here, for example when only the service can check it
    #[arg(long)]
    pub(crate) no_check_rule: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckedRule {
    /// The file with the YARA rules
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check this rule of the file, with what it needs of the other rules
    #[arg(long, value_name = "NAME")]
    pub(crate) rule_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait until the job is done, and print its results. For a hunt, which may take an hour, give
    /// a longer --timeout
    #[arg(long)]
    pub(crate) wait: bool,

    /// Wait, and keep the state of the job in this file, so that `resume` can continue it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

impl Wait {
    pub(crate) fn is_set(&self) -> bool {
        self.wait || self.state.is_some()
    }
}

impl Call {
    /// The formats that this command can write.
    pub(crate) fn formats(&self) -> &'static [Format] {
        match self {
            Self::ExactSearch { wait, .. } | Self::Hunt { wait, .. } if !wait.is_set() => DOCUMENTS,
            Self::Quotas | Self::Download { .. } | Self::Multidownload { .. } => DOCUMENTS,
            Self::Samples { extract: None, .. } => DOCUMENTS,
            _ => RESULTS,
        }
    }

    /// The file with the state of its job.
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

    /// Whether it reads or writes this file.
    pub(crate) fn uses(&self, path: &Path) -> bool {
        let mut used: Vec<PathBuf> = self.state().map(Path::to_owned).into_iter().collect();
        match self {
            Self::Download { output, .. } | Self::Samples { output, .. } => {
                used.push(output.clone())
            }
            Self::Collect(collect) => {
                used.push(collect.output_dir.join("samples.zip"));
                used.extend(collect.rule.rule.clone());
                used.extend(collect.samples.files().map(Path::to_owned));
            }
            Self::Hunt { rule, .. } => used.push(rule.path().to_owned()),
            Self::Metadata { samples } | Self::Multidownload { samples, .. } => {
                used.extend(samples.files().map(Path::to_owned));
            }
            _ => {}
        }
        let absolute = |path: &Path| std::path::absolute(input::target(path)).ok();
        used.iter().any(|used| absolute(used) == absolute(path))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Patterns {
    /// What to find: hex:8948208b, ascii:TEXT, wide:TEXT, utf8:TEXT or utf16:TEXT. Several patterns
    /// must all occur
    #[arg(long = "pattern", value_name = "TYPE:VALUE", num_args = 1.., help_heading = "Patterns")]
    patterns: Vec<Pattern>,
    /// Find these bytes: 8948, '89 48', '\x89\x48', 0x89,0x48
    #[arg(long, value_name = "BYTES", help_heading = "Patterns", value_parser = values::hex)]
    hex: Vec<Pattern>,
    /// Find this text, a byte a character
    #[arg(long, value_name = "TEXT", help_heading = "Patterns", value_parser = values::ascii)]
    ascii: Vec<Pattern>,
    /// Find this text, two bytes a character
    #[arg(long, value_name = "TEXT", help_heading = "Patterns", value_parser = values::wide)]
    wide: Vec<Pattern>,
}

impl Patterns {
    pub(crate) fn all(&self) -> Vec<Pattern> {
        let all = [&self.patterns, &self.hex, &self.ascii, &self.wide];
        all.into_iter().flatten().cloned().collect()
    }

    /// All patterns: at least one.
    pub(crate) fn some(&self) -> Result<Vec<Pattern>, Failure> {
        let all = self.all();
        if all.is_empty() {
            return Err(Failure::refused(
                "name what to find: --pattern TYPE:VALUE, --hex, --ascii or --wide",
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

    /// Return only these fields: sha256, md5, type, size, first_seen, label, family
    #[arg(long, value_name = "a,b", value_delimiter = ',', value_parser = field, help_heading = "Filters")]
    pub(crate) meta: Vec<MetaField>,
}

impl Results {
    /// Whether the counts by label are meaningless.
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

    /// Find only samples first seen on this day or later, such as 2024-01-01
    #[arg(long, value_name = "DATE", help_heading = "Filters")]
    min_date: Option<Date>,

    /// Find only samples first seen on this day or earlier
    #[arg(long, value_name = "DATE", help_heading = "Filters")]
    max_date: Option<Date>,

    /// Find only files of this size or larger: bytes, or a number with KB, MB, KiB, MiB and so on
    #[arg(long, value_name = "SIZE", help_heading = "Filters")]
    min_size: Option<FileSize>,

    /// Find only files of this size or smaller
    #[arg(long, value_name = "SIZE", help_heading = "Filters")]
    max_size: Option<FileSize>,
}

impl Options {
    /// The options of the search. Warns of file types that nobody has seen.
    pub(crate) fn search(&self) -> SearchOptions {
        for filetype in self.filetype.iter().filter(|filetype| !filetype.is_known()) {
            note(format_args!(
                "warning: {filetype} is not a file type that MalQuery is known to have; it may find nothing"
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

/// The options of every command, each with its heading and the commands for which it does
/// something; a star stands for those that ask MalQuery.
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
    ("timeout", "Time", "* extract check-rule"),
    (
        "poll_interval",
        "Time",
        "exact-search hunt request resume multidownload collect",
    ),
    ("check_quota", "Cost", "hunt multidownload collect resume"),
];
/// The commands that ask nobody.
const LOCAL: [&str; 5] = ["check-rule", "extract", "serve", "completions", "man"];

/// The command line. Each command hides the options that do nothing for it.
pub(crate) fn command() -> clap::Command {
    let rule = "The file with the YARA rule; give this or FILE";
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
                // It is taken all the same.
                *command = std::mem::take(command).arg(hidden.clone());
            }
        }
    }
    root
}

/// Reads the command line. What is refused ends here, with 2.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}
