//! Directories of others: `PostgreSQL`, `MariaDB`, `slapd`, PAM, and web services as
//! nginx's mail proxy asks them.
//!
//! Each runs in a folder and on a port of the test's own, and is ended by its process
//! id. All of them hold the same users, and popcore is asked the same of all of them:
//! who gets in and who does not and with which words, and what happens while the
//! directory is away in the midst of a load.

mod databases;
mod outage;
mod pam;
mod served;
mod slapd;
mod tls;
mod web;

use std::net::TcpStream;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use self::outage::{Halted, Relay, an_outage_is_survived, hung_connections_are_given_up};
use self::served::Served;

/// The password of every user.
const PASSWORD: &str = "two words";

/// A user, and what the directory has beside the password: the name of an attribute, and
/// its value.
const USERS: [(&str, &str, &str); 11] = [
    ("ann@example.net", "", ""),
    ("bob", "", ""),
    ("cat", "", ""),
    ("dan", "", ""),
    ("o'hara", "", ""),
    ("st*r", "", ""),
    ("near", "allow_nets", "192.0.2.0/24,127.0.0.0/8"),
    ("far", "allow_nets", "192.0.2.0/24"),
    ("off", "disabled", "The bill is unpaid"),
    ("away", "node", "other.example.net"),
    ("slow", "login_delay", "600"),
];

/// How many users more there are, each of whom nobody has heard of until there is a load.
const STRANGERS: u32 = 1000;

/// Such a user.
fn stranger(number: u32) -> String {
    format!("stranger{number}")
}

/// All users, with what [`USERS`] has of them.
fn users() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let known = USERS.map(|(name, attribute, value)| (name.to_owned(), attribute, value));
    let more = (0..STRANGERS).map(|number| (stranger(number), "", ""));
    known.into_iter().chain(more)
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Looks until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until somebody listens there.
fn until_listening(child: &mut Child, port: u16) {
    until("a server to listen", || {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "it has ended: {ended:?}");
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
}

/// Ends a child and waits for its end.
fn end(child: &mut Child) {
    // Both fail where it has ended, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Who gets in. `knows_words` says whether the directory tells more than yes and no.
fn users_get_in(served: &Served, knows_words: bool) {
    for user in ["ann@example.net", "bob", "o'hara", "st*r"] {
        served.log_in(user, PASSWORD);
    }
    let wrong = served.reply("bob", "wrong");
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    for (user, password) in [
        ("nobody", PASSWORD),
        ("nobody", "wrong"),
        ("bob", "two"),
        ("bo*", PASSWORD),
        ("*", PASSWORD),
        ("bob)(uid=*", PASSWORD),
        ("bob'OR'1'='1", PASSWORD),
        ("bob';DROP/**/TABLE/**/users;--", PASSWORD),
        ("bob\\", PASSWORD),
        ("%", PASSWORD),
        ("bob,ou=people", PASSWORD),
        ("bob%0d%0aAuth-User:ann", PASSWORD),
    ] {
        assert_eq!(served.reply(user, password), wrong, "{user}");
    }
    if knows_words {
        served.log_in("near", PASSWORD);
        assert_eq!(served.reply("far", PASSWORD), wrong);
        assert_eq!(served.reply("off", "wrong"), wrong);
        let off = served.reply("off", PASSWORD);
        assert_eq!(off, "-ERR [SYS/PERM] The bill is unpaid");
        assert_eq!(served.login_delay("slow", PASSWORD), "LOGIN-DELAY 600");
        let away = served.reply("away", PASSWORD);
        assert_eq!(
            away,
            "-ERR [SYS/PERM] This account is not served by this server"
        );
    }
    // The directory is whole after all of these names.
    served.log_in("cat", PASSWORD);
}

/// A directory of a master user, to stand behind the other one.
const MASTERS: &str = "[[auth.directory]]\nkind = \"static\"\nmaster = true\n\
                       users = [\"root:{PLAIN}master key\"]\n";

/// How a master user and another are one name; a star is part of the name of one of
/// [`USERS`].
const MASTER_LOGIN: &str = "master_login = \"{master}+{user}\"\n";

/// Who is proved already is looked up without a password, by a directory that verifies
/// passwords by itself as well.
fn a_master_user_gets_in(served: &Served) {
    let wrong = served.reply("root+bob", PASSWORD);
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    served.log_in("root+bob", "master key");
    let nobody = served.reply("root+absent", "master key");
    assert_eq!(nobody, "-ERR [SYS/PERM] There is no such user");
}
