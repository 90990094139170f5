//! Maildrops that other programs change meanwhile, and those that are not as
//! they should be.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::client::{Client, PASSWORD};
use super::mailbox::{Mailbox, message};
use super::model;
use super::patience::until_true;
use super::random::Random;
use super::server::{Server, Site};

fn three_messages() -> (Server, Client) {
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann").fill(3);
    let server = site.start();
    let client = server.log_in("ann");
    (server, client)
}

#[test]
fn mail_that_comes_during_a_session_is_for_the_next() {
    let (server, mut client) = three_messages();
    let before = client.say("STAT");
    server.mailbox("ann").deliver("new/4.m", "late\n");
    server.mailbox("ann").deliver("cur/0.m:2,S", "late\n");
    assert_eq!(client.say("STAT"), before);
    assert_eq!(client.rows("UIDL"), ["1 1.m", "2 2.m", "3 3.m"]);
    client.err("RETR 4");
    client.ok("DELE 1");
    client.quit();
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), ["1 0.m", "2 2.m", "3 3.m", "4 4.m"]);
}

#[test]
fn a_message_that_another_program_removed_costs_its_own_reply_only() {
    let (server, mut client) = three_messages();
    server.mailbox("ann").remove("new/2.m");
    client.err("RETR 2");
    client.err("TOP 2 0");
    assert_eq!(client.rows("LIST").len(), 3);
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)));
    assert_eq!(client.text("RETR 3"), model::sent(&message(3)));
    // It is gone, which is what its deletion asks for.
    client.ok("DELE 2");
    client.quit();
    assert_eq!(server.mailbox("ann").names(), ["new/1.m", "new/3.m"]);
}

#[test]
fn a_renamed_message_is_fetched_and_deleted() {
    let (server, mut client) = three_messages();
    let mailbox = server.mailbox("ann");
    mailbox.rename("new/1.m", "cur/1.m:2,");
    mailbox.rename("new/2.m", "cur/2.m:2,S");
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)));
    mailbox.rename("cur/1.m:2,", "cur/1.m:2,RS");
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)));
    assert_eq!(client.text("TOP 2 0"), model::top(&message(2), 0));
    client.ok("DELE 1");
    client.ok("DELE 2");
    mailbox.rename("cur/2.m:2,S", "cur/2.m:2,ST");
    client.quit();
    assert_eq!(mailbox.names(), ["new/3.m"]);
}

#[test]
fn flags_renamed_between_sessions_change_no_uidl() {
    let (server, mut client) = three_messages();
    let before = client.rows("UIDL");
    client.quit();
    server.mailbox("ann").rename("new/2.m", "cur/2.m:2,FS");
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), before);
}

#[test]
fn a_message_that_changed_its_size_since_login_is_refused() {
    let (server, mut client) = three_messages();
    let mailbox = server.mailbox("ann");
    let file = |number| mailbox.path().join(format!("new/{number}.m"));
    let shorter = File::options().write(true).open(file(1)).expect("a file");
    shorter.set_len(10).expect("truncated");
    fs::write(file(2), [message(2), b"more\n".to_vec()].concat()).expect("written");
    client.err("RETR 1");
    client.err("RETR 2");
    client.err("TOP 2 0");
    assert_eq!(client.text("RETR 3"), model::sent(&message(3)));
    client.quit();
    let mut client = server.log_in("ann");
    assert_eq!(client.text("RETR 1"), model::sent(&message(1)[..10]));
}

