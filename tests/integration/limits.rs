//! Limits, delays and lists of `[limits]`, each of them reached, and reloaded.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Client, PASSWORD};
use super::patience::{DEADLINE, until};
use super::sasl::{UNBOUND, scram};
use super::scrape::Scrape;
use super::server::{Server, Site};

/// How often a limit was reached.
fn reached(server: &Server, limit: &str) -> u64 {
    let series = format!("popcore_limits_reached_total{{limit=\"{limit}\"}}");
    Scrape::of(server.site.admin()).value(&series)
}

/// A connection from an address of its own, of which nothing is read.
fn from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::from(address), 0));
    bind(&socket, &own).expect("an address of loopback");
    connect(&socket, &to).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    stream
}

/// The same, behind the greeting.
fn greeted(address: [u8; 4], server: &Server) -> Client {
    let mut client = Client::over(from(address, server.site.pop3()));
    let greeting = client.line();
    assert!(greeting.starts_with("+OK popcore ready"), "{greeting}");
    client
}

fn reload(server: &Server) {
    let lines = server.log().matches("limits are those of").count();
    server.signal(Signal::HUP);
    until("the limits to be in force", || {
        let log = server.log();
        (log.matches("limits are those of").count() > lines).then_some(())
    });
}

#[test]
fn an_address_has_as_many_sessions_as_it_may_have() {
    let mut site = Site::with_users(&["ann"]);
    site.limits = "sessions_per_address = 4\nreserved_share = 50".into();
    let server = site.start();
    let crowd = [127, 200, 0, 1];
    let mut held = vec![greeted(crowd, &server), greeted(crowd, &server)];
    // Its share is used up, for clients in clear and with TLS.
    let mut refused = Client::over(from(crowd, server.site.pop3()));
    let said = refused.line();
    assert_eq!(said, "-ERR [SYS/TEMP] too many sessions from your address");
    refused.ends();
    Client::over(from(crowd, server.site.pop3s())).ends();
    assert_eq!(reached(&server, "sessions_per_address"), 2);
    // Others are not concerned, and a login makes an address known.
    greeted([127, 200, 0, 2], &server).quit();
    held[0].log_in("ann");
    held.push(greeted(crowd, &server));
    held.push(greeted(crowd, &server));
    let mut refused = Client::over(from(crowd, server.site.pop3()));
    assert!(refused.line().starts_with("-ERR [SYS/TEMP] "));
    // What ends makes room.
    held.pop().expect("four").quit();
    until("room for one more", || {
        let mut client = Client::over(from(crowd, server.site.pop3()));
        client.line().starts_with("+OK").then_some(())
    });
}

#[test]
fn networks_that_are_exempt_have_no_limits() {
    let mut site = Site::with_users(&["ann"]);
    site.failure_delay = "30s";
    site.limits = "sessions_per_address = 1\nlogin_delay = \"1h\"\n\
                   sessions_per_user_and_address = 1\nexempt = [\"127.201.0.0/24\"]"
        .into();
    let server = site.start();
    let webmail = [127, 201, 0, 7];
    let held: Vec<_> = (0..5).map(|_| greeted(webmail, &server)).collect();
    for _ in 0..3 {
        let mut client = greeted(webmail, &server);
        let capabilities = client.rows("CAPA");
        assert!(!capabilities.iter().any(|c| c.starts_with("LOGIN-DELAY")));
        client.ok("USER ann");
        assert!(client.say("PASS wrong").starts_with("-ERR [AUTH] "));
        client.log_in("ann");
        client.quit();
    }
    drop(held);
}

#[test]
fn a_user_has_as_many_sessions_from_an_address_as_he_may_have() {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.limits = "sessions_per_user_and_address = 1".into();
    let server = site.start();
    let mut first = server.log_in("ann");
    let mut second = server.connect();
    let reply = second.try_log_in("ann");
    assert_eq!(reply, "-ERR [IN-USE] too many sessions of this user");
    second.log_in("bob");
    assert_eq!(reached(&server, "sessions_per_user_and_address"), 1);
    first.ok("NOOP");
    first.quit();
    second.quit();
    until("ann to be free", || {
        let mut client = server.connect();
        client.try_log_in("ann").starts_with("+OK").then_some(())
    });
}

