//! Where a user's maildrop lies: `/var/mail/{domain}/{local}`.
//!
//! The user's name comes from the network, so what it becomes is checked before
//! any file is touched, component by component: a value that is empty, begins
//! with a dot, or holds a slash, NUL or another control character is refused, not
//! mended. So an expanded path always lies below the template's fixed beginning,
//! whatever the name was. `{home}` comes from the operator's own directory; it
//! stands first or not at all, and must be absolute and without `..`.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::auth::UserName;
use crate::limits;

/// A path with places for parts of the user's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    below_home: bool,
    pieces: Box<[Piece]>,
    /// The folder that the first placeholder is in, where that is the same for all.
    top: Option<Arc<Path>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    User,
    Local,
    Domain,
}

impl Template {
    /// Reads the value of `maildrop.path`: absolute, or beginning with `{home}`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (below_home, mut rest) = match text.strip_prefix("{home}") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => (true, rest),
            _ => (false, text),
        };
        if !below_home && !rest.starts_with('/') && !rest.starts_with("{home}") {
            return Err(TemplateError::Relative);
        }
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let open = rest.find('{').unwrap_or(rest.len());
            let (literal, tail) = rest.split_at(open);
            if !literal.is_empty() {
                if literal.contains(['}', '\0']) {
                    return Err(TemplateError::Stray);
                }
                pieces.push(Piece::Literal(literal.into()));
            }
            let Some(tail) = tail.strip_prefix('{') else {
                break;
            };
            let (name, tail) = tail.split_once('}').ok_or(TemplateError::Stray)?;
            pieces.push(match name {
                "user" => Piece::User,
                "local" => Piece::Local,
                "domain" => Piece::Domain,
                "home" => return Err(TemplateError::HomeNotFirst),
                other => return Err(TemplateError::Unknown(other.to_owned())),
            });
            rest = tail;
        }
        if text
            .split('/')
            .any(|component| [".", ".."].contains(&component))
        {
            return Err(TemplateError::Dots);
        }
        let named = pieces.iter().any(|p| !matches!(p, Piece::Literal(_)));
        if !below_home && !named {
            return Err(TemplateError::SameForAll);
        }
        let top = match pieces.first() {
            Some(Piece::Literal(text)) if !below_home => {
                let folder = text.rsplit_once('/').map_or("", |(folder, _)| folder);
                Some(if folder.is_empty() { "/" } else { folder })
            }
            _ => None,
        };
        Ok(Self {
            below_home,
            top: top.map(|top| Path::new(top).into()),
            pieces: pieces.into(),
        })
    }

    /// The folder that the first placeholder is in, unless that is `{home}`. What is not
    /// the operator's to make begins below it.
    pub fn top(&self) -> Option<&Arc<Path>> {
        self.top.as_ref()
    }

    /// The folder that all paths lie below, unless that is a user's home or the
    /// root of the file system.
    pub fn beginning(&self) -> Option<PathBuf> {
        let top = self.top.as_deref()?;
        top.parent().is_some().then(|| top.to_owned())
    }

    /// The maildrop's path for one user. Touches no file.
    pub fn expand(&self, user: &UserName, home: Option<&Path>) -> Result<PathBuf, NameError> {
        let user = user.as_bytes();
        let at = memchr::memrchr(b'@', user);
        let local = &user[..at.unwrap_or(user.len())];
        let domain = at.map(|at| &user[at + 1..]);
        let mut path = if self.below_home {
            checked_home(home)?.as_os_str().as_bytes().to_owned()
        } else {
            Vec::new()
        };
        for piece in &self.pieces {
            let value = match piece {
                Piece::Literal(text) => text.as_bytes(),
                Piece::User => checked(user)?,
                Piece::Local => checked(local)?,
                Piece::Domain => checked(domain.ok_or(NameError::NoDomain)?)?,
            };
            path.extend_from_slice(value);
        }
        let longest = path.split(|byte| *byte == b'/').map(<[u8]>::len).max();
        if path.len() > limits::MAILDROP_PATH || longest > Some(limits::FILE_NAME) {
            return Err(NameError::TooLong);
        }
        Ok(PathBuf::from(OsStr::from_bytes(&path)))
    }
}

