//! Whole sessions without a socket: what is asked, and what lies are found.

use super::*;
use crate::scenario::Scenario;

/// A session played against canned replies, with the time standing still.
struct Played {
    record: Record,
    asked: String,
    last: Progress,
}

impl Played {
    fn kinds(&self) -> Vec<(Kind, u64)> {
        let kinds = self.record.faults.kinds();
        kinds.map(|(kind, seen)| (kind, seen.count)).collect()
    }
}

fn conduct(steps: &str, pipelining: bool) -> Arc<Conduct> {
    let scenario = Scenario::profile(steps, 5, pipelining).expect("a profile");
    Arc::new(Conduct {
        mix: Mix::of(scenario),
        mechanism: Mechanism::User,
        tls: Mode::None,
        source: None,
    })
}

/// Plays `replies` in lockstep, each given once its command was asked for, cut
/// into pieces of `size` octets.
fn play(profile: &str, replies: &[&str], size: usize) -> Played {
    play_as(conduct(profile, false), replies, size)
}

fn play_as(conduct: Arc<Conduct>, replies: &[&str], size: usize) -> Played {
    let now = Instant::now();
    let login = Login {
        user: "ann".into(),
        password: "a b".into(),
    };
    let mut record = Record::default();
    let mut account = Account::default();
    let mut out = Vec::new();
    let mut dialogue = Dialogue::new(conduct, 1, now);
    dialogue.begin(now, now);
    dialogue.connected(now, &mut record);
    let mut asked = String::new();
    let mut last = Progress::Waiting;
    for reply in replies {
        for piece in reply.as_bytes().chunks(size) {
            let mut around = Surroundings {
                now: now + Duration::from_millis(1),
                login: &login,
                user: 0,
                account: &mut account,
                record: &mut record,
                out: &mut out,
            };
            last = dialogue.receive(piece, &mut around);
            asked.push_str(std::str::from_utf8(&out).expect("text"));
            out.clear();
        }
    }
    Played {
        record,
        asked,
        last,
    }
}

const LOGIN: [&str; 3] = ["+OK hello\r\n", "+OK\r\n", "+OK in\r\n"];

