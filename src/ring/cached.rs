//! What the kernel has at hand: opens and reads that never wait.
//!
//! A message that was just delivered or read lies in the kernel's caches, and a
//! system call that takes it from there is cheaper than a trip through the ring, and
//! leaves no future to keep. What is not there is the ring's.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::Handle;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `statfs(2)`.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Opens the regular file at an absolute, canonical path of a local file system as
/// [`Ring::open_message`](super::Ring::open_message) does, if the kernel knows every
/// part of the path.
///
/// # Errors
///
/// As `openat2(2)`; [`io::ErrorKind::WouldBlock`] where it would have to ask a disk.
pub fn open_cached(path: &CStr) -> io::Result<Handle> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)?;
    Ok(Handle::new(opened))
}

/// Reads up to `most` octets at `offset` into the spare capacity of `buffer`,
/// appending; 0 are the file's end, and fewer than there are come where the rest is
/// not cached.
///
/// # Errors
///
/// As `preadv2(2)` with `RWF_NOWAIT`; [`io::ErrorKind::WouldBlock`] where it would
/// have to wait, or where the file system cannot tell. One that is [far](super::Place)
/// may not be asked at all: it would wait for its server to say what it is.
pub fn read_cached(
    file: &Handle,
    buffer: &mut Vec<u8>,
    offset: u64,
    most: u64,
) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(spare.len());
    let vector = libc::iovec {
        iov_base: spare.as_mut_ptr().cast(),
        iov_len: length,
    };
    let offset = libc::off_t::try_from(offset).expect("files are shorter");
    let descriptor = file.as_raw_fd();
    // SAFETY: the vector is of `length` octets of the buffer's spare capacity, and
    // the descriptor is open.
    let mut read =
        unsafe { libc::preadv2(descriptor, &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    if read < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) || !is_in_memory(file) {
            return Err(match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => io::ErrorKind::WouldBlock.into(),
                _ => error,
            });
        }
        // SAFETY: as above.
        read = unsafe { libc::preadv(descriptor, &raw const vector, 1, offset) };
    }
    let count = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let whole = buffer.len() + count;
    assert!(whole <= buffer.capacity(), "asked for no more than fits");
    // SAFETY: the kernel wrote `count` octets behind the old length.
    unsafe { buffer.set_len(whole) };
    Ok(count)
}

/// Whether a file has no disk behind it: such a file system knows no reads that do
/// not wait, because none does.
fn is_in_memory(file: &Handle) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| IN_MEMORY.contains(&stat.f_type))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_was_just_written_is_at_hand() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder
            .path()
            .canonicalize()
            .expect("a path")
            .join("message");
        std::fs::write(&path, b"Subject: x\n\nbody\n").expect("written");
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let file = open_cached(&path).expect("opened");
        let mut buffer = Vec::with_capacity(64);
        buffer.push(b'>');
        assert_eq!(read_cached(&file, &mut buffer, 9, 4).expect("read"), 4);
        assert_eq!(buffer, b">x\n\nb");
        assert_eq!(read_cached(&file, &mut buffer, 17, 4).expect("end"), 0);
    }

    #[test]
    fn a_missing_file_is_told_from_one_that_is_not_cached() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("a path").join("none");
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        // The first look may have to ask the disk.
        let first = open_cached(&path).expect_err("nothing there");
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&first.kind()), "{first}");
    }
}
