//! SIGINT and SIGTERM: while sessions are played the first is a wish, and what was
//! measured is still told; the second ends the program there and then. So does the
//! first before there is anything to tell, where reading users or Maildirs or
//! asking for a name may take as long as it likes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

/// The shell's code for a program that a signal ended, less the signal's number.
const ENDED_BY: i32 = 128;

/// The operator's wish to end.
#[derive(Debug)]
pub struct Interrupt {
    wish: Arc<AtomicBool>,
    /// The next signal ends the program.
    forced: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes both signals from their default.
    pub fn install() -> io::Result<Self> {
        let wish = Arc::new(AtomicBool::new(false));
        let forced = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM] {
            // In the order of registration: whether it ends is asked before it is set.
            register_conditional_shutdown(signal, ENDED_BY + signal, Arc::clone(&forced))?;
            register(signal, Arc::clone(&forced))?;
            register(signal, Arc::clone(&wish))?;
        }
        Ok(Self { wish, forced })
    }

    /// A run begins: from now on there is something to tell. Once a signal came the
    /// next one ends the program all the same.
    pub fn defer(&self) {
        self.forced.store(false, Relaxed);
        if self.wished() {
            self.forced.store(true, Relaxed);
        }
    }

    /// Whether there was a signal.
    pub fn wished(&self) -> bool {
        self.wish.load(Relaxed)
    }
}
