//! The controller of the queues of one database: observe, plan, apply. It knows nothing of why it runs.

mod connection;
mod report;

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use rowlock_crds::TaskQueue;
use rowlock_queue::Db;
use tokio::time::sleep;

use crate::kubernetes::api::watch::NamespaceWatch;
use crate::kubernetes::context::Context;
use crate::kubernetes::convert::{desired_queue, manifest};
use crate::kubernetes::database::session::{self, Problem};
use crate::kubernetes::database::source::{Access, Source};
use crate::kubernetes::deployment::backend::PodBackend;
use crate::reconciler::Reconciler;
use crate::shared_poller::SharedPoller;

use connection::RefusedAccess;
use report::LastStatus;

/// How often the database is asked.
const TICK: Duration = Duration::from_secs(2);

/// The least time between two passes, whatever changes.
const LEAST_TICK: Duration = Duration::from_millis(300);

/// Queues of one database and what is known about it.
pub(crate) struct Controller {
    context: Arc<Context>,
    source: Source,
    namespace: Arc<NamespaceWatch>,
    reconciler: Option<Reconciler<PodBackend>>,
    access: Option<Access>,
    db: Option<Db>,
    /// Which database that is.
    identity: Option<String>,
    /// When its server was started.
    started_at: Option<i64>,
    /// The poller that it shares with others, and by what name.
    shared_poller: Option<(String, Arc<SharedPoller>)>,
    problem: Option<Problem>,
    refused: Option<RefusedAccess>,
    checked_at: Option<Instant>,
    last_statuses: BTreeMap<String, LastStatus>,
}

impl Controller {
    pub(crate) fn new(context: Arc<Context>, source: Source, namespace: Arc<NamespaceWatch>) -> Self {
        Self {
            context,
            source,
            namespace,
            reconciler: None,
            access: None,
            db: None,
            identity: None,
            started_at: None,
            shared_poller: None,
            problem: None,
            refused: None,
            checked_at: None,
            last_statuses: BTreeMap::new(),
        }
    }

    /// Reconciles them until dropped.
    pub(crate) async fn run(mut self) {
        let mut changed = self.namespace.changed.subscribe();
        let mut queues = self.context.changed.subscribe();
        loop {
            if self.context.leadership.may_write() {
                self.reconcile().await;
            } else {
                // Who leads next begins with nothing but what is there.
                self.forget().await;
            }
            let rest = self.reconciler.as_ref().map_or(Duration::ZERO, Reconciler::poll_interval);
            sleep(LEAST_TICK.max(rest)).await;
            let woken = async {
                match &self.reconciler {
                    Some(reconciler) => reconciler.woken().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(TICK) => (),
                _ = changed.changed() => (),
                _ = queues.changed() => (),
                () = self.context.leadership.gained() => (),
                () = woken => (),
            }
        }
    }

    async fn forget(&mut self) {
        (self.reconciler, self.access, self.identity, self.problem, self.checked_at) =
            (None, None, None, None, None);
        self.shared_poller = None;
        self.last_statuses.clear();
        self.context.set_view(&self.source, None);
        if let Some(db) = self.db.take() {
            db.close().await;
        }
    }

    async fn reconcile(&mut self) {
        let (queues, duplicates) = self.queues();
        self.last_statuses
            .retain(|name, _| queues.values().chain(&duplicates).any(|one| one.name_any() == *name));
        self.check_database().await;
        let usable = self.is_usable();
        let view = match &mut self.reconciler {
            Some(reconciler) if usable => {
                if let Some((_, shared_poller)) = &self.shared_poller {
                    shared_poller.set_owners(self.context.owners(&self.source.namespace));
                }
                let desired_queues = queues.values().map(|one| {
                    let published = self.last_statuses.get(&one.name_any()).map(|last| &last.status);
                    let last = published.or(one.status.as_ref());
                    desired_queue(one, &self.context.cluster, last.and_then(|last| last.adopted.as_ref()))
                });
                reconciler.set_queues(desired_queues);
                reconciler.backend_mut().set_owners(&queues);
                let view = reconciler.reconcile().await;
                // A database that does not answer is asked for its Secret at once: it may be another one by now. That another controller sees it says
                // nothing of this Secret.
                if reconciler.is_poller() || view.problem.is_some() {
                    let problem = view.problem.as_deref().map(session::problem);
                    self.problem = problem.map(|problem| self.source.name_secret(problem));
                }
                // Another server, or the same again: the controllers join anew.
                if view.started_at.is_some() && view.started_at != self.started_at {
                    self.checked_at = None;
                }
                Some(view)
            }
            _ => {
                self.leave_shared_poller();
                None
            }
        };
        self.context.set_view(&self.source, view.as_ref());
        for (name, one) in &queues {
            self.write_status(one, Some(name), view.as_ref()).await;
        }
        for one in &duplicates {
            self.write_status(one, None, view.as_ref()).await;
        }
    }

    /// The `TaskQueues` of this database by the names of their queues, and those whose queue another has already.
    fn queues(&self) -> (BTreeMap<String, Arc<TaskQueue>>, Vec<Arc<TaskQueue>>) {
        let mut all = self.context.queues_of(&self.source);
        all.sort_by_key(|one| (one.creation_timestamp().map(|time| time.0), one.name_any()));
        let (mut queues, mut duplicates) = (BTreeMap::new(), Vec::new());
        for one in all {
            let name = manifest(&one).queue_name().to_owned();
            match queues.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(one)),
                Entry::Occupied(_) => duplicates.push(one),
            }
        }
        (queues, duplicates)
    }

    fn is_usable(&self) -> bool {
        self.namespace.is_complete() && self.problem.as_ref().is_none_or(Problem::may_pass)
    }

    fn new_reconciler(&self, db: Db) -> Reconciler<PodBackend> {
        let pods = PodBackend::new(Arc::clone(&self.context), Arc::clone(&self.namespace));
        Reconciler::new(db, pods, &self.context.cluster)
    }
}

impl Drop for Controller {
    /// Nothing is known of these queues any more.
    fn drop(&mut self) {
        self.context.set_view(&self.source, None);
    }
}
