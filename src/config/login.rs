//! Keys of `[auth]` that say how clients log in.

use std::fs;
use std::path::Path;

use super::file::{Field, Place, Section, nearest};
use super::{DirectoryKind, DirectoryOptions};
use crate::auth::{MasterForm, NameRules, Protocol, Secret};
use crate::limits;
use crate::sasl::{Mechanism, Mechanisms};

/// What is offered where nothing is said: what works with every stored password.
/// Others are named by the operator, who knows what is stored.
const USUAL: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// `auth.mechanisms`
pub(super) fn mechanisms(section: &mut Section<'_>) -> Option<Mechanisms> {
    let Some(field) = section.take::<Vec<String>>("mechanisms") else {
        return Some(USUAL.into_iter().collect());
    };
    let file = section.file();
    let mut all_known = true;
    let mut read = |name: &String| {
        let mechanism = Mechanism::named(name.as_bytes());
        if mechanism.is_none() {
            all_known = false;
            let names = Mechanism::ALL.map(Mechanism::name);
            let remedy = match nearest(&name.to_ascii_uppercase(), &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("there are {}", names.join(", ")),
            };
            let problem = format!("{name:?} is not a mechanism of SASL");
            file.reject(&field.place, problem, remedy);
        }
        mechanism
    };
    let mut named: Vec<Mechanism> = field.value.iter().filter_map(&mut read).collect();
    // The same users log in by the same keys, and better.
    if named.contains(&Mechanism::ScramSha256) {
        named.push(Mechanism::ScramSha256Plus);
    }
    all_known.then(|| named.into_iter().collect())
}

/// Turns down APOP where no directory tells a password that it could be compared with.
pub(super) fn apop_usable(section: &Section<'_>, place: &Place, directories: &[&DirectoryOptions]) {
    let tells = |directory: &&DirectoryOptions| directory.kind.tells_stored();
    if !directories.iter().any(tells) {
        let problem = "is true, and no directory tells what password is stored";
        let remedy = "remove it, or add a directory that tells passwords in clear: a \
                      passwd-file, SQL, LDAP with verify = \"stored\", or HTTP with form = \"json\"";
        section.file().reject(place, problem, remedy);
    }
}

/// Turns down mechanisms by which no user of any directory could log in.
pub(super) fn usable(
    section: &Section<'_>,
    place: &Place,
    mechanisms: Mechanisms,
    directories: &[&DirectoryOptions],
) {
    let reject = |name: &str, why: &str| {
        let problem = format!("names {name}, and no directory {why}");
        let remedy = "remove it, or add a directory that does";
        section.file().reject(place, problem, remedy);
    };
    let mut scram = mechanisms
        .iter()
        .filter(|mechanism| mechanism.needs_stored());
    if !directories
        .iter()
        .any(|directory| directory.kind.tells_stored())
        && let Some(mechanism) = scram.next()
    {
        reject(mechanism.name(), "tells what password is stored");
    }
    let mut without_password = mechanisms
        .iter()
        .filter(|mechanism| mechanism.needs_no_password());
    if !directories
        .iter()
        .any(|directory| directory.kind.tells_users())
        && let Some(mechanism) = without_password.next()
    {
        reject(mechanism.name(), "says who is there without a password");
    }
}

