//! PAM as Debian has it, with its `pam_unix`: users of a system that only the popcore of
//! the test sees, in a mount namespace with another passwd and shadow.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::served::{Client, Served};
use super::{
    MASTER_LOGIN, MASTERS, PASSWORD, a_master_user_gets_in, an_outage_is_survived, users,
    users_get_in,
};

/// Users more, and what stands in shadow(5) behind their hash.
const AGED: [(&str, &str, &str); 3] = [
    ("gone", ":19000:0:99999:7::1:", "This account has expired"),
    (
        "old",
        ":1:0:1:7:::",
        "The password has expired; set a new one",
    ),
    (
        "new",
        ":0:0:99999:7:::",
        "The password has expired; set a new one",
    ),
];

fn hash(folder: &Path) -> String {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).expect("own folder");
    let output = Command::new("openssl")
        .args(["passwd", "-6", "-salt", "saltsalt", "-in"])
        .arg(&password)
        .output()
        .expect("it is installed");
    assert!(output.status.success());
    let hash = String::from_utf8(output.stdout).expect("ASCII");
    hash.trim_end().to_owned()
}

/// The users of the system, and a service that notes what it is told of each login, and
/// that hangs as long as there is a file `closed`.
fn system() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let hash = hash(path);
    let (mut passwd, mut shadow) = (String::new(), String::new());
    let names = users().map(|(name, ..)| (name, ":19000:0:99999:7:::"));
    let aged = AGED.map(|(name, rest, _)| (name.to_owned(), rest));
    writeln!(passwd, "root:x:0:0::/root:/bin/sh").expect("a String");
    for (number, (name, rest)) in names.chain(aged).enumerate() {
        let home = path.join("homes").join(number.to_string());
        let mail = home.join("Maildir/new");
        fs::create_dir_all(&mail).expect("own folder");
        fs::write(mail.join("1.M1P1.host"), "Subject: hello\n\nhello\n").expect("own folder");
        let number = 60_000 + number;
        let home = home.display();
        writeln!(passwd, "{name}:x:{number}:{number}::{home}:/bin/false").expect("a String");
        writeln!(shadow, "{name}:{hash}{rest}").expect("a String");
    }
    fs::write(path.join("passwd"), passwd).expect("own folder");
    fs::write(path.join("shadow"), shadow).expect("own folder");
    let gate = format!(
        "#!/bin/sh\necho \"$PAM_USER $PAM_RHOST $PAM_TTY $PAM_SERVICE\" >> {0}/told\n\
         [ ! -e {0}/closed ] || sleep 3\n",
        path.display()
    );
    fs::write(path.join("gate"), gate).expect("own folder");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path.join("gate"), mode).expect("own file");
    fs::create_dir(path.join("services")).expect("own folder");
    let service = format!(
        "auth required pam_exec.so quiet {}/gate\n\
         auth required pam_unix.so\naccount required pam_unix.so\n",
        path.display()
    );
    fs::write(path.join("services/mail"), service).expect("own folder");
    folder
}

fn serve(system: TempDir) -> Served {
    let path = system.path().display().to_string();
    let become_popcore = format!(
        "mount --bind {path}/passwd /etc/passwd && mount --bind {path}/shadow /etc/shadow && \
         exec \"$@\""
    );
    let command = ["unshare", "--mount", "sh", "-c", &become_popcore, "sh"];
    let section = "[[auth.directory]]\nkind = \"pam\"\nservice = \"mail\"\nfolder = \"services\"\n\
                   timeout = \"1s\"\nconnections = 4\n";
    let section = format!("{MASTER_LOGIN}{section}{MASTERS}");
    Served::start_as(&command, "{home}/Maildir", system, &section)
}

#[test]
fn users_of_the_system_by_pam() {
    let system = system();
    let folder = system.path().to_owned();
    let popcore = serve(system);
    users_get_in(&popcore, false);
    a_master_user_gets_in(&popcore);
    let expired = popcore.reply("root+gone", "master key");
    assert_eq!(expired, "-ERR [SYS/PERM] This account has expired");
    // Mail is where the system has their homes.
    let mut client = Client::connect(popcore.pop3());
    assert!(client.log_in("near", PASSWORD).starts_with("+OK"));
    assert_eq!(client.say("STAT"), "+OK 1 25");
    client.quit();
    let told = fs::read_to_string(folder.join("told")).expect("it was told");
    assert!(told.contains("o'hara 127.0.0.1 popcore mail\n"), "{told}");
    let wrong = popcore.reply("bob", "wrong");
    assert!(wrong.starts_with("-ERR [AUTH] "), "{wrong}");
    for (user, _, notice) in AGED {
        assert_eq!(popcore.reply(user, "wrong"), wrong, "{user}");
        let reply = popcore.reply(user, PASSWORD);
        assert_eq!(reply, format!("-ERR [SYS/PERM] {notice}"), "{user}");
    }
    // A module that hangs is an outage like any other.
    an_outage_is_survived(
        &popcore,
        || fs::write(folder.join("closed"), "").expect("own folder"),
        || fs::remove_file(folder.join("closed")).expect("own file"),
    );
    assert!(!popcore.log().contains(PASSWORD), "{}", popcore.log());
}
