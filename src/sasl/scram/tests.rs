use super::*;
use crate::auth::{Account, NameRules, UserName, Verifier};
use crate::limits;
use crate::sasl::Bindings;

const PENCIL_1: &str =
    "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=";
const PENCIL_256: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn bindings() -> Bindings {
    Bindings {
        exporter: Some(zeroize::Zeroizing::new([7; 32])),
        end_point: Some(Box::new([9; 32])),
    }
}

/// A connection with what can be bound, whose users have "pencil" for their password.
struct Server {
    bindings: Option<Bindings>,
    offers_binding: bool,
    stored: &'static str,
    nonce: &'static str,
    verdict: Result<Proved, Refusal>,
}

impl Server {
    fn new(stored: &'static str, nonce: &'static str) -> Self {
        let user = UserName::new(b"user").expect("a name");
        Self {
            bindings: None,
            offers_binding: false,
            stored,
            nonce,
            verdict: Ok(Proved::from(Account {
                user,
                home: None,
                mail: None,
                limits: None,
            })),
        }
    }

    fn respond(&self, exchange: Exchange, response: &str) -> Result<Next, Fault> {
        let context = Context {
            names: &NameRules::default(),
            bindings: self.bindings.as_ref(),
            offers_binding: self.offers_binding,
            certificate: None,
        };
        exchange.respond(response.as_bytes(), &context)
    }

    /// The exchange after the client's first message, and the server's.
    fn first(&self, mechanism: Mechanism, message: &str) -> Result<(Exchange, String), Fault> {
        let next = self.respond(Exchange::begin(mechanism), message)?;
        let Next::Find(question, asking) = next else {
            panic!("{next:?}");
        };
        let stored = Verifier::parse(self.stored.as_bytes()).expect("known");
        let answer = ScramAnswer {
            keys: stored.scram_keys().expect("of SCRAM").clone(),
            verdict: self.verdict.clone(),
            nonce: self.nonce.to_owned(),
        };
        assert_eq!(question.hash, answer.keys.hash());
        let (exchange, challenge) = asking.found(answer);
        assert!(challenge.len() <= limits::CHALLENGE);
        Ok((exchange, String::from_utf8(challenge).expect("UTF-8")))
    }

    /// What becomes of a client that knows the password.
    fn log_in(&self, mechanism: Mechanism, header: &str, bound_to: &[u8]) -> Verdict {
        let bare = "n=user,r=abcdefgh";
        let first = self.first(mechanism, &format!("{header}{bare}"));
        let (exchange, challenge) = match first {
            Ok(first) => first,
            Err(fault) => return Verdict::Fault(fault),
        };
        let nonce = challenge.split(',').next().expect("a nonce");
        let binding = Base64::encode_string(&[header.as_bytes(), bound_to].concat());
        let without_proof = format!("c={binding},{nonce}");
        let said = format!("{bare},{challenge},{without_proof}");
        let proof = prove(&self.keys(), said.as_bytes());
        let last = format!("{without_proof},p={proof}");
        match self.respond(exchange, &last) {
            Ok(Next::Challenge(exchange, challenge)) => {
                assert!(challenge.starts_with(b"v="));
                match self.respond(exchange, "") {
                    Ok(Next::Decided(Ok(_))) => Verdict::In,
                    other => panic!("{other:?}"),
                }
            }
            Ok(Next::Decided(Err(refusal))) => Verdict::Out(refusal),
            Err(fault) => Verdict::Fault(fault),
            other => panic!("{other:?}"),
        }
    }

