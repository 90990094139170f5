//! Where a file may come to be another one, and word of it.
//!
//! inotify(7) tells of what happens in a folder and to a file itself. A file that a
//! path leads to changes where its octets do, where its folder gets another of its
//! name, and where any symbolic link on the way is replaced: certbot's `live/`
//! leads to `archive/`, Kubernetes' `..data` to a folder of each version. So each
//! path is walked as the kernel would, and what is watched is the folder of every
//! link on the way, of what is missing, and of the file, and the file itself, which
//! a container may have got without its folder.
//!
//! What is told is only that something happened. Not told is what happens on
//! another machine (NFS) or to folders further up: whoever listens looks by itself
//! now and then.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// Symbolic links on the way to a file; the kernel follows no more
/// (`path_resolution(7)`).
const LINKS: usize = 40;

/// All that makes another file of a path. An octet written to a file that stays
/// open is not: a key is whole when it is closed.
const TOLD: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);

/// An ear for what happens to some files.
#[derive(Default)]
pub(super) struct Folders {
    inotify: Option<OwnedFd>,
    /// What the kernel calls the places that are watched.
    watched: BTreeSet<i32>,
}

impl Folders {
    /// Listens to where these paths lead now, and to nothing else. What happens
    /// from here on is told of; a place that vanishes meanwhile leaves what a look
    /// that follows finds missing.
    ///
    /// # Errors
    ///
    /// As `inotify_init1(2)`: the user has too many. As `inotify_add_watch(2)`,
    /// after all the others were tried: no right to read a folder, too many watches.
    pub(super) fn listen_to(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?),
        };
        let wanted: BTreeSet<PathBuf> = paths.iter().flat_map(|path| places(path)).collect();
        let mut watched = BTreeSet::new();
        let mut outcome = Ok(());
        for place in wanted {
            match inotify::add_watch(&*inotify, &place, TOLD) {
                Ok(number) => drop(watched.insert(number)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => outcome = Err(error.into()),
            }
        }
        for gone in self.watched.difference(&watched) {
            // The kernel has done so itself where the place is gone.
            let _ = inotify::remove_watch(&*inotify, *gone);
        }
        self.watched = watched;
        outcome
    }

    /// Waits until something has happened, or for this long.
    pub(super) fn wait(&self, most: Duration) {
        let Some(inotify) = &self.inotify else {
            return std::thread::sleep(most);
        };
        let most = Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        let mut told = [PollFd::new(inotify, PollFlags::IN)];
        // A signal that came instead is as good a reason to look.
        let _ = rustix::event::poll(&mut told, Some(&most));
        let mut events = [0; 4096];
        while rustix::io::read(inotify, &mut events).is_ok() {}
    }
}

/// Where something has to happen for `path` to lead to another content.
fn places(path: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    let mut at = PathBuf::from("/");
    let mut rest = Vec::new();
    // Where there is no current folder, nothing was read either.
    push(&mut rest, &std::path::absolute(path).unwrap_or_default());
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let target = match fs::symlink_metadata(&next) {
            Ok(facts) if facts.is_symlink() => fs::read_link(&next).ok(),
            Ok(_) if rest.is_empty() => {
                places.insert(at);
                places.insert(next);
                return places;
            }
            Ok(_) => {
                at = next;
                continue;
            }
            Err(_) => None,
        };
        places.insert(at.clone());
        links += 1;
        let Some(target) = target.filter(|_| links <= LINKS) else {
            return places;
        };
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        push(&mut rest, &target);
    }
    places
}

/// Puts the names of a path on top of those that are to be gone through.
fn push(rest: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    rest.extend(names);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::slice;
    use std::time::Instant;

    use super::*;

    /// A folder by the path that leads through no link.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("it is there");
        (folder, path)
    }

    fn below(root: &Path, path: &str) -> Vec<String> {
        let places = places(&root.join(path)).into_iter();
        let shown = places.map(|place| {
            let inside = place.strip_prefix(root).expect("nothing elsewhere");
            inside.display().to_string()
        });
        shown.collect()
    }

    #[test]
    fn the_folders_of_all_links_of_the_file_and_of_what_is_missing() {
        let (_kept, root) = folder();
        for made in ["live/x", "archive/x", "k8s/..1"] {
            fs::create_dir_all(root.join(made)).expect("made");
        }
        fs::write(root.join("archive/x/key1"), "1").expect("written");
        fs::write(root.join("k8s/..1/key"), "1").expect("written");
        symlink("../../archive/x/key1", root.join("live/x/key")).expect("linked");
        symlink("..1", root.join("k8s/..data")).expect("linked");
        symlink("..data/key", root.join("k8s/key")).expect("linked");
        symlink(root.join("live"), root.join("absolute")).expect("linked");
        symlink("loop", root.join("loop")).expect("linked");
        symlink("nowhere/key", root.join("dangling")).expect("linked");
        assert_eq!(
            below(&root, "archive/x/key1"),
            ["archive/x", "archive/x/key1"]
        );
        let archive = ["archive/x", "archive/x/key1", "live/x"];
        assert_eq!(below(&root, "live/x/key"), archive);
        assert_eq!(below(&root, "live/../live/./x/key"), archive);
        let mut through = vec![""];
        through.extend(archive);
        assert_eq!(below(&root, "absolute/x/key"), through);
        assert_eq!(below(&root, "k8s/key"), ["k8s", "k8s/..1", "k8s/..1/key"]);
        assert_eq!(below(&root, "live/y/key"), ["live"]);
        assert_eq!(below(&root, "live/x/none"), ["live/x"]);
        assert_eq!(below(&root, "dangling"), [""]);
        assert_eq!(below(&root, "loop"), [""]);
    }

    #[test]
    fn what_happens_is_told_at_once_and_once() {
        const LONG: Duration = Duration::from_mins(5);
        const SHORT: Duration = Duration::from_millis(1);
        let (_kept, root) = folder();
        let key = root.join("key");
        let mut folders = Folders::default();
        let mut tell = |what: &dyn Fn()| {
            folders.listen_to(slice::from_ref(&key)).expect("watched");
            folders.wait(SHORT);
            let begun = Instant::now();
            what();
            folders.wait(LONG);
            assert!(begun.elapsed() < LONG);
            let begun = Instant::now();
            folders.wait(SHORT);
            assert!(begun.elapsed() >= SHORT, "told twice");
        };
        let other = root.join("other");
        tell(&|| fs::write(&key, "1").expect("written"));
        tell(&|| fs::write(&key, "2").expect("written"));
        fs::write(&other, "3").expect("written");
        tell(&|| fs::rename(&other, &key).expect("renamed"));
        tell(&|| fs::remove_file(&key).expect("removed"));
        tell(&|| symlink("away", &key).expect("linked"));
        tell(&|| fs::write(root.join("away"), "4").expect("written"));
    }
}
