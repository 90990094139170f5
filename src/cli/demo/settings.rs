//! The demo's configuration file, and what to type once it serves.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::folder::{LOAD_PASSWORD, LOAD_USERS, PEOPLE};
use crate::config::TlsMode;

/// Where the demo listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) pop3: u16,
    pub(super) pop3s: u16,
    pub(super) admin: u16,
}

/// Where the log goes: to the terminal, or out of the way of a load's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogTo {
    Terminal,
    File,
}

/// The text of `popcore.toml`; it also serves with `popcore serve --config`.
pub(super) fn configuration(ports: Ports, ipv6: bool, log: LogTo) -> String {
    let mut text = String::from(
        "# Written by `popcore demo` at each start. For loopback only: passwords may be\n\
         # sent without TLS.\n\n[server]\nhostname = \"localhost\"\ndrain = \"5s\"\n",
    );
    let mut hosts = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if ipv6 {
        hosts.push(Ipv6Addr::LOCALHOST.into());
    }
    for (port, tls) in [(ports.pop3, "starttls"), (ports.pop3s, "implicit")] {
        for host in &hosts {
            let address = SocketAddr::new(*host, port);
            write!(
                text,
                "\n[[listener]]\naddress = \"{address}\"\ntls = \"{tls}\"\n"
            )
            .expect("a String takes every write");
        }
    }
    let log = match log {
        LogTo::Terminal => "stderr",
        LogTo::File => "popcore.log",
    };
    write!(
        text,
        "\n[[tls.certificate]]\nchain = \"certificate.pem\"\nkey = \"key.pem\"\n\
         \n[auth]\nplaintext_without_tls = true\n\
         \n[[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
         \n[maildrop]\npath = \"mail/{{user}}\"\n\
         \n[log]\ntarget = \"{log}\"\n\
         \n[admin]\nlisten = \"127.0.0.1:{}\"\n",
        ports.admin
    )
    .expect("a String takes every write");
    text
}

/// The arguments of a ten-second run of the load generator.
pub(super) fn load_arguments(target: SocketAddr) -> Vec<String> {
    let last = LOAD_USERS - 1;
    [
        "--target",
        &target.to_string(),
        "--sessions",
        "16",
        "--duration",
        "10",
        "--profile",
        "poll",
        "--users",
        &format!("user{{0..{last}}}"),
        "--password",
        LOAD_PASSWORD,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What the server listens on, and where the rest is.
pub(super) struct Running<'a> {
    pub(super) folder: &'a Path,
    pub(super) listeners: &'a [(SocketAddr, TlsMode)],
    pub(super) admin: Option<SocketAddr>,
    /// How to call the load generator.
    pub(super) loadgen: &'a str,
}

impl Running<'_> {
    /// The first address with this kind of TLS.
    pub(super) fn first(&self, mode: TlsMode) -> Option<SocketAddr> {
        let found = self.listeners.iter().find(|(_, tls)| *tls == mode);
        found.map(|(address, _)| *address)
    }

    /// What to type next.
    pub(super) fn instructions(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes every write");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let folder = self.folder.display();
        writeln!(
            out,
            "popcore serves made-up mail on loopback; Ctrl-C ends it."
        )?;
        writeln!(
            out,
            "Its files are in {folder}; remove the folder to start afresh.\n"
        )?;
        writeln!(out, "Users:")?;
        for person in PEOPLE {
            let (name, password, scheme) = (person.name, person.password, person.scheme.name());
            writeln!(out, "  {name:<8} password {password:?}, stored as {scheme}")?;
        }
        let last = LOAD_USERS - 1;
        writeln!(
            out,
            "  user0 to user{last}, password {LOAD_PASSWORD:?}, for the load generator\n"
        )?;
        writeln!(out, "Type next, in another terminal:")?;
        let certificate = format!(
            "--cacert '{}'",
            self.folder.join("certificate.pem").display()
        );
        if let Some(pop3) = self.first(TlsMode::Starttls) {
            let port = pop3.port();
            writeln!(out, "  curl -u alice:demo pop3://{pop3}/")?;
            writeln!(
                out,
                "  curl {certificate} --ssl-reqd -u alice:demo pop3://localhost:{port}/1"
            )?;
        }
        if let Some(pop3s) = self.first(TlsMode::Implicit) {
            let port = pop3s.port();
            writeln!(
                out,
                "  curl {certificate} -u alice:demo pop3s://localhost:{port}/1"
            )?;
        }
        if let Some(admin) = self.admin {
            writeln!(out, "  curl http://{admin}/metrics")?;
        }
        if let Some(pop3) = self.first(TlsMode::Starttls) {
            let arguments = load_arguments(pop3).into_iter().map(|word| {
                if word.contains(['{', '}']) {
                    format!("'{word}'")
                } else {
                    word
                }
            });
            let arguments: Vec<_> = arguments.collect();
            writeln!(out, "  {} {}", self.loadgen, arguments.join(" "))?;
        }
        self.write_client(out)
    }

    fn write_client(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nA mail client's settings:")?;
        writeln!(
            out,
            "  POP3 server localhost, user alice, password demo (\"normal password\")"
        )?;
        if let Some(pop3s) = self.first(TlsMode::Implicit) {
            writeln!(out, "  port {} with SSL/TLS", pop3s.port())?;
        }
        if let Some(pop3) = self.first(TlsMode::Starttls) {
            writeln!(
                out,
                "  port {} with STARTTLS, or without encryption",
                pop3.port()
            )?;
        }
        writeln!(
            out,
            "  The certificate is self-signed: accept it when asked."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        pop3: 1110,
        pop3s: 1995,
        admin: 9110,
    };

    #[test]
    fn instructions_name_every_address_and_command() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let running = Running {
            folder: Path::new("/srv/d"),
            listeners: &[
                (address(1110), TlsMode::Starttls),
                (address(1995), TlsMode::Implicit),
            ],
            admin: Some(address(9110)),
            loadgen: "popcore-loadgen",
        };
        let text = running.instructions();
        for part in [
            "alice    password \"demo\", stored as {PLAIN}",
            "dave     password \"two words\", stored as {ARGON2ID}",
            "  curl -u alice:demo pop3://127.0.0.1:1110/\n",
            "  curl --cacert '/srv/d/certificate.pem' --ssl-reqd -u alice:demo pop3://localhost:1110/1\n",
            "  curl --cacert '/srv/d/certificate.pem' -u alice:demo pop3s://localhost:1995/1\n",
            "  curl http://127.0.0.1:9110/metrics\n",
            "  popcore-loadgen --target 127.0.0.1:1110 --sessions 16 --duration 10 --profile poll --users 'user{0..199}' --password demo\n",
            "  port 1995 with SSL/TLS\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn ipv6_is_listened_on_where_there_is_any() {
        let with = configuration(PORTS, true, LogTo::Terminal);
        assert_eq!(with.matches("[[listener]]").count(), 4);
        assert!(with.contains("\"[::1]:1995\"") && with.contains("target = \"stderr\""));
        let without = configuration(PORTS, false, LogTo::File);
        assert_eq!(without.matches("[[listener]]").count(), 2);
        assert!(!without.contains("::1") && without.contains("target = \"popcore.log\""));
    }
}
