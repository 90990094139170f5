//! One exchange, from its mechanism to a question for the directories of users.

use crate::auth::{
    Credentials, Evidence, Identity, NameError, NameRules, Password, Proved, Refusal, ScramQuestion,
};

use super::scram::{Asking, First, Proof};
use super::{Bindings, Mechanism, bearer};

/// An exchange that waits for the client's response.
#[derive(Debug)]
pub enum Exchange {
    /// PLAIN: its one response.
    Plain,
    /// LOGIN: the name.
    LoginName,
    /// LOGIN: the password of this user.
    LoginPassword(Identity),
    /// EXTERNAL: for whom.
    External,
    /// OAUTHBEARER: its one message.
    OauthBearer,
    /// XOAUTH2: its one message.
    Xoauth2,
    /// SCRAM: the client's first message.
    ScramFirst(First),
    /// SCRAM: its proof.
    ScramProof(Box<Proof>),
    /// SCRAM: nothing more than an empty response to ours.
    ScramEnd(Result<Proved, Refusal>),
}

/// What is known of a connection and its users.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What becomes of names.
    pub names: &'a NameRules,
    /// What the connection can be bound to.
    pub bindings: Option<&'a Bindings>,
    /// SCRAM with channel binding is offered on this connection.
    pub offers_binding: bool,
    /// The name that the client's certificate vouches for.
    pub certificate: Option<&'a str>,
}

/// What comes after a response.
#[derive(Debug)]
pub enum Next {
    /// This is sent, and the response to it handed to the exchange.
    Challenge(Exchange, Vec<u8>),
    /// Whether these are right is to be asked.
    Verify(Credentials),
    /// What is stored for SCRAM is to be asked, and told to [`Asking::found`].
    Find(ScramQuestion, Asking),
    /// It is known whether the user logs in.
    Decided(Result<Proved, Refusal>),
}

/// What the client got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The response has not the form that the mechanism wants.
    Malformed,
    /// The name cannot be one.
    Name(NameError),
    /// The password is longer than any can be.
    Password,
    /// The token is longer than any can be.
    Token,
    /// The exchange is to be bound to something that the connection does not have.
    Binding,
}

impl Fault {
    /// What the client is told behind `-ERR`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the response has not the form that the mechanism wants",
            Self::Name(NameError::NoMaster) => "nobody may log in for another user here",
            Self::Name(_) => "this cannot be a user's name",
            Self::Password => "the password is too long",
            Self::Token => "the token is too long",
            Self::Binding => "the connection has no such channel binding",
        }
    }
}

