//! Asking a directory once, for tools that tell an operator whether it answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use super::credentials::Ask;
use super::directory::Failure;
use super::passwd_file::PasswdFile;
use super::remote::{Question, Remote};
use super::{
    DirectoryError, DirectoryKind, DirectoryOptions, Identity, LoadReport, Password, UserName,
};

/// A name that is nobody's, and a password that it does not have.
const NOBODY: &str = "popcore-check";

/// How a directory answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it said.
    pub found: Found,
    /// How long that took.
    pub took: Duration,
}

/// What a directory said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It was read.
    Users(LoadReport),
    /// It was asked about a name that is nobody's, and answered.
    Answer,
}

/// Asks a directory whether it is there: reads a file, asks a server about a name that
/// is nobody's. BLOCKING, for at most the directory's time-out.
pub fn probe(directory: &DirectoryOptions) -> Result<Probe, DirectoryError> {
    let began = Instant::now();
    let found = match &directory.kind {
        DirectoryKind::PasswdFile { path } => Found::Users(PasswdFile::open(path)?.1),
        DirectoryKind::Static { users } => Found::Users(PasswdFile::of_lines(users, "static").1),
        DirectoryKind::Away(options) => {
            let unstarted = |error: std::io::Error| DirectoryError::Failed {
                directory: options.label.clone(),
                failure: Failure::Refused(error.to_string()),
            };
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(unstarted)?;
            let user = UserName::new(NOBODY.as_bytes()).expect("a name");
            let password = Password::new(NOBODY.as_bytes()).expect("short");
            let ask = Ask::Password(password);
            let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let question = Question::of(Identity::own(user), ask, from, 0);
            runtime.block_on(async { Arc::new(Remote::new(options)).ask(&question).await })?;
            Found::Answer
        }
    };
    let took = began.elapsed();
    Ok(Probe { found, took })
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Found::Users(report) => {
                let LoadReport { users, locked, .. } = report;
                write!(f, "{users} users, {locked} locked")
            }
            Found::Answer => write!(f, "it answers, in {} ms", self.took.as_millis()),
        }
    }
}
