//! The alerts of the chart: each has a section in docs/alerts.md, uses only metrics that exist, and fires and
//! resolves in a scenario of tests/alerts.

use std::collections::{BTreeMap, BTreeSet};

use rowlock_crds::{ConditionReason, ConditionType};
use rowlock_tests::alertmanager::Alertmanager;
use rowlock_tests::alerts::{RULES, Rule, RuleFile, Selector, run_tool};
use rowlock_tests::checkout;
use serde_yaml::Value;

/// Prometheus adds these, as docs/observability.md configures it.
const TARGET_LABELS: [&str; 4] = ["namespace", "pod", "instance", "job"];

const SCENARIOS: &str = "tests/alerts";

fn read(path: &str) -> String {
    std::fs::read_to_string(checkout().join(path)).unwrap()
}

fn rules() -> Vec<Rule> {
    RuleFile::read().unwrap().rules().cloned().collect()
}

#[test]
fn every_alert_has_a_section_that_says_what_to_do_and_every_section_an_alert() {
    let page = read("docs/alerts.md");
    let mut sections: BTreeMap<&str, &str> =
        page.split("\n## Rowlock").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    for rule in rules() {
        let name = rule.alert.as_str();
        let section = sections.remove(name.trim_start_matches("Rowlock"));
        let section = section.unwrap_or_else(|| panic!("docs/alerts.md has no section {name}"));
        let severity = &rule.labels["severity"];
        assert!(section.trim_start().starts_with(&format!("*{severity}.* ")), "{name}");
        for part in ["Means", "Look", "Do", "May wait"] {
            assert!(section.contains(&format!("\n- **{part}:** ")), "{name} does not say: {part}");
        }
        let link = format!("docs/alerts.md#{}", name.to_lowercase());
        assert_eq!(rule.annotations.get("runbook_url"), Some(&link));
        for text in ["summary", "description"] {
            assert!(rule.annotations.get(text).is_some_and(|text| !text.is_empty()), "{name}: {text}");
        }
    }
    assert!(sections.is_empty(), "there are no alerts {:?}", sections.keys());
}

/// The metrics of docs/observability.md, which unit tests compare with the registries, and their labels.
fn documented_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/observability.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let (metric, kind) = (cells.next()?.trim_end_matches('`'), cells.next()?);
        let (name, labels) = metric.trim_end_matches('}').split_once('{').unwrap_or((metric, ""));
        let mut labels: BTreeSet<String> = labels.split(',').map(str::to_owned).collect();
        if name.starts_with("rowlock_worker_") {
            labels.insert("queue".to_owned());
        }
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
        Some(
            suffixes
                .iter()
                .map(move |suffix| (format!("{name}{suffix}"), labels.clone()))
                .collect::<Vec<_>>(),
        )
    });
    rows.flatten().collect()
}

#[test]
fn every_metric_and_label_of_an_alert_is_exported() {
    let metrics = documented_metrics();
    for rule in rules() {
        let selectors = rule.selectors();
        assert!(!selectors.is_empty(), "{}", rule.alert);
        let mut known: BTreeSet<&str> = TARGET_LABELS.into();
        for Selector { metric, matchers } in &selectors {
            let labels = metrics.get(metric).unwrap_or_else(|| panic!("{}: {metric}", rule.alert));
            for (label, ..) in matchers {
                assert!(labels.contains(label), "{}: {metric} has no label {label}", rule.alert);
            }
            known.extend(labels.iter().map(String::as_str));
        }
        let grouping = rule.grouping_labels();
        for label in &grouping {
            assert!(known.contains(label), "{}: no metric has the label {label}", rule.alert);
        }
        // A text that names a label which the alert does not have would show nothing.
        for text in rule.annotations.values() {
            for rest in text.split("$labels.").skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                assert!(grouping.contains(&&rest[..end]), "{}: $labels.{}", rule.alert, &rest[..end]);
            }
        }
    }
}

