//! Whose a queue is in the database.

use rowlock_queue::{Declaration, adopt, declare};
use rowlock_tests::printed_command;
use serde_json::json;
use sqlx::Executor;

use super::stage::{EMAILS, Stage, until};

fn theirs() -> Declaration {
    Declaration { owner: "another-cluster/shop/emails".into(), ..rowlock_tests::declaration("mail") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_cluster_is_adopted_only_by_the_word_of_its_owner() {
    let stage = Stage::new("adopts").await;
    declare(&stage.db.db, &theirs()).await.unwrap();
    stage.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = stage.operator().await;
    let message = stage.until("Stalled", "True OwnedByAnother").await;
    let words = printed_command(&message, "annotate");
    stage.kubectl(&["annotate", "tq", "emails", "rowlock.dev/adopt=somebody"]);
    stage.until("Stalled", "True OwnedByAnother").await;
    // The command that the condition prints.
    stage.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>());
    stage.until_replicas(2).await;
    stage.until("Stalled", "False Succeeded").await;
    let ours: String = stage.db.one("select owner from rowlock.queue").await;
    assert!(ours.ends_with(&format!("/{}/emails", stage.namespace)), "{ours}");
    // The other one takes it back: our workers leave it alone, and the old annotation does nothing.
    adopt(&stage.db.db, &theirs(), Some(&ours)).await.unwrap();
    stage.until_replicas(0).await;
    let message = stage.until("Stalled", "True OwnedByAnother").await;
    assert!(message.contains("another-cluster/shop/emails"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_queue_that_was_made_anew_has_its_queue_and_waits_for_the_old_pods_to_go() {
    let stage = Stage::new("recreated").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    let id = stage.db.enqueue().await;
    stage.until_replicas(1).await;
    stage.kubectl(&["delete", "tq", "emails"]);
    stage.task_queue("emails", &EMAILS.replace("total: 40", "total: 30"));
    // Nobody collects garbage here.
    until("it waits for the old Deployment", || {
        let (said, message) = stage.condition("emails", "Reconciling");
        if message.contains("waiting until Kubernetes has collected it") {
            Ok(())
        } else {
            Err(format!("{said} {message}"))
        }
    })
    .await;
    stage.until("Stalled", "False Succeeded").await;
    for kind in ["deployment", "pdb"] {
        stage.kubectl(&["delete", kind, "emails"]);
    }
    stage.until_replicas(1).await;
    let total: i32 = stage.db.one("select total_workers from rowlock.queue where name = 'mail'").await;
    assert_eq!((total, stage.db.state(id).await.as_deref()), (30, Some("available")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_queue_is_declared_as_is_put_right_again() {
    let stage = Stage::new("declared").await;
    stage.task_queue("emails", EMAILS);
    let _operator = stage.operator().await;
    stage.until("Ready", "True Succeeded").await;
    // As in a backup of earlier days.
    stage.db.run("update rowlock.queue set generation = 1, total_workers = 7").await;
    let mut total = 0;
    for _ in 0..600 {
        total = stage.db.one::<i32>("select total_workers from rowlock.queue").await;
        if total == 40 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(total, 40);
    stage.change(&json!({ "paused": true }));
    stage.until("Ready", "False Paused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_gets_no_pods_while_somebody_keeps_the_operator_from_asking_for_it() {
    let stage = Stage::new("asks").await;
    declare(&stage.db.db, &theirs()).await.unwrap();
    let mut person = stage.db.session().await;
    person.execute("begin; select from rowlock.queue for update").await.unwrap();
    stage.task_queue("emails", &EMAILS.replace("autoscaling: {", "autoscaling: { min: 15,"));
    let _operator = stage.operator().await;
    stage.until("DatabaseReachable", "True Succeeded").await;
    stage.until_replicas(0).await;
    person.execute("rollback").await.unwrap();
    stage.until("Stalled", "True OwnedByAnother").await;
    stage.until_replicas(0).await;
}
