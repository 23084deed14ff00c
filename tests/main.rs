//! The tests that cross crates, in one program.

mod cassettes;
mod client;
mod collect;
mod downloads;
mod errors;
mod fake;
mod fault_parity;
mod faults;
mod fuzz_targets;
mod log;
mod replies;
mod requests;
mod secrets;
mod security_page;
mod threads;