    /// `SaltedPassword` of "pencil" and the salt that is stored.
    fn keys(&self) -> (aws_lc_rs::hmac::Algorithm, Vec<u8>) {
        use aws_lc_rs::{hmac, pbkdf2};
        let stored = Verifier::parse(self.stored.as_bytes()).expect("known");
        let keys = stored.scram_keys().expect("of SCRAM");
        let (hash, algorithm) = match keys.hash() {
            ScramHash::Sha1 => (
                hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                pbkdf2::PBKDF2_HMAC_SHA1,
            ),
            ScramHash::Sha256 => (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        };
        let mut salted = vec![0; keys.hash().octets()];
        pbkdf2::derive(
            algorithm,
            keys.iterations(),
            keys.salt(),
            b"pencil",
            &mut salted,
        );
        (hash, salted)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    In,
    Out(Refusal),
    Fault(Fault),
}

/// The client's part of the arithmetic.
fn prove((hash, salted): &(aws_lc_rs::hmac::Algorithm, Vec<u8>), said: &[u8]) -> String {
    use aws_lc_rs::{digest, hmac};
    let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(*hash, key), data);
    let client = sign(salted, b"Client Key");
    let stored = digest::digest(hash.digest_algorithm(), client.as_ref());
    let signature = sign(stored.as_ref(), said);
    let pairs = client.as_ref().iter().zip(signature.as_ref());
    Base64::encode_string(&pairs.map(|(a, b)| a ^ b).collect::<Vec<_>>())
}

/// The dialogues of RFC 5802, section 5, and RFC 7677, section 3.
#[test]
fn the_dialogues_are_those_of_the_standards() {
    let cases = [
        (
            Mechanism::ScramSha1,
            PENCIL_1,
            "3rfcNHYJY1ZVvWVs7j",
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Mechanism::ScramSha256,
            PENCIL_256,
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ];
    for (mechanism, stored, nonce, first, server_first, last, server_last) in cases {
        let server = Server::new(stored, nonce);
        let (exchange, challenge) = server.first(mechanism, first).expect("sound");
        assert_eq!(challenge, server_first);
        let Ok(Next::Challenge(exchange, challenge)) = server.respond(exchange, last) else {
            panic!("{mechanism}");
        };
        assert_eq!(String::from_utf8_lossy(&challenge), server_last);
        let Ok(Next::Decided(Ok(proved))) = server.respond(exchange, "") else {
            panic!("{mechanism}");
        };
        assert_eq!(Account::from(proved).user.as_bytes(), b"user");
    }
}

#[test]
fn a_wrong_proof_is_a_failed_login() {
    let server = Server::new(PENCIL_256, "nonce");
    for (what, last) in [
        (
            "another password",
            "c=biws,r=abcnonce,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        ),
        ("no proof", "c=biws,r=abcnonce,p="),
        ("another nonce", "c=biws,r=abcNONCE,p=AAAA"),
        ("another header", "c=eSws,r=abcnonce,p=AAAA"),
    ] {
        let first = server.first(Mechanism::ScramSha256, "n,,n=user,r=abc");
        let (exchange, _) = first.expect("sound");
        let next = server.respond(exchange, last);
        assert!(
            matches!(next, Ok(Next::Decided(Err(Refusal::Rejected)))),
            "{what}: {next:?}"
        );
    }
}

#[test]
fn what_bars_a_user_is_told_after_the_right_proof_alone() {
    let mut server = Server::new(PENCIL_256, "nonce");
    server.verdict = Err(Refusal::Unavailable);
    let found = server.log_in(Mechanism::ScramSha256, "n,,", b"");
    assert_eq!(found, Verdict::Out(Refusal::Unavailable));
    let (exchange, _) = server
        .first(Mechanism::ScramSha256, "n,,n=user,r=abc")
        .expect("sound");
    let next = server.respond(exchange, "c=biws,r=abcnonce,p=AAAA");
    assert!(
        matches!(next, Ok(Next::Decided(Err(Refusal::Rejected)))),
        "{next:?}"
    );
}

#[test]
fn an_exchange_is_bound_to_its_connection() {
    use Mechanism::{ScramSha1, ScramSha256, ScramSha256Plus};
    let mut server = Server::new(PENCIL_256, "nonce");
    server.bindings = Some(bindings());
    server.offers_binding = true;
    let bound = [
        ("p=tls-exporter,,", &[7; 32]),
        ("p=tls-server-end-point,,", &[9; 32]),
    ];
    for (header, data) in bound {
        let found = server.log_in(ScramSha256Plus, header, data);
        assert_eq!(found, Verdict::In, "{header}");
        // Somebody between, who has another connection to us.
        let found = server.log_in(ScramSha256Plus, header, &[8; 32]);
        assert_eq!(found, Verdict::Out(Refusal::Rejected), "{header}");
        let found = server.log_in(ScramSha256Plus, header, b"");
        assert_eq!(found, Verdict::Out(Refusal::Rejected), "{header}");
    }
    let fault = Verdict::Fault(Fault::Binding);
    assert_eq!(server.log_in(ScramSha256Plus, "p=tls-unique,,", b""), fault);
    assert_eq!(server.log_in(ScramSha256Plus, "n,,", b""), fault);
    assert_eq!(server.log_in(ScramSha256Plus, "y,,", b""), fault);
    assert_eq!(
        server.log_in(ScramSha256, "p=tls-exporter,,", &[7; 32]),
        fault
    );
    // A client that cannot bind may go without; one that could was deceived.
    assert_eq!(server.log_in(ScramSha256, "n,,", b""), Verdict::In);
    let deceived = server.log_in(ScramSha256, "y,,", b"");
    assert_eq!(deceived, Verdict::Out(Refusal::Rejected));
    // It was told the truth where nothing is offered, or nothing with this hash.
    server.offers_binding = false;
    assert_eq!(server.log_in(ScramSha256, "y,,", b""), Verdict::In);
    server.stored = PENCIL_1;
    server.offers_binding = true;
    assert_eq!(server.log_in(ScramSha1, "y,,", b""), Verdict::In);
}

#[test]
fn names_are_taken_out_of_their_wrapping() {
    assert_eq!(name("a=2Cb=3Dc"), Ok("a,b=c".to_owned()));
    assert_eq!(name("user"), Ok("user".to_owned()));
    for bad in ["a=", "a=2c", "a=2", "a=41", "=="] {
        assert_eq!(name(bad), Err(Fault::Malformed), "{bad}");
    }
}

#[test]
fn messages_of_another_form_are_refused() {
    let server = Server::new(PENCIL_256, "nonce");
    let long = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE + 1));
    for first in [
        "",
        "n",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,n=user,r=a b",
        "n,,r=abc,n=user",
        "n,,m=x,n=user,r=abc",
        "n,user,n=user,r=abc",
        "n,a=x=,n=user,r=abc",
        &long,
    ] {
        let fault = server.first(Mechanism::ScramSha256, first).err();
        assert_eq!(fault, Some(Fault::Malformed), "{first}");
    }
    for last in [
        "",
        "c=biws",
        "c=biws,r=abcnonce",
        "r=abcnonce,c=biws,p=AA==",
        "c=!,r=x,p=AA==",
        "c=biws,r=x,p=!",
    ] {
        let (exchange, _) = server
            .first(Mechanism::ScramSha256, "n,,n=user,r=abc")
            .expect("sound");
        let fault = server.respond(exchange, last).err();
        assert_eq!(fault, Some(Fault::Malformed), "{last}");
    }
}

#[test]
fn the_longest_challenge_fits() {
    let mut server = Server::new(PENCIL_256, "nonce");
    let salt = Base64::encode_string(&[b'x'; limits::SCRAM_SALT]);
    let keys = PENCIL_256.rsplit_once("==,").expect("a salt").1;
    let stored = format!("{{SCRAM-SHA-256}}{},{salt},{keys}", limits::PBKDF2_ROUNDS);
    server.stored = stored.leak();
    server.nonce = "nonce678nonce678nonce678";
    let first = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE));
    assert!(server.first(Mechanism::ScramSha256, &first).is_ok());
}
