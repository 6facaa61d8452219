//! Which template the pods of a queue get, and the state of a canary: pure. What a leader has to know about a
//! canary is in annotations of the Deployment, so that the next one goes on with it.

mod record;
mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{CanarySpec, Manifest, annotations};
use rowlock_plan::Compared;
use serde_json::json;

use crate::kubernetes::api::kept::Metadata;
use crate::kubernetes::deployment::build::hash;
use crate::kubernetes::deployment::scale_in::Candidate;

pub(crate) use self::record::CanaryRecord;
pub(crate) use self::source::TemplateSource;

/// Which template the Deployment gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rollout {
    /// All pods get that of the `TaskQueue`.
    Straight,
    /// A share of the pods has it, or gets it now.
    Canary(CanaryRecord),
    /// All pods have, or get, the old one.
    Back(CanaryRecord, Box<Manifest>),
}

impl Rollout {
    pub(crate) fn record(&self) -> Option<&CanaryRecord> {
        match self {
            Self::Straight => None,
            Self::Canary(record) | Self::Back(record, _) => Some(record),
        }
    }
}

/// What is known about a canary, for the status.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CanaryView {
    pub(crate) record: CanaryRecord,
    /// Its pods.
    pub(crate) pods: usize,
    pub(crate) ready: usize,
    /// What has been seen of it so far.
    pub(crate) seen: Option<Compared>,
    pub(crate) watched: Duration,
}

/// A canary of the current template, as the Deployment tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// There is nothing to compare, or the old template is unknown: all pods get the new one.
    None,
    /// The template has changed, and no canary of it has begun.
    Changed {
        /// The canary of another template, which it replaces.
        before: Option<CanaryRecord>,
    },
    /// One of this template runs.
    Running(CanaryRecord),
    /// One of this template has failed.
    Failed(CanaryRecord),
}

/// What the annotations of the live Deployment say about the template of this `TaskQueue`.
pub(crate) fn known(live: Option<&Metadata>, manifest: &Manifest) -> Known {
    let Some(terms) = &manifest.spec.rollout.canary else { return Known::None };
    let annotation = |name: &str| live.and_then(|live| live.annotations.get(name));
    let Some(old) = annotation(annotations::TEMPLATE_SOURCE).and_then(TemplateSource::parse) else {
        return Known::None;
    };
    let new = TemplateSource::of(&manifest.spec);
    if old == new {
        return Known::None;
    }
    let record = annotation(annotations::CANARY).and_then(CanaryRecord::parse);
    match record {
        Some(record) if record.template == new.hash() && record.failed.is_none() => Known::Running(record),
        // Other terms try it again.
        Some(record) if record.template == new.hash() && record.terms == terms_hash(terms) => {
            Known::Failed(record)
        }
        before => Known::Changed { before },
    }
}

/// The `TaskQueue` with the old template, as the live Deployment keeps it.
pub(crate) fn old_manifest(live: Option<&Metadata>, manifest: &Manifest) -> Option<Box<Manifest>> {
    let text = live?.annotations.get(annotations::TEMPLATE_SOURCE)?;
    let mut old = manifest.clone();
    TemplateSource::parse(text)?.put_into(&mut old.spec);
    Some(Box::new(old))
}

/// The canary that begins, if there are pods to compare it with. Otherwise all pods get the new template.
/// `blind`: the database does not answer, so no pod is ready, and the old ones may work.
pub(crate) fn begin(
    manifest: &Manifest,
    before: Option<&CanaryRecord>,
    pods: &[Candidate],
    blind: bool,
    now: Timestamp,
) -> Option<CanaryRecord> {
    let terms = manifest.spec.rollout.canary.as_ref()?;
    let templates: BTreeSet<String> = pods.iter().map(|pod| pod.template().to_owned()).collect();
    // The pods of a canary that is replaced are neither old nor new.
    let others: BTreeSet<String> = templates
        .iter()
        .filter(|template| before.is_some_and(|before| before.is_foreign(template)))
        .cloned()
        .collect();
    let old: BTreeSet<String> = templates.difference(&others).cloned().collect();
    let works = pods.iter().any(|pod| (blind || pod.is_ready()) && old.contains(pod.template()));
    let template = TemplateSource::of(&manifest.spec).hash();
    works.then(|| CanaryRecord::begin(template, terms_hash(terms), old, others, now))
}

fn terms_hash(terms: &CanarySpec) -> String {
    hash(&json!(terms).to_string())
}
