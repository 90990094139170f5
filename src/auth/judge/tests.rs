//! That nobody can tell an unknown name from a wrong password is asserted on
//! the work done, which is counted; one test at the end looks at the clock.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::auth::credentials::Ask;
use crate::auth::directory::Notice;
use crate::auth::passwd_file::PasswdFile;
use crate::auth::token::Token;
use crate::auth::{Account, Credentials, Evidence, Identity, ScramHash};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn directory(text: &str) -> Source {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users");
    std::fs::write(&path, text).expect("a file");
    Source::Here(Box::new(PasswdFile::open(&path).expect("readable").0))
}

fn judge(texts: &[&str]) -> Judge {
    Judge::new(
        texts.iter().map(|text| directory(text)).collect(),
        Vec::new(),
        MadeUp::new(None),
    )
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials::new(
        UserName::new(user.as_bytes()).expect("a name"),
        Password::new(password.as_bytes()).expect("short"),
    )
}

/// A login before directories that all answer from memory.
fn hear(judge: &Judge, credentials: Credentials, from: IpAddr) -> Case {
    let Credentials { identity, evidence } = credentials;
    ask(judge, Question::of(identity, evidence.into(), from, 0))
}

fn ask(judge: &Judge, question: Question) -> Case {
    match judge.hear(question) {
        Heard::Case(case) => case,
        Heard::Away(..) => panic!("none is away"),
    }
}

fn login(judge: &Judge, user: &str, password: &str) -> Result<Account, Refusal> {
    hear(judge, credentials(user, password), FROM)
        .decide(Verifier::verify)
        .map(|admission| admission.account)
}

/// The schemes that one login verified, in their order.
fn work(judge: &Judge, user: &str) -> (Vec<&'static str>, Result<Account, Refusal>) {
    let mut schemes = Vec::new();
    let answer = hear(judge, credentials(user, "guess"), FROM).decide(|verifier, password| {
        schemes.push(verifier.scheme());
        verifier.verify(password)
    });
    (schemes, answer.map(|admission| admission.account))
}

const MIXED: &str = "\
ann:{BLF-CRYPT}$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG
bob:{PLAIN}bob
eve:{PLAIN}eve::::::nologin
kim:*
lee:{NOSUCH}x
max:{PLAIN}max::::::allow_nets=192.0.2.0/24
pat:{PLAIN}pat::::::proxy host=192.0.2.1
";

#[test]
fn the_right_password_logs_in() {
    let judge = judge(&["joe@example.net:{PLAIN}a b c:::: /:\n", MIXED]);
    let account = login(&judge, "bob", "bob").expect("right");
    assert_eq!(account.user.as_bytes(), b"bob");
    assert_eq!((account.home, account.mail), (None, None));
    assert!(login(&judge, "ann", "correct horse battery staple").is_ok());
}

#[test]
fn home_and_mail_reach_the_account() {
    let judge = judge(&["joe:{PLAIN}x::::/home/joe::userdb_mail=maildir:~/Maildir\n"]);
    let account = login(&judge, "joe", "x").expect("right");
    assert_eq!(account.home.as_deref(), Some(Path::new("/home/joe")));
    assert_eq!(
        account.mail.as_deref(),
        Some(Path::new("/home/joe/Maildir"))
    );
}

#[test]
fn refusals_before_the_right_password_are_all_alike() {
    let judge = judge(&[MIXED]);
    for user in ["ann", "bob", "eve", "kim", "lee", "max", "pat", "nobody"] {
        let (schemes, answer) = work(&judge, user);
        assert_eq!(answer, Err(Refusal::Rejected), "{user}");
        assert_eq!(schemes.len(), 1, "{user} cost {schemes:?}");
    }
}

