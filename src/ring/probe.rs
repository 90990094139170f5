//! Whether this kernel and this process can have the ring that shards need.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

/// The oldest kernel with every operation and flag that the ring uses.
pub const KERNEL: (u32, u32) = (6, 1);

/// Operations the ring submits, with the names operators find in manuals.
const OPERATIONS: [(u8, &str); 17] = [
    (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
    (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::OpenAt2::CODE, "IORING_OP_OPENAT2"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::Write::CODE, "IORING_OP_WRITE"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
    (opcode::Madvise::CODE, "IORING_OP_MADVISE"),
    (opcode::Statx::CODE, "IORING_OP_STATX"),
    (opcode::UnlinkAt::CODE, "IORING_OP_UNLINKAT"),
    (opcode::RenameAt::CODE, "IORING_OP_RENAMEAT"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::Splice::CODE, "IORING_OP_SPLICE"),
    (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
];

/// Why there can be no ring here. Its text names the cause and the remedy.
#[derive(Debug)]
pub enum RingError {
    /// One of the three system calls is refused: by `kernel.io_uring_disabled`, by a
    /// seccomp profile, or by a security module.
    Forbidden(io::Error),
    /// The kernel has no `io_uring` at all.
    Missing,
    /// The locked-memory limit is too small for the rings; or there is no memory, which
    /// `io_uring_setup(2)` tells by the same `ENOMEM`.
    LockedMemory,
    /// No descriptor is left for the ring.
    Descriptors(io::Error),
    /// The kernel is older than the floor, or lacks operations or a flag.
    Kernel {
        /// `uname -r`.
        found: String,
        /// What it does not have, as manuals name it; empty where it is only old.
        missing: Vec<&'static str>,
    },
    /// Anything else that the system calls said.
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
                 LimitMEMLOCK= in the unit) to at least 512 KiB a shard; where it is not, the \
                 machine or the control group has no memory left"
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

impl RingError {
    /// What kept a shard from its start, where it was the limits that glommio's
    /// rings and buffers meet: it takes 512 KiB of locked memory for granted and
    /// says so in its own words, and the probe's small ring meets no limit.
    ///
    /// # Errors
    ///
    /// Gives back what is something else.
    pub fn of_start(error: io::Error) -> Result<RingError, io::Error> {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => Ok(RingError::LockedMemory),
            Some(libc::EMFILE | libc::ENFILE) => Ok(RingError::Descriptors(error)),
            None if error.to_string().contains("MemLockLimit") => Ok(RingError::LockedMemory),
            _ => Err(error),
        }
    }
}

/// Tries a ring with the flags that shards use, with all three of the system calls,
/// and asks for every operation.
///
/// # Errors
///
/// The first cause found, in words for the operator.
pub fn probe() -> Result<(), RingError> {
    let all = with_flags(FLAGS.len()).build(8);
    let mut uring = all.map_err(|error| classify(error, missing_flag(is_taken)))?;
    let mut probe = Probe::new();
    let registered = uring.submitter().register_probe(&mut probe);
    registered.map_err(|error| classify(error, None))?;
    // SAFETY: an operation that does nothing has no memory.
    let queued = unsafe { uring.submission().push(&opcode::Nop::new().build()) };
    queued.expect("room for eight");
    let entered = uring.submit_and_wait(1);
    entered.map_err(|error| classify(error, None))?;
    judge(release(), |code| probe.is_supported(code))
}

/// What shards ask of `io_uring_setup(2)`, each of no use without those before.
const FLAGS: [&str; 4] = [
    "IORING_SETUP_SUBMIT_ALL",
    "IORING_SETUP_SINGLE_ISSUER",
    "IORING_SETUP_DEFER_TASKRUN",
    "IORING_SETUP_TASKRUN_FLAG",
];

/// A ring's maker with the first so many of the [`FLAGS`].
fn with_flags(count: usize) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    let set: [fn(&mut io_uring::Builder) -> &mut io_uring::Builder; FLAGS.len()] = [
        io_uring::Builder::setup_submit_all,
        io_uring::Builder::setup_single_issuer,
        io_uring::Builder::setup_defer_taskrun,
        io_uring::Builder::setup_taskrun_flag,
    ];
    for set in &set[..count] {
        set(&mut builder);
    }
    builder
}

fn is_taken(flags: usize) -> bool {
    with_flags(flags).build(8).is_ok()
}

/// The first flag that the kernel does not take with those before it.
fn missing_flag(is_taken: impl Fn(usize) -> bool) -> Option<&'static str> {
    let first = (1..=FLAGS.len()).find(|count| !is_taken(*count))?;
    Some(FLAGS[first - 1])
}

