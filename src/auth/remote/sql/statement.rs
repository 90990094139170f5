//! The statements that an operator writes, with `{user}` and the like where a value
//! belongs.
//!
//! A value is bound, never pasted: each placeholder becomes a parameter of a prepared
//! statement. One between quotes would be text and no parameter, and the operator is
//! told so rather than served a query that finds nobody.

use std::fmt;
use std::sync::Arc;

/// Which database a statement is for: they differ in how they write parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` and `MariaDB`.
    MySql,
    /// `SQLite`.
    Sqlite,
}

/// A value that takes the place of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    /// The whole name.
    User,
    /// What is before its last `@`.
    Local,
    /// What is behind it; empty where there is none.
    Domain,
    /// The stored password that takes the place of another.
    Password,
    /// That other one, as the query has read it.
    Old,
}

const NAMES: [(&str, Parameter); 5] = [
    ("user", Parameter::User),
    ("local", Parameter::Local),
    ("domain", Parameter::Domain),
    ("password", Parameter::Password),
    ("old", Parameter::Old),
];

/// A statement with its parameters, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub(super) text: Arc<str>,
    pub(super) parameters: Box<[Parameter]>,
}

/// Why a text is no statement. The operator is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementError {
    /// A placeholder between quotes.
    Quoted(&'static str),
    /// What stands in braces is no placeholder.
    Unknown(String),
    /// A brace without its other half.
    Open,
    /// Neither `{user}` nor `{local}`: it would be the same for everybody.
    Everybody,
    /// A query takes no password.
    Password,
    /// An update that does not say which password to store.
    NoPassword,
    /// An update that would store it whatever is stored.
    NoOld,
}

impl Statement {
    /// A query for what is known of a user.
    pub fn query(text: &str, database: Database) -> Result<Self, StatementError> {
        let statement = Self::parse(text, database)?;
        let of_update = [Parameter::Password, Parameter::Old];
        if of_update
            .iter()
            .any(|one| statement.parameters.contains(one))
        {
            return Err(StatementError::Password);
        }
        Ok(statement)
    }

    /// A statement that stores another password for a user, in place of the one that
    /// was read.
    pub fn update(text: &str, database: Database) -> Result<Self, StatementError> {
        let statement = Self::parse(text, database)?;
        if !statement.parameters.contains(&Parameter::Password) {
            return Err(StatementError::NoPassword);
        }
        if !statement.parameters.contains(&Parameter::Old) {
            return Err(StatementError::NoOld);
        }
        Ok(statement)
    }

    fn parse(text: &str, database: Database) -> Result<Self, StatementError> {
        let mut written = String::with_capacity(text.len());
        let mut parameters = Vec::new();
        let mut quote: Option<char> = None;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c == '{' {
                let (inside, behind) = rest[1..].split_once('}').ok_or(StatementError::Open)?;
                let known = NAMES.iter().find(|(name, _)| *name == inside);
                match (known, quote) {
                    (Some((name, _)), Some(_)) => return Err(StatementError::Quoted(name)),
                    (Some((_, parameter)), None) => parameters.push(*parameter),
                    (None, None) => return Err(StatementError::Unknown(inside.to_owned())),
                    (None, Some(_)) => {
                        written.push(c);
                        rest = &rest[1..];
                        continue;
                    }
                }
                match database {
                    Database::Postgres => {
                        written.push('$');
                        written.push_str(&parameters.len().to_string());
                    }
                    Database::MySql | Database::Sqlite => written.push('?'),
                }
                rest = behind;
                continue;
            }
            match quote {
                Some(open) if c == open => quote = None,
                None if matches!(c, '\'' | '"' | '`') => quote = Some(c),
                _ => {}
            }
            written.push(c);
            rest = &rest[c.len_utf8()..];
        }
        if !parameters
            .iter()
            .any(|p| matches!(p, Parameter::User | Parameter::Local))
        {
            return Err(StatementError::Everybody);
        }
        Ok(Self {
            text: written.into(),
            parameters: parameters.into(),
        })
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quoted(name) => write!(
                f,
                "{{{name}}} stands between quotes, where it would be text; remove the quotes, \
                 the value is bound as a parameter"
            ),
            Self::Unknown(name) => write!(
                f,
                "{{{}}} is no placeholder; write {{user}}, {{local}} or {{domain}}",
                name.escape_debug()
            ),
            Self::Open => f.write_str("a { has no }; write {user}, {local} or {domain}"),
            Self::Everybody => f.write_str(
                "it is the same for every user; write {user}, or {local} and {domain}, where the \
                 name belongs",
            ),
            Self::Password => f.write_str(
                "a query is given no password; select the stored one, and popcore verifies it",
            ),
            Self::NoPassword => {
                f.write_str("it stores no password; write {password} where the new one belongs")
            }
            Self::NoOld => f.write_str(
                "it would replace a password that was changed meanwhile; add the condition \
                 that the column is {old}",
            ),
        }
    }
}

