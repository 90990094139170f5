//! `kind = "ldap"`

use super::{Section, Site, connections, nearest, password, reject, required, trust};
use crate::auth::{ATTRIBUTES, LdapEntry, LdapOptions, LdapTemplate, Protocol};

pub(super) fn ldap(section: &mut Section<'_>, site: Site<'_>) -> Option<Protocol> {
    let connections = connections(section);
    let trust = trust(section, site.base);
    let url = url(section);
    let starttls = section
        .take::<bool>("starttls")
        .is_some_and(|field| field.value);
    let searcher = searcher(section, site);
    let binds = verify(section);
    let attributes = attributes(section, binds);
    let entry = entry(section);
    let (binds, entry) = (binds?, entry?);
    let is_read = matches!(entry, LdapEntry::Searched { .. })
        && attributes.iter().any(|(here, _)| here == "password");
    if !binds && !is_read {
        let problem = "is \"stored\", and no password is searched for";
        let remedy = "set base and filter, and attributes.password, or set it to \"bind\"";
        section
            .file()
            .reject(&section.absent("verify"), problem, remedy);
        return None;
    }
    Some(Protocol::Ldap(LdapOptions {
        url: url?,
        starttls,
        trust: trust.ok()?,
        searcher: searcher?.0,
        entry,
        binds,
        attributes,
        connections: connections?,
    }))
}

fn url(section: &mut Section<'_>) -> Option<String> {
    let remedy = "set it to where the server is, such as \"ldaps://ldap.example.net\"";
    let (text, place) = required(section, "url", remedy)?.split();
    let host = ["ldap://", "ldaps://", "ldapi://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    // What follows a host and a port would be heeded by nobody.
    if host.is_some_and(|host| {
        !host.is_empty() && !host.trim_end_matches('/').contains(['/', '?', '@'])
    }) {
        return Some(text);
    }
    let problem = "is not ldap://, ldaps:// or ldapi:// and a host";
    section.file().reject(&place, problem, remedy);
    None
}

/// Who searches, if anybody is named.
struct Searcher(Option<(String, crate::auth::Secret)>);

fn searcher(section: &mut Section<'_>, site: Site<'_>) -> Option<Searcher> {
    let name = section.take::<String>("bind_dn");
    let secret = password(section, site.base).ok()?;
    match (name, secret) {
        (None, None) => Some(Searcher(None)),
        (Some(name), Some(secret)) => Some(Searcher(Some((name.value, secret)))),
        (Some(name), None) => {
            let remedy = "set password_file to the file of its password";
            section
                .file()
                .reject(&name.place, "has no password", remedy);
            None
        }
        (None, Some(_)) => {
            let place = section.absent("bind_dn");
            let remedy = "set it to the name of whom the password is";
            section
                .file()
                .reject(&place, "is missing beside password_file", remedy);
            None
        }
    }
}

fn verify(section: &mut Section<'_>) -> Option<bool> {
    let Some(field) = section.take::<String>("verify") else {
        return (!section.was_given("verify")).then_some(true);
    };
    let (text, place) = field.split();
    match text.as_str() {
        "bind" => Some(true),
        "stored" => Some(false),
        _ => {
            let remedy = match nearest(&text, &["bind", "stored"]) {
                Some(word) => format!("did you mean {word:?}?"),
                None => "set it to \"bind\" or \"stored\"".to_owned(),
            };
            section
                .file()
                .reject(&place, format!("{text:?} is not known"), remedy);
            None
        }
    }
}

fn attributes(section: &mut Section<'_>, binds: Option<bool>) -> Vec<(String, String)> {
    let mut table = section.table("attributes");
    let mut attributes = Vec::new();
    for name in ATTRIBUTES {
        if let Some(field) = table.take::<String>(name) {
            if name == "password" && binds == Some(true) {
                let problem = "is read by nobody where the server verifies passwords";
                let remedy = "remove it, or set verify to \"stored\"";
                table.file().reject(&field.place, problem, remedy);
            }
            attributes.push((name.to_owned(), field.value));
        }
    }
    table.finish();
    attributes
}

fn entry(section: &mut Section<'_>) -> Option<LdapEntry> {
    let file = section.file();
    let named = section.take::<String>("user_dn");
    let base = section.take::<String>("base");
    let filter = section.take::<String>("filter");
    match (named, base, filter) {
        (Some(named), None, None) => {
            let (text, place) = named.split();
            let template = LdapTemplate::parse(&text);
            let template = template.map_err(|error| reject(file, &place, &error));
            template.ok().map(LdapEntry::Named)
        }
        (None, Some(base), Some(filter)) => {
            let (text, place) = filter.split();
            let filter = LdapTemplate::parse(&text);
            let filter = filter.map_err(|error| reject(file, &place, &error)).ok()?;
            let base = base.value;
            Some(LdapEntry::Searched { base, filter })
        }
        _ => {
            let problem = "does not say how the entry of a user is found";
            let remedy = "set base and filter, such as \"(uid={user})\", or user_dn";
            file.reject(&section.absent("filter"), problem, remedy);
            None
        }
    }
}
