//! Logins by AUTH (RFC 5034).

use std::io::{Read, Write};

use base64ct::{Base64, Encoding as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificates::person;
use super::client::{Client, PASSWORD};
use super::server::{Server, Site};
use super::tls;

/// `text` as a response.
pub(crate) fn response(text: impl AsRef<[u8]>) -> String {
    Base64::encode_string(text.as_ref())
}

fn ann() -> Server {
    Site::with_users(&["ann"]).start()
}

#[test]
fn plain_and_login_log_in() {
    let server = ann();
    let whole = response(format!("\0ann\0{PASSWORD}"));
    let mut client = server.connect();
    client.ok(&format!("AUTH PLAIN {whole}"));
    client.ok("STAT");
    client.quit();
    let mut client = server.connect();
    assert_eq!(client.say("AUTH PLAIN"), "+ ");
    client.ok(&whole);
    client.quit();
    let mut client = tls::started(&server);
    assert_eq!(client.say("AUTH LOGIN"), "+ VXNlcm5hbWU6");
    assert_eq!(client.say(&response("ann")), "+ UGFzc3dvcmQ6");
    client.ok(&response(PASSWORD));
    client.quit();
    // Commands may stand behind the last response.
    let mut client = server.connect();
    client.send(format!("AUTH PLAIN {whole}\r\nSTAT\r\nQUIT\r\n"));
    for _ in 0..3 {
        assert!(client.line().starts_with("+OK"));
    }
    client.ends();
}

#[test]
fn mechanisms_are_offered_where_they_can_work() {
    let mut site = Site::with_users(&["ann"]);
    site.plaintext = false;
    let server = site.start();
    let mut client = server.connect();
    assert_eq!(client.rows("AUTH"), [""; 0]);
    let capabilities = client.rows("CAPA");
    assert!(!capabilities.iter().any(|row| row.starts_with("SASL")));
    client.err("AUTH PLAIN");
    let mut client = tls::started(&server);
    assert_eq!(client.rows("AUTH"), ["PLAIN", "LOGIN"]);
    let offer = "SASL PLAIN LOGIN".to_owned();
    assert!(client.rows("CAPA").contains(&offer));
    client.log_in("ann");
    assert!(client.rows("CAPA").contains(&offer));
    client.quit();
}

/// Named after a fault of a peer: arguments of AUTH were cut near 1 KiB.
#[test]
fn responses_of_24_kib_are_read_and_longer_ones_skipped() {
    let server = ann();
    let mut client = server.connect();
    // 18,429 octets are 24,572 in base64, and 24,574 with CRLF.
    let long = response([b"\0ann\0", &vec![b'x'; 18_424][..]].concat());
    assert_eq!(client.say("AUTH PLAIN"), "+ ");
    let reply = client.err(&long);
    assert!(reply.contains("password is too long"), "{reply}");
    assert_eq!(client.say("AUTH PLAIN"), "+ ");
    for part in long.as_bytes().chunks(1_000) {
        client.send(part);
    }
    let reply = client.err("");
    assert!(reply.contains("password is too long"), "{reply}");
    assert_eq!(client.say("AUTH PLAIN"), "+ ");
    let reply = client.err(&format!("{long}AAAAAAAA"));
    assert!(reply.contains("line is too long"), "{reply}");
    // Those in the line of AUTH as well, and other commands keep their bound.
    let reply = client.err(&format!("AUTH PLAIN {}", &long[..24_560]));
    assert!(reply.contains("password is too long"), "{reply}");
    let reply = client.err(&format!("AUTH PLAIN {long}"));
    assert!(reply.contains("line is too long"), "{reply}");
    let reply = client.err(&format!("USER {}", &long[..256]));
    assert!(reply.contains("line is too long"), "{reply}");
    client.log_in("ann");
    client.quit();
}

#[test]
fn a_failed_exchange_is_logged_by_its_mechanism() {
    let server = ann();
    let mut client = server.connect();
    client.say("AUTH LOGIN");
    client.say(&response("ann"));
    let reply = client.err(&response("wrong"));
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    server.log_line(&["auth failed, 1 attempts", "user=<ann>, method=LOGIN, rip="]);
}

/// How a client's SCRAM is to be bound.
pub(crate) struct Bound<'a> {
    header: &'a str,
    data: &'a [u8],
}

