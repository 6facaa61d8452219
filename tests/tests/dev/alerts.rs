//! `rowlock dev` scraped by a real Prometheus, which evaluates the alerts of the chart.

use std::io::{Read, Write};
use std::net::TcpStream;

use rowlock_tests::alerts::{OPERATOR_GROUP, RULES, Rule, RuleFile, Selector, check_metrics};
use rowlock_tests::prometheus::Prometheus;
use rowlock_tests::{TestDb, checkout, server};
use serde_json::{Value, json};

use crate::harness::{Home, eventually, until};

/// A queue whose handler never listens.
const DEAF: &str = "apiVersion: rowlock.dev/v1alpha1
kind: TaskQueue
metadata:
  name: deaf
  annotations: { rowlock.dev/dev-command: exec sleep 1000 }
spec:
  workers: { total: 1 }
";

/// The groups that need no operator, as docs/observability.md says, without waiting: no `for`, windows of
/// 15 s, offsets of 5 s.
fn impatient_rules() -> String {
    let text = std::fs::read_to_string(checkout().join(RULES)).unwrap();
    let mut rules: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let groups = rules["groups"].as_sequence_mut().unwrap();
    groups.retain(|group| group["name"] != OPERATOR_GROUP);
    for group in groups {
        for rule in group["rules"].as_sequence_mut().unwrap() {
            rule.as_mapping_mut().unwrap().remove("for");
            let expr = rule["expr"].as_str().unwrap();
            let windows = ["[5m]", "[10m]", "[15m]"];
            let expr = expr.replace("offset 5m", "offset 5s");
            let expr = windows.iter().fold(expr, |expr, window| expr.replace(window, "[15s]"));
            rule["expr"] = expr.replace(">= 10 # failedAttempts", ">= 1 # failedAttempts").into();
        }
    }
    serde_yaml::to_string(&rules).unwrap()
}

/// As docs/observability.md says, but once a second.
fn scrape_configs(address: &str) -> Value {
    let targets = json!({ "url": format!("http://{address}/targets"), "refresh_interval": "1s" });
    json!([
        { "job_name": "rowlock-dev", "static_configs": [{ "targets": [address] }] },
        { "job_name": "rowlock-workers", "http_sd_configs": [targets] },
    ])
}

/// The address in the line that `rowlock dev` prints.
fn address(line: &str) -> String {
    let (_, rest) = line.split_once("http://").unwrap();
    rest.split('/').next().unwrap().trim().to_owned()
}

/// One query for each value that a regular expression lists: each of them must exist.
fn queries(Selector { metric, matchers }: &Selector) -> Vec<String> {
    let positive = matchers.iter().filter(|(_, operator, _)| operator.starts_with('='));
    positive.fold(vec![format!("{metric}{{")], |queries, (label, _, value)| {
        let with_value =
            |query: &String| value.split('|').map(|one| format!("{query}{label}=\"{one}\",")).collect();
        queries.iter().flat_map::<Vec<String>, _>(with_value).collect()
    })
}

/// Whether `rowlock dev` has the metric, and soon: an operator alone has conditions, and partitions are read
/// once a minute.
fn is_here(metric: &str) -> bool {
    ["rowlock_operator_", "rowlock_task_queue_", "_partitions_left_"]
        .iter()
        .all(|part| !metric.contains(part))
}

/// Waits until an alert fires, or has fired: with short windows it resolves soon.
async fn fires(prometheus: &Prometheus, alert: &str, queue: &str) {
    let series = format!("ALERTS{{alertname=\"{alert}\",queue=\"{queue}\",alertstate=\"firing\"}}");
    prometheus.wait_for(&format!("last_over_time({series}[10m])")).await.unwrap();
}

/// Each expression finds its series and evaluates. Nothing fires for a healthy queue. Failing tasks, and a
/// handler that never listens, make their alerts fire.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_evaluates_the_alerts_on_rowlock_dev() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.edit("min: 0", "min: 1");
    home.edit("spec:\n", "spec:\n  retry: { maxAttempts: 3, backoff: { fixed: 2s } }\n");
    let mut dev = home.begin(&[]);
    let own = address(&dev.wait_for("metrics   http://"));
    let prometheus = Prometheus::start(&scrape_configs(&own), &[&impatient_rules()]).await.unwrap();
    let instance = eventually("an instance is listed", || {
        let targets: Value = serde_json::from_str(&page(&own, "/targets")).ok()?;
        targets[0]["targets"][0].as_str().map(str::to_owned)
    });
    let task = home.enqueue("ok");
    until("the task is done", || home.state(&task) == "completed");
    for address in [&own, &instance] {
        check_metrics(&page(address, "/metrics")).unwrap();
    }
    let rules = RuleFile::read().unwrap();
    let selectors = rules.rules().flat_map(Rule::selectors).filter(|one| is_here(&one.metric));
    for query in selectors.flat_map(|one| queries(&one)) {
        prometheus.wait_for(&format!("{query}}}")).await.unwrap();
    }
    prometheus.wait_for("absent(ALERTS{alertstate=\"firing\"})").await.unwrap();

    home.write("deaf.yaml", DEAF);
    home.enqueue("fail");
    until("the queue is declared", || home.run(&["enqueue", "deaf", "send", "{}"]).code == 0);
    fires(&prometheus, "RowlockHandlerFailing", "mail").await;
    fires(&prometheus, "RowlockTasksDying", "mail").await;
    fires(&prometheus, "RowlockQueueAsleep", "deaf").await;
    fires(&prometheus, "RowlockHandlerClosed", "deaf").await;
    let groups = prometheus.rule_groups().await.unwrap();
    let groups = groups["groups"].as_array().unwrap().iter();
    let evaluated: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(evaluated.len() > 20, "{evaluated:?}");
    for rule in evaluated {
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule}");
    }
    dev.stop();
}

/// The body of a page.
fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