#[test]
fn a_wrong_size_in_a_name_is_found_out_by_sending_and_told_to_the_next_session() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.deliver("new/1.a,S=2,W=3", "a\n");
    mailbox.deliver("new/2.b,S=4,W=40", "b\nb\n");
    mailbox.deliver("new/3.c,S=40,W=41", "c\nc\nc\n");
    mailbox.deliver("new/4.d,S=2,W=3", "d\n");
    let server = site.start();
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("LIST"), ["1 3", "2 40", "3 41", "4 3"]);
    assert_eq!(client.text("RETR 2"), model::sent(b"b\nb\n"));
    assert_eq!(client.text("RETR 3"), model::sent(b"c\nc\nc\n"));
    assert_eq!(client.text("RETR 4"), model::sent(b"d\n"));
    assert_eq!(client.text("TOP 3 9"), model::top(b"c\nc\nc\n", 9));
    // What was announced stays for this session.
    assert_eq!(client.rows("LIST"), ["1 3", "2 40", "3 41", "4 3"]);
    let uidls = client.rows("UIDL");
    client.quit();
    server.log_line(&["2.b,S=4,W=40", "states wrong sizes"]);
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("LIST"), ["1 3", "2 6", "3 9", "4 3"]);
    assert_eq!(client.rows("UIDL"), uidls);
}

#[test]
fn a_restart_announces_what_was_announced() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(20);
    mailbox.deliver("cur/3.m:2,S", "a twin\n");
    mailbox.deliver("new/9.\u{e4}", "no unique-id by itself\n");
    let mut server = site.start();
    let mut client = server.log_in("ann");
    let before = ["LIST", "UIDL"].map(|listing| client.rows(listing));
    client.quit();
    server.signal(rustix::process::Signal::KILL);
    server.end();
    // Read again, it would have other octets.
    fs::write(mailbox.path().join("new/5.m"), "rewritten in place\n").expect("written");
    server.restart();
    let mut client = server.log_in("ann");
    assert_eq!(["LIST", "UIDL"].map(|listing| client.rows(listing)), before);
}

#[test]
fn a_connection_that_drops_deletes_nothing() {
    let (server, mut client) = three_messages();
    client.ok("DELE 1");
    client.ok("DELE 2");
    drop(client);
    server.log_line(&["pop3(ann)", "Disconnected: Connection closed", "del=0/3"]);
    assert_eq!(server.mailbox("ann").names().len(), 3);
}

/// Fault "reused UIDs" (cyrus-imapd #374).
#[test]
fn reused_uids_a_message_that_took_a_name_is_not_taken_for_the_one_before() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    let mut server = site.start();
    let mut told = Vec::new();
    for text in ["first\n", "other\n", "third\n"] {
        mailbox.deliver("new/1.m", text);
        let mut client = server.log_in("ann");
        assert_eq!(client.text("RETR 1"), model::sent(text.as_bytes()));
        told.extend(client.rows("UIDL"));
        client.ok("DELE 1");
        client.quit();
        server.signal(rustix::process::Signal::TERM);
        server.end();
        server.restart();
    }
    assert_eq!(told[0], "1 1.m");
    assert!(
        told[1] != told[0] && told[2] != told[0] && told[1] != told[2],
        "{told:?}"
    );
    mailbox.deliver("cur/1.m:2,S", "other\n");
    assert_eq!(server.log_in("ann").rows("UIDL"), [told[1].as_str()]);
}

#[test]
fn rset_takes_deletions_back() {
    let (server, mut client) = three_messages();
    client.ok("DELE 1");
    client.ok("RSET");
    client.ok("DELE 3");
    client.quit();
    assert_eq!(server.mailbox("ann").names(), ["new/1.m", "new/2.m"]);
}

