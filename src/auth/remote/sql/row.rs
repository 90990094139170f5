//! Rows of three databases as attributes.
//!
//! Columns have the type that the operator's tables have: a flag may be a boolean in one
//! and a number or a text in another. Each becomes text here.

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use super::Attributes;
use crate::auth::directory::Failure;

/// A row whose columns become attributes.
pub(super) trait Cells {
    /// What is wrong with a row is its user's affair alone.
    fn attributes(&self) -> Result<Result<Attributes, String>, Failure>;
}

/// The same text for three types that share no trait which would let it be written once.
macro_rules! cells {
    ($row:ty $(, $further:ty)?) => {
        impl Cells for $row {
            fn attributes(&self) -> Result<Result<Attributes, String>, Failure> {
                let mut attributes = Attributes::default();
                for (number, column) in self.columns().iter().enumerate() {
                    let raw = self.try_get_raw(number).map_err(super::failure)?;
                    if raw.is_null() {
                        continue;
                    }
                    let text = None
                        .or_else(|| self.try_get::<String, _>(number).ok())
                        .or_else(|| {
                            let octets = self.try_get::<Vec<u8>, _>(number).ok()?;
                            String::from_utf8(octets).ok()
                        })
                        .or_else(|| Some(self.try_get::<i64, _>(number).ok()?.to_string()))
                        .or_else(|| Some(self.try_get::<i32, _>(number).ok()?.to_string()))
                        .or_else(|| Some(self.try_get::<i16, _>(number).ok()?.to_string()))
                        $(.or_else(|| {
                            Some(self.try_get::<$further, _>(number).ok()?.to_string())
                        }))?
                        .or_else(|| Some(self.try_get::<bool, _>(number).ok()?.to_string()));
                    let name = column.name().to_ascii_lowercase();
                    match text {
                        Some(text) => drop(attributes.set(&name, text)),
                        None if !Attributes::knows(&name) => {}
                        None => {
                            let kind = column.type_info().name().to_owned();
                            let why = format!("the column {name} is of the type {kind}, not text");
                            return Ok(Err(why));
                        }
                    }
                }
                Ok(Ok(attributes))
            }
        }
    };
}

cells!(PgRow);
// It alone has numbers without a sign.
cells!(MySqlRow, u64);
cells!(SqliteRow);
