//! One command line to one [`Command`] (RFC 1939, RFC 2449, RFC 2595, RFC 5034).
//!
//! The grammar is the RFC's: a keyword in any case, then each argument behind
//! one space. Two liberties are taken, because old clients need them and
//! nothing else can be meant: spaces at the end of a line are ignored, except
//! behind `PASS`, and a number may have leading zeros.
//!
//! `PASS` takes the rest of its line as it stands. RFC 1939 allows spaces in
//! its argument, and a password may begin or end with one.

use std::fmt;

use memchr::memchr;

use super::MessageNumber;

/// A command that is well formed. Whether it fits the session's state, and
/// whether its message is there, is the session's to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// `USER name`: one word, never empty.
    User(&'a [u8]),
    /// `PASS string`: the whole rest of the line, never empty.
    Pass(&'a [u8]),
    /// `APOP name digest` (RFC 1939, section 7)
    Apop {
        /// One word, never empty.
        name: &'a [u8],
        /// What 32 hexadecimal digits say.
        digest: [u8; 16],
    },
    /// `STAT`
    Stat,
    /// `LIST [msg]`
    List(Option<MessageNumber>),
    /// `RETR msg`
    Retr(MessageNumber),
    /// `DELE msg`
    Dele(MessageNumber),
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `QUIT`
    Quit,
    /// `TOP msg n`
    Top {
        /// The message whose beginning is wanted.
        message: MessageNumber,
        /// Lines of the body to send behind the headers and the blank line.
        body_lines: u64,
    },
    /// `UIDL [msg]`
    Uidl(Option<MessageNumber>),
    /// `CAPA` (RFC 2449, section 5)
    Capa,
    /// `STLS` (RFC 2595, section 4)
    Stls,
    /// `AUTH` alone, which asks for the list of mechanisms.
    Mechanisms,
    /// `AUTH mechanism [initial-response]` (RFC 5034, section 4)
    Auth {
        /// The name, in any case.
        mechanism: &'a [u8],
        /// The initial response in base64; `=` is an empty one.
        initial: Option<&'a [u8]>,
    },
}

impl fmt::Debug for Command<'_> {
    /// Passwords stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "USER {}", name.escape_ascii()),
            Self::Pass(_) => f.write_str("PASS"),
            Self::Apop { name, .. } => write!(f, "APOP {}", name.escape_ascii()),
            Self::Stat => f.write_str("STAT"),
            Self::List(message) => write!(f, "LIST {message:?}"),
            Self::Retr(message) => write!(f, "RETR {message:?}"),
            Self::Dele(message) => write!(f, "DELE {message:?}"),
            Self::Noop => f.write_str("NOOP"),
            Self::Rset => f.write_str("RSET"),
            Self::Quit => f.write_str("QUIT"),
            Self::Top {
                message,
                body_lines,
            } => write!(f, "TOP {message:?} {body_lines}"),
            Self::Uidl(message) => write!(f, "UIDL {message:?}"),
            Self::Capa => f.write_str("CAPA"),
            Self::Stls => f.write_str("STLS"),
            Self::Mechanisms => f.write_str("AUTH"),
            Self::Auth { mechanism, .. } => write!(f, "AUTH {}", mechanism.escape_ascii()),
        }
    }
}

/// What the client got wrong in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No command of that name.
    Unknown,
    /// The command wants an argument that is not there.
    MissingArgument,
    /// There is more on the line than the command takes.
    ExtraArgument,
    /// Not a decimal number, or one that is too large.
    NotANumber,
    /// Message numbers start at 1.
    MessageZero,
    /// Not 32 hexadecimal digits.
    NotADigest,
}

impl CommandError {
    /// What the client is told behind `-ERR`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown command",
            Self::MissingArgument => "an argument is missing",
            Self::ExtraArgument => "too many arguments",
            Self::NotANumber => "a decimal number is wanted",
            Self::MessageZero => "message numbers start at 1",
            Self::NotADigest => "a digest of 32 hexadecimal digits is wanted",
        }
    }
}

