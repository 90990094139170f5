//! Stored message text to what goes over the wire, and its size.
//!
//! One set of rules holds for all three parts, and they must agree to the
//! octet, since a client compares what it gets with what was announced:
//!
//! - A line ends at LF. A CR directly before the LF belongs to the line end;
//!   any other CR is data, as are NUL and octets above 127.
//! - On the wire a line ends with CRLF. Text that does not end with LF gets
//!   CRLF added. Text of no octets stays empty.
//! - A dot at the beginning of a line is doubled (RFC 1939, section 3). The
//!   size of a message is counted before that.
//!
//! Everything here can stop after any octet of input and of output and go on
//! with the next piece: pieces are as large as a buffer happens to be, and the
//! result must not depend on it.

mod count;
mod kernel;
mod stuff;
mod top;

#[cfg(test)]
mod model;

pub use count::OctetCounter;
pub use kernel::Kernel;
pub use stuff::Encoder;
pub use top::TopLimit;
