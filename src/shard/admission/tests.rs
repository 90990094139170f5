//! Addresses, users and both, up to their limits and back; a NAT with one bad host.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: SessionLimits = SessionLimits {
    per_address: 8,
    per_user: 2,
    per_user_and_address: 1,
    reserved: 25,
    address: Prefixes::ADDRESS,
};

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xc000_0200 + number).into()
}

fn user(name: &str) -> UserName {
    UserName::new(name.as_bytes()).expect("a name")
}

fn counted(admission: &Admission) -> usize {
    let parts = &admission.counts.parts;
    parts
        .iter()
        .map(|part| part.lock().expect("whole").len())
        .sum()
}

#[test]
fn an_address_has_its_share_and_the_rest_after_a_login() {
    let now = Instant::now();
    let admission = Admission::new(now);
    let connect = |from, now| {
        admission
            .connect(from, &LIMITS, now)
            .map(|seat| seat.expect("counted"))
    };
    let mut seats: Vec<_> = (0..6)
        .map(|_| connect(address(1), now).expect("room"))
        .collect();
    assert_eq!(connect(address(1), now).err(), Some(Full));
    assert!(connect(address(2), now).is_ok());
    admission.succeeded(None, address(1), &LIMITS, now);
    seats.extend((6..8).map(|_| connect(address(1), now).expect("more room")));
    assert_eq!(connect(address(1), now).err(), Some(Full));
    // It is forgotten after a while, and nobody is sent away for it.
    let later = now + limits::ADDRESS_KNOWN;
    seats.truncate(7);
    assert_eq!(connect(address(1), later).err(), Some(Full));
    seats.truncate(5);
    assert!(connect(address(1), later).is_ok());
    drop(seats);
    assert_eq!(counted(&admission), 0);
}

#[test]
fn who_has_logged_in_from_where_is_known_for_a_while() {
    let now = Instant::now();
    let admission = Admission::new(now);
    let none = SessionLimits::NONE;
    let standing =
        |name: &str, from, now| admission.standing(&user(name), address(from), &none, now);
    assert_eq!(standing("ann", 1, now), Standing::default());
    admission.succeeded(Some(&user("ann")), address(1), &none, now);
    let known = |address, user| Standing { address, user };
    assert_eq!(standing("ann", 1, now), known(true, true));
    assert_eq!(standing("bob", 1, now), known(true, false));
    assert_eq!(standing("ann", 2, now), known(false, false));
    let later = now + limits::ADDRESS_KNOWN;
    assert_eq!(standing("ann", 1, later), known(false, false));
}

#[test]
fn users_are_counted_alone_and_by_address() {
    let admission = Admission::new(Instant::now());
    let (ann, bob) = (user("ann"), user("bob"));
    let one = admission.attempt(&ann, address(1), &LIMITS).expect("room");
    assert_eq!(
        admission.attempt(&ann, address(1), &LIMITS).err(),
        Some(Full)
    );
    assert!(admission.attempt(&ann, address(2), &LIMITS).is_ok());
    assert!(admission.attempt(&bob, address(1), &LIMITS).is_ok());
    drop(one);
    assert!(admission.attempt(&ann, address(1), &LIMITS).is_ok());
    let two = [0; 2].map(|_| admission.log_in(&ann, None, &LIMITS).expect("room"));
    assert_eq!(admission.log_in(&ann, None, &LIMITS).err(), Some(Full));
    drop(two);
    assert!(admission.log_in(&ann, None, &LIMITS).is_ok());
    assert_eq!(counted(&admission), 0);
}

#[test]
fn a_users_own_limits_stand_in_place_of_those_of_all() {
    let admission = Admission::new(Instant::now());
    let ann = user("ann");
    let own = UserLimits {
        sessions: Some(3),
        sessions_from_address: Some(2),
        login_delay: None,
    };
    let log_in = || admission.log_in(&ann, Some(&own), &LIMITS);
    let three = [0; 3].map(|_| log_in().expect("room"));
    assert_eq!(log_in().err(), Some(Full));
    drop(three);
    let from = |host| admission.log_in_from(&ann, address(host), Some(&own), &LIMITS);
    let two = [0; 2].map(|_| from(1).expect("room"));
    assert_eq!(from(1).err(), Some(Full));
    assert!(from(2).is_ok());
    drop(two);
    let nothing = UserLimits::default();
    let none = admission.log_in_from(&ann, address(1), Some(&nothing), &LIMITS);
    assert!(none.expect("room").is_none());
    assert_eq!(counted(&admission), 0);
}

#[test]
fn where_there_is_no_limit_nothing_is_counted() {
    let now = Instant::now();
    let admission = Admission::new(now);
    let none = SessionLimits::NONE;
    let ann = user("ann");
    assert!(
        admission
            .connect(address(1), &none, now)
            .expect("room")
            .is_none()
    );
    assert!(
        admission
            .attempt(&ann, address(1), &none)
            .expect("room")
            .is_none()
    );
    assert!(admission.log_in(&ann, None, &none).expect("room").is_none());
}

#[test]
fn a_stranger_has_at_least_one_session() {
    let limits = SessionLimits {
        per_address: 1,
        reserved: 90,
        ..LIMITS
    };
    let now = Instant::now();
    let admission = Admission::new(now);
    let seat = admission.connect(address(1), &limits, now);
    assert!(seat.is_ok());
    assert_eq!(
        admission.connect(address(1), &limits, now).err(),
        Some(Full)
    );
}

/// 300 users behind one address poll every five minutes, for two seconds each; a host
/// among them opens ten connections a second and leaves each open for half a minute,
/// as the login's time limit has it. Elsewhere a host without users does the same.
#[test]
fn behind_a_nat_a_bad_host_takes_no_more_than_there_is_beside_it() {
    let limits = SessionLimits {
        per_address: 400,
        ..LIMITS
    };
    let begin = Instant::now();
    let admission = Admission::new(begin);
    let mut open: Vec<(u32, Seat)> = Vec::new();
    let (mut refused, mut strangers) = (0, 0);
    for second in 0..3600_u32 {
        let now = begin + Duration::from_secs(second.into());
        open.retain(|(until, _)| *until > second);
        let mut enter = |from, seconds| {
            let seat = admission.connect(from, &limits, now);
            let is_in = seat.is_ok();
            open.extend(seat.ok().flatten().map(|seat| (second + seconds, seat)));
            is_in
        };
        refused += u32::from(!enter(address(1), 2));
        admission.succeeded(None, address(1), &limits, now);
        for _ in 0..10 {
            enter(address(1), 30);
            strangers += u32::from(!enter(address(2), 60));
        }
    }
    assert_eq!(refused, 0, "users were turned away");
    assert!(strangers > 0, "600 connections at a time are more than 300");
    drop(open);
    assert_eq!(counted(&admission), 0);
}

proptest! {
    #[test]
    fn never_more_than_the_limit_and_never_fewer_than_there_is_room_for(
        steps in prop::collection::vec((0_u32..3, any::<bool>()), 0..200),
    ) {
        let limits = SessionLimits { per_address: 5, reserved: 0, ..LIMITS };
        let now = Instant::now();
        let admission = Admission::new(now);
        let mut seats: [Vec<Seat>; 3] = Default::default();
        for (from, comes) in steps {
            let own = &mut seats[from as usize];
            if comes {
                let seat = admission.connect(address(from), &limits, now);
                prop_assert_eq!(seat.is_ok(), own.len() < 5);
                own.extend(seat.ok().flatten());
            } else {
                own.pop();
            }
        }
        drop(seats);
        prop_assert_eq!(counted(&admission), 0);
    }
}
