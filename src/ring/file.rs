//! Message files: open and read.

use std::ffi::CString;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::{Fd, OpenHow};

use super::operation::Operation;
use super::slot::adopt;
use super::{Handle, Ring};

/// How a message is opened: no link is followed anywhere on its path, which the
/// maildrop made canonical, and a FIFO does not wait for its writer
/// (`openat2(2)`).
static READ_MESSAGE: OpenHow = OpenHow::new()
    .flags((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK) as u64)
    .resolve(libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS);

struct Path {
    _path: CString,
}

// SAFETY: the entry points to the CString's heap memory and to a static.
unsafe impl Operation for Path {
    type Output = io::Result<Handle>;
    const YIELDS_DESCRIPTOR: bool = true;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(|descriptor| Handle::new(adopt(descriptor)))
    }
}

struct Read {
    buffer: Vec<u8>,
    _file: Handle,
}

// SAFETY: the entry points into the vector's heap memory alone, and names a
// descriptor that the handle keeps open.
unsafe impl Operation for Read {
    type Output = (io::Result<usize>, Vec<u8>);

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        let Read { mut buffer, _file } = self;
        let result = result.map(|count| {
            let count = count as usize;
            let length = buffer.len() + count;
            assert!(length <= buffer.capacity(), "asked for no more than fits");
            // SAFETY: the kernel wrote `count` octets behind the old length,
            // and the capacity holds them.
            unsafe { buffer.set_len(length) };
            count
        });
        (result, buffer)
    }
}

impl Ring {
    /// Opens the regular file at an absolute, canonical `path` for reading.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`; `ELOOP` where a symbolic link stands on the path.
    pub fn open_message(&self, path: CString) -> impl Future<Output = io::Result<Handle>> + use<> {
        let entry =
            opcode::OpenAt2::new(Fd(libc::AT_FDCWD), path.as_ptr(), &raw const READ_MESSAGE);
        // SAFETY: the entry holds the addresses of the path's heap memory and
        // of the static, as `Path` vouches for.
        unsafe { self.start(Path { _path: path }, entry.build()) }
    }

    /// Reads up to `most` octets at `offset` into the spare capacity of
    /// `buffer`, appending. The buffer comes back whatever happens; 0 octets are
    /// the file's end.
    ///
    /// # Errors
    ///
    /// As `pread(2)`.
    pub fn read_at(
        &self,
        file: &Handle,
        mut buffer: Vec<u8>,
        offset: u64,
        most: u64,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + use<> {
        let spare = buffer.spare_capacity_mut();
        let spare_octets = u32::try_from(spare.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(most).unwrap_or(u32::MAX).min(spare_octets);
        let start = spare.as_mut_ptr().cast::<u8>();
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), start, length).offset(offset);
        let operation = Read {
            buffer,
            _file: file.clone(),
        };
        // SAFETY: the entry holds an address within the vector's heap memory,
        // as `Read` vouches for.
        unsafe { self.start(operation, entry.build()) }
    }
}
