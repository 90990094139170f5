//! getmail6: RETR through Python's poplib, written anew by Python's email
//! package into a Maildir.
//!
//! What it changes: lines end in LF; the `Return-Path` header goes to the top,
//! where it is here already; headers without a body get the blank line that ends
//! headers, and their lines above 78 octets would be folded. With `received` and
//! `delivered_to` off it adds nothing. It has no STLS.

use crate::compare::{assert_delivered, delivered};
use crate::messages::{Message, ordinary};
use crate::program::{Ended, run};
use crate::site::{HOST, PASSWORD, Protection, Site, USER};

/// What getmail6 can.
const PROTECTIONS: [Protection; 2] = [Protection::Clear, Protection::Tls];

fn getmail(site: &Site, protection: Protection, delete: &str) -> Ended {
    let retriever = match protection {
        Protection::Clear => "SimplePOP3Retriever".to_owned(),
        _ => format!(
            "SimplePOP3SSLRetriever\nca_certs = {}",
            site.authority().display()
        ),
    };
    let name = format!("getmailrc-{delete}");
    let settings = site.home().join(&name);
    if !settings.exists() {
        let text = format!(
            "[retriever]\ntype = {retriever}\nserver = {HOST}\nport = {}\n\
             username = {USER}\npassword = {PASSWORD}\n\n\
             [destination]\ntype = Maildir\npath = {}/\n\n\
             [options]\nread_all = false\ndelete = {delete}\nreceived = false\n\
             delivered_to = false\n",
            site.port(protection),
            site.destination().display()
        );
        site.write_private(&name, &text);
    }
    let folder = format!("--getmaildir={}", site.home().display());
    let settings = format!("--rcfile={}", settings.display());
    run("getmail", "getmail6", &site.home(), [folder, settings])
}

/// The message as getmail6 writes it.
fn written(message: &Message) -> Vec<u8> {
    let text = message.with_lf_and_blank_line();
    assert!(text.starts_with(b"Return-Path: <sender@example.org>\n"));
    text
}

#[test]
fn getmail_leaves_mail_and_fetches_it_once_and_then_deletes_it() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        getmail(&site, protection, "false").well();
        assert_delivered(&delivered(&site.destination()), &messages, written);
        getmail(&site, protection, "false").well();
        assert_delivered(&delivered(&site.destination()), &messages, written);
        assert_eq!(site.remaining(), messages.len());
        // What it fetched before is deleted now, and not fetched again.
        getmail(&site, protection, "true").well();
        assert_delivered(&delivered(&site.destination()), &messages, written);
        assert_eq!(site.remaining(), 0);
        site.stop_after(protection);
    }
}

#[test]
fn getmail_fetches_and_deletes() {
    let messages = ordinary();
    for protection in PROTECTIONS {
        let site = Site::start(&messages);
        getmail(&site, protection, "true").well();
        assert_delivered(&delivered(&site.destination()), &messages, written);
        assert_eq!(site.remaining(), 0);
        site.stop_after(protection);
    }
}
