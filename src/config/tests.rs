//! Every fault names its line, its key and its remedy.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::maildrop::Retention;
use crate::sasl::Mechanism;

/// A folder with everything a configuration can name.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("users"), "alice:{PLAIN}x\n").expect("written");
        fs::create_dir(path.join("mail")).expect("made");
        let chain = "-----BEGIN CERTIFICATE-----\r\nAA==\r\n-----END CERTIFICATE-----\r\n";
        fs::write(path.join("chain.pem"), chain).expect("written");
        let key = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
        fs::write(path.join("key.pem"), key).expect("written");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("popcore.toml")
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigErrors> {
        self.parse_as(text, false)
    }

    fn parse_as(&self, text: &str, root: bool) -> Result<Config, ConfigErrors> {
        let hostname = "host.example.net".to_owned();
        Config::parse(text, &self.file(), &Process { root, hostname })
    }

    /// The faults as `line: key: problem; remedy`, without the file's name.
    fn faults(&self, text: &str) -> Vec<String> {
        self.faults_as(text, false)
    }

    fn faults_as(&self, text: &str, root: bool) -> Vec<String> {
        let errors = self.parse_as(text, root).expect_err("faults");
        let file = format!("{}:", self.file().display());
        let folder = format!("{}/", self.0.path().display());
        let errors = errors.iter().map(ToString::to_string);
        errors
            .map(|text| {
                let text = text.strip_prefix(&file).expect("the file's name");
                text.replace(&folder, "")
            })
            .collect()
    }
}

/// A valid file in which a test replaces one line or adds some.
const VALID: &str = r#"[server]
hostname = "pop.example.net"
[[listener]]
address = "127.0.0.1:110"
tls = "starttls"
[[tls.certificate]]
chain = "chain.pem"
key = "key.pem"
[auth]
plaintext_without_tls = false
[[auth.directory]]
kind = "passwd-file"
path = "users"
[maildrop]
path = "mail/{domain}/{local}"
[limits]
idle = "10m"
[log]
target = "stderr"
[admin]
listen = "127.0.0.1:9110"
"#;

fn passwd_file(path: PathBuf) -> DirectoryOptions {
    let kind = DirectoryKind::PasswdFile { path };
    DirectoryOptions { kind }
}

/// What the changed file of the next test says of limits.
fn limits(block_list: PathBuf) -> LimitOptions {
    LimitOptions {
        idle: Duration::from_mins(10),
        login: Duration::from_secs(45),
        write_stall: Duration::from_mins(1),
        sessions: SessionLimits {
            per_address: 40,
            per_user: 1,
            per_user_and_address: 3,
            reserved: 50,
            address: Prefixes { v4: 32, v6: 56 },
        },
        network: Prefixes { v4: 20, v6: 44 },
        longest_failure_delay: Duration::from_secs(20),
        visits: VisitLimits {
            login_delay: Duration::from_mins(5),
            longest_login_delay: Duration::from_mins(15),
            poll_interval: Duration::from_secs(30),
            poll_burst: 4,
        },
        exempt: vec!["192.0.2.0/24".parse().expect("a network")],
        block_list: Some(block_list),
    }
}

/// With every key that has a default changed, where it is one of mail or limits.
fn changed() -> String {
    VALID
        .replace("[[listener]]", "shards = 3\nsteering = \"cpu\"\ndrain = \"5s\"\n[[listener]]")
        .replace(
            "[limits]",
            "uidl = [\"name\"]\nmark_seen = true\nundelete = \"14d\"\ntakeover = \"90s\"\nretention = \"30 days after first \
             retrieval\"\nmap_wire_from = 100000\n[limits]\nlogin = \"45s\"\nsessions_per_address = 40\n\
             sessions_per_user_and_address = 3\nreserved_share = 50\naddress_prefix_ipv6 = 56\n\
             network_prefix_ipv4 = 20\nnetwork_prefix_ipv6 = 44\nlongest_failure_delay = \"20s\"\n\
             login_delay = \"5m\"\nlongest_login_delay = \"15m\"\npoll_interval = \"30s\"\npoll_burst = 4\n\
             exempt = [\"192.0.2.0/24\"]\nblock_list = \"blocked\"",
        )
        .replace("\"stderr\"", "\"pop.log\"\nlevel = \"warn\"")
}

