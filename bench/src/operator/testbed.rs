//! The servers, the TaskQueues and the operator, and one queue that is scaled up and down.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, EnqueueOptions, enqueue_many};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::layout::{DATABASE, Layout, NAMESPACE, queue, unrelated_pods, with_status};
use super::process::OperatorProcess;

/// Enough connections for a hundred pods, the operator's in fifty databases, and the reserve for other users.
const CONNECTIONS: &str = "600";

const PATIENCE: Duration = Duration::from_mins(2);

/// How long the operator may take to write the objects of thousands of new TaskQueues: the API server on a
/// small machine accepts some hundred writes a second.
const PATIENCE_AT_START: Duration = Duration::from_mins(10);

/// How often the TaskQueues are listed meanwhile.
const LIST_EVERY: Duration = Duration::from_secs(3);

/// Longest random wait before a measurement: longer than the tick, so that measurements begin anywhere
/// between two.
const PAUSES: [u64; 5] = [2100, 2500, 2900, 3300, 3700];

/// `spec.replicas` of each Deployment, and when it was seen.
type Replicas = BTreeMap<String, (u32, Instant)>;

pub(crate) struct Testbed {
    pub(crate) operator: OperatorProcess,
    pub(crate) layout: Layout,
    cluster: Cluster,
    server: Server,
    _folder: TempDir,
    admin: PgPool,
    pool: PgPool,
    db: Db,
    counts_statements: bool,
    replicas: watch::Receiver<Replicas>,
    _watch: Child,
    rounds: usize,
}

/// Statements to the databases and writes to the API server since their starts.
pub(crate) struct Counts {
    pub(crate) writes: f64,
    statements: Option<Statements>,
}

#[derive(Clone, Copy)]
pub(crate) struct Statements {
    pub(crate) all: f64,
    /// Queries of the queues' statistics, and how long they took.
    pub(crate) statistics: f64,
    pub(crate) statistics_ms: f64,
    pub(crate) declarations: f64,
}

impl Counts {
    /// The statements between two counts.
    pub(crate) fn statements(&self, then: &Self) -> Option<Statements> {
        let (from, to) = (self.statements?, then.statements?);
        Some(Statements {
            all: to.all - from.all,
            statistics: to.statistics - from.statistics,
            statistics_ms: to.statistics_ms - from.statistics_ms,
            declarations: to.declarations - from.declarations,
        })
    }
}

impl Testbed {
    /// Starts the servers, creates the TaskQueues, and waits until the operator has reported on all of them.
    pub(crate) async fn open(layout: Layout) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut config = ServerConfig::new(folder.path());
        for (name, value) in [
            ("max_connections", CONNECTIONS),
            ("shared_preload_libraries", "pg_stat_statements"),
            ("pg_stat_statements.track", "top"),
        ] {
            config.settings.push((name.to_owned(), value.to_owned()));
        }
        let server = Server::start(&config).await?;
        let admin = PgPool::connect(&server.url("postgres")).await?;
        let counts_statements = admin.execute("create extension pg_stat_statements").await.is_ok();
        for database in layout.databases() {
            admin.execute(AssertSqlSafe(format!("create database \"{database}\""))).await?;
        }
        let cluster = Cluster::start().await?;
        create(&cluster, &server, &layout).await?;
        let (kubeconfig, log) = (cluster.file("kubeconfig"), cluster.file("operator.log"));
        let only = (!layout.has_namespaces).then_some(NAMESPACE);
        let operator = OperatorProcess::start(&kubeconfig, only, &log)?;
        until_reported(&cluster, layout.queues).await.with_context(|| last_lines(&log))?;
        if layout.has_pods {
            create_pods(&cluster, &layout.pods()).await?;
        }
        let (watched, replicas) = watch_replicas(&cluster)?;
        let connect = Connect::new(server.url(DATABASE), "rowlock-bench", 2);
        let db = Db::connect(&connect).await?;
        let pool = PgPool::connect(&server.url(DATABASE)).await?;
        Ok(Self {
            operator,
            layout,
            cluster,
            server,
            _folder: folder,
            admin,
            pool,
            db,
            counts_statements,
            replicas,
            _watch: watched,
            rounds: 0,
        })
    }

    pub(crate) async fn counts(&self) -> Result<Counts> {
        let writes = f64::from(u32::try_from(self.cluster.writes()?)?);
        if !self.counts_statements {
            return Ok(Counts { writes, statements: None });
        }
        // Queried from the maintenance database, so that the query itself does not count.
        let sql = "select coalesce(sum(calls), 0)::float8,
          coalesce(sum(calls) filter (where query like '%rowlock.statistics()%'), 0)::float8,
          coalesce(sum(total_exec_time) filter (where query like '%rowlock.statistics()%'), 0)::float8,
          coalesce(sum(calls) filter (where query like '%rowlock.declare_queue(%'), 0)::float8
          from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname like $1";
        let row = sqlx::query(sql).bind(format!("{DATABASE}%")).fetch_one(&self.admin).await?;
        let statements = Statements {
            all: row.try_get(0)?,
            statistics: row.try_get(1)?,
            statistics_ms: row.try_get(2)?,
            declarations: row.try_get(3)?,
        };
        Ok(Counts { writes, statements: Some(statements) })
    }

    /// Changes one TaskQueue.
    pub(crate) async fn change_one(&self) -> Result<()> {
        let namespace = self.layout.namespaces().pop().context("there is no namespace")?;
        let queue = queue(self.layout.databases - 1);
        let patch = "{\"spec\":{\"workers\":{\"total\":990}}}";
        let args = ["patch", "tq", &queue, "-n", &namespace, "--type=merge", "-p", patch];
        self.cluster.kubectl(&args, "").await.map(drop)
    }

    /// How many watches of `PodDisruptionBudgets` the API server has: nobody else watches them.
    pub(crate) async fn watches(&self) -> Result<f64> {
        let metrics = self.cluster.kubectl(&["get", "--raw", "/metrics"], "").await?;
        let those = metrics.lines().filter(|line| {
            line.starts_with("apiserver_longrunning_requests{") && line.contains("poddisruptionbudgets")
        });
        let counts = those.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(counts.sum())
    }

    /// Creates pods of other applications.
    pub(crate) async fn create_unrelated(&self, count: usize) -> Result<()> {
        create_pods(&self.cluster, &unrelated_pods(count)).await
    }

    /// The time from the commit of `tasks` tasks until `spec.replicas` is `pods`.
    pub(crate) async fn up(&mut self, tasks: usize, pods: u32) -> Result<Duration> {
        sleep(Duration::from_millis(PAUSES[self.rounds % PAUSES.len()])).await;
        self.rounds += 1;
        let payloads = vec!["{}".to_owned(); tasks];
        enqueue_many(&self.db, &self.measured(), "bench", &payloads, &EnqueueOptions::default()).await?;
        let committed = Instant::now();
        let at = self.until_replicas(pods).await?;
        Ok(at.saturating_duration_since(committed))
    }

    /// Removes the tasks and waits until the queue is scaled to zero.
    pub(crate) async fn down(&mut self) -> Result<()> {
        self.pool.execute("truncate rowlock.ready").await?;
        self.until_replicas(0).await.map(drop)
    }

    /// The queue to scale now. It alternates between the Secrets, because the operator polls the database
    /// through one of them.
    fn measured(&self) -> String {
        queue(self.rounds % self.layout.secrets)
    }

    async fn until_replicas(&mut self, pods: u32) -> Result<Instant> {
        let measured = self.measured();
        let reached = self.replicas.wait_for(|all| all.get(&measured).is_some_and(|(now, _)| *now == pods));
        let all =
            timeout(PATIENCE, reached).await.with_context(|| format!("{pods} pods were not asked for"))??;
        all.get(&measured).map(|(_, at)| *at).context("no such queue")
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        self.pool.close().await;
        self.admin.close().await;
        self.db.close().await;
        drop(self.operator);
        Ok(self.server.stop().await?)
    }
}

