//! Converts a `TaskQueue` into what a controller keeps of it. No I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use rowlock_crds::{Manifest, TaskQueue, annotations};

use crate::kubernetes::database::source::Source;
use crate::managed_queue::DesiredQueue;

pub(crate) fn manifest(one: &TaskQueue) -> Manifest {
    let mut manifest = Manifest::new(one.name_any(), one.spec.clone());
    manifest.namespace = one.namespace();
    manifest
}

pub(crate) fn queue_name(one: &TaskQueue) -> &str {
    one.spec.queue_name.as_deref().or(one.metadata.name.as_deref()).unwrap_or_default()
}

/// `used`: an adoption that has been done already. It is not repeated, since the other owner may have taken
/// the queue back.
pub(crate) fn desired_queue(one: &TaskQueue, cluster: &str, used: Option<&String>) -> DesiredQueue {
    let adopts = one.annotations().get(annotations::ADOPT).cloned();
    DesiredQueue {
        manifest: manifest(one),
        generation: generation(one),
        owner: owner(one, cluster),
        adopts: adopts.filter(|adopts| used != Some(adopts)),
    }
}

/// The owner of a queue, as the database stores it.
pub(crate) fn owner(one: &TaskQueue, cluster: &str) -> String {
    owner_name(cluster, &one.namespace().unwrap_or_default(), &one.name_any())
}

pub(crate) fn owner_name(cluster: &str, namespace: &str, name: &str) -> String {
    format!("{cluster}/{namespace}/{name}")
}

/// Grows with each change. It also grows when a `TaskQueue` is deleted and created again, though Kubernetes
/// then counts from 1.
fn generation(one: &TaskQueue) -> i64 {
    let created = one.creation_timestamp().map_or(0, |time| time.0.as_second());
    (created << 24) | (one.metadata.generation.unwrap_or_default() & 0x00ff_ffff)
}

/// The databases of some `TaskQueues`.
pub(crate) fn sources(all: &[Arc<TaskQueue>]) -> BTreeSet<Source> {
    all.iter().filter_map(|one| Source::of(one)).collect()
}
