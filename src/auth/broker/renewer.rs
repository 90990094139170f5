//! Makes new texts for weak stored passwords, one at a time.
//!
//! A thread of its own, which runs when no other wants the CPU, so that a site whose
//! users all have weak passwords feels nothing of their becoming strong. Its queue is
//! short and has no lock that the thread could hold while it is kept from the CPU; what
//! finds no room there waits for the user's next login.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use crossbeam::queue::ArrayQueue;

use crate::auth::lookups::Lookups;
use crate::auth::remote::Renewal;
use crate::auth::{NewScheme, Password};
use crate::{crew, limits};

/// The thread and its queue.
pub(super) struct Renewer {
    shared: Arc<Shared>,
    wake: Thread,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: ArrayQueue<Job>,
    stopping: AtomicBool,
}

struct Job {
    renewal: Box<Renewal>,
    password: Password,
    origin: u64,
}

impl Renewer {
    /// Starts the thread; what it makes is stored from the thread of the look-ups.
    pub(super) fn start(lookups: &Arc<Lookups>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(limits::RENEWALS),
            stopping: AtomicBool::new(false),
        });
        let (own, lookups) = (Arc::clone(&shared), Arc::clone(lookups));
        let thread = thread::Builder::new()
            .name("renewer".to_owned())
            .spawn(move || {
                crew::recede();
                own.run(&lookups);
            })?;
        Ok(Self {
            shared,
            wake: thread.thread().clone(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has a stored password replaced that this password was found right for. Never waits.
    pub(super) fn queue(&self, renewal: Box<Renewal>, password: Password, origin: u64) {
        // Its prepared form would be stored, which other programs may not know of.
        if password.prepared().is_some() {
            return;
        }
        let job = Job {
            renewal,
            password,
            origin,
        };
        match self.shared.queue.push(job) {
            Ok(()) => self.wake.unpark(),
            Err(job) => job.renewal.give_up(),
        }
    }

    /// Ends the thread; what waits is left to logins to come. A second call does nothing.
    pub(super) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.wake.unpark();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread had ended in a panic; please report it");
        }
    }
}

impl Shared {
    fn run(&self, lookups: &Lookups) {
        while !self.stopping.load(Ordering::SeqCst) {
            // An unpark between the two is kept.
            let Some(job) = self.queue.pop() else {
                thread::park();
                continue;
            };
            let fresh = NewScheme::Argon2id.store(&job.password);
            let store = |renewal: Box<Renewal>| async move { renewal.carry_out(&fresh).await };
            if let Err(renewal) = lookups.begin(job.origin, job.renewal, store) {
                renewal.give_up();
            }
        }
    }
}
