//! Connects a controller to its database: reads the Secrets, opens the session, and finds out which database
//! it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rowlock_crds::ConditionReason;
use rowlock_queue::{Db, Identity};

use crate::jitter::jittered;
use crate::kubernetes::api::objects::NamespaceWatch;
use crate::kubernetes::context::Context;
use crate::kubernetes::database::session;
use crate::kubernetes::database::source::{Access, Source};
use crate::kubernetes::deployment::backend::PodBackend;
use crate::kubernetes::problem::Problem;
use crate::reconciler::Reconciler;
use crate::shared_poller::{Participant, SharedPoller};
use crate::view::View;

/// How often the Secret is read and the schema version checked.
const SECRET_INTERVAL: Duration = Duration::from_mins(1);

/// How often after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// The longest back-off after a refused login with the same URL, so that we do not flood the server's log.
const MAX_REFUSED_BACKOFF: Duration = Duration::from_secs(30);

/// How often changing problems of one Secret are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How long connecting and migrating may take, with the wait for locks. A server that has vanished answers no
/// sooner.
const OPEN_TIMEOUT: Duration = Duration::from_mins(2);

/// The connection of a controller to its database.
pub(super) struct Connection {
    context: Arc<Context>,
    source: Source,
    namespace: Arc<NamespaceWatch>,
    pub(super) session: Option<Session>,
    /// Why the database cannot be used.
    pub(super) problem: Option<Problem>,
    refused: Option<RefusedAccess>,
    checked_at: Option<Instant>,
    /// How long after that the Secret is read again, and how long after a failure.
    intervals: (Duration, Duration),
    /// The last problem in the log, and when it was logged.
    logged: Option<(Problem, Instant)>,
}

/// An open session with a known database, and the reconciler of its queues.
pub(super) struct Session {
    db: Db,
    access: Access,
    pub(super) identity: Identity,
    pub(super) reconciler: Reconciler<PodBackend>,
    /// The poller that this controller shares with others of the same database, and its key.
    pub(super) shared_poller: Option<(String, Arc<SharedPoller>)>,
    /// Whether the reconciler has the queues as they are now.
    pub(super) has_queues: bool,
    /// Whether the shared poller has the owners as they are now.
    pub(super) has_owners: bool,
}

impl Session {
    fn into_db(self) -> Db {
        self.db
    }
}

/// An access that the database refused, and until when it is not tried again.
struct RefusedAccess {
    access: Access,
    problem: Problem,
    backoff: Duration,
    until: Instant,
}

impl Connection {
    pub(super) fn new(context: Arc<Context>, source: Source, namespace: Arc<NamespaceWatch>) -> Self {
        Self {
            context,
            source,
            namespace,
            session: None,
            problem: None,
            refused: None,
            checked_at: None,
            intervals: (SECRET_INTERVAL, RETRY_INTERVAL),
            logged: None,
        }
    }

    /// Whether the queues can be reconciled now.
    pub(super) fn is_usable(&self) -> bool {
        self.namespace.is_complete() && self.problem.as_ref().is_none_or(Problem::may_pass)
    }

    /// The database, if the queues can be reconciled now.
    pub(super) fn usable_db(&self) -> Option<&Db> {
        self.session.as_ref().filter(|_| self.is_usable()).map(|session| &session.db)
    }

