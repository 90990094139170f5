//! Directories that are asked about each name, as far as they need no program of others:
//! a file of `SQLite` that the test makes.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use popcore::auth::{NewScheme, Password};
use rustix::process::Signal;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::runtime::{Builder, Runtime};

use super::client::{Client, PASSWORD};
use super::issuer::Issuer;
use super::oauth::shown;
use super::patience::until;
use super::sasl::{UNBOUND, response, scram};
use super::scrape::Scrape;
use super::server::{PASSWD_FILE, Server, Site};
use super::signer::{Signer, claims, set};

/// A database of users in a file, and a runtime to ask it on.
struct Database {
    runtime: Runtime,
    pool: SqlitePool,
}

impl Database {
    fn make(path: &Path) -> Database {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options = SqliteConnectOptions::new().filename(path);
        let connect = SqlitePool::connect_with(options.create_if_missing(true));
        let pool = runtime.block_on(connect).expect("a database");
        let database = Database { runtime, pool };
        database.run("CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT, home TEXT, mail TEXT, allow_nets TEXT, disabled, node TEXT, login_delay INTEGER, sessions_per_user_and_address INTEGER)");
        database
    }

    fn run(&self, statement: &'static str) {
        let done = sqlx::query(statement).execute(&self.pool);
        self.runtime.block_on(done).expect("done");
    }

    /// A user with a password in clear, and the value of one column more.
    fn add(&self, name: &str, column: &str, value: &str) {
        let statement = match column {
            "mail" => "INSERT INTO users (name, password, mail) VALUES (?, ?, ?)",
            "allow_nets" => "INSERT INTO users (name, password, allow_nets) VALUES (?, ?, ?)",
            "disabled" => "INSERT INTO users (name, password, disabled) VALUES (?, ?, ?)",
            "node" => "INSERT INTO users (name, password, node) VALUES (?, ?, ?)",
            "login_delay" => "INSERT INTO users (name, password, login_delay) VALUES (?, ?, ?)",
            other => panic!("{other}"),
        };
        let password = format!("{{PLAIN}}{PASSWORD}");
        let query = sqlx::query(statement).bind(name).bind(password).bind(value);
        let done = query.execute(&self.pool);
        self.runtime.block_on(done).expect("a new user");
    }
}

impl Database {
    fn set_password(&self, name: &str, password: &str) {
        let query = sqlx::query("INSERT OR REPLACE INTO users (name, password) VALUES (?, ?)");
        let done = query.bind(name).bind(password).execute(&self.pool);
        self.runtime.block_on(done).expect("set");
    }

    fn password(&self, name: &str) -> String {
        let query = sqlx::query_scalar("SELECT password FROM users WHERE name = ?").bind(name);
        let found = self.runtime.block_on(query.fetch_one(&self.pool));
        found.expect("a user")
    }
}

const SQL: &str = "[[auth.directory]]\nkind = \"sql\"\nurl = \"sqlite:users.db\"\n\
                   query = \"SELECT * FROM users WHERE name = {user}\"\n";

fn with_database() -> (Site, Database) {
    let mut site = Site::with_users(&["file"]);
    SQL.clone_into(&mut site.directories);
    let database = Database::make(&site.path().join("users.db"));
    (site, database)
}

fn reply(server: &Server, user: &str, password: &str) -> String {
    let mut client = server.connect();
    client.ok(&format!("USER {user}"));
    client.say(&format!("PASS {password}"))
}

