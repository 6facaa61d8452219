//! `rowlock dev`: server, operator, instances and handlers on one machine, from one command.

mod backend;
mod demo;
mod folder;
mod manifests;
mod serve;

use crate::args::Dev;
use crate::failure::Failure;
use crate::output::Output;
use crate::visible::word;
use backend::Backend;
use folder::Folder;
use manifests::Watched;
use rowlock_crds::Manifest;
use rowlock_daemon::Signals;
use rowlock_local::backend::{Local, LocalConfig};
use rowlock_operator::{Metrics, Reconciler, View};
use rowlock_queue::Db;
use serde_json::json;
use serve::Endpoint;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Whose queues these are, as the database keeps it.
const OWNER: &str = "rowlock dev";

/// How often the loop looks. Quicker than in a cluster: somebody sits before it.
const TICK: Duration = Duration::from_millis(500);

/// The least time between two looks: a NOTIFY that arrives all the time is no reason to look all the time.
const LEAST_TICK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: Dev, output: Output) -> Result<(), Failure> {
    let Dev { file, data_dir, database_url, postgres, port, listen, demo } = args;
    let watched = Watched::load(&file)?;
    // A demo is the same each time: it neither needs nor touches what was here before.
    let fresh = demo.is_some() && data_dir.is_none();
    let folder = if fresh { Folder::temporary()? } else { Folder::open(data_dir, &file)? };
    let exe = std::env::current_exe()?;
    let mut signals = Signals::listen()?;
    let mut backend = tokio::select! {
        backend = Backend::start(database_url, &folder, &exe, &postgres, port) => backend?,
        // Its guard ends what has started.
        _ = signals.next() => return Ok(()),
    };
    let result =
        with_backend(&mut backend, &folder, exe, watched, (listen, demo), &mut signals, output).await;
    backend.stop().await;
    drop(folder);
    result
}

/// Everything that needs a database.
async fn with_backend(
    backend: &mut Backend,
    folder: &Folder,
    exe: PathBuf,
    watched: Watched,
    (listen, demo): (SocketAddr, Option<u32>),
    signals: &mut Signals,
    output: Output,
) -> Result<(), Failure> {
    let url = backend.url();
    let db = tokio::select! {
        db = connect(backend) => db?,
        _ = signals.next() => return Ok(()),
    };
    let metrics = Metrics::new().map_err(|error| Failure::new(error.to_string()))?;
    let (views, seen) = watch::channel(View::default());
    let endpoint = Endpoint::start(listen, metrics.clone(), seen.clone()).await?;
    let local = Local::new(LocalConfig {
        worker: exe.clone(),
        worker_args: vec!["worker".into()],
        database_url: url.clone(),
        guard: Some(exe),
        folder: folder.path().to_owned(),
        log_to_files: demo.is_some(),
    })?;
    greet(backend, folder, &watched, endpoint.address, output)?;
    let mut reconciler = Reconciler::new(db.clone(), local, OWNER);
    reconciler.listen(crate::database::connect_options(url));
    let queue = watched.first_queue();
    let result = tokio::select! {
        never = operate(&mut reconciler, watched, &metrics, &views) => match never {},
        error = endpoint.failed() => Err(error),
        error = backend.tend() => Err(error),
        done = run_demo(demo, &db, &queue, seen, output) => done,
        _ = signals.next() => Ok(()),
        gone = output.reader_gone() => Err(gone),
    };
    if demo.is_none() {
        // Whether anybody hears it or not.
        let _ = output.say("stopping: what runs may finish; Ctrl-C again to stop at once");
    }
    let result = tokio::select! {
        () = reconciler.drain() => result,
        _ = signals.next() => Err(Failure::new("stopped before all tasks had finished")),
    };
    // Has nothing to do after a drain.
    reconciler.end_now().await;
    db.close().await;
    result
}

/// To a database of our schema.
async fn connect(backend: &Backend) -> Result<Db, Failure> {
    let options = crate::database::connect_options(backend.url());
    let db = Db::connect_with_retry(&options, Some(backend.patience())).await?;
    db.migrate().await?;
    Ok(db)
}

/// The loop of `rowlock dev`.
async fn operate(
    reconciler: &mut Reconciler<Local>,
    mut watched: Watched,
    metrics: &Metrics,
    views: &watch::Sender<View>,
) -> std::convert::Infallible {
    reconciler.set_manifests(watched.manifests(), watched.generation());
    loop {
        let view = reconciler.reconcile().await;
        metrics.set(&view);
        views.send_replace(view);
        tokio::time::sleep(LEAST_TICK.max(reconciler.poll_interval())).await;
        tokio::select! {
            () = tokio::time::sleep(TICK) => (),
            () = reconciler.woken() => (),
        }
        if watched.changed() {
            reconciler.set_manifests(watched.manifests(), watched.generation());
        }
    }
}

/// Without a demo this waits for ever: only a signal ends `rowlock dev`.
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

/// What there is now, and where.
fn greet(
    backend: &Backend,
    folder: &Folder,
    watched: &Watched,
    metrics: SocketAddr,
    output: Output,
) -> Result<(), Failure> {
    let manifests = watched.manifests();
    let mut lines: Vec<String> = manifests.iter().map(introduce).collect();
    let mut url_file = None;
    if let Backend::Own(server) = backend {
        let file = folder.write_url(&server.url("postgres"))?;
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

fn introduce(manifest: &Manifest) -> String {
    let (queue, total) = (manifest.queue_name(), manifest.spec.workers.total);
    let own = || format!("a handler of yours at port {}", manifest.spec.handler.http.port);
    let handler = manifest.dev_command().map_or_else(own, |command| word(command).into_owned());
    format!("queue     {queue}: up to {total} workers, handler: {handler}")
}

/// Relative to where the user is, when it is below.
fn shortest(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).to_owned()
}
