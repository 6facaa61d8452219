//! The backend of `rowlock dev`: runs instances as processes on this machine, in place of pods.

mod instance;
mod readiness;
mod start_watch;
mod supervised;

use crate::process::end_recorded;
use instance::Instance;
use rowlock_crds::Manifest;
use rowlock_operator::{Backend, DesiredPods};
use rowlock_plan::{Ports, fleet};
use start_watch::{StartWatch, Starts};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

/// How often stopping processes are polled.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How to start workers, and where to keep their files.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
#[derive(Clone)]
pub struct LocalConfig {
    /// The worker's executable.
    pub worker: PathBuf,
    /// Its arguments. Everything about its queue is in its environment.
    pub worker_args: Vec<OsString>,
    /// The database's connection string.
    pub database_url: String,
    /// File with the CA certificate of the database.
    pub database_ca_file: Option<PathBuf>,
    /// The `rowlock` executable, which guards the processes; see [`process`](crate::process).
    pub guard: Option<PathBuf>,
    /// Folder for records of running processes and for logs.
    pub folder: PathBuf,
    /// Whether output goes to files in `folder` or to our standard error.
    pub log_to_files: bool,
}

/// The instances of all queues.
#[expect(missing_debug_implementations, reason = "the database's URL carries its password")]
pub struct Local {
    config: LocalConfig,
    instances: BTreeMap<Key, Instance>,
    /// Changed instances: each works until its replacement in `instances` is ready.
    replaced: BTreeMap<Key, Instance>,
    stopping: Vec<Instance>,
    /// How long the instances of each queue took to start.
    starts: BTreeMap<String, Starts>,
}

/// The queue's name, and the instance's number in it.
type Key = (String, u16);

impl Local {
    /// Starts with no instances; ends processes that an earlier run left behind.
    pub fn new(config: LocalConfig) -> std::io::Result<Self> {
        std::fs::create_dir_all(config.logs())?;
        let ended = end_recorded(&config.records())?;
        if ended > 0 {
            tracing::info!(ended, "ended processes that an earlier run had left behind");
        }
        Ok(Self {
            config,
            instances: BTreeMap::new(),
            replaced: BTreeMap::new(),
            stopping: Vec::new(),
            starts: BTreeMap::new(),
        })
    }

    fn apply_queue(&mut self, manifest: &Manifest, pods: u32) {
        let queue = manifest.queue_name();
        let pods = u16::try_from(pods).unwrap_or(u16::MAX);
        let mut all_ports = BTreeMap::new();
        for index in 0..pods {
            let known = self.instances.get(&(queue.to_owned(), index)).map(|instance| instance.ports);
            let ports = known.map_or_else(|| free_ports(manifest), Ok);
            match ports {
                Ok(ports) => all_ports.insert(index, ports),
                Err(error) => {
                    tracing::warn!(queue, %error, "no free port for an instance; trying again");
                    return;
                }
            };
        }
        let wanted = fleet(manifest, pods, |index| all_ports[&index]);
        self.retire(queue, pods);
        for (index, planned) in (0..pods).zip(wanted.instances) {
            let key = (queue.to_owned(), index);
            let instance = Instance::new(&self.config, manifest, planned, all_ports[&index]);
            match self.instances.get(&key) {
                None => {
                    self.insert(key, instance);
                }
                Some(running) if running.has_lost_port() => {
                    tracing::warn!(
                        "a port of {} was taken by another program; starting on other ports",
                        running.name()
                    );
                    self.replace(key, manifest, pods);
                }
                Some(running) if !running.has_same_settings(&instance) && self.may_replace(&key) => {
                    self.replace(key, manifest, pods);
                }
                Some(_) => (),
            }
        }
    }

    /// The instance starts in this pass. Answers the one in whose place it is.
    fn insert(&mut self, key: Key, mut instance: Instance) -> Option<Instance> {
        let starts = self.starts.entry(key.0.clone()).or_default();
        instance.start = Some(StartWatch::begin(instance.ports.worker_port, Starts::clone(starts)));
        self.instances.insert(key, instance)
    }

    /// Instances of a queue are replaced one at a time, so that a bad edit breaks only the first.
    fn may_replace(&self, (queue, index): &Key) -> bool {
        self.replaced.keys().all(|(of, other)| of != queue || other == index)
    }

