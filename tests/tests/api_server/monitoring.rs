//! What the chart and docs/observability.md give Prometheus and Grafana.

use rowlock_tests::checkout;
use serde_json::Value;

use crate::helm::objects_in;

fn of_kind(values: &str, kind: &str) -> Value {
    let objects = objects_in("ops", values);
    objects.into_iter().find(|one| one["kind"] == kind).unwrap()
}

/// The link to the runbooks in the dashboards of the chart.
fn runbooks_of_dashboards(alerts: &str, own: &str) -> Option<String> {
    let values = format!(
        "{{ alerts: {{ runbookUrl: '{alerts}' }}, dashboards: {{ enabled: true, runbookUrl: '{own}' }} }}"
    );
    let map = of_kind(&values, "ConfigMap");
    let text = map["data"]["rowlock-fleet.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let link = dashboard["links"].as_array().unwrap().iter().find(|link| link["type"] == "link")?;
    Some(link["url"].as_str().unwrap().to_owned())
}

/// Unless they have a link of their own, or the page of the alerts is not one for a browser.
#[test]
fn dashboards_link_to_the_page_of_the_alerts() {
    let page = "https://a.example/alerts";
    assert_eq!(runbooks_of_dashboards(page, "").as_deref(), Some(page));
    assert_eq!(runbooks_of_dashboards("http://a.example", "").as_deref(), Some("http://a.example"));
    assert_eq!(runbooks_of_dashboards(page, "http://b.example/b").as_deref(), Some("http://b.example/b"));
    assert_eq!(runbooks_of_dashboards("docs/alerts.md", ""), None);
}

/// Prometheus keeps a target only if the whole value matches.
#[test]
fn the_configuration_for_plain_prometheus_finds_the_operator() {
    let page = std::fs::read_to_string(checkout().join("docs/observability.md")).unwrap();
    let (_, rest) = page.split_once("```text\nscrape_configs:").unwrap();
    let text = format!("scrape_configs:{}", rest.split_once("```").unwrap().0);
    let configuration: Value = serde_yaml::from_str(&text).unwrap();
    let relabelings = configuration["scrape_configs"][0]["relabel_configs"].as_array().unwrap();
    let kept = |source: &str| {
        let from = serde_json::json!([format!("__meta_kubernetes_pod_{source}")]);
        let found = relabelings.iter().find(|one| one["source_labels"] == from);
        let found = found.unwrap_or_else(|| panic!("{source}: {relabelings:?}"));
        assert_eq!(found["action"], "keep", "{source}");
        found["regex"].clone()
    };
    let template = &of_kind("{}", "Deployment")["spec"]["template"];
    let label = kept("label_app_kubernetes_io_name");
    assert_eq!(label, template["metadata"]["labels"]["app.kubernetes.io/name"]);
    assert_eq!(kept("container_port_name"), template["spec"]["containers"][0]["ports"][0]["name"]);
}
