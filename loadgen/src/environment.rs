//! Where and how a result was measured.

use std::fs;

use serde::{Deserialize, Serialize};

/// What a reader must know to measure the same again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// The generator's command line, without passwords.
    pub command_line: String,
    /// The machine's processor.
    pub cpu: String,
    /// Processors that the generator may run on.
    pub cpus: usize,
    /// The machine's memory.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// The generator and how it was built.
    pub generator: String,
}

impl Environment {
    /// This process on this machine.
    pub fn here() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let kernel = [uname.sysname(), uname.release(), uname.machine()].map(text);
        let build = if cfg!(debug_assertions) {
            "debug build"
        } else {
            "release build"
        };
        Self {
            command_line: command_line(
                std::env::args_os().map(|word| word.to_string_lossy().into_owned()),
            ),
            cpu: value("/proc/cpuinfo", "model name", ':'),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: kib(&value("/proc/meminfo", "MemTotal", ':')) * 1024,
            kernel: kernel.join(" "),
            system: value("/etc/os-release", "PRETTY_NAME", '=')
                .trim_matches('"')
                .to_owned(),
            generator: format!("popcore-loadgen {}, {build}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// The value behind a name; empty where there is none.
fn value(path: &str, name: &str, between: char) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(between));
    let mut found = lines.filter(|(key, _)| key.trim() == name);
    found
        .next()
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn kib(text: &str) -> u64 {
    let number = text.split_whitespace().next();
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// As it could be typed again, but for passwords.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let mut line: Vec<String> = Vec::new();
    let mut secret = false;
    for (number, word) in words.enumerate() {
        if secret {
            line.push("***".to_owned());
        } else if word.starts_with("--password=") {
            line.push("--password=***".to_owned());
        } else if number == 0 {
            let name = word.rsplit('/').next().unwrap_or_default();
            line.push(name.to_owned());
        } else {
            line.push(quoted(&word));
        }
        secret = !secret && word == "--password";
    }
    line.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_told() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = command_line(words("/usr/bin/x --password secret --users u{0..9}").into_iter());
        assert_eq!(line, "x --password *** --users 'u{0..9}'");
        let line = command_line(words("x --password=secret --password secret").into_iter());
        assert_eq!(line, "x --password=*** --password ***");
    }

    #[test]
    fn the_machine_is_known() {
        let here = Environment::here();
        assert!(here.kernel.starts_with("Linux ") && here.cpus > 0);
        assert!(here.memory_bytes > 1 << 20);
    }
}
