//! The objects of each queue. The law's name is the name of its queue and of all its objects.

use rowlock_queue::Declaration;
use rowlock_simulation::LawKind;
use serde_json::{Value, json};

use super::{MOST_PODS, PER_POD};
use crate::operator::layout::NAMESPACE;
use crate::testbed;

pub(super) const TASK_TYPE: &str = "sleep";

/// The label of pods with the name of their law. The operator sets it, too.
pub(super) const LABEL: &str = "app.kubernetes.io/instance";

/// Tuned: seconds between two polls, without load before zero, and to look back before fewer pods.
const TUNED_POLL: u32 = 5;
const TUNED_COOLDOWN: u32 = 60;
const TUNED_STABILIZATION: u32 = 60;

pub(super) fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A queue that no operator declares.
pub(super) fn declaration(law: LawKind) -> Declaration {
    Declaration { name: law.name().to_owned(), ..testbed::declaration(MOST_PODS * PER_POD) }
}

/// Everything that scales the queue of this law: a `TaskQueue` with nothing but its size, or a Deployment
/// with a `ScaledObject`.
pub(super) fn of(law: LawKind, url: &str) -> Vec<Value> {
    let metadata = json!({ "name": law.name(), "namespace": NAMESPACE });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": { "uri": url }
    });
    let mut all = vec![secret];
    if law == LawKind::Rowlock {
        all.push(json!({
            "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "metadata": metadata,
            "spec": {
                "database": { "secretRef": { "name": law.name() } },
                "workers": { "total": MOST_PODS * PER_POD, "perPod": PER_POD, "scaling": "Auto" },
                "template": { "spec": { "containers": [{
                    "name": "handler",
                    "image": "handler:bench",
                    "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } }
                }] } }
            }
        }));
        return all;
    }
    let labels = json!({ LABEL: law.name() });
    all.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "worker", "image": "worker:bench" }] }
            }
        }
    }));
    all.push(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": metadata,
        "spec": { "secretTargetRef": [{ "parameter": "connection", "name": law.name(), "key": "uri" }] }
    }));
    let mut spec = json!({
        "scaleTargetRef": { "name": law.name() },
        "maxReplicaCount": MOST_PODS,
        "triggers": [{
            "type": "postgresql",
            "metadata": { "query": query(law), "targetQueryValue": PER_POD.to_string() },
            "authenticationRef": { "name": law.name() }
        }]
    });
    if law == LawKind::KedaTuned {
        spec["pollingInterval"] = TUNED_POLL.into();
        spec["cooldownPeriod"] = TUNED_COOLDOWN.into();
        let down = json!({ "stabilizationWindowSeconds": TUNED_STABILIZATION });
        spec["advanced"] = json!({ "horizontalPodAutoscalerConfig": { "behavior": { "scaleDown": down } } });
    }
    all.push(json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec
    }));
    all
}

/// The tasks that wait and those that run. Without the running ones, KEDA would end the pods that run them.
fn query(law: LawKind) -> String {
    format!(
        "select coalesce(sum(available + running), 0)::float8 from rowlock.statistics() where name = '{}'",
        law.name()
    )
}

/// Where the API server answers with the metric of a `ScaledObject`, as the `HorizontalPodAutoscaler` asks.
pub(super) fn metric_path(law: LawKind) -> String {
    format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/s0-postgresql\
         ?labelSelector=scaledobject.keda.sh%2Fname%3D{}",
        law.name()
    )
}
