//! A message from its file to the client.
//!
//! **The ways.** A small message is read into a buffer of the shard's, encoded into
//! another and sent; one whose stored octets are those of the wire is read straight
//! into the buffer that is sent. A large message is mapped: its text is encoded out
//! of the mapping, and octets that need no encoder go from the page cache into the
//! socket (sendfile(2)), past the shard and its caches. Where the ways part is measured
//! (benches/README.md) and the operator's to move ([`Thresholds`]).
//!
//! **Pieces.** A message leaves in pieces, one after the other and without waiting,
//! until the socket takes no more or a slice of it has gone; then other sessions have
//! their turn. The first line goes with the first piece and the terminator with the
//! last text. What is left of a message in the output when it ends leaves with the
//! replies to further commands, or when there are none.
//!
//! **A client that does not read** holds a [`Position`], the number of octets of the
//! next piece that it has, and what its socket holds. What the socket did not take is
//! thrown away with its buffer, and made again when there is room: to encode is ten
//! times cheaper than to send, and no buffer, queue or timer is needed. A mapping is
//! let go of after [`limits::PATIENCE`]; the rest is read. Only with TLS is there a rest
//! that waits, of one buffer of records: what was encrypted cannot be made again.
//!
//! Rejected: a piece that waits in an operation of the ring and is cancelled when it
//! takes too long, with a bounded number of pieces for a shard. It needed a line in
//! which to wait for a piece, and held a thousand buffers where a thousand clients
//! stopped reading at once.
//!
//! Nothing more is read than the snapshot says is there, so that the octets announced
//! are the octets sent, and the end is known before it is reached.
//!
//! Once the first line of the reply is written, a failure can be told only by
//! closing the connection. A message that is cut short is never terminated: a
//! client that took it for whole would delete it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::limits;
use crate::maildrop::{MessageError, Snapshot, StoredForm};
use crate::observe::Sending;
use crate::proto::{MessageNumber, Octets, Output, reply};
use crate::ring::{self, Handle, Mapping};
use crate::session::Outcome;

use super::Connection;
use super::broken::Broken;
use super::buffers::Purpose;
use super::message::{self, Fault, Message, OpenFault, Position, Source, show};
use super::open;

/// From which size on, in octets as stored, messages are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Those that go through the encoder.
    pub text: u64,
    /// Those whose stored octets are those of the wire.
    pub wire: u64,
}

impl Thresholds {
    fn of(&self, form: StoredForm) -> u64 {
        match form {
            StoredForm::Text => self.text,
            StoredForm::Wire => self.wire,
        }
    }
}

/// Where the next piece begins.
#[derive(Clone, Copy)]
struct Rest {
    position: Position,
    /// Octets behind `position` that the client has.
    has: usize,
}

/// What a piece came to.
enum Piece {
    /// So many octets have gone, and there is more.
    Sent(Rest, usize),
    /// The socket takes no more for now.
    Full(Rest),
    /// All that is left stands in the output.
    Last(Position),
}

/// Why a message was not sent.
enum Failure {
    /// Nothing of it has gone.
    Unbegun(Fault),
    /// Something of it has, so that there is no reply left to give.
    Begun(Fault),
    Connection(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Connection(broken)
    }
}

