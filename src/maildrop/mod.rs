//! Maildrops.
mod error;
mod lock;
pub use error::*;
pub use lock::*;
