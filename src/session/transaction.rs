//! The TRANSACTION and UPDATE states (RFC 1939, sections 5 and 6).
//!
//! The messages are those of the snapshot, by number, for the whole session.
//! A mark hides a message from every command and changes no number.

use std::sync::Arc;

use crate::auth::UserName;
use crate::maildrop::{CommitReport, FaultKind, MessageError, Snapshot};
use crate::proto::reply::{self, Code, Line};
use crate::proto::{Command, MessageNumber, Octets, Output};

use super::listing::{Listing, Rows};
use super::{Action, Closed, Deletions, End, State, Step, Tally, Terms, Traffic, Turn};

/// A user is logged in and has the maildrop.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) user: UserName,
    snapshot: Arc<Snapshot>,
    deletions: Deletions,
    pub(super) tally: Tally,
}

/// Why a number stands for no message.
enum NoMessage {
    OutOfRange,
    Deleted,
}

impl NoMessage {
    fn text(&self) -> &'static str {
        match self {
            Self::OutOfRange => "no such message",
            Self::Deleted => "the message is marked as deleted",
        }
    }
}

impl Transaction {
    pub(super) fn new(user: UserName, snapshot: Arc<Snapshot>) -> Self {
        let maildrop = Traffic {
            messages: u32::try_from(snapshot.len()).expect("as many as have a number"),
            octets: snapshot.total(),
        };
        Self {
            user,
            snapshot,
            deletions: Deletions::default(),
            tally: Tally {
                maildrop,
                ..Tally::default()
            },
        }
    }

    pub(super) fn handle(
        mut self,
        command: Command<'_>,
        terms: Terms<'_>,
        out: &mut Output,
    ) -> Turn {
        match command {
            Command::Stat => {
                let left = self.left();
                reply::stat(out, left.messages, left.octets);
            }
            Command::List(None) => return self.list(Rows::Octets, out),
            Command::Uidl(None) => return self.list(Rows::UniqueIds, out),
            Command::List(Some(message)) => match self.octets(message) {
                Ok(octets) => reply::list_one(out, message, octets),
                Err(error) => reply::err(out, None, error.text()),
            },
            Command::Uidl(Some(message)) => match self.octets(message) {
                Ok(_) => reply::uidl_one(out, message, |id| self.snapshot.write_uidl(message, id)),
                Err(error) => reply::err(out, None, error.text()),
            },
            Command::Retr(message) => return self.send(message, None, out),
            Command::Top {
                message,
                body_lines,
            } => return self.send(message, Some(body_lines), out),
            Command::Dele(message) => self.delete(message, out),
            Command::Noop => reply::ok(out, "still here"),
            Command::Rset => {
                self.deletions = Deletions::default();
                reply::ok(out, "no message is marked as deleted");
            }
            Command::Capa => reply::capabilities(
                out,
                reply::Capabilities {
                    user: terms.passwords_are_taken(),
                    stls: false,
                    sasl: &terms.mechanisms().names(),
                    login_delay: terms.own_login_delay(),
                    expire: terms.expire(),
                },
            ),
            Command::Quit => return self.quit(out),
            Command::User(_)
            | Command::Pass(_)
            | Command::Stls
            | Command::Apop { .. }
            | Command::Mechanisms
            | Command::Auth { .. } => {
                return Turn::refused(self, "you are logged in already");
            }
        }
        Turn::Next(self.into(), Step::Continue)
    }

    /// The first message from `message` on that is not marked.
    pub(super) fn visible_from(&self, message: Option<MessageNumber>) -> Option<MessageNumber> {
        let mut candidate = message?;
        while candidate.index() < self.snapshot.len() {
            if !self.deletions.contains(candidate) {
                return Some(candidate);
            }
            candidate = candidate.next()?;
        }
        None
    }

    pub(super) fn write_row(&self, rows: Rows, message: MessageNumber, out: &mut Output) {
        match rows {
            Rows::Octets => {
                let octets = self.snapshot.octets(message).expect("a message there is");
                reply::list_row(out, message, octets);
            }
            Rows::UniqueIds => {
                reply::uidl_row(out, message, |id| self.snapshot.write_uidl(message, id));
            }
        }
    }

    pub(super) fn closed(self) -> Closed {
        Closed::User {
            user: self.user,
            tally: self.tally,
        }
    }