/// Reads one line, given without its line end.
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let (keyword, rest) = match memchr(b' ', line) {
        Some(space) => (&line[..space], Some(&line[space + 1..])),
        None => (line, None),
    };
    let mut folded = [0; 4];
    let folded = folded
        .get_mut(..keyword.len())
        .ok_or(CommandError::Unknown)?;
    folded.copy_from_slice(keyword);
    folded.make_ascii_uppercase();
    if folded == b"PASS" {
        let password = rest.filter(|rest| !rest.is_empty());
        return Ok(Command::Pass(
            password.ok_or(CommandError::MissingArgument)?,
        ));
    }
    let mut arguments = Arguments::of(rest);
    let command = match &*folded {
        b"USER" => Command::User(arguments.required()?),
        b"APOP" => Command::Apop {
            name: arguments.required()?,
            digest: digest(arguments.required()?)?,
        },
        b"STAT" => Command::Stat,
        b"LIST" => Command::List(arguments.optional()?.map(message).transpose()?),
        b"RETR" => Command::Retr(message(arguments.required()?)?),
        b"DELE" => Command::Dele(message(arguments.required()?)?),
        b"NOOP" => Command::Noop,
        b"RSET" => Command::Rset,
        b"QUIT" => Command::Quit,
        b"TOP" => Command::Top {
            message: message(arguments.required()?)?,
            body_lines: decimal(arguments.required()?)?,
        },
        b"UIDL" => Command::Uidl(arguments.optional()?.map(message).transpose()?),
        b"CAPA" => Command::Capa,
        b"STLS" => Command::Stls,
        b"AUTH" => match arguments.optional()? {
            None => Command::Mechanisms,
            Some(mechanism) => Command::Auth {
                mechanism,
                initial: arguments.optional()?,
            },
        },
        _ => return Err(CommandError::Unknown),
    };
    arguments.end()?;
    Ok(command)
}

/// What follows a keyword and its space, taken word by word.
struct Arguments<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Arguments<'a> {
    fn of(rest: Option<&'a [u8]>) -> Self {
        let words = rest.map(|rest| {
            let end = rest.iter().rposition(|&octet| octet != b' ');
            &rest[..end.map_or(0, |last| last + 1)]
        });
        Self {
            rest: words.filter(|words| !words.is_empty()),
        }
    }

    /// The next word, if there is one. Two spaces in a row enclose an empty
    /// word, which is no argument of any command.
    fn optional(&mut self) -> Result<Option<&'a [u8]>, CommandError> {
        let Some(rest) = self.rest else {
            return Ok(None);
        };
        let (word, rest) = match memchr(b' ', rest) {
            Some(space) => (&rest[..space], Some(&rest[space + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        if word.is_empty() {
            return Err(CommandError::MissingArgument);
        }
        Ok(Some(word))
    }

    fn required(&mut self) -> Result<&'a [u8], CommandError> {
        self.optional()?.ok_or(CommandError::MissingArgument)
    }

    fn end(&self) -> Result<(), CommandError> {
        match self.rest {
            None => Ok(()),
            Some(_) => Err(CommandError::ExtraArgument),
        }
    }
}

fn digest(word: &[u8]) -> Result<[u8; 16], CommandError> {
    let is_whole = word.len() == 32 && word.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(word).ok().filter(|_| is_whole);
    let number = text.and_then(|text| u128::from_str_radix(text, 16).ok());
    number
        .map(u128::to_be_bytes)
        .ok_or(CommandError::NotADigest)
}

fn message(word: &[u8]) -> Result<MessageNumber, CommandError> {
    let number = u32::try_from(decimal(word)?).map_err(|_| CommandError::NotANumber)?;
    MessageNumber::new(number).ok_or(CommandError::MessageZero)
}

/// A number of decimal digits alone: `str::parse` would take a sign.
fn decimal(word: &[u8]) -> Result<u64, CommandError> {
    word.iter()
        .try_fold(0_u64, |number, &octet| {
            let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(CommandError::NotANumber)
}

#[cfg(test)]
mod tests;
