//! Guessers from one address, from a network, by the thousand; users behind a NAT.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Waker};

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
    standing: Standing,
}

impl Site {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            throttle: Throttle::new(now),
            now,
            standing: Standing::default(),
        }
    }

    fn with<R>(&self, name: &str, from: IpAddr, then: impl FnOnce(&Attempt<'_>) -> R) -> R {
        let user = user(name);
        then(&Attempt {
            user: &user,
            from,
            standing: self.standing,
        })
    }

    fn ask(&self, name: &str, from: IpAddr) -> Result<Turn, TooMany> {
        self.with(name, from, |attempt| {
            self.throttle
                .ask(attempt, Times::default(), &DELAYS, self.now)
        })
    }

    /// How long an attempt waits that then comes to nothing.
    fn wait(&self, name: &str, from: IpAddr) -> Result<Duration, TooMany> {
        self.ask(name, from).map(waits)
    }

    fn ends(&self, name: &str, from: IpAddr, guess: Guess, is_right: bool) {
        self.with(name, from, |attempt| {
            if is_right {
                self.throttle.succeeded(guess, attempt, &DELAYS);
            } else {
                self.throttle.failed(guess, attempt, &DELAYS, self.now);
            }
        });
    }

    fn fail(&self, name: &str, from: IpAddr) {
        self.ends(name, from, Guess::default(), false);
    }

    fn succeed(&self, name: &str, from: IpAddr) {
        self.ends(name, from, Guess::default(), true);
    }
}

fn waits(turn: Turn) -> Duration {
    match turn {
        Turn::Granted(_) => Duration::ZERO,
        Turn::After(wait, _) => wait,
        Turn::InLine(waiting, _) => panic!("{waiting:?}"),
    }
}

fn granted(turn: Result<Turn, TooMany>) -> Guess {
    match turn {
        Ok(Turn::Granted(guess)) => guess,
        other => panic!("{other:?}"),
    }
}

fn in_line(turn: Result<Turn, TooMany>) -> Waiting {
    match turn {
        Ok(Turn::InLine(waiting, _)) => waiting,
        other => panic!("{other:?}"),
    }
}

fn is_ready(waiting: &mut Waiting) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(waiting).poll(&mut context).is_ready()
}

/// Many clients at the same address, each with one login.
struct Crowd {
    site: Site,
    from: IpAddr,
    /// Whose password is right.
    is_right: fn(u32) -> bool,
    /// How long a directory takes.
    takes: Duration,
    clients: Vec<Client>,
    verified: u32,
    logged_in: u32,
    turned_away: u32,
    waited: Duration,
}

struct Client {
    number: u32,
    since: Instant,
    at: At,
}

enum At {
    /// From that time on, with these.
    Asking(Instant, Times),
    Line(Waiting, Times),
    /// The answer is there then.
    Under(Guess, Instant),
    Done,
}

impl Crowd {
    fn new(is_right: fn(u32) -> bool, takes: Duration) -> Self {
        Self {
            site: Site::new(),
            from: address(1),
            is_right,
            takes,
            clients: Vec::new(),
            verified: 0,
            logged_in: 0,
            turned_away: 0,
            waited: Duration::ZERO,
        }
    }

    fn comes(&mut self, number: u32) {
        self.clients.push(Client {
            number,
            since: self.site.now,
            at: At::Asking(self.site.now, Times::default()),
        });
    }

