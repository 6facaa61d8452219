//! The resources that connections to the databases of several tenants share: threads that resolve names, and
//! memory for long answers. The limits here prevent one tenant from using all of it.
//!
//! A tenant writes the URL, and so chooses the DNS server of the name and the database server. Both may be
//! hostile.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};

use turns::{Turn, Turns};

mod turns;

/// Concurrent look-ups per tenant. If the DNS server does not answer, a look-up runs until the resolver's
/// timeout, even after its caller has stopped waiting.
const LOOK_UPS_PER_TENANT: usize = 4;
/// Concurrent look-ups of all tenants, each a thread: enough for 64 tenants whose DNS servers never answer.
const LOOK_UPS: usize = 256;
/// The stack of such a thread: several times what the resolver of the C library needs.
const LOOK_UP_STACK: usize = 256 << 10;

/// Concurrent long answers of all tenants: each may take 30 MiB, and the chart gives the operator 256 MiB.
const LONG_ANSWERS: usize = 4;
/// Concurrent long answers per tenant.
const LONG_ANSWERS_PER_TENANT: usize = 1;
/// How long an answer waits for its permit. Together with the time of a long answer, it is shorter than a
/// statement may take. A tenant that waited in vain is served first when it asks again.
pub(crate) const ANSWER_PERMIT_TIMEOUT: Duration = Duration::from_millis(2500);
/// After an answer that was too long or too slow, its tenant gets no new permit for this time. So a group of
/// hostile servers cannot block the other tenants.
const PENALTY: Duration = Duration::from_secs(30);

/// All tenants whose URLs a program uses.
#[derive(Debug)]
pub struct Tenants {
    look_ups: Arc<Semaphore>,
    answers: Arc<Turns>,
    each: Mutex<BTreeMap<Arc<str>, Weak<TenantState>>>,
}

/// A tenant. Cheap to clone.
#[derive(Clone)]
pub struct Tenant {
    all: Arc<Tenants>,
    own: Arc<TenantState>,
}

/// The state of a tenant. Look-ups and penalties that still run keep it alive, so a tenant cannot reset its
/// limits by disappearing for a moment.
#[derive(Debug)]
struct TenantState {
    name: Arc<str>,
    look_ups: Arc<Semaphore>,
    pending: Mutex<BTreeMap<String, watch::Receiver<Option<Vec<IpAddr>>>>>,
    answers: Arc<Semaphore>,
    /// Since when it has waited for its next long answer, over all attempts.
    waits_since: Mutex<Option<Instant>>,
}

/// Resolves a name; blocks the thread.
pub(crate) type Resolve = fn(&str) -> std::io::Result<Vec<IpAddr>>;

/// A look-up that a thread is running.
struct LookUp {
    name: String,
    own: Arc<TenantState>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// A permit to receive a long answer. If it is dropped without [`AnswerPermit::release`], the penalty starts.
#[derive(Debug)]
pub(crate) struct AnswerPermit {
    own: Option<(OwnedSemaphorePermit, Arc<TenantState>)>,
    _one: Turn,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            answers: Arc::new(Turns::new(LONG_ANSWERS)),
            each: Mutex::default(),
        }
    }
}

impl Tenants {
    /// The tenant of that name, such as a namespace.
    #[must_use]
    pub fn tenant(self: &Arc<Self>, name: &str) -> Tenant {
        let mut each = lock(&self.each);
        each.retain(|_, own| own.strong_count() > 0);
        let own = each.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let own = Arc::new(TenantState::new(name));
            each.insert(Arc::clone(&own.name), Arc::downgrade(&own));
            own
        });
        Tenant { all: Arc::clone(self), own }
    }
}

impl TenantState {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS_PER_TENANT)),
            pending: Mutex::default(),
            answers: Arc::new(Semaphore::new(LONG_ANSWERS_PER_TENANT)),
            waits_since: Mutex::default(),
        }
    }
}

impl Tenant {
    /// The addresses of a name; none if it cannot be resolved. The thread continues after a caller has
    /// stopped waiting, and the next caller with the same name waits for that thread.
    pub(crate) async fn look_up(&self, name: &str, resolve: Resolve) -> Vec<IpAddr> {
        let mut found = match self.pending_look_up(name) {
            Some(found) => found,
            None => self.start_look_up(name, resolve).await,
        };
        // The sender is gone if no thread could be started.
        found
            .wait_for(Option::is_some)
            .await
            .map_or_else(|_| Vec::new(), |found| found.clone().unwrap_or_default())
    }

    /// The names of this tenant that are still being resolved.
    pub(crate) fn pending_look_ups(&self) -> Vec<String> {
        lock(&self.own.pending).keys().cloned().collect()
    }

    fn pending_look_up(&self, name: &str) -> Option<watch::Receiver<Option<Vec<IpAddr>>>> {
        lock(&self.own.pending).get(name).cloned()
    }

    async fn start_look_up(&self, name: &str, resolve: Resolve) -> watch::Receiver<Option<Vec<IpAddr>>> {
        // The tenant's own permit comes first: waiting for it blocks no other tenant.
        let (own, one) = (permit(&self.own.look_ups).await, permit(&self.all.look_ups).await);
        let (answer_to, found) = watch::channel(None);
        let (Some(own), Some(one)) = (own, one) else { return found };
        let mut all = lock(&self.own.pending);
        if let Some(begun) = all.get(name) {
            return begun.clone();
        }
        all.insert(name.to_owned(), found.clone());
        drop(all);
        let look_up = LookUp { name: name.to_owned(), own: Arc::clone(&self.own), _permits: [own, one] };
        let look = move || {
            let answer = resolve(&look_up.name).unwrap_or_else(|error| {
                tracing::debug!(host = look_up.name, %error, "cannot resolve a name");
                Vec::new()
            });
            drop(look_up);
            answer_to.send_replace(Some(answer));
        };
        // Not on the runtime's blocking threads, because files and other names need those too.
        if let Err(error) =
            std::thread::Builder::new().name("look-up".into()).stack_size(LOOK_UP_STACK).spawn(look)
        {
            tracing::warn!(%error, "cannot start a thread to resolve a name");
        }
        found
    }

    /// Waits for a permit for one long answer; `None` after [`ANSWER_PERMIT_TIMEOUT`].
    pub(crate) async fn answer_permit(&self) -> Option<AnswerPermit> {
        timeout(ANSWER_PERMIT_TIMEOUT, self.next_answer_permit()).await.ok().flatten()
    }

    async fn next_answer_permit(&self) -> Option<AnswerPermit> {
        // The time of a penalty does not count as waiting.
        let own = permit(&self.own.answers).await?;
        let since = *lock(&self.own.waits_since).get_or_insert_with(Instant::now);
        let one = self.all.answers.take(since).await?;
        *lock(&self.own.waits_since) = None;
        Some(AnswerPermit { own: Some((own, Arc::clone(&self.own))), _one: one })
    }
}

impl AnswerPermit {
    /// The answer was valid, so its tenant may send the next one at once.
    pub(crate) fn release(mut self) {
        self.own = None;
    }
}

impl Drop for AnswerPermit {
    fn drop(&mut self) {
        if let (Some(own), Ok(runtime)) = (self.own.take(), Handle::try_current()) {
            runtime.spawn(async move {
                sleep(PENALTY).await;
                drop(own);
            });
        }
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        lock(&self.own.pending).remove(&self.name);
    }
}

/// Resolves a name as the C library does.
pub(crate) fn system_resolver(name: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

async fn permit(of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(of).acquire_owned().await.ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.own.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
