//! Asking the issuer about a token (RFC 7662): for tokens that are no JWT, or whose
//! withdrawal is to be noticed.

use base64ct::{Base64, Encoding as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use serde_json::Value;
use zeroize::Zeroizing;

use super::claims::Claims;
use crate::auth::directory::Failure;
use crate::auth::remote::{Contact, Trust, Web};
use crate::auth::{DirectoryError, Secret, Token};
use crate::limits;

/// A service that knows tokens.
pub(super) struct Introspection {
    web: Web,
    uri: Uri,
    /// `Authorization` of popcore itself.
    own: HeaderValue,
    contact: Contact,
}

impl Introspection {
    /// Connects when it is asked. To be called in the context of a runtime.
    pub(super) fn new(
        uri: &Uri,
        trust: &Trust,
        client: &str,
        secret: &Secret,
        contact: Contact,
    ) -> Self {
        Self {
            web: Web::new(trust.client(), limits::INTROSPECTIONS),
            uri: uri.clone(),
            own: basic(client, secret.expose()),
            contact,
        }
    }

    pub(super) fn contact(&self) -> &Contact {
        &self.contact
    }

    /// What the service says of a token, to somebody in the network of this number; `None`
    /// if it is not one, or is not good any more.
    pub(super) async fn ask(
        &self,
        token: &Token,
        origin: u64,
    ) -> Result<Option<Claims>, DirectoryError> {
        let found = self.contact.ask(origin, || self.ask_once(token)).await?;
        self.contact.answered(found.is_some());
        Ok(found)
    }

    async fn ask_once(&self, token: &Token) -> Result<Option<Claims>, Failure> {
        let token = escaped(token.as_str());
        let parts = ["token=", &token, "&token_type_hint=access_token"];
        let body = Zeroizing::new(parts.concat().into_bytes());
        let request = Request::post(self.uri.clone())
            .header(AUTHORIZATION, self.own.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        let request = request.body(Full::new(Bytes::from_owner(body)));
        let request = request.expect("a request");
        let answer = self.web.send(request).await?;
        said(answer.status(), answer.body())
    }
}

fn said(status: StatusCode, body: &Bytes) -> Result<Option<Claims>, Failure> {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Failure::Unreachable(format!("HTTP status {status}")));
    }
    if status != StatusCode::OK {
        return Err(Failure::Refused(format!("HTTP status {status}")));
    }
    let Ok(Value::Object(claims)) = serde_json::from_slice(body) else {
        let why = "the answer is no JSON object";
        return Err(Failure::Refused(why.to_owned()));
    };
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        _ => {
            let why = "the answer has no \"active\" of true or false";
            Err(Failure::Refused(why.to_owned()))
        }
    }
}

/// `Basic` with both parts as in a form (RFC 6749, section 2.3.1).
fn basic(client: &str, secret: &str) -> HeaderValue {
    let both = Zeroizing::new(format!("{}:{}", *escaped(client), *escaped(secret)));
    let encoded = Zeroizing::new(Base64::encode_string(both.as_bytes()));
    let text = Zeroizing::new(format!("Basic {}", *encoded));
    let mut value = HeaderValue::from_str(&text).expect("base64 is printable");
    value.set_sensitive(true);
    value
}

/// Text as a form has it: what is neither letter nor digit nor one of `-._~` as `%XX`.
fn escaped(text: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    // So long from the beginning that nothing of it is left behind where it grew.
    let mut escaped = Zeroizing::new(String::with_capacity(3 * text.len()));
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            escaped.push(char::from(octet));
        } else {
            escaped.push('%');
            for digit in [octet >> 4, octet & 15] {
                escaped.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popcore_names_itself_as_in_a_form() {
        let own = basic("pop core", "s:ecr+et%");
        assert!(!format!("{own:?}").contains("Basic"), "{own:?}");
        let encoded = own.to_str().expect("ASCII").strip_prefix("Basic ");
        let both = Base64::decode_vec(encoded.expect("Basic")).expect("base64");
        assert_eq!(both, b"pop%20core:s%3Aecr%2Bet%25");
        assert_eq!(*escaped("a=b&c\u{e4}"), "a%3Db%26c%C3%A4");
    }

    #[test]
    fn an_answer_says_whether_a_token_is_good() {
        let said = |status: u16, body: &'static str| {
            said(
                StatusCode::from_u16(status).expect("a status"),
                &Bytes::from(body),
            )
        };
        let good = said(200, r#"{"active":true,"username":"ann"}"#).expect("an answer");
        assert_eq!(good.expect("good")["username"], "ann");
        assert_eq!(said(200, r#"{"active":false,"username":"ann"}"#), Ok(None));
        for (status, body) in [
            (200, "{}"),
            (200, ""),
            (200, "[]"),
            (200, r#"{"active":"true"}"#),
            (401, r#"{"active":true}"#),
            (404, ""),
        ] {
            let failure = said(status, body);
            assert!(
                matches!(failure, Err(Failure::Refused(_))),
                "{status} {body}"
            );
        }
        for status in [429, 500, 503] {
            let failure = said(status, r#"{"active":false}"#);
            assert!(matches!(failure, Err(Failure::Unreachable(_))), "{status}");
        }
    }
}
