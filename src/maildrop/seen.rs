//! Retrieved messages are marked as seen, for sites whose users read the same Maildir
//! by IMAP: they move to cur/ with the flag S. BLOCKING.
//!
//! That is all that an IMAP server takes notice of, and a message is never without a name: it
//! is one rename, or, where the file system has none that spares what is there, a second name
//! before the first goes, which listings take for one message. A message that another program has renamed meanwhile is
//! that program's affair and is left alone. The unique name stays, and with it the
//! unique-id.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use super::aside::move_beside;
use super::listing::Root;
use super::message;
use super::snapshot::{Folder, Snapshot};
use crate::proto::MessageNumber;

/// Marks these messages.
pub(super) fn mark_seen(snapshot: &Snapshot, messages: impl IntoIterator<Item = MessageNumber>) {
    let opened = Root::open(snapshot.root())
        .and_then(|root| root.map(|r| Ok((r.folders()?, r))).transpose());
    let (folders, root) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!("messages are not marked as seen: {error}");
            return;
        }
    };
    for number in messages {
        let (Some(folder), Some(name)) = (snapshot.folder(number), snapshot.name(number)) else {
            continue;
        };
        let Some(marked) = with_flag(folder, name) else {
            continue;
        };
        let (Some(from), Some(to)) = (folders.fd(folder), folders.fd(Folder::Cur)) else {
            continue;
        };
        // Two messages of one unique name stay two.
        match move_beside(from, name, to, &marked) {
            Ok(()) | Err(Errno::NOENT | Errno::EXIST) => {}
            Err(errno) => {
                let path = root
                    .path()
                    .join(folder.name())
                    .join(OsStr::from_bytes(name));
                tracing::warn!(
                    "{}: cannot be renamed to be marked as seen: {errno}; it may have both names \
                     where the file system is NFS or Ceph",
                    path.display()
                );
                return;
            }
        }
    }
}

/// The name in cur/ with the flag S among the others, which stand in the order of
/// ASCII (maildir(5)); `None` where it has it, or has what is no list of flags.
fn with_flag(folder: Folder, name: &[u8]) -> Option<Vec<u8>> {
    let unique = message::unique(name);
    let flags = match &name[unique.len()..] {
        b"" | b":" => b"",
        rest => rest.strip_prefix(b":2,")?,
    };
    if flags.contains(&b'S') {
        return (folder == Folder::New).then(|| name.to_owned());
    }
    let at = flags.iter().position(|flag| *flag > b'S');
    let (before, behind) = flags.split_at(at.unwrap_or(flags.len()));
    let marked = [unique, b":2,", before, b"S", behind].concat();
    (marked.len() <= crate::limits::FILE_NAME).then_some(marked)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::maildrop::open;

    #[test]
    fn flags_stand_in_order_and_names_are_kept() {
        let marked = |folder, name: &str| {
            let marked = with_flag(folder, name.as_bytes());
            marked.map(|name| String::from_utf8(name).expect("ASCII"))
        };
        let told = |name: &str| Some(name.to_owned());
        assert_eq!(marked(Folder::New, "1.a,S=3"), told("1.a,S=3:2,S"));
        assert_eq!(marked(Folder::Cur, "1.a:2,FRTa"), told("1.a:2,FRSTa"));
        assert_eq!(marked(Folder::Cur, "1.a:2,"), told("1.a:2,S"));
        assert_eq!(marked(Folder::Cur, "1.a:2,FS"), None);
        assert_eq!(marked(Folder::New, "1.a:2,S"), told("1.a:2,S"));
        assert_eq!(marked(Folder::Cur, "1.a:1,x"), None);
        assert_eq!(marked(Folder::New, &"x".repeat(253)), None);
    }

    #[test]
    fn marked_messages_are_those_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for part in ["new", "cur"] {
            fs::create_dir(root.join(part)).expect("a folder");
        }
        for name in [
            "new/1.a",
            "cur/2.b:2,T",
            "new/3.c",
            "new/4.d",
            "cur/4.d:2,S",
        ] {
            fs::write(root.join(name), name).expect("a message");
        }
        let snapshot = open(root, None).expect("it opens");
        // Another program was faster.
        fs::rename(root.join("new/3.c"), root.join("cur/3.c:2,F")).expect("it is there");
        mark_seen(&snapshot, (1..=5).filter_map(MessageNumber::new));
        for name in [
            "cur/1.a:2,S",
            "cur/2.b:2,ST",
            "cur/3.c:2,F",
            "new/4.d",
            "cur/4.d:2,S",
        ] {
            assert!(root.join(name).exists(), "{name}");
        }
        let after = open(root, Some(&snapshot)).expect("it opens");
        let uidls = |snapshot: &Snapshot| -> Vec<Vec<u8>> {
            let number = |n| MessageNumber::new(n).expect("not 0");
            let uidl = |n| {
                let mut text = Vec::new();
                snapshot.write_uidl(number(n), &mut text);
                text
            };
            (1..=5).map(uidl).collect()
        };
        assert_eq!(uidls(&after), uidls(&snapshot));
    }
}
