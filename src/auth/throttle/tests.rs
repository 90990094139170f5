//! Guessers from one address, from a network, by the thousand; users behind a NAT.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const DELAYS: Delays = Delays {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(30),
    address: Prefixes { v4: 32, v6: 64 },
    network: Prefixes { v4: 24, v6: 48 },
};

fn user(name: &str) -> UserName {
    UserName::new(name.as_bytes()).expect("a name")
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc000_0200 + number).into()
}

/// A throttle and its clock.
struct Site {
    throttle: Throttle,
    now: Instant,
}

impl Site {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            throttle: Throttle::new(now),
            now,
        }
    }

    fn wait(&self, name: &str, from: IpAddr) -> Result<Duration, TooMany> {
        let user = user(name);
        let attempt = Attempt { user: &user, from };
        self.throttle.wait(attempt, &DELAYS, self.now)
    }

    fn fail(&self, name: &str, from: IpAddr) {
        let user = user(name);
        let attempt = Attempt { user: &user, from };
        self.throttle.failed(attempt, &DELAYS, self.now);
    }

    fn succeed(&self, name: &str, from: IpAddr) {
        let user = user(name);
        let attempt = Attempt { user: &user, from };
        self.throttle.succeeded(attempt, &DELAYS);
    }
}

/// What an attempt is told that waits so many seconds.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is compared with what may be refused"
)]
fn seconds(seconds: u64) -> Result<Duration, TooMany> {
    Ok(Duration::from_secs(seconds))
}

#[test]
fn the_wait_of_a_user_doubles_with_each_failure_up_to_the_longest() {
    let mut site = Site::new();
    assert_eq!(site.wait("ann", address(1)), seconds(0));
    for expected in [2, 4, 8, 16, 30, 30] {
        site.fail("ann", address(1));
        // Another address of the network: it is the user who waits.
        assert_eq!(site.wait("ann", address(7)), seconds(expected));
        site.now += Duration::from_secs(expected);
    }
    // From elsewhere it is another matter.
    assert_eq!(site.wait("ann", address(0x100)), seconds(0));
    site.succeed("ann", address(9));
    assert_eq!(site.wait("ann", address(7)), seconds(0));
}

#[test]
fn another_way_to_write_a_name_is_no_fresh_start() {
    let site = Site::new();
    site.fail("ann@example.net", address(1));
    assert_eq!(site.wait("Ann@Example.NET", address(7)), seconds(2));
    assert_eq!(site.wait("anna@example.net", address(7)), seconds(0));
}

#[test]
fn an_address_has_some_failures_for_nothing_and_then_waits_for_all_users() {
    let site = Site::new();
    for number in 0..FREE_FAILURES {
        site.fail(&format!("user{number}"), address(1));
        assert_eq!(site.wait("ann", address(1)), seconds(0));
    }
    site.fail("another", address(1));
    assert_eq!(site.wait("ann", address(1)), seconds(2));
    assert_eq!(site.wait("ann", address(2)), seconds(0));
    // A good login does not free the address.
    site.succeed("own", address(1));
    assert_eq!(site.wait("bob", address(1)), seconds(4));
}

#[test]
fn an_ipv6_host_cannot_change_its_address_within_its_network() {
    let site = Site::new();
    let host = |low: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | low));
    for number in 0..=u128::from(FREE_FAILURES) {
        site.fail(&format!("user{number}"), host(number));
    }
    assert_eq!(site.wait("ann", host(99)), seconds(2));
    assert_eq!(site.wait("ann", host(1 << 64)), seconds(0));
}

#[test]
fn failures_are_forgotten_one_by_one() {
    let mut site = Site::new();
    for _ in 0..3 {
        site.fail("ann", address(1));
    }
    site.now += 2 * FAILURE_FORGOTTEN;
    site.fail("ann", address(1));
    assert_eq!(site.wait("ann", address(1)), seconds(4));
    site.now += 2 * FAILURE_FORGOTTEN;
    assert_eq!(site.wait("ann", address(1)), seconds(0));
}

