//! A connection whose records the kernel makes.
//!
//! What is sent is sealed by the kernel, so that it goes the ways of clear text.
//! What is received is opened here: a few commands, for which the kernel would want
//! a system call of another kind for each alert or key update, and have none of it
//! before Linux 6.14. The cipher and the keys of an update are rustls'; what is ours
//! is where a record begins and ends.
//!
//! The keys that the kernel has are its last. A client that changes its own keys is
//! followed; one that asks for new ones of ours, and a connection that has used up
//! what one key may seal, comes to its end with `close_notify`: after a request we
//! may not send any more text under the old ones (RFC 8446, section 4.6.3). No
//! client is known to ask within the octets of a POP3 session.

use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    SupportedCipherSuite,
};
use zeroize::Zeroizing;

use super::secured::TlsFault;
use crate::limits;

/// Octets of a record before its text: type, version, length.
const HEADER: usize = 5;

/// Most octets behind the header (RFC 5246, section 6.2.3; with TLS 1.3 they are
/// fewer).
const LARGEST: usize = 16 * 1024 + 2048;

/// Text of a record (RFC 8446, section 5.1).
const TEXT: usize = 16 * 1024;

/// The type of an alert's record.
pub const ALERT: u8 = 21;

/// An alert: that we send no more.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Keys in the form of `linux/tls.h`.
pub type KernelKeys = Zeroizing<Vec<u8>>;

/// Whether the kernel seals for this suite.
pub(super) fn is_known(suite: SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    )
}

/// One connection's TLS, of which the kernel does a half.
pub struct Handed {
    traffic: KernelConnection<ServerConnectionData>,
    opener: Box<dyn MessageDecrypter>,
    /// The number of the next record that comes.
    number: u64,
    /// The beginning of a record.
    held: Vec<u8>,
    closed: bool,
    /// Records that were sent, at most.
    sealed: u64,
    /// Text is under way, or nothing may follow what was.
    under_way: bool,
}

impl Handed {
    /// Takes a connection of a suite that is known, all of whose records have been
    /// used up and have left; the keys are for the kernel.
    ///
    /// # Errors
    ///
    /// What rustls makes of it.
    pub(super) fn take(
        connection: UnbufferedServerConnection,
    ) -> Result<(Handed, KernelKeys), TlsFault> {
        let (secrets, traffic) = connection.dangerous_into_kernel_connection()?;
        let (number, theirs) = secrets.rx;
        let (sealed, ours) = secrets.tx;
        let handed = Handed {
            opener: opener(traffic.negotiated_cipher_suite(), theirs),
            number,
            held: Vec::new(),
            closed: false,
            sealed,
            under_way: false,
            traffic,
        };
        let version = handed.traffic.protocol_version();
        Ok((handed, kernel_keys(version, sealed, &ours)))
    }

    /// Whether the peer has said that it sends no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes records; the clear text that they complete goes to the end of `clear`.
    ///
    /// # Errors
    ///
    /// A record is damaged or out of place, or the client wants what there is not.
    pub fn receive(&mut self, received: Vec<u8>, clear: &mut Vec<u8>) -> Result<(), TlsFault> {
        let mut octets = std::mem::take(&mut self.held);
        octets.extend(received);
        let mut rest = &mut octets[..];
        while let Some(length) = record_length(rest)? {
            let (record, behind) = rest.split_at_mut(length);
            self.open(record, clear)?;
            rest = behind;
        }
        if !rest.is_empty() {
            self.held = rest.to_vec();
        }
        Ok(())
    }

    fn open(&mut self, record: &mut [u8], clear: &mut Vec<u8>) -> Result<(), TlsFault> {
        let (header, body) = record.split_at_mut(HEADER);
        let kind = ContentType::from(header[0]);
        let sealed = self.traffic.protocol_version() == ProtocolVersion::TLSv1_3;
        if sealed && kind != ContentType::ApplicationData {
            return Err(out_of_place(kind));
        }
        let version = ProtocolVersion::from(u16::from_be_bytes([header[1], header[2]]));
        let message = InboundOpaqueMessage::new(kind, version, body);
        let plain = self.opener.decrypt(message, self.number)?;
        self.number += 1;
        match (plain.typ, plain.payload) {
            (ContentType::ApplicationData, text) => clear.extend_from_slice(text),
            (ContentType::Alert, [_, 0]) => self.closed = true,
            // user_canceled: the end follows.
            (ContentType::Alert, [_, 90]) => {}
            (ContentType::Alert, [_, other]) => {
                let alert = AlertDescription::from(*other);
                return Err(rustls::Error::AlertReceived(alert).into());
            }
            // KeyUpdate (RFC 8446, section 4.6.3); ours are not asked for.
            (ContentType::Handshake, [24, 0, 0, 1, 0]) if sealed => {
                let (number, theirs) = self.traffic.update_rx_secret()?;
                self.opener = opener(self.traffic.negotiated_cipher_suite(), theirs);
                self.number = number;
            }
            (ContentType::Handshake, [24, 0, 0, 1, 1]) if sealed => return Err(TlsFault::Renewal),
            (kind, _) => return Err(out_of_place(kind)),
        }
        Ok(())
    }

