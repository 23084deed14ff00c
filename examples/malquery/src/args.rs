//! What can be said on the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use malquery_proto::credentials::MemberCid;
use malquery_proto::types::{
    Date, FileSize, FileType, MetaField, Pattern, RequestId, SearchOptions, Sha256,
};
use malquery_proto::{BaseUrl, Cloud};

use crate::output::quoted;

/// Searches the malware samples of CrowdStrike Falcon MalQuery, and downloads them.
///
/// Credentials come from FALCON_CLIENT_ID and FALCON_CLIENT_SECRET; FALCON_CLOUD, FALCON_BASE_URL and
/// FALCON_MEMBER_CID are read, too, and an option beats them. Without credentials, or with --corpus, it runs offline: a
/// stand-in for MalQuery searches your own files. Standard output is one JSON document when it succeeds, and nothing when
/// it fails, unless there are samples to tell of all the same; everything else goes to standard error.
#[derive(Debug, Parser)]
#[command(name = "malquery", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) session: Session,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Session {
    /// The cloud the account lives in: us-1, us-2, us-3, eu-1, us-gov-1 or us-gov-2.
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) cloud: Option<Cloud>,

    /// Another place to send requests to; https, or http on loopback.
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) base_url: Option<BaseUrl>,

    /// The Flight Control child to act for.
    #[arg(long, value_name = "CID", global = true)]
    pub(crate) member_cid: Option<MemberCid>,

    /// Answers from this cassette of recorded replies; nothing is sent.
    #[arg(long, value_name = "CASSETTE", global = true)]
    pub(crate) replay: Option<PathBuf>,

    /// Searches the files of this folder in place of MalQuery; nothing is sent. Each command has a stand-in of its own, whose
    /// jobs end with it.
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "replay")]
    pub(crate) corpus: Option<PathBuf>,

    /// Writes what is asked and answered into this cassette, without secrets, for --replay and for tests.
    #[arg(long, value_name = "CASSETTE", global = true)]
    pub(crate) record: Option<PathBuf>,

    /// The pause between two looks at a job.
    #[arg(long, value_name = "SECONDS", global = true, default_value = "5", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) poll_interval: Duration,

    /// The time the whole command may take. A hunt may take an hour: --timeout 3600.
    #[arg(long, value_name = "SECONDS", global = true, default_value = "600", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Duration,

    /// Stays with the cloud that was named, even when the account lives in another.
    #[arg(long, global = true)]
    pub(crate) no_region_redirect: bool,

    /// Refuses a hunt or a multi-download that the rest of the monthly quota does not cover.
    #[arg(long, global = true)]
    pub(crate) check_quota: bool,

    /// Replaces an output file or a state that is there already.
    #[arg(long, global = true)]
    pub(crate) force: bool,

    /// How many bytes may come out of an entry of an archive for each byte in it: 500 unless given. Samples that are padded
    /// with zeros need up to 1100; so does a zip bomb.
    #[arg(long, value_name = "N", global = true, value_parser = ratio, allow_negative_numbers = true)]
    pub(crate) max_ratio: Option<u64>,

    /// Sends a YARA rule without compiling it here first, say because it needs what only the service knows.
    #[arg(long, global = true)]
    pub(crate) no_check_rule: bool,

    /// Whether the jobs end with the command, in a stand-in of its own.
    #[arg(skip)]
    pub(crate) jobs_end: bool,
}

impl Session {
    /// Whether an option says which service is meant.
    pub(crate) fn names_a_service(&self) -> bool {
        self.cloud.is_some() || self.base_url.is_some() || self.member_cid.is_some()
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
            self.no_region_redirect
                .then(|| " --no-region-redirect".into()),
            self.check_quota.then(|| " --check-quota".into()),
        ];
        options
            .into_iter()
            .flatten()
            .fold("malquery".into(), |program, option| program + &option)
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
    /// Compiles a YARA rule here, so that a typo does not cost a hunt. Sends nothing.
    CheckRule {
        /// The file with the YARA rule.
        #[arg(value_name = "FILE")]
        rule: PathBuf,
    },

    /// Unpacks an archive of samples, each into a file named by its SHA-256. Sends nothing.
    Extract {
        /// The archive.
        #[arg(value_name = "FILE")]
        archive: PathBuf,
        /// The folder for the samples.
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
    },