fn checked(value: &[u8]) -> Result<&[u8], NameError> {
    match value {
        [] => Err(NameError::Empty),
        [b'.', ..] => Err(NameError::LeadingDot),
        _ if value.len() > limits::FILE_NAME => Err(NameError::TooLong),
        _ if value.contains(&b'/') => Err(NameError::Slash),
        _ if value.iter().any(u8::is_ascii_control) => Err(NameError::Control),
        _ => Ok(value),
    }
}

fn checked_home(home: Option<&Path>) -> Result<&Path, NameError> {
    let home = home.ok_or(NameError::NoHome)?;
    let up = home.components().any(|part| part == Component::ParentDir);
    if !home.is_absolute() || up || home.as_os_str().as_bytes().contains(&0) {
        return Err(NameError::BadHome);
    }
    Ok(home)
}

/// What is wrong with `maildrop.path`: the operator's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It does not begin at the root or at the user's home.
    Relative,
    /// A brace without its partner, or a NUL.
    Stray,
    /// A placeholder that does not exist.
    Unknown(String),
    /// `{home}` elsewhere than first.
    HomeNotFirst,
    /// A component `.` or `..`.
    Dots,
    /// No placeholder: all users would share one maildrop.
    SameForAll,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative => f.write_str("the path must begin with `/` or `{home}`"),
            Self::Stray => f.write_str("a `{` or `}` has no partner; write `{user}`, for example"),
            Self::Unknown(name) => write!(
                f,
                "there is no {{{name}}}: use {{user}}, {{local}}, {{domain}} or {{home}}"
            ),
            Self::HomeNotFirst => {
                f.write_str("{home} is a whole path: it must stand first, with `/` or the end next")
            }
            Self::Dots => f.write_str("a component `.` or `..` is not allowed: write the path out"),
            Self::SameForAll => f.write_str(
                "the path has no placeholder, so all users would share one maildrop: add {user}",
            ),
        }
    }
}

impl Error for TemplateError {}

/// Why a user has no path; nothing was touched to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// A part of the name that the template needs is empty.
    Empty,
    /// A part begins with a dot.
    LeadingDot,
    /// A part holds a slash.
    Slash,
    /// A part holds NUL or another control character.
    Control,
    /// A component or the path would be too long for the system.
    TooLong,
    /// The template needs {domain} and the name has no `@`.
    NoDomain,
    /// The template needs {home} and the directory gives none.
    NoHome,
    /// The home is not an absolute path without `..`.
    BadHome,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a part of the user name that maildrop.path needs is empty",
            Self::LeadingDot => "a part of the user name begins with a dot, which is refused",
            Self::Slash => "the user name holds a slash, which is refused",
            Self::Control => "the user name holds a control character, which is refused",
            Self::TooLong => "the user name makes a path too long for the system",
            Self::NoDomain => {
                "maildrop.path needs {domain} and the user name has no `@`: have users log in \
                 as user@domain, or use {user} instead"
            }
            Self::NoHome => {
                "maildrop.path needs {home} and the user's directory entry has none: add one, \
                 or use {user} instead"
            }
            Self::BadHome => "the user's home must be an absolute path without `..`",
        })
    }
}

