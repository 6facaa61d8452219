//! Decides which template the pods of a queue get, and watches its canary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{EventReason, Manifest, annotations, containers};
use rowlock_plan::{CanaryFault, CanaryStep, Compared, ObservedCanary, Runs, canary_step};
use rowlock_queue::{ComparedPods, pod_runs};
use serde_json::Value;

use super::{DesiredPods, LastApplied, Live, NewEvent, PodBackend, WorkerImage, build, deployment_of};
use crate::kubernetes::api::kept::Pod;
use crate::kubernetes::deployment::canary::{
    CanaryRecord, CanaryView, Known, Rollout, TemplateSource, begin, known, old_manifest,
};
use crate::kubernetes::deployment::last_applied::has_template;
use crate::kubernetes::deployment::scale_in::{Candidate, candidates};
use crate::kubernetes::desired::owner_name;
use crate::kubernetes::pods::health::{HealthInputs, PodHealth, health, not_starting};
use crate::kubernetes::pods::status::statuses;

/// How long the first start of a pod may take, if its probes do not allow more: the progress deadline of a
/// Deployment.
const LONGEST_START: Duration = Duration::from_mins(10);

/// Which template the pods get, and what is new about it.
pub(super) struct Decided {
    rollout: Rollout,
    /// What the old template was made from, if not all pods get the new one.
    old_source: Option<String>,
    transition: Option<Transition>,
    view: Option<CanaryView>,
}

/// What has become of a canary in this pass.
enum Transition {
    Started,
    Passed,
    Failed,
}

impl Decided {
    fn straight() -> Self {
        Self { rollout: Rollout::Straight, old_source: None, transition: None, view: None }
    }

    /// Whether a canary begins or ends with this write.
    pub(super) fn is_new(&self) -> bool {
        self.transition.is_some()
    }

    pub(super) fn build(
        &self,
        last: &LastApplied,
        manifest: &Manifest,
        pods: u32,
        image: &WorkerImage,
    ) -> Value {
        let made_from = match &self.rollout {
            Rollout::Back(_, old) => old,
            _ => manifest,
        };
        let mut object = build::deployment(&last.owner, made_from, pods, image);
        let source = self.old_source.clone().or_else(|| TemplateSource::of(&manifest.spec).text());
        let share = manifest.spec.rollout.canary.as_ref().map(|canary| canary.share).unwrap_or_default();
        build::mark_rollout(&mut object, source, self.rollout.record().map(|record| (record, share)));
        object
    }
}

/// The pods of a canary, and those that they are compared with.
struct CanaryPods {
    new: Vec<Arc<Pod>>,
    candidates: Vec<Candidate>,
    compared: ComparedPods,
}

impl PodBackend {
    pub(super) async fn decide_rollout(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
        live: &Live,
    ) -> Decided {
        let (manifest, metadata) = (desired.manifest, live.metadata.as_deref());
        let old_source = metadata.and_then(|live| live.annotations.get(annotations::TEMPLATE_SOURCE));
        let old_source = old_source.map(str::to_owned);
        match known(metadata, manifest) {
            Known::None => Decided::straight(),
            Known::Failed(record) => back(record, old_source, live, manifest, None),
            Known::Changed { before } => {
                let object = build::deployment(&last.owner, manifest, desired.pods, &self.image);
                let differs = metadata.is_some_and(|live| !has_template(live, &object));
                let has_pods = 0 < live.replicas && 0 < desired.pods;
                let pods = self.all_candidates(last);
                let blind = differs && has_pods && !pods.iter().any(Candidate::is_ready) && {
                    let none = self.canary_pods(last, None).compared;
                    pod_runs(&self.db, &none).await.is_err()
                };
                let begun = begin(manifest, before.as_ref(), &pods, blind, Timestamp::now());
                let Some(record) = begun.filter(|_| differs && has_pods) else { return Decided::straight() };
                (last.canary_broken_since, last.canary_blind_at) = (None, None);
                let view = view(&record, &PodHealth::default(), None, Duration::ZERO);
                let (rollout, transition) = (Rollout::Canary(record), Some(Transition::Started));
                Decided { rollout, old_source, transition, view: Some(view) }
            }
            Known::Running(record) => self.watch(last, desired, live, record, old_source).await,
        }
    }

