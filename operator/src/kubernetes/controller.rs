//! The controller of the queues of one database: observe, plan, apply. Whatever woke it, each pass checks
//! everything.

mod connection;
mod handler_ends;
mod last_status;
mod rescue_pods;
mod write_status;

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use rowlock_crds::{TaskQueue, annotations};
use tokio::time::sleep;

use crate::jitter::{jittered, part_of};
use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::api::watch::without_status;
use crate::kubernetes::context::Context;
use crate::kubernetes::database::source::Source;
use crate::kubernetes::deployment::apply_result::Outcome;
use crate::kubernetes::desired::{desired_queue, queue_name};
use crate::reconciler::Reconciler;
use crate::view::View;

use connection::Connection;
use write_status::{Report, Reporter};

/// The longest wait between two passes.
const TICK: Duration = Duration::from_secs(2);

/// The shortest wait between two passes, however often objects change.
const LEAST_TICK: Duration = Duration::from_millis(300);

/// How long the controllers of a new leader take to begin, for each of them: hundreds of Secrets are not read
/// and hundreds of databases not queried at once.
const START_SPREAD: Duration = Duration::from_millis(5);

/// The longest time that they take.
const MAX_START_SPREAD: Duration = Duration::from_secs(2);

/// Reconciles the queues of one database, and reports their status.
pub(crate) struct Controller {
    context: Arc<Context>,
    source: Source,
    namespace: Arc<NamespaceWatch>,
    connection: Connection,
    reporter: Reporter,
    queues: Queues,
    /// Those that name the queue of an older `TaskQueue`.
    duplicates: Vec<Arc<TaskQueue>>,
    /// The version of the watched `TaskQueues` that these are from.
    version: Option<u64>,
}

/// `TaskQueues` by the names of their queues.
type Queues = BTreeMap<String, Arc<TaskQueue>>;

impl Controller {
    pub(crate) fn new(context: Arc<Context>, source: Source, namespace: Arc<NamespaceWatch>) -> Self {
        let connection = Connection::new(Arc::clone(&context), source.clone(), Arc::clone(&namespace));
        let reporter = Reporter::new(Arc::clone(&context), &source.namespace, Arc::clone(&namespace));
        let (queues, duplicates, version) = (Queues::new(), Vec::new(), None);
        Self { context, source, namespace, connection, reporter, queues, duplicates, version }
    }

