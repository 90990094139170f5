//! Logins over the wire.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Client, PASSWORD};
use super::patience::until;
use super::scrape::Scrape;
use super::server::{Server, Site};

const HORSE: &str = "correct horse battery staple";

/// Users with their passwords in the schemes that migrants bring, made by other
/// programs (OpenSSL, the reference implementations).
const SCHEMES: [(&str, &str, &str); 11] = [
    ("plain", "{PLAIN}two words", "two words"),
    ("spaces", "{PLAIN} at both ends ", " at both ends "),
    ("punct", "{PLAIN}%\"'\\$;#", "%\"'\\$;#"),
    (
        "sha512crypt",
        "{SHA512-CRYPT}$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        "Hello world!",
    ),
    (
        "bare",
        "$5$saltstring$hixOXgchwauyzVtlSM/e7UnQx0qiTk74JE/YU53IbE0",
        HORSE,
    ),
    (
        "blfcrypt",
        "{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "U*U",
    ),
    (
        "argon2id",
        "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
        HORSE,
    ),
    (
        "ssha",
        "{SSHA}ORKnVXjZu9dGD51qCouXYoBDPAU4Ynl0ZXNhbA==",
        HORSE,
    ),
    (
        "sha256",
        "{SHA256.HEX}C4BBCB1FBEC99D65BF59D85C8CB62EE2DB963F0FE106F483D9AFA73BD4E39A8A",
        HORSE,
    ),
    (
        "ssha256",
        "{SSHA256}1SzZWYaqJBhPNCz/fyu2xuxOTeQxhSJUzBM+AaDD0044Ynl0ZXNhbA==",
        HORSE,
    ),
    (
        "ssha512",
        "{SSHA512}EAO9oLVliMpq1D9BlS0VdAY/l7cquVS5T9dMadD0PyBHTy6D4+NU3CH5Or13qvkjwwqLZDDvPC3EbL2oE3RvsDhieXRlc2Fs",
        HORSE,
    ),
];

fn with_users(lines: &str) -> Server {
    let site = Site::with_users(&[]);
    site.write_users(lines);
    site.start()
}

fn log_in(client: &mut Client, user: &str, password: &str) -> String {
    client.ok(&format!("USER {user}"));
    client.say(&format!("PASS {password}"))
}

#[test]
fn users_of_every_scheme_log_in_with_their_password_alone() {
    let mut lines = String::new();
    for (user, stored, _) in SCHEMES {
        writeln!(lines, "{user}:{stored}").expect("a String");
    }
    let server = with_users(&lines);
    for (user, _, password) in SCHEMES {
        let mut client = server.connect();
        let reply = log_in(&mut client, user, &format!("{password}x"));
        assert!(reply.starts_with("-ERR [AUTH] "), "{user}: {reply}");
        let reply = log_in(&mut client, user, password);
        assert!(reply.starts_with("+OK"), "{user}: {reply}");
        client.quit();
    }
}

#[test]
fn password_with_spaces() {
    let server = with_users("ann:{PLAIN} two  words \n");
    let mut client = server.connect();
    for wrong in ["two words", "two  words", " two  words"] {
        let reply = log_in(&mut client, "ann", wrong);
        assert!(reply.starts_with("-ERR [AUTH] "), "{wrong}: {reply}");
        client = server.connect();
    }
    let reply = log_in(&mut client, "ann", " two  words ");
    assert!(reply.starts_with("+OK"), "{reply}");
}

#[test]
fn an_unknown_user_and_a_wrong_password_get_the_same_words() {
    let server = Site::with_users(&["ann"]).start();
    let replies = ["ann", "nobody", "ann@nowhere", "..", "a/b"].map(|user| {
        let mut client = server.connect();
        let user_reply = client.say(&format!("USER {user}"));
        (user_reply, client.say("PASS wrong"))
    });
    assert!(replies[0].1.starts_with("-ERR [AUTH] "), "{replies:?}");
    assert!(
        replies.iter().all(|reply| *reply == replies[0]),
        "{replies:?}"
    );
}

