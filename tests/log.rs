//! What is logged in the thread of a test.

use std::cell::RefCell;
use std::sync::Once;

thread_local!(static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) });

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // What carries HTTP for ureq writes out every byte at its finest level. No library can keep
        // it from that; the documentation of malquery-ureq warns of it.
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

/// Starts to keep what this thread logs.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
    LOGGED.set(Some(String::new()));
}

/// What was logged since then.
pub(crate) fn logged() -> String {
    LOGGED.with_borrow(|logged| logged.clone().unwrap_or_default())
}