pub(crate) const UNBOUND: Bound<'_> = Bound {
    header: "n,,",
    data: b"",
};

fn decoded(challenge: &str) -> String {
    let text = challenge.strip_prefix("+ ").expect("a challenge");
    String::from_utf8(Base64::decode_vec(text).expect("base64")).expect("UTF-8")
}

/// A client's SCRAM (RFC 5802, section 3), by which it also checks the server's proof:
/// the salt and the last reply.
pub(crate) fn scram<S: Read + Write>(
    client: &mut Client<S>,
    mechanism: &str,
    user: &str,
    password: &str,
    bound: &Bound<'_>,
) -> (String, String) {
    use aws_lc_rs::{digest, hmac, pbkdf2};
    let (hash, stretch) = if mechanism == "SCRAM-SHA-1" {
        (
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            pbkdf2::PBKDF2_HMAC_SHA1,
        )
    } else {
        (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256)
    };
    let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
    let first = response(format!("{}{bare}", bound.header));
    let challenge = decoded(&client.say(&format!("AUTH {mechanism} {first}")));
    let fields: Vec<_> = challenge.splitn(3, ',').collect();
    let [nonce, salt, iterations] = fields[..] else {
        panic!("{challenge}");
    };
    assert!(nonce.starts_with("r=fyko+d2lbbFgONRv9qkxdawL") && nonce.len() > 40);
    let salt = salt.strip_prefix("s=").expect("a salt");
    let count = iterations.strip_prefix("i=").expect("a count");
    let mut salted = vec![0; hash.digest_algorithm().output_len()];
    let octets = Base64::decode_vec(salt).expect("base64");
    let count = count.parse().expect("a number");
    pbkdf2::derive(stretch, count, &octets, password.as_bytes(), &mut salted);
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hash, key), text);
    let own = sign(&salted, b"Client Key");
    let stored = digest::digest(hash.digest_algorithm(), own.as_ref());
    let binding = response([bound.header.as_bytes(), bound.data].concat());
    let without_proof = format!("c={binding},{nonce}");
    let said = format!("{bare},{challenge},{without_proof}");
    let signature = sign(stored.as_ref(), said.as_bytes());
    let proof: Vec<u8> = own
        .as_ref()
        .iter()
        .zip(signature.as_ref())
        .map(|(a, b)| a ^ b)
        .collect();
    let mut reply = client.say(&response(format!("{without_proof},p={}", response(proof))));
    if reply.starts_with('+') && !reply.starts_with("+OK") {
        let server = sign(sign(&salted, b"Server Key").as_ref(), said.as_bytes());
        assert_eq!(decoded(&reply), format!("v={}", response(server)));
        reply = client.say("");
    }
    (salt.to_owned(), reply)
}

const SCRAMS: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-1"];

/// The password of these is "correct horse battery staple", made by `doveadm pw`.
const STORED: &str = "\
one:{SCRAM-SHA-1}4096,ozhjO8YMLRnyU6Os0FMEhg==,/ujRyAqtfnkf8zaz/mcHqdh2AAs=,oiJMXsPe1M1jv0VHrOJ0iYdaSPI=
two:{SCRAM-SHA-256}4096,t62WJIG3yzpROt1ZTOePGQ==,Jo55EFNeQCbonDyn7KBbOaKOU9Lr0MBLazZsFPNrkko=,Wh/aHAPAXj/F6ua4jWbWgUymNutqIBv3tBvNMLGG4iU=
";

fn with_scram(auth: &'static str) -> Server {
    let mut site = Site::with_users(&["ann"]);
    site.auth = auth;
    site.plaintext = false;
    let off = format!("off:{{PLAIN}}{PASSWORD}::::::nologin\n");
    site.write_users(&format!("ann:{{PLAIN}}{PASSWORD}\n{off}{STORED}"));
    site.start()
}

