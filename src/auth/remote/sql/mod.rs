//! Users from a database: `PostgreSQL`, `MySQL` and `MariaDB`, `SQLite`.
//!
//! The operator's query has a column for each attribute, by the names of
//! [`Attributes`]; other columns are ignored. It is prepared once for each connection.
//!
//! A connection that has rested for a while is tried before it is used: a server that was
//! started anew has closed it. One that was just used is not, which halves the work of a
//! busy server. A name that is not UTF-8 is not asked for: text columns hold none.

mod row;
mod server;
mod statement;

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlPool;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Connection as _, Database as SqlxDatabase, Pool as SqlxPool};

use self::row::Cells as _;
use self::server::Connect;
pub use self::server::{ServerError, SqlServer};
use self::statement::Parameter;
pub use self::statement::{Database, Statement, StatementError};
use super::{Answer, Attributes, Question, Renewed};
use crate::auth::UserName;
use crate::auth::directory::Failure;
use crate::limits;

/// A database, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlOptions {
    /// Where it is and who asks it.
    pub server: SqlServer,
    /// What asks for a user.
    pub query: Statement,
    /// What replaces weak stored passwords, where they are to be.
    pub update: Option<Update>,
    /// How many connections there are at most.
    pub connections: u32,
}

/// How stored passwords are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What stores one.
    pub statement: Statement,
    /// Whether passwords in clear stay, for mechanisms that need them.
    pub spares_clear: bool,
}

/// A database that is asked for users.
pub(super) struct Sql {
    pool: Pool,
    query: Statement,
    update: Option<Update>,
}

enum Pool {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

impl Sql {
    /// Connects when it is asked. To be called in the context of a runtime.
    pub(super) fn new(options: &SqlOptions, timeout: Duration) -> Self {
        let most = options.connections;
        let pool = match &options.server.connect {
            Connect::Postgres(connect) => {
                Pool::Postgres(pool(most, timeout).connect_lazy_with((**connect).clone()))
            }
            Connect::MySql(connect) => {
                Pool::MySql(pool(most, timeout).connect_lazy_with((**connect).clone()))
            }
            Connect::Sqlite(connect) => {
                Pool::Sqlite(pool(most, timeout).connect_lazy_with((**connect).clone()))
            }
        };
        Self {
            pool,
            query: options.query.clone(),
            update: options.update.clone(),
        }
    }

    /// How stored passwords are replaced, if they are.
    pub(super) fn update(&self) -> Option<&Update> {
        self.update.as_ref()
    }

    /// Stores another text in place of this one, if that is what is stored. The query is
    /// asked again before it counts: a statement that writes to another place than the
    /// query reads, or a column that is too short, would lose the password.
    pub(super) async fn renew(
        &self,
        name: &UserName,
        old: &str,
        new: &str,
    ) -> Result<Renewed, Failure> {
        let update = self.update.as_ref().expect("it is known to have one");
        let both = Some((old, new));
        let (Some(read), Some(written)) = (
            values(&self.query, name, None),
            values(&update.statement, name, both),
        ) else {
            return Ok(Renewed::Changed);
        };
        let question = AssertSqlSafe(Arc::clone(&self.query.text));
        let statement = AssertSqlSafe(Arc::clone(&update.statement.text));
        /// One call for three types that share no trait which would let it be written once.
        macro_rules! renew {
            ($pool:expr) => {{
                let mut lent = Lent::by($pool).await.map_err(failure)?;
                let mut transaction = lent.connection().begin().await.map_err(failure)?;
                let mut query = sqlx::query(statement);
                for value in written {
                    query = query.bind(value);
                }
                let done = query.execute(&mut *transaction).await.map_err(failure)?;
                let mut query = sqlx::query(question);
                for value in read {
                    query = query.bind(value);
                }
                let row = query.fetch_optional(&mut *transaction).await;
                let row = row
                    .map_err(failure)?
                    .map(|row| row.attributes())
                    .transpose()?;
                let renewed = judge_renewal(done.rows_affected(), row, new);
                if renewed == Renewed::Stored {
                    transaction.commit().await.map_err(failure)?;
                } else {
                    transaction.rollback().await.map_err(failure)?;
                }
                lent.give_back();
                Ok(renewed)
            }};
        }
        match &self.pool {
            Pool::Postgres(pool) => renew!(pool),
            Pool::MySql(pool) => renew!(pool),
            Pool::Sqlite(pool) => renew!(pool),
        }
    }

