//! The identity of a database, independent of its address.

use crate::{Db, Error, Result, db::query};

/// The SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A database and its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `NAME@SYSTEM_IDENTIFIER`. The identifier is drawn by `initdb`. Standbys and physical backups have the
    /// same one. `None` if this user may not read it.
    pub database: Option<String>,
    /// When the server was started, in microseconds since 1970. It differs between servers that run copies of
    /// one database.
    pub started_at: i64,
}

/// Reads the identity of a database.
pub async fn identity(db: &Db) -> Result<Identity> {
    let statement =
        "select (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000::numeric)::bigint";
    let started_at = db.scalar(query(statement)).await?;
    Ok(Identity { database: database(db).await?, started_at })
}

async fn database(db: &Db) -> Result<Option<String>> {
    let statement =
        "select current_database() || '@' || (select system_identifier from pg_catalog.pg_control_system())";
    match db.scalar(query(statement)).await {
        Ok(database) => Ok(database),
        Err(Error::Database(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
