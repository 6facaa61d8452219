//! The end of a pod: its instances end with it.

use crate::{Db, Result, db::query};

/// A pod of which the kubelet has reported that every container ended, and that none will start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPod {
    /// The name of its queue.
    pub queue: String,
    /// The owner of that queue. Instances of a queue that belongs to another are left alone.
    pub owner: String,
    /// The UID of the pod.
    pub uid: String,
    /// How its containers ended, in words. Errors of its tasks say so, cut to 300 characters.
    pub how: String,
}

/// Ends the live instances of a pod without waiting for their leases. Returns the number of tasks taken back
/// from them; `None` if the pod has no live instance. Only the owner of the tables may call it. It may be
/// called again. The error is transient while a statement of such an instance is still in progress.
pub async fn rescue_pod(db: &Db, pod: &EndedPod) -> Result<Option<u64>> {
    let statement = query("select rowlock.rescue_pod($1, $2, $3::text::uuid, $4)")
        .bind(pod.queue.clone())
        .bind(pod.owner.clone())
        .bind(pod.uid.clone())
        .bind(pod.how.clone());
    let tasks: Option<i32> = db.scalar(statement).await?;
    Ok(tasks.map(|tasks| u64::from(tasks.unsigned_abs())))
}
