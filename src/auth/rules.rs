//! What becomes of a name before anybody looks it up.
//!
//! All users are looked up, cached, counted and logged by the name that comes out here,
//! so that `Ann` and `ann@example.net` are one user wherever the operator says so.

use super::{Identity, NameError, UserName};

/// What the operator says of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// ASCII letters become small ones.
    pub lowercase: bool,
    /// What a name without `@` gets behind it.
    pub default_domain: Option<Box<str>>,
    /// The characters that a name may have; `None`: all but control characters.
    pub allowed: Option<Box<str>>,
    /// How a master user names the user whose maildrop is wanted; `None`: there is no
    /// master user.
    pub master: Option<MasterForm>,
}

/// The form of a name of two: that of a master user and that of whose maildrop is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterForm {
    /// What stands between them.
    pub separator: char,
    /// Whether the master user comes first.
    pub master_first: bool,
}

impl NameRules {
    /// One name, as somebody gave it.
    pub fn name(&self, given: &[u8]) -> Result<UserName, NameError> {
        if let Some(allowed) = &self.allowed {
            let given = std::str::from_utf8(given).map_err(|_| NameError::Forbidden)?;
            if given.chars().any(|character| !allowed.contains(character)) {
                return Err(NameError::Forbidden);
            }
        }
        let domain = match &self.default_domain {
            Some(domain) if !given.is_empty() && !given.contains(&b'@') => {
                ["@", domain].concat().into_bytes()
            }
            _ => Vec::new(),
        };
        let mut name = [given, &domain].concat();
        if self.lowercase {
            name.make_ascii_lowercase();
        }
        UserName::new(&name)
    }

    /// The one name that USER and LOGIN have room for, which may be that of two.
    pub fn identity(&self, given: &[u8]) -> Result<Identity, NameError> {
        let Some((user, for_whom)) = self.master.and_then(|form| form.split(given)) else {
            return self.name(given).map(Identity::own);
        };
        Ok(Identity {
            user: self.name(user)?,
            acts_for: Some(self.name(for_whom)?),
        })
    }

    /// The two names of mechanisms that prepare them for comparison (`SASLprep`,
    /// RFC 4013), of which the second may be empty.
    pub fn prepared(&self, user: &[u8], for_whom: &[u8]) -> Result<Identity, NameError> {
        let prepare = |name| {
            let name = std::str::from_utf8(name).map_err(|_| NameError::Unprepared)?;
            stringprep::saslprep(name).map_err(|_| NameError::Unprepared)
        };
        // What is ASCII stays as it is, and says better by itself what is wrong with it.
        let identity = if user.is_ascii() {
            self.identity(user)?
        } else {
            self.identity(prepare(user)?.as_bytes())?
        };
        if for_whom.is_empty() {
            return Ok(identity);
        }
        let for_whom = if for_whom.is_ascii() {
            self.name(for_whom)?
        } else {
            self.name(prepare(for_whom)?.as_bytes())?
        };
        if for_whom == *identity.owner() {
            return Ok(identity);
        }
        if identity.acts_for.is_some() || self.master.is_none() {
            return Err(NameError::NoMaster);
        }
        let acts_for = Some(for_whom);
        Ok(Identity {
            acts_for,
            ..identity
        })
    }
}

impl MasterForm {
    /// `{master}*{user}`, or the other way round, with any one character between that is
    /// neither a letter nor a digit nor one that names are full of.
    pub fn parse(text: &str) -> Option<Self> {
        let (separator, master_first) = if let Some(rest) = text.strip_prefix("{master}") {
            (rest.strip_suffix("{user}")?, true)
        } else {
            let rest = text.strip_prefix("{user}")?;
            (rest.strip_suffix("{master}")?, false)
        };
        let mut characters = separator.chars();
        let separator = characters.next()?;
        let fits = separator.is_ascii_punctuation() && !"@.-_".contains(separator);
        (fits && characters.next().is_none()).then_some(Self {
            separator,
            master_first,
        })
    }

