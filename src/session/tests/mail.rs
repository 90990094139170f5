//! The TRANSACTION and UPDATE states.

use super::*;

#[test]
fn stat_list_and_uidl_show_the_maildrop() {
    let mut client = Dialogue::logged_in(2);
    assert_eq!(client.say("STAT"), "+OK 2 203\r\n");
    let list = client.say("LIST");
    assert_eq!(
        list,
        "+OK 2 messages (203 octets)\r\n1 101\r\n2 102\r\n.\r\n"
    );
    assert_eq!(client.say("LIST 2"), "+OK 2 102\r\n");
    let uidl = client.say("UIDL");
    assert!(uidl.ends_with("\r\n1 000001.M1.host\r\n2 000002.M1.host\r\n.\r\n"));
    assert_eq!(client.say("uidl 1"), "+OK 1 000001.M1.host\r\n");
    assert_ok(&client.say("NOOP"));
}

#[test]
fn an_empty_maildrop_lists_nothing() {
    let mut client = Dialogue::logged_in(0);
    assert_eq!(client.say("STAT"), "+OK 0 0\r\n");
    let empty = "+OK 0 messages (0 octets)\r\n.\r\n";
    assert_eq!(client.say("LIST"), empty);
    assert_eq!(client.say("UIDL"), empty);
    assert_err(&client.say("RETR 1"));
}

#[test]
fn stat_list_uidl_leave_out_deleted() {
    let mut client = Dialogue::logged_in(3);
    assert_ok(&client.say("DELE 2"));
    assert_eq!(client.say("STAT"), "+OK 2 204\r\n");
    let list = client.say("LIST");
    assert_eq!(
        list,
        "+OK 2 messages (204 octets)\r\n1 101\r\n3 103\r\n.\r\n"
    );
    let uidl = client.say("UIDL");
    assert!(!uidl.contains("000002"));
    for line in ["LIST 2", "UIDL 2", "RETR 2", "TOP 2 0", "DELE 2"] {
        assert_err(&client.say(line));
    }
    assert!(client.sent.is_empty());
}

#[test]
fn numbers_do_not_change_after_dele() {
    let mut client = Dialogue::logged_in(3);
    let before = client.say("UIDL 3");
    client.say("DELE 1");
    client.say("DELE 2");
    assert_eq!(client.say("UIDL 3"), before);
    assert_eq!(client.say("LIST 3"), "+OK 3 103\r\n");
    client.say("RETR 3");
    assert_eq!(client.sent, [(3, None)]);
}

#[test]
fn all_may_be_deleted() {
    let mut client = Dialogue::logged_in(3);
    for line in ["DELE 1", "DELE 2", "DELE 3"] {
        assert_ok(&client.say(line));
    }
    assert_eq!(client.say("STAT"), "+OK 0 0\r\n");
    assert_eq!(client.say("LIST"), "+OK 0 messages (0 octets)\r\n.\r\n");
}

#[test]
fn retr_zero_is_refused() {
    let mut client = Dialogue::logged_in(3);
    for line in ["RETR 0", "TOP 0 0", "DELE 0", "LIST 0", "UIDL 0"] {
        assert_err(&client.say(line));
    }
    assert!(client.sent.is_empty());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let mut client = Dialogue::logged_in(3);
    for line in ["RETR 4", "TOP 4 0", "DELE 4294967295", "LIST 4", "UIDL 4"] {
        assert_err(&client.say(line));
    }
    assert!(client.sent.is_empty());
    assert_eq!(client.say("STAT"), "+OK 3 306\r\n");
}

#[test]
fn refused_numbers_are_no_bad_commands() {
    let mut client = Dialogue::logged_in(1);
    for _ in 0..=limits::BAD_COMMANDS {
        assert_err(&client.say("RETR 2"));
    }
    assert_eq!(client.end, None);
}

#[test]
fn retr_and_top_are_sent_and_counted() {
    let mut client = Dialogue::logged_in(3);
    client.say("RETR 2");
    client.say("TOP 3 0");
    client.say("TOP 3 18446744073709551615");
    assert_eq!(client.sent, [(2, None), (3, Some(0)), (3, Some(u64::MAX))]);
    let tally = client.session.summary().tally;
    let traffic = |messages, octets| Traffic {
        messages,
        octets: Octets::new(octets),
    };
    assert_eq!(tally.retrieved, traffic(1, 102));
    assert_eq!(tally.topped, traffic(2, 206));
}