    /// Serves a stand-in for MalQuery, over the files of --corpus, to any client on this machine, until Ctrl-C.
    ///
    /// Prints its address, and three settings for whoever is to ask it, as lines FALCON_BASE_URL=..., FALCON_CLIENT_ID=...
    /// and FALCON_CLIENT_SECRET=... With the output in a file: export $(grep FALCON_ FILE)
    Serve {
        /// The port to listen at; 0 is any that is free.
        #[arg(long, value_name = "N", default_value_t = 0)]
        port: u16,
    },
}

/// What asks MalQuery, or what stands in for it.
#[derive(Debug, Subcommand)]
pub(crate) enum Call {
    /// Shows the monthly quotas and how much of them is used.
    Quotas,

    /// Finds samples at once, with false positives.
    FuzzySearch {
        #[command(flatten)]
        patterns: Patterns,
        #[command(flatten)]
        results: Results,
    },

    /// Starts a search for samples that hold all of the patterns.
    ExactSearch {
        #[command(flatten)]
        patterns: Patterns,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        wait: Wait,
    },

    /// Starts a search with a YARA rule. Costs a hunt.
    Hunt {
        /// The file with the YARA rule.
        #[arg(long, value_name = "FILE")]
        rule: PathBuf,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        wait: Wait,
    },

    /// Shows where a job is, and its results.
    Request {
        /// The request id of the job.
        #[arg(value_name = "REQID")]
        id: RequestId,
        #[command(flatten)]
        wait: Wait,
    },

    /// Goes on with a job, or a collect, whose state was kept with --state.
    Resume {
        /// The file with the state.
        #[arg(value_name = "FILE")]
        state: PathBuf,
    },

    /// Shows what is known of samples, on a terminal as a table. Costs nothing.
    Lookup {
        /// The samples, by their SHA-256.
        #[arg(value_name = "SHA256", required = true)]
        samples: Vec<Sha256>,
    },

    /// Shows what is known of samples.
    Metadata {
        /// The samples, by their SHA-256.
        #[arg(value_name = "SHA256", required = true)]
        samples: Vec<Sha256>,
    },

    /// Downloads a sample: raw malware. Costs a download.
    Download {
        /// The sample, by its SHA-256.
        #[arg(value_name = "SHA256")]
        sample: Sha256,
        /// The file to write.
        #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(file))]
        output: PathBuf,
    },

    /// Starts to archive samples. Costs a download for each.
    Multidownload {
        /// The samples, by their SHA-256.
        #[arg(value_name = "SHA256", required = true)]
        samples: Vec<Sha256>,
        #[command(flatten)]
        wait: Wait,
    },

    /// Fetches the archive of a multi-download, a zip with the password `infected`.
    Samples {
        /// The request id of the multi-download.
        #[arg(value_name = "REQID")]
        id: RequestId,
        /// The file to write.
        #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(file))]
        output: PathBuf,
        /// Also writes each sample into this folder, in a file named by its SHA-256.
        #[arg(long, value_name = "DIR")]
        extract: Option<PathBuf>,
    },

    /// Does it all: searches, schedules the download, waits, fetches the archive, and unpacks it. Costs a download for each
    /// sample, and with --rule a hunt.
    ///
    /// Without --limit everything that is found is downloaded, and each sample is a download of the month.
    Collect {
        #[command(flatten)]
        job: CollectJob,
        #[command(flatten)]
        options: Options,
        /// The folder for the archive, `samples.zip`, and for the samples, each in a file named by its SHA-256.
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
        /// Leaves the samples in the archive.
        #[arg(long)]
        no_extract: bool,
        /// Keeps the state of the job in this file, so that `resume` can go on with it.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
    },
}

/// What finds the samples to collect.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct CollectJob {
    /// What to look for: hex:8948208b48, ascii:TEXT or wide:TEXT. Several must all occur.
    #[arg(long = "pattern", value_name = "TYPE:VALUE", num_args = 1..)]
    pub(crate) patterns: Vec<Pattern>,

    /// The file with a YARA rule, for a hunt. Costs a hunt.
    #[arg(long, value_name = "FILE")]
    pub(crate) rule: Option<PathBuf>,

    /// The request id of a search or a hunt that was submitted before. Of the options only --limit counts.
    #[arg(long, value_name = "REQID")]
    pub(crate) request: Option<RequestId>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Waits until the job is done, and prints its results. For a hunt, which may take an hour, give a longer --timeout.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Waits, and keeps the state of the job in this file, so that `resume` can go on with it.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

impl Call {
    /// Whether it goes on with a real job, of which a demonstration knows nothing.
    pub(crate) fn is_resume(&self) -> bool {
        matches!(self, Self::Resume { .. })
    }

