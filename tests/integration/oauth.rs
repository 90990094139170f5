//! Logins by bearer tokens: OAUTHBEARER (RFC 7628) and XOAUTH2.

use std::io::{Read, Write};
use std::process::Command;

use base64ct::{Base64, Base64UrlUnpadded as Url, Encoding as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::client::{Client, PASSWORD};
use super::issuer::Issuer;
use super::patience::until;
use super::sasl::response;
use super::scrape::Scrape;
use super::server::{PASSWD_FILE, PROGRAM, Server, Site};
use super::signer::{Signer, claims, now, set, unsigned};
use super::tls;

const MECHANISMS: [&str; 2] = ["OAUTHBEARER", "XOAUTH2"];

const OFFERED: &str = "mechanisms = [\"oauthbearer\", \"xoauth2\", \"plain\"]\n";

/// A site whose tokens are verified by what this section says.
fn site(section: &str) -> Site {
    let mut site = Site::with_users(&["ann@example.net", "bob@example.net"]);
    site.auth = OFFERED;
    site.directories = format!("{PASSWD_FILE}[auth.oauth]\n{section}");
    site
}

fn by_keys(place: &str) -> Site {
    site(&format!(
        "jwks = \"{place}\"\nissuer = \"https://login.example.net\"\naudience = [\"mail\"]\n\
         scope = \"mail.pop\"\nopenid_configuration = \"https://login.example.net/.well-known/openid-configuration\"\n"
    ))
}

pub(crate) fn by_introspection(issuer: &Issuer) -> Site {
    let url = issuer.url("/ask");
    let site = site(&format!(
        "introspection = \"{url}\"\nclient_id = \"popcore\"\nclient_secret_file = \"secret\"\n"
    ));
    std::fs::write(site.path().join("secret"), "s:cret\n").expect("written");
    site
}

/// Tokens of this signer, whose keys are in a file.
fn by_file(signer: &Signer) -> Site {
    let site = by_keys("keys.json");
    std::fs::write(site.path().join("keys.json"), set(&[signer])).expect("written");
    site
}

/// The message in which a client shows a token.
fn message(mechanism: &str, user: &str, token: &str) -> String {
    response(if mechanism == "XOAUTH2" {
        format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}")
    } else {
        format!("n,a={user},\u{1}host=localhost\u{1}port=110\u{1}auth=Bearer {token}\u{1}\u{1}")
    })
}

/// The reply to a token; for one that is refused the one behind the challenge.
fn show<S: Read + Write>(
    client: &mut Client<S>,
    mechanism: &str,
    user: &str,
    token: &str,
) -> String {
    assert_eq!(client.say(&format!("AUTH {mechanism}")), "+ ");
    let reply = client.say(&message(mechanism, user, token));
    let Some(challenge) = reply.strip_prefix("+ ") else {
        return reply;
    };
    let told = Base64::decode_vec(challenge).expect("base64");
    let told: Value = serde_json::from_slice(&told).expect("an object");
    let (status, dummy) = match mechanism {
        "XOAUTH2" => ("401", ""),
        _ => ("invalid_token", "AQ=="),
    };
    assert_eq!(told["status"], status);
    client.say(dummy)
}

pub(crate) fn shown(server: &Server, mechanism: &str, user: &str, token: &str) -> String {
    let mut client = server.connect();
    let reply = show(&mut client, mechanism, user, token);
    // The maildrop is free for the next login.
    if reply.starts_with("+OK") {
        client.quit();
    }
    reply
}

fn assert_in(server: &Server, user: &str, token: &str) {
    let mut client = server.connect();
    let reply = show(&mut client, "XOAUTH2", user, token);
    assert!(reply.starts_with("+OK"), "{reply}");
    client.quit();
}

