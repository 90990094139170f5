//! The users of one reading of a passwd-file.
//!
//! The file's text is kept as it is, in one allocation, and an index of eight
//! octets a user, sorted by a keyed hash of the name, says where each line
//! begins; a line is taken apart anew when its user logs in. So 100,000 users
//! cost 1.2 MB more than their file. A map from names to parsed records was the
//! other way: several allocations a user, to save a login the parsing of one line.
//!
//! Invariants: every indexed offset is the start of a line whose name is valid;
//! no two indexed lines have the same name (the first of the file wins);
//! `decoys` holds, in the order of the file, the indexed lines whose password can
//! be verified.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;

use zeroize::Zeroizing;

use super::line::{self, Line, LineFault, line_at, name_of};
use crate::auth::Verifier;
use crate::auth::directory::{Fault, LoadReport, Proof, Record, User};
use crate::limits;

pub(super) struct Table {
    text: Zeroizing<Vec<u8>>,
    key: RandomState,
    index: Box<[Slot]>,
    decoys: Box<[u32]>,
}

/// Where the line of a name begins. Ordered by hash, then by place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    hash: u32,
    offset: u32,
}

impl Table {
    /// Indexes the text of the file at `path`, which is named in the report.
    pub(super) fn new(text: Zeroizing<Vec<u8>>, path: &Path) -> (Self, LoadReport) {
        let key = RandomState::new();
        let lines = memchr::memchr_iter(b'\n', &text).count() + 1;
        let mut index = Vec::with_capacity(lines);
        let mut decoys = Vec::with_capacity(lines);
        let mut faults = Faults::default();
        for offset in starts(&text) {
            match line::parse(line_at(&text, offset)) {
                Line::Blank => {}
                Line::Bad(fault) => faults.push(offset, || fault.to_string()),
                Line::User {
                    name,
                    record,
                    fault,
                } => {
                    let hash = hash_of(&key, name);
                    let at = narrow(offset);
                    index.push(Slot { hash, offset: at });
                    if matches!(record, Record::User(_)) {
                        decoys.push(at);
                    }
                    if let Some(fault) = fault {
                        faults.push(offset, || about(name, &fault));
                    }
                }
            }
        }
        index.sort_unstable();
        let twins = remove_twins(&text, &mut index);
        for &twin in &twins {
            let name = name_of(line_at(&text, twin as usize)).unwrap_or_default();
            faults.push(twin as usize, || about(name, &LineFault::Twin));
        }
        decoys.retain(|at| twins.binary_search(at).is_err());
        let table = Self {
            key,
            index: index.into(),
            decoys: decoys.into(),
            text,
        };
        let report = LoadReport {
            fault_count: faults.count,
            faults: faults.told(&table.text, path),
            ..table.summary()
        };
        (table, report)
    }

    /// How many users there are, without the faults of their lines.
    pub(super) fn summary(&self) -> LoadReport {
        LoadReport {
            users: self.decoys.len(),
            locked: self.index.len() - self.decoys.len(),
            memory: self.memory(),
            ..LoadReport::default()
        }
    }

    pub(super) fn lookup(&self, name: &[u8]) -> Option<Record> {
        let hash = hash_of(&self.key, name);
        let first = self.index.partition_point(|slot| slot.hash < hash);
        let line = self.index[first..]
            .iter()
            .take_while(|slot| slot.hash == hash)
            .map(|slot| line_at(&self.text, slot.offset as usize))
            .find(|line| name_of(line) == Some(name))?;
        match line::parse(line) {
            Line::User { record, .. } => Some(record),
            Line::Blank | Line::Bad(_) => unreachable!("the index holds lines of users"),
        }
    }

    pub(super) fn decoys(&self) -> usize {
        self.decoys.len()
    }

    pub(super) fn decoy(&self, index: usize) -> Option<Verifier> {
        let offset = *self.decoys.get(index)?;
        match line::parse(line_at(&self.text, offset as usize)) {
            Line::User {
                record:
                    Record::User(User {
                        proof: Proof::Stored(verifier),
                        ..
                    }),
                ..
            } => Some(verifier),
            _ => unreachable!("decoys are lines of users with a password"),
        }
    }

    /// Every user with a password, in the order of the file.
    pub(super) fn users(&self) -> impl Iterator<Item = (&[u8], User)> {
        self.decoys.iter().map(
            |offset| match line::parse(line_at(&self.text, *offset as usize)) {
                Line::User {
                    name,
                    record: Record::User(user),
                    ..
                } => (name, user),
                _ => unreachable!("decoys are lines of users with a password"),
            },
        )
    }

    fn memory(&self) -> usize {
        self.text.capacity() + size_of_val(&*self.index) + size_of_val(&*self.decoys)
    }
}

/// Where lines begin.
fn starts(text: &[u8]) -> impl Iterator<Item = usize> {
    let ends = memchr::memchr_iter(b'\n', text);
    std::iter::once(0).chain(ends.map(|end| end + 1))
}

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("limits::PASSWD_FILE fits 32 bits")
}

/// Half of the hash: names that share it are compared.
fn hash_of(key: &RandomState, name: &[u8]) -> u32 {
    (key.hash_one(name) >> 32) as u32
}

/// Takes all lines but the first of each name out of a sorted index and returns
/// where they begin, ascending.
fn remove_twins(text: &[u8], index: &mut Vec<Slot>) -> Vec<u32> {
    let mut twins = Vec::new();
    // The names met under the current hash: one, but for a rare collision.
    let mut current = None;
    let mut met: Vec<&[u8]> = Vec::new();
    index.retain(|slot| {
        let name = name_of(line_at(text, slot.offset as usize)).unwrap_or_default();
        if current != Some(slot.hash) {
            current = Some(slot.hash);
            met.clear();
        }
        let first = !met.contains(&name);
        if first {
            met.push(name);
        } else {
            twins.push(slot.offset);
        }
        first
    });
    twins.sort_unstable();
    twins
}

fn about(name: &[u8], fault: &LineFault) -> String {
    format!("user {}: {fault}", name.escape_ascii())
}

/// Faults by where their lines begin. Only as many are put into words as are
/// told.
#[derive(Default)]
struct Faults {
    kept: Vec<(usize, String)>,
    count: usize,
}

impl Faults {
    fn push(&mut self, offset: usize, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.kept.len() < limits::PASSWD_FILE_FAULTS {
            self.kept.push((offset, text()));
        }
    }

    fn told(mut self, text: &[u8], path: &Path) -> Vec<Fault> {
        self.kept.sort();
        let (mut line, mut counted) = (1, 0);
        let number = |(offset, fault): (usize, String)| {
            line += memchr::memchr_iter(b'\n', &text[counted..offset]).count();
            counted = offset;
            Fault {
                path: path.to_owned(),
                line,
                text: fault,
            }
        };
        self.kept.into_iter().map(number).collect()
    }
}
