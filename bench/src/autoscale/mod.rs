//! Three queues with the same load on one API server: scaled by the operator, by KEDA with the
//! `HorizontalPodAutoscaler` at their defaults, and by KEDA tuned. KEDA and Kubernetes' controllers are the
//! real ones. There are no nodes: pods become ready after a fixed time, and each ready pod is a worker of
//! this process, whose handler sleeps.
//!
//! Modules in reading order: the tasks ([`load`]), what becomes of them ([`progress`]), the objects of each
//! queue ([`objects`]), the programs ([`control_plane`]), the pods ([`kubelet`], [`pod`]) and the results
//! ([`report`]).

mod control_plane;
mod kubelet;
mod load;
mod objects;
mod pod;
mod progress;
mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, EnqueueOptions, declare, enqueue_many};
use rowlock_simulation::LawKind;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::args::AutoscaleArgs;
use crate::operator::cluster::Cluster;
use crate::operator::layout::NAMESPACE;
use crate::operator::process::OperatorProcess;
use crate::table::Table;
use control_plane::ControlPlane;
use load::Load;
use progress::Progress;

/// Ours comes first.
const LAWS: [LawKind; 3] = [LawKind::Rowlock, LawKind::KedaDefault, LawKind::KedaTuned];

/// The workers (slots) of each pod.
const PER_POD: u32 = 4;

/// The most pods of each queue: half of its workers are busy at the top of the ramp.
const MOST_PODS: u32 = 40;

/// How long the handler takes for a task.
const SERVICE: Duration = Duration::from_secs(2);

/// From the creation of a pod until it is ready: an image that is on the node, and a small program.
const POD_START: Duration = Duration::from_secs(3);

/// Two for each pod, and the reserve for the operator, KEDA and this program.
const CONNECTIONS: &str = "600";

/// Ten times what a loaded machine with two slow cores needs.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often a starting program is polled.
const POLL: Duration = Duration::from_secs(1);

/// How often the numbers of pods and tasks are noted.
const SAMPLE: Duration = Duration::from_secs(1);

/// Tasks that come within this time are enqueued together.
const BATCH: Duration = Duration::from_millis(50);

/// A queue in its own database.
#[derive(Clone)]
struct Queue {
    law: LawKind,
    url: String,
    db: Db,
    progress: Arc<Progress>,
}

pub(crate) async fn run(args: AutoscaleArgs) -> Result<()> {
    let load = Load::new(args.seed, args.burst_only);
    let folder = tempfile::tempdir()?;
    let (mut server, queues) = start_queues(&folder).await?;
    let control_plane = ControlPlane::start().await?;
    let cluster = &control_plane.cluster;
    create(cluster, &queues).await?;
    let (kubeconfig, log) = (cluster.file("kubeconfig"), cluster.file("operator.log"));
    let operator = OperatorProcess::start(&kubeconfig, Some(NAMESPACE), &log)?;
    let ready = timeout(PATIENCE, until_ready(cluster)).await;
    ready.with_context(|| control_plane.last_lines())?;
    let pods = kubelet::run(&kubeconfig, &queues);
    let played = play(&load, &queues);
    tokio::select! {
        ended = pods => return ended.context("the pods"),
        played = played => played?,
    }
    drop(operator);
    let versions = &control_plane.versions;
    let course = report::course(&load, versions, &queues);
    let mut table = Table::new("autoscale", !args.burst_only)?.with_course(course);
    table.add(report::rows(versions, &queues))?;
    let picture = table.beside("svg");
    std::fs::write(&picture, report::picture(&load, versions, &queues))?;
    table.print()?;
    eprintln!("{}", picture.display());
    drop(control_plane);
    for queue in &queues {
        queue.db.close().await;
    }
    server.stop().await?;
    let missed = table.missed();
    ensure!(missed.is_empty(), "goals missed: {}", missed.join(", "));
    Ok(())
}

