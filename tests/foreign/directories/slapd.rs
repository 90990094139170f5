//! `OpenLDAP`'s server.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::served::Served;
use super::tls::{certificates, only_its_authority_is_believed};
use super::{
    Halted, MASTER_LOGIN, MASTERS, PASSWORD, Relay, a_master_user_gets_in, an_outage_is_survived,
    end, hung_connections_are_given_up, until, until_listening, users, users_get_in,
};
use crate::site::free_port;

const BASE: &str = "dc=example,dc=net";
const SECRET: &str = "super secret";

/// `slapd` in a folder of its own.
struct Server {
    folder: TempDir,
    port: u16,
    /// With TLS from the first octet.
    port_of_tls: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir(path.join("data")).expect("own folder");
        certificates(path);
        fs::write(path.join("slapd.conf"), configuration(path)).expect("own folder");
        fs::write(path.join("users.ldif"), entries()).expect("own folder");
        let mut add = Command::new("/usr/sbin/slapadd");
        add.arg("-q").arg("-f").arg(path.join("slapd.conf"));
        let output = add
            .arg("-l")
            .arg(path.join("users.ldif"))
            .output()
            .expect("installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let (port, port_of_tls) = (free_port(), free_port());
        let child = run(path, port, port_of_tls);
        Self {
            folder,
            port,
            port_of_tls,
            child,
        }
    }

    fn again(&mut self) {
        self.child = run(self.folder.path(), self.port, self.port_of_tls);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn run(folder: &Path, port: u16, port_of_tls: u16) -> Child {
    let log = fs::File::create(folder.join("log")).expect("own folder");
    let mut slapd = Command::new("/usr/sbin/slapd");
    slapd
        .arg("-h")
        .arg(format!(
            "ldap://127.0.0.1:{port} ldaps://127.0.0.1:{port_of_tls}"
        ))
        .arg("-f")
        .arg(folder.join("slapd.conf"));
    // With a level of debugging it stays in the foreground: 256 tells what it is asked.
    slapd
        .args(["-d", "256"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut child = slapd.spawn().expect("it is installed");
    until_listening(&mut child, port);
    child
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\n\
         modulepath /usr/lib/ldap\nmoduleload back_mdb\n\
         pidfile {folder}/pid\n\
         TLSCertificateFile {folder}/cert.pem\nTLSCertificateKeyFile {folder}/key.pem\n\
         database mdb\nsuffix \"{BASE}\"\ndirectory {folder}/data\nmaxsize 16777216\nindex uid eq\n\
         rootdn \"cn=admin,{BASE}\"\nrootpw \"{SECRET}\"\n\
         access to attrs=userPassword by anonymous auth by * none\n\
         access to * by dn.exact=\"cn=popcore,{BASE}\" read by * none\n"
    )
}

/// What an attribute of popcore is called in this directory.
fn name_of(attribute: &str) -> &str {
    match attribute {
        "allow_nets" => "description",
        "disabled" => "title",
        "node" => "l",
        "login_delay" => "employeeNumber",
        other => panic!("{other}"),
    }
}

fn entries() -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: x\n\n\
         dn: cn=popcore,{BASE}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\n\
         cn: popcore\nuserPassword: {SECRET}\n\n\
         dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"
    );
    for (name, attribute, value) in users() {
        write!(
            text,
            "dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {name}\n\
             cn: {name}\nsn: {name}\nuserPassword: {PASSWORD}\nemployeeType: {{PLAIN}}{PASSWORD}\n"
        )
        .expect("a String");
        if !attribute.is_empty() {
            writeln!(text, "{}: {value}", name_of(attribute)).expect("a String");
        }
        text.push('\n');
    }
    text
}

/// A popcore that asks the server, with keys more.
fn serve(server: &Server, keys: &str) -> Served {
    serve_at(&format!("ldap://127.0.0.1:{}", server.port), "", keys)
}

fn serve_with_masters(server: &Server, keys: &str) -> Served {
    let url = format!("ldap://127.0.0.1:{}", server.port);
    serve_at(&url, MASTER_LOGIN, &format!("{keys}{MASTERS}"))
}

/// The same at a URL, with keys of `[auth]`.
fn serve_at(url: &str, auth: &str, keys: &str) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ldap.password"), SECRET).expect("own folder");
    let section = format!(
        "{auth}[[auth.directory]]\nkind = \"ldap\"\nurl = \"{url}\"\n\
         timeout = \"2s\"\nconnections = 4\n{keys}"
    );
    Served::start(folder, &section)
}

const SEARCH: &str = "bind_dn = \"cn=popcore,dc=example,dc=net\"\npassword_file = \"ldap.password\"\n\
                      base = \"ou=people,dc=example,dc=net\"\n\
                      filter = \"(&(objectClass=inetOrgPerson)(uid={user}))\"\n";

const ATTRIBUTES: &str = "[auth.directory.attributes]\nallow_nets = \"description\"\n\
                          disabled = \"title\"\nnode = \"l\"\nlogin_delay = \"employeeNumber\"\n";

