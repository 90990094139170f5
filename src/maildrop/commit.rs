//! Removing messages at QUIT (RFC 1939, section 6). BLOCKING.
//!
//! A message that is not under its listed name was renamed or is gone. The former
//! are looked for together, one listing for all of them, by unique name and inode;
//! the latter count as removed: the client asked for nothing else. So a commit may
//! be repeated, and a crash in its midst leaves what was not reached yet.
//!
//! The index is not written here: it was told before, and whoever opens the maildrop
//! next, after a crash at any point as after none, lists it (see there). A Maildir++ quota file (`maildirsize`) is told of what was removed, where
//! there is one; a crash before that leaves a sum that is too high, until whoever
//! delivers counts anew, as the format has it.

use std::collections::HashMap;
use std::fmt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, StatxFlags, statx, unlinkat};
use rustix::io::Errno;

use super::aside::{self, Batch};
use super::entries::Entries;
use super::error::{CommitReport, FaultKind, OpenError};
use super::listing::{Buffers, Folders, Root};
use super::snapshot::{Folder, Snapshot};
use super::survey::{Disk, Ground, Patience};
use crate::limits;
use crate::proto::{MessageNumber, Octets};

/// Removes these messages' files, whatever other programs renamed them to.
pub fn remove(
    snapshot: &Snapshot,
    messages: impl IntoIterator<Item = MessageNumber>,
) -> CommitReport {
    let messages: Vec<MessageNumber> = messages.into_iter().collect();
    remove_or_keep(snapshot, &messages, None)
}

/// The same, or moves them aside at that time.
pub(super) fn remove_or_keep(
    snapshot: &Snapshot,
    messages: &[MessageNumber],
    aside: Option<SystemTime>,
) -> CommitReport {
    let mut report = CommitReport::default();
    if messages.is_empty() {
        return report;
    }
    let mut wanted = Wanted::new();
    let mut hand = Hand::default();
    let opened = Root::open(snapshot.root())
        .and_then(|root| root.map(|r| Ok((r.folders()?, r))).transpose());
    if let (Ok(Some((_, root))), Some(now)) = (&opened, aside) {
        let moved: Vec<_> = messages
            .iter()
            .filter_map(|n| snapshot.message(*n))
            .collect();
        match Batch::begin(root, &moved, now) {
            Ok(batch) => hand.aside = Some(batch),
            Err(error) => {
                let path = root.path().join(aside::FOLDER);
                tracing::warn!(
                    "{}: deleted messages cannot be kept there and stay where they are: {error}",
                    path.display()
                );
                let kind = FaultKind::of(Errno::from_io_error(&error).unwrap_or(Errno::IO));
                for message in messages {
                    report.note(snapshot.octets(*message).unwrap_or_default(), Err(kind));
                }
                return report;
            }
        }
    }
    for &message in messages {
        let (Some(folder), Some(name)) = (snapshot.folder(message), snapshot.name(message)) else {
            continue;
        };
        let inode = snapshot.inode(message).unwrap_or_default();
        let octets = snapshot.octets(message).unwrap_or_default();
        match &opened {
            Ok(Some((folders, _))) => match hand.unlink(folders, folder, name, inode) {
                Err(Errno::NOENT) => {
                    let unique = snapshot.unique_name(message).unwrap_or_default();
                    wanted.entry(inode).or_default().push((unique, octets));
                }
                result => report.note(octets, result.map_err(FaultKind::of)),
            },
            Ok(None) => report.note(octets, Ok(())),
            Err(error) => report.note(octets, Err(blame(error))),
        }
    }
    if let Ok(Some((_, root))) = &opened {
        if !wanted.is_empty() {
            let mut disk = Disk::new(root, Buffers::new());
            remove_renamed(&mut disk, &mut wanted, &mut report, &mut hand);
        }
        if hand.freed.messages > 0 {
            note_quota(root, &hand.freed.to_string());
        }
    }
    report
}

/// The file in which a Maildir++ keeps the sum of its messages.
const QUOTA: &str = "maildirsize";

/// Appends a line to the quota file, where there is one.
pub(super) fn note_quota(root: &Root, line: &str) {
    if let Err(error) = root.append_to(QUOTA, line) {
        let path = root.path().join(QUOTA);
        tracing::warn!("{}: cannot be written: {error}", path.display());
    }
}

/// What removes messages, or moves them aside, and counts them.
#[derive(Default)]
struct Hand {
    freed: Freed,
    aside: Option<Batch>,
}

/// What this session removed, in octets of files.
#[derive(Default)]
struct Freed {
    octets: u64,
    messages: u64,
}

impl fmt::Display for Freed {
    /// As a line of `maildirsize`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-{} -{}", self.octets, self.messages)
    }
}

/// Unique names and octets by inode: what is looked for. A message in here is one
/// whose listed name is gone.
type Wanted<'a> = HashMap<u64, Vec<(&'a [u8], Octets)>>;

