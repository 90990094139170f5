//! Whether the kernel holds its clock for right. It is no operation of a ring; it is here
//! because no crate at hand wraps the call, and calls by hand are this module's.

use std::io;
use std::time::Duration;

/// What the kernel thinks of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// Something keeps it: it is no further off than that.
    Kept {
        /// The kernel's own bound, which grows until the clock is next compared.
        within: Duration,
    },
    /// Nothing has told the kernel for long that it is right, or ever.
    Unkept,
}

/// Asks the kernel (`adjtimex(2)`), and changes nothing. Anyone may ask.
///
/// # Errors
///
/// The call is refused, by a seccomp profile.
pub fn clock_state() -> io::Result<ClockState> {
    // SAFETY: a C structure of numbers, for which zeroes are values.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with no mode set the call only writes to the structure, which outlives it.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    if clock.status & libc::STA_UNSYNC != 0 {
        return Ok(ClockState::Unkept);
    }
    let within = u64::try_from(clock.maxerror).unwrap_or(u64::MAX);
    Ok(ClockState::Kept {
        within: Duration::from_micros(within),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_it_thinks_of_its_clock() {
        match clock_state().expect("anyone may ask") {
            // The kernel gives a clock up at 16 s (`NTP_PHASE_LIMIT`).
            ClockState::Kept { within } => assert!(within <= Duration::from_secs(16)),
            ClockState::Unkept => {}
        }
    }
}