    /// Ten milliseconds later.
    fn goes_on(&mut self) {
        self.site.now += Duration::from_millis(10);
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            let at = std::mem::replace(&mut client.at, At::Done);
            client.at = self.step(client, at);
        }
        clients.retain(|client| !matches!(client.at, At::Done));
        self.clients = clients;
    }

    fn step(&mut self, client: &Client, at: At) -> At {
        let now = self.site.now;
        let name = format!("user{}", client.number);
        match at {
            At::Line(mut waiting, times) if now < client.since + DELAYS.longest => {
                if is_ready(&mut waiting) {
                    return self.step(client, At::Asking(now, times));
                }
                At::Line(waiting, times)
            }
            At::Line(..) => {
                self.turned_away += 1;
                At::Done
            }
            At::Asking(from, times) if from <= now => match self.ask(&name, times) {
                Ok(Turn::InLine(waiting, times)) => At::Line(waiting, times),
                Ok(Turn::After(wait, times)) => At::Asking(now + wait, times),
                Ok(Turn::Granted(guess)) => {
                    self.waited += now - client.since;
                    At::Under(guess, now + self.takes)
                }
                Err(TooMany) => {
                    self.turned_away += 1;
                    At::Done
                }
            },
            At::Under(guess, until) if until <= now => {
                let is_right = (self.is_right)(client.number);
                self.verified += 1;
                self.logged_in += u32::from(is_right);
                self.site.ends(&name, self.from, guess, is_right);
                self.site.standing.address |= is_right;
                At::Done
            }
            later => later,
        }
    }

    fn ask(&self, name: &str, times: Times) -> Result<Turn, TooMany> {
        let Site { throttle, now, .. } = &self.site;
        let ask = |attempt: &Attempt<'_>| throttle.ask(attempt, times, &DELAYS, *now);
        self.site.with(name, self.from, ask)
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
        standing: Standing::default(),
    };
    for _ in 0..20 {
        throttle.failed(Guess::default(), &attempt, &off, now);
        granted(throttle.ask(&attempt, Times::default(), &off, now));
    }
}

/// However a guesser goes about it, from one address he gets through no more often
/// than once in the longest wait, once he has failed often enough; and before that no more
/// often than an address may fail.
#[test]
fn a_thousand_connections_guess_no_faster_than_one() {
    let mut crowd = Crowd::new(|_| false, Duration::from_millis(50));
    let mut in_the_first_second = 0;
    for tick in 0..20 * 60 * 100_u32 {
        if tick % 100 == 0 {
            (0..1000).for_each(|number| crowd.comes(tick * 10 + number));
        }
        crowd.goes_on();
        if tick == 100 {
            in_the_first_second = crowd.verified;
        }
    }
    assert_eq!(in_the_first_second, FREE_FAILURES + 1);
    // Those that take their times at once take them a first delay apart.
    let most = FREE_FAILURES + 1 + 30 / 2 + 20 * 60 / 30 + 2;
    assert!(crowd.verified <= most, "{}", crowd.verified);
}

/// The same for one who has an account there: it buys him one burst.
#[test]
fn a_login_of_his_own_buys_a_guesser_one_burst() {
    let mut crowd = Crowd::new(|number| number == 0, Duration::from_millis(50));
    crowd.site.standing.address = true;
    for tick in 0..20 * 60 * 100_u32 {
        if tick % 100 == 0 {
            (1..1000).for_each(|number| crowd.comes(tick * 10 + number));
        }
        crowd.goes_on();
    }
    let most = GUESSES_OF_KNOWN_ADDRESS + 20 * 60 / 30 + 2;
    assert!(crowd.verified <= most, "{}", crowd.verified);
}

/// After a restart, when nobody is known: 500 users behind one address within five
/// seconds, in a directory that takes its time.
#[test]
fn users_behind_a_nat_all_come_in_after_a_restart() {
    for (takes, at_most) in [(20, 1), (100, 3), (250, 10)] {
        let mut crowd = Crowd::new(|_| true, Duration::from_millis(takes));
        for number in 0..500 {
            crowd.comes(number);
            crowd.goes_on();
        }
        for _ in 0..200 {
            crowd.goes_on();
        }
        assert_eq!((crowd.logged_in, crowd.turned_away), (500, 0), "{takes} ms");
        // Each client needs a tick to ask at all.
        let most = Duration::from_secs(at_most) + 500 * Duration::from_millis(10);
        let waited = crowd.waited;
        assert!(waited <= most, "{waited:?}, {takes} ms");
    }
}

