//! How a loop gets to its database: Secrets, connections, and which database that is.

use std::time::{Duration, Instant};

use rowlock_crds::ConditionReason;
use rowlock_queue::{Db, Identity};

use super::Tender;
use crate::kubernetes::database::{self, Trouble};
use crate::kubernetes::source::Access;
use crate::room::Seat;

/// How often the Secret is read, and whether the tables are still ours to use is asked.
const SECRET_EVERY: Duration = Duration::from_mins(1);

/// How often after the database refused us, or something else is wrong with it.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// And where the database refuses the very URL that the Secret has: so many failed logins are nobody's friend.
const REFUSED_LONGEST: Duration = Duration::from_secs(30);

/// So long making or changing the tables may take, with all that waits for a lock; a server that has vanished says nothing for longer.
const OPENING_LONGEST: Duration = Duration::from_mins(2);

/// What the database refused, with what it said, and until when it is not asked again.
pub(super) struct Refused {
    access: Access,
    trouble: Trouble,
    pause: Duration,
    until: Instant,
}

impl Tender {
    /// Reads the Secret and connects where that is due.
    pub(super) async fn look(&mut self) {
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
            let (namespace, secret) = (&self.source.namespace, &self.source.secret.name);
            tracing::warn!(namespace, secret, reason = trouble.reason.as_str(), "{}", trouble.message);
        }
        self.trouble = trouble;
    }

    async fn open(&mut self) -> Result<(), Trouble> {
        let config = &self.shared.config;
        let access = match self.source.access(&self.shared.client, config).await {
            // A bad moment of the API server is no reason to let go of a database that answers.
            Err(trouble) if trouble.reason == ConditionReason::NotObserved && self.db.is_some() => {
                return Ok(());
            }
            answer => answer?,
        };
        let refused = self.refused.as_ref().filter(|refused| refused.access == access);
        if let Some(refused) = refused.filter(|refused| Instant::now() < refused.until) {
            return Err(refused.trouble.clone());
        }
        let opened = self.open_by(&access).await.map_err(|trouble| self.source.told(trouble));
        match &opened {
            Err(trouble) if !trouble.may_pass() => {
                let before = self.refused.take_if(|refused| refused.access == access);
                let pause = before.map_or(RETRY_EVERY, |before| (before.pause * 2).min(REFUSED_LONGEST));
                let until = Instant::now() + pause;
                self.refused = Some(Refused { access, trouble: trouble.clone(), pause, until });
            }
            _ => self.refused = None,
        }
        opened
    }

    async fn open_by(&mut self, access: &Access) -> Result<(), Trouble> {
        let config = &self.shared.config;
        let (db, is_new) = match &self.db {
            Some(db) if self.access.as_ref() == Some(access) => {
                // Another one by the same address, such as a backup of earlier days, may lack tables.
                database::prepare(db).await?;
                (db.clone(), false)
            }
            _ => (database::open(&access.connect(config)).await?, true),
        };
        let identity = match self.identify(&db, access).await {
            Err(trouble) => {
                if is_new {
                    db.close().await;
                }
                return Err(trouble);
            }
            Ok(identity) => identity,
        };
        let behind_pooler = db.is_behind_pooler();
        if is_new {
            let connect = access.connect(config);
            let mut operator = self.operator.take().unwrap_or_else(|| self.new_operator(db.clone()));
            operator.set_db(db.clone());
            operator.listen(connect);
            (self.operator, self.access) = (Some(operator), Some(access.clone()));
        }
        self.meet_others(identity, behind_pooler);
        if is_new && let Some(old) = self.db.replace(db) {
            old.close().await;
        }
        Ok(())
    }

    /// Which database it is, for us and for the pods.
    async fn identify(&self, db: &Db, access: &Access) -> Result<Identity, Trouble> {
        let identity = database::identity(db).await?;
        if let Some(worker) = access.connect_as_worker(&self.shared.config) {
            let checked = database::check_worker(&worker, identity.database.as_deref()).await;
            checked.map_err(|trouble| self.source.of_worker(&trouble))?;
        }
        Ok(identity)
    }

    /// Other loops of the namespace tend queues of the same database. Not of a copy that was restored beside it, which has the same name, and a server of its own; nor
    /// where a connection pooler stands, behind which less is seen and nothing heard.
    fn meet_others(&mut self, identity: Identity, behind_pooler: bool) {
        let Identity { database, started_at } = identity;
        let room =
            database.as_ref().map(|database| format!("{database} since {started_at}, {behind_pooler}"));
        (self.identity, self.started_at) = (database, Some(started_at));
        if self.room.as_ref().map(|(name, _)| name) == room.as_ref() {
            return;
        }
        self.room = room.map(|name| (name.clone(), self.shared.room(&self.source.namespace, &name)));
        let seat = self.room.as_ref().map(|(_, room)| Seat::take(room, self.source.to_string(), started_at));
        if let Some(operator) = &mut self.operator {
            operator.sit(seat);
        }
    }

    /// What it asked for last keeps nobody's connections for ever.
    pub(super) fn leave_others(&mut self) {
        self.room = None;
        if let Some(operator) = &mut self.operator {
            operator.sit(None);
        }
    }
}

fn late() -> Trouble {
    let seconds = OPENING_LONGEST.as_secs();
    let message =
        format!("the database has not let its tables be looked at or made in {seconds} s; trying again");
    Trouble::new(ConditionReason::ConnectionFailed, message)
}