    /// Looks at the pods of a running canary, and decides about it.
    async fn watch(
        &self,
        last: &mut LastApplied,
        desired: &DesiredPods<'_>,
        live: &Live,
        mut record: CanaryRecord,
        old_source: Option<String>,
    ) -> Decided {
        let (manifest, now) = (desired.manifest, Timestamp::now());
        let pods = self.canary_pods(last, Some(&record));
        let inputs = HealthInputs { port: manifest.spec.handler.http.port, instances: None };
        let health = health(&pods.new, inputs, now);
        let broken = not_starting(&pods.new, last.canary_broken_since.is_some(), now);
        last.canary_broken_since = broken.then(|| last.canary_broken_since.unwrap_or_else(Instant::now));
        let wait = |record: CanaryRecord, view: CanaryView| Decided {
            rollout: Rollout::Canary(record),
            old_source: old_source.clone(),
            transition: None,
            view: Some(view),
        };
        let newest = match pod_runs(&self.db, &pods.compared).await {
            Ok(Some((new, old))) => Compared { new: planned(&new), old: planned(&old) },
            // Without the database no pod gets ready, which says nothing against the new template.
            answer => {
                let queue = &last.queue;
                tracing::debug!(queue, ?answer, "the runs of the canary are not known; waiting");
                let (total, watched) = (record.total(), Duration::ZERO);
                let view = view(&record, &health, total, watched);
                last.canary_blind_at = Some(Instant::now());
                return wait(record, view);
            }
        };
        let counts = 0 < health.ready && !manifest.spec.paused;
        let (watched, total) = record.count(newest, counts, now);
        // After an outage of the database, pods have as long to become ready.
        let seen_for = last.canary_blind_at.map_or(Duration::MAX, |at| at.elapsed());
        let seen = ObservedCanary {
            pods: count(health.pods),
            ready: count(health.ready),
            unready_for: record.unready_for(now).min(seen_for),
            start_longest: LONGEST_START.max(health.start_longest.saturating_mul(2)),
            broken_for: last.canary_broken_since.map_or(Duration::ZERO, |since| since.elapsed()),
            restarts: pods.new.iter().map(|pod| restarts(pod)).max().unwrap_or_default(),
            watched,
            wants_pods: 0 < desired.pods,
            total,
            newest,
        };
        let terms = manifest.spec.rollout.canary.clone().unwrap_or_default();
        match canary_step(&terms, &seen) {
            CanaryStep::Wait => {
                let view = view(&record, &health, Some(total), watched);
                wait(record, view)
            }
            CanaryStep::GoOn => {
                let view = Some(view(&record, &health, Some(total), watched));
                Decided { transition: Some(Transition::Passed), view, ..Decided::straight() }
            }
            CanaryStep::GoBack(fault) => {
                // It gets no more tasks from now on. If this fails, Kubernetes ends the pods soon anyway.
                if let Err(error) = self.drain(last, &pods.candidates, count(pods.candidates.len())).await {
                    tracing::debug!(queue = last.queue, %error, "the pods of the canary are not marked");
                }
                let templates = self.all_candidates(last);
                let templates = templates.iter().map(|pod| pod.template().to_owned());
                record.fail(why(&fault, &health), (templates, &total));
                back(record, old_source, live, manifest, Some(Transition::Failed))
            }
        }
    }

