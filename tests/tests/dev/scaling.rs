//! Scaling from zero to what the tasks need, and back.

use rowlock_tests::{TestDb, server};

use crate::harness::{Home, until};

/// Before, the number followed the tasks and `total`; users could not set it.
#[tokio::test]
async fn the_manifest_sets_the_number_of_instances() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    home.edit("autoscaling: { min: 0, scaleDownAfter: 1s }", "scaling: External");
    let dev = home.dev();
    // As in a cluster without a number.
    until("there is one", || home.status("instances") == 1);
    home.edit("External", "External, replicas: 2");
    until("there are two", || home.status("instances") == 2);
    home.edit("replicas: 2", "replicas: 0");
    until("there is none", || home.status("instances") == 0);
    let id = home.enqueue("ok");
    home.edit("replicas: 0", "replicas: 9");
    until("there are as many as total takes", || home.status("instances") == 2);
    until("the task is done", || home.state(&id) == "completed");
    home.edit("External, replicas: 9", "External, replicas: 0");
    until("there is none again", || home.status("instances") == 0);
    home.edit("External, replicas: 0", "Fixed");
    until("there are always two", || home.status("instances") == 2);
    dev.stop();
}

#[tokio::test]
async fn instances_start_with_the_first_task_and_stop_after_the_last() {
    let test = TestDb::empty().await;
    let home = Home::with_database(&server::url(&test.name));
    let dev = home.dev();
    until("the queue is declared", || home.run(&["status"]).out.contains("mail"));
    for round in 1..=2 {
        assert_eq!(home.status("instances"), 0);
        let ids: Vec<String> = (0..4).map(|_| home.enqueue("wait")).collect();
        until("both workers work", || home.status("busy") == 2);
        assert_eq!(home.status("instances"), 2, "round {round}");
        home.go();
        until("all is done", || ids.iter().all(|id| home.state(id) == "completed"));
        until("nobody is left", || home.status("instances") == 0);
        std::fs::remove_file(home.path().join("go")).unwrap();
    }
    let output = dev.stop();
    assert!(output.contains("2 workers on 2 pods") && output.contains("0 workers on 0 pods"), "{output}");
    home.assert_nothing_runs();
    let (completed, ..) = test.audited().await;
    assert_eq!(completed, 8);
}
