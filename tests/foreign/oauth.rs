//! Bearer tokens from clients that know them: curl and mpop by OAUTHBEARER and XOAUTH2, Python's
//! poplib by a script that speaks XOAUTH2 as Google's documentation has it, and popcore's
//! own load generator.

use std::process::Command;

use serde_json::json;

use crate::compare::{assert_delivered, assert_same, delivered};
use crate::issuer::Issuer;
use crate::messages::{Message, ordinary};
use crate::program::{Ended, run};
use crate::signer::{Signer, claims, now, set};
use crate::site::{HOST, Protection, Settings, Site, USER};

const BOTH: &str = "\"oauthbearer\", \"xoauth2\"";

/// A site that takes tokens of this signer by these mechanisms, and nothing else.
fn site(signer: &Signer, mechanisms: &str) -> Site {
    let settings = Settings {
        auth: &format!("mechanisms = [{mechanisms}]\nfailure_delay = \"0s\""),
        sections: "[auth.oauth]\njwks = \"keys.json\"\nissuer = \"https://login.example.net\"\n\
                   audience = [\"mail\"]\nscope = \"mail.pop\"",
        ..Settings::default()
    };
    Site::start_by(&ordinary(), settings, |folder| {
        std::fs::write(folder.join("keys.json"), set(&[signer])).expect("own folder");
    })
}

fn curl(site: &Site, mechanism: &str, token: &str, more: &[&str]) -> Ended {
    let certificate = site.authority().display().to_string();
    let url = format!("pop3s://{HOST}:{}/1", site.port(Protection::Tls));
    let user = format!("{USER}:");
    // Debian 12's takes OAUTHBEARER where there is one, whatever this says.
    let option = format!("AUTH={mechanism}");
    let fixed = [
        "--verbose",
        "--no-progress-meter",
        "--cacert",
        &certificate,
        "--user",
        &user,
        "--oauth2-bearer",
        token,
        "--login-options",
        &option,
        &url,
    ];
    run(
        "curl",
        "curl",
        &site.home(),
        more.iter().copied().chain(fixed),
    )
}

#[test]
fn curl_logs_in_by_tokens() {
    let signer = Signer::new("one");
    let first = ordinary().remove(0);
    let token = signer.sign(&claims(USER));
    let mut expired = claims(USER);
    expired["exp"] = json!(now() - 60);
    let expired = signer.sign(&expired);
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        let site = site(&signer, &format!("\"{mechanism}\""));
        for initial in [&[][..], &["--sasl-ir"]] {
            let fetched = curl(&site, mechanism, &token, initial).well();
            assert_same(first.name, &fetched.stdout, &first.on_the_wire());
            let said = format!("> AUTH {mechanism}");
            assert!(fetched.stderr.contains(&said), "{}", fetched.stderr);
            // 67: login denied. It has answered to the challenge before.
            let refused = curl(&site, mechanism, &expired, initial).with_code(67);
            assert!(refused.stderr.contains("< + ey"), "{}", refused.stderr);
        }
        site.stop_after(Protection::Tls);
    }
}

/// mpop has that of OAUTHBEARER in the line of AUTH whatever it makes of its length, which
/// RFC 5034, section 4, bounds to 255 octets: one of 405, since it reads no longer ones
/// from its file.
#[test]
fn mpop_logs_in_by_tokens() {
    let messages = ordinary();
    let issuer = Issuer::start();
    let said = json!({"active": true, "username": USER, "scope": "mail.pop"});
    let good = format!("ya29.{}", "good".repeat(100));
    issuer.know(&good, said);
    let section = format!(
        "[auth.oauth]\nintrospection = \"{}\"\nclient_id = \"popcore\"\n\
         client_secret_file = \"secret\"",
        issuer.url("/ask")
    );
    for mechanism in ["oauthbearer", "xoauth2"] {
        let settings = Settings {
            auth: &format!("mechanisms = [\"{mechanism}\"]\nfailure_delay = \"0s\""),
            sections: &section,
            ..Settings::default()
        };
        let site = Site::start_by(&messages, settings, |folder| {
            std::fs::write(folder.join("secret"), "s:cret\n").expect("own folder");
        });
        let fetch = |name: &str, token: &str| {
            let text = format!(
                "account test\nhost {HOST}\nport {}\ntls on\ntls_starttls off\n\
                 tls_trust_file {}\nauth {mechanism}\nuser {USER}\npassword {token}\n\
                 received_header off\nuidls_file {}\ndelivery maildir {}\n",
                site.port(Protection::Tls),
                site.authority().display(),
                site.home().join("uidls").display(),
                site.destination().display()
            );
            let file = site.write_private(name, &text);
            let file = format!("--file={}", file.display());
            let arguments = [&*file, "--debug", "--keep=on", "test"];
            run("mpop", "mpop", &site.home(), arguments)
        };
        let talked = fetch("good", &good).well();
        let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
        let said = format!("--> AUTH {}", mechanism.to_ascii_uppercase());
        assert!(talked.contains(&said), "{talked}");
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        let refused = fetch("bad", "ya29.bad");
        assert_eq!(refused.code, Some(77), "{mechanism}: {refused:?}");
    }
}

