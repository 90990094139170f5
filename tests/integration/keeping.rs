//! Messages that go by themselves, and messages that come back: `maildrop.retention`,
//! `maildrop.undelete` and `popcore undelete`.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use popcore::maildrop::{Departure, Location, Maildrops, Retention, Rules};
use popcore::proto::MessageNumber;

use super::mailbox::message;
use super::model;
use super::server::{PROGRAM, Server, Site};

const RETENTION: &str = "mail/{user}\"\nretention = \"2 days after first retrieval\"\n#\"";
const UNDELETE: &str = "mail/{user}\"\nundelete = \"1h\"\n#\"";

/// A session of four days ago that fetched these messages, and one of yesterday.
fn fetched_long_ago(site: &Site, numbers: &[u32]) {
    let retention = Retention::parse("2 days after first retrieval").expect("a retention");
    let maildrops = Maildrops::new(0).with_rules(Rules {
        retention: Some(retention),
        ..Rules::default()
    });
    let at = Location::beside(site.mailbox("ann").path());
    let days_ago = |days: u64| SystemTime::now() - Duration::from_hours(days * 24);
    // A clock that stands before the last change is not believed.
    for part in ["new", "cur"] {
        let folder = File::open(at.path.join(part)).expect("a folder");
        folder.set_modified(days_ago(5)).expect("a time");
    }
    let opened = maildrops.open(&at).expect("it opens");
    let numbers: BTreeSet<_> = numbers
        .iter()
        .filter_map(|n| MessageNumber::new(*n))
        .collect();
    maildrops.update(&opened.snapshot, &numbers, Departure::Lost, days_ago(4));
    drop(opened);
    // A session of yesterday found that their time was over.
    let opened = maildrops.open(&at).expect("it opens");
    let (nothing, quit) = (BTreeSet::new(), Departure::Quit(&[]));
    maildrops.update(&opened.snapshot, &nothing, quit, days_ago(1));
}

#[test]
fn expire_tells_the_truth_in_both_states() {
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = RETENTION;
    site.mailbox("ann").fill(1);
    let server = site.start();
    let mut client = server.connect();
    assert!(client.rows("CAPA").contains(&"EXPIRE 2".to_owned()));
    assert!(client.try_log_in("ann").starts_with("+OK"));
    assert!(client.rows("CAPA").contains(&"EXPIRE 2".to_owned()));
}

#[test]
fn what_was_fetched_long_ago_goes_at_quit_and_never_before() {
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = RETENTION;
    let mailbox = site.mailbox("ann");
    mailbox.fill(4);
    fetched_long_ago(&site, &[1, 3]);
    let server = site.start();
    let mut client = server.log_in("ann");
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)));
    assert_eq!(client.rows("LIST").len(), 4);
    drop(client);
    server.log_line(&["pop3(ann)", "Connection closed", "del=0/4"]);
    assert_eq!(mailbox.names().len(), 4);
    let mut client = server.log_in_once_free("ann");
    assert_eq!(client.text("RETR 2"), model::sent(&message(2)));
    client.ok("DELE 4");
    client.quit();
    assert_eq!(mailbox.names(), ["new/2.m"]);
    server.log_line(&["2 messages removed as maildrop.retention has it"]);
    // What the client asked for is what its session tells.
    server.log_line(&["pop3(ann)", "Logged out", "del=1/4"]);
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), ["1 2.m"]);
    client.quit();
}

fn undelete(server: &Server, more: &[&str]) -> Output {
    let config = server.site.path().join("popcore.toml");
    let mut command = Command::new(PROGRAM);
    command.args(["undelete", "--config"]).arg(config);
    command.args(["--since", "1h"]).args(more).arg("ann");
    command.output().expect("it starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_deleted_message_comes_back_with_its_unique_id() {
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = UNDELETE;
    let mailbox = site.mailbox("ann");
    mailbox.fill(3);
    mailbox.deliver("cur/4.\u{e4}:2,S", message(4));
    let server = site.start();
    let mut client = server.log_in("ann");
    let before = client.rows("UIDL");
    for number in [1, 2, 4] {
        client.ok(&format!("DELE {number}"));
    }
    client.quit();
    assert_eq!(mailbox.names(), ["new/3.m"]);

    let listed = undelete(&server, &["--list", "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let uidls: BTreeSet<&str> = listed
        .as_array()
        .expect("an array")
        .iter()
        .map(|message| message["uidl"].as_str().expect("a text"))
        .collect();
    let deleted = [0, 1, 3].map(|at: usize| before[at].split_once(' ').expect("two").1);
    assert_eq!(uidls, deleted.into());
    assert_eq!(mailbox.names(), ["new/3.m"], "it was only listed");

    // Not under a session's feet.
    let client = server.log_in("ann");
    let refused = undelete(&server, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.contains("another session has the maildrop"),
        "{error}"
    );
    client.quit();

    let restored = undelete(&server, &[]);
    assert!(restored.status.success(), "{restored:?}");
    assert!(said(&restored).contains("ann: 3 messages brought back"));
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), before);
    for number in 1..=4 {
        let sent = client.text(&format!("RETR {number}"));
        assert_eq!(sent, model::sent(&message(number)));
    }
    client.quit();
    assert!(said(&undelete(&server, &[])).contains("ann: 0 messages"));
}
