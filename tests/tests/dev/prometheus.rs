//! The Prometheus that other tests use to execute queries and rules.

use rowlock_tests::prometheus::Prometheus;
use serde_json::json;

const RULES: &str = r#"
groups:
  - name: one
    rules:
      - { record: doubled, expr: 2 * up }
      - { alert: Up, expr: up == 1, annotations: { summary: "{{ $labels.job }} is up" } }
"#;

#[tokio::test]
async fn prometheus_answers_queries_and_evaluates_rules() {
    let absent = json!([{ "job_name": "absent", "static_configs": [{ "targets": ["127.0.0.1:1"] }] }]);
    let first = Prometheus::start(&absent, &[RULES]).await.unwrap();
    let doubled = first.wait_for("doubled == 0").await.unwrap();
    assert_eq!((doubled.len(), doubled[0].labels["job"].as_str()), (1, "absent"));
    let refused = first.query("sum(").await.unwrap_err();
    assert!(format!("{refused:#}").contains("parse error"), "{refused:#}");
    assert!(first.alerts().await.unwrap().is_empty());

    let targets = json!([{ "job_name": "first", "static_configs": [{ "targets": [first.address()] }] }]);
    let second = Prometheus::start(&targets, &[RULES]).await.unwrap();
    second.wait_for("ALERTS{alertname=\"Up\",alertstate=\"firing\"}").await.unwrap();
    let alerts = second.alerts().await.unwrap();
    assert_eq!((alerts.len(), alerts[0].state.as_str()), (1, "firing"));
    assert_eq!(alerts[0].annotations["summary"], "first is up");
    assert_eq!(second.rule_groups().await.unwrap()["groups"][0]["name"], "one");
}

#[tokio::test]
async fn a_wrong_rule_file_is_refused_with_its_name() {
    let error = Prometheus::start(&json!([]), &["groups: 7"]).await.unwrap_err();
    assert!(format!("{error:#}").contains("rules-0.yaml"), "{error:#}");
}