#[test]
fn a_whole_file_becomes_plain_data() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.path().join(name);
    fs::write(path("blocked"), "198.51.100.0/24\n").expect("written");
    let text = changed();
    let config = folder.parse(&text).expect("a valid file");
    let users = passwd_file(path("users"));
    let expected = Config {
        file: path("popcore.toml"),
        server: ServerOptions {
            hostname: "pop.example.net".into(),
            shards: Shards::Count(NonZeroUsize::new(3).expect("not 0")),
            steering: Steering::Cpu,
            run_as: None,
            drain: Duration::from_secs(5),
        },
        listeners: vec![ListenerOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 110)),
            tls: TlsMode::Starttls,
        }],
        tls: TlsOptions {
            certificates: vec![CertificateOptions {
                chain: path("chain.pem"),
                key: path("key.pem"),
            }],
            ciphers: Cipher::all().collect(),
            clients: ClientCertificates::None,
            ticket_keys: Vec::new(),
            ticket_lifetime: Duration::from_hours(6),
            kernel: false,
        },
        auth: AuthOptions {
            plaintext_without_tls: false,
            mechanisms: [Mechanism::Plain, Mechanism::Login].into_iter().collect(),
            names: NameRules::default(),
            masters: Vec::new(),
            scram_secret: None,
            apop: false,
            oauth: None,
            failure_delay: Duration::from_secs(2),
            cache: Terms::default(),
            directories: vec![users],
        },
        maildrop: MaildropOptions {
            path: path("mail/{domain}/{local}").display().to_string(),
            index: None,
            uidl: Sources::name(),
            rules: Rules {
                mark_seen: true,
                retention: Retention::parse("30 days after first retrieval").ok(),
                undelete: Some(Duration::from_hours(14 * 24)),
            },
            takeover: Some(Duration::from_secs(90)),
            map_text_from: 1 << 20,
            map_wire_from: 100_000,
        },
        limits: limits(path("blocked")),
        log: LogOptions {
            target: LogTarget::File(path("pop.log")),
            level: LogLevel::Warn,
        },
        admin: Some(AdminOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 9110)),
        }),
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_left_out_has_a_default() {
    let folder = Folder::new();
    let text = "[[listener]]\naddress = \"127.0.0.1:110\"\n\
                [auth]\nplaintext_without_tls = true\n\
                [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
                [maildrop]\npath = \"{home}/Maildir\"\n";
    let config = folder.parse(text).expect("a valid file");
    assert_eq!(config.server.hostname, "host.example.net");
    assert_eq!(config.server.shards, Shards::Auto);
    assert_eq!(config.server.steering, Steering::Hash);
    assert_eq!(config.server.drain, Duration::from_secs(30));
    assert_eq!(config.listeners[0].tls, TlsMode::None);
    assert_eq!(config.maildrop.path, "{home}/Maildir");
    assert_eq!(config.limits.login, Duration::from_mins(1));
    assert_eq!(config.limits.idle, Duration::from_mins(10));
    assert_eq!(config.limits.write_stall, Duration::from_mins(1));
    assert_eq!(config.log.target, LogTarget::Stderr);
    assert_eq!(config.admin, None);
}

/// Replaces the line that begins like `line` does, or adds `line` to the end of
/// the section named, and returns the faults.
fn change(folder: &Folder, section: &str, line: &str) -> Vec<String> {
    let name = line.split(" = ").next().expect("a key");
    let mut lines: Vec<&str> = VALID.lines().collect();
    let header = lines.iter().position(|l| *l == section).expect("a section");
    let is_key = |l: &&str| l.starts_with(&format!("{name} = "));
    let end = lines[header + 1..]
        .iter()
        .position(|l| l.starts_with('['))
        .map_or(lines.len(), |at| header + 1 + at);
    match lines[header..end].iter().position(is_key) {
        Some(at) => lines[header + at] = line,
        None => lines.insert(header + 1, line),
    }
    folder.faults(&lines.join("\n"))
}

