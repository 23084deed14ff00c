//! Captures the log of a test's thread.

use std::cell::RefCell;
use std::sync::Once;

thread_local!(static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) });

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // The HTTP layer of ureq logs all bytes at the trace level. No library can prevent this,
        // and the documentation of malquery-ureq warns about it.
        !metadata.target().starts_with("ureq_proto") || metadata.level() < log::Level::Trace
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.with_borrow_mut(|logged| {
            if let Some(logged) = logged.as_mut().filter(|_| self.enabled(record.metadata())) {
                *logged += &format!("{} {} {}\n", record.level(), record.target(), record.args());
            }
        });
    }

    fn flush(&self) {}
}

/// Starts to capture the log of this thread.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
    LOGGED.set(Some(String::new()));
}

pub(crate) fn logged() -> String {
    LOGGED.with_borrow(|logged| logged.clone().unwrap_or_default())
}
