//! TLS in the kernel, for what is sent (Documentation/networking/tls.rst).
//!
//! A socket that was given keys turns what is sent on it into records of
//! application data; records of another kind are sent by a control message. What is
//! received stays as it came. No library has all three of these calls.
//!
//! A socket is never taken back from the kernel, and its keys are never changed: no
//! kernel before 6.14 can.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

/// What the kernel's TLS is called among its upper layer protocols.
const NAME: &[u8] = b"tls";

/// Whether the kernel has TLS: a connection of our own is given to it. As root, this
/// has the kernel load its module.
///
/// # Errors
///
/// Of the system calls; `ENOENT` where there is no such module.
pub fn probe() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    begin(&socket)?;
    // Keys of AES-128-GCM and TLS 1.3, which are secret to nobody.
    let mut keys = [0; 40];
    keys[..2].copy_from_slice(&libc::TLS_1_3_VERSION.to_ne_bytes());
    keys[2..4].copy_from_slice(&libc::TLS_CIPHER_AES_GCM_128.to_ne_bytes());
    seal_with(&socket, &keys)
}

/// Announces a connected socket to the kernel's TLS. Nothing changes until it has
/// keys.
///
/// # Errors
///
/// As `setsockopt(2)`.
pub fn begin(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_TCP, libc::TCP_ULP, NAME)
}

/// Has the kernel seal what is sent from now on. `keys` is a `struct
/// tls12_crypto_info_...` of `linux/tls.h`.
///
/// # Errors
///
/// As `setsockopt(2)`; the socket is as it was.
pub fn seal_with(socket: &impl AsFd, keys: &[u8]) -> io::Result<()> {
    set(socket, libc::SOL_TLS, libc::TLS_TX, keys)
}

fn set(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).expect("a short option");
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` octets of a slice that has as many.
    let done = unsafe { libc::setsockopt(socket, level, option, value.as_ptr().cast(), length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A control message with one octet.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    octet: u8,
}

/// Sends a record of another kind than application data (RFC 8446, section 5.1),
/// without waiting for room.
///
/// # Errors
///
/// As `sendmsg(2)`; `EAGAIN` where the socket has no room.
pub fn send_record(socket: &impl AsFd, kind: u8, octets: &[u8]) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: octets.as_ptr().cast_mut().cast(),
        iov_len: octets.len(),
    };
    let length = size_of::<libc::cmsghdr>() + 1;
    let mut control = Control {
        header: libc::cmsghdr {
            cmsg_len: length,
            cmsg_level: libc::SOL_TLS,
            cmsg_type: libc::TLS_SET_RECORD_TYPE,
        },
        octet: kind,
    };
    // SAFETY: the structure is one of numbers and pointers, for which zeros are
    // valid.
    let mut header = unsafe { std::mem::zeroed::<libc::msghdr>() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to one part and one control message, which live
    // until the call is over; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
