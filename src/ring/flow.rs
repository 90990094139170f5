//! Octets that a socket takes at once, and waiting until it takes more.
//!
//! A send that waits for its peer keeps its octets for as long as the peer likes. So
//! the octets of messages go by sends that never wait: what the socket does not take
//! is given back, to be made again when [`Ring::writable`] says that there is room.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::opcode;
use io_uring::types::Fd;
use rustix::fs::OFlags;

use super::operation::Operation;
use super::{Handle, Ring};

struct Poller {
    _socket: Handle,
}

// SAFETY: the entry holds no address, and the handle keeps the descriptor open.
unsafe impl Operation for Poller {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

impl Ring {
    /// Waits until a socket takes octets again, or has failed, which the next send
    /// will tell.
    ///
    /// # Errors
    ///
    /// As `poll(2)`.
    pub fn writable(
        &self,
        socket: &Handle,
    ) -> impl Future<Output = io::Result<()>> + Unpin + use<> {
        let events = u32::try_from(libc::POLLOUT).expect("a positive constant");
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), events).build();
        let operation = Poller {
            _socket: socket.clone(),
        };
        // SAFETY: the entry holds no address.
        unsafe { self.start(operation, entry) }
    }
}

/// Sends what the socket takes at once of a file, from `offset` on, without a copy;
/// says how many octets that is, 0 at the file's end. Who calls this has them in
/// memory, or waits for a disk ([`Ring::make_resident`]).
///
/// # Errors
///
/// As `sendfile(2)`: [`io::ErrorKind::WouldBlock`] where the socket takes none. A
/// closed peer raises SIGPIPE, which Rust's programs ignore.
pub fn send_file(socket: &Handle, file: &Handle, offset: u64, most: usize) -> io::Result<usize> {
    // sendfile(2) has no flags: whether it waits is the socket's. An operation of the
    // ring that began on a socket that never waits would fail, and so it is one only
    // here, where none begins.
    let before = rustix::fs::fcntl_getfl(socket)?;
    rustix::fs::fcntl_setfl(socket, before | OFlags::NONBLOCK)?;
    let mut offset = offset;
    let sent = rustix::fs::sendfile(socket, file, Some(&mut offset), most);
    rustix::fs::fcntl_setfl(socket, before)?;
    Ok(sent?)
}

/// Bounds what the kernel takes from connections of a listener beyond what the
/// network has been given (`TCP_NOTSENT_LOWAT` of `tcp(7)`): more stays with us, where
/// it costs a position in a file and not memory.
///
/// # Errors
///
/// As `setsockopt(2)`.
pub fn bound_unsent(listener: impl AsFd, octets: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&octets)).expect("a small size");
    // SAFETY: the option's value is `length` octets of an integer that lives on.
    let set = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const octets).cast(),
            length,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