impl Connection {
    /// Sends a message, or the top of it, with its first line and terminator.
    pub(super) async fn deliver(
        &mut self,
        number: MessageNumber,
        body_lines: Option<u64>,
    ) -> Result<Outcome, Broken> {
        let snapshot = match &self.maildrop {
            Some(maildrop) => Arc::clone(&maildrop.snapshot),
            None => unreachable!("a message is sent from an open maildrop"),
        };
        let Some(octets) = snapshot.octets(number) else {
            unreachable!("the session names messages of its snapshot");
        };
        let place = open::place(snapshot.is_local());
        let opening = message::open_file(&self.context.ring, &snapshot, number, place);
        let (file, stored) = match opening.await {
            Ok(opened) => opened,
            Err(OpenFault::Message(error)) => return Ok(Outcome::Sent(Err(error))),
            Err(OpenFault::Replaced) => {
                // A message file never changes (maildir(5)), and its octets have
                // been announced.
                let name = show(&snapshot, number);
                tracing::warn!("{name}: another program changed or replaced the file");
                Box::pin(self.recount(snapshot, number)).await;
                return Ok(Outcome::Sent(Err(MessageError::Unreadable)));
            }
        };
        let form = match body_lines {
            None => snapshot.as_stored(number).unwrap_or(StoredForm::Text),
            // TOP walks over the text in any case.
            Some(_) => StoredForm::Text,
        };
        let source = self.source(&file, stored, form, body_lines)?;
        let mut message = Message {
            file,
            stored,
            form,
            source,
            place,
        };
        let stated = snapshot.is_stated(number) == Some(true);
        let start = Position::start(body_lines, stated);
        let sent = self.send_message(&mut message, start, octets, body_lines);
        let sent = sent.await;
        self.context.ring.close(message.file);
        match sent {
            Ok(end) => {
                let sent = end.counted().unwrap_or(octets);
                let sending = body_lines.map_or(Sending::Retr, |_| Sending::Top);
                self.context.counters.message(sending, sent.get());
                if body_lines.is_none() {
                    self.retrieved(&snapshot, number);
                    if stated {
                        Box::pin(self.believe(snapshot, number, (sent, stored))).await;
                    }
                }
                Ok(Outcome::Sent(Ok(sent)))
            }
            Err(Failure::Unbegun(fault)) => {
                tracing::warn!("{}: {fault}", show(&snapshot, number));
                Ok(Outcome::Sent(Err(MessageError::Unreadable)))
            }
            Err(Failure::Begun(fault)) => {
                let text = format!("{}: {fault}", show(&snapshot, number));
                Box::pin(self.recount(snapshot, number)).await;
                Err(Broken::Message(text))
            }
            Err(Failure::Connection(broken)) => Err(broken),
        }
    }

    /// How a message's octets are to be had.
    fn source(
        &mut self,
        file: &Handle,
        stored: u64,
        form: StoredForm,
        body_lines: Option<u64>,
    ) -> Result<Source, Broken> {
        if body_lines.is_none() && stored > limits::WINDOW as u64 {
            self.link.hand_over()?;
        }
        // What is encrypted here goes through a buffer anyway, and TOP stops early.
        let small = stored < self.context.thresholds.of(form);
        let buffered = form == StoredForm::Wire && self.link.makes_records();
        if small || buffered || body_lines.is_some() {
            return Ok(Source::Read);
        }
        // What cannot be mapped can be read, or the read says why not.
        let octets = usize::try_from(stored).unwrap_or(usize::MAX);
        let mapping = Mapping::new(file, octets);
        Ok(mapping.map_or(Source::Read, |mapping| Source::Mapped {
            mapping,
            resident: 0,
        }))
    }

    /// A message was sent whole.
    fn retrieved(&mut self, snapshot: &Snapshot, number: MessageNumber) {
        if let Some(maildrop) = &mut self.maildrop
            && self.context.services.maildrops.follows(snapshot, number)
        {
            maildrop.retrieved.get_or_insert_default().insert(number);
        }
    }

    /// Holds what was sent, and the file's size, against what the name states.
    async fn believe(
        &self,
        snapshot: Arc<Snapshot>,
        message: MessageNumber,
        (octets, stored): (Octets, u64),
    ) {
        let told = (snapshot.octets(message), snapshot.stored(message));
        if told != (Some(octets), Some(stored)) {
            tracing::warn!(
                "{}: the name states wrong sizes: the file has {stored} octets, {} on the wire",
                show(&snapshot, message),
                octets.get()
            );
            self.recount(snapshot, message).await;
        }
    }

    /// What is known of a message does not hold; the next session is told better.
    async fn recount(&self, snapshot: Arc<Snapshot>, message: MessageNumber) {
        let maildrops = self.context.services.maildrops.clone();
        let place = open::place(snapshot.is_local());
        let recounting = move || maildrops.recount(&snapshot, message);
        self.context.ring.blocking(place, recounting).await;
    }

