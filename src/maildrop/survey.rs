//! Listings of a maildrop until they can be believed. BLOCKING: for pool threads only.
//!
//! **The race.** Another program may rename messages while they are listed: from
//! new/ to cur/, or to other flags. `readdir` then may show a message twice or
//! not at all, and a client that is not shown a message believes that it is gone.
//! So a listing counts as whole only if both directories carried the same stamps
//! before and after it, and if those prove it: a change behind them would have given
//! others. Otherwise the maildrop is listed again and the listings are laid over each
//! other: nobody who was seen leaves, nor anybody whom the snapshot before knew, until
//! a whole listing does not show them. A maildrop that never stands still is taken as
//! it is after [`limits::QUIET_LISTINGS`] in a row that brought nothing new. The error
//! that is left is a message too many, which answers `-ERR` when it is fetched.
//!
//! **Why the same stamps prove it.** The kernel changes a directory and its stamp
//! while it holds the directory's lock, reads it under the same lock, and moves from
//! one to another with both held. Whoever is missed was renamed between two of our
//! reads, so that the rename's stamp was there when the later of them began; it is seen
//! behind the listing unless it is the same as before. That is what
//! [`Reading`] rules out.
//!
//! **Patience.** On a kernel whose clock ticks (before Linux 6.13 every one) two renames of one
//! tick leave one stamp, however often it is listed within that tick. So on a stamp as young
//! as that the listing begins only when its clock has moved on: a tick later at most,
//! [`TICK`], which is as long as another machine's clock stands still. Only a maildrop that
//! has changed within the last tick waits, and one that changes all the time no longer than
//! [`WAITS`]. Whole seconds are not waited for: there the listings are laid over each other.
//!
//! A directory whose stamp is that of the snapshot before, and was old enough then,
//! is not listed: a delivery into new/ costs nothing for what is in cur/. And where the
//! first listing is whole and shows all that was known as it was, and a few messages more,
//! only these are on the [`roll`](super::roll): see [`arrivals`](super::arrivals).
//!
//! Rejected: to believe two listings that agree on a young stamp. Both miss a message that
//! is moved back and forth between their halves.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::arrivals;
use super::entries::Entries;
use super::error::{Cause, OpenError};
use super::listing::{self, Buffers, Folders, Root};
use super::message::{Facts, Trust};
use super::name::Name;
use super::roll::{Measured, Roll};
use super::snapshot::{Folder, Knowledge, Snapshot};
use super::stamps::{self, Reading, Stamps, Standing, TICK, Time};
use crate::limits;

/// How often a survey waits for a tick to end. A maildrop that has changed again each time is
/// one that does not stand still.
const WAITS: u32 = 3;

/// How often the clock is looked at meanwhile: at least once in the shortest tick
/// (`CONFIG_HZ=1000`).
const STEP: Duration = Duration::from_millis(1);

/// The directories that are listed, and the clock of their stamps.
pub(super) trait Ground {
    /// What the clock says now.
    fn reading(&self) -> Reading;
    /// Lets that much time pass.
    fn wait(&mut self, time: Duration);
    /// The stamps as they are now.
    fn stamps(&mut self) -> Result<Stamps, OpenError>;
    /// Opens the directories that are there now, for [`list`](Self::list).
    fn open(&mut self) -> Result<(), OpenError>;
    /// Adds what one of them holds.
    fn list(&mut self, folder: Folder, listed: &mut Entries) -> Result<(), OpenError>;
    /// Opens and reads one message, by a name that was listed, and counts its octets.
    fn measure(&mut self, folder: Folder, name: &[u8]) -> Result<Measured, OpenError>;
    /// The open directories.
    fn folders(&self) -> &Folders;
}

/// A maildrop on a disk.
pub(super) struct Disk<'a> {
    root: &'a Root,
    local: bool,
    folders: Folders,
    buffers: Buffers,
}

impl<'a> Disk<'a> {
    pub(super) fn new(root: &'a Root, buffers: Buffers) -> Self {
        Self {
            root,
            local: stamps::is_local(root.path()),
            folders: Folders::default(),
            buffers,
        }
    }
}

