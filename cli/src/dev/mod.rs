//! `rowlock dev`: PostgreSQL, reconciler, workers and handlers on one machine, from one command.

mod data_dir;
mod database_server;
mod demo;
mod manifest_watcher;
mod metrics;
mod metrics_server;

use crate::args::Dev;
use crate::escape::word;
use crate::failure::Failure;
use crate::output::Output;
use data_dir::DataDir;
use database_server::{DatabaseServer, Existing};
use manifest_watcher::ManifestWatcher;
use metrics_server::MetricsServer;
use rowlock_crds::{Manifest, env};
use rowlock_daemon::Signals;
use rowlock_local::backend::{Local, LocalConfig};
use rowlock_operator::{Reconciler, View};
use rowlock_queue::Db;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// The owner of the queues in the database.
const OWNER: &str = "rowlock dev";

/// How often to reconcile: more often than in a cluster, since a developer watches.
const TICK: Duration = Duration::from_millis(500);

/// Least time between two passes, however many NOTIFYs arrive.
const MIN_TICK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: Dev, output: Output) -> Result<(), Failure> {
    let Dev { file, data_dir, database_url, database_ca_file, postgres, port, listen, demo } = args;
    let existing = database_url.map(|url| Existing::new(url, database_ca_file)).transpose()?;
    let watcher = ManifestWatcher::load(&file)?;
    // A demo uses a temporary folder, so that it always starts from the same state.
    let fresh = demo.is_some() && data_dir.is_none();
    let data_dir = if fresh { DataDir::temporary()? } else { DataDir::open(data_dir, &file)? };
    let exe = std::env::current_exe()?;
    let mut signals = Signals::listen()?;
    let mut server = tokio::select! {
        server = DatabaseServer::start(existing, &data_dir, &exe, &postgres, port) => server?,
        // The guard stops a server that has started.
        _ = signals.next() => return Ok(()),
    };
    let result =
        with_server(&mut server, &data_dir, exe, watcher, (listen, demo), &mut signals, output).await;
    server.stop().await;
    drop(data_dir);
    result
}

/// Reads and checks the manifests of a folder or a file. Returns the one of that queue, or the only one.
pub(crate) fn load_manifest(place: &Path, queue: Option<&str>) -> Result<Manifest, Failure> {
    let manifests = ManifestWatcher::load(place)?.manifests();
    let names: Vec<String> = manifests.iter().map(|manifest| manifest.queue_name().to_owned()).collect();
    let found = match queue {
        Some(queue) => names.iter().position(|name| name == queue),
        None => (names.len() == 1).then_some(0),
    };
    found.and_then(|index| manifests.into_iter().nth(index)).ok_or_else(|| {
        let problem = match queue {
            Some(queue) => format!("{} has no queue `{}`", place.display(), word(queue)),
            None => format!("{} has {} TaskQueues", place.display(), names.len()),
        };
        Failure::usage(problem).hint(format!("name one with --queue: {}", names.join(", ")))
    })
}

/// Runs everything that needs the database.
async fn with_server(
    server: &mut DatabaseServer,
    data_dir: &DataDir,
    exe: PathBuf,
    watcher: ManifestWatcher,
    (listen, demo): (SocketAddr, Option<u32>),
    signals: &mut Signals,
    output: Output,
) -> Result<(), Failure> {
    let db = tokio::select! {
        db = connect(server) => db?,
        _ = signals.next() => return Ok(()),
    };
    let (views, seen) = watch::channel(View::default());
    let metrics_server = MetricsServer::start(listen, seen.clone()).await?;
    let local = Local::new(LocalConfig {
        worker: exe.clone(),
        worker_args: vec!["worker".into()],
        database_url: server.url(),
        database_ca_file: server.ca_file(),
        guard: Some(exe),
        folder: data_dir.path().to_owned(),
        log_to_files: demo.is_some(),
    })?;
    warn_of_ignored_variables(server);
    print_endpoints(server, data_dir, &watcher, metrics_server.address, output)?;
    let mut reconciler = Reconciler::new(db.clone(), local, OWNER);
    reconciler.listen(server.connect_options());
    let queue = watcher.first_queue();
    let result = tokio::select! {
        never = operate(&mut reconciler, watcher, &views) => match never {},
        error = metrics_server.failed() => Err(error),
        error = server.supervise() => Err(error),
        done = run_demo(demo, &db, &queue, seen, output) => done,
        _ = signals.next() => Ok(()),
        gone = output.reader_gone() => Err(gone),
    };
    if demo.is_none() {
        // Even if the output cannot be written, the drain goes on.
        let _ = output.say("stopping: running tasks may finish; press Ctrl-C again to stop at once");
    }
    let result = tokio::select! {
        () = reconciler.drain() => result,
        _ = signals.next() => Err(Failure::new("stopped before all tasks had finished")),
    };
    // Does nothing after a complete drain.
    reconciler.end_now().await;
    db.close().await;
    result
}

