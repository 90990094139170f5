//! Directories that are away: every fault names its key and its remedy.

use std::fs;
use std::path::Path;

use crate::auth::{DirectoryKind, Protocol};
use crate::config::{Config, Process};

const AROUND: &str = "[server]\nhostname = \"h\"\n[[listener]]\naddress = \"127.0.0.1:110\"\n\
                      [auth]\nplaintext_without_tls = true\n[maildrop]\npath = \"{home}/Maildir\"\n\
                      [[auth.directory]]\n";

fn parse(folder: &Path, section: &str) -> Result<Config, String> {
    let process = Process {
        root: false,
        hostname: "h".to_owned(),
    };
    let config = Config::parse(
        &format!("{AROUND}{section}"),
        &folder.join("popcore.toml"),
        &process,
    );
    config.map_err(|errors| errors.to_string())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
    write("secret", "hunter2\n").expect("written");
    write("two-lines", "hunter2\nhunter3\n").expect("written");
    fs::create_dir(folder.path().join("services")).expect("a folder");
    write("services/mail", "auth required pam_unix.so\n").expect("written");
    write("header", "X-Auth-Key: hunter2\n").expect("written");
    folder
}

const SQL: &str = "kind = \"sql\"\nurl = \"postgres://mail@db/mail\"\n\
                   query = \"SELECT password FROM users WHERE name = {user}\"\n";
const LDAP: &str = "kind = \"ldap\"\nurl = \"ldaps://ldap.example.net\"\n\
                    base = \"dc=example\"\nfilter = \"(uid={user})\"\n";
const HTTP: &str = "kind = \"http\"\nurl = \"https://auth.example.net/pop3\"\nform = \"json\"\n";

#[test]
fn what_is_right_is_taken() {
    let folder = folder();
    for (section, shown) in [
        (SQL.to_owned(), "PostgreSQL db:5432/mail"),
        (
            format!("{SQL}password_file = \"secret\"\ntimeout = \"2s\"\nconnections = 3\n"),
            "PostgreSQL db:5432/mail",
        ),
        (LDAP.to_owned(), "ldaps://ldap.example.net"),
        (
            format!("{LDAP}starttls = false\nbind_dn = \"cn=x\"\npassword_file = \"secret\"\n"),
            "ldaps://ldap.example.net",
        ),
        (
            format!(
                "{LDAP}verify = \"stored\"\n[auth.directory.attributes]\npassword = \"userPassword\"\n"
            ),
            "ldaps://ldap.example.net",
        ),
        (HTTP.to_owned(), "https://auth.example.net/pop3"),
        (
            "kind = \"pam\"\nservice = \"mail\"\nfolder = \"services\"\n".to_owned(),
            "PAM, service mail",
        ),
        (
            format!("{HTTP}header_file = \"header\"\n"),
            "https://auth.example.net/pop3",
        ),
    ] {
        let config = parse(folder.path(), &section).expect(&section);
        let kind = &config.auth.directories[0].kind;
        assert_eq!(kind.to_string(), shown);
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        let DirectoryKind::Away(options) = kind else {
            panic!("{kind:?}");
        };
        assert_eq!(&*options.node, "h");
        let several = section.contains("connections = 3");
        if let Protocol::Sql(sql) = &options.protocol {
            assert_eq!(sql.connections, if several { 3 } else { 8 });
        }
    }
}

/// What is wrong, after these lines, and the key and part of the remedy that are told.
const WRONG: [(&str, &str, &str, &str); 23] = [
    (SQL, "colour = 1", "colour", "known here"),
    (SQL, "timeout = \"5\"", "timeout", "\"30s\""),
    (SQL, "timeout = \"2m\"", "timeout", "\"5s\""),
    (SQL, "connections = 0", "connections", "between 1 and 256"),
    (SQL, "connections = \"8\"", "connections", "without quotes"),
    (
        SQL,
        "password_file = \"absent\"",
        "password_file",
        "cannot be read",
    ),
    (
        SQL,
        "password_file = \"two-lines\"",
        "password_file",
        "does not hold one line",
    ),
    (
        "kind = \"sql\"\nurl = \"oracle://db/x\"\n",
        "query = \"SELECT {user}\"",
        "url",
        "begin with postgres://",
    ),
    (
        "kind = \"sql\"\nurl = \"sqlite:u.db\"\n",
        "query = \"SELECT '{user}'\"",
        "query",
        "remove the quotes",
    ),
    (
        "kind = \"sql\"\nurl = \"sqlite:u.db\"\n",
        "",
        "query",
        "is missing",
    ),
    (
        SQL,
        "update_query = \"UPDATE users SET password = {password} WHERE name = {user}\"",
        "update_query",
        "{old}",
    ),
    (
        LDAP,
        "user_dn = \"uid={user}\"",
        "filter",
        "set base and filter",
    ),
    (LDAP, "verify = \"stored\"", "verify", "attributes.password"),
    (
        LDAP,
        "[auth.directory.attributes]\npassword = \"userPassword\"",
        "attributes.password",
        "set verify to \"stored\"",
    ),
    (
        LDAP,
        "verify = \"bound\"",
        "verify",
        "did you mean \"bind\"?",
    ),
    (LDAP, "bind_dn = \"cn=x\"", "bind_dn", "set password_file"),
    (
        LDAP,
        "[auth.directory.attributes]\nuid = \"x\"",
        "attributes.uid",
        "is not a known key",
    ),
    (LDAP, "ca = \"secret\"", "ca", "PEM"),
    (
        "kind = \"pam\"\nfolder = \"services\"\n",
        "service = \"absent\"",
        "service",
        "write the service's file there",
    ),
    (
        "kind = \"pam\"\nfolder = \".\"\n",
        "service = \"services/mail\"",
        "service",
        "is not a file",
    ),
    (
        "kind = \"http\"\nurl = \"ftp://h/\"\n",
        "form = \"json\"",
        "url",
        "http or https",
    ),
    (
        "kind = \"http\"\nurl = \"http://h/\"\n",
        "form = \"jsn\"",
        "form",
        "did you mean \"json\"?",
    ),
    (
        HTTP,
        "header_file = \"secret\"",
        "header_file",
        "Name: value",
    ),
];