impl Ground for Disk<'_> {
    fn reading(&self) -> Reading {
        Reading::now(self.local)
    }

    fn wait(&mut self, time: Duration) {
        thread::sleep(time);
    }

    fn stamps(&mut self) -> Result<Stamps, OpenError> {
        self.root.stamps()
    }

    fn open(&mut self) -> Result<(), OpenError> {
        self.folders = self.root.folders()?;
        Ok(())
    }

    fn list(&mut self, folder: Folder, listed: &mut Entries) -> Result<(), OpenError> {
        let path = self.root.path();
        self.folders.list(folder, path, &mut self.buffers, listed)
    }

    fn measure(&mut self, folder: Folder, name: &[u8]) -> Result<Measured, OpenError> {
        let Some(fd) = self.folders.fd(folder) else {
            return Ok(Measured::Vanished);
        };
        listing::measure(fd, name, &mut self.buffers).map_err(|(attempt, errno)| {
            let folder = self.root.path().join(folder.name());
            OpenError::system(attempt, &folder.join(OsStr::from_bytes(name)), errno)
        })
    }

    fn folders(&self) -> &Folders {
        &self.folders
    }
}

/// Stamps before a listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// As they are.
    pub(super) stamps: Stamps,
    /// What the clock said before that.
    reading: Reading,
    /// Every later change gives others.
    proves: bool,
}

impl Look {
    /// Without any wait.
    pub(super) fn now(ground: &mut impl Ground) -> Result<Self, OpenError> {
        let reading = ground.reading();
        let stamps = ground.stamps()?;
        Ok(Self {
            stamps,
            reading,
            proves: stamps.are_settled(reading),
        })
    }

    /// Whether a listing between this and now is whole.
    pub(super) fn holds(&self, ground: &mut impl Ground) -> Result<bool, OpenError> {
        Ok(self.proves && ground.stamps()? == self.stamps)
    }

    fn standing(&self) -> Standing {
        Standing::of(self.stamps, self.reading)
    }
}

/// How often stamps that are too young may still be waited for.
#[derive(Debug)]
pub(super) struct Patience(u32);

impl Patience {
    pub(super) fn new() -> Self {
        Self(WAITS)
    }

    /// Stamps that prove what is listed behind them, if there are any to be had.
    pub(super) fn look(&mut self, ground: &mut impl Ground) -> Result<Look, OpenError> {
        let first = Look::now(ground)?;
        if first.proves || first.stamps.are_coarse() || self.0 == 0 {
            return Ok(first);
        }
        self.0 -= 1;
        let mut waited = Duration::ZERO;
        while waited < TICK && !first.stamps.are_settled(ground.reading()) {
            ground.wait(STEP);
            waited += STEP;
        }
        let second = Look::now(ground)?;
        // Whatever that clock says: it ticked since those stamps were there.
        let aged = waited >= TICK && second.stamps == first.stamps;
        Ok(Look {
            proves: second.proves || aged,
            ..second
        })
    }
}

/// What a survey found.
pub(super) struct Surveyed<'a> {
    /// These messages are there as they were, all of them, and the roll's beside them.
    pub(super) beside: Option<&'a Snapshot>,
    pub(super) roll: Roll,
    pub(super) standing: Standing,
    pub(super) trust: Trust,
    /// When the directories had last changed, in their own clock.
    pub(super) newest: Option<Time>,
}

impl Surveyed<'_> {
    /// Whether there is no message.
    pub(super) fn is_empty(&self) -> bool {
        self.roll.len() == 0 && self.beside.is_none_or(Snapshot::is_empty)
    }

    /// All of it.
    pub(super) fn snapshot(self, asked: &Path, root: &Path, knowledge: Knowledge) -> Snapshot {
        match self.beside {
            Some(known) => Snapshot::extend(known, asked, root, knowledge, self.roll),
            None => Snapshot::assemble(asked, root, knowledge, self.roll),
        }
    }
}

/// What came of one listing.
enum Verdict<'a> {
    /// It is whole, and this is what it is worth later.
    Whole(Standing),
    /// The same, and this snapshot holds beside what is on the roll.
    Beside(&'a Snapshot, Standing),
    /// Something changed meanwhile.
    Torn,
}

/// Listings that are laid over each other.
pub(super) struct Survey<'a, G> {
    root: &'a Root,
    ground: G,
    /// What was known before, unless it is on the roll.
    known: Option<&'a Snapshot>,
    roll: Roll,
    /// What the snapshot before was worth.
    before: Standing,
    trust: Trust,
    patience: Patience,
    /// When the directories had last changed, at the last listing.
    newest: Option<Time>,
    /// Listings made so far.
    listings: u32,
    /// Those in a row that brought nothing new.
    quiet: u32,
}

impl<'a, G: Ground> Survey<'a, G> {
    pub(super) fn new(root: &'a Root, ground: G, previous: Option<&'a Snapshot>) -> Self {
        let knowledge = previous.map(Snapshot::knowledge);
        Self {
            root,
            ground,
            known: previous,
            roll: Roll::default(),
            before: knowledge.map_or(Standing::Unsettled, |known| known.standing),
            trust: knowledge.map_or(Trust::Untested, |known| known.trust),
            patience: Patience::new(),
            newest: None,
            listings: 0,
            quiet: 0,
        }
    }

