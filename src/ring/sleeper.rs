//! How the driver is woken: a read of the ring's eventfd on glommio's own ring.
//!
//! glommio has no way to wait for a descriptor, but it reads files through its
//! ring, and a read of an empty eventfd completes when somebody signals it
//! (`eventfd(2)`), which also resets it. The read stays in flight over many
//! turns; only a signal ends it, so a busy ring pays nothing for it.
//!
//! A task of its own awaits the read and nothing else. The driver must not: it
//! is woken by other tasks far more often than by the signal, each look at a read
//! in flight leaves one more waker with it, and glommio counts a task's wakers in
//! 16 bits and ends the process when they run over.
//!
//! The file does not own the descriptor: glommio closes one by its own ring, which
//! a shard that ends turns no more, and the descriptor would be left. So the file
//! is left instead, some octets for each ring that ends.
//!
//! Rejected: a socket type made from the descriptor, whose constructor polls
//! it; its receive fails by design, which no reader would expect. A poll of the
//! ring's own descriptor; glommio has nothing that would submit one.

use std::convert::Infallible;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};

use glommio::io::BufferedFile;

use super::Ring;

/// Octets of an eventfd's counter.
const COUNTER: usize = 8;

impl Ring {
    /// Passes every signal of the kernel on to the driver. Must run on the
    /// executor that the driver runs on.
    pub(super) async fn listen(self) -> io::Result<Infallible> {
        let number = self.shared.eventfd.as_raw_fd();
        // SAFETY: the ring, which this future holds, keeps the descriptor open,
        // and the file is never dropped, so that it does not close it.
        let eventfd = ManuallyDrop::new(unsafe { BufferedFile::from_raw_fd(number) });
        loop {
            eventfd.read_at(0, COUNTER).await?;
            self.shared.signalled.set(true);
            self.wake_driver();
        }
    }
}