/// Section, line put there, the one fault that follows.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "[server]",
        "hostname = \"a b\"",
        "2: server.hostname: \"a b\" is not a host name; set it to the name that clients connect to, such as \"pop.example.net\"",
    ),
    (
        "[server]",
        "hostname = 7",
        "2: server.hostname: is an integer, not a string; put the value in double quotes",
    ),
    (
        "[server]",
        "shards = \"all\"",
        "2: server.shards: \"all\" is not a number of shards; set it to \"auto\" or to a number from 1 to 8192",
    ),
    (
        "[server]",
        "shards = -1",
        "2: server.shards: is an integer, not a string or a whole number from 0; put a name in double quotes, write a number without quotes and sign",
    ),
    (
        "[server]",
        "drain = 30",
        "2: server.drain: is an integer, not a duration with its unit; write a whole number with a unit, in double quotes, such as \"500ms\", \"30s\", \"10m\"",
    ),
    (
        "[server]",
        "steering = \"round-robin\"",
        "2: server.steering: \"round-robin\" is not a way to steer; set it to \"hash\" or \"cpu\"",
    ),
    (
        "[server]",
        "shards = 0",
        "2: server.shards: 0 is not a number of shards; set it to \"auto\" or to a number from 1 to 8192",
    ),
    (
        "[server]",
        "drain = \"30\"",
        "2: server.drain: \"30\" is not a duration; write a whole number with a unit, in double quotes, such as \"500ms\", \"30s\", \"10m\"",
    ),
    (
        "[server]",
        "user = \"root\"",
        "2: server.user: is set, but only root can change to another user; start popcore as root, or remove server.user and server.group",
    ),
    (
        "[server]",
        "group = \"root\"",
        "2: server.group: is set without server.user, so that nothing would use it; set server.user as well, or remove it",
    ),
    (
        "[[listener]]",
        "address = \"localhost:110\"",
        "4: listener[1].address: \"localhost:110\" is not an IP address and port; write numbers, such as \"0.0.0.0:110\" or \"[::]:110\"",
    ),
    (
        "[[listener]]",
        "tls = \"startls\"",
        "5: listener[1].tls: \"startls\" is not a way of TLS; did you mean \"starttls\"?",
    ),
    (
        "[[listener]]",
        "tls = \"none\"",
        "4: listener[1].address: nobody can log in here: there is no TLS, and passwords need it; set tls = \"starttls\", or auth.plaintext_without_tls = true",
    ),
    (
        "[[tls.certificate]]",
        "chain = \"absent.pem\"",
        "7: tls.certificate[1].chain: absent.pem cannot be read: No such file or directory (os error 2); correct the path, or let the user who starts popcore read the file",
    ),
    (
        "[[tls.certificate]]",
        "key = \"chain.pem\"",
        "8: tls.certificate[1].key: chain.pem holds no PEM block \"PRIVATE KEY\"; name the PEM file, not the DER one, and mind that chain and key are not swapped",
    ),
    (
        "[auth]",
        "plaintext_without_tls = \"no\"",
        "10: auth.plaintext_without_tls: is a string, not true or false; write true or false, without quotes",
    ),
    (
        "[auth]",
        "failure_delay = \"1y\"",
        "10: auth.failure_delay: \"1y\" is not a duration; write a whole number with a unit, in double quotes, such as \"500ms\", \"30s\", \"10m\"",
    ),
    (
        "[[auth.directory]]",
        "kind = \"passwdfile\"",
        "12: auth.directory[1].kind: \"passwdfile\" is not a kind of directory; did you mean \"passwd-file\"?",
    ),
    (
        "[[auth.directory]]",
        "path = \"people\"",
        "13: auth.directory[1].path: people cannot be read: No such file or directory (os error 2); correct the path, or let the user who starts popcore read the file",
    ),
    (
        "[maildrop]",
        "path = \"mail/{usr}\"",
        "15: maildrop.path: \"mail/{usr}\" has {usr}, which stands for nothing; use {user}, {local}, {domain} or {home}",
    ),
    (
        "[maildrop]",
        "map_text_from = 0",
        "15: maildrop.map_text_from: is 0; write the size in octets from which on messages are mapped",
    ),
    (
        "[maildrop]",
        "path = \"post/{user}\"",
        "15: maildrop.path: the folder post/ cannot be listed: No such file or directory (os error 2); mount or create it, and let the user who starts popcore read it",
    ),
    (
        "[limits]",
        "idle = \"599s\"",
        "17: limits.idle: is below ten minutes, the shortest autologout RFC 1939 allows; set it to \"10m\" or more, or remove it",
    ),
    (
        "[limits]",
        "login = \"999ms\"",
        "17: limits.login: leaves a client no time to log in; set it to \"1s\" or more, such as \"60s\"",
    ),
    (
        "[limits]",
        "reserved_share = 91",
        "17: limits.reserved_share: is 91, which is out of bounds; set it to a number from 0 to 90",
    ),
    (
        "[limits]",
        "poll_burst = 0",
        "17: limits.poll_burst: is 0, which is out of bounds; set it to a number from 1 to 1000000",
    ),
    (
        "[limits]",
        "exempt = [\"192.0.2/24\"]",
        "17: limits.exempt: \"192.0.2/24\" is not a network such as 192.0.2.0/24 or 2001:db8::/32; write networks as [\"192.0.2.0/24\", \"2001:db8::/32\"]",
    ),
    (
        "[log]",
        "target = \"logs/pop.log\"",
        "19: log.target: the folder logs does not exist; create the folder or correct the path",
    ),
    (
        "[log]",
        "level = \"warning\"",
        "19: log.level: \"warning\" is not a level; set it to one of error, warn, info, debug, trace",
    ),
    (
        "[admin]",
        "listen = \"127.0.0.1:110\"",
        "21: admin.listen: 127.0.0.1:110 is a POP3 listener's address; give one of them another port",
    ),
];

