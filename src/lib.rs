//! popcore: a thread-per-core POP3 server for Linux.

pub mod proto;
pub mod session;
pub mod wire;

pub mod auth;
pub mod limits;
pub mod ring;
pub mod auth;
pub mod limits;
pub mod maildrop;
pub mod proto;
pub mod wire;
pub mod admin;
pub mod config;
pub mod limits;
pub mod observe;
