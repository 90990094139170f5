use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// A server's configuration and that of a client that trusts it.
static PAIR: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM");
    let key = made.signing_key.serialize_pem();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a pair");
    server.key_log = Arc::new(crate::tls::binding::Exporters);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = rustls::client::Resumption::disabled();
    (Arc::new(server), Arc::new(client))
});

/// Both ends of a connection, whose octets travel in pieces of chosen lengths.
struct Wire {
    server: Secured,
    client: ClientConnection,
    /// Lengths of the pieces that the server receives, over and over.
    pieces: Vec<usize>,
    piece: usize,
    clear: Vec<u8>,
}

impl Wire {
    fn new(pieces: Vec<usize>) -> Wire {
        let name = ServerName::try_from("localhost").expect("a name");
        Wire {
            server: Secured::new(Arc::clone(&PAIR.0)).expect("a server"),
            client: ClientConnection::new(Arc::clone(&PAIR.1), name).expect("a client"),
            pieces,
            piece: 0,
            clear: Vec::new(),
        }
    }

    /// A connection past its handshake.
    fn established(pieces: Vec<usize>) -> Wire {
        let mut wire = Wire::new(pieces);
        while wire.client.is_handshaking() || wire.server.is_handshaking() {
            wire.carry().expect("no fault");
        }
        assert_eq!(wire.server.established(), Some(Established::Full));
        wire
    }

    /// Carries all that the client has to say to the server, and what the server
    /// says to that back.
    fn carry(&mut self) -> Result<(), TlsFault> {
        let mut octets = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut octets).expect("a vector");
        }
        let mut rest = octets.as_slice();
        while !rest.is_empty() {
            let length = self.pieces[self.piece % self.pieces.len()].clamp(1, rest.len());
            self.piece += 1;
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            let mut records = Vec::new();
            let taken = self
                .server
                .receive(piece.to_vec(), &mut self.clear, &mut records);
            self.hear(&records);
            taken?;
        }
        Ok(())
    }

    /// The client takes records; what they hold.
    fn hear(&mut self, mut records: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        while !records.is_empty() {
            self.client.read_tls(&mut records).expect("a slice");
            // The client's own faults are seen by what it does next.
            let _ = self.client.process_new_packets();
            let _ = self.client.reader().read_to_end(&mut heard);
        }
        heard
    }

    fn say(&mut self, text: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(text).expect("room");
        self.carry().expect("no fault");
        std::mem::take(&mut self.clear)
    }

    fn answer(&mut self, text: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        self.server.encrypt(text, &mut records).expect("open");
        self.hear(&records)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_travels_both_ways_in_any_segmentation(
        pieces in prop::collection::vec(1_usize..600, 1..8),
        there in prop::collection::vec(any::<u8>(), 0..40_000),
        back in prop::collection::vec(any::<u8>(), 0..70_000),
    ) {
        let mut wire = Wire::established(pieces);
        for _ in 0..2 {
            // The client holds 64 KiB at a time and no more.
            prop_assert_eq!(wire.say(&there), there.clone());
            prop_assert_eq!(wire.answer(&back), back.clone());
        }
        prop_assert_eq!(wire.server.held.capacity(), 0);
    }

    #[test]
    fn no_octets_make_it_panic_and_a_fault_ends_it(
        octets in prop::collection::vec(any::<u8>(), 1..2000),
        pieces in prop::collection::vec(1_usize..300, 1..5),
        truth in 0_usize..600,
    ) {
        // A true beginning of any length, and then noise.
        let mut wire = Wire::new(pieces);
        let mut hello = Vec::new();
        wire.client.write_tls(&mut hello).expect("a vector");
        hello.truncate(truth);
        hello.extend(octets);
        let (mut clear, mut records) = (Vec::new(), Vec::new());
        for piece in hello.chunks(wire.pieces[0]) {
            if wire.server.receive(piece.to_vec(), &mut clear, &mut records).is_err() {
                break;
            }
        }
        prop_assert!(clear.is_empty());
        prop_assert!(wire.server.is_handshaking());
    }
}

