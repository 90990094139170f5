//! The file of an index. BLOCKING, and under the maildrop's lock where it writes.
//!
//! Beside new/ and cur/ it lies in a folder that a user may write to, so no link
//! is followed to it, nothing that waits for a writer is waited for, and a new one
//! is a file that nobody had before. What cannot be read is an error, because the
//! maildrop would be announced anew; what cannot be written is not, because all
//! that is lost is time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, SeekFrom, fdatasync, fstat, fsync, openat2, seek,
};
use rustix::io::Errno;

use super::super::belongings;
use super::super::error::{Attempt, Cause, OpenError};
use super::super::message::Message;
use super::super::snapshot::Snapshot;
use super::{Contents, Noted};
use crate::limits;

/// The name of an index beside new/ and cur/.
const NAME: &str = "popcore.index";

/// Octets of a short index that are not worth writing it anew.
/// They hold what is remembered of messages that are gone.
const SLACK: u64 = 16 << 10;

/// Octets of an index for which memory is taken before they are read.
const EXPECTED: u64 = 64 << 20;

/// An index's file as it was last read or written. Another process that appended
/// made it longer, and one that wrote it anew gave it another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Position {
    inode: u64,
    length: u64,
}

/// Where the index of one maildrop is.
#[derive(Clone, Debug)]
pub(in super::super) struct Index {
    path: PathBuf,
    resolve: ResolveFlags,
    /// What has to be there, and below which folders are made.
    top: Option<Arc<Path>>,
}

impl Index {
    /// In the maildrop's own folder, whose path is canonical.
    pub(in super::super) fn beside(root: &Path) -> Self {
        Self {
            path: root.join(NAME),
            resolve: ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            top: None,
        }
    }

