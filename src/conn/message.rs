//! A message's file, and how far it has been sent.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, StatxFlags};

use crate::limits;
use crate::maildrop::{self, MessageError, Snapshot, StoredForm};
use crate::proto::{MessageNumber, Octets};
use crate::ring::{self, Handle, Mapping, Place, Ring};
use crate::wire::{Encoder, OctetCounter, TopLimit};

/// How a message's octets come out of its file.
pub(super) enum Source {
    /// By reads.
    Read,
    /// From memory that the file is mapped to.
    Mapped {
        mapping: Mapping,
        /// Octets, from the beginning, that have been brought into memory.
        resident: usize,
    },
}

/// A message that is being sent.
pub(super) struct Message {
    pub(super) file: Handle,
    /// The file's size.
    pub(super) stored: u64,
    pub(super) form: StoredForm,
    pub(super) source: Source,
    /// Whom a look at the file waits for.
    pub(super) place: Place,
}

/// How far a message has been encoded: all that there is of it while its client does
/// not read.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) offset: u64,
    encoder: Encoder,
    /// Where TOP ends.
    limit: Option<TopLimit>,
    /// Counts what is sent, where that is not known beforehand.
    counter: Option<OctetCounter>,
}

/// What can be wrong with a message's file.
pub(super) enum Fault {
    Read(io::Error),
    Truncated {
        stored: u64,
        found: u64,
    },
    /// Mapped memory is not what the file was.
    Lost {
        stored: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Read(error) => write!(f, "cannot be read: {error}"),
            Fault::Truncated { stored, found } => write!(
                f,
                "the file was {stored} octets long when the maildrop was opened and ends at \
                 {found} now: another program changed it"
            ),
            Fault::Lost { stored } => write!(
                f,
                "of the {stored} octets that the file had when the maildrop was opened some are \
                 not there any more: another program changed it, or its device fails"
            ),
        }
    }
}

impl Message {
    /// Where up to `most` octets behind a position are in a mapping, and in memory by
    /// now.
    ///
    /// # Errors
    ///
    /// They are not there any more.
    pub(super) async fn mapped(
        &mut self,
        ring: &Ring,
        from: Position,
        most: usize,
    ) -> Result<Option<(&Mapping, Range<usize>)>, Fault> {
        let stored = self.stored;
        let Source::Mapped { mapping, resident } = &mut self.source else {
            return Ok(None);
        };
        let start = usize::try_from(from.offset).expect("what is mapped has addresses");
        let whole = usize::try_from(stored).expect("what is mapped has addresses");
        let end = whole.min(start + most);
        if end > *resident {
            let stretch = start..whole.min(start + limits::STRETCH.max(most));
            let done = stretch.end;
            let populated = ring.make_resident(mapping, stretch).await;
            populated.map_err(|error| match error.raw_os_error() {
                Some(libc::EFAULT | libc::EHWPOISON) => Fault::Lost { stored },
                _ => Fault::Read(error),
            })?;
            *resident = done;
        }
        Ok(Some((mapping, start..end)))
    }

    /// Reads up to `most` octets, at least one, behind what is in `buffer`.
    pub(super) async fn read(
        &self,
        ring: &Ring,
        mut buffer: Vec<u8>,
        offset: u64,
        most: u64,
    ) -> (Result<u64, Fault>, Vec<u8>) {
        let mut read = match self.place {
            Place::Local => ring::read_cached(&self.file, &mut buffer, offset, most),
            Place::Far => Err(io::ErrorKind::WouldBlock.into()),
        };
        let is_cold = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if read.as_ref().is_err_and(is_cold) {
            (read, buffer) = ring.read_at(&self.file, buffer, offset, most).await;
        }
        let read = match read {
            Ok(0) => Err(Fault::Truncated {
                stored: self.stored,
                found: offset,
            }),
            Ok(count) => Ok(count as u64),
            Err(error) => Err(Fault::Read(error)),
        };
        (read, buffer)
    }
}

impl Position {
    /// The beginning of a message for RETR, or for TOP with so many lines.
    pub(super) fn start(body_lines: Option<u64>, counted: bool) -> Position {
        Position {
            offset: 0,
            encoder: Encoder::new(),
            limit: body_lines.map(TopLimit::new),
            counter: (counted || body_lines.is_some()).then(OctetCounter::new),
        }
    }

    /// Whether everything that is wanted of a file of `stored` octets was encoded.
    pub(super) fn is_end(&self, stored: u64) -> bool {
        self.offset >= stored || self.limit.is_some_and(|limit| limit.done())
    }

    /// What was counted.
    pub(super) fn counted(&self) -> Option<Octets> {
        self.counter.map(OctetCounter::finish)
    }

