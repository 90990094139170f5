//! Many networks in one: block lists and exemptions.
//!
//! A list of a hundred thousand networks is asked for every connection, so it is made
//! into ranges of addresses that neither meet nor touch, in order; a search among them
//! halves them seventeen times. A prefix trie was not taken: it is larger and no
//! faster at this size.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::network::{Network, NetworkError};
use crate::limits;

/// Addresses of any number of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

/// A file of networks that cannot be used. The operator is at fault.
#[derive(Debug)]
pub enum ListError {
    /// It cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has more octets than [`limits::NETWORK_LIST`].
    TooLarge(PathBuf),
    /// A line is no network.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What it is.
        source: NetworkError,
    },
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network.range() {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((first.to_bits(), last.to_bits())),
                _ => unreachable!("a network is of one family"),
            }
        }
        Self {
            v4: joined(v4, |last| last.checked_add(1)),
            v6: joined(v6, |last| last.checked_add(1)),
        }
    }
}

/// The same addresses in ranges that neither meet nor touch.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if next(before.1).is_none_or(|next| first <= next) => {
                before.1 = before.1.max(last);
            }
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

/// Whether one of the ranges has this address.
fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind > 0 && address <= ranges[behind - 1].1
}

impl NetworkSet {
    /// The networks of a file: one in a line; `#` begins a remark. BLOCKING.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        let unreadable = |source| ListError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let facts = fs::metadata(path).map_err(unreadable)?;
        if !facts.is_file() || facts.len() > limits::NETWORK_LIST {
            return Err(ListError::TooLarge(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let mut networks = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let told = line.split('#').next().unwrap_or_default().trim();
            if told.is_empty() {
                continue;
            }
            let network = told.parse().map_err(|source| ListError::Line {
                path: path.to_owned(),
                line: number + 1,
                source,
            });
            networks.push(network?);
        }
        Ok(networks.into_iter().collect())
    }

    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.to_bits()),
            IpAddr::V6(address) => holds(&self.v6, address.to_bits()),
        }
    }

    /// Ranges of addresses that it has.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether it has no address.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(
                f,
                "{}: {source}; make it a file that this process may read",
                path.display()
            ),
            Self::TooLarge(path) => write!(
                f,
                "{}: is not a file of at most {} octets; correct the path, or join its networks",
                path.display(),
                limits::NETWORK_LIST
            ),
            Self::Line { path, line, source } => {
                write!(f, "{}:{line}: {source}; correct the line", path.display())
            }
        }
    }
}

impl std::error::Error for ListError {}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> NetworkSet {
        let networks = networks.iter().map(|text| text.parse().expect("a network"));
        networks.collect::<Vec<Network>>().into_iter().collect()
    }

    #[test]
    fn networks_that_meet_or_touch_are_one_range() {
        let joined = set(&[
            "192.0.2.0/25",
            "192.0.2.128/25",
            "192.0.2.64/26",
            "198.51.100.7",
            "2001:db8::/33",
            "2001:db8:8000::/33",
            "0.0.0.0/8",
            "255.0.0.0/8",
        ]);
        assert_eq!((joined.v4.len(), joined.v6.len()), (4, 1));
        assert!(set(&["0.0.0.0/0", "::/0"]).contains(Ipv6Addr::LOCALHOST.into()));
        assert!(!set(&["0.0.0.0/0"]).contains(Ipv6Addr::LOCALHOST.into()));
        assert!(set(&[]).is_empty());
    }

    #[test]
    fn a_file_is_read_and_its_fault_named_by_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blocked");
        let write = |text: &str| fs::write(&path, text).expect("written");
        write("# a remark\n192.0.2.0/24 # and another\n\n2001:db8::/32\n");
        let loaded = NetworkSet::load(&path).expect("a list");
        assert_eq!(loaded, set(&["192.0.2.0/24", "2001:db8::/32"]));
        write("192.0.2.0/24\n192.0.2/24\n");
        let error = NetworkSet::load(&path).expect_err("a fault").to_string();
        assert!(
            error.contains("blocked:2: \"192.0.2/24\" is not"),
            "{error}"
        );
        let error = NetworkSet::load(folder.path()).expect_err("a folder");
        assert!(matches!(error, ListError::TooLarge(_)));
        fs::remove_file(&path).expect("it is there");
        let error = NetworkSet::load(&path).expect_err("none").to_string();
        assert!(error.contains("may read"), "{error}");
    }

    proptest! {
        #[test]
        fn it_has_the_addresses_that_one_of_the_networks_has(
            networks in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..20),
            probes in prop::collection::vec(any::<u8>(), 40),
        ) {
            // All in one /24, so that they meet.
            let networks: Vec<Network> = networks
                .into_iter()
                .map(|(host, bits)| format!("192.0.2.{host}/{bits}").parse().expect("a network"))
                .collect();
            let set: NetworkSet = networks.iter().copied().collect();
            for host in probes {
                let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
                let expected = networks.iter().any(|network| network.contains(address));
                prop_assert_eq!(set.contains(address), expected);
            }
        }
    }
}
