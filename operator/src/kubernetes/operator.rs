//! A whole operator: watches, leader election, a controller for each database.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::api::leader_election::{Elector, Leadership};
use crate::kubernetes::api::writer::{Writer, bounded};
use crate::kubernetes::config::Config;
use crate::kubernetes::context::{Context, Unreadable};
use crate::kubernetes::controller::Controller;
use crate::kubernetes::convert::sources;
use crate::kubernetes::database::source::Source;
use crate::kubernetes::http;
use crate::kubernetes::status::unreadable;

/// Between two attempts to reach the API server at the start.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Its uid stands for the cluster's.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// The least time between two passes over which databases there are.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// And the longest: what was missed, or did not work, is done then.
const LONGEST_TICK: Duration = Duration::from_secs(10);

/// Works until `stop`, then gives the Lease back.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> std::io::Result<()> {
    let listener = rowlock_daemon::bind(config.listen).await?;
    let identity = config.identity();
    let leadership = Leadership::default();
    let writer = Writer::new(client.clone(), leadership.clone(), &identity);
    // First, so that nobody restarts us while the API server is away.
    let cell = http::ContextCell::default();
    let mut pages = pin!(rowlock_daemon::serve(listener, http::router(Arc::clone(&cell))));
    let cluster = tokio::select! {
        cluster = cluster(&client, &config) => cluster,
        never = &mut pages => match never {},
        () = stop.cancelled() => return Ok(()),
    };
    let elector =
        Elector::new(client.clone(), &config.lease_namespace, &config.lease, &identity, leadership.clone());
    let context = Arc::new(Context::new(client, config, writer, leadership, cluster));
    let _ = cell.set(Arc::clone(&context));
    let mut controllers = Controllers { context, running: BTreeMap::new(), reported: Vec::new() };
    tokio::select! {
        // The Lease goes back last: what this ends has ended by then.
        () = elector.run(stop.clone()) => Ok(()),
        never = controllers.run() => match never {},
        never = pages => match never {},
    }
}

/// The uid of the cluster; asked for until it is known. One that may see a single namespace knows that
/// namespace's instead.
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
        sleep(RETRY_PAUSE).await;
    }
}

/// One controller for each database that some `TaskQueue` names.
struct Controllers {
    context: Arc<Context>,
    running: BTreeMap<Source, AbortOnDrop>,
    reported: Vec<Unreadable>,
}

/// A task that ends with us.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Controllers {
    async fn run(&mut self) -> std::convert::Infallible {
        let mut changed = self.context.changed.subscribe();
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
        let named = sources(&self.context.readable());
        self.running.retain(|source, _| named.contains(source));
        for source in named {
            // A controller that ended, which only a bug can do, is started again.
            if self.running.get(&source).is_some_and(|one| !one.0.is_finished()) {
                continue;
            }
            let namespace = self.context.namespace(&source.namespace);
            let controller = Controller::new(Arc::clone(&self.context), source.clone(), namespace);
            self.running.insert(source, AbortOnDrop(tokio::spawn(controller.run())));
        }
    }
}
