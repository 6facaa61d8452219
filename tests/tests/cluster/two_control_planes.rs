//! Two control planes on one database.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use rowlock_tests::history::Demands;
use rowlock_tests::printed_command;
use serde_json::{Value, json};
use url::Url;

use crate::cluster::{Cluster, Own, bare, cluster, install};
use crate::harness::{ENTRY, Harness, NAME, until, with_harness};
use crate::kubectl;
use crate::pod_network::Route;

/// Enough tasks that some remain for the second cluster when the first one's pods have ended.
const MANY: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_belongs_to_one_cluster_until_another_adopts_it() -> Result<()> {
    with_harness("second", async |harness| {
        if cluster().own().is_none() {
            return Ok(());
        }
        let second = tokio::task::spawn_blocking(|| {
            let second = bare("second")?;
            install(&second).map(|()| second)
        });
        let other = Other { cluster: second.await??, namespace: &harness.namespace };
        let result = test(harness, &other).await;
        tokio::task::block_in_place(|| other.cluster.own().map_or(Ok(()), Own::down))?;
        result
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

async fn test(harness: &Harness, other: &Other<'_>) -> Result<()> {
    harness.task_queue(&json!({}))?;
    harness.wait_ready();
    let port = Url::parse(&harness.url)?.port().context("the server's port")?;
    let route = Route::to(&other.cluster.pod_network, port)?;
    declare(harness, other, route.at)?;
    other.kubectl(&["wait", "--for=condition=Stalled", &format!("tq/{NAME}"), "--timeout=180s"], "")?;
    let message = other.kubectl(&["describe", "tq"], "")?;
    ensure!(message.contains("OwnedByAnother"), "{message}");
    harness.enqueue(100, &json!({})).await?;
    harness.until_drained().await?;
    let found = other.kubectl(&["get", "pods", "-o", "name"], "")?;
    ensure!(found.is_empty(), "both process the queue: {found}");
    harness.enqueue(MANY, &json!({ "ms": 500 })).await?;
    harness.until_pods(2).await?;
    // The command that the condition prints.
    let words = printed_command(&message, "annotate");
    other.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
    harness.until_condition("Stalled", "True OwnedByAnother").await?;
    harness.until_no_pods().await?;
    ensure!(0 < harness.open().await?, "no task was left for the second cluster");
    harness.until_drained().await?;
    until("the pods of the second one are gone", || async {
        let found = other.kubectl(&["get", "pods", "-o", "name"], "")?;
        ensure!(found.is_empty(), "{found}");
        Ok(())
    })
    .await?;
    let summary = harness.check(Demands { drained: true, undisturbed: true }).await?;
    ensure!((summary.completed, summary.failures) == (100 + MANY, 0), "{summary}");
    Ok(())
}

/// The `TaskQueue` of the first cluster, with the same database.
fn declare(harness: &Harness, other: &Other<'_>, database: SocketAddr) -> Result<()> {
    other.kubectl(&["create", "namespace", other.namespace], "")?;
    other.kubectl(&ENTRY, "")?;
    let owner = harness.namespace.replace('-', "_");
    let uri = format!("postgres://{owner}:{owner}@{database}/{owner}");
    other.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "db" },
        "stringData": { "uri": uri } }))?;
    let journal = harness.journal.reached_from(&other.cluster.pod_network)?;
    let handler = harness.handler(&json!({ "env": [{ "name": "JOURNAL", "value": journal.to_string() }] }));
    let spec = harness.spec(&json!({ "template": { "spec": { "containers": [handler] } } }));
    other.apply(&json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": { "name": NAME }, "spec": spec }))
}
