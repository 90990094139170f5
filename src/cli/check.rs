//! `popcore check`: what is wrong with a configuration, without touching
//! anything that a running server uses.
//!
//! Each directory of users is asked once, and one that does not answer is a fault:
//! nobody could log in. So is a certificate that has expired, or that no cipher suite
//! goes with: no client would take it.
//!
//! Whether an address is free is not tried: to find out is to take it, if only
//! for a moment.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::auth::{self, DirectoryError, OauthOptions, OauthProbe};
use crate::config::{AuthOptions, Config, ConfigErrors, DirectoryOptions, Shards, TlsMode};
use crate::sasl::Mechanism;
use crate::tls::{self, Facts};

pub(super) fn run(path: &Path) -> ExitCode {
    let (text, code) = report(path, Config::load(path));
    super::say(&text);
    code
}

fn report(path: &Path, config: Result<Config, ConfigErrors>) -> (String, ExitCode) {
    match config {
        Ok(config) => match tls::inspect(&config.tls) {
            Ok(certificates) => {
                let (text, is_sound) = summary(path, &config, &certificates);
                let code = if is_sound {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                };
                (text, code)
            }
            Err(faults) => {
                let lines = faults.iter().map(|fault| format!("{fault}\n"));
                (lines.collect(), ExitCode::FAILURE)
            }
        },
        Err(errors) => (format!("{errors}\n"), ExitCode::FAILURE),
    }
}

/// What the configuration says, and whether every directory answers and every certificate
/// is in its time.
fn summary(path: &Path, config: &Config, certificates: &[Facts]) -> (String, bool) {
    let mut text = String::new();
    let mut line = |text_of_line: String| {
        writeln!(text, "  {text_of_line}").expect("a String takes every write");
    };
    let shards = match config.server.shards {
        Shards::Auto => "one shard per CPU".to_owned(),
        Shards::Count(count) => format!("shards: {count}"),
    };
    line(format!("{}, {shards}", config.server.hostname));
    for listener in &config.listeners {
        let tls = match listener.tls {
            TlsMode::None => "without TLS",
            TlsMode::Starttls => "STLS offered",
            TlsMode::Implicit => "TLS from the first byte",
        };
        line(format!("listens on {}, {tls}", listener.address));
    }
    let mut is_sound = true;
    let now = SystemTime::now();
    for certificate in certificates {
        let days = match certificate.days_left(now) {
            ..0 => {
                is_sound = false;
                "HAS EXPIRED: renew it".to_owned()
            }
            days => format!("{days} days left"),
        };
        line(format!("certificate {certificate}: {days}"));
    }
    for directory in config.auth.directories.iter().chain(&config.auth.masters) {
        let answer = match auth::probe(directory) {
            Ok(probe) => format!("{probe}{}", shortcomings(&config.auth, directory)),
            Err(error) => {
                is_sound = false;
                format!("NO ANSWER: {error}")
            }
        };
        line(format!("users from {}: {answer}", directory.kind));
    }
    if let Some(oauth) = &config.auth.oauth {
        let found = auth::probe_oauth(oauth);
        is_sound &= found.is_ok();
        line(format!("tokens by {}", tokens(oauth, &found)));
    }
    line(format!("mail in {}", config.maildrop.path));
    if let Some(index) = &config.maildrop.index {
        line(format!("indexes in {index}"));
    }
    if let Some(run_as) = &config.server.run_as {
        line(format!("runs as user {}, group {}", run_as.uid, run_as.gid));
    }
    if let Some(admin) = &config.admin {
        line(format!("metrics and health on {}", admin.listen));
    }
    let verdict = if is_sound { "ok" } else { "NOT SOUND" };
    (format!("{}: {verdict}\n{text}", path.display()), is_sound)
}

/// By what tokens are verified.
fn tokens(options: &OauthOptions, found: &Result<OauthProbe, DirectoryError>) -> String {
    match found {
        Ok(probe) => probe.to_string(),
        Err(error) => format!("{}: NO ANSWER: {error}", options.source),
    }
}

/// The mechanisms by which the users of a directory cannot log in although they are
/// offered.
fn shortcomings(auth: &AuthOptions, directory: &DirectoryOptions) -> String {
    let stored = directory.kind.tells_stored();
    let users = directory.kind.tells_users();
    let lacks = |mechanism: &Mechanism| match mechanism {
        mechanism if mechanism.needs_no_password() => !users,
        mechanism => mechanism.needs_stored() && !stored,
    };
    let sasl = auth.mechanisms.iter().filter(lacks).map(Mechanism::name);
    let apop = (auth.apop && !stored).then_some("APOP");
    let names: Vec<_> = sasl.chain(apop).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "; it verifies by itself: NO {} for its users",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_good_file_is_ok_with_its_summary() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("popcore.toml");
        fs::write(folder.path().join("users"), "").expect("written");
        let text = "[server]\nhostname = \"h\"\nshards = 2\n\
                    [[listener]]\naddress = \"127.0.0.1:110\"\n\
                    [auth]\nplaintext_without_tls = true\n\
                    [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
                    [maildrop]\npath = \"{home}/Maildir\"\n";
        fs::write(&path, text).expect("written");
        let (text, code) = report(&path, Config::load(&path));
        assert_eq!(code, ExitCode::SUCCESS);
        let (path, users) = (path.display(), folder.path().join("users"));
        let users = users.display();
        assert_eq!(
            text,
            format!(
                "{path}: ok\n  h, shards: 2\n  listens on 127.0.0.1:110, without TLS\n  \
                 users from {users}: 0 users, 0 locked\n  mail in {{home}}/Maildir\n"
            )
        );
    }

    #[test]
    fn a_faulty_file_lists_its_faults_and_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("popcore.toml");
        fs::write(&path, "[server]\ncolour = 1\n").expect("written");
        let (text, code) = report(&path, Config::load(&path));
        assert_eq!(code, ExitCode::FAILURE);
        let first = format!("{}:2: server.colour: is not a known key; ", path.display());
        assert!(text.starts_with(&first), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
