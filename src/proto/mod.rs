//! The language of POP3: octets to commands, replies to octets.
//!
//! Nothing here knows a session, a user or a message store. What comes out of
//! [`parse`] is right by construction: a number is at least one, an argument is
//! there if its command wants it, and nothing trails behind. What goes out is
//! written into an [`Output`] of fixed size.
//!
//! No function here allocates on the way of a good command, except for a
//! command line that comes in pieces, which [`LineSplitter`] keeps.

mod command;
mod line;
mod number;
mod output;
pub mod reply;

pub use command::{Command, CommandError, parse};
pub use line::{LineLimit, LineSplitter, Split};
pub use number::{MessageNumber, Octets};
pub use output::Output;
