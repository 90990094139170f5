//! A Maildir that Dovecot or Courier has served before: popcore announces what it
//! announced, in its order, and the same octets, with the real ones asked.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::client::Client;
use crate::dovecot::Dovecot;
use crate::messages::{Message, odd, ordinary};
use crate::site::{PASSWORD, Protection, Site, USER, free_port, maildir};

/// Messages on which Dovecot counts the same octets: they end with a line end.
fn messages() -> Vec<Message> {
    let all = ordinary().into_iter().chain(odd());
    all.filter(|message| message.bytes.ends_with(b"\n") && message.bytes[0] != b'.')
        .collect()
}

/// What a server announced: octets and unique-ids.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    octets: Vec<String>,
    unique_ids: Vec<String>,
}

fn ask(port: u16) -> Announced {
    let mut client = Client::login(port, USER, PASSWORD);
    let announced = Announced {
        octets: client.listing("LIST"),
        unique_ids: client.listing("UIDL"),
    };
    client.quit();
    announced
}

/// Has Dovecot serve the mail with these settings, then popcore with this source.
fn after_dovecot(settings: &str, source: &str) -> Announced {
    assert!(geteuid().is_root(), "Dovecot starts as root only");
    let mut theirs = None;
    let maildrop = format!("uidl = [\"{source}\", \"name\"]\n");
    let site = Site::start_after(&messages(), &maildrop, |folder| {
        let dovecot = Dovecot::start(folder, settings);
        theirs = Some(ask(dovecot.port()));
        // Twice: what it saves, it has saved by the second time.
        assert_eq!(theirs, Some(ask(dovecot.port())));
    });
    let theirs = theirs.expect("it was asked");
    assert_eq!(theirs.unique_ids.len(), messages().len());
    assert_eq!(ask(site.port(Protection::Clear)), theirs, "{settings}");
    // Once announced it stays, whatever becomes of their files.
    fs::remove_file(maildir(site.folder()).join("dovecot-uidlist")).expect("it is there");
    let late = maildir(site.folder()).join("new/1800000000.M1P1.late");
    fs::write(late, "Subject: late\n\nlate\n").expect("own folder");
    let mut later = ask(site.port(Protection::Clear));
    assert_eq!(
        later.unique_ids.pop().as_deref(),
        Some("1800000000.M1P1.late")
    );
    later.octets.pop();
    assert_eq!(later, theirs, "{settings}");
    site.stop();
    theirs
}

#[test]
fn what_dovecot_announced_by_default_is_announced() {
    let theirs = after_dovecot("", "dovecot");
    let hex = |uidl: &String| uidl.len() == 16 && uidl.bytes().all(|c| c.is_ascii_hexdigit());
    assert!(theirs.unique_ids.iter().all(hex), "{theirs:?}");
}

#[test]
fn what_dovecot_announced_in_the_form_of_others_is_announced() {
    for format in ["%08Xv%08Xu", "%v.%u", "%u", "%f", "%Mf", "%g", "UID%u-%v"] {
        let settings = format!("pop3_uidl_format = {format}\n");
        after_dovecot(&settings, &format!("dovecot:{format}"));
    }
}

#[test]
fn what_dovecot_saved_is_announced_whatever_its_format_is_now() {
    let settings = "protocol pop3 {\n  pop3_save_uidl = yes\n}\npop3_uidl_format = x-%v-%u\n";
    let theirs = after_dovecot(settings, "dovecot");
    assert!(
        theirs.unique_ids.iter().all(|uidl| uidl.starts_with("x-")),
        "{theirs:?}"
    );
}

/// Debian's two POP3 servers exclude each other, so that Courier's lies unpacked
/// where `.ci/run packages` has put it.
fn courier() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../ci/courier");
    let program = unpacked.join("usr/lib/courier/courier/courierpop3d");
    assert!(
        program.is_file(),
        "{} is not there: run .ci/run packages",
        program.display()
    );
    program
}