    /// So much text is about to be sent.
    ///
    /// # Errors
    ///
    /// It would be more than one key may seal.
    pub fn sending(&mut self, octets: usize) -> Result<(), TlsFault> {
        self.sealed += octets as u64 / TEXT as u64 + 1;
        if self.sealed > limits::RECORDS_OF_A_KEY {
            return Err(TlsFault::Renewal);
        }
        self.under_way = true;
        Ok(())
    }

    /// All text has left.
    pub fn sent(&mut self) {
        self.under_way = false;
    }

    /// The alert that tells the client of a fault, after which nothing is said.
    pub fn alert(&mut self, fault: &TlsFault) -> Option<[u8; 2]> {
        const FATAL: u8 = 2;
        let TlsFault::Protocol(error) = fault else {
            return None;
        };
        let alert = match error {
            rustls::Error::DecryptError => AlertDescription::BadRecordMac,
            rustls::Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            rustls::Error::InappropriateMessage { .. } => AlertDescription::UnexpectedMessage,
            _ => return None,
        };
        let may = !std::mem::replace(&mut self.under_way, true);
        may.then(|| [FATAL, alert.into()])
    }

    /// The alert that we send no more, where that can be said.
    pub fn close(&self) -> Option<[u8; 2]> {
        (!self.under_way).then_some(CLOSE_NOTIFY)
    }
}

fn out_of_place(kind: ContentType) -> TlsFault {
    TlsFault::Protocol(rustls::Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type: kind,
    })
}

/// How long the record is that these octets begin with, once they hold all of it.
fn record_length(octets: &[u8]) -> Result<Option<usize>, TlsFault> {
    let [_, _, _, high, low, ..] = octets else {
        return Ok(None);
    };
    let body = usize::from(u16::from_be_bytes([*high, *low]));
    if body > LARGEST {
        return Err(rustls::Error::PeerSentOversizedRecord.into());
    }
    Ok(Some(HEADER + body).filter(|length| *length <= octets.len()))
}

fn opener(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Box<dyn MessageDecrypter> {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets
    else {
        unreachable!("suites that are known are AES-GCM");
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        // The rest of a nonce is in each record.
        SupportedCipherSuite::Tls12(suite) => suite.aead_alg.decrypter(key, &iv.as_ref()[..4]),
    }
}

/// A `struct tls12_crypto_info_aes_gcm_128` or `_256`: version, cipher, nonce but
/// for its first four octets, key, those four, and the number of the next record.
fn kernel_keys(
    version: ProtocolVersion,
    number: u64,
    secrets: &ConnectionTrafficSecrets,
) -> KernelKeys {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (libc::TLS_CIPHER_AES_GCM_128, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (libc::TLS_CIPHER_AES_GCM_256, key, iv),
        _ => unreachable!("suites that are known are AES-GCM"),
    };
    let (salt, explicit) = iv.as_ref().split_at(4);
    let mut explicit = u64::from_be_bytes(explicit.try_into().expect("a nonce has 12 octets"));
    let version = if version == ProtocolVersion::TLSv1_3 {
        libc::TLS_1_3_VERSION
    } else {
        // With TLS 1.2 this part of the nonce is the sender's choice, and never the
        // same twice (RFC 5288, section 3). rustls has used this number, each time
        // with another record's number in its low bits; the kernel counts on from
        // what it is given. Half of all numbers away they do not meet.
        explicit = (explicit ^ 1 << 63) & !((1 << 62) - 1);
        libc::TLS_1_2_VERSION
    };
    let parts: [&[u8]; 6] = [
        &version.to_ne_bytes(),
        &cipher.to_ne_bytes(),
        &explicit.to_be_bytes(),
        key.as_ref(),
        salt,
        &number.to_be_bytes(),
    ];
    let mut keys = Zeroizing::new(Vec::with_capacity(
        parts.iter().map(|part| part.len()).sum(),
    ));
    for part in parts {
        keys.extend_from_slice(part);
    }
    keys
}

#[cfg(test)]
mod tests;
