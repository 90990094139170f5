//! Bearer tokens: OAUTHBEARER (RFC 7628) and XOAUTH2, which Google made before it
//! (<https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>).
//!
//! Both say whose token it is and what it is, in one message. What has issued the token
//! knows whether that is true, and the answer comes from there; one that is refused is
//! told why, as an object in a challenge, and the client has to answer that with nothing
//! of worth before it hears that the login failed. Clients read the object to see that a
//! new token is wanted, not another password.
//!
//! A message without a name is refused: whose delays and limits would the login count
//! for? Every client of today gives one.

use serde_json::json;

use super::exchange::{Context, Fault, Next};
use super::mechanism::Mechanism;
use super::scram;
use crate::auth::{Credentials, Evidence, NameError, Token, TokenError};

/// What stands between the fields of a message.
const SEPARATOR: char = '\u{1}';

/// What a client is told whose token is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTerms {
    /// What tokens have to be good for, with spaces between; may be empty.
    pub scope: Box<str>,
    /// Where clients learn how to get a token: a document of `OpenID` Connect Discovery.
    pub configuration: Option<Box<str>>,
}

impl TokenTerms {
    /// The last challenge of an exchange with a token that was refused; none for
    /// mechanisms that have no token.
    pub fn refusal(&self, mechanism: Mechanism) -> Option<Vec<u8>> {
        let mut object = match mechanism {
            Mechanism::OauthBearer => json!({"status": "invalid_token"}),
            Mechanism::Xoauth2 => json!({"status": "401", "schemes": "Bearer"}),
            _ => return None,
        };
        if !self.scope.is_empty() {
            object["scope"] = (*self.scope).into();
        }
        if let Some(configuration) = &self.configuration
            && mechanism == Mechanism::OauthBearer
        {
            object["openid-configuration"] = (**configuration).into();
        }
        Some(object.to_string().into_bytes())
    }
}

/// `gs2-header kvsep *(key "=" value kvsep) kvsep` (RFC 7628, section 3.1)
pub(super) fn oauthbearer(message: &[u8], context: &Context<'_>) -> Result<Next, Fault> {
    let message = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
    let (header, fields) = message.split_once(SEPARATOR).ok_or(Fault::Malformed)?;
    let header = header.strip_suffix(',').ok_or(Fault::Malformed)?;
    let (flag, for_whom) = header.split_once(',').ok_or(Fault::Malformed)?;
    match flag {
        "n" | "y" => {}
        flag if flag.starts_with("p=") => return Err(Fault::Binding),
        _ => return Err(Fault::Malformed),
    }
    let name = match for_whom {
        "" => String::new(),
        named => scram::name(named.strip_prefix("a=").ok_or(Fault::Malformed)?)?,
    };
    verify(&name, token(fields)?, context)
}

/// `"user=" name kvsep "auth=Bearer " token kvsep kvsep`
pub(super) fn xoauth2(message: &[u8], context: &Context<'_>) -> Result<Next, Fault> {
    let message = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
    let (name, fields) = message.split_once(SEPARATOR).ok_or(Fault::Malformed)?;
    let name = name.strip_prefix("user=").ok_or(Fault::Malformed)?;
    verify(name, token(fields)?, context)
}

/// The token among fields of which each has a separator behind it, and the last of them
/// another. What else clients say, host and port among it, is of no use here.
fn token(fields: &str) -> Result<&str, Fault> {
    let fields = fields.strip_suffix(SEPARATOR).ok_or(Fault::Malformed)?;
    let fields = fields.strip_suffix(SEPARATOR).ok_or(Fault::Malformed)?;
    let mut token = None;
    for field in fields.split(SEPARATOR) {
        let (key, value) = field.split_once('=').ok_or(Fault::Malformed)?;
        if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_alphabetic()) {
            return Err(Fault::Malformed);
        }
        if key == "auth" && token.replace(value).is_some() {
            return Err(Fault::Malformed);
        }
    }
    let (scheme, token) = token
        .and_then(|it| it.split_once(' '))
        .ok_or(Fault::Malformed)?;
    // Names of schemes have no case (RFC 9110, section 11.1).
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Fault::Malformed);
    }
    Ok(token.trim_start_matches(' '))
}