#[test]
fn a_message_that_vanished_costs_its_own_reply_only() {
    let mut client = Dialogue::logged_in(2);
    client.message_error = Some(MessageError::Gone);
    assert_err(&client.say("RETR 1"));
    client.message_error = Some(MessageError::Unreadable);
    let reply = client.say("TOP 1 0");
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply:?}");
    assert!(client.say("RETR 2").starts_with("+OK"));
    assert_eq!(client.say("STAT"), "+OK 2 203\r\n");
    assert_eq!(client.session.summary().tally.retrieved.messages, 1);
}

#[test]
fn rset_takes_every_mark_back() {
    let mut client = Dialogue::logged_in(3);
    client.say("DELE 1");
    client.say("DELE 3");
    assert_ok(&client.say("RSET"));
    assert_eq!(client.say("STAT"), "+OK 3 306\r\n");
    assert_ok(&client.say("DELE 3"));
    client.say("QUIT");
    assert_eq!(client.commits, [[3]]);
}

#[test]
fn quit_removes_what_is_marked() {
    let mut client = Dialogue::logged_in(130);
    for line in ["DELE 130", "DELE 1", "DELE 64", "DELE 65"] {
        client.say(line);
    }
    assert_eq!(client.say("QUIT"), "+OK popcore signing off\r\n");
    assert_eq!(client.commits, [[1, 64, 65, 130]]);
    assert_eq!(client.end, Some(End::Quit));
    let summary = client.session.summary();
    assert!(summary.authenticated);
    assert_eq!(summary.tally.removed.messages, 4);
    assert_eq!(client.user(), Some(&b"alice"[..]));
}

#[test]
fn quit_without_marks_asks_for_nothing() {
    let mut client = Dialogue::logged_in(3);
    assert_eq!(client.say("QUIT"), "+OK popcore signing off\r\n");
    assert!(client.commits.is_empty());
    assert_eq!(client.end, Some(End::Quit));
}

#[test]
fn a_removal_that_fails_is_told_with_its_count() {
    for (kind, code) in [
        (FaultKind::Temporary, "SYS/TEMP"),
        (FaultKind::Permanent, "SYS/PERM"),
    ] {
        let mut client = Dialogue::logged_in(3);
        client.say("DELE 1");
        client.say("DELE 2");
        client.not_removed = Some((1, kind));
        let reply = client.say("QUIT");
        let text = format!("-ERR [{code}] 1 of 2 deleted messages could not be removed\r\n");
        assert_eq!(reply, text);
        assert_eq!(client.end, Some(End::NotAllRemoved));
        assert_eq!(client.session.summary().tally.removed.messages, 1);
    }
}

#[test]
fn a_second_login_is_refused() {
    let mut client = Dialogue::logged_in(3);
    assert_err(&client.say("USER bob"));
    assert_err(&client.say("PASS secret"));
    assert_eq!(client.say("STAT"), "+OK 3 306\r\n");
}

#[test]
fn long_listings_come_in_pieces_and_the_terminator_never_alone() {
    for messages in 1..120 {
        for command in ["LIST", "UIDL"] {
            let mut client = Dialogue::logged_in(messages);
            let mut out = Output::new(Vec::with_capacity(client.capacity));
            let mut step = client
                .session
                .handle_line(command.as_bytes(), client.now, &mut out);
            let mut rows = 0;
            loop {
                let piece = text(out);
                assert!(piece.ends_with("\r\n") && piece != ".\r\n");
                rows += piece.lines().count();
                out = Output::new(Vec::with_capacity(client.capacity));
                match step {
                    Step::Flush => step = client.session.handle_flushed(client.now, &mut out),
                    Step::Continue => {
                        assert!(piece.ends_with("\r\n.\r\n"));
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(rows, messages as usize + 2);
        }
    }
}

#[test]
fn a_listing_of_many_pieces_is_the_listing_of_one() {
    let mut pieces = Dialogue::logged_in(1000);
    let mut whole = Dialogue::logged_in(1000);
    whole.capacity = 1 << 20;
    for number in (1..1000).step_by(3) {
        let line = format!("DELE {number}");
        assert_eq!(pieces.say(&line), whole.say(&line));
    }
    for command in ["LIST", "UIDL"] {
        assert_eq!(pieces.say(command), whole.say(command));
    }
    assert!(pieces.flushes > 10);
    assert_eq!(whole.flushes, 0);
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 200, "{}", size_of::<Session>());
}
