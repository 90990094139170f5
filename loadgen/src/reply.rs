//! Bytes of a POP3 server -> replies, in any segmentation.
//!
//! The reader is an oracle for servers, so it is written from RFC 1939 alone,
//! keeps no more than one unfinished line, and counts what it cannot excuse
//! (bare LF, a line with a single leading dot) without losing its place.
//!
//! Status lines and listing rows are handed out borrowed from the input where
//! they lie in it whole. A message is not handed out: its octets are counted in
//! place, one search for LF a line, because a generator that copies what it
//! fetches would be slower than the servers it measures.

use sha2::{Digest as _, Sha256};

use crate::fault::{Fault, Kind, readable};

/// Longest reply line in octets, its CRLF included (RFC 2449, section 4).
const REPLY_LINE: usize = 512;

/// What follows a `+OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: the reply is one line.
    Line,
    /// Rows up to a line with a single dot.
    Rows,
    /// A message up to a line with a single dot.
    Message,
    /// Nothing; but `+ ` may come instead, which asks for more (RFC 5034).
    Challenge,
}

/// The next thing that a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// `+OK` or `-ERR` and the text behind it, without the space and the CRLF.
    Status {
        /// Whether it was `+OK`.
        ok: bool,
        /// The rest of the line.
        text: &'a [u8],
        /// Whether the reply ends here.
        last: bool,
    },
    /// The text behind `+ `.
    Challenge(&'a [u8]),
    /// One row of a listing, unstuffed, without its CRLF.
    Row(&'a [u8]),
    /// The end of a listing.
    EndOfRows,
    /// The end of a message.
    EndOfMessage(Message),
}

/// What was counted in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Octets after unstuffing, without the terminator.
    pub octets: u64,
    /// Lines that began with one dot where a dot must be doubled.
    pub unstuffed: u32,
    /// Lines that ended in LF alone, the terminator's among them.
    pub bare_lf: u32,
}

/// Where in a line of a message the next byte stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    /// After a dot that began the line and is not yet counted.
    Dot,
    /// After such a dot and a CR, neither counted.
    DotCr,
    Inside {
        after_cr: bool,
    },
}

#[derive(Debug)]
enum State {
    Quiet,
    Status(Shape),
    Rows,
    Message(Place, Message),
}

/// Splits what a server sends into [`Item`]s.
#[derive(Debug)]
pub struct ReplyReader {
    state: State,
    /// An unfinished line, at most [`REPLY_LINE`] octets.
    partial: Vec<u8>,
    /// `partial` was handed out and is dropped at the next call.
    spent: bool,
    bare_lf: u32,
    /// Of the message under way, where hashes are wanted.
    hasher: Option<Sha256>,
}

/// The head of the SHA-256 of a message with CRLF as its line ends.
pub type Digest = u128;

/// The digest that a hasher has come to; it begins anew.
pub fn digest(hasher: &mut Sha256) -> Digest {
    let hash: [u8; 32] = hasher.finalize_reset().into();
    hash[..16]
        .iter()
        .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

impl Default for ReplyReader {
    fn default() -> Self {
        Self {
            state: State::Quiet,
            partial: Vec::new(),
            spent: false,
            bare_lf: 0,
            hasher: None,
        }
    }
}

impl ReplyReader {
    /// From now on messages are hashed: see [`ReplyReader::take_digest`].
    pub fn hash_messages(&mut self) {
        self.hasher = Some(Sha256::new());
    }

    /// The digest of the message that has just ended, where they are hashed.
    pub fn take_digest(&mut self) -> Option<Digest> {
        self.hasher.as_mut().map(digest)
    }

    /// Forgets an unfinished reply: the reader is at a new connection.
    pub fn reset(&mut self) {
        self.state = State::Quiet;
        self.partial.clear();
        self.spent = false;
        self.bare_lf = 0;
        if let Some(hasher) = &mut self.hasher {
            hasher.reset();
        }
    }

    /// A command was sent whose positive reply has this shape.
    pub fn expect(&mut self, shape: Shape) {
        assert!(
            matches!(self.state, State::Quiet),
            "a reply is still unfinished"
        );
        self.state = State::Status(shape);
    }

    /// Whether no reply is expected.
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, State::Quiet)
    }

    /// Status lines and rows that ended in LF alone since the last call.
    pub fn take_bare_lf(&mut self) -> u32 {
        std::mem::take(&mut self.bare_lf)
    }

    /// The next item of `input`, which is moved past what was read. `None`: all
    /// of it is read and the item is unfinished, or none is expected.
    ///
    /// An error means that the place in the conversation is lost.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Item<'a>>, Fault> {
        if self.spent {
            self.partial.clear();
            self.spent = false;
        }
        match &mut self.state {
            State::Quiet => {
                if input.is_empty() {
                    return Ok(None);
                }
                let text = format!(
                    "{} octets that answer no command: {}",
                    input.len(),
                    readable(input)
                );
                Err(Fault::new(Kind::ExtraData, text))
            }
            State::Message(place, message) => {
                if !message.read(place, input, self.hasher.as_mut()) {
                    return Ok(None);
                }
                let message = *message;
                self.state = State::Quiet;
                Ok(Some(Item::EndOfMessage(message)))
            }
            State::Status(_) | State::Rows => self.next_line(input),
        }
    }

    fn next_line<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Item<'a>>, Fault> {
        let Some(at) = memchr::memchr(b'\n', input) else {
            self.partial.extend_from_slice(input);
            *input = &[];
            return self.bounded(self.partial.len()).map(|()| None);
        };
        let (head, rest) = input.split_at(at + 1);
        *input = rest;
        self.bounded(self.partial.len() + head.len())?;
        let line: &'a [u8] = if self.partial.is_empty() {
            head
        } else {
            self.partial.extend_from_slice(head);
            self.spent = true;
            &self.partial
        };
        let line = &line[..line.len() - 1];
        let line = line.strip_suffix(b"\r").unwrap_or_else(|| {
            self.bare_lf += 1;
            line
        });
        match self.state {
            State::Status(shape) => {
                if shape == Shape::Challenge
                    && let Some(text) = challenge(line)
                {
                    self.state = State::Quiet;
                    return Ok(Some(Item::Challenge(text)));
                }
                let (ok, text) = status(line)?;
                let last = !ok || matches!(shape, Shape::Line | Shape::Challenge);
                self.state = match shape {
                    _ if last => State::Quiet,
                    Shape::Message => State::Message(Place::Start, Message::default()),
                    Shape::Line | Shape::Challenge | Shape::Rows => State::Rows,
                };
                Ok(Some(Item::Status { ok, text, last }))
            }
            _ if line == b"." => {
                self.state = State::Quiet;
                Ok(Some(Item::EndOfRows))
            }
            _ => Ok(Some(Item::Row(line.strip_prefix(b".").unwrap_or(line)))),
        }
    }

    fn bounded(&self, octets: usize) -> Result<(), Fault> {
        if octets <= REPLY_LINE {
            return Ok(());
        }
        let text = format!(
            "a reply line of more than {REPLY_LINE} octets: {}",
            readable(&self.partial)
        );
        Err(Fault::new(Kind::LongReply, text))
    }
}

