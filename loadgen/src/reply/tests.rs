//! The reader against a model, in every segmentation.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a reader gave, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Status(bool, Vec<u8>),
    Challenge(Vec<u8>),
    Row(Vec<u8>),
    EndOfRows,
    EndOfMessage(Message),
}

impl From<Item<'_>> for Said {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Status { ok, text, .. } => Self::Status(ok, text.to_vec()),
            Item::Challenge(text) => Self::Challenge(text.to_vec()),
            Item::Row(row) => Self::Row(row.to_vec()),
            Item::EndOfRows => Self::EndOfRows,
            Item::EndOfMessage(message) => Self::EndOfMessage(message),
        }
    }
}

/// Reads `bytes`, cut as `cuts` says, as replies of these shapes.
fn read(bytes: &[u8], cuts: &[usize], shapes: &[Shape]) -> Result<(Vec<Said>, u32), Kind> {
    let mut reader = ReplyReader::default();
    let mut shapes = shapes.iter();
    let mut said = Vec::new();
    if let Some(shape) = shapes.next() {
        reader.expect(*shape);
    }
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let size = cuts
            .next()
            .map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
        let (mut part, after) = rest.split_at(size);
        rest = after;
        while let Some(item) = reader.next(&mut part).map_err(|fault| fault.kind)? {
            let over = !matches!(item, Item::Status { last: false, .. } | Item::Row(_));
            said.push(Said::from(item));
            if over && let Some(shape) = shapes.next() {
                reader.expect(*shape);
            }
        }
    }
    Ok((said, reader.take_bare_lf()))
}

fn whole(bytes: &[u8], shape: Shape) -> Result<Vec<Said>, Kind> {
    read(bytes, &[], &[shape]).map(|(said, _)| said)
}

/// A server's encoding of a message, byte by byte: the model.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = b"+OK\r\n".to_vec();
    let mut start = true;
    for byte in content {
        if start && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        start = *byte == b'\n';
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Content of lines that end in CRLF, full of dots and lone CRs.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'.'), Just(b'\r'), Just(0), Just(255), Just(b'x')];
    let line = vec(byte, 0..6).prop_map(|mut line| {
        line.extend_from_slice(b"\r\n");
        line
    });
    vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn a_message_is_counted_the_same_in_any_segmentation(
        content in content(),
        cuts in vec(1usize..9, 1..8),
    ) {
        let expected = Message { octets: content.len() as u64, unstuffed: 0, bare_lf: 0 };
        let (said, bare_lf) = read(&stuffed(&content), &cuts, &[Shape::Message]).expect("sound");
        prop_assert_eq!(said, [Said::Status(true, vec![]), Said::EndOfMessage(expected)]);
        prop_assert_eq!(bare_lf, 0);
    }

    #[test]
    fn any_bytes_give_the_same_whole_and_in_pieces(
        bytes in vec(prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
        cuts in vec(1usize..9, 1..8),
        shape in prop_oneof![Just(Shape::Rows), Just(Shape::Message)],
    ) {
        let bytes = [b"+OK x\r\n".as_slice(), &bytes].concat();
        let shapes = [shape, Shape::Rows, Shape::Message];
        prop_assert_eq!(read(&bytes, &cuts, &shapes), read(&bytes, &[], &shapes));
    }

    #[test]
    fn listings_come_row_by_row(
        rows in vec("[!-~][ -~]{0,20}", 0..8),
        cuts in vec(1usize..9, 1..8),
    ) {
        let mut bytes = b"+OK rows follow\r\n".to_vec();
        let mut expected = vec![Said::Status(true, b"rows follow".to_vec())];
        for row in rows {
            let stuffing = if row.starts_with('.') { "." } else { "" };
            bytes.extend_from_slice(format!("{stuffing}{row}\r\n").as_bytes());
            expected.push(Said::Row(row.into_bytes()));
        }
        bytes.extend_from_slice(b".\r\n-ERR no\r\n");
        expected.extend([Said::EndOfRows, Said::Status(false, b"no".to_vec())]);
        let (said, bare_lf) = read(&bytes, &cuts, &[Shape::Rows, Shape::Rows]).expect("sound");
        prop_assert_eq!(said, expected);
        prop_assert_eq!(bare_lf, 0);
    }
}

