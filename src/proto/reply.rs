//! Whole replies, written into an [`Output`] (RFC 1939, 2449, 2595, 3206).
//!
//! A single-line reply ends in CRLF and has at most [`limits::REPLY_LINE`]
//! octets: [`Line`] keeps both, and cuts a text that came from elsewhere to
//! what fits. Numbers are written digit by digit, since the machinery of `fmt`
//! costs more than the rest of a listing.

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use super::{MessageNumber, Octets, Output};
use crate::limits;

/// A machine-readable reason in front of the text of an `-ERR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The user logged in too short a time ago (RFC 2449, section 8.1.1).
    LoginDelay,
    /// The maildrop is locked by another session (RFC 2449, section 8.1.2).
    InUse,
    /// The system cannot do it now; later it may (RFC 3206, section 4).
    SysTemp,
    /// The system cannot do it until somebody acts (RFC 3206, section 4).
    SysPerm,
    /// The user's credentials are at fault (RFC 3206, section 4).
    Auth,
}

impl Code {
    fn prefix(self) -> &'static str {
        match self {
            Self::LoginDelay => "[LOGIN-DELAY] ",
            Self::InUse => "[IN-USE] ",
            Self::SysTemp => "[SYS/TEMP] ",
            Self::SysPerm => "[SYS/PERM] ",
            Self::Auth => "[AUTH] ",
        }
    }
}

/// One line of reply under construction; [`Line::end`] closes it.
#[must_use = "a line without its end is no reply"]
pub struct Line<'o> {
    out: &'o mut Output,
    /// Octets that still fit before the CRLF.
    left: usize,
}

impl<'o> Line<'o> {
    /// Begins `+OK `.
    pub fn ok(out: &'o mut Output) -> Self {
        Self::begin(out, "+OK ")
    }

    /// Begins `-ERR ` and the code, if there is one.
    pub fn err(out: &'o mut Output, code: Option<Code>) -> Self {
        let line = Self::begin(out, "-ERR ");
        match code {
            Some(code) => line.text(code.prefix()),
            None => line,
        }
    }

    fn begin(out: &'o mut Output, status: &'static str) -> Self {
        let left = limits::REPLY_LINE - 2;
        Self { out, left }.text(status)
    }

    /// Appends popcore's own words, which are known to fit.
    pub fn text(mut self, text: &'static str) -> Self {
        self.append(text.as_bytes());
        self
    }

    /// Appends a number.
    pub fn number(mut self, number: u64) -> Self {
        self.append(Digits::of(number).as_bytes());
        self
    }

    /// Appends words from a configuration or a directory of users: as much of
    /// them as fits, with `?` for whatever is not printable ASCII, so that no
    /// text from elsewhere can end the line or begin another.
    pub fn foreign(mut self, text: &str) -> Self {
        let length = text.len().min(self.left);
        self.left -= length;
        for &octet in &text.as_bytes()[..length] {
            let printable = matches!(octet, b' '..=b'~');
            self.out.push(&[if printable { octet } else { b'?' }]);
        }
        self
    }

    /// Ends the line.
    pub fn end(self) {
        self.out.push(b"\r\n");
    }

    fn append(&mut self, octets: &[u8]) {
        let left = self.left.checked_sub(octets.len());
        self.left = left.expect("popcore's own words fit into a line");
        self.out.push(octets);
    }
}

/// `+OK` and a text.
pub fn ok(out: &mut Output, text: &'static str) {
    Line::ok(out).text(text).end();
}

/// `-ERR`, the code if there is one, and a text.
pub fn err(out: &mut Output, code: Option<Code>, text: &'static str) {
    Line::err(out, code).text(text).end();
}

/// The greeting. It holds `<...>`, which offers APOP (RFC 1939, section 7), where there
/// is a stamp of it, and nowhere else.
pub fn greeting(out: &mut Output, hostname: &str, stamp: Option<&str>) {
    let name = hostname.split(['<', '>']).next().unwrap_or_default();
    let room = limits::REPLY_LINE / 2;
    let name = name.get(..room).unwrap_or(name);
    let line = Line::ok(out).text("popcore ready on ").foreign(name);
    match stamp {
        Some(stamp) => line.text(" ").foreign(stamp).end(),
        None => line.end(),
    }
}

