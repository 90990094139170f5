//! `popcore demo` as the server: it makes its own users and mail.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) struct Demo {
    child: Child,
    pub(crate) pop3: String,
    admin: String,
    /// Its files, and room for those of a test.
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("a pid"), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Demo {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = Path::new(env!("CARGO_BIN_EXE_popcore-loadgen")).with_file_name("popcore");
        assert!(
            program.exists(),
            "{} is missing: run `cargo build --workspace` first",
            program.display()
        );
        let log = File::create(folder.path().join("demo.log")).expect("own folder");
        let mut child = Command::new(program)
            .args([
                "demo",
                "--pop3-port",
                "0",
                "--pop3s-port",
                "0",
                "--admin-port",
                "0",
            ])
            .arg("--folder")
            .arg(folder.path().join("demo"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("popcore starts");
        let (mut pop3, mut admin) = (String::new(), String::new());
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("--target ") {
                rest.split(' ')
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut pop3);
            } else if let Some((_, rest)) = line.split_once("curl http://") {
                rest.trim_end_matches("/metrics").clone_into(&mut admin);
            } else if line.contains("self-signed: accept it") {
                break;
            }
        }
        let log = std::fs::read_to_string(folder.path().join("demo.log"));
        assert!(!pop3.is_empty() && !admin.is_empty(), "no demo: {log:?}");
        Self {
            child,
            pop3,
            admin,
            folder,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The sum of a metric over its labels.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin listener");
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics");
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next())?
        });
        values
            .map(|value| value.parse::<u64>().expect("a count"))
            .sum()
    }
}
