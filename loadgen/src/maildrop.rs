//! What a server said about a maildrop, and whether it agrees with itself.
//!
//! STAT comes first and is the measure of LIST and UIDL; LIST is the measure of
//! every RETR. Rows must come as 1, 2, 3 and so on: a new session has deleted
//! nothing, so no number is missing (RFC 1939, section 5).

use crate::fault::{Fault, Kind, readable};
use crate::reply::Message;

/// Longest UIDL in octets (RFC 1939, section 7).
const LONGEST_UIDL: usize = 70;

/// Most rows kept of a listing, whatever STAT said.
const MOST_ROWS: u64 = 10_000_000;

/// One session's view; buffers stay from session to session.
#[derive(Clone, Debug, Default)]
pub struct Maildrop {
    /// Messages and octets. `None`: STAT was not asked.
    stat: Option<(u32, u64)>,
    /// LIST was asked: its rows are what there is, and none is none.
    list_asked: bool,
    /// `None`: the row could not be read.
    sizes: Vec<Option<u64>>,
    /// UIDL was asked.
    uidl_asked: bool,
    /// All UIDLs one after the other, each with an LF behind it, and where that is.
    uidls: Vec<u8>,
    ends: Vec<usize>,
    /// Scratch space: the numbers of the UIDLs in the order of their text.
    sorted: Vec<usize>,
    /// A row of the listing under way could not be read: its sums mean nothing.
    spoilt: bool,
}

impl Maildrop {
    /// Forgets the session before.
    pub fn clear(&mut self) {
        self.stat = None;
        self.begin_list();
        self.begin_uidl();
        (self.list_asked, self.uidl_asked) = (false, false);
        self.spoilt = false;
    }

    /// LIST was sent: what an earlier one said is forgotten.
    pub fn begin_list(&mut self) {
        self.list_asked = true;
        self.sizes.clear();
    }

    /// UIDL was sent: what an earlier one said is forgotten.
    pub fn begin_uidl(&mut self) {
        self.uidl_asked = true;
        self.uidls.clear();
        self.ends.clear();
    }

    /// Messages that all of STAT, LIST and UIDL know of those that were asked. A
    /// STAT that nothing else was asked beside may say anything.
    pub fn listed(&self) -> u32 {
        let rows =
            |asked: bool, rows: usize| asked.then(|| u32::try_from(rows).unwrap_or(u32::MAX));
        let counts = [
            self.stat.map(|(messages, _)| messages),
            rows(self.list_asked, self.sizes.len()),
            rows(self.uidl_asked, self.ends.len()),
        ];
        counts.into_iter().flatten().min().unwrap_or(0)
    }

    /// Whether UIDL was asked.
    pub fn knows_uidls(&self) -> bool {
        self.uidl_asked
    }

    /// UIDLs that were listed.
    pub fn uidls(&self) -> usize {
        self.ends.len()
    }

    /// The UIDL of a message that was listed; empty where it was not.
    pub fn uidl(&self, message: u32) -> &[u8] {
        let index = usize::try_from(message).ok().and_then(|n| n.checked_sub(1));
        index
            .filter(|index| *index < self.ends.len())
            .map_or(&[], |index| self.uidl_at(index))
    }

