//! The `malquery` command line: every operation of MalQuery, and the whole job in one command.
//!
//! It is an example of the client, and meant to be used: standard output is exactly one JSON document when it
//! succeeds, messages go to standard error, and it exits with 0 when it is done, with 2 for input that was refused
//! before anything was sent, and with 1 for everything else. Then standard output is empty, unless an archive is not
//! complete: what is in it is told. `serve` prints lines instead, and goes on, and `lookup` a table on a terminal.

mod args;
mod collect;
mod commands;
mod interrupt;
mod output;
mod state;
mod watch;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use malquery_mock::{Cassette, Corpus, Mode, Server, Service, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::{Client, Clock, Cloud, Credentials, Transport};
use malquery_ureq::{Settings, SystemClock, UreqTransport};

use crate::args::{Call, Cli, Command, Local, Session};
use crate::interrupt::Interruptible;
use crate::output::{Failure, note};

/// What is searched when there are neither credentials nor a corpus: a few harmless files.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

/// Where jobs outlive the command without MalQuery.
const SERVE: &str = "start `malquery serve`, and export the three settings it prints";

fn main() -> ExitCode {
    // Refused input ends here, with 2.
    let cli = Cli::parse();
    output::show_warnings();
    interrupt::listen();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(format_args!("error: {}", failure.message()));
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli {
        mut session,
        command,
    } = cli;
    // Not for the parser, which does not see an option before the command and one after it together.
    if session.cloud.is_some() && session.base_url.is_some() {
        return Err(Failure::Invalid(
            "give --cloud or --base-url, not both".into(),
        ));
    }
    if session.record.is_some() && (session.replay.is_some() || session.corpus.is_some()) {
        return Err(Failure::Invalid(
            "--record needs the service: give it without --replay and without --corpus".into(),
        ));
    }
    if session.corpus.is_some() && session.names_a_service() {
        return Err(Failure::Invalid(
            "--corpus asks no service: give it without --cloud, --base-url and --member-cid".into(),
        ));
    }
    let command = match command {
        Command::Call(command) => command,
        Command::Local(Local::CheckRule { rule }) => return commands::check_rule(&rule),
        Command::Local(Local::Extract {
            archive,
            output_dir,
        }) => {
            return collect::extract(&session, &archive, &output_dir);
        }
        Command::Local(Local::Serve { port }) => return serve(&session, port),
    };
    let invalid = |error: &dyn std::error::Error| Failure::invalid(error);
    if let Some(path) = &session.replay {
        let cassette = Cassette::load(path).map_err(|error| invalid(&error))?;
        return offline(
            cassette.transport(),
            Credentials::new("offline", "offline"),
            &session,
            command,
        );
    }
    // Who names a service means it, and must not be served a demonstration in its place.
    let is_real = credentials_are_set()
        || session.names_a_service()
        || session.record.is_some()
        || command.is_resume();
    if session.corpus.is_none() && is_real {
        let settings = Settings::from_lookup(|name| lookup(&session, name)).map_err(|error| {
            if credentials_are_set() || session.names_a_service() {
                return invalid(&error);
            }
            Failure::Invalid(format!("{error}; or, offline, {SERVE}"))
        })?;
        let auth = Auth::new(settings.base, settings.credentials)
            .follow_region(!session.no_region_redirect);
        if let Some(path) = &session.record {
            return record(path, auth, &session, command);
        }
        let transport = UreqTransport::builder()
            .build()
            .map_err(|error| invalid(&error))?;
        return commands::run(
            &client(transport, SystemClock, auth, &session),
            &session,
            command,
        );
    }
    if command.keeps_state() {
        return Err(Failure::Invalid(format!(
            "offline the jobs end with the command, and there is no state to keep; {SERVE}"
        )));
    }
    session.jobs_end = true;
    let service = Service::new(corpus(&session, false)?);
    let credentials = Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET);
    offline(service, credentials, &session, command)
}

/// The files that stand in for the samples of MalQuery.
fn corpus(session: &Session, is_serving: bool) -> Result<Corpus, Failure> {
    let folder = session.corpus.as_deref().unwrap_or(DEMO.as_ref());
    let corpus = Corpus::open(folder).map_err(|error| Failure::invalid(&error))?;
    for skipped in corpus.skipped() {
        note(format_args!("warning: {skipped}"));
    }
    let count = corpus.len();
    if count == 0 {
        note(format_args!(
            "warning: there is nothing to search in {}",
            folder.display()
        ));
    }
    let files = if count == 1 { "file" } else { "files" };
    match &session.corpus {
        Some(folder) if is_serving => {
            note(format_args!("over {count} {files} of {}", folder.display()))
        }
        Some(folder) => note(format_args!(
            "offline, over {count} {files} of {}",
            folder.display()
        )),
        None if is_serving => note(format_args!(
            "over {count} harmless files that ship with this example"
        )),
        None => note(format_args!(
            "no FALCON_CLIENT_ID and FALCON_CLIENT_SECRET: offline, over {count} harmless files that ship with this \
             example; give --corpus DIR to search your own"
        )),
    }
    Ok(corpus)
}

