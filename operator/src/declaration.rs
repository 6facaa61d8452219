//! Converts a manifest into the declaration that the database stores.

use rowlock_crds::{Manifest, Policy};
use rowlock_queue::Declaration;

pub(crate) fn declaration(manifest: &Manifest, owner: &str, generation: i64) -> Declaration {
    let spec = &manifest.spec;
    Declaration {
        name: manifest.queue_name().to_owned(),
        owner: owner.to_owned(),
        generation,
        policy: Policy::from(spec),
        max_attempts: spec.retry.max_attempts,
        total_workers: spec.workers.total,
        paused: spec.paused,
        backlog_limit: spec.limits.backlog,
        payload_limit: spec.limits.payload_bytes,
        keep_completed: spec.cleanup.completed.as_duration(),
        keep_dead: spec.cleanup.dead.as_duration(),
        keep_cancelled: spec.cleanup.cancelled.as_duration(),
        max_delay: spec.limits.max_delay.as_duration(),
    }
}
