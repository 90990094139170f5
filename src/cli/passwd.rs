//! `popcore passwd`: a password as it is stored. It is asked for on the terminal, or
//! read from stdin, and never an argument, which every user of the machine could see.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::say;
use crate::auth::{NewScheme, Password, UserName};

#[derive(Debug, Args)]
pub(super) struct PasswdArguments {
    /// How it is stored
    #[arg(long, value_name = "SCHEME", default_value = "argon2id")]
    scheme: Scheme,
    /// Print a line of a passwd-file for this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheme {
    /// The dearest to guess; logs in by every way that sends the password
    Argon2id,
    /// Logs in by SCRAM-SHA-256 as well, which never sends it
    ScramSha256,
    /// The same for SCRAM-SHA-1, for clients that know no other
    ScramSha1,
}

pub(super) fn run(arguments: &PasswdArguments) -> ExitCode {
    match make(arguments) {
        Ok(line) => {
            say(&line);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("popcore: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn make(arguments: &PasswdArguments) -> Result<Zeroizing<String>, String> {
    let user = arguments.user.as_deref().map(checked).transpose()?;
    let password = ask()?;
    let scheme = match arguments.scheme {
        Scheme::Argon2id => NewScheme::Argon2id,
        Scheme::ScramSha256 => NewScheme::ScramSha256,
        Scheme::ScramSha1 => NewScheme::ScramSha1,
    };
    let stored = scheme.store(&password);
    Ok(Zeroizing::new(match user {
        Some(user) => format!("{user}:{}\n", *stored),
        None => format!("{}\n", *stored),
    }))
}

/// A name that can stand before a colon.
fn checked(user: &str) -> Result<&str, String> {
    let fault = match UserName::new(user.as_bytes()) {
        Ok(_) if user.contains(':') => "a colon ends the name in a passwd-file".to_owned(),
        Ok(_) if user.starts_with('#') => "a line that begins with # is a comment".to_owned(),
        Ok(_) => return Ok(user),
        Err(error) => error.to_string(),
    };
    Err(format!("{user:?}: {fault}; give another --user"))
}

fn ask() -> Result<Password, String> {
    let given = if io::stdin().is_terminal() {
        let given = prompt("Password: ")?;
        if *prompt("The same again: ")? != *given {
            return Err("the two are not the same; nothing was made".to_owned());
        }
        given
    } else {
        first_line()?
    };
    if given.is_empty() {
        return Err("the password is empty; give one on the terminal or on stdin".to_owned());
    }
    Password::new(given.as_bytes()).map_err(|error| format!("{error}; give a shorter one"))
}

fn prompt(text: &str) -> Result<Zeroizing<String>, String> {
    let read = rpassword::prompt_password(text);
    let unread = |error| format!("the password cannot be read from the terminal: {error}");
    read.map(Zeroizing::new).map_err(unread)
}

fn first_line() -> Result<Zeroizing<String>, String> {
    // Room for the longest, so that none is left behind by growing.
    let mut line = Zeroizing::new(String::with_capacity(4096));
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| format!("the password cannot be read from stdin: {error}"))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}