    /// The same, and every message is read, whatever is known of it or stated by its name.
    pub(super) fn reading_all(mut self) -> Self {
        self.recall();
        self.roll.forget_facts();
        self.trust = Trust::Wrong;
        self
    }

    /// Lists until the listings can be believed. The stamps are those to check
    /// later, if any are worth it.
    pub(super) fn run(mut self) -> Result<Surveyed<'a>, OpenError> {
        loop {
            match self.pass()? {
                Verdict::Beside(known, standing) => {
                    return Ok(Surveyed {
                        beside: Some(known),
                        ..self.end(standing)
                    });
                }
                Verdict::Whole(standing) => {
                    self.roll.keep_seen_since(self.listings);
                    if self.roll.unmeasured_since(0) == 0 {
                        return Ok(self.end(standing));
                    }
                }
                Verdict::Torn => {}
            }
            if self.quiet >= limits::QUIET_LISTINGS || self.listings >= limits::LISTINGS {
                let recent = self.listings.saturating_sub(self.quiet);
                if self.roll.unmeasured_since(recent) > 0 {
                    return Err(OpenError::of(self.root.path(), Cause::Restless));
                }
                return Ok(self.end(Standing::Unsettled));
            }
        }
    }

    fn end(self, standing: Standing) -> Surveyed<'a> {
        Surveyed {
            beside: None,
            roll: self.roll,
            standing,
            trust: self.trust,
            newest: self.newest,
        }
    }

    /// Has what was known before on the roll.
    fn recall(&mut self) {
        if let Some(known) = self.known.take() {
            self.roll = Roll::recall(known);
        }
    }

    /// One listing, laid over what is known, and a reading of who is new.
    fn pass(&mut self) -> Result<Verdict<'a>, OpenError> {
        self.listings += 1;
        let look = self.patience.look(&mut self.ground)?;
        self.newest = look.stamps.newest();
        self.ground.open()?;
        let mut listed = self.known.map(Entries::with_room_of).unwrap_or_default();
        let held = |folder| self.before.holds(folder, &look.stamps);
        // new/ first: what moves the usual way is then seen at least once.
        for folder in [Folder::New, Folder::Cur] {
            if !held(folder) {
                self.ground.list(folder, &mut listed)?;
            }
        }
        let whole = look.holds(&mut self.ground)?;
        if let Some(known) = self.known.filter(|_| whole)
            && let Some(arrivals) = arrivals::beside(known, &listed, held)
        {
            self.roll = arrivals;
            self.measure()?;
            if self.roll.unmeasured_since(0) == 0 {
                return Ok(Verdict::Beside(known, look.standing()));
            }
        }
        self.recall();
        for folder in [Folder::New, Folder::Cur] {
            if self.before.holds(folder, &look.stamps) {
                self.roll.mark_unchanged(folder, self.listings);
            }
        }
        let mut listed = Roll::of(&listed);
        listed.mark_seen(self.listings);
        listed.sort();
        let (roll, new) = std::mem::take(&mut self.roll).lay_over(listed);
        self.roll = roll;
        let measured = self.measure()?;
        // Who was seen and was gone when it was to be opened has another name by now.
        let renamed = self.roll.unmeasured_since(self.listings);
        self.quiet = if new + measured + renamed > 0 {
            0
        } else {
            self.quiet + 1
        };
        Ok(if whole {
            Verdict::Whole(look.standing())
        } else {
            Verdict::Torn
        })
    }

    fn measure(&mut self) -> Result<usize, OpenError> {
        let (ground, trust) = (&mut self.ground, &mut self.trust);
        self.roll.measure_with(|folder, name| {
            let stated = Name::parse(name).and_then(|name| stated(&name));
            if let (Some(facts), Trust::Right) = (stated, *trust) {
                return Ok(Measured::Facts(facts));
            }
            let measured = ground.measure(folder, name)?;
            if let (Some(stated), Measured::Facts(counted)) = (stated, measured)
                && *trust == Trust::Untested
            {
                let right = (stated.octets, stated.stored) == (counted.octets, counted.stored);
                *trust = if right { Trust::Right } else { Trust::Wrong };
            }
            Ok(measured)
        })
    }
}

/// The sizes that a name states, if it states both.
fn stated(name: &Name<'_>) -> Option<Facts> {
    Some(Facts {
        octets: name.stated_octets()?,
        stored: name.stated_size()?,
        verbatim: false,
        sum: None,
    })
}

#[cfg(test)]
pub(super) mod tests;
