//! Which shard a connection goes to, where that is not left to the kernel's hash.
//!
//! The kernel asks a program which of the sockets that share an address is to have a
//! connection (`SO_ATTACH_REUSEPORT_CBPF`, `socket(7)`). Ours answers with the socket of
//! the shard on the CPU that runs it, which is the one that received the SYN: packets
//! and shard then meet in the same caches, where the network interface keeps to that
//! CPU. `SO_INCOMING_CPU` says the same in one line and was not taken: kernels from 4.6
//! to 6.1 ignore it on sockets that share an address.
//!
//! A CPU without a shard of its own, or with several, is answered with no socket at
//! all, and the kernel goes by its hash.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Instructions that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// What no socket has as its number.
const NOBODY: u32 = u32::MAX;

/// Has the kernel give connections of these sockets, which share an address and are in
/// the order in which they began to listen, to the shard on the CPU at hand. `cpus` has
/// the CPU of each.
///
/// # Errors
///
/// As `setsockopt(2)`; `EINVAL` also where there are more than 2,047 shards.
pub fn by_cpu(sockets: &[OwnedFd], cpus: &[usize]) -> io::Result<()> {
    assert_eq!(sockets.len(), cpus.len(), "a socket for each shard");
    let Some(first) = sockets.first() else {
        return Ok(());
    };
    let mut program = program(cpus);
    let length = u16::try_from(program.len())
        .ok()
        .filter(|length| usize::from(*length) <= LONGEST)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // The program is the group's, whichever socket it came by.
    setsockopt(first, sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

/// Classic BPF (Documentation/networking/filter.rst): the number of the CPU, compared
/// with each that has one shard.
fn program(cpus: &[usize]) -> Vec<libc::sock_filter> {
    let on_cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut program = vec![statement(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        on_cpu,
    )];
    for (shard, cpu) in cpus.iter().enumerate() {
        if cpus.iter().filter(|other| *other == cpu).count() > 1 {
            continue;
        }
        let number = |number: &usize| u32::try_from(*number).expect("CPUs are counted in words");
        program.push(libc::sock_filter {
            // Where it is not equal, over the answer to the next.
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number(cpu))
        });
        program.push(statement(libc::BPF_RET | libc::BPF_K, number(&shard)));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, NOBODY));
    program
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;
    use crate::shard::listener::listen;

    fn cpus() -> Vec<usize> {
        let mask = sched_getaffinity(None).expect("a mask");
        let all = 0..CpuSet::MAX_CPU;
        all.filter(|cpu| mask.is_set(*cpu)).collect()
    }

    /// Which of the sockets get connections that a thread on this CPU makes; loopback
    /// delivers on the CPU that sends.
    fn taken_from(cpu: usize, sockets: &[OwnedFd], count: usize) -> Vec<usize> {
        let listeners: Vec<TcpListener> = sockets
            .iter()
            .map(|socket| TcpListener::from(socket.try_clone().expect("a descriptor")))
            .collect();
        let address = listeners[0].local_addr().expect("bound");
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a socket");
        }
        let connecting = thread::spawn(move || {
            let mut own = CpuSet::new();
            own.set(cpu);
            sched_setaffinity(None, &own).expect("a CPU of ours");
            let connect = |_| TcpStream::connect(address).expect("it listens");
            (0..count).map(connect).collect::<Vec<_>>()
        });
        let clients = connecting.join().expect("no panic");
        let drain = |listener: &TcpListener| {
            let taken = std::iter::from_fn(|| listener.accept().ok());
            taken.count()
        };
        let counts: Vec<usize> = listeners.iter().map(drain).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        counts
    }

    #[test]
    fn the_shard_on_the_cpu_of_the_first_packet_gets_the_connection() {
        let cpus = cpus();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (_, sockets) = listen(address.parse().expect("one"), cpus.len()).expect("free");
            by_cpu(&sockets, &cpus).expect("a kernel with classic BPF");
            for (shard, cpu) in cpus.iter().enumerate() {
                let mut all = vec![0; cpus.len()];
                all[shard] = 20;
                assert_eq!(taken_from(*cpu, &sockets, 20), all, "CPU {cpu}");
            }
        }
    }

    #[test]
    fn a_cpu_with_several_shards_or_with_none_leaves_it_to_the_hash() {
        let cpu = cpus()[0];
        for placed in [[cpu, cpu, cpu], [cpu + 1000, cpu + 1001, cpu + 1002]] {
            let (_, sockets) = listen("127.0.0.1:0".parse().expect("one"), 3).expect("free");
            by_cpu(&sockets, &placed).expect("a kernel with classic BPF");
            let counts = taken_from(cpu, &sockets, 300);
            // With each at 100 of 300, one below 40 would be 7 deviations off.
            assert!(counts.iter().all(|count| *count > 40), "{counts:?}");
        }
    }

    #[test]
    fn more_shards_than_a_program_has_room_for_are_refused() {
        let cpus: Vec<usize> = (0..2048).collect();
        assert!(program(&cpus[..2047]).len() <= LONGEST);
        assert!(program(&cpus).len() > LONGEST);
    }

    #[test]
    fn a_connection_that_is_steered_is_an_ordinary_one() {
        let cpus = cpus();
        let (address, sockets) = listen("127.0.0.1:0".parse().expect("one"), 1).expect("free");
        by_cpu(&sockets, &cpus[..1]).expect("a kernel with classic BPF");
        let mut client = TcpStream::connect(address).expect("it listens");
        let listener = TcpListener::from(sockets.into_iter().next().expect("one"));
        drop(listener.accept().expect("a connection"));
        assert_eq!(client.read(&mut [0; 8]).expect("closed"), 0);
    }
}
