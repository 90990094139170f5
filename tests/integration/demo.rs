//! `popcore demo`, from an empty folder to its mail.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use regex::Regex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::client::Client;
use super::mailbox::Mailbox;
use super::model;
use super::patience::until;
use super::scrape;
use super::server::PROGRAM;
use super::tls;

/// Names and passwords as the demo prints them.
const PEOPLE: [(&str, &str); 4] = [
    ("alice", "demo"),
    ("bob", "demo"),
    ("carol", "demo"),
    ("dave", "two words"),
];

struct Demo {
    folder: PathBuf,
    child: Child,
    said: String,
}

impl Demo {
    fn start(parent: &TempDir) -> Demo {
        let folder = parent.path().join("demo");
        let out = parent.path().join("out");
        let child = Command::new(PROGRAM)
            .args([
                "demo",
                "--pop3-port",
                "0",
                "--pop3s-port",
                "0",
                "--admin-port",
                "0",
            ])
            .arg("--folder")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(parent.path().join("log")).expect("a file"))
            .spawn()
            .expect("it starts");
        let said = until("what to type", || {
            let said = fs::read_to_string(&out).expect("text");
            said.contains("accept it when asked").then_some(said)
        });
        Demo {
            folder,
            child,
            said,
        }
    }

    /// The address that a URL of this scheme names.
    fn address(&self, pattern: &str) -> SocketAddr {
        let found = Regex::new(pattern).expect("a regex");
        let found = found
            .captures(&self.said)
            .unwrap_or_else(|| panic!("{}", self.said));
        let port = found[1].parse::<u16>().expect("a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn pop3(&self) -> SocketAddr {
        self.address(r"curl -u alice:demo pop3://127\.0\.0\.1:(\d+)/")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended; nothing else is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The messages of a maildrop in their order, by the numbers their names begin with.
fn stored(folder: &Path, user: &str) -> Vec<Vec<u8>> {
    let files = Mailbox::make(folder.join("mail").join(user)).files();
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by(|(a, _), (b, _)| a.split_once('/').cmp(&b.split_once('/')));
    files.sort_by_key(|(name, _)| name.split_once('/').expect("a folder").1.to_owned());
    files.into_iter().map(|(_, octets)| octets).collect()
}

fn fetch<S: std::io::Read + std::io::Write>(
    demo: &Demo,
    client: &mut Client<S>,
    user: &str,
    password: &str,
) {
    client.ok(&format!("USER {user}"));
    client.ok(&format!("PASS {password}"));
    let stored = stored(&demo.folder, user);
    assert!(!stored.is_empty());
    assert_eq!(client.rows("LIST").len(), stored.len());
    for (octets, number) in stored.iter().zip(1..) {
        let sent = client.text(&format!("RETR {number}"));
        assert!(sent == model::sent(octets), "{user} {number}");
    }
    client.ok("QUIT");
}

#[test]
fn the_demo_serves_each_of_its_users_by_every_way_it_prints() {
    let parent = tempfile::tempdir().expect("a folder");
    let demo = Demo::start(&parent);
    for (user, password) in PEOPLE {
        let words = format!("{user:<8} password {password:?}");
        assert!(
            demo.said.contains(&words),
            "{words} is not in {}",
            demo.said
        );
        fetch(&demo, &mut Client::connect(demo.pop3()), user, password);
    }
    let certificate = CertificateDer::from_pem_file(demo.folder.join("certificate.pem"));
    let config = tls::trusting(certificate.expect("a certificate"));
    let pop3s = demo.address(r"pop3s://localhost:(\d+)/1");
    let stream = Client::silent(pop3s).into_stream();
    let mut client = Client::over(tls::secure(stream, config.clone()));
    assert!(client.line().starts_with("+OK"));
    fetch(&demo, &mut client, "alice", "demo");
    let mut client = Client::connect(demo.pop3());
    client.ok("STLS");
    let stream = client.into_stream();
    let mut client = Client::over(tls::secure(stream, config));
    fetch(&demo, &mut client, "dave", "two words");
    let mut client = Client::connect(demo.pop3());
    fetch(&demo, &mut client, "user199", "demo");
    let admin = demo.address(r"curl http://127\.0\.0\.1:(\d+)/metrics");
    assert_eq!(scrape::get(admin, "/healthz").1, "ok\n");
}

#[test]
fn a_second_demo_finds_the_mail_of_the_first() {
    let parent = tempfile::tempdir().expect("a folder");
    let demo = Demo::start(&parent);
    assert!(
        demo.said.starts_with("made users and mail in "),
        "{}",
        demo.said
    );
    let mut client = Client::connect(demo.pop3());
    client.ok("USER alice");
    client.ok("PASS demo");
    let before = client.rows("UIDL");
    client.ok("DELE 1");
    client.quit();
    drop(demo);
    let demo = Demo::start(&parent);
    assert!(
        demo.said.starts_with("users and mail are in "),
        "{}",
        demo.said
    );
    let mut client = Client::connect(demo.pop3());
    client.ok("USER alice");
    client.ok("PASS demo");
    let ids = |rows: &[String]| -> Vec<String> {
        let ids = rows.iter().map(|row| row.split_once(' ').expect("a row").1);
        ids.map(str::to_owned).collect()
    };
    assert_eq!(ids(&client.rows("UIDL")), ids(&before)[1..]);
}

#[test]
fn a_folder_that_is_not_the_demos_is_left_alone() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("demo");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("precious"), "mine\n").expect("written");
    let output = Command::new(PROGRAM)
        .args([
            "demo",
            "--pop3-port",
            "0",
            "--pop3s-port",
            "0",
            "--admin-port",
            "0",
        ])
        .arg("--folder")
        .arg(&folder)
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        told.contains("--folder") && told.contains("not the demo's"),
        "{told}"
    );
    let names: Vec<_> = fs::read_dir(&folder).expect("a folder").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(folder.join("precious")).expect("there"), b"mine\n");
    assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 1);
}
