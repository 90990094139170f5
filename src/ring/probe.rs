//! Whether this kernel and this process can have the ring that shards need.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

/// The oldest kernel with every operation and flag that the ring uses.
const KERNEL: (u32, u32) = (6, 1);

/// Operations the ring submits, with the names operators find in manuals.
const OPERATIONS: [(u8, &str); 8] = [
    (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
    (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::OpenAt2::CODE, "IORING_OP_OPENAT2"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::Nop::CODE, "IORING_OP_NOP"),
];

/// Why there can be no ring here. Its text names the cause and the remedy.
#[derive(Debug)]
pub enum RingError {
    /// `io_uring_setup(2)` is refused: by `kernel.io_uring_disabled`, by a
    /// seccomp profile, or by a security module.
    Forbidden(io::Error),
    /// The kernel has no `io_uring` at all.
    Missing,
    /// The locked-memory limit is too small for the rings.
    LockedMemory,
    /// No descriptor is left for the ring.
    Descriptors(io::Error),
    /// The kernel is older than the floor, or lacks operations.
    Kernel {
        /// `uname -r`.
        found: String,
        /// Operations it does not have; empty where only a flag is missing.
        missing: Vec<&'static str>,
    },
    /// Anything else that `io_uring_setup(2)` said.
    Other(io::Error),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Forbidden(error) => write!(
                f,
                "io_uring is forbidden to this process ({error}): set sysctl \
                 kernel.io_uring_disabled=0, or allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile"
            ),
            RingError::Missing => write!(
                f,
                "this kernel has no io_uring, or a seccomp profile hides it: run Linux {}.{} or \
                 newer, or allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 container's seccomp profile",
                KERNEL.0, KERNEL.1
            ),
            RingError::LockedMemory => write!(
                f,
                "the locked-memory limit is too small for io_uring: raise it (ulimit -l, or \
                 LimitMEMLOCK= in the unit) to at least 512 KiB a shard"
            ),
            RingError::Descriptors(error) => write!(
                f,
                "no descriptor is left for io_uring ({error}): raise the limit of open files \
                 (ulimit -n, or LimitNOFILE= in the unit)"
            ),
            RingError::Kernel { found, missing } => {
                write!(
                    f,
                    "kernel {found} lacks what the shards' io_uring needs; Linux {}.{} or newer \
                     is wanted",
                    KERNEL.0, KERNEL.1
                )?;
                if missing.is_empty() {
                    Ok(())
                } else {
                    write!(f, " (missing: {})", missing.join(", "))
                }
            }
            RingError::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for RingError {}

/// Tries a ring with the flags that shards use and asks for every operation.
///
/// # Errors
///
/// The first cause found, in words for the operator.
pub fn probe() -> Result<(), RingError> {
    let uring = IoUring::<io_uring::squeue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(8)
        .map_err(classify)?;
    let mut probe = Probe::new();
    uring
        .submitter()
        .register_probe(&mut probe)
        .map_err(RingError::Other)?;
    let missing: Vec<&'static str> = OPERATIONS
        .iter()
        .filter(|(code, _)| !probe.is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    let found = release();
    if missing.is_empty() && is_new_enough(&found) {
        Ok(())
    } else {
        Err(RingError::Kernel { found, missing })
    }
}

fn classify(error: io::Error) -> RingError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RingError::Forbidden(error),
        Some(libc::ENOSYS) => RingError::Missing,
        Some(libc::ENOMEM) => RingError::LockedMemory,
        Some(libc::EMFILE | libc::ENFILE) => RingError::Descriptors(error),
        Some(libc::EINVAL) => RingError::Kernel {
            found: release(),
            missing: Vec::new(),
        },
        _ => RingError::Other(error),
    }
}

fn release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// Whether a release such as `6.1.0-28-amd64` is at least the floor. One that
/// cannot be read is taken as new: the operations have been asked for.
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= KERNEL,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_read_from_a_release() {
        assert!(is_new_enough("6.1.0-28-amd64"));
        assert!(is_new_enough("6.18.44"));
        assert!(is_new_enough("7.0"));
        assert!(!is_new_enough("6.0.12"));
        assert!(!is_new_enough("5.15.0-100-generic"));
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let text = |code| classify(io::Error::from_raw_os_error(code)).to_string();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(text(libc::ENOSYS).contains("seccomp"));
        assert!(text(libc::ENOMEM).contains("LimitMEMLOCK"));
        assert!(text(libc::EMFILE).contains("LimitNOFILE"));
        assert!(text(libc::EINVAL).contains("6.1"));
    }
}
