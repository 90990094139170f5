//! Where a database is and who asks it: what the operator wrote as a URL.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::Database;
use crate::auth::Secret;
use crate::limits;

/// Where a database is, and who asks it.
#[derive(Clone)]
pub struct SqlServer {
    pub(super) connect: Connect,
    /// What it was read from, for comparison.
    given: (Secret, Option<Secret>),
}

#[derive(Clone)]
pub(super) enum Connect {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// Why a URL names no database. It never quotes the URL, in which a password may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerError {
    /// Another scheme than those that are known.
    Scheme(String),
    /// What follows cannot be understood.
    Malformed(String),
}

const SCHEMES: [(&str, Database); 5] = [
    ("postgres", Database::Postgres),
    ("postgresql", Database::Postgres),
    ("mysql", Database::MySql),
    ("mariadb", Database::MySql),
    ("sqlite", Database::Sqlite),
];

impl SqlServer {
    /// Reads a URL. The path of a file of `SQLite` is relative to `base`; the password,
    /// where it is not in the URL, is this one. `writes` says whether more than queries
    /// will be asked.
    pub fn parse(
        url: &str,
        password: Option<Secret>,
        base: &Path,
        writes: bool,
    ) -> Result<Self, ServerError> {
        let malformed = |error: sqlx::Error| ServerError::Malformed(error.to_string());
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| ServerError::Scheme(String::new()))?;
        let known = SCHEMES.iter().find(|(name, _)| *name == scheme);
        let (_, database) = known.ok_or_else(|| ServerError::Scheme(scheme.to_owned()))?;
        let secret = password.as_ref().map(Secret::expose);
        let connect = match database {
            Database::Postgres => {
                let mut options = PgConnectOptions::from_str(url).map_err(malformed)?;
                if let Some(secret) = secret {
                    options = options.password(secret);
                }
                let options = options
                    .application_name("popcore")
                    .disable_statement_logging();
                Connect::Postgres(Box::new(options))
            }
            Database::MySql => {
                let mut options = MySqlConnectOptions::from_str(url).map_err(malformed)?;
                if let Some(secret) = secret {
                    options = options.password(secret);
                }
                Connect::MySql(Box::new(options.disable_statement_logging()))
            }
            Database::Sqlite => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() || path.contains('?') {
                    let problem = "it is sqlite: and the path of a file";
                    return Err(ServerError::Malformed(problem.to_owned()));
                }
                let options = SqliteConnectOptions::new()
                    .filename(base.join(path))
                    .read_only(!writes)
                    .busy_timeout(limits::SQLITE_BUSY)
                    // In KiB, where it is negative.
                    .pragma("cache_size", format!("-{}", limits::SQLITE_CACHE_KIB))
                    .disable_statement_logging();
                Connect::Sqlite(Box::new(options))
            }
        };
        let given = (Secret::new(url.to_owned()), password);
        Ok(Self { connect, given })
    }

    /// Which database it is.
    pub fn database(&self) -> Database {
        match &self.connect {
            Connect::Postgres(_) => Database::Postgres,
            Connect::MySql(_) => Database::MySql,
            Connect::Sqlite(_) => Database::Sqlite,
        }
    }
}

impl PartialEq for SqlServer {
    fn eq(&self, other: &Self) -> bool {
        self.given == other.given
    }
}

impl Eq for SqlServer {}

/// The place without the password.
impl fmt::Display for SqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connect {
            Connect::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                if let Some(socket) = options.get_socket() {
                    return write!(f, "PostgreSQL {}/{database}", socket.display());
                }
                let (host, port) = (options.get_host(), options.get_port());
                write!(f, "PostgreSQL {host}:{port}/{database}")
            }
            Connect::MySql(options) => {
                let database = options.get_database().unwrap_or_default();
                if let Some(socket) = options.get_socket() {
                    return write!(f, "MySQL {}/{database}", socket.display());
                }
                let (host, port) = (options.get_host(), options.get_port());
                write!(f, "MySQL {host}:{port}/{database}")
            }
            Connect::Sqlite(options) => write!(f, "SQLite {}", options.get_filename().display()),
        }
    }
}

impl fmt::Debug for SqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlServer({self})")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(
                f,
                "{scheme:?} is no kind of database that is known; begin with postgres://, \
                 mysql:// or sqlite:"
            ),
            Self::Malformed(problem) => write!(f, "cannot be understood: {problem}"),
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<SqlServer, ServerError> {
        SqlServer::parse(url, None, Path::new("/etc/popcore"), false)
    }

    #[test]
    fn each_kind_is_known_by_its_scheme_and_shown_without_its_password() {
        for (url, shown) in [
            (
                "postgres://mail:hunter2@db.example.net/users",
                "PostgreSQL db.example.net:5432/users",
            ),
            (
                "mysql://mail:hunter2@127.0.0.1:3307/users",
                "MySQL 127.0.0.1:3307/users",
            ),
            ("mariadb://mail:hunter2@db/users", "MySQL db:3306/users"),
            ("sqlite:users.db", "SQLite /etc/popcore/users.db"),
            ("sqlite:///srv/users.db", "SQLite /srv/users.db"),
        ] {
            let server = parse(url).expect(url);
            assert_eq!(server.to_string(), shown);
            assert!(!format!("{server:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_quoted() {
        for url in [
            "",
            "users.db",
            "oracle://hunter2@db/x",
            "sqlite:",
            "mysql://a:hunter2@h:x/",
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_from_elsewhere_counts_in_a_comparison() {
        let with = |password: &str| {
            let password = Some(Secret::new(password.to_owned()));
            let url = "postgres://mail@db/users";
            SqlServer::parse(url, password, Path::new("/"), false).expect("a URL")
        };
        assert_eq!(with("a"), with("a"));
        assert_ne!(with("a"), with("b"));
    }
}
