//! Listening sockets: one for every address and shard, sharing the address
//! through `SO_REUSEPORT` (`socket(7)`), so that the kernel spreads connections
//! over the shards and no lock is shared between them.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::limits;
use crate::ring;

/// How long a peer may leave sent bytes unacknowledged before its connection is
/// given up (`TCP_USER_TIMEOUT`, `tcp(7)`).
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(2);

/// Time between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);

/// Unanswered questions after which the peer counts as gone.
const KEEPALIVE_TRIES: u32 = 3;

/// Where the kernel says how long a listen queue may be.
const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// Why an address cannot be listened on, for the operator.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { address, source } = self;
        write!(f, "cannot listen on {address}: {source}")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "; another server has this address: stop it (ss -ltnp shows which it is), or \
                 choose another address in [[listener]]"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "; no interface of this machine has this address: correct it in [[listener]]"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "; ports below 1024 need root or CAP_NET_BIND_SERVICE: start as root with \
                 server.user set, or choose a higher port in [[listener]]"
            ),
            _ if source.raw_os_error() == Some(libc::EMFILE) => write!(
                f,
                "; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Opens `shards` sockets that listen on `address`. Port 0 stands for a free
/// one, the same for all of them; the address says which.
///
/// # Errors
///
/// The address and what the kernel said of it, with the remedy.
pub fn listen(
    address: SocketAddr,
    shards: usize,
) -> Result<(SocketAddr, Vec<OwnedFd>), ListenError> {
    let fail = |source: io::Error| ListenError { address, source };
    // A server of the same user that also shares its port would not be noticed:
    // the kernel would hand each of the two a part of the connections. A socket
    // that does not share finds it.
    let alone = bind(address, false).map_err(fail)?;
    let address = local(&alone).map_err(fail)?;
    drop(alone);
    let backlog = backlog();
    let sockets = (0..shards).map(|_| {
        let socket = bind(address, true)?;
        rustix::net::listen(&socket, backlog)?;
        Ok(socket)
    });
    let sockets = sockets
        .collect::<io::Result<Vec<OwnedFd>>>()
        .map_err(fail)?;
    Ok((address, sockets))
}

/// A bound socket with the options that accepted connections inherit.
fn bind(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let tcp = Some(ipproto::TCP);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, tcp)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] are two listeners, whatever the sysctl says.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    ring::bound_unsent(&socket, limits::UNSENT)?;
    sockopt::set_tcp_user_timeout(
        &socket,
        u32::try_from(UNACKNOWLEDGED.as_millis()).expect("a minute and a half"),
    )?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_TRIES)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// The address a socket got.
fn local(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The longest listen queue the system allows (`listen(2)`), and the kernel's
/// own default where it does not say.
fn backlog() -> i32 {
    fs::read_to_string(SOMAXCONN)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::limits;
    use crate::ring::{self, Handle, Pool, Ring};

    #[test]
    fn shards_share_an_address_and_a_second_server_does_not_get_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let wanted: SocketAddr = address.parse().expect("an address");
            let (address, sockets) = listen(wanted, 3).expect("free");
            assert_eq!(sockets.len(), 3);
            assert_ne!(address.port(), 0);
            for socket in &sockets {
                assert_eq!(local(socket).expect("bound"), address);
                assert!(sockopt::tcp_nodelay(socket).expect("an option"));
                assert!(sockopt::socket_keepalive(socket).expect("an option"));
                assert_eq!(
                    sockopt::tcp_user_timeout(socket).expect("an option"),
                    90_000
                );
            }
            let taken = listen(address, 3).expect_err("taken").to_string();
            assert!(taken.contains("another server has this address"), "{taken}");
        }
    }

    /// What a listening socket hands on to those it accepts, read from one that
    /// the shard's ring accepted.
    #[test]
    fn accepted_sockets_have_the_options_that_dead_peers_and_small_replies_need() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let wanted: SocketAddr = address.parse().expect("an address");
            let (address, mut sockets) = listen(wanted, 1).expect("free");
            let client = TcpStream::connect(address).expect("it listens");
            let listener = sockets.remove(0);
            let accept = |ring: Ring| async move {
                let mut acceptor = ring.accept(Handle::new(listener));
                let socket = acceptor.connection().await.expect("a connection");
                socket.as_fd().try_clone_to_owned().expect("a descriptor")
            };
            let pool = Pool::start("pool", limits::POOL_THREADS).expect("threads");
            let running = LocalExecutorBuilder::new(Placement::Unbound)
                .preempt_timer(limits::PREEMPTION)
                .spawn(|| ring::run(Arc::default(), pool, accept));
            let accepted = running.expect("an executor").join().expect("no panic");
            let socket = accepted.expect("a kernel with io_uring");
            assert!(sockopt::tcp_nodelay(&socket).expect("an option"));
            assert!(sockopt::socket_keepalive(&socket).expect("an option"));
            let silence = sockopt::tcp_keepidle(&socket).expect("an option");
            let between = sockopt::tcp_keepintvl(&socket).expect("an option");
            let tries = sockopt::tcp_keepcnt(&socket).expect("an option");
            let unacknowledged = sockopt::tcp_user_timeout(&socket).expect("an option");
            assert_eq!(silence, Duration::from_mins(2));
            assert_eq!((between, tries), (Duration::from_secs(30), 3));
            assert_eq!(unacknowledged, 90_000);
            drop(client);
        }
    }

    /// glommio's own bind would hold 1,024. The kernel completes a handshake only
    /// while there is room in the queue, and nobody accepts here.
    #[test]
    fn the_listen_queue_is_as_long_as_the_system_allows() {
        const ENOUGH: i32 = 1024 + 300;
        let allowed = fs::read_to_string(SOMAXCONN).expect("a setting");
        let allowed: i32 = allowed.trim().parse().expect("a number");
        assert_eq!(backlog(), allowed);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("soft");
        let wanted: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let (address, _listening) = listen(wanted, 1).expect("free");
        let waiting: Vec<TcpStream> = (0..allowed.min(ENOUGH))
            .map(|number| {
                let stream = TcpStream::connect_timeout(&address, Duration::from_secs(20));
                stream.unwrap_or_else(|error| panic!("connection {number}: {error}"))
            })
            .collect();
        assert!(!waiting.is_empty());
    }

    #[test]
    fn an_address_of_no_interface_is_named_with_its_remedy() {
        let address: SocketAddr = "192.0.2.1:1110".parse().expect("an address");
        let text = listen(address, 1).expect_err("not ours").to_string();
        assert!(text.contains("192.0.2.1:1110"), "{text}");
        assert!(text.contains("[[listener]]"), "{text}");
    }
}
