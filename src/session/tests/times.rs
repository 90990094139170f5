//! Deadlines.

use super::*;

#[test]
fn the_login_has_a_limit_that_no_line_moves() {
    let mut client = Dialogue::greeted();
    let start = client.now;
    client.now = start + 59 * SECOND;
    client.say("CAPA");
    assert_eq!(client.session.deadline(), start + 60 * SECOND);
    assert!(matches!(
        client.session.handle_timeout(client.now),
        Step::Continue
    ));
    let step = client.session.handle_timeout(start + 60 * SECOND);
    assert!(matches!(step, Step::Close(End::LoginTimeout)));
}

#[test]
fn stls_does_not_move_the_limit_of_the_login() {
    let mut client = Dialogue::greeted();
    let limit = client.session.deadline();
    client.now += 30 * SECOND;
    client.say("STLS");
    assert_eq!(client.session.deadline(), limit);
}

#[test]
fn every_line_moves_the_autologout() {
    let mut client = Dialogue::logged_in(1);
    for line in ["NOOP", "RETR 1", "WHAT", "DELE 9", "LIST"] {
        client.now += 599 * SECOND;
        let step = client.session.handle_timeout(client.now);
        assert!(matches!(step, Step::Continue), "before {line}");
        client.say(line);
        assert_eq!(client.session.deadline(), client.now + 600 * SECOND);
    }
    client.now += SECOND;
    client.say_too_much();
    assert_eq!(client.session.deadline(), client.now + 600 * SECOND);
}

#[test]
fn a_message_that_takes_long_is_no_silence() {
    let mut client = Dialogue::logged_in(1);
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
    let step = client.session.handle_line(b"RETR 1", client.now, &mut out);
    assert!(matches!(step, Step::Perform(Action::Send { .. })));
    let late = client.now + 3600 * SECOND;
    assert!(matches!(
        client.session.handle_timeout(late),
        Step::Continue
    ));
    let sent = Outcome::Sent(Ok(Octets::new(101)));
    let step = client.session.handle_outcome(sent, late, &mut out);
    assert!(matches!(step, Step::Continue));
    assert_eq!(client.session.deadline(), late + 600 * SECOND);
}

#[test]
fn autologout_deletes_nothing() {
    let mut client = Dialogue::logged_in(3);
    client.say("DELE 1");
    let step = client.session.handle_timeout(client.session.deadline());
    assert!(matches!(step, Step::Close(End::Autologout)));
    let summary = client.session.summary();
    assert!(summary.authenticated);
    assert_eq!(summary.tally.removed, Traffic::default());
    assert_eq!(client.user(), Some(&b"alice"[..]));
}

#[test]
fn autologout_strikes_a_client_that_does_not_read_its_listing() {
    let mut client = Dialogue::logged_in(1000);
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
    let step = client.session.handle_line(b"LIST", client.now, &mut out);
    assert!(matches!(step, Step::Flush));
    let step = client.session.handle_timeout(client.session.deadline());
    assert!(matches!(step, Step::Close(End::Autologout)));
}