    /// At a path of the operator's making, which may lead over links.
    pub(in super::super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            resolve: ResolveFlags::NO_MAGICLINKS,
            top: None,
        }
    }

    /// The same where folders below `top` may have to be made.
    pub(in super::super) fn below(top: Arc<Path>, path: PathBuf) -> Self {
        Self {
            top: Some(top),
            ..Self::at(path)
        }
    }

    pub(in super::super) fn path(&self) -> &Path {
        &self.path
    }

    /// What an operator is told who asked for the index to be written.
    pub(in super::super) fn fault(&self, error: &io::Error) -> OpenError {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        OpenError::system(Attempt::Write, &self.path, errno)
    }

    /// Opens the file; nothing where there is none.
    pub(in super::super) fn open(&self) -> Result<Option<Opened>, OpenError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fault = |errno| OpenError::system(Attempt::Open, &self.path, errno);
        let file = match openat2(CWD, &self.path, flags, Mode::empty(), self.resolve) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return self.absent(),
            Err(Errno::LOOP | Errno::NXIO) => {
                return Err(OpenError::of(&self.path, Cause::NotAFile));
            }
            Err(errno) => return Err(fault(errno)),
        };
        let position = match position(&file) {
            Ok(Some(position)) => position,
            Ok(None) => return Err(OpenError::of(&self.path, Cause::NotAFile)),
            Err(errno) => return Err(OpenError::system(Attempt::Stat, &self.path, errno)),
        };
        Ok(Some(Opened { file, position }))
    }

    /// There is none, unless the disk that it is on is not mounted: then a maildrop would
    /// be announced without what is known of it.
    fn absent(&self) -> Result<Option<Opened>, OpenError> {
        match self.top.as_deref().filter(|top| !top.is_dir()) {
            Some(top) => Err(OpenError::of(top, Cause::NotMounted("maildrop.index"))),
            None => Ok(None),
        }
    }

    /// Reads an open index whole.
    pub(in super::super) fn read(&self, opened: Opened) -> Result<(Vec<u8>, Position), OpenError> {
        let Opened { mut file, position } = opened;
        // A file can say any length: what is behind its first hole nobody wrote.
        let hole = seek(&file, SeekFrom::Hole(0)).unwrap_or(position.length);
        let begun = seek(&file, SeekFrom::Start(0));
        begun.map_err(|errno| OpenError::system(Attempt::Read, &self.path, errno))?;
        let length = position.length.min(hole).min(limits::INDEX);
        let expected = usize::try_from(length.min(EXPECTED)).unwrap_or_default();
        let mut octets = Vec::with_capacity(expected + 1);
        let read = (&mut file).take(length).read_to_end(&mut octets);
        match read {
            Ok(_) => Ok((octets, position)),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(OpenError::system(Attempt::Read, &self.path, errno))
            }
        }
    }

    /// Writes what is new since `old`, which the index holds if its position is
    /// that of the file; all of it otherwise, and what is known of messages that are
    /// `gone`, or when it is time to. Tells where the index is by then.
    pub(in super::super) fn save(
        &self,
        old: Option<(&Snapshot, Position)>,
        new: &Snapshot,
        gone: &[Message<'_>],
    ) -> io::Result<Position> {
        let Some((old, position)) = old else {
            return self.replace_by(new, gone);
        };
        let records = super::changes(old, new);
        if records.is_empty() {
            return Ok(position);
        }
        let length = position.length + records.len() as u64;
        // The first sum is cheap and decides nearly always.
        let small = length <= SLACK.max(new.names_len() as u64);
        if !small && length > 2 * super::least(new) + SLACK {
            return self.rewrite(old, new);
        }
        match self.append(position, &records)? {
            Some(position) => {
                if new.knowledge().made_up {
                    self.sync()?;
                }
                Ok(position)
            }
            None => self.rewrite(old, new),
        }
    }

    /// Writes an index anew that can be read, and keeps what it says of messages
    /// that are gone.
    fn rewrite(&self, old: &Snapshot, new: &Snapshot) -> io::Result<Position> {
        let mut octets = self.octets().unwrap_or_default();
        octets.extend(super::changes(old, new));
        let contents = Contents::read(&octets);
        self.replace_by(new, contents.gone())
    }

    /// Puts an index of a whole maildrop in place of whatever is there.
    fn replace_by(&self, new: &Snapshot, gone: &[Message<'_>]) -> io::Result<Position> {
        let position = self.replace(&super::whole(new, gone))?;
        if new.knowledge().made_up {
            self.sync()?;
        }
        Ok(position)
    }

    /// Has what was written, and its name, on the disk.
    fn sync(&self) -> io::Result<()> {
        let open = |path: &Path, flags: OFlags| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
            openat2(CWD, path, flags, Mode::empty(), self.resolve)
        };
        fdatasync(open(&self.path, OFlags::NOFOLLOW | OFlags::NONBLOCK)?)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        Ok(fsync(open(folder, OFlags::DIRECTORY)?)?)
    }

    /// Has the index say what a session did, which began with that snapshot when the
    /// index was `at` that position. Whoever opens the maildrop next reads it.
    pub(in super::super) fn note(
        &self,
        at: Position,
        snapshot: &Snapshot,
        noted: &Noted<'_>,
    ) -> io::Result<()> {
        let records = noted.records(super::state(snapshot));
        if self.append(at, &records)?.is_some() {
            return Ok(());
        }
        // A message was counted again since.
        let unreadable = |error: OpenError| io::Error::other(error.to_string());
        let Some(opened) = self.open().map_err(unreadable)? else {
            return Ok(());
        };
        let (octets, position) = self.read(opened).map_err(unreadable)?;
        let contents = Contents::read(&octets);
        let Some(state) = contents.state else {
            return Ok(());
        };
        let records = noted.among(&contents.table).records(state);
        self.append(position, &records).map(drop)
    }

    /// Has the index remember these messages, which come back.
    pub(in super::super) fn remember(&self, messages: &[Message<'_>]) -> io::Result<()> {
        let unreadable = |error: OpenError| io::Error::other(error.to_string());
        let list = super::list(messages);
        match self.open().map_err(unreadable)? {
            None => self.replace(&list).map(drop),
            Some(opened) => {
                let records = &list[super::format::HEADER..];
                self.append(opened.position, records).map(drop)
            }
        }
    }

    /// All of it; nothing where there is none.
    pub(in super::super) fn octets(&self) -> Result<Vec<u8>, OpenError> {
        match self.open()? {
            Some(file) => Ok(self.read(file)?.0),
            None => Ok(Vec::new()),
        }
    }

    /// Has the index say this of a message that it knows. `distrust`: names state
    /// wrong sizes there.
    pub(in super::super) fn correct(
        &self,
        message: &Message<'_>,
        distrust: bool,
    ) -> io::Result<()> {
        let unreadable = |error: OpenError| io::Error::other(error.to_string());
        let Some(opened) = self.open().map_err(unreadable)? else {
            return Ok(());
        };
        let (octets, position) = self.read(opened).map_err(unreadable)?;
        let records = super::correction(&Contents::read(&octets), message, distrust);
        self.append(position, &records).map(drop)
    }

    /// Appends in one write; nothing where the file is not what it was.
    fn append(&self, at: Position, records: &[u8]) -> io::Result<Option<Position>> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat2(CWD, &self.path, flags, Mode::empty(), self.resolve) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if position(&file)? != Some(at) {
            return Ok(None);
        }
        if let Err(error) = file.write_all(records) {
            // A full disk: what stood there before is whole again.
            let _ = file.set_len(at.length);
            return Err(error);
        }
        let length = at.length + records.len() as u64;
        Ok(Some(Position { length, ..at }))
    }

    /// Puts a new index in place of whatever is there. An old one that is another
    /// file afterwards is gone; see [`set_aside`](Self::set_aside).
    pub(in super::super) fn replace(&self, octets: &[u8]) -> io::Result<Position> {
        let made = self.sibling(".new");
        let position = self.write_new(&made, octets).and_then(|position| {
            fs::rename(&made, &self.path)?;
            Ok(position)
        });
        if position.is_err() {
            // It may not be there, which is all that is wanted.
            let _ = fs::remove_file(&made);
        }
        position
    }

    fn write_new(&self, fresh: &Path, octets: &[u8]) -> io::Result<Position> {
        match fs::remove_file(fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let create = || openat2(CWD, fresh, flags, mode, self.resolve);
        let created = match create() {
            Err(Errno::NOENT) => {
                self.make_folders()?;
                create()
            }
            created => created,
        };
        let mut file = File::from(created?);
        belongings::hand_over(&file, fresh);
        file.write_all(octets)?;
        // The name must not get there before what it stands for.
        file.sync_data()?;
        position(&file)?.ok_or_else(|| io::Error::from(Errno::IO))
    }

    /// Makes the folders between the operator's and the file.
    fn make_folders(&self) -> io::Result<()> {
        let Some(top) = &self.top else { return Ok(()) };
        let below = self.path.strip_prefix(top).ok().and_then(Path::parent);
        let mut folder = top.to_path_buf();
        for part in below.into_iter().flatten() {
            folder.push(part);
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps a damaged index for whoever wants to look at it.
    pub(in super::super) fn set_aside(&self) {
        let aside = self.sibling(".damaged");
        let _ = fs::remove_file(&aside);
        // Without it nothing is lost that could be read.
        let _ = fs::hard_link(&self.path, &aside);
    }

    fn sibling(&self, end: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(end);
        PathBuf::from(path)
    }
}

/// An open index.
#[derive(Debug)]
pub(in super::super) struct Opened {
    file: File,
    pub(in super::super) position: Position,
}

/// `None` for what is no regular file.
fn position(file: &File) -> Result<Option<Position>, Errno> {
    let stat = fstat(file)?;
    let regular = FileType::from_raw_mode(stat.st_mode).is_file();
    Ok(regular.then(|| Position {
        inode: stat.st_ino,
        length: u64::try_from(stat.st_size).unwrap_or_default(),
    }))
}