#[test]
fn a_token_logs_its_user_in() {
    let signer = Signer::new("one");
    let mut site = by_file(&signer);
    site.plaintext = false;
    let server = site.start();
    let mut client = server.connect();
    assert_eq!(client.rows("AUTH"), [""; 0], "a token is a secret");
    client.err(&format!(
        "AUTH XOAUTH2 {}",
        message("XOAUTH2", "ann@example.net", "x")
    ));
    let token = signer.sign(&claims("Ann@Example.net"));
    let mut site = by_file(&signer);
    site.auth = "mechanisms = [\"oauthbearer\", \"xoauth2\"]\nlowercase = true\n";
    let server = site.start();
    for mechanism in MECHANISMS {
        let mut client = tls::started(&server);
        assert_eq!(client.rows("AUTH"), MECHANISMS);
        assert!(
            client
                .rows("CAPA")
                .contains(&"SASL OAUTHBEARER XOAUTH2".to_owned())
        );
        let reply = show(&mut client, mechanism, "ANN@example.net", &token);
        assert!(reply.starts_with("+OK"), "{reply}");
        client.quit();
    }
    // The second and all others were known.
    let scrape = Scrape::of(server.site.admin());
    assert_eq!(scrape.value("popcore_auth_cache_good_total"), 1);
    server.log_line(&["Logged out", "user=<ann@example.net>"]);
}

#[test]
fn a_token_that_is_wrong_is_told_so_and_counts_as_a_failed_login() {
    let signer = Signer::new("one");
    let site = by_file(&signer);
    site.write_users(&format!(
        "ann@example.net:{{PLAIN}}{PASSWORD}\nbob@example.net:{{PLAIN}}{PASSWORD}\n\
         off@example.net:{{PLAIN}}x::::::nologin\nfar@example.net:{{PLAIN}}x::::::allow_nets=192.0.2.0/24\n"
    ));
    let server = site.start();
    let ann = "ann@example.net";
    let with = |name: &str, value: Value| {
        let mut changed = claims(ann);
        changed[name] = value;
        signer.sign(&changed)
    };
    let none = format!("{}.", unsigned(&json!({"alg": "none"}), &claims(ann)));
    for (what, token) in [
        ("expired", with("exp", json!(now() - 31))),
        ("not yet good", with("nbf", json!(now() + 3600))),
        ("for somebody else", with("aud", json!("calendar"))),
        (
            "from somebody else",
            with("iss", json!("https://evil.example.net")),
        ),
        ("for something else", with("scope", json!("openid"))),
        ("of somebody else", with("email", json!("bob@example.net"))),
        ("unsigned", none),
        ("signed by another", Signer::new("one").sign(&claims(ann))),
        (
            "signed by the public key",
            under_public_key(&signer, &claims(ann)),
        ),
        ("no token", "nonsense".to_owned()),
    ] {
        for mechanism in MECHANISMS {
            let reply = shown(&server, mechanism, ann, &token);
            assert!(reply.starts_with("-ERR [AUTH] "), "{what}: {reply}");
        }
    }
    for (user, reply) in [
        (
            "off@example.net",
            "-ERR [SYS/PERM] This account is disabled",
        ),
        (
            "far@example.net",
            "-ERR [AUTH] user name or password is wrong",
        ),
        (
            "none@example.net",
            "-ERR [AUTH] user name or password is wrong",
        ),
    ] {
        let token = signer.sign(&claims(user));
        assert_eq!(shown(&server, "OAUTHBEARER", user, &token), reply, "{user}");
    }
    for why in [
        "it expired 31 s ago",
        "its \"aud\" is",
        "its signature is wrong",
        "it is no JWT",
    ] {
        server.log_line(&["token refused", why]);
    }
    server.log_line(&[
        "auth failed",
        "user=<ann@example.net>, method=XOAUTH2, rip=",
    ]);
}

#[test]
fn whatever_is_answered_to_a_refusal_it_was_a_failed_login() {
    let signer = Signer::new("one");
    let server = by_file(&signer).start();
    let ann = "ann@example.net";
    // Three are enough.
    let mut client = server.connect();
    for answer in ["*", "STAT", "not base64!"] {
        let wrong = message("OAUTHBEARER", ann, "nonsense");
        assert_eq!(client.say("AUTH OAUTHBEARER"), "+ ");
        assert!(client.say(&wrong).starts_with("+ "));
        client.err(answer);
    }
    client.ends();
    assert_in(&server, ann, &signer.sign(&claims(ann)));
}

/// A token by HMAC, whose secret is the key that everybody may see.
fn under_public_key(signer: &Signer, claims: &Value) -> String {
    use aws_lc_rs::hmac;
    let said = unsigned(&json!({"alg": "HS256", "kid": "one"}), claims);
    let key = signer.key();
    let secret = key["x"].as_str().expect("a coordinate");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, said.as_bytes());
    format!("{said}.{}", Url::encode_string(signature.as_ref()))
}

