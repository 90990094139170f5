//! What the README says, held against the binary: its configuration passes
//! `popcore check`, and its table of metrics is the list of those there are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../README.md");

/// The block of that language, of which there is one.
fn block(language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut found = README.split(&begin).skip(1);
    let rest = found.next().expect("a block");
    assert!(found.next().is_none(), "one block of {language}");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_configuration_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    // What a test cannot have: the user, and a folder outside its own.
    let account = |line: &&str| line.starts_with("user = ") || line.starts_with("group = ");
    let given = block("toml");
    assert_eq!(given.lines().filter(account).count(), 2);
    let lines: Vec<_> = given.lines().filter(|line| !account(line)).collect();
    let mail = format!("\"{}/", path.display());
    let text = lines.join("\n").replace("\"/var/vmail/", &mail);
    assert!(text.contains(&mail), "{text}");
    fs::write(path.join("popcore.toml"), text).expect("own folder");

    let names = vec!["pop.example.net".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(path.join("fullchain.pem"), made.cert.pem()).expect("own folder");
    fs::write(path.join("privkey.pem"), made.signing_key.serialize_pem()).expect("own folder");
    fs::write(path.join("users"), "alice@example.net:{PLAIN}x\n").expect("own folder");
    let output = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .args(["check", "--config"])
        .arg(path.join("popcore.toml"))
        .output()
        .expect("popcore starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for listener in ["0.0.0.0:110, STLS offered", "[::]:995, TLS from the first"] {
        assert!(said.contains(listener), "{said}");
    }
}

/// A demo that ends with the test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail where it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_table_of_metrics_is_whole_and_true() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .args(["demo", "--pop3-port", "0", "--pop3s-port", "0"])
        .args(["--admin-port", "0", "--folder"])
        .arg(folder.path().join("demo"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("popcore starts");
    let mut demo = Demo(child);
    let said = BufReader::new(demo.0.stdout.take().expect("piped"));
    let address = said.lines().find_map(|line| {
        let line = line.expect("text");
        let rest = line.strip_prefix("  curl http://")?;
        rest.strip_suffix("/metrics").map(str::to_owned)
    });
    let mut stream = TcpStream::connect(address.expect("the address")).expect("a listener");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");

    let served: BTreeSet<String> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ').expect("a type") {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    let told: BTreeSet<String> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `popcore_"))
        .map(|line| format!("popcore_{}", line.split('`').next().expect("a name")))
        .collect();
    assert!(!served.is_empty(), "{answer}");
    assert_eq!(served, told);
}
