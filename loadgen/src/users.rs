//! Who logs in: a template such as `user{0..199}`, a file of `user[:password]`,
//! or whoever has a Maildir in a tree.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A name and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Argument of USER.
    pub user: String,
    /// Argument of PASS.
    pub password: String,
}

/// Most users a template may name: a slip of the keyboard shall not eat the memory.
const MOST_USERS: u64 = 10_000_000;

/// The users of a template: `name{first..last}rest` gives last - first + 1
/// users, padded with zeros where `first` is; a text without braces gives one.
///
/// Errors are for the operator: they say what is wrong with the template.
pub fn from_template(template: &str, password: &str) -> Result<Vec<Login>, String> {
    let login = |user: String| checked(user, password.to_owned());
    let Some((head, rest)) = template.split_once('{') else {
        return Ok(vec![login(template.to_owned())?]);
    };
    let form = || format!("--users {template}: write it as name{{0..199}}rest");
    let (range, tail) = rest.split_once('}').ok_or_else(form)?;
    let (first, last) = range.split_once("..").ok_or_else(form)?;
    if tail.contains(['{', '}']) || head.contains('}') {
        return Err(form());
    }
    let number = |text: &str| match text.parse::<u64>() {
        Ok(n) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        _ => Err(form()),
    };
    let (from, to) = (number(first)?, number(last)?);
    if to < from || to - from >= MOST_USERS {
        return Err(format!(
            "--users {template}: from 1 to {MOST_USERS} users, counting upwards"
        ));
    }
    let width = if first.starts_with('0') {
        first.len()
    } else {
        0
    };
    (from..=to)
        .map(|n| {
            let mut user = head.to_owned();
            let _ = write!(user, "{n:0width$}");
            user.push_str(tail);
            login(user)
        })
        .collect()
}

/// The users of a file, one a line as `user` or `user:password`; empty lines
/// and lines that begin with `#` are skipped. `password` serves users without
/// one of their own.
///
/// Errors are for the operator: they name the file and the line.
pub fn from_file(path: &Path, password: Option<&str>) -> Result<Vec<Login>, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|e| format!("--users-file {name}: {e}"))?;
    let mut logins = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |e: String| format!("--users-file {name}, line {}: {e}", number + 1);
        let (user, own) = match line.split_once(':') {
            Some((user, own)) => (user, Some(own)),
            None => (line, None),
        };
        let password = own
            .or(password)
            .ok_or_else(|| at("has no password, and no --password is given".to_owned()))?;
        logins.push(checked(user.to_owned(), password.to_owned()).map_err(at)?);
    }
    if logins.is_empty() {
        return Err(format!("--users-file {name}: holds no user"));
    }
    Ok(logins)
}

/// The users of a tree of Maildirs: `TREE/user`, or `TREE/domain/local` for
/// `local@domain`; whatever has a `new` and a `cur`.
///
/// Errors are for the operator: they name the folder.
pub fn from_maildirs(tree: &Path, password: &str) -> Result<Vec<Login>, String> {
    let name = tree.display();
    let at = |e: std::io::Error| format!("--users-from {name}: {e}");
    let mut users = Vec::new();
    for entry in fs::read_dir(tree).map_err(at)? {
        let entry = entry.map_err(at)?;
        let outer = entry.file_name().to_string_lossy().into_owned();
        if is_maildir(&entry.path()) {
            users.push(outer);
            continue;
        }
        for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if is_maildir(&inner.path()) {
                let local = inner.file_name().to_string_lossy().into_owned();
                users.push(format!("{local}@{outer}"));
            }
        }
    }
    if users.is_empty() {
        return Err(format!(
            "--users-from {name}: holds no Maildir, as NAME or DOMAIN/NAME with new and cur"
        ));
    }
    users.sort_unstable();
    users
        .into_iter()
        .map(|user| checked(user, password.to_owned()))
        .collect()
}

fn is_maildir(path: &Path) -> bool {
    path.join("new").is_dir() && path.join("cur").is_dir()
}

/// Longest argument of USER and PASS in octets (RFC 2449: 255 a command).
pub const LONGEST: usize = 255 - "USER \r\n".len();
/// Longest password that is a token.
const LONGEST_TOKEN: usize = 60_000;

/// A name that fits a command line, and a password that may be a token.
fn checked(user: String, password: String) -> Result<Login, String> {
    for (what, text, longest) in [
        ("user name", &user, LONGEST),
        ("password", &password, LONGEST_TOKEN),
    ] {
        if text.len() > longest || text.bytes().any(|b| b.is_ascii_control()) {
            return Err(format!(
                "a {what} is at most {longest} octets without control characters"
            ));
        }
    }
    if user.is_empty() {
        return Err("a user name is empty".to_owned());
    }
    Ok(Login { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(template: &str) -> Vec<String> {
        let logins = from_template(template, "pw").expect("a sound template");
        logins.into_iter().map(|l| l.user).collect()
    }

    #[test]
    fn a_template_counts_from_first_to_last() {
        assert_eq!(names("u{8..11}@x"), ["u8@x", "u9@x", "u10@x", "u11@x"]);
        assert_eq!(names("u{08..10}"), ["u08", "u09", "u10"]);
        assert_eq!(names("{0..0}"), ["0"]);
        assert_eq!(names("alice"), ["alice"]);
    }

    #[test]
    fn a_template_that_cannot_be_read_is_refused() {
        for template in [
            "u{",
            "u{1}",
            "u{1..",
            "u{a..b}",
            "u{2..1}",
            "u{1..2}{3..4}",
            "u}{1..2}",
            "",
            "u{+1..2}",
            "u{0..99999999999}",
        ] {
            assert!(from_template(template, "pw").is_err(), "{template}");
        }
    }

    #[test]
    fn a_file_gives_users_with_their_own_or_the_common_password() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), "# who\nann:p:w\n\nbob\n").expect("written");
        let login = |user: &str, password: &str| Login {
            user: user.into(),
            password: password.into(),
        };
        assert_eq!(
            from_file(file.path(), Some("pw")),
            Ok(vec![login("ann", "p:w"), login("bob", "pw")])
        );
        let error = from_file(file.path(), None).expect_err("bob has no password");
        assert!(error.contains("line 4"), "{error}");
    }

    #[test]
    fn a_tree_of_maildirs_gives_its_users() {
        let tree = tempfile::tempdir().expect("a folder");
        for maildir in ["ann", "example.net/bob"] {
            for part in ["new", "cur"] {
                fs::create_dir_all(tree.path().join(maildir).join(part)).expect("own folder");
            }
        }
        fs::create_dir_all(tree.path().join("other/new")).expect("own folder");
        let users = from_maildirs(tree.path(), "pw").expect("two users");
        let names: Vec<&str> = users.iter().map(|l| l.user.as_str()).collect();
        assert_eq!(names, ["ann", "bob@example.net"]);
        assert!(from_maildirs(&tree.path().join("other"), "pw").is_err());
    }

    #[test]
    fn a_name_that_would_break_the_command_line_is_refused() {
        assert!(from_template("u\r\nDELE 1", "pw").is_err());
        assert!(from_template(&"u".repeat(249), "pw").is_err());
        assert!(from_template("u", "p\0w").is_err());
    }
}