/// Creates the CRD, the Secrets and the TaskQueues.
async fn create(cluster: &Cluster, server: &Server, layout: &Layout) -> Result<()> {
    let chart = "charts/rowlock-crds/templates";
    cluster.kubectl(&["apply", "-f", chart], "").await?;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd/taskqueues.rowlock.dev"];
    cluster.kubectl(&established, "").await?;
    let namespace = |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let namespaces: Vec<_> = layout.namespaces().into_iter().map(namespace).collect();
    cluster.create(&namespaces, None).await?;
    cluster.create(&layout.secrets(|database| server.url(database)), None).await?;
    cluster.create(&layout.task_queues(), None).await
}

/// Creates ready pods.
async fn create_pods(cluster: &Cluster, pods: &[Value]) -> Result<()> {
    cluster.create(pods, None).await?;
    let ready: Vec<_> = pods.iter().map(with_status).collect();
    cluster.create(&ready, Some("status")).await
}

/// The reason of the condition `Ready` that the API server itself gives to a new TaskQueue.
const NOT_REPORTED: &str = "NotObserved";

/// Waits until the operator has written the condition `Ready` of each TaskQueue, whatever its status.
async fn until_reported(cluster: &Cluster, queues: usize) -> Result<()> {
    let columns = "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].reason}{\"\\n\"}{end}";
    let since = Instant::now();
    loop {
        let answer = cluster.kubectl(&["get", "tq", "-A", "-o", columns], "").await?;
        let reported = answer.lines().filter(|line| !line.is_empty() && *line != NOT_REPORTED).count();
        if reported == queues {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE_AT_START, "only {reported} of {queues} TaskQueues have a status");
        sleep(LIST_EVERY).await;
    }
}

/// A `kubectl get --watch` that reports each change of `spec.replicas`.
fn watch_replicas(cluster: &Cluster) -> Result<(Child, watch::Receiver<Replicas>)> {
    let columns = "jsonpath={.metadata.name} {.spec.replicas}{\"\\n\"}";
    let args = ["get", "deployments", "-n", NAMESPACE, "--watch", "-o", columns];
    let mut child = cluster.command(&args).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("kubectl has no output")?).lines();
    let (sender, receiver) = watch::channel(Replicas::new());
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let Some((name, replicas)) = line.split_once(' ') else { continue };
            let Ok(replicas) = replicas.parse() else { continue };
            let seen = (replicas, Instant::now());
            sender.send_modify(|all| all.extend([(name.to_owned(), seen)]));
        }
    });
    Ok((child, receiver))
}

fn last_lines(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    format!("the last lines of the operator's log: {}", lines.join("\n"))
}