/// A session with Courier as its authentication daemon begins it.
fn ask_courier(maildir: &Path) -> Announced {
    let mut server = Command::new(courier())
        .arg(maildir)
        .env("AUTHENTICATED", USER)
        .env("TCPREMOTEIP", "127.0.0.1")
        .env("PROTOCOL", "POP3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut input = server.stdin.take().expect("piped");
    input
        .write_all(b"LIST\r\nUIDL\r\nQUIT\r\n")
        .expect("it reads");
    drop(input);
    let output = server.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let listing = |part: usize| -> Vec<String> {
        // The first is behind the greeting.
        let rows = text.split("\r\n.\r\n").nth(part).expect("a listing");
        let rows = rows.lines().filter(|row| !row.starts_with("+OK"));
        rows.map(|row| row.split_once(' ').expect("a number").1.to_owned())
            .collect()
    };
    Announced {
        octets: listing(0),
        unique_ids: listing(1),
    }
}

/// What `popcore migrate` says, and whether it ended well.
fn migrate(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .arg("migrate")
        .args(arguments)
        .output()
        .expect("popcore starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.success(), said)
}

/// Plans the move of a site's mailbox.
fn plan(site: &Site) -> (bool, String) {
    let config = site.folder().join("popcore.toml");
    migrate(&["plan", "--config", &config.display().to_string()])
}

/// Compares a server that runs with popcore, messages and all.
fn verify(site: &Site, against: u16) -> (bool, String) {
    verify_with(site, &format!("127.0.0.1:{against}"), &[])
}

fn verify_with(site: &Site, against: &str, more: &[&str]) -> (bool, String) {
    let users = site.home().join("verify");
    fs::write(&users, format!("{USER}:{PASSWORD}\n")).expect("own folder");
    let server = format!("127.0.0.1:{}", site.port(Protection::Clear));
    let users = users.display().to_string();
    let mut arguments = vec![
        "verify",
        "--against",
        against,
        "--users",
        &users,
        "--content",
    ];
    if !more.contains(&"--server") {
        arguments.extend(["--server", &server]);
    }
    arguments.extend(more);
    migrate(&arguments)
}

#[test]
fn a_move_from_dovecot_is_planned_and_verified_while_both_run() {
    let maildrop = "uidl = [\"dovecot\", \"name\"]\n";
    let site = Site::start_after(&messages(), maildrop, |folder| {
        let dovecot = Dovecot::start(folder, "");
        ask(dovecot.port());
    });
    let count = messages().len();
    let told = format!("{USER}: {count} messages, {count} announced as before\n");
    assert_eq!(plan(&site), (true, told));
    let dovecot = Dovecot::start(site.folder(), "");
    let told = format!("{USER}: same, {count} messages\n");
    assert_eq!(verify(&site, dovecot.port()), (true, told));
    // Planned again, once popcore has announced them.
    assert!(plan(&site).0);
    drop(dovecot);
    // A server that announces others is found out, message by message.
    let dovecot = Dovecot::start(site.folder(), "pop3_uidl_format = %v.%u\n");
    let (same, said) = verify(&site, dovecot.port());
    assert!(!same && said.contains("DIFFERENT"), "{said}");
    assert!(said.contains(&format!("{count} differences")), "{said}");
    assert!(said.contains("  uidl of message 1: "), "{said}");
    site.stop();
}

#[test]
fn a_move_is_verified_over_tls() {
    let site = Site::start_after(&messages(), "uidl = [\"dovecot\", \"name\"]\n", |folder| {
        let dovecot = Dovecot::start(folder, "");
        ask(dovecot.port());
    });
    let folder = site.folder().display();
    let secured = free_port();
    let dovecot = Dovecot::start(
        site.folder(),
        &format!(
            "ssl = yes\nssl_cert = <{folder}/certificate.pem\nssl_key = <{folder}/key.pem\n\
             service pop3-login {{\n  inet_listener pop3s {{\n    port = {secured}\n    \
             ssl = yes\n  }}\n}}\n"
        ),
    );
    let authority = site.authority().display().to_string();
    let told = format!("{USER}: same, {} messages\n", messages().len());
    let popcore = format!("localhost:{}", site.port(Protection::Tls));
    for (port, tls) in [(dovecot.port(), "starttls"), (secured, "implicit")] {
        let more = ["--tls", tls, "--authority", &authority];
        let against = format!("localhost:{port}");
        assert_eq!(verify_with(&site, &against, &more), (true, told.clone()));
        let more = [
            &more[..],
            &["--server-tls", "implicit", "--server", &popcore],
        ]
        .concat();
        assert_eq!(verify_with(&site, &against, &more), (true, told.clone()));
        // Another name than the certificate's, and an authority that nobody knows.
        let (same, said) = verify_with(&site, &format!("127.0.0.1:{port}"), &more);
        assert!(
            !same && said.contains("TLS: invalid peer certificate"),
            "{said}"
        );
        let (same, said) = verify_with(&site, &against, &["--tls", tls]);
        assert!(!same && said.contains("UnknownIssuer"), "{said}");
    }
    site.stop();
}

#[test]
fn what_dovecot_numbers_after_the_move_is_planned_as_no_loss() {
    let site = Site::start_after(&messages(), "uidl = [\"dovecot\"]\n", |folder| {
        let dovecot = Dovecot::start(folder, "");
        ask(dovecot.port());
    });
    let count = messages().len();
    let late = maildir(site.folder()).join("new/1800000000.M1P1.late");
    fs::write(late, "Subject: late\n\nlate\n").expect("own folder");
    let ours = ask(site.port(Protection::Clear)).unique_ids;
    let dovecot = Dovecot::start(site.folder(), "");
    assert_ne!(ask(dovecot.port()).unique_ids, ours);
    let told = format!(
        "{USER}: {} messages, {count} announced as before, 1 numbered by another server since \
         popcore took over\n",
        count + 1
    );
    let (good, said) = plan(&site);
    assert!(good && said.starts_with(&told), "{said}");
    assert!(said.contains("After a mere trial"), "{said}");
    site.stop();
}

#[test]
fn what_a_move_would_lose_is_planned() {
    let site = Site::start_after(&messages()[..2], "uidl = [\"dovecot\"]\n", |folder| {
        let mail = maildir(folder);
        let names = ["cur", "new"].into_iter().flat_map(|part| {
            let entries = fs::read_dir(mail.join(part)).expect("a Maildir");
            entries.map(|entry| entry.expect("an entry").file_name())
        });
        let mut list = "3 V7 N9\n".to_owned();
        for (name, uid) in names.zip(1..) {
            let name = name.into_string().expect("ASCII");
            let unique = name.split(':').next().expect("a name");
            writeln!(list, "{uid} Psame :{unique}").expect("a String");
        }
        fs::write(mail.join("dovecot-uidlist"), list).expect("own folder");
    });
    let (good, said) = plan(&site);
    assert!(
        !good && said.contains(", 1 announced as before, 1 ANNOUNCED ANEW\n"),
        "{said}"
    );
    assert!(
        said.contains(": same before, ") && said.contains(": another message has it"),
        "{said}"
    );
    site.stop();
}

/// Courier behind a socket, as its own listener and login program have it, for one
/// session.
fn courier_on_a_port(maildir: &Path) -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let maildir = maildir.to_owned();
    let session = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
        let mut line = String::new();
        (&stream).write_all(b"+OK Hello there.\r\n").expect("open");
        lines.read_line(&mut line).expect("USER");
        (&stream)
            .write_all(b"+OK Password required.\r\n")
            .expect("open");
        lines.read_line(&mut line).expect("PASS");
        assert_eq!(line, format!("USER {USER}\r\nPASS {PASSWORD}\r\n"));
        // Its greeting is the answer to PASS.
        let status = Command::new(courier())
            .arg(maildir)
            .env("AUTHENTICATED", USER)
            .env("TCPREMOTEIP", "127.0.0.1")
            .env("PROTOCOL", "POP3")
            .stdin(OwnedFd::from(stream.try_clone().expect("a socket")))
            .stdout(OwnedFd::from(stream))
            .stderr(Stdio::null())
            .status();
        status.expect("it starts");
    });
    (port, session)
}

