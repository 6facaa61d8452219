//! The chart's dashboards show data: a real Prometheus that scrapes `rowlock dev` answers each of their
//! queries.

use std::time::Instant;

use rowlock_tests::dashboards::{Query, missing_data, queries};
use rowlock_tests::prometheus::Prometheus;
use rowlock_tests::promql::Selector;
use rowlock_tests::{TestDb, server};
use serde_json::json;

use crate::harness::{Home, TIMEOUT};

/// Scrapes are a second apart, so that it has several of them.
const RATE_INTERVAL: &str = "30s";

/// The rest is exported by an operator in a cluster: the API server tier queries it.
fn is_exported(selector: &Selector) -> bool {
    let is_of_operator =
        |metric: &str| metric.starts_with("rowlock_operator_") || metric == "rowlock_task_queue_condition";
    !is_of_operator(&selector.metric) && selector.matchers.iter().all(|one| one.value != "operator")
}

/// A task that completes, one that fails and waits for its retry, and one that is dead at once.
const LOAD: &str = "
select rowlock.enqueue('mail', 'send', '{\"do\": \"ok\"}'),
       rowlock.enqueue('mail', 'bill', '{\"do\": \"fail\"}'),
       rowlock.enqueue('mail', 'bill', '{\"do\": \"fail\"}', '{\"max_attempts\": 1}')";

#[tokio::test]
async fn every_query_of_a_dashboard_has_data_at_zero_and_while_tasks_run_and_fail() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let mut dev = home.begin(&[]);
    let line = dev.wait_for("metrics   http://");
    let address = line.split("http://").nth(1).and_then(|url| url.split('/').next()).unwrap();
    let workers = format!("http://{address}/targets");
    let jobs = json!([
        { "job_name": "dev", "static_configs": [{ "targets": [address] }] },
        { "job_name": "workers", "http_sd_configs": [{ "url": workers, "refresh_interval": "1s" }] },
    ]);
    let prometheus = Prometheus::start(&jobs, &[]).await.unwrap();
    // With `rowlock dev` no series has a namespace.
    let filled_in = |query: &Query| query.filled_in("", "mail", RATE_INTERVAL);
    let all = queries();
    for query in all.iter().filter(|one| !one.may_be_empty) {
        let found = prometheus.wait_for(&filled_in(query)).await;
        found.unwrap_or_else(|error| panic!("{}: nothing is shown at zero: {error:#}", query.place));
    }
    home.edit("min: 0", "min: 1");
    let mut waiting: Vec<&Query> = all.iter().collect();
    let since = Instant::now();
    while !waiting.is_empty() {
        test.run(LOAD).await;
        let (mut still, mut said) = (Vec::new(), Vec::new());
        for query in waiting {
            let missing = missing_data(&prometheus, &filled_in(query), is_exported).await;
            if let Some(what) = missing.unwrap_or_else(|error| panic!("{}: {error:#}", query.place)) {
                said.push(format!("{}: {what}", query.place));
                still.push(query);
            }
        }
        assert!(
            since.elapsed() < TIMEOUT || still.is_empty(),
            "not within {TIMEOUT:?}:\n{}",
            said.join("\n")
        );
        waiting = still;
    }
    dev.stop();
}
