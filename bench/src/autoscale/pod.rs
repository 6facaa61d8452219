//! One pod and its worker, which is in this process.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rowlock_worker::{Connect, ExitReason, Fail, Shutdown, Task, Worker};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::objects::TASK_TYPE;
use super::{PER_POD, POD_START, Queue, SERVICE};

/// One for heartbeats and NOTIFY, one for everything else, as in a pod.
const CONNECTIONS: u32 = 2;

/// The only node, which is nothing but a name.
const NODE: &str = "node-1";

pub(super) struct RunningPod {
    pub(super) pods: Api<Pod>,
    pub(super) pod: Pod,
    pub(super) queue: Queue,
}

impl RunningPod {
    /// From the creation of the pod until it is gone. `deleted` also ends when the pod is gone already.
    pub(super) async fn run(self, mut deleted: oneshot::Receiver<()>) -> Result<()> {
        let name = self.pod.name_any();
        self.queue.progress.pod_created();
        if exists(self.bind(&name).await)? {
            tokio::select! {
                () = sleep(POD_START) => self.serve(&name, deleted).await?,
                _ = &mut deleted => {}
            }
            exists(self.pods.delete(&name, &DeleteParams::default().grace_period(0)).await)?;
        }
        self.queue.progress.pod_gone();
        Ok(())
    }

    async fn bind(&self, name: &str) -> kube::Result<Value> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": NODE }
        });
        self.pods.create_subresource("binding", name, &PostParams::default(), &binding).await
    }

    /// The worker joins, the pod is ready, and the worker drains when the pod is deleted.
    async fn serve(&self, name: &str, deleted: oneshot::Receiver<()>) -> Result<()> {
        let progress = &self.queue.progress;
        let stop = Shutdown::new();
        let worker = worker(&self.queue, name)?;
        let running = async {
            match worker.run(stop.clone()).await? {
                ExitReason::Drained => anyhow::Ok(()),
                reason @ ExitReason::Fenced(_) => bail!("the worker of pod {name} ended: {reason:?}"),
            }
        };
        let life = async {
            let status = Patch::Merge(json!({ "status": ready_status(&self.pod) }));
            exists(self.pods.patch_status(name, &PatchParams::default(), &status).await)?;
            progress.pod_ready();
            let _ = deleted.await;
            progress.pod_draining();
            stop.drain();
            anyhow::Ok(())
        };
        tokio::try_join!(life, running).map(drop)
    }
}

/// Whether the pod was there. Others may delete it at any time.
fn exists<T>(answer: kube::Result<T>) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn worker(queue: &Queue, pod: &str) -> Result<Worker> {
    let connect = Connect::new(queue.url.clone(), format!("rowlock-worker {pod}"), CONNECTIONS);
    let progress = queue.progress.clone();
    let handler = move |task: Task| {
        let progress = progress.clone();
        async move {
            progress.started(task.parse()?);
            sleep(SERVICE).await;
            progress.ended();
            Ok::<(), Fail>(())
        }
    };
    let builder = Worker::builder(connect, queue.law.name()).name(pod).slots(PER_POD);
    Ok(builder.handler(TASK_TYPE, handler).build()?)
}

/// What a kubelet writes when all containers are ready.
fn ready_status(pod: &Pod) -> Value {
    let now = Time(Timestamp::now());
    let condition = |name| json!({ "type": name, "status": "True", "lastTransitionTime": now });
    let container = |container: &Container| {
        json!({
            "name": container.name, "image": container.image, "imageID": container.image, "ready": true,
            "started": true, "restartCount": 0, "state": { "running": { "startedAt": now } }
        })
    };
    let all = |containers: &[Container]| containers.iter().map(container).collect::<Vec<_>>();
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({
        "phase": "Running",
        "startTime": now,
        "conditions": conditions,
        "initContainerStatuses": all(init),
        "containerStatuses": all(spec.map(|spec| &*spec.containers).unwrap_or_default())
    })
}
