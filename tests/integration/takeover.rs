//! A maildrop is taken over from a session whose client went silent
//! (`maildrop.takeover`).

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::client::Client;
use super::mailbox::message;
use super::model;
use super::patience::until;
use super::scrape::Scrape;
use super::server::{Server, Site};

fn serve(takeover: bool) -> Server {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.shards = "2".into();
    if takeover {
        site.maildrop = "mail/{user}\"\ntakeover = \"1s\"\n#\"";
    }
    site.mailbox("ann").fill(3);
    site.start()
}

/// A login that is answered as soon as the session before may be displaced.
fn take_over(server: &Server) -> Client {
    until("the maildrop to be given up", || {
        let mut client = server.connect();
        let reply = client.try_log_in("ann");
        let refused = reply.starts_with("-ERR [IN-USE] ");
        assert!(refused || reply.starts_with("+OK"), "{reply}");
        (!refused).then_some(client)
    })
}

/// The shard that a log line's session was on.
fn shard(line: &str) -> &str {
    let id = line.split("session=<").nth(1).expect("a session");
    id.split('.').nth(1).expect("a shard")
}

#[test]
fn a_silent_session_gives_way_on_whichever_shard_it_is_and_deletes_nothing() {
    let server = serve(true);
    let mut shards = HashSet::new();
    let mut displaced = 0;
    let mut holder = server.log_in("ann");
    // From one shard to the other and within one, in both directions.
    while shards.len() < 4 || displaced < 4 {
        assert!(displaced < 64, "{shards:?}");
        holder.ok("DELE 1");
        let next = take_over(&server);
        assert_eq!(holder.rest(), b"", "closed without a word");
        displaced += 1;
        let ended = || {
            let log = server.log();
            let lines = log
                .lines()
                .filter(|line| line.contains("Taken over by a new session"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            (lines.len() == displaced).then_some(lines)
        };
        let lines = until("the line of the displaced session", ended);
        for pair in lines.windows(2) {
            shards.insert((shard(&pair[0]).to_owned(), shard(&pair[1]).to_owned()));
        }
        let last = lines.last().expect("one");
        assert!(
            last.contains("pop3(ann)") && last.contains("del=0/3"),
            "{last}"
        );
        holder = next;
    }
    assert_eq!(holder.rows("LIST").len(), 3);
    assert_eq!(holder.text("RETR 1"), model::sent(&message(1)));
    let scraped = Scrape::of(server.site.admin());
    let ended = scraped.value("popcore_sessions_ended_total{reason=\"displaced\"}");
    assert_eq!(ended, displaced as u64);
    holder.quit();
}

#[test]
fn a_session_that_is_alive_of_another_address_or_without_the_key_stays() {
    let server = serve(true);
    let mut holder = server.log_in("ann");
    for _ in 0..30 {
        holder.ok("NOOP");
        let reply = server.connect().try_log_in("ann");
        assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
    }
    // Silent from here on, until one of its own address is let in.
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 77), 0));
    let elsewhere = || {
        let own = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&own, &from).expect("an address of this machine");
        connect(&own, &server.site.pop3()).expect("a connection");
        let mut client = Client::over(TcpStream::from(own));
        client.line();
        client.try_log_in("ann")
    };
    let silent = std::time::Instant::now();
    until("more silence than the key asks for", || {
        let reply = elsewhere();
        assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
        (silent.elapsed() > std::time::Duration::from_secs(2)).then_some(())
    });
    take_over(&server).quit();
    assert_eq!(holder.rest(), b"");

    let server = serve(false);
    let mut holder = server.log_in("ann");
    let silent = std::time::Instant::now();
    until("more silence than the key would ask for", || {
        let reply = server.connect().try_log_in("ann");
        assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
        (silent.elapsed() > std::time::Duration::from_secs(2)).then_some(())
    });
    holder.ok("NOOP");
}