#[test]
fn a_key_update_is_answered_before_the_text_behind_it() {
    let mut wire = Wire::established(vec![usize::MAX]);
    for round in 0..5_u8 {
        wire.client.refresh_traffic_keys().expect("TLS 1.3");
        assert_eq!(wire.say(b"USER"), b"USER");
        assert_eq!(wire.answer(&[round; 3000]), [round; 3000]);
    }
}

#[test]
fn half_a_key_update_may_stay_while_text_is_sent() {
    let mut wire = Wire::established(vec![usize::MAX]);
    wire.client.refresh_traffic_keys().expect("TLS 1.3");
    let mut octets = Vec::new();
    wire.client.write_tls(&mut octets).expect("a vector");
    let (first, second) = octets.split_at(octets.len() / 2);
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    wire.server
        .receive(first.to_vec(), &mut clear, &mut records)
        .expect("no fault");
    assert_eq!(wire.answer(b"+OK\r\n"), b"+OK\r\n");
    wire.server
        .receive(second.to_vec(), &mut clear, &mut records)
        .expect("no fault");
    assert_eq!(wire.hear(&records), b"");
    assert_eq!(wire.answer(b"+OK\r\n"), b"+OK\r\n");
    assert_eq!(wire.say(b"NOOP"), b"NOOP");
}

#[test]
fn an_end_that_the_client_announces_comes_behind_its_text() {
    let mut wire = Wire::established(vec![usize::MAX]);
    wire.client.writer().write_all(b"QUIT\r\n").expect("room");
    wire.client.send_close_notify();
    wire.carry().expect("no fault");
    assert_eq!(wire.clear, b"QUIT\r\n");
    assert!(wire.server.is_closed());
    // What is left to say may still be said, and then the end.
    assert_eq!(wire.answer(b"+OK\r\n"), b"+OK\r\n");
    let mut records = Vec::new();
    wire.server.close(&mut records);
    wire.hear(&records);
    assert_eq!(wire.client.reader().read(&mut [0]).expect("an end"), 0);
}

#[test]
fn a_fault_hands_out_its_alert_and_the_version() {
    let mut wire = Wire::new(vec![usize::MAX]);
    let mut hello = Vec::new();
    wire.client.write_tls(&mut hello).expect("a vector");
    // No cipher suite is left that the server knows.
    let suites = 5 + 4 + 2 + 32 + 1 + 32;
    let length = usize::from(hello[suites]) << 8 | usize::from(hello[suites + 1]);
    hello[suites + 2..suites + 2 + length].fill(0x7a);
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    let fault = wire.server.receive(hello, &mut clear, &mut records);
    assert!(matches!(fault, Err(TlsFault::Protocol(_))), "{fault:?}");
    // A fatal alert, handshake_failure.
    assert_eq!(records, [21, 3, 3, 0, 2, 2, 40]);
    let version = wire.server.client_version().map(|v| v.to_string());
    assert_eq!(version.as_deref(), Some("TLSv1.3"));
}

#[test]
fn clear_text_is_told_by_its_first_octet() {
    let mut server = Secured::new(Arc::clone(&PAIR.0)).expect("a server");
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    let fault = server.receive(b"U".to_vec(), &mut clear, &mut records);
    assert!(matches!(fault, Err(TlsFault::NotTls)), "{fault:?}");
    assert!(records.is_empty());
}