impl Exchange {
    /// Begins. What the mechanism has to say before the client's first response is the
    /// [`opening`](Self::opening).
    pub fn begin(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
            Mechanism::External => Self::External,
            Mechanism::OauthBearer => Self::OauthBearer,
            Mechanism::Xoauth2 => Self::Xoauth2,
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 | Mechanism::ScramSha1 => {
                let (hash, bound) = mechanism.scram().expect("it is SCRAM");
                Self::ScramFirst(First::new(hash, bound))
            }
        }
    }

    /// The challenge for a client that sent no initial response.
    pub fn opening(&self) -> &'static [u8] {
        match self {
            Self::LoginName => b"Username:",
            _ => b"",
        }
    }

    /// Takes the response to the last challenge.
    ///
    /// # Errors
    ///
    /// The client is at fault; the exchange has ended, and no login has failed.
    pub fn respond(self, response: &[u8], context: &Context<'_>) -> Result<Next, Fault> {
        match self {
            Self::Plain => plain(response, context).map(Next::Verify),
            Self::LoginName => {
                let identity = context.names.identity(response).map_err(Fault::Name)?;
                let next = Self::LoginPassword(identity);
                Ok(Next::Challenge(next, b"Password:".to_vec()))
            }
            Self::LoginPassword(identity) => password(identity, response).map(Next::Verify),
            Self::External => external(response, context).map(Next::Verify),
            Self::OauthBearer => bearer::oauthbearer(response, context),
            Self::Xoauth2 => bearer::xoauth2(response, context),
            Self::ScramFirst(first) => first.respond(response, context),
            Self::ScramProof(proof) => proof.respond(response),
            Self::ScramEnd(verdict) if response.is_empty() => Ok(Next::Decided(verdict)),
            Self::ScramEnd(_) => Err(Fault::Malformed),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616, section 2).
fn plain(message: &[u8], context: &Context<'_>) -> Result<Credentials, Fault> {
    let mut parts = message.splitn(3, |octet| *octet == 0);
    let mut part = || parts.next().ok_or(Fault::Malformed);
    let (for_whom, user, secret) = (part()?, part()?, part()?);
    // The password may hold any octet but NUL.
    if secret.contains(&0) || secret.is_empty() {
        return Err(Fault::Malformed);
    }
    let identity = context.names.prepared(user, for_whom);
    password(identity.map_err(Fault::Name)?, secret)
}

fn password(identity: Identity, octets: &[u8]) -> Result<Credentials, Fault> {
    let password = Password::new(octets).map_err(|_| Fault::Password)?;
    Ok(Credentials {
        identity,
        evidence: Evidence::Password(password),
    })
}

/// `[authzid]` (RFC 4422, appendix A): the certificate says who it is.
fn external(for_whom: &[u8], context: &Context<'_>) -> Result<Credentials, Fault> {
    // Offered only where there is one.
    let certificate = context.certificate.ok_or(Fault::Malformed)?;
    let identity = context.names.prepared(certificate.as_bytes(), for_whom);
    Ok(Credentials {
        identity: identity.map_err(Fault::Name)?,
        evidence: Evidence::Certificate,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::Verifier;
    use crate::limits;

    fn respond(exchange: Exchange, response: &[u8]) -> Result<Next, Fault> {
        let context = Context {
            names: &NameRules::default(),
            bindings: None,
            offers_binding: false,
            certificate: Some("kurt@example.net"),
        };
        exchange.respond(response, &context)
    }

    /// Whose login it is, if it has this password.
    fn verify(exchange: Exchange, response: &[u8], password: &[u8]) -> String {
        let stored = [b"{PLAIN}", password].concat();
        let stored = Verifier::parse(&stored).expect("plain");
        match respond(exchange, response) {
            Ok(Next::Verify(Credentials {
                identity,
                evidence: Evidence::Password(password),
            })) if stored.verify(&password) => identity.user.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn fault(exchange: Exchange, response: &[u8]) -> Fault {
        respond(exchange, response).expect_err("a fault")
    }

    /// The examples of RFC 4616, section 4; the second asks for another user.
    #[test]
    fn plain_is_that_of_rfc_4616() {
        let response = b"\0tim\0tanstaaftanstaaf";
        assert_eq!(
            verify(Exchange::Plain, response, b"tanstaaftanstaaf"),
            "tim"
        );
        let other = fault(Exchange::Plain, b"Ursel\0Kurt\0xipj3plmq");
        assert_eq!(other, Fault::Name(NameError::NoMaster));
        let same = verify(Exchange::Plain, b"Kurt\0Kurt\0 x p ", b" x p ");
        assert_eq!(same, "Kurt");
    }

    #[test]
    fn plain_of_another_form_is_refused() {
        for malformed in [&b""[..], b"tim", b"\0tim", b"\0tim\0", b"\0tim\0a\0b"] {
            let fault = fault(Exchange::Plain, malformed);
            assert_eq!(fault, Fault::Malformed, "{malformed:?}");
        }
        let nobody = fault(Exchange::Plain, b"\0\0secret");
        assert_eq!(nobody, Fault::Name(NameError::Empty));
        let long = [b"\0tim\0", &[b'x'; limits::PASSWORD + 1][..]].concat();
        assert_eq!(fault(Exchange::Plain, &long), Fault::Password);
    }

    #[test]
    fn login_asks_twice() {
        let exchange = Exchange::begin(Mechanism::Login);
        assert_eq!(exchange.opening(), b"Username:");
        let Ok(Next::Challenge(exchange, challenge)) = respond(exchange, b"tim") else {
            panic!("a challenge");
        };
        assert_eq!(challenge, b"Password:");
        assert_eq!(verify(exchange, b"two words", b"two words"), "tim");
        let nobody = fault(Exchange::LoginName, b"");
        assert_eq!(nobody, Fault::Name(NameError::Empty));
    }

    #[test]
    fn external_is_whom_the_certificate_vouches_for() {
        for response in [&b""[..], b"kurt@example.net"] {
            let Ok(Next::Verify(found)) = respond(Exchange::External, response) else {
                panic!("credentials");
            };
            assert_eq!(found.identity.user.to_string(), "kurt@example.net");
            assert!(found.identity.acts_for.is_none());
            assert!(matches!(found.evidence, Evidence::Certificate));
        }
        let other = fault(Exchange::External, b"ursel@example.net");
        assert_eq!(other, Fault::Name(NameError::NoMaster));
    }

    #[test]
    fn debug_tells_no_secret() {
        let next = respond(Exchange::Plain, b"\0tim\0hunter2");
        assert!(!format!("{next:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_response_is_taken_or_refused(response in prop::collection::vec(any::<u8>(), 0..64)) {
            for mechanism in Mechanism::ALL {
                match respond(Exchange::begin(mechanism), &response) {
                    Ok(Next::Verify(credentials)) => {
                        prop_assert!(!credentials.identity.user.as_bytes().contains(&0));
                    }
                    Ok(_) => {}
                    Err(fault) => prop_assert!(!fault.text().is_empty()),
                }
            }
        }
    }
}
