//! Line ends to CRLF and dot-stuffing, resumable at any octet.
//!
//! All the encoder remembers is what the last octet on the wire means for the
//! next one of input. An inserted octet is written *before* the octet that
//! calls for it is taken: a CR for a bare LF leaves the encoder just as a CR of
//! the text would have, and a doubled dot leaves it within the line. So there
//! is no half-written octet to remember when the output is full between the
//! two, and the encoder is one octet large: a stalled download keeps its offset
//! in the file and this.
//!
//! Most of the text goes through a [`Kernel`] in blocks. What is too little for a
//! block, and all of it on a machine without a kernel, goes from LF to LF, found
//! by memchr, and copies are put off until something must be inserted: text whose
//! lines end with CRLF and begin with no dot is copied whole. The output's room is
//! looked at once per pass and not per line: since no octet becomes more than two,
//! half the room's worth of input always fits.

use memchr::memchr_iter;

use super::kernel::{Carry, Kernel};
use crate::limits;

/// Encodes one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    place: Place,
}

/// Where the wire stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// At the beginning of a line, or of the text.
    #[default]
    LineStart,
    /// Within a line; also behind the dot that was put before a dot.
    Within,
    /// Behind a CR, be it the text's or an inserted one.
    AfterCr,
}

impl Place {
    fn after(octet: u8) -> Self {
        match octet {
            b'\n' => Self::LineStart,
            b'\r' => Self::AfterCr,
            _ => Self::Within,
        }
    }

    fn carry(self) -> Carry {
        Carry {
            line_start: u64::from(self == Self::LineStart),
            after_cr: u64::from(self == Self::AfterCr),
        }
    }
}

impl Encoder {
    /// An encoder at the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out`, up to its capacity, what becomes of `input`. Returns
    /// how many octets of the input were taken; the next call must go on with
    /// the first that was not.
    pub fn encode(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        self.encode_with(Kernel::best(), input, out)
    }

    /// The same by a kernel of the caller's choice, for tests and benches.
    pub fn encode_with(&mut self, kernel: Kernel, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut taken = kernel.encode(self.place.carry(), input, out);
        if let Some(last) = taken.checked_sub(1) {
            self.place = Place::after(input[last]);
        }
        loop {
            let rest = &input[taken..];
            let room = out.capacity() - out.len();
            if rest.is_empty() || room == 0 {
                return taken;
            }
            if room == 1 {
                return taken + self.encode_into_one_octet(rest[0], out);
            }
            let window = &rest[..rest.len().min(room / 2)];
            self.encode_all(window, out);
            taken += window.len();
        }
    }

    /// Appends the end of the message: a line end if the last line has none,
    /// and the terminator; at most [`limits::MESSAGE_END`] octets, for which
    /// `out` must have room. All the input must have been taken.
    pub fn finish(&self, out: &mut Vec<u8>) {
        let end: &[u8] = match self.place {
            Place::LineStart => b".\r\n",
            Place::Within | Place::AfterCr => b"\r\n.\r\n",
        };
        const { assert!(limits::MESSAGE_END == b"\r\n.\r\n".len()) };
        assert!(
            out.capacity() - out.len() >= end.len(),
            "the end of a message overran its room"
        );
        out.extend_from_slice(end);
    }

    /// Encodes a window that is not empty and whose double fits.
    fn encode_all(&mut self, window: &[u8], out: &mut Vec<u8>) {
        let mut copied = 0;
        if self.place == Place::LineStart && window[0] == b'.' {
            out.push(b'.');
        }
        for line_feed in memchr_iter(b'\n', window) {
            let after_cr = match line_feed.checked_sub(1) {
                Some(before) => window[before] == b'\r',
                None => self.place == Place::AfterCr,
            };
            if !after_cr {
                out.extend_from_slice(&window[copied..line_feed]);
                out.push(b'\r');
                copied = line_feed;
            }
            let next = line_feed + 1;
            if window.get(next) == Some(&b'.') {
                out.extend_from_slice(&window[copied..next]);
                out.push(b'.');
                copied = next;
            }
        }
        out.extend_from_slice(&window[copied..]);
        self.place = Place::after(window[window.len() - 1]);
    }

    /// Writes the one octet that comes next; returns whether that was the
    /// input's, as 0 or 1 octets taken.
    fn encode_into_one_octet(&mut self, octet: u8, out: &mut Vec<u8>) -> usize {
        match (self.place, octet) {
            (Place::LineStart, b'.') => {
                out.push(b'.');
                self.place = Place::Within;
                0
            }
            (Place::LineStart | Place::Within, b'\n') => {
                out.push(b'\r');
                self.place = Place::AfterCr;
                0
            }
            (_, octet) => {
                out.push(octet);
                self.place = Place::after(octet);
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::model;

    /// Encodes with the input in `pieces` and the output in buffers whose
    /// sizes go round in `rooms`.
    fn encoded(pieces: &[&[u8]], rooms: &[usize]) -> Vec<u8> {
        let mut kernels = Kernel::available();
        let portable = kernels.next().expect("one for every machine");
        let wire = encoded_with(portable, pieces, rooms);
        for kernel in kernels {
            let same = encoded_with(kernel, pieces, rooms) == wire;
            assert!(same, "{} encodes otherwise", kernel.name());
        }
        wire
    }

    fn encoded_with(kernel: Kernel, pieces: &[&[u8]], rooms: &[usize]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut wire = Vec::new();
        let mut rooms = rooms.iter().copied().cycle();
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                if out.len() == out.capacity() {
                    wire.extend_from_slice(&out);
                    out = Vec::with_capacity(rooms.next().expect("a cycle"));
                }
                let capacity = out.capacity();
                let taken = encoder.encode_with(kernel, rest, &mut out);
                assert_eq!(out.capacity(), capacity, "the output grew");
                assert!(taken > 0 || out.len() == capacity, "no progress");
                rest = &rest[taken..];
            }
        }
        wire.extend_from_slice(&out);
        let mut end = Vec::with_capacity(limits::MESSAGE_END);
        encoder.finish(&mut end);
        wire.extend_from_slice(&end);
        wire
    }

    fn whole(text: &[u8]) -> Vec<u8> {
        encoded(&[text], &[2 * text.len() + 8])
    }

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(whole(b"a\nb\r\nc\rd"), b"a\r\nb\r\nc\rd\r\n.\r\n");
        assert_eq!(whole(b""), b".\r\n");
        assert_eq!(whole(b"a\r\r\n"), b"a\r\r\n.\r\n");
        assert_eq!(whole(b"a\r"), b"a\r\r\n.\r\n");
    }

