//! Users from a file in the format of Dovecot's passwd-file.
//!
//! The file is read whole and replaced whole: logins see the old table or the
//! new one, and a reload that fails leaves the old one in force. Logins wait for
//! a reload only while a pointer is swapped.

pub(super) mod line;
mod table;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use zeroize::Zeroizing;

use self::table::Table;
use super::directory::{Directory, DirectoryError, LoadReport, Record, User};
use super::{Account, Secret, UserName, Verifier};
use crate::limits;

/// A passwd-file, loaded.
pub(super) struct PasswdFile {
    place: Place,
    table: RwLock<Table>,
}

/// Where the lines are.
enum Place {
    /// In a file, which is read again at a reload.
    File(PathBuf),
    /// In the configuration: there is nothing to read again.
    Memory,
}

impl PasswdFile {
    /// Loads the file. Faults of single lines are in the report.
    pub(super) fn open(path: &Path) -> Result<(Self, LoadReport), DirectoryError> {
        let (table, report) = Table::new(read(path)?, path);
        let place = Place::File(path.to_owned());
        let table = RwLock::new(table);
        Ok((Self { place, table }, report))
    }

    /// Users that stand in the configuration itself, in lines of the same format. `label`
    /// names them in messages.
    pub(super) fn of_lines(lines: &Secret, label: &str) -> (Self, LoadReport) {
        let path = PathBuf::from(label);
        let text = Zeroizing::new(lines.expose().as_bytes().to_vec());
        let (table, report) = Table::new(text, &path);
        let file = Self {
            place: Place::Memory,
            table: RwLock::new(table),
        };
        (file, report)
    }

    /// Every user with a password, in the order of the file.
    pub(super) fn accounts(&self) -> Vec<Account> {
        let account = |(name, user): (&[u8], User)| Account {
            user: UserName::new(name).expect("the table holds names of users"),
            home: user.profile.home,
            mail: user.profile.mail,
            limits: user.profile.limits,
        };
        self.with(|table| table.users().map(account).collect())
    }

    fn with<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        // A table is only ever replaced whole: a panic elsewhere cannot have
        // left half of one.
        read(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Directory for PasswdFile {
    fn lookup(&self, name: &UserName) -> Result<Option<Record>, DirectoryError> {
        Ok(self.with(|table| table.lookup(name.as_bytes())))
    }

    fn decoys(&self) -> usize {
        self.with(Table::decoys)
    }

    fn decoy(&self, index: usize) -> Option<Verifier> {
        self.with(|table| table.decoy(index))
    }

    fn reload(&self) -> Result<LoadReport, DirectoryError> {
        let path = match &self.place {
            Place::File(path) => path,
            Place::Memory => return Ok(self.with(Table::summary)),
        };
        let (mut table, report) = Table::new(read(path)?, path);
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *current, &mut table);
        // Overwriting and freeing the old table takes milliseconds: not while
        // logins wait for the lock.
        drop(current);
        drop(table);
        Ok(report)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DirectoryError> {
    let unreadable = |source| DirectoryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let too_large = |octets| DirectoryError::TooLarge {
        path: path.to_owned(),
        octets,
    };
    // Asked before it is opened: opening a FIFO would wait for its writer.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let kind = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(unreadable(kind));
    }
    let most = limits::PASSWD_FILE as u64;
    if metadata.len() > most {
        return Err(too_large(metadata.len()));
    }
    let expected = usize::try_from(metadata.len()).expect("checked above");
    // One octet more lets the read see the end without growing, which would
    // leave a copy of the secrets behind.
    let mut text = Zeroizing::new(Vec::with_capacity(expected + 1));
    let file = File::open(path).map_err(unreadable)?;
    let found = file.take(most + 1).read_to_end(&mut text);
    let found = found.map_err(unreadable)? as u64;
    if found > most {
        return Err(too_large(found));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
