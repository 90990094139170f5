//! The AUTHORIZATION state.

use super::*;

fn clear(stls: bool) -> Dialogue {
    let policy = Policy {
        plaintext_without_tls: false,
        ..policy()
    };
    Dialogue::new(policy, Channel::Clear { stls }).0
}

#[test]
fn the_greeting_names_the_host() {
    let (_, greeting) = Dialogue::new(policy(), Channel::Tls);
    assert_eq!(greeting, "+OK popcore ready on pop.example.net\r\n");
}

#[test]
fn user_and_pass_log_in() {
    let mut client = Dialogue::greeted();
    client.log_in();
    assert_eq!(client.say("STAT"), "+OK 3 306\r\n");
    let summary = client.session.summary();
    assert!(summary.authenticated);
    assert_eq!(summary.tally.maildrop.messages, 3);
    assert_eq!(client.user(), Some(&b"alice"[..]));
}

#[test]
fn pass_is_taken_right_after_user_only() {
    let between = ["CAPA", "NOOP", "STAT", "WHAT", "USER", "PASS", "STLS now"];
    for line in between {
        let mut client = Dialogue::greeted();
        assert_err(&client.say("PASS secret"));
        assert_ok(&client.say("USER alice"));
        client.say(line);
        assert_err(&client.say("PASS secret"));
        assert!(!client.session.summary().authenticated, "{line}");
        client.log_in();
    }
    let mut client = Dialogue::greeted();
    assert_ok(&client.say("USER alice"));
    assert_err(&client.say_too_much());
    assert_err(&client.say("PASS secret"));
}

#[test]
fn the_last_user_counts() {
    let mut client = Dialogue::greeted();
    assert_ok(&client.say("USER bob"));
    client.log_in();
    assert_eq!(client.user(), Some(&b"alice"[..]));
}

#[test]
fn the_account_names_the_user() {
    let mut client = Dialogue::greeted();
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
    assert_ok(&client.say("USER Alice"));
    let step = client.session.handle_line(b"PASS x", client.now, &mut out);
    assert!(matches!(step, Step::Perform(Action::Authenticate(_))));
    assert!(out.is_empty());
    let canonical = UserName::new(b"alice@example.net").expect("a name");
    let outcome = Outcome::Authenticated(Ok(account(canonical)));
    let step = client.session.handle_outcome(outcome, client.now, &mut out);
    let Step::Perform(Action::OpenMaildrop(account)) = step else {
        panic!("{step:?}");
    };
    assert_eq!(account.user.as_bytes(), b"alice@example.net");
    assert_eq!(client.user(), Some(&b"alice@example.net"[..]));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut client = Dialogue::greeted();
    assert_err(&client.say("USER al\0ice"));
    assert_err(&client.say("PASS secret"));
}

#[test]
fn before_login_no_mail_is_shown() {
    let mut client = Dialogue::greeted();
    for line in [
        "STAT", "LIST", "LIST 1", "UIDL", "RETR 1", "TOP 1 0", "DELE 1", "NOOP", "RSET",
    ] {
        assert_err(&client.say(line));
    }
    assert!(client.sent.is_empty());
}

#[test]
fn quit_before_login_closes() {
    let mut client = Dialogue::greeted();
    assert_ok(&client.say("QUIT"));
    assert_eq!(client.end, Some(End::Quit));
    assert!(client.commits.is_empty());
}

#[test]
fn a_wrong_password_is_answered_with_auth() {
    let mut client = Dialogue::greeted();
    client.refusal = Some(Refusal::Rejected);
    assert_ok(&client.say("USER alice"));
    let wrong = client.say("PASS wrong");
    assert_eq!(wrong, "-ERR [AUTH] user name or password is wrong\r\n");
    assert_eq!(client.user(), Some(&b"alice"[..]));
    assert_err(&client.say("PASS secret"));
    client.log_in();
}

#[test]
fn a_disabled_account_is_told_so() {
    let mut client = Dialogue::greeted();
    client.refusal = Some(Refusal::Disabled(
        Notice::new("the bill is unpaid").expect("one line"),
    ));
    client.say("USER alice");
    assert_eq!(
        client.say("PASS x"),
        "-ERR [SYS/PERM] the bill is unpaid\r\n"
    );
}

#[test]
fn three_failed_logins_end_the_session_and_each_waits_longer() {
    let (mut client, _) = Dialogue::new(
        Policy {
            failure_delay: 2 * SECOND,
            ..policy()
        },
        Channel::Tls,
    );
    for failed in 1..=limits::FAILED_LOGINS {
        assert_eq!(client.end, None);
        client.refusal = Some(Refusal::Rejected);
        client.say("USER alice");
        assert_err(&client.say("PASS wrong"));
        assert_eq!(client.session.summary().failed_logins, failed);
    }
    assert_eq!(client.pauses, [2 * SECOND, 4 * SECOND, 8 * SECOND]);
    assert_eq!(client.end, Some(End::TooManyAuthFailures));
    assert_eq!(client.user(), Some(&b"alice"[..]));
    assert!(!client.session.summary().authenticated);
}

