//! From a configuration to users and where their mail is, for commands that do what
//! the server does.

use std::collections::HashSet;

use crate::auth::{self, Account};
use crate::config::Config;
use crate::maildrop::{Location, OpenError, Template};

/// Where the mail of users is.
pub(super) struct Places {
    mail: Template,
    index: Option<Template>,
}

impl Places {
    pub(super) fn of(config: &Config) -> Result<Self, String> {
        let template = |text: &String| {
            Template::parse(text).map_err(|error| format!("popcore: maildrop: {error}"))
        };
        Ok(Self {
            mail: template(&config.maildrop.path)?,
            index: config.maildrop.index.as_ref().map(template).transpose()?,
        })
    }

    pub(super) fn find(&self, account: &Account) -> Result<Location, OpenError> {
        Location::of(account.clone(), &self.mail, self.index.as_ref())
    }
}

/// These users; everybody with a password, where none is named.
pub(super) fn accounts(config: &Config, users: &[String]) -> Result<Vec<Account>, String> {
    let all =
        auth::roster(&config.auth.directories).map_err(|error| format!("popcore: {error}"))?;
    if users.is_empty() {
        return Ok(all);
    }
    let mut wanted: HashSet<&[u8]> = users.iter().map(String::as_bytes).collect();
    let found = all
        .into_iter()
        .filter(|account| wanted.remove(account.user.as_bytes()))
        .collect();
    match wanted.into_iter().next() {
        None => Ok(found),
        Some(name) => Err(format!(
            "popcore: no directory has a user {} with a password",
            name.escape_ascii()
        )),
    }
}
