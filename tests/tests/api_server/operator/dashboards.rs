//! The chart's dashboards show data of a real operator, which a real Prometheus scrapes.

use rowlock_tests::dashboards::{missing_data, queries};
use rowlock_tests::prometheus::Prometheus;
use rowlock_tests::promql::Selector;
use serde_json::json;

use super::harness::{EMAILS, Harness, until_async};

/// Scrapes are a second apart, so that it has several of them.
const RATE_INTERVAL: &str = "30s";

/// No kubelet runs here, so there are no workers.
fn is_exported(selector: &Selector) -> bool {
    !selector.metric.starts_with("rowlock_worker_")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_a_dashboard_about_the_operator_has_data() {
    let harness = Harness::new("dashboards").await;
    harness.task_queue("emails", EMAILS);
    let (operator, pages) = harness.operator_with_pages().await;
    harness.until("DatabaseReachable", "True Succeeded").await;
    // As docs/observability.md says: the label namespace is that of the TaskQueue.
    let targets = json!([{ "targets": [pages], "labels": { "pod": "operator-0" } }]);
    let jobs = json!([{ "job_name": "operator", "honor_labels": true, "static_configs": targets }]);
    let prometheus = Prometheus::start(&jobs, &[]).await.unwrap();
    for query in queries() {
        let expression = query.filled_in(&harness.namespace, "mail", RATE_INTERVAL);
        until_async(&query.place, || async {
            let missing = missing_data(&prometheus, &expression, is_exported).await;
            missing.unwrap().map_or(Ok(()), Err)
        })
        .await;
    }
    operator.stop().await;
}
