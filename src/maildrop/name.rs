//! Names of message files: `<base>[,S=<bytes>][,W=<octets>][:2,<flags>]`.
//!
//! Other programs write these names and may write anything. A [`Name`] is one
//! that can be a message: not hidden, one path component, short enough for a
//! snapshot. What identifies the message is the part before the first `:`, which
//! a change of flags or a move from new/ to cur/ leaves alone.
//!
//! Sizes in names are not believed before one of them was found right: some sites
//! carry wrong ones, and a wrong count of octets breaks clients.

use std::cmp::Ordering;

use crate::limits;

/// The name of a file that can be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    bytes: &'a [u8],
    unique: usize,
}

impl<'a> Name<'a> {
    /// Takes a directory entry's name; `None` where it cannot be a message's:
    /// empty, hidden (it begins with `.`), with `/` or NUL, or longer than
    /// [`limits::FILE_NAME`], and where nothing stands before the `:`.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let hidden = bytes.first().is_none_or(|first| *first == b'.');
        if hidden || bytes.len() > limits::FILE_NAME {
            return None;
        }
        if memchr::memchr2(b'/', 0, bytes).is_some() {
            return None;
        }
        let unique = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
        (unique > 0).then_some(Self { bytes, unique })
    }

    /// The whole name.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What identifies the message: the name up to `:`.
    pub fn unique(&self) -> &'a [u8] {
        &self.bytes[..self.unique]
    }

    /// The unique name without its `,S=` and `,W=` fields.
    pub fn base(&self) -> &'a [u8] {
        base(self.unique())
    }

    /// The letters after `:2,`; empty where there are none.
    pub fn flags(&self) -> &'a [u8] {
        let info = &self.bytes[self.unique..];
        info.strip_prefix(b":2,").unwrap_or_default()
    }

    /// The physical size in octets that the name states (`S=`).
    pub fn stated_size(&self) -> Option<u64> {
        stated(self.unique(), b'S')
    }

    /// The octets with every line end as CRLF that the name states (`W=`).
    pub fn stated_octets(&self) -> Option<u64> {
        stated(self.unique(), b'W')
    }

    /// When the message was delivered, as far as its name tells.
    pub fn moment(&self) -> Moment {
        Moment::of(self.bytes)
    }
}

/// Delivery time from a name: what messages are ordered by first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970: the name's leading digits; 0 where there are none.
    pub seconds: u64,
    /// The digits after `M` in the second field; absent sorts before 0.
    pub micros: Option<u32>,
}

impl Moment {
    pub(super) fn of(name: &[u8]) -> Self {
        let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let seconds = decimal_saturating(&name[..digits]);
        let micros = name[digits..].strip_prefix(b".").and_then(|rest| {
            let end = memchr::memchr3(b'.', b',', b':', rest).unwrap_or(rest.len());
            micros(&rest[..end])
        });
        Self { seconds, micros }
    }
}