    /// Sends the first line and the pieces of a message; the last stays in the output.
    async fn send_message(
        &mut self,
        message: &mut Message,
        start: Position,
        octets: Octets,
        body_lines: Option<u64>,
    ) -> Result<Position, Failure> {
        let replies = self.begin(octets, body_lines).await?;
        let mut begun = false;
        let mut slice = 0;
        let mut rest = Rest {
            position: start,
            has: 0,
        };
        loop {
            rest = match self.piece(message, rest).await {
                Ok(Piece::Last(end)) => return Ok(end),
                Ok(Piece::Sent(rest, octets)) => {
                    slice += octets;
                    rest
                }
                Ok(Piece::Full(rest)) => {
                    self.wait_for_client(message).await?;
                    slice = 0;
                    rest
                }
                Err(Failure::Begun(fault)) if !begun => {
                    // The first line is still here, and an `-ERR` can take its place.
                    self.out.buffer_mut().truncate(replies);
                    return Err(Failure::Unbegun(fault));
                }
                Err(failure) => return Err(failure),
            };
            begun = true;
            if slice >= limits::SLICE {
                slice = 0;
                // The next turn of the ring, in which others have been served.
                self.context.ring.sleep_until(Instant::now()).await;
            }
        }
    }

    /// Writes the first line behind the replies that have not gone yet; says how
    /// many octets those are.
    async fn begin(&mut self, octets: Octets, body_lines: Option<u64>) -> Result<usize, Broken> {
        let wanted = octets.get().saturating_add(limits::REPLY_LINE as u64);
        let earlier = self.out.as_bytes().len();
        // Small messages leave together; before a large one, long replies go first.
        let together = wanted.saturating_add(earlier as u64) <= limits::WINDOW as u64;
        if earlier > limits::REPLY_ROOM && !together {
            self.flush().await?;
        }
        let earlier = self.out.as_bytes().len();
        // A line more often than not is some dots to double.
        let wanted = wanted.saturating_add((earlier + limits::SMALLEST_PIECE) as u64);
        let wanted = wanted.min(limits::WINDOW as u64);
        if ((earlier + self.out.room()) as u64) < wanted {
            self.replace_output(Purpose::for_octets(wanted));
        }
        match body_lines {
            None => reply::message_follows(&mut self.out, octets),
            Some(_) => reply::top_follows(&mut self.out),
        }
        Ok(earlier)
    }

    /// Makes the next piece and has the socket take of it what it does.
    async fn piece(&mut self, message: &mut Message, rest: Rest) -> Result<Piece, Failure> {
        let left = message.stored - rest.position.offset.min(message.stored);
        if message.form == StoredForm::Wire
            && left > limits::WINDOW as u64
            && matches!(message.source, Source::Mapped { .. })
        {
            return self.send_as_it_is(message, rest, left).await;
        }
        self.make_room(Purpose::for_octets(
            left.saturating_add(limits::REPLY_BUFFER as u64),
        ));
        let head = self.out.as_bytes().len();
        let (next, complete) = self.fill(message, rest.position).await?;
        let made = self.out.as_bytes().len() - head;
        let has = rest.has.min(made);
        self.out.buffer_mut().drain(head..head + has);
        if complete {
            return Ok(Piece::Last(next));
        }
        let behind = Rest {
            position: next,
            has: rest.has - has,
        };
        let sent = self.link.send_now(self.out.as_bytes(), true)?;
        let whole = self.out.as_bytes().len();
        if sent == whole {
            self.keep(0..0);
            return Ok(if self.link.is_behind() {
                Piece::Full(behind)
            } else {
                Piece::Sent(behind, sent)
            });
        }
        // What is left is made again, but for replies before the message.
        let of_text = sent.saturating_sub(head);
        self.keep(sent.min(head)..head);
        Ok(Piece::Full(Rest {
            position: rest.position,
            has: has + of_text,
        }))
    }

