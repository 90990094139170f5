//! popcore: a thread-per-core POP3 server for Linux.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod conn;
pub mod limits;
pub mod maildrop;
pub mod observe;
pub mod proto;
pub mod ring;
pub mod server;
pub mod session;
pub mod shard;
pub mod tls;
pub mod wire;