    /// The Deployment is as was decided.
    pub(super) async fn note_rollout(&self, last: &mut LastApplied, decided: Decided) {
        let Decided { rollout, transition, view, .. } = decided;
        let (reason, note) = match (transition, &view) {
            (Some(Transition::Started), _) => (EventReason::CanaryStarted, STARTED.to_owned()),
            (Some(Transition::Passed), Some(view)) => {
                self.context.canaries.note(true);
                (EventReason::CanaryPassed, passed(view))
            }
            (Some(Transition::Failed), _) => {
                // The condition has an event.
                self.context.canaries.note(false);
                last.canary = view;
                return;
            }
            _ => {
                last.canary = view;
                return;
            }
        };
        last.canary = view.filter(|_| rollout.record().is_some());
        let related = Some(deployment_of(&last.regarding, last.deployment_name()));
        let (reason, action) = (reason.as_str(), reason.action());
        let new_event =
            NewEvent { regarding: &last.regarding, related, warning: false, reason, action, note };
        self.context.writer.publish_event(&new_event).await;
    }

    fn all_candidates(&self, last: &LastApplied) -> Vec<Candidate> {
        candidates(&self.namespace.pods_of(&last.owner.name), last.deployment_name())
    }

    fn canary_pods(&self, last: &LastApplied, record: Option<&CanaryRecord>) -> CanaryPods {
        let all = self.all_candidates(last);
        let old = all
            .iter()
            .filter(|pod| record.is_some_and(|record| record.is_old(pod.template())))
            .map(|pod| pod.uid.clone());
        let old: Vec<String> = old.collect();
        let candidates: Vec<Candidate> = all
            .into_iter()
            .filter(|pod| record.is_some_and(|record| record.is_new(pod.template())))
            .collect();
        let new: Vec<String> = candidates.iter().map(|pod| pod.uid.clone()).collect();
        let is_new = |pod: &Arc<Pod>| pod.metadata.uid.as_ref().is_some_and(|uid| new.contains(uid));
        let mut pods = self.namespace.pods_of(&last.owner.name);
        pods.retain(is_new);
        let owner = owner_name(&self.context.cluster, &last.owner.namespace, &last.owner.name);
        let compared = ComparedPods { queue: last.queue.clone(), owner, new, old };
        CanaryPods { new: pods, candidates, compared }
    }
}

/// All pods get the old template.
fn back(
    record: CanaryRecord,
    old_source: Option<String>,
    live: &Live,
    manifest: &Manifest,
    transition: Option<Transition>,
) -> Decided {
    let Some(old) = old_manifest(live.metadata.as_deref(), manifest) else { return Decided::straight() };
    let view = view(&record, &PodHealth::default(), record.total(), Duration::ZERO);
    Decided { rollout: Rollout::Back(record, old), old_source, transition, view: Some(view) }
}

const STARTED: &str = "the pod template has changed: a share of the pods gets it first, and their runs are \
                       compared with those of the others";

fn passed(view: &CanaryView) -> String {
    let seen = view.seen.unwrap_or_default();
    let minutes = view.watched.as_secs() / 60;
    format!("all pods get the new template: {seen}, in {minutes} min")
}

/// Why the canary has failed, and what to do.
fn why(fault: &CanaryFault, health: &PodHealth) -> String {
    let detail = match (&health.problem, fault) {
        (Some(problem), CanaryFault::NotReady { .. }) => format!(" ({})", problem.message),
        _ => String::new(),
    };
    format!(
        "{fault}{detail}, so all pods have the old template again: correct spec.template, which tries the \
         new one again; or remove spec.rollout.canary to replace all pods without a trial"
    )
}

fn view(record: &CanaryRecord, health: &PodHealth, seen: Option<Compared>, watched: Duration) -> CanaryView {
    CanaryView { record: record.clone(), pods: health.pods, ready: health.ready, seen, watched }
}

/// How often the handler of a pod has ended.
fn restarts(pod: &Pod) -> u32 {
    let handler = statuses(pod).find(|status| status.name == containers::HANDLER);
    handler.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or_default()
}

fn planned(runs: &rowlock_queue::Runs) -> Runs {
    Runs {
        completed: runs.completed,
        seconds: runs.seconds,
        seconds_squared: runs.seconds_squared,
        failed: runs.failed,
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