#[test]
fn users_of_a_database_log_in() {
    let (mut site, database) = with_database();
    for (name, column, value) in [
        ("ann@example.net", "mail", ""),
        ("elsewhere", "node", "other.example.net"),
        ("here", "node", "pop.example.net"),
        ("far", "allow_nets", "192.0.2.0/24"),
        ("near", "allow_nets", "192.0.2.0/24,127.0.0.0/8"),
        ("off", "disabled", "The bill is unpaid"),
        ("on", "disabled", "0"),
    ] {
        database.add(name, column, value);
    }
    let mailbox = site.mailbox("apart");
    mailbox.fill(3);
    database.add("moved", "mail", mailbox.path().to_str().expect("UTF-8"));
    database.add("slow", "login_delay", "600");
    database.add("odd", "login_delay", "soon");
    site.limits = "longest_login_delay = \"1h\"".into();
    let server = site.start();
    let mut client = server.log_in("slow");
    assert!(client.rows("CAPA").contains(&"LOGIN-DELAY 600".to_owned()));
    client.quit();
    for user in ["ann@example.net", "near", "on", "here"] {
        server.log_in(user).quit();
    }
    let mut client = server.log_in("moved");
    assert_eq!(client.rows("LIST").len(), 3);
    client.quit();
    let wrong = reply(&server, "ann@example.net", "wrong");
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    for (user, password) in [
        ("nobody", PASSWORD),
        ("far", PASSWORD),
        ("off", "wrong"),
        ("file", PASSWORD),
        ("odd", PASSWORD),
    ] {
        assert_eq!(reply(&server, user, password), wrong, "{user}");
    }
    let disabled = reply(&server, "off", PASSWORD);
    assert_eq!(disabled, "-ERR [SYS/PERM] The bill is unpaid");
    let elsewhere = reply(&server, "elsewhere", PASSWORD);
    assert_eq!(
        elsewhere,
        "-ERR [SYS/PERM] This account is not served by this server"
    );
}

/// A mark such as `*` says more than that there is no password.
#[test]
fn users_without_a_password_log_in_by_a_token_alone() {
    let (mut site, database) = with_database();
    let signer = Signer::new("one");
    std::fs::write(site.path().join("keys.json"), set(&[&signer])).expect("written");
    site.auth = "mechanisms = [\"xoauth2\", \"plain\"]\n";
    site.directories = format!(
        "{SQL}[auth.oauth]\njwks = \"keys.json\"\nissuer = \"https://login.example.net\"\n\
         audience = [\"mail\"]\n"
    );
    database.run(
        "INSERT INTO users (name, password) VALUES ('null@example.net', NULL), \
         ('empty@example.net', ''), ('never@example.net', '*')",
    );
    let server = site.start();
    let wrong = reply(&server, "nobody@example.net", PASSWORD);
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    for (user, is_let_in) in [
        ("null@example.net", true),
        ("empty@example.net", true),
        ("never@example.net", false),
    ] {
        let shown = shown(&server, "XOAUTH2", user, &signer.sign(&claims(user)));
        assert_eq!(shown.starts_with("+OK"), is_let_in, "{user}: {shown}");
        assert_eq!(reply(&server, user, PASSWORD), wrong, "{user}");
    }
}

/// A name is a value, whatever it holds.
#[test]
fn names_that_would_be_statements_find_nobody_and_harm_nothing() {
    let (site, database) = with_database();
    for name in [
        "ann",
        "o'hara",
        "quote\"d",
        "per%cent",
        "back\\slash",
        "{user}",
        "x y",
    ] {
        database.add(name, "mail", "");
    }
    let server = site.start();
    for name in ["o'hara", "quote\"d", "per%cent", "back\\slash", "{user}"] {
        server.log_in(name).quit();
    }
    for name in [
        "ann'OR'1'='1",
        "'OR/**/1=1--",
        "x';DROP/**/TABLE/**/users;--",
        "ann'/*",
        "%",
        "ann%",
        "_nn",
        "$1",
        "?",
    ] {
        let reply = reply(&server, name, PASSWORD);
        assert!(reply.starts_with("-ERR [AUTH] "), "{name}: {reply}");
    }
    server.log_in("ann").quit();
}

/// Directories are asked in their order, whatever they are.
#[test]
fn a_database_stands_before_or_behind_a_file() {
    for (directories, winner) in [
        ([SQL, PASSWD_FILE], "database"),
        ([PASSWD_FILE, SQL], "file"),
    ] {
        let (mut site, database) = with_database();
        site.directories = directories.concat();
        database.add("both", "mail", "");
        database.add("database", "mail", "");
        site.write_users("both:{PLAIN}other\nfile:{PLAIN}secret\n");
        let server = site.start();
        server.log_in("database").quit();
        server.log_in("file").quit();
        let good = if winner == "file" { "other" } else { PASSWORD };
        for password in ["other", PASSWORD] {
            let reply = reply(&server, "both", password);
            assert_eq!(
                reply.starts_with("+OK"),
                password == good,
                "{winner}: {reply}"
            );
        }
        let nobody = reply(&server, "nobody", PASSWORD);
        assert!(nobody.starts_with("-ERR [AUTH] "), "{nobody}");
    }
}

