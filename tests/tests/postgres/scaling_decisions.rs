//! Why a queue has its number of pods: recorded, read, and bounded.

use rowlock_queue::{
    Db, DecidedAt, Error, ScalingFigures, ScalingRecord, arrivals, maintain_partitions, queue_stats,
    record_scaling_decisions, scaling_decisions,
};
use rowlock_tests::{TestDb, declaration};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

const FIGURES: ScalingFigures = ScalingFigures {
    waiting: 120,
    running: 4,
    arrivals_per_second: 3.25,
    service_seconds: 0.25,
    service_assumed: false,
    pod_start_seconds: 3.0,
    for_rate: 0.9,
    for_backlog: 9.6,
};

/// A decision, and how many seconds ago it was made.
fn decided(age_seconds: f64, pods: i32, reason: &str) -> ScalingRecord {
    ScalingRecord {
        queue: "mail".into(),
        owner: "tests".into(),
        age_seconds,
        pods_before: 0,
        pods,
        workers: pods * 2,
        reason: reason.into(),
        demand: Some(10),
        figures: Some(FIGURES),
        detail: None,
    }
}

async fn pods(test: &TestDb, at: &DecidedAt) -> Vec<i32> {
    let decisions = scaling_decisions(&test.db, "mail", at, 10).await.unwrap();
    decisions.iter().map(|decision| decision.pods).collect()
}

/// Adds decisions without figures, for each number a second later, the last one `age` ago.
async fn fill(test: &TestDb, count: i32, age: &str) {
    test.run(format!(
        "insert into rowlock.scaling_decision (queue, number, at, pods_before, pods, workers, reason)
         select q.id, n, now() - interval '{age}' - make_interval(secs => {count} - n), 0, 1, 1, 'Rate'
         from rowlock.queue q, generate_series(1, {count}) n where q.name = 'mail'"
    ))
    .await;
}

async fn kept(test: &TestDb) -> (i64, i64) {
    let least = "select coalesce(min(number), 0) from rowlock.scaling_decision";
    (test.one("select count(*) from rowlock.scaling_decision").await, test.one(least).await)
}

const STEADY: &str =
    "update rowlock.maintenance set steady_since = now() - interval '2 hours', seen_at = now()";

#[tokio::test]
async fn a_decision_is_read_with_its_figures_and_as_of_any_time() {
    let test = TestDb::new().await;
    let older = ScalingRecord { figures: None, demand: None, ..decided(7200.0, 1, "MinWorkers") };
    let limited = ScalingRecord { detail: Some("max ".repeat(200)), ..decided(0.0, 5, "Connections") };
    assert_eq!(record_scaling_decisions(&test.db, &[older]).await.unwrap(), 1);
    assert_eq!(record_scaling_decisions(&test.db, &[limited]).await.unwrap(), 1);
    let read = scaling_decisions(&test.db, "mail", &DecidedAt::Any, 10).await.unwrap();
    let (newest, oldest) = (&read[0], &read[1]);
    assert_eq!((newest.pods, newest.workers, newest.reason.as_str()), (5, 10, "Connections"));
    assert_eq!((newest.figures, newest.demand), (Some(FIGURES), Some(10)));
    assert_eq!(newest.detail.as_ref().map(String::len), Some(500));
    assert!((0.0..60.0).contains(&newest.age_seconds), "{newest:?}");
    assert_eq!((oldest.figures, oldest.demand, &oldest.detail), (None, None, &None));
    assert!((7200.0..7260.0).contains(&oldest.age_seconds), "{oldest:?}");

    assert_eq!(pods(&test, &DecidedAt::Ago(Duration::from_hours(1))).await, [1]);
    assert_eq!(pods(&test, &DecidedAt::By(oldest.at.clone())).await, [1]);
    assert_eq!(pods(&test, &DecidedAt::By(newest.at.clone())).await, [5, 1]);
    assert!(pods(&test, &DecidedAt::By("2026-01-01T00:00:00Z".into())).await.is_empty());
    let one = scaling_decisions(&test.db, "mail", &DecidedAt::Any, 1).await.unwrap();
    assert_eq!(one.len(), 1);
}

