//! `[tls]` and `[[tls.certificate]]`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cipher::{Cipher, TlsVersion};
use super::error::Cause;
use super::file::{Field, Section, nearest};
use super::{CertificateOptions, ClientCertificates, TlsOptions, server};
use crate::limits;

/// How long a session can be resumed where nothing else is said: several polls
/// of a mail client, and few enough hours that a key which leaks is of little
/// use. At most a week (RFC 8446, section 4.6.1), which no duration exceeds.
const TICKET_LIFETIME: Duration = Duration::from_hours(6);

/// The profiles of Mozilla's server side TLS, and the oldest version of each.
const PROFILES: [(&str, TlsVersion); 2] = [
    ("intermediate", TlsVersion::Tls12),
    ("modern", TlsVersion::Tls13),
];

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

const KERNEL: [(&str, bool); 2] = [("off", false), ("auto", true)];

const CLIENTS: [&str; 3] = ["none", "optional", "required"];

pub(super) fn tls(mut section: Section<'_>, base: &Path) -> Option<TlsOptions> {
    let profile = choice(&mut section, "profile", &PROFILES);
    let min_version = choice(&mut section, "min_version", &VERSIONS);
    let file = section.file();
    let oldest = match (&profile, &min_version) {
        (Ok(Some(profile)), Ok(Some(version))) if version.value < profile.value => {
            let problem = "allows what the modern profile forbids";
            let remedy = "set it to \"1.3\" or remove it, or set tls.profile = \"intermediate\"";
            file.reject(&version.place, problem, remedy);
            None
        }
        (Ok(profile), Ok(version)) => {
            let chosen = version.as_ref().or(profile.as_ref());
            Some(chosen.map_or(TlsVersion::Tls12, |field| field.value))
        }
        _ => None,
    };
    let ciphers = ciphers(&mut section, oldest);
    let clients = clients(&mut section, base);
    let ticket_keys = ticket_keys(&mut section, base);
    let lifetime = ticket_lifetime(&mut section);
    let kernel = match choice(&mut section, "kernel", &KERNEL) {
        Ok(chosen) => Some(chosen.is_some_and(|field| field.value)),
        Err(Rejected) => None,
    };
    let sections = section.tables("certificate");
    let certificates: Vec<_> = sections
        .into_iter()
        .map(|section| certificate(section, base))
        .collect();
    section.finish();
    Some(TlsOptions {
        certificates: certificates.into_iter().collect::<Option<_>>()?,
        ciphers: ciphers?,
        clients: clients?,
        ticket_keys: ticket_keys?,
        ticket_lifetime: lifetime?,
        kernel: kernel?,
    })
}

/// A value that was there and has been reported as wrong.
struct Rejected;

