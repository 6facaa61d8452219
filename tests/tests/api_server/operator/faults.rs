//! API servers that are unreachable or overloaded or expire watches, and an unreachable database.

use std::time::Duration;

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::faulty_api_server::Mode;
use super::harness::{EMAILS, Harness, page, until};

/// Longer than a Lease lasts: the leader must stop and start again.
const AWAY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn many_rejected_requests_cause_delays_but_no_loss() {
    let harness = Harness::new("storm").await;
    harness.task_queue("emails", EMAILS);
    let (faults, _operator) = harness.operator_with_faults(Mode::Storm).await;
    harness.until("Ready", "True Succeeded").await;
    assert_eq!(harness.deployment()["metadata"]["name"], "emails", "a ready queue has a Deployment");
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    harness.change(&json!({ "workers": { "total": 20 } }));
    harness.until_replicas(2).await;
    assert!(faults.refused() > 10, "too few refusals: {}", faults.refused());
    faults.set(Mode::Calm);
    // No kubelet runs pods here.
    harness.until("Reconciling", "True Progressing").await;
    harness.until("Stalled", "False Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_waits_for_an_unreachable_api_server() {
    let harness = Harness::new("away").await;
    harness.task_queue("emails", EMAILS);
    let (faults, _operator) = harness.operator_with_faults(Mode::Calm).await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    faults.set(Mode::Away);
    harness.db.run("truncate rowlock.ready").await;
    harness.change(&json!({ "timeout": "2m" }));
    tokio::time::sleep(AWAY).await;
    assert_eq!(harness.deployment()["spec"]["replicas"], 4, "the operator could not read the change");
    faults.set(Mode::Calm);
    harness.until_replicas(0).await;
    // Changes made in the meantime are seen.
    harness.until_grace(125).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_an_api_server_stays_alive_and_reports_what_it_waits_for() {
    let harness = Harness::new("early").await;
    let (faults, _operator, address) = harness.operator_with_faults_and_pages(Mode::Away).await;
    let says = async |path: &str, expected: &str| {
        until(expected, || {
            let message = page(address, path);
            if message.contains(expected) { Ok(()) } else { Err(message) }
        })
        .await;
    };
    says("/healthz", "HTTP/1.1 200 OK").await;
    says("/readyz", "waiting for the API server").await;
    faults.set(Mode::Calm);
    says("/readyz", "HTTP/1.1 200 OK").await;
}

/// Before the fix, an operator without its definition was ready and logged nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_the_crd_is_not_ready() {
    let harness = Harness::new("undefined").await;
    let (faults, _operator, address) = harness.operator_with_faults_and_pages(Mode::Undefined).await;
    let says = async |expected: &str| {
        until(expected, || {
            let message = page(address, "/readyz");
            if message.contains(expected) { Ok(()) } else { Err(message) }
        })
        .await;
    };
    let measures = async |expected: &str| {
        let expected = format!("rowlock_operator_task_queues_readable {expected}\n");
        until(&expected, || {
            let message = page(address, "/metrics");
            if message.contains(&expected) { Ok(()) } else { Err(message) }
        })
        .await;
    };
    says("install the chart rowlock-crds").await;
    faults.set(Mode::Calm);
    says("HTTP/1.1 200 OK").await;
    measures("1").await;
    faults.set(Mode::Undefined);
    says("install the chart rowlock-crds").await;
    // The metrics of TaskQueues may disappear with them; the metric that explains it stays.
    measures("0").await;
    faults.set(Mode::Calm);
    says("HTTP/1.1 200 OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_lists_all_objects_again() {
    let harness = Harness::new("expired").await;
    harness.task_queue("emails", EMAILS);
    let (faults, _operator) = harness.operator_with_faults(Mode::Calm).await;
    harness.until("Ready", "True Succeeded").await;
    faults.set(Mode::Expired);
    harness.change(&json!({ "timeout": "2m" }));
    harness.kubectl(&["delete", "deployment/emails", "--wait"]);
    faults.wait_for_refusals(3).await;
    faults.set(Mode::Calm);
    harness.until_grace(125).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_keeps_the_pods_and_is_used_again_afterwards() {
    let harness = Harness::new("postgres").await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = rowlock_tests::server::url(&harness.db.name);
    let (before, database) = url.rsplit_once('/').unwrap();
    let (user, host) = before.rsplit_once('@').unwrap();
    let (host, _) = (host.to_owned(), database);
    let there = tokio::spawn(forward(listener, host.clone()));
    harness.secret(&format!("{user}@{address}/{database}"));
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
    there.abort();
    harness.until("DatabaseReachable", "False ConnectionFailed").await;
    harness.db.run("truncate rowlock.ready").await;
    tokio::time::sleep(AWAY).await;
    assert_eq!(harness.deployment()["spec"]["replicas"], 4, "without statistics the number stays");
    let listener = TcpListener::bind(address).await.unwrap();
    let there = tokio::spawn(forward(listener, host));
    harness.until("DatabaseReachable", "True Succeeded").await;
    harness.until_replicas(0).await;
    there.abort();
}

/// Forwards both directions until dropped.
async fn forward(listener: TcpListener, host: String) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let host = host.clone();
        connections.spawn(async move {
            let mut far = TcpStream::connect(host).await.unwrap();
            // Ends when either side closes.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