/// A directory that fails says nothing of anybody's password.
#[test]
fn without_its_table_a_database_answers_sys_temp_and_is_back_with_it() {
    let (site, database) = with_database();
    database.add("ann", "mail", "");
    database.add("bob", "mail", "");
    let server = site.start();
    server.log_in("ann").quit();
    database.run("ALTER TABLE users RENAME TO away");
    let label = "directory=\"auth.directory[1]\"";
    let suspended = format!("popcore_directory_suspended{{{label}}}");
    until("it to be left in peace", || {
        // Who is remembered goes on.
        server.log_in_once_free("ann").quit();
        let refused = reply(&server, "bob", PASSWORD);
        assert!(refused.starts_with("-ERR [SYS/TEMP] "), "{refused}");
        let scrape = Scrape::of(server.site.admin());
        (scrape.value(&suspended) == 1).then_some(())
    });
    server.log_line(&[
        "Error",
        "auth.directory[1]",
        "no such table",
        "left in peace",
    ]);
    database.run("ALTER TABLE away RENAME TO users");
    until("bob to log in again", || {
        let mut client = Client::connect(server.site.pop3());
        client.try_log_in("bob").starts_with("+OK").then_some(())
    });
    server.log_line(&["auth.directory[1]", "answers again"]);
    let scrape = Scrape::of(server.site.admin());
    assert_eq!(scrape.value(&suspended), 0);
    for result in ["failed", "spared", "known"] {
        let series = format!("popcore_directory_lookups_total{{{label},result=\"{result}\"}}");
        assert!(scrape.value(&series) > 0, "{series}");
    }
}

/// A user of SCRAM goes on as well while the directory is away: not by a comparison with
/// what was proved before, but by the keys that it was proved to.
#[test]
fn scram_of_who_logged_in_before_goes_on_while_a_directory_is_away() {
    let (mut site, database) = with_database();
    site.auth = "mechanisms = [\"scram-sha-256\", \"scram-sha-1\", \"plain\"]\n";
    let password = Password::new(PASSWORD.as_bytes()).expect("short");
    let stored = NewScheme::ScramSha256.store(&password).to_string();
    for name in ["ann", "bob", "eve"] {
        database.set_password(name, &stored);
    }
    database.set_password("clear", &format!("{{PLAIN}}{PASSWORD}"));
    let server = site.start();
    let log_in = |user: &str, password: &str| {
        until("the maildrop to be free", || {
            let mut client = server.connect();
            let (_, reply) = scram(&mut client, "SCRAM-SHA-256", user, password, &UNBOUND);
            if reply.starts_with("+OK") {
                client.quit();
            }
            (!reply.starts_with("-ERR [IN-USE] ")).then_some(reply)
        })
    };
    for user in ["ann", "clear"] {
        let reply = log_in(user, PASSWORD);
        assert!(reply.starts_with("+OK"), "{reply}");
    }
    // Who was asked about and has proved nothing is not known.
    assert!(log_in("eve", "wrong").starts_with("-ERR [AUTH] "));
    database.run("ALTER TABLE users RENAME TO away");
    for user in ["ann", "clear"] {
        for _ in 0..3 {
            let reply = log_in(user, PASSWORD);
            assert!(reply.starts_with("+OK"), "{reply}");
        }
        assert!(log_in(user, "wrong").starts_with("-ERR [AUTH] "));
    }
    for (mechanism, user) in [
        ("SCRAM-SHA-256", "bob"),
        ("SCRAM-SHA-256", "eve"),
        ("SCRAM-SHA-1", "clear"),
    ] {
        let mut client = server.connect();
        let first = response(format!("n,,n={user},r=abc"));
        let reply = client.say(&format!("AUTH {mechanism} {first}"));
        assert!(
            reply.starts_with("-ERR [SYS/TEMP] "),
            "{mechanism} {user}: {reply}"
        );
    }
    let scrape = Scrape::of(server.site.admin());
    assert_eq!(scrape.value("popcore_auth_cache_stale_total"), 8);
    // When it is back, what it says counts at once.
    database.run("ALTER TABLE away RENAME TO users");
    let other = Password::new(b"another").expect("short");
    database.set_password("ann", &NewScheme::ScramSha256.store(&other));
    until("ann's new password to be good", || {
        let reply = log_in("ann", "another");
        reply.starts_with("+OK").then_some(())
    });
    assert!(log_in("ann", PASSWORD).starts_with("-ERR [AUTH] "));
}