    /// Starts the new instance on other ports; the old one works until the new one is ready.
    fn replace(&mut self, key: Key, manifest: &Manifest, pods: u16) {
        let Ok(ports) = free_ports(manifest) else { return };
        let wanted = fleet(manifest, pods, |_| ports).instances.into_iter().nth(usize::from(key.1));
        let Some(planned) = wanted else { return };
        let new = Instance::new(&self.config, manifest, planned, ports);
        let Some(mut old) = self.insert(key.clone(), new) else { return };
        match self.replaced.entry(key) {
            Entry::Vacant(entry) if !old.has_lost_port() => {
                entry.insert(old);
            }
            // Its worker may have sent requests to the program that took the port and that may never answer.
            _ if old.has_lost_port() => {
                old.hurry();
                self.stopping.push(old);
            }
            _ => self.stopping.push(old),
        }
    }

    /// Drains an old instance if its replacement is ready, or if it is not ready itself.
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

    /// Stops surplus instances, those with the highest numbers.
    fn retire(&mut self, queue: &str, pods: u16) {
        let surplus = self.instances.extract_if(.., |(of, index), _| of == queue && *index >= pods);
        self.stopping.extend(surplus.map(|(_, instance)| instance));
    }

    fn poll_processes(&mut self) {
        for instance in self.instances.values_mut().chain(self.replaced.values_mut()) {
            instance.ensure_running();
        }
        self.stopping.retain_mut(|instance| !instance.has_stopped());
    }
}

impl Backend for Local {
    fn instances(&self, queue: &str) -> u32 {
        let count = self.instances.keys().filter(|(of, _)| of == queue).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Counts those that have been ready: if a handler ends later, its worker waits for it.
    fn ready(&self, queue: &str) -> u32 {
        let instances = self.instances.iter().filter(|((of, _), _)| of == queue);
        let ready =
            instances.filter(|(_, instance)| instance.start.as_ref().is_some_and(StartWatch::was_ready));
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    fn draining(&self, queue: &str) -> u32 {
        let stopping = self.stopping.iter().filter(|instance| instance.queue() == queue).count();
        let replaced = self.replaced.keys().filter(|(of, _)| of == queue).count();
        u32::try_from(stopping + replaced).unwrap_or(u32::MAX)
    }

    fn pod_start(&self, queue: &str) -> Option<Duration> {
        self.starts.get(queue)?.lock().unwrap_or_else(PoisonError::into_inner).usual()
    }

    fn leaving(&self) -> u32 {
        u32::try_from(self.stopping.len() + self.replaced.len()).unwrap_or(u32::MAX)
    }

    /// Always false: a worker whose handler does not listen claims nothing and costs little.
    fn not_starting(&mut self, _queue: &str) -> bool {
        false
    }

    fn metrics_addresses(&self, queue: &str) -> Vec<(String, String)> {
        let instances = self.instances.iter().filter(|((of, _), _)| of == queue);
        instances.map(|(_, one)| (one.name().to_owned(), one.metrics_address())).collect()
    }

    async fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) {
        let gone = |queue: &str| desired_pods.iter().all(|desired| desired.manifest.queue_name() != queue);
        let removed = self.instances.extract_if(.., |(queue, _), _| gone(queue));
        self.stopping.extend(removed.map(|(_, instance)| instance));
        self.starts.retain(|queue, _| !gone(queue));
        for desired in desired_pods {
            self.apply_queue(desired.manifest, desired.pods);
        }
        self.poll_processes();
        self.finish_replacing().await;
    }

    async fn drain(&mut self) {
        self.stopping.extend(std::mem::take(&mut self.instances).into_values());
        self.stopping.extend(std::mem::take(&mut self.replaced).into_values());
        while !self.stopping.is_empty() {
            self.poll_processes();
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

/// Free ports for an instance. A handler that the user starts listens at the manifest's port.
fn free_ports(manifest: &Manifest) -> std::io::Result<Ports> {
    let handler = TcpListener::bind(("127.0.0.1", 0))?;
    let worker = TcpListener::bind(("127.0.0.1", 0))?;
    let handler_port = match manifest.dev_command() {
        Some(_) => handler.local_addr()?.port(),
        None => manifest.spec.handler.http.port,
    };
    Ok(Ports { handler_port, worker_port: worker.local_addr()?.port() })
}
