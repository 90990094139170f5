//! A message file in memory, for messages large enough that a copy of their text
//! costs more than page tables do.
//!
//! Two things can go wrong with mapped memory that cannot with a read, and both are
//! kept off the shard here:
//!
//! - **A page that is not in memory** makes whoever touches it wait for the disk.
//!   [`Ring::make_resident`] asks first (`mincore(2)`) and has a thread of the kernel
//!   bring in what is missing. A page may still be evicted between the two; that is
//!   a wait of one page on a machine that is out of memory. `mincore` tells the truth
//!   about a file only to who owns it or may write it; to others every page looks
//!   resident.
//! - **A page behind the file's end**, or one that the disk cannot give, raises
//!   SIGBUS. [`Mapping::read`] notes for its thread which memory it is about to touch;
//!   the handler of the signal puts a page of zeros where the fault was, notes that it
//!   did, and the read ends with an error. What was read up to then is thrown away by
//!   the caller. A SIGBUS of any other memory is a bug or broken hardware and goes to
//!   whoever handled it before. System calls on such memory fail with `EFAULT` and
//!   raise nothing.
//!
//! A `setjmp` out of the fault was rejected: Rust frames cannot be left that way. A
//! size check before each window was, because a file can be cut between check and use.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{Mmap, MmapOptions};

use super::{Advice, Handle, Ring};

/// A file's octets in memory, read-only.
#[derive(Debug)]
pub struct Mapping {
    map: Rc<Mmap>,
}

/// The file does not reach as far as it did, or its device fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The memory that a thread is reading, for the signal's handler.
struct Guard {
    start: Cell<usize>,
    end: Cell<usize>,
    struck: Cell<bool>,
}

thread_local! {
    // No destructor and a constant beginning: plain memory of the thread, which a
    // signal's handler may touch.
    static GUARD: Guard = const {
        Guard {
            start: Cell::new(0),
            end: Cell::new(0),
            struck: Cell::new(false),
        }
    };
}

/// What was done about SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Mapping {
    /// Maps the first `octets` of a file, which are not none.
    ///
    /// # Errors
    ///
    /// As `mmap(2)`, and as `sigaction(2)` the first time.
    pub fn new(file: &Handle, octets: usize) -> io::Result<Mapping> {
        catch_bus_errors()?;
        let mut options = MmapOptions::new();
        options.len(octets);
        // SAFETY: what another program does to the file changes octets of a message
        // that nothing but the message's text depends on: no length, no index is
        // read from here. Memory that vanishes is `read`'s to deal with.
        let map = unsafe { options.map(file.as_raw_fd()) }?;
        Ok(Mapping { map: Rc::new(map) })
    }

    /// Whether every page of a part is in memory now.
    fn is_resident(&self, part: Range<usize>) -> bool {
        let page = rustix::param::page_size();
        let start = part.start / page * page;
        let mut residents = vec![0_u8; (part.end - start).div_ceil(page)];
        // SAFETY: the part begins within the mapping.
        let address = unsafe { self.map.as_ptr().add(start) }.cast_mut();
        // SAFETY: the range is within the mapping up to the end of its last page,
        // and the vector has an octet for each page of it.
        let asked = unsafe {
            libc::mincore(
                address.cast(),
                part.end - start,
                residents.as_mut_ptr().cast(),
            )
        };
        asked == 0 && residents.iter().all(|resident| resident & 1 == 1)
    }

    /// Gives a part's octets to `read`.
    ///
    /// # Errors
    ///
    /// The file ends before the part does, or cannot be read. What `read` made of it
    /// is worth nothing then.
    pub fn read<T>(&self, part: Range<usize>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Lost> {
        let octets = &self.map[part];
        let whole = self.map.as_ptr_range();
        GUARD.with(|guard| {
            guard.struck.set(false);
            guard.start.set(whole.start.addr());
            guard.end.set(whole.end.addr());
            // The handler runs on this thread: what it must see is written before.
            compiler_fence(Ordering::SeqCst);
            let result = read(octets);
            compiler_fence(Ordering::SeqCst);
            guard.start.set(0);
            guard.end.set(0);
            if guard.struck.get() {
                Err(Lost)
            } else {
                Ok(result)
            }
        })
    }
}

impl Ring {
    /// Has the pages of a part in memory, without waiting for a disk on the shard.
    ///
    /// # Errors
    ///
    /// As `madvise(2)`: `EFAULT` where the file has become shorter or its device
    /// fails.
    pub async fn make_resident(&self, mapping: &Mapping, part: Range<usize>) -> io::Result<()> {
        if mapping.is_resident(part.clone()) {
            return Ok(());
        }
        let pages = Rc::clone(&mapping.map);
        self.advise(pages, part, Advice::Populate).await
    }
}

/// Has SIGBUS of guarded memory handled, once for the process.
fn catch_bus_errors() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks for the action there is; the kernel fills the structure.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the call above, which succeeded.
    let before = unsafe { before.assume_init() };
    if BEFORE.set(before).is_err() {
        return Ok(());
    }
    // SAFETY: zeros are a valid value of a structure of integers and pointers.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler calls only what a handler may (signal-safety(7)): system
    // calls, and memory of its own thread.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid structure.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info.si_addr() }.addr();
    if GUARD.with(|guard| put_zeros(guard, address)) {
        return;
    }
    // Not ours: the instruction runs again under the action that was there before.
    if let Some(before) = BEFORE.get() {
        // SAFETY: an action that the process had before.
        unsafe { libc::sigaction(signal, &raw const *before, std::ptr::null_mut()) };
    }
}

/// Puts zeros in place of the guarded memory from the page of `address` on.
fn put_zeros(guard: &Guard, address: usize) -> bool {
    let (start, end) = (guard.start.get(), guard.end.get());
    if !(start..end).contains(&address) {
        return false;
    }
    let page = address - address % rustix::param::page_size();
    // SAFETY: the pages belong to the mapping that this thread is reading, which
    // keeps them until it is dropped; what was there cannot be read any more.
    let zeros = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(page),
            end - page,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    guard.struck.set(true);
    zeros != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn file(octets: usize) -> (File, Handle) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![b'x'; octets]).expect("written");
        let handle = Handle::new(file.try_clone().expect("a descriptor").into());
        (file, handle)
    }

    #[test]
    fn the_text_is_there() {
        let (_file, handle) = file(100_000);
        let mapping = Mapping::new(&handle, 100_000).expect("mapped");
        assert!(mapping.is_resident(0..100_000));
        let same = mapping.read(1..100_000, |octets| octets.iter().all(|o| *o == b'x'));
        assert_eq!(same, Ok(true));
    }

    #[test]
    fn a_file_cut_short_is_an_error_and_no_more() {
        let (file, handle) = file(1 << 20);
        let mapping = Mapping::new(&handle, 1 << 20).expect("mapped");
        assert_eq!(mapping.read(0..10, <[u8]>::len), Ok(10));
        file.set_len(5000).expect("cut");
        let read = |part: Range<usize>| {
            mapping.read(part, |octets| {
                octets.iter().map(|o| u64::from(*o)).sum::<u64>()
            })
        };
        assert_eq!(read(0..5000), Ok(5000 * u64::from(b'x')));
        assert_eq!(read(0..1 << 20), Err(Lost));
        // Zeros are there now; another read of them would not be struck, which is why
        // a lost mapping is not used again.
        let (_other, handle) = self::file(8192);
        let other = Mapping::new(&handle, 8192).expect("mapped");
        assert_eq!(other.read(0..8192, <[u8]>::len), Ok(8192));
    }
}
