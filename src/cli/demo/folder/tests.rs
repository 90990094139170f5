//! The folder holds what it says, and nothing of anybody else's is touched.

use std::os::unix::fs::PermissionsExt;

use sha_crypt::PasswordVerifier as _;

use super::*;

#[test]
fn a_folder_is_made_once_and_then_reused() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("demo");
    assert_eq!(prepare(&folder, 3).expect("made"), Prepared::Made);
    let users = fs::read_to_string(folder.join("users")).expect("users");
    assert_eq!(prepare(&folder, 3).expect("reused"), Prepared::Reused);
    // The same hashes, with the same salts: nothing was made again.
    assert_eq!(
        fs::read_to_string(folder.join("users")).expect("users"),
        users
    );
    let others: Vec<_> = fs::read_dir(parent.path()).expect("listed").collect();
    assert_eq!(others.len(), 1, "nothing is left beside it");

    passwords_are_stored_as_their_schemes_say(&users);
    mailboxes_hold_the_messages(&folder.join("mail"));
    secrets_are_the_owners_alone(&folder);
}

fn passwords_are_stored_as_their_schemes_say(users: &str) {
    let stored = |name: &str| {
        let line = users.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix(':')).expect(name)
    };
    assert_eq!(users.lines().count(), PEOPLE.len() + 3);
    assert_eq!(stored("alice"), "{PLAIN}demo");
    assert_eq!(stored("user2"), "{PLAIN}demo");
    let bob = stored("bob").strip_prefix("{SHA512-CRYPT}").expect("bob");
    let verified = sha_crypt::ShaCrypt::default().verify_password(b"demo", bob);
    assert!(bob.starts_with("$6$") && verified.is_ok(), "{bob}");
    let carol = stored("carol").strip_prefix("{BLF-CRYPT}").expect("carol");
    assert!(bcrypt::verify("demo", carol).expect("a hash"));
    let dave = stored("dave").strip_prefix("{ARGON2ID}").expect("dave");
    let hash = argon2::PasswordHash::new(dave).expect("a hash");
    let verified = argon2::Argon2::default().verify_password(b"two words", &hash);
    assert!(dave.starts_with("$argon2id$") && verified.is_ok(), "{dave}");
}

fn mailboxes_hold_the_messages(mail: &Path) {
    let files = |user: &str| {
        let parts = ["new", "cur"].map(|part| mail.join(user).join(part));
        let entries = parts
            .into_iter()
            .flat_map(|part| fs::read_dir(part).expect("a part"));
        let mut paths: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        paths
    };
    for (user, expected) in [
        ("alice", messages::every_kind("alice")),
        ("user2", messages::load_mix("user2", 2)),
    ] {
        let paths = files(user);
        assert_eq!(paths.len(), expected.len());
        for (path, message) in paths.iter().zip(&expected) {
            let bytes = fs::read(path).expect("a message");
            assert!(bytes == message.bytes, "{}", path.display());
            let name = path.to_string_lossy();
            assert!(name.contains(&format!(",S={}", bytes.len())), "{name}");
            assert_eq!(name.ends_with(":2,S"), message.seen, "{name}");
        }
    }
}

fn secrets_are_the_owners_alone(folder: &Path) {
    for name in ["users", "key.pem"] {
        let facts = fs::metadata(folder.join(name)).expect("a file");
        assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_folder_with_anything_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("thesis.tex");
    fs::write(&own, "x").expect("written");
    let error = prepare(folder.path(), 3).expect_err("refused").to_string();
    assert!(
        error.contains("not the demo's") && error.contains("--folder"),
        "{error}"
    );
    let names: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!((names.len(), own.exists()), (1, true));
}
