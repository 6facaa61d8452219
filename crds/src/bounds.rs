//! How large and how long the fields may be, each with its reason: for the check in Rust and for the CRD.

use std::ops::RangeInclusive;

/// Names of pods get a suffix of up to 11 characters and must fit in the 63 of a label.
pub(crate) const LONGEST_NAME: usize = 52;
/// A namespace is a label.
pub(crate) const LONGEST_NAMESPACE: usize = 63;
/// A Secret's name is a domain name, and its keys are as long at most.
pub(crate) const LONGEST_SECRET: usize = 253;
/// A thousand pods of ten; past that the database is the limit, not we.
pub(crate) const TOTAL: RangeInclusive<u32> = 0..=10_000;
/// Pods of one worker each, of all workers that there may be.
pub(crate) const REPLICAS: RangeInclusive<u32> = 0..=*TOTAL.end();
/// What one claim may ask for.
pub(crate) const PER_POD: RangeInclusive<u32> = 1..=1000;
/// What TCP has.
pub(crate) const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// Longer than any route that somebody wrote by hand.
pub(crate) const LONGEST_PATH: usize = 1024;
/// A container's name is a label.
pub(crate) const LONGEST_CONTAINER_NAME: usize = 63;
/// More than a pod can run; the rules about containers need some bound.
pub(crate) const MOST_CONTAINERS: usize = 100;
pub(crate) const MAX_ATTEMPTS: RangeInclusive<u16> = 1..=1000;
/// One a second for eleven days.
pub(crate) const MAX_SNOOZES: RangeInclusive<u32> = 1..=1_000_000;
pub(crate) const JITTER_PERCENT: RangeInclusive<u8> = 0..=100;
/// Redirects and errors: what is not an answer that the task was done.
pub(crate) const FINAL_STATUS: RangeInclusive<u16> = 300..=599;
/// All there are.
pub(crate) const MOST_FINAL: usize = 300;
/// A list that somebody still reads; longer backoffs are exponential.
pub(crate) const MOST_DELAYS: usize = 100;
pub(crate) const FACTOR: RangeInclusive<u32> = 1..=100;
/// Billions of open tasks are a mistake somewhere else.
pub(crate) const BACKLOG: RangeInclusive<u64> = 1..=1_000_000_000;
/// Payloads are read whole into memory, one per worker; large things belong into object storage.
pub(crate) const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=64 * 1024 * 1024;
/// Longer than any amount of a resource that somebody writes.
pub(crate) const LONGEST_QUANTITY: usize = 32;
/// More kinds of resources than a node has.
#[cfg(feature = "kube")]
pub(crate) const MOST_RESOURCES: usize = 16;
/// A rollout adds one pod at least, and not more than a queue has at most.
pub(crate) const SURGE_PODS: RangeInclusive<u32> = 1..=1000;
/// All pods at a time, at most.
pub(crate) const SURGE_PERCENT: RangeInclusive<u32> = 1..=100;