/// The first `M` with digits behind it: `M123P45_6`, or Postfix's `V801I1a2M123`.
fn micros(field: &[u8]) -> Option<u32> {
    memchr::memchr_iter(b'M', field).find_map(|at| {
        let rest = &field[at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = (digits > 0).then(|| decimal_saturating(&rest[..digits]))?;
        u32::try_from(value).ok()
    })
}

/// The order of two messages: by moment, then base name, then unique name. Two
/// of equal order carry the same unique name.
pub(super) fn compare(a: (Moment, &[u8]), b: (Moment, &[u8])) -> Ordering {
    a.0.cmp(&b.0).then_with(|| {
        // The usual case of two listings laid over each other.
        if a.1 == b.1 {
            return Ordering::Equal;
        }
        base(a.1).cmp(base(b.1)).then_with(|| a.1.cmp(b.1))
    })
}

fn base(unique: &[u8]) -> &[u8] {
    let end = memchr::memchr_iter(b',', unique).find(|at| {
        let field = &unique[at + 1..];
        field.starts_with(b"S=") || field.starts_with(b"W=")
    });
    &unique[..end.unwrap_or(unique.len())]
}

/// The value of `,<key>=`: decimal, followed by `,` or the end. The first match
/// of the key decides, also where it is malformed.
fn stated(unique: &[u8], key: u8) -> Option<u64> {
    let field = memchr::memchr_iter(b',', unique).find_map(|at| {
        let field = &unique[at + 1..];
        field.strip_prefix(&[key, b'='])
    })?;
    let end = memchr::memchr(b',', field).unwrap_or(field.len());
    let digits = &field[..end];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

fn decimal_saturating(digits: &[u8]) -> u64 {
    digits.iter().fold(0_u64, |value, digit| {
        let digit = u64::from(digit - b'0');
        value.saturating_mul(10).saturating_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(bytes: &[u8]) -> Name<'_> {
        Name::parse(bytes).expect("a message's name")
    }

    #[test]
    fn parts_of_a_usual_name() {
        let name = name(b"1700000000.M12P34.host,S=100,W=120:2,FSa");
        assert_eq!(name.unique(), b"1700000000.M12P34.host,S=100,W=120");
        assert_eq!(name.base(), b"1700000000.M12P34.host");
        assert_eq!(name.flags(), b"FSa");
        assert_eq!(name.stated_size(), Some(100));
        assert_eq!(name.stated_octets(), Some(120));
        let moment = name.moment();
        assert_eq!((moment.seconds, moment.micros), (1_700_000_000, Some(12)));
    }

    #[test]
    fn what_cannot_be_a_message_is_no_name() {
        let long = [b'a'; limits::FILE_NAME + 1];
        let others: [&[u8]; 7] = [b"", b".", b"..", b".hidden", b"a/b", b"a\0b", b":2,S"];
        assert!(others.iter().all(|name| Name::parse(name).is_none()));
        assert!(Name::parse(&long).is_none());
        assert!(Name::parse(&long[1..]).is_some());
    }

    #[test]
    fn a_size_counts_only_where_the_value_ends_properly_and_the_first_match_decides() {
        assert_eq!(name(b"1.a,S=12x,S=3").stated_size(), None);
        assert_eq!(name(b"1.a,S=12,S=3").stated_size(), Some(12));
        assert_eq!(name(b"1.a,W=,S=3").stated_octets(), None);
        assert_eq!(name(b"1.a,S=3:2,S").stated_size(), Some(3));
        assert_eq!(name(b"1.a:2,S,S=3").stated_size(), None);
        assert_eq!(name(b"1.a,S=99999999999999999999").stated_size(), None);
        assert_eq!(name(b"1.aS=3").stated_size(), None);
    }

    #[test]
    fn other_fields_belong_to_the_base_name() {
        assert_eq!(name(b"1.a,U=5,S=3").base(), b"1.a,U=5");
        assert_eq!(name(b"1.a,U=5:2,").base(), b"1.a,U=5");
    }

    #[test]
    fn order_is_by_seconds_then_microseconds_then_base_name() {
        let sorted: [&[u8]; 11] = [
            b"no-digits",
            b"9.z",
            b"10.1_0.a",
            b"10.a",
            b"10.M9P1.a",
            b"10.M10P1.a",
            b"10.V801I2aM11.a",
            b"10.M11P2.b",
            b"999999999.a",
            b"1000000000.a",
            b"99999999999999999999999.a",
        ];
        let shuffled = {
            let mut names = sorted;
            names.reverse();
            names.swap(2, 7);
            names.sort_by(|a, b| {
                compare(
                    (name(a).moment(), name(a).unique()),
                    (name(b).moment(), name(b).unique()),
                )
            });
            names
        };
        // The two of 11 microseconds stand by base name: `M` before `V`.
        let mut expected = sorted;
        expected.swap(6, 7);
        assert_eq!(shuffled, expected);
    }

    #[test]
    fn an_m_outside_the_second_field_is_no_time() {
        assert_eq!(name(b"10.1_2.M5host").moment().micros, None);
        assert_eq!(name(b"10M5.host").moment().micros, None);
        assert_eq!(name(b"10.Mx9.host").moment().micros, None);
        assert_eq!(name(b"10.M99999999999.host").moment().micros, None);
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_name(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(name) = Name::parse(&bytes) {
                prop_assert!(bytes.starts_with(name.unique()));
                prop_assert!(name.unique().starts_with(name.base()));
                prop_assert!(bytes.ends_with(name.flags()));
                prop_assert!(!name.unique().contains(&b':'));
                prop_assert!(!bytes.contains(&b'/') && bytes[0] != b'.');
            }
        }

        #[test]
        fn flags_change_neither_identity_nor_order(
            unique in "[0-9]{1,3}\\.[MVa-z0-9,=SW]{0,12}",
            flags in "[A-Za-z]{0,5}",
        ) {
            let flagged = format!("{unique}:2,{flags}");
            let (plain, flagged) = (name(unique.as_bytes()), name(flagged.as_bytes()));
            prop_assert_eq!(plain.unique(), flagged.unique());
            prop_assert_eq!(plain.moment(), flagged.moment());
            prop_assert_eq!(plain.stated_size(), flagged.stated_size());
            prop_assert_eq!(flagged.flags(), flags.as_bytes());
        }

        #[test]
        fn order_is_total(names in proptest::collection::vec("[0-9]{0,2}\\.?[M0-9a,S=]{0,6}", 3)) {
            let parsed: Vec<Name<'_>> = names.iter().filter_map(|n| Name::parse(n.as_bytes())).collect();
            let order = |a: &Name<'_>, b: &Name<'_>| {
                compare((a.moment(), a.unique()), (b.moment(), b.unique()))
            };
            for a in &parsed {
                for b in &parsed {
                    prop_assert_eq!(order(a, b), order(b, a).reverse());
                    prop_assert_eq!(order(a, b).is_eq(), a.unique() == b.unique());
                    for c in &parsed {
                        if order(a, b).is_le() && order(b, c).is_le() {
                            prop_assert!(order(a, c).is_le());
                        }
                    }
                }
            }
        }
    }
}
