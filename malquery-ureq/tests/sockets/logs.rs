//! Logs, errors and `Debug` contain no secrets.

use std::sync::Mutex;

use malquery_proto::client::Error;
use malquery_proto::flow::{Auth, RetryPolicy};
use malquery_proto::operations::Hunt;
use malquery_proto::{BaseUrl, Credentials};
use malquery_ureq::{Client, SystemClock};

use crate::server::{QUOTAS, Seen, Server, hang, impatient, json, reply};

static LOG: Mutex<String> = Mutex::new(String::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Only at this level, ureq logs all bytes. The crate documentation warns about that.
        if record.target().starts_with("ureq_proto") && record.level() == log::Level::Trace {
            return;
        }
        *LOG.lock().unwrap() += &format!("{} {}\n", record.target(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn logs_errors_and_debug_show_no_secret() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = Server::start(|request: &Seen, out| {
        if request.line().starts_with("POST /oauth2/token") {
            return reply(
                out,
                "201 Created",
                "",
                br#"{"access_token":"l0gged-token","expires_in":1799}"#,
            );
        }
        match request.line().contains("quotas") {
            true => json(out, QUOTAS),
            false => hang(),
        }
    });
    let base: BaseUrl = server.url("").parse().unwrap();
    let auth = Auth::new(base, Credentials::new("an-id", "l0gged-secret"));
    let client = Client::new(impatient(), SystemClock, auth).retry(RetryPolicy::never());
    client.quotas().unwrap();
    let error = client
        .hunt(&Hunt::new("rule l0gged_rule { condition: true }"))
        .unwrap_err();
    assert!(matches!(&error, Error::Flow { .. }));
    let shown = format!("{error} {error:?} {client:?} {}", LOG.lock().unwrap());
    assert!(shown.contains("ureq"), "the logs are there");
    assert!(
        !shown.contains("l0gged"),
        "{}",
        shown.lines().find(|line| line.contains("l0gged")).unwrap()
    );
}
