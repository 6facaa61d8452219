//! Records in the database why queues have their numbers of pods: at most one record per queue every 10 s.
//! It runs in the background, so a slow or failing database does not delay a pass. No decision reads the
//! records.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rowlock_plan::{Decision, Inputs, Reason};
use rowlock_queue::{
    Db, Error, QueueId, RECORD_MOST, ScalingFigures, ScalingRecord, record_scaling_decisions,
};
use tokio::task::JoinHandle;

/// The shortest time between two records of a queue. Of the changes in between only the last one counts.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// The same where only the reason has changed, and neither one is a limit: at a steady load such reasons
/// take turns.
const REASON_INTERVAL: Duration = Duration::from_mins(1);

/// How long after a failure it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The changes that are still to be recorded.
#[derive(Default)]
pub(crate) struct DecisionLog {
    queues: BTreeMap<String, QueueLog>,
    running: Option<Running>,
    failed_at: Option<Instant>,
}

/// What was decided: a change of it is recorded.
type Decided = (u32, Reason);

struct QueueLog {
    /// Its id. A queue that was deleted and declared again has another one, and no records.
    id: QueueId,
    recorded: Option<Decided>,
    recorded_at: Option<Instant>,
    pending: Option<Pending>,
}

struct Pending {
    decided: Decided,
    at: Instant,
    record: ScalingRecord,
}

/// A pending record that was sent, and what the queue's last record was before it.
struct Sent {
    id: QueueId,
    pending: Pending,
    before: Option<Decided>,
}

type Recording = (Vec<Sent>, Result<u32, Error>);