#[test]
fn scram_logs_in_with_what_is_stored_for_it_and_with_passwords_in_clear() {
    let server = with_scram("mechanisms = [\"scram-sha-256\", \"scram-sha-1\"]\n");
    let horse = "correct horse battery staple";
    // On a connection without TLS: nobody who listens learns the password.
    let mut client = server.connect();
    assert_eq!(client.rows("AUTH"), SCRAMS);
    for (mechanism, user, password) in [
        (SCRAMS[0], "two", horse),
        (SCRAMS[1], "one", horse),
        (SCRAMS[0], "ann", PASSWORD),
        (SCRAMS[1], "ann", PASSWORD),
    ] {
        let mut client = server.connect();
        let (_, reply) = scram(&mut client, mechanism, user, "wrong", &UNBOUND);
        assert!(reply.starts_with("-ERR [AUTH] "), "{user}: {reply}");
        let (_, reply) = scram(&mut client, mechanism, user, password, &UNBOUND);
        assert!(reply.starts_with("+OK"), "{user}: {reply}");
        client.quit();
    }
    // The hash of the one is of no use to the other.
    let mut client = server.connect();
    let (_, reply) = scram(&mut client, SCRAMS[0], "one", horse, &UNBOUND);
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    let (_, reply) = scram(&mut client, SCRAMS[0], "off", PASSWORD, &UNBOUND);
    assert_eq!(reply, "-ERR [SYS/PERM] This account is disabled");
    server.log_line(&["auth failed", "user=<one>, method=SCRAM-SHA-256, rip="]);
    server.log_line(&["user disabled", "user=<off>, method=SCRAM-SHA-256, rip="]);
}

#[test]
fn a_user_who_is_not_there_has_the_same_salt_each_time_and_after_a_restart() {
    let secret = "0123456789abcdef0123456789abcdef";
    let salts = [(); 2].map(|()| {
        let mut site = Site::with_users(&["ann"]);
        site.auth = "mechanisms = [\"scram-sha-256\"]\nscram_secret = \"secret\"\n";
        std::fs::write(site.path().join("secret"), secret).expect("written");
        let server = site.start();
        ["ann", "nobody", "nobody", "else"].map(|user| {
            let mut client = server.connect();
            let (salt, reply) = scram(&mut client, SCRAMS[0], user, "wrong", &UNBOUND);
            assert!(reply.starts_with("-ERR [AUTH] "), "{user}: {reply}");
            salt
        })
    });
    let [ann, nobody, again, other] = &salts[0];
    assert_eq!(nobody, again);
    assert!(ann != nobody && nobody != other && ann.len() == nobody.len());
    assert_eq!(salts[0], salts[1]);
}

