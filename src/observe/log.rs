//! The log: lines to stderr or a file, written by a thread of its own.
//!
//! A shard formats its line and leaves it in the [`spool`](super::spool), whose
//! thread writes it. The file is opened anew when asked (SIGHUP), so that
//! logrotate can rename it.
//!
//! A line is `<time> <origin>: <Level>: <text>`, as Dovecot's own files have it,
//! with the time in UTC. Control characters are escaped here once more,
//! whatever the origin of the text.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use super::session_log::SESSION_TARGET;
use super::spool::{Spool, Worker};
use crate::limits;

/// Where the log goes and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Where it goes.
    pub target: LogTarget,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error; systemd passes it to the journal.
    Stderr,
    /// A file, appended to, created if absent.
    File(PathBuf),
}

/// How severe a line is. Session lines are [`LogLevel::Info`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken and an operator must act.
    Error,
    /// Something is wrong and popcore copes.
    Warn,
    /// What happens, sessions above all.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The levels by their names in a configuration.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Why the log could not be started.
#[derive(Debug)]
pub enum LogError {
    /// The file cannot be opened for appending.
    Open(PathBuf, io::Error),
    /// The log's thread cannot be started.
    Thread(io::Error),
    /// This process has a log already.
    Twice,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) => write!(
                f,
                "the log file {} cannot be opened: {error}; correct log.target, or let the user \
                 who starts popcore write there",
                path.display()
            ),
            Self::Thread(error) => write!(
                f,
                "the log's thread cannot be started: {error}; raise the limit of processes \
                 (ulimit -u, or TasksMax= in the unit)"
            ),
            Self::Twice => f.write_str("the log was started twice; start it once per process"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) | Self::Thread(error) => Some(error),
            Self::Twice => None,
        }
    }
}

/// The running log. Dropping it writes what is queued and ends it.
#[derive(Debug)]
pub struct Log {
    reopen: Arc<AtomicBool>,
    spool: Arc<Spool>,
    _worker: Worker,
}

impl Log {
    /// Has the file opened anew before the next line, which is written at once.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        tracing::info!("the log continues here");
    }

    /// Reads the number of lines that found the queue full.
    pub fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let spool = Arc::clone(&self.spool);
        move || spool.dropped()
    }
}

/// Starts the log of this process.
pub fn start(options: &LogOptions) -> Result<Log, LogError> {
    let (writer, log) = open(&options.target)?;
    tracing::subscriber::set_global_default(subscriber(writer, options.level))
        .map_err(|_| LogError::Twice)?;
    Ok(log)
}

fn subscriber(writer: Arc<Spool>, level: LogLevel) -> impl Subscriber + Send + Sync {
    SubscriberBuilder::default()
        .with_ansi(false)
        .event_format(Line)
        .with_max_level(level.filter())
        .with_writer(writer)
        .finish()
}

fn open(target: &LogTarget) -> Result<(Arc<Spool>, Log), LogError> {
    let reopen = Arc::new(AtomicBool::new(false));
    let started = match target {
        LogTarget::Stderr => Spool::start(io::stderr(), limits::LOG_SPOOL),
        LogTarget::File(path) => {
            let file = append(path).map_err(|error| LogError::Open(path.clone(), error))?;
            let rotated = Rotated {
                path: path.clone(),
                file,
                reopen: Arc::clone(&reopen),
            };
            Spool::start(rotated, limits::LOG_SPOOL)
        }
    };
    let (spool, worker) = started.map_err(LogError::Thread)?;
    let log = Log {
        reopen,
        spool: Arc::clone(&spool),
        _worker: worker,
    };
    Ok((spool, log))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A file that is opened anew when asked. It lives on the log's thread.
struct Rotated {
    path: PathBuf,
    file: File,
    reopen: Arc<AtomicBool>,
}

impl Write for Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.reopen.swap(false, Ordering::AcqRel) {
            // A file that cannot be opened is no reason to lose lines: the old
            // one is still there, under whatever name it has now.
            match append(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => {
                    let path = self.path.display();
                    let fault = LogError::Open(self.path.clone(), error);
                    writeln!(self.file, "popcore: Error: {path} stays rotated: {fault}")?;
                }
            }
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The form of a line.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut line)?;
        line.write_char(' ')?;
        let mut text = String::new();
        if event.metadata().target() == SESSION_TARGET {
            // Whole as it is. The usual visitor would take it octet by octet.
            event.record(&mut Message(&mut text));
        } else {
            write!(line, "popcore: {}: ", level_name(*event.metadata().level()))?;
            context
                .field_format()
                .format_fields(Writer::new(&mut text), event)?;
        }
        if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            return writeln!(line, "{text}");
        }
        for part in text.split_inclusive(char::is_control) {
            let last = part.chars().next_back();
            match last.filter(|last| last.is_control()) {
                Some(last) => {
                    line.write_str(part.strip_suffix(last).unwrap_or(part))?;
                    write!(line, "{}", last.escape_default())?;
                }
                None => line.write_str(part)?,
            }
        }
        writeln!(line)
    }
}

