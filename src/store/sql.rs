//! One SQL text with `$1…` for both engines, its arguments, and rows read back by column name.
//!
//! Not here: what the statements say. They stand beside the verbs that need them.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, PgConnection, Row as _, SqliteConnection, TypeInfo as _,
    error::BoxDynError,
    postgres::{PgArguments, PgRow, Postgres},
    sqlite::{Sqlite, SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use super::Error;
use crate::{core::ids::Id, mail::Address};

/// A statement with its arguments.
pub(crate) struct Query {
    text: Cow<'static, str>,
    args: Vec<Arg>,
}

/// Begins a statement. A text that is put together at run time may hold placeholders and words of ours, never data.
pub(crate) fn sql(text: impl Into<Cow<'static, str>>) -> Query {
    let text = text.into();
    #[cfg(test)]
    let _ = WRITTEN.try_with(|written| written.borrow_mut().push(text.to_string()));
    Query { text, args: Vec::new() }
}

#[cfg(test)]
tokio::task_local! {
    /// The text of every statement that is begun, where a test wants to see how it would be run.
    pub(super) static WRITTEN: std::cell::RefCell<Vec<String>>;
}

impl Query {
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Arg>) -> Self {
        self.args.push(value.into());
        self
    }

    #[must_use]
    pub(crate) fn bind_all<T: Into<Arg>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(values.into_iter().map(Into::into));
        self
    }

    /// Says what type an argument has that stands where PostgreSQL cannot know it.
    #[cfg(test)]
    pub(super) fn cast(mut self, argument: usize, kind: &str) -> Self {
        let (name, typed) = (format!("${argument}"), format!("${argument}::{kind}"));
        self.text = self.text.replacen(&name, &typed, 1).into();
        self
    }
}

/// `$first, $first+1, …`: the inside of an `in (…)` for `count` values.
pub(crate) fn placeholders(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first.saturating_add(count)).map(|n| format!("${n}")).collect();
    names.join(", ")
}

/// An argument. PostgreSQL wants to know the type of a null too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Uuid(Option<Uuid>),
}

macro_rules! arg {
    ($($type:ty => $variant:ident($value:ident) $convert:expr;)*) => {$(
        impl From<$type> for Arg {
            fn from($value: $type) -> Self {
                Self::$variant(Some($convert))
            }
        }
        impl From<Option<$type>> for Arg {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map(|$value| $convert))
            }
        }
    )*};
}

arg! {
    i64 => Int(value) value;
    i32 => Int(value) i64::from(value);
    u32 => Int(value) i64::from(value);
    u64 => Int(value) i64::try_from(value).unwrap_or(i64::MAX);
    u16 => Int(value) i64::from(value);
    bool => Int(value) i64::from(value);
    Timestamp => Int(value) value.as_microsecond();
    &str => Text(value) value.to_owned();
    String => Text(value) value;
    &String => Text(value) value.clone();
    Cow<'static, str> => Text(value) value.into_owned();
    &Address => Text(value) value.key().to_owned();
    Address => Text(value) value.key().to_owned();
    Vec<u8> => Bytes(value) value;
    &Vec<u8> => Bytes(value) value.clone();
    &[u8] => Bytes(value) value.to_vec();
    [u8; 16] => Bytes(value) value.to_vec();
    [u8; 32] => Bytes(value) value.to_vec();
    &[u8; 16] => Bytes(value) value.to_vec();
    &[u8; 32] => Bytes(value) value.to_vec();
    Uuid => Uuid(value) value;
}

impl<I: Id> From<I> for Arg {
    fn from(id: I) -> Self {
        Self::Uuid(Some(id.uuid()))
    }
}

impl<I: Id> From<Option<I>> for Arg {
    fn from(id: Option<I>) -> Self {
        Self::Uuid(id.map(Id::uuid))
    }
}

