//! What a token says of itself, whoever vouches for that: the members of a JWT (RFC 7519,
//! section 4.1) or of an answer about a token (RFC 7662, section 2.2).
//!
//! Pure: time is an argument. A claim of another type than it is to have is as wrong as
//! one of another value.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::OauthOptions;
use crate::auth::UserName;

/// What a token says of itself.
pub(super) type Claims = Map<String, Value>;

/// Octets of a claim that the log shows.
const SHOWN: usize = 80;

/// Why a token that its issuer vouches for does not log its bearer in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It has no such claim, or one of another type.
    Without(&'static str),
    /// It was good until so long ago.
    Expired(Duration),
    /// It will be good in so long.
    Early(Duration),
    /// Somebody else has issued it.
    Issuer(String),
    /// It is for others.
    Audience(String),
    /// It is not good for this.
    Scope(Box<str>),
    /// It names nobody, by this claim.
    Nameless(Box<str>),
    /// It is another user's.
    Another(String),
    /// Nobody says that the address in it was verified.
    Unverified,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without(claim) => write!(f, "its {claim:?} is missing or of the wrong type"),
            Self::Expired(ago) => write!(f, "it expired {} s ago", ago.as_secs()),
            Self::Early(left) => write!(f, "it is good in {} s only", left.as_secs()),
            Self::Issuer(other) => write!(f, "its \"iss\" is {other}"),
            Self::Audience(others) => write!(f, "its \"aud\" is {others}"),
            Self::Scope(missing) => write!(f, "its scope lacks {missing:?}"),
            Self::Nameless(claim) => write!(f, "its {claim:?} names no user"),
            Self::Another(user) => write!(f, "it is that of {user}"),
            Self::Unverified => f.write_str("its \"email_verified\" is not true"),
        }
    }
}

impl OauthOptions {
    /// Whether a token with these claims logs this user in; if so, for how long, where it
    /// says that.
    pub(super) fn judge(
        &self,
        claims: &Claims,
        user: &UserName,
        now: SystemTime,
    ) -> Result<Option<Duration>, Unfit> {
        if let Some(issuer) = &self.issuer {
            let is_it = claims.get("iss").and_then(Value::as_str) == Some(issuer);
            if !is_it {
                return Err(Unfit::Issuer(shown(claims.get("iss"))));
            }
        }
        if !self.audience.is_empty() {
            let found = claims.get("aud");
            let is_ours = |text: &str| self.audience.iter().any(|ours| **ours == *text);
            if !texts(found).any(is_ours) {
                return Err(Unfit::Audience(shown(found)));
            }
        }
        let left = self.time_left(claims, now)?;
        // `scp` is what Microsoft and Okta call it.
        let scope = claims.get("scope").or_else(|| claims.get("scp"));
        for wanted in self.scope.split(' ').filter(|wanted| !wanted.is_empty()) {
            let mut granted = texts(scope).flat_map(|text| text.split(' '));
            if !granted.any(|granted| granted == wanted) {
                return Err(Unfit::Scope(wanted.into()));
            }
        }
        self.is_of(claims, user)?;
        Ok(left)
    }

    /// How long the token is good, by its own word and the leeway.
    fn time_left(&self, claims: &Claims, now: SystemTime) -> Result<Option<Duration>, Unfit> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(begins) = date(claims, "nbf")?
            && begins > now + self.leeway
        {
            return Err(Unfit::Early(begins.saturating_sub(now)));
        }
        let Some(ends) = date(claims, "exp")? else {
            return if self.source.wants_an_end() {
                Err(Unfit::Without("exp"))
            } else {
                Ok(None)
            };
        };
        match (ends.saturating_add(self.leeway)).checked_sub(now) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(Unfit::Expired(now.saturating_sub(ends))),
        }
    }

    /// Whether the user is the one whom the token names.
    fn is_of(&self, claims: &Claims, user: &UserName) -> Result<(), Unfit> {
        let named = claims.get(&*self.user_claim).and_then(Value::as_str);
        let named = named.and_then(|name| self.names.name(name.as_bytes()).ok());
        let named = named.ok_or_else(|| Unfit::Nameless(self.user_claim.clone()))?;
        if named != *user {
            return Err(Unfit::Another(named.to_string()));
        }
        // Whoever may write any address into a profile would be anybody: of an issuer that
        // does not say so it is not known that users may not (OpenID Connect Core 1.0,
        // section 5.7, and what became of it where tenants have administrators of their own).
        let verified = claims.get("email_verified");
        let is_verified = |value: &Value| value == &Value::Bool(true) || value == "true";
        if &*self.user_claim == "email" && !verified.is_some_and(is_verified) {
            return Err(Unfit::Unverified);
        }
        Ok(())
    }
}

/// A `NumericDate` (RFC 7519, section 2): seconds, perhaps with a fraction. One before
/// 1970 is 1970.
fn date(claims: &Claims, name: &'static str) -> Result<Option<Duration>, Unfit> {
    let Some(value) = claims.get(name).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    let seconds = value.as_f64().ok_or(Unfit::Without(name))?;
    let date = Duration::try_from_secs_f64(seconds.max(0.0));
    date.map(Some).map_err(|_| Unfit::Without(name))
}

/// A text, or those of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let several = value.and_then(Value::as_array).map_or(&[][..], |list| list);
    value
        .and_then(Value::as_str)
        .into_iter()
        .chain(several.iter().filter_map(Value::as_str))
}

