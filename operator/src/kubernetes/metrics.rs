//! The operator's own metrics, computed for each request from what is in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use prometheus::TextEncoder;
use rowlock_crds::TaskQueue;
use rowlock_daemon::program_metrics;

use crate::Page;
use crate::exposition::{Family, Kind, Series};
use crate::kubernetes::context::Context;
use crate::kubernetes::deployment::scale_in::Gone;
use crate::kubernetes::desired::queue_name;
use crate::kubernetes::rollouts::NamespacedName;
use crate::metrics::Place;

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

/// Pods of a queue that went when the number of pods was lowered.
struct ScaleIn {
    namespace: String,
    queue: String,
    gone: Gone,
}

/// In Prometheus' text format.
pub(crate) fn page(context: &Context) -> prometheus::Result<Page> {
    let mut page = Page::default();
    let views = context
        .views()
        .into_iter()
        .map(|(source, view)| (Place { namespace: source.namespace, secret: source.secret.name }, view));
    page.add_views(views.collect());
    let task_queues = context.readable();
    let replica = Replica {
        leads: context.leadership.may_write(),
        reads_task_queues: context.task_queues.is_complete() && context.task_queues.refusal().is_none(),
        rollouts: context.rollouts(),
        canaries: canaries(&task_queues),
        ended_canaries: context.canaries.totals(),
        rescued: context.rescues.totals(),
    };
    // Several TaskQueues may name the same queue.
    let queues: BTreeSet<NamespacedName> = task_queues
        .iter()
        .map(|one| (one.namespace().unwrap_or_default(), queue_name(one).to_owned()))
        .collect();
    if replica.reads_task_queues {
        context.scale_ins.retain(|queue| queues.contains(queue));
    }
    let scale_ins = queues.into_iter().map(|(namespace, queue)| {
        let gone = context.scale_ins.total(&namespace, &queue);
        ScaleIn { namespace, queue, gone }
    });
    let scale_ins = scale_ins.collect();
    add(&mut page, replica, scale_ins, task_queues);
    page.add_text(TextEncoder::new().encode_to_string(&program_metrics("operator", &[])?.gather())?);
    Ok(page)
}

/// How many canaries run, and how many have failed, by the statuses.
fn canaries(task_queues: &[Arc<TaskQueue>]) -> (usize, usize) {
    let states = task_queues.iter().filter_map(|one| one.status.as_ref()?.canary.as_ref());
    let (failed, running): (Vec<_>, Vec<_>) = states.partition(|canary| canary.state == "Failed");
    (running.len(), failed.len())
}

fn add(page: &mut Page, replica: Replica, scale_ins: Vec<ScaleIn>, task_queues: Vec<Arc<TaskQueue>>) {
    if replica.leads {
        page.add(CONDITIONS, task_queues);
    }
    page.add(SCALE_INS, scale_ins);
    page.add(REPLICA, vec![replica]);
}

const REPLICA: &[Family<Replica>] = &[
    Family {
        name: "rowlock_operator_leader",
        kind: Kind::Gauge,
        help: "Whether this replica leads.",
        write: |replica, to| to.add(&[], u8::from(replica.leads).into()),
    },
    Family {
        name: "rowlock_operator_task_queues_readable",
        kind: Kind::Gauge,
        help: "Whether this replica can read TaskQueues: 0, for example, while the CRD is missing.",
        write: |replica, to| to.add(&[], u8::from(replica.reads_task_queues).into()),
    },
    Family {
        name: "rowlock_operator_rollouts",
        kind: Kind::Gauge,
        help: "Queues whose pods are replaced after a new release of the operator, or that wait for a slot.",
        write: |replica, to| {
            let (in_progress, waiting) = replica.rollouts;
            for (state, count) in [("in_progress", in_progress), ("waiting", waiting)] {
                to.add(&[("state", state)], u32::try_from(count).unwrap_or(u32::MAX).into());
            }
        },
    },
    Family {
        name: "rowlock_operator_canaries",
        kind: Kind::Gauge,
        help: "TaskQueues whose new pod template is tried on a share of the pods, or has failed there.",
        write: |replica, to| {
            let (running, failed) = replica.canaries;
            for (state, count) in [("running", running), ("failed", failed)] {
                to.add(&[("state", state)], u32::try_from(count).unwrap_or(u32::MAX).into());
            }
        },
    },
    Family {
        name: "rowlock_operator_canaries_ended_total",
        kind: Kind::Counter,
        help: "Canaries that have ended: all pods got the new template, or the old one again.",
        write: |replica, to| {
            let (passed, failed) = replica.ended_canaries;
            for (result, count) in [("passed", passed), ("failed", failed)] {
                to.add(&[("result", result)], counted(count));
            }
        },
    },
    Family {
        name: "rowlock_operator_rescued_pods_total",
        kind: Kind::Counter,
        help: "Pods that ended before their worker had left.",
        write: |replica, to| to.add(&[], counted(replica.rescued.0)),
    },
    Family {
        name: "rowlock_operator_rescued_tasks_total",
        kind: Kind::Counter,
        help: "Tasks taken back from them without waiting.",
        write: |replica, to| to.add(&[], counted(replica.rescued.1)),
    },
];