/// Tokens above 4,096 octets occur; one of 16 KiB fits into a response and nowhere else.
#[test]
fn a_token_of_16_kib_logs_in_and_a_longer_one_is_refused_by_its_length() {
    let signer = Signer::new("one");
    let server = by_file(&signer).start();
    let ann = "ann@example.net";
    let of_length = |octets: usize| {
        // Three octets of claims are four of the token.
        let mut long = claims(ann);
        let empty = signer.sign(&long).len();
        let mut filling = (octets - empty) * 3 / 4;
        loop {
            long["groups"] = json!("x".repeat(filling));
            let token = signer.sign(&long);
            if token.len() <= octets {
                return token;
            }
            filling -= 1;
        }
    };
    let token = of_length(16 * 1024);
    assert!(token.len() > 16 * 1024 - 8);
    for mechanism in MECHANISMS {
        let mut client = server.connect();
        let reply = show(&mut client, mechanism, ann, &token);
        assert!(reply.starts_with("+OK"), "{reply}");
        client.quit();
    }
    let mut client = server.connect();
    let reply = show(&mut client, "XOAUTH2", ann, &"x".repeat(16 * 1024 + 1));
    assert_eq!(reply, "-ERR the token is too long");
    let reply = show(&mut client, "XOAUTH2", ann, &"x".repeat(20 * 1024));
    assert!(reply.contains("line is too long"), "{reply}");
    // Clients send it in the line of AUTH, whatever RFC 5034 says of its length.
    for mechanism in MECHANISMS {
        let message = message(mechanism, ann, &token);
        let mut client = server.connect();
        client.send(format!("AUTH {mechanism} {message}\r\n"));
        assert!(client.line().starts_with("+OK"));
        client.quit();
    }
}

#[test]
fn keys_from_a_server_are_read_again_for_a_new_one_and_kept_when_it_fails() {
    let (one, two, three) = (Signer::new("one"), Signer::new("two"), Signer::new("three"));
    let issuer = Issuer::start();
    let mut site = by_keys(&issuer.url("/keys"));
    // So that each token is verified.
    site.auth = "mechanisms = [\"oauthbearer\", \"xoauth2\"]\ncache_ttl = \"0s\"\ncache_stale = \"0s\"\n\
                 cache_negative_ttl = \"0s\"\n";
    let server = site.start();
    let ann = "ann@example.net";
    // No keys at all: nobody can tell whether a token is good.
    for token in [&*one.sign(&claims(ann)), "nonsense"] {
        let reply = shown(&server, "OAUTHBEARER", ann, token);
        assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    }
    server.log_line(&[
        "Error",
        "auth.oauth",
        "HTTP status 503",
        "nobody can log in by a token",
    ]);
    issuer.show(Some(set(&[&one])));
    until("the keys to be read", || {
        let reply = shown(&server, "XOAUTH2", ann, &one.sign(&claims(ann)));
        reply.starts_with("+OK").then_some(())
    });
    let asked = issuer.asked();
    assert_in(&server, ann, &one.sign(&claims(ann)));
    assert_eq!(issuer.asked(), asked, "keys are kept");
    // A new key is found at once; made-up ones have nothing read for a while.
    issuer.show(Some(set(&[&one, &two])));
    assert_in(&server, ann, &two.sign(&claims(ann)));
    assert_eq!(issuer.asked(), asked + 1);
    for _ in 0..5 {
        let reply = shown(&server, "XOAUTH2", ann, &three.sign(&claims(ann)));
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    }
    assert_eq!(issuer.asked(), asked + 1);
    server.log_line(&["auth.oauth: 2 keys (ES256 one, ES256 two)"]);
    // The operator has them read; they cannot be, and stay.
    issuer.show(None);
    server.signal(Signal::HUP);
    server.log_line(&["directory loaded"]);
    until("the keys to be asked for again", || {
        assert_in(&server, ann, &two.sign(&claims(ann)));
        (issuer.asked() > asked + 1).then_some(())
    });
    server.log_line(&["the keys that were read before stay in force"]);
    // Whether there is a third key cannot be known now.
    let reply = shown(&server, "XOAUTH2", ann, &three.sign(&claims(ann)));
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
}

