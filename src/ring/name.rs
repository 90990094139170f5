//! Names in folders: open, stat, rename, unlink.
//!
//! No symbolic link is followed at the end of any of these names, and none
//! anywhere on the path of what is opened. All but the opening of a file that the
//! kernel has cached are handed to a thread of the kernel, always (`statx`,
//! `renameat` and `unlinkat` of `io_uring` do not even try): they keep a shard
//! from waiting and are no cheaper than a system call. Many of them at a time are
//! better done in one trip to the shard's pool (`blocking`).

use std::ffi::{CStr, CString};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::{Fd, OpenHow};
use rustix::fs::{Statx, StatxFlags};

use super::lent::Lent;
use super::operation::Operation;
use super::slot::adopt;
use super::{Handle, Place, Ring};

/// What no opening may do: follow a link anywhere on the path, which whoever
/// names it has made canonical.
const RESOLVE: u64 = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// How a message is opened: a FIFO does not wait for its writer (`openat2(2)`).
static READ_MESSAGE: OpenHow = OpenHow::new()
    .flags((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK) as u64)
    .resolve(RESOLVE);

/// How a folder is opened, for names in it and to sync it.
static FOLDER: OpenHow = OpenHow::new()
    .flags((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY) as u64)
    .resolve(RESOLVE);

/// How a file is made: it must not be there, and is its owner's alone.
static NEW: OpenHow = OpenHow::new()
    .flags((libc::O_RDWR | libc::O_CLOEXEC | libc::O_CREAT | libc::O_EXCL) as u64)
    .mode(0o600)
    .resolve(RESOLVE);

/// Which name an operation is about. It keeps the path and the folder until the
/// operation has ended.
#[derive(Debug)]
pub struct At {
    folder: Option<Handle>,
    path: CString,
}

impl At {
    /// The name at the end of an absolute path.
    pub fn path(path: CString) -> At {
        At { folder: None, path }
    }

    /// A name in an open folder.
    pub fn inside(folder: &Handle, name: CString) -> At {
        At {
            folder: Some(folder.clone()),
            path: name,
        }
    }

    fn folder(&self) -> Fd {
        Fd(self
            .folder
            .as_ref()
            .map_or(libc::AT_FDCWD, Handle::as_raw_fd))
    }

    /// The address of the path's heap memory, wherever this value goes.
    fn name(&self) -> *const libc::c_char {
        self.path.as_ptr()
    }
}

struct Open {
    _at: At,
}

// SAFETY: the entry points to the path's heap memory and to a static, both of
// which the kernel only reads, and names a folder that the handle keeps open.
unsafe impl Operation for Open {
    type Output = io::Result<Handle>;
    const YIELDS_DESCRIPTOR: bool = true;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(|descriptor| Handle::new(adopt(descriptor)))
    }
}

/// Whose status is asked for.
enum Subject {
    Name(At),
    Open(Handle),
}

struct Stat {
    _subject: Subject,
    status: Lent<Statx>,
}

// SAFETY: the entry points to the path's heap memory or to a static, which the
// kernel only reads, and to the lent structure, which nobody reaches before it is
// taken back; descriptors it names are kept open by handles.
unsafe impl Operation for Stat {
    type Output = io::Result<Statx>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        let status = self.status.take_back();
        result.map(|_| status)
    }
}

struct Unlink {
    _at: At,
}

// SAFETY: the entry points to the path's heap memory, which the kernel only
// reads, and names a folder that the handle keeps open.
unsafe impl Operation for Unlink {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

struct Rename {
    _from: At,
    _to: At,
}

// SAFETY: the entry points to the two paths' heap memory, which the kernel only
// reads, and names folders that the handles keep open.
unsafe impl Operation for Rename {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

impl Ring {
    /// Opens the regular file at an absolute, canonical `path` for reading. On a file
    /// system that is [far](Place::Far), where an open may ask a server even if the
    /// path is cached, a thread of the kernel waits for it.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`; `ELOOP` where a symbolic link stands on the path.
    pub fn open_message(
        &self,
        path: CString,
        place: Place,
    ) -> impl Future<Output = io::Result<Handle>> + use<> {
        let flags = match place {
            Place::Local => Flags::empty(),
            Place::Far => Flags::ASYNC,
        };
        self.open_with(At::path(path), &READ_MESSAGE, flags)
    }

