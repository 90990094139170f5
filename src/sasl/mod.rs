//! The mechanisms of SASL (RFC 4422) as exchanges without IO.
//!
//! An [`Exchange`] takes the client's responses, already decoded, and says what comes
//! next: a challenge, or a question that only the directories of users can answer.
//! What POP3 makes of it (base64, `+ `, `*`, `=`; RFC 5034) is the session's part.
//!
//! Invariants: an exchange consumes itself with each response, so that none can be
//! answered twice; responses are borrowed, and what is kept of them is overwritten
//! when it goes; nothing here tells whether there is such a user.

mod bearer;
mod bindings;
mod exchange;
mod mechanism;
mod scram;

pub use bearer::TokenTerms;
pub use bindings::Bindings;
pub use exchange::{Context, Exchange, Fault, Next};
pub use mechanism::{Mechanism, Mechanisms};
pub use scram::{Asking, First, Proof};