/// Connects and migrates the schema.
async fn connect(server: &DatabaseServer) -> Result<Db, Failure> {
    let options = server.connect_options();
    let db = Db::connect_with_retry(&options, Some(server.connect_timeout())).await?;
    db.migrate().await?;
    Ok(db)
}

/// Variables that are set for other programs do not change what `rowlock dev` does.
fn warn_of_ignored_variables(server: &DatabaseServer) {
    let is_used = |name: &str| {
        name == env::OTLP_ENDPOINT || (name == env::DATABASE_CA_FILE && server.ca_file().is_some())
    };
    let is_ignored = |name: &&str| !is_used(name) && crate::database::from_environment(name).is_some();
    let ignored: Vec<&str> = env::ALL.iter().copied().filter(is_ignored).collect();
    if !ignored.is_empty() {
        let variables = ignored.join(", ");
        tracing::warn!(
            variables,
            "`rowlock dev` ignores these variables; its flags and the manifests decide"
        );
    }
}

/// Reconciles until it is dropped.
async fn operate(
    reconciler: &mut Reconciler<Local>,
    mut watcher: ManifestWatcher,
    views: &watch::Sender<View>,
) -> std::convert::Infallible {
    reconciler.set_manifests(watcher.manifests(), watcher.generation());
    loop {
        let view = reconciler.reconcile().await;
        views.send_replace(view);
        tokio::time::sleep(MIN_TICK.max(reconciler.poll_interval())).await;
        tokio::select! {
            () = tokio::time::sleep(TICK) => (),
            () = reconciler.woken() => (),
        }
        if watcher.changed() {
            reconciler.set_manifests(watcher.manifests(), watcher.generation());
        }
    }
}

/// Runs the demo. Without one it never returns: a signal ends `rowlock dev`.
async fn run_demo(
    demo: Option<u32>,
    db: &Db,
    queue: &str,
    seen: watch::Receiver<View>,
    output: Output,
) -> Result<(), Failure> {
    match demo {
        Some(tasks) => demo::run(db, queue, tasks, seen, output).await,
        None => std::future::pending().await,
    }
}

/// Prints the queues and how to reach the database and the metrics.
fn print_endpoints(
    server: &DatabaseServer,
    data_dir: &DataDir,
    watcher: &ManifestWatcher,
    metrics: SocketAddr,
    output: Output,
) -> Result<(), Failure> {
    let manifests = watcher.manifests();
    let mut lines: Vec<String> = manifests.iter().map(describe_queue).collect();
    let mut url_file = None;
    if let DatabaseServer::Bundled(bundled) = server {
        let file = data_dir.write_url(&bundled.url("postgres"))?;
        let shown = shortest(&file);
        lines.push(format!("psql      psql \"$(cat {})\"", shown.display()));
        lines.push(format!("commands  export ROWLOCK_DATABASE_URL_FILE={}", shown.display()));
        url_file = Some(file);
    }
    let metrics = format!("http://{metrics}/metrics");
    lines.push(format!("metrics   {metrics} (instances: /targets)"));
    let queues: Vec<&str> = manifests.iter().map(Manifest::queue_name).collect();
    let value = json!({"queues": queues, "databaseUrlFile": url_file, "metrics": metrics});
    output.result(|| lines.join("\n"), &value)
}

fn describe_queue(manifest: &Manifest) -> String {
    let (queue, total) = (manifest.queue_name(), manifest.spec.workers.total);
    let started_by_user = || format!("yours, on port {}", manifest.spec.handler.http.port);
    let handler = manifest.dev_command().map_or_else(started_by_user, |command| word(command).into_owned());
    let not_scaled = manifest.spec.target_ref.as_ref().map(|target| {
        format!(" (in a cluster, this queue scales the Deployment {}; here nothing does)", target.name)
    });
    let not_scaled = not_scaled.unwrap_or_default();
    format!("queue     {queue}: up to {total} tasks at a time, handler: {handler}{not_scaled}")
}

/// The path relative to the working directory, if it is below that.
fn shortest(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).to_owned()
}