    /// Whether it counts on jobs that outlive it.
    pub(crate) fn keeps_state(&self) -> bool {
        self.state().is_some()
    }

    /// The file with the state of its job.
    fn state(&self) -> Option<&Path> {
        match self {
            Self::ExactSearch { wait, .. }
            | Self::Hunt { wait, .. }
            | Self::Request { wait, .. }
            | Self::Multidownload { wait, .. } => wait.state.as_deref(),
            Self::Collect { state, .. } => state.as_deref(),
            Self::Resume { state } => Some(state),
            _ => None,
        }
    }

    /// Whether it reads or writes this file.
    pub(crate) fn uses(&self, path: &Path) -> bool {
        let output = match self {
            Self::Download { output, .. } | Self::Samples { output, .. } => Some(output.clone()),
            Self::Collect { output_dir, .. } => Some(output_dir.join("samples.zip")),
            _ => None,
        };
        let rule = match self {
            Self::Hunt { rule, .. } => Some(rule.as_path()),
            Self::Collect { job, .. } => job.rule.as_deref(),
            _ => None,
        };
        let absolute = |path: &Path| std::path::absolute(path).ok();
        [output.as_deref(), self.state(), rule]
            .into_iter()
            .flatten()
            .any(|used| absolute(used) == absolute(path))
    }
}

impl Wait {
    pub(crate) fn is_set(&self) -> bool {
        self.wait || self.state.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Patterns {
    /// What to look for: hex:8948208b48, ascii:TEXT or wide:TEXT. Several must all occur.
    #[arg(long = "pattern", value_name = "TYPE:VALUE", required = true, num_args = 1..)]
    pub(crate) patterns: Vec<Pattern>,
}

#[derive(Debug, Args)]
pub(crate) struct Results {
    /// Returns at most this many results.
    #[arg(long, value_name = "N", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) limit: Option<u32>,

    /// Returns only these fields: sha256, md5, type, size, first_seen, label, family.
    #[arg(long, value_name = "a,b", value_delimiter = ',', value_parser = trimmed::<MetaField>)]
    pub(crate) meta: Vec<MetaField>,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    results: Results,

    /// Finds only files of these types, such as pe32,pe64.
    #[arg(long, value_name = "a,b", value_delimiter = ',', value_parser = trimmed::<FileType>)]
    filetype: Vec<FileType>,

    /// Finds only samples first seen on this day or later, as YYYY/MM/DD.
    #[arg(long, value_name = "D")]
    min_date: Option<Date>,

    /// Finds only samples first seen on this day or earlier, as YYYY/MM/DD.
    #[arg(long, value_name = "D")]
    max_date: Option<Date>,

    /// Finds only files of this size or larger: bytes, or a number with KB, MB or GB.
    #[arg(long, value_name = "S")]
    min_size: Option<FileSize>,

    /// Finds only files of this size or smaller.
    #[arg(long, value_name = "S")]
    max_size: Option<FileSize>,
}

impl Options {
    pub(crate) fn limit(&self) -> Option<u32> {
        self.results.limit
    }
}

impl From<Options> for SearchOptions {
    fn from(options: Options) -> Self {
        let mut search = Self::new()
            .filter_meta(options.results.meta)
            .filter_filetypes(options.filetype);
        if let Some(limit) = options.results.limit {
            search = search.limit(limit);
        }
        if let Some(date) = options.min_date {
            search = search.min_date(date);
        }
        if let Some(date) = options.max_date {
            search = search.max_date(date);
        }
        if let Some(size) = options.min_size {
            search = search.min_size(size);
        }
        if let Some(size) = options.max_size {
            search = search.max_size(size);
        }
        search
    }
}

/// An element of a list, with or without a space behind the comma.
fn trimmed<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.trim().parse()
}

/// Where a sample goes: malware is not for a terminal, and a file of that name was not meant.
fn file(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.as_os_str() == "-" {
        Err("samples are written to files only; name one")
    } else {
        Ok(path)
    }
}

fn ratio(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .ok()
        .filter(|ratio| *ratio > 0)
        .ok_or("give a whole number of at least 1")
}

fn limit(text: &str) -> Result<u32, &'static str> {
    text.parse()
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or("give a whole number from 1 to 4294967295")
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds")?;
    if seconds.is_nan() {
        return Err("give a number of seconds".into());
    }
    // A year is as good as for ever, and does not overflow anything.
    Duration::try_from_secs_f64(seconds.min(31_536_000.0))
        .map_err(|_| "give a number of seconds of at least 0".into())
}