#[test]
fn values_that_are_wrong_name_line_key_and_remedy() {
    let folder = Folder::new();
    for (section, line, expected) in WRONG {
        let faults = change(&folder, section, line);
        assert_eq!(faults, [*expected], "{line}");
    }
}

/// The same for keys whose feature is to come.
const NOT_YET: &[(&str, &str, &str)] = &[
    (
        "[[listener]]",
        "proxy_protocol = true",
        "4: listener[1].proxy_protocol: the PROXY protocol is not there in this version; set it to false or remove it",
    ),
    (
        "[[listener]]",
        "trusted = [\"10.0.0.0/8\"]",
        "4: listener[1].trusted: neither the PROXY protocol nor XCLIENT is there in this version; remove it",
    ),
    (
        "[maildrop]",
        "index = \"/nonexistent/{user}\"",
        "15: maildrop.index: the folder /nonexistent/ cannot be listed: No such file or directory (os error 2); mount or create it, and let the user who starts popcore read it",
    ),
    (
        "[maildrop]",
        "uidl = [\"dovecot\", \"cyrus\"]",
        "15: maildrop.uidl: \"cyrus\" is no source: use \"dovecot\", \"dovecot:FORMAT\", \"courier\", \"tpop3d\" or \"name\"; write it as [\"dovecot\", \"courier\", \"name\"], for example",
    ),
    (
        "[maildrop]",
        "uidl = []",
        "15: maildrop.uidl: names no source; set it to [\"name\"] or remove it",
    ),
    (
        "[maildrop]",
        "retention = \"30d\"",
        "15: maildrop.retention: \"30d\" is not of the form \"30 days after first retrieval\"; write how many days, or remove it to keep messages for ever",
    ),
    (
        "[maildrop]",
        "takeover = \"0s\"",
        "15: maildrop.takeover: is below a second; set it to \"1m\", for example, or remove it",
    ),
    (
        "[maildrop]",
        "undelete = \"0s\"",
        "15: maildrop.undelete: \"0s\" is no time of up to a year; write \"7d\", for example, or remove it",
    ),
    (
        "[log]",
        "target = \"journald\"",
        "19: log.target: \"journald\" is not there in this version; set it to \"stderr\", which systemd passes to the journal, or to a path",
    ),
];

