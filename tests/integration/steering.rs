//! `server.steering`: which shard gets a connection.

use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::client::Client;
use super::scrape::Scrape;
use super::server::Site;

/// Loopback delivers on the CPU that sends, so that a client's CPU is the one that
/// receives its SYN.
#[test]
fn by_cpu_each_connection_is_its_cpus_shards_and_works() {
    const SESSIONS: u64 = 10;
    let mut site = Site::with_users(&["ann"]);
    site.shards = "\"auto\"".into();
    site.server = "steering = \"cpu\"\n";
    site.mailbox("ann").fill(2);
    let server = site.start();
    let address = server.site.pop3();
    let mask = sched_getaffinity(None).expect("a mask");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| mask.is_set(*cpu))
        .collect();
    for (shard, cpu) in cpus.iter().enumerate() {
        let mut own = CpuSet::new();
        own.set(*cpu);
        let client = thread::spawn(move || {
            sched_setaffinity(None, &own).expect("a CPU of ours");
            for _ in 0..SESSIONS {
                Client::connect(address).quit();
            }
        });
        client.join().expect("no panic");
        let opened = Scrape::of(server.site.admin());
        let series = format!("popcore_sessions_opened_total{{shard=\"{shard}\"}}");
        assert_eq!(opened.value(&series), SESSIONS, "CPU {cpu}");
    }
    // And they are sessions like any other.
    let mut client = server.log_in("ann");
    assert_eq!(client.rows("LIST").len(), 2);
    client.quit();
}