/// The answer to STAT.
pub fn stat(out: &mut Output, messages: u32, octets: Octets) {
    drop_listing(out, messages, octets);
}

/// The answer to LIST with an argument.
pub fn list_one(out: &mut Output, message: MessageNumber, octets: Octets) {
    drop_listing(out, message.get(), octets);
}

/// A "drop listing" or "scan listing" behind `+OK`: two numbers, which have
/// one form.
fn drop_listing(out: &mut Output, first: u32, octets: Octets) {
    out.push(b"+OK ");
    pair(out, first, octets);
}

/// The first line of a whole listing.
pub fn listing_follows(out: &mut Output, messages: u32, octets: Octets) {
    Line::ok(out)
        .number(u64::from(messages))
        .text(" messages (")
        .number(octets.get())
        .text(" octets)")
        .end();
}

/// One row of LIST.
pub fn list_row(out: &mut Output, message: MessageNumber, octets: Octets) {
    pair(out, message.get(), octets);
}

/// One row of UIDL, or, behind `+OK `, the answer for one message: `write`
/// appends the unique-id, at most [`limits::UNIQUE_ID`] octets.
pub fn uidl_row(out: &mut Output, message: MessageNumber, write: impl FnOnce(&mut Vec<u8>)) {
    let buffer = out.buffer_mut();
    buffer.extend_from_slice(Digits::of(u64::from(message.get())).as_bytes());
    buffer.push(b' ');
    let before = buffer.len();
    write(buffer);
    debug_assert!(
        (1..=limits::UNIQUE_ID).contains(&(buffer.len() - before)),
        "a unique-id has 1 to 70 octets"
    );
    buffer.extend_from_slice(b"\r\n");
}

/// The answer to UIDL with an argument.
pub fn uidl_one(out: &mut Output, message: MessageNumber, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b"+OK ");
    uidl_row(out, message, write);
}

/// The end of a multi-line reply other than a message's, whose encoder knows
/// whether a line end is missing.
pub fn terminator(out: &mut Output) {
    out.push(b".\r\n");
}

/// The first line of RETR.
pub fn message_follows(out: &mut Output, octets: Octets) {
    Line::ok(out).number(octets.get()).text(" octets").end();
}

/// The first line of TOP.
pub fn top_follows(out: &mut Output) {
    ok(out, "top of message follows");
}

/// What differs between one CAPA reply and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities<'a> {
    /// USER and PASS are taken on this channel.
    pub user: bool,
    /// STLS is taken now (RFC 2595, section 4: AUTHORIZATION state only).
    pub stls: bool,
    /// The mechanisms of SASL that can be used on this connection now (RFC 5034).
    pub sasl: &'a [&'static str],
    /// How long a user has to wait between two logins; `None`: not at all.
    pub login_delay: Option<LoginDelayTold>,
    /// Days for which messages are kept at least; `None`: for ever.
    pub expire: Option<u16>,
}

/// The arguments of LOGIN-DELAY (RFC 2449, section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginDelayTold {
    /// From one login to the next.
    pub seconds: u64,
    /// Another value may be told once the user is known.
    pub differs: bool,
}

/// The answer to CAPA (RFC 2449, section 6).
pub fn capabilities(out: &mut Output, capabilities: Capabilities<'_>) {
    ok(out, "capability list follows");
    if capabilities.user {
        out.push(b"USER\r\n");
    }
    if capabilities.stls {
        out.push(b"STLS\r\n");
    }
    if !capabilities.sasl.is_empty() {
        out.push(b"SASL");
        for name in capabilities.sasl {
            out.push(b" ");
            out.push(name.as_bytes());
        }
        out.push(b"\r\n");
    }
    out.push(b"TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n");
    if let Some(delay) = capabilities.login_delay {
        out.push(b"LOGIN-DELAY ");
        out.push(Digits::of(delay.seconds).as_bytes());
        out.push(if delay.differs { b" USER\r\n" } else { b"\r\n" });
    }
    match capabilities.expire {
        None => out.push(b"EXPIRE NEVER\r\n"),
        Some(days) => {
            out.push(b"EXPIRE ");
            out.push(Digits::of(u64::from(days)).as_bytes());
            out.push(b"\r\n");
        }
    }
    out.push(b"IMPLEMENTATION popcore\r\n");
    terminator(out);
}

