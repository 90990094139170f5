//! The mail that is fetched, and what it is on the wire.

/// A message as it lies in the Maildir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it is for; the value of its `X-Test` header where it has one.
    pub(crate) name: &'static str,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

impl Message {
    /// The same where a client puts the blank line that headers alone lack.
    pub(crate) fn with_lf_and_blank_line(&self) -> Vec<u8> {
        let mut text = self.with_lf();
        if !text.windows(2).any(|pair| pair == b"\n\n") {
            text.push(b'\n');
        }
        text
    }

    fn new(name: &'static str, body: &[u8]) -> Self {
        let mut bytes = header(name).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        Self { name, bytes }
    }

    /// What RETR sends before stuffing: every line ends in CRLF.
    pub(crate) fn on_the_wire(&self) -> Vec<u8> {
        on_the_wire(&self.bytes)
    }

    /// What a client stores that ends lines in LF.
    pub(crate) fn with_lf(&self) -> Vec<u8> {
        let mut text = self.bytes.clone();
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        text.windows(2)
            .filter(|pair| pair != b"\r\n")
            .map(|pair| pair[0])
            .chain(text.last().copied())
            .collect()
    }
}

fn header(name: &str) -> String {
    format!(
        "Return-Path: <sender@example.org>\n\
         Received: by mx.example.org; Mon, 6 Jan 2025 00:00:00 +0000\n\
         From: Sender <sender@example.org>\nTo: Alice <alice@example.net>\n\
         Subject: a test\nX-Test: {name}\nDate: Mon, 6 Jan 2025 00:00:00 +0000\n\
         Message-ID: <{name}@example.org>\n"
    )
}

/// LF and CRLF become CRLF, and what does not end a line is ended.
pub(crate) fn on_the_wire(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    for (at, byte) in bytes.iter().enumerate() {
        let carriage_return = at > 0 && bytes[at - 1] == b'\r';
        if *byte == b'\n' && !carriage_return {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    if bytes.last().is_some_and(|last| *last != b'\n') {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn crlf(name: &'static str, body: &[u8]) -> Message {
    let bytes = Message::new(name, body).on_the_wire();
    Message { name, bytes }
}

/// Messages that every mail client has to get right.
pub(crate) fn ordinary() -> Vec<Message> {
    let mut cut = crlf("crlf-no-final-line-end", b"one\n\n.two\n");
    cut.bytes.truncate(cut.bytes.len() - 2);
    let dots = b".\n..\n...\n.text\ntext.\n\n.\n.\n From here\nFrom here\n>From here\n.\n";
    vec![
        Message::new("short", b"Hello.\n"),
        Message::new("long", &long_body()),
        multipart(),
        Message::new(
            "eight-bit",
            b"K\xf6ln in ISO-8859-1, K\xc3\xb6ln in UTF-8, \x80\xff\n",
        ),
        Message::new("dots", dots),
        crlf("crlf", b"one\n\n.two\n.\n\nthree\n"),
        cut,
        Message::new("no-final-line-end", b"one\n\ntwo"),
        Message {
            name: "header-only",
            bytes: header("header-only").into_bytes(),
        },
        Message::new("empty-body", b""),
        Message::new("blank-lines", b"\n\n\n"),
    ]
}

/// Mail that is not what RFC 5322 allows, and arrives all the same.
pub(crate) fn odd() -> Vec<Message> {
    let mut dot_first = Message::new("dot-first", b"text\n");
    dot_first.bytes.splice(0..0, *b".Odd: a header\n");
    let mut bare_cr = Message::new("bare-cr", b"a\rb\r\r\nc\n\r\n\rd\n");
    bare_cr.bytes.extend_from_slice(b"e\r");
    vec![
        Message {
            name: "empty",
            bytes: Vec::new(),
        },
        dot_first,
        Message::new("mixed", b"a\r\nb\n.c\r\n.d\n\r\n\n"),
        Message::new("nul", b"a\0b\n\0\n.\0\n"),
        Message {
            name: "only-a-dot",
            bytes: b".".to_vec(),
        },
        bare_cr,
    ]
}

/// Two megabytes in lines of every length up to 998, the longest that RFC 5322
/// allows; every length comes with a dot in front as well.
fn long_body() -> Vec<u8> {
    let mut body = Vec::new();
    let mut length = 0;
    while body.len() < 2 << 20 {
        let begins = body.len();
        body.extend((b'a'..=b'z').cycle().take(length));
        if length > 0 && begins % 2 == 0 {
            body[begins] = b'.';
        }
        body.push(b'\n');
        length = (length + 1) % 999;
    }
    body
}

fn multipart() -> Message {
    let mut bytes = header("multipart").into_bytes();
    bytes.extend_from_slice(
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=_b\"\n\n\
          This is a message of two parts.\n--=_b\nContent-Type: text/plain; charset=utf-8\n\
          Content-Transfer-Encoding: 8bit\n\nGr\xc3\xbc\xc3\x9fe\n.\n\n--=_b\n\
          Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n\
          AAECAwQFBgcICQoLDA0ODw==\n--=_b--\n",
    );
    Message {
        name: "multipart",
        bytes,
    }
}