#[test]
fn the_answer_to_a_wrong_password_comes_after_the_pause() {
    let (mut client, _) = Dialogue::new(
        Policy {
            failure_delay: SECOND,
            ..policy()
        },
        Channel::Tls,
    );
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
    client.say("USER alice");
    let now = client.now;
    let step = client.session.handle_line(b"PASS x", now, &mut out);
    assert!(matches!(step, Step::Perform(Action::Authenticate(_))));
    let refused = Outcome::Authenticated(Err(Refusal::Rejected));
    let step = client.session.handle_outcome(refused, now, &mut out);
    assert!(matches!(step, Step::Perform(Action::Pause(SECOND))));
    assert!(out.is_empty());
    let step = client
        .session
        .handle_outcome(Outcome::Paused, now + SECOND, &mut out);
    assert!(matches!(step, Step::Continue));
    assert_err(&text(out));
}

#[test]
fn an_absent_directory_and_a_full_queue_are_no_failed_logins() {
    let mut client = Dialogue::greeted();
    for attempt in 0..6 {
        let busy = attempt % 2 == 0;
        client.refusal = Some(if busy {
            Refusal::Busy
        } else {
            Refusal::Unavailable
        });
        client.say("USER alice");
        let reply = client.say("PASS secret");
        assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply:?}");
    }
    assert_eq!(client.session.summary().failed_logins, 0);
    client.log_in();
}

#[test]
fn a_maildrop_that_does_not_open_leaves_the_client_before_login() {
    let in_use = OpenError::InUse(InUse {
        since: Instant::now(),
    });
    for (error, code) in [
        (in_use, "[IN-USE] "),
        (temporary(), "[SYS/TEMP] "),
        (permanent(), "[SYS/PERM] "),
    ] {
        let mut client = Dialogue::greeted();
        client.open_error = Some(error);
        client.say("USER alice");
        let reply = client.say("PASS secret");
        assert!(reply.starts_with(&format!("-ERR {code}")), "{reply:?}");
        assert_err(&client.say("STAT"));
        client.log_in();
    }
}

#[test]
fn passwords_are_refused_on_a_clear_channel() {
    let mut client = clear(true);
    let reply = client.say("USER alice");
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply:?}");
    assert_err(&client.say("PASS secret"));
    assert_ok(&client.say("STLS"));
    client.log_in();
}

#[test]
fn after_stls_the_session_knows_nothing() {
    let mut client = Dialogue::greeted();
    client.say("USER alice");
    assert_eq!(client.say("STLS"), "+OK begin TLS\r\n");
    assert_eq!(client.user(), None);
    assert_err(&client.say("PASS secret"));
    assert_err(&client.say("STLS"));
    client.log_in();
}

#[test]
fn stls_is_refused_where_it_is_not_offered() {
    assert_err(&clear(false).say("STLS"));
    assert_err(&Dialogue::new(policy(), Channel::Tls).0.say("STLS"));
    assert_err(&Dialogue::logged_in(0).say("STLS"));
}

#[test]
fn capa_tells_what_works() {
    let lists = |capa: &str, word: &str| capa.lines().any(|line| line == word);
    let mut client = clear(true);
    let capa = client.say("CAPA");
    assert!(!lists(&capa, "USER") && lists(&capa, "STLS"));
    client.say("STLS");
    let capa = client.say("CAPA");
    assert!(lists(&capa, "USER") && !lists(&capa, "STLS"));
    client.log_in();
    let capa = client.say("CAPA");
    assert!(lists(&capa, "USER") && !lists(&capa, "STLS"));
    assert!(!lists(&clear(false).say("CAPA"), "STLS"));
    for word in [
        "TOP",
        "UIDL",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        "EXPIRE NEVER",
        "IMPLEMENTATION popcore",
        ".",
    ] {
        assert!(lists(&capa, word), "{word}");
    }
    assert!(!capa.contains("SASL"));
}

#[test]
fn bad_commands_are_limited() {
    for mut client in [Dialogue::greeted(), Dialogue::logged_in(1)] {
        client.say("USER alice");
        let mut bad = client.session.bad_commands;
        while bad < limits::BAD_COMMANDS {
            assert_eq!(client.end, None);
            let reply = match bad % 3 {
                0 => client.say("GET / HTTP/1.1"),
                1 => client.say("RETR x"),
                _ => client.say_too_much(),
            };
            assert_err(&reply);
            bad += 1;
        }
        assert_eq!(client.end, Some(End::TooManyBadCommands));
        assert_eq!(client.user(), Some(&b"alice"[..]));
        assert!(client.commits.is_empty());
    }
}

#[test]
#[should_panic(expected = "a line while a login is pending")]
fn a_line_while_an_action_is_pending_is_a_bug() {
    let mut client = Dialogue::greeted();
    let mut out = Output::new(Vec::with_capacity(2 * limits::REPLY_ROOM));
    client.say("USER alice");
    for line in [&b"PASS secret"[..], b"STAT"] {
        let step = client.session.handle_line(line, client.now, &mut out);
        assert!(matches!(step, Step::Perform(_)));
    }
}
