//! fetchmail: TOP or RETR, by its choice, and a program to deliver with.
//!
//! What it changes, by its manual: it puts a `Received` header before the others
//! (`set invisible` would stop that and is not what users do), and as it
//! delivers through a program, it ends lines in LF (`stripcr`). It leaves
//! addresses that have a host as they are. Headers without a body get the blank
//! line that ends headers, which its manual does not say.
//!
//! Of what it can log in by to a POP3 server, popcore has USER with PASS and APOP: the
//! others are CRAM-MD5, NTLM, MSN, one-time passwords and Kerberos. PLAIN, LOGIN and
//! bearer tokens it does not know here, and EXTERNAL with IMAP alone.

use std::fs;

use crate::compare::assert_delivered;
use crate::messages::{Message, ordinary};
use crate::program::{Ended, run};
use crate::site::{HOST, PASSWORD, PROTECTIONS, Protection, Settings, Site, USER};

/// How it logs in where nobody says how: by what the server offers, and with the
/// password that is right.
const USUAL: Login = Login {
    protocol: "pop3",
    auth: "any",
    password: PASSWORD,
};

/// How it is to log in.
#[derive(Clone, Copy)]
struct Login {
    protocol: &'static str,
    auth: &'static str,
    password: &'static str,
}

fn configure(site: &Site, protection: Protection, keep: &str) {
    configure_by(site, protection, keep, USUAL);
}

/// Writes the settings, and a program that puts each message into a file.
fn configure_by(site: &Site, protection: Protection, keep: &str, login: Login) {
    let Login {
        protocol,
        auth,
        password,
    } = login;
    let into = site.destination().join("new");
    let into = into.display();
    let script = format!("#!/bin/sh\nexec cat > \"$(mktemp '{into}/XXXXXXXX')\"\n");
    let deliver = site.write_private(&format!("deliver-{keep}"), &script);
    let tls = match protection {
        Protection::Clear => "sslproto ''".to_owned(),
        Protection::Stls => "sslproto 'TLS1.2+' sslcertck".to_owned(),
        Protection::Tls => "ssl sslcertck".to_owned(),
    };
    let settings = format!(
        "poll {HOST} protocol {protocol} auth {auth} port {} uidl bad-header accept\n  \
         user '{USER}' password '{password}' {keep}\n  \
         {tls} sslcertfile '{}'\n  mda \"/bin/sh {}\"\n",
        site.port(protection),
        site.authority().display(),
        deliver.display()
    );
    site.write_private(&format!("fetchmailrc-{keep}"), &settings);
}

fn fetchmail(site: &Site, keep: &str, more: &[&str]) -> Ended {
    let settings = site.home().join(format!("fetchmailrc-{keep}"));
    let settings = settings.display().to_string();
    // One at a time is its rule for a user; a file of its own makes the test one.
    let pid_file = site.home().join("pid").display().to_string();
    let fixed = [
        "--nodetach",
        "--verbose",
        "--pidfile",
        &pid_file,
        "--fetchmailrc",
        &settings,
    ];
    let arguments = fixed.iter().chain(more);
    run("fetchmail", "fetchmail", &site.home(), arguments)
}

/// Takes out the `Received` header that fetchmail puts in, which must be there,
/// behind `Return-Path` and before the message's own, and be fetchmail's.
fn without_received(message: &[u8]) -> Vec<u8> {
    let mut lines = message.split_inclusive(|byte| *byte == b'\n').peekable();
    let path = lines.next_if(|line| line.starts_with(b"Return-Path:"));
    let mut header = lines.next().expect("a header").to_vec();
    while let Some(line) = lines.next_if(|line| line.starts_with(b"\t")) {
        header.extend_from_slice(line);
    }
    let header = String::from_utf8(header).expect("ASCII");
    assert!(
        header.starts_with("Received: from localhost ") && header.contains("(fetchmail-"),
        "{header}"
    );
    let rest: Vec<&[u8]> = path.into_iter().chain(lines).collect();
    rest.concat()
}

