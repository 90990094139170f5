//! The PROXY protocol's header (haproxy's specification, versions 1 and 2), with
//! source addresses of our choice: what a server does by client address can so
//! be tried from one machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::random::Random;

/// The form of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// Text
    V1,
    /// Binary
    V2,
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// From `192.0.2.0/24`, `2001:db8::/32` or a single address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text} is no network: write it as 10.0.0.0/8 or 2001:db8::/32");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| form())?,
            None => longest,
        };
        if prefix > longest {
            return Err(form());
        }
        Ok(Self { address, prefix })
    }

    /// One of its addresses.
    pub fn any(self, random: &mut Random) -> IpAddr {
        let noise = u128::from(random.number()) << 64 | u128::from(random.number());
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                let noise = u32::try_from(noise & u128::from(mask)).expect("masked");
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & !mask | noise))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !mask | noise & mask))
            }
        }
    }
}

/// Writes a header that says: from this source to that target. Both must be of
/// one family; an IPv4 target becomes a mapped address for an IPv6 source.
pub fn write(version: Version, source: SocketAddr, target: SocketAddr, out: &mut Vec<u8>) {
    let target_ip = match (source.ip(), target.ip()) {
        (IpAddr::V6(_), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (IpAddr::V4(_), IpAddr::V6(v6)) => {
            IpAddr::V4(v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::LOCALHOST))
        }
        (_, same) => same,
    };
    match version {
        Version::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, ports) = (source.ip(), (source.port(), target.port()));
            let line = format!(
                "PROXY {family} {from} {target_ip} {} {}\r\n",
                ports.0, ports.1
            );
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 => {
            out.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n\x21");
            let (family, length): (u8, u16) = if source.is_ipv4() {
                (0x11, 12)
            } else {
                (0x21, 36)
            };
            out.push(family);
            out.extend_from_slice(&length.to_be_bytes());
            for ip in [source.ip(), target_ip] {
                match ip {
                    IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&target.port().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: Version, source: &str, target: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let address = |text: &str| text.parse().expect("an address");
        write(version, address(source), address(target), &mut out);
        out
    }

    #[test]
    fn version_1_is_a_line() {
        assert_eq!(
            header(Version::V1, "192.0.2.7:4000", "127.0.0.1:110"),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 110\r\n"
        );
        assert_eq!(
            header(Version::V1, "[2001:db8::1]:4000", "127.0.0.1:110"),
            b"PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 4000 110\r\n"
        );
    }

    #[test]
    fn version_2_is_16_octets_and_the_addresses() {
        let v4 = header(Version::V2, "192.0.2.7:4000", "127.0.0.1:110");
        assert_eq!(
            v4,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x0f\xa0\x00\x6e"
        );
        let v6 = header(Version::V2, "[2001:db8::1]:4000", "[::1]:110");
        assert_eq!((v6.len(), &v6[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
    }

    #[test]
    fn addresses_stay_in_their_network() {
        let mut random = Random::new(1);
        for (text, head) in [("10.1.0.0/16", "10.1."), ("2001:db8::/64", "2001:db8::")] {
            let network = Network::parse(text).expect(text);
            let some: Vec<IpAddr> = (0..50).map(|_| network.any(&mut random)).collect();
            assert!(some.iter().all(|a| a.to_string().starts_with(head)));
            assert!(some.iter().any(|a| *a != some[0]));
        }
        let one = Network::parse("192.0.2.1").expect("one address");
        assert_eq!(one.any(&mut random).to_string(), "192.0.2.1");
        assert!(Network::parse("0.0.0.0/0").is_ok());
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x/8"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
