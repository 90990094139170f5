//! `kind = "http"`

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::{Rejected, Section, Site, connections, nearest, required, secret_line, trust};
use crate::auth::{HttpForm, HttpOptions, Protocol};

pub(super) fn http(section: &mut Section<'_>, site: Site<'_>) -> Option<Protocol> {
    let connections = connections(section);
    let trust = trust(section, site.base);
    let header = header(section, site);
    let form = form(section);
    let remedy = "set it to where the service is, such as \"https://auth.example.net/pop3\"";
    let (text, place) = required(section, "url", remedy)?.split();
    let url = text.parse::<Uri>().ok().filter(|url| {
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        known && url.host().is_some_and(|host| !host.is_empty())
    });
    if url.is_none() {
        let problem = "is no URL of http or https";
        section.file().reject(&place, problem, remedy);
    }
    Some(Protocol::Http(HttpOptions {
        url: url?,
        form: form?,
        header: header.ok()?,
        trust: trust.ok()?,
        connections: connections?,
    }))
}

fn form(section: &mut Section<'_>) -> Option<HttpForm> {
    const FORMS: [&str; 2] = ["nginx", "json"];
    let remedy = "set it to \"nginx\" or \"json\"";
    let (text, place) = required(section, "form", remedy)?.split();
    match text.as_str() {
        "nginx" => Some(HttpForm::Nginx),
        "json" => Some(HttpForm::Json),
        _ => {
            let meant = nearest(&text, &FORMS).map(|form| format!("did you mean {form:?}?"));
            let remedy = meant.unwrap_or_else(|| remedy.to_owned());
            let problem = format!("{text:?} is not known");
            section.file().reject(&place, problem, remedy);
            None
        }
    }
}

/// The header in the file that `header_file` names; nothing where there is no such key.
fn header(
    section: &mut Section<'_>,
    site: Site<'_>,
) -> Result<Option<(HeaderName, HeaderValue)>, Rejected> {
    let Some(field) = section.take::<String>("header_file") else {
        let wrong = section.was_given("header_file");
        return if wrong { Err(Rejected) } else { Ok(None) };
    };
    let place = field.place.clone();
    let line = secret_line(
        section,
        field,
        site.base,
        "a header such as X-Auth-Key: secret",
    )?;
    let header = line.header();
    if header.is_none() {
        let remedy = "write it as Name: value";
        section
            .file()
            .reject(&place, "the file holds no header", remedy);
    }
    header.map(Some).ok_or(Rejected)
}