    /// Writes the message's end, for which there is room.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        self.encoder.finish(out);
    }

    /// Goes past octets that have gone as they are.
    pub(super) fn skip(&mut self, octets: usize) {
        self.offset += octets as u64;
    }

    /// Encodes octets that stand at this position into `out`, as many as fit, but
    /// leaves room for the message's end, of a file of `stored` octets, with the last.
    /// `out` has room for [`limits::SMALLEST_PIECE`] at least, or for all of them.
    pub(super) fn encode(&mut self, octets: &[u8], stored: u64, out: &mut Vec<u8>) {
        let (before, length) = (*self, out.len());
        self.encode_up_to(octets, out);
        if self.is_end(stored) && out.capacity() - out.len() < limits::MESSAGE_END {
            // The terminator must not travel alone: some text waits for it.
            let taken = usize::try_from(self.offset - before.offset).expect("a piece");
            out.truncate(length);
            *self = before;
            self.encode_up_to(&octets[..taken - limits::KEPT_BACK], out);
        }
    }

    fn encode_up_to(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let before = self.limit;
        let mut wanted = octets;
        if let Some(limit) = &mut self.limit {
            wanted = &octets[..limit.take(octets)];
        }
        let taken = self.encoder.encode(wanted, out);
        if taken < wanted.len()
            && let Some(mut limit) = before
        {
            // Less went than was walked over: walk again, that far.
            limit.take(&wanted[..taken]);
            self.limit = Some(limit);
        }
        if let Some(counter) = &mut self.counter {
            counter.update(&wanted[..taken]);
        }
        self.offset += taken as u64;
    }
}

/// Why a message's file was not opened.
pub(super) enum OpenFault {
    Message(MessageError),
    /// It is another file than the one that was counted, or was rewritten.
    Replaced,
}

/// Opens a message's file, under its new name where it was renamed, and makes sure
/// that it is the file that was counted, of `stored` octets; says how many it has.
pub(super) async fn open_file(
    ring: &Ring,
    snapshot: &Arc<Snapshot>,
    message: MessageNumber,
    place: Place,
) -> Result<(Handle, u64), OpenFault> {
    let path = snapshot.c_path(message).expect("a message of the snapshot");
    let file = match open_at(ring, path, place).await {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            let finding = Box::pin(find(ring, snapshot, message, place));
            finding.await.map_err(OpenFault::Message)?
        }
        Err(error) => {
            tracing::warn!("{}: cannot be opened: {error}", show(snapshot, message));
            return Err(OpenFault::Message(MessageError::from(&error)));
        }
    };
    let Some(size) = size_of_the_one(&file, snapshot, message) else {
        ring.close(file);
        return Err(OpenFault::Replaced);
    };
    Ok((file, size))
}

/// Opens a path, without waiting where that can be.
async fn open_at(ring: &Ring, path: CString, place: Place) -> io::Result<Handle> {
    if place == Place::Local {
        match ring::open_cached(&path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            opened => return opened,
        }
    }
    Box::pin(ring.open_message(path, place)).await
}

/// Looks for a message that is not where it was.
async fn find(
    ring: &Ring,
    snapshot: &Arc<Snapshot>,
    message: MessageNumber,
    place: Place,
) -> Result<Handle, MessageError> {
    let looked_up = Arc::clone(snapshot);
    let looking = move || maildrop::locate(&looked_up, message);
    match ring.blocking(place, looking).await {
        Ok(Some(file)) => Ok(Handle::new(file)),
        Ok(None) => Err(MessageError::Gone),
        Err(error) => {
            tracing::warn!("{}: cannot be found: {error}", show(snapshot, message));
            Err(MessageError::Unreadable)
        }
    }
}

/// The size of an open file, if it is the regular file that was counted, as far as
/// the kernel knows without asking a server. One rewritten in place at the same
/// size is not found out here; one that nobody has counted may have any size.
fn size_of_the_one(file: &Handle, snapshot: &Snapshot, message: MessageNumber) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mask = StatxFlags::SIZE | StatxFlags::INO | StatxFlags::TYPE;
    let Ok(stat) = rustix::fs::statx(file, c"", flags, mask) else {
        return snapshot.stored(message);
    };
    let is_it = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
        && (Some(stat.stx_size) == snapshot.stored(message)
            || snapshot.is_stated(message) == Some(true))
        && Some(stat.stx_ino) == snapshot.inode(message);
    is_it.then_some(stat.stx_size)
}

/// The path of a message's file, for messages to the operator.
pub(super) fn show(snapshot: &Snapshot, message: MessageNumber) -> String {
    let path = snapshot.path(message).unwrap_or_default();
    path.display().to_string()
}
