//! Lines and commands: what a poll session and a long pipeline cost before any
//! of them is answered.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use popcore::proto::{Command, LineSplitter, MessageNumber, Split, parse};

const POLL: &[u8] = b"USER alice@example.net\r\nPASS correct horse\r\nSTAT\r\nUIDL\r\nQUIT\r\n";

/// Splits and parses a stream that comes in pieces; returns how many commands
/// were good.
fn commands(stream: &[u8], piece: usize) -> usize {
    let mut splitter = LineSplitter::new();
    let mut good = 0;
    for mut input in stream.chunks(piece) {
        loop {
            match splitter.next(&mut input) {
                Split::Line(line) => good += usize::from(black_box(parse(line)).is_ok()),
                Split::TooLong => {}
                Split::NeedMore => break,
            }
        }
    }
    good
}

fn parser(c: &mut Criterion) {
    let mut group = c.benchmark_group("parser");
    let number = MessageNumber::new(4711).expect("not 0");
    assert_eq!(parse(b"RETR 4711"), Ok(Command::Retr(number)));
    group.bench_function("parse RETR", |b| b.iter(|| parse(black_box(b"RETR 4711"))));
    assert_eq!(parse(b"uidl"), Ok(Command::Uidl(None)));
    group.bench_function("parse UIDL", |b| b.iter(|| parse(black_box(b"uidl"))));

    assert_eq!(commands(POLL, POLL.len()), 5);
    group.bench_function("poll, five lines in one piece", |b| {
        b.iter(|| commands(black_box(POLL), POLL.len()));
    });
    assert_eq!(commands(POLL, 1), 5);
    group.bench_function("poll, an octet at a time", |b| {
        b.iter(|| commands(black_box(POLL), 1));
    });

    let pipeline: Vec<u8> = (1..=10_000)
        .flat_map(|number| format!("RETR {number}\r\nDELE {number}\r\n").into_bytes())
        .collect();
    assert_eq!(commands(&pipeline, 4096), 20_000);
    group.throughput(Throughput::Bytes(pipeline.len() as u64));
    group.bench_function("20,000 commands in pieces of 4 KiB", |b| {
        b.iter(|| commands(black_box(&pipeline), 4096));
    });
    group.finish();
}

criterion_group!(benches, parser);
criterion_main!(benches);