/// Removes what other programs renamed, wherever it is now. Who is shown by no
/// whole listing is gone; the removals just made leave the stamps young, so it mostly
/// takes a tick until one can be.
fn remove_renamed(
    ground: &mut impl Ground,
    wanted: &mut Wanted<'_>,
    report: &mut CommitReport,
    hand: &mut Hand,
) {
    let mut patience = Patience::new();
    let mut failure = FaultKind::Temporary;
    for _ in 0..limits::QUIET_LISTINGS {
        match pass(ground, &mut patience, wanted, (report, hand)) {
            Ok(true) => {
                let gone = wanted.drain().flat_map(|(_, names)| names);
                gone.for_each(|(_, octets)| report.note(octets, Ok(())));
            }
            Ok(false) => {}
            Err(error) => failure = blame(&error),
        }
        if wanted.is_empty() {
            return;
        }
    }
    let left = wanted.drain().flat_map(|(_, names)| names);
    left.for_each(|(_, octets)| report.note(octets, Err(failure)));
}

/// One listing, and the removal of who is wanted in it. Tells whether it was whole and
/// showed none of them.
fn pass(
    ground: &mut impl Ground,
    patience: &mut Patience,
    wanted: &mut Wanted<'_>,
    (report, hand): (&mut CommitReport, &mut Hand),
) -> Result<bool, OpenError> {
    let look = patience.look(ground)?;
    ground.open()?;
    let mut listed = Entries::default();
    for folder in [Folder::New, Folder::Cur] {
        ground.list(folder, &mut listed)?;
    }
    let mut whole = look.holds(ground)?;
    for shown in listed.entries() {
        let Some(names) = wanted.get_mut(&shown.inode) else {
            continue;
        };
        let Some(at) = names
            .iter()
            .position(|(name, _)| *name == shown.name.unique())
        else {
            continue;
        };
        whole = false;
        let name = shown.name.as_bytes();
        match hand.unlink(ground.folders(), shown.folder, name, shown.inode) {
            Err(Errno::NOENT) => continue,
            result => report.note(names[at].1, result.map_err(FaultKind::of)),
        }
        names.swap_remove(at);
    }
    wanted.retain(|_, names| !names.is_empty());
    Ok(whole)
}

impl Hand {
    /// Removes the file of that name if it is the one with that inode. Another one
    /// that took the name since is mail, or what not, that nobody was shown.
    fn unlink(
        &mut self,
        folders: &Folders,
        folder: Folder,
        name: &[u8],
        inode: u64,
    ) -> Result<(), Errno> {
        let fd = folders.fd(folder).ok_or(Errno::NOENT)?;
        let mask = StatxFlags::INO | StatxFlags::SIZE;
        let stat = statx(fd, name, AtFlags::SYMLINK_NOFOLLOW, mask)?;
        if stat.stx_ino != inode {
            return Err(Errno::NOENT);
        }
        match &mut self.aside {
            None => unlinkat(fd, name, AtFlags::empty())?,
            Some(aside) => aside.take(fd, folder, name)?,
        }
        self.freed.octets += stat.stx_size;
        self.freed.messages += 1;
        Ok(())
    }
}

fn blame(error: &OpenError) -> FaultKind {
    match error {
        OpenError::Permanent(_) => FaultKind::Permanent,
        OpenError::Temporary(_) | OpenError::InUse(_) => FaultKind::Temporary,
    }
}

