//! `popcore passwd`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::server::{PROGRAM, Site};

fn passwd(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(PROGRAM)
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may have refused before it reads.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn line(arguments: &[&str], input: &[u8]) -> String {
    let output = passwd(arguments, input);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn what_it_prints_logs_in() {
    let schemes = [
        (None, "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$"),
        (Some("scram-sha256"), "{SCRAM-SHA-256}4096,"),
        (Some("scram-sha1"), "{SCRAM-SHA-1}4096,"),
    ];
    let mut users = String::new();
    for (number, (scheme, begin)) in schemes.iter().enumerate() {
        let user = format!("user{number}");
        let mut arguments = vec!["--user", &user];
        arguments.extend(scheme.iter().flat_map(|scheme| ["--scheme", scheme]));
        let line = line(&arguments, b"two words \n");
        assert!(line.starts_with(&format!("{user}:{begin}")), "{line}");
        users.push_str(&line);
    }
    let site = Site::with_users(&[]);
    site.write_users(&users);
    let server = site.start();
    for number in 0..schemes.len() {
        let mut client = server.connect();
        client.ok(&format!("USER user{number}"));
        client.err("PASS two words");
        client.ok(&format!("USER user{number}"));
        client.ok("PASS two words ");
        client.quit();
    }
}

#[test]
fn without_a_user_it_prints_the_stored_password_alone() {
    for input in [&b"secret"[..], b"secret\r\n", b"secret\nmore\n"] {
        let stored = line(&[], input);
        assert!(stored.starts_with("{ARGON2ID}") && stored.ends_with('\n'));
        assert_eq!(stored.lines().count(), 1);
    }
}

#[test]
fn what_cannot_be_stored_is_said() {
    let long = "x".repeat(1025);
    let cases: [(&[&str], &str, &str); 5] = [
        (&[], "", "is empty"),
        (&[], "\n", "is empty"),
        (&[], &long, "longer than 1024 octets"),
        (&["--user", "a:b"], "x", "a colon"),
        (&["--user", ""], "x", "is empty"),
    ];
    for (arguments, input, fault) in cases {
        let output = passwd(arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{fault}");
        assert!(output.stdout.is_empty(), "{fault}");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(told.contains(fault) && told.lines().count() == 1, "{told}");
    }
    // Nor is it taken as an argument.
    assert_eq!(passwd(&["secret"], b"").status.code(), Some(2));
}
