//! A load generator for any POP3 server.
//!
//! It shares no code with popcore: what it says about a server is a second
//! opinion, drawn from the RFCs alone. Data flows one way through it:
//!
//! - [`plan`]: arguments -> what to do, checked; [`users`] says who logs in
//! - [`run`]: starts the threads, watches the clock, measures the server
//!   ([`server_process`])
//! - [`engine`]: one thread's sockets and epoll
//! - [`dialogue`]: one session's commands, no IO; [`maildrop`] remembers what
//!   the server said and finds contradictions; [`random`] chooses messages
//! - [`reply`]: bytes -> replies, no IO
//! - [`fault`], [`measure`], [`report`]: what went wrong, how long things took,
//!   and how that is told
//!
//! A new profile is an arm of [`dialogue::Profile`]; a new way to arrive is a
//! matter of the engine alone; a new figure goes from [`measure::Record`]
//! through [`report::Report`] to table and JSON at once.

pub mod dialogue;
pub mod engine;
pub mod fault;
pub mod maildrop;
pub mod measure;
pub mod plan;
pub mod random;
pub mod reply;
pub mod report;
pub mod run;
pub mod server_process;
pub mod users;
