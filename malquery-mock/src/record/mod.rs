//! Recording: the exchanges of a transport, and what is written of them.

pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod write;