/// The answer to AUTH alone: the mechanisms, a line each.
pub fn mechanisms(out: &mut Output, names: &[&'static str]) {
    ok(out, "list of mechanisms follows");
    for name in names {
        out.push(name.as_bytes());
        out.push(b"\r\n");
    }
    terminator(out);
}

/// A challenge of SASL (RFC 5034, section 4), of at most [`limits::CHALLENGE`] octets.
pub fn challenge(out: &mut Output, challenge: &[u8]) {
    debug_assert!(challenge.len() <= limits::CHALLENGE, "a challenge fits");
    let mut text = Zeroizing::new([0; limits::CHALLENGE.div_ceil(3) * 4]);
    let text = Base64::encode(challenge, &mut *text).expect("room for all of it");
    out.push(b"+ ");
    out.push(text.as_bytes());
    out.push(b"\r\n");
}

/// Two numbers and a line end, put together from behind before the one copy.
fn pair(out: &mut Output, first: u32, octets: Octets) {
    const NUMBERS: usize = limits::DECIMAL + 1 + limits::DECIMAL;
    let mut row = [b' '; NUMBERS + 2];
    row[NUMBERS..].copy_from_slice(b"\r\n");
    let space = write_before(&mut row, NUMBERS, octets.get()) - 1;
    let start = write_before(&mut row, space, u64::from(first));
    out.push(&row[start..]);
}

/// A decimal number, right-aligned in its buffer.
struct Digits {
    octets: [u8; limits::DECIMAL],
    start: usize,
}

impl Digits {
    fn of(number: u64) -> Self {
        let mut octets = [0; limits::DECIMAL];
        let start = write_before(&mut octets, limits::DECIMAL, number);
        Self { octets, start }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.octets[self.start..]
    }
}

/// Writes a number's digits so that the last stands before `end`; returns where
/// the first stands.
fn write_before(buffer: &mut [u8], end: usize, number: u64) -> usize {
    const DIGITS: &[u8; 10] = b"0123456789";
    let mut start = end;
    let mut rest = number;
    loop {
        start -= 1;
        buffer[start] = DIGITS[(rest % 10) as usize];
        rest /= 10;
        if rest == 0 {
            return start;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Output)) -> String {
        let mut out = Output::new(Vec::with_capacity(limits::REPLY_ROOM));
        write(&mut out);
        String::from_utf8(out.into_buffer()).expect("replies are ASCII")
    }

    const FIRST: MessageNumber = MessageNumber::FIRST;

    #[test]
    fn replies_have_the_form_of_the_standard() {
        let size = Octets::new(u64::MAX);
        assert_eq!(written(|o| ok(o, "fine")), "+OK fine\r\n");
        assert_eq!(written(|o| err(o, None, "no")), "-ERR no\r\n");
        let in_use = written(|o| err(o, Some(Code::InUse), "locked"));
        assert_eq!(in_use, "-ERR [IN-USE] locked\r\n");
        assert_eq!(written(|o| stat(o, 2, Octets::new(320))), "+OK 2 320\r\n");
        assert_eq!(written(|o| stat(o, 0, Octets::ZERO)), "+OK 0 0\r\n");
        let row = written(|o| list_row(o, FIRST, size));
        assert_eq!(row, "1 18446744073709551615\r\n");
        let one = written(|o| uidl_one(o, FIRST, |b| b.extend_from_slice(b"QhdPYR")));
        assert_eq!(one, "+OK 1 QhdPYR\r\n");
        let follows = written(|o| message_follows(o, Octets::new(120)));
        assert_eq!(follows, "+OK 120 octets\r\n");
    }

    #[test]
    fn codes_are_those_of_the_standards() {
        let codes = [Code::InUse, Code::SysTemp, Code::SysPerm, Code::Auth];
        let prefixes = codes.map(Code::prefix);
        assert_eq!(
            prefixes,
            ["[IN-USE] ", "[SYS/TEMP] ", "[SYS/PERM] ", "[AUTH] "]
        );
    }

    #[test]
    fn the_greeting_offers_no_apop() {
        let greeted = written(|o| greeting(o, "pop.example.net", None));
        assert_eq!(greeted, "+OK popcore ready on pop.example.net\r\n");
        assert!(!written(|o| greeting(o, "<1.2@host>", None)).contains('<'));
        assert!(written(|o| greeting(o, &"a".repeat(999), None)).len() <= limits::REPLY_LINE);
    }

    #[test]
    fn capabilities_follow_what_is_offered() {
        let all = written(|o| {
            capabilities(
                o,
                Capabilities {
                    user: true,
                    stls: true,
                    sasl: &["PLAIN", "LOGIN"],
                    login_delay: None,
                    expire: None,
                },
            );
        });
        assert_eq!(
            all,
            "+OK capability list follows\r\nUSER\r\nSTLS\r\nSASL PLAIN LOGIN\r\nTOP\r\nUIDL\r\nRESP-CODES\r\n\
             AUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nIMPLEMENTATION popcore\r\n.\r\n"
        );
        let none = written(|o| {
            capabilities(
                o,
                Capabilities {
                    user: false,
                    stls: false,
                    sasl: &[],
                    login_delay: Some(LoginDelayTold {
                        seconds: 90,
                        differs: true,
                    }),
                    expire: Some(30),
                },
            );
        });
        assert!(!none.contains("\r\nUSER") && !none.contains("STLS") && !none.contains("SASL"));
        assert!(none.contains("\r\nEXPIRE 30\r\n"), "{none}");
        assert!(none.contains("\r\nLOGIN-DELAY 90 USER\r\n"), "{none}");
        assert!(none.len() < limits::REPLY_ROOM);
    }

    #[test]
    fn challenges_and_mechanisms_have_the_form_of_the_standard() {
        assert_eq!(written(|o| challenge(o, b"")), "+ \r\n");
        assert_eq!(
            written(|o| challenge(o, b"Username:")),
            "+ VXNlcm5hbWU6\r\n"
        );
        let longest = written(|o| challenge(o, &[b'x'; limits::CHALLENGE]));
        assert!(longest.len() <= limits::REPLY_ROOM, "{}", longest.len());
        let list = written(|o| mechanisms(o, &["PLAIN", "LOGIN"]));
        let follows = "+OK list of mechanisms follows\r\n";
        assert_eq!(list, format!("{follows}PLAIN\r\nLOGIN\r\n.\r\n"));
    }

    #[test]
    fn the_longest_rows_fit_into_their_room() {
        let last = MessageNumber::new(u32::MAX).expect("not 0");
        let row = written(|o| list_row(o, last, Octets::new(u64::MAX)));
        let id = [b'~'; limits::UNIQUE_ID];
        let uidl = written(|o| uidl_row(o, last, |b| b.extend_from_slice(&id)));
        for row in [row, uidl] {
            assert!(row.len() + limits::TERMINATOR <= limits::LISTING_ROW);
        }
    }

    proptest! {
        #[test]
        fn foreign_text_stays_one_line_of_512_octets(text in any::<String>(), times in 1_usize..80) {
            let text = text.repeat(times);
            let line = written(|o| Line::err(o, Some(Code::Auth)).foreign(&text).end());
            prop_assert!(line.len() <= limits::REPLY_LINE);
            prop_assert!(line.ends_with("\r\n"));
            let body = &line[..line.len() - 2];
            prop_assert!(body.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        }

        #[test]
        fn numbers_are_written_as_fmt_would(number in any::<u64>(), message in 1_u32..) {
            let message = MessageNumber::new(message).expect("not 0");
            let row = written(|o| list_row(o, message, Octets::new(number)));
            prop_assert_eq!(row, format!("{} {number}\r\n", message.get()));
        }
    }
}
