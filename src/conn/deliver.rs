//! A message from its file to the client.
//!
//! The file is read into one of the shard's buffers, encoded into another and
//! sent, window by window. Nothing more is read than the snapshot says is
//! there, so that the octets announced are the octets sent, and the end is known
//! before it is reached: the terminator leaves with the octets before it.
//!
//! Once the first line of the reply is written, a failure can be told only by
//! closing the connection. A message that is cut short is never terminated: a
//! client that took it for whole would delete it.

use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, StatxFlags};

use crate::limits;
use crate::maildrop::{self, MessageError, Snapshot};
use crate::observe::Sending;
use crate::proto::{MessageNumber, Octets, reply};
use crate::ring::Handle;
use crate::session::Outcome;
use crate::wire::{Encoder, OctetCounter, TopLimit};

use super::Connection;
use super::buffers::Purpose;
use super::link::Broken;

/// Octets kept back from a full window so that the terminator has company.
const KEPT: usize = 64;

impl Connection {
    /// Sends a message, or the top of it, with its first line and terminator.
    pub(super) async fn deliver(
        &mut self,
        message: MessageNumber,
        body_lines: Option<u64>,
    ) -> Result<Outcome, Broken> {
        let snapshot = match &self.maildrop {
            Some(maildrop) => maildrop.snapshot.clone(),
            None => unreachable!("a message is sent from an open maildrop"),
        };
        let (Some(stored), Some(octets)) = (snapshot.stored(message), snapshot.octets(message))
        else {
            unreachable!("the session names messages of its snapshot");
        };
        let file = match self.open_message(&snapshot, message).await {
            Ok(file) => file,
            Err(error) => return Ok(Outcome::Sent(Err(error))),
        };
        let Some(stored) = size_of_the_one(&file, &snapshot, message, stored) else {
            // A message file never changes (maildir(5)), and its octets have
            // been announced.
            warn_of_change(&snapshot, message);
            self.context.ring.close(file);
            self.recount(snapshot, message).await;
            return Ok(Outcome::Sent(Err(MessageError::Unreadable)));
        };
        let stated = snapshot.is_stated(message) == Some(true);
        let mut window = Window {
            file,
            stored,
            counted: stated,
            offset: 0,
            octets: self.context.buffers.lend(Purpose::for_octets(stored)),
        };
        // The first window comes before the first line: a file that cannot be
        // read still gets its `-ERR`.
        let sent = match self.read(&mut window).await {
            Ok(()) => {
                self.begin(octets, body_lines).await?;
                self.send_text(&mut window, body_lines).await
            }
            Err(fault) => {
                tracing::warn!("{}: {fault}", show(&snapshot, message));
                Ok(Outcome::Sent(Err(MessageError::Unreadable)))
            }
        };
        self.context.buffers.take_back(window.octets);
        self.context.ring.close(window.file);
        match sent {
            Err(Broken::Message(fault)) => {
                let text = format!("{}: {fault}", show(&snapshot, message));
                self.recount(snapshot, message).await;
                Err(Broken::Message(text))
            }
            Ok(Outcome::Sent(Ok(counted))) => {
                let sent = if body_lines.is_none() && !stated {
                    octets
                } else {
                    counted
                };
                let sending = body_lines.map_or(Sending::Retr, |_| Sending::Top);
                self.context.counters.message(sending, sent.get());
                if body_lines.is_none() {
                    let counted = stated.then_some((sent, stored));
                    self.retrieved(snapshot, message, counted).await;
                }
                Ok(Outcome::Sent(Ok(sent)))
            }
            other => other,
        }
    }

