//! What is wrong with a configuration, for the operator who wrote it.
//!
//! Every error names the file, the line where there is one, the key, the fault
//! and the remedy, so that it can be acted on without reading a manual. Errors
//! are gathered: an operator who repairs a file should need one round, not one
//! per mistake.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One fault in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// The line, counted from 1; absent where what is wrong is an absence.
    pub line: Option<usize>,
    /// The key with its section, such as `server.drain` or `listener[2].tls`;
    /// absent where the file as a whole is at fault.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
    /// Whose it may be beside the operator's.
    pub cause: Cause,
}

/// What lies behind a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The configuration, or what it names, is wrong.
    Wrong,
    /// This process may not read what the configuration names; who starts the server
    /// perhaps may.
    Refused,
}

impl Cause {
    /// What it is that a file could not be read for that reason.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Cause::Refused,
            _ => Cause::Wrong,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// Every fault found in a configuration file, at least one, in line order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Faults in line order, those without a line last; `None` if there are none.
    pub(super) fn gather(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: Option<usize>, key: Option<&str>) -> ConfigError {
        ConfigError {
            file: "popcore.toml".into(),
            line,
            key: key.map(str::to_owned),
            problem: "is wrong".into(),
            remedy: "mend it".into(),
            cause: Cause::Wrong,
        }
    }

    #[test]
    fn an_error_is_one_line_that_editors_can_jump_to() {
        assert_eq!(
            error(Some(7), Some("server.drain")).to_string(),
            "popcore.toml:7: server.drain: is wrong; mend it"
        );
        assert_eq!(
            error(None, None).to_string(),
            "popcore.toml: is wrong; mend it"
        );
    }

    #[test]
    fn errors_come_in_line_order() {
        let errors = ConfigErrors::gather(vec![
            error(None, None),
            error(Some(9), None),
            error(Some(2), None),
        ])
        .expect("three errors");
        let lines: Vec<_> = errors.iter().map(|e| e.line).collect();
        assert_eq!(lines, [Some(2), Some(9), None]);
        assert_eq!(ConfigErrors::gather(Vec::new()), None);
    }
}
