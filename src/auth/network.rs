//! Networks of IPv4 and IPv6 addresses in prefix notation (RFC 4632, RFC 4291).
//!
//! An IPv4 address that arrived mapped into IPv6 (`::ffff:192.0.2.1`, what a
//! dual-stack listener sees) is an IPv4 address here, on both sides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
}

/// How many leading bits of an address tell one client, or one network, from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// Of an IPv4 address: 32 at most.
    pub v4: u8,
    /// Of an IPv6 address: 128 at most.
    pub v6: u8,
}

impl Prefixes {
    /// What counts as one network unless the operator says otherwise: what a customer
    /// or a small company is given.
    pub const NETWORK: Self = Self { v4: 24, v6: 48 };

    /// What counts as one address unless the operator says otherwise: an IPv6 host has
    /// a whole /64 to itself.
    pub const ADDRESS: Self = Self { v4: 32, v6: 64 };

    /// The address without the bits that do not count.
    pub fn of(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let dropped = 32_u32.saturating_sub(u32::from(self.v4));
                let mask = u32::MAX.checked_shl(dropped).unwrap_or_default();
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let dropped = 128_u32.saturating_sub(u32::from(self.v6));
                let mask = u128::MAX.checked_shl(dropped).unwrap_or_default();
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

/// Text that is not `address` or `address/bits`. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkError(String);

impl Network {
    /// Whether the address lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Network {
    /// Its first and its last address.
    pub(super) fn range(&self) -> (IpAddr, IpAddr) {
        match self.base {
            IpAddr::V4(base) => {
                let host = u32::MAX.checked_shr(self.prefix).unwrap_or_default();
                let (first, last) = (base.to_bits() & !host, base.to_bits() | host);
                let [first, last] = [first, last].map(Ipv4Addr::from_bits);
                (first.into(), last.into())
            }
            IpAddr::V6(base) => {
                let host = u128::MAX.checked_shr(self.prefix).unwrap_or_default();
                let (first, last) = (base.to_bits() & !host, base.to_bits() | host);
                let [first, last] = [first, last].map(Ipv6Addr::from_bits);
                (first.into(), last.into())
            }
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Bits of the address behind the prefix are ignored, as Dovecot does.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| error())?;
        let base = written.to_canonical();
        let width = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let prefix = match bits {
            None => width(base),
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                let bits: u32 = bits.parse().map_err(|_| error())?;
                // `::ffff:192.0.2.0/120` names the network 192.0.2.0/24.
                let mapped = width(written) - width(base);
                let prefix = bits.checked_sub(mapped).ok_or_else(error)?;
                if prefix > width(base) {
                    return Err(error());
                }
                prefix
            }
            Some(_) => return Err(error()),
        };
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.escape_debug();
        write!(
            f,
            "\"{text}\" is not a network such as 192.0.2.0/24 or 2001:db8::/32"
        )
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    }

    #[test]
    fn prefixes_count_bits() {
        let inside = [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.255"),
            ("192.0.2.77/24", "192.0.2.1"),
            ("192.0.2.128/25", "192.0.2.200"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("192.0.2.0/24", "::ffff:192.0.2.9"),
            ("::ffff:192.0.2.0/120", "192.0.2.9"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("::/0", "2001:db8::1"),
            ("::1", "::1"),
        ];
        for (network, address) in inside {
            assert!(contains(network, address), "{address} in {network}");
        }
        let outside = [
            ("192.0.2.1", "192.0.2.2"),
            ("192.0.2.0/24", "192.0.3.0"),
            ("192.0.2.128/25", "192.0.2.127"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::/0", "192.0.2.1"),
            ("2001:db8::/32", "2001:db9::1"),
        ];
        for (network, address) in outside {
            assert!(!contains(network, address), "{address} in {network}");
        }
    }

    #[test]
    fn an_address_without_its_last_bits_is_its_network() {
        let cut = |v4, v6, address: &str| {
            let address = address.parse().expect("an address");
            Prefixes { v4, v6 }.of(address).to_string()
        };
        assert_eq!(cut(32, 64, "192.0.2.77"), "192.0.2.77");
        assert_eq!(cut(24, 64, "192.0.2.77"), "192.0.2.0");
        assert_eq!(cut(24, 64, "::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(cut(0, 64, "192.0.2.77"), "0.0.0.0");
        assert_eq!(cut(32, 64, "2001:db8:1:2:3::4"), "2001:db8:1:2::");
        assert_eq!(cut(32, 48, "2001:db8:1:2:3::4"), "2001:db8:1::");
        assert_eq!(cut(32, 128, "2001:db8::4"), "2001:db8::4");
        assert_eq!(cut(32, 0, "2001:db8::4"), "::");
    }

    #[test]
    fn other_text_is_refused() {
        let bad = [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.0/+8",
            "192.0.2/24",
            "::/129",
            "::ffff:1.2.3.4/95",
            "host",
            "192.0.2.0/24/1",
            " 192.0.2.0",
            "192.0.2.0/99999999999",
        ];
        for text in bad {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