/// Root is refused nothing by mode, so its server becomes another user.
#[test]
fn what_cannot_be_removed_is_told_with_its_number() {
    let mut site = Site::with_users(&["ann"]);
    if rustix::process::geteuid().is_root() {
        site.server = "user = 65534\ngroup = 65534\n";
    }
    let mailbox = site.mailbox("ann");
    mailbox.fill(2);
    mailbox.deliver("cur/3.m:2,", message(3));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    };
    mode(site.path(), 0o755);
    // For index and lock.
    mode(mailbox.path(), 0o777);
    mode(&mailbox.path().join("cur"), 0o777);
    mode(&mailbox.path().join("new"), 0o555);
    let server = site.start();
    let mut client = server.log_in("ann");
    for number in 1..=3 {
        client.ok(&format!("DELE {number}"));
    }
    let reply = client.say("QUIT");
    assert!(reply.starts_with("-ERR [SYS/PERM] 2 of 3 "), "{reply}");
    client.ends();
    server.log_line(&["pop3(ann)", "Logged out, not all removed", "del=1/3"]);
    assert_eq!(mailbox.names(), ["new/1.m", "new/2.m"]);
    // Its folder is to be removed as well.
    mode(&mailbox.path().join("new"), 0o755);
}

/// As root nothing is forbidden by mode, and the same request must then succeed.
#[test]
fn a_folder_that_may_not_be_written_keeps_its_messages_unless_root_asks() {
    let (server, mut client) = three_messages();
    let new = server.mailbox("ann").path().join("new");
    fs::set_permissions(&new, Permissions::from_mode(0o500)).expect("a mode");
    client.ok("DELE 1");
    let reply = client.say("QUIT");
    fs::set_permissions(&new, Permissions::from_mode(0o700)).expect("a mode");
    let left = server.mailbox("ann").names();
    if rustix::process::geteuid().is_root() {
        assert!(reply.starts_with("+OK"), "{reply}");
        assert_eq!(left.len(), 2);
    } else {
        assert!(reply.starts_with("-ERR [SYS/PERM] 1 of 1 "), "{reply}");
        assert_eq!(left.len(), 3);
    }
}

/// As root nothing is forbidden by mode, and the login must then succeed.
#[test]
fn a_maildrop_that_may_not_be_read_is_a_permanent_fault_unless_root_asks() {
    let (server, client) = three_messages();
    client.quit();
    let cur = server.mailbox("ann").path().join("cur");
    fs::set_permissions(&cur, Permissions::from_mode(0o000)).expect("a mode");
    let reply = server.connect().try_log_in("ann");
    fs::set_permissions(&cur, Permissions::from_mode(0o700)).expect("a mode");
    if rustix::process::geteuid().is_root() {
        assert!(reply.starts_with("+OK"), "{reply}");
    } else {
        assert!(reply.starts_with("-ERR [SYS/PERM] "), "{reply}");
        server.log_line(&["Warning", "/cur"]);
    }
}

#[test]
fn a_file_where_the_maildrop_should_be_is_a_permanent_fault() {
    let site = Site::with_users(&["ann"]);
    fs::remove_dir_all(site.path().join("mail/ann")).expect("removed");
    fs::write(site.path().join("mail/ann"), "an mbox\n").expect("written");
    let server = site.start();
    let mut client = server.connect();
    let reply = client.try_log_in("ann");
    assert!(reply.starts_with("-ERR [SYS/PERM] "), "{reply}");
    server.log_line(&["Warning", "mail/ann"]);
    client.ok("QUIT");
}

#[test]
fn no_link_leads_out_of_a_maildrop() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    let secret = site.path().join("outside");
    fs::write(&secret, "not mail\n").expect("written");
    fs::create_dir(site.path().join("elsewhere")).expect("a folder");
    symlink(&secret, mailbox.path().join("new/1.link")).expect("a link");
    symlink(site.path(), mailbox.path().join("new/2.folder")).expect("a link");
    symlink("/dev/null", mailbox.path().join("cur/3.device:2,")).expect("a link");
    fs::create_dir(mailbox.path().join("cur/4.folder")).expect("a folder");
    mailbox.deliver("new/5.m", "mail\n");
    mailbox.deliver("new/.hidden", "no mail\n");
    let server = site.start();
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), ["1 5.m"]);
    // A message that becomes a link after it was listed is followed no more.
    mailbox.remove("new/5.m");
    symlink(&secret, mailbox.path().join("new/5.m")).expect("a link");
    client.err("RETR 1");
    client.quit();
    assert_eq!(fs::read(secret).expect("still there"), b"not mail\n");
}