    /// Uses no connection again that there is: one of them has not answered in time, and
    /// whatever silences one may silence all.
    pub(super) fn give_up(&self) {
        match &self.pool {
            Pool::Postgres(pool) => close_idle(pool),
            Pool::MySql(pool) => close_idle(pool),
            Pool::Sqlite(pool) => close_idle(pool),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let Some(values) = values(&self.query, &question.name, None) else {
            return Ok(Answer::Unknown);
        };
        let text = AssertSqlSafe(Arc::clone(&self.query.text));
        /// One call for three types that share no trait which would let it be written once.
        macro_rules! fetch {
            ($pool:expr) => {{
                let mut query = sqlx::query(text);
                for value in values {
                    query = query.bind(value);
                }
                let mut lent = Lent::by($pool).await.map_err(failure)?;
                let found = query.fetch_optional(lent.connection()).await;
                lent.give_back();
                match found {
                    Ok(row) => row.map(|row| row.attributes()).transpose()?,
                    Err(error) if is_about_a_value(&error) => Some(Err(error.to_string())),
                    Err(error) => return Err(failure(error)),
                }
            }};
        }
        let found = match &self.pool {
            Pool::Postgres(pool) => fetch!(pool),
            Pool::MySql(pool) => fetch!(pool),
            Pool::Sqlite(pool) => fetch!(pool),
        };
        Ok(match found {
            None => Answer::Unknown,
            Some(Ok(attributes)) => Answer::Stored(attributes),
            Some(Err(why)) => Answer::Faulty(why),
        })
    }
}

/// A connection of a pool, which has it back when what it was asked has ended, well or not.
/// Dropped before, it is closed: the pool would wait for what it was asked to end, for ever
/// where the other end is silent, and have one connection less.
struct Lent<DB: SqlxDatabase>(Option<PoolConnection<DB>>);

impl<DB: SqlxDatabase> Lent<DB> {
    async fn by(pool: &SqlxPool<DB>) -> Result<Self, sqlx::Error> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    fn connection(&mut self) -> &mut DB::Connection {
        self.0.as_mut().expect("it is lent until it is given back")
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<DB: SqlxDatabase> Drop for Lent<DB> {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// Closes the connections of a pool that nobody uses, without a word to the other end.
fn close_idle<DB: SqlxDatabase>(pool: &SqlxPool<DB>) {
    while let Some(connection) = pool.try_acquire() {
        drop(connection.detach());
    }
}

/// Whether what was written is what is read.
fn judge_renewal(rows: u64, read: Option<Result<Attributes, String>>, new: &str) -> Renewed {
    let stored = match read {
        Some(Ok(attributes)) => attributes.password,
        Some(Err(_)) | None => None,
    };
    match (rows, stored) {
        (0, _) => Renewed::Changed,
        (1, Some(stored)) if *stored == new => Renewed::Stored,
        (1, _) => Renewed::Unfit("query does not read what update_query has stored".to_owned()),
        (rows, _) => Renewed::Unfit(format!("update_query changes {rows} rows")),
    }
}

/// How connections are kept.
fn pool<DB: SqlxDatabase>(most: u32, timeout: Duration) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(most)
        // A connection that is refused is tried again until then: time is left for the
        // look-up to be tried again.
        .acquire_timeout(timeout / 2)
        .test_before_acquire(false)
        .before_acquire(|connection: &mut DB::Connection, facts| {
            Box::pin(async move {
                if facts.idle_for >= limits::CONNECTION_TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// What is bound to a statement's parameters; nothing where the name is no text. An
/// update has two stored passwords, the old one first.
fn values(
    statement: &Statement,
    name: &UserName,
    stored: Option<(&str, &str)>,
) -> Option<Vec<String>> {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).ok();
    let value = |parameter: &Parameter| match parameter {
        Parameter::User => text(name.as_bytes()),
        Parameter::Local => text(name.local()),
        Parameter::Domain => text(name.domain().unwrap_or_default()),
        Parameter::Old => stored.map(|(old, _)| old.to_owned()),
        Parameter::Password => stored.map(|(_, new)| new.to_owned()),
    };
    statement.parameters.iter().map(value).collect()
}

/// Whether a database found fault with what was bound (SQLSTATE, class 22), which is the
/// client's: by names that cannot be converted nobody may have others kept out.
fn is_about_a_value(error: &sqlx::Error) -> bool {
    let code = error.as_database_error();
    let code = code.and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.len() == 5 && code.starts_with("22"))
}

/// Whose fault an error is, and whether it is worth another try.
fn failure(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::PoolTimedOut => {
            Failure::Unreachable("no connection could be made or became free in time".to_owned())
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => Failure::Unreachable(error.to_string()),
        sqlx::Error::Database(error) => {
            // PostgreSQL: it shuts down, starts or has no connection left (class 57P and
            // 53300); MySQL: the same (1040, 1053); SQLite: another writes (5).
            let passing = ["57P", "53300", "08S01", "08004"];
            let code = error.code().unwrap_or_default();
            if code == "5" || passing.iter().any(|start| code.starts_with(start)) {
                Failure::Unreachable(error.to_string())
            } else {
                Failure::Refused(error.to_string())
            }
        }
        other => Failure::Refused(other.to_string()),
    }
}