#[test]
fn a_handshake_is_not_fed_without_end() {
    let mut server = Secured::new(Arc::clone(&PAIR.0)).expect("a server");
    let (mut clear, mut records) = (Vec::new(), Vec::new());
    // A hello of 65,000 octets, each in a record of its own.
    let mut sent = 0;
    let mut octet = [1, 0, 0xfd, 0xe8].into_iter().chain(std::iter::repeat(0));
    loop {
        let record = vec![22, 3, 1, 0, 1, octet.next().expect("endless")];
        sent += record.len();
        match server.receive(record, &mut clear, &mut records) {
            Ok(()) => assert!(sent <= limits::HANDSHAKE_OCTETS),
            Err(fault) => {
                assert!(matches!(fault, TlsFault::Oversized), "{fault}");
                assert!(sent > limits::HANDSHAKE_OCTETS);
                return;
            }
        }
    }
}

#[test]
fn what_a_socket_had_no_room_for_comes_before_the_end() {
    for room in [0, 1, 10, 30, 16_000] {
        let mut wire = Wire::established(vec![usize::MAX]);
        let text = vec![b'x'; 30_000];
        let mut out = Vec::new();
        let offer = |records: &[u8]| {
            out.extend_from_slice(&records[..room]);
            room
        };
        wire.server.offer(&text, Vec::new(), offer).expect("open");
        assert!(wire.server.is_behind());
        if room % 2 == 0 {
            out.extend(wire.server.take_left().expect("records"));
            assert_eq!(wire.server.take_left(), None);
        }
        // What is left is not passed by.
        wire.server.close(&mut out);
        assert_eq!(wire.hear(&out), text);
        assert_eq!(wire.client.reader().read(&mut [0]).expect("an end"), 0);
    }
}

#[test]
fn what_may_as_well_leave_with_the_next_text_does_and_before_it() {
    for room in [0, 5, 10_000] {
        let mut wire = Wire::established(vec![usize::MAX]);
        let mut records = Vec::new();
        wire.server.encrypt(b"first, ", &mut records).expect("open");
        wire.server.leave(records);
        let mut out = Vec::new();
        let offer = |records: &[u8]| {
            let taken = room.min(records.len());
            out.extend_from_slice(&records[..taken]);
            taken
        };
        let done = wire.server.offer(b"second", Vec::new(), offer);
        done.expect("open");
        assert_eq!(wire.server.is_behind(), room < 10_000);
        wire.server.close(&mut out);
        assert_eq!(wire.hear(&out), b"first, second");
    }
}

#[test]
fn nothing_is_said_behind_records_that_may_have_been_cut_off() {
    let mut wire = Wire::established(vec![usize::MAX]);
    let mut out = Vec::new();
    wire.server.sending();
    wire.server.close(&mut out);
    assert!(out.is_empty());
    wire.server.sent();
    wire.server.close(&mut out);
    wire.hear(&out);
    assert_eq!(wire.client.reader().read(&mut [0]).expect("an end"), 0);
}

/// RFC 9266, section 2: what the client's own TLS says it is.
#[test]
fn the_exporter_is_that_of_the_client() {
    for pieces in [vec![usize::MAX], vec![1], vec![100, 7]] {
        let mut wire = Wire::established(pieces);
        let label = b"EXPORTER-Channel-Binding";
        let theirs = wire
            .client
            .export_keying_material([0; 32], label, Some(b""));
        let ours = wire.server.take_bindings();
        assert_eq!(ours.exporter.as_deref(), Some(&theirs.expect("TLS 1.3")));
        assert_eq!(wire.server.take_bindings().exporter, None);
    }
}

#[test]
fn two_connections_on_one_thread_have_their_own_exporters() {
    let mut wires = [Wire::new(vec![50]), Wire::new(vec![60])];
    while wires
        .iter()
        .any(|wire| wire.server.is_handshaking() || wire.client.is_handshaking())
    {
        for wire in &mut wires {
            wire.carry().expect("no fault");
        }
    }
    for wire in &mut wires {
        let label = b"EXPORTER-Channel-Binding";
        let theirs = wire
            .client
            .export_keying_material([0; 32], label, Some(b""));
        let ours = wire.server.take_bindings();
        assert_eq!(ours.exporter.as_deref(), Some(&theirs.expect("TLS 1.3")));
    }
}