/// `AUTH XOAUTH2` alone gets a challenge, and then comes a long line.
const SCRIPT: &str = "
import base64, poplib, ssl, sys
host, port, authority, user, token = sys.argv[1:]
box = poplib.POP3_SSL(host, int(port), context=ssl.create_default_context(cafile=authority))
said = base64.b64encode(f'user={user}\\1auth=Bearer {token}\\1\\1'.encode()).decode()
box._putcmd('AUTH XOAUTH2')
assert box._getline()[0] == b'+ ', 'a challenge'
box._putline(said.encode())
answer = box._getline()[0]
if answer.startswith(b'+ '):
    print(base64.b64decode(answer[2:]).decode())
    answer = box._shortcmd('')
print(answer.decode())
print(len(box.list()[1]))
box.quit()
";

#[test]
fn poplib_logs_in_by_a_token() {
    let signer = Signer::new("one");
    let site = site(&signer, BOTH);
    let mut long = claims(USER);
    long["groups"] = json!("x".repeat(11_000));
    let long = signer.sign(&long);
    assert!(long.len() > 14_000);
    let (port, authority) = (site.port(Protection::Tls).to_string(), site.authority());
    let authority = authority.display().to_string();
    let fetch = |token: &str| {
        let arguments = ["-c", SCRIPT, HOST, &port, &authority, USER, token];
        run("python3", "python3", &site.home(), arguments)
    };
    let listed = fetch(&long).well();
    let count = ordinary().len().to_string();
    assert_eq!(listed.lines(), ["+OK logged in", count.as_str()]);
    let refused = fetch("nonsense").with_code(1);
    let told = refused.lines().concat();
    assert!(told.starts_with('{') && told.contains("\"401\""), "{told}");
    assert!(
        refused.stderr.contains("-ERR [AUTH] "),
        "{}",
        refused.stderr
    );
    site.stop_after(Protection::Tls);
}

/// The generator is an own program, and shares no code with the server.
#[test]
fn the_load_generator_logs_in_by_tokens_and_by_scram() {
    let generator = std::path::Path::new(env!("CARGO_BIN_EXE_popcore"));
    let generator = generator.with_file_name("popcore-loadgen");
    assert!(
        generator.is_file(),
        "cargo build --workspace --bins makes it"
    );
    let signer = Signer::new("one");
    let token = signer.sign(&claims(USER));
    let scram = Site::start(&ordinary());
    let tokens = site(&signer, BOTH);
    for (site, mechanism, password) in [
        (&tokens, "xoauth2", token.as_str()),
        (&scram, "scram-sha-256", crate::site::PASSWORD),
    ] {
        let result = site.home().join(format!("{mechanism}.json"));
        let target = format!("127.0.0.1:{}", site.port(Protection::Tls));
        let ended = Command::new(&generator)
            .args([
                "--target",
                &target,
                "--tls",
                "implicit",
                "--insecure",
                "--quiet",
            ])
            .args(["--users", USER, "--password", password, "--auth", mechanism])
            .args(["--profile", "poll", "--sessions", "1", "--duration", "1"])
            .arg("--json")
            .arg(&result)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        let text = std::fs::read(&result).expect("a result");
        let result: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(result["errors"]["total"], 0, "{result}");
        assert!(result["sessions"].as_u64() > Some(3), "{result}");
    }
}