/// What becomes of names: `auth.lowercase`, `auth.default_domain`,
/// `auth.allowed_characters`, and `auth.master_login` where there are master users.
pub(super) fn names(section: &mut Section<'_>, has_masters: bool) -> Option<NameRules> {
    let lowercase = section.take::<bool>("lowercase");
    let file = section.file();
    let checked =
        |field: Field<String>, is_right: fn(&str) -> bool, problem: &str, remedy: &str| {
            if is_right(&field.value) {
                return Some(Some(field.value.into_boxed_str()));
            }
            file.reject(&field.place, problem, remedy);
            None
        };
    let domain = section.take::<String>("default_domain").map(|field| {
        let is_right = |domain: &str| !domain.is_empty() && !domain.contains(['@', '/', ' ']);
        let remedy = "set it to a domain such as \"example.net\", or remove it";
        checked(field, is_right, "is no domain", remedy)
    });
    let allowed = section.take::<String>("allowed_characters").map(|field| {
        let is_right = |allowed: &str| !allowed.is_empty() && !allowed.contains(char::is_control);
        let remedy = "list every character that a name may have, or remove it";
        checked(
            field,
            is_right,
            "allows no name, or control characters",
            remedy,
        )
    });
    let master = section.take::<String>("master_login");
    if let (Some(field), false) = (&master, has_masters) {
        let remedy = "remove it, or set master = true for a directory of master users";
        file.reject(
            &field.place,
            "is of no use: there are no master users",
            remedy,
        );
        return None;
    }
    let form = master.map_or_else(
        || Some(MasterForm::parse("{master}*{user}").expect("a form")),
        |field| {
            let form = MasterForm::parse(&field.value);
            if form.is_none() {
                let problem = format!("{:?} is no form of a name of two", field.value);
                let remedy = "set it to \"{master}*{user}\" or \"{user}*{master}\", for example";
                file.reject(&field.place, problem, remedy);
            }
            form
        },
    );
    Some(NameRules {
        lowercase: lowercase.is_some_and(|field| field.value),
        default_domain: domain.unwrap_or(Some(None))?,
        allowed: allowed.unwrap_or(Some(None))?,
        master: Some(form?).filter(|_| has_masters),
    })
}

/// `auth.rehash`: whether weak stored passwords are replaced in the directories that say
/// how. Those in clear stay where somebody logs in by them alone: by SCRAM or by APOP.
pub(super) fn rehash<'a>(
    section: &mut Section<'_>,
    key: Option<(bool, Place)>,
    mechanisms: Option<Mechanisms>,
    apop: bool,
    directories: impl Iterator<Item = &'a mut DirectoryOptions>,
) {
    let scram = mechanisms.is_some_and(|all| all.iter().any(Mechanism::needs_stored));
    let spares_clear = scram || apop;
    let mut updates = 0;
    for directory in directories {
        if let DirectoryKind::Away(options) = &mut directory.kind
            && let Protocol::Sql(sql) = &mut options.protocol
            && let Some(update) = &mut sql.update
        {
            update.spares_clear = spares_clear;
            updates += 1;
        }
    }
    match key {
        Some((true, place)) if updates == 0 => {
            let remedy = "set update_query in a directory of kind \"sql\", or remove it";
            section
                .file()
                .reject(&place, "has nowhere to store other passwords", remedy);
        }
        None | Some((false, _)) if updates > 0 => {
            let place = section.absent("rehash");
            let remedy = "set it to true, or remove update_query";
            let problem = "is not true, so that update_query is of no use";
            section.file().reject(&place, problem, remedy);
        }
        None | Some(_) => {}
    }
}

/// A value that was there and has been reported as wrong.
pub(super) struct Rejected;

/// `auth.scram_secret`, a file.
pub(super) fn scram_secret(
    section: &mut Section<'_>,
    base: &Path,
) -> Result<Option<Secret>, Rejected> {
    let Some(field) = section.take::<String>("scram_secret") else {
        return Ok(None);
    };
    let path = base.join(&field.value);
    let remedy = "make it with `openssl rand -hex 32`, readable for who starts popcore";
    match fs::read_to_string(&path) {
        Ok(text) if text.trim_end().len() >= limits::TICKET_SECRET_LEAST => {
            return Ok(Some(Secret::new(text.trim_end().to_owned())));
        }
        Ok(_) => {
            let problem = format!("{} has fewer than 32 characters", path.display());
            section.file().reject(&field.place, problem, remedy);
        }
        Err(error) => {
            let file = section.file();
            file.unreadable(&field.place, &path, &error, remedy);
        }
    }
    Err(Rejected)
}
