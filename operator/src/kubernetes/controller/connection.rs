//! How a controller gets to its database: Secrets, connections, and which database that is.

use std::time::{Duration, Instant};

use rowlock_crds::ConditionReason;
use rowlock_queue::{Db, Identity};

use super::Controller;
use crate::kubernetes::database::session::{self, Problem};
use crate::kubernetes::database::source::Access;
use crate::shared_poller::Participant;

/// How often the Secret is read, and whether the tables are still ours to use is asked.
const SECRET_INTERVAL: Duration = Duration::from_mins(1);

/// How often after the database refused us, or something else is wrong with it.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// And where the database refuses the very URL that the Secret has: the longest back-off after a refused login, so that we do not flood the server's log.
const MAX_REFUSED_BACKOFF: Duration = Duration::from_secs(30);

/// So long making or changing the tables may take, with all that waits for a lock; a server that has vanished says nothing for longer.
const OPEN_TIMEOUT: Duration = Duration::from_mins(2);

/// What the database refused, with what it said, and until when it is not asked again.
pub(super) struct RefusedAccess {
    access: Access,
    problem: Problem,
    backoff: Duration,
    until: Instant,
}

impl Controller {
    /// Reads the Secret and connects where that is due.
    pub(super) async fn check_database(&mut self) {
        if let Some(detail) = self.namespace.refusal() {
            self.problem = Some(session::forbidden(&self.source.namespace, &detail, &self.context.config));
            self.checked_at = None;
            return;
        }
        let every = if self.problem.is_some() { RETRY_INTERVAL } else { SECRET_INTERVAL };
        if !self.namespace.is_complete() || self.checked_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open()).await;
        self.checked_at = Some(Instant::now());
        let problem = opened.unwrap_or_else(|_| Err(timed_out())).err();
        if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != self.problem.as_ref()) {
            let (namespace, secret) = (&self.source.namespace, &self.source.secret.name);
            tracing::warn!(namespace, secret, reason = problem.reason.as_str(), "{}", problem.message);
        }
        self.problem = problem;
    }

    async fn open(&mut self) -> Result<(), Problem> {
        let config = &self.context.config;
        let access = match self.source.access(&self.context.client, config).await {
            // A bad moment of the API server is no reason to let go of a database that answers.
            Err(problem) if problem.reason == ConditionReason::NotObserved && self.db.is_some() => {
                return Ok(());
            }
            answer => answer?,
        };
        let refused = self.refused.as_ref().filter(|refused| refused.access == access);
        if let Some(refused) = refused.filter(|refused| Instant::now() < refused.until) {
            return Err(refused.problem.clone());
        }
        let opened = self.open_by(&access).await.map_err(|problem| self.source.name_secret(problem));
        match &opened {
            Err(problem) if !problem.may_pass() => {
                let before = self.refused.take_if(|refused| refused.access == access);
                let backoff =
                    before.map_or(RETRY_INTERVAL, |before| (before.backoff * 2).min(MAX_REFUSED_BACKOFF));
                let until = Instant::now() + backoff;
                self.refused = Some(RefusedAccess { access, problem: problem.clone(), backoff, until });
            }
            _ => self.refused = None,
        }
        opened
    }

    async fn open_by(&mut self, access: &Access) -> Result<(), Problem> {
        let config = &self.context.config;
        let (db, is_new) = match &self.db {
            Some(db) if self.access.as_ref() == Some(access) => {
                // Another one by the same address, such as a backup of earlier days, may lack tables.
                session::prepare(db).await?;
                (db.clone(), false)
            }
            _ => (session::open(&access.connect(config)).await?, true),
        };
        let identity = match self.identify(&db, access).await {
            Err(problem) => {
                if is_new {
                    db.close().await;
                }
                return Err(problem);
            }
            Ok(identity) => identity,
        };
        let behind_pooler = db.is_behind_pooler();
        if is_new {
            let connect = access.connect(config);
            let mut reconciler = self.reconciler.take().unwrap_or_else(|| self.new_reconciler(db.clone()));
            reconciler.set_db(db.clone());
            reconciler.listen(connect);
            (self.reconciler, self.access) = (Some(reconciler), Some(access.clone()));
        }
        self.join_shared_poller(identity, behind_pooler);
        if is_new && let Some(old) = self.db.replace(db) {
            old.close().await;
        }
        Ok(())
    }

    /// Which database it is, for us and for the pods.
    async fn identify(&self, db: &Db, access: &Access) -> Result<Identity, Problem> {
        let identity = session::identity(db).await?;
        if let Some(worker) = access.connect_as_worker(&self.context.config) {
            let checked = session::check_worker(&worker, identity.database.as_deref()).await;
            checked.map_err(|problem| self.source.of_worker(&problem))?;
        }
        Ok(identity)
    }

    /// Other controllers of the namespace have queues of the same database. Not of a copy that was restored beside it, which has the same name, and a server of its own; nor
    /// where a connection pooler stands, behind which less is seen and no NOTIFY arrives.
    fn join_shared_poller(&mut self, identity: Identity, behind_pooler: bool) {
        let Identity { database, started_at } = identity;
        let shared_poller =
            database.as_ref().map(|database| format!("{database} since {started_at}, {behind_pooler}"));
        (self.identity, self.started_at) = (database, Some(started_at));
        if self.shared_poller.as_ref().map(|(name, _)| name) == shared_poller.as_ref() {
            return;
        }
        self.shared_poller = shared_poller
            .map(|name| (name.clone(), self.context.shared_poller(&self.source.namespace, &name)));
        let participant = self
            .shared_poller
            .as_ref()
            .map(|(_, shared_poller)| Participant::join(shared_poller, self.source.to_string(), started_at));
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.share_poller(participant);
        }
    }

    /// What it asked for last keeps nobody's connections for ever.
    pub(super) fn leave_shared_poller(&mut self) {
        self.shared_poller = None;
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.share_poller(None);
        }
    }
}

fn timed_out() -> Problem {
    let seconds = OPEN_TIMEOUT.as_secs();
    let message =
        format!("the database has not let its tables be looked at or made in {seconds} s; trying again");
    Problem::new(ConditionReason::ConnectionFailed, message)
}