#[test]
fn scram_is_bound_to_the_connection() {
    use rustls::version::{TLS12, TLS13};
    let server = with_scram("mechanisms = [\"scram-sha-256\"]\n");
    let certificate = CertificateDer::from_pem_file(server.site.path().join("chain.pem"));
    let certificate = certificate.expect("PEM");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
    let end_point = Bound {
        header: "p=tls-server-end-point,,",
        data: digest.as_ref(),
    };
    for version in [&TLS12, &TLS13] {
        let mut client = tls::implicit_with(&server, tls::own_of(version));
        let offered = client.rows("AUTH");
        assert_eq!(offered, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
        let plus = "SCRAM-SHA-256-PLUS";
        let label = b"EXPORTER-Channel-Binding";
        let connection = &client.stream().conn;
        let exporter = connection.export_keying_material([0; 32], label, Some(b""));
        let exporter = exporter.expect("established");
        // Somebody between has another connection to the server.
        let elsewhere = Bound {
            header: "p=tls-server-end-point,,",
            data: &[7; 32],
        };
        let (_, reply) = scram(&mut client, plus, "ann", PASSWORD, &elsewhere);
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
        // And has hidden from the client that this would be noticed.
        let deceived = Bound {
            header: "y,,",
            data: b"",
        };
        let (_, reply) = scram(&mut client, SCRAMS[0], "ann", PASSWORD, &deceived);
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
        let bound = if version.version == TLS13.version {
            &Bound {
                header: "p=tls-exporter,,",
                data: &exporter,
            }
        } else {
            &end_point
        };
        let (_, reply) = scram(&mut client, plus, "ann", PASSWORD, bound);
        assert!(reply.starts_with("+OK"), "{reply}");
        client.quit();
        let mut client = tls::implicit_with(&server, tls::own_of(version));
        let (_, reply) = scram(&mut client, plus, "ann", PASSWORD, &end_point);
        assert!(reply.starts_with("+OK"), "{reply}");
        client.quit();
    }
}

#[test]
fn a_certificate_logs_in_whom_it_vouches_for() {
    let (root, certificate, key) = person("Ann@example.net");
    let mut site = Site::with_users(&[]);
    site.auth = "mechanisms = [\"external\"]\nlowercase = true\n";
    site.write_users("ann@example.net:{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4\n");
    site.tls = "client_certificates = \"optional\"\nclient_ca = \"ca.pem\"".to_owned();
    std::fs::write(site.path().join("ca.pem"), &root).expect("written");
    let server = site.start();
    let mut stranger = tls::started(&server);
    assert_eq!(stranger.rows("AUTH"), [""; 0]);
    stranger.err("AUTH EXTERNAL =");
    for response in ["=", "QW5uQGV4YW1wbGUubmV0"] {
        let config = tls::own_showing(certificate.clone(), &key);
        let mut client = tls::implicit_with(&server, config);
        assert_eq!(client.rows("AUTH"), ["EXTERNAL"]);
        // `eve`, for whom the certificate does not vouch.
        client.err("AUTH EXTERNAL ZXZl");
        client.ok(&format!("AUTH EXTERNAL {response}"));
        client.quit();
    }
    server.log_line(&[
        "Logged out",
        "user=<ann@example.net>",
        "cert=<Ann@example.net>",
    ]);
}

#[test]
fn a_master_user_reads_the_mail_of_others() {
    let mut site = Site::with_users(&["ann"]);
    site.mailbox("ann")
        .deliver("new/1.M1.host", b"Subject: hers\n\n");
    site.more = "[[auth.directory]]\nkind = \"passwd-file\"\npath = \"masters\"\nmaster = true\n";
    std::fs::write(site.path().join("masters"), "root:{PLAIN}master\n").expect("written");
    let server = site.start();
    let mut client = server.connect();
    client.ok("USER root*ann");
    client.err("PASS secret");
    client.ok("USER root*ann");
    client.ok("PASS master");
    assert!(client.ok("STAT").starts_with("+OK 1 "));
    client.quit();
    server.log_line(&["auth failed", "user=<root*ann>"]);
    server.log_line(&["Logged out", "user=<ann>", "master=<root>"]);
    let mut client = server.connect();
    client.ok(&format!("AUTH PLAIN {}", response("ann\0root\0master")));
    client.quit();
    // A master user has no maildrop, and nobody else acts for another.
    let mut client = server.connect();
    client.ok("USER root");
    client.err("PASS master");
    client.err(&format!("AUTH PLAIN {}", response("root\0ann\0secret")));
}

/// The digest of a stamp and a password.
fn apop(stamp: &str, password: &str) -> String {
    use md5::Digest as _;
    let digest = md5::Md5::digest([stamp, password].concat());
    format!("{:032x}", u128::from_be_bytes(digest.into()))
}

#[test]
fn apop_logs_in_where_it_is_offered_and_the_password_is_in_clear() {
    let stamp = |client: &mut Client| {
        let greeting = client.line();
        greeting.split(' ').next_back().expect("a word").to_owned()
    };
    let silent = ann();
    let mut client = Client::silent(silent.site.pop3());
    assert!(!stamp(&mut client).contains('<'));
    client.err(&format!("APOP ann {}", apop("", PASSWORD)));
    let mut site = Site::with_users(&["ann"]);
    site.auth = "apop = true\n";
    site.plaintext = false;
    site.write_users(&format!(
        "ann:{{PLAIN}}{PASSWORD}\n{STORED}off:{{PLAIN}}{PASSWORD}::::::nologin\n"
    ));
    let server = site.start();
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let mut client = Client::silent(server.site.pop3());
        let stamp = stamp(&mut client);
        assert!(
            stamp.starts_with('<') && stamp.ends_with("@popcore>"),
            "{stamp}"
        );
        let right = apop(&stamp, PASSWORD);
        let reply = client.err(&format!("APOP ann {}", apop(&stamp, "wrong")));
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
        let horse = apop(&stamp, "correct horse battery staple");
        for (user, digest) in [("nobody", &right), ("two", &horse)] {
            let mut client = Client::silent(server.site.pop3());
            client.line();
            let other = client.err(&format!("APOP {user} {digest}"));
            assert_eq!(other, reply, "{user}");
        }
        client.ok(&format!("APOP ann {right}"));
        client.quit();
        // What was heard of one connection is of no use for another.
        let mut client = Client::silent(server.site.pop3());
        client.line();
        client.err(&format!("APOP ann {right}"));
        stamps.push(stamp);
    }
    assert_ne!(stamps[0], stamps[1]);
    let mut client = Client::silent(server.site.pop3());
    let stamp = stamp(&mut client);
    let reply = client.err(&format!("APOP off {}", apop(&stamp, PASSWORD)));
    assert_eq!(reply, "-ERR [SYS/PERM] This account is disabled");
    server.log_line(&["auth failed", "user=<ann>, method=APOP, rip="]);
}