fn assert_fetched(site: &Site, messages: &[Message]) {
    let arrived = crate::compare::delivered(&site.destination());
    let arrived: Vec<_> = arrived.iter().map(|text| without_received(text)).collect();
    assert_delivered(&arrived, messages, Message::with_lf_and_blank_line);
}

fn clear_destination(site: &Site) {
    fs::remove_dir_all(site.destination()).expect("own folder");
    site.destination();
}

#[test]
fn fetchmail_leaves_mail_and_fetches_it_once() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        configure(&site, protection, "keep");
        let talked = fetchmail(&site, "keep", &[]).well();
        let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
        assert!(talked.contains("POP3> TOP 1 99999999"), "{talked}");
        assert_fetched(&site, &messages);
        // 1: there was no mail to fetch.
        fetchmail(&site, "keep", &[]).with_code(1);
        assert_fetched(&site, &messages);
        assert_eq!(site.remaining(), messages.len());
        site.stop_after(protection);
    }
}

#[test]
fn fetchmail_fetches_and_deletes() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        configure(&site, protection, "nokeep");
        let talked = fetchmail(&site, "nokeep", &["--fetchall"]).well();
        let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
        assert!(talked.contains("POP3> RETR 1"), "{talked}");
        assert_fetched(&site, &messages);
        assert_eq!(site.remaining(), 0);
        clear_destination(&site);
        fetchmail(&site, "nokeep", &["--fetchall"]).with_code(1);
        assert_fetched(&site, &[]);
        site.stop_after(protection);
    }
}

#[test]
fn fetchmail_logs_in_by_every_mechanism_it_has() {
    let messages = ordinary();
    let offered = Settings {
        auth: "apop = true",
        ..Settings::default()
    };
    for protection in PROTECTIONS {
        let mut ways = vec![
            ("pop3", "any", format!("POP3> USER {USER}")),
            ("pop3", "password", format!("POP3> USER {USER}")),
        ];
        // By APOP it logs in at once, whatever it is told of TLS, and asks for no STLS.
        if protection != Protection::Stls {
            ways.push(("apop", "password", format!("POP3> APOP {USER} ")));
        }
        for (protocol, auth, said) in ways {
            let site = Site::start_by(&messages, offered, |_| {});
            let login = Login {
                protocol,
                auth,
                ..USUAL
            };
            configure_by(&site, protection, "keep", login);
            let talked = fetchmail(&site, "keep", &[]).well();
            let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
            assert!(talked.contains(&said), "{protection:?}: {talked}");
            let is_by_pass = talked.contains("POP3> PASS ");
            assert_eq!(is_by_pass, protocol == "pop3", "{talked}");
            assert_fetched(&site, &messages);
            site.stop_after(protection);
        }
    }
}

#[test]
fn fetchmail_is_refused_with_another_password_and_where_apop_is_not_offered() {
    let messages = ordinary();
    let apop = Login {
        protocol: "apop",
        auth: "password",
        ..USUAL
    };
    let wrong = "three words";
    for (auth, login, said) in [
        (
            "apop = true",
            Login {
                password: wrong,
                ..apop
            },
            "POP3> APOP ",
        ),
        (
            "apop = true",
            Login {
                password: wrong,
                ..USUAL
            },
            "POP3> PASS ",
        ),
        (
            "apop = false",
            apop,
            "Required APOP timestamp not found in greeting",
        ),
    ] {
        let settings = Settings {
            auth,
            ..Settings::default()
        };
        let site = Site::start_by(&messages, settings, |_| {});
        configure_by(&site, Protection::Tls, "keep", login);
        // 3: the user is not let in.
        let refused = fetchmail(&site, "keep", &[]).with_code(3);
        let talked = String::from_utf8_lossy(&refused.stdout) + &*refused.stderr;
        assert!(talked.contains(said), "{talked}");
        assert_fetched(&site, &[]);
        assert_eq!(site.remaining(), messages.len());
    }
}
