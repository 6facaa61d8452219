//! Labels and annotations that objects get beside ours: of their `TaskQueue`, and of the platform. Pure.
//!
//! What tools of deployment write down for themselves does not go on: a Deployment with the tracking label of
//! Argo CD would be one that Argo CD has to prune.

use std::collections::BTreeMap;

use rowlock_crds::{api, labels};

/// By label or annotation.
pub(crate) type StringMap = BTreeMap<String, String>;

/// Domains, and all below them, whose names are somebody's own notes about the very object that has them.
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

/// Kubernetes' own convention for what an object is a part of, which is for its parts too.
const SHARED: &str = "app.kubernetes.io";

/// Longest part of a label before and behind its slash, and longest value.
const LONGEST_DOMAIN: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Of the labels or annotations of a `TaskQueue`, what the objects made of it get.
pub(crate) fn inherited(of: Option<&StringMap>) -> StringMap {
    let all = of.into_iter().flatten().filter(|(name, _)| !is_of_tool(name));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_of_tool(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let below = |of: &str| domain.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    domain != SHARED && TOOL_DOMAINS.into_iter().any(below)
}

/// Labels as they are written in a flag: a JSON mapping of texts. What the API server would refuse in every
/// object is refused here.
pub(crate) fn parse(text: &str) -> Result<StringMap, String> {
    let all: StringMap =
        serde_json::from_str(text).map_err(|error| format!("no JSON mapping of texts: {error}"))?;
    let ours = [labels::NAME, labels::INSTANCE, labels::MANAGED_BY];
    for (name, value) in &all {
        if ours.contains(&name.as_str()) || name.starts_with(api::GROUP) {
            return Err(format!("`{name}` is a label of the operator's own"));
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
    fn what_people_write_goes_on_and_what_tools_write_down_does_not() {
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
    fn labels_of_a_platform_are_checked_at_the_start() {
        let all = parse(r#"{"team":"","example.com/cost-centre":"4711"}"#).unwrap();
        assert_eq!(all["example.com/cost-centre"], "4711");
        for (text, says) in [
            ("team=a", "no JSON mapping"),
            (r#"{"team":1}"#, "no JSON mapping"),
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
