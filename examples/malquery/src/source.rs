//! Chooses where replies come from: MalQuery, a stand-in or a cassette.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use malquery_mock::{Cassette, Corpus, Mode, Service, VirtualClock};
use malquery_proto::flow::Auth;
use malquery_proto::{Client, Clock, Cloud, Credentials, Transport};
use malquery_ureq::{EnvError, Settings, SystemClock, UreqTransport};
use percent_encoding::percent_decode_str;

use crate::args::{Call, Session};
use crate::format::Format;
use crate::interrupt::{self, Interruptible};
use crate::output::{self, Failure, already_exists, note};
use crate::state::Lock;
use crate::values::login;
use crate::{commands, demo, input};

/// The hint on how to keep offline jobs beyond the end of a command.
const SERVE: &str = "start `malquery serve` and export the settings that it prints";

const CLIENT_SECRET: &str = "FALCON_CLIENT_SECRET";

pub(crate) fn run(mut session: Session, format: Format, call: Call) -> Result<(), Failure> {
    call.check_files(&session)?;
    if let Some(path) = &session.replay {
        let cassette = {
            let owned = input::target(path);
            let loaded = input::within(path, move || Cassette::load(owned))?;
            loaded.map_err(|error| Failure::invalid(&error))?
        };
        say_offline(&format!("offline: replaying {}", path.display()))?;
        let client = offline(
            cassette.with_tokens().transport(),
            Credentials::new("offline", "offline"),
            &session,
        );
        return commands::run(&client, &session, format, call);
    }
    if session.stand_in().is_none() {
        return real(&session, format, call);
    }
    if call.state().is_some() {
        let why = "with --demo or --corpus, a job ends when the command ends, so there is no state to save and no job to resume";
        return Err(Failure::refused(why).hint(SERVE));
    }
    session.jobs_end = true;
    let corpus = corpus(&session)?;
    say_offline(&format!(
        "offline: searching {}, not MalQuery",
        over(&session, &corpus)
    ))?;
    let credentials = Credentials::new(Service::CLIENT_ID, Service::CLIENT_SECRET);
    let client = offline(Service::new(corpus), credentials, &session);
    commands::run(&client, &session, format, call)
}

/// Shows that the command runs offline: on standard error, unless --quiet is given, and on standard
/// output if that is a terminal and standard error is not.
fn say_offline(message: &str) -> Result<(), Failure> {
    note(format_args!("{message}"));
    if io::stdout().is_terminal() && !io::stderr().is_terminal() {
        return output::write(&format!("{message}\n"));
    }
    Ok(())
}

fn real(session: &Session, format: Format, call: Call) -> Result<(), Failure> {
    if let Call::Resume { state } = &call {
        input::check_regular(state)?;
    }
    let settings =
        Settings::from_lookup(|name| lookup(session, name)).map_err(|error| match error {
            EnvError::Missing(name) => no_credentials(session, name, &call),
            error => Failure::invalid(&error),
        })?;
    let passwords = proxy_passwords();
    let secret = std::env::var(CLIENT_SECRET).unwrap_or_default();
    let secrets = passwords.iter().map(String::as_str).chain([secret.trim()]);
    let shown = secrets.filter(|secret| !secret.is_empty() && !output::hide(secret));
    if shown.count() > 0 {
        note(format_args!(
            "warning: the client secret or a proxy password is shorter than 6 bytes, so it cannot be masked in the output"
        ));
    }
    let auth =
        Auth::new(settings.base, settings.credentials).follow_region(!session.no_region_redirect);
    let transport = transport(session)?;
    let Some(path) = &session.record else {
        return commands::run(
            &client(transport, SystemClock, auth, session),
            session,
            format,
            call,
        );
    };
    let recording = malquery_mock::Session::new(input::target(path)).secrets(passwords);
    record(path, recording, transport, auth, session, format, call)
}

/// Returns the secrets in the proxy variables, both percent-decoded and as written.
fn proxy_passwords() -> Vec<String> {
    let urls = ["https_proxy", "all_proxy", "http_proxy"]
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_ascii_uppercase()])
        .filter_map(|name| std::env::var(name).ok());
    urls.filter_map(|url| password(&url)).flatten().collect()
}

