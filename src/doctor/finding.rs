//! What one look at the machine came to.

use std::fmt;

/// One thing that was looked at. Its line names what was found, what is wanted, why,
/// and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: a sysctl by its own name, all else as the guide has it.
    pub name: String,
    /// What it should be.
    pub wanted: String,
    /// Why, for a server of mail.
    pub why: &'static str,
    /// How it is.
    pub state: State,
}

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be: the value.
    Ok(String),
    /// It could be better.
    Advice(Fault),
    /// Clients will notice, or have noticed.
    Problem(Fault),
    /// It cannot be seen from here: why not.
    Unseen(String),
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The value.
    pub found: String,
    /// What mends it.
    pub mend: Mend,
}

/// What mends a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A command of a shell, for root.
    Command(String),
    /// What only the operator can decide or do.
    Words(String),
}

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// See [`State::Advice`].
    Advice,
    /// See [`State::Problem`].
    Problem,
}

impl Weight {
    /// A fault of this weight.
    pub fn of(self, found: impl Into<String>, mend: Mend) -> State {
        let fault = Fault {
            found: found.into(),
            mend,
        };
        match self {
            Weight::Advice => State::Advice(fault),
            Weight::Problem => State::Problem(fault),
        }
    }
}

impl State {
    /// The word for it that begins a line.
    pub fn word(&self) -> &'static str {
        match self {
            State::Ok(_) => "ok",
            State::Advice(_) => "advice",
            State::Problem(_) => "problem",
            State::Unseen(_) => "unseen",
        }
    }

    /// What is not as it should be, if anything is.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            State::Advice(fault) | State::Problem(fault) => Some(fault),
            State::Ok(_) | State::Unseen(_) => None,
        }
    }
}

/// A word of a command that may hold anything, such as a path.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/._-,:".contains(&octet);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mend::Command(text) | Mend::Words(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            name, wanted, why, ..
        } = self;
        let word = self.state.word();
        match &self.state {
            State::Ok(found) => write!(f, "{word:<8}{name}: found {found}, wanted {wanted}: {why}"),
            State::Unseen(reason) => {
                write!(f, "{word:<8}{name}: {reason}; wanted {wanted}: {why}")
            }
            State::Advice(fault) | State::Problem(fault) => write!(
                f,
                "{word:<8}{name}: found {}, wanted {wanted}: {why}; mend: {}",
                fault.found, fault.mend
            ),
        }
    }
}