/// Serves the stand-in until Ctrl-C.
fn serve(session: &Session, port: u16) -> Result<(), Failure> {
    if session.names_a_service() || session.replay.is_some() || session.record.is_some() {
        return Err(Failure::Invalid(
            "serve asks no service: give it --corpus and --port alone".into(),
        ));
    }
    let corpus = corpus(session, true)?;
    let failed = |error: &dyn std::error::Error| Failure::failed(error);
    // Other ids than those of another one, so that a state is not taken up where it does not belong.
    let service = Service::new(corpus).seed(SystemClock.now().as_millis());
    let server = Server::start(service, (Ipv4Addr::LOCALHOST, port).into())
        .map_err(|error| failed(&error))?;
    interrupt::is_no_error();
    let (url, id, secret) = (server.url(), Service::CLIENT_ID, Service::CLIENT_SECRET);
    output::write(
        format!(
            "{url}\nFALCON_BASE_URL={url}\nFALCON_CLIENT_ID={id}\nFALCON_CLIENT_SECRET={secret}\n"
        )
        .as_bytes(),
    )?;
    loop {
        thread::park();
    }
}

/// Runs a command without a network. Waiting takes no time.
fn offline(
    transport: impl Transport + 'static,
    credentials: Credentials,
    session: &Session,
    command: Call,
) -> Result<(), Failure> {
    let base = session
        .base_url
        .clone()
        .unwrap_or_else(|| session.cloud.unwrap_or(Cloud::Us1).into());
    let auth = Auth::new(base, credentials);
    commands::run(
        &client(transport, VirtualClock::new(), auth, session),
        session,
        command,
    )
}

/// Records what the command does, also when it fails: an error of the service is worth a test, too.
fn record(path: &Path, auth: Auth, session: &Session, command: Call) -> Result<(), Failure> {
    if path.exists() && !session.force {
        return Err(Failure::Invalid(format!(
            "{} is there already; --force replaces it",
            path.display()
        )));
    }
    if command.uses(path) {
        return Err(Failure::Invalid(format!(
            "the command itself uses {}; record into another file",
            path.display()
        )));
    }
    let transport = UreqTransport::builder()
        .build()
        .map_err(|error| Failure::invalid(&error))?;
    let (transport, guard) = malquery_mock::Session::new(path)
        .mode(Mode::Record)
        .transport(|| transport)
        .map_err(|error| Failure::invalid(&error))?;
    interrupt::record(path, guard);
    let result = commands::run(
        &client(transport, SystemClock, auth, session),
        session,
        command,
    );
    if let Err(error) = interrupt::end_recording() {
        match &result {
            Ok(()) => return Err(Failure::failed(&error)),
            // One error is told, and the command is what was asked for.
            Err(_) => note(format_args!("{error}")),
        }
    }
    result
}

fn client(
    transport: impl Transport + 'static,
    clock: impl Clock + 'static,
    auth: Auth,
    session: &Session,
) -> Client {
    let deadline = clock.now().after(session.timeout);
    Client::new(Interruptible(transport), Interruptible(clock), auth)
        .deadline(deadline)
        .check_quota(session.check_quota)
}

/// A half of the credentials, or a service without them, is a mistake, and no reason to run offline.
fn credentials_are_set() -> bool {
    [
        "FALCON_CLIENT_ID",
        "FALCON_CLIENT_SECRET",
        "FALCON_BASE_URL",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// A setting from an option, else from the environment.
fn lookup(session: &Session, name: &str) -> Option<OsString> {
    let option = match name {
        "FALCON_CLOUD" => session.cloud.map(|cloud| cloud.to_string()),
        "FALCON_BASE_URL" => match (&session.base_url, session.cloud) {
            (Some(base), _) => Some(base.to_string()),
            (None, Some(_)) => return None,
            (None, None) => None,
        },
        "FALCON_MEMBER_CID" => session.member_cid.as_ref().map(|cid| cid.to_string()),
        _ => None,
    };
    option
        .map(OsString::from)
        .or_else(|| std::env::var_os(name))
}