    /// Reconciles until dropped.
    pub(crate) async fn run(mut self) {
        let mut changed = self.namespace.changed();
        let mut queues = self.context.changes.subscribe(Some(&self.source.namespace));
        let mut leads = false;
        loop {
            let led = std::mem::replace(&mut leads, self.context.leadership.may_write());
            if leads {
                if !led {
                    sleep(part_of(start_spread(self.context.task_queues.len()))).await;
                    continue;
                }
                self.reconcile().await;
            } else {
                // A new leader starts from what it observes, not from what it remembers.
                self.forget().await;
            }
            let reconciler = self.connection.session.as_ref().map(|session| &session.reconciler);
            sleep(LEAST_TICK.max(reconciler.map_or(Duration::ZERO, Reconciler::poll_interval))).await;
            let woken = async {
                match reconciler {
                    Some(reconciler) => reconciler.woken().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(jittered(TICK)) => (),
                _ = changed.changed() => (),
                _ = queues.changed() => (),
                () = self.context.leadership.gained() => (),
                () = woken => (),
            }
        }
    }

    async fn forget(&mut self) {
        self.reporter.retain(|_| false);
        (self.queues, self.duplicates, self.version) = (Queues::new(), Vec::new(), None);
        self.context.set_view(&self.source, None);
        self.connection.close().await;
    }

    async fn reconcile(&mut self) {
        self.read_queues();
        self.connection.check().await;
        if let Some(db) = self.connection.usable_db() {
            rescue_pods::rescue_pods(&self.context, &self.namespace, db, &self.queues).await;
            handler_ends::name_handler_ends(&self.context, &self.namespace, db, &self.queues).await;
        }
        let view = self.reconcile_queues().await.map(Arc::new);
        self.context.set_view(&self.source, view.clone());
        for (queue, one) in &self.queues {
            let (outcome, foreign_scaling, canary) = match &mut self.connection.session {
                Some(session) => {
                    let pods = session.reconciler.backend_mut();
                    (pods.outcome(queue), pods.foreign_scaling(queue), pods.canary(queue))
                }
                None => (Outcome::NotTried, None, None),
            };
            let report = Report {
                view: view.as_ref().and_then(|view| view.queue(queue)),
                problem: self.connection.problem.clone(),
                identity: self.connection.session.as_ref().and_then(|it| it.identity.database.as_deref()),
                outcome,
                foreign_scaling,
                canary,
            };
            self.reporter.write(one, &report).await;
        }
        for one in &self.duplicates {
            self.reporter.write(one, &Report::duplicate(one)).await;
        }
    }

    /// One pass over the queues; `None` while the database or the namespace cannot be used.
    async fn reconcile_queues(&mut self) -> Option<View> {
        if !self.connection.is_usable() {
            self.connection.leave_shared_poller();
            return None;
        }
        let session = self.connection.session.as_mut()?;
        if !std::mem::replace(&mut session.has_owners, true)
            && let Some((_, shared_poller)) = &session.shared_poller
        {
            shared_poller.set_owners(self.context.owners(&self.source.namespace));
        }
        let adopts = |one: &Arc<TaskQueue>| one.annotations().contains_key(annotations::ADOPT);
        // An adoption that is done is not repeated, and only the last status tells.
        if !std::mem::replace(&mut session.has_queues, true) || self.queues.values().any(adopts) {
            let desired_queues = self.queues.values().map(|one| {
                let last = self.reporter.last_status(&one.name_any()).or(one.status.as_ref());
                desired_queue(one, &self.context.cluster, last.and_then(|last| last.adopted.as_ref()))
            });
            session.reconciler.set_queues(desired_queues);
            session.reconciler.backend_mut().set_owners(&self.queues);
        }
        let view = session.reconciler.reconcile().await;
        self.connection.note(&view);
        Some(view)
    }

    /// Reads the `TaskQueues` of this database, if any has changed.
    fn read_queues(&mut self) {
        let version = self.context.task_queues.version();
        if self.version.replace(version) == Some(version) {
            return;
        }
        let (queues, duplicates) = self.find_queues();
        let same = self.queues.len() == queues.len()
            && self.queues.iter().zip(&queues).all(|(old, new)| old.0 == new.0 && is_same(old.1, new.1));
        (self.queues, self.duplicates) = (queues, duplicates);
        let names = self.queues.values().chain(&self.duplicates).map(|one| one.name_any());
        let names: BTreeSet<String> = names.collect();
        self.reporter.retain(|name| names.contains(name));
        if let Some(session) = &mut self.connection.session {
            // Others of the namespace may have changed.
            session.has_owners = false;
            session.has_queues &= same;
        }
    }

    /// The `TaskQueues` of this database, and duplicates: those that name the queue of an older `TaskQueue`.
    fn find_queues(&self) -> (Queues, Vec<Arc<TaskQueue>>) {
        let mut all = self.context.queues_of(&self.source);
        all.sort_by_cached_key(|one| (one.creation_timestamp().map(|time| time.0), one.name_any()));
        let (mut queues, mut duplicates) = (Queues::new(), Vec::new());
        for one in all {
            match queues.entry(queue_name(&one).to_owned()) {
                Entry::Vacant(entry) => drop(entry.insert(one)),
                Entry::Occupied(_) => duplicates.push(one),
            }
        }
        (queues, duplicates)
    }
}

/// Whether a `TaskQueue` is the same but for its status.
fn is_same(one: &Arc<TaskQueue>, other: &Arc<TaskQueue>) -> bool {
    Arc::ptr_eq(one, other) || without_status(&**one) == without_status(&**other)
}

fn start_spread(task_queues: usize) -> Duration {
    START_SPREAD.saturating_mul(u32::try_from(task_queues).unwrap_or(u32::MAX)).min(MAX_START_SPREAD)
}

impl Drop for Controller {
    /// Removes the metrics of the queues.
    fn drop(&mut self) {
        self.context.set_view(&self.source, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before the fix, all controllers of a new leader read their Secrets and connected in the same moment.
    #[test]
    fn many_controllers_of_a_new_leader_begin_one_after_the_other() {
        for (task_queues, millis) in [(0, 0), (1, 5), (100, 500), (10_000, 2000)] {
            assert_eq!(start_spread(task_queues), Duration::from_millis(millis));
        }
    }
}
