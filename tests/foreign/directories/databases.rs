//! `PostgreSQL` and `MariaDB`.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::served::Served;
use super::tls::{certificates, only_its_authority_is_believed};
use super::{
    Halted, PASSWORD, Relay, an_outage_is_survived, end, hung_connections_are_given_up, until,
    until_listening, users, users_get_in,
};
use crate::site::{NOBODY, free_port, give_to_nobody};

/// A database server in a folder of its own.
struct Server {
    folder: TempDir,
    port: u16,
    command: fn(&Path, u16) -> Command,
    child: Child,
}

impl Server {
    fn start(folder: TempDir, command: fn(&Path, u16) -> Command) -> Self {
        give_to_nobody(folder.path());
        let port = free_port();
        let mut child = run(&mut command(folder.path(), port), folder.path());
        until_listening(&mut child, port);
        Self {
            folder,
            port,
            command,
            child,
        }
    }

    fn again(&mut self) {
        let mut command = (self.command)(self.folder.path(), self.port);
        self.child = run(&mut command, self.folder.path());
        until_listening(&mut self.child, self.port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn run(command: &mut Command, folder: &Path) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    let log = log.expect("own folder");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log);
    command.spawn().expect("it is installed")
}

/// A command as nobody: these servers refuse to be root's.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
    command
        .args(ids)
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

fn well(command: &mut Command) {
    let output = command.output().expect("it is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Debian keeps the programs of each version apart.
fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let newest = versions.map(|entry| entry.expect("an entry").path()).max();
    newest.expect("a version").join("bin").join(program)
}

fn postgres_server(folder: &Path, port: u16) -> Command {
    let mut command = as_nobody(&postgres("postgres"));
    command.arg("-D").arg(folder.join("data"));
    command
        .arg("-k")
        .arg(folder)
        .args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    for (name, file) in [("ssl_cert_file", "cert.pem"), ("ssl_key_file", "key.pem")] {
        let setting = format!("{name}={}", folder.join(file).display());
        command.args(["-c", &setting]);
    }
    // Not in the memory that all share, where a server that is killed leaves it.
    command.args(["-c", "ssl=on", "-c", "dynamic_shared_memory_type=mmap"]);
    command
}

fn mariadb_server(folder: &Path, port: u16) -> Command {
    let mut command = as_nobody(Path::new("/usr/sbin/mariadbd"));
    command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", folder.join("data").display()));
    command.arg(format!("--socket={}", folder.join("socket").display()));
    command.arg(format!("--pid-file={}", folder.join("pid").display()));
    command.args(["--bind-address=127.0.0.1", &format!("--port={port}")]);
    for (name, file) in [("cert", "cert.pem"), ("key", "key.pem")] {
        command.arg(format!("--ssl-{name}={}", folder.join(file).display()));
    }
    command.args(["--innodb-buffer-pool-size=16M", "--skip-log-bin"]);
    command
}

/// The table and its users; `flag` is what the database calls a truth.
fn statements() -> String {
    let mut text = String::from(
        "CREATE TABLE users (name VARCHAR(255) PRIMARY KEY, password VARCHAR(255), \
         home VARCHAR(255), allow_nets VARCHAR(255), disabled VARCHAR(255), \
         node VARCHAR(255), login_delay INTEGER, quota BIGINT, active BOOLEAN);\n",
    );
    for (name, attribute, value) in users() {
        let name = name.replace('\'', "''");
        let (column, value) = match attribute {
            "" => (String::new(), String::new()),
            _ => (format!(", {attribute}"), format!(", '{value}'")),
        };
        writeln!(
            text,
            "INSERT INTO users (name, password, quota, active{column}) \
             VALUES ('{name}', '{{PLAIN}}{PASSWORD}', 5, TRUE{value});"
        )
        .expect("a String");
    }
    text
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("popcore").tempdir();
    let folder = folder.expect("a folder");
    certificates(folder.path());
    // What a server will have of a key that others may read is nothing.
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(folder.path().join("key.pem"), mode).expect("own file");
    folder
}

fn start_postgres() -> Server {
    let folder = folder();
    give_to_nobody(folder.path());
    let secret = folder.path().join("secret");
    fs::write(&secret, "super secret\n").expect("own folder");
    give_to_nobody(folder.path());
    let mut init = as_nobody(&postgres("initdb"));
    init.args([
        "-U",
        "mail",
        "-A",
        "scram-sha-256",
        "--no-sync",
        "--no-locale",
        "-E",
        "UTF8",
    ]);
    init.arg(format!("--pwfile={}", secret.display()))
        .arg("-D")
        .arg(folder.path().join("data"));
    well(init.current_dir(folder.path()));
    let server = Server::start(folder, postgres_server);
    let statements_file = server.folder.path().join("statements");
    fs::write(&statements_file, statements()).expect("own folder");
    until("PostgreSQL to take statements", || {
        let mut psql = Command::new(postgres("psql"));
        psql.env("PGPASSWORD", "super secret")
            .args(["-h", "127.0.0.1", "-U", "mail", "-q"]);
        psql.args([
            "-v",
            "ON_ERROR_STOP=1",
            "-1",
            "-p",
            &server.port.to_string(),
            "-d",
            "postgres",
        ]);
        let output = psql
            .arg("-f")
            .arg(&statements_file)
            .output()
            .expect("installed");
        output.status.success().then_some(())
    });
    server
}

fn start_mariadb() -> Server {
    let folder = folder();
    give_to_nobody(folder.path());
    let mut install = as_nobody(Path::new("/usr/bin/mariadb-install-db"));
    install
        .arg("--no-defaults")
        .arg("--auth-root-authentication-method=normal");
    install.arg("--skip-test-db").arg(format!(
        "--datadir={}",
        folder.path().join("data").display()
    ));
    well(install.current_dir(folder.path()));
    let server = Server::start(folder, mariadb_server);
    let unsigned = statements().replace("delay INTEGER", "delay INTEGER UNSIGNED");
    let text = format!(
        "CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;\n{unsigned}\
         CREATE USER popcore@'127.0.0.1' IDENTIFIED BY 'super secret';\n\
         GRANT SELECT, UPDATE ON mail.* TO popcore@'127.0.0.1';\n"
    );
    let statements_file = server.folder.path().join("statements");
    fs::write(&statements_file, text).expect("own folder");
    let mut client = Command::new("/usr/bin/mariadb");
    client.args(["--no-defaults", "-u", "root"]);
    client.arg(format!(
        "--socket={}",
        server.folder.path().join("socket").display()
    ));
    client.stdin(fs::File::open(statements_file).expect("own folder"));
    well(&mut client);
    server
}

/// Whom a popcore believes that connects by this URL: the parameters of the URL.
fn believing(url: &str, ca: &Path) -> String {
    let ca = ca.display();
    let (place, _) = url.split_once('?').unwrap_or((url, ""));
    if url.starts_with("mysql") {
        format!("{place}?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}")
    } else {
        format!("{place}?sslmode=verify-full&sslrootcert={ca}")
    }
}

/// A weak stored password becomes a strong one, and is the same password.
fn a_weak_password_becomes_strong(url: &str) {
    let update = "rehash = true\n";
    let statement = "update_query = \"UPDATE users SET password = {password} \
                     WHERE name = {user} AND password = {old}\"\n";
    let popcore = serve_with(url, update, statement);
    popcore.log_in("cat", PASSWORD);
    until("the password to be stored anew", || {
        let line = "the password of user cat is stored as ARGON2ID now";
        popcore.log().contains(line).then_some(())
    });
    assert!(!popcore.log().contains("$argon2"), "{}", popcore.log());
    drop(popcore);
    let popcore = serve(url);
    let wrong = popcore.reply("cat", "wrong");
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    popcore.log_in("cat", PASSWORD);
}

fn serve(url: &str) -> Served {
    serve_with(url, "", "")
}

/// With keys more of `[auth]` and of the directory.
fn serve_with(url: &str, auth: &str, keys: &str) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sql.password"), "super secret\n").expect("own folder");
    let section = format!(
        "{auth}[[auth.directory]]\nkind = \"sql\"\nurl = \"{url}\"\n\
         password_file = \"sql.password\"\ntimeout = \"2s\"\nconnections = 4\n\
         query = \"SELECT * FROM users WHERE name = {{user}}\"\n{keys}"
    );
    Served::start(folder, &section)
}

fn everything(mut server: Server, url: &str) {
    let popcore = serve(url);
    users_get_in(&popcore, true);
    let (said, well) = popcore.check();
    assert!(well && said.contains("it answers"), "{said}");
    a_weak_password_becomes_strong(url);
    only_its_authority_is_believed(server.folder.path(), |ca| serve(&believing(url, ca)));
    let halted = RefCell::new(None);
    an_outage_is_survived(
        &popcore,
        || *halted.borrow_mut() = Some(Halted::tree(&server.child)),
        || drop(halted.take()),
    );
    let relay = Relay::to(server.port);
    let far = serve(&url.replace(&server.port.to_string(), &relay.port.to_string()));
    hung_connections_are_given_up(&far, || relay.silence());
    drop(far);
    let server = RefCell::new(&mut server);
    an_outage_is_survived(
        &popcore,
        || end(&mut server.borrow_mut().child),
        || server.borrow_mut().again(),
    );
    end(&mut server.borrow_mut().child);
    let (said, well) = popcore.check();
    assert!(!well && said.contains("NO ANSWER"), "{said}");
    assert!(!said.contains("super secret"), "{said}");
    assert!(!popcore.log().contains("super secret"), "{}", popcore.log());
}

#[test]
fn users_of_postgresql() {
    let server = start_postgres();
    let port = server.port;
    everything(
        server,
        &format!("postgres://mail@127.0.0.1:{port}/postgres?sslmode=disable"),
    );
}

/// Each connection has a process of its own there, and those that stand still are no reason
/// not to ask others.
#[test]
fn processes_of_postgresql_that_hang_are_given_up() {
    let server = start_postgres();
    let port = server.port;
    let url = format!("postgres://mail@127.0.0.1:{port}/postgres?sslmode=disable");
    let popcore = serve(&url);
    let mut halted = None;
    hung_connections_are_given_up(&popcore, || {
        halted = Some(Halted::children(&server.child, "postgres: mail "));
    });
}

#[test]
fn users_of_mariadb() {
    let server = start_mariadb();
    let port = server.port;
    everything(server, &format!("mysql://popcore@127.0.0.1:{port}/mail"));
}
