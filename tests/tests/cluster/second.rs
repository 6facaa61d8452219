//! Two control planes on one database.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;
use rowlock_tests::printed_command;
use serde_json::{Value, json};
use url::Url;

use crate::cluster::{Cluster, Own, bare, cluster, install};
use crate::kubectl;
use crate::lan::Way;
use crate::stage::{ENTRY, NAME, Stage, on_stage, until};

/// Enough that some are left for the second cluster, whenever the first one's pods are gone.
const MANY: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_one_clusters_until_the_other_is_told_to_take_it() -> Result<()> {
    on_stage("second", async |stage| {
        if cluster().own().is_none() {
            return Ok(());
        }
        let second = tokio::task::spawn_blocking(|| {
            let second = bare("second")?;
            install(&second).map(|()| second)
        });
        let other = Other { cluster: second.await??, namespace: &stage.namespace };
        let played = play(stage, &other).await;
        tokio::task::block_in_place(|| other.cluster.own().map_or(Ok(()), Own::down))?;
        played
    })
    .await
}

/// The same namespace on the second cluster.
struct Other<'a> {
    cluster: Cluster,
    namespace: &'a str,
}

impl Other<'_> {
    fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let args = [args, &["-n", self.namespace]].concat();
        let run = || kubectl::run(&self.cluster.kubectl, &self.cluster.kubeconfig, &args, input);
        tokio::task::block_in_place(run).map_err(anyhow::Error::msg)
    }

    fn apply(&self, manifest: &Value) -> Result<()> {
        self.kubectl(&["apply", "-f", "-"], &manifest.to_string()).map(drop)
    }
}

async fn play(stage: &Stage, other: &Other<'_>) -> Result<()> {
    stage.task_queue(&json!({}))?;
    stage.wait_ready();
    let port = Url::parse(&stage.url)?.port().context("the server's port")?;
    let way = Way::to(&other.cluster.lan, port)?;
    declare(stage, other, way.at)?;
    other.kubectl(&["wait", "--for=condition=Stalled", &format!("tq/{NAME}"), "--timeout=180s"], "")?;
    let said = other.kubectl(&["describe", "tq"], "")?;
    ensure!(said.contains("OwnedByAnother"), "{said}");
    stage.enqueue(100, &json!({})).await?;
    stage.until_drained().await?;
    let found = other.kubectl(&["get", "pods", "-o", "name"], "")?;
    ensure!(found.is_empty(), "both work on it: {found}");
    stage.enqueue(MANY, &json!({ "ms": 500 })).await?;
    stage.until_pods(2).await?;
    // The command that the condition prints.
    let words = printed_command(&said, "annotate");
    other.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
    stage.until_condition("Stalled", "True OwnedByAnother").await?;
    stage.until_no_pods().await?;
    ensure!(0 < stage.open().await?, "nothing was left for the second one");
    stage.until_drained().await?;
    until("the pods of the second one are gone", || async {
        let found = other.kubectl(&["get", "pods", "-o", "name"], "")?;
        ensure!(found.is_empty(), "{found}");
        Ok(())
    })
    .await?;
    let summary = stage.check(Demands { drained: true, undisturbed: true }).await?;
    ensure!((summary.completed, summary.failures) == (100 + MANY, 0), "{summary}");
    Ok(())
}

/// The `TaskQueue` of the first cluster, with the same database.
fn declare(stage: &Stage, other: &Other<'_>, database: SocketAddr) -> Result<()> {
    other.kubectl(&["create", "namespace", other.namespace], "")?;
    other.kubectl(&ENTRY, "")?;
    let owner = stage.namespace.replace('-', "_");
    let uri = format!("postgres://{owner}:{owner}@{database}/{owner}");
    other.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "db" }, "stringData": { "uri": uri } }))?;
    let journal = stage.journal.reached_from(&other.cluster.lan)?;
    let handler = stage.handler(&json!({ "env": [{ "name": "JOURNAL", "value": journal.to_string() }] }));
    let spec = stage.spec(&json!({ "template": { "spec": { "containers": [handler] } } }));
    other.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "metadata": { "name": NAME }, "spec": spec }))
}