/// Whether a kernel of this release with these operations will do.
fn judge(found: String, is_supported: impl Fn(u8) -> bool) -> Result<(), RingError> {
    let missing: Vec<&'static str> = OPERATIONS
        .iter()
        .filter(|(code, _)| !is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() && is_new_enough(&found) {
        Ok(())
    } else {
        Err(RingError::Kernel { found, missing })
    }
}

fn classify(error: io::Error, missing: Option<&'static str>) -> RingError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RingError::Forbidden(error),
        Some(libc::ENOSYS) => RingError::Missing,
        Some(libc::ENOMEM) => RingError::LockedMemory,
        Some(libc::EMFILE | libc::ENFILE) => RingError::Descriptors(error),
        Some(libc::EINVAL) => RingError::Kernel {
            found: release(),
            missing: missing.into_iter().collect(),
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
pub fn is_new_enough(release: &str) -> bool {
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
    fn what_is_missing_is_named_with_the_kernel_found_and_the_one_wanted() {
        let lacks = [opcode::Splice::CODE, opcode::RenameAt::CODE];
        let error = judge("6.6.1-cut".to_owned(), |code| !lacks.contains(&code));
        let text = error.expect_err("two are missing").to_string();
        assert!(text.contains("kernel 6.6.1-cut"), "{text}");
        assert!(text.contains("Linux 6.1 or newer"), "{text}");
        let missing = "(missing: IORING_OP_RENAMEAT, IORING_OP_SPLICE)";
        assert!(text.ends_with(missing), "{text}");
        let old = judge("5.19.17".to_owned(), |_| true).expect_err("too old");
        let text = old.to_string();
        assert!(text.contains("5.19.17") && text.contains("6.1"), "{text}");
        assert!(!text.contains("missing"), "{text}");
        judge("6.1.0".to_owned(), |_| true).expect("all there");
    }

    /// An operation that is used and not asked for would fail under a client.
    #[test]
    fn every_operation_that_the_ring_uses_is_asked_for() {
        let own = include_str!("probe.rs");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ring");
        let mut used = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if !path.is_file() || path.ends_with("probe.rs") || path.ends_with("tests.rs") {
                continue;
            }
            let source = std::fs::read_to_string(path).expect("UTF-8");
            for (at, _) in source.match_indices("opcode::") {
                let name = source[at..].split_once("::new(").expect("a call").0;
                used.insert(name.to_owned());
            }
        }
        for name in &used {
            assert!(own.contains(&format!("({name}::CODE,")), "{name}");
        }
        assert_eq!(used.len(), OPERATIONS.len(), "asked for and not used");
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let text = |code| classify(io::Error::from_raw_os_error(code), None).to_string();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(text(libc::ENOSYS).contains("seccomp"));
        assert!(text(libc::ENOMEM).contains("LimitMEMLOCK"));
        assert!(text(libc::EMFILE).contains("LimitNOFILE"));
        assert!(text(libc::EINVAL).contains("6.1"));
    }

    #[test]
    fn a_flag_that_is_not_taken_is_named() {
        assert_eq!(missing_flag(is_taken), None, "this kernel has them all");
        let name = missing_flag(|flags| flags < 3);
        let error = classify(io::Error::from_raw_os_error(libc::EINVAL), name);
        let text = error.to_string();
        assert!(
            text.ends_with("(missing: IORING_SETUP_DEFER_TASKRUN)"),
            "{text}"
        );
    }
}