#[test]
fn features_that_are_not_there_yet_say_so() {
    let folder = Folder::new();
    for (section, line, expected) in NOT_YET {
        let faults = change(&folder, section, line);
        assert_eq!(faults, [*expected], "{line}");
    }
}

#[test]
fn the_neutral_values_of_features_not_there_yet_pass() {
    let folder = Folder::new();
    let text = VALID
        .replace(
            "tls = \"starttls\"",
            "tls = \"starttls\"\nproxy_protocol = false\ntrusted = []",
        )
        .replace(
            "[limits]",
            "[limits]\nsessions_per_address = 0\nsessions_per_user = 1",
        );
    assert!(folder.parse(&text).is_ok());
}

#[test]
fn an_unknown_key_names_its_line_and_its_nearest_known_neighbour() {
    let folder = Folder::new();
    assert_eq!(
        change(&folder, "[server]", "hostnmae = \"x\""),
        ["2: server.hostnmae: is not a known key; did you mean \"hostname\"?"]
    );
    assert_eq!(
        change(&folder, "[log]", "colour = true"),
        ["19: log.colour: is not a known key; known here: target, level"]
    );
    assert_eq!(
        folder.faults(&format!("{VALID}[[listeners]]\naddress = \"[::1]:110\"\n")),
        ["22: listeners: is not a known key; did you mean \"listener\"?"]
    );
}

#[test]
fn every_fault_is_reported_at_once() {
    let folder = Folder::new();
    let faults = folder.faults("[server]\ndrain = 5\nshard = 2\n[limits]\nidle = \"1s\"\n");
    let keys: Vec<_> = faults
        .iter()
        .map(|fault| fault.split(": ").next())
        .collect();
    let expected = [Some("2"), Some("3"), Some("5")];
    assert_eq!(keys[..3], expected, "{faults:#?}");
    assert_eq!(
        faults[3..],
        [
            " listener: is missing; add a section [[listener]] with an address such as \"0.0.0.0:110\"",
            " auth.directory: is missing: nobody could log in; add [[auth.directory]] with kind = \"passwd-file\" and a path",
            " maildrop.path: is missing; set it to a path such as \"/var/mail/{domain}/{local}\"",
        ]
    );
}

#[test]
fn text_that_is_no_toml_names_the_line() {
    let folder = Folder::new();
    let faults = folder.faults("[server]\nhostname = \n[log\n");
    assert!(faults[0].starts_with("2: is not TOML: "), "{faults:?}");
    assert!(faults[0].ends_with("; correct the syntax of this line"));
}

#[test]
fn two_listeners_of_one_address_are_a_fault_and_two_of_port_0_are_none() {
    let folder = Folder::new();
    let second = |address: &str| {
        format!("{VALID}[[listener]]\naddress = \"{address}\"\ntls = \"implicit\"\n")
    };
    assert_eq!(
        folder.faults(&second("127.0.0.1:110")),
        [
            "23: listener[2].address: 127.0.0.1:110 is listened on twice; remove one of the two listeners"
        ]
    );
    let zero = second("127.0.0.1:0").replace("127.0.0.1:110", "127.0.0.1:0");
    assert_eq!(folder.parse(&zero).expect("valid").listeners.len(), 2);
}

#[test]
fn a_tls_listener_needs_a_certificate() {
    let folder = Folder::new();
    let without = VALID.replace(
        "[[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n",
        "",
    );
    assert_eq!(
        folder.faults(&without),
        [
            "4: listener[1].address: a listener with TLS needs a certificate; add [[tls.certificate]] with chain and key, or set tls = \"none\""
        ]
    );
}

