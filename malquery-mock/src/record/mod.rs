//! The room of recording: what goes over a transport, and what of it is written.

pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod write;
