//! The same floor on `io_uring`: the sessions of [`client`](super::client), asked of the
//! kernel in the ways that a ring has and an epoll loop has not.
//!
//! One ring of one thread (`SINGLE_ISSUER`, `DEFER_TASKRUN`): completions are made when the
//! thread asks for them, with no interrupt of it. Sockets are direct descriptors, so none
//! is looked up or counted. A session is begun by one chain of entries: what is left of
//! the connection before is taken off the socket, the next one is made, and a multishot
//! receive is left behind that lasts until the server closes, into buffers that the
//! kernel picks. Sends say nothing when they succeed. So a session costs eight entries
//! and seven completions, and one `io_uring_enter` serves all sessions that are ready.

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, DestinationSlot, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::time::{ClockId, clock_gettime};

use super::client::{Dialogue, PATIENCE, Played, fault};

/// Entries of the submission queue: more than two turns of all sessions need.
const ENTRIES: u32 = 1024;
/// Buffers, a power of two: more than sessions.
const BUFFERS: u16 = 256;
/// Octets of each: more than any reply here.
const BUFFER: usize = 4096;
/// The group of these buffers.
const GROUP: u16 = 0;
/// Completions that are expected, by the lowest bits of their entry's number; the
/// others are the slot's.
const RECEIVE: u64 = 0;
const OTHER: u64 = 1;

/// Buffers that the kernel picks from (`io_uring_register_buf_ring(3)`).
struct Buffers {
    /// One allocation, never freed: the entries, and the buffers behind them.
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    const ENTRIES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

    fn new(ring: &IoUring) -> io::Result<Self> {
        let octets = Self::ENTRIES + usize::from(BUFFERS) * BUFFER;
        let layout = Layout::from_size_align(octets, 4096).map_err(io::Error::other)?;
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = Self { memory, tail: 0 };
        for id in 0..BUFFERS {
            buffers.give(id);
        }
        let address = memory.as_ptr() as u64;
        // SAFETY: the entries begin at a page and are never freed.
        let registered = unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)
        };
        registered.map(|()| buffers)
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        assert!(
            id < BUFFERS,
            "the kernel picks among those that it was given"
        );
        // SAFETY: within the allocation, for `id` is less than `BUFFERS`.
        unsafe { self.memory.add(Self::ENTRIES + usize::from(id) * BUFFER) }
    }

    /// What the kernel has written into a buffer.
    fn read(&self, id: u16, octets: usize) -> &[u8] {
        assert!(octets <= BUFFER, "a buffer is no longer");
        // SAFETY: the kernel has written so many there, and writes no more until `give`,
        // which needs the only reference.
        unsafe { slice::from_raw_parts(self.buffer(id).as_ptr(), octets) }
    }

    /// Gives a buffer (back) to the kernel.
    fn give(&mut self, id: u16) {
        let at = usize::from(self.tail % BUFFERS);
        let address = self.buffer(id).as_ptr() as u64;
        // SAFETY: one of `BUFFERS` entries, all zero or written here before.
        let mut entry = unsafe { self.memory.cast::<BufRingEntry>().add(at) };
        // SAFETY: the kernel reads entries before the tail alone, and this one is at it.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(BUFFER).expect("some KiB"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        let first = self.memory.cast::<BufRingEntry>();
        // SAFETY: the first entry of the ring.
        let tail = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: aligned and within the first entry; the kernel reads it as such.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// An address as connect(2) takes it, for as long as the process lasts.
fn address_of(target: SocketAddrV4) -> &'static libc::sockaddr_in {
    Box::leak(Box::new(libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("a small number"),
        sin_port: target.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*target.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }))
}

fn connect(slot: u32, address: &'static libc::sockaddr_in) -> Entry {
    let length = size_of::<libc::sockaddr_in>();
    let length = libc::socklen_t::try_from(length).expect("some octets");
    let address = std::ptr::from_ref(address).cast();
    opcode::Connect::new(Fixed(slot), address, length).build()
}

/// All sessions of the one thread.
struct Player {
    ring: IoUring,
    buffers: Buffers,
    slots: Vec<Dialogue>,
    target: &'static libc::sockaddr_in,
    nowhere: &'static libc::sockaddr_in,
    played: u64,
    /// Sessions under way.
    open: usize,
}

