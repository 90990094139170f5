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

const _: () = assert!(REPLY_ROOM >= 2 * REPLY_LINE);
