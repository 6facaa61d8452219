//! Nothing to do means no request.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{OPERATOR, cluster};
use crate::stage::{Stage, on_stage};

const QUIET: Duration = Duration::from_mins(1);

const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_minute_has_no_write_and_nothing_was_ever_refused() -> Result<()> {
    on_stage("quiet", async |stage| {
        let Some(own) = cluster().own() else { return Ok(()) };
        let audit = own.state.join("audit.log");
        stage.task_queue(&json!({ "workers": { "autoscaling": { "min": 4 } } }))?;
        stage.wait_ready();
        stage.enqueue(100, &json!({})).await?;
        stage.until_drained().await?;
        stage.until_condition("HandlerHealthy", "True Succeeded").await?;
        stage.until_condition("Reconciling", "False Succeeded").await?;
        stage.until_replicas(|replicas| replicas == 1).await?;
        // The last numbers may still be on their way.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let before = requests(stage, &audit)?.len();
        tokio::time::sleep(QUIET).await;
        let all = requests(stage, &audit)?;
        let wrote: Vec<&Value> = all[before..].iter().filter(|request| is_write(request)).collect();
        ensure!(wrote.is_empty(), "{wrote:#?}");
        ensure!(0 < before, "the operator is not in the audit log");
        let refused: Vec<&Value> =
            all.iter().filter(|request| request["responseStatus"]["code"] == 403).collect();
        ensure!(refused.is_empty(), "{refused:#?}");
        Ok(())
    })
    .await
}

/// What the operator asked for in the namespace.
fn requests(stage: &Stage, audit: &std::path::Path) -> Result<Vec<Value>> {
    let user = format!("system:serviceaccount:{OPERATOR}:rowlock-operator");
    let mut found = Vec::new();
    for line in BufReader::new(File::open(audit)?).lines() {
        let line = line?;
        if line.contains(&user) && line.contains(&stage.namespace) {
            // The last line may not be whole yet.
            found.extend(serde_json::from_str::<Value>(&line));
        }
    }
    Ok(found.into_iter().filter(|request| request["objectRef"]["namespace"] == stage.namespace).collect())
}

fn is_write(request: &Value) -> bool {
    request["verb"].as_str().is_some_and(|verb| WRITES.contains(&verb))
}
