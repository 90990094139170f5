//! Log lines between those who write them and the thread that puts them away.
//!
//! A shard copies its line into a shared buffer and goes on. The thread takes all
//! there is every [`COLLECT`] and writes it in one system call; while nobody logs
//! it sleeps. A full buffer drops the line and counts it: waiting instead would
//! let a full disk or a stopped reader of stderr stop the mail.
//!
//! A queue of lines that wakes its thread for each, as `tracing-appender` has it,
//! cost 6 of the 40 microseconds of CPU of a poll session: a wake-up, a context
//! switch and a write for one line. Here the lock is held for the copy of a line,
//! once a session, or for the exchange of two pointers.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::limits;

/// How long lines are collected before they are written: short enough for an
/// operator who looks on, long enough for hundreds of lines of a busy server.
const COLLECT: Duration = Duration::from_millis(50);

/// The buffer. `&Spool` is what lines are written to; each write is a line.
#[derive(Debug)]
pub(super) struct Spool {
    state: Mutex<State>,
    wake: Condvar,
    dropped: AtomicU64,
    bound: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// The thread sleeps until somebody wakes it.
    asleep: bool,
    ending: bool,
    /// Everything is written.
    ended: bool,
}

/// The thread. Dropping it has everything written, or waits for
/// [`limits::LOG_PATIENCE`]: a log that hangs does not keep the process.
#[derive(Debug)]
pub(super) struct Worker {
    spool: Arc<Spool>,
}

impl Spool {
    /// A spool whose lines a thread of its own writes to `sink`.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        bound: usize,
    ) -> io::Result<(Arc<Spool>, Worker)> {
        let spool = Arc::new(Spool {
            state: Mutex::default(),
            wake: Condvar::new(),
            dropped: AtomicU64::new(0),
            bound,
        });
        let own = Arc::clone(&spool);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || own.work(sink))?;
        let worker = Worker {
            spool: Arc::clone(&spool),
        };
        Ok((spool, worker))
    }

    /// Lines that found the buffer full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn work(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            let ending = self.collect(&mut batch);
            // Nobody is left to be told of a log that cannot be written.
            let _ = sink.write_all(&batch);
            let _ = sink.flush();
            batch.clear();
            batch.shrink_to(limits::LOG_KEPT);
            if ending {
                drop(sink);
                self.lock().ended = true;
                self.wake.notify_all();
                return;
            }
        }
    }

    /// Waits for lines and takes them; says whether they are the last.
    fn collect(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.lines.is_empty() && !state.ending {
            state.asleep = true;
            state = self.wait(state);
        }
        state.asleep = false;
        if !state.ending {
            let waited = self.wake.wait_timeout_while(state, COLLECT, |s| !s.ending);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.lines, batch);
        state.ending
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.wake.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Spool {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.lines.len() + line.len() > self.bound {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            state.lines.extend_from_slice(line);
        }
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.spool.lock();
        state.ending = true;
        self.spool.wake.notify_all();
        let wait = |state| {
            let patience = limits::LOG_PATIENCE;
            let wake = &self.spool.wake;
            wake.wait_timeout_while(state, patience, |state: &mut State| !state.ended)
        };
        drop(wait(state));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Sends what it is given, after it has been let through.
    struct Gate {
        written: mpsc::Sender<Vec<u8>>,
        pass: mpsc::Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            self.written.send(batch.to_vec()).expect("the test listens");
            // A test that is over lets everything pass.
            let _ = self.pass.recv();
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A spool, its thread, what the thread writes, and what lets it go on.
    type Gated = (
        Arc<Spool>,
        Worker,
        mpsc::Receiver<Vec<u8>>,
        mpsc::Sender<()>,
    );

    fn gated(bound: usize) -> Gated {
        let (written, batches) = mpsc::channel();
        let (pass, gate) = mpsc::channel();
        let sink = Gate {
            written,
            pass: gate,
        };
        let (spool, worker) = Spool::start(sink, bound).expect("a thread");
        (spool, worker, batches, pass)
    }

    #[test]
    fn lines_are_written_together_in_order_and_none_is_left() {
        let (spool, worker, batches, pass) = gated(1 << 20);
        drop(pass);
        let lines: Vec<String> = (0..1000).map(|n| format!("{n}\n")).collect();
        for line in &lines {
            (&*spool).write_all(line.as_bytes()).expect("taken");
        }
        drop(worker);
        let batches: Vec<Vec<u8>> = batches.iter().collect();
        let text = String::from_utf8(batches.concat()).expect("UTF-8");
        assert_eq!(text, lines.concat());
        assert!(batches.len() < 100, "{} writes", batches.len());
        assert_eq!(spool.dropped(), 0);
    }

    #[test]
    fn a_sink_that_hangs_costs_lines_and_holds_nobody_up() {
        let (spool, worker, batches, pass) = gated(100);
        (&*spool).write_all(b"first\n").expect("taken");
        assert_eq!(batches.recv().expect("written"), b"first\n");
        // The thread hangs in that write; 16 lines of 6 octets fit.
        for _ in 0..20 {
            (&*spool).write_all(b"again\n").expect("taken or dropped");
        }
        assert_eq!(spool.dropped(), 4);
        drop(pass);
        drop(worker);
        let written: usize = batches.iter().map(|b| b.len()).sum();
        assert_eq!(written, 16 * 6);
    }

    #[test]
    fn a_sink_that_hangs_for_good_does_not_keep_the_process() {
        let (spool, worker, batches, pass) = gated(100);
        (&*spool).write_all(b"first\n").expect("taken");
        assert_eq!(batches.recv().expect("written"), b"first\n");
        // Comes back although nobody lets the sink pass.
        drop(worker);
        drop(pass);
    }
}
