//! The question as nginx's mail proxy puts it: all of it in headers.
//!
//! What is not known here (the client's host, the certificate) is left out, as nginx does
//! where it has none. An answer that is not `OK` is a password that was turned down: the
//! form has no word for a name that is not known, nor for an account that is disabled.
//! `Auth-Server` and `Auth-Port` name the server that nginx would go to; popcore is it.

use std::fmt::Write as _;

use hyper::header::HeaderValue;

use super::{
    Answer, Attributes, Bytes, Failure, Full, Question, Request, Response, Uri, Zeroizing,
};

pub(super) fn request(uri: Uri, question: &Question) -> Option<Request<Full<Bytes>>> {
    let password = question.ask.password()?;
    let password = Zeroizing::new(escaped(password.as_bytes()).into_bytes());
    let mut password = HeaderValue::from_maybe_shared(Bytes::from_owner(password)).ok()?;
    password.set_sensitive(true);
    let request = Request::get(uri)
        .header("Auth-Method", "plain")
        .header("Auth-User", escaped(question.name.as_bytes()))
        .header("Auth-Pass", password)
        .header("Auth-Protocol", "pop3")
        .header("Auth-Login-Attempt", "1")
        .header("Client-IP", question.from.to_canonical().to_string());
    request.body(Full::default()).ok()
}

pub(super) fn answer(answer: &Response<Bytes>, question: &Question) -> Result<Answer, Failure> {
    let header = |name| answer.headers().get(name).map(HeaderValue::as_bytes);
    let Some(status) = header("Auth-Status") else {
        return Err(Failure::Refused("the answer has no Auth-Status".to_owned()));
    };
    if status != b"OK" {
        return Ok(Answer::Rejected);
    }
    match header("Auth-User") {
        // Mail lies under the name that logged in.
        Some(other) if other != question.name.as_bytes() => {
            let why = "the service answers with another Auth-User";
            Ok(Answer::Faulty(why.to_owned()))
        }
        _ => Ok(Answer::Accepted(Attributes::default())),
    }
}

/// Octets as nginx writes them: what is no printable ASCII, and the percent sign, as
/// `%XX`.
fn escaped(octets: &[u8]) -> String {
    // So long from the beginning that nothing of a password is left behind where it grew.
    let mut text = String::with_capacity(3 * octets.len());
    for &octet in octets {
        if octet.is_ascii_graphic() && octet != b'%' {
            text.push(char::from(octet));
        } else {
            write!(text, "%{octet:02X}").expect("a String takes every write");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_begins_another_header() {
        assert_eq!(escaped(b"joe@example.net"), "joe@example.net");
        assert_eq!(escaped(b"a b%\r\nX: y\xff"), "a%20b%25%0D%0AX:%20y%FF");
        let question = Question::about("j%oe", " pass\u{e4} ");
        let request = request(Uri::from_static("http://h/"), &question).expect("a request");
        let header = |name: &str| request.headers()[name].to_str().expect("ASCII").to_owned();
        assert_eq!(header("Auth-User"), "j%25oe");
        assert_eq!(header("Auth-Pass"), "%20pass%C3%A4%20");
        assert_eq!(header("Client-IP"), "127.0.0.1");
        assert!(!format!("{request:?}").contains("pass%C3"), "{request:?}");
    }

    #[test]
    fn only_ok_lets_in() {
        let question = Question::about("joe", "x");
        let said = |headers: &[(&'static str, &'static str)]| {
            let mut response = Response::new(Bytes::new());
            for (name, value) in headers {
                response
                    .headers_mut()
                    .insert(*name, HeaderValue::from_static(value));
            }
            answer(&response, &question)
        };
        assert!(matches!(
            said(&[("Auth-Status", "OK")]),
            Ok(Answer::Accepted(_))
        ));
        for text in ["ok", "Invalid login or password", ""] {
            assert!(
                matches!(said(&[("Auth-Status", text)]), Ok(Answer::Rejected)),
                "{text}"
            );
        }
        let other = [("Auth-Status", "OK"), ("Auth-User", "ann")];
        assert!(matches!(said(&other), Ok(Answer::Faulty(_))));
        assert!(said(&[]).is_err());
    }
}