#[test]
fn an_error_is_one_line_whatever_was_asked() {
    for shape in [Shape::Line, Shape::Rows, Shape::Message] {
        let said = whole(b"-ERR [IN-USE] busy\r\n", shape);
        assert_eq!(
            said,
            Ok(vec![Said::Status(false, b"[IN-USE] busy".to_vec())])
        );
    }
}

#[test]
fn what_is_neither_ok_nor_err_is_nonsense() {
    for line in [
        "HELO\r\n",
        "\r\n",
        "+OKAY\r\n",
        "-ERROR\r\n",
        "+ok\r\n",
        " +OK\r\n",
    ] {
        assert_eq!(
            whole(line.as_bytes(), Shape::Line),
            Err(Kind::Nonsense),
            "{line:?}"
        );
    }
}

#[test]
fn a_line_is_bounded_whether_or_not_it_ends() {
    let longest = [b"+OK ".as_slice(), &[b'x'; 506], b"\r\n"].concat();
    assert_eq!(longest.len(), REPLY_LINE);
    assert!(whole(&longest, Shape::Line).is_ok());
    let longer = [b"+OK ".as_slice(), &[b'x'; 507], b"\r\n"].concat();
    assert_eq!(whole(&longer, Shape::Line), Err(Kind::LongReply));
    let endless = vec![b'x'; 100_000];
    assert_eq!(read(&endless, &[100], &[Shape::Line]), Err(Kind::LongReply));
}

#[test]
fn a_bare_lf_is_counted_and_the_place_kept() {
    let (said, bare_lf) = read(b"+OK\n1 2\n.\n", &[], &[Shape::Rows]).expect("readable");
    assert_eq!(said.len(), 3);
    assert_eq!(bare_lf, 3);
    for cuts in [&[][..], &[1]] {
        let read = read(b"+OK\r\na\nb\r\n\n.\r\n", cuts, &[Shape::Message]);
        let message = Message {
            octets: 6,
            unstuffed: 0,
            bare_lf: 2,
        };
        assert_eq!(read.expect("readable").0[1], Said::EndOfMessage(message));
    }
}

#[test]
fn a_single_dot_before_text_is_an_unstuffed_line() {
    for cuts in [&[][..], &[1]] {
        let bytes = b"+OK\r\n.a\r\n.\rb\r\n..\r\n.\r\n";
        let message = Message {
            octets: 10,
            unstuffed: 2,
            bare_lf: 0,
        };
        let (said, _) = read(bytes, cuts, &[Shape::Message]).expect("readable");
        assert_eq!(said[1], Said::EndOfMessage(message));
    }
}

#[test]
fn what_nobody_asked_for_is_told() {
    assert_eq!(
        read(b"+OK\r\n+OK\r\n", &[], &[Shape::Line]),
        Err(Kind::ExtraData)
    );
}

#[test]
fn a_challenge_is_no_end() {
    let challenge = whole(b"+ abc=\r\n", Shape::Challenge);
    assert_eq!(challenge, Ok(vec![Said::Challenge(b"abc=".to_vec())]));
    assert_eq!(
        whole(b"+OK in\r\n", Shape::Challenge),
        Ok(vec![Said::Status(true, b"in".to_vec())])
    );
    assert_eq!(whole(b"+ abc\r\n", Shape::Line), Err(Kind::Nonsense));
}

proptest! {
    #[test]
    fn the_digest_is_that_of_the_message(
        lines in vec("[.a\r]{0,4}", 0..8),
        cut in 1usize..9,
    ) {
        let content: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
        let mut reader = ReplyReader::default();
        reader.hash_messages();
        reader.expect(Shape::Message);
        let sent = stuffed(content.as_bytes());
        for piece in sent.chunks(cut) {
            let mut piece = piece;
            while reader.next(&mut piece).expect("sound").is_some() {}
        }
        let mut hasher = Sha256::new();
        hasher.update(content.as_bytes());
        prop_assert_eq!(reader.take_digest(), Some(digest(&mut hasher)));
    }
}
