//! In place of nodes: makes pods ready after a fixed time, runs a worker in this process for each ready pod,
//! and ends it when the pod is deleted, as a kubelet would.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Client, ResourceExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Queue;
use super::objects::LABEL;
use super::pod::RunningPod;
use crate::operator::layout::NAMESPACE;

/// Runs pods and notes the numbers that are wanted. It returns only when it fails.
pub(super) async fn run(kubeconfig: &Path, queues: &[Queue]) -> Result<()> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    tokio::try_join!(run_pods(client.clone(), queues), watch_deployments(client, queues))?;
    Ok(())
}

fn queue_of<'a>(queues: &'a [Queue], name: &str) -> Option<&'a Queue> {
    queues.iter().find(|queue| queue.law.name() == name)
}

/// A watch that fails starts again.
fn noted<T>(event: watcher::Result<T>) -> Option<T> {
    event.inspect_err(|error| eprintln!("a watch failed: {error}")).ok()
}

async fn watch_deployments(client: Client, queues: &[Queue]) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    let changes = watcher::watcher(deployments, Config::default()).default_backoff().applied_objects();
    let mut changes = std::pin::pin!(changes);
    while let Some(deployment) = changes.next().await {
        let Some(deployment) = noted(deployment) else { continue };
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        if let Some(queue) = queue_of(queues, &deployment.name_any()) {
            queue.progress.wants(u32::try_from(replicas)?);
        }
    }
    anyhow::bail!("the watch of Deployments ended")
}

async fn run_pods(client: Client, queues: &[Queue]) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let events = watcher::watcher(pods.clone(), Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    // Of each pod, what tells its task that it is deleted. `None`: its task knows.
    let mut known: HashMap<String, Option<oneshot::Sender<()>>> = HashMap::new();
    let mut running = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => noted(event.context("the watch of pods ended")?),
            Some(ended) = running.join_next() => { ended??; continue }
        };
        let Some(event) = event else { continue };
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let is_deleted = pod.metadata.deletion_timestamp.is_some();
                let deleted = known.entry(pod.uid().unwrap_or_default()).or_insert_with(|| {
                    let queue = queue_of(queues, pod.labels().get(LABEL)?)?.clone();
                    let (sender, deleted) = oneshot::channel();
                    running.spawn(RunningPod { pods: pods.clone(), pod, queue }.run(deleted));
                    Some(sender)
                });
                if let Some(sender) = deleted.take_if(|_| is_deleted) {
                    // Its task may have ended.
                    let _ = sender.send(());
                }
            }
            Event::Delete(pod) => drop(known.remove(&pod.uid().unwrap_or_default())),
            Event::Init | Event::InitDone => {}
        }
    }
}
