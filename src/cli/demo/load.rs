//! The load generator beside the demo.
//!
//! `cargo run` builds one binary only, the one it runs: neither
//! `default-members` nor a workspace member makes it build another. So a demo
//! started by cargo asks the same cargo for the generator, which is done in a
//! moment if it is built already; an installed demo finds it beside itself.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};

use super::settings;

const NAME: &str = "popcore-loadgen";

/// Why there was no load.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The generator is not beside the demo.
    Absent(PathBuf),
    /// It could not be built.
    Build(ExitStatus),
    /// It, or the cargo that builds it, could not be started.
    Start(PathBuf, io::Error),
    /// It found errors.
    Failed(ExitStatus),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(
                f,
                "there is no load generator at {}; build both with `cargo build --release \
                 --workspace`",
                path.display()
            ),
            Self::Build(status) => write!(
                f,
                "the load generator was not built ({status}); see the compiler's messages above"
            ),
            Self::Start(path, error) => write!(
                f,
                "{} cannot be started: {error}; check that it may be executed",
                path.display()
            ),
            Self::Failed(status) => write!(
                f,
                "the load generator ended with errors ({status}); its table names them"
            ),
        }
    }
}

/// Where the load generator is, or how it is made.
#[derive(Debug)]
pub(super) struct Generator {
    program: PathBuf,
    /// The cargo that started the demo, if one did.
    cargo: Option<Cargo>,
}

#[derive(Debug)]
struct Cargo {
    program: OsString,
    manifest: PathBuf,
    /// The name of the folder below the target folder: `debug`, `release`, or
    /// a profile's name.
    profile: String,
}

impl Generator {
    /// Looks beside the running executable and for a cargo that started it.
    pub(super) fn find() -> io::Result<Self> {
        let own = env::current_exe()?;
        let folder = own.parent().unwrap_or(Path::new("/"));
        // Cargo sets both for the program it runs.
        let cargo = env::var_os("CARGO").zip(env::var_os("CARGO_MANIFEST_DIR"));
        Ok(Self::new(folder, cargo))
    }

    fn new(folder: &Path, cargo: Option<(OsString, OsString)>) -> Self {
        let profile = folder.file_name().unwrap_or_default();
        let profile = profile.to_string_lossy().into_owned();
        let cargo = cargo.map(|(program, manifest)| Cargo {
            program,
            manifest: PathBuf::from(manifest).join("Cargo.toml"),
            profile,
        });
        Self {
            program: folder.join(NAME),
            cargo,
        }
    }

    /// How a person calls it.
    pub(super) fn command_line(&self) -> String {
        match &self.cargo {
            Some(cargo) => {
                let mut words = vec!["cargo", "run"];
                words.extend(cargo.profile_flags());
                words.extend(["-p", NAME, "--"]);
                words.join(" ")
            }
            None if self.program.is_file() => self.program.display().to_string(),
            // Installed elsewhere, if at all.
            None => NAME.into(),
        }
    }

    /// Builds it if cargo is there to do so; otherwise it must be there.
    pub(super) fn ready(&self) -> Result<(), LoadError> {
        if let Some(cargo) = &self.cargo {
            return cargo.build();
        }
        if self.program.is_file() {
            Ok(())
        } else {
            Err(LoadError::Absent(self.program.clone()))
        }
    }

    /// Runs it against this process; its table goes to the demo's output.
    pub(super) fn run(&self, target: SocketAddr) -> Result<(), LoadError> {
        let status = Command::new(&self.program)
            .args(settings::load_arguments(target))
            .arg("--server-pid")
            .arg(process::id().to_string())
            .status()
            .map_err(|error| LoadError::Start(self.program.clone(), error))?;
        if status.success() {
            Ok(())
        } else {
            Err(LoadError::Failed(status))
        }
    }
}

impl Cargo {
    fn profile_flags(&self) -> Vec<&str> {
        // The folder of the profile `dev`, cargo's own choice, is not its name.
        match self.profile.as_str() {
            "debug" => Vec::new(),
            "release" => vec!["--release"],
            name => vec!["--profile", name],
        }
    }

    fn build(&self) -> Result<(), LoadError> {
        let status = Command::new(&self.program)
            .arg("build")
            .args(self.profile_flags())
            .args(["--package", NAME, "--manifest-path"])
            .arg(&self.manifest)
            .status()
            .map_err(|error| LoadError::Start(self.program.clone().into(), error))?;
        if status.success() {
            Ok(())
        } else {
            Err(LoadError::Build(status))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_demo_needs_the_generator_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let generator = Generator::new(folder.path(), None);
        let error = generator.ready().expect_err("absent").to_string();
        assert_eq!(generator.command_line(), NAME);
        assert!(
            error.contains("`cargo build --release --workspace`"),
            "{error}"
        );
        std::fs::write(folder.path().join(NAME), "").expect("written");
        assert!(generator.ready().is_ok());
        assert!(generator.command_line().ends_with("/popcore-loadgen"));
    }

    #[test]
    fn a_demo_run_by_cargo_builds_it_in_its_own_profile() {
        for (folder, expected) in [
            ("/t/release", "cargo run --release -p popcore-loadgen --"),
            ("/t/lto", "cargo run --profile lto -p popcore-loadgen --"),
            ("/t/debug", "cargo run -p popcore-loadgen --"),
        ] {
            let cargo = Some(("cargo".into(), "/src".into()));
            let generator = Generator::new(Path::new(folder), cargo);
            assert_eq!(generator.command_line(), expected);
        }
    }

    #[test]
    fn a_cargo_that_fails_is_reported() {
        let cargo = Some(("false".into(), "/nonexistent".into()));
        let generator = Generator::new(Path::new("/t/debug"), cargo);
        let error = generator.ready().expect_err("not built");
        assert!(matches!(error, LoadError::Build(_)), "{error}");
    }
}