/// So does a master user who was let in to the maildrop before.
#[test]
fn a_master_user_goes_on_while_the_directory_of_the_owner_is_away() {
    let (mut site, database) = with_database();
    site.auth = "cache_ttl = \"1s\"\n";
    site.more = "[[auth.directory]]\nkind = \"passwd-file\"\npath = \"masters\"\nmaster = true\n";
    std::fs::write(site.path().join("masters"), "root:{PLAIN}secret\n").expect("written");
    for name in ["ann", "bob"] {
        database.add(name, "mail", "");
    }
    let server = site.start();
    server.log_in("root*ann").quit();
    database.run("ALTER TABLE users RENAME TO away");
    until("a login that is believed", || {
        server.log_in_once_free("root*ann").quit();
        let scrape = Scrape::of(server.site.admin());
        (scrape.value("popcore_auth_cache_stale_total") > 0).then_some(())
    });
    for (user, password) in [("root*bob", PASSWORD), ("root*ann", "wrong")] {
        let refused = reply(&server, user, password);
        assert!(refused.starts_with("-ERR [SYS/TEMP] "), "{user}: {refused}");
    }
}

/// Of several ways to write a name that are one row there is one maildrop, and one session
/// has it.
#[test]
fn a_user_is_called_what_the_directory_says() {
    let mut site = Site::with_users(&[]);
    site.directories = SQL.replace("SELECT *", "SELECT name AS user, password");
    site.auth = "cache_ttl = \"1h\"\n";
    let database = Database::make(&site.path().join("users.db"));
    database.run("DROP TABLE users");
    database.run("CREATE TABLE users (name TEXT PRIMARY KEY COLLATE NOCASE, password TEXT)");
    database.set_password("bob@example.net", &format!("{{PLAIN}}{PASSWORD}"));
    site.mailbox("bob@example.net").fill(3);
    let server = site.start();
    // Looked up, and remembered under each of them.
    for _ in 0..2 {
        for name in ["bob@example.net", "Bob@Example.net", "BOB@EXAMPLE.NET"] {
            let mut client = server.log_in_once_free(name);
            assert_eq!(client.rows("LIST").len(), 3, "{name}");
            for other in ["bob@example.net", "bOB@example.net"] {
                let mut second = server.connect();
                let reply = second.try_log_in(other);
                assert!(
                    reply.starts_with("-ERR [IN-USE] "),
                    "{name} {other}: {reply}"
                );
            }
            client.quit();
        }
    }
    let scrape = Scrape::of(server.site.admin());
    let asked = "popcore_directory_lookups_total{directory=\"auth.directory[1]\",result=\"known\"}";
    assert_eq!(scrape.value(asked), 4, "each way once");
    server.log_line(&["Logged out", "user=<bob@example.net>"]);
    assert!(!server.log().contains("BOB@"), "{}", server.log());
}

const REHASHES: &str = "popcore_directory_rehashes_total";

fn rehashes(server: &Server, result: &str) -> u64 {
    let label = "directory=\"auth.directory[1]\"";
    let series = format!("{REHASHES}{{{label},result=\"{result}\"}}");
    Scrape::of(server.site.admin()).value(&series)
}

