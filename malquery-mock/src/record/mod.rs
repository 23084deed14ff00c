//! Records the exchanges of a transport, and converts them to cassettes.

pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod write;