/// Begins sessions for so long: `sessions` at a time, with twice as many users, `user0` and on.
pub(crate) fn play(
    target: SocketAddr,
    sessions: usize,
    password: &str,
    length: Duration,
) -> io::Result<Played> {
    let SocketAddr::V4(target) = target else {
        return Err(fault("the target has to have an address of IPv4"));
    };
    if sessions > usize::from(BUFFERS) {
        return Err(fault("more sessions than buffers"));
    }
    let (began, cpu_before) = (Instant::now(), clock_gettime(ClockId::ProcessCPUTime));
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(ENTRIES)?;
    let count = u32::try_from(sessions).map_err(io::Error::other)?;
    ring.submitter().register_files_sparse(count)?;
    let mut nowhere = *address_of(target);
    nowhere.sin_family = libc::sa_family_t::try_from(libc::AF_UNSPEC).expect("nought");
    let mut player = Player {
        buffers: Buffers::new(&ring)?,
        ring,
        slots: (0..sessions).map(|n| Dialogue::new(n, password)).collect(),
        target: address_of(target),
        nowhere: Box::leak(Box::new(nowhere)),
        played: 0,
        open: sessions,
    };
    for slot in 0..count {
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)
            .file_index(Some(
                DestinationSlot::try_from_slot_target(slot).expect("a slot"),
            ))
            .build();
        player.begin(slot, socket)?;
    }
    let patience = Timespec::from(PATIENCE);
    while player.open > 0 {
        let args = SubmitArgs::new().timespec(&patience);
        match player.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                return Err(fault("the server fell silent"));
            }
            Err(error) => return Err(error),
        }
        player.serve(began.elapsed() < length)?;
    }
    let cpu = |time| Duration::try_from(time).unwrap_or_default();
    Ok(Played {
        sessions: player.played,
        elapsed: began.elapsed(),
        cpu: cpu(clock_gettime(ClockId::ProcessCPUTime)).saturating_sub(cpu(cpu_before)),
    })
}

impl Player {
    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: addresses and commands are never freed nor changed, buffers are the
        // kernel's own to pick.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// A session begins with a socket, new or freed from the connection before.
    fn begin(&mut self, slot: u32, socket: Entry) -> io::Result<()> {
        let number = u64::from(slot) << 1;
        let linked = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        let receive = opcode::RecvMulti::new(Fixed(slot), GROUP).build();
        for entry in [
            socket.flags(linked).user_data(number | OTHER),
            connect(slot, self.target)
                .flags(linked)
                .user_data(number | OTHER),
            receive.user_data(number | RECEIVE),
        ] {
            self.push(&entry)?;
        }
        Ok(())
    }

    /// Takes all completions that are there; who is done goes on, or rests.
    fn serve(&mut self, goes_on: bool) -> io::Result<()> {
        // One at a time, for the ring takes entries meanwhile.
        while let Some(completion) = { self.ring.completion().next() } {
            let (number, result) = (completion.user_data(), completion.result());
            let slot = u32::try_from(number >> 1).expect("a slot's number");
            if result < 0 || number & 1 == OTHER {
                return Err(io::Error::from_raw_os_error(-result));
            }
            if result == 0 {
                self.slots[slot as usize].over()?;
                self.played += 1;
                if goes_on {
                    self.begin(slot, connect(slot, self.nowhere))?;
                } else {
                    self.open -= 1;
                }
                continue;
            }
            self.received(slot, &completion)?;
        }
        Ok(())
    }

    fn received(&mut self, slot: u32, completion: &cqueue::Entry) -> io::Result<()> {
        let id = cqueue::buffer_select(completion.flags()).ok_or(fault("no buffer"))?;
        let octets = usize::try_from(completion.result()).expect("not negative");
        let came = self.buffers.read(id, octets);
        let command = self.slots[slot as usize].received(came)?;
        self.buffers.give(id);
        if !cqueue::more(completion.flags()) {
            return Err(fault("the receive ended before the connection"));
        }
        let Some(command) = command else {
            return Ok(());
        };
        let length = u32::try_from(command.len()).expect("a command");
        let send = opcode::Send::new(Fixed(slot), command.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(u64::from(slot) << 1 | OTHER);
        self.push(&send)
    }
}
