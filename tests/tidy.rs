//! The house rules that a compiler does not hold: layering, length, names.
//!
//! Text is enough to hold them: `use` lines and paths say who imports whom, and
//! rustfmt's layout says where a function ends. A rule that needs an exception
//! is changed here, in one place, with its reason.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines, not counting its tests.
const FILE_LINES: usize = 600;
/// Longest function, in lines, signature and braces included.
const FUNCTION_LINES: usize = 70;
/// Names that say nothing about what a module is for.
const BANNED_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];

/// Modules in the order in which data flows. A module may import what stands
/// below it and its own parts, never what stands above it.
const LAYERS: [&[&str]; 15] = [
    &["main"],
    &["cli"],
    &["server"],
    &["shard", "admin", "doctor"],
    &["conn"],
    &["tls"],
    &["session"],
    &["config"],
    // The wheel serves connections and knows none of them, nor does what counts them.
    &[
        "ring",
        "shard/admission",
        "shard/deadlines",
        "sasl",
        "observe",
        "proxy_protocol",
    ],
    &["maildrop"],
    &["auth"],
    &["crew"],
    &["wire"],
    &["proto"],
    &["limits"],
];

/// Parts that take time and bytes as arguments and do no IO of their own.
const SANS_IO: [&str; 7] = [
    "session",
    "proto",
    "sasl",
    "wire",
    "proxy_protocol",
    "shard/admission",
    "auth/throttle",
];

/// Where unsafe code may be, each with its proof.
const UNSAFE: [&str; 3] = ["ring", "wire/kernel", "auth/remote/pam/library"];

/// What a part without IO must not name.
const IO_NAMES: [&str; 9] = [
    "glommio",
    "io_uring",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::io::",
    "rustix",
    "Instant::now",
    "SystemTime::now",
];

struct Source {
    /// Path below `src/`, without `.rs` and without a trailing `/mod`.
    module: String,
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    /// The lines before the unit tests, which may do what the code may not.
    fn code(&self) -> &[String] {
        let end = self
            .lines
            .iter()
            .rposition(|line| line.trim() == "#[cfg(test)]")
            .filter(|at| {
                self.lines
                    .get(at + 1)
                    .is_some_and(|next| next.contains("mod tests"))
            })
            .unwrap_or(self.lines.len());
        &self.lines[..end]
    }

    fn is_test(&self) -> bool {
        self.module.ends_with("/tests") || self.module.contains("/tests/")
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no Rust file below {folder}");
    paths
        .into_iter()
        .map(|path| {
            let module = path.strip_prefix(&root).expect("below the root");
            let module = module.with_extension("").display().to_string();
            let module = module.strip_suffix("/mod").unwrap_or(&module).to_owned();
            let text = fs::read_to_string(&path).expect("UTF-8 source");
            let lines = text.lines().map(str::to_owned).collect();
            Source {
                module,
                path,
                lines,
            }
        })
        .collect()
}

/// The layer of a module, which is that of the longest path in [`LAYERS`] that
/// leads to it.
fn layer_of(module: &str) -> Option<usize> {
    let parts: Vec<&str> = module.split('/').collect();
    (1..=parts.len()).rev().find_map(|length| {
        let path = parts[..length].join("/");
        LAYERS.iter().position(|layer| layer.contains(&&*path))
    })
}

/// Modules that a line names by an absolute path, as far as it names them.
fn imports(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .chain(code.match_indices("popcore::"))
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(rest.len());
            rest[..end].replace("::", "/")
        })
        .collect()
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_layer_and_imports_only_downwards() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if source.module == "lib" || source.is_test() {
            continue;
        }
        let Some(own) = layer_of(&source.module) else {
            faults.push(format!("{}: has no layer", source.path.display()));
            continue;
        };
        for (number, line) in source.code().iter().enumerate() {
            for import in imports(line) {
                let upwards = layer_of(&import).is_some_and(|theirs| theirs <= own);
                let top = |path: &str| path.split('/').next().map(str::to_owned);
                if upwards && top(&source.module) != top(&import) {
                    let (path, at) = (source.path.display(), number + 1);
                    faults.push(format!("{path}:{at}: imports {import}, which stands above"));
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn the_core_names_no_io() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let sans_io =
            |part: &&str| source.module == **part || source.module.starts_with(&format!("{part}/"));
        if !SANS_IO.iter().any(sans_io) || source.is_test() {
            continue;
        }
        for (number, line) in source.code().iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for name in IO_NAMES.iter().filter(|name| code.contains(**name)) {
                let (path, at) = (source.path.display(), number + 1);
                faults.push(format!("{path}:{at}: names {name}"));
            }
        }
    }
    report(&faults);
}

