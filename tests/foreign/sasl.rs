//! Every mechanism of AUTH that curl and mpop have in Debian: one message is fetched by
//! each, and what they say of the dialogue shows that it was the mechanism. Those with
//! tokens are in `oauth`.
//!
//! mpop's SCRAM is that of GNU SASL. Debian 12's mpop knows no SCRAM-SHA-256-PLUS, which is
//! offered beside the others here and must not disturb them; GNU SASL itself does, and a
//! script has it log in.

use std::fs;
use std::path::Path;

use crate::compare::{assert_delivered, assert_same, delivered};
use crate::messages::{Message, ordinary};
use crate::program::{Ended, run};
use crate::site::{HOST, PASSWORD, Protection, Settings, Site, USER};

const SCRAM_PLUS: &str = include_str!("scram_by_gsasl.py");

fn mpop(site: &Site, mechanism: &str, password: &str) -> Ended {
    let text = format!(
        "account test\nhost {HOST}\nport {}\ntls on\ntls_starttls off\ntls_trust_file {}\n\
         auth {mechanism}\nuser {USER}\npassword {password}\n\
         received_header off\nuidls_file {}\ndelivery maildir {}\n",
        site.port(Protection::Tls),
        site.authority().display(),
        site.home().join("uidls").display(),
        site.destination().display()
    );
    let file = site.write_private(&format!("mpop-{mechanism}-{}", password.len()), &text);
    let file = format!("--file={}", file.display());
    run(
        "mpop",
        "mpop",
        &site.home(),
        [&*file, "--debug", "--keep=on", "test"],
    )
}

#[test]
fn mpop_logs_in_by_every_mechanism_it_has() {
    let messages = ordinary();
    for mechanism in ["plain", "login", "scram-sha-1", "scram-sha-256"] {
        let site = Site::start(&messages);
        let talked = mpop(&site, mechanism, PASSWORD).well();
        let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
        let said = format!("AUTH {}", mechanism.to_ascii_uppercase());
        assert!(
            talked.contains(&format!("{said}\r\n")) || talked.contains(&format!("{said} ")),
            "{talked}"
        );
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        site.stop_after(Protection::Tls);
    }
}

#[test]
fn mpop_logs_in_by_apop() {
    let messages = ordinary();
    let settings = Settings {
        auth: "apop = true",
        ..Settings::default()
    };
    let site = Site::start_by(&messages, settings, |_| {});
    let talked = mpop(&site, "apop", PASSWORD).well();
    let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
    assert!(talked.contains(&format!("APOP {USER} ")), "{talked}");
    assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
    let refused = mpop(&site, "apop", "three words");
    assert_eq!(refused.code, Some(77), "{refused:?}");
}

#[test]
fn gnu_sasl_logs_in_by_scram_that_is_bound_to_the_connection() {
    let site = Site::start(&ordinary());
    let (port, authority) = (site.port(Protection::Tls).to_string(), site.authority());
    let authority = authority.display().to_string();
    for (password, binding, came) in [
        (PASSWORD, "own", "logged in"),
        (PASSWORD, "another", "refused"),
        ("three words", "own", "refused"),
    ] {
        let arguments = [
            "-c", SCRAM_PLUS, HOST, &port, &authority, USER, password, binding,
        ];
        let ended = run("python3", "python3 and libgsasl18", &site.home(), arguments).well();
        assert!(
            ended.lines().contains(&came),
            "{binding}: {:?}",
            ended.lines()
        );
    }
    let log = fs::read_to_string(site.folder().join("log")).expect("a log");
    let refused = log
        .lines()
        .filter(|line| line.contains("auth failed") && line.contains("method=SCRAM-SHA-256-PLUS"));
    assert_eq!(refused.count(), 2, "{log}");
}

/// A site where certificates of clients count, and one of the user's: `client.pem`, with
/// its key in `client-key.pem`, in the home of clients.
fn site_with_client_certificates() -> Site {
    let settings = Settings {
        auth: "mechanisms = [\"external\", \"plain\"]\nfailure_delay = \"0s\"",
        sections: "[tls]\nclient_certificates = \"optional\"\nclient_ca = \"clients.pem\"",
        ..Settings::default()
    };
    Site::start_by(&ordinary(), settings, make_client_certificate)
}

fn make_client_certificate(folder: &Path) {
    let [authority, own] = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let name = &mut params.distinguished_name;
    name.push(rcgen::DnType::CommonName, "an authority for clients");
    let made = params.self_signed(&authority).expect("a certificate");
    fs::write(folder.join("clients.pem"), made.pem()).expect("own folder");
    let issuer = rcgen::Issuer::new(params, authority);
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, USER);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let made = params.signed_by(&own, &issuer).expect("a certificate");
    let home = folder.join("home");
    fs::write(home.join("client.pem"), made.pem()).expect("own folder");
    fs::write(home.join("client-key.pem"), own.serialize_pem()).expect("own folder");
}

