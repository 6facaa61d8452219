//! Who of several replicas leads: one Lease, and all writes to it.
//!
//! Clocks of different machines are never compared: a replica takes over when the Lease stood still for its whole duration on the
//! replica's own clock. Who leads stops writing well before that, counted from before its last renewal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A request that takes longer is given up: a write must end before another can lead.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the Lease must stand still before somebody else takes it.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Until when after a renewal began its leader may begin a write: the write ends before the Lease does.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is renewed, and looked at by the others.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Whether we lead, for everybody who wants to write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
    changed: Arc<Notify>,
}

impl Leadership {
    /// Whether a write may begin now.
    pub(crate) fn may_write(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when we have begun to lead; at once only if that was not heard yet.
    pub(crate) async fn gained(&self) {
        self.changed.notified().await;
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        let led = self.may_write();
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        match (led, self.may_write()) {
            (false, true) => {
                tracing::info!("leading");
                self.changed.notify_waiters();
            }
            (true, false) => tracing::info!("not leading any more"),
            _ => (),
        }
    }
}

/// One replica's part in the election.
pub(crate) struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: Leadership,
    /// The Lease as it was last seen to change, and when.
    seen: Option<(String, Instant)>,
}

impl Elector {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        leadership: Leadership,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), leadership, seen: None }
    }

    /// Stands for election until `stop`, then gives the Lease back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let begin = Instant::now();
            match timeout(REQUEST_TIMEOUT, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => self.leadership.set(Some(begin + RENEW_DEADLINE)),
                Ok(Ok(false)) => self.leadership.set(None),
                // Not known: what we have lasts until its fence.
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be renewed; trying again"),
                Err(_) => tracing::warn!("the API server is slow; trying to renew the Lease again"),
            }
            tokio::select! { () = stop.cancelled() => break, () = sleep(RETRY_PERIOD) => () }
        }
        let led = self.leadership.may_write();
        self.leadership.set(None);
        if led && let Err(error) = self.release().await {
            tracing::warn!(%error, "the Lease was not given back; another replica leads in {LEASE_DURATION:?}");
        }
    }

    /// Takes or renews the Lease where that is right; whether it is ours now.
    async fn try_acquire_or_renew(&mut self) -> kube::Result<bool> {
        let params = PostParams::default();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.held(Lease::default());
            return won(self.api.create(&params, &lease).await);
        };
        if !self.is_free(&lease) {
            return Ok(false);
        }
        // Its resourceVersion goes with it: of two who take it at once one is told of a conflict.
        let lease = self.held(lease);
        won(self.api.replace(&self.name, &params, &lease).await)
    }

    fn is_free(&mut self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let version = lease.resource_version().unwrap_or_default();
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        holder.is_empty() || holder == self.identity || now.duration_since(since) > LEASE_DURATION
    }

    /// The same Lease, ours.
    fn held(&self, lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.unwrap_or_default();
        let is_ours = spec.holder_identity.as_ref() == Some(&self.identity);
        let acquired = spec.acquire_time.clone().filter(|_| is_ours);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: acquired.or(Some(now)),
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default() + i32::from(!is_ours)),
            ..spec
        };
        let mut metadata = lease.metadata;
        metadata.name = Some(self.name.clone());
        Lease { metadata, spec: Some(spec) }
    }

    async fn release(&self) -> kube::Result<()> {
        let mut lease = self.api.get(&self.name).await?;
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_ref() == Some(&self.identity)
        {
            spec.holder_identity = None;
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// A conflict means that somebody else was first.
fn won(answer: kube::Result<Lease>) -> kube::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