/// Starts Postgres and creates a database with a queue for each law.
async fn start_queues(folder: &TempDir) -> Result<(Server, Vec<Queue>)> {
    let mut config = ServerConfig::new(folder.path());
    config.settings.push(("max_connections".to_owned(), CONNECTIONS.to_owned()));
    let server = Server::start(&config).await?;
    let admin = PgPool::connect(&server.url("postgres")).await?;
    let mut queues = Vec::new();
    for law in LAWS {
        let name = law.name();
        admin.execute(AssertSqlSafe(format!("create database \"{name}\""))).await?;
        let url = server.url(name);
        let db = Db::connect(&Connect::new(url.clone(), "rowlock-bench", 2)).await?;
        if law != LawKind::Rowlock {
            // The operator does the same for its own.
            db.migrate().await?;
            declare(&db, &objects::declaration(law)).await?;
        }
        queues.push(Queue { law, url, db, progress: Arc::default() });
    }
    admin.close().await;
    Ok((server, queues))
}

/// Creates what each law needs.
async fn create(cluster: &Cluster, queues: &[Queue]) -> Result<()> {
    cluster.kubectl(&["apply", "-f", "charts/rowlock-crds/templates"], "").await?;
    control_plane::until_established(cluster).await?;
    cluster.create(&[objects::namespace(NAMESPACE)], None).await?;
    for queue in queues {
        cluster.create(&objects::of(queue.law, &queue.url), None).await?;
    }
    Ok(())
}

/// Waits until the operator has reported on its queue and KEDA answers with a metric of each of its queues.
async fn until_ready(cluster: &Cluster) {
    while let Err(error) = probe(cluster).await {
        eprintln!("not ready yet: {}", error.to_string().lines().last().unwrap_or_default());
        sleep(POLL).await;
    }
}

async fn probe(cluster: &Cluster) -> Result<()> {
    for (law, kind) in LAWS.into_iter().zip(["taskqueue", "scaledobject", "scaledobject"]) {
        let condition = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let args = ["get", kind, law.name(), "-n", NAMESPACE, "-o", condition];
        let status = cluster.kubectl(&args, "").await?;
        ensure!(status == "True", "the {kind} {} is not ready", law.name());
        if law != LawKind::Rowlock {
            cluster.kubectl(&["get", "--raw", &objects::metric_path(law)], "").await?;
        }
    }
    Ok(())
}

/// Enqueues the tasks and notes how it goes.
async fn play(load: &Load, queues: &[Queue]) -> Result<()> {
    let begin = Instant::now();
    eprintln!("playing {} tasks for {} s", load.arrivals.len(), load.lasts.as_secs());
    for queue in queues {
        queue.progress.begin();
    }
    let samples = async {
        let mut at = begin;
        while at < begin + load.lasts {
            at += SAMPLE;
            sleep_until(at).await;
            for queue in queues {
                queue.progress.sample();
            }
        }
        Ok(())
    };
    tokio::try_join!(enqueue_all(load, queues, begin), samples)?;
    for queue in queues {
        queue.progress.end();
    }
    Ok(())
}

async fn enqueue_all(load: &Load, queues: &[Queue], begin: Instant) -> Result<()> {
    let mut next = 0;
    while let Some(due) = load.arrivals.get(next) {
        sleep_until(begin + *due + BATCH).await;
        let elapsed = begin.elapsed();
        let until = next + load.arrivals[next..].iter().take_while(|due| **due <= elapsed).count();
        let payloads: Vec<String> = (next..until).map(|number| number.to_string()).collect();
        let options = EnqueueOptions::default();
        let enqueues = queues.iter().map(|queue| {
            queue.progress.enqueued(next..until);
            enqueue_many(&queue.db, queue.law.name(), objects::TASK_TYPE, &payloads, &options)
        });
        try_join_all(enqueues).await?;
        next = until;
    }
    Ok(())
}