/// The options of a valid file with these lines in `[tls]`.
fn tls_of(folder: &Folder, lines: &str) -> TlsOptions {
    let text = VALID.replace("[auth]", &format!("[tls]\n{lines}\n[auth]"));
    folder.parse(&text).expect("a valid file").tls
}

fn tls_faults(folder: &Folder, lines: &str) -> Vec<String> {
    folder.faults(&VALID.replace("[auth]", &format!("[tls]\n{lines}\n[auth]")))
}

#[test]
fn certificates_keep_their_order() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.path().join(name);
    fs::copy(path("chain.pem"), path("second.pem")).expect("copied");
    let second = "[[tls.certificate]]\nchain = \"second.pem\"\nkey = \"key.pem\"\n";
    let tls = folder
        .parse(&format!("{VALID}{second}"))
        .expect("valid")
        .tls;
    let chains: Vec<_> = tls.certificates.into_iter().map(|c| c.chain).collect();
    assert_eq!(chains, [path("chain.pem"), path("second.pem")]);
}

#[test]
fn versions_and_ciphers_come_from_the_profile_or_by_name() {
    let folder = Folder::new();
    let modern: Vec<_> = Cipher::all()
        .filter(|cipher| cipher.version() == TlsVersion::Tls13)
        .collect();
    assert_eq!(modern.len(), 3);
    assert_eq!(tls_of(&folder, "profile = \"modern\"").ciphers, modern);
    assert_eq!(tls_of(&folder, "min_version = \"1.3\"").ciphers, modern);
    let all: Vec<_> = Cipher::all().collect();
    assert_eq!(tls_of(&folder, "profile = \"intermediate\"").ciphers, all);
    let named = "ciphers = [\"TLS_AES_256_GCM_SHA384\", \"ECDHE-RSA-AES128-GCM-SHA256\", \
                 \"tls_ecdhe_ecdsa_with_aes_128_gcm_sha256\"]";
    let chosen = [
        Cipher::Aes256GcmSha384,
        Cipher::EcdheRsaAes128GcmSha256,
        Cipher::EcdheEcdsaAes128GcmSha256,
    ];
    assert_eq!(tls_of(&folder, named).ciphers, chosen);
    let modern = format!("profile = \"modern\"\n{named}");
    assert_eq!(tls_of(&folder, &modern).ciphers, chosen[..1]);
}

#[test]
fn clients_and_tickets_are_plain_data() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.path().join(name);
    fs::write(path("tickets"), [7; 80]).expect("written");
    let tls = tls_of(
        &folder,
        "client_certificates = \"optional\"\nclient_ca = \"chain.pem\"\n\
         ticket_keys = [\"tickets\"]\nticket_lifetime = \"1h\"",
    );
    assert_eq!(tls.clients, ClientCertificates::Optional(path("chain.pem")));
    assert_eq!(tls.ticket_keys, [path("tickets")]);
    assert_eq!(tls.ticket_lifetime, Duration::from_hours(1));
    assert!(tls_of(&folder, "kernel = \"auto\"").kernel);
    assert!(!tls_of(&folder, "kernel = \"off\"").kernel);
}

