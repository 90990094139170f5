//! A server of `PostgreSQL` in a folder of its own, with a table of users in each of two
//! databases. It has CPU 1 and ends with the value that holds it, by its own id.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::rig::{PASSWORD, Result, spawn_on};

/// Debian's `nobody`: the server refuses to be root's.
const NOBODY: u32 = 65_534;

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and where it is.
pub(crate) struct Cluster {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Cluster {
    /// Starts one with two databases of so many users, `user0` and on.
    pub(crate) fn start(users: [usize; 2]) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", folder.path().display());
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).map_err(failed)?;
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(failed)?.port();
        let mut init = program("initdb")?;
        init.args(["-U", "mail", "-A", "trust", "--no-sync", "--no-locale"]);
        init.args(["-E", "UTF8", "-D"])
            .arg(folder.path().join("data"));
        well(&mut init)?;
        let mut server = program("postgres")?;
        server.arg("-D").arg(folder.path().join("data"));
        server.arg("-k").arg(folder.path());
        server.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        // Not in the memory that all share, where a server that is killed leaves it.
        server.args(["-c", "dynamic_shared_memory_type=mmap", "-c", "fsync=off"]);
        let log = fs::File::create(folder.path().join("log")).map_err(failed)?;
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let cluster = Self {
            child: spawn_on(&[1], &mut server)?,
            port,
            _folder: folder,
        };
        let begun = Instant::now();
        while let Err(error) = cluster.run("postgres", "SELECT 1") {
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
        for users in users {
            let database = database(users);
            cluster.run("postgres", &format!("CREATE DATABASE {database}"))?;
            cluster.run(
                &database,
                &format!(
                    "CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT); \
                     INSERT INTO users SELECT 'user' || i, '{{PLAIN}}{PASSWORD}' \
                     FROM generate_series(0, {users} - 1) AS i"
                ),
            )?;
            cluster.run(&database, "VACUUM ANALYZE users")?;
        }
        Ok(cluster)
    }

    /// The database of so many users, as popcore is told of it.
    pub(crate) fn url(&self, users: usize) -> String {
        let (port, database) = (self.port, database(users));
        format!("postgres://mail@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    fn run(&self, database: &str, statement: &str) -> Result<()> {
        let mut psql = program("psql")?;
        psql.args(["-h", "127.0.0.1", "-U", "mail", "-q", "-d", database]);
        psql.args(["-p", &self.port.to_string(), "-c", statement]);
        well(&mut psql)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn database(users: usize) -> String {
    format!("users_{users}")
}

/// Debian keeps the programs of each version apart.
fn program(name: &str) -> Result<Command> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .map_err(|e| format!("/usr/lib/postgresql: {e}; install postgresql"))?;
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max();
    let path: PathBuf = newest
        .ok_or("no version of PostgreSQL")?
        .join("bin")
        .join(name);
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(ids).arg("--clear-groups");
    }
    command.arg("--").arg(path).current_dir(Path::new("/"));
    Ok(command)
}

fn well(command: &mut Command) -> Result<()> {
    let output = command.output();
    let output = output.map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
