//! `[auth]` and `[maildrop]`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::file::{Field, File, PeriodText, Place, Section, nearest};
use super::{AuthOptions, DirectoryOptions, MaildropOptions, Rules, Sources, server, template};
use crate::maildrop::Retention;

/// Kinds of directory that are named in the documentation and not there yet.
const LATER_DIRECTORIES: [&str; 4] = ["sql", "ldap", "http", "pam"];

pub(super) fn auth(mut section: Section<'_>, base: &Path) -> Option<AuthOptions> {
    let plaintext = section.take::<bool>("plaintext_without_tls");
    let failure_delay = server::period(&mut section, "failure_delay", Duration::from_secs(2));
    let sections = section.tables("directory");
    if sections.is_empty() {
        let remedy = "add [[auth.directory]] with kind = \"passwd-file\" and a path";
        let place = section.absent("directory");
        section
            .file()
            .reject(&place, "is missing: nobody could log in", remedy);
    }
    let directories: Vec<_> = sections
        .into_iter()
        .map(|section| directory(section, base))
        .collect();
    section.finish();
    Some(AuthOptions {
        plaintext_without_tls: plaintext.is_some_and(|field| field.value),
        failure_delay: failure_delay?,
        directories: directories.into_iter().collect::<Option<_>>()?,
    })
}

fn directory(mut section: Section<'_>, base: &Path) -> Option<DirectoryOptions> {
    let file = section.file();
    let kind = section.take::<String>("kind");
    let path = section.take::<String>("path");
    let found = match kind {
        Some(field) if field.value == "passwd-file" => {
            if let Some(path) = path {
                passwd_file(file, path, base)
            } else {
                let remedy = "set it to the path of a file of user:password lines";
                if !section.was_given("path") {
                    file.reject(&section.absent("path"), "is missing", remedy);
                }
                None
            }
        }
        Some(field) => {
            // Its other keys belong to a feature that is not there, so that
            // naming them as well would only hide the cause.
            reject_kind(file, &field);
            return None;
        }
        None => {
            if !section.was_given("kind") {
                let remedy = "set it to \"passwd-file\"";
                file.reject(&section.absent("kind"), "is missing", remedy);
            }
            None
        }
    };
    section.finish();
    found
}

fn reject_kind(file: &File<'_>, field: &Field<String>) {
    let kind = &field.value;
    if LATER_DIRECTORIES.contains(&kind.as_str()) {
        let problem = format!("{kind:?} is not there in this version");
        file.reject(&field.place, problem, "use \"passwd-file\"");
    } else {
        let remedy = match nearest(kind, &["passwd-file"]) {
            Some(name) => format!("did you mean {name:?}?"),
            None => "use \"passwd-file\"".to_owned(),
        };
        let problem = format!("{kind:?} is not a kind of directory");
        file.reject(&field.place, problem, remedy);
    }
}

fn passwd_file(file: &File<'_>, field: Field<String>, base: &Path) -> Option<DirectoryOptions> {
    let (text, place) = field.split();
    let path = base.join(text);
    // A FIFO would have the open wait for its writer.
    let facts = fs::metadata(&path).and_then(|facts| {
        if facts.is_file() {
            fs::File::open(&path)?;
        }
        Ok(facts)
    });
    let problem = match facts {
        Ok(facts) if facts.is_file() => return Some(DirectoryOptions::PasswdFile { path }),
        Ok(_) => format!("{} is not a file", path.display()),
        Err(error) => format!("{} cannot be read: {error}", path.display()),
    };
    let remedy = "correct the path, or let the user who starts popcore read the file";
    file.reject(&place, problem, remedy);
    None
}

