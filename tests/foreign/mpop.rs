//! mpop: pipelined RETR into a Maildir.
//!
//! With `received_header off` it changes nothing but line ends, which it stores
//! as LF.

use crate::compare::{assert_delivered, delivered};
use crate::messages::{Message, ordinary};
use crate::program::{Ended, run};
use crate::site::{HOST, PASSWORD, PROTECTIONS, Protection, Site, USER};

fn mpop(site: &Site, protection: Protection, keep: &str) -> Ended {
    let tls = match protection {
        Protection::Clear => "tls off",
        Protection::Stls => "tls on\ntls_starttls on",
        Protection::Tls => "tls on\ntls_starttls off",
    };
    let settings = site.home().join("mpoprc");
    if !settings.exists() {
        let text = format!(
            "account test\nhost {HOST}\nport {}\n{tls}\ntls_trust_file {}\n\
             auth user\nuser {USER}\npassword {PASSWORD}\n\
             received_header off\nuidls_file {}\ndelivery maildir {}\n",
            site.port(protection),
            site.authority().display(),
            site.home().join("uidls").display(),
            site.destination().display()
        );
        site.write_private("mpoprc", &text);
    }
    let file = format!("--file={}", settings.display());
    let keep = format!("--keep={keep}");
    let arguments = [&*file, "--debug", &keep, "test"];
    run("mpop", "mpop", &site.home(), arguments)
}

#[test]
fn mpop_leaves_mail_and_fetches_it_once_and_then_deletes_it() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        let talked = mpop(&site, protection, "on").well();
        let talked = String::from_utf8_lossy(&talked.stdout).into_owned();
        assert!(talked.contains("PIPELINING"), "{talked}");
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        mpop(&site, protection, "on").well();
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        assert_eq!(site.remaining(), messages.len());
        // What it fetched before is deleted now, and not fetched again.
        mpop(&site, protection, "off").well();
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        assert_eq!(site.remaining(), 0);
        site.stop_after(protection);
    }
}

#[test]
fn mpop_fetches_and_deletes() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        mpop(&site, protection, "off").well();
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        assert_eq!(site.remaining(), 0);
        mpop(&site, protection, "off").well();
        assert_delivered(&delivered(&site.destination()), &messages, Message::with_lf);
        site.stop_after(protection);
    }
}
