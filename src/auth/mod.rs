//! Who may log in.
mod directory;
mod name;
mod network;
mod passwd_file;
mod password;
mod scheme;

pub use self::directory::{DirectoryError, Fault, LoadReport, Notice};
pub use self::name::{NameError, UserName};
pub use self::network::{Network, NetworkError};
pub use self::password::{Password, PasswordTooLong};
pub use self::scheme::{SchemeError, Verifier};