#[test]
fn faults_of_tls_name_their_remedy() {
    let folder = Folder::new();
    fs::write(folder.0.path().join("short"), "x").expect("written");
    for (lines, key, words) in [
        (
            "profile = \"old\"",
            "profile",
            "\"intermediate\" or \"modern\"",
        ),
        ("min_version = \"1.1\"", "min_version", "did you mean"),
        (
            "profile = \"modern\"\nmin_version = \"1.2\"",
            "min_version",
            "set it to \"1.3\"",
        ),
        (
            "ciphers = [\"ECDHE-RSA-AES128-GCM-SHA265\"]",
            "ciphers",
            "did you mean \"ECDHE-RSA-AES128-GCM-SHA256\"?",
        ),
        ("ciphers = []", "ciphers", "TLS_AES_128_GCM_SHA256"),
        (
            "min_version = \"1.3\"\nciphers = [\"ECDHE-RSA-AES128-GCM-SHA256\"]",
            "ciphers",
            "names no cipher suite of a version",
        ),
        (
            "client_certificates = \"required\"",
            "client_ca",
            "is missing",
        ),
        (
            "client_ca = \"chain.pem\"",
            "client_ca",
            "is set, and no client",
        ),
        (
            "ticket_keys = [\"short\"]",
            "ticket_keys",
            "openssl rand -out",
        ),
        (
            "ticket_keys = [\"absent\"]",
            "ticket_keys",
            "cannot be read",
        ),
        (
            "ticket_lifetime = \"1s\"",
            "ticket_lifetime",
            "shorter than 2 s",
        ),
    ] {
        let faults = tls_faults(&folder, lines);
        assert_eq!(faults.len(), 1, "{faults:?}");
        let key = format!(" tls.{key}: ");
        assert!(
            faults[0].contains(&key) && faults[0].contains(words),
            "{faults:?}"
        );
    }
}

#[test]
fn root_may_become_a_user_by_name_or_number() {
    let folder = Folder::new();
    let with = |lines: &str| VALID.replace("[[listener]]", &format!("{lines}\n[[listener]]"));
    let run_as = |lines: &str| {
        let config = folder.parse_as(&with(lines), true).expect("a valid file");
        config.server.run_as.expect("a user")
    };
    // Every Linux has root, and none has an entry for this number.
    let root = run_as("user = \"root\"");
    assert_eq!((root.uid, root.gid), (0, 0));
    let bare = run_as("user = 3999999999\ngroup = 3999999998");
    let expected = RunAs {
        uid: 3_999_999_999,
        gid: 3_999_999_998,
        supplementary: Vec::new(),
    };
    assert_eq!(bare, expected);
    assert_eq!(
        folder.faults_as(&with("user = 3999999999"), true),
        [
            "3: server.user: user 3999999999 has no entry, so its group is not known; set server.group as well"
        ]
    );
    assert_eq!(
        folder.faults_as(
            &with("user = \"no-such-user\"\ngroup = \"no-such-group\""),
            true
        ),
        [
            "3: server.user: there is no user \"no-such-user\"; create it (useradd --system) or name one that exists",
            "4: server.group: there is no group \"no-such-group\"; create it (groupadd --system) or name one that exists",
        ]
    );
    assert_eq!(
        folder.faults_as(&with("user = 4294967295"), true),
        [
            "3: server.user: 4294967295 is not a user's number; use a number below 4294967295 or a name"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let errors = Config::load(Path::new("/nonexistent/popcore.toml")).expect_err("no file");
    assert_eq!(
        errors.to_string(),
        "/nonexistent/popcore.toml: cannot be read: No such file or directory (os error 2); \
         give the path of a configuration file that this user may read"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let folder = PathBuf::from("/nonexistent/popcore.toml");
        let process = Process { root: true, hostname: String::new() };
        prop_assert!(Config::parse(&text, &folder, &process).is_err());
    }

    #[test]
    fn no_mangled_file_makes_it_panic(
        lines in prop::collection::vec((0usize..20, prop::option::of("[a-z\\[\\]{}\"=.0-9 \u{e9}]{0,12}")), 0..30),
    ) {
        let valid: Vec<&str> = VALID.lines().collect();
        let mut text = String::new();
        for (line, junk) in &lines {
            text.push_str(valid[*line]);
            text.push_str(junk.as_deref().unwrap_or_default());
            text.push('\n');
        }
        let folder = PathBuf::from("/nonexistent/popcore.toml");
        let process = Process { root: false, hostname: "h".into() };
        // Nothing below the folder exists, so that no mixture can be valid.
        let errors = Config::parse(&text, &folder, &process).expect_err("faults");
        prop_assert!(errors.iter().all(|e| !e.problem.is_empty() && !e.remedy.is_empty()));
        prop_assert!(errors.iter().all(|e| e.line.is_none_or(|l| l <= lines.len() + 1)));
    }
}