/// Takes the text of an event and none of its fields.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // A `String` takes everything.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Levels as Dovecot's logs name them.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "Error",
        Level::WARN => "Warning",
        Level::INFO => "Info",
        Level::DEBUG => "Debug",
        Level::TRACE => "Trace",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use regex::Regex;

    use super::*;

    fn with_log(path: &Path, level: LogLevel, body: impl FnOnce(&Log)) {
        let (writer, log) = open(&LogTarget::File(path.to_owned())).expect("a log");
        tracing::subscriber::with_default(subscriber(writer, level), || body(&log));
        // The worker writes what is queued before the log is gone.
        drop(log);
    }

    fn texts(path: &Path) -> Vec<String> {
        let time = Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ").expect("a regex");
        let written = fs::read_to_string(path).expect("a log file");
        let lines = written.lines();
        lines
            .map(|line| {
                let stamp = time
                    .find(line)
                    .unwrap_or_else(|| panic!("no time in {line:?}"));
                line[stamp.end()..].to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_have_time_origin_and_level_and_sessions_their_own_form() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        with_log(&path, LogLevel::Info, |_| {
            tracing::warn!(queue = 7, "the queue is full");
            tracing::debug!("not written");
            tracing::info!(target: SESSION_TARGET, "{}", "pop3-login: Info: a line");
        });
        let expected = [
            "popcore: Warning: the queue is full queue=7",
            "pop3-login: Info: a line",
        ];
        assert_eq!(texts(&path), expected);
    }

    #[test]
    fn no_text_makes_a_second_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        with_log(&path, LogLevel::Info, |_| {
            tracing::info!("a\nb\r\u{1b}[31mc\u{85}");
        });
        let written = texts(&path);
        assert_eq!(written.len(), 1, "{written:?}");
        assert!(
            written[0].starts_with("popcore: Info: a\\nb"),
            "{written:?}"
        );
        assert!(!written[0].contains(char::is_control), "{written:?}");
    }

    #[test]
    fn a_rotated_file_is_left_alone_after_reopen() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        with_log(&path, LogLevel::Info, |log| {
            tracing::info!("before");
            // The worker has written the line when the file is renamed, or it
            // still writes it there: the file is the same.
            fs::rename(&path, &old).expect("renamed");
            while fs::metadata(&old).map_or(0, |facts| facts.len()) == 0 {
                std::thread::yield_now();
            }
            log.reopen();
            tracing::info!("after");
        });
        assert_eq!(texts(&old), ["popcore: Info: before"]);
        let expected = [
            "popcore: Info: the log continues here",
            "popcore: Info: after",
        ];
        assert_eq!(texts(&path), expected);
    }

    #[test]
    fn a_file_that_cannot_be_opened_names_key_and_remedy() {
        let target = LogTarget::File("/nonexistent/popcore.log".into());
        let error = open(&target).expect_err("no such folder").to_string();
        assert!(error.contains("/nonexistent/popcore.log") && error.contains("log.target"));
    }
}