#[test]
fn a_folder_that_is_a_link_is_not_followed() {
    let site = Site::with_users(&["ann", "bob"]);
    let (ann, bob) = (site.mailbox("ann"), site.mailbox("bob"));
    bob.fill(2);
    fs::remove_dir(ann.path().join("new")).expect("removed");
    symlink(bob.path().join("new"), ann.path().join("new")).expect("a link");
    let server = site.start();
    let mut client = server.connect();
    let reply = client.try_log_in("ann");
    if reply.starts_with("+OK") {
        assert_eq!(client.say("STAT"), "+OK 0 0");
    } else {
        assert!(reply.starts_with("-ERR [SYS/PERM] "), "{reply}");
    }
    assert_eq!(bob.names().len(), 2);
}

#[test]
fn a_maildrop_that_is_a_link_shares_the_lock_of_what_it_leads_to() {
    let site = Site::with_users(&["ann", "alias"]);
    site.mailbox("ann").fill(2);
    fs::remove_dir_all(site.path().join("mail/alias")).expect("removed");
    symlink("ann", site.path().join("mail/alias")).expect("a link");
    let server = site.start();
    let mut ann = server.log_in("ann");
    let reply = server.connect().try_log_in("alias");
    assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
    ann.ok("DELE 1");
    ann.quit();
    let mut alias = server.log_in("alias");
    assert_eq!(alias.rows("UIDL"), ["1 2.m"]);
}

#[test]
fn names_that_try_to_leave_are_refused() {
    let long = "a".repeat(250);
    // 245 octets are what a command line leaves for a name behind "USER ".
    let longest = &long[..245];
    let names = [
        "..",
        ".",
        "../ann",
        "/etc",
        "a/b",
        ".ann",
        "a/../../b",
        longest,
    ];
    let site = Site::with_users(&["ann"]);
    let lines = names.map(|name| format!("{name}:{{PLAIN}}{PASSWORD}\n"));
    site.write_users(&lines.concat());
    // What they would reach were they let through.
    Mailbox::make(site.path().to_owned()).fill(1);
    let server = site.start();
    for name in &names[..names.len() - 1] {
        let mut client = server.connect();
        let user = client.say(&format!("USER {name}"));
        if user.starts_with("+OK") {
            let reply = client.say(&format!("PASS {PASSWORD}"));
            assert!(reply.starts_with("-ERR "), "{name}: {reply}");
        }
        client.err("STAT");
    }
    // A long name is a name.
    server.log_in(longest).quit();
    let mut client = server.connect();
    client.err("USER a\0b");
    client.err(&format!("USER {}", "a".repeat(254)));
    client.send("USER \u{1}\r\nPASS x\r\nNOOP\r\n");
    for _ in 0..2 {
        client.line();
    }
    assert!(client.line().starts_with("-ERR"));
}

#[test]
fn the_template_finds_domains_and_homes() {
    let mut site = Site::with_users(&[]);
    site.maildrop = "mail/{domain}/{local}";
    for (place, text) in [("a.net/ann", "one\n"), ("b.net/ann", "two\n")] {
        site.mailbox(place).deliver("new/1.m", text);
    }
    site.write_users(&format!(
        "ann@a.net:{PASSWORD}\nann@b.net:{{PLAIN}}{PASSWORD}\nann:{{PLAIN}}{PASSWORD}\n\
         home:{{PLAIN}}{PASSWORD}::::::userdb_mail=maildir:{}\n",
        site.path().join("mail/a.net/ann").display()
    ));
    let server = site.start();
    let mut client = server.log_in("ann@b.net");
    assert_eq!(client.text("RETR 1"), b"two\r\n.\r\n");
    let mut client = server.log_in("home");
    assert_eq!(client.text("RETR 1"), b"one\r\n.\r\n");
    // Without a domain there is no path.
    let reply = server.connect().try_log_in("ann");
    assert!(reply.starts_with("-ERR [SYS/PERM] "), "{reply}");
}

