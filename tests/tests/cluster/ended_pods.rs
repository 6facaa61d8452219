//! A pod that has ended for good loses its leases at once.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use rowlock_tests::history::Demands;
use serde_json::json;

use crate::harness::{Harness, until, with_harness};

/// How many pods die, one after the other.
const DEATHS: usize = 6;

/// The longest median time from the end of a pod's last container until its leases have ended, less than
/// a lease. On a quiet machine it is about a second; here a whole cluster runs on two processors.
const MOST: Duration = Duration::from_secs(8);

/// Keeps the object of a pod after its end, so that the test reads when its containers ended.
const FINALIZER: &str = "rowlock.dev/test";

#[tokio::test(flavor = "multi_thread")]
async fn the_leases_of_a_dead_pod_end_with_it() -> Result<()> {
    with_harness("dead-pods", async |harness| {
        harness.task_queue(&json!({ "workers": { "autoscaling": { "min": 8 } } }))?;
        harness.wait_ready();
        let mut took = Vec::new();
        for _ in 0..DEATHS {
            harness.enqueue(8, &json!({ "ms": 8000 })).await?;
            let pod = busy_pod(harness).await?;
            took.extend(die(harness, &pod).await?);
        }
        eprintln!("dead-pods: after their last container ended, at most: {took:?}");
        // A worker whose handler ends first hands its tasks back and leaves. Then there is nothing to rescue.
        ensure!(!took.is_empty(), "no pod died with its leases");
        took.sort();
        ensure!(took[took.len() / 2] <= MOST, "{took:?}");
        harness.until_drained().await?;
        let summary = harness.check(Demands { drained: true, undisturbed: false }).await?;
        ensure!(summary.completed == 8 * DEATHS, "{summary}");
        Ok(())
    })
    .await
}

/// A pod whose instance holds tasks.
async fn busy_pod(harness: &Harness) -> Result<Pod> {
    until("a pod runs tasks", || async {
        for pod in harness.ready_pods().await? {
            let uid = pod.uid().context("a uid")?;
            let held = format!(
                "select count(*) from rowlock.lease l join rowlock.instance i on i.id = l.instance \
                 where i.pod = '{uid}'"
            );
            if 0 < harness.count(&held).await? {
                return Ok(pod);
            }
        }
        bail!("none does")
    })
    .await
}

/// Kills a pod before it has drained, by a short grace period. Returns how long its leases outlived its
/// containers, if it held some.
async fn die(harness: &Harness, pod: &Pod) -> Result<Option<Duration>> {
    let (name, uid) = (pod.name_any(), pod.uid().context("a uid")?);
    harness.failed(pod);
    let finalizers = |all: &[&str]| {
        let patch = json!({ "metadata": { "finalizers": all } }).to_string();
        harness.kubectl(&["patch", "pod", &name, "--type=merge", "-p", &patch]);
    };
    finalizers(&[FINALIZER]);
    harness.kubectl(&["delete", "pod", &name, "--grace-period=1", "--wait=false"]);
    let ended_at = until("the pod has ended", || async {
        let pods = harness.pods().await?;
        let left = pods.iter().find(|one| one.uid().as_ref() == Some(&uid)).context("the pod")?;
        last_end(left).context("a container runs")
    })
    .await?;
    let instance = |what: &str| format!("select {what} from rowlock.instance where pod = '{uid}'");
    let leases_ended_at = until("its leases have ended", || async {
        let query = instance("coalesce(max(extract(epoch from ended_at)) * 1000, 0)::bigint");
        let ended = harness.count(&query).await?;
        ensure!(ended > 0, "its instance lives");
        Ok(ended)
    })
    .await?;
    finalizers(&[]);
    let rescued = harness.count(&instance("count(*) filter (where gone)")).await?;
    let outlived = u64::try_from(leases_ended_at - ended_at * 1000).unwrap_or_default();
    Ok((rescued > 0).then(|| Duration::from_millis(outlived)))
}

/// When the last container of a pod ended, in seconds since 1970; `None` while one runs.
fn last_end(pod: &Pod) -> Option<i64> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let end = |one: &ContainerStatus| {
        Some(one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0.as_second())
    };
    all.map(end).collect::<Option<Vec<_>>>()?.into_iter().max()
}