#[test]
fn login_delay_is_told_and_held_but_not_against_who_comes_back_to_delete() {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.limits = "login_delay = \"1h\"".into();
    site.mailbox("ann").fill(2);
    let server = site.start();
    let mut client = server.connect();
    assert!(client.rows("CAPA").contains(&"LOGIN-DELAY 3600".to_owned()));
    client.log_in("ann");
    assert!(client.rows("CAPA").contains(&"LOGIN-DELAY 3600".to_owned()));
    client.text("RETR 1");
    client.text("RETR 2");
    client.quit();
    // MS Q317945: it fetches in one session and deletes in the next.
    let mut client = server.log_in_once_free("ann");
    client.ok("DELE 1");
    client.ok("DELE 2");
    client.quit();
    let mut client = server.connect();
    let reply = until("the maildrop to be free", || {
        let reply = client.try_log_in("ann");
        (!reply.starts_with("-ERR [IN-USE]")).then_some(reply)
    });
    assert!(reply.starts_with("-ERR [LOGIN-DELAY] "), "{reply}");
    // It is told of no other user.
    client.log_in("bob");
    assert_eq!(reached(&server, "login_delay"), 1);
}

/// What the directory says of a user stands in place of what is said of all.
#[test]
fn a_user_may_have_limits_of_the_own() {
    let mut site = Site::with_users(&[]);
    site.write_users(&format!(
        "ann:{{PLAIN}}{PASSWORD}::::::userdb_login_delay=3600\n\
         bob:{{PLAIN}}{PASSWORD}\n\
         cat:{{PLAIN}}{PASSWORD}::::::userdb_login_delay=0\n\
         dan:{{PLAIN}}{PASSWORD}::::::userdb_mail_max_userip_connections=1 userdb_login_delay=0\n"
    ));
    site.limits = "login_delay = \"5m\"\nlongest_login_delay = \"2h\"".into();
    let server = site.start();
    let told = |client: &mut Client| {
        let capabilities = client.rows("CAPA");
        let mut delays = capabilities
            .iter()
            .filter(|line| line.starts_with("LOGIN-DELAY"));
        delays.next().cloned()
    };
    let mut client = server.connect();
    assert_eq!(told(&mut client).as_deref(), Some("LOGIN-DELAY 7200 USER"));
    for (user, own) in [
        ("ann", Some("LOGIN-DELAY 3600")),
        ("bob", Some("LOGIN-DELAY 300")),
        ("cat", None),
    ] {
        let mut client = server.log_in(user);
        assert_eq!(told(&mut client).as_deref(), own, "{user}");
        client.quit();
        // Coming back once is no breach.
        server.log_in_once_free(user).quit();
    }
    let late = |user: &str| {
        let mut client = server.connect();
        until("the maildrop to be free", || {
            let reply = client.try_log_in(user);
            (!reply.starts_with("-ERR [IN-USE]")).then_some(reply)
        })
    };
    for user in ["ann", "bob"] {
        let reply = late(user);
        assert!(reply.starts_with("-ERR [LOGIN-DELAY] "), "{user}: {reply}");
    }
    assert!(late("cat").starts_with("+OK"));
    let held = server.log_in("dan");
    let mut second = server.connect();
    assert_eq!(
        second.try_log_in("dan"),
        "-ERR [IN-USE] too many sessions of this user"
    );
    assert_eq!(reached(&server, "sessions_per_user_and_address"), 1);
    // From elsewhere it is the maildrop that is taken.
    let mut elsewhere = greeted([127, 202, 0, 1], &server);
    let reply = elsewhere.try_log_in("dan");
    assert!(
        reply.starts_with("-ERR [IN-USE] another session has"),
        "{reply}"
    );
    drop(held);
}

#[test]
fn polls_beyond_the_bucket_see_what_was_seen_and_may_fetch_and_delete() {
    let mut site = Site::with_users(&["ann"]);
    site.limits = "poll_interval = \"1h\"\npoll_burst = 3".into();
    let mailbox = site.mailbox("ann");
    mailbox.fill(3);
    let server = site.start();
    let poll = || {
        let mut client = server.log_in_once_free("ann");
        let rows = client.rows("UIDL");
        (client, rows)
    };
    // A listing is settled a little after the Maildir was changed.
    let before = until("polls that are shaped", || {
        let (client, rows) = poll();
        client.quit();
        (reached(&server, "poll_interval") > 0).then_some(rows)
    });
    assert_eq!(before.len(), 3);
    mailbox.deliver("new/4.m", "later\n");
    let (mut client, rows) = poll();
    assert_eq!(rows, before, "the disk was not looked at");
    assert!(!client.text("RETR 1").is_empty());
    client.ok("DELE 2");
    client.quit();
    // What popcore removed is in no listing that is kept.
    let (client, rows) = poll();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().any(|row| row.ends_with(" 4.m")), "{rows:?}");
    client.quit();
    assert!(reached(&server, "poll_interval") >= 2);
}

