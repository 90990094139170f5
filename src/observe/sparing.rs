//! Log lines that a stranger can cause at will: at most one in a while for each
//! address.
//!
//! Whoever fails a handshake has not proved anything and can do it ten thousand
//! times a second. The counters see every failure; the log sees the first of
//! each address, of IPv6 each network of 64 bits, in each [`limits::STRANGER_LINE`]. The addresses that are
//! remembered are bounded as well: where there are too many for that, the others
//! leave no line, since nobody reads four thousand lines a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits;

/// Who was written about, and when. Shared by all shards, and touched for
/// a failure only.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<HashMap<IpAddr, Instant>>);

impl Sparing {
    /// Whether a line about this address may be written now.
    pub fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let recent = |then: &Instant| now.saturating_duration_since(*then) < limits::STRANGER_LINE;
        let address = network(address);
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&address).is_some_and(recent) {
            return false;
        }
        if told.len() >= limits::STRANGERS {
            told.retain(|_, then| recent(then));
            if told.len() >= limits::STRANGERS {
                return false;
            }
        }
        told.insert(address, now);
        true
    }
}

/// Whom an address stands for: of IPv6 everybody has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn address(number: usize) -> IpAddr {
        let number = u32::try_from(number).expect("small");
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn an_address_is_written_about_once_in_a_while() {
        let (sparing, begin) = (Sparing::default(), Instant::now());
        let told: Vec<_> = (0..25_u32)
            .map(|tenth| sparing.allows(address(1), begin + Duration::from_millis(100) * tenth))
            .collect();
        let lines: Vec<_> = (0..25).filter(|at| told[*at]).collect();
        assert_eq!(lines, [0, 10, 20]);
        assert!(sparing.allows(address(2), begin));
    }

    #[test]
    fn a_network_of_ipv6_is_one_stranger() {
        let (sparing, now) = (Sparing::default(), Instant::now());
        let allows = |text: &str| sparing.allows(text.parse().expect("an address"), now);
        assert!(allows("2001:db8::1"));
        assert!(!allows("2001:db8::ffff:2"));
        assert!(allows("2001:db8:0:1::1"));
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_passes() {
        let (sparing, begin) = (Sparing::default(), Instant::now());
        let told = (0..2 * limits::STRANGERS).filter(|n| sparing.allows(address(*n), begin));
        assert_eq!(told.count(), limits::STRANGERS);
        let later = begin + limits::STRANGER_LINE;
        assert!(sparing.allows(address(2 * limits::STRANGERS), later));
        assert_eq!(sparing.0.lock().expect("unpoisoned").len(), 1);
    }
}