/// Weak stored passwords become strong at a good login; what is strong, what is SCRAM's,
/// and what was changed meanwhile stays.
#[test]
fn weak_stored_passwords_are_replaced_at_a_good_login() {
    let (mut site, database) = with_database();
    site.directories = format!(
        "{SQL}update_query = \"UPDATE users SET password = {{password}} WHERE name = {{user}} \
         AND password = {{old}} AND name <> 'overtaken'\"\n"
    );
    site.auth = "rehash = true\n";
    let made = |scheme: NewScheme| {
        let password = Password::new(PASSWORD.as_bytes()).expect("short");
        scheme.store(&password).to_string()
    };
    let plain = format!("{{PLAIN}}{PASSWORD}");
    let [argon2, scram] = [NewScheme::Argon2id, NewScheme::ScramSha256].map(made);
    for (name, stored) in [
        ("ann", &plain),
        ("wrong", &plain),
        ("overtaken", &plain),
        ("strong", &argon2),
        ("scram", &scram),
    ] {
        database.set_password(name, stored);
    }
    let server = site.start();
    for user in ["ann", "overtaken", "strong", "scram"] {
        server.log_in(user).quit();
    }
    let refused = reply(&server, "wrong", "no password");
    assert!(refused.starts_with("-ERR [AUTH] "), "{refused}");
    until("what is to be replaced to be replaced", || {
        let done = (rehashes(&server, "stored"), rehashes(&server, "overtaken"));
        (done == (1, 1)).then_some(())
    });
    let now = database.password("ann");
    assert!(now.starts_with("{ARGON2ID}$argon2id$"), "{now}");
    for (name, stored) in [
        ("wrong", &plain),
        ("overtaken", &plain),
        ("strong", &argon2),
        ("scram", &scram),
    ] {
        assert_eq!(&database.password(name), stored, "{name}");
    }
    let log = server.log_line(&["the password of user ann is stored as ARGON2ID now"]);
    assert!(!log.contains(PASSWORD) && !log.contains(&now), "{log}");
    // The password is the same one, also when it is looked up.
    let label = "directory=\"auth.directory[1]\"";
    let known = format!("popcore_directory_lookups_total{{{label},result=\"known\"}}");
    let lookups = || Scrape::of(server.site.admin()).value(&known);
    let before = lookups();
    server.signal(Signal::HUP);
    until("ann to be looked up again", || {
        server.log_in_once_free("ann").quit();
        (lookups() > before).then_some(())
    });
    assert!(reply(&server, "ann", "wrong").starts_with("-ERR [AUTH] "));
    assert_eq!(rehashes(&server, "failed"), 0);
}

/// A statement that would lose the password is undone, and not tried again.
#[test]
fn an_update_that_the_query_does_not_read_is_undone() {
    let (mut site, database) = with_database();
    site.directories = format!(
        "{SQL}update_query = \"UPDATE users SET password = 'x' || {{password}} WHERE \
         name = {{user}} AND password = {{old}}\"\n"
    );
    site.auth = "rehash = true\n";
    let plain = format!("{{PLAIN}}{PASSWORD}");
    database.set_password("ann", &plain);
    database.set_password("bob", &plain);
    let server = site.start();
    server.log_in("ann").quit();
    server.log_line(&[
        "Error",
        "auth.directory[1]",
        "query does not read what update_query has stored",
        "undone",
    ]);
    server.log_in("bob").quit();
    server.log_in_once_free("ann").quit();
    assert_eq!(rehashes(&server, "failed"), 1);
    for user in ["ann", "bob"] {
        assert_eq!(database.password(user), plain, "{user}");
    }
}

/// Where SCRAM is offered, passwords in clear are what it needs.
#[test]
fn passwords_in_clear_stay_where_scram_needs_them() {
    let (mut site, database) = with_database();
    site.directories = format!(
        "{SQL}update_query = \"UPDATE users SET password = {{password}} WHERE name = {{user}} \
         AND password = {{old}}\"\n"
    );
    site.auth = "rehash = true\nmechanisms = [\"plain\", \"scram-sha-256\"]\n";
    let plain = format!("{{PLAIN}}{PASSWORD}");
    let digest = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    database.set_password("ann", &plain);
    database.set_password("bob", digest);
    let server = site.start();
    server.log_in("ann").quit();
    let bob = reply(&server, "bob", "secret");
    assert!(bob.starts_with("+OK"), "{bob}");
    until("bob's to be replaced", || {
        (rehashes(&server, "stored") == 1).then_some(())
    });
    assert!(database.password("bob").starts_with("{ARGON2ID}"));
    assert_eq!(database.password("ann"), plain);
}

/// A client at an address of the test's own, in another network than the others.
fn from_afar(server: &Server, host: u8) -> Client {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 99, 99, host], 0))).expect("an address");
    connect(&socket, &server.site.pop3()).expect("a connection");
    let mut client = Client::over(TcpStream::from(socket));
    assert!(client.line().starts_with("+OK "));
    client
}

