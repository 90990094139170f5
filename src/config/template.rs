//! The form of `maildrop.path`, before the maildrop gives it a meaning.

use std::fmt;

/// What a template may stand in for.
const NAMES: [&str; 4] = ["user", "local", "domain", "home"];

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TemplateError {
    /// No path at all, or one with a NUL.
    NoPath,
    /// A brace without its partner.
    Unbalanced,
    /// A name that is not known.
    Unknown(String),
    /// `{home}` anywhere but at the beginning.
    HomeInside,
    /// Nothing in it depends on the user.
    Shared,
    /// A component `..`.
    Upwards,
}

impl TemplateError {
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::NoPath => "set it to a path such as \"/var/mail/{domain}/{local}\"",
            Self::Unbalanced => "close every brace that is opened",
            Self::Unknown(_) => "use {user}, {local}, {domain} or {home}",
            Self::HomeInside => "begin the path with {home}, or leave it out",
            Self::Shared => "put {user}, or {local} with {domain}, or {home} into the path",
            Self::Upwards => "write the path without \"..\"",
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath => f.write_str("is not a path"),
            Self::Unbalanced => f.write_str("has an unmatched brace"),
            Self::Unknown(name) => write!(f, "has {{{name}}}, which stands for nothing"),
            Self::HomeInside => f.write_str("has {home}, an absolute path, in its middle"),
            Self::Shared => f.write_str("gives every user the same maildrop"),
            Self::Upwards => f.write_str("leads upwards"),
        }
    }
}

/// Whether a template has a form that can be expanded.
pub(super) fn check(raw: &str) -> Result<(), TemplateError> {
    if raw.is_empty() || raw.contains('\0') {
        return Err(TemplateError::NoPath);
    }
    let mut rest = raw;
    let mut own = false;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..]
            .strip_prefix('{')
            .ok_or(TemplateError::Unbalanced)?;
        let end = inner.find('}').ok_or(TemplateError::Unbalanced)?;
        let name = &inner[..end];
        if name.contains('{') {
            return Err(TemplateError::Unbalanced);
        }
        if !NAMES.contains(&name) {
            return Err(TemplateError::Unknown(name.escape_debug().to_string()));
        }
        if name == "home" && (rest.len() != raw.len() || at != 0) {
            return Err(TemplateError::HomeInside);
        }
        own |= name != "domain";
        rest = &inner[end + 1..];
    }
    if !own {
        return Err(TemplateError::Shared);
    }
    if raw.split('/').any(|component| component == "..") {
        return Err(TemplateError::Upwards);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_the_documentation_pass() {
        for raw in [
            "/var/mail/{domain}/{local}",
            "mail/{user}",
            "{home}/Maildir",
            "/m/{user}/Maildir",
        ] {
            assert_eq!(check(raw), Ok(()), "{raw}");
        }
    }

    #[test]
    fn each_fault_is_told_apart() {
        let unknown = TemplateError::Unknown("name".into());
        for (raw, error) in [
            ("", TemplateError::NoPath),
            ("/m/{user", TemplateError::Unbalanced),
            ("/m/user}", TemplateError::Unbalanced),
            ("/m/{us{user}", TemplateError::Unbalanced),
            ("/m/{name}", unknown),
            ("/m/{home}", TemplateError::HomeInside),
            ("{user}{home}", TemplateError::HomeInside),
            ("/m/{domain}", TemplateError::Shared),
            ("/m/../{user}", TemplateError::Upwards),
        ] {
            assert_eq!(check(raw), Err(error), "{raw}");
        }
    }
}
