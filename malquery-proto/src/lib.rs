//! The CrowdStrike Falcon MalQuery protocol, without I/O.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
pub mod client;
pub mod cloud;
pub mod error;
pub mod flow;
#[cfg(feature = "fs")]
mod fs;
pub mod oauth2;
pub mod operation;
pub mod operations;
mod secret;
pub mod stream;
mod time;
pub mod types;

#[cfg(feature = "client")]
pub use client::{Client, Clock, Transport};
pub use cloud::{BaseUrl, Cloud};
pub use oauth2::Credentials;
pub use time::Timestamp;
