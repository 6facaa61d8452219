//! The servers, the TaskQueues and the operator, and one queue that is scaled up and down.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rowlock_local::postgres::{Server, ServerConfig};
use rowlock_queue::{Connect, Db, EnqueueOptions, enqueue_many};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::process::OperatorProcess;

const NAMESPACE: &str = "bench";
const DATABASE: &str = "bench";

/// Number of Secrets with the database's URL, as where several teams share a namespace.
const SECRETS: usize = 10;

/// Enough connections for a hundred pods and the reserve for other users.
const CONNECTIONS: &str = "300";

const PATIENCE: Duration = Duration::from_mins(2);

/// Longest random wait before a measurement: longer than the tick, so that measurements begin anywhere
/// between two.
const PAUSES: [u64; 5] = [2100, 2500, 2900, 3300, 3700];

/// `spec.replicas` of each Deployment, and when it was seen.
type Replicas = BTreeMap<String, (u32, Instant)>;

pub(crate) struct Testbed {
    pub(crate) operator: OperatorProcess,
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

/// Statements to the database and writes to the API server since their starts.
pub(crate) struct Counts {
    pub(crate) writes: f64,
    statements: Option<(f64, f64)>,
}

impl Counts {
    /// Queries of the queues' statistics between two counts.
    pub(crate) fn statistics_queries(&self, then: &Self) -> Option<f64> {
        Some(then.statements?.0 - self.statements?.0)
    }

    /// All statements between two counts.
    pub(crate) fn statements(&self, then: &Self) -> Option<f64> {
        Some(then.statements?.1 - self.statements?.1)
    }
}

impl Testbed {
    pub(crate) async fn open(queues: u32) -> Result<Self> {
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
        admin.execute(AssertSqlSafe(format!("create database {DATABASE}"))).await?;
        let cluster = Cluster::start().await?;
        declare(&cluster, &server.url(DATABASE), usize::try_from(queues)?).await?;
        let (kubeconfig, log) = (cluster.file("kubeconfig"), cluster.file("operator.log"));
        let operator = OperatorProcess::start(&kubeconfig, NAMESPACE, &log)?;
        let wait = ["wait", "--for=condition=Ready", "tq", "--all", "-n", NAMESPACE, "--timeout=120s"];
        cluster.kubectl(&wait, "").await.with_context(|| last_lines(&log))?;
        let (watched, replicas) = watch_replicas(&cluster)?;
        let connect = Connect::new(server.url(DATABASE), "rowlock-bench", 2);
        let db = Db::connect(&connect).await?;
        let pool = PgPool::connect(&server.url(DATABASE)).await?;
        Ok(Self {
            operator,
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
        let writes = f64::from(u32::try_from(self.cluster.writes(NAMESPACE)?)?);
        if !self.counts_statements {
            return Ok(Counts { writes, statements: None });
        }
        // Queried from the maintenance database, so that the query itself does not count.
        let sql = "select coalesce(sum(calls) filter (where query like '%rowlock.statistics()%'), 0)::float8,
          coalesce(sum(calls), 0)::float8
          from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = $1";
        let row = sqlx::query(sql).bind(DATABASE).fetch_one(&self.admin).await?;
        Ok(Counts { writes, statements: Some((row.try_get(0)?, row.try_get(1)?)) })
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
        format!("queue-{}", self.rounds % SECRETS)
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

/// Applies the CRD, the Secrets and the TaskQueues, which are scaled to zero.
async fn declare(cluster: &Cluster, url: &str, queues: usize) -> Result<()> {
    let chart = "charts/rowlock-crds/templates";
    cluster.kubectl(&["apply", "-f", chart], "").await?;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd/taskqueues.rowlock.dev"];
    cluster.kubectl(&established, "").await?;
    cluster.kubectl(&["create", "namespace", NAMESPACE], "").await?;
    let secret = |number| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("db-{number}") },
            "stringData": { "uri": url }
        })
    };
    let task_queue = |number: usize| {
        serde_json::json!({
            "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": { "name": format!("queue-{number}") },
            "spec": {
                "database": { "secretRef": { "name": format!("db-{}", number % SECRETS) } },
                "workers": { "total": 1000, "perPod": 10, "autoscaling": { "scaleDownAfter": "1s" } },
                "template": { "spec": { "containers": [{ "name": "handler", "image": "handler:bench" }] } }
            }
        })
    };
    let items: Vec<_> = (0..SECRETS).map(secret).chain((0..queues).map(task_queue)).collect();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.kubectl(&["apply", "--server-side", "-n", NAMESPACE, "-f", "-"], &list.to_string()).await?;
    let made = cluster.kubectl(&["get", "tq", "-n", NAMESPACE, "-o", "name"], "").await?;
    ensure!(made.lines().count() == queues, "not all TaskQueues are there");
    Ok(())
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
