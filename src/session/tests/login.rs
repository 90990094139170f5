//! The AUTHORIZATION state.

use super::*;
use crate::auth::MasterForm;
use crate::proto::LineLimit;

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

/// RFC 2449, section 6.4.
#[test]
fn login_delay_is_the_longest_of_all_before_the_login_and_the_own_after_it() {
    let told = |usual: u32, longest: u32, own: Option<u32>| {
        let policy = Policy {
            login_delay: Some(LoginDelay {
                usual: usual * SECOND,
                longest: longest * SECOND,
            }),
            ..policy()
        };
        let mut client = Dialogue::new(policy, Channel::Clear { stls: true }).0;
        client.login_delay = own.map(|own| own * SECOND);
        let line = |capabilities: String| {
            let mut lines = capabilities.lines();
            lines.find_map(|line| Some(line.strip_prefix("LOGIN-DELAY ")?.to_owned()))
        };
        let before = line(client.say("CAPA")).expect("told to everybody");
        client.log_in();
        (before, line(client.say("CAPA")))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(told(60, 60, None), ("60".to_owned(), some("60")));
    assert_eq!(told(60, 60, Some(10)), ("60".to_owned(), some("10")));
    assert_eq!(told(60, 90, None), ("90 USER".to_owned(), some("60")));
    assert_eq!(told(60, 90, Some(900)), ("90 USER".to_owned(), some("90")));
    assert_eq!(told(0, 90, None), ("90 USER".to_owned(), None));
    assert_eq!(told(60, 90, Some(0)), ("90 USER".to_owned(), None));
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

fn lines(reply: &str) -> Vec<&str> {
    reply.lines().collect()
}

/// `\0alice\0secret`
const ALICE: &str = "AGFsaWNlAHNlY3JldA==";

#[test]
fn plain_logs_in_with_and_without_an_initial_response() {
    let mut client = Dialogue::greeted();
    assert_ok(&client.say(&format!("AUTH PLAIN {ALICE}")));
    assert_eq!(client.user(), Some(&b"alice"[..]));
    let mut client = Dialogue::greeted();
    assert_eq!(client.say("auth plain"), "+ \r\n");
    assert!(client.session.expects_response());
    assert_eq!(client.session.line_limit(), LineLimit::RESPONSE);
    assert_ok(&client.say(ALICE));
    assert!(!client.session.expects_response());
    assert!(client.session.summary().authenticated);
}

#[test]
fn login_logs_in_with_and_without_an_initial_response() {
    for first in [None, Some("AUTH LOGIN YWxpY2U=")] {
        let mut client = Dialogue::greeted();
        match first {
            None => {
                assert_eq!(client.say("AUTH LOGIN"), "+ VXNlcm5hbWU6\r\n");
                assert_eq!(client.say("YWxpY2U="), "+ UGFzc3dvcmQ6\r\n");
            }
            Some(line) => assert_eq!(client.say(line), "+ UGFzc3dvcmQ6\r\n"),
        }
        assert_ok(&client.say("c2VjcmV0"));
        assert_eq!(client.user(), Some(&b"alice"[..]));
    }
}

#[test]
fn an_exchange_can_be_cancelled_and_a_bad_response_ends_it() {
    for bad in ["*", "no base64", "YWxpY2U", "AAAA", ""] {
        let mut client = Dialogue::greeted();
        assert_eq!(client.say("AUTH PLAIN"), "+ \r\n");
        assert_err(&client.say(bad));
        // Lines are commands again, and no login has failed.
        assert!(!client.session.expects_response(), "{bad}");
        assert_eq!(client.session.line_limit(), LineLimit::OPENING);
        assert_eq!(client.session.summary().failed_logins, 0);
        client.log_in();
    }
    let mut client = Dialogue::greeted();
    client.say("AUTH PLAIN");
    assert_err(&client.say_too_much());
    client.log_in();
    let mut client = Dialogue::greeted();
    assert_err(&client.say("AUTH PLAIN ="));
    assert_err(&client.say("AUTH PLAIN AAAA more"));
    client.log_in();
}

#[test]
fn a_command_within_an_exchange_is_a_response() {
    let mut client = Dialogue::greeted();
    client.say("AUTH PLAIN");
    assert_err(&client.say("QUIT"));
    assert_eq!(client.end, None);
    // The same octets are base64: three of them, and no name.
    client.say("AUTH LOGIN");
    assert_eq!(client.say("NOOP"), "+ UGFzc3dvcmQ6\r\n");
}

#[test]
fn auth_ends_what_user_began() {
    let mut client = Dialogue::greeted();
    assert_ok(&client.say("USER bob"));
    client.say("AUTH PLAIN");
    assert_err(&client.say("*"));
    assert_err(&client.say("PASS secret"));
    assert_eq!(client.user(), Some(&b"bob"[..]));
}

#[test]
fn mechanisms_are_listed_where_they_can_work() {
    let mut client = Dialogue::greeted();
    let listed = client.say("AUTH");
    assert!(listed.starts_with("+OK ") && listed.ends_with("\r\n.\r\n"));
    let listed = &lines(&listed)[1..];
    assert_eq!(
        listed,
        [
            "SCRAM-SHA-256",
            "SCRAM-SHA-1",
            "OAUTHBEARER",
            "XOAUTH2",
            "PLAIN",
            "LOGIN",
            "."
        ]
    );
    let capabilities = client.say("CAPA");
    let offered = "\r\nSASL SCRAM-SHA-256 SCRAM-SHA-1 OAUTHBEARER XOAUTH2 PLAIN LOGIN\r\n";
    assert!(capabilities.contains(offered));
    let mut client = clear(true);
    let unheard = ["SCRAM-SHA-256", "SCRAM-SHA-1", "."];
    assert_eq!(lines(&client.say("AUTH"))[1..], unheard);
    assert_err(&client.say(&format!("AUTH PLAIN {ALICE}")));
    client.say("STLS");
    let tokens = "SCRAM-SHA-1 OAUTHBEARER XOAUTH2 PLAIN LOGIN\r\n";
    assert!(client.say("CAPA").contains(tokens));
    client.session.vouch_for("alice".to_owned());
    client.session.bind(Bindings {
        exporter: Some(zeroize::Zeroizing::new([7; 32])),
        end_point: None,
    });
    let all = "SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 EXTERNAL OAUTHBEARER XOAUTH2 \
               PLAIN LOGIN\r\n";
    assert!(client.say("CAPA").contains(all));
    assert_err(&client.say("AUTH CRAM-MD5"));
    assert_ok(&client.say(&format!("AUTH PLAIN {ALICE}")));
    assert_err(&client.say("AUTH"));
    assert_err(&client.say("AUTH PLAIN"));
}

/// `n,a=alice,^Aauth=Bearer x^A^A` and `user=alice^Aauth=Bearer x^A^A`
const TOKENS: [(&str, &str); 2] = [
    ("OAUTHBEARER", "bixhPWFsaWNlLAFhdXRoPUJlYXJlciB4AQE="),
    ("XOAUTH2", "dXNlcj1hbGljZQFhdXRoPUJlYXJlciB4AQE="),
];

#[test]
fn a_token_logs_in_with_and_without_an_initial_response() {
    for (mechanism, message) in TOKENS {
        let mut client = Dialogue::greeted();
        assert_ok(&client.say(&format!("AUTH {mechanism} {message}")));
        assert_eq!(client.user(), Some(&b"alice"[..]));
        let mut client = Dialogue::greeted();
        assert_eq!(client.say(&format!("AUTH {mechanism}")), "+ \r\n");
        assert_ok(&client.say(message));
        assert!(client.session.summary().authenticated);
    }
}

/// RFC 7628, section 3.2.3: the client is told why, answers, and hears of the failure.
#[test]
fn a_token_that_is_refused_is_a_failed_login_whatever_is_answered_to_that() {
    for (mechanism, message) in TOKENS {
        for answer in ["", "AQ==", "*", "QUIT", "no base64"] {
            let mut client = Dialogue::greeted();
            client.refusal = Some(Refusal::Rejected);
            let told = client.say(&format!("AUTH {mechanism} {message}"));
            assert!(told.starts_with("+ ey") && told.ends_with("\r\n"), "{told}");
            assert!(client.session.expects_response());
            assert_eq!(client.session.line_limit(), LineLimit::RESPONSE);
            assert_eq!(client.user(), Some(&b"alice"[..]));
            let reply = client.say(answer);
            assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
            assert_eq!(client.session.summary().failed_logins, 1);
            assert!(!client.session.expects_response());
            client.log_in();
        }
    }
    let mut client = Dialogue::greeted();
    for attempt in 1..=limits::FAILED_LOGINS {
        assert_eq!(client.end, None);
        client.refusal = Some(Refusal::Rejected);
        client.say(&format!("AUTH {} {}", TOKENS[0].0, TOKENS[0].1));
        let reply = client.say_too_much();
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
        assert_eq!(client.session.summary().failed_logins, attempt);
    }
    assert_eq!(client.end, Some(End::TooManyAuthFailures));
}

#[test]
fn a_client_that_does_not_answer_to_a_refusal_is_waited_for_no_longer_than_others() {
    let mut client = Dialogue::greeted();
    client.refusal = Some(Refusal::Rejected);
    client.say(&format!("AUTH {} {}", TOKENS[1].0, TOKENS[1].1));
    let step = client.session.handle_timeout(client.now + 60 * SECOND);
    assert!(matches!(step, Step::Close(End::LoginTimeout)), "{step:?}");
}

#[test]
fn a_token_that_cannot_be_judged_is_no_failure() {
    for (refusal, begin) in [
        (Refusal::Unavailable, "-ERR [SYS/TEMP] "),
        (Refusal::Throttled, "-ERR [SYS/TEMP] "),
        (Refusal::Busy, "-ERR [SYS/TEMP] "),
    ] {
        let mut client = Dialogue::greeted();
        client.refusal = Some(refusal);
        let reply = client.say(&format!("AUTH {} {}", TOKENS[0].0, TOKENS[0].1));
        assert!(reply.starts_with(begin), "{reply}");
        assert_eq!(client.session.summary().failed_logins, 0);
        client.log_in();
    }
}

#[test]
fn apop_is_taken_where_the_greeting_has_offered_it() {
    let digest = "c4c9334bac560ecc979e58001b3e22fb";
    let mut client = Dialogue::greeted();
    assert_err(&client.say(&format!("APOP alice {digest}")));
    client.log_in();
    let stamp = Stamp::of("<1896.697170952@dbc.mtview.ca.us>");
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
    let channel = Channel::Clear { stls: true };
    let offered = Session::stamped(
        Arc::new(policy()),
        channel,
        Some(stamp),
        client.now,
        &mut out,
    );
    let greeting = text(out);
    assert!(
        greeting.ends_with(" <1896.697170952@dbc.mtview.ca.us>\r\n"),
        "{greeting}"
    );
    let mut client = Dialogue::greeted();
    client.session = offered;
    for bad in [
        "APOP alice",
        "APOP alice c4c9",
        "APOP alice +4c9334bac560ecc979e58001b3e22fb",
    ] {
        assert_err(&client.say(bad));
    }
    client.refusal = Some(Refusal::Rejected);
    let reply = client.say(&format!("APOP alice {digest}"));
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    // The stamp is that of the connection, also behind STLS.
    client.say("STLS");
    assert_ok(&client.say(&format!("APOP alice {digest}")));
    assert_eq!(client.user(), Some(&b"alice"[..]));
    assert_err(&client.say(&format!("APOP alice {digest}")));
}

#[test]
fn a_failed_exchange_is_a_failed_login() {
    let mut client = Dialogue::greeted();
    for attempt in 1..=limits::FAILED_LOGINS {
        client.refusal = Some(Refusal::Rejected);
        let reply = client.say(&format!("AUTH PLAIN {ALICE}"));
        assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
        assert_eq!(client.session.summary().failed_logins, attempt);
    }
    assert_eq!(client.end, Some(End::TooManyAuthFailures));
}

#[test]
fn an_exchange_does_not_outlive_the_time_to_log_in() {
    let mut client = Dialogue::greeted();
    client.say("AUTH PLAIN");
    let late = client.now + 60 * SECOND;
    let step = client.session.handle_timeout(late);
    assert!(matches!(step, Step::Close(End::LoginTimeout)), "{step:?}");
}

fn decoded(challenge: &str) -> String {
    use base64ct::{Base64, Encoding as _};
    let text = challenge
        .strip_prefix("+ ")
        .expect("a challenge")
        .trim_end();
    String::from_utf8(Base64::decode_vec(text).expect("base64")).expect("UTF-8")
}

/// The dialogue of RFC 7677, section 3, within POP3.
#[test]
fn scram_logs_in() {
    let mut client = Dialogue::greeted();
    let first = client.say("AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=");
    assert!(decoded(&first).ends_with(",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
    let last = client.say(
        "Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAscD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0YWc5empmTUhnc3FtbWl6N0FuZFZRPQ==",
    );
    assert_eq!(
        decoded(&last),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
    assert_ok(&client.say(""));
    assert_eq!(client.user(), Some(&b"user"[..]));
}

#[test]
fn scram_that_proves_nothing_is_a_failed_login() {
    let mut client = Dialogue::greeted();
    let first = "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=";
    client.say(first);
    // `c=biws,r=x,p=AAAA`
    let reply = client.say("Yz1iaXdzLHI9eCxwPUFBQUE=");
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    assert_eq!(client.session.summary().failed_logins, 1);
    assert_eq!(client.user(), Some(&b"user"[..]));
    // A directory that is away is no failed login.
    client.refusal = Some(Refusal::Unavailable);
    let reply = client.say(first);
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    assert_eq!(client.session.summary().failed_logins, 1);
}

#[test]
fn external_logs_in_whom_the_certificate_vouches_for() {
    let mut client = Dialogue::greeted();
    assert_err(&client.say("AUTH EXTERNAL ="));
    client.session.vouch_for("kurt@example.net".to_owned());
    assert_ok(&client.say("AUTH EXTERNAL ="));
    assert_eq!(client.user(), Some(&b"kurt@example.net"[..]));
}

#[test]
fn a_master_user_is_told_beside_the_user() {
    let policy = Policy {
        names: NameRules {
            master: MasterForm::parse("{master}*{user}"),
            lowercase: true,
            ..NameRules::default()
        },
        ..policy()
    };
    // `root*alice` and `secret`; `alice`, `root` and `secret`.
    for line in [
        "AUTH PLAIN AHJvb3QqYWxpY2UAc2VjcmV0",
        "AUTH PLAIN YWxpY2UAcm9vdABzZWNyZXQ=",
        "USER ROOT*Alice",
    ] {
        let mut client = Dialogue::new(policy.clone(), Channel::Tls).0;
        assert_ok(&client.say(line));
        if line.starts_with("USER") {
            client.refusal = Some(Refusal::Rejected);
            assert_err(&client.say("PASS wrong"));
            assert_eq!(client.user(), Some(&b"root*alice"[..]));
            assert_eq!(client.session.summary().master, None);
            client.say(line);
            assert_ok(&client.say("PASS secret"));
        }
        let summary = client.session.summary();
        assert_eq!(summary.user.map(ToString::to_string), Some("alice".into()));
        assert_eq!(summary.master.map(ToString::to_string), Some("root".into()));
    }
}
