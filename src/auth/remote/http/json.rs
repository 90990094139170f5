//! The question and its answer as JSON objects.
//!
//! In: `question`, `user`, `local`, `domain`, `protocol`, `address`, all of them strings,
//! and for the question `login` the `password`. The question `password` is for what is
//! stored, without which there is no SCRAM; `user` is about somebody who is proved already.
//! Out: `result`, and the attributes of the user. A result of `stored` comes with the
//! stored password, which popcore verifies.

use hyper::header::CONTENT_TYPE;
use serde_json::Value;

use super::{Answer, Attributes, Bytes, Failure, Full, Question, Request, Uri, Zeroizing};
use crate::auth::credentials::Ask;

/// JSON holds text alone: a name or password that is none is nobody's.
pub(super) fn request(uri: Uri, question: &Question) -> Option<Request<Full<Bytes>>> {
    let text = |octets| str::from_utf8(octets).ok();
    let (asked, password) = match &question.ask {
        Ask::Password(password) => ("login", Some(text(password.as_bytes())?)),
        Ask::Keys(_) | Ask::Apop(_) => ("password", None),
        // A token has been verified before anybody is asked about its user.
        Ask::Known | Ask::Token(_) => ("user", None),
    };
    let address = question.from.to_canonical().to_string();
    let members = [
        ("question", Some(asked)),
        ("user", Some(text(question.name.as_bytes())?)),
        ("local", Some(text(question.name.local())?)),
        (
            "domain",
            Some(text(question.name.domain().unwrap_or_default())?),
        ),
        ("password", password),
        ("protocol", Some("pop3")),
        ("address", Some(&*address)),
    ];
    // No octet becomes more than six: it grows nowhere, where part of it would be left behind.
    let octets = |(name, value): &(&str, Option<&str>)| name.len() + value.map_or(0, str::len);
    let most = 6 * members.iter().map(octets).sum::<usize>() + 8 * members.len();
    let mut body = Zeroizing::new(Vec::with_capacity(most));
    for (name, value) in members {
        let Some(value) = value else { continue };
        let before = if body.is_empty() { b'{' } else { b',' };
        body.push(before);
        serde_json::to_writer(&mut *body, name).expect("text is written");
        body.push(b':');
        serde_json::to_writer(&mut *body, value).expect("text is written");
    }
    body.push(b'}');
    assert!(body.len() <= most, "it has grown");
    let request = Request::post(uri).header(CONTENT_TYPE, "application/json");
    request.body(Full::new(Bytes::from_owner(body))).ok()
}

pub(super) fn answer(body: &[u8]) -> Result<Answer, Failure> {
    let refused = |why: &str| Failure::Refused(format!("the answer {why}"));
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return Err(refused("is no JSON object"));
    };
    let result = object.get("result").and_then(Value::as_str);
    let result = result.map(str::to_owned);
    let mut attributes = Attributes::default();
    // What is taken is moved, so that a stored password is in one place alone.
    for (name, value) in object {
        let text = match value {
            Value::Null | Value::Object(_) => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().unwrap_or("?"));
                items.collect::<Vec<_>>().join(",")
            }
        };
        attributes.set(&name, text);
    }
    match result.as_deref() {
        Some("accepted") => Ok(Answer::Accepted(attributes)),
        Some("stored") => Ok(Answer::Stored(attributes)),
        Some("rejected") => Ok(Answer::Rejected),
        Some("unknown") => Ok(Answer::Unknown),
        _ => Err(refused(
            "has no \"result\" of \"accepted\", \"stored\", \"rejected\" or \"unknown\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use crate::auth::ScramHash;

    use super::*;

    #[test]
    fn a_question_is_an_object_whatever_the_name_holds() {
        let question = Question::about("o\"h\\ara@example.net", "p\"w\u{1}");
        let request = request(Uri::from_static("http://h/"), &question).expect("a request");
        let body = futures_lite::future::block_on(request.into_body().collect());
        let object: Value =
            serde_json::from_slice(&body.expect("octets").to_bytes()).expect("JSON");
        assert_eq!(object["user"], "o\"h\\ara@example.net");
        assert_eq!(object["local"], "o\"h\\ara");
        assert_eq!(object["domain"], "example.net");
        assert_eq!(object["password"], "p\"w\u{1}");
        assert_eq!(object["question"], "login");
        assert_eq!(object["address"], "127.0.0.1");
    }

    #[test]
    fn without_a_password_something_else_is_asked() {
        for (ask, asked) in [
            (Ask::Keys(ScramHash::Sha256), "password"),
            (Ask::Known, "user"),
        ] {
            let question = Question {
                ask,
                ..Question::about("joe", "")
            };
            let request = request(Uri::from_static("http://h/"), &question).expect("a request");
            let body = futures_lite::future::block_on(request.into_body().collect());
            let object: Value =
                serde_json::from_slice(&body.expect("octets").to_bytes()).expect("JSON");
            assert_eq!(object["question"], asked);
            assert_eq!(object.get("password"), None);
        }
    }

    #[test]
    fn an_answer_says_one_of_four_things() {
        let said = |text: &str| answer(text.as_bytes());
        let Ok(Answer::Accepted(user)) = said(
            r#"{"result":"accepted","home":"/h","allow_nets":["::1","127.0.0.0/8"],"disabled":false,"x":{}}"#,
        ) else {
            panic!("not accepted");
        };
        assert_eq!(user.home.as_deref(), Some("/h"));
        assert_eq!(user.allow_nets.as_deref(), Some("::1,127.0.0.0/8"));
        assert_eq!(user.disabled.as_deref(), Some("false"));
        let stored = said(r#"{"result":"stored","password":"{PLAIN}x"}"#);
        assert!(matches!(stored, Ok(Answer::Stored(_))));
        assert!(matches!(
            said(r#"{"result":"rejected"}"#),
            Ok(Answer::Rejected)
        ));
        assert!(matches!(
            said(r#"{"result":"unknown"}"#),
            Ok(Answer::Unknown)
        ));
        for text in ["", "[]", "{}", r#"{"result":"OK"}"#, r#"{"result":true}"#] {
            assert!(said(text).is_err(), "{text}");
        }
    }
}