#[test]
fn what_bars_a_user_is_told_after_the_right_password_only() {
    let judge = judge(&[MIXED]);
    let disabled = Err(Refusal::Disabled(Notice::DISABLED));
    assert_eq!(login(&judge, "eve", "eve"), disabled);
    assert_eq!(login(&judge, "eve", "guess"), Err(Refusal::Rejected));
    let elsewhere = Err(Refusal::Disabled(Notice::ELSEWHERE));
    assert_eq!(login(&judge, "pat", "pat"), elsewhere);
    assert_eq!(login(&judge, "pat", "guess"), Err(Refusal::Rejected));
}

#[test]
fn allow_nets_is_heeded() {
    let judge = judge(&[MIXED]);
    let from = |address: &str| {
        let address = address.parse().expect("an address");
        hear(&judge, credentials("max", "max"), address)
            .decide(Verifier::verify)
            .map(|admission| admission.account)
    };
    assert!(from("192.0.2.7").is_ok());
    assert!(from("::ffff:192.0.2.7").is_ok());
    assert_eq!(from("192.0.3.7"), Err(Refusal::Rejected));
    assert_eq!(from("2001:db8::1"), Err(Refusal::Rejected));
}

#[test]
fn the_password_of_a_decoy_lets_nobody_in() {
    let judge = judge(&["joe:{PLAIN}x\n"]);
    for user in ["nobody", "x", "joe2"] {
        assert_eq!(login(&judge, user, "x"), Err(Refusal::Rejected), "{user}");
    }
}

#[test]
fn the_first_directory_that_knows_a_name_decides() {
    let judge = judge(&[
        "joe:{PLAIN}one\nkim:*\n",
        "joe:{PLAIN}two\nkim:{PLAIN}x\nann:{PLAIN}y\n",
    ]);
    assert!(login(&judge, "joe", "one").is_ok());
    assert_eq!(login(&judge, "joe", "two"), Err(Refusal::Rejected));
    assert_eq!(login(&judge, "kim", "x"), Err(Refusal::Rejected));
    assert!(login(&judge, "ann", "y").is_ok());
}

#[test]
fn without_any_user_a_costly_hash_is_verified() {
    for texts in [&[][..], &[""], &["kim:*\n"]] {
        let (schemes, answer) = work(&judge(texts), "kim");
        assert_eq!((schemes, answer), (vec!["ARGON2"], Err(Refusal::Rejected)));
    }
}

struct Broken;

impl Directory for Broken {
    fn lookup(&self, _: &UserName) -> Result<Option<Record>, DirectoryError> {
        Err(DirectoryError::Unreadable {
            path: "users".into(),
            source: io::ErrorKind::NotConnected.into(),
        })
    }

    fn decoys(&self) -> usize {
        0
    }

    fn decoy(&self, _: usize) -> Option<Verifier> {
        None
    }

    fn reload(&self) -> Result<LoadReport, DirectoryError> {
        Ok(LoadReport::default())
    }
}

#[test]
fn a_broken_directory_hides_those_behind_it_and_none_before_it() {
    let directories = vec![
        directory("joe:{PLAIN}x\n"),
        Source::Here(Box::new(Broken)),
        directory("ann:{PLAIN}y\n"),
    ];
    let judge = Judge::new(directories, Vec::new(), MadeUp::new(None));
    assert!(login(&judge, "joe", "x").is_ok());
    assert_eq!(login(&judge, "ann", "y"), Err(Refusal::Unavailable));
}

/// Has one user, who has no password.
struct Passwordless;

impl Directory for Passwordless {
    fn lookup(&self, name: &UserName) -> Result<Option<Record>, DirectoryError> {
        let profile = Profile {
            home: Some("/home/tom".into()),
            networks: Some(Box::new(["127.0.0.0/8".parse().expect("a network")])),
            ..Profile::default()
        };
        let is_there = name.as_bytes() == b"tom";
        Ok(is_there.then_some(Record::Passwordless(profile)))
    }

    fn decoys(&self) -> usize {
        0
    }

    fn decoy(&self, _: usize) -> Option<Verifier> {
        None
    }

