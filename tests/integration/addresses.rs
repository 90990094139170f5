//! Several addresses at once, of both families, and one socket of each for every
//! shard.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;

use super::client::Client;
use super::mailbox::message;
use super::model;
use super::patience::until;
use super::scrape::Scrape;
use super::server::{PROGRAM, Server, Site};

/// The state of a listening socket in the kernel's tables.
const LISTENING: &str = "0A";

/// A server that also listens on `[::1]`, on a port of the kernel's choice.
fn server(shards: usize) -> Server {
    let mut site = Site::with_users(&["ann"]);
    site.shards = shards.to_string();
    site.more = "[[listener]]\naddress = \"[::1]:0\"\ntls = \"none\"\n";
    site.mailbox("ann").fill(3);
    site.start()
}

/// The ports of a process's listening sockets in one of the kernel's tables, one
/// for each socket.
fn ports(pid: u32, table: &str) -> Vec<u16> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let open: HashSet<String> = entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/{table}")).expect("it runs");
    let sockets = sockets.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = open.contains(&format!("socket:[{}]", fields[9]));
        let (_, port) = fields[1].split_once(':')?;
        (ours && fields[3] == LISTENING).then(|| u16::from_str_radix(port, 16).expect("hex"))
    });
    sockets.collect()
}

fn ipv6(server: &Server) -> SocketAddr {
    let ports = ports(server.pid(), "tcp6");
    (Ipv6Addr::LOCALHOST, ports[0]).into()
}

#[test]
fn every_shard_has_a_socket_of_its_own_on_every_address() {
    for shards in [1, 3] {
        let server = server(shards);
        let on_ipv6 = ports(server.pid(), "tcp6");
        assert_eq!(on_ipv6, vec![ipv6(&server).port(); shards]);
        let on_ipv4 = ports(server.pid(), "tcp");
        for (address, sockets) in [
            (server.site.pop3(), shards),
            (server.site.pop3s(), shards),
            (server.site.admin(), 1),
        ] {
            let found = on_ipv4.iter().filter(|port| **port == address.port());
            assert_eq!(found.count(), sockets, "{address}");
        }
        assert_eq!(on_ipv4.len(), 2 * shards + 1);
    }
}

#[test]
fn a_session_over_ipv6_beside_one_over_ipv4() {
    let server = server(2);
    let address = ipv6(&server);
    // Enough that both shards had some.
    for _ in 0..40 {
        let mut client = Client::connect(address);
        client.log_in("ann");
        assert!(client.ok("STAT").starts_with("+OK 3 "));
        assert_eq!(client.rows("UIDL"), ["1 1.m", "2 2.m", "3 3.m"]);
        assert_eq!(client.text("RETR 2"), model::sent(&message(2)));
        client.quit();
    }
    let line = server.log_line(&["pop3(ann)", "Logged out"]);
    assert!(line.contains(", rip=::1, lip=::1, "), "{line}");
    let scrape = until("all sessions to be booked", || {
        let scrape = Scrape::of(server.site.admin());
        (scrape.sum("popcore_sessions_active") == 0).then_some(scrape)
    });
    let shards = scrape.values("popcore_sessions_opened_total");
    assert!(shards.iter().all(|shard| *shard > 0), "{shards:?}");
    server.log_in("ann").quit();
    server.log_line(&["pop3(ann)", ", rip=127.0.0.1, "]);
}

#[test]
fn the_unspecified_address_tells_the_log_where_a_client_came_in() {
    let mut site = Site::with_users(&["ann"]);
    site.more = "[[listener]]\naddress = \"[::]:0\"\ntls = \"none\"\n";
    let server = site.start_by(Command::new(PROGRAM));
    let mut client = Client::connect(ipv6(&server));
    client.log_in("ann");
    client.quit();
    server.log_line(&["pop3(ann)", ", rip=::1, lip=::1, "]);
}
