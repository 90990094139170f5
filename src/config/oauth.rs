//! `[auth.oauth]`: who verifies bearer tokens.

use std::path::Path;
use std::time::Duration;

use hyper::Uri;

use super::directory::{Rejected, reject, required, secret_line, timeout, trust};
use super::file::{Field, Section};
use super::server;
use crate::auth::{OauthOptions, OauthSource};
use crate::limits;
use crate::sasl::{Mechanism, Mechanisms};

/// After what time keys are read again where nothing else is said: issuers show a new key
/// for a day or more before they sign with it.
const REFRESH: Duration = Duration::from_hours(1);

/// By how much clocks may differ where nothing else is said.
const LEEWAY: Duration = Duration::from_secs(30);

/// The section, where it is given; the rules for names are the caller's to add.
pub(super) fn oauth(
    auth: &mut Section<'_>,
    base: &Path,
    mechanisms: Option<Mechanisms>,
) -> Result<Option<OauthOptions>, Rejected> {
    let place = auth.place("oauth");
    let is_there = auth.has("oauth");
    let section = auth.table("oauth");
    let mut tokens = Mechanism::OF_TOKENS.into_iter();
    let is_offered = mechanisms.map(|all| tokens.any(|mechanism| all.contains(mechanism)));
    match (is_there, is_offered) {
        (false, Some(true)) => {
            let problem = "is missing: tokens could not be verified";
            let remedy = "add [auth.oauth] with jwks or introspection, or take oauthbearer and \
                          xoauth2 out of auth.mechanisms";
            auth.file().reject(&place, problem, remedy);
            return Err(Rejected);
        }
        (false, _) => return Ok(None),
        (true, Some(false)) => {
            let problem = "is of no use: no mechanism takes tokens";
            let remedy = "add \"oauthbearer\" and \"xoauth2\" to auth.mechanisms";
            auth.file().reject(&place, problem, remedy);
        }
        (true, _) => {}
    }
    options(section, base).map(Some).ok_or(Rejected)
}

fn options(mut section: Section<'_>, base: &Path) -> Option<OauthOptions> {
    let timeout = timeout(&mut section);
    let leeway = leeway(&mut section);
    let source = source(&mut section, base);
    let is_signed = matches!(
        source,
        Some(OauthSource::File { .. } | OauthSource::Web { .. })
    );
    let issuer = text(&mut section, "issuer", "set it to the \"iss\" of tokens");
    let audience = audience(&mut section);
    let scope = told(&mut section, "scope", limits::TOKEN_SCOPE);
    let configuration = told(
        &mut section,
        "openid_configuration",
        limits::TOKEN_CONFIGURATION,
    );
    let remedy = "set it to the claim that names the user, or remove it";
    let claim = text(&mut section, "user_claim", remedy);
    if is_signed {
        // Without both, whatever the issuer signs for anybody would log in here.
        for (name, remedy) in [
            (
                "issuer",
                "set it to the \"iss\" of tokens, such as \"https://login.example.net\"",
            ),
            (
                "audience",
                "set it to what stands in \"aud\" of tokens for mail, [\"mail\"]",
            ),
        ] {
            if !section.was_given(name) {
                let place = section.absent(name);
                section.file().reject(&place, "is missing", remedy);
            }
        }
    }
    section.finish();
    let usual = if is_signed { "email" } else { "username" };
    Some(OauthOptions {
        source: source?,
        timeout: timeout?,
        issuer: issuer.ok()?,
        audience: audience?,
        user_claim: claim.ok()?.unwrap_or_else(|| usual.into()),
        scope: scope.ok()?.unwrap_or_default(),
        leeway: leeway?,
        configuration: configuration.ok()?,
        names: crate::auth::NameRules::default(),
    })
}

/// `jwks` or `introspection`, and what belongs to each.
fn source(section: &mut Section<'_>, base: &Path) -> Option<OauthSource> {
    let keys = section.take::<String>("jwks");
    let service = section.take::<String>("introspection");
    let trust = trust(section, base);
    match (keys, service) {
        (Some(keys), None) => {
            let refresh = refresh(section);
            if !keys.value.contains("://") {
                return Some(OauthSource::File {
                    path: file(section, &keys, base)?,
                    refresh: refresh?,
                });
            }
            Some(OauthSource::Web {
                uri: uri(section, keys)?,
                trust: trust.ok()?,
                refresh: refresh?,
            })
        }
        (None, Some(service)) => {
            let remedy = "set it to the name that popcore has at the issuer";
            let client = required(section, "client_id", remedy);
            let remedy = "set it to a file with the password of client_id in its one line";
            let secret = required(section, "client_secret_file", remedy);
            let secret = secret.map(|field| secret_line(section, field, base, "the password"));
            Some(OauthSource::Introspection {
                uri: uri(section, service)?,
                trust: trust.ok()?,
                client: client?.value.into_boxed_str(),
                secret: secret?.ok()?,
            })
        }
        (keys, _) => {
            let problem = match keys {
                Some(_) => "stands beside introspection: tokens are verified in one way",
                None => "is missing, and so is introspection",
            };
            let given = section.was_given("jwks") || section.was_given("introspection");
            if keys.is_some() || !given {
                let remedy = "set one of them: to the issuer's keys (a file or URL of a JWK Set), \
                              or to the URL where it is asked about tokens";
                let place = section.absent("jwks");
                section.file().reject(&place, problem, remedy);
            }
            // They belong to one or the other, and are not at fault.
            let _ = refresh(section);
            let _ = (
                section.take::<String>("client_id"),
                section.take::<String>("client_secret_file"),
            );
            None
        }
    }
}