    fn reload(&self) -> Result<LoadReport, DirectoryError> {
        Ok(LoadReport::default())
    }
}

#[test]
fn without_a_password_a_user_is_let_in_by_what_needs_none() {
    let judge = Judge::new(
        vec![Source::Here(Box::new(Passwordless)), directory(MIXED)],
        vec![directory("root:{PLAIN}r\n")],
        MadeUp::new(None),
    );
    let known = |user: &str, from: &str| {
        let credentials = Credentials {
            evidence: Evidence::Certificate,
            ..credentials(user, "")
        };
        hear(&judge, credentials, from.parse().expect("an address"))
            .decide(|_, _| panic!("there is nothing to verify"))
            .map(|admission| admission.account)
    };
    let account = known("tom", "127.0.0.1").expect("it is proved");
    assert_eq!(account.home.as_deref(), Some(Path::new("/home/tom")));
    assert_eq!(known("tom", "192.0.2.1"), Err(Refusal::Rejected));
    assert_eq!(known("tim", "127.0.0.1"), Err(Refusal::Rejected));
    let (schemes, answer) = work(&judge, "tom");
    assert_eq!((schemes.len(), answer), (1, Err(Refusal::Rejected)));
    assert_eq!(login(&judge, "tom", ""), Err(Refusal::Rejected));
    let question = Question::of(
        Identity::own(name("tom")),
        Ask::Keys(ScramHash::Sha256),
        FROM,
        0,
    );
    let answer = ask(&judge, question).answer("nonce".to_owned());
    let (answer, _) = answer.expect("keys are made up");
    assert_eq!(answer.verdict.err(), Some(Refusal::Rejected));
    let acting = hear(&judge, act("root", "tom", "r"), FROM).decide(Verifier::verify);
    let account = acting.map(|admission| admission.account).expect("right");
    assert_eq!(account.home.as_deref(), Some(Path::new("/home/tom")));
}

fn name(text: &str) -> UserName {
    UserName::new(text.as_bytes()).expect("a name")
}

/// The master users `root`, who may log in from near alone, and `off`, who may not, and
/// a user of the same name as the first.
fn with_masters() -> Judge {
    let masters = "root:{PLAIN}r::::/root::allow_nets=127.0.0.0/8\noff:{PLAIN}o::::::nologin\n";
    let users = format!("{MIXED}root:{{PLAIN}}user::::/home/root\nann@x:*::::/home/ann\n");
    Judge::new(
        vec![directory(&users)],
        vec![directory(masters)],
        MadeUp::new(None),
    )
}

fn act(user: &str, owner: &str, password: &str) -> Credentials {
    Credentials {
        identity: Identity {
            user: name(user),
            acts_for: Some(name(owner)),
        },
        ..credentials(user, password)
    }
}

#[test]
fn a_master_user_logs_in_for_another_with_the_own_password() {
    let judge = with_masters();
    let far = "192.0.2.1".parse().expect("an address");
    let login = |credentials, from| {
        let case = hear(&judge, credentials, from);
        case.decide(Verifier::verify).map(|found| found.account)
    };
    let account = login(act("root", "bob", "r"), FROM).expect("right");
    assert_eq!(account.user, name("bob"));
    let account = login(act("root", "root", "r"), FROM).expect("right");
    assert_eq!(account.home.as_deref(), Some(Path::new("/home/root")));
    for wrong in ["user", "bob", ""] {
        let found = login(act("root", "bob", wrong), FROM);
        assert_eq!(found, Err(Refusal::Rejected), "{wrong}");
    }
    // From where is the master's affair: `max` is far away.
    assert!(login(act("root", "max", "r"), FROM).is_ok());
    let found = login(act("root", "bob", "r"), far);
    assert_eq!(found, Err(Refusal::Rejected));
    // Who is no master acts for nobody, and a master has no maildrop as such.
    for (user, password) in [("bob", "bob"), ("root", "user"), ("nobody", "r")] {
        let found = login(act(user, "eve", password), FROM);
        assert_eq!(found, Err(Refusal::Rejected), "{user}");
    }
    let found = login(credentials("root", "r"), FROM);
    assert_eq!(found, Err(Refusal::Rejected));
    let account = login(credentials("root", "user"), FROM).expect("right");
    assert_eq!(account.home.as_deref(), Some(Path::new("/home/root")));
    // What bars the one or the other is told behind the right password.
    let disabled = |notice| Err(Refusal::Disabled(notice));
    let found = login(act("off", "bob", "o"), FROM);
    assert_eq!(found, disabled(Notice::DISABLED));
    let found = login(act("root", "eve", "r"), FROM);
    assert_eq!(found, disabled(Notice::DISABLED));
    let found = login(act("root", "absent", "r"), FROM);
    assert_eq!(found, disabled(Notice::NOBODY));
    let found = login(act("root", "absent", "x"), FROM);
    assert_eq!(found, Err(Refusal::Rejected));
}