/// The text of a challenge.
fn challenge(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"+")? {
        [] => Some(&[]),
        [b' ', text @ ..] => Some(text),
        _ => None,
    }
}

/// `+OK` or `-ERR`, and the text behind it.
fn status(line: &[u8]) -> Result<(bool, &[u8]), Fault> {
    let parsed = [(true, b"+OK".as_slice()), (false, b"-ERR")]
        .into_iter()
        .find_map(|(ok, word)| match line.strip_prefix(word)? {
            [] => Some((ok, &[][..])),
            [b' ', text @ ..] => Some((ok, text)),
            _ => None,
        });
    parsed.ok_or_else(|| {
        let text = format!("neither +OK nor -ERR: {}", readable(line));
        Fault::new(Kind::Nonsense, text)
    })
}

impl Message {
    /// Counts what of `input` belongs to the message. True at its end.
    fn read(
        &mut self,
        place: &mut Place,
        input: &mut &[u8],
        mut hasher: Option<&mut Sha256>,
    ) -> bool {
        let mut hash = |bytes: &[u8]| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
        };
        while let Some((&first, rest)) = input.split_first() {
            match (*place, first) {
                (Place::Start, b'.') => *place = Place::Dot,
                (Place::Dot, b'\r') => *place = Place::DotCr,
                (Place::Dot | Place::DotCr, b'\n') => {
                    self.bare_lf += u32::from(matches!(*place, Place::Dot));
                    *input = rest;
                    return true;
                }
                (Place::Dot, b'.') => {
                    self.octets += 1;
                    hash(b".");
                    *place = Place::Inside { after_cr: false };
                }
                (Place::Dot, _) => {
                    self.unstuffed += 1;
                    *place = Place::Inside { after_cr: false };
                    continue;
                }
                (Place::DotCr, _) => {
                    self.unstuffed += 1;
                    self.octets += 1;
                    hash(b"\r");
                    *place = Place::Inside { after_cr: true };
                    continue;
                }
                (Place::Start, _) => {
                    *place = Place::Inside { after_cr: false };
                    continue;
                }
                (Place::Inside { after_cr }, _) => {
                    let before = *input;
                    *place = self.read_lines(after_cr, input);
                    hash(&before[..before.len() - input.len()]);
                    continue;
                }
            }
            *input = rest;
        }
        false
    }

    /// Counts up to the next line that begins with a dot, or all of `input`.
    /// The loop over lines that do not is the hot one.
    fn read_lines(&mut self, mut after_cr: bool, input: &mut &[u8]) -> Place {
        let bytes: &[u8] = input;
        let mut line = 0;
        for at in memchr::memchr_iter(b'\n', bytes) {
            let cr = if at > line {
                bytes[at - 1] == b'\r'
            } else {
                after_cr && at == 0
            };
            self.bare_lf += u32::from(!cr);
            after_cr = false;
            line = at + 1;
            if bytes.get(line) == Some(&b'.') {
                break;
            }
        }
        let place = match bytes.get(line) {
            Some(b'.') | None if line > 0 => Place::Start,
            _ => {
                let last = bytes[bytes.len() - 1];
                line = bytes.len();
                Place::Inside {
                    after_cr: last == b'\r',
                }
            }
        };
        self.octets += line as u64;
        *input = &bytes[line..];
        place
    }
}

#[cfg(test)]
mod tests;
