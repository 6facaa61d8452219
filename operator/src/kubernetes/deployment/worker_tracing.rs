//! Traces of the workers: the variables of `OpenTelemetry` that the platform gives them.

use rowlock_crds::env;
use serde_json::{Value, json};

use crate::kubernetes::deployment::inherited_metadata::StringMap;

/// All variables of `OpenTelemetry` begin with it.
const PREFIX: &str = "OTEL_";
/// Attributes of the process that makes spans, such as its pod.
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The address of a pod's node, for a collector on each node, and the reference to it in a variable.
const HOST_IP: &str = "HOST_IP";
const HOST_IP_REFERENCE: &str = "$(HOST_IP)";

/// Parses the variables of a flag: a JSON object of strings. Variables that would end every worker are an
/// error.
pub(crate) fn parse(text: &str) -> Result<StringMap, String> {
    let all: StringMap =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object of strings: {error}"))?;
    let is_word = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some(name) = all.keys().find(|name| !name.starts_with(PREFIX) || !is_word(name)) {
        return Err(format!("`{name}` is no variable of OpenTelemetry: its name must begin with {PREFIX}"));
    }
    let value = |name: &str| all.get(name).map(String::as_str);
    rowlock_daemon::check_sampler(value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"))?;
    match all.get(env::OTLP_ENDPOINT) {
        None if all.is_empty() => Ok(all),
        None => Err(format!("{} is missing: workers would export nothing", env::OTLP_ENDPOINT)),
        Some(url) if on_some_node(url).contains("$(") => {
            Err(format!("{} may refer only to {HOST_IP_REFERENCE}", env::OTLP_ENDPOINT))
        }
        Some(url) => match rowlock_daemon::parse_collector_url(&on_some_node(url)) {
            Ok(_) => Ok(all),
            Err(error) => Err(format!("{} {error}", env::OTLP_ENDPOINT)),
        },
    }
}

/// The URL on a node with an address of this form.
fn on_some_node(url: &str) -> String {
    url.replace(&format!("[{HOST_IP_REFERENCE}]"), "[::1]").replace(HOST_IP_REFERENCE, "127.0.0.1")
}

/// These variables for the container of a worker in this namespace; none without a collector.
pub(crate) fn variables(tracing: &StringMap, namespace: &str) -> Vec<Value> {
    if tracing.is_empty() {
        return Vec::new();
    }
    let mut all = tracing.clone();
    // The kubelet puts the pod's name in.
    let pod = format!("k8s.namespace.name={namespace},k8s.pod.name=$({})", env::INSTANCE_NAME);
    let attributes = all.remove(ATTRIBUTES).map_or_else(|| pod.clone(), |given| format!("{pod},{given}"));
    all.insert(ATTRIBUTES.to_owned(), attributes);
    let names_node = all.values().any(|value| value.contains(HOST_IP_REFERENCE));
    // Only variables that follow it can refer to it.
    let field = json!({ "fieldRef": { "fieldPath": "status.hostIP" } });
    let node = names_node.then(|| json!({ "name": HOST_IP, "valueFrom": field }));
    let given = all.into_iter().map(|(name, value)| json!({ "name": name, "value": value }));
    node.into_iter().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_would_end_every_worker_are_refused() {
        for (text, expected) in [
            ("[]", "not a JSON object"),
            (r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": 1}"#, "not a JSON object of strings"),
            (r#"{"ROWLOCK_QUEUE": "a"}"#, "`ROWLOCK_QUEUE` is no variable of OpenTelemetry"),
            (r#"{"OTEL_A B": "a"}"#, "`OTEL_A B` is no variable"),
            (r#"{"OTEL_TRACES_SAMPLER": "always_on"}"#, "OTEL_EXPORTER_OTLP_ENDPOINT is missing"),
            (r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://a:4318"}"#, "must look like http://"),
            (r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://$(NODE_IP):4318"}"#, "only to $(HOST_IP)"),
            (
                r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318", "OTEL_TRACES_SAMPLER": "allways_on"}"#,
                "OTEL_TRACES_SAMPLER must be one of always_on, ",
            ),
            (r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:secret@a"}"#, "must look like http://"),
            (r#"{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://:4318"}"#, "must look like http://"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        assert_eq!(parse("{}").unwrap(), StringMap::new());
    }

    #[test]
    fn a_collector_on_each_node_is_reached_by_the_address_of_the_node() {
        for url in ["http://$(HOST_IP):4318", "https://[$(HOST_IP)]:4318"] {
            let tracing = parse(&json!({ "OTEL_EXPORTER_OTLP_ENDPOINT": url }).to_string()).unwrap();
            let variables = variables(&tracing, "shop");
            let field = json!({ "fieldRef": { "fieldPath": "status.hostIP" } });
            assert_eq!(variables[0], json!({ "name": "HOST_IP", "valueFrom": field }));
            assert_eq!(variables[1], json!({ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": url }));
        }
    }

    #[test]
    fn a_worker_names_its_pod_in_its_spans() {
        let tracing = parse(
            r#"{"OTEL_EXPORTER_OTLP_ENDPOINT":"http://collector:4318","OTEL_RESOURCE_ATTRIBUTES":"env=a"}"#,
        )
        .unwrap();
        let expected = json!([
            { "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318" },
            {
                "name": "OTEL_RESOURCE_ATTRIBUTES",
                "value": "k8s.namespace.name=shop,k8s.pod.name=$(ROWLOCK_INSTANCE_NAME),env=a",
            },
        ]);
        assert_eq!(json!(variables(&tracing, "shop")), expected);
        assert!(variables(&StringMap::new(), "shop").is_empty());
    }
}