#[test]
fn whom_a_certificate_vouches_for_needs_no_password() {
    let judge = with_masters();
    let login = |user: &str, from: &str| {
        let credentials = Credentials {
            identity: Identity::own(name(user)),
            evidence: Evidence::Certificate,
        };
        let from = from.parse().expect("an address");
        let mut verified = 0;
        let answer = hear(&judge, credentials, from).decide(|_, _| {
            verified += 1;
            true
        });
        assert_eq!(verified, 0);
        answer.map(|found| found.account.user)
    };
    assert_eq!(login("bob", "192.0.2.1"), Ok(name("bob")));
    assert_eq!(login("max", "192.0.2.1"), Ok(name("max")));
    assert_eq!(login("max", "192.0.3.1"), Err(Refusal::Rejected));
    assert_eq!(login("nobody", "192.0.2.1"), Err(Refusal::Rejected));
    let disabled = Err(Refusal::Disabled(Notice::DISABLED));
    assert_eq!(login("eve", "192.0.2.1"), disabled);
}

#[test]
fn neither_a_certificate_nor_a_token_makes_a_master() {
    for evidence in [
        || Evidence::Certificate,
        || Evidence::Token(Token::new("whatever").expect("a token")),
    ] {
        let credentials = Credentials {
            identity: act("root", "bob", "").identity,
            evidence: evidence(),
        };
        let answer = hear(&with_masters(), credentials, FROM).decide(|_, _| true);
        assert_eq!(
            answer.map(|found| found.account.user),
            Err(Refusal::Rejected)
        );
    }
}

#[test]
fn scram_is_told_the_same_of_everybody_up_to_the_proof() {
    let judge = judge(&["bob:{PLAIN}bob\neve:{PLAIN}eve::::::nologin\n"]);
    for (user, verdict) in [
        ("bob", Ok(name("bob"))),
        ("eve", Err(Refusal::Disabled(Notice::DISABLED))),
        ("nobody", Err(Refusal::Rejected)),
    ] {
        let find = || {
            let identity = Identity::own(name(user));
            let question = Question::of(identity, Ask::Keys(ScramHash::Sha256), FROM, 0);
            let mut case = ask(&judge, question);
            assert!(case.is_slow() && case.stored().is_none(), "{user}");
            case.derive();
            assert!(!case.is_slow());
            let (answer, _) = case.answer("nonce".to_owned()).expect("keys");
            answer
        };
        let (answer, again) = (find(), find());
        assert_eq!(answer.keys.salt(), again.keys.salt());
        assert_eq!(answer.keys.iterations().get(), 4096);
        let user = answer.verdict.map(|proved| Account::from(proved).user);
        assert_eq!(user, verdict);
    }
    let broken = Judge::new(
        vec![Source::Here(Box::new(Broken))],
        Vec::new(),
        MadeUp::new(None),
    );
    let question = Question::of(
        Identity::own(name("bob")),
        Ask::Keys(ScramHash::Sha256),
        FROM,
        0,
    );
    let answer = ask(&broken, question).answer(String::new());
    assert!(matches!(answer, Err(Refusal::Unavailable)));
}