    /// Opens a folder, for names in it and to [sync](Ring::sync) it.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`.
    pub fn open_folder(&self, at: At) -> impl Future<Output = io::Result<Handle>> + use<> {
        self.open(at, &FOLDER)
    }

    /// Makes a file that nobody but its owner may read, and opens it for both
    /// directions.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`; `EEXIST` where there is something of that name.
    pub fn create(&self, at: At) -> impl Future<Output = io::Result<Handle>> + use<> {
        self.open(at, &NEW)
    }

    fn open(
        &self,
        at: At,
        how: &'static OpenHow,
    ) -> impl Future<Output = io::Result<Handle>> + use<> {
        self.open_with(at, how, Flags::empty())
    }

    fn open_with(
        &self,
        at: At,
        how: &'static OpenHow,
        flags: Flags,
    ) -> impl Future<Output = io::Result<Handle>> + use<> {
        let entry = opcode::OpenAt2::new(at.folder(), at.name(), how)
            .build()
            .flags(flags);
        // SAFETY: the entry holds the addresses of the path's heap memory and
        // of a static, as `Open` vouches for.
        unsafe { self.start(Open { _at: at }, entry) }
    }

    /// What is `wanted` of the status of a name; a symbolic link is one itself.
    ///
    /// # Errors
    ///
    /// As `statx(2)`.
    pub fn stat(
        &self,
        at: At,
        wanted: StatxFlags,
    ) -> impl Future<Output = io::Result<Statx>> + use<> {
        self.status(Subject::Name(at), wanted)
    }

    /// What is `wanted` of the status of an open file.
    ///
    /// # Errors
    ///
    /// As `statx(2)`.
    pub fn stat_open(
        &self,
        file: &Handle,
        wanted: StatxFlags,
    ) -> impl Future<Output = io::Result<Statx>> + use<> {
        self.status(Subject::Open(file.clone()), wanted)
    }

    fn status(
        &self,
        subject: Subject,
        wanted: StatxFlags,
    ) -> impl Future<Output = io::Result<Statx>> + use<> {
        const ITSELF: &CStr = c"";
        // SAFETY: the structure is one of numbers and bit sets of any value, as
        // statx(2) fills it, for which zeros are valid.
        let status = Lent::new(unsafe { std::mem::zeroed::<Statx>() });
        let (folder, name, flags) = match &subject {
            Subject::Name(at) => (at.folder(), at.name(), libc::AT_SYMLINK_NOFOLLOW),
            Subject::Open(file) => (
                Fd(file.as_raw_fd()),
                ITSELF.as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW,
            ),
        };
        let entry = opcode::Statx::new(folder, name, status.address().cast())
            .flags(flags)
            .mask(wanted.bits())
            .build();
        let operation = Stat {
            _subject: subject,
            status,
        };
        // SAFETY: the entry holds the addresses of the path's heap memory or of
        // a static, and of the lent structure, as `Stat` vouches for.
        unsafe { self.start(operation, entry) }
    }

    /// Removes a name that is no folder's.
    ///
    /// # Errors
    ///
    /// As `unlinkat(2)`.
    pub fn unlink(&self, at: At) -> impl Future<Output = io::Result<()>> + use<> {
        let entry = opcode::UnlinkAt::new(at.folder(), at.name()).build();
        // SAFETY: the entry holds the address of the path's heap memory, as
        // `Unlink` vouches for.
        unsafe { self.start(Unlink { _at: at }, entry) }
    }

    /// Gives a file another name, in place of what has that name.
    ///
    /// # Errors
    ///
    /// As `renameat(2)`.
    pub fn rename(&self, from: At, to: At) -> impl Future<Output = io::Result<()>> + use<> {
        let entry =
            opcode::RenameAt::new(from.folder(), from.name(), to.folder(), to.name()).build();
        let operation = Rename {
            _from: from,
            _to: to,
        };
        // SAFETY: the entry holds the addresses of the two paths' heap memory,
        // as `Rename` vouches for.
        unsafe { self.start(operation, entry) }
    }
}

// The kernel writes this structure through the pointer in the entry.
const _: () = assert!(size_of::<Statx>() == size_of::<libc::statx>());
