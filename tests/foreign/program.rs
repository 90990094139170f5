//! Running a program of others to its end.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use crate::site::{NOBODY, give_to_nobody};

/// Seconds that any one run may take; on a busy machine a tenth of it is usual.
const PATIENCE: &str = "120";

/// Where Debian puts programs.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts that the program ended well.
    #[track_caller]
    pub(crate) fn well(self) -> Self {
        self.with_code(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        let shown = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code, Some(code), "{}\n{shown}", self.stderr);
        self
    }

    /// Its standard output as lines of text.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<&str> {
        let text = std::str::from_utf8(&self.stdout).expect("text");
        text.lines().collect()
    }
}

/// Runs a program with its Debian package named for the case that it is absent.
///
/// Its environment is a plain one: programs of the system, no configuration of
/// the user, no locale. Some clients refuse to work for root, as they should, so
/// that root runs them as nobody, who is given `home` for that.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    package: &str,
    home: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Ended {
    run_within(PATIENCE, program, package, home, arguments)
}

/// The same for a program that may take so many seconds.
#[track_caller]
pub(crate) fn run_within<A: AsRef<OsStr>>(
    patience: &str,
    program: &str,
    package: &str,
    home: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Ended {
    let installed = PATH
        .split(':')
        .any(|folder| Path::new(folder).join(program).is_file());
    assert!(installed, "{program} is not installed (Debian: {package})");
    let mut command = Command::new("timeout");
    command.arg(patience);
    if rustix::process::geteuid().is_root() {
        give_to_nobody(home);
        let user = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
        command.arg("setpriv").args(user).arg("--clear-groups");
    }
    let output = command
        .arg(program)
        .args(arguments)
        .env("PATH", PATH)
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(home)
        .output()
        .expect("timeout (Debian: coreutils) is installed");
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    // How timeout(1) ends where it had to end the program.
    let code = status.code();
    assert_ne!(
        code,
        Some(124),
        "{program} took longer than {patience} s\n{stderr}"
    );
    Ended {
        code,
        stdout,
        stderr,
    }
}
