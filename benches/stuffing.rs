//! The encoder and the octet counter, by every kernel of this machine, in GB/s of
//! stored text, beside a copy of the same text, a loop over lines found by memchr
//! (the portable kernel) and a loop over octets.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use popcore::limits;
use popcore::wire::{Encoder, Kernel, OctetCounter};

/// Octets of each text: more than the second-level cache of most machines
/// holds twice, less than the third.
const TEXT: usize = 1 << 20;
/// Room of the output that the encoder fills again and again.
const WINDOW: usize = 64 << 10;

/// Lines of 0 to 80 octets, one in fifty with a dot in front.
fn prose(line_end: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut seed = 1_u32;
    while text.len() < TEXT {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (seed >> 16) as usize % 81;
        let first = if seed >> 8 & 0xFF < 5 { b'.' } else { b'w' };
        text.extend((0..length).map(|at| if at == 0 { first } else { b'e' }));
        text.extend_from_slice(line_end);
    }
    text
}

/// Lines of 76 octets, as an attachment has them.
fn base64(line_end: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < TEXT {
        text.extend_from_slice(&[b'Q'; 76]);
        text.extend_from_slice(line_end);
    }
    text
}

/// Encodes the whole text through a window, which `sink` looks at each time it
/// is full.
fn encode(kernel: Kernel, text: &[u8], window: &mut Vec<u8>, mut sink: impl FnMut(&[u8])) {
    let mut encoder = Encoder::new();
    let mut rest = text;
    while !rest.is_empty() {
        window.clear();
        let taken = encoder.encode_with(kernel, rest, window);
        sink(window);
        rest = &rest[taken..];
    }
    window.clear();
    encoder.finish(window);
    sink(window);
}

fn counted(kernel: Kernel, text: &[u8]) -> u64 {
    let mut counter = OctetCounter::new();
    counter.update_with(kernel, text);
    counter.finish().get()
}

/// The same as [`encode`], an octet at a time.
fn encode_by_octet(text: &[u8], wire: &mut Vec<u8>) {
    let mut last = b'\n';
    for &octet in text {
        match (last, octet) {
            (b'\n', b'.') => wire.push(b'.'),
            (b'\r', b'\n') => {}
            (_, b'\n') => wire.push(b'\r'),
            _ => {}
        }
        wire.push(octet);
        last = octet;
    }
    if last != b'\n' {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
}

fn stuffing(c: &mut Criterion) {
    let texts = [
        ("prose LF", prose(b"\n")),
        ("prose CRLF", prose(b"\r\n")),
        ("base64 LF", base64(b"\n")),
        ("base64 CRLF", base64(b"\r\n")),
    ];
    for (name, text) in &texts {
        let mut group = c.benchmark_group(format!("stuffing/{name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut wire = Vec::with_capacity(2 * text.len() + limits::MESSAGE_END);
        encode_by_octet(text, &mut wire);
        let mut window = Vec::with_capacity(WINDOW);
        let doubled = wire.windows(3).filter(|three| *three == b"\n..").count()
            + usize::from(wire.starts_with(b".."));
        let octets = (wire.len() - doubled - limits::TERMINATOR) as u64;
        for kernel in Kernel::available() {
            let id = kernel.name();
            let mut encoded = Vec::with_capacity(wire.len());
            encode(kernel, text, &mut window, |part| {
                encoded.extend_from_slice(part);
            });
            assert!(encoded == wire, "{name}: {id} is wrong");
            assert_eq!(counted(kernel, text), octets, "{name}: {id}");
            group.bench_function(format!("encoder/{id}"), |b| {
                b.iter(|| {
                    encode(kernel, black_box(text), &mut window, |part| {
                        black_box(part);
                    });
                });
            });
            group.bench_function(format!("counter/{id}"), |b| {
                b.iter(|| counted(kernel, black_box(text)));
            });
        }
        group.bench_function("copy", |b| {
            b.iter(|| {
                for part in black_box(text).chunks(WINDOW) {
                    window.clear();
                    window.extend_from_slice(part);
                    black_box(&window);
                }
            });
        });
        group.bench_function("octet loop", |b| {
            b.iter(|| {
                wire.clear();
                encode_by_octet(black_box(text), &mut wire);
                black_box(&wire);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, stuffing);
criterion_main!(benches);
