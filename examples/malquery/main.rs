//! The `malquery` command line: every operation of MalQuery, and the whole job in one command.
//!
//! It is an example of the client, and meant to be used: standard output is exactly one JSON document, messages
//! go to standard error, and it exits with 0 when it is done, with 2 for input that was refused before anything
//! was sent, and with 1 for everything else.

mod args;
mod commands;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use malquery_mock::{Cassette, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::{Client, Clock, Credentials, Transport};
use malquery_ureq::{Settings, SystemClock, UreqTransport};

use crate::args::{Cli, Session};
use crate::output::{Failure, note};

/// What runs when there are neither credentials nor `--replay`.
const OFFLINE: &str = include_str!("../cassettes/offline.json");

fn main() -> ExitCode {
    // Refused input ends here, with 2.
    let cli = Cli::parse();
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
    let cassette = match &session.replay {
        Some(path) => Some(Cassette::load(path).map_err(|error| Failure::invalid(&error))?),
        None if credentials_are_set() => None,
        None => {
            note(format_args!(
                "no FALCON_CLIENT_ID and FALCON_CLIENT_SECRET: running offline, on recorded replies that ship with \
                 this example"
            ));
            Some(Cassette::parse("offline.json", OFFLINE).map_err(|error| Failure::invalid(&error))?)
        }
    };
    match cassette {
        Some(cassette) => {
            // Recorded time passes at once.
            let base = session
                .base_url
                .clone()
                .unwrap_or_else(|| session.cloud.unwrap_or(malquery_proto::Cloud::Us1).into());
            let auth = Auth::new(base, Credentials::new("offline", "offline"));
            commands::run(
                &client(cassette.transport(), VirtualClock::new(), auth, &session),
                &session,
                command,
            )
        }
        None => {
            let settings = Settings::from_lookup(|name| lookup(&session, name))
                .map_err(|error| Failure::invalid(&error))?;
            let auth = Auth::new(settings.base, settings.credentials);
            commands::run(&client(UreqTransport::new(), SystemClock, auth, &session), &session, command)
        }
    }
}

fn client<T: Transport, C: Clock>(transport: T, clock: C, auth: Auth, session: &Session) -> Client<T, C> {
    let deadline = clock.now().after(session.timeout);
    Client::new(transport, clock, auth).deadline(deadline)
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