    /// Has the socket take what it does of the next octets of a message that goes as
    /// it is.
    async fn send_as_it_is(
        &mut self,
        message: &mut Message,
        rest: Rest,
        left: u64,
    ) -> Result<Piece, Failure> {
        assert!(rest.has == 0, "a position within what is sent as it is");
        let Rest { mut position, .. } = rest;
        // Some is left for the terminator to leave with.
        let left = usize::try_from(left).expect("what is mapped has addresses");
        let most = limits::SLICE.min(left - limits::KEPT_BACK);
        let mapped = message.mapped(&self.context.ring, position, most).await;
        mapped.map_err(Failure::Begun)?;
        let head = self.out.as_bytes().len();
        if head > 0 {
            let sent = self.link.send_now(self.out.as_bytes(), true)?;
            self.keep(sent..head);
            if sent < head {
                return Ok(Piece::Full(rest));
            }
        }
        let offset = position.offset;
        let sent = match self.link.send_file(&message.file, offset, most)? {
            Ok(0) => {
                let (stored, found) = (message.stored, offset);
                return Err(Failure::Begun(Fault::Truncated { stored, found }));
            }
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Failure::Begun(Fault::Read(error))),
        };
        position.skip(sent);
        let rest = Rest { position, has: 0 };
        Ok(if sent == most {
            Piece::Sent(rest, sent)
        } else {
            Piece::Full(rest)
        })
    }

    /// Waits with nothing in hand until the client takes more.
    async fn wait_for_client(&mut self, message: &mut Message) -> Result<(), Broken> {
        if self.link.is_behind() {
            return self.flush().await;
        }
        if self.link.writable(limits::PATIENCE).await? {
            return Ok(());
        }
        message.source = Source::Read;
        let patience = self.context.write_stall.saturating_sub(limits::PATIENCE);
        if self.link.writable(patience).await? {
            Ok(())
        } else {
            Err(Broken::Stalled)
        }
    }

    /// Appends text from `at` on to the output, as much as fits, with the
    /// terminator if it comes that far; says how far it came.
    async fn fill(
        &mut self,
        message: &mut Message,
        mut at: Position,
    ) -> Result<(Position, bool), Failure> {
        let stored = message.stored;
        loop {
            if at.is_end(stored) {
                at.finish(self.out.buffer_mut());
                return Ok((at, true));
            }
            let room = self.out.room().saturating_sub(limits::MESSAGE_END);
            let left = stored - at.offset;
            if room < limits::SMALLEST_PIECE && left.saturating_mul(2) > room as u64 {
                return Ok((at, false));
            }
            let filled = match (&message.source, message.form) {
                (Source::Mapped { .. }, StoredForm::Text) => {
                    self.encode_mapped(message, &mut at, room).await
                }
                (_, StoredForm::Wire) => self.read_as_it_is(message, &mut at, room).await,
                (Source::Read, StoredForm::Text) => self.read_text(message, &mut at, room).await,
            };
            filled.map_err(Failure::Begun)?;
        }
    }

    async fn encode_mapped(
        &mut self,
        message: &mut Message,
        at: &mut Position,
        room: usize,
    ) -> Result<(), Fault> {
        let stored = message.stored;
        let mapped = message.mapped(&self.context.ring, *at, room).await?;
        let Some((mapping, part)) = mapped else {
            unreachable!("a mapped message");
        };
        let out = self.out.buffer_mut();
        let encoded = mapping.read(part, |octets| at.encode(octets, stored, out));
        encoded.map_err(|ring::Lost| Fault::Lost { stored })
    }

    async fn read_as_it_is(
        &mut self,
        message: &Message,
        at: &mut Position,
        room: usize,
    ) -> Result<(), Fault> {
        let out = self.take_output();
        let most = (message.stored - at.offset).min(room as u64);
        let ring = &self.context.ring;
        let (read, out) = message.read(ring, out, at.offset, most).await;
        self.out = Output::new(out);
        at.offset += read?;
        Ok(())
    }

    async fn read_text(
        &mut self,
        message: &Message,
        at: &mut Position,
        room: usize,
    ) -> Result<(), Fault> {
        // A little less than there is room for: text grows by an octet a line.
        let most = (message.stored - at.offset).min((room - room / 32) as u64);
        let text = self.context.buffers.lend(Purpose::for_octets(most));
        let ring = &self.context.ring;
        let (read, text) = message.read(ring, text, at.offset, most).await;
        if read.is_ok() {
            at.encode(&text, message.stored, self.out.buffer_mut());
        }
        self.context.buffers.take_back(text);
        read.map(drop)
    }
}