#[test]
fn an_unknown_name_always_costs_the_same() {
    let judge = judge(&[MIXED]);
    for n in 0..200 {
        let name = format!("unknown{n}");
        assert_eq!(work(&judge, &name).0, work(&judge, &name).0, "{name}");
    }
}

/// The work for unknown names is spread over the schemes as that for known
/// ones is, over directories of any sizes.
#[test]
fn unknown_names_cost_what_known_ones_do() {
    let lines = |name: &str, stored: &str, count: usize| {
        let lines = (0..count).map(|n| format!("{name}{n}:{stored}\n"));
        lines.collect::<String>()
    };
    let first = lines("p", "{PLAIN}secret", 300);
    let sha = "{SHA256}xLvLH77JnWW/WdhcjLYu4tuWPw/hBvSD2a+nO9Tjmoo=";
    let second = lines("p2", "{PLAIN}secret", 100) + &lines("s", sha, 600);
    let judge = judge(&[&first, &second]);
    let known = ["p", "p2", "s"].into_iter().zip([300, 100, 600]);
    let known = known.flat_map(|(name, count)| (0..count).map(move |n| format!("{name}{n}")));
    let spread = |names: &mut dyn Iterator<Item = String>| {
        let mut spread = BTreeMap::<&str, i32>::new();
        for name in names {
            let (schemes, _) = work(&judge, &name);
            assert_eq!(schemes.len(), 1, "{name}");
            *spread.entry(schemes[0]).or_default() += 1;
        }
        spread
    };
    let known = spread(&mut known.into_iter());
    assert_eq!(known, BTreeMap::from([("PLAIN", 400), ("SSHA256", 600)]));
    let unknown = spread(&mut (0..10_000).map(|n| format!("unknown{n}")));
    // A binomial spread of 49 of 10,000: 500 is ten times that.
    for (scheme, count) in known {
        let off = unknown[scheme] - count * 10;
        assert!(off.abs() < 500, "{scheme}: {count} of 1,000, {unknown:?}");
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// The clock agrees: the one of this thread's processor time, which load on the
/// machine hardly moves. Tries are interleaved and medians compared; a scheme
/// that did no work would be off by a factor of a thousand.
#[test]
fn unknown_names_take_as_long_as_known_ones() {
    let hash = "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG";
    let lines: Vec<_> = (0..50).map(|n| format!("user{n}:{hash}\n")).collect();
    let judge = judge(&[&lines.concat()]);
    let timed = |user: &str| {
        let start = thread_time();
        assert_eq!(login(&judge, user, "guess"), Err(Refusal::Rejected));
        thread_time().saturating_sub(start)
    };
    let (mut known, mut unknown): (Vec<_>, Vec<_>) = (0..41)
        .map(|n| (timed(&format!("user{n}")), timed(&format!("unknown{n}"))))
        .unzip();
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let ratio = median(&mut unknown) / median(&mut known);
    assert!((0.5..2.0).contains(&ratio), "unknown / known = {ratio}");
}

#[test]
fn a_name_keeps_its_decoy_as_far_as_there_is_no_new_one() {
    assert_eq!(lasting_choice(7, 0), None);
    let names = RandomState::new();
    let mut chosen = vec![0; 20_000];
    for total in 1..=10_usize {
        let mut counts = vec![0_usize; total];
        for (name, before) in chosen.iter_mut().enumerate() {
            let choice = lasting_choice(names.hash_one(name), total).expect("one");
            assert!(choice == *before || choice == total - 1);
            *before = choice;
            counts[choice] += 1;
        }
        let even = 20_000 / total;
        assert!(
            counts.iter().all(|count| count.abs_diff(even) < even / 4),
            "{counts:?}"
        );
    }
}
