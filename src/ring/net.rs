//! Sockets: accept, receive, send, shut down, close.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;

use super::operation::Operation;
use super::slot::{Accept, End, Receive, Slot, keep};
use super::{Handle, Ring};

/// What a receive brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, never none.
    Bytes(Vec<u8>),
    /// The peer will send no more.
    End,
}

/// The connections of one listener, as a multishot accept finds them.
pub struct Acceptor {
    ring: Ring,
    key: usize,
    listener: Handle,
}

/// The bytes of one socket, as a multishot receive finds them.
pub struct Receiver {
    ring: Ring,
    key: usize,
    socket: Handle,
}

struct Send {
    buffer: Vec<u8>,
    _socket: Handle,
}

// SAFETY: the entry points to the vector's heap memory, which the kernel only
// reads, and names a descriptor that the handle keeps open.
unsafe impl Operation for Send {
    type Output = (io::Result<usize>, Vec<u8>);

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|sent| sent as usize), self.buffer)
    }
}

struct ShutDown {
    _socket: Handle,
}

// SAFETY: the entry holds no address, and names a descriptor that the handle
// keeps open.
unsafe impl Operation for ShutDown {
    type Output = io::Result<()>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// How long the kernel has heard nothing of a TCP peer, not even an acknowledgement
/// (`TCP_INFO` of tcp(7)). Waits for nothing.
///
/// # Errors
///
/// As `getsockopt(2)`.
pub fn silence(socket: &Handle) -> io::Result<Duration> {
    // SAFETY: the structure is made of integers, for which zeros are a value.
    let mut info = unsafe { std::mem::zeroed::<libc::tcp_info>() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("a small structure");
    // SAFETY: both addresses are those of live values of this frame, which the kernel
    // writes to during the call alone, and no more than the length says.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    let since = info.tcpi_last_data_recv.min(info.tcpi_last_ack_recv);
    Ok(Duration::from_millis(since.into()))
}

impl Ring {
    /// Starts to accept on a listening socket.
    pub fn accept(&self, listener: Handle) -> Acceptor {
        let slot = Slot::Accept(Accept::default());
        let key = self.shared.core.borrow_mut().slots.insert(slot);
        Acceptor {
            ring: self.clone(),
            key,
            listener,
        }
    }

    /// Starts to receive from a connected socket.
    pub fn receive(&self, socket: Handle) -> Receiver {
        let slot = Slot::Receive(Receive::default());
        let key = self.shared.core.borrow_mut().slots.insert(slot);
        Receiver {
            ring: self.clone(),
            key,
            socket,
        }
    }

    /// Sends all of `buffer`, however slowly the peer reads; the buffer comes
    /// back whatever happens. Fewer octets than given were sent only where the
    /// connection failed in the midst.
    ///
    /// # Errors
    ///
    /// As `send(2)`; no signal is raised for a closed peer.
    pub fn send(
        &self,
        socket: &Handle,
        buffer: Vec<u8>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + Unpin + use<> {
        self.send_flagged(socket, buffer, libc::MSG_WAITALL)
    }

    /// Sends the beginning of `buffer`, at least an octet, as soon as there is room.
    /// For sockets whose records the kernel makes: its TLS refuses `MSG_WAITALL`.
    ///
    /// # Errors
    ///
    /// As `send(2)`; no signal is raised for a closed peer.
    pub fn send_some(
        &self,
        socket: &Handle,
        buffer: Vec<u8>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + Unpin + use<> {
        self.send_flagged(socket, buffer, 0)
    }

    fn send_flagged(
        &self,
        socket: &Handle,
        buffer: Vec<u8>,
        flags: i32,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> + Unpin + use<> {
        let length = u32::try_from(buffer.len()).expect("output buffers are small");
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), buffer.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | flags)
            .build();
        let operation = Send {
            buffer,
            _socket: socket.clone(),
        };
        // SAFETY: the entry holds the address of the vector's heap memory, as
        // `Send` vouches for.
        unsafe { self.start(operation, entry) }
    }

    /// Ends one direction of a connection, or both. On a thread of the kernel:
    /// where nothing can make it wait, shutdown(2) itself costs less.
    ///
    /// # Errors
    ///
    /// As `shutdown(2)`.
    pub fn shut_down(
        &self,
        socket: &Handle,
        direction: std::net::Shutdown,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let how = match direction {
            std::net::Shutdown::Read => libc::SHUT_RD,
            std::net::Shutdown::Write => libc::SHUT_WR,
            std::net::Shutdown::Both => libc::SHUT_RDWR,
        };
        let entry = opcode::Shutdown::new(Fd(socket.as_raw_fd()), how).build();
        let operation = ShutDown {
            _socket: socket.clone(),
        };
        // SAFETY: the entry holds no address.
        unsafe { self.start(operation, entry) }
    }

    /// Closes a descriptor without waiting for it: in the turn's system call
    /// where nobody else holds it, with its last operation otherwise.
    pub fn close(&self, handle: Handle) {
        let Ok(descriptor) = Rc::try_unwrap(handle.descriptor) else {
            return;
        };
        let raw = OwnedFd::into_raw_fd(descriptor);
        {
            let mut core = self.shared.core.borrow_mut();
            let key = core.slots.insert(Slot::Closing(raw));
            let entry = opcode::Close::new(Fd(raw)).build().user_data(key as u64);
            // SAFETY: the entry holds no address, and the descriptor is ours
            // to close, once.
            unsafe { core.push(entry, &self.shared.counters) };
        }
    }
}

impl Acceptor {
    /// The next connection.
    ///
    /// # Errors
    ///
    /// As `accept4(2)`: `EMFILE` and `ENFILE` at a descriptor limit, errors of
    /// the connection that the peer has already given up. The next call starts
    /// anew; the caller decides how long to wait before it.
    pub fn connection(&mut self) -> impl Future<Output = io::Result<Handle>> + '_ {
        poll_fn(|context| self.poll_next(context))
    }

    /// As [`Acceptor::connection`], to be polled beside other things.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Handle>> {
        let mut core = self.ring.shared.core.borrow_mut();
        let Slot::Accept(accept) = &mut core.slots[self.key] else {
            unreachable!("an acceptor's slot is an accept");
        };
        if let Some(connection) = accept.ready.pop_front() {
            return Poll::Ready(Ok(Handle::new(connection)));
        }
        if let Some(error) = accept.failed.take() {
            return Poll::Ready(Err(error));
        }
        let stale = keep(&mut accept.waker, context.waker());
        if !accept.armed {
            let listener = self.listener.as_raw_fd();
            core.arm_accept(self.key, listener, &self.ring.shared.counters);
        }
        drop(core);
        drop(stale);
        Poll::Pending
    }
}

impl Receiver {
    /// The next bytes, or the end of the stream.
    ///
    /// # Errors
    ///
    /// As `recv(2)`: a reset, a timed-out peer.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Received>> {
        let mut core = self.ring.shared.core.borrow_mut();
        let Slot::Receive(receive) = &mut core.slots[self.key] else {
            unreachable!("a receiver's slot is a receive");
        };
        if !receive.unread.is_empty() {
            let unread = std::mem::take(&mut receive.unread);
            return Poll::Ready(Ok(Received::Bytes(unread)));
        }
        match receive.end.take() {
            Some(End::Closed) => {
                receive.end = Some(End::Closed);
                return Poll::Ready(Ok(Received::End));
            }
            Some(End::Failed(error)) => {
                receive.end = Some(End::Closed);
                return Poll::Ready(Err(error));
            }
            None => {}
        }
        let stale = keep(&mut receive.waker, context.waker());
        if !receive.armed {
            let socket = self.socket.as_raw_fd();
            core.arm_receive(self.key, socket, &self.ring.shared.counters);
        }
        drop(core);
        drop(stale);
        Poll::Pending
    }
}

/// Ends a multishot operation whose owner is gone.
fn abandon(ring: &Ring, key: usize, source: &Handle, yields_descriptors: bool) {
    let mut core = ring.shared.core.borrow_mut();
    let (armed, entry) = match &core.slots[key] {
        Slot::Accept(accept) => (accept.armed, accept.entry),
        Slot::Receive(receive) => (receive.armed, receive.entry),
        _ => unreachable!("a multishot operation's slot is one"),
    };
    let owned = if armed {
        let is_queued = core.is_queued(entry);
        let abandoned = Slot::AbandonedStream {
            yields_descriptors,
            _source: is_queued.then(|| source.clone()),
        };
        let owned = std::mem::replace(&mut core.slots[key], abandoned);
        core.cancel(key, &ring.shared.counters);
        owned
    } else {
        core.slots.remove(key)
    };
    drop(core);
    // With its waker, outside the borrow.
    drop(owned);
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        abandon(&self.ring, self.key, &self.listener, true);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        abandon(&self.ring, self.key, &self.socket, false);
    }
}
