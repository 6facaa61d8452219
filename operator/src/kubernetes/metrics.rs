//! The operator's own metrics, computed for each request.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use rowlock_crds::TaskQueue;
use rowlock_daemon::program_metrics;

use crate::kubernetes::context::Context;
use crate::kubernetes::deployment::scale_in::Gone;
use crate::kubernetes::desired::queue_name;
use crate::kubernetes::rollouts::NamespacedName;
use crate::metrics::{Place, ViewMetrics};

/// What this replica does.
#[derive(Default)]
struct Replica {
    leads: bool,
    reads_task_queues: bool,
    /// Queues that are rolled out, and those that wait for a slot.
    rollouts: (usize, usize),
    /// Canaries that run, and those that have failed.
    canaries: (usize, usize),
    /// Canaries that have passed, and those that have failed, since this replica started.
    ended_canaries: (u64, u64),
    /// Pods that ended too early, and the tasks taken back from them.
    rescued: (u64, u64),
}

/// In Prometheus' text format.
pub(crate) fn text(context: &Context) -> prometheus::Result<String> {
    let registry = Registry::new();
    let views = ViewMetrics::new(&registry, true)?;
    for (source, view) in context.views() {
        views.set(Some(Place { namespace: &source.namespace, secret: &source.secret.name }), &view);
    }
    let replica = Replica {
        leads: context.leadership.may_write(),
        reads_task_queues: context.task_queues.is_complete() && context.task_queues.refusal().is_none(),
        rollouts: context.rollouts(),
        canaries: canaries(context),
        ended_canaries: context.canaries.totals(),
        rescued: context.rescues.totals(),
    };
    replica.register(&registry)?;
    let scale_ins = scale_ins(&registry)?;
    let queues = context.readable().into_iter();
    let queues = queues.map(|one| (one.namespace().unwrap_or_default(), queue_name(&one).to_owned()));
    let queues: BTreeSet<NamespacedName> = queues.collect();
    if replica.reads_task_queues {
        context.scale_ins.retain(|queue| queues.contains(queue));
    }
    for (namespace, queue) in &queues {
        set_scale_ins(&scale_ins, namespace, queue, context.scale_ins.total(namespace, queue));
    }
    if replica.leads {
        let conditions = conditions(&registry)?;
        context.readable().iter().for_each(|one| set_conditions(&conditions, one));
    }
    let mut text = TextEncoder::new().encode_to_string(&registry.gather())?;
    TextEncoder::new().encode_utf8(&program_metrics("operator", &[])?.gather(), &mut text)?;
    Ok(text)
}

impl Replica {
    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let readable = "Whether this replica can read TaskQueues: 0, for example, while the CRD is missing.";
        for (name, help, holds) in [
            ("rowlock_operator_leader", "Whether this replica leads.", self.leads),
            ("rowlock_operator_task_queues_readable", readable, self.reads_task_queues),
        ] {
            let gauge = Gauge::new(name, help)?;
            gauge.set(u8::from(holds).into());
            registry.register(Box::new(gauge))?;
        }
        let help =
            "Queues whose pods are replaced after a new release of the operator, or that wait for a slot.";
        let rollouts = GaugeVec::new(Opts::new("rowlock_operator_rollouts", help), &["state"])?;
        for (state, count) in [("in_progress", self.rollouts.0), ("waiting", self.rollouts.1)] {
            rollouts.with_label_values(&[state]).set(u32::try_from(count).unwrap_or(u32::MAX).into());
        }
        registry.register(Box::new(rollouts))?;
        self.register_canaries(registry)?;
        let (pods, tasks) = self.rescued;
        for (name, help, total) in [
            ("rowlock_operator_rescued_pods_total", "Pods that ended before their worker had left.", pods),
            ("rowlock_operator_rescued_tasks_total", "Tasks taken back from them without waiting.", tasks),
        ] {
            let counter = IntCounter::new(name, help)?;
            counter.inc_by(total);
            registry.register(Box::new(counter))?;
        }
        Ok(())
    }

    fn register_canaries(&self, registry: &Registry) -> prometheus::Result<()> {
        let help = "TaskQueues whose new pod template is tried on a share of the pods, or has failed there.";
        let gauge = GaugeVec::new(Opts::new("rowlock_operator_canaries", help), &["state"])?;
        for (state, count) in [("running", self.canaries.0), ("failed", self.canaries.1)] {
            gauge.with_label_values(&[state]).set(u32::try_from(count).unwrap_or(u32::MAX).into());
        }
        registry.register(Box::new(gauge))?;
        let help = "Canaries that have ended: all pods got the new template, or the old one again.";
        let counter =
            IntCounterVec::new(Opts::new("rowlock_operator_canaries_ended_total", help), &["result"])?;
        for (result, count) in [("passed", self.ended_canaries.0), ("failed", self.ended_canaries.1)] {
            counter.with_label_values(&[result]).inc_by(count);
        }
        registry.register(Box::new(counter))
    }
}

