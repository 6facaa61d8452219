//! Finding and reaching the database.

use crate::args::Database;
use crate::failure::Failure;
use rowlock_crds::env;
use rowlock_queue::{Connect, Db};
use std::path::PathBuf;

/// One for the command; one for what it may do at the same time.
const CONNECTIONS: u32 = 2;

pub(crate) fn connect_options(url: String) -> Connect {
    Connect::new(url, "rowlock", CONNECTIONS)
}

/// To a database of our schema.
pub(crate) async fn open(database: Database) -> Result<Db, Failure> {
    let db = open_any(database).await?;
    db.check_schema().await?;
    Ok(db)
}

/// To a database of any schema, or none yet.
pub(crate) async fn open_any(database: Database) -> Result<Db, Failure> {
    let url = find_url(database)?;
    Ok(Db::connect(&connect_options(url)).await?)
}

/// Nothing found in a queue that is misspelt would look like good news.
pub(crate) async fn check_queue(db: &Db, queue: &str) -> Result<(), Failure> {
    let queues = rowlock_queue::queue_stats(db).await?;
    if queues.iter().any(|known| known.name == queue) {
        return Ok(());
    }
    let names: Vec<&str> = queues.iter().map(|known| known.name.as_str()).collect();
    let hint = format!("there are: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    Err(Failure::not_found(format!("there is no queue {queue:?}")).hint(hint))
}

/// A flag wins over the environment; there a file wins over the string itself, as for an instance.
fn find_url(Database { database_url, database_url_file }: Database) -> Result<String, Failure> {
    let from_environment = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = match (&database_url, database_url_file) {
        (Some(_), _) => None,
        (None, Some(file)) => Some(file),
        (None, None) => from_environment(env::DATABASE_URL_FILE).map(PathBuf::from),
    };
    let url = match (database_url, file) {
        (Some(url), _) => url,
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--database-url-file {}: {error}", path.display())))?,
        (None, None) => from_environment(env::DATABASE_URL)
            .map(|url| url.to_string_lossy().into_owned())
            .unwrap_or_default(),
    };
    if url.trim().is_empty() {
        let hint = "set --database-url or ROWLOCK_DATABASE_URL; `rowlock dev` says where its own server is";
        return Err(Failure::usage("no database is given").hint(hint));
    }
    Ok(url.trim().to_owned())
}
