//! UPDATE: removing what a session has marked (RFC 1939, section 6).
//!
//! Removal is by name in the directory itself, never through a link. A message
//! that is not under its name was renamed or removed by another program: it is
//! looked for by unique name and inode, and if it is nowhere, it is what the
//! client asked for. What fails leaves the others alone, so that one call, cut
//! off anywhere, has removed nothing that was not marked.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::error::{CommitReport, FaultKind, OpenError};
use super::listing::{Folders, Root};
use super::scan::locate;
use super::snapshot::Snapshot;
use crate::proto::MessageNumber;

/// Removes `messages` of a maildrop that this session holds. BLOCKING.
pub fn remove(snapshot: &Snapshot, messages: impl Iterator<Item = MessageNumber>) -> CommitReport {
    let mut report = CommitReport::default();
    let folders = match open(snapshot) {
        Ok(Some(folders)) => folders,
        // The maildrop is gone and so is everything in it.
        Ok(None) => {
            report.removed = messages.count().try_into().unwrap_or(u32::MAX);
            return report;
        }
        Err(error) => {
            let count = messages.count().try_into().unwrap_or(u32::MAX);
            report.failed = Some((count, blame(&error)));
            return report;
        }
    };
    for message in messages {
        match remove_one(snapshot, &folders, message) {
            Ok(()) => report.removed += 1,
            Err(kind) => {
                let (failed, first) = report.failed.unwrap_or((0, kind));
                report.failed = Some((failed + 1, first));
            }
        }
    }
    report
}

fn open(snapshot: &Snapshot) -> Result<Option<Folders>, OpenError> {
    match Root::open(snapshot.root())? {
        Some(root) => root.folders().map(Some),
        None => Ok(None),
    }
}

fn remove_one(
    snapshot: &Snapshot,
    folders: &Folders,
    message: MessageNumber,
) -> Result<(), FaultKind> {
    let (Some(folder), Some(name)) = (snapshot.folder(message), snapshot.name(message)) else {
        unreachable!("a session marks messages of its snapshot");
    };
    let unlinked = match folders.fd(folder) {
        Some(directory) => unlinkat(directory.as_fd(), name, AtFlags::empty()),
        None => Err(Errno::NOENT),
    };
    match unlinked {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => remove_renamed(snapshot, message),
        Err(errno) => Err(FaultKind::of(errno)),
    }
}

/// Removes a message that is not where the snapshot saw it. Between finding and
/// removing it may be renamed again, hence more than one try.
fn remove_renamed(snapshot: &Snapshot, message: MessageNumber) -> Result<(), FaultKind> {
    for _ in 0..crate::limits::QUIET_LISTINGS {
        let Some(path) = locate(snapshot, message).map_err(|error| blame(&error))? else {
            return Ok(());
        };
        match rustix::fs::unlink(&path) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(FaultKind::of(errno)),
        }
    }
    Err(FaultKind::Temporary)
}

fn blame(error: &OpenError) -> FaultKind {
    match error {
        OpenError::Permanent(_) => FaultKind::Permanent,
        OpenError::Temporary(_) | OpenError::InUse(_) => FaultKind::Temporary,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn maildrop(count: usize) -> (tempfile::TempDir, PathBuf, Snapshot) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ann");
        for part in ["new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        for n in 1..=count {
            fs::write(path.join(format!("new/{n}.m")), "x\n").expect("a message");
        }
        let snapshot = super::super::open(&path, None).expect("it opens");
        (folder, path, snapshot)
    }

    fn numbers(numbers: &[u32]) -> Vec<MessageNumber> {
        let number = |n: &u32| MessageNumber::new(*n).expect("not 0");
        numbers.iter().map(number).collect()
    }

    fn left(path: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> = ["new", "cur"]
            .iter()
            .flat_map(|part| fs::read_dir(path.join(part)).expect("a folder"))
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_marked_goes_and_nothing_else() {
        let (_folder, path, snapshot) = maildrop(5);
        let report = remove(&snapshot, numbers(&[2, 4]).into_iter());
        let expected = CommitReport {
            removed: 2,
            failed: None,
        };
        assert_eq!(report, expected);
        assert_eq!(left(&path), ["1.m", "3.m", "5.m"]);
    }

    #[test]
    fn a_message_that_was_renamed_goes_and_one_that_is_gone_counts() {
        let (_folder, path, snapshot) = maildrop(3);
        fs::rename(path.join("new/1.m"), path.join("cur/1.m:2,S")).expect("renamed");
        fs::remove_file(path.join("new/2.m")).expect("removed");
        let report = remove(&snapshot, numbers(&[1, 2]).into_iter());
        assert_eq!((report.removed, report.failed), (2, None));
        assert_eq!(left(&path), ["3.m"]);
    }

    #[test]
    fn a_file_that_took_a_message_s_name_with_another_inode_stays() {
        let (_folder, path, snapshot) = maildrop(1);
        fs::remove_file(path.join("new/1.m")).expect("removed");
        // Keeps the freed inode from being given to the next file.
        fs::write(path.join("cur/other"), "").expect("a file");
        fs::write(path.join("cur/1.m:2,"), "another").expect("a message");
        let report = remove(&snapshot, numbers(&[1]).into_iter());
        assert_eq!((report.removed, report.failed), (1, None));
        assert_eq!(left(&path), ["1.m:2,", "other"]);
    }

    #[test]
    fn a_maildrop_that_is_gone_has_nothing_left_to_remove() {
        let (_folder, path, snapshot) = maildrop(2);
        fs::remove_dir_all(&path).expect("removed");
        let report = remove(&snapshot, numbers(&[1, 2]).into_iter());
        assert_eq!((report.removed, report.failed), (2, None));
    }

    #[test]
    fn failures_are_counted_with_the_blame_of_the_first() {
        let (_folder, path, snapshot) = maildrop(3);
        // A directory under a message's name cannot be unlinked (EISDIR).
        fs::remove_file(path.join("new/2.m")).expect("removed");
        fs::create_dir(path.join("new/2.m")).expect("a directory");
        let report = remove(&snapshot, numbers(&[1, 2, 3]).into_iter());
        assert_eq!(report.removed, 2);
        assert_eq!(report.failed, Some((1, FaultKind::Permanent)));
    }
}
