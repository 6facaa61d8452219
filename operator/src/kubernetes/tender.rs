//! The loop over the queues of one database: observe, plan, apply. It knows nothing of why it runs.

mod report;

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use rowlock_crds::{ConditionReason, TaskQueue};
use rowlock_queue::{Db, Identity};
use tokio::time::sleep;

use super::applier::Pods;
use super::charges::{charge, manifest};
use super::database::{self, Source, Trouble};
use super::shared::Shared;
use super::watch::Namespace;
use crate::control::Operator;
use crate::room::{Room, Seat};
use report::Last;

/// How often the database is asked.
const TICK: Duration = Duration::from_secs(2);

/// The least time between two looks, whatever changes.
const LEAST_TICK: Duration = Duration::from_millis(300);

/// How often the Secret is read, and whether the tables are still ours to use is asked.
const SECRET_EVERY: Duration = Duration::from_mins(1);

/// How often after the database refused us, or something else is wrong with it.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// And where the database refuses the very URL that the Secret has: so many failed logins are nobody's friend.
const REFUSED_LONGEST: Duration = Duration::from_secs(30);

/// So long making or changing the tables may take, with all that waits for a lock; a server that has vanished says nothing for longer.
const OPENING_LONGEST: Duration = Duration::from_mins(2);

/// A URL that the database refused, with what it said, and until when it is not asked again.
struct Refused {
    url: String,
    trouble: Trouble,
    pause: Duration,
    until: Instant,
}

/// Queues of one database and what is known about it.
pub(crate) struct Tender {
    shared: Arc<Shared>,
    source: Source,
    namespace: Arc<Namespace>,
    operator: Option<Operator<Pods>>,
    url: Option<String>,
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
            url: None,
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
        (self.operator, self.url, self.identity, self.trouble, self.looked_at) =
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
                    room.set_owners(self.shared.owners());
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
                    self.trouble = view.trouble.as_deref().map(database::trouble);
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

    /// Reads the Secret and connects where that is due.
    async fn look(&mut self) {
        if let Some(said) = self.namespace.refusal() {
            self.trouble = Some(database::forbidden(&self.source.namespace, &said, &self.shared.config));
            self.looked_at = None;
            return;
        }
        let every = if self.trouble.is_some() { RETRY_EVERY } else { SECRET_EVERY };
        if !self.namespace.is_complete() || self.looked_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let opened = tokio::time::timeout(OPENING_LONGEST, self.open()).await;
        self.looked_at = Some(Instant::now());
        let trouble = opened.unwrap_or_else(|_| Err(late())).err();
        if let Some(trouble) = trouble.as_ref().filter(|trouble| Some(*trouble) != self.trouble.as_ref()) {
            let (namespace, secret) = (&self.source.namespace, &self.source.secret);
            tracing::warn!(namespace, secret, reason = trouble.reason.as_str(), "{}", trouble.message);
        }
        self.trouble = trouble;
    }

    async fn open(&mut self) -> Result<(), Trouble> {
        let url = match self.source.url(&self.shared.client, &self.shared.config).await {
            // A bad moment of the API server is no reason to let go of a database that answers.
            Err(trouble) if trouble.reason == ConditionReason::NotObserved && self.db.is_some() => {
                return Ok(());
            }
            answer => answer?,
        };
        if let (Some(db), true) = (&self.db, self.url.as_ref() == Some(&url)) {
            // Another one by the same address, such as a backup of earlier days, may lack tables.
            database::prepare(db).await?;
            let (identity, behind_pooler) = (database::identity(db).await?, db.is_behind_pooler());
            self.meet_others(identity, behind_pooler);
            return Ok(());
        }
        let before = self.refused.take_if(|refused| refused.url == url);
        if let Some(refused) = before.as_ref().filter(|refused| Instant::now() < refused.until) {
            let trouble = refused.trouble.clone();
            self.refused = before;
            return Err(trouble);
        }
        let db = match database::open(url.clone()).await {
            Err(trouble) if !trouble.may_pass() => {
                let pause = before.map_or(RETRY_EVERY, |before| (before.pause * 2).min(REFUSED_LONGEST));
                let until = Instant::now() + pause;
                self.refused = Some(Refused { url, trouble: trouble.clone(), pause, until });
                return Err(trouble);
            }
            answer => answer?,
        };
        let (identity, behind_pooler) = (database::identity(&db).await?, db.is_behind_pooler());
        let mut operator = self.operator.take().unwrap_or_else(|| self.new_operator(db.clone()));
        operator.set_db(db.clone());
        operator.listen(database::connect(url.clone()));
        (self.operator, self.url) = (Some(operator), Some(url));
        self.meet_others(identity, behind_pooler);
        if let Some(old) = self.db.replace(db) {
            old.close().await;
        }
        Ok(())
    }

    /// Other loops tend queues of the same database. Not of a copy that was restored beside it, which has the same name, and a server of its own; nor
    /// where a connection pooler stands, behind which less is seen and nothing heard.
    fn meet_others(&mut self, identity: Identity, behind_pooler: bool) {
        let Identity { database, started_at } = identity;
        let room =
            database.as_ref().map(|database| format!("{database} since {started_at}, {behind_pooler}"));
        (self.identity, self.started_at) = (database, Some(started_at));
        if self.room.as_ref().map(|(name, _)| name) == room.as_ref() {
            return;
        }
        self.room = room.map(|name| (name.clone(), self.shared.room(&name)));
        let seat = self.room.as_ref().map(|(_, room)| Seat::take(room, self.source.to_string(), started_at));
        if let Some(operator) = &mut self.operator {
            operator.sit(seat);
        }
    }

    /// What it asked for last keeps nobody's connections for ever.
    fn leave_others(&mut self) {
        self.room = None;
        if let Some(operator) = &mut self.operator {
            operator.sit(None);
        }
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

fn late() -> Trouble {
    let seconds = OPENING_LONGEST.as_secs();
    let message =
        format!("the database has not let its tables be looked at or made in {seconds} s; trying again");
    Trouble::new(ConditionReason::ConnectionFailed, message)
}
