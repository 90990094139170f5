//! The thread that looks at the files of TLS.
//!
//! Keys are commonly readable for root alone, and the server has become another
//! user by the time one is renewed. Of root's rights this thread keeps a single
//! one, to read files (`CAP_DAC_READ_SEARCH`, capabilities(7)); where a container
//! does not have that one, the one to read and write them. It serves nobody and
//! reads nothing but the files that the configuration names. A process beside
//! the server that keeps root was rejected: it would be more, not less, to trust.
//!
//! It sleeps until the kernel tells of a change to the files (`folders`), the keys
//! of tickets or the day have come to their end, or [`limits::CERTIFICATE_ROUND`]
//! has passed, for what the kernel does not tell of: an idle server uses no CPU.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::SystemTime;

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::folders::Folders;
use super::keeper::Keeper;
use crate::limits;

/// The thread before it begins: privileges can be dropped now.
pub struct Watch {
    begin: Sender<()>,
}

impl Watch {
    /// Starts the thread, which waits for [`Watch::begin`]. It keeps the right to
    /// read where the process is about to become another user.
    ///
    /// # Errors
    ///
    /// As `pthread_create(3)`.
    pub fn start(keeper: Keeper, privileges_go: bool) -> io::Result<Watch> {
        let (begin, order) = channel();
        let (ready, is_ready) = channel();
        let run = move || {
            let kept = !privileges_go || rustix::thread::set_keep_capabilities(true).is_ok();
            // Whoever started this waits for it.
            let _ = ready.send(());
            watch(keeper, &order, privileges_go && kept);
        };
        thread::Builder::new()
            .name("certificates".into())
            .spawn(run)?;
        is_ready.recv().map_err(io::Error::other)?;
        Ok(Watch { begin })
    }

    /// Privileges are gone and the log is there.
    pub fn begin(self) {
        // The thread waits for it.
        let _ = self.begin.send(());
    }
}

fn watch(mut keeper: Keeper, order: &Receiver<()>, narrow: bool) {
    if order.recv().is_err() {
        // The server did not come to serve.
        return;
    }
    if narrow && let Err(error) = keep_reading() {
        tracing::warn!(
            "files of certificates and keys will be read with the rights of server.user: {error}; \
             let that user read them, or restart after a renewal"
        );
    }
    let mut folders = Folders::default();
    let mut told = None;
    loop {
        // In this order: what changes behind the look is told of.
        let deaf = folders.listen_to(&keeper.files()).err();
        let changing = keeper.look(SystemTime::now());
        // After whatever was heard, too: a busy folder costs a look a second.
        thread::sleep(limits::CERTIFICATE_LOOK);
        let deaf = deaf.map(|error| error.to_string());
        match &deaf {
            None if changing => {}
            None => {
                let rest = keeper.rest(SystemTime::now());
                folders.wait(rest.min(limits::CERTIFICATE_ROUND));
            }
            Some(fault) if deaf != told => tracing::warn!(
                "{fault}: of changes to files of certificates and keys nothing is told, and they \
                 are looked at every {:?}; let server.user read their folders, or raise \
                 fs.inotify.max_user_watches and max_user_instances",
                limits::CERTIFICATE_LOOK
            ),
            Some(_) => {}
        }
        told = deaf;
    }
}

/// Lets go of every capability of this thread but the one to read.
fn keep_reading() -> io::Result<()> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let wanted = [CapabilitySet::DAC_READ_SEARCH, CapabilitySet::DAC_OVERRIDE];
    let kept = wanted.into_iter().find(|right| permitted.contains(*right));
    let kept = kept.unwrap_or(CapabilitySet::empty());
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    if kept.is_empty() {
        return Err(io::Error::other(
            "CAP_DAC_READ_SEARCH is not there to be kept",
        ));
    }
    Ok(())
}