#[test]
fn files_stay_short() {
    let mut faults = Vec::new();
    for source in ["src", "loadgen/src"].into_iter().flat_map(sources) {
        let lines = source.code().len();
        if lines > FILE_LINES && !source.is_test() {
            faults.push(format!("{}: {lines} lines", source.path.display()));
        }
    }
    report(&faults);
}

#[test]
fn functions_stay_short() {
    let mut faults = Vec::new();
    for folder in ["src", "loadgen/src", "tests"] {
        for source in sources(folder) {
            let mut open: Vec<(usize, usize)> = Vec::new();
            for (number, line) in source.lines.iter().enumerate() {
                let indent = line.len() - line.trim_start().len();
                if is_function(line) {
                    open.push((indent, number));
                }
                let closes = line.trim_end() == format!("{}}}", " ".repeat(indent));
                let Some((start_indent, start)) = open.last().copied() else {
                    continue;
                };
                let one_line = start == number && line.trim_end().ends_with(['}', ';']);
                if (closes && indent == start_indent) || one_line {
                    open.pop();
                    let lines = number - start + 1;
                    if lines > FUNCTION_LINES {
                        let (path, at) = (source.path.display(), start + 1);
                        faults.push(format!("{path}:{at}: a function of {lines} lines"));
                    }
                } else if indent == start_indent && line.trim_end().ends_with(';') {
                    // A signature in a trait or an `extern` block has no body.
                    open.pop();
                }
            }
        }
    }
    report(&faults);
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start().split("//").next().unwrap_or_default();
    let Some(at) = words.find("fn ") else {
        return false;
    };
    words[..at].split_whitespace().all(|word| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word)
    })
}

#[test]
fn names_say_what_a_module_is_for() {
    let mut faults = Vec::new();
    for folder in ["src", "loadgen/src", "tests"] {
        for source in sources(folder) {
            for name in source
                .module
                .split('/')
                .filter(|n| BANNED_NAMES.contains(n))
            {
                faults.push(format!("{}: is named {name}", source.path.display()));
            }
        }
    }
    report(&faults);
}

#[test]
fn the_runtime_stays_behind_its_seam() {
    let mut faults = Vec::new();
    for source in sources("src") {
        if source.is_test() {
            continue;
        }
        let top = source.module.split('/').next().expect("never empty");
        let code = source.code().iter().enumerate();
        for (number, line) in code {
            let text = line.split("//").next().unwrap_or_default();
            let (path, at) = (source.path.display(), number + 1);
            if text.contains("io_uring::") && top != "ring" {
                faults.push(format!("{path}:{at}: io_uring belongs to ring"));
            }
            if text.contains("glommio::") && !["ring", "shard"].contains(&top) {
                faults.push(format!("{path}:{at}: glommio belongs to shard and ring"));
            }
            // A task that does not count is slept upon, and glommio's reactor,
            // which its timers and files need, never runs.
            let by_itself = ["spawn_local", "glommio::timer", "glommio::io", "executor()"];
            if source.module != "ring/task" && by_itself.iter().any(|name| text.contains(name)) {
                faults.push(format!(
                    "{path}:{at}: a shard's tasks and timers are the ring's"
                ));
            }
            let is_unsafe = ["unsafe {", "unsafe impl", "unsafe fn"]
                .iter()
                .any(|name| text.contains(name));
            let may = UNSAFE.iter().any(|part| {
                source.module == **part || source.module.starts_with(&format!("{part}/"))
            });
            if is_unsafe && !may {
                faults.push(format!("{path}:{at}: unsafe code belongs to {UNSAFE:?}"));
            }
        }
    }
    report(&faults);
}
