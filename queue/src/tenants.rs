//! What connections to the databases of several tenants share, so that none of them takes all of it: threads
//! that look up names, and memory for long answers.
//!
//! A tenant writes the URL, so the name's DNS server and the database server are the tenant's too, and either
//! may be built to keep us busy.

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
    time::{sleep, timeout},
};

/// Names of one tenant that are looked up at a time. A look-up whose DNS server does not answer takes as long
/// as the resolver's time-outs say, whoever has given it up meanwhile.
const LOOK_UPS_OF_ONE: usize = 4;
/// And of all: each is a thread. That is room for 64 tenants whose DNS servers never answer.
const LOOK_UPS: usize = 256;
/// What the resolver of the C library needs, several times over.
const LOOK_UP_STACK: usize = 256 << 10;

/// Long answers at a time, of all tenants: each may take some 30 MiB, and the chart gives the operator 256.
const LONG_ANSWERS: usize = 4;
/// One tenant sends one at a time.
const LONG_ANSWERS_OF_ONE: usize = 1;
/// How long an answer waits to be let through, less than a statement may take.
const TURN_PATIENCE: Duration = Duration::from_secs(4);
/// After an answer that was too long or too slow its tenant sends no other long one for this long, so that
/// one such server after the other does not keep the sound ones waiting.
const PENALTY: Duration = Duration::from_secs(30);

/// All tenants whose URLs a program follows.
#[derive(Debug)]
pub struct Tenants {
    look_ups: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    each: Mutex<BTreeMap<Arc<str>, Weak<Own>>>,
}

/// One of them. Cheap to clone.
#[derive(Clone)]
pub struct Tenant {
    all: Arc<Tenants>,
    own: Arc<Own>,
}

/// What is a tenant's own. What is under way keeps it, so nobody begins anew by going away for a moment.
#[derive(Debug)]
struct Own {
    name: Arc<str>,
    look_ups: Arc<Semaphore>,
    under_way: Mutex<BTreeMap<String, watch::Receiver<Option<Vec<IpAddr>>>>>,
    answers: Arc<Semaphore>,
}

/// How a name is looked up, which blocks.
pub(crate) type Find = fn(&str) -> std::io::Result<Vec<IpAddr>>;

/// A name that is being looked up, by a thread.
struct UnderWay {
    name: String,
    own: Arc<Own>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Leave to send a long answer.
#[derive(Debug)]
pub(crate) struct Turn {
    own: Option<(OwnedSemaphorePermit, Arc<Own>)>,
    _one: OwnedSemaphorePermit,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            answers: Arc::new(Semaphore::new(LONG_ANSWERS)),
            each: Mutex::default(),
        }
    }
}

impl Tenants {
    /// The one of that name, such as a namespace.
    #[must_use]
    pub fn tenant(self: &Arc<Self>, name: &str) -> Tenant {
        let mut each = lock(&self.each);
        each.retain(|_, own| own.strong_count() > 0);
        let own = each.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let own = Arc::new(Own::new(name));
            each.insert(Arc::clone(&own.name), Arc::downgrade(&own));
            own
        });
        Tenant { all: Arc::clone(self), own }
    }
}

impl Own {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS_OF_ONE)),
            under_way: Mutex::default(),
            answers: Arc::new(Semaphore::new(LONG_ANSWERS_OF_ONE)),
        }
    }
}

impl Tenant {
    /// The addresses that a name means; none if it is not known. Whoever gives it up leaves the thread
    /// behind, and who asks for the same name again waits for that one.
    pub(crate) async fn look_up(&self, name: &str, find: Find) -> Vec<IpAddr> {
        let mut found = match self.begun(name) {
            Some(found) => found,
            None => self.begin(name, find).await,
        };
        // Without a sender nothing was found.
        found
            .wait_for(Option::is_some)
            .await
            .map_or_else(|_| Vec::new(), |found| found.clone().unwrap_or_default())
    }

    /// Names of this tenant that have not been answered yet.
    pub(crate) fn looked_up(&self) -> Vec<String> {
        lock(&self.own.under_way).keys().cloned().collect()
    }

    fn begun(&self, name: &str) -> Option<watch::Receiver<Option<Vec<IpAddr>>>> {
        lock(&self.own.under_way).get(name).cloned()
    }

    async fn begin(&self, name: &str, find: Find) -> watch::Receiver<Option<Vec<IpAddr>>> {
        // Its own first: who waits for that one is in nobody else's way.
        let (own, one) = (permit(&self.own.look_ups).await, permit(&self.all.look_ups).await);
        let (tell, found) = watch::channel(None);
        let (Some(own), Some(one)) = (own, one) else { return found };
        let mut all = lock(&self.own.under_way);
        if let Some(begun) = all.get(name) {
            return begun.clone();
        }
        all.insert(name.to_owned(), found.clone());
        drop(all);
        let under_way = UnderWay { name: name.to_owned(), own: Arc::clone(&self.own), _permits: [own, one] };
        let look = move || {
            let answer = find(&under_way.name).unwrap_or_else(|error| {
                tracing::debug!(host = under_way.name, %error, "a name was not resolved");
                Vec::new()
            });
            drop(under_way);
            tell.send_replace(Some(answer));
        };
        // Not among the runtime's own threads, of which files and other names need some too.
        if let Err(error) =
            std::thread::Builder::new().name("look-up".into()).stack_size(LOOK_UP_STACK).spawn(look)
        {
            tracing::warn!(%error, "no thread to look up a name");
        }
        found
    }

    /// Waits until one more long answer may be sent; `None` where that takes too long.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let both = async { (permit(&self.own.answers).await, permit(&self.all.answers).await) };
        let (own, one) = timeout(TURN_PATIENCE, both).await.ok()?;
        Some(Turn { own: Some((own?, Arc::clone(&self.own))), _one: one? })
    }
}

impl Turn {
    /// The answer was a sound one: its tenant may send the next.
    pub(crate) fn end(mut self) {
        self.own = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(own), Ok(runtime)) = (self.own.take(), Handle::try_current()) {
            runtime.spawn(async move {
                sleep(PENALTY).await;
                drop(own);
            });
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.own.under_way).remove(&self.name);
    }
}

/// As the C library finds it.
pub(crate) fn by_system(name: &str) -> std::io::Result<Vec<IpAddr>> {
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
