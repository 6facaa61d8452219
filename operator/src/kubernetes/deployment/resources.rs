//! What the worker's container asks of a node, as it is written in a flag.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rowlock_crds::ResourcesSpec;
use serde_json::{Value, json};

/// Without requests it would be the first to die when a node runs out of memory. Limits are the cluster's
/// affair.
pub(crate) const DEFAULT: &str = r#"{"requests":{"cpu":"10m","memory":"48Mi"}}"#;

/// What the platform gives to all workers, with what one queue says in its place, name by name.
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

/// What Kubernetes would refuse in every pod is refused at the start; the error says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<ResourceRequirements, String> {
    let detail: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let resources: ResourceRequirements =
        serde_json::from_value(detail.clone()).map_err(|error| format!("no resources: {error}"))?;
    // Fields that are not known are left out without a word.
    let known = json!(resources);
    let mut fields = detail.as_object().into_iter().flatten();
    if let Some((name, _)) = fields.find(|(name, value)| known.get(*name).is_none() && !value.is_null()) {
        return Err(format!("`{name}` is none of requests, limits and claims"));
    }
    let all = [&resources.requests, &resources.limits];
    let wrong = all.into_iter().flatten().flatten().find(|(_, quantity)| !is_quantity(quantity));
    let wrong =
        wrong.map(|(name, Quantity(text))| format!("`{text}` of {name} is no quantity such as 100m or 64Mi"));
    wrong.map_or(Ok(resources), Err)
}

fn is_quantity(Quantity(text): &Quantity) -> bool {
    rowlock_crds::Quantity(text.clone()).is_sound()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_a_container_gets() {
        for (text, expected) in [
            (DEFAULT, json!({ "requests": { "cpu": "10m", "memory": "48Mi" } })),
            ("{}", json!({})),
            (r#"{"limits":null}"#, json!({})),
            // As YAML has it, without quotes.
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
    fn what_a_queue_says_counts_before_what_the_platform_says_name_by_name() {
        let platform =
            parse(r#"{"requests":{"cpu":"10m","memory":"48Mi"},"limits":{"memory":"96Mi"}}"#).unwrap();
        let queue: ResourcesSpec =
            serde_yaml::from_str("{ requests: { memory: 64Mi }, limits: { cpu: 1 } }").unwrap();
        let expected = json!({ "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "cpu": "1", "memory": "96Mi" } });
        assert_eq!(json!(of_queue(&platform, &queue)), expected);
        assert_eq!(of_queue(&platform, &ResourcesSpec::default()), platform);
        assert_eq!(of_queue(&parse("{}").unwrap(), &ResourcesSpec::default()), parse("{}").unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("", "no JSON"),
            ("memory=48Mi", "no JSON"),
            ("[]", "no resources"),
            ("null", "no resources"),
            (r#"{"requests":"48Mi"}"#, "no resources"),
            (r#"{"limit":{"memory":"48Mi"}}"#, "`limit` is none of requests, limits"),
            (r#"{"limits":{"memory":"48MB"}}"#, "`48MB` of memory is no quantity"),
            (r#"{"requests":{"cpu":"-1"}}"#, "`-1` of cpu"),
            (r#"{"requests":{"cpu":""}}"#, "`` of cpu"),
            (r#"{"requests":{"cpu":"1e"}}"#, "`1e` of cpu"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
