//! Bounds of the fields, each with its reason. The check in Rust and the CRD use the same ones.

use std::ops::RangeInclusive;

/// The name of a pod has a suffix of up to 11 characters, and must fit in the 63 characters of a label.
pub(crate) const LONGEST_NAME: usize = 52;
/// A namespace is a label.
pub(crate) const LONGEST_NAMESPACE: usize = 63;
/// The name of a Secret is a domain name. Its keys have the same limit.
pub(crate) const LONGEST_SECRET: usize = 253;
/// A thousand pods of ten workers. Beyond that the database is the limit.
pub(crate) const TOTAL: RangeInclusive<u32> = 0..=10_000;
/// As many pods as workers, with one worker each.
pub(crate) const REPLICAS: RangeInclusive<u32> = 0..=*TOTAL.end();
/// The most tasks of one claim.
pub(crate) const PER_POD: RangeInclusive<u32> = 1..=1000;
/// The ports of TCP.
pub(crate) const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// Longer than any path in use.
pub(crate) const LONGEST_PATH: usize = 1024;
/// A container's name is a label.
pub(crate) const LONGEST_CONTAINER_NAME: usize = 63;
/// More than a pod can run. The CEL rules about containers need a bound.
pub(crate) const MOST_CONTAINERS: usize = 100;
pub(crate) const MAX_ATTEMPTS: RangeInclusive<u16> = 1..=1000;
/// One a second for eleven days.
pub(crate) const MAX_SNOOZES: RangeInclusive<u32> = 1..=1_000_000;
pub(crate) const JITTER_PERCENT: RangeInclusive<u8> = 0..=100;
/// Redirects and errors, which do not complete a task.
pub(crate) const FINAL_STATUS: RangeInclusive<u16> = 300..=599;
/// All of those statuses.
pub(crate) const MOST_FINAL: usize = 300;
/// More delays are better written as an exponential backoff.
pub(crate) const MOST_DELAYS: usize = 100;
pub(crate) const FACTOR: RangeInclusive<u32> = 1..=100;
/// Billions of open tasks mean that something else is wrong.
pub(crate) const BACKLOG: RangeInclusive<u64> = 1..=1_000_000_000;
/// Each worker reads a whole payload into memory. Larger data belongs in object storage.
pub(crate) const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=64 * 1024 * 1024;
/// Longer than any useful quantity.
pub(crate) const LONGEST_QUANTITY: usize = 32;
/// More kinds of resources than a node has.
#[cfg(feature = "kube")]
pub(crate) const MOST_RESOURCES: usize = 16;
/// A rollout adds at least one pod, and at most as many as a queue may have.
pub(crate) const SURGE_PODS: RangeInclusive<u32> = 1..=1000;
/// More runs than a canary can wait for.
pub(crate) const CANARY_RUNS: RangeInclusive<u64> = 1..=1_000_000;
/// With 100, no number of failures is too many.
pub(crate) const EXTRA_FAILURE_PERCENT: RangeInclusive<u8> = 0..=100;
/// A hundred times as long.
pub(crate) const EXTRA_DURATION_PERCENT: RangeInclusive<u16> = 0..=10_000;
/// At most all pods at the same time.
pub(crate) const SURGE_PERCENT: RangeInclusive<u32> = 1..=100;
