//! Reading directories and files below one maildrop. BLOCKING, all of it.
//!
//! Everything is opened relative to the maildrop's own directory, by a name of one
//! component and through no symbolic link (`openat2(2)`), so whatever lies in a
//! maildrop, no file outside is ever opened. Messages are opened without waiting for a writer
//! (a FIFO) and looked at before they are read: only regular files count.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::{self, Errno};

use super::belongings;
use super::entries::Entries;
use super::error::{Attempt, Cause, OpenError};
use super::message::Facts;
use super::name::Name;
use super::roll::Measured;
use super::snapshot::Folder;
use super::stamps::Stamps;
use crate::wire::OctetCounter;

/// Octets of a directory read at once: some 3,000 names. Local file systems hold
/// the directory still for one read, so what fits in one is listed without a
/// race; pages that are not needed are never touched.
const DIRECTORY_BUFFER: usize = 256 << 10;
/// Octets of a message read at once: a usual message in one piece.
const FILE_BUFFER: usize = 128 << 10;

/// Not `BENEATH` as well: a name without a slash that is not `..` leads nowhere
/// else, and the kernel takes a message that another program moves from new/ to
/// cur/ while it is being opened for an escape, and fails the open (`EXDEV`).
const HERE: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// Whether this process may open files in the way that keeps maildrops apart. Filters of
/// system calls that look at flags hide `openat2(2)`, whose flags they cannot see.
///
/// # Errors
///
/// What the call says: `ENOSYS` or `EPERM` where it is refused.
pub fn probe() -> std::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(CWD, "/", flags, Mode::empty(), HERE)?;
    Ok(())
}

