//! Any text, cut anywhere, into outputs of any size: the encoder, the counter
//! and TOP's limit give what a loop over the octets gives, by every kernel of this
//! machine.
#![no_main]

use libfuzzer_sys::fuzz_target;
use popcore::limits;
use popcore::wire::{Encoder, Kernel, OctetCounter, TopLimit};

fuzz_target!(|data: &[u8]| {
    let [piece, room, body_lines, text @ ..] = data else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    let room = usize::from(*room).max(1);
    let body_lines = u64::from(*body_lines % 8);

    let expected = model(text);
    let body = &expected[..expected.len() - limits::TERMINATOR];
    let doubled = body.windows(3).filter(|three| *three == b"\n..").count()
        + usize::from(body.starts_with(b".."));
    for kernel in Kernel::available() {
        // Large pieces and rooms too: a kernel takes blocks of 64 octets.
        for (piece, room) in [(piece, room), (8 * piece, 8 * room)] {
            assert_eq!(encoded(kernel, text, piece, room), expected);
            assert_eq!(encoded(kernel, text, piece, 2 * text.len() + 8), expected);
            assert_eq!(encoded(kernel, text, text.len().max(1), room), expected);
            let mut counter = OctetCounter::new();
            for piece in text.chunks(piece) {
                counter.update_with(kernel, piece);
            }
            assert_eq!(counter.is_verbatim(), body == text);
            assert_eq!(counter.finish().get(), (body.len() - doubled) as u64);
        }
    }

    let mut limit = TopLimit::new(body_lines);
    let mut length = 0;
    for piece in text.chunks(piece) {
        let taken = limit.take(piece);
        assert!(taken == piece.len() || limit.done());
        length += taken;
    }
    assert_eq!(length, top(text, body_lines));
});

fn encoded(kernel: Kernel, text: &[u8], piece: usize, room: usize) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut wire = Vec::new();
    let mut out = Vec::with_capacity(room);
    for mut rest in text.chunks(piece) {
        while !rest.is_empty() {
            let capacity = out.capacity();
            let taken = encoder.encode_with(kernel, rest, &mut out);
            assert_eq!(out.capacity(), capacity, "the output grew");
            assert!(taken > 0 || out.len() == capacity, "no progress");
            rest = &rest[taken..];
            if out.len() == capacity {
                wire.append(&mut out);
            }
        }
    }
    wire.append(&mut out);
    let mut end = Vec::with_capacity(limits::MESSAGE_END);
    encoder.finish(&mut end);
    wire.append(&mut end);
    wire
}

fn model(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let line = line
            .strip_suffix(b"\r\n")
            .or(line.strip_suffix(b"\n"))
            .unwrap_or(line);
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

fn top(text: &[u8], body_lines: u64) -> usize {
    let mut length = 0;
    let mut left = None;
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        if left == Some(0) {
            break;
        }
        length += line.len();
        left = match left {
            Some(lines) => Some(lines - 1),
            None => (line == b"\n" || line == b"\r\n").then_some(body_lines),
        };
    }
    length
}
