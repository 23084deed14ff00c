//! The transport on real sockets, against servers that each test scripts byte by byte.

mod bodies;
mod connections;
mod deadlines;
mod environment;
mod faults;
mod logs;
mod proxies;
mod requests;
mod server;
mod tls;
