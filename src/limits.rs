//! Every bound in popcore, in one place, with its reason.
//!
//! A bound that is hit gives the client a clear reply and moves a counter; none
//! is hit silently. The assertions at the end hold the bounds that lean on each
//! other.

/// Longest command line in octets, its CRLF included (RFC 2449, section 4).
pub const COMMAND_LINE: usize = 255;

/// Longest single-line reply in octets, its CRLF included (RFC 2449, section 4).
pub const REPLY_LINE: usize = 512;

/// Room in the output buffer, in octets, below which no command is handled:
/// every reply that is not a listing or a message fits into it.
pub const REPLY_ROOM: usize = 1024;

/// Most octets a client may have sent ahead of the replies it has been given.
/// More stay in the socket, where they hold the client back.
pub const PIPELINED: usize = 16 * 1024;

/// Entries a shard can queue between two system calls; more wait their turn.
pub const SUBMISSION_QUEUE: u32 = 1024;

/// Completions the kernel can post between two turns of a shard; more wait in
/// its overflow list, which costs a system call more.
pub const COMPLETION_QUEUE: u32 = 8192;

/// Completions a shard dispatches before the tasks they woke may run.
pub const COMPLETIONS_A_TURN: usize = 1024;

/// Buffers a shard provides to the kernel for receiving.
pub const PROVIDED_BUFFERS: u16 = 256;

/// Octets of each provided buffer: a command is a few dozen, a TLS hello some
/// hundreds to two thousand.
pub const PROVIDED_BUFFER: usize = 4 * 1024;

const _: () = assert!(COMPLETION_QUEUE >= 2 * SUBMISSION_QUEUE);
const _: () = assert!(PIPELINED >= PROVIDED_BUFFER);
const _: () = assert!(REPLY_ROOM >= 2 * REPLY_LINE);