fn session(rest: &[&'static str]) -> Vec<&'static str> {
    LOGIN.iter().chain(rest).copied().collect()
}

#[test]
fn each_profile_asks_what_it_should_and_in_order() {
    let two = "+OK\r\n1 6\r\n2 5\r\n.\r\n";
    let uidls = "+OK\r\n1 a\r\n2 b\r\n.\r\n";
    let one = "+OK\r\n..x\r\n\r\n.\r\n";
    let cases = [
        ("login", session(&["+OK\r\n"]), "QUIT", 1),
        (
            "poll",
            session(&["+OK 2 11\r\n", uidls, "+OK\r\n"]),
            "STAT UIDL QUIT",
            1,
        ),
        (
            "drain",
            session(&[
                "+OK 2 11\r\n",
                two,
                uidls,
                one,
                "+OK\r\n",
                "+OK\r\nabc\r\n.\r\n",
                "+OK\r\n",
                "+OK\r\n",
            ]),
            "STAT LIST UIDL RETR 1 DELE 1 RETR 2 DELE 2 QUIT",
            1,
        ),
        (
            "fetch",
            session(&[
                "+OK 1 6\r\n",
                "+OK\r\n1 6\r\n.\r\n",
                "+OK\r\n1 a\r\n.\r\n",
                one,
                "+OK\r\n",
            ]),
            "STAT LIST UIDL RETR 1 QUIT",
            1,
        ),
        ("idle", session(&[]), "", 0),
    ];
    for (profile, replies, expected, sessions) in cases {
        for size in [1, 3, 1_000] {
            let played = play(profile, &replies, size);
            assert_eq!(played.kinds(), [], "{profile}");
            let asked = played.asked.trim_end().replace("\r\n", " ");
            assert_eq!(asked, format!("USER ann PASS a b {expected}").trim_end());
            assert_eq!(played.record.sessions, sessions);
            let last = if sessions == 0 {
                Progress::Idle
            } else {
                Progress::Finished
            };
            assert_eq!(played.last, last);
            assert_eq!(played.record.commands, replies.len() as u64 - 1);
        }
    }
}

#[test]
fn a_message_of_the_wrong_size_is_told_and_not_deleted() {
    let replies = session(&[
        "+OK 1 9\r\n",
        "+OK\r\n1 9\r\n.\r\n",
        "+OK\r\n1 a\r\n.\r\n",
        "+OK\r\nabc\r\n.\r\n",
        "+OK\r\n",
    ]);
    let played = play("drain", &replies, 1_000);
    assert_eq!(played.kinds(), [(Kind::Octets, 1)]);
    assert!(!played.asked.contains("DELE"), "{}", played.asked);
    assert_eq!((played.record.sessions, played.record.failed), (0, 1));
    assert_eq!(played.last, Progress::Finished);
}

#[test]
fn a_refused_message_does_not_end_the_session() {
    let replies = session(&[
        "+OK 1 9\r\n",
        "+OK\r\n1 9\r\n.\r\n",
        "+OK\r\n1 a\r\n.\r\n",
        "-ERR gone\r\n",
        "+OK\r\n",
    ]);
    let played = play("drain", &replies, 1_000);
    assert_eq!(played.kinds(), [(Kind::Refused, 1)]);
    assert_eq!(played.last, Progress::Finished);
    assert_eq!(played.record.failed, 1);
}

#[test]
fn a_refused_login_ends_the_session_with_the_servers_words() {
    let played = play("poll", &["+OK\r\n", "+OK\r\n", "-ERR [AUTH] no\r\n"], 1_000);
    let Progress::Failed(fault) = played.last else {
        panic!("{:?}", played.last);
    };
    assert_eq!(fault.kind, Kind::LoginRefused);
    assert_eq!(fault.text, "-ERR [AUTH] no");
}

#[test]
fn a_server_that_talks_out_of_turn_is_cut_off() {
    for (replies, kind) in [
        (vec!["+OK\r\n+OK\r\n"], Kind::ExtraData),
        (session(&["+OK\r\n+OK again\r\n"]), Kind::ExtraData),
        (vec!["220 smtp\r\n"], Kind::Nonsense),
        (session(&["+OK many\r\n"]), Kind::Nonsense),
    ] {
        let profile = if kind == Kind::Nonsense {
            "poll"
        } else {
            "login"
        };
        let played = play(profile, &replies, 1_000);
        assert!(
            matches!(&played.last, Progress::Failed(fault) if fault.kind == kind),
            "{replies:?}: {:?}",
            played.last
        );
    }
}

#[test]
fn a_slot_starts_afresh_after_a_broken_session() {
    let now = Instant::now();
    let login = Login {
        user: "ann".into(),
        password: "pw".into(),
    };
    let (mut record, mut out) = (Record::default(), Vec::new());
    let mut account = Account::default();
    let mut dialogue = Dialogue::new(conduct("login", false), 1, now);
    for reply in ["+OK par", "+OK\r\n"] {
        dialogue.begin(now, now);
        dialogue.connected(now, &mut record);
        let mut around = Surroundings {
            now,
            login: &login,
            user: 0,
            account: &mut account,
            record: &mut record,
            out: &mut out,
        };
        let progress = dialogue.receive(reply.as_bytes(), &mut around);
        assert_eq!(progress, Progress::Waiting);
    }
    assert_eq!(out, b"USER ann\r\n");
}

#[test]
fn with_pipelining_nothing_waits_that_need_not() {
    let listings = "+OK\r\n1 6\r\n2 5\r\n.\r\n+OK\r\n1 a\r\n2 b\r\n.\r\n";
    let messages = "+OK\r\n..x\r\n\r\n.\r\n+OK\r\nabc\r\n.\r\n";
    for size in [1, 5, 1_000] {
        let mut asked = Vec::new();
        let mut replies = vec!["+OK hello\r\n"];
        for more in [
            "+OK\r\n+OK in\r\n+OK 2 11\r\n",
            listings,
            messages,
            "+OK\r\n+OK\r\n",
            "+OK\r\n",
        ] {
            let played = play_as(conduct("drain", true), &replies, size);
            assert_eq!(played.kinds(), []);
            asked.push(played.asked.replace("\r\n", " "));
            replies.push(more);
        }
        // What is asked before the greeting's successors are answered.
        assert_eq!(asked[0], "USER ann PASS a b STAT LIST UIDL ");
        assert_eq!(asked[1], asked[0], "the choice waits for the listings");
        assert_eq!(asked[2], format!("{}RETR 1 RETR 2 ", asked[0]));
        assert!(asked[3].ends_with("RETR 2 DELE 1 DELE 2 "), "{}", asked[3]);
        let played = play_as(conduct("drain", true), &replies, size);
        assert!(played.asked.ends_with("QUIT\r\n"));
        assert_eq!((played.record.sessions, played.record.deleted), (1, 2));
        assert_eq!(played.last, Progress::Finished);
    }
}