/// How many canaries run, and how many have failed, by the statuses.
fn canaries(context: &Context) -> (usize, usize) {
    let readable = context.readable();
    let states = readable.iter().filter_map(|one| one.status.as_ref()?.canary.as_ref());
    let (failed, running): (Vec<_>, Vec<_>) = states.partition(|canary| canary.state == "Failed");
    (running.len(), failed.len())
}

/// The conditions of all `TaskQueues`, for alerts, even if a database or a namespace cannot be read.
fn conditions(registry: &Registry) -> prometheus::Result<GaugeVec> {
    let help = "Conditions of TaskQueues: 1 for the status (True, False, Unknown) and reason that each has.";
    let labels = ["namespace", "task_queue", "queue", "type", "status", "reason"];
    let gauge = GaugeVec::new(Opts::new("rowlock_task_queue_condition", help), &labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn set_conditions(gauge: &GaugeVec, one: &TaskQueue) {
    let (namespace, name) = (one.namespace().unwrap_or_default(), one.name_any());
    for condition in one.status.iter().flat_map(|status| &status.conditions) {
        let Condition { type_, status, reason, .. } = condition;
        let labels: [&str; 6] = [&namespace, &name, queue_name(one), type_, status, reason];
        gauge.with_label_values(&labels).set(1.0);
    }
}

/// Pods that went when the number of pods was lowered.
fn scale_ins(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "Pods that Kubernetes ended in scale-ins: those that the operator had chosen, and others.";
    let name = "rowlock_operator_scale_in_pods_total";
    let counter = IntCounterVec::new(Opts::new(name, help), &["namespace", "queue", "chosen"])?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn set_scale_ins(counter: &IntCounterVec, namespace: &str, queue: &str, gone: Gone) {
    for (chosen, pods) in [("true", gone.chosen), ("false", gone.others)] {
        let pods = u64::try_from(pods).unwrap_or(u64::MAX);
        counter.with_label_values(&[namespace, queue, chosen]).inc_by(pods);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::LabelPair;

    use super::*;
    use crate::metrics::tests::view;

    /// The tables of the page list exactly what is exported, with type and labels.
    #[test]
    fn the_page_lists_the_metrics_of_the_operator() {
        let registry = Registry::new();
        let place = Place { namespace: "shop", secret: "db" };
        ViewMetrics::new(&registry, true).unwrap().set(Some(place), &view(&["mail"]));
        let replica =
            Replica { leads: true, reads_task_queues: true, rollouts: (0, 0), ..Replica::default() };
        replica.register(&registry).unwrap();
        let labels = ["shop", "mail", "mail", "Ready", "True", "Succeeded"];
        conditions(&registry).unwrap().with_label_values(&labels).set(1.0);
        set_scale_ins(&scale_ins(&registry).unwrap(), "shop", "mail", Gone::default());
        let program = program_metrics("operator", &[]).unwrap();
        let families = registry.gather().into_iter().chain(program.gather());
        let rows: BTreeSet<String> = families
            .map(|family| {
                let labels = family.get_metric().first().map_or(&[][..], |metric| metric.get_label());
                let labels: Vec<&str> = labels.iter().map(LabelPair::name).collect();
                let labels =
                    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                format!("| `{}{labels}` | {kind} | ", family.name())
            })
            .collect();
        let page = include_str!("../../../docs/observability.md");
        for row in &rows {
            assert!(page.lines().any(|line| line.starts_with(row)), "docs/observability.md lacks {row}");
        }
        let listed = page.lines().filter(|line| line.starts_with("| `") && !line.contains("rowlock_worker_"));
        for line in listed.filter(|line| line.contains("gauge") || line.contains("counter")) {
            assert!(rows.iter().any(|row| line.starts_with(row)), "not exported: {line}");
        }
    }
}