/// Returns the password in a URL, or else the user name: percent-decoded, then as written.
fn password(url: &str) -> Option<[String; 2]> {
    let login = login(url)?;
    // If there is no password, the user name may be a secret, such as an API key.
    let (name, password) = login.split_once(':').unwrap_or((login, ""));
    let written = if password.is_empty() { name } else { password };
    let sent = percent_decode_str(written).decode_utf8_lossy();
    Some([sent.into_owned(), written.to_owned()])
}

/// Returns the failure for missing credentials. `first` is the first variable that is not set.
fn no_credentials(session: &Session, first: &str, call: &Call) -> Failure {
    let is_blank = |value: OsString| value.to_str().is_some_and(|value| value.trim().is_empty());
    let both = first != CLIENT_SECRET && lookup(session, CLIENT_SECRET).is_none_or(is_blank);
    let message = match both {
        true => format!("{first} and {CLIENT_SECRET} are not set"),
        false => format!("{first} is not set"),
    };
    let demo = match call {
        // Offline, there is nothing to resume.
        Call::Resume { .. } => "",
        _ => ", or use --demo to try the program on harmless files",
    };
    Failure::refused(message).hint(format!(
        "create an API client in the Falcon console, and set FALCON_CLIENT_ID and {CLIENT_SECRET} to \
         its id and secret{demo}"
    ))
}

fn transport(session: &Session) -> Result<UreqTransport, Failure> {
    let mut builder = UreqTransport::builder();
    if let Some(path) = &session.ca_file {
        builder = builder.root_certificate_file(path);
    }
    // The builder also reads the file that `SSL_CERT_FILE` names.
    let variable = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let path = session.ca_file.clone().or(variable).unwrap_or_default();
    let built = input::within(&path, || builder.build())?;
    built.map_err(|error| Failure::invalid(&error))
}

/// Runs a command and records it, even if it fails, because tests need error replies too.
fn record(
    path: &Path,
    recording: malquery_mock::Session,
    transport: UreqTransport,
    auth: Auth,
    session: &Session,
    format: Format,
    call: Call,
) -> Result<(), Failure> {
    if path.is_file() && !session.force {
        return Err(already_exists(path));
    }
    // Without the lock, a second command could not save its recording.
    let _lock = Lock::take(&input::target(path))?;
    let (transport, guard) = recording
        .mode(Mode::Record)
        .transport(|| transport)
        .map_err(|error| Failure::invalid(&error))?;
    interrupt::record(path, guard);
    let result = commands::run(
        &client(transport, SystemClock, auth, session),
        session,
        format,
        call,
    );
    if let Err(failure) = interrupt::end_recording() {
        match &result {
            Ok(()) => return Err(failure),
            // The command's own error matters most, so it comes last.
            Err(_) => failure.show(),
        }
    }
    result
}

/// Returns the files to search in place of MalQuery.
pub(crate) fn corpus(session: &Session) -> Result<Corpus, Failure> {
    let Some(folder) = &session.corpus else {
        return Ok(demo::corpus());
    };
    let corpus = Corpus::open(folder).map_err(|error| Failure::invalid(&error))?;
    for skipped in corpus.skipped() {
        note(format_args!("warning: {skipped}"));
    }
    if corpus.is_empty() {
        note(format_args!(
            "warning: no files to search in {}",
            folder.display()
        ));
    }
    Ok(corpus)
}

/// Describes the files to search, for messages.
pub(crate) fn over(session: &Session, corpus: &Corpus) -> String {
    let count = corpus.len();
    let files = if count == 1 { "file" } else { "files" };
    match &session.corpus {
        Some(folder) => format!("{count} {files} in {}", folder.display()),
        None => format!("{count} harmless demo {files}"),
    }
}

/// Returns a client that uses no network. Its pauses take almost no time.
fn offline(
    transport: impl Transport + 'static,
    credentials: Credentials,
    session: &Session,
) -> Client {
    let base = session
        .base_url
        .clone()
        .unwrap_or_else(|| session.cloud.unwrap_or(Cloud::Us1).into());
    client(
        transport,
        VirtualClock::new(),
        Auth::new(base, credentials),
        session,
    )
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

/// Returns a setting from its option, falling back to the environment. --cloud also overrides
/// FALCON_BASE_URL.
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
