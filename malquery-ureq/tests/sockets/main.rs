//! The transport on real sockets, against servers that do what the test says, byte by byte.

mod calls;
mod faults;
mod process;
mod server;
mod tls;