#[test]
fn attempts_at_the_same_time_are_let_through_one_by_one() {
    let site = Site::new();
    site.fail("ann", address(1));
    let waits: Vec<_> = (0..40).map(|_| site.wait("ann", address(1))).collect();
    let let_through: Vec<_> = waits.iter().flatten().map(Duration::as_secs).collect();
    assert_eq!(let_through, (1..=15).map(|n| 2 * n).collect::<Vec<_>>());
    assert_eq!(waits.len() - let_through.len(), 25, "turned away");
}

#[test]
fn a_delay_of_zero_is_none() {
    let off = Delays {
        first: Duration::ZERO,
        ..DELAYS
    };
    let (throttle, now) = (Throttle::new(Instant::now()), Instant::now());
    let ann = user("ann");
    let attempt = Attempt {
        user: &ann,
        from: address(1),
    };
    for _ in 0..20 {
        throttle.failed(attempt, &off, now);
        assert_eq!(throttle.wait(attempt, &off, now), seconds(0));
    }
}

/// However a guesser goes about it, from one address he gets through no more often
/// than once in the longest wait, once he has failed often enough.
#[test]
fn a_thousand_connections_guess_no_faster_than_one() {
    let mut site = Site::new();
    let begun = site.now;
    // Attempts under way, by the time at which they are verified.
    let mut pending: BinaryHeap<Reverse<(Instant, u32)>> = BinaryHeap::new();
    let (mut verified, mut number) = (0, 0);
    while site.now < begun + Duration::from_mins(20) {
        for _ in 0..1000 {
            number += 1;
            if let Ok(wait) = site.wait(&format!("user{number}"), address(1)) {
                pending.push(Reverse((site.now + wait, number)));
            }
        }
        site.now += Duration::from_secs(1);
        while let Some(Reverse((due, number))) = pending.peek().copied() {
            if due > site.now {
                break;
            }
            pending.pop();
            verified += 1;
            site.fail(&format!("user{number}"), address(1));
        }
    }
    // The first second is free: nobody has failed then.
    assert!(verified <= 1000 + 20 * 60 / 30 + 2, "{verified}");
}

/// 500 users behind one address, who poll every five minutes; five of them have an
/// old password in their client, and each day everybody mistypes once.
#[test]
fn users_behind_a_nat_hardly_wait() {
    let mut site = Site::new();
    let nat = address(1);
    let mut waited = Duration::ZERO;
    let mut logins = 0_u32;
    for second in 0..4 * 3600_u32 {
        site.now += Duration::from_secs(1);
        // Those who are not known yet, or not any more: once an hour each.
        if second % 7 == 0 {
            let name = format!("user{}", second % 500);
            waited += site.wait(&name, nat).expect("not turned away");
            site.succeed(&name, nat);
            logins += 1;
        }
        // A mistyped password.
        if second % 173 == 0 {
            let name = format!("user{}", second % 499);
            waited += site.wait(&name, nat).expect("not turned away");
            site.fail(&name, nat);
            logins += 1;
        }
    }
    assert!(waited < logins * Duration::from_millis(20), "{waited:?}");
}

proptest! {
    #[test]
    fn no_wait_is_longer_than_the_longest(
        steps in prop::collection::vec((0_u32..3, 0_u8..4, any::<bool>(), 0_u64..20_000), 1..200),
    ) {
        let mut site = Site::new();
        for (from, name, fails, millis) in steps {
            site.now += Duration::from_millis(millis);
            let name = format!("user{name}");
            if fails {
                site.fail(&name, address(from));
            } else if let Ok(wait) = site.wait(&name, address(from)) {
                prop_assert!(wait <= DELAYS.longest);
            }
        }
        // Whoever is patient gets through.
        site.now += 200 * FAILURE_FORGOTTEN;
        prop_assert_eq!(site.wait("user1", address(1)), seconds(0));
    }
}