const SCALE_INS: &[Family<ScaleIn>] = &[Family {
    name: "rowlock_operator_scale_in_pods_total",
    kind: Kind::Counter,
    help: "Pods that Kubernetes ended in scale-ins: those that the operator had chosen, and others.",
    write: |ScaleIn { namespace, queue, gone }, to| {
        for (chosen, pods) in [("false", gone.others), ("true", gone.chosen)] {
            let labels = [("chosen", chosen), ("namespace", namespace.as_str()), ("queue", queue.as_str())];
            to.add(&labels, counted(u64::try_from(pods).unwrap_or(u64::MAX)));
        }
    },
}];

/// The conditions of all `TaskQueues`, for alerts, even if a database or a namespace cannot be read.
const CONDITIONS: &[Family<Arc<TaskQueue>>] = &[Family {
    name: "rowlock_task_queue_condition",
    kind: Kind::Gauge,
    help: "Conditions of TaskQueues: 1 for the status (True, False, Unknown) and reason that each has.",
    write: add_conditions,
}];

fn add_conditions(one: &Arc<TaskQueue>, to: &mut Series<'_>) {
    let namespace = one.metadata.namespace.as_deref().unwrap_or_default();
    let name = one.metadata.name.as_deref().unwrap_or_default();
    for condition in one.status.iter().flat_map(|status| &status.conditions) {
        let Condition { type_, status, reason, .. } = condition;
        let labels: [(&str, &str); 6] = [
            ("namespace", namespace),
            ("queue", queue_name(one)),
            ("reason", reason),
            ("status", status),
            ("task_queue", name),
            ("type", type_),
        ];
        to.add(&labels, 1.0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floats, which are exact up to 2⁵³")]
fn counted(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;
    use crate::metrics::tests::{place, view};

    fn text() -> String {
        let mut page = Page::default();
        page.add_views(vec![(place(), Arc::new(view(&["mail"])))]);
        let replica = Replica { leads: true, reads_task_queues: true, ..Replica::default() };
        let (namespace, queue) = ("shop".to_owned(), "mail".to_owned());
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Succeeded", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        });
        let one = json!({
            "metadata": { "name": "mail", "namespace": "shop" },
            "spec": { "workers": { "total": 1 } },
            "status": { "conditions": [condition] }
        });
        let one = Arc::new(serde_json::from_value(one).unwrap());
        add(&mut page, replica, vec![ScaleIn { namespace, queue, gone: Gone::default() }], vec![one]);
        let program = program_metrics("operator", &[]).unwrap();
        page.add_text(TextEncoder::new().encode_to_string(&program.gather()).unwrap());
        page.text()
    }

    /// The names of the labels of a series.
    fn labels(series: &str) -> Vec<&str> {
        let labels = series.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let labels = labels.map_or("", |(labels, _)| labels).split(',');
        labels.filter_map(|label| Some(label.split_once('=')?.0)).collect()
    }

    /// The tables of the page list exactly what is exported, with type and labels.
    #[test]
    fn the_page_lists_the_metrics_of_the_operator() {
        let text = text();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let types: BTreeMap<&str, &str> = types.collect();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let rows: BTreeSet<String> = series
            .map(|series| {
                let name = series.split(['{', ' ']).next().unwrap_or_default();
                let labels = labels(series);
                assert!(labels.is_sorted(), "{series}");
                let labels =
                    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                format!("| `{name}{labels}` | {} | ", types[name])
            })
            .collect();
        assert_eq!(rows.len(), types.len(), "{rows:?}");
        let page = include_str!("../../../docs/observability.md");
        for row in &rows {
            assert!(page.lines().any(|line| line.starts_with(row)), "docs/observability.md lacks {row}");
        }
        let listed = page.lines().filter(|line| line.starts_with("| `") && !line.contains("rowlock_worker_"));
        for line in listed.filter(|line| line.contains("gauge") || line.contains("counter")) {
            assert!(rows.iter().any(|row| line.starts_with(row)), "not exported: {line}");
        }
    }

    #[test]
    fn conditions_and_scale_ins_are_series() {
        let text = text();
        for line in [
            "rowlock_task_queue_condition{namespace=\"shop\",queue=\"mail\",reason=\"Succeeded\",\
             status=\"True\",task_queue=\"mail\",type=\"Ready\"} 1",
            "rowlock_operator_scale_in_pods_total{chosen=\"true\",namespace=\"shop\",queue=\"mail\"} 0",
            "rowlock_operator_rollouts{state=\"waiting\"} 0",
            "rowlock_operator_leader 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
    }
}
