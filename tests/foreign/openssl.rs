//! `openssl s_client`: every version, kind of key and way to TLS, by name and
//! resumed.
//!
//! What it says of the handshake is read from its own report.

use crate::messages::ordinary;
use crate::program::{Ended, run};
use crate::site::{HOST, Protection, Site, WILD_HOST};

/// A session of CAPA and QUIT; options before and behind the fixed ones.
fn s_client(site: &Site, protection: Protection, options: &str) -> Ended {
    let port = site.port(protection);
    let stls = match protection {
        Protection::Stls => "-starttls pop3",
        Protection::Tls => "",
        Protection::Clear => unreachable!("openssl speaks TLS"),
    };
    // The shell's pipe is the client's keyboard.
    let script = format!(
        "printf 'CAPA\\r\\nQUIT\\r\\n' | openssl s_client -connect 127.0.0.1:{port} {stls} \
         -nocommands -ign_eof -verify_return_error {options}"
    );
    run("bash", "bash", &site.home(), ["-c", &script])
}

fn said(ended: Ended) -> String {
    String::from_utf8(ended.well().stdout).expect("text")
}

#[test]
fn every_version_with_every_kind_of_key() {
    let site = Site::start(&ordinary());
    for protection in [Protection::Stls, Protection::Tls] {
        for version in ["tls1_2", "tls1_3"] {
            for (kind, signatures) in [("ECDSA", "ECDSA+SHA256"), ("RSA-PSS", "RSA-PSS+SHA256")] {
                // The authority's signature has to be allowed as well.
                let options = format!(
                    "-{version} -servername {HOST} -verify_hostname {HOST} -CAfile {} \
                     -sigalgs {signatures}",
                    site.authority().display()
                );
                let report = said(s_client(&site, protection, &options));
                let name = version.replace("tls1_", "TLSv1.");
                assert!(
                    report.contains(&format!("New, {name}, Cipher is ")),
                    "{report}"
                );
                let signed = format!("Peer signature type: {kind}");
                assert!(report.contains(&signed), "{report}");
                assert!(report.contains("Verification: OK"), "{report}");
                assert!(report.contains("\nPIPELINING\r\n"), "{report}");
                assert!(!report.contains("\nSTLS\r\n"), "{report}");
            }
        }
    }
    for old in ["ssl3", "tls1", "tls1_1"] {
        // Whatever else could be wrong is right, so that the version is what fails.
        let options = format!(
            "-{old} -cipher ALL:@SECLEVEL=0 -CAfile {}",
            site.authority().display()
        );
        let refused = s_client(&site, Protection::Tls, &options);
        assert_ne!(refused.code, Some(0), "{old}");
        let told = &refused.stderr;
        let refused = [
            "alert protocol version",
            "alert handshake failure",
            "Unknown option",
        ];
        assert!(
            refused.iter().any(|text| told.contains(text)),
            "{old}: {told}"
        );
    }
    site.stop();
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let site = Site::start(&ordinary());
    for (asked, shown) in [
        (HOST, HOST),
        (WILD_HOST, WILD_HOST),
        ("unknown.example", HOST),
    ] {
        for protection in [Protection::Stls, Protection::Tls] {
            let options = format!(
                "-servername {asked} -verify_hostname {shown} -CAfile {}",
                site.authority().display()
            );
            let report = said(s_client(&site, protection, &options));
            assert!(report.contains("Verification: OK"), "{asked}: {report}");
        }
    }
    site.stop();
}

#[test]
fn sessions_resume_with_both_versions_and_on_every_shard() {
    let site = Site::start(&ordinary());
    for protection in [Protection::Stls, Protection::Tls] {
        for version in ["tls1_2", "tls1_3"] {
            let options = format!(
                "-{version} -servername {HOST} -CAfile {}",
                site.authority().display()
            );
            let file = site.home().join(format!("{version}-{protection:?}"));
            let file = file.display();
            let first = format!("{options} -sess_out {file}");
            assert!(said(s_client(&site, protection, &first)).contains("New, TLSv1."));
            // There are two shards, and the kernel chooses.
            for _ in 0..6 {
                let again = format!("{options} -sess_in {file}");
                let report = said(s_client(&site, protection, &again));
                assert!(report.contains("Reused, TLSv1."), "{report}");
            }
        }
    }
    site.stop();
}
