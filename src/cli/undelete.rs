//! `popcore undelete`: what a user deleted of late, brought back with the unique-ids
//! it had. Exit code 1 where a message could not be.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::account::{Places, accounts};
use crate::config::{self, Config};
use crate::maildrop::{Maildrops, Undeleted, undelete};

#[derive(Debug, Args)]
pub(super) struct UndeleteArguments {
    /// The server's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What was deleted in this time until now, such as 2h or 3d
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Duration,
    /// Only say what there is
    #[arg(long)]
    list: bool,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
    /// Whose mail
    #[arg(value_name = "USER")]
    user: String,
}

fn time(text: &str) -> Result<Duration, String> {
    let said = || "write a number and its unit, such as 30m, 2h or 3d".to_owned();
    config::undelete_time(text).ok_or_else(said)
}

pub(super) fn run(arguments: &UndeleteArguments) -> ExitCode {
    match find(arguments) {
        Ok(found) => {
            say(arguments, &found);
            if found.iter().all(|message| message.fault.is_none()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn find(arguments: &UndeleteArguments) -> Result<Vec<Undeleted>, String> {
    let config = Config::load(&arguments.config).map_err(|errors| errors.to_string())?;
    let mut accounts = accounts(&config, std::slice::from_ref(&arguments.user))?;
    let account = accounts.pop().expect("one user was asked for");
    let fault = |error: &dyn std::fmt::Display| format!("popcore: {}: {error}", arguments.user);
    let at = Places::of(&config)?.find(&account);
    let at = at.map_err(|error| fault(&error))?;
    let maildrops = Maildrops::new(0)
        .with_sources(config.maildrop.uidl.clone())
        .with_rules(config.maildrop.rules);
    let since = SystemTime::now().checked_sub(arguments.since);
    let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
    undelete(&maildrops, &at, since, !arguments.list).map_err(|error| fault(&error))
}

fn say(arguments: &UndeleteArguments, found: &[Undeleted]) {
    let text = |octets: &[u8]| octets.escape_ascii().to_string();
    let seconds = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    };
    if arguments.json {
        let message = |message: &Undeleted| {
            json!({
                "file": text(&message.file), "deleted": seconds(message.deleted),
                "octets": message.octets, "uidl": message.uidl.as_deref().map(text),
                "restored": !arguments.list && message.fault.is_none(), "error": message.fault,
            })
        };
        let all: Vec<Value> = found.iter().map(message).collect();
        super::say(&format!("{}\n", Value::Array(all)));
        return;
    }
    let now = SystemTime::now();
    for message in found {
        let age = now.duration_since(message.deleted).unwrap_or_default();
        let octets = message.octets.map_or("?".to_owned(), |n| n.to_string());
        let uidl = message.uidl.as_deref().map_or("?".to_owned(), text);
        let fault = match &message.fault {
            Some(fault) => format!(": NOT BROUGHT BACK: {fault}"),
            None => String::new(),
        };
        super::say(&format!(
            "{} {octets} octets, unique-id {uidl}, deleted {} minutes ago{fault}\n",
            text(&message.file),
            age.as_secs() / 60
        ));
    }
    let brought = found.iter().filter(|message| message.fault.is_none());
    let what = if arguments.list {
        "deleted and kept"
    } else {
        "brought back"
    };
    super::say(&format!(
        "{}: {} messages {what}\n",
        arguments.user,
        brought.count()
    ));
}
