//! How the driver sleeps: a read of the ring's eventfd on glommio's own ring.
//!
//! glommio has no way to wait for a descriptor, but it reads files through its
//! ring, and a read of an empty eventfd completes when somebody signals it
//! (`eventfd(2)`), which also resets it. The read stays in flight over many
//! turns; only a signal ends it, so a busy ring pays nothing for it.
//!
//! Rejected: a socket type made from the descriptor, whose constructor polls
//! it; its receive fails by design, which no reader would expect. A poll of the
//! ring's own descriptor; glommio has nothing that would submit one.

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use glommio::io::BufferedFile;

/// Octets of an eventfd's counter.
const COUNTER: usize = 8;

type Signal = Pin<Box<dyn Future<Output = io::Result<()>>>>;

pub(super) struct Sleeper {
    eventfd: Rc<BufferedFile>,
    signal: Option<Signal>,
}

impl Sleeper {
    /// Must run on a glommio executor, whose ring the reads will use.
    pub(super) fn new(eventfd: &OwnedFd) -> io::Result<Sleeper> {
        let own = eventfd.try_clone()?.into_raw_fd();
        // SAFETY: `own` is a descriptor that nobody else has; the file closes it.
        let eventfd = unsafe { BufferedFile::from_raw_fd(own) };
        Ok(Sleeper {
            eventfd: Rc::new(eventfd),
            signal: None,
        })
    }

    /// Ready when the eventfd has been signalled since the last time.
    pub(super) fn poll_signalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let signal = self.signal.get_or_insert_with(|| {
            let eventfd = Rc::clone(&self.eventfd);
            Box::pin(async move {
                eventfd.read_at(0, COUNTER).await?;
                Ok(())
            })
        });
        let result = std::task::ready!(signal.as_mut().poll(context));
        self.signal = None;
        Poll::Ready(result)
    }
}