#[test]
fn users_of_slapd_by_bind() {
    let mut server = Server::start();
    let popcore = serve_with_masters(&server, &format!("{SEARCH}{ATTRIBUTES}"));
    users_get_in(&popcore, true);
    a_master_user_gets_in(&popcore);
    let off = popcore.reply("root+off", "master key");
    assert_eq!(off, "-ERR [SYS/PERM] The bill is unpaid");
    // A bind without a password would be anonymous and go well.
    let empty = popcore.reply("bob", "");
    assert!(empty.starts_with("-ERR"), "{empty}");
    let (said, well) = popcore.check();
    assert!(well && said.contains("it answers"), "{said}");
    let halted = RefCell::new(None);
    an_outage_is_survived(
        &popcore,
        || *halted.borrow_mut() = Some(Halted::tree(&server.child)),
        || drop(halted.take()),
    );
    let server = RefCell::new(&mut server);
    an_outage_is_survived(
        &popcore,
        || end(&mut server.borrow_mut().child),
        || server.borrow_mut().again(),
    );
    assert!(!popcore.log().contains(SECRET), "{}", popcore.log());
}

/// A name that nobody has takes as many questions as one that somebody has, without the
/// password, and nobody who is there is tried.
#[test]
fn slapd_is_asked_as_much_about_nobody() {
    let server = Server::start();
    let popcore = serve(&server, SEARCH);
    let binds = || {
        let log = fs::read_to_string(server.folder.path().join("log")).expect("a log");
        let binds = log.lines().filter(|line| line.contains(" method=128"));
        binds.map(str::to_owned).collect::<Vec<_>>()
    };
    // Somebody has to search first.
    let wrong = popcore.reply("bob", "wrong");
    let before = binds();
    assert_eq!(before.len(), 2, "the searcher, and bob: {before:?}");
    assert_eq!(popcore.reply("nobody", "wrong"), wrong);
    let after = binds();
    let [bind] = &after[2..] else {
        panic!("{after:?}");
    };
    assert!(
        bind.contains("cn=popcore-") && !bind.contains("uid="),
        "{bind}"
    );
    // Nothing else comes of it: the directory is there.
    popcore.log_in("bob", PASSWORD);
}

#[test]
fn connections_to_slapd_that_hang_are_given_up() {
    let server = Server::start();
    let stored = "verify = \"stored\"\n";
    let password = "[auth.directory.attributes]\npassword = \"employeeType\"\n";
    for keys in [SEARCH.to_owned(), format!("{stored}{SEARCH}{password}")] {
        let relay = Relay::to(server.port);
        let popcore = serve_at(&format!("ldap://127.0.0.1:{}", relay.port), "", &keys);
        hung_connections_are_given_up(&popcore, || relay.silence());
    }
}

#[test]
fn users_of_slapd_by_their_stored_password() {
    let server = Server::start();
    let stored = "verify = \"stored\"\n";
    let password = "password = \"employeeType\"\n";
    let popcore = serve(&server, &format!("{stored}{SEARCH}{ATTRIBUTES}{password}"));
    users_get_in(&popcore, true);
}

#[test]
fn users_of_slapd_behind_tls() {
    let server = Server::start();
    let folder = server.folder.path();
    for (url, starttls) in [
        (format!("ldaps://127.0.0.1:{}", server.port_of_tls), false),
        (format!("ldap://127.0.0.1:{}", server.port), true),
    ] {
        only_its_authority_is_believed(folder, |ca| {
            let ca = ca.display();
            let keys = format!("ca = \"{ca}\"\nstarttls = {starttls}\n{SEARCH}{ATTRIBUTES}");
            serve_at(&url, "", &keys)
        });
    }
}

#[test]
fn users_of_slapd_by_the_names_of_their_entries() {
    let server = Server::start();
    let named = "user_dn = \"uid={user},ou=people,dc=example,dc=net\"\n";
    // Whether an entry is there is asked as somebody who may see it.
    let searcher =
        "bind_dn = \"cn=popcore,dc=example,dc=net\"\npassword_file = \"ldap.password\"\n";
    let popcore = serve_with_masters(&server, &format!("{named}{searcher}"));
    users_get_in(&popcore, false);
    a_master_user_gets_in(&popcore);
    // What the entries say counts behind a bind as well.
    let popcore = serve(&server, &format!("{named}{searcher}{ATTRIBUTES}"));
    users_get_in(&popcore, true);
    // An anonymous may not read them, and who may log in cannot be told without.
    let popcore = serve(&server, &format!("{named}{ATTRIBUTES}"));
    let refused = popcore.reply("bob", PASSWORD);
    assert!(refused.starts_with("-ERR [AUTH] "), "{refused}");
    until("the log to say so", || {
        let why = "user bob: the password is right, and bind_dn cannot";
        popcore.log().contains(why).then_some(())
    });
}
