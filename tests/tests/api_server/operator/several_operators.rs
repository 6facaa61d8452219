//! Several operators, operators that crash, and an idle operator.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use rowlock_tests::alerts::check_metrics;
use serde_json::{Value, json};

use super::harness::{EMAILS, Harness, ask, page, until};
use crate::server::{DEFINITION, server};

fn holder(harness: &Harness) -> String {
    harness.get("lease", "rowlock-operator")["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Writes to the namespace except the Lease, from the API server's audit log.
fn writes(harness: &Harness) -> Vec<String> {
    let log = fs::read_to_string(server().folder.join("audit.log")).unwrap();
    let ours = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|entry| {
        let of = &entry["objectRef"];
        of["namespace"] == harness.namespace.as_str() && of["resource"] != "leases"
    });
    ours.map(|entry| {
        let of = &entry["objectRef"];
        format!(
            "{} {} {} {} {}",
            entry["verb"], of["resource"], of["name"], of["subresource"], entry["userAgent"]
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_task_queue_causes_no_writes() {
    let harness = Harness::new("quiet").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    // Writes that still follow earlier changes, such as events.
    let mut before = writes(&harness);
    until("the last change is written", || {
        let now = writes(&harness);
        let same = now.len() == before.len();
        before = now;
        std::thread::sleep(Duration::from_secs(1));
        if same { Ok(()) } else { Err("writes go on".into()) }
    })
    .await;
    // Several polls, and longer than the interval at which numbers are written. An absent write has no event
    // to await.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let after = writes(&harness);
    assert_eq!(after[before.len()..], [] as [String; 0]);
    assert!(before.iter().any(|write| write.contains("deployments")), "{before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_over_immediately_after_a_shutdown_and_later_after_a_crash() {
    let harness = Harness::new("failover").await;
    harness.task_queue("emails", EMAILS);
    let first = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let (leader, second) = (holder(&harness), harness.operator().await);
    assert!(!leader.is_empty());
    first.stop().await;
    let since = Instant::now();
    let took_over = |from: String| {
        move |harness: &Harness| {
            let now = holder(harness);
            if now.is_empty() || now == from { Err(now) } else { Ok(now) }
        }
    };
    let next = took_over(leader);
    let leader = until("the second leads", || next(&harness)).await;
    eprintln!("taken over from one that ended: {:?}", since.elapsed());
    let third = harness.operator().await;
    // Only a leader does this.
    harness.change(&json!({ "workers": { "autoscaling": { "min": 11 } } }));
    harness.until_replicas(2).await;
    drop(second);
    let since = Instant::now();
    let next = took_over(leader);
    until("the third leads", || next(&harness)).await;
    // Not before the other replica can no longer write.
    assert!(since.elapsed() > Duration::from_secs(10), "{:?}", since.elapsed());
    eprintln!("taken over from one that died: {:?}", since.elapsed());
    harness.change(&json!({ "workers": { "autoscaling": { "min": 21 } } }));
    harness.until_replicas(3).await;
    third.stop().await;
    assert_eq!(holder(&harness), "");
}

/// Before the fix, `Ready` was unknown at each failover, until the new leader had connected to the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_keeps_the_conditions_that_are_known() {
    let harness = Harness::new("keeps").await;
    harness.task_queue("emails", EMAILS);
    let mut operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    for pods in [1, 2, 3] {
        // Times in a status are whole seconds.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ready = || {
            let status = harness.get("tq", "emails")["status"].clone();
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            let changed = |one: &Value| json!([one["type"], one["status"], one["lastTransitionTime"]]);
            all.iter().map(changed).filter(|one| one[0] != "Reconciling").collect::<Vec<_>>()
        };
        let before = ready();
        operator.stop().await;
        // Only a leader that has observed the queue restores this.
        harness.scale(pods).await;
        operator = harness.operator().await;
        harness.until_replicas(0).await;
        assert_eq!(ready(), before, "after failover {pods}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_finishes_what_a_killed_one_began() {
    let harness = Harness::new("killed").await;
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 5,"));
    let mut pause = Duration::from_millis(1);
    while harness.deployment().is_null() || harness.get("pdb", "emails").is_null() {
        let operator = harness.operator().await;
        tokio::time::sleep(pause).await;
        drop(operator);
        // It is killed at a different point each time. Without this, the next one would wait for the Lease to
        // expire.
        if !harness.get("lease", "rowlock-operator").is_null() {
            harness.kubectl(&["delete", "lease", "rowlock-operator"]);
        }
        pause = pause * 5 / 4;
    }
    let _operator = harness.operator().await;
    harness.until_replicas(1).await;
    harness.until("Reconciling", "True Progressing").await;
    harness.until("Stalled", "False Succeeded").await;
    let queues: i64 = harness.db.one("select count(*) from rowlock.queue").await;
    assert_eq!(queues, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_pages_are_served() {
    let harness = Harness::new("pages").await;
    harness.task_queue("emails", EMAILS);
    let (_operator, address) = harness.operator_with_pages().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(7).await;
    let page = |path: &str| page(address, path);
    let metrics = page("/metrics");
    check_metrics(metrics.split_once("\r\n\r\n").unwrap().1).unwrap();
    for path in ["/healthz", "/readyz"] {
        assert!(page(path).starts_with("HTTP/1.1 200 OK"), "{}", page(path));
    }
    let labels = format!("namespace=\"{}\",queue=\"mail\"", harness.namespace);
    for line in [
        "rowlock_operator_leader 1\n".to_owned(),
        format!("rowlock_queue_tasks{{{labels},state=\"available\"}} 7\n"),
        format!("rowlock_queue_pods{{kind=\"desired\",{labels}}} 1\n"),
        format!(
            "rowlock_task_queue_condition{{{labels},reason=\"Succeeded\",\
             status=\"True\",task_queue=\"emails\",type=\"Ready\"}} 1\n"
        ),
    ] {
        until("the metric exists", || {
            if page("/metrics").contains(&line) { Ok(()) } else { Err(page("/metrics")) }
        })
        .await;
    }
}

/// Any pod of the cluster may send such requests.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_do_not_block_the_http_pages() {
    let harness = Harness::new("halves").await;
    harness.task_queue("emails", EMAILS);
    let (_operator, address) = harness.operator_with_pages().await;
    harness.until("Ready", "True Succeeded").await;
    let half = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        // The first connections may be closed already.
        let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nx: ");
        stream
    };
    let halves: Vec<TcpStream> = (0..200).map(half).collect();
    let asked = Instant::now();
    let answer = page(address, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // While 200 connections wait to be accepted, the kernel may drop one more, which is tried again after a
    // second. The timeout of an unfinished request is five.
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    // Before the fix, all of them stayed open; now most are closed without waiting for a timeout.
    let is_closed = |stream: &&TcpStream| {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let mut stream = *stream;
        !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    assert!(150 < halves.iter().filter(is_closed).count());
}

/// Writes an object directly to etcd, as an older or newer release may have left it.
fn put(key: &str, object: &Value) {
    let base64 = |bytes: &[u8]| json!(ByteString(bytes.to_vec()));
    let body =
        json!({ "key": base64(key.as_bytes()), "value": base64(object.to_string().as_bytes()) }).to_string();
    let head =
        "POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = ask(SocketAddr::from(([127, 0, 0, 1], server().etcd)), &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_task_queue_delays_no_other() {
    let harness = Harness::new("unreadable").await;
    let odd = json!({
        "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {
            "name": "odd", "namespace": harness.namespace, "uid": "11111111-2222-3333-4444-555555555555",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z"
        },
        "spec": { "workers": { "total": "many" } }
    });
    put(&format!("/registry/rowlock.dev/taskqueues/{}/odd", harness.namespace), &odd);
    assert_eq!(harness.get("tq", "odd")["spec"]["workers"]["total"], "many");
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.enqueue_many(1000).await;
    harness.until_replicas(4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_queue_with_unknown_fields_reports_a_newer_crd() {
    let harness = Harness::new("novel").await;
    let definition = DEFINITION.lock().await;
    let novel = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/novel";
    let patch = |patch: Value| {
        harness.kubectl(&[
            "patch",
            "crd",
            "taskqueues.rowlock.dev",
            "--type=json",
            "-p",
            &json!([patch]).to_string(),
        ]);
    };
    patch(json!({ "op": "add", "path": novel, "value": { "type": "string" } }));
    // The definition is active once the server accepts the field.
    until("the field is known", || {
        let spec = format!("{EMAILS}\nnovel: x");
        harness.try_task_queue("novel", &spec)
    })
    .await;
    harness.task_queue("emails", &EMAILS.replace("queueName: mail", "queueName: other"));
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let message = until("the other TaskQueue gets its condition", || {
        let (text, message) = harness.condition("novel", "Stalled");
        if text == "True Unreadable" { Ok(message) } else { Err(text) }
    })
    .await;
    assert!(message.contains("novel"), "{message}");
    patch(json!({ "op": "remove", "path": novel }));
    drop(definition);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_of_one_database_share_its_connections() {
    let harness = Harness::new("shared").await;
    for name in ["a", "b", "c", "d", "emails"] {
        harness.task_queue(name, &EMAILS.replace("queueName: mail", &format!("queueName: {name}")));
    }
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let queues: i64 = harness.db.one("select count(*) from rowlock.queue").await;
    let connections: i64 = harness
        .db
        .one(
            "select count(*) from pg_stat_activity where application_name = 'rowlock-operator' \
            and datname = current_database()",
        )
        .await;
    assert_eq!(queues, 5);
    // Two connections, and one that listens for NOTIFY.
    assert!((1..=3).contains(&connections), "{connections}");
}