#[test]
fn names_are_one_however_they_are_written() {
    let mut site = Site::with_users(&[]);
    site.auth = "lowercase = true\ndefault_domain = \"example.net\"\n\
                 allowed_characters = \"abcdefghijklmnopqrstuvwxyzANE@.\"\n";
    site.write_users(&format!("ann@example.net:{{PLAIN}}{PASSWORD}\n"));
    let server = site.start();
    for name in ["ann", "ANN", "ann@example.net", "Ann@Example.net"] {
        let mut client = server.connect();
        client.log_in(name);
        client.quit();
        let mut client = server.connect();
        client.ok(&format!(
            "AUTH PLAIN {}",
            response(format!("\0{name}\0{PASSWORD}"))
        ));
        client.quit();
    }
    let mut client = server.connect();
    client.err("USER ann%");
    client.err("USER BOB");
    server.log_line(&["Logged out", "user=<ann@example.net>"]);
}

/// Everything that the server says, with all that it can say, of logins that were good
/// and bad by every way there is; and what others see of its process.
#[test]
fn no_secret_is_in_logs_nor_seen_from_outside() {
    const SECRET: &str = "hunter2-xyzzy";
    let mut site = Site::with_users(&[]);
    site.auth = "mechanisms = [\"scram-sha-256\", \"scram-sha-1\", \"plain\", \"login\"]\n";
    site.log_level = "trace";
    site.write_users(&format!(
        "ann:{{PLAIN}}{SECRET}\nbroken {SECRET}\nbob:{{NO}}{SECRET}\n"
    ));
    let server = site.start();
    for password in [SECRET, "hunter2-xyzzy-wrong"] {
        let is_right = password == SECRET;
        let end = |reply: String, mut client: Client| {
            assert_eq!(reply.starts_with("+OK"), is_right, "{reply}");
            client.ok("QUIT");
            client.ends();
        };
        let mut client = server.connect();
        client.ok("USER ann");
        let reply = client.say(&format!("PASS {password}"));
        end(reply, client);
        let mut client = server.connect();
        let plain = response(format!("\0ann\0{password}"));
        let reply = client.say(&format!("AUTH PLAIN {plain}"));
        end(reply, client);
        let mut client = server.connect();
        client.say("AUTH LOGIN");
        client.say(&response("ann"));
        let reply = client.say(&response(password));
        end(reply, client);
        for mechanism in SCRAMS {
            let mut client = server.connect();
            let (_, reply) = scram(&mut client, mechanism, "ann", password, &UNBOUND);
            end(reply, client);
        }
        // Where a name is meant.
        let mut client = server.connect();
        client.say(&format!(
            "AUTH PLAIN {}",
            response(format!("\0ann{password}"))
        ));
        client.say(&format!("PASS {password}"));
        client.say(&format!("PAS {password}"));
    }
    server.log_line(&["auth failed", "method=SCRAM-SHA-1"]);
    let pid = server.pid();
    let outside = ["cmdline", "environ", "comm"].map(|file| {
        let path = format!("/proc/{pid}/{file}");
        String::from_utf8_lossy(&std::fs::read(path).expect("it runs")).into_owned()
    });
    let seen = [server.log(), outside.concat()].concat();
    let encoded = response(SECRET);
    for told in [
        "hunter2",
        &encoded[..12],
        &response(format!("\0ann\0{SECRET}"))[..16],
    ] {
        assert!(!seen.contains(told), "{told}: {seen}");
    }
}
