//! Open files and their mappings: read, write, sync, advise.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::opcode;
use io_uring::types::{Fd, FsyncFlags};

use super::operation::Operation;
use super::{Handle, Ring};

struct Read {
    buffer: Vec<u8>,
    _file: Handle,
}

// SAFETY: the entry points into the vector's heap memory alone, which nobody
// reaches before the vector is given back, and names a descriptor that the handle
// keeps open.
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

struct Write {
    buffer: Vec<u8>,
    _file: Handle,
}

// SAFETY: the entry points to the vector's heap memory, which the kernel only
// reads, and names a descriptor that the handle keeps open.
unsafe impl Operation for Write {
    type Output = (io::Result<usize>, Vec<u8>);

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|written| written as usize), self.buffer)
    }
}

struct Sync {
    _file: Handle,
}

// SAFETY: the entry holds no address, and names a descriptor that the handle
// keeps open.
unsafe impl Operation for Sync {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

struct Advise<M> {
    _mapping: Rc<M>,
}

// SAFETY: the entry points into memory that the mapping owns; the advice given
// neither changes nor frees what is there, whoever else uses it, and for an address
// that nothing is mapped at the kernel has an error.
unsafe impl<M: 'static> Operation for Advise<M> {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// What a mapping is going to be used for (`madvise(2)`). Only advice that
/// leaves the contents alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Its pages will be wanted: the kernel begins to read them.
    WillNeed,
    /// Its pages are read and mapped before the operation ends. One that cannot
    /// be read makes the operation fail and raises no signal.
    Populate,
}

impl Ring {
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
        assert!(length > 0, "a read of nothing looks like the file's end");
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

    /// Writes `buffer` at `offset` and says how much of it was written, which is
    /// less only where the disk is full or a limit is reached. The buffer comes
    /// back whatever happens.
    ///
    /// # Errors
    ///
    /// As `pwrite(2)`.
    pub fn write_at(
        &self,
        file: &Handle,
        buffer: Vec<u8>,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + use<> {
        let length = u32::try_from(buffer.len()).expect("files are written in pieces");
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), buffer.as_ptr(), length)
            .offset(offset)
            .build();
        let operation = Write {
            buffer,
            _file: file.clone(),
        };
        // SAFETY: the entry holds the address of the vector's heap memory, as
        // `Write` vouches for.
        unsafe { self.start(operation, entry) }
    }

    /// Has what was written to a file, or the names in a folder, survive a crash
    /// of the machine.
    ///
    /// # Errors
    ///
    /// As `fsync(2)`. After one, what was written since the last success may be
    /// lost, and a second try proves nothing.
    pub fn sync(&self, file: &Handle) -> impl Future<Output = io::Result<()>> + use<> {
        self.start_sync(file, FsyncFlags::empty())
    }

    /// As [`Ring::sync`], for the octets and the size alone (`fdatasync(2)`).
    ///
    /// # Errors
    ///
    /// As [`Ring::sync`].
    pub fn sync_data(&self, file: &Handle) -> impl Future<Output = io::Result<()>> + use<> {
        self.start_sync(file, FsyncFlags::DATASYNC)
    }

    fn start_sync(
        &self,
        file: &Handle,
        flags: FsyncFlags,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd()))
            .flags(flags)
            .build();
        let operation = Sync {
            _file: file.clone(),
        };
        // SAFETY: the entry holds no address.
        unsafe { self.start(operation, entry) }
    }

    /// Tells the kernel what a part of a mapped file is wanted for, on a thread
    /// of the kernel: the shard does not wait for the disk. The mapping stays
    /// until that is done.
    ///
    /// # Errors
    ///
    /// As `madvise(2)`; `EFAULT` where the file cannot be read or has become
    /// shorter.
    pub fn advise<M: AsRef<[u8]> + 'static>(
        &self,
        mapping: Rc<M>,
        part: Range<usize>,
        advice: Advice,
    ) -> impl Future<Output = io::Result<()>> + use<M> {
        let octets = &(*mapping).as_ref()[part];
        // The kernel wants the beginning of a page and rounds the end itself.
        let before = octets.as_ptr().addr() % rustix::param::page_size();
        let start = octets.as_ptr().wrapping_sub(before);
        let length = libc::off_t::try_from(octets.len() + before).expect("less than all memory");
        let advice = match advice {
            Advice::WillNeed => libc::MADV_WILLNEED,
            Advice::Populate => libc::MADV_POPULATE_READ,
        };
        let entry = opcode::Madvise::new(start.cast(), length, advice).build();
        let operation = Advise { _mapping: mapping };
        // SAFETY: the address is one that `Advise` vouches for.
        unsafe { self.start(operation, entry) }
    }
}
