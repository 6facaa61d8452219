//! The loop over the queues of one database: observe, plan, apply. It knows nothing of why it runs.

mod opening;
mod report;

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use rowlock_crds::TaskQueue;
use rowlock_queue::Db;
use tokio::time::sleep;

use super::applier::Pods;
use super::charges::{charge, manifest};
use super::database::{self, Trouble};
use super::shared::Shared;
use super::source::{Access, Source};
use super::watch::Namespace;
use crate::control::Operator;
use crate::room::Room;

use opening::Refused;
use report::Last;

/// How often the database is asked.
const TICK: Duration = Duration::from_secs(2);

/// The least time between two looks, whatever changes.
const LEAST_TICK: Duration = Duration::from_millis(300);

/// Queues of one database and what is known about it.
pub(crate) struct Tender {
    shared: Arc<Shared>,
    source: Source,
    namespace: Arc<Namespace>,
    operator: Option<Operator<Pods>>,
    access: Option<Access>,
    db: Option<Db>,
    /// Which database that is.
    identity: Option<String>,
    /// When its server was started.
    started_at: Option<i64>,
    /// Where its other loops are met, and by what name.
    room: Option<(String, Arc<Room>)>,
    trouble: Option<Trouble>,
    refused: Option<Refused>,
    looked_at: Option<Instant>,
    written: BTreeMap<String, Last>,
}

impl Tender {
    pub(crate) fn new(shared: Arc<Shared>, source: Source, namespace: Arc<Namespace>) -> Self {
        Self {
            shared,
            source,
            namespace,
            operator: None,
            access: None,
            db: None,
            identity: None,
            started_at: None,
            room: None,
            trouble: None,
            refused: None,
            looked_at: None,
            written: BTreeMap::new(),
        }
    }

    /// Tends them until dropped.
    pub(crate) async fn run(mut self) {
        let mut changed = self.namespace.changed.subscribe();
        let mut queues = self.shared.changed.subscribe();
        loop {
            if self.shared.leadership.may_write() {
                self.reconcile().await;
            } else {
                // Who leads next begins with nothing but what is there.
                self.forget().await;
            }
            let rest = self.operator.as_ref().map_or(Duration::ZERO, Operator::rest);
            sleep(LEAST_TICK.max(rest)).await;
            let stirred = async {
                match &self.operator {
                    Some(operator) => operator.stirred().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(TICK) => (),
                _ = changed.changed() => (),
                _ = queues.changed() => (),
                () = self.shared.leadership.gained() => (),
                () = stirred => (),
            }
        }
    }

    async fn forget(&mut self) {
        (self.operator, self.access, self.identity, self.trouble, self.looked_at) =
            (None, None, None, None, None);
        self.room = None;
        self.written.clear();
        self.shared.show(&self.source, None);
        if let Some(db) = self.db.take() {
            db.close().await;
        }
    }

    async fn reconcile(&mut self) {
        let (queues, doubles) = self.queues();
        self.written.retain(|name, _| queues.values().chain(&doubles).any(|one| one.name_any() == *name));
        self.look().await;
        let usable = self.is_usable();
        let view = match &mut self.operator {
            Some(operator) if usable => {
                if let Some((_, room)) = &self.room {
                    room.set_owners(self.shared.owners(&self.source.namespace));
                }
                let charges = queues.values().map(|one| {
                    let written = self.written.get(&one.name_any()).map(|last| &last.status);
                    let last = written.or(one.status.as_ref());
                    charge(one, &self.shared.cluster, last.and_then(|last| last.adopted.as_ref()))
                });
                operator.set_each(charges);
                operator.applier_mut().set_owners(&queues);
                let view = operator.reconcile().await;
                // A database that does not answer is asked for its Secret at once: it may be another one by now. That another loop sees it says
                // nothing of this Secret.
                if operator.looks() || view.trouble.is_some() {
                    let trouble = view.trouble.as_deref().map(database::trouble);
                    self.trouble = trouble.map(|trouble| self.source.told(trouble));
                }
                // Another server, or the same again: the loops meet anew.
                if view.started_at.is_some() && view.started_at != self.started_at {
                    self.looked_at = None;
                }
                Some(view)
            }
            _ => {
                self.leave_others();
                None
            }
        };
        self.shared.show(&self.source, view.as_ref());
        for (name, one) in &queues {
            self.write_status(one, Some(name), view.as_ref()).await;
        }
        for one in &doubles {
            self.write_status(one, None, view.as_ref()).await;
        }
    }

    /// The `TaskQueues` of this database by the names of their queues, and those whose queue another has already.
    fn queues(&self) -> (BTreeMap<String, Arc<TaskQueue>>, Vec<Arc<TaskQueue>>) {
        let mut all = self.shared.queues_of(&self.source);
        all.sort_by_key(|one| (one.creation_timestamp().map(|time| time.0), one.name_any()));
        let (mut queues, mut doubles) = (BTreeMap::new(), Vec::new());
        for one in all {
            let name = manifest(&one).queue_name().to_owned();
            match queues.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(one)),
                Entry::Occupied(_) => doubles.push(one),
            }
        }
        (queues, doubles)
    }

    fn is_usable(&self) -> bool {
        self.namespace.is_complete() && self.trouble.as_ref().is_none_or(Trouble::may_pass)
    }

    fn new_operator(&self, db: Db) -> Operator<Pods> {
        let pods = Pods::new(Arc::clone(&self.shared), Arc::clone(&self.namespace));
        Operator::new(db, pods, &self.shared.cluster)
    }
}

impl Drop for Tender {
    /// Nothing is known of these queues any more.
    fn drop(&mut self) {
        self.shared.show(&self.source, None);
    }
}