/// What no user could log in by is a fault.
#[test]
fn mechanisms_need_a_directory_that_they_work_with() {
    let folder = folder();
    let nginx = HTTP.replace("json", "nginx");
    let with = |mechanism: &str, sections: &str| {
        let process = Process {
            root: false,
            hostname: "h".to_owned(),
        };
        let auth = format!("mechanisms = [\"plain\", \"{mechanism}\"]\n[maildrop]");
        let around = AROUND.replace("[maildrop]", &auth);
        let path = folder.path().join("popcore.toml");
        let config = Config::parse(&format!("{around}{sections}"), &path, &process);
        config.err().map(|errors| errors.to_string())
    };
    for sections in [SQL, HTTP, &format!("{LDAP}[[auth.directory]]\n{SQL}")] {
        assert_eq!(with("scram-sha-256", sections), None, "{sections}");
        assert_eq!(with("external", sections), None, "{sections}");
    }
    assert_eq!(with("external", LDAP), None);
    for sections in [LDAP, &nginx, &format!("{LDAP}[[auth.directory]]\n{nginx}")] {
        let errors = with("scram-sha-1", sections).expect(sections);
        let expected = "auth.mechanisms: names SCRAM-SHA-1, and no directory tells";
        assert!(errors.contains(expected), "{errors}");
    }
    let errors = with("external", &nginx).expect("nobody is known without a password");
    assert!(
        errors.contains("auth.mechanisms: names EXTERNAL"),
        "{errors}"
    );
}

/// APOP has to be compared with a password that is told.
#[test]
fn apop_needs_a_directory_that_tells_passwords() {
    let folder = folder();
    let nginx = HTTP.replace("json", "nginx");
    let with = |apop: bool, sections: &str| {
        let process = Process {
            root: false,
            hostname: "h".to_owned(),
        };
        let around = AROUND.replace("[maildrop]", &format!("apop = {apop}\n[maildrop]"));
        let path = folder.path().join("popcore.toml");
        let config = Config::parse(&format!("{around}{sections}"), &path, &process);
        config.err().map(|errors| errors.to_string())
    };
    for sections in [SQL, HTTP, &format!("{LDAP}[[auth.directory]]\n{SQL}")] {
        assert_eq!(with(true, sections), None, "{sections}");
    }
    for sections in [LDAP, &nginx, &format!("{LDAP}[[auth.directory]]\n{nginx}")] {
        assert_eq!(with(false, sections), None, "{sections}");
        let errors = with(true, sections).expect(sections);
        let cause = "auth.apop: is true, and no directory tells what password is stored";
        assert!(errors.contains(cause), "{errors}");
        assert!(errors.contains("remove it, or add a directory"), "{errors}");
    }
}

/// `auth.rehash` and `update_query` are of use together only.
#[test]
fn rehash_and_its_statement_need_each_other() {
    let folder = folder();
    let update = "update_query = \"UPDATE users SET password = {password} WHERE \
                  name = {user} AND password = {old}\"\n";
    let with = |auth: &str, section: &str| {
        let process = Process {
            root: false,
            hostname: "h".to_owned(),
        };
        let around = AROUND.replace("[maildrop]", &format!("{auth}[maildrop]"));
        let path = folder.path().join("popcore.toml");
        Config::parse(&format!("{around}{section}"), &path, &process)
    };
    let spares = |auth: &str| {
        let config = with(auth, &format!("{SQL}{update}")).expect("right");
        match &config.auth.directories[0].kind {
            DirectoryKind::Away(options) => match &options.protocol {
                Protocol::Sql(sql) => sql.update.as_ref().expect("an update").spares_clear,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert!(!spares("rehash = true\n"));
    assert!(!spares("rehash = true\napop = false\n"));
    // What is replaced would be lost to those who log in by it alone.
    assert!(spares("rehash = true\napop = true\n"));
    assert!(spares(
        "rehash = true\nmechanisms = [\"scram-sha-1\", \"plain\"]\n"
    ));
    let errors = with("rehash = true\n", SQL).expect_err("nothing to do it");
    assert!(
        errors.to_string().contains("auth.rehash: has nowhere"),
        "{errors}"
    );
    for auth in ["", "rehash = false\n"] {
        let errors = with(auth, &format!("{SQL}{update}")).expect_err("of no use");
        assert!(
            errors.to_string().contains("auth.rehash: is not true"),
            "{errors}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_key_and_remedy_and_without_secrets() {
    let folder = folder();
    for (before, line, key, remedy) in WRONG {
        let errors = parse(folder.path(), &format!("{before}{line}\n")).expect_err(line);
        let key = format!("auth.directory[1].{key}: ");
        assert!(
            errors.contains(&key) && errors.contains(remedy),
            "{line}: {errors}"
        );
        assert!(!errors.contains("hunter"), "{line}: {errors}");
    }
}
