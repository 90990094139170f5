//! LIST and UIDL without an argument, in pieces as large as the output's room.
//!
//! Between two pieces nothing is kept but the number of the next row. A row is
//! begun only if the terminator fits behind it too, and the row after it is
//! looked for at once, so that the terminator never goes out alone.

use crate::limits;
use crate::proto::{MessageNumber, Output, reply};

use super::transaction::Transaction;
use super::{State, Step};

/// A listing that waits for its first piece to be sent.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) transaction: Transaction,
    rows: Rows,
    next: MessageNumber,
}

/// What stands beside each message's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// LIST
    Octets,
    /// UIDL
    UniqueIds,
}

impl Listing {
    /// Writes rows from `next` on while there is room, and the terminator
    /// behind the last.
    pub(super) fn go_on(
        transaction: Transaction,
        rows: Rows,
        mut next: Option<MessageNumber>,
        out: &mut Output,
    ) -> (State, Step) {
        while let Some(message) = next {
            if out.room() < limits::LISTING_ROW {
                let listing = Self {
                    transaction,
                    rows,
                    next: message,
                };
                return (State::Listing(listing), Step::Flush);
            }
            transaction.write_row(rows, message, out);
            next = transaction.visible_from(message.next());
        }
        reply::terminator(out);
        (transaction.into(), Step::Continue)
    }

    pub(super) fn flushed(self, out: &mut Output) -> (State, Step) {
        Self::go_on(self.transaction, self.rows, Some(self.next), out)
    }
}