    /// A message was sent whole; `believed` is what was counted where only the
    /// file's name had told its sizes.
    async fn retrieved(
        &mut self,
        snapshot: Arc<Snapshot>,
        message: MessageNumber,
        believed: Option<(Octets, u64)>,
    ) {
        if let Some(maildrop) = &mut self.maildrop
            && self.context.services.maildrops.follows(&snapshot, message)
        {
            maildrop.retrieved.get_or_insert_default().insert(message);
        }
        if let Some(counted) = believed {
            self.believe(snapshot, message, counted).await;
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
        self.context
            .ring
            .blocking(move || maildrops.recount(&snapshot, message))
            .await;
    }

    async fn begin(&mut self, octets: Octets, body_lines: Option<u64>) -> Result<(), Broken> {
        if body_lines.is_none() && octets.get() > limits::WINDOW as u64 {
            self.link.hand_over()?;
        }
        let earlier = self.out.as_bytes().len();
        if earlier > limits::REPLY_ROOM {
            self.flush().await?;
        }
        // Earlier replies, the first line and the end leave with the message.
        let around = (earlier + limits::REPLY_LINE) as u64;
        let wanted = octets.get().saturating_add(around);
        if (self.out.room() as u64) < wanted.min(limits::WINDOW as u64) {
            self.replace_output(Purpose::for_octets(wanted));
        }
        match body_lines {
            None => reply::message_follows(&mut self.out, octets),
            Some(_) => reply::top_follows(&mut self.out),
        }
        Ok(())
    }

    /// Encodes and sends from the window on to the end of what is wanted.
    async fn send_text(
        &mut self,
        window: &mut Window,
        body_lines: Option<u64>,
    ) -> Result<Outcome, Broken> {
        let mut encoder = Encoder::new();
        let mut limit = body_lines.map(TopLimit::new);
        // What RETR sends is known beforehand, as a rule.
        let mut sent = OctetCounter::new();
        loop {
            let mut wanted = window.octets.len();
            if let Some(limit) = &mut limit {
                wanted = limit.take(&window.octets);
            }
            if window.counted || limit.is_some() {
                sent.update(&window.octets[..wanted]);
            }
            let mut done = 0;
            while done < wanted {
                done += encoder.encode(&window.octets[done..wanted], self.out.buffer_mut());
                if done < wanted {
                    self.flush_window().await?;
                }
            }
            let complete = window.offset >= window.stored;
            if complete || limit.as_ref().is_some_and(TopLimit::done) {
                break;
            }
            self.read(window)
                .await
                .map_err(|fault| Broken::Message(fault.to_string()))?;
        }
        if self.out.room() < limits::MESSAGE_END {
            self.flush_window().await?;
        }
        encoder.finish(self.out.buffer_mut());
        Ok(Outcome::Sent(Ok(sent.finish())))
    }

    /// Sends a full window but for its last octets, with which what follows, be
    /// it the terminator alone, leaves in one write.
    async fn flush_window(&mut self) -> Result<(), Broken> {
        let bytes = self.out.as_bytes();
        let kept = bytes[bytes.len() - KEPT..].to_vec();
        let length = bytes.len() - KEPT;
        self.out.buffer_mut().truncate(length);
        self.flush().await?;
        self.make_room(Purpose::Window);
        self.out.push(&kept);
        Ok(())
    }

    /// Reads the next octets of the file in place of those in the window.
    async fn read(&mut self, window: &mut Window) -> Result<(), Fault> {
        let mut octets = std::mem::take(&mut window.octets);
        octets.clear();
        let wanted = window.stored - window.offset;
        if wanted == 0 {
            window.octets = octets;
            return Ok(());
        }
        let ring = &self.context.ring;
        let (read, octets) = ring
            .read_at(&window.file, octets, window.offset, wanted)
            .await;
        window.octets = octets;
        match read {
            Ok(0) => Err(Fault::Truncated {
                stored: window.stored,
                found: window.offset,
            }),
            Ok(count) => {
                window.offset += count as u64;
                Ok(())
            }
            Err(error) => Err(Fault::Read(error)),
        }
    }

    /// Opens a message's file, under its new name where it was renamed.
    async fn open_message(
        &mut self,
        snapshot: &Arc<Snapshot>,
        message: MessageNumber,
    ) -> Result<Handle, MessageError> {
        let path = snapshot.c_path(message).expect("a message of the snapshot");
        let error = match self.context.ring.open_message(path).await {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::ENOENT) {
            tracing::warn!("{}: cannot be opened: {error}", show(snapshot, message));
            return Err(MessageError::from(&error));
        }
        let looked_up = Arc::clone(snapshot);
        let looking = move || maildrop::locate(&looked_up, message);
        match self.context.ring.blocking(looking).await {
            Ok(Some(file)) => Ok(Handle::new(file)),
            Ok(None) => Err(MessageError::Gone),
            Err(error) => {
                tracing::warn!("{}: cannot be found: {error}", show(snapshot, message));
                Err(MessageError::Unreadable)
            }
        }
    }
}

/// A piece of a message file.
struct Window {
    file: Handle,
    /// The file's size as the snapshot has it.
    stored: u64,
    /// Whether the octets of RETR are counted while they are sent.
    counted: bool,
    /// Where the octets behind the window begin.
    offset: u64,
    octets: Vec<u8>,
}

/// What can be wrong with a message's file.
enum Fault {
    Read(std::io::Error),
    Truncated { stored: u64, found: u64 },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Read(error) => write!(f, "cannot be read: {error}"),
            Fault::Truncated { stored, found } => write!(
                f,
                "the file was {stored} octets long when the maildrop was opened and ends at \
                 {found} now: another program changed it"
            ),
        }
    }
}

/// The size of an open file, if it is the regular file that was counted, as far as
/// the kernel knows without asking a server. One rewritten in place at the same
/// size is not found out here; one that nobody has counted may have any size.
fn size_of_the_one(
    file: &Handle,
    snapshot: &Snapshot,
    message: MessageNumber,
    stored: u64,
) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mask = StatxFlags::SIZE | StatxFlags::INO | StatxFlags::TYPE;
    let Ok(stat) = rustix::fs::statx(file, c"", flags, mask) else {
        return Some(stored);
    };
    let is_it = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
        && (stat.stx_size == stored || snapshot.is_stated(message) == Some(true))
        && Some(stat.stx_ino) == snapshot.inode(message);
    is_it.then_some(stat.stx_size)
}

fn warn_of_change(snapshot: &Snapshot, message: MessageNumber) {
    let name = show(snapshot, message);
    tracing::warn!("{name}: another program changed or replaced the file");
}

fn show(snapshot: &Snapshot, message: MessageNumber) -> String {
    let path = snapshot.path(message).unwrap_or_default();
    path.display().to_string()
}
