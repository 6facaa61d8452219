//! What the worker's container asks of a node, as it is written in a flag.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

/// Without requests it would be the first to die when a node runs out of memory. Limits are the cluster's affair.
pub(super) const DEFAULT: &str = r#"{"requests":{"cpu":"10m","memory":"48Mi"}}"#;

/// What may follow the number of a quantity, if it is no power of ten.
const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What Kubernetes would refuse in every pod is refused at the start; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<ResourceRequirements, String> {
    let said: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let resources: ResourceRequirements =
        serde_json::from_value(said.clone()).map_err(|error| format!("no resources: {error}"))?;
    // Fields that are not known are left out without a word.
    let known = json!(resources);
    let mut fields = said.as_object().into_iter().flatten();
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
    let end = text.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let power = suffix.strip_prefix(['e', 'E']).is_some_and(|power| power.parse::<i8>().is_ok());
    number.parse::<f64>().is_ok() && (power || SUFFIXES.contains(&suffix))
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
