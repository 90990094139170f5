//! Within AUTH (RFC 5034, section 4): responses are decoded, challenges sent, and
//! what the exchange wants to know is asked.
//!
//! A response that is no base64, or has not the form that the mechanism wants, ends
//! the exchange as a bad command does; it is no failed login, since no secret was
//! verified. So does `*`, by which the client gives up.

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use crate::auth::{Identity, ScramAnswer};
use crate::proto::{Output, reply};
use crate::sasl::{Asking, Context, Exchange, Fault, Mechanism, Next};

use super::authorization::{Authenticating, Authorization, Name};
use super::{Action, Method, State, Step, Terms, Turn};

/// The client owes a response.
#[derive(Debug)]
pub(super) struct Exchanging {
    /// What was said by USER before.
    pub(super) name: Name,
    mechanism: Mechanism,
    /// Boxed because most sessions never have one, and those that have wait in it
    /// for a moment.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    exchange: Exchange,
    /// Who the client says it is, once it has where it is not in the exchange.
    identity: Option<Identity>,
}

/// What is stored of a user is being asked.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) identity: Identity,
    pub(super) mechanism: Mechanism,
    asking: Asking,
}

impl Exchanging {
    pub(super) fn new(name: Name, mechanism: Mechanism, exchange: Exchange) -> Self {
        let identity = None;
        Self {
            name,
            mechanism,
            inner: Box::new(Inner { exchange, identity }),
        }
    }

    /// Sends the first challenge to a client that gave no initial response.
    pub(super) fn open(self, out: &mut Output) -> Turn {
        reply::challenge(out, self.inner.exchange.opening());
        Turn::Next(State::Exchanging(self), Step::Continue)
    }

    /// Takes a line.
    pub(super) fn handle(self, line: &[u8], terms: Terms<'_>, out: &mut Output) -> Turn {
        if line == b"*" {
            return self.refused("the login was cancelled");
        }
        self.decode(line, terms, out)
    }

    /// Takes a response in base64.
    pub(super) fn decode(self, response: &[u8], terms: Terms<'_>, out: &mut Output) -> Turn {
        let mut decoded = Zeroizing::new(vec![0; response.len() / 4 * 3]);
        match Base64::decode(response, &mut decoded) {
            Ok(response) => self.respond(response, terms, out),
            Err(_) => self.refused("the response is no base64"),
        }
    }

    /// Takes a response.
    pub(super) fn respond(self, response: &[u8], terms: Terms<'_>, out: &mut Output) -> Turn {
        let Self {
            name,
            mechanism,
            inner,
        } = self;
        let Inner { exchange, identity } = *inner;
        let context = Context {
            names: &terms.policy.names,
            bindings: terms.bindings(),
            offers_binding: terms.mechanisms().contains(Mechanism::ScramSha256Plus),
            certificate: terms.certificate(),
        };
        match exchange.respond(response, &context) {
            Ok(Next::Challenge(exchange, challenge)) => {
                reply::challenge(out, &challenge);
                let next = Self {
                    name,
                    mechanism,
                    inner: Box::new(Inner { exchange, identity }),
                };
                Turn::Next(State::Exchanging(next), Step::Continue)
            }
            Ok(Next::Verify(credentials)) => {
                let identity = credentials.identity.clone();
                authenticate(
                    identity,
                    mechanism,
                    Action::Authenticate(Box::new(credentials)),
                )
            }
            Ok(Next::Find(question, asking)) => {
                let state = Box::new(Finding {
                    identity: question.identity.clone(),
                    mechanism,
                    asking,
                });
                let action = Action::FindKeys(Box::new(question));
                Turn::Next(State::Finding(state), Step::Perform(action))
            }
            Ok(Next::Decided(verdict)) => {
                let identity = identity.expect("nothing is decided of nobody");
                let action = Action::Note(Box::new((identity.clone(), verdict)));
                authenticate(identity, mechanism, action)
            }
            Err(fault) => Turn::refused(Authorization { name }, Fault::text(fault)),
        }
    }

    fn refused(self, text: &'static str) -> Turn {
        Turn::refused(Authorization { name: self.name }, text)
    }
}

impl Finding {
    /// Sends what SCRAM makes of the answer.
    pub(super) fn found(self, answer: ScramAnswer, out: &mut Output) -> (State, Step) {
        let (exchange, challenge) = self.asking.found(answer);
        reply::challenge(out, &challenge);
        let next = Exchanging {
            name: Name::Former(self.identity.shown()),
            mechanism: self.mechanism,
            inner: Box::new(Inner {
                exchange,
                identity: Some(self.identity),
            }),
        };
        (State::Exchanging(next), Step::Continue)
    }
}

fn authenticate(identity: Identity, mechanism: Mechanism, action: Action) -> Turn {
    let method = Method::Sasl(mechanism);
    let state = Authenticating { identity, method };
    Turn::Next(State::Authenticating(state), Step::Perform(action))
}