/// A maildrop's own directory.
pub(super) struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens a canonical path; `None` where nothing is there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::openat2(CWD, path, flags, Mode::empty(), HERE) {
            Ok(fd) => Ok(Some(Self {
                path: path.to_owned(),
                fd,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(directory_fault(path, errno)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stamps(&self) -> Result<Stamps, OpenError> {
        Stamps::below(&self.fd).map_err(|(folder, errno)| {
            OpenError::system(Attempt::Stat, &self.path.join(folder.name()), errno)
        })
    }

    /// Reads a file that another program keeps in the maildrop; nothing where there
    /// is none.
    pub(super) fn read_file(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, OpenError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat2(&self.fd, name, flags, Mode::empty(), HERE) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(OpenError::system(Attempt::Open, &path, errno)),
        };
        let fault = |attempt, error: &std::io::Error| {
            let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
            OpenError::system(attempt, &path, errno)
        };
        let facts = file.metadata().map_err(|e| fault(Attempt::Stat, &e))?;
        if !facts.is_file() {
            return Err(OpenError::of(&path, Cause::NotAFile));
        }
        let mut octets = Vec::new();
        let read = file.take(most + 1).read_to_end(&mut octets);
        read.map_err(|e| fault(Attempt::Read, &e))?;
        if octets.len() as u64 > most {
            return Err(OpenError::of(&path, Cause::TooLarge));
        }
        Ok(Some(octets))
    }

    /// Appends to a file that other programs keep in the maildrop, where there is
    /// one, with one write.
    pub(super) fn append_to(&self, name: &str, line: &str) -> std::io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match fs::openat2(&self.fd, name, flags, Mode::empty(), HERE) {
            Ok(fd) => File::from(fd).write_all(line.as_bytes()),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Puts a file of popcore's own in place of whatever has that name, when all of it is
    /// on the disk.
    pub(super) fn replace_file(&self, name: &str, octets: &[u8]) -> std::io::Result<()> {
        let fresh = format!("{name}.new");
        match fs::unlinkat(&self.fd, &*fresh, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = fs::openat2(&self.fd, &*fresh, flags, Mode::RUSR | Mode::WUSR, HERE)?;
        belongings::hand_over(&made, &self.path.join(&fresh));
        let mut made = File::from(made);
        let written = made
            .write_all(octets)
            .and_then(|()| made.sync_data())
            .and_then(|()| Ok(fs::renameat(&self.fd, &*fresh, &self.fd, name)?));
        if written.is_err() {
            // It may not be there, which is all that is wanted.
            let _ = fs::unlinkat(&self.fd, &*fresh, AtFlags::empty());
            return written;
        }
        // What is announced by it may not outlive it: its name is to be on the disk, too.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::openat(&self.fd, ".", flags, Mode::empty())?;
        Ok(fs::fsync(folder)?)
    }

    /// Opens new/ and cur/, those that are there.
    pub(super) fn folders(&self) -> Result<Folders, OpenError> {
        Ok(Folders {
            new: self.folder(Folder::New)?,
            cur: self.folder(Folder::Cur)?,
        })
    }

    fn folder(&self, folder: Folder) -> Result<Option<OwnedFd>, OpenError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::openat2(&self.fd, folder.c_name(), flags, Mode::empty(), HERE) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(directory_fault(&self.path.join(folder.name()), errno)),
        }
    }
}

fn directory_fault(path: &Path, errno: Errno) -> OpenError {
    match errno {
        Errno::LOOP => OpenError::of(path, Cause::Link),
        Errno::NOTDIR => OpenError::of(path, Cause::NotADirectory),
        _ => OpenError::system(Attempt::Open, path, errno),
    }
}

/// The open directories of a maildrop.
#[derive(Default)]
pub(super) struct Folders {
    new: Option<OwnedFd>,
    cur: Option<OwnedFd>,
}

impl Folders {
    pub(super) fn fd(&self, folder: Folder) -> Option<&OwnedFd> {
        match folder {
            Folder::New => self.new.as_ref(),
            Folder::Cur => self.cur.as_ref(),
        }
    }

    /// Adds what one of them holds.
    pub(super) fn list(
        &self,
        folder: Folder,
        root: &Path,
        buffers: &mut Buffers,
        listed: &mut Entries,
    ) -> Result<(), OpenError> {
        let Some(fd) = self.fd(folder) else {
            return Ok(());
        };
        list_into(listed, fd, folder, buffers)
            .map_err(|errno| OpenError::system(Attempt::List, &root.join(folder.name()), errno))?;
        if listed.is_over_full() {
            return Err(OpenError::of(root, Cause::TooManyMessages));
        }
        Ok(())
    }
}

/// Memory of one scan, used for every directory and file of it.
pub(super) struct Buffers {
    directory: Vec<u8>,
    file: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self::with_directory(DIRECTORY_BUFFER)
    }

    /// Reads that many octets of a directory at once; tests make it small, so that
    /// a small directory takes many reads.
    pub(super) fn with_directory(octets: usize) -> Self {
        Self {
            directory: Vec::with_capacity(octets),
            file: Vec::new(),
        }
    }
}

fn list_into(
    listed: &mut Entries,
    fd: &OwnedFd,
    folder: Folder,
    buffers: &mut Buffers,
) -> Result<(), Errno> {
    let mut entries = RawDir::new(fd, buffers.directory.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // The directory itself was removed: it holds nothing more.
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let Some(name) = Name::parse(entry.file_name().to_bytes()) else {
            continue;
        };
        let is_file = match entry.file_type() {
            FileType::RegularFile => true,
            // A file system that does not tell.
            FileType::Unknown => is_regular(fd, entry.file_name())?,
            _ => false,
        };
        if is_file && !listed.is_over_full() {
            listed.add(name, folder, entry.ino());
        }
    }
    Ok(())
}

fn is_regular(fd: &OwnedFd, name: &std::ffi::CStr) -> Result<bool, Errno> {
    match fs::statx(fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.stx_mode.into()).is_file()),
        // Renamed just now: opening it will tell.
        Err(Errno::NOENT) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Opens a message for reading, without waiting for the writer of what turns out
/// to be a FIFO.
pub(super) fn open_message(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    io::retry_on_intr(|| fs::openat2(folder, name, flags, Mode::empty(), HERE))
}

/// Opens and reads one message and counts its octets.
pub(super) fn measure(
    folder: &OwnedFd,
    name: &[u8],
    buffers: &mut Buffers,
) -> Result<Measured, (Attempt, Errno)> {
    let file = match open_message(folder, name) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Measured::Vanished),
        // By now a link, or a socket or device without its other end.
        Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(Measured::Foreign),
        Err(errno) => return Err((Attempt::Open, errno)),
    };
    measure_open(&file, buffers)
}

/// Reads an open message and counts its octets.
pub(super) fn measure_open(
    file: &OwnedFd,
    buffers: &mut Buffers,
) -> Result<Measured, (Attempt, Errno)> {
    let stat = fs::fstat(file).map_err(|errno| (Attempt::Stat, errno))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(Measured::Foreign);
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    count(file.as_fd(), size, buffers)
        .map(Measured::Facts)
        .map_err(|errno| (Attempt::Read, errno))
}

/// Reads `size` octets, or up to the end of a file that is shorter by now.
/// Delivered messages do not grow, so the read that would only say so is saved.
fn count(file: impl AsFd, size: u64, buffers: &mut Buffers) -> Result<Facts, Errno> {
    if buffers.file.is_empty() {
        buffers.file.resize(FILE_BUFFER, 0);
    }
    let (mut counter, mut sum) = (OctetCounter::new(), crc32fast::Hasher::new());
    let mut stored = 0_u64;
    while stored < size {
        let read = io::retry_on_intr(|| io::read(&file, &mut buffers.file[..]))?;
        if read == 0 {
            break;
        }
        counter.update(&buffers.file[..read]);
        sum.update(&buffers.file[..read]);
        stored += read as u64;
    }
    let verbatim = counter.is_verbatim();
    let octets = counter.finish().get();
    Ok(Facts {
        octets,
        stored,
        verbatim,
        sum: Some(sum.finalize()),
    })
}