#[test]
fn a_guesser_waits_longer_each_time_and_a_known_user_beside_him_does_not() {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.failure_delay = "100ms";
    site.limits = "longest_failure_delay = \"400ms\"".into();
    let server = site.start();
    server.log_in("ann").quit();
    let begun = Instant::now();
    for number in 0..8 {
        let mut client = server.connect();
        client.ok("USER bob");
        let reply = client.say(&format!("PASS guess{number}"));
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    }
    // 100, 200, 400, 400, ... ms from one to the next.
    assert!(begun.elapsed() >= Duration::from_millis(2500));
    assert!(reached(&server, "failure_delay") >= 4);
    let begun = Instant::now();
    let mut client = server.log_in_once_free("ann");
    client.ok("NOOP");
    assert!(begun.elapsed() < Duration::from_secs(2));
    // Many at once are not let through at once.
    let mut crowd: Vec<_> = (0..30).map(|_| server.connect()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send(format!("USER bob\r\nPASS again{number}\r\n"));
    }
    let replies: Vec<_> = crowd
        .iter_mut()
        .map(|client| {
            client.line();
            client.line()
        })
        .collect();
    let turned_away = replies
        .iter()
        .filter(|reply| reply.starts_with("-ERR [SYS/TEMP] too many logins failed"));
    assert!(turned_away.count() >= 20, "{replies:?}");
    server.log_line(&["auth delayed", "user=<bob>"]);
}

/// Nobody has failed yet when the first of them are let through.
#[test]
fn a_first_burst_of_guesses_is_not_verified_at_once() {
    let mut site = Site::with_users(&["ann"]);
    site.failure_delay = "20s";
    site.limits = "longest_failure_delay = \"30s\"".into();
    let server = site.start();
    let mut crowd: Vec<_> = (0..60)
        .map(|_| greeted([127, 203, 0, 1], &server))
        .collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send(format!("USER user{number}\r\nPASS guess{number}\r\n"));
    }
    // One has a time within the longest wait, and there is no room for the others.
    until("the others to be turned away", || {
        (reached(&server, "longest_failure_delay") == 54).then_some(())
    });
    let series = "popcore_logins_total{result=\"rejected\"}";
    assert_eq!(Scrape::of(server.site.admin()).value(series), 5);
}

/// By SCRAM nothing is known of a login before the client has proved it.
#[test]
fn who_logs_in_by_scram_at_each_poll_waits_for_no_neighbour() {
    let mut site = Site::with_users(&["ann"]);
    site.failure_delay = "20s";
    site.limits = "longest_failure_delay = \"20s\"".into();
    site.auth = "mechanisms = [\"scram-sha-256\"]\n";
    let server = site.start();
    let poll = || {
        let mut client = greeted([127, 203, 0, 1], &server);
        let (_, reply) = scram(&mut client, "SCRAM-SHA-256", "ann", PASSWORD, &UNBOUND);
        client.quit();
        reply
    };
    assert!(poll().starts_with("+OK"));
    let mut crowd: Vec<_> = (0..60)
        .map(|_| greeted([127, 203, 0, 1], &server))
        .collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send(format!("USER user{number}\r\nPASS guess{number}\r\n"));
    }
    until("a neighbour to wait", || {
        (reached(&server, "longest_failure_delay") > 0).then_some(())
    });
    let begun = Instant::now();
    assert!(poll().starts_with("+OK"));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Each of the maildrops that a master user could want is no fresh start.
#[test]
fn who_guesses_a_master_users_password_waits_whomever_he_names() {
    let mut site = Site::with_users(&["ann"]);
    site.failure_delay = "1s";
    site.limits = "longest_failure_delay = \"1s\"".into();
    site.auth = "mechanisms = [\"plain\", \"scram-sha-256\"]\n";
    site.more = "[[auth.directory]]\nkind = \"passwd-file\"\npath = \"masters\"\nmaster = true\n";
    fs::write(site.path().join("masters"), "root:{PLAIN}master\n").expect("written");
    let server = site.start();
    let guess = |host: u8| {
        let mut client = greeted([127, 203, 0, host], &server);
        client.ok(&format!("USER root*owner{host}"));
        client.send("PASS wrong\r\n");
        client
    };
    assert!(guess(1).line().starts_with("-ERR [AUTH] "));
    // One or two wait for their time; there is no room for the others behind them.
    let said: Vec<_> = (2..9).map(guess).collect();
    let refused = said.into_iter().map(|mut client| client.line());
    let refused = refused.filter(|reply| reply.starts_with("-ERR [SYS/TEMP] "));
    let refused = u64::try_from(refused.count()).expect("few");
    assert!(refused > 0, "each name is a guess for nothing");
    assert_eq!(reached(&server, "longest_failure_delay"), refused);
    // Whose maildrop it is has nothing to do with it.
    let mut ann = greeted([127, 203, 0, 9], &server);
    ann.log_in("ann");
    ann.quit();
}

