//! `kind = "sql"`

use super::{Section, Site, connections, password, reject, required};
use crate::auth::{Protocol, SqlOptions, SqlServer, Statement, Update};

pub(super) fn sql(section: &mut Section<'_>, site: Site<'_>) -> Option<Protocol> {
    let password = password(section, site.base);
    let connections = connections(section);
    let url = required(
        section,
        "url",
        "set it to where the database is, such as \"postgres://mail@db.example.net/mail\"",
    );
    let query = required(
        section,
        "query",
        "set it to what selects a user, such as \"SELECT password FROM users WHERE name = {user}\"",
    );
    let update = section.take::<String>("update_query");
    let wrong = section.was_given("update_query") && update.is_none();
    let file = section.file();
    let (url, place) = url?.split();
    let server = SqlServer::parse(&url, password.ok()?, site.base, update.is_some())
        .map_err(|error| reject(file, &place, &error));
    let server = server.ok()?;
    let (text, place) = query?.split();
    let query = Statement::query(&text, server.database());
    let query = query.map_err(|error| reject(file, &place, &error));
    let update = match update {
        None => None,
        Some(field) => {
            let (text, place) = field.split();
            let update = Statement::update(&text, server.database());
            let statement = update.map_err(|error| reject(file, &place, &error)).ok()?;
            Some(Update {
                statement,
                spares_clear: false,
            })
        }
    };
    if wrong {
        return None;
    }
    Some(Protocol::Sql(SqlOptions {
        update,
        server,
        query: query.ok()?,
        connections: connections?,
    }))
}