    fn uidl_at(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] + 1
        };
        &self.uidls[start..self.ends[index]]
    }

    /// All UIDLs in their order, an LF behind each.
    pub fn listing(&self) -> &[u8] {
        &self.uidls
    }

    /// Whether a listing that has so many rows already is longer than STAT
    /// said, or than any can be: such rows are not kept, for they may go on for
    /// ever.
    fn beyond(&self, rows: usize) -> bool {
        let most = self
            .stat
            .map_or(MOST_ROWS, |(messages, _)| u64::from(messages));
        rows as u64 > most.min(MOST_ROWS)
    }

    /// Octets of a message, as LIST had it. `None`: LIST did not say.
    pub fn octets_of(&self, message: u32) -> Option<u64> {
        let index = usize::try_from(message).ok()?.checked_sub(1)?;
        self.sizes.get(index).copied().flatten()
    }

    /// The text behind `+OK ` of STAT: two numbers, and anything after a space.
    pub fn take_stat(&mut self, text: &[u8]) -> Result<(), Fault> {
        let numbers = number(text).and_then(|(messages, rest)| {
            let (octets, rest) = number(rest.strip_prefix(b" ")?)?;
            let ends = rest.is_empty() || rest.starts_with(b" ");
            ends.then_some((u32::try_from(messages).ok()?, octets))
        });
        let Some((messages, octets)) = numbers else {
            let text = format!("no number of messages and octets: {}", readable(text));
            return Err(Fault::new(Kind::Nonsense, text));
        };
        self.stat = Some((messages, octets));
        Ok(())
    }

    /// `number SP octets`, and anything after a space.
    pub fn take_list_row(&mut self, row: &[u8]) -> Result<(), Fault> {
        if self.beyond(self.sizes.len()) {
            return Ok(());
        }
        let expected = self.sizes.len() as u64 + 1;
        let octets = argument(row, expected).and_then(|rest| {
            let (octets, rest) = number(rest)?;
            (rest.is_empty() || rest.starts_with(b" ")).then_some(octets)
        });
        self.sizes.push(octets);
        octets
            .map(|_| ())
            .ok_or_else(|| self.spoil(row, expected, "octets"))
    }

    /// The end of LIST: as many messages and octets as STAT had.
    pub fn end_list(&mut self) -> Result<(), Fault> {
        let rows = self.sizes.len() as u64;
        let sizes = self.sizes.iter().flatten();
        let sum = sizes.fold(0, |sum: u64, size| sum.saturating_add(*size));
        let spoilt = std::mem::take(&mut self.spoilt);
        let Some((messages, octets)) = self.stat.filter(|_| !spoilt) else {
            return Ok(());
        };
        if (rows, sum) == (u64::from(messages), octets) {
            return Ok(());
        }
        let text =
            format!("STAT had {messages} messages of {octets} octets, LIST has {rows} of {sum}");
        Err(Fault::new(Kind::Stat, text))
    }

    /// `number SP uidl`.
    pub fn take_uidl_row(&mut self, row: &[u8]) -> Result<(), Fault> {
        if self.beyond(self.ends.len()) {
            return Ok(());
        }
        let expected = self.ends.len() as u64 + 1;
        let uidl = argument(row, expected);
        self.uidls.extend_from_slice(uidl.unwrap_or_default());
        self.ends.push(self.uidls.len());
        self.uidls.push(b'\n');
        let Some(uidl) = uidl else {
            return Err(self.spoil(row, expected, "uidl"));
        };
        let graphic = uidl.iter().all(u8::is_ascii_graphic);
        if graphic && (1..=LONGEST_UIDL).contains(&uidl.len()) {
            return Ok(());
        }
        let text = format!(
            "not 1 to {LONGEST_UIDL} octets of 0x21 to 0x7E: {}",
            readable(uidl)
        );
        Err(Fault::new(Kind::UidlSyntax, text))
    }

    /// The end of UIDL: as many messages as STAT had.
    pub fn end_uidl(&mut self) -> Result<(), Fault> {
        let rows = self.ends.len();
        let spoilt = std::mem::take(&mut self.spoilt);
        match self.stat {
            Some((messages, _)) if !spoilt && rows as u64 != u64::from(messages) => {
                let text = format!("STAT had {messages} messages, UIDL has {rows}");
                Err(Fault::new(Kind::Stat, text))
            }
            _ => Ok(()),
        }
    }

    /// Two messages with one UIDL.
    pub fn twins(&mut self) -> Option<Fault> {
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.extend(0..self.ends.len());
        sorted.sort_unstable_by(|a, b| self.uidl_at(*a).cmp(self.uidl_at(*b)));
        let twins = sorted
            .windows(2)
            .find(|pair| self.uidl_at(pair[0]) == self.uidl_at(pair[1]))
            .map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1])));
        self.sorted = sorted;
        let (one, two) = twins?;
        let uidl = readable(self.uidl_at(one));
        let text = format!("messages {} and {} are both {uidl}", one + 1, two + 1);
        Some(Fault::new(Kind::UidlDuplicate, text))
    }

    fn spoil(&mut self, row: &[u8], expected: u64, what: &str) -> Fault {
        self.spoilt = true;
        let text = format!("expected `{expected} {what}`, got {}", readable(row));
        Fault::new(Kind::Listing, text)
    }
}

impl Message {
    /// What is wrong with a message of which LIST had announced so many octets.
    ///
    /// An unstuffed dot is lost to every client; it is named as what it is and
    /// not a second time as a missing octet.
    pub fn faults(self, announced: Option<u64>) -> impl Iterator<Item = Fault> {
        let octets = self.octets + u64::from(self.unstuffed);
        let size = announced.filter(|a| *a != octets).map(|announced| {
            let text = format!("LIST had {announced} octets, the message has {octets}");
            Fault::new(Kind::Octets, text)
        });
        let dots = (self.unstuffed > 0).then(|| {
            let text = format!("{} lines begin with a single dot", self.unstuffed);
            Fault::new(Kind::UnstuffedDot, text)
        });
        let line_ends = (self.bare_lf > 0).then(|| {
            let text = format!("{} lines end in LF without CR", self.bare_lf);
            Fault::new(Kind::BareLf, text)
        });
        [size, dots, line_ends].into_iter().flatten()
    }
}

/// What follows `expected` and a space at the head of a row.
fn argument(row: &[u8], expected: u64) -> Option<&[u8]> {
    let (found, rest) = number(row)?;
    rest.strip_prefix(b" ").filter(|_| found == expected)
}