impl CommitReport {
    fn note(&mut self, octets: Octets, result: Result<(), FaultKind>) {
        match (result, &mut self.failed) {
            (Ok(()), _) => {
                self.removed += 1;
                self.octets += octets;
            }
            (Err(_), Some((count, _))) => *count += 1,
            (Err(kind), failed) => *failed = Some((1, kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;
    use crate::maildrop::message::Facts;
    use crate::maildrop::name::Name;
    use crate::maildrop::open;
    use crate::maildrop::snapshot::Knowledge;
    use crate::maildrop::survey;

    fn maildrop(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur"] {
            fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        for name in names {
            fs::write(folder.path().join(name), name).expect("a message");
        }
        folder
    }

    fn left(root: &Path) -> Vec<String> {
        let snapshot = open(root, None).expect("it opens");
        let names = (1..).map_while(|n| snapshot.name(MessageNumber::new(n)?));
        names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    fn numbers<const N: usize>(numbers: [u32; N]) -> [MessageNumber; N] {
        numbers.map(|n| MessageNumber::new(n).expect("not 0"))
    }

    #[test]
    fn marked_messages_go_and_others_stay() {
        let folder = maildrop(&["new/1.a", "cur/2.b:2,", "new/3.c"]);
        let snapshot = open(folder.path(), None).expect("it opens");
        let report = remove(&snapshot, numbers([1, 2]));
        assert_eq!((report.removed, report.failed), (2, None));
        assert_eq!(left(folder.path()), ["3.c"]);
    }

    #[test]
    fn a_renamed_message_goes_and_its_twin_stays() {
        let folder = maildrop(&["new/1.a", "cur/2.b:2,", "cur/2.b:2,S"]);
        let root = folder.path();
        let snapshot = open(root, None).expect("it opens");
        fs::rename(root.join("new/1.a"), root.join("cur/1.a:2,S")).expect("it is there");
        let twin = snapshot.path(numbers([2])[0]).expect("in range");
        fs::rename(twin, root.join("cur/2.b:2,T")).expect("it is there");
        let report = remove(&snapshot, numbers([1, 2]));
        assert_eq!((report.removed, report.failed), (2, None));
        let stays = snapshot.name(numbers([3])[0]).expect("in range");
        assert_eq!(left(root), [String::from_utf8_lossy(stays)]);
    }

    #[test]
    fn a_message_moved_to_and_fro_within_one_tick_is_removed() {
        let names = ["cur/1.x:2,S".to_owned(), "cur/2.y:2,".to_owned()];
        let (_folder, root) = survey::tests::maildrop(&names);
        let inode = |name: &str| fs::metadata(root.path().join(name)).expect("made").ino();
        let mut wanted = Wanted::new();
        let unique: &[u8] = b"1.x";
        wanted.insert(inode("cur/1.x:2,S"), vec![(unique, Octets::new(3))]);
        let mut ground = survey::tests::Ticking::new(&root, survey::tests::hide);
        let (mut report, mut hand) = (CommitReport::default(), Hand::default());
        remove_renamed(&mut ground, &mut wanted, &mut report, &mut hand);
        assert_eq!((report.removed, report.failed), (1, None));
        assert_eq!(left(root.path()), ["2.y:2,"]);
    }

    #[test]
    fn a_quota_file_is_told_of_what_this_session_removed() {
        let folder = maildrop(&["new/1.a", "cur/2.b:2,", "new/3.c", "new/4.d"]);
        let root = folder.path();
        let quota = root.join("maildirsize");
        let snapshot = open(root, None).expect("it opens");
        remove(&snapshot, numbers([4]));
        assert!(!quota.exists(), "it is not made");
        fs::write(&quota, "10000000S,1000C\n100 4\n").expect("a file");
        fs::rename(root.join("new/1.a"), root.join("cur/1.a:2,S")).expect("it is there");
        fs::remove_file(root.join("new/3.c")).expect("it is there");
        let report = remove(&snapshot, numbers([1, 2, 3]));
        assert_eq!((report.removed, report.failed), (3, None));
        // Each holds its name; what another program removed, it has to book.
        let told = "new/1.a".len() + "cur/2.b:2,".len();
        let expected = format!("10000000S,1000C\n100 4\n-{told} -2\n");
        assert_eq!(fs::read_to_string(&quota).expect("a file"), expected);
    }

    #[test]
    fn what_is_gone_already_counts_as_removed() {
        let folder = maildrop(&["new/1.a", "new/2.b"]);
        let snapshot = open(folder.path(), None).expect("it opens");
        fs::remove_file(folder.path().join("new/1.a")).expect("it is there");
        let report = remove(&snapshot, numbers([1, 2]));
        assert_eq!((report.removed, report.failed), (2, None));
        fs::remove_dir_all(folder.path()).expect("it is there");
        assert_eq!(remove(&snapshot, numbers([1, 2])).removed, 2);
    }

    #[test]
    fn what_cannot_be_removed_is_counted_with_its_blame() {
        let folder = maildrop(&["cur/3.c:2,"]);
        let root = folder.path();
        // Directories, which unlink(2) refuses whoever asks. No listing shows one
        // as a message, so the snapshot is made by hand.
        for name in ["new/1.a", "new/2.b"] {
            fs::create_dir(root.join(name)).expect("a folder");
        }
        let mut roll = crate::maildrop::roll::Roll::default();
        let facts = Some(Facts {
            octets: 10,
            stored: 10,
            verbatim: true,
            sum: None,
        });
        for path in ["new/1.a", "new/2.b", "cur/3.c:2,"] {
            let (part, name) = path.split_once('/').expect("two parts");
            let part = if part == "new" {
                Folder::New
            } else {
                Folder::Cur
            };
            let inode = fs::symlink_metadata(root.join(path)).expect("made").ino();
            let name = Name::parse(name.as_bytes()).expect("a message's name");
            roll.add(name, part, inode, facts);
        }
        let snapshot = Snapshot::assemble(root, root, Knowledge::none(), roll);
        let report = remove(&snapshot, numbers([1, 2, 3]));
        assert_eq!(report.failed, Some((2, FaultKind::Permanent)));
        assert_eq!((report.removed, report.octets), (1, Octets::new(10)));
        assert_eq!(left(root), Vec::<String>::new());
    }
}