#[test]
fn limits_are_reloaded_and_a_faulty_file_changes_nothing() {
    let mut server = Site::with_users(&["ann"]).start();
    let blocked = [127, 202, 0, 9];
    greeted(blocked, &server).quit();
    let list = server.site.path().join("blocked");
    fs::write(&list, "# bad neighbours\n127.202.0.0/24\n2001:db8::/32\n").expect("written");
    server
        .site
        .limit("block_list = \"blocked\"\nsessions_per_address = 1\nreserved_share = 0");
    reload(&server);
    Client::over(from(blocked, server.site.pop3())).ends();
    assert_eq!(reached(&server, "block_list"), 1);
    let held = greeted([127, 203, 0, 1], &server);
    let mut refused = Client::over(from([127, 203, 0, 1], server.site.pop3()));
    assert!(refused.line().starts_with("-ERR [SYS/TEMP] "));
    drop(held);
    // The list alone changes: it is read again as well.
    fs::write(&list, "127.204.0.0/24\n").expect("written");
    reload(&server);
    greeted(blocked, &server).quit();
    Client::over(from([127, 204, 0, 1], server.site.pop3())).ends();
    // Faults are told by line, and what was in force stays.
    fs::write(&list, "127.204.0.0/24\nnonsense\n").expect("written");
    server.signal(Signal::HUP);
    server.log_line(&["Error", "blocked:2: \"nonsense\""]);
    server.log_line(&["Error", "the limits that were in force stay"]);
    fs::write(&list, "").expect("written");
    server
        .site
        .limit("block_list = \"blocked\"\nlogin_dealy = \"1h\"");
    server.signal(Signal::HUP);
    server.log_line(&[
        "Error",
        "limits.login_dealy",
        "did you mean \"login_delay\"?",
    ]);
    Client::over(from([127, 204, 0, 1], server.site.pop3())).ends();
    server.site.limit("");
    reload(&server);
    greeted([127, 204, 0, 1], &server).quit();
}

/// A large list takes its time to be read, and sessions go on meanwhile.
#[test]
fn a_reload_of_a_large_list_holds_no_session_up() {
    let mut site = Site::with_users(&["ann"]);
    site.shards = "1".into();
    let list = site.path().join("blocked");
    fs::write(&list, "127.205.0.0/24\n").expect("written");
    site.limits = "block_list = \"blocked\"".into();
    let server = site.start();
    let mut text = String::new();
    for number in 0_u32..300_000 {
        // Every other network of 32 addresses, so that none meet.
        let network = Ipv4Addr::from(0x6400_0000 + number * 64);
        writeln!(text, "{network}/27").expect("a String");
    }
    text.push_str("127.206.0.0/24\n");
    fs::write(&list, text).expect("written");
    let mut client = server.log_in("ann");
    let lines = server.log().matches("limits are those of").count();
    server.signal(Signal::HUP);
    let mut answered = 0;
    while server.log().matches("limits are those of").count() == lines {
        client.ok("NOOP");
        answered += 1;
    }
    // A shard that read it would have answered one.
    assert!(answered > 20, "{answered} commands while it was read");
    server.log_line(&["blocked=300001"]);
    Client::over(from([127, 206, 0, 9], server.site.pop3())).ends();
    greeted([127, 205, 0, 9], &server).quit();
    client.quit();
}

#[test]
fn a_polling_client_costs_one_hash_whatever_is_reloaded() {
    const HORSE: &str = "correct horse battery staple";
    let hash = "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4";
    let site = Site::with_users(&[]);
    site.mailbox("ann");
    let users = format!("ann:{hash}\n");
    site.write_users(&users);
    let server = site.start();
    let log_in = |password: &str| {
        let mut client = server.connect();
        client.ok("USER ann");
        let reply = until("the maildrop to be free", || {
            let reply = client.say(&format!("PASS {password}"));
            if reply.starts_with("-ERR [IN-USE]") {
                client.ok("USER ann");
                return None;
            }
            Some(reply)
        });
        reply.starts_with("+OK")
    };
    let metric = |name: &str| Scrape::of(server.site.admin()).value(name);
    assert!(log_in(HORSE));
    assert!(log_in(HORSE));
    assert!(metric("popcore_auth_cache_good_total") >= 1);
    assert_eq!(metric("popcore_auth_cache_hashes_total"), 0);
    let loads = || server.log().matches("directory loaded").count();
    let reload = || {
        let before = loads();
        server.signal(Signal::HUP);
        until("the users to be loaded", || {
            (loads() > before).then_some(())
        });
    };
    reload();
    until("the reload to be in force", || {
        assert!(log_in(HORSE));
        (metric("popcore_auth_cache_hashes_total") == 1).then_some(())
    });
    // A changed password works at once, and the old one does not.
    server
        .site
        .write_users(&format!("ann:{{PLAIN}}{PASSWORD}\n"));
    reload();
    until("the new password to work", || {
        log_in(PASSWORD).then_some(())
    });
    assert!(!log_in(HORSE));
}
