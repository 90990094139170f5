//! `popcore demo`: a server with made-up mail on loopback, and what to type.
//!
//! It is the server itself with a configuration file like any other; what is
//! special is only that the file and everything it names are made first.

mod folder;
mod load;
mod messages;
mod settings;

use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use clap::Args;
use rustix::process::{Signal, getpid, kill_process};

use super::say;
use crate::config::{Config, TlsMode};
use crate::server::{self, Ready};
use folder::{LOAD_USERS, Prepared};
use load::{Generator, LoadError};
use settings::{LogTo, Ports, Running};

/// The demo's options.
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Where users, mail and certificate are made, or are from an earlier run
    #[arg(long, value_name = "DIR", default_value = "popcore-demo")]
    folder: PathBuf,
    /// Run the load generator for ten seconds, print its table and end
    #[arg(long)]
    load: bool,
    /// Port for POP3 with STLS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 1110)]
    pop3_port: u16,
    /// Port for POP3 over TLS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 1995)]
    pop3s_port: u16,
    /// Port for metrics and health; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9110)]
    admin_port: u16,
}

pub(super) fn run(arguments: &DemoArguments) -> ExitCode {
    match demo(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("popcore demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What fails is told as it tells itself: each error names its remedy.
fn demo(arguments: &DemoArguments) -> Result<(), String> {
    let generator = Generator::find().map_err(|error| {
        format!("its own executable cannot be found: {error}; mount /proc and try again")
    })?;
    // Before the folder: a build that fails should not take a server with it.
    if arguments.load {
        generator.ready().map_err(|error| error.to_string())?;
    }
    let folder = std::path::absolute(&arguments.folder)
        .map_err(|error| format!("{}: {error}; name a folder", arguments.folder.display()))?;
    let config = prepare(arguments, &folder, LOAD_USERS)?;
    let (load, mut load_thread) = (arguments.load, None);
    let ready = |ready: &Ready| {
        let running = Running {
            folder: &folder,
            listeners: &ready.listeners,
            admin: ready.admin,
            loadgen: &generator.command_line(),
        };
        say(&format!("\n{}\n", running.instructions()));
        if load && let Some(target) = running.first(TlsMode::Starttls) {
            load_thread = Some(start_load(generator, target));
        }
    };
    server::run(&config, ready).map_err(|error| error.to_string())?;
    match load_thread {
        None => Ok(()),
        Some(thread) => {
            let outcome = thread.join().expect("the load thread does not panic");
            outcome.map_err(|error| error.to_string())
        }
    }
}

/// Makes or finds the folder, writes its settings and reads them back.
fn prepare(arguments: &DemoArguments, folder: &Path, load_users: u64) -> Result<Config, String> {
    match folder::prepare(folder, load_users).map_err(|error| error.to_string())? {
        Prepared::Made => say(&format!("made users and mail in {}\n", folder.display())),
        Prepared::Reused => say(&format!("users and mail are in {}\n", folder.display())),
    }
    let ports = Ports {
        pop3: arguments.pop3_port,
        pop3s: arguments.pop3s_port,
        admin: arguments.admin_port,
    };
    // Containers often have no IPv6, not even on loopback.
    let ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let log = if arguments.load {
        LogTo::File
    } else {
        LogTo::Terminal
    };
    let path = folder.join("popcore.toml");
    let text = settings::configuration(ports, ipv6, log);
    folder::write(&path, text.as_bytes()).map_err(|error| error.to_string())?;
    Config::load(&path).map_err(|errors| errors.to_string())
}

/// Runs the load generator and then stops the server the way an operator does.
fn start_load(
    generator: Generator,
    target: std::net::SocketAddr,
) -> JoinHandle<Result<(), LoadError>> {
    thread::spawn(move || {
        let outcome = generator.run(target);
        if let Err(error) = kill_process(getpid(), Signal::TERM) {
            eprintln!("popcore demo: cannot end itself: {error}; press Ctrl-C");
        }
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_a_valid_configuration() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("demo");
        let arguments = DemoArguments {
            folder: folder.clone(),
            load: false,
            pop3_port: 0,
            pop3s_port: 0,
            admin_port: 0,
        };
        let config = prepare(&arguments, &folder, 1).expect("valid");
        assert!(config.auth.plaintext_without_tls);
        assert!(
            config
                .listeners
                .iter()
                .all(|l| l.address.ip().is_loopback())
        );
        let modes: Vec<_> = config.listeners.iter().map(|l| l.tls).collect();
        assert!(modes.contains(&TlsMode::Starttls) && modes.contains(&TlsMode::Implicit));
        assert_eq!(config.tls.certificates.len(), 1);
        assert_eq!(
            config.maildrop.path,
            format!("{}/mail/{{user}}", folder.display())
        );
        assert!(config.admin.is_some());
    }
}
