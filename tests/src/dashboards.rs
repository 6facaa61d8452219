//! The queries of the chart's dashboards, and the metrics of docs/observability.md that they may use.
#![expect(clippy::panic, reason = "a file is wrong where it stands")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout;
use crate::prometheus::Prometheus;
use crate::promql::{Selector, grouping_labels, selectors};

/// A query of a panel or of a variable.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where it is, for messages.
    pub place: String,
    /// With the variables of Grafana.
    pub expression: String,
    /// Whether its panel says why there are no data.
    pub may_be_empty: bool,
}

/// All queries of the dashboards of the chart.
///
/// # Panics
/// If a file is missing or is not a dashboard.
#[must_use]
pub fn queries() -> Vec<Query> {
    let folder = checkout().join("charts/rowlock/dashboards");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of the folder").path())
        .collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let file = path.file_name().expect("it is a file").to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("the dashboard can be read");
        let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        found.extend(of_dashboard(&file, &dashboard));
    }
    assert!(found.len() > 50, "only {} queries in {}", found.len(), folder.display());
    found
}

fn of_dashboard(file: &str, dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            found.push(Query {
                place: format!("{file}: {}, query {}", text(&panel["title"]), text(&target["refId"])),
                expression: text(&target["expr"]),
                may_be_empty: panel["fieldConfig"]["defaults"]["noValue"].is_string(),
            });
        }
    }
    for variable in list(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            let place = format!("{file}: variable {}", text(&variable["name"]));
            let query = text(&variable["query"]["query"]);
            // Grafana asks for the values of a label; an expression that needs the same series and label.
            let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let split = arguments.and_then(|arguments| arguments.rsplit_once(", "));
            let (series, label) = split.unwrap_or_else(|| panic!("{place}: {query:?} is not label_values"));
            let expression = format!("count by ({label}) ({series})");
            found.push(Query { place, expression, may_be_empty: false });
        }
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} should be a text")).to_owned()
}

impl Query {
    /// With values for its variables, as Grafana fills them in: All of the namespaces where several may be
    /// selected, and a window of four scrapes.
    #[must_use]
    pub fn filled_in(&self, namespace: &str, queue: &str, rate_interval: &str) -> String {
        self.expression
            .replace("=~\"$namespace\"", "=~\".*\"")
            .replace("$namespace", namespace)
            .replace("$queue", queue)
            .replace("$__rate_interval", rate_interval)
    }
}

/// What a query lacks, if Prometheus has no data for it. Every series of the query must exist by itself,
/// since a query may fill in a zero.
///
/// `is_exported`: whether the processes that are scraped export these series. If a query needs others, too,
/// it is only evaluated.
///
/// # Errors
/// If Prometheus refuses the expression.
pub async fn missing_data(
    prometheus: &Prometheus,
    expression: &str,
    is_exported: impl Fn(&Selector) -> bool,
) -> Result<Option<String>> {
    let found = prometheus.query(expression).await.with_context(|| expression.to_owned())?;
    let used = selectors(expression);
    for selector in used.iter().filter(|one| is_exported(one)) {
        // Also series of a worker that has ended since.
        let series = format!("count(last_over_time({}[10m]))", without_states(selector));
        if prometheus.query(&series).await?.is_empty() {
            return Ok(Some(format!("no series {selector}")));
        }
    }
    let is_missing = found.is_empty() && used.iter().all(is_exported);
    Ok(is_missing.then(|| format!("no data for {expression}")))
}

/// Without what depends on the day: a condition has one status at a time.
fn without_states(selector: &Selector) -> Selector {
    let mut found = selector.clone();
    found.matchers.retain(|one| one.label != "status" && !one.operator.starts_with('!'));
    found
}

/// The metrics that the page lists, with their labels. Tests of worker and operator compare it with what they
/// export.
#[derive(Debug, Clone)]
pub struct Documented(BTreeMap<String, BTreeSet<String>>);

/// Labels that Prometheus adds to each series: where it was scraped. Workers do not know their namespace.
const TARGET_LABELS: [&str; 4] = ["namespace", "pod", "instance", "job"];

impl Documented {
    /// From the text of docs/observability.md.
    #[must_use]
    pub fn of(page: &str) -> Self {
        let mut metrics = BTreeMap::new();
        for line in page.lines() {
            let mut cells = line.strip_prefix("| `").unwrap_or_default().split("` | ");
            let (Some(metric), Some(rest)) = (cells.next(), cells.next()) else { continue };
            let (name, labels) = metric.trim_end_matches('}').split_once('{').unwrap_or((metric, ""));
            let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned);
            let mut labels: BTreeSet<String> = labels.collect();
            labels.extend(TARGET_LABELS.map(str::to_owned));
            if name.starts_with("rowlock_worker_") {
                labels.insert("queue".to_owned());
            }
            match rest.split(" |").next().unwrap_or_default() {
                "gauge" | "counter" => {
                    metrics.insert(name.to_owned(), labels);
                }
                "histogram" => {
                    for part in ["_sum", "_count"] {
                        metrics.insert(format!("{name}{part}"), labels.clone());
                    }
                    labels.insert("le".to_owned());
                    metrics.insert(format!("{name}_bucket"), labels);
                }
                _ => {}
            }
        }
        Self(metrics)
    }

    /// The same without a metric.
    #[must_use]
    pub fn without(&self, metric: &str) -> Self {
        let mut fewer = self.clone();
        fewer.0.remove(metric);
        fewer
    }

    /// The same without a label of a metric.
    #[must_use]
    pub fn without_label(&self, metric: &str, label: &str) -> Self {
        let mut fewer = self.clone();
        if let Some(labels) = fewer.0.get_mut(metric) {
            labels.remove(label);
        }
        fewer
    }

    /// What is in an expression and not on the page.
    #[must_use]
    pub fn unknown_names(&self, expression: &str) -> Vec<String> {
        let used = selectors(expression);
        if used.is_empty() {
            return vec!["it has no metric of Rowlock's".to_owned()];
        }
        let mut unknown: Vec<String> = used.iter().flat_map(|one| self.unknown_in(one)).collect();
        let labels: BTreeSet<&String> =
            used.iter().filter_map(|one| self.0.get(&one.metric)).flatten().collect();
        for label in grouping_labels(expression) {
            if !labels.contains(&label) {
                unknown.push(format!("none of its metrics has the label {label}"));
            }
        }
        unknown
    }

    fn unknown_in(&self, selector: &Selector) -> Vec<String> {
        let metric = &selector.metric;
        let Some(labels) = self.0.get(metric) else {
            return vec![format!("the metric {metric} is not in docs/observability.md")];
        };
        let labels_of = selector.matchers.iter().map(|one| &one.label);
        let unknown = labels_of.filter(|label| !labels.contains(*label));
        unknown.map(|label| format!("{metric} has no label {label} in docs/observability.md")).collect()
    }
}
