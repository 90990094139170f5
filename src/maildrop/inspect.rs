//! Looking at indexes and making them anew, for an operator.
//!
//! Looking takes no lock and changes nothing: a server may be running. Making anew
//! takes the maildrop like a session, counts every message again, and keeps every
//! unique-id that the index still knows.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::earlier::{Cutoffs, Sources};
use super::error::OpenError;
use super::guard;
use super::index::{Contents, Damage};
use super::listing::Root;
use super::maildrops::Place;
use super::message::Trust;
use super::scan::{self, Gone, Reading};
use super::snapshot::{Knowledge, Snapshot};
use super::{Location, Maildrops};

/// The octets of a maildrop's index, for [`Contents::read`]; `None` where it has
/// none. BLOCKING.
pub fn octets(at: &Location) -> Result<Option<Vec<u8>>, OpenError> {
    let root = scan::canonical(&at.path)?;
    let index = at.index(&root);
    let Some(opened) = index.open()? else {
        return Ok(None);
    };
    Ok(Some(index.read(opened)?.0))
}

/// What an index says beside what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What is wrong with the file itself.
    pub damage: Option<Damage>,
    /// Messages that index and Maildir have both.
    pub messages: usize,
    /// Those of them whose size it has wrong.
    pub wrong: Vec<WrongSize>,
    /// Messages that are gone since: no fault, the next login notices.
    pub gone: usize,
    /// Messages that came since: no fault either.
    pub new: usize,
}

/// A message whose size an index has wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSize {
    /// Its file's name.
    pub name: Vec<u8>,
    /// Octets on the wire that the index says.
    pub indexed: u64,
    /// Octets on the wire that were counted.
    pub counted: u64,
}

impl Verified {
    /// Whether there is nothing wrong.
    pub fn is_good(&self) -> bool {
        self.damage.is_none() && self.wrong.is_empty()
    }
}

/// Holds an index against the messages, all of which are read; `None` where there
/// is no index. BLOCKING.
pub fn verify(at: &Location) -> Result<Option<Verified>, OpenError> {
    let Some(octets) = octets(at)? else {
        return Ok(None);
    };
    let contents = Contents::read(&octets);
    let root = scan::canonical(&at.path)?;
    let counted = match Root::open(&root)? {
        Some(opened) => {
            let (sources, gone) = (Sources::name(), Gone::Known(&[]));
            scan::list(&at.path, &opened, None, &sources, Reading::All, &gone)?.snapshot
        }
        None => scan::absent(&at.path, &root),
    };
    let mut there: HashMap<_, _> = counted
        .messages()
        .map(|message| ((message.inode, message.unique()), message.facts))
        .collect();
    let mut verified = Verified {
        damage: contents.damage(),
        ..Verified::default()
    };
    for message in contents.messages() {
        let message = message.message();
        let Some(facts) = there.remove(&(message.inode, message.unique())) else {
            verified.gone += 1;
            continue;
        };
        verified.messages += 1;
        let indexed = message.facts;
        if (indexed.octets, indexed.stored) != (facts.octets, facts.stored) {
            verified.wrong.push(WrongSize {
                name: message.name.to_owned(),
                indexed: indexed.octets,
                counted: facts.octets,
            });
        }
    }
    verified.new = there.len();
    Ok(Some(verified))
}

/// What became of an index that was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Messages in it.
    pub messages: usize,
    /// Messages of the old one that had been read from it.
    pub recalled: usize,
}

impl Maildrops {
    /// Makes an index anew: every message is counted, every unique-id that is known
    /// stays. BLOCKING.
    pub fn rebuild(&self, at: &Location) -> Result<Rebuilt, OpenError> {
        let root = scan::canonical(&at.path)?;
        let held = self.hold(&root)?;
        let Some((opened, _)) = &held.opened else {
            return Ok(Rebuilt {
                messages: 0,
                recalled: 0,
            });
        };
        let index = at.index(&root);
        let octets = index.octets()?;
        let contents = Contents::read(&octets);
        let knowledge = Knowledge {
            trust: Trust::Untested,
            retired: contents.retired(),
            ..Knowledge::none()
        };
        let unknown = contents.damage().is_some();
        Cutoffs::give_up_newer(opened)?;
        let (table, former) = contents.into_parts();
        let recalled = Snapshot::new(&at.path, &root, knowledge, table);
        let there = Place {
            asked: &at.path,
            root: opened,
            index: &index,
            unknown,
            shared: at.index.is_none(),
        };
        let gone = Gone::Known(&former);
        let (snapshot, unkept) = self.announce(&there, Some(&recalled), Reading::All, &gone)?;
        if unknown && !octets.is_empty() {
            index.set_aside();
        }
        let written = index.save(None, &snapshot, &former);
        written.map_err(|error| index.fault(&error))?;
        if unkept.is_some() {
            // What it says by now is wrong; a later listing makes it from the index.
            Cutoffs::remove(opened);
        }
        self.cache().forget(&at.path);
        Ok(Rebuilt {
            messages: snapshot.len(),
            recalled: recalled.len(),
        })
    }
}

/// Says that the next change of most unique-ids of a maildrop is right. The file
/// that says so is the operator's to make and the server's to take away. BLOCKING.
pub fn accept(maildrop: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(maildrop)?.join(guard::ACCEPTANCE);
    File::create(&path)?;
    Ok(path)
}
