//! The `malquery` command line: every operation of MalQuery, and the whole job in one command.
//!
//! It is an example of the client, and meant to be used: standard output is exactly one JSON document, messages
//! go to standard error, and it exits with 0 when it is done, with 2 for input that was refused before anything
//! was sent, and with 1 for everything else.

mod args;
mod commands;
mod interrupt;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use malquery_mock::{Cassette, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::{Client, Clock, Cloud, Credentials, Transport};
use malquery_ureq::{Settings, SystemClock, UreqTransport};

use crate::args::{Cli, Command, Session};
use crate::output::{Failure, note};

/// What runs when there are neither credentials nor `--replay`.
const OFFLINE: &str = include_str!("../cassettes/offline.json");

fn main() -> ExitCode {
    // Refused input ends here, with 2.
    let cli = Cli::parse();
    interrupt::listen();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(format_args!("error: {}", failure.line()));
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { session, command } = cli;
    // Not for the parser, which does not see an option before the command and one after it together.
    if session.cloud.is_some() && session.base_url.is_some() {
        return Err(Failure::Invalid("give --cloud or --base-url, not both".into()));
    }
    let invalid = |error: &dyn std::error::Error| Failure::invalid(error);
    match &session.replay {
        Some(path) => replay(&Cassette::load(path).map_err(|error| invalid(&error))?, &session, command),
        // Who names a service means it, and must not be served a demonstration in its place.
        None if credentials_are_set() || session.names_a_service() || command.is_resume() => {
            let settings =
                Settings::from_lookup(|name| lookup(&session, name)).map_err(|error| invalid(&error))?;
            let auth =
                Auth::new(settings.base, settings.credentials).follow_region(!session.no_region_redirect);
            commands::run(&client(UreqTransport::new(), SystemClock, auth, &session), &session, command)
        }
        None => {
            note(format_args!(
                "no FALCON_CLIENT_ID and FALCON_CLIENT_SECRET: running offline, on recorded replies that ship with \
                 this example"
            ));
            let cassette = Cassette::parse("offline.json", OFFLINE).map_err(|error| invalid(&error))?;
            let result = replay(&cassette, &session, command);
            if let Err(Failure::Failed(_)) = result {
                note(format_args!(
                    "offline there are replies only for: quotas; fuzzy-search, exact-search and collect with --pattern \
                     ascii:CrowdStrike and no --limit or --limit 3; and what these lead to"
                ));
            }
            result
        }
    }
}

/// Answers from a cassette. Recorded time passes at once.
fn replay(cassette: &Cassette, session: &Session, command: Command) -> Result<(), Failure> {
    let base = session.base_url.clone().unwrap_or_else(|| session.cloud.unwrap_or(Cloud::Us1).into());
    let auth = Auth::new(base, Credentials::new("offline", "offline"));
    commands::run(&client(cassette.transport(), VirtualClock::new(), auth, session), session, command)
}

fn client<T: Transport, C: Clock>(transport: T, clock: C, auth: Auth, session: &Session) -> Client<T, C> {
    let deadline = clock.now().after(session.timeout);
    Client::new(transport, clock, auth).deadline(deadline).check_quota(session.check_quota)
}

/// A half of the credentials is a mistake, and no reason to run offline.
fn credentials_are_set() -> bool {
    ["FALCON_CLIENT_ID", "FALCON_CLIENT_SECRET"]
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
    option.map(OsString::from).or_else(|| std::env::var_os(name))
}
