//! Resources of the worker's container, and the flag that sets them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rowlock_crds::ResourcesSpec;
use serde_json::{Value, json};

pub(crate) use crate::worker_container::DEFAULT_RESOURCES as DEFAULT;

/// The resources that the platform sets for all workers. Those of a queue override them, name by name.
pub(crate) fn of_queue(platform: &ResourceRequirements, queue: &ResourcesSpec) -> ResourceRequirements {
    let mut resources = platform.clone();
    for (given, detail) in
        [(&mut resources.requests, &queue.requests), (&mut resources.limits, &queue.limits)]
    {
        let detail =
            detail.iter().flatten().map(|(name, quantity)| (name.clone(), Quantity(quantity.0.clone())));
        let detail: Vec<_> = detail.collect();
        if !detail.is_empty() {
            given.get_or_insert_default().extend(detail);
        }
    }
    resources
}

/// Parses the flag. Values that Kubernetes would reject in every pod are an error at startup.
pub(crate) fn parse(text: &str) -> Result<ResourceRequirements, String> {
    let detail: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let resources: ResourceRequirements =
        serde_json::from_value(detail.clone()).map_err(|error| format!("not resources: {error}"))?;
    // The parser ignores unknown fields.
    let known = json!(resources);
    let mut fields = detail.as_object().into_iter().flatten();
    if let Some((name, _)) = fields.find(|(name, value)| known.get(*name).is_none() && !value.is_null()) {
        return Err(format!("`{name}` is not one of requests, limits and claims"));
    }
    let all = [&resources.requests, &resources.limits];
    let wrong = all.into_iter().flatten().flatten().find(|(_, quantity)| !is_quantity(quantity));
    let error = wrong
        .map(|(name, Quantity(text))| format!("`{text}` of {name} is not a quantity such as 100m or 64Mi"));
    error.map_or(Ok(resources), Err)
}

fn is_quantity(Quantity(text): &Quantity) -> bool {
    rowlock_crds::Quantity(text.clone()).is_valid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_the_resources_of_the_flag() {
        for (text, expected) in [
            (DEFAULT, json!({ "requests": { "cpu": "10m", "memory": "48Mi" } })),
            ("{}", json!({})),
            (r#"{"limits":null}"#, json!({})),
            // Numbers without quotes, as in YAML.
            (
                r#"{"limits":{"cpu":1,"memory":1e8}}"#,
                json!({ "limits": { "cpu": "1", "memory": "100000000" } }),
            ),
            (r#"{"limits":{"cpu":0.5}}"#, json!({ "limits": { "cpu": "0.5" } })),
            (r#"{"limits":{"memory":"1e3"}}"#, json!({ "limits": { "memory": "1e3" } })),
        ] {
            assert_eq!(json!(parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn resources_of_a_queue_override_those_of_the_platform_name_by_name() {
        let platform =
            parse(r#"{"requests":{"cpu":"10m","memory":"48Mi"},"limits":{"memory":"96Mi"}}"#).unwrap();
        let queue: ResourcesSpec =
            serde_yaml::from_str("{ requests: { memory: 64Mi }, limits: { cpu: 1 } }").unwrap();
        let expected = json!({
            "requests": { "cpu": "10m", "memory": "64Mi" },
            "limits": { "cpu": "1", "memory": "96Mi" },
        });
        assert_eq!(json!(of_queue(&platform, &queue)), expected);
        assert_eq!(of_queue(&platform, &ResourcesSpec::default()), platform);
        assert_eq!(of_queue(&parse("{}").unwrap(), &ResourcesSpec::default()), parse("{}").unwrap());
    }

    #[test]
    fn an_error_names_the_wrong_value() {
        for (text, says) in [
            ("", "not JSON"),
            ("memory=48Mi", "not JSON"),
            ("[]", "not resources"),
            ("null", "not resources"),
            (r#"{"requests":"48Mi"}"#, "not resources"),
            (r#"{"limit":{"memory":"48Mi"}}"#, "`limit` is not one of requests, limits"),
            (r#"{"limits":{"memory":"48MB"}}"#, "`48MB` of memory is not a quantity"),
            (r#"{"requests":{"cpu":"-1"}}"#, "`-1` of cpu"),
            (r#"{"requests":{"cpu":""}}"#, "`` of cpu"),
            (r#"{"requests":{"cpu":"1e"}}"#, "`1e` of cpu"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
