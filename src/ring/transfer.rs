//! Octets to a socket without being gathered first: several parts in one send,
//! and what a pipe can carry past user space.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::opcode;
use io_uring::types::Fd;
use rustix::pipe::PipeFlags;

use super::lent::Lent;
use super::operation::Operation;
use super::{Handle, Ring};

/// Most parts of one send (`UIO_MAXIOV` of `sendmsg(2)`).
pub const PARTS: usize = 1024;

/// Octets to be sent, and who owns them. What stands here does not move and does
/// not change while there is an owner; another kind of owner must promise that.
#[derive(Debug)]
pub enum Part {
    /// A buffer of its own.
    Owned(Vec<u8>),
    /// Octets of the program.
    Static(&'static [u8]),
    /// A piece of a buffer that others read too.
    Shared(Rc<[u8]>, Range<usize>),
}

impl Part {
    fn octets(&self) -> &[u8] {
        match self {
            Part::Owned(octets) => octets,
            Part::Static(octets) => octets,
            Part::Shared(octets, piece) => &octets[piece.clone()],
        }
    }
}

struct SendParts {
    parts: Vec<Part>,
    _vectors: Vec<libc::iovec>,
    _header: Lent<libc::msghdr>,
    _socket: Handle,
}

// SAFETY: the entry points to the lent header, that to the heap memory of the
// vectors, and those to memory of the parts that stays where it is when a part is
// moved; the kernel only reads it all. The handle keeps the descriptor open.
unsafe impl Operation for SendParts {
    type Output = (io::Result<usize>, Vec<Part>);

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|sent| sent as usize), self.parts)
    }
}

/// A pipe, for octets that go from a file to a socket inside the kernel.
#[derive(Clone, Debug)]
pub struct Pipe {
    pub(super) read: Handle,
    pub(super) write: Handle,
}

impl Pipe {
    /// Makes a pipe.
    ///
    /// # Errors
    ///
    /// As `pipe2(2)`.
    pub fn new() -> io::Result<Pipe> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Pipe {
            read: Handle::new(read),
            write: Handle::new(write),
        })
    }
}

/// Where the kernel is to go on from where a descriptor stands (`splice(2)`).
const WHERE_IT_STANDS: i64 = -1;

struct Splice {
    /// Both ends: a splice that waits holds the pipe's lock, and to close an end
    /// is to wait for that lock.
    _pipe: Pipe,
    _other: Handle,
}

// SAFETY: the entry holds no address, and the handles keep the descriptors it
// names open.
unsafe impl Operation for Splice {
    type Output = io::Result<usize>;

    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(|moved| moved as usize)
    }
}

impl Ring {
    /// Sends all parts, in order and in one piece, however slowly the peer
    /// reads; they come back whatever happens. Fewer octets than given were sent
    /// only where the connection failed in the midst.
    ///
    /// # Errors
    ///
    /// As `sendmsg(2)`; `EFAULT` where a part's memory is a file's that has become
    /// shorter. No signal is raised for a closed peer.
    pub fn send_parts(
        &self,
        socket: &Handle,
        parts: Vec<Part>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<Part>)> + Unpin + use<> {
        assert!(parts.len() <= PARTS, "no more parts than the kernel takes");
        let mut vectors: Vec<libc::iovec> = parts
            .iter()
            .map(|part| libc::iovec {
                iov_base: part.octets().as_ptr().cast_mut().cast(),
                iov_len: part.octets().len(),
            })
            .collect();
        // SAFETY: the structure is one of numbers and pointers, for which zeros
        // are valid.
        let mut header = unsafe { std::mem::zeroed::<libc::msghdr>() };
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len();
        let header = Lent::new(header);
        let flags = u32::try_from(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).expect("positive");
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), header.address())
            .flags(flags)
            .build();
        let operation = SendParts {
            parts,
            _vectors: vectors,
            _header: header,
            _socket: socket.clone(),
        };
        // SAFETY: the entry holds the address of the header, as `SendParts`
        // vouches for with all that the header points to.
        unsafe { self.start(operation, entry) }
    }

    /// Moves up to `most` octets of a file, from `offset` on, into a pipe; says how
    /// many, 0 at the file's end. With [`Ring::splice_to`] this is sendfile(2).
    ///
    /// A thread of the kernel does it, and waits with it for a pipe that is full.
    /// **Until it has ended nothing else may read from, write to or close the pipe**:
    /// a wait holds the pipe's lock, for which a system call of the shard would
    /// wait too. So a pipe is lent to one splice at a time and used for nothing
    /// else; this operation keeps its ends open. Dropped, it is cancelled, and
    /// octets may have moved.
    ///
    /// # Errors
    ///
    /// As `splice(2)`.
    pub fn splice_from(
        &self,
        file: &Handle,
        offset: u64,
        pipe: &Pipe,
        most: u32,
    ) -> impl Future<Output = io::Result<usize>> + use<> {
        let offset = i64::try_from(offset).expect("files are shorter");
        let (from, to) = (Fd(file.as_raw_fd()), Fd(pipe.write.as_raw_fd()));
        let entry = opcode::Splice::new(from, offset, to, WHERE_IT_STANDS, most).build();
        let operation = Splice {
            _pipe: pipe.clone(),
            _other: file.clone(),
        };
        // SAFETY: the entry holds no address.
        unsafe { self.start(operation, entry) }
    }

    /// Moves up to `most` octets from a pipe into a socket; says how many. As
    /// [`Ring::splice_from`], and the thread of the kernel waits for as long as the
    /// peer does not read: as many threads as such peers. So the caller bounds
    /// their number or gives none of them more than the socket takes.
    ///
    /// # Errors
    ///
    /// As `splice(2)`. A closed peer may raise `SIGPIPE`.
    pub fn splice_to(
        &self,
        pipe: &Pipe,
        socket: &Handle,
        most: u32,
    ) -> impl Future<Output = io::Result<usize>> + use<> {
        let (from, to) = (Fd(pipe.read.as_raw_fd()), Fd(socket.as_raw_fd()));
        let (offset, place) = (WHERE_IT_STANDS, WHERE_IT_STANDS);
        let entry = opcode::Splice::new(from, offset, to, place, most).build();
        let operation = Splice {
            _pipe: pipe.clone(),
            _other: socket.clone(),
        };
        // SAFETY: the entry holds no address.
        unsafe { self.start(operation, entry) }
    }
}
