//! The controller of the queues of one database: observe, plan, apply. Each pass checks everything, whatever
//! woke it.

mod connection;
mod report;

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use rowlock_crds::TaskQueue;
use tokio::time::sleep;

use crate::kubernetes::api::watch::NamespaceWatch;
use crate::kubernetes::context::Context;
use crate::kubernetes::convert::{desired_queue, manifest};
use crate::kubernetes::database::source::Source;
use crate::kubernetes::deployment::outcome::Outcome;
use crate::reconciler::Reconciler;
use crate::view::View;

use connection::Connection;
use report::{Report, Reporter};

/// The longest time between two passes.
const TICK: Duration = Duration::from_secs(2);

/// The shortest time between two passes, however much changes.
const LEAST_TICK: Duration = Duration::from_millis(300);

/// Reconciles the queues of one database, and reports their status.
pub(crate) struct Controller {
    context: Arc<Context>,
    source: Source,
    namespace: Arc<NamespaceWatch>,
    connection: Connection,
    reporter: Reporter,
}

/// `TaskQueues` by the names of their queues.
type Queues = BTreeMap<String, Arc<TaskQueue>>;

impl Controller {
    pub(crate) fn new(context: Arc<Context>, source: Source, namespace: Arc<NamespaceWatch>) -> Self {
        let connection = Connection::new(Arc::clone(&context), source.clone(), Arc::clone(&namespace));
        let reporter = Reporter::new(Arc::clone(&context), &source.namespace, Arc::clone(&namespace));
        Self { context, source, namespace, connection, reporter }
    }

    /// Reconciles until dropped.
    pub(crate) async fn run(mut self) {
        let mut changed = self.namespace.changed.subscribe();
        let mut queues = self.context.changed.subscribe();
        loop {
            if self.context.leadership.may_write() {
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
                () = sleep(TICK) => (),
                _ = changed.changed() => (),
                _ = queues.changed() => (),
                () = self.context.leadership.gained() => (),
                () = woken => (),
            }
        }
    }

    async fn forget(&mut self) {
        self.reporter.retain(|_| false);
        self.context.set_view(&self.source, None);
        self.connection.close().await;
    }

    async fn reconcile(&mut self) {
        let (queues, duplicates) = self.queues();
        self.reporter.retain(|name| queues.values().chain(&duplicates).any(|one| one.name_any() == name));
        self.connection.check().await;
        let view = self.reconcile_queues(&queues).await;
        self.context.set_view(&self.source, view.as_ref());
        for (queue, one) in &queues {
            let (outcome, foreign_scaling) = match &mut self.connection.session {
                Some(session) => {
                    let pods = session.reconciler.backend_mut();
                    (pods.outcome(queue), pods.foreign_scaling(queue))
                }
                None => (Outcome::NotTried, None),
            };
            let report = Report {
                view: view.as_ref().and_then(|view| view.queues.iter().find(|view| view.name == *queue)),
                problem: self.connection.problem.clone(),
                identity: self.connection.session.as_ref().and_then(|it| it.identity.database.as_deref()),
                outcome,
                foreign_scaling,
            };
            self.reporter.write(one, &report).await;
        }
        for one in &duplicates {
            self.reporter.write(one, &Report::duplicate(one)).await;
        }
    }

    /// One pass over the queues; `None` while the database or the namespace cannot be used.
    async fn reconcile_queues(&mut self, queues: &Queues) -> Option<View> {
        if !self.connection.is_usable() {
            self.connection.leave_shared_poller();
            return None;
        }
        let session = self.connection.session.as_mut()?;
        if let Some((_, shared_poller)) = &session.shared_poller {
            shared_poller.set_owners(self.context.owners(&self.source.namespace));
        }
        let desired_queues = queues.values().map(|one| {
            let last = self.reporter.last_status(&one.name_any()).or(one.status.as_ref());
            desired_queue(one, &self.context.cluster, last.and_then(|last| last.adopted.as_ref()))
        });
        session.reconciler.set_queues(desired_queues);
        session.reconciler.backend_mut().set_owners(queues);
        let view = session.reconciler.reconcile().await;
        self.connection.note(&view);
        Some(view)
    }

    /// The `TaskQueues` of this database, and those whose queue an older `TaskQueue` has already.
    fn queues(&self) -> (Queues, Vec<Arc<TaskQueue>>) {
        let mut all = self.context.queues_of(&self.source);
        all.sort_by_key(|one| (one.creation_timestamp().map(|time| time.0), one.name_any()));
        let (mut queues, mut duplicates) = (Queues::new(), Vec::new());
        for one in all {
            let name = manifest(&one).queue_name().to_owned();
            match queues.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(one)),
                Entry::Occupied(_) => duplicates.push(one),
            }
        }
        (queues, duplicates)
    }
}

impl Drop for Controller {
    /// The metrics of these queues go with their controller.
    fn drop(&mut self) {
        self.context.set_view(&self.source, None);
    }
}