pub(super) fn maildrop(mut section: Section<'_>, base: &Path) -> Option<MaildropOptions> {
    let file = section.file();
    let index = match section.take::<String>("index") {
        Some(field) if field.value != "beside" => template(file, field, base).map(Some),
        _ => Some(None),
    };
    let sources = match section.take::<Vec<String>>("uidl") {
        Some(field) => uidl(file, &field),
        None => Some(Sources::name()),
    };
    let mark_seen = section.take::<bool>("mark_seen");
    let retention = match section.take::<String>("retention") {
        Some(field) => retention(file, &field).map(Some),
        None => Some(None),
    };
    let undelete = match section.take::<PeriodText>("undelete") {
        Some(field) => undelete(file, field).map(Some),
        None => Some(None),
    };
    let takeover = match section.take::<PeriodText>("takeover") {
        Some(field) => takeover(file, field).map(Some),
        None => Some(None),
    };
    let path = if let Some(field) = section.take::<String>("path") {
        template(file, field, base)
    } else {
        if !section.was_given("path") {
            let remedy = "set it to a path such as \"/var/mail/{domain}/{local}\"";
            file.reject(&section.absent("path"), "is missing", remedy);
        }
        None
    };
    section.finish();
    Some(MaildropOptions {
        path: path?,
        index: index?,
        uidl: sources?,
        rules: Rules {
            mark_seen: mark_seen.is_some_and(|field| field.value),
            retention: retention?,
            undelete: undelete?,
        },
        takeover: takeover?,
    })
}

fn retention(file: &File<'_>, field: &Field<String>) -> Option<Retention> {
    let read = Retention::parse(&field.value).map_err(|error| {
        let problem = format!("{:?} {error}", field.value);
        let remedy = "write how many days, or remove it to keep messages for ever";
        file.reject(&field.place, problem, remedy);
    });
    read.ok()
}

fn undelete(file: &File<'_>, field: Field<PeriodText>) -> Option<Duration> {
    let (PeriodText(text), place) = field.split();
    if let Some(kept) = super::undelete_time(&text) {
        return Some(kept);
    }
    let problem = format!("{text:?} is no time of up to a year");
    file.reject(&place, problem, "write \"7d\", for example, or remove it");
    None
}

fn takeover(file: &File<'_>, field: Field<PeriodText>) -> Option<Duration> {
    let (silence, place) = server::read_period(file, field)?;
    if silence < Duration::from_secs(1) {
        let remedy = "set it to \"1m\", for example, or remove it";
        file.reject(&place, "is below a second", remedy);
        return None;
    }
    Some(silence)
}

fn uidl(file: &File<'_>, field: &Field<Vec<String>>) -> Option<Sources> {
    if field.value.is_empty() {
        file.reject(
            &field.place,
            "names no source",
            "set it to [\"name\"] or remove it",
        );
        return None;
    }
    match Sources::parse(field.value.iter().map(String::as_str)) {
        Ok(sources) => Some(sources),
        Err(error) => {
            let remedy = "write it as [\"dovecot\", \"courier\", \"name\"], for example";
            file.reject(&field.place, error.to_string(), remedy);
            None
        }
    }
}

/// The template made absolute. Its fixed part must exist: an unmounted disk
/// would otherwise show every user an empty maildrop, and clients would believe
/// that their mail is gone.
fn template(file: &File<'_>, field: Field<String>, base: &Path) -> Option<String> {
    let (raw, place) = field.split();
    let reject = |problem: String, remedy: &str| {
        file.reject(&place, problem, remedy);
        None
    };
    if let Err(error) = template::check(&raw) {
        return reject(format!("{raw:?} {error}"), error.remedy());
    }
    if raw.starts_with("{home}") {
        return Some(raw);
    }
    let Some(base) = base.to_str().filter(|base| !base.contains(['{', '}'])) else {
        let problem = format!("{} cannot stand before a template", base.display());
        return reject(problem, "write an absolute path");
    };
    let absolute = if raw.starts_with('/') {
        raw
    } else {
        format!("{}/{raw}", base.trim_end_matches('/'))
    };
    check_root(file, &place, &absolute)?;
    Some(absolute)
}

fn check_root(file: &File<'_>, place: &Place, template: &str) -> Option<()> {
    let fixed = template.split('{').next().unwrap_or_default();
    let root = &fixed[..=fixed.rfind('/').unwrap_or_default()];
    let problem = match fs::read_dir(root) {
        Ok(_) => return Some(()),
        Err(error) => format!("the folder {root} cannot be listed: {error}"),
    };
    let remedy = "mount or create it, and let the user who starts popcore read it";
    file.reject(place, problem, remedy);
    None
}