fn verify(name: &str, token: &str, context: &Context<'_>) -> Result<Next, Fault> {
    if name.is_empty() {
        return Err(Fault::Name(NameError::Empty));
    }
    let identity = context.names.prepared(name.as_bytes(), b"");
    let token = Token::new(token).map_err(|error| match error {
        TokenError::TooLong => Fault::Token,
        TokenError::Malformed => Fault::Malformed,
    })?;
    Ok(Next::Verify(Credentials {
        identity: identity.map_err(Fault::Name)?,
        evidence: Evidence::Token(token),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::NameRules;
    use crate::limits;
    use crate::sasl::Exchange;

    fn respond(mechanism: Mechanism, message: &[u8]) -> Result<String, Fault> {
        let context = Context {
            names: &NameRules::default(),
            bindings: None,
            offers_binding: false,
            certificate: None,
        };
        match Exchange::begin(mechanism).respond(message, &context)? {
            Next::Verify(Credentials {
                identity,
                evidence: Evidence::Token(token),
            }) => {
                assert!(!format!("{token:?}").contains("vF9"));
                Ok(identity.user.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    const BEARER: Mechanism = Mechanism::OauthBearer;
    const GOOGLE: Mechanism = Mechanism::Xoauth2;

    /// The example of RFC 7628, section 4.1, and what clients leave out or add.
    #[test]
    fn oauthbearer_is_that_of_rfc_7628() {
        for message in [
            "n,a=user@example.com,\u{1}host=server.example.com\u{1}port=143\u{1}\
             auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\u{1}\u{1}",
            "n,a=user@example.com,\u{1}auth=Bearer vF9\u{1}\u{1}",
            "y,a=user@example.com,\u{1}auth=bearer vF9\u{1}qs=a=b\u{1}\u{1}",
        ] {
            assert_eq!(
                respond(BEARER, message.as_bytes()),
                Ok("user@example.com".into())
            );
        }
        let wrapped = respond(BEARER, b"n,a=a=2Cb=3Dc,\x01auth=Bearer vF9\x01\x01");
        assert_eq!(wrapped, Ok("a,b=c".into()));
    }

    #[test]
    fn xoauth2_is_that_of_google() {
        let message = b"user=someuser@example.com\x01auth=Bearer vF9.dft4\x01\x01";
        assert_eq!(respond(GOOGLE, message), Ok("someuser@example.com".into()));
    }

    #[test]
    fn messages_of_another_form_are_refused() {
        for message in [
            &b""[..],
            b"\x01",
            b"n,a=user,",
            b"n,a=user,\x01",
            b"n,a=user,\x01\x01",
            b"n,a=user,\x01auth=Bearer x\x01",
            b"n,a=user,\x01auth=Bearer x",
            b"n,a=user\x01auth=Bearer x\x01\x01",
            b"n,user,\x01auth=Bearer x\x01\x01",
            b"x,a=user,\x01auth=Bearer x\x01\x01",
            b"n,a=user,\x01auth=Basic x\x01\x01",
            b"n,a=user,\x01auth=Bearer\x01\x01",
            b"n,a=user,\x01auth=Bearer \x01\x01",
            b"n,a=user,\x01auth=Bearer a b\x01\x01",
            b"n,a=user,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
            b"n,a=user,\x01auth=Bearer x\x01\x01\x01",
            b"n,a=user,\x011=x\x01auth=Bearer x\x01\x01",
            b"n,a=u\xff,\x01auth=Bearer x\x01\x01",
            b"n,a=user=,\x01auth=Bearer x\x01\x01",
        ] {
            let fault = respond(BEARER, message);
            assert_eq!(fault, Err(Fault::Malformed), "{}", message.escape_ascii());
        }
        for message in [
            &b"user=x"[..],
            b"user=x\x01auth=Bearer x\x01",
            b"usr=x\x01auth=Bearer x\x01\x01",
            b"n,a=user,\x01auth=Bearer x\x01\x01",
        ] {
            let fault = respond(GOOGLE, message);
            assert_eq!(fault, Err(Fault::Malformed), "{}", message.escape_ascii());
        }
        let bound = respond(BEARER, b"p=tls-exporter,a=user,\x01auth=Bearer x\x01\x01");
        assert_eq!(bound, Err(Fault::Binding));
        let nobody = Err(Fault::Name(NameError::Empty));
        assert_eq!(respond(BEARER, b"n,,\x01auth=Bearer x\x01\x01"), nobody);
        assert_eq!(respond(GOOGLE, b"user=\x01auth=Bearer x\x01\x01"), nobody);
    }

    #[test]
    fn a_token_of_16_kib_is_taken_and_a_longer_one_is_not() {
        let message = |octets: usize| {
            let token = "x".repeat(octets);
            format!("n,a=user,\u{1}auth=Bearer {token}\u{1}\u{1}")
        };
        let longest = respond(BEARER, message(limits::TOKEN).as_bytes());
        assert_eq!(longest, Ok("user".into()));
        let longer = respond(BEARER, message(limits::TOKEN + 1).as_bytes());
        assert_eq!(longer, Err(Fault::Token));
    }

    #[test]
    fn a_refusal_is_the_object_that_clients_read() {
        let plain = TokenTerms::default();
        let told = |terms: &TokenTerms, mechanism| {
            let told = terms.refusal(mechanism).expect("an object");
            assert!(told.len() <= limits::CHALLENGE);
            String::from_utf8(told).expect("UTF-8")
        };
        assert_eq!(told(&plain, BEARER), r#"{"status":"invalid_token"}"#);
        assert_eq!(
            told(&plain, GOOGLE),
            r#"{"schemes":"Bearer","status":"401"}"#
        );
        let terms = TokenTerms {
            scope: "x".repeat(limits::TOKEN_SCOPE).into(),
            configuration: Some("y".repeat(limits::TOKEN_CONFIGURATION).into()),
        };
        assert!(told(&terms, BEARER).contains("\"openid-configuration\":\"yy"));
        assert!(told(&terms, GOOGLE).contains("\"scope\":\"xx"));
        assert_eq!(terms.refusal(Mechanism::Plain), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in "[a-z@.,=]{1,20}",
            token in "[A-Za-z0-9._~+/-]{1,60}={0,2}",
            more in "[a-z0-9.]{0,20}",
        ) {
            let wrapped = name.replace('=', "=3D").replace(',', "=2C");
            let message = format!("n,a={wrapped},\u{1}host={more}\u{1}auth=Bearer {token}\u{1}\u{1}");
            prop_assert_eq!(respond(BEARER, message.as_bytes()), Ok(name.clone()));
            let message = format!("user={name}\u{1}auth=Bearer {token}\u{1}\u{1}");
            prop_assert_eq!(respond(GOOGLE, message.as_bytes()), Ok(name));
        }

        #[test]
        fn any_message_is_taken_or_refused(message in prop::collection::vec(any::<u8>(), 0..80)) {
            for mechanism in [BEARER, GOOGLE] {
                if let Err(fault) = respond(mechanism, &message) {
                    prop_assert!(!fault.text().is_empty());
                }
            }
        }
    }
}