/// A statement that is aborted when this is dropped.
struct Running(JoinHandle<Recording>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl DecisionLog {
    /// Takes in what was decided at `now` for a queue of ours that has `pods`. `detail`: what limits the
    /// number, asked for if this is a change.
    pub(crate) fn note(
        &mut self,
        (queue, id, owner): (&str, QueueId, &str),
        pods: u32,
        decision: &Decision,
        detail: impl FnOnce() -> Option<String>,
        now: Instant,
    ) {
        if self.queues.get(queue).is_none_or(|log| log.id != id) {
            self.queues.insert(queue.to_owned(), QueueLog::of(id));
        }
        let Some(log) = self.queues.get_mut(queue) else { return };
        let decided = (decision.pods_desired, decision.reason);
        if log.recorded == Some(decided) {
            log.pending = None;
        } else if log.replaces_pending(decided) {
            let pods_before = log.recorded.map_or(pods, |(pods, _)| pods);
            let record = record((queue, owner), pods_before, decision, detail());
            log.pending = Some(Pending { decided, at: now, record });
        }
    }

    /// Forgets queues that are managed no more.
    pub(crate) fn retain(&mut self, is_managed: impl Fn(&str) -> bool) {
        self.queues.retain(|queue, _| is_managed(queue));
    }

    /// Begins to record what is due, and takes in how the last time ended. Waits for nothing.
    /// `keeps_connection`: whether this controller polls. The idle connections of others would count as used
    /// by others.
    pub(crate) async fn record(&mut self, db: &Db, keeps_connection: bool) {
        let now = Instant::now();
        if let Some(mut finished) = self.running.take_if(|running| running.0.is_finished())
            && let Ok((sent, result)) = (&mut finished.0).await
        {
            self.ended(sent, result, now);
        }
        if self.running.is_some() || self.failed_at.is_some_and(|at| now.duration_since(at) < RETRY_INTERVAL)
        {
            return;
        }
        let sent = self.take_due(now);
        if sent.is_empty() {
            return;
        }
        let db = db.clone();
        self.running = Some(Running(tokio::spawn(async move {
            let records: Vec<ScalingRecord> = sent.iter().map(Sent::record).collect();
            let result = record_scaling_decisions(&db, &records).await;
            if !keeps_connection {
                db.close_idle().await;
            }
            (sent, result)
        })));
    }

    fn take_due(&mut self, now: Instant) -> Vec<Sent> {
        let due = self.queues.values_mut().filter_map(|log| log.take_due(now));
        due.take(RECORD_MOST).collect()
    }

    /// What was not recorded is pending again, unless there is a later change.
    fn ended(&mut self, sent: Vec<Sent>, result: Result<u32, Error>, now: Instant) {
        let Err(error) = result else {
            if self.failed_at.take().is_some() {
                tracing::info!("scaling decisions are recorded again");
            }
            return;
        };
        if self.failed_at.replace(now).is_none() {
            tracing::warn!(%error, "scaling decisions cannot be recorded; trying again");
        }
        for Sent { id, pending, before } in sent {
            let log = self.queues.get_mut(&pending.record.queue);
            if let Some(log) = log.filter(|log| log.id == id) {
                log.recorded = before;
                log.pending.get_or_insert(pending);
            }
        }
    }
}

impl QueueLog {
    fn of(id: QueueId) -> Self {
        Self { id, recorded: None, recorded_at: None, pending: None }
    }

    /// While another number of pods is pending, its own reason explains it, unless a limit holds by now.
    fn replaces_pending(&self, (pods, reason): Decided) -> bool {
        let Some((pending_pods, pending_reason)) = self.pending.as_ref().map(|pending| pending.decided)
        else {
            return true;
        };
        let is_new_number = self.recorded.is_none_or(|(recorded, _)| recorded != pods);
        pods != pending_pods || (reason != pending_reason && (reason.is_limit() || !is_new_number))
    }

    fn take_due(&mut self, now: Instant) -> Option<Sent> {
        let interval = self.interval();
        let early = self.recorded_at.is_some_and(|at| now.duration_since(at) < interval);
        let pending = self.pending.take_if(|_| !early)?;
        self.recorded_at = Some(now);
        let before = self.recorded.replace(pending.decided);
        Some(Sent { id: self.id, pending, before })
    }

    fn interval(&self) -> Duration {
        let pending = self.pending.as_ref().map(|pending| pending.decided);
        match (self.recorded, pending) {
            (Some((old, was)), Some((new, is))) if old == new && !was.is_limit() && !is.is_limit() => {
                REASON_INTERVAL
            }
            _ => MIN_INTERVAL,
        }
    }
}

impl Sent {
    fn record(&self) -> ScalingRecord {
        let age_seconds = self.pending.at.elapsed().as_secs_f64();
        ScalingRecord { age_seconds, ..self.pending.record.clone() }
    }
}

fn record(
    (queue, owner): (&str, &str),
    pods_before: u32,
    decision: &Decision,
    detail: Option<String>,
) -> ScalingRecord {
    ScalingRecord {
        queue: queue.to_owned(),
        owner: owner.to_owned(),
        age_seconds: 0.0,
        pods_before: int(pods_before),
        pods: int(decision.pods_desired),
        workers: int(decision.workers_desired),
        reason: decision.reason.as_str().to_owned(),
        demand: decision.demand.map(int),
        figures: decision.inputs.as_ref().map(figures),
        detail,
    }
}

fn figures(inputs: &Inputs) -> ScalingFigures {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    ScalingFigures {
        waiting: count(inputs.backlog),
        running: count(inputs.running),
        arrivals_per_second: inputs.arrivals_per_second,
        service_seconds: inputs.service_seconds,
        service_assumed: inputs.service_assumed,
        pod_start_seconds: inputs.pod_start_seconds,
        for_rate: inputs.for_rate,
        for_backlog: inputs.for_backlog,
    }
}

fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use rowlock_plan::Memory;

    use super::*;

    struct Played {
        log: DecisionLog,
        id: QueueId,
        start: Instant,
    }

    impl Played {
        fn new() -> Self {
            Self { log: DecisionLog::default(), id: QueueId(1), start: Instant::now() }
        }

        /// What is sent at this second, after this decision.
        fn at(&mut self, second: u64, pods: u32, reason: Reason) -> Vec<Sent> {
            let now = self.start + Duration::from_secs(second);
            let decision = Decision {
                workers_desired: pods,
                pods_desired: pods,
                reason,
                demand: None,
                inputs: None,
                memory: Memory::default(),
            };
            self.log.note(("mail", self.id, "o"), 1, &decision, || None, now);
            self.log.take_due(now)
        }

        /// The pods before and after, if a record is sent.
        fn pods(&mut self, second: u64, pods: u32, reason: Reason) -> Option<(i32, i32)> {
            let sent = self.at(second, pods, reason);
            assert!(sent.len() <= 1);
            sent.first().map(|sent| (sent.pending.record.pods_before, sent.pending.record.pods))
        }
    }

    #[test]
    fn each_change_is_recorded_once_and_only_the_last_one_within_ten_seconds() {
        let mut played = Played::new();
        assert_eq!(played.pods(0, 2, Reason::Backlog), Some((1, 2)));
        assert_eq!(played.pods(1, 2, Reason::Backlog), None);
        assert_eq!(played.pods(2, 5, Reason::Backlog), None);
        assert_eq!(played.pods(3, 7, Reason::Backlog), None);
        assert_eq!(played.pods(10, 7, Reason::Backlog), Some((2, 7)));
        // Back before it was recorded.
        assert_eq!(played.pods(11, 9, Reason::Backlog), None);
        assert_eq!(played.pods(12, 7, Reason::Backlog), None);
        assert_eq!(played.pods(100, 7, Reason::Backlog), None);
    }

    #[test]
    fn another_number_is_recorded_with_the_reason_that_it_came_from() {
        let mut played = Played::new();
        let mut reasons = |second: u64, reason: Reason| {
            let sent = played.at(second, if second == 0 { 1 } else { 3 }, reason);
            sent.first().map(|sent| sent.pending.decided)
        };
        assert_eq!(reasons(0, Reason::Backlog), Some((1, Reason::Backlog)));
        assert_eq!(reasons(1, Reason::Backlog), None);
        assert_eq!(reasons(2, Reason::Running), None);
        assert_eq!(reasons(10, Reason::Running), Some((3, Reason::Backlog)));
        assert_eq!(reasons(11, Reason::Running), None);
        assert_eq!(reasons(70, Reason::Running), Some((3, Reason::Running)));
        assert_eq!(reasons(71, Reason::Total), None);
        assert_eq!(reasons(80, Reason::Total), Some((3, Reason::Total)));
    }

    #[test]
    fn another_reason_alone_is_recorded_once_a_minute_unless_it_is_a_limit() {
        let mut played = Played::new();
        assert!(played.pods(0, 2, Reason::Backlog).is_some());
        assert_eq!(played.pods(20, 2, Reason::Rate), None);
        assert_eq!(played.pods(30, 2, Reason::Total), Some((2, 2)));
        assert_eq!(played.pods(40, 2, Reason::Rate), Some((2, 2)));
        assert_eq!(played.pods(60, 2, Reason::Backlog), None);
        assert_eq!(played.pods(100, 2, Reason::Backlog), Some((2, 2)));
    }

    #[test]
    fn what_was_not_recorded_is_sent_again_unless_there_is_a_later_change() {
        let mut played = Played::new();
        let sent = played.at(0, 2, Reason::Backlog);
        let later = played.start + Duration::from_secs(5);
        played.log.ended(sent, Err(Error::Timeout), later);
        assert!(played.log.failed_at.is_some());
        let sent = played.at(60, 2, Reason::Backlog);
        assert_eq!(sent.first().map(|sent| sent.pending.record.pods), Some(2));
        assert_eq!(played.pods(61, 6, Reason::Backlog), None, "too early");
        played.log.ended(sent, Err(Error::Timeout), later);
        assert_eq!(played.pods(90, 6, Reason::Backlog), Some((2, 6)));
        played.log.ended(Vec::new(), Ok(1), later);
        assert!(played.log.failed_at.is_none());
        played.log.retain(|_| false);
        assert!(played.log.queues.is_empty());
    }

    /// Before, such a queue had no record until its number changed, so `rowlock why` knew nothing about it.
    #[test]
    fn a_queue_that_was_deleted_and_declared_again_is_recorded_again() {
        let mut played = Played::new();
        let old = played.at(0, 2, Reason::Backlog);
        played.id = QueueId(2);
        assert_eq!(played.pods(1, 2, Reason::Backlog), Some((1, 2)));
        // What was sent for the deleted one has failed since.
        played.id = QueueId(3);
        assert_eq!(played.pods(2, 4, Reason::Backlog), Some((1, 4)));
        played.log.ended(old, Err(Error::Timeout), played.start);
        assert_eq!(played.pods(20, 4, Reason::Backlog), None);
    }
}
