//! How Dovecot spelt its unique-ids: `pop3_uidl_format`.
//!
//! ```text
//! %u uid   %v uidvalidity   %f file name   %g GUID   %% a percent sign
//! %08Xu    eight hexadecimal digits, zeros first     %Mf  MD5 of the file name
//! ```
//!
//! With it the servers that Dovecot took over from are served as well: UW is
//! `%08Xv%08Xu`, Cyrus `%v.%u` (before 2.1.4 `%u`), tpop3d `%Mf`.

use std::error::Error;
use std::fmt;
use std::io::Write as _;

use super::md5_hex;

/// A parsed format. Shown, it is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    text: Box<str>,
    parts: Box<[Part]>,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Dovecot's default.
const DEFAULT: &str = "%08Xu%08Xv";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Value {
        value: Value,
        width: usize,
        zeros: bool,
        spelling: Spelling,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Uid,
    Validity,
    File,
    Guid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    Plain,
    Hex,
    Md5,
}

/// What is wrong with a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// A `%` with something behind it that popcore does not know.
    Unknown(String),
    /// Two messages would get the same unique-id.
    Same,
    /// A character that no unique-id may have.
    Forbidden,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(text) => write!(
                f,
                "the format has {text:?}: use %u, %v, %f, %g, with 08X for hexadecimal or M for \
                 MD5 behind the percent sign"
            ),
            Self::Same => f.write_str("the format has none of %u, %f and %g, so all are the same"),
            Self::Forbidden => f.write_str("the format has a character that no unique-id may have"),
        }
    }
}

impl Error for FormatError {}

impl Default for Format {
    fn default() -> Self {
        Self::parse(DEFAULT).expect("a format")
    }
}

/// What a format is filled with.
pub(super) struct Values<'a> {
    pub(super) uid: u32,
    pub(super) validity: u32,
    pub(super) file: &'a [u8],
    pub(super) guid: Option<&'a [u8]>,
}

impl Format {
    /// Reads a format as Dovecot's configuration has it.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(FormatError::Forbidden);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].into()));
            }
            let (part, length) = variable(&rest[at + 1..])
                .ok_or_else(|| FormatError::Unknown(rest[at..].chars().take(6).collect()))?;
            parts.push(part);
            rest = &rest[at + 1 + length..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        let own = |part: &Part| match part {
            Part::Value { value, .. } => *value != Value::Validity,
            Part::Literal(_) => false,
        };
        if !parts.iter().any(own) {
            return Err(FormatError::Same);
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value {
                    value,
                    width,
                    zeros,
                    spelling,
                } => {
                    let text = spell(values, *value, *spelling);
                    if *zeros {
                        out.resize(out.len() + width.saturating_sub(text.len()), b'0');
                    }
                    // Without zeros a width cuts off.
                    let cut = if *zeros || *width == 0 {
                        text.len()
                    } else {
                        *width
                    };
                    out.extend_from_slice(&text[..cut.min(text.len())]);
                }
            }
        }
        out
    }
}

fn spell(values: &Values<'_>, value: Value, spelling: Spelling) -> Vec<u8> {
    let mut text = Vec::new();
    let mut numeral = |number: u32| {
        match spelling {
            Spelling::Hex => write!(text, "{number:x}"),
            Spelling::Plain | Spelling::Md5 => write!(text, "{number}"),
        }
        .expect("a Vec takes every write");
    };
    match value {
        Value::Uid => numeral(values.uid),
        Value::Validity => numeral(values.validity),
        Value::File => text.extend_from_slice(values.file),
        Value::Guid => text.extend_from_slice(values.guid.unwrap_or(values.file)),
    }
    if spelling == Spelling::Md5 {
        md5_hex(&text)
    } else {
        text
    }
}

/// What stands behind a `%`, and how long it is.
fn variable(text: &str) -> Option<(Part, usize)> {
    if text.starts_with('%') {
        return Some((Part::Literal("%".into()), 1));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let (spelling, letter) = match rest.as_bytes() {
        [b'X', ..] => (Spelling::Hex, 1),
        [b'M', ..] => (Spelling::Md5, 1),
        _ => (Spelling::Plain, 0),
    };
    let value = match rest.as_bytes().get(letter)? {
        b'u' => Value::Uid,
        b'v' => Value::Validity,
        b'f' => Value::File,
        b'g' => Value::Guid,
        _ => return None,
    };
    if spelling == Spelling::Hex && matches!(value, Value::File | Value::Guid) {
        return None;
    }
    let width = if number.is_empty() {
        0
    } else {
        number.parse().ok().filter(|width| *width <= 64)?
    };
    let part = Part::Value {
        value,
        width,
        zeros: number.starts_with('0'),
        spelling,
    };
    Some((part, digits + letter + 1))
}
