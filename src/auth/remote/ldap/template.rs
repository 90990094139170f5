//! Filters and names of entries with `{user}` and the like in them.
//!
//! A value is escaped as its place wants it: in a filter by RFC 4515, in a distinguished
//! name by RFC 4514. So a name can neither widen a filter nor leave its place in a name.

use std::fmt;

use ldap3::{dn_escape, ldap_escape};

use crate::auth::UserName;

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapTemplate(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    User,
    Local,
    Domain,
}

/// Why a text is no template. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LdapTemplateError {
    /// What stands in braces is no placeholder, or a brace has no other half.
    Unknown(String),
    /// Neither `{user}` nor `{local}`: it would be the same for everybody.
    Everybody,
}

impl LdapTemplate {
    /// Takes the text apart.
    pub fn parse(text: &str) -> Result<Self, LdapTemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let unknown = || LdapTemplateError::Unknown(behind.to_owned());
            let (name, after) = behind.split_once('}').ok_or_else(unknown)?;
            pieces.push(Piece::Text(before.into()));
            pieces.push(match name {
                "user" => Piece::User,
                "local" => Piece::Local,
                "domain" => Piece::Domain,
                other => return Err(LdapTemplateError::Unknown(other.to_owned())),
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        if !pieces
            .iter()
            .any(|p| matches!(p, Piece::User | Piece::Local))
        {
            return Err(LdapTemplateError::Everybody);
        }
        Ok(Self(pieces.into()))
    }

    /// The filter for a user; nothing where the name is no text.
    pub(super) fn filter(&self, name: &UserName) -> Option<String> {
        self.fill(name, |value| ldap_escape(value).into_owned())
    }

    /// The entry's name for a user.
    pub(super) fn entry(&self, name: &UserName) -> Option<String> {
        self.fill(name, |value| dn_escape(value).into_owned())
    }

    fn fill(&self, name: &UserName, escape: impl Fn(&str) -> String) -> Option<String> {
        let mut filled = String::new();
        for piece in &self.0 {
            let octets = match piece {
                Piece::Text(text) => {
                    filled.push_str(text);
                    continue;
                }
                Piece::User => name.as_bytes(),
                Piece::Local => name.local(),
                Piece::Domain => name.domain().unwrap_or_default(),
            };
            filled.push_str(&escape(str::from_utf8(octets).ok()?));
        }
        Some(filled)
    }
}

impl fmt::Display for LdapTemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "\"{{{}\" is no placeholder; write {{user}}, {{local}} or {{domain}}",
                name.escape_debug()
            ),
            Self::Everybody => f.write_str(
                "it is the same for every user; write {user} or {local} where the name belongs",
            ),
        }
    }
}

impl std::error::Error for LdapTemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_place() {
        let name = |text: &str| UserName::new(text.as_bytes()).expect("a name");
        let filter = LdapTemplate::parse("(&(uid={local})(d={domain}))").expect("a template");
        let made = filter.filter(&name("*)(uid=*)@x\\y")).expect("text");
        assert_eq!(made, "(&(uid=\\2a\\29\\28uid=\\2a\\29)(d=x\\5cy))");
        let entry = LdapTemplate::parse("uid={user},ou=people").expect("a template");
        let made = entry.entry(&name("joe,ou=admins+x")).expect("text");
        assert_eq!(made, "uid=joe\\2cou\\3dadmins\\2bx,ou=people");
        assert_eq!(
            filter.filter(&UserName::new(b"j\xff").expect("a name")),
            None
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["(uid={name})", "(uid={user)", "(uid=joe)", "(d={domain})"] {
            assert!(LdapTemplate::parse(text).is_err(), "{text}");
        }
    }
}