    fn left(&self) -> Traffic {
        let all = self.tally.maildrop;
        Traffic {
            messages: all.messages - self.deletions.len(),
            octets: all.octets - self.deletions.octets(),
        }
    }

    fn octets(&self, message: MessageNumber) -> Result<Octets, NoMessage> {
        let octets = self.snapshot.octets(message).ok_or(NoMessage::OutOfRange)?;
        if self.deletions.contains(message) {
            return Err(NoMessage::Deleted);
        }
        Ok(octets)
    }

    fn list(self, rows: Rows, out: &mut Output) -> Turn {
        let left = self.left();
        reply::listing_follows(out, left.messages, left.octets);
        let first = self.visible_from(Some(MessageNumber::FIRST));
        let (state, step) = Listing::go_on(self, rows, first, out);
        Turn::Next(state, step)
    }

    fn send(self, message: MessageNumber, body_lines: Option<u64>, out: &mut Output) -> Turn {
        if let Err(error) = self.octets(message) {
            reply::err(out, None, error.text());
            return Turn::Next(self.into(), Step::Continue);
        }
        let sending = Sending {
            transaction: self,
            text: body_lines.map_or(Text::Whole, |_| Text::Top),
        };
        let action = Action::Send {
            message,
            body_lines,
        };
        Turn::Next(State::Sending(sending), Step::Perform(action))
    }

    fn delete(&mut self, message: MessageNumber, out: &mut Output) {
        match self.octets(message) {
            Ok(octets) => {
                let messages = self.snapshot.len();
                self.deletions.insert(message, octets, messages);
                reply::ok(out, "the message is marked as deleted");
            }
            Err(error) => reply::err(out, None, error.text()),
        }
    }

    fn quit(self, out: &mut Output) -> Turn {
        let updating = Updating {
            marked: Traffic {
                messages: self.deletions.len(),
                octets: self.deletions.octets(),
            },
            user: self.user,
            tally: self.tally,
        };
        if self.deletions.is_empty() {
            let (state, step) = updating.finish(CommitReport::default(), out);
            return Turn::Next(state, step);
        }
        let action = Action::Commit(self.deletions);
        Turn::Next(State::Updating(updating), Step::Perform(action))
    }
}

/// A message is on its way.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) transaction: Transaction,
    text: Text,
}

#[derive(Clone, Copy, Debug)]
enum Text {
    Whole,
    Top,
}

impl Sending {
    pub(super) fn sent(
        mut self,
        sent: Result<Octets, MessageError>,
        out: &mut Output,
    ) -> (State, Step) {
        let tally = &mut self.transaction.tally;
        match (sent, self.text) {
            (Ok(octets), Text::Whole) => tally.retrieved.add(octets),
            (Ok(octets), Text::Top) => tally.topped.add(octets),
            (Err(MessageError::Gone), _) => {
                reply::err(out, None, "another program removed the message");
            }
            (Err(MessageError::Unreadable), _) => {
                let text = "the message cannot be read";
                reply::err(out, Some(Code::SysTemp), text);
            }
        }
        (self.transaction.into(), Step::Continue)
    }
}

/// QUIT was said: the marked messages are being removed.
#[derive(Debug)]
pub(super) struct Updating {
    pub(super) user: UserName,
    pub(super) tally: Tally,
    marked: Traffic,
}

impl Updating {
    pub(super) fn finish(self, report: CommitReport, out: &mut Output) -> (State, Step) {
        let end = match report.failed {
            None => {
                reply::ok(out, "popcore signing off");
                End::Quit
            }
            Some((failed, kind)) => {
                let code = match kind {
                    FaultKind::Temporary => Code::SysTemp,
                    FaultKind::Permanent => Code::SysPerm,
                };
                Line::err(out, Some(code))
                    .number(u64::from(failed))
                    .text(" of ")
                    .number(u64::from(self.marked.messages))
                    .text(" deleted messages could not be removed")
                    .end();
                End::NotAllRemoved
            }
        };
        let removed = Traffic {
            messages: report.removed,
            octets: report.octets,
        };
        let tally = Tally {
            removed,
            ..self.tally
        };
        let user = self.user;
        (
            State::Closed(Closed::User { user, tally }),
            Step::Close(end),
        )
    }
}
