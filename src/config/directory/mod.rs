//! `[[auth.directory]]`: where users are looked up.
//!
//! Whether a server is there is not tried here: a configuration is right or wrong
//! whatever runs at the moment. `popcore check` asks them, and says what they said.

mod http;
mod ldap;
mod pam;
mod sql;

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::error::Cause;
use super::file::{Field, File, Place, Section, nearest};
use super::{DirectoryKind, DirectoryOptions, server};
use crate::auth::{Protocol, RemoteOptions, Secret, Trust};
use crate::limits;

/// The kinds of directory.
const KINDS: [&str; 6] = ["passwd-file", "static", "sql", "ldap", "http", "pam"];

/// How long a login waits for a directory where nothing else is said: a server that is
/// well answers in milliseconds, and clients wait for half a minute.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to a directory where nothing else is said.
const CONNECTIONS: u32 = 8;

/// Where relative paths begin, and who this node is.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) base: &'a Path,
    pub(super) hostname: &'a str,
}

pub(super) fn directory(mut section: Section<'_>, site: Site<'_>) -> Option<DirectoryOptions> {
    let file = section.file();
    let Some(field) = section.take::<String>("kind") else {
        if !section.was_given("kind") {
            let remedy = format!("set it to \"{}\"", KINDS.join("\" or \""));
            file.reject(&section.absent("kind"), "is missing", remedy);
        }
        return None;
    };
    let kind = match field.value.as_str() {
        "passwd-file" => passwd_file(&mut section, site.base),
        "static" => fixed(&mut section),
        "sql" => away(&mut section, site, sql::sql),
        "ldap" => away(&mut section, site, ldap::ldap),
        "http" => away(&mut section, site, http::http),
        "pam" => away(&mut section, site, pam::pam),
        _ => {
            // Its other keys belong to another kind, so that naming them as well would
            // only hide the cause.
            reject_kind(file, &field);
            return None;
        }
    };
    section.finish();
    kind.map(|kind| DirectoryOptions { kind })
}

fn reject_kind(file: &File<'_>, field: &Field<String>) {
    let kind = &field.value;
    let known = format!("use \"{}\"", KINDS.join("\" or \""));
    let remedy = match nearest(kind, &KINDS) {
        Some(name) => format!("did you mean {name:?}?"),
        None => known,
    };
    let problem = format!("{kind:?} is not a kind of directory");
    file.reject(&field.place, problem, remedy);
}

fn passwd_file(section: &mut Section<'_>, base: &Path) -> Option<DirectoryKind> {
    let remedy = "set it to the path of a file of user:password lines";
    let (text, place) = required(section, "path", remedy)?.split();
    let path = base.join(text);
    // A FIFO would have the open wait for its writer.
    let facts = fs::metadata(&path).and_then(|facts| {
        if facts.is_file() {
            fs::File::open(&path)?;
        }
        Ok(facts)
    });
    let remedy = "correct the path, or let the user who starts popcore read the file";
    let file = section.file();
    let may_be_used = match facts {
        Ok(facts) if facts.is_file() => true,
        Ok(_) => {
            let problem = format!("{} is not a file", path.display());
            file.reject(&place, problem, remedy);
            false
        }
        Err(error) => file.unreadable(&place, &path, &error, remedy) == Cause::Refused,
    };
    may_be_used.then_some(DirectoryKind::PasswdFile { path })
}

/// `kind = "static"`: users in the configuration itself.
fn fixed(section: &mut Section<'_>) -> Option<DirectoryKind> {
    let remedy = "set it to lines such as [\"alice:{PLAIN}secret\"]";
    let Some(field) = section.take::<Vec<String>>("users") else {
        if !section.was_given("users") {
            let place = section.absent("users");
            section.file().reject(&place, "is missing", remedy);
        }
        return None;
    };
    let whole = |line: &String| !line.contains(['\n', '\r']);
    if field.value.iter().all(whole) {
        let users = Secret::new(field.value.join("\n"));
        return Some(DirectoryKind::Static { users });
    }
    let problem = "holds a user of several lines";
    section.file().reject(&field.place, problem, remedy);
    None
}

