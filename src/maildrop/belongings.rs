//! Whose the files are that popcore makes in a maildrop.
//!
//! An operator's command may run as root where the server does not, and what it
//! makes must not be closed to the server: a file belongs to whom its folder does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fd::AsFd;
use rustix::fs::{Gid, Uid, fchown, fstat};

/// Gives a file that was just made to the owner of the folder it is in, if it is
/// root's and the folder is not. What cannot be given away stays as it is.
/// BLOCKING.
pub(super) fn hand_over(file: impl AsFd, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    let (Some(folder), Ok(own)) = (folder, fstat(&file)) else {
        return;
    };
    if own.st_uid == 0 && folder.uid() != 0 {
        let (user, group) = (Uid::from_raw(folder.uid()), Gid::from_raw(folder.gid()));
        if let Err(errno) = fchown(&file, Some(user), Some(group)) {
            tracing::warn!(
                "{}: it belongs to root, and not to the owner of its folder: {errno}",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn what_root_makes_belongs_to_the_folders_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made");
        let file = File::create(&path).expect("a file");
        let own = rustix::process::geteuid().as_raw();
        hand_over(&file, &path);
        assert_eq!(file.metadata().expect("its status").uid(), own);
        if own != 0 {
            // Nobody else can give anything away.
            return;
        }
        chown(folder.path(), Some(65_534), Some(65_534)).expect("root may do that");
        hand_over(&file, &path);
        let status = file.metadata().expect("its status");
        assert_eq!((status.uid(), status.gid()), (65_534, 65_534));
    }
}
