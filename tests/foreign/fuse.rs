//! A file system whose every open, listing, read and removal takes its time, as that
//! of a server at the other end of a sick network does, and whose disk can fail.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request, SessionACL,
};

/// From which octet on no file can be read: the disk has gone bad (`EIO`).
pub(crate) type BadFrom = Arc<AtomicU64>;

/// How long the kernel may keep names and attributes: an open that finds its path
/// cached still asks this file system, which is the case that blocks the careless.
const KEPT: Duration = Duration::from_hours(1);

enum Node {
    Folder(Folder),
    File(Arc<Vec<u8>>),
}

/// A folder's names, and when they changed last.
struct Folder {
    entries: BTreeMap<String, u64>,
    changed: SystemTime,
}

impl Node {
    fn folder(entries: BTreeMap<String, u64>) -> Node {
        Node::Folder(Folder {
            entries,
            changed: UNIX_EPOCH,
        })
    }
}

struct Disk {
    nodes: Arc<Mutex<BTreeMap<u64, Node>>>,
    /// How long everything takes that asks for what is in a file or a folder.
    delay: Duration,
    bad_from: BadFrom,
}

/// Mounts a folder for each user at `point`, with a Maildir of these messages.
pub(crate) fn mount(
    point: &Path,
    users: &[String],
    messages: &[Vec<u8>],
    delay: Duration,
) -> (BackgroundSession, BadFrom) {
    let mut nodes = BTreeMap::new();
    let mut next = 1;
    let mut add = |node| {
        next += 1;
        nodes.insert(next, node);
        next
    };
    let mut root = BTreeMap::new();
    for user in users {
        let files = messages.iter().enumerate().map(|(number, octets)| {
            let file = add(Node::File(Arc::new(octets.clone())));
            (format!("17000000{number:02}.M1P1.far"), file)
        });
        let new: BTreeMap<String, u64> = files.collect();
        let new = add(Node::folder(new));
        let cur = add(Node::folder(BTreeMap::new()));
        let maildir = BTreeMap::from([("new".to_owned(), new), ("cur".to_owned(), cur)]);
        root.insert(user.clone(), add(Node::folder(maildir)));
    }
    nodes.insert(u64::from(INodeNo::ROOT), Node::folder(root));
    let bad_from = BadFrom::new(AtomicU64::new(u64::MAX));
    let disk = Disk {
        nodes: Arc::new(Mutex::new(nodes)),
        delay,
        bad_from: Arc::clone(&bad_from),
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("popcore-test".to_owned())];
    config.acl = SessionACL::All;
    let mounted = fuser::spawn_mount(disk, point, &config).expect("root may mount");
    (mounted, bad_from)
}

impl Disk {
    /// Runs `answer` when the delay is over, and lets others ask meanwhile.
    fn later(&self, answer: impl FnOnce() + Send + 'static) {
        let delay = self.delay;
        thread::spawn(move || {
            thread::sleep(delay);
            answer();
        });
    }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, perm, size, changed) = match node {
        Node::Folder(folder) => (FileType::Directory, 0o755, 0, folder.changed),
        Node::File(octets) => {
            let size = octets.len() as u64;
            (FileType::RegularFile, 0o644, size, UNIX_EPOCH)
        }
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: changed,
        ctime: changed,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let nodes = self.nodes.lock().expect("no panic");
        let found = match (nodes.get(&u64::from(parent)), name.to_str()) {
            (Some(Node::Folder(folder)), Some(name)) => folder.entries.get(name),
            _ => None,
        };
        match found {
            Some(number) => {
                let attributes = attributes(*number, &nodes[number]);
                reply.entry(&KEPT, &attributes, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let number = u64::from(ino);
        match self.nodes.lock().expect("no panic").get(&number) {
            Some(node) => reply.attr(&KEPT, &attributes(number, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.later(|| reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.later(|| reply.opened(FileHandle(0), FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let octets = match self.nodes.lock().expect("no panic").get(&u64::from(ino)) {
            Some(Node::File(octets)) => Arc::clone(octets),
            _ => Arc::default(),
        };
        let bad_from = self.bad_from.load(Ordering::Relaxed);
        self.later(move || {
            let start = usize::try_from(offset).expect("small").min(octets.len());
            let end = (start + size as usize).min(octets.len());
            if end as u64 > bad_from {
                reply.error(Errno::EIO);
            } else {
                reply.data(&octets[start..end]);
            }
        });
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let nodes = Arc::clone(&self.nodes);
        self.later(move || {
            let nodes = nodes.lock().expect("no panic");
            let from = usize::try_from(offset).expect("small");
            if let Some(Node::Folder(folder)) = nodes.get(&u64::from(ino)) {
                for (at, (name, number)) in folder.entries.iter().enumerate().skip(from) {
                    let kind = attributes(*number, &nodes[number]).kind;
                    if reply.add(INodeNo(*number), at as u64 + 1, kind, name) {
                        break;
                    }
                }
            }
            reply.ok();
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut nodes = self.nodes.lock().expect("no panic");
        let number = 1 + nodes.keys().last().copied().expect("a root");
        let made = Node::File(Arc::default());
        let attributes = attributes(number, &made);
        nodes.insert(number, made);
        let name = name.to_str().expect("a name of popcore's").to_owned();
        let Some(Node::Folder(folder)) = nodes.get_mut(&u64::from(parent)) else {
            return reply.error(Errno::ENOENT);
        };
        folder.entries.insert(name, number);
        folder.changed = SystemTime::now();
        self.later(move || {
            let none = FopenFlags::empty();
            reply.created(&KEPT, &attributes, Generation(0), FileHandle(0), none);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = match self
            .nodes
            .lock()
            .expect("no panic")
            .get_mut(&u64::from(parent))
        {
            Some(Node::Folder(folder)) => {
                folder.changed = SystemTime::now();
                let name = name.to_str();
                name.and_then(|name| folder.entries.remove(name)).is_some()
            }
            _ => false,
        };
        self.later(move || {
            if removed {
                reply.ok();
            } else {
                reply.error(Errno::ENOENT);
            }
        });
    }
}