/// A file that can be read. What is in it is for the start to see, and for `popcore check`.
fn file(section: &Section<'_>, field: &Field<String>, base: &Path) -> Option<std::path::PathBuf> {
    let path = base.join(&field.value);
    match std::fs::metadata(&path) {
        Ok(facts) if facts.is_file() => return Some(path),
        Ok(_) => reject(
            section.file(),
            &field.place,
            &format!("{} is not a file; correct the path", path.display()),
        ),
        Err(error) => reject(
            section.file(),
            &field.place,
            &format!(
                "{} cannot be read: {error}; correct the path",
                path.display()
            ),
        ),
    }
    None
}

/// A URL of https, or of http on this machine: keys that somebody between may change are
/// anybody's.
fn uri(section: &Section<'_>, field: Field<String>) -> Option<Uri> {
    let (text, place) = field.split();
    let remedy = "write it as \"https://login.example.net/...\"; http is for this machine alone";
    let uri = text.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let problem = match uri.as_ref().and_then(Uri::scheme_str) {
        Some("https") if !host.is_empty() => return uri,
        Some("http") if is_own(host) => return uri,
        Some("http") => "is a URL of http, so that anybody between could forge what it says",
        _ => "is no URL of https",
    };
    section.file().reject(&place, problem, remedy);
    None
}

fn is_own(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn refresh(section: &mut Section<'_>) -> Option<Duration> {
    let place = section.place("refresh");
    let refresh = server::period(section, "refresh", REFRESH)?;
    if refresh < limits::TOKEN_KEYS_PAUSE {
        let problem = "is less than 30s";
        let remedy = "set it to \"1h\", for example, or remove it";
        section.file().reject(&place, problem, remedy);
        return None;
    }
    Some(refresh)
}

fn leeway(section: &mut Section<'_>) -> Option<Duration> {
    let place = section.place("leeway");
    let leeway = server::period(section, "leeway", LEEWAY)?;
    if leeway > Duration::from_mins(10) {
        let problem = "is more than 10m";
        let remedy = "set the clocks (NTP), and it to \"30s\", or remove it";
        section.file().reject(&place, problem, remedy);
        return None;
    }
    Some(leeway)
}

/// A text that is not empty, if there is one.
fn text(
    section: &mut Section<'_>,
    name: &'static str,
    remedy: &str,
) -> Result<Option<Box<str>>, Rejected> {
    match section.take::<String>(name) {
        None if section.was_given(name) => Err(Rejected),
        None => Ok(None),
        Some(field) if field.value.is_empty() => {
            section.file().reject(&field.place, "is empty", remedy);
            Err(Rejected)
        }
        Some(field) => Ok(Some(field.value.into_boxed_str())),
    }
}

/// The same for one that clients are told, in a text of JSON.
fn told(
    section: &mut Section<'_>,
    name: &'static str,
    most: usize,
) -> Result<Option<Box<str>>, Rejected> {
    let place = section.place(name);
    let remedy = "correct it, or remove it";
    let Some(found) = text(section, name, remedy)? else {
        return Ok(None);
    };
    let fits = |octet: u8| matches!(octet, b' '..=b'~') && octet != b'"' && octet != b'\\';
    if found.len() <= most && found.bytes().all(fits) {
        return Ok(Some(found));
    }
    let problem = format!("has more than {most} characters, or some that it cannot have");
    section.file().reject(&place, problem, remedy);
    Err(Rejected)
}

fn audience(section: &mut Section<'_>) -> Option<Vec<Box<str>>> {
    let Some(field) = section.take::<Vec<String>>("audience") else {
        return (!section.was_given("audience")).then(Vec::new);
    };
    if field.value.is_empty() || field.value.iter().any(String::is_empty) {
        let problem = "is empty, so that no token is for popcore";
        let remedy = "set it to what stands in \"aud\" of tokens for mail, or remove it";
        section.file().reject(&field.place, problem, remedy);
        return None;
    }
    Some(
        field
            .value
            .into_iter()
            .map(String::into_boxed_str)
            .collect(),
    )
}

#[cfg(test)]
mod tests;
