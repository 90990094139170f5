//! `[auth]` and `[maildrop]`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::directory::{Site, directory};
use super::error::Cause;
use super::file::{Field, File, PeriodText, Place, Section};
use super::{AuthOptions, MaildropOptions, Rules, Sources};
use super::{login, oauth, reload, server, template};
use crate::auth::{NameRules, OauthOptions};
use crate::limits;
use crate::maildrop::Retention;

pub(super) fn auth(mut section: Section<'_>, site: Site<'_>) -> Option<AuthOptions> {
    let plaintext = section.take::<bool>("plaintext_without_tls");
    let failure_delay = reload::failure_delay(&mut section);
    let cache = reload::cache(&mut section);
    let mechanisms_place = section.place("mechanisms");
    let mechanisms = login::mechanisms(&mut section);
    let apop = section.take::<bool>("apop").filter(|field| field.value);
    let oauth = oauth::oauth(&mut section, site.base, mechanisms);
    let sections = section.tables("directory");
    if sections.is_empty() {
        let remedy = "add [[auth.directory]] with kind = \"passwd-file\" and a path";
        let place = section.absent("directory");
        section
            .file()
            .reject(&place, "is missing: nobody could log in", remedy);
    }
    let (mut directories, mut masters) = (Vec::new(), Vec::new());
    for mut section in sections {
        let master = section.take::<bool>("master");
        let found = directory(section, site);
        if master.is_some_and(|field| field.value) {
            masters.push(found);
        } else {
            directories.push(found);
        }
    }
    let rehash = section.take::<bool>("rehash");
    let rehash = rehash.map(|field| (field.value, field.place));
    let all = directories.iter_mut().chain(&mut masters).flatten();
    login::rehash(&mut section, rehash, mechanisms, apop.is_some(), all);
    let known: Vec<_> = directories.iter().flatten().collect();
    if known.len() == directories.len() {
        if let Some(mechanisms) = mechanisms {
            login::usable(&section, &mechanisms_place, mechanisms, &known);
        }
        if let (Some(field), false) = (&apop, known.is_empty()) {
            login::apop_usable(&section, &field.place, &known);
        }
    }
    let names = login::names(&mut section, !masters.is_empty());
    let scram_secret = login::scram_secret(&mut section, site.base);
    if directories.is_empty() && !masters.is_empty() {
        let remedy = "add an [[auth.directory]] without master = true";
        let place = section.absent("directory");
        let problem = "has master users alone: they have no maildrops";
        section.file().reject(&place, problem, remedy);
    }
    section.finish();
    let names = names?;
    Some(AuthOptions {
        plaintext_without_tls: plaintext.is_some_and(|field| field.value),
        mechanisms: mechanisms?,
        apop: apop.is_some(),
        failure_delay: failure_delay?,
        cache: cache?,
        directories: directories.into_iter().collect::<Option<_>>()?,
        masters: masters.into_iter().collect::<Option<_>>()?,
        oauth: oauth.ok()?.map(|oauth| OauthOptions {
            // A token has one name in it, that of its user.
            names: NameRules {
                master: None,
                ..names.clone()
            },
            ..oauth
        }),
        names,
        scram_secret: scram_secret.ok()?,
    })
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
    let map_text_from = octets(&mut section, "map_text_from", limits::MAP_TEXT_FROM);
    let map_wire_from = octets(&mut section, "map_wire_from", limits::MAP_WIRE_FROM);
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
        map_text_from: map_text_from?,
        map_wire_from: map_wire_from?,
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

/// A number of octets, at least one: nothing of no octets can be mapped.
fn octets(section: &mut Section<'_>, key: &'static str, default: u64) -> Option<u64> {
    let Some(field) = section.take::<u64>(key) else {
        return (!section.was_given(key)).then_some(default);
    };
    if field.value == 0 {
        let remedy = "write the size in octets from which on messages are mapped";
        section.file().reject(&field.place, "is 0", remedy);
        return None;
    }
    Some(field.value)
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
    let Err(error) = fs::read_dir(root) else {
        return Some(());
    };
    let remedy = "mount or create it, and let the user who starts popcore read it";
    let problem = format!("the folder {root} cannot be listed: {error}");
    let cause = Cause::of(&error);
    file.note(place, problem, remedy.into(), cause);
    (cause == Cause::Refused).then_some(())
}
