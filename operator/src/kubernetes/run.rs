//! A whole operator: watches, leader election, a controller for each database.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::api::leader_election::{Elector, Leadership};
use crate::kubernetes::api::writer::{Writer, bounded};
use crate::kubernetes::config::Config;
use crate::kubernetes::context::{Context, Unreadable};
use crate::kubernetes::controller::Controller;
use crate::kubernetes::database::source::Source;
use crate::kubernetes::desired::sources;
use crate::kubernetes::http;
use crate::kubernetes::status::unreadable;

/// Back-off between two attempts to reach the API server at startup.
const RETRY_BACKOFF: Duration = Duration::from_secs(2);

/// The namespace whose uid identifies the cluster.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// The shortest wait between two passes that start and stop controllers.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// The longest wait. Such a pass repeats what failed.
const LONGEST_TICK: Duration = Duration::from_secs(10);

/// Runs until `stop`, then releases the Lease.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> std::io::Result<()> {
    let listener = rowlock_daemon::bind(config.listen).await?;
    let identity = config.identity();
    let leadership = Leadership::default();
    let writer = Writer::new(client.clone(), leadership.clone(), &identity);
    // First, so that the liveness probe succeeds while the API server is away.
    let cell = http::ContextCell::default();
    let mut pages = pin!(rowlock_daemon::serve(listener, http::router(Arc::clone(&cell))));
    let start = async {
        let cluster = cluster(&client, &config).await;
        (cluster, config.only_namespace().is_none() && may_list_everywhere(&client).await)
    };
    let (cluster, everywhere) = tokio::select! {
        found = start => found,
        never = &mut pages => match never {},
        () = stop.cancelled() => return Ok(()),
    };
    let elector =
        Elector::new(client.clone(), &config.lease_namespace, &config.lease, &identity, leadership.clone());
    let context = Arc::new(Context::new(client, config, writer, leadership, cluster, everywhere));
    let _ = cell.set(Arc::clone(&context));
    let mut controllers = Controllers { context, running: BTreeMap::new(), reported: Vec::new() };
    tokio::select! {
        // This releases the Lease last, after this replica has stopped writing.
        () = elector.run(stop.clone()) => Ok(()),
        never = controllers.run() => match never {},
        never = pages => match never {},
    }
}

/// The uid of the cluster. Retries until the API server answers. An operator that can only read its own
/// namespace takes the uid of that one.
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
                    tracing::warn!(%error, "the uid of the cluster cannot be read; trying again");
                    break;
                }
            }
        }
        sleep(RETRY_BACKOFF).await;
    }
}

/// Whether the rights suffice for one watch of all namespaces instead of one for each: with many namespaces
/// that saves a connection for each. Without an answer, each namespace is watched.
async fn may_list_everywhere(client: &Client) -> bool {
    let one = ListParams::default().limit(1);
    let (deployments, budgets, pods): (Api<Deployment>, Api<PodDisruptionBudget>, Api<Pod>) =
        (Api::all(client.clone()), Api::all(client.clone()), Api::all(client.clone()));
    bounded(deployments.list_metadata(&one)).await.is_ok()
        && bounded(budgets.list_metadata(&one)).await.is_ok()
        && bounded(pods.list_metadata(&one)).await.is_ok()
}

/// One controller for each database that a `TaskQueue` names.
struct Controllers {
    context: Arc<Context>,
    running: BTreeMap<Source, AbortOnDrop>,
    reported: Vec<Unreadable>,
}

/// A tokio task that is aborted on drop.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Controllers {
    async fn run(&mut self) -> std::convert::Infallible {
        let mut changed = self.context.changes.subscribe(None);
        loop {
            if self.context.task_queues.is_complete() {
                self.sync();
                unreadable::report(&self.context, &mut self.reported).await;
            }
            sleep(LEAST_TICK).await;
            tokio::select! {
                _ = changed.changed() => (),
                () = self.context.leadership.gained() => (),
                () = sleep(LONGEST_TICK) => (),
            }
        }
    }

    fn sync(&mut self) {
        if self.context.give_up_everywhere() {
            tracing::warn!("watching each namespace separately: the rights for all of them are gone");
            self.running.clear();
        }
        let named = sources(&self.context.readable());
        self.running.retain(|source, _| named.contains(source));
        for source in named {
            // Only a bug can end a controller. It is started again.
            if self.running.get(&source).is_some_and(|one| !one.0.is_finished()) {
                continue;
            }
            let namespace = self.context.namespace(&source.namespace);
            let controller = Controller::new(Arc::clone(&self.context), source.clone(), namespace);
            self.running.insert(source, AbortOnDrop(tokio::spawn(controller.run())));
        }
    }
}
