//! `[[listener]]` and `[admin]`, and what must hold between them, `[tls]` and
//! `[auth]`.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::file::{Field, File, Section, nearest};
use super::{AdminOptions, AuthOptions, ListenerOptions, TlsMode, TlsOptions};

/// The values of `listener.tls`.
const TLS_MODES: [(&str, TlsMode); 3] = [
    ("none", TlsMode::None),
    ("starttls", TlsMode::Starttls),
    ("implicit", TlsMode::Implicit),
];

/// The listeners that could be read. A file without any is at fault; one with a
/// faulty listener has said so.
pub(super) fn listeners(root: &mut Section<'_>) -> Vec<Field<ListenerOptions>> {
    let sections = root.tables("listener");
    if sections.is_empty() {
        let remedy = "add a section [[listener]] with an address such as \"0.0.0.0:110\"";
        root.file()
            .reject(&root.absent("listener"), "is missing", remedy);
    }
    sections.into_iter().filter_map(listener).collect()
}

fn listener(mut section: Section<'_>) -> Option<Field<ListenerOptions>> {
    let file = section.file();
    let address = address(&mut section, "address", "\"0.0.0.0:110\" or \"[::]:110\"");
    let tls = match section.take::<String>("tls") {
        None => Some(TlsMode::None),
        Some(field) => tls_mode(file, &field),
    };
    if let Some(field) = section.take::<bool>("proxy_protocol")
        && field.value
    {
        let problem = "the PROXY protocol is not there in this version";
        file.reject(&field.place, problem, "set it to false or remove it");
    }
    if let Some(field) = section.take::<Vec<String>>("trusted")
        && !field.value.is_empty()
    {
        let problem = "neither the PROXY protocol nor XCLIENT is there in this version";
        file.reject(&field.place, problem, "remove it");
    }
    section.finish();
    let (address, place) = address?.split();
    let value = ListenerOptions { address, tls: tls? };
    Some(Field { value, place })
}

fn tls_mode(file: &File<'_>, field: &Field<String>) -> Option<TlsMode> {
    let found = TLS_MODES.iter().find(|(name, _)| *name == field.value);
    if found.is_none() {
        let remedy = match nearest(&field.value, &TLS_MODES.map(|(name, _)| name)) {
            Some(name) => format!("did you mean {name:?}?"),
            None => "set it to \"none\", \"starttls\" or \"implicit\"".to_owned(),
        };
        let problem = format!("{:?} is not a way of TLS", field.value);
        file.reject(&field.place, problem, remedy);
    }
    found.map(|(_, mode)| *mode)
}

/// A required address and port.
fn address(
    section: &mut Section<'_>,
    name: &'static str,
    example: &str,
) -> Option<Field<SocketAddr>> {
    let file = section.file();
    let Some((text, place)) = section.take::<String>(name).map(Field::split) else {
        // A value of the wrong type has been reported already.
        if !section.was_given(name) {
            let remedy = format!("set it to an address and port such as {example}");
            file.reject(&section.absent(name), "is missing", remedy);
        }
        return None;
    };
    if let Ok(value) = text.parse() {
        return Some(Field { value, place });
    }
    let problem = format!("{text:?} is not an IP address and port");
    let remedy = format!("write numbers, such as {example}");
    file.reject(&place, problem, remedy);
    None
}

pub(super) fn admin(root: &mut Section<'_>) -> Option<Field<AdminOptions>> {
    let given = root.has("admin");
    let mut section = root.table("admin");
    if !given {
        return None;
    }
    let listen = address(&mut section, "listen", "\"127.0.0.1:9110\"");
    section.finish();
    let (listen, place) = listen?.split();
    let value = AdminOptions { listen };
    Some(Field { value, place })
}

/// Faults that no section has alone.
pub(super) fn check_together(
    file: &File<'_>,
    listeners: &[Field<ListenerOptions>],
    options: &TlsOptions,
    auth: &AuthOptions,
    admin: Option<&Field<AdminOptions>>,
) {
    let mut taken: HashSet<SocketAddr> = HashSet::new();
    for listener in listeners {
        let ListenerOptions { address, tls } = listener.value;
        if address.port() != 0 && !taken.insert(address) {
            let problem = format!("{address} is listened on twice");
            file.reject(&listener.place, problem, "remove one of the two listeners");
        }
        if tls != TlsMode::None && options.certificates.is_empty() {
            let problem = "a listener with TLS needs a certificate";
            let remedy = "add [[tls.certificate]] with chain and key, or set tls = \"none\"";
            file.reject(&listener.place, problem, remedy);
        }
        if tls == TlsMode::None && !auth.plaintext_without_tls {
            let problem = "nobody can log in here: there is no TLS, and passwords need it";
            let remedy = "set tls = \"starttls\", or auth.plaintext_without_tls = true";
            file.reject(&listener.place, problem, remedy);
        }
    }
    if let Some(admin) = admin
        && taken.contains(&admin.value.listen)
    {
        let problem = format!("{} is a POP3 listener's address", admin.value.listen);
        file.reject(&admin.place, problem, "give one of them another port");
    }
}