impl std::error::Error for StatementError {}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str =
        "SELECT password FROM users WHERE name = {user} OR (l = {local} AND d = {domain})";

    #[test]
    fn placeholders_become_parameters_in_their_order() {
        let postgres = Statement::query(QUERY, Database::Postgres).expect("a query");
        assert!(postgres.text.ends_with("name = $1 OR (l = $2 AND d = $3)"));
        let mysql = Statement::query(QUERY, Database::MySql).expect("a query");
        assert!(mysql.text.ends_with("name = ? OR (l = ? AND d = ?)"));
        let order = [Parameter::User, Parameter::Local, Parameter::Domain];
        assert_eq!(*postgres.parameters, order);
        assert_eq!(*mysql.parameters, order);
    }

    #[test]
    fn what_would_not_be_bound_is_refused() {
        let query = |text| Statement::query(text, Database::Postgres).expect_err(text);
        assert_eq!(
            query("SELECT 1 WHERE n = '{user}'"),
            StatementError::Quoted("user")
        );
        assert_eq!(query("SELECT \"{local}\""), StatementError::Quoted("local"));
        assert_eq!(
            query("SELECT 1 WHERE n = {name}"),
            StatementError::Unknown("name".into())
        );
        assert_eq!(query("SELECT 1 WHERE n = {user"), StatementError::Open);
        assert_eq!(
            query("SELECT password FROM users"),
            StatementError::Everybody
        );
        assert_eq!(
            query("SELECT 1 WHERE d = {domain}"),
            StatementError::Everybody
        );
        let both = "SELECT 1 WHERE n = {user} AND p = {password}";
        assert_eq!(query(both), StatementError::Password);
        let update = Statement::update("UPDATE u SET x = 1 WHERE n = {user}", Database::Sqlite);
        assert_eq!(update, Err(StatementError::NoPassword));
        let text = "UPDATE u SET p = {password} WHERE n = {user}";
        let update = Statement::update(text, Database::Sqlite);
        assert_eq!(update, Err(StatementError::NoOld));
        let text = "UPDATE u SET p = {password} WHERE n = {user} AND p = {old}";
        let update = Statement::update(text, Database::Postgres).expect("an update");
        assert_eq!(&*update.text, "UPDATE u SET p = $1 WHERE n = $2 AND p = $3");
    }

    #[test]
    fn braces_in_quotes_are_text() {
        let text = "SELECT '{PLAIN}' || p AS password FROM u WHERE n = {user}";
        let query = Statement::query(text, Database::Sqlite).expect("a query");
        assert_eq!(
            &*query.text,
            "SELECT '{PLAIN}' || p AS password FROM u WHERE n = ?"
        );
        let text = "SELECT 'it''s' AS x FROM u WHERE n = {user}";
        assert!(Statement::query(text, Database::Sqlite).is_ok());
    }
}