#[test]
fn who_waits_in_line_asks_again_when_one_has_come_out() {
    let site = Site::new();
    let places = FREE_FAILURES + 1;
    let ask = |number: u32| site.ask(&format!("user{number}"), address(1));
    let mut under_way: Vec<_> = (0..places).map(|number| granted(ask(number))).collect();
    let [mut first, mut second] = [100, 101].map(|number| in_line(ask(number)));
    assert!(!is_ready(&mut first) && !is_ready(&mut second));
    // The client has left, or the directory is down.
    under_way.pop();
    assert!(is_ready(&mut first) && !is_ready(&mut second));
    under_way.push(granted(ask(100)));
    drop(in_line(ask(102)));
    // A right password makes room for more than it took, once.
    site.succeed("user0", address(1));
    assert!(is_ready(&mut second));
    let mut second = in_line(ask(101));
    // Wrong ones make none, and the last sends all to their times.
    for guess in under_way {
        site.ends("other", address(1), guess, false);
    }
    assert!(is_ready(&mut second));
    assert_eq!(site.wait("user101", address(1)), seconds(2));
    assert_eq!(site.throttle.lines.len(), 0);
}

#[test]
fn one_guess_of_a_user_is_under_way_at_a_time() {
    let site = Site::new();
    let guess = granted(site.ask("ann", address(1)));
    let mut waiting = in_line(site.ask("Ann", address(7)));
    assert!(site.wait("bob", address(1)).is_ok());
    site.ends("ann", address(1), guess, false);
    assert!(is_ready(&mut waiting));
    assert_eq!(site.wait("ann", address(7)), seconds(2));
}

#[test]
fn the_line_has_an_end() {
    let site = Site::new();
    let _guess = granted(site.ask("ann", address(1)));
    let ask = || site.ask("ann", address(1));
    let mut line: Vec<_> = (0..limits::GUESSES_IN_LINE).map(|_| ask()).collect();
    assert_eq!(ask().err(), Some(TooMany));
    // Who has left it makes room.
    line.pop();
    drop(in_line(ask()));
    drop(in_line(ask()));
}

/// By SCRAM nobody is known beforehand: each poll is a guess until the client's proof.
#[test]
fn who_has_logged_in_of_late_waits_for_no_neighbour() {
    let mut site = Site::new();
    for number in 0..20 {
        site.fail(&format!("user{number}"), address(1));
    }
    assert_eq!(site.wait("ann", address(1)), seconds(30));
    site.standing.user = true;
    assert_eq!(site.wait("ann", address(1)), seconds(0));
    // Some at a time, for clients that leave an exchange open.
    let ask = || site.ask("ann", address(1));
    let some: Vec<_> = (0..GUESSES_OF_KNOWN_USER).map(|_| granted(ask())).collect();
    let _waiting = in_line(ask());
    // What is guessed of this user counts, and the neighbours' count again.
    for guess in some {
        site.ends("ann", address(1), guess, false);
    }
    assert_eq!(site.wait("ann", address(1)), Err(TooMany));
    assert_eq!(site.wait("ann", address(2)), seconds(8));
}

#[test]
fn where_nobody_is_to_wait_nobody_stands_in_line() {
    let site = Site::new();
    let none = Delays {
        longest: Duration::ZERO,
        ..DELAYS
    };
    let ask = |attempt: &Attempt<'_>| {
        let times = Times::default();
        site.throttle.ask(attempt, times, &none, site.now)
    };
    let turns: Vec<_> = (0..20).map(|_| site.with("ann", address(1), ask)).collect();
    let granted = |turn: &Result<Turn, TooMany>| matches!(turn, Ok(Turn::Granted(_)));
    assert!(turns.iter().all(granted), "{turns:?}");
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
