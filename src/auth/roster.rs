//! Who is in the directories, for tools that work on maildrops without a login.

use std::collections::HashSet;

use super::passwd_file::PasswdFile;
use super::{Account, DirectoryError, DirectoryKind, DirectoryOptions, UserName};

/// Everybody who has a password, in the order of the directories; of two of one
/// name the first, as at a login. BLOCKING.
pub fn roster(directories: &[DirectoryOptions]) -> Result<Vec<Account>, DirectoryError> {
    let mut all = Vec::new();
    let mut seen: HashSet<UserName> = HashSet::new();
    for directory in directories {
        let (file, _) = match &directory.kind {
            DirectoryKind::PasswdFile { path } => PasswdFile::open(path)?,
            DirectoryKind::Static { users } => PasswdFile::of_lines(users, "static"),
            // It is asked about one name at a time, and lists none.
            DirectoryKind::Away(_) => continue,
        };
        let new = |account: &Account| seen.insert(account.user.clone());
        all.extend(file.accounts().into_iter().filter(new));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everybody_with_a_password_is_there_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file");
            DirectoryOptions {
                kind: DirectoryKind::PasswdFile { path },
            }
        };
        let directories = [
            write(
                "a",
                "bob:{PLAIN}x::::/home/bob\nann:{PLAIN}x\n# no\nsys:!\n",
            ),
            write("b", "ann:{PLAIN}y::::/other\neve:{PLAIN}x\n"),
        ];
        let all = roster(&directories).expect("readable");
        let names: Vec<_> = all.iter().map(|account| account.user.to_string()).collect();
        assert_eq!(names, ["bob", "ann", "eve"]);
        assert_eq!(all[0].home.as_deref(), Some("/home/bob".as_ref()));
        assert_eq!(all[1].home, None, "the first decides");
    }
}