    /// The master user, and for whom.
    fn split(self, given: &[u8]) -> Option<(&[u8], &[u8])> {
        let at = given
            .iter()
            .position(|octet| char::from(*octet) == self.separator)?;
        let (first, second) = (&given[..at], &given[at + 1..]);
        Some(if self.master_first {
            (first, second)
        } else {
            (second, first)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(rules: &NameRules, given: &str) -> Result<String, NameError> {
        rules.name(given.as_bytes()).map(|name| name.to_string())
    }

    fn with_masters(form: &str) -> NameRules {
        NameRules {
            master: Some(MasterForm::parse(form).expect("a form")),
            ..NameRules::default()
        }
    }

    fn pair(found: Result<Identity, NameError>) -> Result<(String, Option<String>), NameError> {
        found.map(|identity| {
            let acts_for = identity.acts_for.map(|name| name.to_string());
            (identity.user.to_string(), acts_for)
        })
    }

    #[test]
    fn without_rules_a_name_is_what_was_given() {
        let rules = NameRules::default();
        for given in ["ann", "Ann@Example.net", "a*b", "ä", "a b"] {
            assert_eq!(name(&rules, given), Ok(given.to_owned()));
        }
        assert_eq!(name(&rules, ""), Err(NameError::Empty));
    }

    #[test]
    fn rules_make_one_name_of_several() {
        let rules = NameRules {
            lowercase: true,
            default_domain: Some("Example.net".into()),
            allowed: Some("abcdefghijklmnopqrstuvwxyzAN@.E".into()),
            master: None,
        };
        for given in ["ann", "Ann", "ANn@Example.net", "ann@example.net"] {
            assert_eq!(name(&rules, given), Ok("ann@example.net".into()));
        }
        assert_eq!(name(&rules, "ann@other.org"), Ok("ann@other.org".into()));
        for forbidden in ["an n", "ann*", "BOB", "änn", "ann%"] {
            let found = name(&rules, forbidden);
            assert_eq!(found, Err(NameError::Forbidden), "{forbidden}");
        }
        assert_eq!(name(&rules, ""), Err(NameError::Empty));
        let long = "a".repeat(crate::limits::USER_NAME);
        assert_eq!(name(&rules, &long), Err(NameError::TooLong));
    }

    #[test]
    fn a_master_user_stands_where_the_form_says() {
        let two = |user: &str, owner: &str| Ok((user.to_owned(), Some(owner.to_owned())));
        let rules = with_masters("{master}*{user}");
        assert_eq!(pair(rules.identity(b"root*ann@x")), two("root", "ann@x"));
        assert_eq!(pair(rules.identity(b"ann@x")), Ok(("ann@x".into(), None)));
        assert_eq!(pair(rules.identity(b"root*")), Err(NameError::Empty));
        assert_eq!(pair(rules.identity(b"*ann")), Err(NameError::Empty));
        let rules = with_masters("{user}/{master}");
        assert_eq!(pair(rules.identity(b"ann@x/root")), two("root", "ann@x"));
        for bad in [
            "",
            "*",
            "{master}{user}",
            "{master}**{user}",
            "{master}a{user}",
            "{master}@{user}",
            "{user}*{user}",
            "{master}*{user} ",
        ] {
            assert_eq!(MasterForm::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_user_may_be_wanted_where_there_are_masters_alone() {
        let nobody = NameRules::default();
        let masters = with_masters("{master}*{user}");
        let own = Ok(("ann".to_owned(), None));
        for rules in [&nobody, &masters] {
            assert_eq!(pair(rules.prepared(b"ann", b"")), own);
            assert_eq!(pair(rules.prepared(b"ann", b"ann")), own);
        }
        let refused = Err(NameError::NoMaster);
        assert_eq!(pair(nobody.prepared(b"root", b"ann")), refused);
        let two = Ok(("root".to_owned(), Some("ann".to_owned())));
        for (user, for_whom) in [("root", "ann"), ("root*ann", ""), ("root*ann", "ann")] {
            let found = masters.prepared(user.as_bytes(), for_whom.as_bytes());
            assert_eq!(pair(found), two, "{user} {for_whom}");
        }
        assert_eq!(pair(masters.prepared(b"root*ann", b"bob")), refused);
    }

    #[test]
    fn names_are_prepared_for_comparison() {
        let rules = NameRules::default();
        let found = rules.prepared("\u{2168}\u{ad}".as_bytes(), b"");
        assert_eq!(pair(found), Ok(("IX".into(), None)));
        for bad in [&b"\xff"[..], "\u{627}1".as_bytes(), "\u{e000}".as_bytes()] {
            let found = pair(rules.prepared(bad, b""));
            assert_eq!(found, Err(NameError::Unprepared), "{bad:?}");
        }
        assert_eq!(pair(rules.prepared(b"a\x07", b"")), Err(NameError::Control));
    }

    proptest! {
        #[test]
        fn what_comes_out_stays_what_it_is(given in "[A-Za-z0-9.@*-]{1,40}") {
            let rules = NameRules {
                lowercase: true,
                default_domain: Some("example.net".into()),
                ..NameRules::default()
            };
            let once = rules.name(given.as_bytes()).expect("a name");
            prop_assert_eq!(rules.name(once.as_bytes()), Ok(once.clone()));
        }
    }
}
