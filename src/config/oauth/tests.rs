use std::fs;

use super::*;
use crate::config::{Config, Process};

const AROUND: &str = "[server]\nhostname = \"h\"\n[[listener]]\naddress = \"127.0.0.1:110\"\n\
                      [maildrop]\npath = \"{home}/Maildir\"\n\
                      [[auth.directory]]\nkind = \"static\"\nusers = []\n\
                      [auth]\nplaintext_without_tls = true\nlowercase = true\n";

fn parse(keys: &str, section: &str) -> Result<Option<OauthOptions>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("keys.json", "{}"), ("secret", "hunter2\n")] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let process = Process {
        root: false,
        hostname: "h".to_owned(),
    };
    let text = format!("{AROUND}{keys}\n[auth.oauth]\n{section}");
    let text = if section.is_empty() {
        text.replace("[auth.oauth]\n", "")
    } else {
        text
    };
    let config = Config::parse(&text, &folder.path().join("popcore.toml"), &process);
    let root = format!("{}/", folder.path().display());
    config
        .map(|config| config.auth.oauth)
        .map_err(|errors| errors.to_string().replace(&root, ""))
}

const OFFERED: &str = "mechanisms = [\"oauthbearer\", \"xoauth2\", \"plain\"]";
const SIGNED: &str = "jwks = \"keys.json\"\nissuer = \"https://i\"\naudience = [\"mail\"]\n";
const ASKED: &str = "introspection = \"https://i/ask\"\nclient_id = \"popcore\"\n\
                     client_secret_file = \"secret\"\n";

#[test]
fn keys_in_a_file_or_on_a_server_or_the_issuer_itself() {
    let file = parse(OFFERED, SIGNED).expect("valid").expect("there");
    assert!(matches!(&file.source, OauthSource::File { path, refresh }
        if path.ends_with("keys.json") && *refresh == REFRESH));
    assert_eq!(&*file.user_claim, "email");
    assert_eq!(
        (file.leeway, file.timeout),
        (LEEWAY, Duration::from_secs(5))
    );
    assert!(file.names.lowercase && file.scope.is_empty());
    let whole = format!(
        "{}scope = \"mail pop\"\nuser_claim = \"upn\"\nleeway = \"1m\"\nrefresh = \"5m\"\n\
         timeout = \"2s\"\nopenid_configuration = \"https://i/.well-known/x\"\n",
        SIGNED.replace("keys.json", "https://i/keys")
    );
    let web = parse(OFFERED, &whole).expect("valid").expect("there");
    assert!(matches!(&web.source, OauthSource::Web { uri, refresh, .. }
        if uri == "https://i/keys" && *refresh == Duration::from_mins(5)));
    assert_eq!((&*web.scope, &*web.user_claim), ("mail pop", "upn"));
    assert_eq!(
        web.configuration.as_deref(),
        Some("https://i/.well-known/x")
    );
    let asked = parse(OFFERED, ASKED).expect("valid").expect("there");
    assert!(
        matches!(&asked.source, OauthSource::Introspection { client, .. }
        if &**client == "popcore")
    );
    assert_eq!(&*asked.user_claim, "username");
    for own in [
        "http://127.0.0.1:8080/k",
        "http://[::1]/k",
        "http://localhost/k",
    ] {
        let text = SIGNED.replace("keys.json", own);
        assert!(parse(OFFERED, &text).is_ok(), "{own}");
    }
    assert_eq!(parse("", ""), Ok(None));
}

/// Keys of `[auth]`, what is changed in a section of keys, and what is told.
const OF_KEYS: [(&str, &str, &str); 12] = [
    (
        "issuer",
        "issuers",
        "auth.oauth.issuers: is not a known key",
    ),
    ("issuer", "#", "auth.oauth.issuer: is missing"),
    ("audience", "#", "auth.oauth.audience: is missing"),
    ("[\"mail\"]", "[]", "auth.oauth.audience: is empty"),
    (
        "keys.json",
        "none.json",
        "auth.oauth.jwks: none.json cannot be read",
    ),
    ("keys.json", ".", "auth.oauth.jwks: . is not a file"),
    (
        "keys.json",
        "http://i/k",
        "auth.oauth.jwks: is a URL of http",
    ),
    (
        "keys.json",
        "ftp://i/k",
        "auth.oauth.jwks: is no URL of https",
    ),
    (
        "keys.json",
        "https:///k",
        "auth.oauth.jwks: is no URL of https",
    ),
    (
        "\"keys.json\"",
        "7",
        "auth.oauth.jwks: is an integer, not a string",
    ),
    (
        "issuer = \"https://i\"",
        "issuer = \"\"",
        "auth.oauth.issuer: is empty",
    ),
    (
        "jwks",
        "introspections",
        "auth.oauth.jwks: is missing, and so is introspection",
    ),
];

/// Lines more in a section of keys.
const MORE: [(&str, &str); 6] = [
    (
        "client_id = \"x\"",
        "auth.oauth.client_id: is not a known key",
    ),
    ("refresh = \"1s\"", "auth.oauth.refresh: is less than 30s"),
    ("leeway = \"1h\"", "auth.oauth.leeway: is more than 10m"),
    (
        "scope = \"a\\\"b\"",
        "auth.oauth.scope: has more than 256 characters",
    ),
    ("timeout = \"2m\"", "auth.oauth.timeout: is not between"),
    ("user_claim = \"\"", "auth.oauth.user_claim: is empty"),
];

fn assert_told(keys: &str, section: &str, told: &str) {
    let errors = parse(keys, section).expect_err(told);
    assert!(
        errors.contains(told) && errors.contains("; "),
        "{told} is not in {errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn every_fault_names_its_key_and_its_remedy() {
    for (from, to, told) in OF_KEYS {
        assert_told(OFFERED, &SIGNED.replacen(from, to, 1), told);
    }
    for (line, told) in MORE {
        assert_told(OFFERED, &format!("{SIGNED}{line}\n"), told);
    }
    let both = format!("{SIGNED}{ASKED}");
    assert_told(
        OFFERED,
        &both,
        "auth.oauth.jwks: stands beside introspection",
    );
    assert_told(OFFERED, "", "auth.oauth: is missing");
    assert_told("", SIGNED, "auth.oauth: is of no use");
    for (from, to, told) in [
        ("client_id", "#", "auth.oauth.client_id: is missing"),
        (
            "client_id",
            "refresh = \"1h\"\nclient_id",
            "auth.oauth.refresh: is not a known key",
        ),
        (
            "\"secret\"",
            "\"none\"",
            "auth.oauth.client_secret_file: none cannot be read",
        ),
        (
            "https",
            "http",
            "auth.oauth.introspection: is a URL of http",
        ),
    ] {
        assert_told(OFFERED, &ASKED.replacen(from, to, 1), told);
    }
}
