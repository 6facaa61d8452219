//! Instances as processes of this machine, in place of pods: the applier of `rowlock dev`.

mod instance;
mod readiness;
mod supervised;

use crate::process::end_recorded;
use instance::Instance;
use rowlock_crds::Manifest;
use rowlock_operator::{Applier, Intent};
use rowlock_plan::{Place, fleet};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

/// How often stopping processes are looked at.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How to start a worker, and where.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
#[derive(Clone)]
pub struct LocalConfig {
    /// The worker's executable and what comes before its flags, if anything.
    pub worker: PathBuf,
    pub worker_args: Vec<OsString>,
    pub database_url: String,
    /// The `rowlock` executable, for guarding.
    pub guard: Option<PathBuf>,
    /// Records of running processes, and logs.
    pub folder: PathBuf,
    /// Whether output goes to files in `folder` rather than to our standard error.
    pub log_to_files: bool,
}

/// The processes of all queues.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Local {
    config: LocalConfig,
    instances: BTreeMap<Key, Instance>,
    /// What a changed instance replaces works on until the new one is ready.
    replaced: BTreeMap<Key, Instance>,
    stopping: Vec<Instance>,
}

/// The queue, and which of its instances.
type Key = (String, u16);

impl Local {
    /// Ends what an earlier run left behind.
    pub fn new(config: LocalConfig) -> std::io::Result<Self> {
        std::fs::create_dir_all(config.logs())?;
        let ended = end_recorded(&config.records())?;
        if ended > 0 {
            tracing::info!(ended, "ended processes that an earlier run had left behind");
        }
        Ok(Self { config, instances: BTreeMap::new(), replaced: BTreeMap::new(), stopping: Vec::new() })
    }

    fn apply_queue(&mut self, manifest: &Manifest, pods: u32) {
        let queue = manifest.queue_name();
        let pods = u16::try_from(pods).unwrap_or(u16::MAX);
        let mut places = BTreeMap::new();
        for index in 0..pods {
            let known = self.instances.get(&(queue.to_owned(), index)).map(|instance| instance.place);
            let place = known.map_or_else(|| free_place(manifest), Ok);
            match place {
                Ok(place) => places.insert(index, place),
                Err(error) => {
                    tracing::warn!(queue, %error, "no free port for an instance; trying again");
                    return;
                }
            };
        }
        let wanted = fleet(manifest, pods, |index| places[&index]);
        self.retire(queue, pods);
        for (index, planned) in (0..pods).zip(wanted.instances) {
            let key = (queue.to_owned(), index);
            let instance = Instance::new(&self.config, manifest, planned, places[&index]);
            match self.instances.get(&key) {
                None => self.instances.extend([(key, instance)]),
                Some(running) if running.is_displaced() => {
                    tracing::warn!(
                        "a port of {} was taken by somebody else; moving to others",
                        running.name()
                    );
                    self.replace(key, manifest, pods);
                }
                Some(running) if !running.is_like(&instance) && self.may_replace(&key) => {
                    self.replace(key, manifest, pods);
                }
                Some(_) => (),
            }
        }
    }

    /// One instance of a queue at a time: an edit that breaks all of them breaks only the first.
    fn may_replace(&self, (queue, index): &Key) -> bool {
        self.replaced.keys().all(|(of, other)| of != queue || other == index)
    }

    /// Starts an instance elsewhere; the old one works on until the new one is ready.
    fn replace(&mut self, key: Key, manifest: &Manifest, pods: u16) {
        let Ok(place) = free_place(manifest) else { return };
        let wanted = fleet(manifest, pods, |_| place).instances.into_iter().nth(usize::from(key.1));
        let Some(planned) = wanted else { return };
        let new = Instance::new(&self.config, manifest, planned, place);
        let Some(mut old) = self.instances.insert(key.clone(), new) else { return };
        match self.replaced.entry(key) {
            Entry::Vacant(entry) if !old.is_displaced() => {
                entry.insert(old);
            }
            // What its worker runs may have gone to whoever has taken the port, who need not ever answer.
            _ if old.is_displaced() => {
                old.hurry();
                self.stopping.push(old);
            }
            _ => self.stopping.push(old),
        }
    }

    /// Drains what was replaced by something that is ready, or is not ready itself.
    async fn finish_replacing(&mut self) {
        let mut done = Vec::new();
        for (key, old) in &self.replaced {
            let over = match self.instances.get(key) {
                Some(new) => new.is_ready().await || !old.is_ready().await,
                None => true,
            };
            if over {
                done.push(key.clone());
            }
        }
        self.stopping.extend(done.iter().filter_map(|key| self.replaced.remove(key)));
    }

    /// The highest indices go first.
    fn retire(&mut self, queue: &str, pods: u16) {
        let surplus = self.instances.extract_if(.., |(of, index), _| of == queue && *index >= pods);
        self.stopping.extend(surplus.map(|(_, instance)| instance));
    }

    fn tend(&mut self) {
        for instance in self.instances.values_mut().chain(self.replaced.values_mut()) {
            instance.tend();
        }
        self.stopping.retain_mut(|instance| !instance.has_stopped());
    }
}

impl Applier for Local {
    fn instances(&self, queue: &str) -> u32 {
        let count = self.instances.keys().filter(|(of, _)| of == queue).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Its instances wait for their handler by themselves, and are few.
    fn ready(&self, queue: &str) -> u32 {
        self.instances(queue)
    }

    fn leaving(&self) -> u32 {
        u32::try_from(self.stopping.len() + self.replaced.len()).unwrap_or(u32::MAX)
    }

    /// Its instances claim nothing while their handler does not listen, and cost little.
    fn falters(&mut self, _queue: &str) -> bool {
        false
    }

    fn metrics_addresses(&self, queue: &str) -> Vec<(String, String)> {
        let instances = self.instances.iter().filter(|((of, _), _)| of == queue);
        instances.map(|(_, one)| (one.name().to_owned(), one.metrics_address())).collect()
    }

    async fn apply(&mut self, intents: &[Intent<'_>]) {
        let gone = |queue: &str| intents.iter().all(|intent| intent.manifest.queue_name() != queue);
        let removed = self.instances.extract_if(.., |(queue, _), _| gone(queue));
        self.stopping.extend(removed.map(|(_, instance)| instance));
        for intent in intents {
            self.apply_queue(intent.manifest, intent.pods);
        }
        self.tend();
        self.finish_replacing().await;
    }

    async fn drain(&mut self) {
        self.stopping.extend(std::mem::take(&mut self.instances).into_values());
        self.stopping.extend(std::mem::take(&mut self.replaced).into_values());
        while !self.stopping.is_empty() {
            self.tend();
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    async fn end_now(&mut self) {
        self.stopping.extend(std::mem::take(&mut self.instances).into_values());
        self.stopping.extend(std::mem::take(&mut self.replaced).into_values());
        for instance in &mut self.stopping {
            instance.hurry();
        }
        self.drain().await;
    }
}

impl LocalConfig {
    fn records(&self) -> PathBuf {
        self.folder.join("instances")
    }

    fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }
}

/// A handler of the user's own, without a command, listens where the manifest says.
fn free_place(manifest: &Manifest) -> std::io::Result<Place> {
    let handler = TcpListener::bind(("127.0.0.1", 0))?;
    let worker = TcpListener::bind(("127.0.0.1", 0))?;
    let handler_port = match manifest.dev_command() {
        Some(_) => handler.local_addr()?.port(),
        None => manifest.spec.handler.http.port,
    };
    Ok(Place { handler_port, worker_port: worker.local_addr()?.port() })
}