macro_rules! arguments {
    ($name:ident, $arguments:ty) => {
        fn $name(args: Vec<Arg>) -> Result<$arguments, sqlx::Error> {
            let mut arguments = <$arguments>::default();
            arguments.reserve(args.len(), 0);
            for arg in args {
                let added: Result<(), BoxDynError> = match arg {
                    Arg::Int(value) => arguments.add(value),
                    Arg::Text(value) => arguments.add(value),
                    Arg::Bytes(value) => arguments.add(value),
                    Arg::Uuid(value) => arguments.add(value),
                };
                added.map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        }
    };
}

arguments!(sqlite_arguments, SqliteArguments);
arguments!(postgres_arguments, PgArguments);

/// A connection of either engine, for the length of one statement.
pub(super) enum Wire<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Wire<'_> {
    pub(super) async fn fetch_all(self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        let text = AssertSqlSafe(query.text);
        match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query_with::<Sqlite, _>(text, sqlite_arguments(query.args)?);
                Ok(query.fetch_all(connection).await?.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(connection) => {
                let query = sqlx::query_with::<Postgres, _>(text, postgres_arguments(query.args)?);
                Ok(query.fetch_all(connection).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(super) async fn fetch_optional(self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        let text = AssertSqlSafe(query.text);
        match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query_with::<Sqlite, _>(text, sqlite_arguments(query.args)?);
                Ok(query.fetch_optional(connection).await?.map(Row::Sqlite))
            }
            Self::Postgres(connection) => {
                let query = sqlx::query_with::<Postgres, _>(text, postgres_arguments(query.args)?);
                Ok(query.fetch_optional(connection).await?.map(Row::Postgres))
            }
        }
    }

    /// How many rows the statement touched.
    pub(super) async fn execute(self, query: Query) -> Result<u64, sqlx::Error> {
        let text = AssertSqlSafe(query.text);
        match self {
            Self::Sqlite(connection) => {
                let query = sqlx::query_with::<Sqlite, _>(text, sqlite_arguments(query.args)?);
                Ok(query.execute(connection).await?.rows_affected())
            }
            Self::Postgres(connection) => {
                let query = sqlx::query_with::<Postgres, _>(text, postgres_arguments(query.args)?);
                Ok(query.execute(connection).await?.rows_affected())
            }
        }
    }
}

/// A row of either engine.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The column of this name. A null is an error unless `T` is an `Option`.
    pub(crate) fn get<T: Column>(&self, name: &str) -> Result<T, Error> {
        T::read(self, name)
    }

    pub(crate) fn id<I: Id>(&self, name: &str) -> Result<I, Error> {
        self.get(name).map(I::from_uuid)
    }

    pub(crate) fn opt_id<I: Id>(&self, name: &str) -> Result<Option<I>, Error> {
        Ok(self.get::<Option<Uuid>>(name)?.map(I::from_uuid))
    }

    /// A text column that holds JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        parse(&self.get::<String>(name)?, name)
    }

    pub(crate) fn opt_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.get::<Option<String>>(name)?.map(|text| parse(&text, name)).transpose()
    }

    fn int(&self, name: &str) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            // A literal is an int4 and `exists (…)` a bool; both are integers to SQLite.
            Self::Postgres(row) => match row.try_column(name)?.type_info().name() {
                "BOOL" => Ok(row.try_get::<Option<bool>, _>(name)?.map(i64::from)),
                "INT4" => Ok(row.try_get::<Option<i32>, _>(name)?.map(i64::from)),
                _ => row.try_get(name),
            },
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
    }

    fn uuid(&self, name: &str) -> Result<Option<Uuid>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
    }
}

fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("{name}: {error}")))
}

/// A type that a column can be read as.
pub(crate) trait Column: Sized {
    fn read(row: &Row, name: &str) -> Result<Self, Error>;
}

macro_rules! column {
    ($($type:ty => $stored:ident($value:ident) $convert:expr;)*) => {$(
        impl Column for Option<$type> {
            fn read(row: &Row, name: &str) -> Result<Self, Error> {
                let stored = row.$stored(name).map_err(|error| Error::Corrupt(format!("{name}: {error}")))?;
                let Some($value) = stored else { return Ok(None) };
                let converted: Option<$type> = $convert;
                converted.map(Some).ok_or_else(|| Error::Corrupt(format!("{name}: no {}", stringify!($type))))
            }
        }
        impl Column for $type {
            fn read(row: &Row, name: &str) -> Result<Self, Error> {
                <Option<$type>>::read(row, name)?.ok_or_else(|| Error::Corrupt(format!("{name} is null")))
            }
        }
    )*};
}

column! {
    i64 => int(value) Some(value);
    u32 => int(value) u32::try_from(value).ok();
    u16 => int(value) u16::try_from(value).ok();
    u64 => int(value) u64::try_from(value).ok();
    bool => int(value) Some(value != 0);
    Timestamp => int(value) Timestamp::from_microsecond(value).ok();
    String => text(value) Some(value);
    Vec<u8> => bytes(value) Some(value);
    [u8; 16] => bytes(value) value.try_into().ok();
    [u8; 32] => bytes(value) value.try_into().ok();
    Uuid => uuid(value) Some(value);
}
