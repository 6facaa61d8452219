//! One server per test process, and the template that databases are copied from.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context;
use rowlock_local::postgres::{DEFAULT_VERSION, OLDEST_VERSION, Server, ServerConfig};
use rowlock_queue::{Connect, Db};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// Start of the template's name; the process id follows.
const TEMPLATE: &str = "rowlock_template";

/// Start of the name of a server's folder; the process id follows.
const FOLDER: &str = "rowlock-tests-";

/// The running server.
const SETTINGS: [(&str, &str); 3] =
    [("max_prepared_transactions", "20"), ("max_connections", "200"), ("wal_level", "logical")];

struct Running {
    /// Its URL up to the last slash; a database's name follows.
    base: String,
    template: String,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// The URL of a database of the server.
///
/// # Panics
/// If there is no server.
#[must_use]
pub fn url(database: &str) -> String {
    format!("{}{database}", running().base)
}

/// The name of the migrated template.
#[must_use]
pub fn template() -> &'static str {
    &running().template
}

fn running() -> &'static Running {
    RUNNING.get_or_init(|| {
        // A separate thread: the caller runs inside its test's runtime, which ends with the test.
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime starts");
            let running = runtime.block_on(start());
            // It owns the server's process.
            std::mem::forget(runtime);
            running
        })
        .join()
        .expect("a server starts")
    })
}

async fn start() -> Running {
    let base = match std::env::var("ROWLOCK_TEST_URL") {
        Ok(base) => base,
        Err(_) => embedded().await.expect("a server starts"),
    };
    let template = format!("{TEMPLATE}_{}", std::process::id());
    let mut admin = PgConnection::connect(&format!("{base}postgres")).await.expect("the server answers");
    let create = format!("create database {template}");
    admin.execute(AssertSqlSafe(create)).await.expect("a database is created");
    let connect = Connect::new(format!("{base}{template}"), "rowlock-tests", 1);
    let db = Db::connect(&connect).await.expect("the server is new enough");
    db.migrate().await.expect("the schema is made");
    db.close().await;
    Running { base, template }
}

/// A server of the version in `ROWLOCK_TEST_POSTGRES`, in its own folder.
async fn embedded() -> anyhow::Result<String> {
    let version = match std::env::var("ROWLOCK_TEST_POSTGRES").as_deref() {
        Ok("14") => OLDEST_VERSION,
        _ => DEFAULT_VERSION,
    };
    clean()?;
    let folder = std::env::temp_dir().join(format!("{FOLDER}{}", std::process::id()));
    let mut config = ServerConfig::new(&folder);
    config.version = version.into();
    config.guard = Some(guard()?);
    config.settings =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let server = Server::start(&config).await?;
    let base = server.url("");
    // Its guard ends it when this process ends.
    std::mem::forget(server);
    Ok(base)
}

/// Removes the folders of processes that ended.
fn clean() -> anyhow::Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(FOLDER).and_then(|process| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            match std::fs::remove_dir_all(entry.path()) {
                // Another test process does the same.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => (),
            }
        }
    }
    Ok(())
}

/// The executable next to the test's folder, built with every test of this package. It guards the servers
/// that a test starts.
///
/// # Errors
///
/// If the test is not in a target folder of Cargo.
pub fn guard() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("a test lies in target/*/deps")?;
    Ok(folder.join("rowlock-tests-guard"))
}
