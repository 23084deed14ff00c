//! Runs the stand-in as a server for other programs.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;

use malquery_mock::{Server, Service};
use malquery_proto::Clock;
use malquery_ureq::SystemClock;

use crate::args::{ServeOptions, Session};
use crate::interrupt;
use crate::output::{Failure, error, note, write};
use crate::source;

/// Runs the stand-in until a signal ends it.
pub(crate) fn serve(session: &Session, options: &ServeOptions) -> Result<(), Failure> {
    if session.names_a_service() || session.replay.is_some() || session.record.is_some() {
        return Err(Failure::refused(
            "`serve` does not support --cloud, --base-url, --member-cid, --replay or --record; remove these options",
        ));
    }
    let corpus = source::corpus(session)?;
    note(format_args!("serving {}", source::over(session, &corpus)));
    // Give each server different ids, so that no state file is resumed on the wrong server.
    let mut service = Service::new(corpus).seed(SystemClock.now().as_millis());
    if let Some(hunts) = options.hunts {
        service = service.hunts(hunts);
    }
    if let Some(downloads) = options.downloads {
        service = service.downloads(downloads);
    }
    if let Some(polls) = options.polls {
        service = service.polls(polls);
    }
    if let Some(time) = options.job_time {
        service = service.job_time(time);
    }
    if let Some(jobs) = options.fail_jobs.clone() {
        service = service.fail_jobs(move |job| jobs.is_empty() || jobs.contains(&job));
    }
    if let Some(life) = options.token_life {
        service = service.token_life(life);
    }
    if let Some(requests) = options.rate_limit {
        service = service.rate_limit(requests);
    }
    if let Some(path) = &options.log {
        service = log_to(service, path)?;
    }
    let server = Server::start(service, (Ipv4Addr::LOCALHOST, options.port).into())
        .map_err(|error| Failure::failed(&error))?;
    interrupt::is_no_error();
    let (url, id, secret) = (server.url(), Service::CLIENT_ID, Service::CLIENT_SECRET);
    write(&format!(
        "FALCON_BASE_URL={url}\nFALCON_CLIENT_ID={id}\nFALCON_CLIENT_SECRET={secret}\n"
    ))?;
    loop {
        thread::park();
    }
}

/// Makes the stand-in write a line for each request to a file. `-` is standard error.
fn log_to(service: Service, path: &Path) -> Result<Service, Failure> {
    if path.as_os_str() == "-" {
        return Ok(service.log(|line| error(format_args!("{line}"))));
    }
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    // The stand-in keeps running if the log cannot be written.
    Ok(service.log(move |line| drop((&file).write_all(format!("{line}\n").as_bytes()))))
}