    /// Reads the Secrets and connects, if that is due.
    pub(super) async fn check(&mut self) {
        if let Some(detail) = self.namespace.refusal() {
            self.problem = Some(session::forbidden(&self.source.namespace, &detail, &self.context.config));
            self.checked_at = None;
            return;
        }
        let every = if self.problem.is_some() { self.intervals.1 } else { self.intervals.0 };
        if !self.namespace.is_complete() || self.checked_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.open()).await;
        self.checked_at = Some(Instant::now());
        self.intervals = (jittered(SECRET_INTERVAL), jittered(RETRY_INTERVAL));
        self.problem = opened.unwrap_or_else(|_| Err(timed_out())).err();
        self.log_problem(Instant::now());
    }

    /// Logs the problem, if it is another one than before. A server may answer with another error each time.
    fn log_problem(&mut self, now: Instant) {
        let has_passed = |at: &Instant| LOG_INTERVAL <= now.duration_since(*at);
        match (&self.problem, &self.logged) {
            (None, Some((_, at))) if has_passed(at) => self.logged = None,
            (Some(problem), logged)
                if logged.as_ref().is_none_or(|(known, at)| known != problem && has_passed(at)) =>
            {
                let (namespace, secret) = (&self.source.namespace, &self.source.secret.name);
                tracing::warn!(namespace, secret, reason = problem.reason.as_str(), "{}", problem.message);
                self.logged = Some((problem.clone(), now));
            }
            _ => (),
        }
    }

    /// Notes what a pass has found out about the database.
    pub(super) fn note(&mut self, view: &View) {
        let Some(session) = &self.session else { return };
        // After a failed poll the Secret is read again at once, since it may name another database by now. If
        // another controller polled, its success says nothing about this Secret.
        if session.reconciler.is_poller() || view.problem.is_some() {
            let problem = view.problem.as_deref().map(Problem::from);
            self.problem = problem.map(|problem| self.source.name_secret(problem));
        }
        // The server has restarted, or it is another one: find out which, and join the right shared poller.
        if view.started_at.is_some_and(|started_at| started_at != session.identity.started_at) {
            self.checked_at = None;
        }
    }

    pub(super) async fn close(&mut self) {
        (self.problem, self.checked_at) = (None, None);
        if let Some(session) = self.session.take() {
            session.into_db().close().await;
        }
    }

    async fn open(&mut self) -> Result<(), Problem> {
        let config = &self.context.config;
        let access = match self.source.access(&self.context.client, config).await {
            // While the API server does not answer, an open session stays.
            Err(problem) if problem.reason == ConditionReason::NotObserved && self.session.is_some() => {
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
                let until = Instant::now() + jittered(backoff);
                self.refused = Some(RefusedAccess { access, problem: problem.clone(), backoff, until });
            }
            _ => self.refused = None,
        }
        opened
    }

    async fn open_by(&mut self, access: &Access) -> Result<(), Problem> {
        let (db, is_new) = match &self.session {
            Some(session) if session.access == *access => {
                // The same address may lead to another database, such as an older backup, which may lack
                // tables.
                session::prepare(&session.db).await?;
                (session.db.clone(), false)
            }
            _ => (session::open(&access.connect(&self.context.config)).await?, true),
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
        let old = is_new.then(|| self.replace_session(db, access, &identity)).flatten();
        self.join_shared_poller(identity, behind_pooler);
        if let Some(old) = old {
            old.close().await;
        }
        Ok(())
    }

    /// Which database it is. With `workerSecretRef`, the pods' Secret must lead to the same one.
    async fn identify(&self, db: &Db, access: &Access) -> Result<Identity, Problem> {
        let identity = session::identity(db).await?;
        if let Some(worker) = access.connect_as_worker(&self.context.config) {
            let checked = session::check_worker(&worker, identity.database.as_deref()).await;
            checked.map_err(|problem| self.source.of_worker(&problem))?;
        }
        Ok(identity)
    }

    /// Switches to a new connection. Returns the old one, which is to be closed.
    fn replace_session(&mut self, db: Db, access: &Access, identity: &Identity) -> Option<Db> {
        let connect = access.connect(&self.context.config);
        if let Some(session) = &mut self.session {
            session.reconciler.set_db(db.clone());
            session.reconciler.backend_mut().set_db(db.clone());
            session.reconciler.listen(connect);
            session.access = access.clone();
            return Some(std::mem::replace(&mut session.db, db));
        }
        let pods = PodBackend::new(Arc::clone(&self.context), Arc::clone(&self.namespace), db.clone());
        let mut reconciler = Reconciler::new(db.clone(), pods, &self.context.cluster);
        reconciler.listen(connect);
        let (access, identity) = (access.clone(), identity.clone());
        self.session = Some(Session {
            db,
            access,
            identity,
            reconciler,
            shared_poller: None,
            has_queues: false,
            has_owners: false,
        });
        None
    }

    /// Shares a poller with the other controllers of the namespace that have queues of the same database. Not
    /// with those of a restored copy, which has the same name but a server of its own; nor with those that
    /// connect through a pooler, which see less and receive no NOTIFY.
    fn join_shared_poller(&mut self, identity: Identity, behind_pooler: bool) {
        let Some(session) = &mut self.session else { return };
        let started_at = identity.started_at;
        let database = identity.database.as_ref();
        let key = database.map(|database| format!("{database} since {started_at}, {behind_pooler}"));
        session.identity = identity;
        if session.shared_poller.as_ref().map(|(key, _)| key) == key.as_ref() {
            return;
        }
        session.has_owners = false;
        let namespace = &self.source.namespace;
        session.shared_poller = key.map(|key| {
            let shared_poller = self.context.shared_poller(namespace, &key);
            (key, shared_poller)
        });
        let participant = session
            .shared_poller
            .as_ref()
            .map(|(_, shared_poller)| Participant::join(shared_poller, self.source.to_string(), started_at));
        session.reconciler.share_poller(participant);
    }

    /// Withdraws the demand of this controller, so that the others can use its connections.
    pub(super) fn leave_shared_poller(&mut self) {
        if let Some(session) = &mut self.session {
            session.shared_poller = None;
            session.reconciler.share_poller(None);
        }
    }
}

fn timed_out() -> Problem {
    let seconds = OPEN_TIMEOUT.as_secs();
    let message =
        format!("checking or creating the tables in the database took longer than {seconds} s; trying again");
    Problem::new(ConditionReason::ConnectionFailed, message)
}
