//! Leader election among the replicas, by a Lease.
//!
//! Clocks of different machines are never compared: a replica takes over when it has seen no renewal for the
//! whole lease duration on its own clock. The leader stops writing well before that, counted from the start
//! of its last renewal.

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

use crate::jitter::jittered;

/// How long a request may take: a write must end before another replica can lead.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// How long without a renewal before another replica takes the Lease.
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long after the start of a renewal the leader may start a write, so that the write ends before the
/// Lease does.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often the leader renews the Lease, and the others check it.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Whether this replica leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
    changed: Arc<Notify>,
}

impl Leadership {
    /// Whether a write may start now.
    pub(crate) fn may_write(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when this replica starts to lead.
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
                tracing::info!("this replica leads");
                self.changed.notify_waiters();
            }
            (true, false) => tracing::info!("this replica no longer leads"),
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
    /// The last version of the Lease, and when it was first seen.
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

    /// Takes part in the election until `stop`, then releases the Lease.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let begin = Instant::now();
            match timeout(REQUEST_TIMEOUT, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => self.leadership.set(Some(begin + RENEW_DEADLINE)),
                Ok(Ok(false)) => self.leadership.set(None),
                // Unknown whether the renewal succeeded: the current leadership lasts until its deadline.
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be renewed; trying again"),
                Err(_) => {
                    tracing::warn!("the API server did not answer in time; trying to renew the Lease again");
                }
            }
            tokio::select! { () = stop.cancelled() => break, () = sleep(jittered(RETRY_PERIOD)) => () }
        }
        let led = self.leadership.may_write();
        self.leadership.set(None);
        if led && let Err(error) = self.release().await {
            tracing::warn!(
                %error,
                "the Lease cannot be released; another replica leads in {LEASE_DURATION:?}"
            );
        }
    }

    /// Acquires or renews the Lease where possible. Returns whether this replica holds it.
    async fn try_acquire_or_renew(&mut self) -> kube::Result<bool> {
        let params = PostParams::default();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.held(Lease::default());
            return won(self.api.create(&params, &lease).await);
        };
        if !self.is_free(&lease) {
            return Ok(false);
        }
        // With the resourceVersion, one of two replicas that take it at the same time gets a conflict.
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

    /// The Lease, held by this replica.
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

/// A conflict means that another replica was first.
fn won(answer: kube::Result<Lease>) -> kube::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
