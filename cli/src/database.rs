//! Connects to the database that the arguments or the environment name.

use crate::args::Database;
use crate::failure::Failure;
use rowlock_crds::env;
use rowlock_queue::{Access, Connect, Db};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Two, so that a command can run two statements at the same time.
const CONNECTIONS: u32 = 2;

pub(crate) fn connect_options(url: String) -> Connect {
    Connect::new(url, "rowlock", CONNECTIONS)
}

/// Connects for reading and writing. The database must have our schema.
pub(crate) async fn open(database: Database) -> Result<Db, Failure> {
    let db = open_any(database).await?;
    db.check_schema().await?;
    Ok(db)
}

/// Connects for reading, perhaps to a standby. The database must have our schema.
pub(crate) async fn open_to_read(database: Database) -> Result<Db, Failure> {
    let db = connect(database, Access::ReadOnly).await?;
    db.check_schema().await?;
    Ok(db)
}

/// Connects for reading and writing, whatever schema the database has.
pub(crate) async fn open_any(database: Database) -> Result<Db, Failure> {
    connect(database, Access::ReadWrite).await
}

async fn connect(database: Database, access: Access) -> Result<Db, Failure> {
    let ca_pem = find_ca(database.ca_file.clone())?;
    let url = find_url(database)?;
    let connect = Connect { ca_pem, access, ..connect_options(url) };
    Ok(Db::connect(&connect).await?)
}

/// Fails for an unknown queue. An empty list for a misspelt name would look as if all were well.
pub(crate) async fn check_queue(db: &Db, queue: &str) -> Result<(), Failure> {
    let queues = rowlock_queue::queue_stats(db).await?;
    if queues.iter().any(|known| known.name == queue) {
        return Ok(());
    }
    let names: Vec<&str> = queues.iter().map(|known| known.name.as_str()).collect();
    let hint = if names.is_empty() {
        "there are no queues yet".to_owned()
    } else {
        format!("the queues are: {}", names.join(", "))
    };
    Err(Failure::not_found(format!("there is no queue {queue:?}")).hint(hint))
}

/// The CA certificate as PEM. A flag wins over the environment.
fn find_ca(file: Option<PathBuf>) -> Result<Option<Arc<str>>, Failure> {
    let Some(path) = file.or_else(ca_file_of_environment) else { return Ok(None) };
    read_ca(&path).map(Some)
}

pub(crate) fn read_ca(path: &Path) -> Result<Arc<str>, Failure> {
    let wrong = |error| Failure::usage(format!("--database-ca-file {}: {error}", path.display()));
    Ok(std::fs::read_to_string(path).map_err(wrong)?.into())
}

pub(crate) fn ca_file_of_environment() -> Option<PathBuf> {
    from_environment(env::DATABASE_CA_FILE).map(PathBuf::from)
}

pub(crate) fn from_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The connection string. A flag wins over the environment, and there the file wins over the string, as in
/// the worker.
fn find_url(database: Database) -> Result<String, Failure> {
    let Database { url, url_file, ca_file: _ } = database;
    let file = match (&url, url_file) {
        (Some(_), _) => None,
        (None, Some(file)) => Some(file),
        (None, None) => from_environment(env::DATABASE_URL_FILE).map(PathBuf::from),
    };
    let url = match (url, file) {
        (Some(url), _) => url,
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--database-url-file {}: {error}", path.display())))?,
        (None, None) => from_environment(env::DATABASE_URL)
            .map(|url| url.to_string_lossy().into_owned())
            .unwrap_or_default(),
    };
    if url.trim().is_empty() {
        let hint =
            "set --database-url or ROWLOCK_DATABASE_URL; `rowlock dev` prints the variable for its server";
        return Err(Failure::usage("no database is given").hint(hint));
    }
    Ok(url.trim().to_owned())
}
