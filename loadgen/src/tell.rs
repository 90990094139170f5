//! What is said on the standard output and the standard error, either of which may
//! be closed or full: `println!` would panic.

use std::fmt;
use std::io::{self, Write as _};

use crate::series::Failure;

/// A result, on the standard output: where it cannot be written there is none.
pub fn result(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Failure::Run(format!("the result cannot be written: {e}")))
}

/// A line beside it, on the standard error: whoever has closed that wants none.
pub fn aside(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
