//! Which database this is, whatever its address.

use sqlx::Row;

use crate::{Db, Error, Result, db::query};

/// The SQLSTATE for want of a privilege.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Which database of which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `name@number`. The number was drawn when the server's data were made, and is the same for its standbys and its physical backups.
    /// `None` where this user may not know.
    pub database: Option<String>,
    /// When the server was started, in microseconds since 1970: of two that run copies of one database, each has its own.
    pub started_at: i64,
}

/// Finds out.
pub async fn identity(db: &Db) -> Result<Identity> {
    let asked =
        "select (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000::numeric)::bigint";
    let started_at = db.one(query(asked)).await?.try_get(0)?;
    Ok(Identity { database: database(db).await?, started_at })
}

async fn database(db: &Db) -> Result<Option<String>> {
    let asked =
        "select current_database() || '@' || (select system_identifier from pg_catalog.pg_control_system())";
    match db.one(query(asked)).await {
        Ok(row) => Ok(row.try_get(0)?),
        Err(Error::Database(sqlx::Error::Database(error)))
            if error.code().as_deref() == Some(INSUFFICIENT_PRIVILEGE) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
