//! The run while it goes on: a bar in a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::timeline::Moment;

/// How often a line is printed where there is no terminal.
const LINES: Duration = Duration::from_secs(5);

/// Shows a run on the standard error.
#[derive(Debug)]
pub struct View {
    kind: Kind,
    whole: Duration,
}

#[derive(Debug)]
enum Kind {
    Silent,
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl View {
    /// A view of a run that takes so long.
    pub fn new(quiet: bool, label: &str, whole: Duration) -> Self {
        let kind = if quiet {
            Kind::Silent
        } else if std::io::stderr().is_terminal() {
            let milliseconds = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
            let bar = ProgressBar::new(milliseconds.max(1));
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}");
            bar.set_style(style.expect("a sound template").progress_chars("=> "));
            bar.set_prefix(label.to_owned());
            Kind::Bar(bar)
        } else {
            Kind::Lines {
                next: Instant::now() + LINES,
            }
        };
        Self { kind, whole }
    }

    /// So much time has passed, and this is the newest second.
    pub fn show(&mut self, passed: Duration, moment: Option<&Moment>, errors: u64) {
        let text = moment.map(|moment| line(passed, self.whole, moment, errors));
        match &mut self.kind {
            Kind::Silent => {}
            Kind::Bar(bar) => {
                bar.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
                if let Some(text) = text {
                    bar.set_message(text);
                }
            }
            Kind::Lines { next } => {
                if let Some(text) = text.filter(|_| Instant::now() >= *next) {
                    *next = Instant::now() + LINES;
                    // Nobody may be reading any more.
                    let _ = writeln!(std::io::stderr(), "{text}");
                }
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn line(passed: Duration, whole: Duration, moment: &Moment, errors: u64) -> String {
    #[allow(
        clippy::cast_precision_loss,
        reason = "sessions of a second stay far below 2^53"
    )]
    let rate = moment.sessions as f64 / (moment.to_s - moment.from_s).max(1e-9);
    let waiting = match moment.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} waiting"),
    };
    format!(
        "{:.0}/{:.0} s: {rate:.0} sessions/s, p50 {:.2} ms, p99 {:.2} ms, {errors} errors{waiting}",
        passed.as_secs_f64(),
        whole.as_secs_f64(),
        moment.p50_us / 1e3,
        moment.p99_us / 1e3
    )
}
