//! Each operation does what its system call does.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use rustix::fs::StatxFlags;

use super::*;

fn c_string(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().to_str().expect("UTF-8")).expect("no NUL")
}

fn code<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.expect_err("refused").raw_os_error()
}

/// A folder and its path without links.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("canonical");
    (folder, path)
}

#[test]
fn a_file_is_made_written_synced_renamed_and_removed() {
    let (_kept, root) = folder();
    let path = root.clone();
    on_a_ring(move |ring| async move {
        let folder = ring.open_folder(At::path(c_string(&path))).await;
        let folder = folder.expect("opened");
        let at = |name: &str| At::inside(&folder, c_string(name));
        let file = ring.create(at("new")).await.expect("made");
        assert_eq!(code(ring.create(at("new")).await), Some(libc::EEXIST));
        let (written, buffer) = ring.write_at(&file, b"hello".to_vec(), 0).await;
        assert_eq!((written.expect("written"), &*buffer), (5, &b"hello"[..]));
        let (written, _) = ring.write_at(&file, b"HE".to_vec(), 0).await;
        assert_eq!(written.expect("written"), 2);
        ring.sync_data(&file).await.expect("synced");
        ring.sync(&file).await.expect("synced");
        ring.rename(at("new"), at("old")).await.expect("renamed");
        ring.sync(&folder).await.expect("synced");
        let mode = fs::metadata(path.join("old")).expect("there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(path.join("old")).expect("there"), b"HEllo");
        assert_eq!(
            code(ring.rename(at("new"), at("b")).await),
            Some(libc::ENOENT)
        );
        ring.unlink(at("old")).await.expect("removed");
        assert_eq!(code(ring.unlink(at("old")).await), Some(libc::ENOENT));
    });
    assert_eq!(fs::read_dir(root).expect("a folder").count(), 0);
}

#[test]
fn a_sync_of_what_cannot_be_synced_is_an_error() {
    on_a_ring(|ring| async move {
        let pipe = Pipe::new().expect("a pipe");
        assert_eq!(code(ring.sync(&pipe.read).await), Some(libc::EINVAL));
    });
}

#[test]
fn status_is_that_of_the_name_or_of_the_open_file() {
    let (_kept, root) = folder();
    fs::write(root.join("message"), pattern(1234)).expect("written");
    std::os::unix::fs::symlink("message", root.join("link")).expect("linked");
    let inode = fs::metadata(root.join("message")).expect("there").ino();
    on_a_ring(move |ring| async move {
        let wanted = StatxFlags::SIZE | StatxFlags::INO | StatxFlags::TYPE;
        let path = c_string(root.join("message"));
        let status = ring.stat(At::path(path.clone()), wanted).await;
        let status = status.expect("there");
        assert_eq!((status.stx_size, status.stx_ino), (1234, inode));
        let file = ring.open_message(path, Place::Local).await.expect("opened");
        fs::remove_file(root.join("message")).expect("removed");
        let open = ring.stat_open(&file, wanted).await.expect("open");
        assert_eq!((open.stx_size, open.stx_ino), (1234, inode));
        let link = ring
            .stat(At::path(c_string(root.join("link"))), wanted)
            .await;
        let mode = u32::from(link.expect("a link").stx_mode);
        assert_eq!(mode & libc::S_IFMT, libc::S_IFLNK);
        let gone = ring
            .stat(At::path(c_string(root.join("message"))), wanted)
            .await;
        assert_eq!(code(gone), Some(libc::ENOENT));
    });
}

#[test]
fn parts_are_sent_in_order_and_come_back() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let reading = std::thread::spawn(move || {
        let mut octets = Vec::new();
        theirs.read_to_end(&mut octets).expect("read");
        octets
    });
    on_a_ring(move |ring| async move {
        let socket = handle(ours);
        let shared: Rc<[u8]> = pattern(1 << 20).into();
        let parts = vec![
            Part::Static(b"+OK\r\n"),
            Part::Shared(Rc::clone(&shared), 4..1 << 20),
            Part::Owned(Vec::new()),
            Part::Owned(b".\r\n".to_vec()),
        ];
        let (sent, parts) = ring.send_parts(&socket, parts).await;
        assert_eq!(sent.expect("sent"), 5 + (1 << 20) - 4 + 3);
        assert!(matches!(&parts[3], Part::Owned(octets) if octets == b".\r\n"));
        let write = std::net::Shutdown::Write;
        ring.shut_down(&socket, write).await.expect("shut down");
        let (sent, _) = ring.send_parts(&socket, vec![Part::Static(b"x")]).await;
        assert_eq!(code(sent), Some(libc::EPIPE));
    });
    let octets = reading.join().expect("no panic");
    let expected = [b"+OK\r\n", &pattern(1 << 20)[4..], b".\r\n"].concat();
    assert!(octets == expected, "{} octets came changed", octets.len());
}