#[test]
fn curl_logs_in_by_its_certificate() {
    let messages = ordinary();
    let site = site_with_client_certificates();
    let certificate = site.authority().display().to_string();
    let user = format!("{USER}:");
    let url = format!("pop3s://{HOST}:{}/1", site.port(Protection::Tls));
    let fixed = [
        "--verbose",
        "--no-progress-meter",
        "--cacert",
        &certificate,
        "--user",
        &user,
        "--login-options",
        "AUTH=EXTERNAL",
        &url,
    ];
    let own = ["--cert", "client.pem", "--key", "client-key.pem"];
    for initial in [&[][..], &["--sasl-ir"]] {
        let arguments = fixed.iter().chain(&own).chain(initial);
        let fetched = run("curl", "curl", &site.home(), arguments).well();
        assert_same(
            messages[0].name,
            &fetched.stdout,
            &messages[0].on_the_wire(),
        );
        let said = fetched.stderr.contains("> AUTH EXTERNAL");
        assert!(said, "{}", fetched.stderr);
    }
    // 67: login denied. Without a certificate there is no such mechanism.
    run("curl", "curl", &site.home(), fixed).with_code(67);
    let log = site.stop_after(Protection::Tls);
    assert!(log.contains(&format!("user=<{USER}>")), "{log}");
}

#[test]
fn mpop_logs_in_by_its_certificate() {
    let messages = ordinary();
    let site = site_with_client_certificates();
    let home = site.home();
    let own = format!(
        "secret\ntls_cert_file {}\ntls_key_file {}",
        home.join("client.pem").display(),
        home.join("client-key.pem").display()
    );
    let talked = mpop(&site, "external", &own).well();
    let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
    assert!(talked.contains("AUTH EXTERNAL"), "{talked}");
    assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
    site.stop_after(Protection::Tls);
}

#[test]
fn curl_logs_in_by_apop() {
    let messages = ordinary();
    let settings = Settings {
        auth: "apop = true",
        ..Settings::default()
    };
    let site = Site::start_by(&messages, settings, |_| {});
    let certificate = site.authority().display().to_string();
    let url = format!("pop3s://{HOST}:{}/1", site.port(Protection::Tls));
    let fetch = |password: &str| {
        let user = format!("{USER}:{password}");
        let arguments = [
            "--verbose",
            "--no-progress-meter",
            "--cacert",
            &certificate,
            "--user",
            &user,
            "--login-options",
            "AUTH=+APOP",
            &url,
        ];
        run("curl", "curl", &site.home(), arguments)
    };
    let fetched = fetch(PASSWORD).well();
    assert_same(
        messages[0].name,
        &fetched.stdout,
        &messages[0].on_the_wire(),
    );
    let said = format!("> APOP {USER} ");
    assert!(fetched.stderr.contains(&said), "{}", fetched.stderr);
    fetch("three words").with_code(67);
}

#[test]
fn mpop_is_refused_with_another_password() {
    let site = Site::start(&ordinary());
    for mechanism in ["plain", "scram-sha-1", "scram-sha-256"] {
        let refused = mpop(&site, mechanism, "three words");
        assert_eq!(refused.code, Some(77), "{mechanism}: {refused:?}");
    }
}

#[test]
fn curl_logs_in_by_every_mechanism_it_has() {
    let messages = ordinary();
    let site = Site::start(&messages);
    let certificate = site.authority().display().to_string();
    let user = format!("{USER}:{PASSWORD}");
    let url = format!("pop3s://{HOST}:{}/1", site.port(Protection::Tls));
    for mechanism in ["PLAIN", "LOGIN"] {
        for initial in [None, Some("--sasl-ir")] {
            let option = format!("AUTH={mechanism}");
            let fixed = [
                "--verbose",
                "--no-progress-meter",
                "--cacert",
                &certificate,
                "--user",
                &user,
                "--login-options",
                &option,
                &url,
            ];
            let arguments = initial.into_iter().chain(fixed);
            let fetched = run("curl", "curl", &site.home(), arguments).well();
            assert_same(
                messages[0].name,
                &fetched.stdout,
                &messages[0].on_the_wire(),
            );
            let said = format!("> AUTH {mechanism}");
            assert!(fetched.stderr.contains(&said), "{}", fetched.stderr);
        }
    }
    site.stop_after(Protection::Tls);
}
