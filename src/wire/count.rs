//! The size of a message as RFC 1939 (section 11) counts it, from stored text.
//!
//! It is the number of octets that [`Encoder`](super::Encoder) writes, less the
//! doubled dots and the terminator, and the tests hold the two together.

use memchr::memchr_iter;

use super::kernel::{Carry, Kernel};
use crate::proto::Octets;

/// Counts one message, in pieces of any size.
#[derive(Clone, Copy, Debug)]
pub struct OctetCounter {
    octets: u64,
    /// The octet before the next one of input.
    last: Option<u8>,
    /// Nothing was seen that the encoder would add to or double.
    verbatim: bool,
}

impl Default for OctetCounter {
    fn default() -> Self {
        Self::new()
    }
}

impl OctetCounter {
    /// A counter at the beginning of a message.
    pub fn new() -> Self {
        Self {
            octets: 0,
            last: None,
            verbatim: true,
        }
    }

    /// Counts the next piece of the text.
    pub fn update(&mut self, input: &[u8]) {
        self.update_with(Kernel::best(), input);
    }

    /// The same by a kernel of the caller's choice, for tests and benches.
    pub fn update_with(&mut self, kernel: Kernel, input: &[u8]) {
        let carry = Carry {
            line_start: u64::from(matches!(self.last, None | Some(b'\n'))),
            after_cr: u64::from(self.last == Some(b'\r')),
        };
        let counted = kernel.count(carry, input);
        let (blocks, rest) = input.split_at(counted.taken);
        if let Some(&last) = blocks.last() {
            self.octets += blocks.len() as u64 + counted.bare;
            self.last = Some(last);
            self.verbatim &= counted.bare == 0 && !counted.stuffed;
        }
        self.update_by_line(rest);
    }

    fn update_by_line(&mut self, input: &[u8]) {
        let (Some(&first), Some(&last)) = (input.first(), input.last()) else {
            return;
        };
        let mut bare = 0;
        let mut dots = first == b'.' && matches!(self.last, None | Some(b'\n'));
        for line_feed in memchr_iter(b'\n', input) {
            let before = match line_feed.checked_sub(1) {
                Some(before) => Some(input[before]),
                None => self.last,
            };
            bare += u64::from(before != Some(b'\r'));
            dots |= input.get(line_feed + 1) == Some(&b'.');
        }
        self.octets += input.len() as u64 + bare;
        self.last = Some(last);
        self.verbatim &= bare == 0 && !dots;
    }

    /// Whether the text could go out as it is, all of it having been counted:
    /// every line ends with CRLF, the last one too, and none begins with a dot.
    pub fn is_verbatim(&self) -> bool {
        self.verbatim && !self.lacks_line_end()
    }

    /// The size of the message, all of whose text has been counted.
    pub fn finish(self) -> Octets {
        Octets::new(self.octets + if self.lacks_line_end() { 2 } else { 0 })
    }

    fn lacks_line_end(&self) -> bool {
        self.last.is_some_and(|last| last != b'\n')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Encoder, model};

    fn counted(pieces: &[&[u8]]) -> (u64, bool) {
        let mut results = Kernel::available().map(|kernel| {
            let mut counter = OctetCounter::new();
            for piece in pieces {
                counter.update_with(kernel, piece);
            }
            (counter.finish().get(), counter.is_verbatim())
        });
        let result = results.next().expect("one for every machine");
        assert!(results.all(|other| other == result), "kernels disagree");
        result
    }

    #[test]
    fn octets_of_mixed_line_ends() {
        assert_eq!(counted(&[b"a\nb\r\nc\rd\n"]), (11, false));
        assert_eq!(counted(&[b""]), (0, true));
        assert_eq!(counted(&[b"a"]), (3, false));
        assert_eq!(counted(&[b"a\r"]), (4, false));
        assert_eq!(counted(&[b"a\r\n"]), (3, true));
        assert_eq!(counted(&[b"\0\n"]), (3, false));
    }

    #[test]
    fn text_with_dot_lines_is_not_verbatim() {
        assert_eq!(counted(&[b".a\r\n"]), (4, false));
        assert_eq!(counted(&[b"a\r\n", b".b\r\n"]), (7, false));
        assert_eq!(counted(&[b"a.\r\nb.c\r\n"]), (9, true));
    }

    #[test]
    fn every_split_counts_the_same() {
        for text in model::HARD {
            let whole = counted(&[text]);
            assert_eq!(whole.0, model::crlf(text).len() as u64);
            for cut in 0..=text.len() {
                let (head, tail) = text.split_at(cut);
                assert_eq!(counted(&[head, tail]), whole, "{}", text.escape_ascii());
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_encoder(
            text in prop::collection::vec(model::text(), 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = text.concat();
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            let (octets, verbatim) = counted(&[head, tail]);
            let mut wire = Vec::with_capacity(2 * text.len() + 8);
            let mut encoder = Encoder::new();
            prop_assert_eq!(encoder.encode(&text, &mut wire), text.len());
            encoder.finish(&mut wire);
            let body = &wire[..wire.len() - b".\r\n".len()];
            prop_assert_eq!(verbatim, body == &text[..]);
            prop_assert_eq!(octets, model::crlf(&text).len() as u64);
            let line_starts = body.windows(3).filter(|three| *three == b"\n..").count();
            let stuffed = line_starts + usize::from(body.starts_with(b".."));
            prop_assert_eq!(octets, (body.len() - stuffed) as u64);
        }
    }
}