/// One of a few words.
fn choice<T: Copy>(
    section: &mut Section<'_>,
    name: &'static str,
    known: &[(&'static str, T)],
) -> Result<Option<Field<T>>, Rejected> {
    let Some(field) = section.take::<String>(name) else {
        let wrong = section.was_given(name);
        return if wrong { Err(Rejected) } else { Ok(None) };
    };
    let (text, place) = field.split();
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(Some(Field {
            value: *value,
            place,
        }));
    }
    let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
    let problem = format!("{text:?} is not known");
    let remedy = match nearest(&text, &words) {
        Some(word) => format!("did you mean {word:?}?"),
        None => format!("set it to \"{}\"", words.join("\" or \"")),
    };
    section.file().reject(&place, problem, remedy);
    Err(Rejected)
}

/// The suites that may be spoken: those named, or all, of the versions allowed.
fn ciphers(section: &mut Section<'_>, oldest: Option<TlsVersion>) -> Option<Vec<Cipher>> {
    let field = section.take::<Vec<String>>("ciphers");
    let file = section.file();
    let allowed = |cipher: &Cipher| oldest.is_none_or(|oldest| cipher.version() >= oldest);
    let Some((names, place)) = field.map(Field::split) else {
        let wrong = section.was_given("ciphers");
        return (!wrong && oldest.is_some()).then(|| Cipher::all().filter(allowed).collect());
    };
    let mut ciphers = Vec::new();
    let mut unknown = false;
    for name in &names {
        if let Some(cipher) = Cipher::named(name) {
            ciphers.push(cipher);
            continue;
        }
        unknown = true;
        let problem = format!("{name:?} is not a cipher suite that popcore speaks");
        let remedy = match nearest(name, &Cipher::names()) {
            Some(known) => format!("did you mean {known:?}?"),
            None => format!("choose among {}", Cipher::names().join(", ")),
        };
        file.reject(&place, problem, remedy);
    }
    ciphers.retain(allowed);
    if ciphers.is_empty() && !unknown {
        let problem = "names no cipher suite of a version that is allowed";
        let remedy = "add those of TLS 1.3, such as \"TLS_AES_128_GCM_SHA256\"";
        file.reject(&place, problem, remedy);
    }
    (!unknown && !ciphers.is_empty() && oldest.is_some()).then_some(ciphers)
}

/// Whether clients show certificates, and whose are believed.
fn clients(section: &mut Section<'_>, base: &Path) -> Option<ClientCertificates> {
    let known = CLIENTS.map(|word| (word, word));
    let wanted = choice(section, "client_certificates", &known);
    let given = section.has("client_ca");
    let wanted = match wanted {
        Err(Rejected) => None,
        Ok(None) => Some("none"),
        Ok(Some(field)) => Some(field.value),
    };
    if given {
        let authority = pem(section, "client_ca", "CERTIFICATE", base);
        if wanted == Some("none") {
            let problem = "is set, and no client is asked for a certificate";
            let remedy =
                "set tls.client_certificates to \"optional\" or \"required\", or remove it";
            let place = section.absent("client_ca");
            section.file().reject(&place, problem, remedy);
        }
        return match (wanted?, authority?) {
            ("optional", authority) => Some(ClientCertificates::Optional(authority)),
            ("required", authority) => Some(ClientCertificates::Required(authority)),
            _ => None,
        };
    }
    // Known even where it is not wanted.
    let _ = section.take::<String>("client_ca");
    if wanted? == "none" {
        return Some(ClientCertificates::None);
    }
    let remedy = "set it to the PEM file of the authority that signs clients' certificates";
    let place = section.absent("client_ca");
    section.file().reject(&place, "is missing", remedy);
    None
}

/// Files of secrets that tickets are sealed with, on all nodes alike.
fn ticket_keys(section: &mut Section<'_>, base: &Path) -> Option<Vec<PathBuf>> {
    let Some((names, place)) = section.take::<Vec<String>>("ticket_keys").map(Field::split) else {
        return (!section.was_given("ticket_keys")).then(Vec::new);
    };
    let file = section.file();
    let paths: Vec<_> = names.iter().map(|name| base.join(name)).collect();
    let mut right = true;
    for path in &paths {
        let (least, most) = (limits::TICKET_SECRET_LEAST, limits::TICKET_SECRET_MOST);
        let remedy = format!("make it with: openssl rand -out {} 80", path.display());
        match fs::read(path) {
            Ok(octets) if (least..=most).contains(&octets.len()) => {}
            Ok(octets) => {
                let (name, length) = (path.display(), octets.len());
                let problem = format!("{name} holds {length} octets, not {least} to {most}");
                file.reject(&place, problem, remedy);
                right = false;
            }
            Err(error) => {
                right &= file.unreadable(&place, path, &error, remedy) == Cause::Refused;
            }
        }
    }
    right.then_some(paths)
}

fn ticket_lifetime(section: &mut Section<'_>) -> Option<Duration> {
    let place = section.absent("ticket_lifetime");
    let lifetime = server::period(section, "ticket_lifetime", TICKET_LIFETIME)?;
    if lifetime >= limits::TICKET_LIFETIME_LEAST {
        return Some(lifetime);
    }
    let least = limits::TICKET_LIFETIME_LEAST.as_secs();
    let problem = format!("is shorter than {least} s, in which keys are changed");
    section.file().reject(&place, problem, "set it to \"6h\"");
    None
}

fn certificate(mut section: Section<'_>, base: &Path) -> Option<CertificateOptions> {
    let chain = pem(&mut section, "chain", "CERTIFICATE", base);
    let key = pem(&mut section, "key", "PRIVATE KEY", base);
    section.finish();
    Some(CertificateOptions {
        chain: chain?,
        key: key?,
    })
}

/// A PEM file that can be read and holds a block of the kind wanted. Whether
/// key and certificate belong together is for the TLS library to say.
fn pem(section: &mut Section<'_>, name: &'static str, kind: &str, base: &Path) -> Option<PathBuf> {
    let file = section.file();
    let Some((text, place)) = section.take::<String>(name).map(Field::split) else {
        if !section.was_given(name) {
            let remedy = "set it to the path of a PEM file";
            file.reject(&section.absent(name), "is missing", remedy);
        }
        return None;
    };
    let path = base.join(text);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let remedy = "correct the path, or let the user who starts popcore read the file";
            let cause = file.unreadable(&place, &path, &error, remedy);
            return (cause == Cause::Refused).then_some(path);
        }
    };
    // Covers "PRIVATE KEY", "RSA PRIVATE KEY" and "EC PRIVATE KEY".
    let end = format!("{kind}-----");
    let begins = bytes
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .any(|line| line.starts_with(b"-----BEGIN ") && line.ends_with(end.as_bytes()));
    if !begins {
        let problem = format!("{} holds no PEM block {kind:?}", path.display());
        let remedy =
            "name the PEM file, not the DER one, and mind that chain and key are not swapped";
        file.reject(&place, problem, remedy);
        return None;
    }
    Some(path)
}
