//! Histograms as text: in JSON so that results can be merged exactly, and as a
//! log that `HdrHistogram`'s own tools read.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// The compressed form of version 2, in base64: as in a log's lines.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut octets = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut octets)
        .expect("a Vec takes every write");
    STANDARD.encode(octets)
}

/// What [`encode`] wrote.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let octets = STANDARD
        .decode(text)
        .map_err(|e| format!("a histogram that is no base64: {e}"))?;
    Deserializer::new()
        .deserialize(&mut &octets[..])
        .map_err(|e| format!("a histogram that cannot be read: {e:?}"))
}

/// One line of a log.
#[derive(Debug)]
pub struct Line<'a> {
    /// The kind of latency; tools take it as the tag.
    pub tag: &'a str,
    /// From the run's beginning.
    pub from: Duration,
    /// From there.
    pub length: Duration,
    /// In nanoseconds.
    pub histogram: Histogram<u64>,
}

/// Nanoseconds of a millisecond: what logs print their maxima in.
const DIVISOR: f64 = 1e6;

/// Writes a log of a run that began at `started`.
pub fn write_log(out: &mut impl Write, started: SystemTime, lines: &[Line<'_>]) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("popcore-loadgen: latencies in nanoseconds, maxima in milliseconds")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(DIVISOR)
        .begin_log_with(out, &mut serializer)?;
    for line in lines {
        log.write_histogram(&line.histogram, line.from, line.length, Tag::new(line.tag))
            .map_err(|e| io::Error::other(format!("{e:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("sound");
        for value in values {
            histogram.record(*value).expect("it grows");
        }
        histogram
    }

    #[test]
    fn a_histogram_comes_back_the_same() {
        let before = histogram(&[1, 1_000, 123_456_789]);
        assert_eq!(decode(&encode(&before)), Ok(before));
        assert!(decode("!").is_err() && decode("AAAA").is_err());
    }

    #[test]
    fn a_log_is_read_back() {
        let line = |tag, from| Line {
            tag,
            from: Duration::from_secs(from),
            length: Duration::from_secs(1),
            histogram: histogram(&[5, 7_000_000]),
        };
        let mut log = Vec::new();
        let lines = [line("session", 0), line("session", 1), line("stat", 0)];
        write_log(&mut log, SystemTime::now(), &lines).expect("written");
        let mut tags = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.expect("sound") {
                tags.push(interval.tag().expect("a tag").as_str().to_owned());
                assert!((interval.max() - 7.0).abs() < 0.01);
                let histogram = decode(interval.encoded_histogram()).expect("sound");
                assert_eq!(histogram.len(), 2);
            }
        }
        assert_eq!(tags, ["session", "session", "stat"]);
    }
}