/// The decimal number at the head of `text`, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (head, rest) = text.split_at(digits);
    if head.is_empty() {
        return None;
    }
    let value = head.iter().try_fold(0u64, |value, digit| {
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: Result<(), Fault>) -> Option<Kind> {
        result.err().map(|fault| fault.kind)
    }

    fn with_stat(text: &[u8]) -> Maildrop {
        let mut maildrop = Maildrop::default();
        maildrop.take_stat(text).expect("sound");
        maildrop
    }

    #[test]
    fn stat_is_two_numbers() {
        let maildrop = with_stat(b"2 320 and more");
        assert_eq!(maildrop.stat, Some((2, 320)));
        for text in [
            &b""[..],
            b"2",
            b"2 ",
            b"a b",
            b"-1 2",
            b"2  3",
            b"2 3x",
            b"4294967296 1",
            b"1 99999999999999999999",
        ] {
            let kind = kind(Maildrop::default().take_stat(text));
            assert_eq!(kind, Some(Kind::Nonsense), "{}", readable(text));
        }
    }

    #[test]
    fn list_must_add_up_to_stat() {
        let mut maildrop = with_stat(b"2 320");
        assert_eq!(kind(maildrop.take_list_row(b"1 120")), None);
        assert_eq!(kind(maildrop.take_list_row(b"2 200 more")), None);
        assert_eq!(kind(maildrop.end_list()), None);
        assert_eq!(
            (
                maildrop.octets_of(0),
                maildrop.octets_of(2),
                maildrop.octets_of(3)
            ),
            (None, Some(200), None)
        );

        let mut maildrop = with_stat(b"2 320");
        assert_eq!(kind(maildrop.take_list_row(b"1 120")), None);
        assert_eq!(kind(maildrop.end_list()), Some(Kind::Stat));
    }

    #[test]
    fn a_listing_that_was_asked_and_is_empty_holds_nothing() {
        let mut maildrop = with_stat(b"4294967295 18446744073709551615");
        assert_eq!(maildrop.listed(), u32::MAX, "nobody else was asked");
        maildrop.begin_list();
        assert_eq!(kind(maildrop.end_list()), Some(Kind::Stat));
        assert_eq!(maildrop.listed(), 0);
        let mut maildrop = with_stat(b"4294967295 1");
        maildrop.begin_uidl();
        assert_eq!(maildrop.listed(), 0);
        maildrop.clear();
        assert_eq!(maildrop.listed(), 0, "STAT is forgotten");
        maildrop.take_stat(b"3 1").expect("sound");
        assert_eq!(maildrop.listed(), 3, "and so is what was asked");
    }

    #[test]
    fn rows_count_from_one_without_gaps() {
        for row in [
            &b"2 120"[..],
            b"0 120",
            b"1",
            b"1 ",
            b"1 12x",
            b" 1 120",
            b"",
            b"+1 120",
        ] {
            let mut maildrop = with_stat(b"1 120");
            assert_eq!(
                kind(maildrop.take_list_row(row)),
                Some(Kind::Listing),
                "{}",
                readable(row)
            );
            assert_eq!(kind(maildrop.end_list()), None, "told once");
        }
        let mut maildrop = with_stat(b"1 120");
        assert_eq!(kind(maildrop.take_uidl_row(b"2 a")), Some(Kind::Listing));
    }

    #[test]
    fn a_uidl_is_1_to_70_graphic_octets() {
        let longest = [b"1 ".as_slice(), &[b'~'; 70]].concat();
        let longer = [b"1 ".as_slice(), &[b'!'; 71]].concat();
        assert_eq!(kind(with_stat(b"1 1").take_uidl_row(&longest)), None);
        for row in [&longer[..], b"1 ", b"1 a b", b"1 \x7f", b"1 \x80"] {
            assert_eq!(
                kind(with_stat(b"1 1").take_uidl_row(row)),
                Some(Kind::UidlSyntax)
            );
        }
    }

    #[test]
    fn two_messages_never_share_a_uidl() {
        let mut maildrop = with_stat(b"4 4");
        for row in [&b"1 ab"[..], b"2 a", b"3 abc", b"4 a"] {
            assert_eq!(kind(maildrop.take_uidl_row(row)), None);
        }
        assert_eq!(kind(maildrop.end_uidl()), None);
        let fault = maildrop.twins().expect("2 and 4");
        assert_eq!(fault.kind, Kind::UidlDuplicate);
        assert!(fault.text.contains("2 and 4"), "{}", fault.text);

        let mut maildrop = with_stat(b"2 4");
        assert_eq!(kind(maildrop.take_uidl_row(b"1 a")), None);
        assert_eq!(kind(maildrop.end_uidl()), Some(Kind::Stat));
    }

    #[test]
    fn an_unstuffed_dot_is_not_also_a_missing_octet() {
        let message = Message {
            octets: 9,
            unstuffed: 1,
            bare_lf: 0,
        };
        let kinds = |announced| {
            message
                .faults(announced)
                .map(|f| f.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(Some(10)), [Kind::UnstuffedDot]);
        assert_eq!(kinds(None), [Kind::UnstuffedDot]);
        assert_eq!(kinds(Some(9)), [Kind::Octets, Kind::UnstuffedDot]);
    }
}
