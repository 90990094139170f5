//! popcore: a thread-per-core POP3 server for Linux.
//!
//! One process runs one executor on each CPU core (a *shard*). A shard has its own
//! listening sockets, its own `io_uring`, its own connections, buffers, deadlines
//! and counters, and shares nothing hot with the others. What they must share
//! (the locks of maildrops, the cached listings, the users) is sharded by key and
//! touched once or twice a session.
//!
//! # The map, in the order in which data flows
//!
//! * [`cli`]: the command line; one file for each subcommand.
//! * [`server`]: from a valid configuration to running shards; signals, drain.
//! * [`shard`]: one executor: accepting, deadlines, draining. [`admin`]: metrics
//!   and health over HTTP, on a thread of its own. [`doctor`]: the machine beside
//!   the guide of `tuning/`; it reads and changes nothing.
//! * [`conn`]: one connection: bytes between the socket and the session, and the
//!   actions that the session asks for.
//! * [`tls`]: rustls without IO.
//! * [`session`]: RFC 1939 as a machine: a line, an outcome or a timeout in, a
//!   step out. No IO, no clock.
//! * [`config`]: the configuration file, validated.
//! * [`ring`]: the shard's `io_uring`: operations as futures that own their memory.
//!   [`observe`]: counters, latencies, the log.
//! * [`sasl`]: the mechanisms of AUTH as exchanges without IO.
//! * [`maildrop`]: Maildir: listing, snapshots, cache, locks, removal.
//! * [`auth`]: users, password schemes, and who verifies them. `crew`: threads
//!   that do one kind of work.
//! * [`wire`]: message text to the wire: line ends, dot-stuffing, octets, TOP.
//! * [`proto`]: commands, lines, replies, message numbers.
//! * [`limits`]: the bounds.
//!
//! # What holds everywhere
//!
//! * A shard never waits for a disk, a hash or a directory of users: what may wait
//!   goes through the ring, to the shard's pool of threads, or to the auth threads.
//! * A session that waits for its client owns no buffer.
//! * Mail is removed at QUIT only, and only the files that the session was shown.
//! * Modules import downwards in this map, `unsafe` stands in [`ring`] with its tests,
//!   in the kernels of [`wire`] and in the binding of libpam, and glommio in [`ring`] and [`shard`] alone:
//!   `tests/tidy.rs` holds that.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod conn;
mod crew;
pub mod doctor;
pub mod limits;
pub mod maildrop;
pub mod observe;
pub mod proto;
pub mod ring;
pub mod sasl;
pub mod server;
pub mod session;
pub mod shard;
pub mod tls;
pub mod wire;