#[test]
fn a_move_from_courier_is_planned_and_verified_while_both_run() {
    let all = messages().into_iter();
    let messages: Vec<Message> = all.filter(|m| !m.bytes.contains(&b'\r')).collect();
    let site = Site::start_after(&messages, "uidl = [\"courier\"]\n", |folder| {
        ask_courier(&maildir(folder));
    });
    let count = messages.len();
    let told = format!("{USER}: {count} messages, {count} announced as before\n");
    assert_eq!(plan(&site), (true, told));
    let (port, session) = courier_on_a_port(&maildir(site.folder()));
    let told = format!("{USER}: same, {count} messages\n");
    assert_eq!(verify(&site, port), (true, told));
    session.join().expect("it ended");
    site.stop();
}

#[test]
fn what_courier_announced_is_announced_in_its_order() {
    let mut theirs = None;
    let maildrop = "uidl = [\"courier\", \"name\"]\n";
    // Courier adds an octet for every line end, that of CRLF as well.
    let all = messages().into_iter();
    let messages: Vec<Message> = all.filter(|m| !m.bytes.contains(&b'\r')).collect();
    let site = Site::start_after(&messages, maildrop, |folder| {
        let mail = maildir(folder);
        // Of one second, which Courier orders as text: M10 before M9.
        for micros in [9, 10] {
            let name = format!("new/1750000000.M{micros}P1.mail.example.net");
            fs::write(mail.join(name), format!("Subject: {micros}\n\nx\n")).expect("own folder");
        }
        theirs = Some(ask_courier(&mail));
        assert_eq!(theirs, Some(ask_courier(&mail)));
    });
    let theirs = theirs.expect("it was asked");
    assert!(
        theirs.unique_ids.iter().all(|uidl| uidl.starts_with("UID")),
        "{theirs:?}"
    );
    assert_eq!(theirs.unique_ids.len(), messages.len() + 2);
    assert_eq!(ask(site.port(Protection::Clear)), theirs);
    fs::remove_file(maildir(site.folder()).join("courierpop3dsizelist")).expect("it is there");
    assert_eq!(ask(site.port(Protection::Clear)), theirs);
    site.stop();
}