    #[test]
    fn the_first_octet_of_a_message_is_stuffed() {
        assert_eq!(whole(b".a\r\n"), b"..a\r\n.\r\n");
        assert_eq!(whole(b"."), b"..\r\n.\r\n");
    }

    #[test]
    fn a_dot_after_bare_lf_is_stuffed() {
        assert_eq!(whole(b"a\n.\nb"), b"a\r\n..\r\nb\r\n.\r\n");
    }

    #[test]
    fn a_dot_after_bare_cr_is_data() {
        assert_eq!(whole(b"a\r.\r\n"), b"a\r.\r\n.\r\n");
    }

    #[test]
    fn retr_is_safe_for_nul_octets() {
        assert_eq!(whole(b"a\0b\n\0.\n"), b"a\0b\r\n\0.\r\n.\r\n");
    }

    #[test]
    fn every_split_of_input_and_output_gives_the_same() {
        for text in model::HARD {
            let wire = model::wire(text);
            assert_eq!(whole(text), wire, "{}", text.escape_ascii());
            for cut in 0..=text.len() {
                let (head, tail) = text.split_at(cut);
                for room in 1..=wire.len() {
                    assert_eq!(encoded(&[head, tail], &[room, 1024]), wire);
                    assert_eq!(encoded(&[head, tail], &[room]), wire);
                }
            }
        }
    }

    #[test]
    fn a_copy_of_the_encoder_goes_on_from_its_place() {
        let text = b"one\n.two\n";
        let wire = model::wire(text);
        for room in 1..wire.len() - limits::MESSAGE_END {
            let mut encoder = Encoder::new();
            let mut head = Vec::with_capacity(room);
            let taken = encoder.encode(text, &mut head);
            let mut kept = encoder;
            let mut tail = Vec::with_capacity(64);
            assert_eq!(kept.encode(&text[taken..], &mut tail), text.len() - taken);
            kept.finish(&mut tail);
            assert_eq!([head, tail].concat(), wire);
        }
    }

    #[test]
    fn an_encoder_is_one_octet() {
        assert_eq!(size_of::<Encoder>(), 1);
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_model_at_every_split(
            text in model::text(),
            rooms in prop::collection::vec(1_usize..40, 1..4),
        ) {
            let wire = model::wire(&text);
            for cut in 0..=text.len() {
                let (head, tail) = text.split_at(cut);
                prop_assert_eq!(encoded(&[head, tail], &[4096]), &wire[..], "cut at {}", cut);
                prop_assert_eq!(encoded(&[head, tail], &rooms), &wire[..], "cut at {}", cut);
            }
            let octets: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(encoded(&octets, &rooms), &wire[..]);
            prop_assert_eq!(encoded(&[&text], &[1]), &wire[..]);
        }
    }

    /// Text of many blocks, with what matters to the rules at every place of a
    /// block in the course of it.
    fn long() -> Vec<u8> {
        let piece = b"prose that goes on.\n.dots\r\n\n\n..\r\r\n\n.";
        let filler = [b'x'; 150];
        let mut text = Vec::new();
        for gap in 0..filler.len() {
            text.extend_from_slice(&filler[..gap]);
            text.extend_from_slice(&piece[gap % piece.len()..]);
        }
        text
    }

    #[test]
    fn every_kernel_agrees_at_every_split_and_alignment() {
        let text = long();
        let wire = model::wire(&text);
        for cut in 0..300 {
            let (head, tail) = text.split_at(cut);
            assert!(encoded(&[head, tail], &[3 * text.len()]) == wire, "{cut}");
            let (head, tail) = text.split_at(text.len() - cut);
            assert!(encoded(&[head, tail], &[3 * text.len()]) == wire, "-{cut}");
            // The text itself begins anywhere in memory, and so does the output.
            assert!(whole(&text[cut..]) == model::wire(&text[cut..]), "{cut}..");
            assert!(encoded(&[&text], &[200 + cut]) == wire, "room {cut}");
        }
    }

    #[test]
    fn insertions_before_every_octet_fit() {
        for octet in [b"\n", b"."] {
            for length in 0..400 {
                let text = octet.repeat(length);
                assert_eq!(whole(&text), model::wire(&text));
                let dense = b"\n.".repeat(length);
                assert_eq!(encoded(&[&dense], &[260]), model::wire(&dense));
            }
        }
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_on_long_text(
            text in prop::collection::vec(model::text(), 1..12),
            cut in any::<prop::sample::Index>(),
            rooms in prop::collection::vec(1_usize..2000, 1..4),
        ) {
            let text = text.concat();
            let wire = model::wire(&text);
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            prop_assert_eq!(encoded(&[head, tail], &[1 << 16]), &wire[..]);
            prop_assert_eq!(encoded(&[head, tail], &rooms), &wire[..]);
        }
    }
}