/// Renames messages between new/ and cur/ and changes their flags until told to
/// stop, as an IMAP server with many clients might.
fn rename_about(mailbox: &Mailbox, messages: usize, stop: &AtomicBool) {
    let mut random = Random::new(7);
    let mut places: Vec<String> = (1..=messages).map(|n| format!("new/{n}.m")).collect();
    while !stop.load(Ordering::Relaxed) {
        let index = random.below(messages);
        let flags = ["", ":2,", ":2,S", ":2,FS", ":2,RS"][random.below(5)];
        let folder = if flags.is_empty() { "new" } else { "cur" };
        let place = format!("{folder}/{}.m{flags}", index + 1);
        let from = mailbox.path().join(&places[index]);
        // The server may have removed it by now.
        if fs::rename(from, mailbox.path().join(&place)).is_ok() {
            places[index] = place;
        }
    }
}

#[test]
fn renames_at_any_time_hide_no_message_from_a_listing_or_a_removal() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(20);
    let server = site.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| rename_about(&mailbox, 20, &stop));
        let _stop = Stop(&stop);
        for round in 0..200 {
            let mut client = server.log_in("ann");
            assert_eq!(client.rows("UIDL").len(), 20, "round {round}");
            client.quit();
        }
        let mut client = server.log_in("ann");
        for number in 1..=20 {
            client.ok(&format!("DELE {number}"));
        }
        client.quit();
    });
    assert!(mailbox.names().is_empty(), "{:?}", mailbox.names());
}

#[test]
fn renames_at_any_time_hide_no_message_from_a_fetch() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(20);
    let server = site.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| rename_about(&mailbox, 20, &stop));
        let _stop = Stop(&stop);
        for round in 0..20 {
            let mut client = server.log_in("ann");
            for number in 1..=20 {
                let sent = client.text(&format!("RETR {number}"));
                assert_eq!(sent, model::sent(&message(number)), "round {round}");
            }
            client.quit();
        }
    });
}

#[test]
fn retrieved_messages_are_marked_as_seen_when_the_session_ends() {
    let mut site = Site::with_users(&["ann"]);
    site.maildrop = "mail/{user}\"\nmark_seen = true\n#\"";
    let mailbox = site.mailbox("ann");
    mailbox.fill(5);
    mailbox.rename("new/4.m", "cur/4.m:2,FT");
    let server = site.start();
    let mut client = server.log_in("ann");
    let before = client.rows("UIDL");
    for command in ["RETR 1", "RETR 1", "TOP 2 0", "RETR 3", "RETR 4"] {
        client.text(command);
    }
    client.ok("DELE 3");
    assert!(mailbox.names().contains(&"new/1.m".to_owned()), "not yet");
    client.quit();
    let marked = ["cur/1.m:2,S", "cur/4.m:2,FST", "new/2.m", "new/5.m"];
    assert_eq!(mailbox.names(), marked);
    // A client that goes without QUIT has the message all the same.
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("UIDL"), ["1 1.m", "2 2.m", "3 4.m", "4 5.m"]);
    assert_eq!(before[..2], ["1 1.m", "2 2.m"]);
    client.text("RETR 2");
    drop(client);
    until_true("the message to be marked", || {
        mailbox.names()[1] == "cur/2.m:2,S"
    });
    server.log_in_once_free("ann").quit();
}

#[test]
fn nothing_is_renamed_unless_it_is_asked_for() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(2);
    let server = site.start();
    let mut client = server.log_in("ann");
    client.text("RETR 1");
    client.quit();
    server.log_in("ann").quit();
    assert_eq!(mailbox.names(), ["new/1.m", "new/2.m"]);
}

/// Stops what goes on beside a test, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