#[test]
fn three_failed_logins_close_the_connection() {
    let server = Site::with_users(&["ann"]).start();
    let mut client = server.connect();
    for _ in 0..3 {
        let reply = log_in(&mut client, "ann", "wrong");
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    }
    client.ends();
    server.log_line(&["Too many failed logins", "(3 failed logins in "]);
    server.log_in("ann").quit();
}

#[test]
fn a_failed_login_is_answered_after_its_delay_and_longer_each_time() {
    let mut site = Site::with_users(&["ann"]);
    site.failure_delay = "150ms";
    let server = site.start();
    let mut client = server.connect();
    for factor in [1, 2] {
        client.ok("USER ann");
        let begun = Instant::now();
        // What is pipelined behind it waits as well.
        client.send("PASS wrong\r\nCAPA\r\n");
        assert!(client.line().starts_with("-ERR [AUTH] "));
        assert!(begun.elapsed() >= Duration::from_millis(150) * factor);
        assert!(client.line().starts_with("+OK"));
        client.lines_to_terminator();
    }
    client.log_in("ann");
}

#[test]
fn a_delay_of_zero_is_none() {
    let server = Site::with_users(&["ann"]).start();
    let mut client = server.connect();
    client.ok("USER ann");
    assert!(client.say("PASS wrong").starts_with("-ERR [AUTH] "));
    // The wheel of deadlines was not asked, whose ticks are 250 ms: twenty
    // logins would take five seconds and more.
    let begun = Instant::now();
    for _ in 0..20 {
        let mut client = server.connect();
        client.ok("USER ann");
        assert!(client.say("PASS wrong").starts_with("-ERR [AUTH] "));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn allow_nets_and_nologin_keep_users_out() {
    let far = format!("far:{{PLAIN}}{PASSWORD}::::::allow_nets=192.0.2.0/24");
    let near = format!("near:{{PLAIN}}{PASSWORD}::::::allow_nets=192.0.2.0/24,127.0.0.0/8");
    let off = format!("off:{{PLAIN}}{PASSWORD}::::::nologin");
    let server = with_users(&[far, near, off, String::new()].join("\n"));
    server.log_in("near").quit();
    let mut client = server.connect();
    // As if the password were wrong: who is far away need not know better.
    let reply = client.try_log_in("far");
    assert_eq!(reply, log_in(&mut client, "far", "wrong"));
    let reply = server.connect().try_log_in("off");
    assert_eq!(reply, "-ERR [SYS/PERM] This account is disabled");
    let mut client = server.connect();
    let reply = log_in(&mut client, "off", "wrong");
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    server.log_line(&["user disabled, 1 attempts", "user=<off>"]);
    server.log_line(&["auth failed, 1 attempts", "user=<far>"]);
}

#[test]
fn the_hangup_signal_reads_the_users_again() {
    let server = Site::with_users(&["ann"]).start();
    let mut open = server.log_in("ann");
    server
        .site
        .write_users(&format!("bob:{{PLAIN}}{PASSWORD}\n"));
    server.signal(Signal::HUP);
    let bob = until("bob to be known", || {
        let mut client = server.connect();
        let reply = client.try_log_in("bob");
        reply.starts_with("+OK").then_some(client)
    });
    bob.quit();
    // A session goes on, whoever was removed meanwhile; a login does not.
    open.ok("STAT");
    open.quit();
    let reply = server.connect().try_log_in("ann");
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
}

#[test]
fn users_that_cannot_be_read_again_stay_in_force() {
    let server = Site::with_users(&["ann"]).start();
    let users = server.site.path().join("users");
    fs::remove_file(&users).expect("removed");
    server.signal(Signal::HUP);
    let line = server.log_line(&["Error", "the users loaded before stay in force"]);
    assert!(line.contains(users.to_str().expect("UTF-8")), "{line}");
    server.log_in("ann").quit();
}

#[test]
fn a_line_that_cannot_be_used_keeps_its_own_user_out_and_no_other() {
    let server = Site::with_users(&["ann"]).start();
    let lines = format!("broken\nbad:{{NOSUCH}}x\nbob:{{PLAIN}}{PASSWORD}\n");
    server.site.write_users(&lines);
    server.signal(Signal::HUP);
    server.log_line(&["directory loaded", "users=1", "locked=1"]);
    let line = server.log_line(&["NOSUCH"]);
    assert!(line.contains("users"), "{line}");
    server.log_in("bob").quit();
    assert!(
        server
            .connect()
            .try_log_in("bad")
            .starts_with("-ERR [AUTH] ")
    );
}

#[test]
fn passwords_are_not_taken_in_clear_where_the_operator_says_so() {
    let mut site = Site::with_users(&["ann"]);
    site.plaintext = false;
    let server = site.start();
    let mut client = server.connect();
    let capabilities = client.rows("CAPA");
    assert!(
        !capabilities.contains(&"USER".to_owned()),
        "{capabilities:?}"
    );
    assert!(
        capabilities.contains(&"STLS".to_owned()),
        "{capabilities:?}"
    );
    client.err("USER ann");
    client.err("PASS secret");
    client.err("STAT");
    let mut secured = super::tls::started(&server);
    assert!(secured.rows("CAPA").contains(&"USER".to_owned()));
    secured.log_in("ann");
    secured.quit();
}

#[test]
fn pass_is_taken_right_behind_user_only() {
    let server = Site::with_users(&["ann", "bob"]).start();
    let mut client = server.connect();
    client.err("PASS secret");
    client.ok("USER ann");
    client.text("CAPA");
    client.err("PASS secret");
    client.ok("USER ann");
    client.ok("USER bob");
    client.ok("PASS secret");
    drop(server.log_in("ann"));
}

#[test]
fn a_login_that_takes_too_long_is_ended_without_a_word() {
    let mut site = Site::with_users(&["ann"]);
    site.login = "1s";
    let server = site.start();
    let begun = Instant::now();
    let mut client = server.connect();
    client.ok("USER ann");
    client.ends();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    server.log_line(&["Login timed out", "no auth attempts"]);
}

/// A password whose verification takes long on any machine: 64 passes over 16 MiB.
/// It is nobody's hash.
const SLOW: &str = "{ARGON2ID}$argon2id$v=19$m=16384,t=64,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4";

/// More logins than may wait, and then some for those that are under way.
const CROWD: usize = 1024 + 256;

#[test]
fn a_full_auth_queue_answers_sys_temp() {
    let server = with_users(&format!("slow:{SLOW}\nquick:{{PLAIN}}{PASSWORD}\n"));
    let mut crowd = Vec::new();
    let full = "popcore_logins_total{result=\"queue_full\"}";
    while Scrape::of(server.site.admin()).value(full) == 0 {
        assert!(crowd.len() < 3 * CROWD, "the queue has no end");
        for _ in 0..CROWD / 16 {
            let mut client = server.connect();
            // Of its own, so that no outcome answers those that wait.
            let number = crowd.len();
            client.send(format!("USER slow\r\nPASS wrong{number}\r\n"));
            crowd.push(client);
        }
    }
    // Who was refused was told at once; the others still wait.
    let refused = until("an answer", || crowd.iter().rposition(Client::has_news));
    let mut client = crowd.swap_remove(refused);
    assert!(client.line().starts_with("+OK"), "the answer to USER");
    let reply = client.line();
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    server.log_line(&["auth unavailable", "user=<slow>"]);
    until("every refusal to be booked as one", || {
        let scrape = Scrape::of(server.site.admin());
        assert_eq!(
            scrape.value("popcore_logins_total{result=\"unavailable\"}"),
            0
        );
        (scrape.value(full) == scrape.value("popcore_auth_queue_full_total")).then_some(())
    });
    // It was no failed login, and passwords that cost nothing wait for nobody.
    client.log_in("quick");
    client.quit();
}