/// Logins wait for a directory's connections in the lines of their networks, and a
/// directory that is asked too much is not one that fails.
#[test]
fn a_flood_at_a_slow_directory_holds_nobody_else_up() {
    let issuer = Issuer::start();
    issuer.show(Some("{\"result\":\"accepted\"}".to_owned()));
    issuer.slow_down(20);
    let mut site = Site::with_users(&[]);
    site.directories = format!(
        "[[auth.directory]]\nkind = \"http\"\nform = \"json\"\nurl = \"{}\"\n\
         connections = 1\ntimeout = \"1s\"\n",
        issuer.url("/users")
    );
    let server = site.start();
    let mut flood: Vec<_> = (0..200_u8)
        .map(|host| from_afar(&server, host + 1))
        .collect();
    for (number, client) in flood.iter_mut().enumerate() {
        client.send(format!("USER guess{number}\r\nPASS x\r\n"));
    }
    until("the flood to be under way", || {
        (issuer.asked() > 2).then_some(())
    });
    for number in 0..10 {
        server.log_in(&format!("user{number}")).quit();
    }
    let turned_away = flood.iter_mut().filter_map(|client| {
        client.line();
        let reply = client.line();
        assert!(
            reply.starts_with("+OK") || reply.starts_with("-ERR [SYS/TEMP] "),
            "{reply}"
        );
        reply.starts_with("-ERR").then_some(())
    });
    assert!(turned_away.count() > 0, "it was no flood");
    server.log_in("later").quit();
    let scrape = Scrape::of(server.site.admin());
    let value = |series: &str| scrape.value(&format!("popcore_directory_{series}"));
    let directory = "directory=\"auth.directory[1]\"";
    assert_eq!(value(&format!("suspended{{{directory}}}")), 0);
    let lookups =
        |result: &str| value(&format!("lookups_total{{{directory},result=\"{result}\"}}"));
    assert!(lookups("crowded") > 0);
    assert_eq!((lookups("failed"), lookups("spared")), (0, 0));
    server.log_line(&[
        "Warning",
        "auth.directory[1]",
        "all connections were in use",
    ]);
}

/// What a directory that verifies by itself refused is not asked again at each poll, and
/// nobody is let in by it while the directory is away, whoever was before.
#[test]
fn what_a_verifying_directory_refuses_is_remembered_as_refused() {
    let issuer = Issuer::start();
    let mut site = Site::with_users(&["ann"]);
    site.directories = format!(
        "[[auth.directory]]\nkind = \"http\"\nform = \"json\"\nurl = \"{}\"\n",
        issuer.url("/users")
    );
    // Each login that is good is asked again.
    site.auth = "cache_ttl = \"1s\"\n";
    let server = site.start();
    let says = |result: &str| issuer.show(Some(format!("{{\"result\":\"{result}\"}}")));
    says("rejected");
    assert!(reply(&server, "ann", "old").starts_with("-ERR [AUTH] "));
    let asked = issuer.asked();
    assert!(asked > 0);
    for _ in 0..3 {
        assert!(reply(&server, "ann", "old").starts_with("-ERR [AUTH] "));
    }
    assert_eq!(issuer.asked(), asked, "asked again for what was refused");

    says("accepted");
    assert!(reply(&server, "ann", "new").starts_with("+OK"));
    says("rejected");
    until("the login to be asked again", || {
        reply(&server, "ann", "new")
            .starts_with("-ERR [AUTH] ")
            .then_some(())
    });
    issuer.show(None);
    for _ in 0..3 {
        assert!(!reply(&server, "ann", "new").starts_with("+OK"));
    }
}

/// Users in the configuration itself.
#[test]
fn static_users_log_in() {
    let mut site = Site::with_users(&["file"]);
    site.directories = format!(
        "[[auth.directory]]\nkind = \"static\"\n\
         users = [\"ann:{{PLAIN}}{PASSWORD}\", \"off:{{PLAIN}}{PASSWORD}::::::nologin\"]\n{PASSWD_FILE}"
    );
    let server = site.start();
    server.log_in("ann").quit();
    server.log_in("file").quit();
    assert!(reply(&server, "ann", "wrong").starts_with("-ERR [AUTH] "));
    assert!(reply(&server, "off", PASSWORD).starts_with("-ERR [SYS/PERM] "));
}