/// The values that a scrape of `rowlock dev` cannot show: those of conditions.
#[test]
fn every_condition_and_reason_of_an_alert_exists() {
    let types = ConditionType::ALL.map(ConditionType::as_str);
    let reasons = ConditionReason::ALL.map(ConditionReason::as_str);
    let mut checked = 0;
    for rule in rules() {
        let conditions = rule.selectors().into_iter().filter(|one| one.metric.ends_with("_condition"));
        for (label, _, value) in conditions.flat_map(|one| one.matchers) {
            let known: &[&str] = match label.as_str() {
                "type" => &types,
                "reason" => &reasons,
                _ => &["True", "False"],
            };
            assert!(value.split('|').all(|one| known.contains(&one)), "{}: {label}={value}", rule.alert);
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

/// The thresholds in the rules, each in a line that ends in its name as a comment.
fn thresholds() -> BTreeMap<String, f64> {
    let lines: Vec<String> = rules().iter().flat_map(|rule| rule.expr.lines().map(str::to_owned)).collect();
    let marked = lines.iter().filter_map(|line| line.rsplit_once(" # "));
    let found = marked.map(|(expression, name)| {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let start = expression.find(is_number).unwrap();
        let number: String = expression[start..].chars().take_while(|c| is_number(*c)).collect();
        (name.to_owned(), number.parse().unwrap())
    });
    found.collect()
}

#[test]
fn the_thresholds_in_the_rules_are_those_of_the_charts_values() {
    let values: Value = serde_yaml::from_str(&read("charts/rowlock/values.yaml")).unwrap();
    let values: BTreeMap<String, f64> =
        serde_yaml::from_value(values["alerts"]["thresholds"].clone()).unwrap();
    assert_eq!(thresholds(), values);
    let page = read("docs/alerts.md");
    for name in values.keys() {
        assert!(page.contains(&format!("(`{name}`)")), "docs/alerts.md does not name the threshold {name}");
    }
}

/// promtool runs the scenarios. Each alert has one in which it fires; what is listed there fires, and nothing
/// else.
#[test]
fn every_alert_fires_and_resolves_in_its_scenario() {
    let folder = std::fs::read_dir(checkout().join(SCENARIOS)).unwrap();
    let mut files: Vec<String> =
        folder.map(|file| format!("{SCENARIOS}/{}", file.unwrap().file_name().to_string_lossy())).collect();
    files.sort();
    let text: String = files.iter().map(|file| read(file)).collect();
    for rule in rules() {
        let labels = format!("alertname=\"{}\",alertstate=\"firing\"", rule.alert);
        assert!(text.contains(&labels), "{SCENARIOS} has no scenario in which {} fires", rule.alert);
    }
    run_tool("promtool", &["check", "rules", "--lint=all", RULES], "").unwrap();
    let mut arguments = vec!["test", "rules"];
    arguments.extend(files.iter().map(String::as_str));
    run_tool("promtool", &arguments, "").unwrap();
}

/// The configuration in docs/alerts.md.
fn routing() -> String {
    let page = read("docs/alerts.md");
    let (_, rest) = page.split_once("```text\nroute:").unwrap();
    format!("route:{}", rest.split_once("```").unwrap().0)
}

#[test]
fn alertmanager_accepts_the_routing_and_sends_each_severity_to_its_receiver() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), routing()).unwrap();
    let path = file.path().to_str().unwrap();
    run_tool("amtool", &["check-config", path], "").unwrap();
    let option = format!("--config.file={path}");
    for (severity, receiver) in [("critical", "on-call"), ("warning", "team"), ("info", "nobody")] {
        let labels = format!("severity={severity}");
        let arguments = [
            "config",
            "routes",
            "test",
            &option,
            &format!("--verify.receivers={receiver}"),
            "alertname=RowlockX",
        ];
        run_tool("amtool", &[&arguments[..], &[&labels]].concat(), "").unwrap();
    }
    // An inhibition that names no alert would do nothing.
    let names: Vec<String> = rules().into_iter().map(|rule| rule.alert).collect();
    for name in routing().split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(names.iter().any(|known| known == name), "there is no alert {name}");
    }
}

/// Everything that an outage of one queue's database causes is silent, and other queues are not.
#[test]
fn alertmanager_silences_what_follows_from_something_else() {
    let alertmanager = Alertmanager::start(&routing()).unwrap();
    let fire = |name: &str, queue: &str, namespace: &str| {
        let labels =
            [&format!("alertname={name}"), &format!("queue={queue}"), &format!("namespace={namespace}")];
        alertmanager.fire(&labels.map(String::as_str)).unwrap();
    };
    for name in ["RowlockQueueAsleep", "RowlockQueueStuck", "RowlockQueueLate"] {
        fire(name, "mail", "shop");
        fire(name, "other", "shop");
    }
    let asleep = [("RowlockQueueAsleep", "mail"), ("RowlockQueueAsleep", "other")];
    alertmanager.wait_for_active(&asleep).unwrap();
    for name in ["RowlockQueueNotReady", "RowlockHandlerUnhealthy", "RowlockQueueStalled"] {
        fire(name, "mail", "shop");
    }
    alertmanager.wait_for_active(&[("RowlockQueueNotReady", "mail"), asleep[1]]).unwrap();
    fire("RowlockWorkerHeartbeatLate", "mail", "shop");
    fire("RowlockDatabaseUnreachable", "mail", "shop");
    let database = ("RowlockDatabaseUnreachable", "mail");
    alertmanager.wait_for_active(&[database, asleep[1]]).unwrap();
    fire("RowlockQueueNotReady", "mail", "another-namespace");
    alertmanager.wait_for_active(&[database, asleep[1], ("RowlockQueueNotReady", "mail")]).unwrap();
}
