//! Unique-ids as they are kept: packed, because there are a hundred thousand of
//! them in a large maildrop and most say little.
//!
//! A unique-id is usually the message's unique name, which is kept anyway. Those
//! that an earlier server announced are mostly two 32-bit numbers in one of a few
//! spellings, and take 8 octets instead of 16 to 25. What fits no spelling stands
//! as it is. Packing is exact: what comes out is octet for octet what went in,
//! because a spelling is only chosen if writing the numbers gives the text again.

use std::io::Write as _;

use crate::limits;

/// The spelling of a unique-id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// The message's unique name; nothing more is kept.
    #[default]
    Name,
    /// The text itself.
    Text,
    /// 16 octets as lower-case hexadecimal: popcore's own, and those of servers
    /// that announce an MD5.
    Digest,
    /// Two numbers of eight lower-case hexadecimal digits each: Dovecot and UW.
    Hex,
    /// `UID<a>-<b>`: Courier.
    Courier,
    /// `<a>.<b>`: Cyrus since 2.1.4.
    Dot,
    /// `<a>-<b>`: Cyrus told to be like Courier.
    Dash,
}

/// Octets of a packed pair of numbers.
const PAIR: usize = 8;
/// Octets of a packed digest.
const DIGEST: usize = 16;
/// The spellings that are two numbers.
const PAIRS: [Form; 4] = [Form::Hex, Form::Courier, Form::Dot, Form::Dash];

impl Form {
    /// How many there are.
    pub(super) const COUNT: usize = 7;

    pub(super) fn to_bits(self) -> u8 {
        match self {
            Self::Name => 0,
            Self::Text => 1,
            Self::Digest => 2,
            Self::Hex => 3,
            Self::Courier => 4,
            Self::Dot => 5,
            Self::Dash => 6,
        }
    }

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        const FORMS: [Form; Form::COUNT] = [
            Form::Name,
            Form::Text,
            Form::Digest,
            Form::Hex,
            Form::Courier,
            Form::Dot,
            Form::Dash,
        ];
        FORMS.get(usize::from(bits)).copied()
    }

    /// How long what is kept is, where the spelling alone tells.
    pub(super) fn packed_len(self) -> Option<usize> {
        match self {
            Self::Name => Some(0),
            Self::Text => None,
            Self::Digest => Some(DIGEST),
            Self::Hex | Self::Courier | Self::Dot | Self::Dash => Some(PAIR),
        }
    }
}

/// A packed unique-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    form: Form,
    octets: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Takes what was kept; `None` where it can be no unique-id of that form.
    pub(super) fn new(form: Form, octets: &'a [u8]) -> Option<Self> {
        let fits = match form.packed_len() {
            Some(len) => octets.len() == len,
            None => is_announceable(octets),
        };
        fits.then_some(Self { form, octets })
    }

    pub(super) fn form(self) -> Form {
        self.form
    }

    pub(super) fn octets(self) -> &'a [u8] {
        self.octets
    }

    /// The digest, where it is one.
    pub(super) fn digest(self) -> Option<[u8; DIGEST]> {
        match self.form {
            Form::Digest => self.octets.try_into().ok(),
            _ => None,
        }
    }

    /// Appends the unique-id of a message with that unique name.
    pub(super) fn write(self, unique: &[u8], out: &mut Vec<u8>) {
        match self.form {
            Form::Name => out.extend_from_slice(unique),
            Form::Text => out.extend_from_slice(self.octets),
            Form::Digest => self.octets.iter().for_each(|octet| write_hex(*octet, out)),
            Form::Hex => self.octets.iter().for_each(|octet| write_hex(*octet, out)),
            Form::Courier | Form::Dot | Form::Dash => {
                let (a, b) = self.octets.split_at(PAIR / 2);
                let number = |half: &[u8]| {
                    u32::from_be_bytes(half.try_into().expect("half of a pair is four octets"))
                };
                let (a, b) = (number(a), number(b));
                match self.form {
                    Form::Courier => write!(out, "UID{a}-{b}"),
                    Form::Dot => write!(out, "{a}.{b}"),
                    _ => write!(out, "{a}-{b}"),
                }
                .expect("a Vec takes every write");
            }
        }
    }
}

fn write_hex(octet: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(DIGITS[usize::from(octet >> 4)]);
    out.push(DIGITS[usize::from(octet & 15)]);
}