/// A claim for the log: short, and without what a terminal would obey.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "missing".to_owned();
    };
    let text: String = value.to_string().escape_debug().take(SHOWN).collect();
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::{by_introspection, by_keys};
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn judge(options: &OauthOptions, claims: &Value, user: &str) -> Result<Option<u64>, Unfit> {
        let user = UserName::new(user.as_bytes()).expect("a name");
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let claims = claims.as_object().expect("an object");
        let left = options.judge(claims, &user, now)?;
        Ok(left.map(|left| left.as_secs()))
    }

    fn good() -> Value {
        json!({
            "iss": "https://issuer.example", "aud": "popcore", "exp": NOW + 600,
            "scope": "openid mail", "email": "Ann@Example.net", "sub": "4711",
            "email_verified": true,
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = good();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    }

    #[test]
    fn a_good_token_is_good_until_its_end_and_the_leeway() {
        let options = by_keys();
        let ann = "ann@example.net";
        assert_eq!(judge(&options, &good(), ann), Ok(Some(630)));
        for (name, value) in [
            ("aud", json!(["other", "popcore"])),
            ("nbf", json!(NOW + 30)),
            ("nbf", json!(NOW - 1)),
            ("scope", json!("mail")),
            ("scope", json!(["mail", "x"])),
            ("email_verified", json!("true")),
        ] {
            let said = judge(&options, &with(name, value), ann);
            assert_eq!(said, Ok(Some(630)), "{name}");
        }
        let mut other = without("scope");
        other["scp"] = json!("mail");
        assert_eq!(judge(&options, &other, ann), Ok(Some(630)));
        assert_eq!(
            judge(&options, &with("exp", json!(NOW - 29)), ann),
            Ok(Some(1))
        );
        let fraction = with(
            "exp",
            serde_json::from_str("1800000000.5").expect("a number"),
        );
        assert_eq!(judge(&options, &fraction, ann), Ok(Some(30)));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let options = by_keys();
        let expired = |ago| Unfit::Expired(Duration::from_secs(ago));
        let other = || Unfit::Issuer("\\\"https://other.example\\\"".into());
        for (claims, why) in [
            (with("exp", json!(NOW - 30)), expired(30)),
            (with("exp", json!(-5)), expired(NOW)),
            (with("exp", json!("2027-01-01")), Unfit::Without("exp")),
            (with("exp", Value::Null), Unfit::Without("exp")),
            (with("exp", json!(1e300)), Unfit::Without("exp")),
            (without("exp"), Unfit::Without("exp")),
            (
                with("nbf", json!(NOW + 31)),
                Unfit::Early(Duration::from_secs(31)),
            ),
            (with("nbf", json!("x")), Unfit::Without("nbf")),
            (with("iss", json!("https://other.example")), other()),
            (without("iss"), Unfit::Issuer("missing".into())),
            (with("iss", json!(["https://issuer.example"])), {
                Unfit::Issuer("[\\\"https://issuer.example\\\"]".into())
            }),
            (
                with("aud", json!("popcore2")),
                Unfit::Audience("\\\"popcore2\\\"".into()),
            ),
            (with("aud", json!([])), Unfit::Audience("[]".into())),
            (without("aud"), Unfit::Audience("missing".into())),
            (
                with("scope", json!("openid mails")),
                Unfit::Scope("mail".into()),
            ),
            (without("scope"), Unfit::Scope("mail".into())),
            (without("email"), Unfit::Nameless("email".into())),
            (with("email", json!(7)), Unfit::Nameless("email".into())),
            (with("email", json!("")), Unfit::Nameless("email".into())),
            (
                with("email", json!("bob@x")),
                Unfit::Another("bob@x".into()),
            ),
            (with("email_verified", json!(false)), Unfit::Unverified),
            (with("email_verified", Value::Null), Unfit::Unverified),
            (without("email_verified"), Unfit::Unverified),
            (with("email_verified", json!("false")), Unfit::Unverified),
        ] {
            assert_eq!(
                judge(&options, &claims, "ann@example.net"),
                Err(why),
                "{claims}"
            );
        }
    }

    /// Another claim is one that the issuer gives out.
    #[test]
    fn only_an_address_has_to_be_verified() {
        let options = OauthOptions {
            user_claim: "sub".into(),
            ..by_keys()
        };
        for claims in [
            without("email_verified"),
            with("email_verified", json!(false)),
        ] {
            assert_eq!(judge(&options, &claims, "4711"), Ok(Some(630)));
        }
    }

    #[test]
    fn who_has_asked_may_be_told_less() {
        let options = by_introspection();
        let said = json!({"active": true, "username": "ann", "scope": "mail"});
        assert_eq!(judge(&options, &said, "ann"), Ok(None));
        let ends =
            json!({"username": "ann", "scope": "mail", "exp": NOW + 5, "email_verified": false});
        assert_eq!(judge(&options, &ends, "ann"), Ok(Some(35)));
    }

    #[test]
    fn what_is_logged_is_short_and_tame() {
        let evil = json!("\u{1b}[2J\n".repeat(200));
        let text = Unfit::Audience(shown(Some(&evil))).to_string();
        assert!(
            text.len() < 2 * SHOWN && !text.contains(char::is_control),
            "{text}"
        );
    }

    proptest! {
        /// Whatever its times are, a token lets nobody in outside of them.
        #[test]
        fn nobody_comes_too_soon_or_too_late(begins in 0..2 * NOW, ends in 0..2 * NOW) {
            let mut claims = with("exp", json!(ends));
            claims["nbf"] = json!(begins);
            let is_in = judge(&by_keys(), &claims, "ann@example.net");
            prop_assert_eq!(is_in.is_ok(), begins <= NOW + 30 && ends + 30 > NOW);
        }
    }
}
