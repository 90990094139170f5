//! What a client says of itself before there is a session: the first octets of
//! its first flight.
//!
//! rustls does not tell which versions a client offered whose handshake failed,
//! and the operator who reads the log wants to know just that: an old client,
//! or something that is no client at all. So the hello is looked at here, for
//! that one number, without keeping or trusting anything of it.

use std::fmt;

/// The highest version of TLS that a client offers, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientVersion(u16);

impl fmt::Display for ClientVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0002 => f.write_str("SSLv2"),
            0x0300 => f.write_str("SSLv3"),
            0x0301 => f.write_str("TLSv1.0"),
            0x0302 => f.write_str("TLSv1.1"),
            0x0303 => f.write_str("TLSv1.2"),
            0x0304 => f.write_str("TLSv1.3"),
            other => write!(f, "version {other:#06x}"),
        }
    }
}

/// Record types of TLS (RFC 8446, section 5.1): `change_cipher_spec` to
/// `application_data`.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// A handshake record, which is how a client of TLS begins.
const HANDSHAKE: u8 = 22;

/// Whether octets that a client begins with are those of TLS, or of SSL of any
/// age. No command of POP3 and of few other protocols begins like that.
pub(super) fn is_tls(octets: &[u8]) -> bool {
    match octets {
        [] => true,
        [kind] => RECORD_TYPES.contains(kind) || *kind & 0x80 != 0,
        [kind, major, ..] if RECORD_TYPES.contains(kind) => *major == 3,
        // A hello of SSLv2: a length with the high bit set, then the type 1.
        [length, _] => length & 0x80 != 0,
        [length, _, kind, ..] => length & 0x80 != 0 && *kind == 1,
    }
}

/// Whether a client that was greeted in clear text answers with TLS.
pub fn begins_tls(octets: &[u8]) -> bool {
    matches!(octets, [HANDSHAKE, 3, ..])
}

/// The version that a client's first flight offers; nothing while the octets do
/// not reach so far, or where they are no hello.
pub(super) fn version(octets: &[u8]) -> Option<ClientVersion> {
    if let [length, _, 1, major, minor, ..] = octets
        && length & 0x80 != 0
    {
        return Some(ClientVersion(u16::from_be_bytes([*major, *minor])));
    }
    let hello = Reader(octets).handshake()?;
    hello.client_hello()
}

/// Reads from the front of octets that may end anywhere.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many octets.
    fn number(&mut self, octets: usize) -> Option<usize> {
        let taken = self.take(octets)?;
        Some(
            taken
                .iter()
                .fold(0, |sum, octet| sum << 8 | usize::from(*octet)),
        )
    }

    /// What stands behind a length of so many octets.
    fn vector(&mut self, octets: usize) -> Option<Reader<'a>> {
        let length = self.number(octets)?;
        self.take(length).map(Reader)
    }

    /// What the first handshake record holds. A hello that is cut over several
    /// records tells its version in the first, or not at all.
    fn handshake(mut self) -> Option<Reader<'a>> {
        if self.number(1)? != usize::from(HANDSHAKE) {
            return None;
        }
        self.take(2)?;
        let length = self.number(2)?;
        let whole = self.0.len().min(length);
        self.take(whole).map(Reader)
    }

    /// RFC 8446, section 4.1.2.
    fn client_hello(mut self) -> Option<ClientVersion> {
        const CLIENT_HELLO: usize = 1;
        if self.number(1)? != CLIENT_HELLO {
            return None;
        }
        self.take(3)?;
        let legacy = self.number(2)?;
        let highest = self.supported_versions().unwrap_or(legacy);
        u16::try_from(highest).ok().map(ClientVersion)
    }

    /// The highest version of the extension, if it is there and names one
    /// (section 4.2.1). Values of RFC 8701 that mean nothing are passed over.
    fn supported_versions(mut self) -> Option<usize> {
        const SUPPORTED_VERSIONS: usize = 43;
        const RANDOM: usize = 32;
        self.take(RANDOM)?;
        self.vector(1)?;
        self.vector(2)?;
        self.vector(1)?;
        self.take(2)?;
        loop {
            let kind = self.number(2)?;
            let mut extension = self.vector(2)?;
            if kind == SUPPORTED_VERSIONS {
                let mut versions = extension.vector(1)?;
                let mut highest = None;
                while let Some(version) = versions.number(2) {
                    if version >> 8 == 3 {
                        highest = highest.max(Some(version));
                    }
                }
                return highest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with this legacy version and these extensions.
    fn hello(legacy: [u8; 2], extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = legacy.to_vec();
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        let mut all = Vec::new();
        for (kind, octets) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend(u16::try_from(octets.len()).expect("short").to_be_bytes());
            all.extend(*octets);
        }
        body.extend(u16::try_from(all.len()).expect("short").to_be_bytes());
        body.extend(all);
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let mut handshake = vec![1, 0, length[0], length[1]];
        handshake.extend(body);
        let length = u16::try_from(handshake.len()).expect("short").to_be_bytes();
        let mut record = vec![22, 3, 1, length[0], length[1]];
        record.extend(handshake);
        record
    }

    fn shown(octets: &[u8]) -> Option<String> {
        version(octets).map(|version| version.to_string())
    }

    #[test]
    fn the_highest_version_that_is_offered_is_named() {
        let versions: &[u8] = &[6, 0x7a, 0x7a, 3, 4, 3, 3];
        let modern = hello([3, 3], &[(0, b"\0\0"), (43, versions)]);
        assert_eq!(shown(&modern).as_deref(), Some("TLSv1.3"));
        for (legacy, name) in [
            ([3, 3], "TLSv1.2"),
            ([3, 2], "TLSv1.1"),
            ([3, 1], "TLSv1.0"),
            ([3, 0], "SSLv3"),
        ] {
            assert_eq!(shown(&hello(legacy, &[])).as_deref(), Some(name));
        }
        let ancient = [0x80, 46, 1, 0, 2, 0, 21];
        assert_eq!(shown(&ancient).as_deref(), Some("SSLv2"));
    }

    #[test]
    fn octets_that_end_anywhere_are_no_fault() {
        let whole = hello([3, 3], &[(43, &[2, 3, 4])]);
        for end in 0..whole.len() {
            // The legacy version is what there is until the extension is there.
            let told = shown(&whole[..end]);
            assert!(told.is_none() || told.as_deref() == Some("TLSv1.2"));
        }
        assert_eq!(shown(b"USER ann\r\n"), None);
        assert_eq!(shown(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), None);
    }

    #[test]
    fn tls_is_told_from_other_protocols() {
        let first = hello([3, 3], &[]);
        for end in 0..first.len() {
            assert!(is_tls(&first[..end]), "{end}");
        }
        assert!(is_tls(&[0x80, 46, 1, 0, 2]));
        assert!(is_tls(&[21, 3, 1, 0, 2, 1, 0]));
        for octets in [
            b"USER ann\r\n".as_slice(),
            b"\r\n",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x16",
            b"\0",
        ] {
            assert!(!is_tls(octets), "{}", octets.escape_ascii());
            assert!(!begins_tls(octets));
        }
        assert!(begins_tls(&first));
    }
}
