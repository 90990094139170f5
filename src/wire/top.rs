//! How much of a message TOP sends (RFC 1939, section 7): the headers, the
//! blank line that ends them, and so many lines of the body.
//!
//! It only measures; the octets go through the encoder like any others. What is
//! a line here is a line there: it ends at LF, and it is blank if there is
//! nothing before its line end.

use memchr::memchr_iter;

/// Walks along one message's text up to where TOP ends.
#[derive(Clone, Copy, Debug)]
pub struct TopLimit {
    body_lines: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Headers(Header),
    Body { left: u64 },
    Done,
}

/// What is there of the current header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Nothing,
    Cr,
    Something,
}

impl TopLimit {
    /// A limit of `body_lines` lines of the body; with 0 the blank line is the
    /// last.
    pub fn new(body_lines: u64) -> Self {
        Self {
            body_lines,
            place: Place::Headers(Header::Nothing),
        }
    }

    /// How many octets of `input`, which follows what was given before, belong
    /// to what TOP sends: all of them until the last line has ended, then none.
    pub fn take(&mut self, input: &[u8]) -> usize {
        let mut taken = 0;
        if let Place::Headers(header) = self.place {
            taken = self.take_headers(header, input);
        }
        if let Place::Body { left } = self.place {
            taken += self.take_body(left, &input[taken..]);
        }
        taken
    }

    /// Whether the last line has ended. A message that is shorter than its
    /// limit is never done: it ends with its text.
    pub fn done(&self) -> bool {
        self.place == Place::Done
    }

    fn take_headers(&mut self, mut header: Header, input: &[u8]) -> usize {
        let mut line_start = 0;
        for line_feed in memchr_iter(b'\n', input) {
            let blank = match (header, &input[line_start..line_feed]) {
                (Header::Nothing, b"" | b"\r") | (Header::Cr, b"") => true,
                (Header::Nothing | Header::Cr | Header::Something, _) => false,
            };
            line_start = line_feed + 1;
            header = Header::Nothing;
            if blank {
                self.place = match self.body_lines {
                    0 => Place::Done,
                    left => Place::Body { left },
                };
                return line_start;
            }
        }
        self.place = Place::Headers(match (header, &input[line_start..]) {
            (unchanged, b"") => unchanged,
            (Header::Nothing, b"\r") => Header::Cr,
            (Header::Nothing | Header::Cr | Header::Something, _) => Header::Something,
        });
        input.len()
    }

    fn take_body(&mut self, mut left: u64, input: &[u8]) -> usize {
        for line_feed in memchr_iter(b'\n', input) {
            left -= 1;
            if left == 0 {
                self.place = Place::Done;
                return line_feed + 1;
            }
        }
        self.place = Place::Body { left };
        input.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::model;

    fn top(pieces: &[&[u8]], body_lines: u64) -> (usize, bool) {
        let mut limit = TopLimit::new(body_lines);
        let mut length = 0;
        for piece in pieces {
            let taken = limit.take(piece);
            length += taken;
            assert!(taken == piece.len() || limit.done());
        }
        (length, limit.done())
    }

    const MESSAGE: &[u8] = b"A: 1\r\nB: 2\n\r\none\ntwo\r\nthree";

    #[test]
    fn top_zero_sends_headers_only() {
        let headers = b"A: 1\r\nB: 2\n\r\n".len();
        assert_eq!(top(&[MESSAGE], 0), (headers, true));
    }

    #[test]
    fn top_counts_no_header_lines() {
        let length = b"A: 1\r\nB: 2\n\r\none\n".len();
        assert_eq!(top(&[MESSAGE], 1), (length, true));
    }

    #[test]
    fn top_of_more_than_the_body_sends_it_all() {
        for body_lines in [3, 4, u64::MAX] {
            assert_eq!(top(&[MESSAGE], body_lines), (MESSAGE.len(), false));
        }
    }

    #[test]
    fn a_message_of_headers_alone_is_sent_whole() {
        assert_eq!(top(&[b"A: 1\r\nB: 2\r\n"], 0), (12, false));
        assert_eq!(top(&[b""], 0), (0, false));
    }

    #[test]
    fn a_message_without_headers_begins_with_its_blank_line() {
        assert_eq!(top(&[b"\nbody\nmore\n"], 0), (1, true));
        assert_eq!(top(&[b"\r\nbody\nmore\n"], 1), (7, true));
    }

    #[test]
    fn a_line_of_two_crs_is_not_blank() {
        assert_eq!(top(&[b"A: 1\n\r\r\n\nbody\n"], 0), (9, true));
    }

    #[test]
    fn every_split_ends_at_the_same_octet() {
        for text in model::HARD.into_iter().chain([MESSAGE]) {
            for body_lines in 0..4 {
                let whole = top(&[text], body_lines);
                assert_eq!(whole.0, model::top(text, body_lines));
                for cut in 0..=text.len() {
                    let (head, tail) = text.split_at(cut);
                    assert_eq!(top(&[head, tail], body_lines), whole);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_model(
            text in model::text(),
            body_lines in prop_oneof![0_u64..6, any::<u64>()],
            cut in any::<prop::sample::Index>(),
        ) {
            let length = model::top(&text, body_lines);
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            prop_assert_eq!(top(&[head, tail], body_lines).0, length);
            let octets: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(top(&octets, body_lines).0, length);
        }
    }
}
