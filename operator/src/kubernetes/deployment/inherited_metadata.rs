//! Labels and annotations that objects get from their `TaskQueue` and from the platform: pure.
//!
//! Those of deployment tools are not inherited. For example, if a Deployment had the tracking label of Argo
//! CD, Argo CD would delete it.

use std::collections::BTreeMap;

use rowlock_crds::{api, labels};

/// Values by the names of labels or annotations.
pub(crate) type StringMap = BTreeMap<String, String>;

/// Domains, with their subdomains, of labels and annotations that describe only the object that has them.
const TOOL_DOMAINS: [&str; 10] = [
    api::GROUP,
    "kubernetes.io",
    "k8s.io",
    "argoproj.io",
    "fluxcd.io",
    "helm.sh",
    "k14s.io",
    "cattle.io",
    "pulumi.com",
    "gke.io",
];

/// The domain of the recommended labels of Kubernetes, such as `part-of`. They apply to created objects too.
const SHARED: &str = "app.kubernetes.io";

/// The longest part of a label before its slash; the longest part after it, and the longest value.
const LONGEST_DOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The labels or annotations of a `TaskQueue` that its objects inherit.
pub(crate) fn inherited(of: Option<&StringMap>) -> StringMap {
    let all = of.into_iter().flatten().filter(|(name, _)| !is_of_tool(name));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_of_tool(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let below = |of: &str| domain.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    domain != SHARED && TOOL_DOMAINS.into_iter().any(below)
}

/// Parses the labels of a flag: a JSON object of strings. Labels that the API server would reject in every
/// object are an error.
pub(crate) fn parse(text: &str) -> Result<StringMap, String> {
    let all: StringMap =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object of strings: {error}"))?;
    let ours = [labels::NAME, labels::INSTANCE, labels::MANAGED_BY];
    for (name, value) in &all {
        if ours.contains(&name.as_str()) || name.starts_with(api::GROUP) {
            return Err(format!("`{name}` is one of the operator's own labels"));
        }
        let (domain, rest) = name.rsplit_once('/').map_or((None, name.as_str()), |(a, b)| (Some(a), b));
        let is_domain = |domain: &str| domain.len() <= LONGEST_DOMAIN && domain.split('.').all(is_word);
        if !is_word(rest) || !domain.is_none_or(is_domain) {
            return Err(format!("`{name}` cannot be the name of a label"));
        }
        if !value.is_empty() && !is_word(value) {
            return Err(format!("`{value}` cannot be the value of the label `{name}`"));
        }
    }
    Ok(all)
}

fn is_word(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    text.len() <= LONGEST_LABEL && inside && ends(text.chars().next()) && ends(text.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_users_are_inherited_and_those_of_tools_are_not() {
        for name in
            ["team", "cost-centre", "example.com/team", "app.kubernetes.io/part-of", "notargoproj.io/x"]
        {
            assert!(!is_of_tool(name), "{name}");
        }
        for name in [
            "argocd.argoproj.io/instance",
            "argocd.argoproj.io/tracking-id",
            "kubectl.kubernetes.io/last-applied-configuration",
            "deployment.kubernetes.io/revision",
            "kustomize.toolkit.fluxcd.io/name",
            "helm.sh/chart",
            "meta.helm.sh/release-name",
            "config.k8s.io/owning-inventory",
            "objectset.rio.cattle.io/hash",
            "rowlock.dev/class",
        ] {
            assert!(is_of_tool(name), "{name}");
        }
    }

    #[test]
    fn labels_of_the_platform_are_checked_at_startup() {
        let all = parse(r#"{"team":"","example.com/cost-centre":"4711"}"#).unwrap();
        assert_eq!(all["example.com/cost-centre"], "4711");
        for (text, says) in [
            ("team=a", "not a JSON object"),
            (r#"{"team":1}"#, "not a JSON object"),
            (r#"{"a b":"x"}"#, "`a b` cannot be the name"),
            (r#"{"/x":"x"}"#, "`/x` cannot be the name"),
            (r#"{"team":"two words"}"#, "`two words` cannot be the value"),
            (r#"{"app.kubernetes.io/managed-by":"x"}"#, "the operator's own"),
            (r#"{"rowlock.dev/task-queue":"x"}"#, "the operator's own"),
        ] {
            let detail = parse(text).unwrap_err();
            assert!(detail.contains(says), "{text}: {detail}");
        }
    }
}
