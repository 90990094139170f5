//! Who may log in.
mod name;
mod network;
mod password;
mod scheme;

pub use self::name::{NameError, UserName};
pub use self::network::{Network, NetworkError};
pub use self::password::{Password, PasswordTooLong};
pub use self::scheme::{SchemeError, Verifier};