#[test]
fn the_issuer_is_asked_about_tokens_and_what_it_says_is_remembered() {
    let issuer = Issuer::start();
    let server = by_introspection(&issuer).start();
    let ann = "ann@example.net";
    let good = json!({"active": true, "username": ann, "exp": now() + 600});
    issuer.know("opaque", good.clone());
    issuer.know("old", json!({"active": false, "username": ann}));
    issuer.know(
        "brief",
        json!({"active": true, "username": ann, "exp": now() - 31}),
    );
    for _ in 0..3 {
        assert_in(&server, ann, "opaque");
    }
    assert_eq!(issuer.asked(), 1);
    for (user, token) in [
        (ann, "old"),
        (ann, "brief"),
        (ann, "unknown"),
        ("bob@example.net", "opaque"),
    ] {
        let reply = shown(&server, "OAUTHBEARER", user, token);
        assert!(reply.starts_with("-ERR [AUTH] "), "{token}: {reply}");
    }
    assert_eq!(issuer.asked(), 5);
    let reply = shown(&server, "OAUTHBEARER", ann, "old");
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    assert_eq!(issuer.asked(), 5, "a bad one is known for a moment as well");
    server.log_line(&["token refused", "its issuer says that it is not active"]);
    // Without the issuer nothing is known of a token but of those that are remembered.
    issuer.know("opaque", good);
    let scrape = Scrape::of(server.site.admin());
    let series = |result: &str| {
        format!("popcore_directory_lookups_total{{directory=\"auth.oauth\",result=\"{result}\"}}")
    };
    assert_eq!(scrape.value(&series("known")), 3);
    assert_eq!(scrape.value(&series("unknown")), 2);
    drop(issuer);
    assert_in(&server, ann, "opaque");
    let reply = shown(&server, "XOAUTH2", ann, "new");
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    server.log_line(&["Error", "auth.oauth", "cannot be reached"]);
}

#[test]
fn check_says_by_what_tokens_are_verified() {
    let signer = Signer::new("one");
    let issuer = Issuer::start();
    issuer.show(Some(set(&[&signer])));
    let check = |site: &Site| {
        let mut command = Command::new(PROGRAM);
        command.args(["check", "--config"]).arg(site.configure());
        let output = command.output().expect("it starts");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.success(), text)
    };
    let (is_right, text) = check(&by_file(&signer));
    assert!(
        is_right && text.contains("keys.json, read every 3600s: 1 key (ES256 one)"),
        "{text}"
    );
    let (is_right, text) = check(&by_keys(&issuer.url("/keys")));
    assert!(
        is_right && text.contains("/keys, read every 3600s: 1 key (ES256 one)"),
        "{text}"
    );
    let (is_right, text) = check(&by_introspection(&issuer));
    assert!(
        is_right && text.contains("/ask as popcore: it answers, in "),
        "{text}"
    );
    issuer.show(Some("{}".to_owned()));
    let (is_right, text) = check(&by_keys(&issuer.url("/keys")));
    assert!(
        !is_right && text.contains("NO ANSWER: auth.oauth: refused: what is there is no JWK Set"),
        "{text}"
    );
}

#[test]
fn no_token_is_in_logs() {
    let signer = Signer::new("one");
    let issuer = Issuer::start();
    let ann = "ann@example.net";
    issuer.know("hunter2-opaque", json!({"active": true, "username": ann}));
    let good = signer.sign(&claims(ann));
    let bad = Signer::new("one").sign(&claims(ann));
    for (mut site, tokens) in [
        (by_file(&signer), [&*good, &*bad]),
        (
            by_introspection(&issuer),
            ["hunter2-opaque", "hunter2-unknown"],
        ),
    ] {
        site.log_level = "trace";
        let server = site.start();
        for mechanism in MECHANISMS {
            for token in tokens {
                shown(&server, mechanism, ann, token);
                let mut client = server.connect();
                client.say(&format!("AUTH {mechanism}"));
                client.say(&message(mechanism, "", token));
            }
        }
        server.log_line(&["auth failed", "method=XOAUTH2"]);
        let log = server.log();
        for told in tokens {
            let told = &told[told.len() - 6..];
            assert!(!log.contains(told), "{told}: {log}");
        }
        assert!(
            !log.contains("s:cret") && !log.contains("s%3Acret"),
            "{log}"
        );
    }
}
