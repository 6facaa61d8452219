//! Which TaskQueues there are, in how many databases and namespaces, and the objects that make them.

use serde_json::{Value, json};

/// The namespace of everything; with several, the beginning of their names.
pub(crate) const NAMESPACE: &str = "bench";

/// The database of everything; with several, the beginning of their names.
pub(crate) const DATABASE: &str = "bench";

/// TaskQueues to measure together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// As a part of the names of rows.
    pub(crate) name: &'static str,
    pub(crate) queues: usize,
    pub(crate) databases: usize,
    /// Number of Secrets with a database's URL, as if several teams shared a namespace.
    pub(crate) secrets: usize,
    /// Whether each database has a namespace of its own, and the operator reads all of them.
    pub(crate) has_namespaces: bool,
    /// Whether each queue has a pod. There is no kubelet: pods are written as if there were one.
    pub(crate) has_pods: bool,
}

impl Layout {
    pub(crate) fn databases(&self) -> impl Iterator<Item = String> {
        (0..self.databases).map(database)
    }

    pub(crate) fn namespaces(&self) -> Vec<String> {
        let more = (0..self.databases).filter(|_| self.has_namespaces).map(|n| format!("{NAMESPACE}-{n}"));
        [NAMESPACE.to_owned()].into_iter().chain(more).collect()
    }

    /// The Secrets; `url` makes the URL of a database.
    pub(crate) fn secrets(&self, url: impl Fn(&str) -> String) -> Vec<Value> {
        let one = |number: usize| {
            let name = format!("db-{}", number / self.databases);
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": name, "namespace": self.namespace_of(number) },
                "stringData": { "uri": url(&database(number % self.databases)) }
            })
        };
        (0..self.secrets * self.databases).map(one).collect()
    }

    pub(crate) fn task_queues(&self) -> Vec<Value> {
        let one = |number: usize| {
            let secret = format!("db-{}", number / self.databases % self.secrets);
            let min = if self.has_pods { POD_SLOTS } else { 0 };
            json!({
                "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
                "metadata": { "name": queue(number), "namespace": self.namespace_of(number) },
                "spec": {
                    "database": { "secretRef": { "name": secret } },
                    "workers": {
                        "total": 100 * POD_SLOTS,
                        "perPod": POD_SLOTS,
                        "autoscaling": { "min": min, "scaleDownAfter": "1s" }
                    },
                    "template": { "spec": { "containers": [{
                        "name": "handler",
                        "image": "handler:bench",
                        "env": [{ "name": "MODE", "value": "bench" }],
                        "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } }
                    }] } }
                }
            })
        };
        (0..self.queues).map(one).collect()
    }

    /// A ready pod of each queue.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let one = |number: usize| {
            let queue = queue(number);
            let labels = json!({
                "app.kubernetes.io/name": "rowlock-worker",
                "app.kubernetes.io/instance": queue,
                "app.kubernetes.io/managed-by": "rowlock-operator",
                "rowlock.dev/task-queue": queue
            });
            pod(&self.namespace_of(number), &format!("{queue}-5c9f7d8b6-x2x{}", number % 10), &labels)
        };
        (0..self.queues).filter(|_| self.has_pods).map(one).collect()
    }

    fn namespace_of(&self, number: usize) -> String {
        if self.has_namespaces {
            format!("{NAMESPACE}-{}", number % self.databases)
        } else {
            NAMESPACE.to_owned()
        }
    }
}

/// Slots of a pod.
const POD_SLOTS: usize = 10;

pub(crate) fn queue(number: usize) -> String {
    format!("queue-{number}")
}

fn database(number: usize) -> String {
    if number == 0 { DATABASE.to_owned() } else { format!("{DATABASE}-{number}") }
}

/// Pods of other applications.
pub(crate) fn unrelated_pods(count: usize) -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/name": "shop", "app.kubernetes.io/managed-by": "Helm" });
    (0..count).map(|number| pod(NAMESPACE, &format!("shop-{number}"), &labels)).collect()
}

fn pod(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{ "name": "handler", "image": "handler:bench", "restartPolicy": "Always" }],
            "containers": [{ "name": "worker", "image": "worker:bench" }]
        }
    })
}

/// The same pod with the status that a kubelet writes when it is ready.
pub(crate) fn with_status(pod: &Value) -> Value {
    let since = "2026-01-01T00:00:07Z";
    let condition = |name: &str| json!({ "type": name, "status": "True", "lastTransitionTime": since });
    let container = |name: &str| {
        json!({
            "name": name, "image": "bench", "imageID": "bench", "ready": true, "started": true,
            "restartCount": 0, "state": { "running": { "startedAt": since } }
        })
    };
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"] },
        "status": {
            "phase": "Running",
            "startTime": since,
            "conditions": conditions,
            "initContainerStatuses": [container("handler")],
            "containerStatuses": [container("worker")]
        }
    })
}