impl Error for NameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(name: &[u8]) -> UserName {
        UserName::new(name).expect("a name")
    }

    fn expand(template: &str, name: &[u8]) -> Result<PathBuf, NameError> {
        let template = Template::parse(template).expect("a template");
        template.expand(&user(name), Some(Path::new("/home/ann")))
    }

    #[test]
    fn parts_of_the_name_go_where_the_template_says() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("/m/{user}", b"ann@ex.org", "/m/ann@ex.org"),
            ("/m/{domain}/{local}", b"ann@ex.org", "/m/ex.org/ann"),
            ("/m/{domain}/{local}", b"a@b@ex.org", "/m/ex.org/a@b"),
            ("/m/{local}", b"ann", "/m/ann"),
            ("{home}/Maildir", b"ann", "/home/ann/Maildir"),
            ("{home}", b"ann", "/home/ann"),
        ];
        for (template, name, path) in cases {
            assert_eq!(
                expand(template, name),
                Ok(PathBuf::from(path)),
                "{template}"
            );
        }
    }

    #[test]
    fn names_that_try_to_leave_are_refused() {
        let long = [b'a'; limits::FILE_NAME];
        let cases: [(&[u8], NameError); 7] = [
            (b"..", NameError::LeadingDot),
            (b".", NameError::LeadingDot),
            (b".hidden", NameError::LeadingDot),
            (b"../../etc", NameError::LeadingDot),
            (b"a/../../etc", NameError::Slash),
            (b"/etc/passwd", NameError::Slash),
            (b"@ex.org", NameError::Empty),
        ];
        for (name, error) in cases {
            assert_eq!(expand("/m/{local}", name), Err(error));
        }
        assert!(expand("/m/{local}", &long).is_ok());
        assert_eq!(expand("/m/x{local}", &long), Err(NameError::TooLong));
    }

    #[test]
    fn a_domain_or_home_that_is_needed_must_be_there() {
        assert_eq!(
            expand("/m/{domain}/{local}", b"ann"),
            Err(NameError::NoDomain)
        );
        assert_eq!(
            expand("/m/{domain}/{local}", b"ann@"),
            Err(NameError::Empty)
        );
        let below_home = Template::parse("{home}/Maildir").expect("a template");
        assert_eq!(
            below_home.expand(&user(b"ann"), None),
            Err(NameError::NoHome)
        );
        for home in ["home", "", "/home/../etc"] {
            let expanded = below_home.expand(&user(b"ann"), Some(Path::new(home)));
            assert_eq!(expanded, Err(NameError::BadHome));
        }
    }

    #[test]
    fn a_template_begins_above_its_first_placeholder() {
        let beginning = |text| {
            let template = Template::parse(text).expect("a template");
            template.beginning().map(|path| path.display().to_string())
        };
        let told = |path: &str| Some(path.to_owned());
        assert_eq!(beginning("/var/mail/{domain}/{local}"), told("/var/mail"));
        assert_eq!(beginning("/var/mail/m-{local}/box"), told("/var/mail"));
        assert_eq!(beginning("{home}/Maildir"), None);
        assert_eq!(beginning("{home}/{user}"), None);
        assert_eq!(beginning("/{user}"), None);
        assert_eq!(beginning("/m-{user}/x"), None);
    }

    #[test]
    fn templates_that_cannot_work_are_refused() {
        let cases = [
            ("mail/{user}", TemplateError::Relative),
            ("", TemplateError::Relative),
            ("/m/{user", TemplateError::Stray),
            ("/m/user}", TemplateError::Stray),
            ("/m/{usr}", TemplateError::Unknown("usr".to_owned())),
            ("/m/{home}", TemplateError::HomeNotFirst),
            ("{home}x/{user}", TemplateError::HomeNotFirst),
            ("/m/../{user}", TemplateError::Dots),
            ("/var/mail", TemplateError::SameForAll),
        ];
        for (text, error) in cases {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_expanded_path_is_below_the_fixed_prefix(
            name in prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..40),
                "[./@a\\\\~%-]{1,12}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 250..1_100),
            ],
            template in prop_oneof![
                Just("/fixed/{user}"), Just("/fixed/{domain}/{local}"), Just("/fixed/{local}{domain}"),
                Just("/fixed/.{user}"), Just("/fixed/.{local}./{domain}/Maildir"),
            ],
        ) {
            let Ok(user) = UserName::new(&name) else { return Ok(()) };
            let template = Template::parse(template).expect("a template");
            if let Ok(path) = template.expand(&user, None) {
                // By hand, so that not even a `.` is forgiven.
                let bytes = path.as_os_str().as_bytes();
                let rest = bytes.strip_prefix(b"/fixed/").expect("below the prefix");
                for component in rest.split(|byte| *byte == b'/') {
                    let dots: [&[u8]; 3] = [b"", b".", b".."];
                    prop_assert!(!dots.contains(&component));
                    prop_assert!(component.len() <= limits::FILE_NAME);
                }
                prop_assert!(!bytes.contains(&0));
            }
        }
    }
}
