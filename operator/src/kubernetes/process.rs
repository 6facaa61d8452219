//! A whole operator: watches, the election, a loop for each database.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::apply::{Hand, bounded};
use super::charges::sources;
use super::config::Config;
use super::election::{Elector, Leadership};
use super::http;
use super::shared::{Shared, Unread};
use super::source::Source;
use super::tender::Tender;
use super::unread;

/// Between two attempts to reach the API server at the start.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Its uid stands for the cluster's.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// The least time between two looks at which databases there are.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// And the longest: what was missed, or did not work, is done then.
const LONGEST_TICK: Duration = Duration::from_secs(10);

/// Works until `stop`, then gives the Lease back.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> std::io::Result<()> {
    let listener = rowlock_daemon::bind(config.listen).await?;
    let identity = config.identity();
    let leadership = Leadership::default();
    let hand = Hand::new(client.clone(), leadership.clone(), &identity);
    // First, so that nobody restarts us while the API server is away.
    let known = http::Known::default();
    let mut pages = pin!(rowlock_daemon::serve(listener, http::router(Arc::clone(&known))));
    let cluster = tokio::select! {
        cluster = cluster(&client, &config) => cluster,
        never = &mut pages => match never {},
        () = stop.cancelled() => return Ok(()),
    };
    let elector =
        Elector::new(client.clone(), &config.lease_namespace, &config.lease, &identity, leadership.clone());
    let shared = Arc::new(Shared::new(client, config, hand, leadership, cluster));
    let _ = known.set(Arc::clone(&shared));
    let mut loops = Loops { shared, tenders: BTreeMap::new(), told: Vec::new() };
    tokio::select! {
        // The Lease goes back last: what this ends has ended by then.
        () = elector.run(stop.clone()) => Ok(()),
        never = loops.run() => match never {},
        never = pages => match never {},
    }
}

/// The uid of the cluster; asked for until it is known. One that may see a single namespace knows that namespace's instead.
async fn cluster(client: &Client, config: &Config) -> String {
    let api: Api<KubeNamespace> = Api::all(client.clone());
    let mut names = vec![SYSTEM_NAMESPACE];
    names.extend(config.only_namespace());
    loop {
        for name in &names {
            match bounded(api.get_metadata(name)).await {
                Ok(found) => return found.uid().unwrap_or_default(),
                Err(error) if error.is_forbidden() && names.last() != Some(name) => (),
                Err(error) => {
                    tracing::warn!(%error, "the cluster's name is not known; trying again");
                    break;
                }
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// One loop for each database that some `TaskQueue` names.
struct Loops {
    shared: Arc<Shared>,
    tenders: BTreeMap<Source, Aborts>,
    told: Vec<Unread>,
}

/// A task that ends with us.
struct Aborts(JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Loops {
    async fn run(&mut self) -> std::convert::Infallible {
        let mut changed = self.shared.changed.subscribe();
        loop {
            if self.shared.task_queues.is_complete() {
                self.step();
                unread::tell(&self.shared, &mut self.told).await;
            }
            sleep(LEAST_TICK).await;
            tokio::select! {
                _ = changed.changed() => (),
                () = self.shared.leadership.gained() => (),
                () = sleep(LONGEST_TICK) => (),
            }
        }
    }

    fn step(&mut self) {
        let named = sources(&self.shared.readable());
        self.tenders.retain(|source, _| named.contains(source));
        for source in named {
            // A loop that ended, which only a bug can do, is begun anew.
            if self.tenders.get(&source).is_some_and(|one| !one.0.is_finished()) {
                continue;
            }
            let namespace = self.shared.namespace(&source.namespace);
            let tender = Tender::new(Arc::clone(&self.shared), source.clone(), namespace);
            self.tenders.insert(source, Aborts(tokio::spawn(tender.run())));
        }
    }
}