#[test]
fn a_shut_down_socket_is_one() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    on_a_ring(move |ring| async move {
        let (ours, theirs) = (handle(ours), handle(theirs));
        let mut receiver = ring.receive(theirs);
        let both = std::net::Shutdown::Both;
        ring.shut_down(&ours, both).await.expect("shut down");
        let ended = next(&mut receiver).await.expect("no error");
        assert_eq!(ended, Received::End);
        let file = handle(File::open("/dev/null").expect("there"));
        let refused = ring.shut_down(&file, both).await;
        assert_eq!(code(refused), Some(libc::ENOTSOCK));
    });
}

#[test]
fn a_file_goes_through_a_pipe_into_a_socket() {
    const OCTETS: u32 = 300_000;
    let (_kept, root) = folder();
    fs::write(root.join("message"), pattern(OCTETS)).expect("written");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let reading = std::thread::spawn(move || {
        let mut octets = Vec::new();
        theirs.read_to_end(&mut octets).expect("read");
        octets
    });
    on_a_ring(move |ring| async move {
        let socket = handle(ours);
        let path = c_string(root.join("message"));
        let file = ring.open_message(path, Place::Local).await.expect("opened");
        let pipe = Pipe::new().expect("a pipe");
        let mut offset = 100;
        loop {
            let filled = ring.splice_from(&file, offset, &pipe, u32::MAX >> 1).await;
            let filled = filled.expect("spliced");
            if filled == 0 {
                break;
            }
            offset += filled as u64;
            let mut left = u32::try_from(filled).expect("a pipe's");
            while left > 0 {
                let moved = ring.splice_to(&pipe, &socket, left).await;
                let moved = moved.expect("spliced");
                assert!(moved > 0, "a pipe that is not empty");
                left -= u32::try_from(moved).expect("no more than asked for");
            }
        }
        assert_eq!(offset, u64::from(OCTETS));
    });
    let octets = reading.join().expect("no panic");
    assert!(octets == pattern(OCTETS)[100..], "{} octets", octets.len());
}

/// The pipe goes while a thread of the kernel holds its lock: a shard that closed
/// it then would wait for a client.
#[test]
fn a_splice_into_a_socket_that_nobody_reads_can_be_given_up() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let (_kept, root) = folder();
    fs::write(root.join("message"), pattern(4096)).expect("written");
    on_a_ring(move |ring| async move {
        let socket = handle(ours);
        let path = c_string(root.join("message"));
        let file = ring.open_message(path, Place::Local).await.expect("opened");
        let pipe = Pipe::new().expect("a pipe");
        // Until the socket takes no more.
        loop {
            let filled = ring.splice_from(&file, 0, &pipe, 4096).await;
            assert_eq!(filled.expect("spliced"), 4096);
            let mut moving = Box::pin(ring.splice_to(&pipe, &socket, 4096));
            let mut patience = ring.sleep(std::time::Duration::from_millis(200));
            let over = std::future::poll_fn(|context| {
                if let Poll::Ready(moved) = moving.as_mut().poll(context) {
                    assert!(moved.expect("spliced") > 0);
                    return Poll::Ready(false);
                }
                Pin::new(&mut patience).poll(context).map(|()| true)
            });
            if over.await {
                break;
            }
        }
        drop(pipe);
        assert_eq!(ring.in_flight(), 1);
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
        assert_eq!(ring.counters().cancelled(), 1);
    });
    drop(theirs);
}

/// Memory of its own, as a mapping would be.
struct Pages(Vec<u8>);

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn advice_leaves_memory_as_it_is_and_keeps_the_mapping() {
    on_a_ring(|ring| async move {
        let pages = Rc::new(Pages(pattern(1 << 20)));
        for advice in [Advice::WillNeed, Advice::Populate] {
            let advised = ring.advise(Rc::clone(&pages), 5000..900_000, advice).await;
            // Where swap or files lack, there is nothing to be needed.
            if advice == Advice::Populate {
                advised.expect("advised");
            }
        }
        assert!(pages.0 == pattern(1 << 20));
        // Dropped under way, it keeps the mapping until the kernel is done.
        let weak = Rc::downgrade(&pages);
        let advising = ring.advise(pages, 0..1 << 20, Advice::Populate);
        drop(advising);
        assert!(weak.upgrade().is_some(), "the kernel may still be there");
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
        assert!(weak.upgrade().is_none(), "kept for nobody");
    });
}
