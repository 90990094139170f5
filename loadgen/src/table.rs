//! A result as a table for people.

use std::fmt::Write as _;

use crate::report::{Report, float, latency_names};

impl Report {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_to(&mut text);
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        self.write_search(out)?;
        let (profile, target) = (&self.profile, &self.target);
        let (sessions, threads, seconds) = (self.concurrent_sessions, self.threads, self.elapsed_s);
        writeln!(
            out,
            "{profile} against {target}: {sessions} sessions at a time on {threads} threads, {seconds:.2} s"
        )?;
        if let Some(rate) = &self.rate {
            writeln!(
                out,
                "open loop at {rate}; latencies count from when sessions should begin"
            )?;
        }
        if self.interrupted {
            writeln!(out, "interrupted: the figures are those until then")?;
        }
        if let Some(reason) = &self.invalid {
            writeln!(out, "INVALID: {reason}")?;
        }
        if let Some(reason) = &self.doubtful {
            writeln!(out, "DOUBTFUL: {reason}")?;
        }
        writeln!(out)?;
        let rates = &self.rates;
        writeln!(out, "{:<10}{:>14}{:>16}", "", "count", "a second")?;
        for (name, count, rate) in [
            ("sessions", self.sessions, rates.sessions_per_s),
            ("commands", self.commands, rates.commands_per_s),
            ("messages", self.messages, rates.messages_per_s),
            (
                "MB read",
                self.received_bytes / 1_000_000,
                rates.received_mb_per_s,
            ),
        ] {
            writeln!(out, "{name:<10}{count:>14}{rate:>16.1}")?;
        }
        self.write_latencies(out)?;
        self.write_use(out)?;
        self.write_more(out)?;
        self.write_errors(out)
    }

    fn write_latencies(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "\n{:<10}", "latency us")?;
        for column in ["count", "p50", "p90", "p99", "p99.9", "max"] {
            write!(out, "{column:>12}")?;
        }
        writeln!(out)?;
        for name in latency_names() {
            if let Some(row) = self.latency_us.get(name) {
                write!(out, "{name:<10}{:>12}", row.count)?;
                for value in [row.p50, row.p90, row.p99, row.p999, row.max] {
                    write!(out, "{value:>12.1}")?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn write_use(&self, out: &mut String) -> std::fmt::Result {
        let each = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1} us"));
        let mib = |bytes: u64| float(bytes) / 1_048_576.0;
        let own = &self.generator;
        let session = each(own.cpu_us_per_session);
        writeln!(
            out,
            "\ngenerator {:.2} s of CPU, {session} a session, busiest thread {:.0} %",
            own.cpu_s,
            own.busiest_thread * 100.0
        )?;
        if let Some(server) = &self.server {
            let session = each(server.cpu_us_per_session);
            writeln!(
                out,
                "server    {:.2} s of CPU, {session} a session, {:.2} CPUs used; \
                 {:.1} MiB resident ({:.1} before), {:.1} MiB of it anonymous, {} threads in {} \
                 processes, context switches: {}",
                server.cpu_s,
                server.cpus_used,
                mib(server.resident_bytes),
                mib(server.resident_before_bytes),
                mib(server.anonymous_bytes),
                server.threads,
                server.processes,
                server.switches()
            )?;
            if let Some(bytes) = server.anonymous_per_concurrent_session_bytes {
                let (most, open) = (mib(server.anonymous_most_bytes), self.most_open_sessions);
                writeln!(
                    out,
                    "          at most {most:.1} MiB of its own memory: {bytes:.0} bytes more for \
                     each of {open} sessions at a time"
                )?;
            }
        }
        if let Some(idle) = &self.idle {
            write!(out, "idle      {} sessions held", idle.held)?;
            if let (Some(bytes), Some(cpu)) = (idle.server_bytes_per_session, idle.server_cpu_s) {
                write!(
                    out,
                    ", {bytes:.0} bytes of the server's own memory each, {cpu:.3} s of its CPU meanwhile"
                )?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_search(&self, out: &mut String) -> std::fmt::Result {
        let Some(search) = &self.search else {
            return Ok(());
        };
        for trial in &search.trials {
            let verdict = trial.gave_way.as_deref().unwrap_or("holds");
            writeln!(out, "{:>12.1}/s  {verdict}", trial.rate_per_s)?;
        }
        match search.max_rate_per_s {
            Some(rate) => writeln!(out, "highest rate with {}: {rate:.1}/s", search.slo)?,
            None => writeln!(out, "no rate was found with {}", search.slo)?,
        }
        if let Some(reason) = &search.gave_way {
            writeln!(out, "first to give way: {reason}")?;
        }
        writeln!(out)
    }

    fn write_more(&self, out: &mut String) -> std::fmt::Result {
        if let Some(tls) = &self.tls {
            writeln!(
                out,
                "TLS       {} handshakes in full, {} resumed",
                tls.full, tls.resumed
            )?;
        }
        if self.deleted > 0 {
            writeln!(out, "deleted   {} messages", self.deleted)?;
        }
        if let Some(delivered) = self.delivered {
            writeln!(out, "delivered {delivered} messages")?;
        }
        if let Some(chaos) = &self.chaos {
            write!(out, "chaos    ")?;
            for (name, count) in &chaos.sessions {
                write!(out, " {count} {name},")?;
            }
            writeln!(
                out,
                " {} of them ended by the server, {} reset amid a message",
                chaos.ended_by_server, chaos.reset_amid_message
            )?;
        }
        Ok(())
    }

    fn write_errors(&self, out: &mut String) -> std::fmt::Result {
        if self.errors.total == 0 {
            return writeln!(out, "errors    none");
        }
        let (total, failed) = (self.errors.total, self.failed_sessions);
        writeln!(out, "errors    {total} in {failed} sessions")?;
        for (name, kind) in &self.errors.kinds {
            writeln!(out, "  {name:<16}{:>10}", kind.count)?;
            for example in &kind.examples {
                writeln!(out, "    {example}")?;
            }
        }
        Ok(())
    }
}
