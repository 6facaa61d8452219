//! The operator's loop while the name of its database leads to a standby, as in every switchover.

use std::time::{Duration, Instant};

use rowlock_operator::{Backend, DesiredPods, Reconciler, View};
use rowlock_queue::{Connect, Db, EnqueueOptions, Error};

use crate::read_only::{Name, Pair, SOON};

const MANIFEST: &str = "apiVersion: rowlock.dev/v1alpha1
kind: TaskQueue
metadata: { name: mail, annotations: { rowlock.dev/dev-command: 'true' } }
spec: { workers: { total: 2, perPod: 1, autoscaling: { min: 0 } } }
";

/// Pods that are ready at once.
#[derive(Default)]
struct Pods(u32);

impl Backend for Pods {
    fn instances(&self, _: &str) -> u32 {
        self.0
    }

    fn ready(&self, _: &str) -> u32 {
        self.0
    }

    fn draining(&self, _: &str) -> u32 {
        0
    }

    fn pod_start(&self, _: &str) -> Option<Duration> {
        None
    }

    fn leaving(&self) -> u32 {
        0
    }

    fn not_starting(&mut self, _: &str) -> bool {
        false
    }

    fn metrics_addresses(&self, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn apply(&mut self, desired_pods: &[DesiredPods<'_>]) {
        self.0 = desired_pods.iter().map(|desired| desired.pods).sum();
    }

    async fn drain(&mut self) {}

    async fn end_now(&mut self) {}
}

/// Reconciles until the view is as it should be.
async fn until(
    operator: &mut Reconciler<Pods>,
    time: Duration,
    mut holds: impl FnMut(&View, u32) -> bool,
) -> View {
    let since = Instant::now();
    loop {
        let view = operator.reconcile().await;
        let pods = operator.backend_mut().0;
        if holds(&view, pods) {
            return view;
        }
        assert!(since.elapsed() < time, "not within {time:?}: {pods} pods, {view:?}");
        tokio::time::sleep(Duration::from_millis(100).max(operator.poll_interval())).await;
    }
}

#[tokio::test]
async fn the_operator_scales_again_soon_after_its_database_was_a_standby() {
    let pair = Pair::start().await;
    let name = Name::of(&pair.primary, false).await;
    let primary = Db::connect(&Connect::new(pair.primary.url("postgres"), "test", 2)).await.unwrap();
    let db = Db::connect(&name.connect(&pair)).await.unwrap();
    let mut operator = Reconciler::new(db, Pods::default(), "tests");
    operator.listen(name.connect(&pair));
    operator.set_manifests(
        rowlock_crds::parse_manifests(std::path::Path::new("mail.yaml"), MANIFEST).unwrap(),
        1,
    );
    let long = Duration::from_mins(1);
    until(&mut operator, long, |view, pods| view.problem.is_none() && !view.queues.is_empty() && pods == 0)
        .await;

    name.lead_to(&pair.standby);
    name.cut();
    let view = until(&mut operator, long, |view, _| {
        view.problem.as_deref().is_some_and(|error| matches!(error, Error::ReadOnly(_)))
    })
    .await;
    let problem = view.problem.unwrap().to_string();
    assert!(problem.contains("standby"), "{problem}");
    assert_eq!(operator.backend_mut().0, 0);

    // From here on, no connection is cut.
    name.lead_to(&pair.primary);
    rowlock_queue::enqueue(&primary, "mail", "send", "{}", &EnqueueOptions::default()).await.unwrap();
    until(&mut operator, SOON, |view, pods| view.problem.is_none() && pods == 1).await;
}
