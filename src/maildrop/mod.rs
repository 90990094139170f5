//! Maildrops.
mod error;
mod lock;
mod name;
mod template;
pub use error::*;
pub use lock::*;
pub use name::*;
pub use template::*;