/// What is the same for all directories that are away.
fn away(
    section: &mut Section<'_>,
    site: Site<'_>,
    protocol: impl FnOnce(&mut Section<'_>, Site<'_>) -> Option<Protocol>,
) -> Option<DirectoryKind> {
    let timeout = timeout(section);
    let protocol = protocol(section, site);
    let options = RemoteOptions {
        label: section.name().into(),
        timeout: timeout?,
        node: site.hostname.into(),
        protocol: protocol?,
    };
    Some(DirectoryKind::Away(Box::new(options)))
}

pub(super) fn timeout(section: &mut Section<'_>) -> Option<Duration> {
    let place = section.place("timeout");
    let timeout = server::period(section, "timeout", TIMEOUT)?;
    let least = Duration::from_millis(100);
    if (least..=limits::LONGEST_LOOKUP).contains(&timeout) {
        return Some(timeout);
    }
    let problem = "is not between 100ms and 1m";
    section.file().reject(
        &place,
        problem,
        "set it to \"5s\", for example, or remove it",
    );
    None
}

fn connections(section: &mut Section<'_>) -> Option<u32> {
    let Some(field) = section.take::<u64>("connections") else {
        return (!section.was_given("connections")).then_some(CONNECTIONS);
    };
    let most = limits::DIRECTORY_CONNECTIONS;
    let number = u32::try_from(field.value).ok();
    let number = number.filter(|number| (1..=most).contains(number));
    if number.is_none() {
        let problem = format!("is not between 1 and {most}");
        let remedy = format!("set it to {CONNECTIONS}, for example, or remove it");
        section.file().reject(&field.place, problem, remedy);
    }
    number
}

/// Whose certificates are believed: those of the file that `ca` names, or those that the
/// system believes.
pub(super) fn trust(section: &mut Section<'_>, base: &Path) -> Result<Trust, Rejected> {
    let Some(field) = section.take::<String>("ca") else {
        let wrong = section.was_given("ca");
        return if wrong {
            Err(Rejected)
        } else {
            Ok(Trust::SYSTEM)
        };
    };
    let (text, place) = field.split();
    let path = base.join(text);
    if let Err(error) = fs::File::open(&path) {
        let remedy = "correct the path, or let the user who starts popcore read the file";
        section.file().unreadable(&place, &path, &error, remedy);
        return Err(Rejected);
    }
    Trust::read(&path).map_err(|error| {
        let problem = format!("{}: {error}", path.display());
        let remedy = "put the PEM text of the authority's certificate there";
        section.file().reject(&place, problem, remedy);
        Rejected
    })
}

/// The one line of a file that holds a secret.
pub(super) fn secret_line(
    section: &Section<'_>,
    field: Field<String>,
    base: &Path,
    what: &str,
) -> Result<Secret, Rejected> {
    let (text, place) = field.split();
    let path = base.join(text);
    let remedy = format!("put {what}, and nothing else, into a file that root may read");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let secret = text.strip_suffix('\n').unwrap_or(&text);
            let secret = secret.strip_suffix('\r').unwrap_or(secret);
            if !secret.is_empty() && !secret.contains(char::is_control) {
                return Ok(Secret::new(secret.to_owned()));
            }
            let problem = format!("{} does not hold one line", path.display());
            section.file().reject(&place, problem, remedy);
        }
        Err(error) => {
            section.file().unreadable(&place, &path, &error, remedy);
        }
    }
    Err(Rejected)
}

/// A value that was there and has been reported as wrong.
pub(super) struct Rejected;

/// The secret in the file that `password_file` names, without its line end; nothing where
/// there is no such key.
fn password(section: &mut Section<'_>, base: &Path) -> Result<Option<Secret>, Rejected> {
    let Some(field) = section.take::<String>("password_file") else {
        let wrong = section.was_given("password_file");
        return if wrong { Err(Rejected) } else { Ok(None) };
    };
    secret_line(section, field, base, "the password").map(Some)
}

pub(super) fn required(
    section: &mut Section<'_>,
    name: &'static str,
    remedy: &str,
) -> Option<Field<String>> {
    let field = section.take::<String>(name);
    if field.is_none() && !section.was_given(name) {
        let place = section.absent(name);
        section.file().reject(&place, "is missing", remedy);
    }
    field
}

/// Notes an error whose text is cause and remedy.
pub(super) fn reject(file: &File<'_>, place: &Place, error: &impl std::fmt::Display) {
    let text = error.to_string();
    let (problem, remedy) = text.split_once("; ").unwrap_or((&text, "correct it"));
    file.reject(place, problem, remedy);
}

#[cfg(test)]
mod tests;
