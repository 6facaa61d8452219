//! The owner of a queue in the database.

use rowlock_queue::{Declaration, adopt, declare};
use rowlock_tests::printed_command;
use serde_json::json;
use sqlx::Executor;

use super::harness::{EMAILS, Harness, until};

fn theirs() -> Declaration {
    Declaration { owner: "another-cluster/shop/emails".into(), ..rowlock_tests::declaration("mail") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_cluster_is_adopted_only_with_the_adopt_annotation() {
    let harness = Harness::new("adopts").await;
    declare(&harness.db.db, &theirs()).await.unwrap();
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    let message = harness.until("Stalled", "True OwnedByAnother").await;
    let words = printed_command(&message, "annotate");
    harness.kubectl(&["annotate", "tq", "emails", "rowlock.dev/adopt=somebody"]);
    harness.until("Stalled", "True OwnedByAnother").await;
    // The command that the condition prints.
    harness.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>());
    harness.until_replicas(2).await;
    harness.until("Stalled", "False Succeeded").await;
    let ours: String = harness.db.one("select owner from rowlock.queue").await;
    assert!(ours.ends_with(&format!("/{}/emails", harness.namespace)), "{ours}");
    // The other cluster takes it back: this cluster's workers stop, and the old annotation has no effect.
    adopt(&harness.db.db, &theirs(), Some(&ours)).await.unwrap();
    harness.until_replicas(0).await;
    let message = harness.until("Stalled", "True OwnedByAnother").await;
    assert!(message.contains("another-cluster/shop/emails"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_task_queue_keeps_its_queue_and_waits_for_the_old_pods_to_end() {
    let harness = Harness::new("recreated").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let id = harness.db.enqueue().await;
    harness.until_replicas(1).await;
    harness.kubectl(&["delete", "tq", "emails"]);
    harness.task_queue("emails", &EMAILS.replace("total: 40", "total: 30"));
    // No garbage collector runs here.
    until("it waits for the old Deployment", || {
        let (text, message) = harness.condition("emails", "Reconciling");
        if message.contains("waiting until Kubernetes has deleted it") {
            Ok(())
        } else {
            Err(format!("{text} {message}"))
        }
    })
    .await;
    harness.until("Stalled", "False Succeeded").await;
    for kind in ["deployment", "pdb"] {
        harness.kubectl(&["delete", kind, "emails"]);
    }
    harness.until_replicas(1).await;
    let total: i32 = harness.db.one("select total_workers from rowlock.queue where name = 'mail'").await;
    assert_eq!((total, harness.db.state(id).await.as_deref()), (30, Some("available")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_declaration_in_the_database_is_restored() {
    let harness = Harness::new("declared").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    // As after restoring an old backup.
    harness.db.run("update rowlock.queue set generation = 1, total_workers = 7").await;
    let mut total = 0;
    for _ in 0..600 {
        total = harness.db.one::<i32>("select total_workers from rowlock.queue").await;
        if total == 40 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(total, 40);
    harness.change(&json!({ "paused": true }));
    harness.until("Ready", "False Paused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_queue_of_another_owner_gets_no_pods() {
    let harness = Harness::new("asks").await;
    declare(&harness.db.db, &theirs()).await.unwrap();
    let mut session = harness.db.session().await;
    session.execute("begin; select from rowlock.queue for update").await.unwrap();
    harness.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = harness.operator().await;
    harness.until("DatabaseReachable", "True Succeeded").await;
    harness.until_replicas(0).await;
    session.execute("rollback").await.unwrap();
    harness.until("Stalled", "True OwnedByAnother").await;
    harness.until_replicas(0).await;
}