/// Packs a text into `out`, which is cleared: the shortest form that gives it
/// back.
pub(super) fn pack(text: &[u8], unique: &[u8], out: &mut Vec<u8>) -> Form {
    out.clear();
    if text == unique {
        return Form::Name;
    }
    if text.len() == 2 * DIGEST && unhex(text, out) {
        return Form::Digest;
    }
    for form in PAIRS {
        out.clear();
        if read_pair(form, text, out) {
            let mut written = Vec::with_capacity(text.len());
            let packed = Packed { form, octets: out };
            packed.write(unique, &mut written);
            if written == text {
                return form;
            }
        }
    }
    out.clear();
    out.extend_from_slice(text);
    Form::Text
}

fn read_pair(form: Form, text: &[u8], out: &mut Vec<u8>) -> bool {
    let (rest, between) = match form {
        Form::Hex => return text.len() == 2 * PAIR && unhex(text, out),
        Form::Courier => match text.strip_prefix(b"UID") {
            Some(rest) => (rest, b'-'),
            None => return false,
        },
        Form::Dot => (text, b'.'),
        Form::Dash => (text, b'-'),
        Form::Name | Form::Text | Form::Digest => return false,
    };
    let Ok(rest) = std::str::from_utf8(rest) else {
        return false;
    };
    let Some((a, b)) = rest.split_once(char::from(between)) else {
        return false;
    };
    let (Ok(a), Ok(b)) = (a.parse::<u32>(), b.parse::<u32>()) else {
        return false;
    };
    out.extend_from_slice(&a.to_be_bytes());
    out.extend_from_slice(&b.to_be_bytes());
    true
}

/// Reads lower-case hexadecimal digits, two an octet.
fn unhex(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    out.clear();
    for pair in text.chunks_exact(2) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return false;
        };
        out.push(high << 4 | low);
    }
    text.len().is_multiple_of(2)
}

/// Whether RFC 1939, section 7, lets a text be a unique-id.
pub(super) fn is_announceable(text: &[u8]) -> bool {
    (1..=limits::UNIQUE_ID).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(text: &[u8], unique: &[u8]) -> (Form, Vec<u8>, Vec<u8>) {
        let mut octets = Vec::new();
        let form = pack(text, unique, &mut octets);
        let mut written = Vec::new();
        let back = Packed::new(form, &octets).expect("what was packed");
        back.write(unique, &mut written);
        (form, octets, written)
    }

    #[test]
    fn spellings_of_known_servers_are_short() {
        let cases: [(&[u8], Form, usize); 8] = [
            (b"1700000000.M1P2.host", Form::Name, 0),
            (b"0000002a5f3e1c77", Form::Hex, 8),
            (b"97b14b165c0604e33592df2aa3a590f4", Form::Digest, 16),
            (b"UID17-1600000000", Form::Courier, 8),
            (b"1600000000.17", Form::Dot, 8),
            (b"1600000000-17", Form::Dash, 8),
            (b"17", Form::Text, 2),
            (b"Any/Thing", Form::Text, 9),
        ];
        for (text, form, len) in cases {
            let (found, octets, written) = packed(text, b"1700000000.M1P2.host");
            assert_eq!(
                (found, octets.len()),
                (form, len),
                "{}",
                text.escape_ascii()
            );
            assert_eq!(written, text);
        }
    }

    #[test]
    fn numbers_with_another_spelling_stay_as_they_are() {
        for text in [
            "UID017-1",
            "+1.2",
            "1.02",
            "0000002A5F3E1C77",
            "1-99999999999",
        ] {
            let (form, _, written) = packed(text.as_bytes(), b"x");
            assert_eq!((form, written), (Form::Text, text.as_bytes().to_vec()));
        }
    }

    #[test]
    fn every_form_has_its_number() {
        for bits in 0..=u8::MAX {
            if let Some(form) = Form::from_bits(bits) {
                assert_eq!(form.to_bits(), bits);
            }
        }
        assert_eq!(Form::from_bits(7), None);
    }

    #[test]
    fn what_is_no_unique_id_is_not_taken() {
        assert_eq!(Packed::new(Form::Text, b""), None);
        assert_eq!(Packed::new(Form::Text, b"a b"), None);
        assert_eq!(Packed::new(Form::Hex, b"1234567"), None);
        assert_eq!(Packed::new(Form::Name, b"x"), None);
    }

    proptest! {
        #[test]
        fn packing_is_exact(text in prop_oneof![
            "[!-~]{1,70}", "[0-9]{1,11}[.-][0-9]{1,11}", "UID[0-9]{1,10}-[0-9]{1,10}",
            "[0-9a-f]{16}", "[0-9a-fA-F]{32}",
        ], unique in "[!-~&&[^:/]]{1,40}") {
            let (_, _, written) = packed(text.as_bytes(), unique.as_bytes());
            prop_assert_eq!(written, text.into_bytes());
        }
    }
}