#[tokio::test]
async fn the_same_decision_and_a_queue_of_another_owner_are_not_recorded() {
    let test = TestDb::new().await;
    rowlock_queue::declare(&test.db, &declaration("other")).await.unwrap();
    let first = decided(0.0, 2, "Backlog");
    let others = [
        ScalingRecord { queue: "other".into(), ..first.clone() },
        ScalingRecord { owner: "somebody".into(), pods: 9, ..first.clone() },
        ScalingRecord { queue: "unknown".into(), ..first.clone() },
        first.clone(),
    ];
    assert_eq!(record_scaling_decisions(&test.db, &others).await.unwrap(), 2, "one statement for all queues");
    assert_eq!(record_scaling_decisions(&test.db, &others).await.unwrap(), 0);
    assert_eq!(record_scaling_decisions(&test.db, &[]).await.unwrap(), 0);
    let changed = decided(0.0, 2, "Rate");
    assert_eq!(record_scaling_decisions(&test.db, &[changed]).await.unwrap(), 1);
    assert_eq!(record_scaling_decisions(&test.db, &[first]).await.unwrap(), 1);
    assert_eq!(pods(&test, &DecidedAt::Any).await, [2, 2, 2]);
    for wrong in [decided(0.0, -1, "Backlog"), decided(0.0, 1, "not a name; really")] {
        assert!(record_scaling_decisions(&test.db, &[wrong]).await.is_err());
    }
}

#[tokio::test]
async fn decisions_are_kept_for_seven_days_and_the_last_one_for_longer() {
    let test = TestDb::new().await;
    fill(&test, 2500, "8 days").await;
    test.run("update rowlock.maintenance set steady_since = now()").await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(kept(&test).await, (2500, 1), "nothing is deleted while the clock is not known to be right");
    test.run(STEADY).await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(kept(&test).await, (1, 2500), "it still holds");
    assert_eq!(record_scaling_decisions(&test.db, &[decided(0.0, 3, "Backlog")]).await.unwrap(), 1);
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(kept(&test).await, (1, 2501));
}

#[tokio::test]
async fn at_most_ten_thousand_decisions_of_a_queue_are_kept() {
    let test = TestDb::new().await;
    fill(&test, 12_345, "1 minute").await;
    test.run(STEADY).await;
    maintain_partitions(&test.db).await.unwrap();
    assert_eq!(kept(&test).await, (10_000, 2346));
    let statement = "select rowlock.delete_old_scaling_decisions(1000)";
    assert_eq!(test.one::<i32>(statement).await, 0);
}

#[tokio::test]
async fn a_deleted_queue_takes_its_decisions_with_it() {
    let test = TestDb::new().await;
    assert_eq!(record_scaling_decisions(&test.db, &[decided(0.0, 2, "Backlog")]).await.unwrap(), 1);
    rowlock_queue::delete_queue(&test.db, "mail", false).await.unwrap();
    assert_eq!(kept(&test).await.0, 0);
}

#[tokio::test]
async fn a_reader_sees_decisions_of_its_queues_and_records_none() {
    let test = TestDb::new().await;
    rowlock_queue::declare(&test.db, &declaration("payroll")).await.unwrap();
    let records =
        [decided(0.0, 2, "Backlog"), ScalingRecord { queue: "payroll".into(), ..decided(0.0, 1, "Rate") }];
    assert_eq!(record_scaling_decisions(&test.db, &records).await.unwrap(), 2);
    let viewer = Db::connect(&test.login("viewer", "'reader', array['mail']").await).await.unwrap();
    assert_eq!(queue_stats(&viewer).await.unwrap().len(), 1);
    assert_eq!(scaling_decisions(&viewer, "mail", &DecidedAt::Any, 10).await.unwrap().len(), 1);
    assert_eq!(arrivals(&viewer, "mail", DAY).await.unwrap().scheduled, 0);
    for queue in ["payroll", "nothing"] {
        let decisions = scaling_decisions(&viewer, queue, &DecidedAt::Any, 10).await.unwrap_err();
        for refused in [decisions, arrivals(&viewer, queue, DAY).await.unwrap_err()] {
            let Error::Refused { code, hint, .. } = refused else { panic!("{refused:?}") };
            let hint = hint.unwrap_or_default();
            assert!(code == "RL001" && hint.contains("mail") && !hint.contains("payroll"), "{code} {hint}");
        }
    }
    let machine = Db::connect(&test.login("machine", "'worker'").await).await.unwrap();
    let seller = Db::connect(&test.login("seller", "'producer'").await).await.unwrap();
    for db in [&viewer, &machine, &seller] {
        assert!(record_scaling_decisions(db, &records).await.is_err());
    }
    for db in [&machine, &seller] {
        assert!(scaling_decisions(db, "mail", &DecidedAt::Any, 10).await.is_err());
        assert!(arrivals(db, "mail", DAY).await.is_err());
    }
}
