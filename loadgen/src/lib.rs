//! A load generator for any POP3 server.
//!
//! It shares no code with popcore: what it says about a server is a second
//! opinion, drawn from the RFCs alone. Data flows one way through it:
//!
//! - [`args`] -> [`plan`]: what to do, checked; [`scenario`] says what a session
//!   does, [`pace`] when it begins, [`users`] and [`pool`] who logs in
//! - [`series`]: one run, or many: repetitions, two targets, the search for the
//!   highest rate by an objective ([`slo`])
//! - [`run`]: starts the threads, watches the clock and the operator's wish to end
//!   ([`interrupt`]), measures the server ([`server_process`], [`switches`]), shows
//!   how things are ([`live`])
//! - [`engine`]: one thread's sockets and epoll; [`tls`] and [`proxy`] for what
//!   lies between socket and session
//! - [`dialogue`]: one session's commands, no IO; [`auth`] its login;
//!   [`maildrop`], [`account`] and [`source`] remember what the server said and
//!   what is stored, and find contradictions; [`random`] chooses
//! - [`reply`]: bytes -> replies, no IO
//! - [`fault`], [`measure`], [`timeline`]: what went wrong, how long things took
//! - [`report`], [`table`], [`page`], [`hdr`], [`environment`]: how that is told;
//!   [`compare`] and [`merge`] take what was told before; [`tell`] writes it where
//!   somebody may have closed the other end
//!
//! A new profile is a line of [`scenario::PROFILES`]; a new figure goes from
//! [`measure::Record`] through [`report::Report`] to all outputs at once.

pub mod account;
pub mod args;
pub mod auth;
pub mod compare;
pub mod dialogue;
pub mod engine;
pub mod environment;
pub mod fault;
pub mod hdr;
pub mod interrupt;
pub mod live;
pub mod maildrop;
pub mod measure;
pub mod merge;
pub mod pace;
pub mod page;
pub mod plan;
pub mod pool;
pub mod proxy;
pub mod random;
pub mod reply;
pub mod report;
pub mod run;
pub mod scenario;
pub mod series;
pub mod server_process;
pub mod slo;
mod slot;
pub mod source;
pub mod switches;
pub mod table;
pub mod tell;
pub mod timeline;
pub mod tls;
pub mod users;
