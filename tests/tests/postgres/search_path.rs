//! A hostile `public` schema: Rowlock calls nothing in it.

use std::time::Duration;

use rowlock_queue::{
    Db, DecidedAt, DrainPods, EndedHandler, EndedPod, EnqueueOptions, InstanceId, Maintainer, Outcome,
    ScalingRecord, Settlement, TaskId, Token, enqueue, listen,
};
use rowlock_tests::{TestDb, TestInstance, declaration, settlements};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

const TRAPS: &str = include_str!("search_path.sql");

/// Names of functions that the project's SQL calls: words before a parenthesis.
const CALLED: &str = "select string_agg(distinct p.proname, ',') from pg_proc p \
    where p.pronamespace = 'pg_catalog'::regnamespace and p.proname in (
  select w[1] from regexp_matches($1 || (select string_agg(pg_get_functiondef(f.oid), ' ') from pg_proc f
    where f.pronamespace = 'rowlock'::regnamespace), '([a-z_0-9]+) ?[(]', 'g') w)";

/// All SQL that Rust sends.
fn sources() -> String {
    let files = std::fs::read_dir("../queue/src").unwrap();
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// A database owned by the login `owner`, without the schema `rowlock` yet, with the traps of `mallory` in
/// `public`.
async fn trapped() -> (TestDb, Db) {
    let test = TestDb::empty().await;
    let names: String = sqlx::query_scalar(CALLED).bind(sources()).fetch_one(&test.pool).await.unwrap();
    assert!(names.contains("date_part") && names.contains("sum"), "{names}");
    let (owner, mallory) = (test.login("owner", "").await, test.login("mallory", "").await);
    test.run(format!(
        "drop schema rowlock cascade; alter database {0} owner to owner_{0}; \
            grant create on schema public to mallory_{0}",
        test.name
    ))
    .await;
    let mut session = PgConnection::connect(&mallory.url).await.unwrap();
    session.execute(AssertSqlSafe(TRAPS.replace("$NAMES", &names))).await.unwrap();
    session.execute("select 1::numeric * 1::int4").await.unwrap();
    assert_eq!(test.one::<i64>("select last_value from public.hits").await, 1, "a trap records its call");
    session.execute("select setval('public.hits', 1, false); delete from public.hit").await.unwrap();
    (test, Db::connect(&owner).await.unwrap())
}

/// Before the fix, the operator executed an SQL operator of `public` every two seconds, and a column default
/// used another one with every enqueue.
#[tokio::test]
async fn no_object_in_public_is_ever_called() {
    let (test, owner) = trapped().await;
    owner.migrate().await.unwrap();
    owner.migrate().await.unwrap();
    let bound = "select coalesce(string_agg(distinct pg_describe_object(d.classid, d.objid, d.objsubid), ', \
        '), '') from pg_depend d
      where d.refobjid in (select oid from pg_operator where oprnamespace = 'public'::regnamespace
        union all select oid from pg_proc where pronamespace = 'public'::regnamespace)
        and d.objid not in (select oid from pg_operator where oprnamespace = 'public'::regnamespace)";
    assert_eq!(test.one::<String>(bound).await, "", "is bound to a trap");
    rowlock_queue::declare(&owner, &declaration("mail")).await.unwrap();
    rowlock_queue::declare(&owner, &declaration("other")).await.unwrap();
    let tasks = produce(&test).await;
    work(&test, &owner).await;
    look(&test, "reader", &tasks).await;
    own(&owner, &tasks).await;
    let pooler = crate::pooler::start(&test, "transaction", 3);
    let connect = rowlock_queue::Connect { url: pooler.url.clone(), ..test.connect() };
    let through = Db::connect_with_retry(&connect, Some(Duration::from_secs(20))).await.unwrap();
    through.migrate().await.unwrap();
    own(&through, &tasks).await;
    let mut instance = TestInstance::join(&through, "pooled").await;
    perform(&test, &mut instance).await;
    let hits: String = test
        .one("select coalesce(string_agg(distinct who || ' ran ' || what, '; '), '') from public.hit")
        .await;
    assert_eq!(hits, "");
    assert!(
        !test.one::<bool>("select is_called from public.hits").await,
        "a trap ran in a transaction that was rolled back"
    );
}

/// An application with the default search path.
async fn produce(test: &TestDb) -> Vec<TaskId> {
    let seller = test.login("seller", "'producer', array['mail']").await;
    let mut session = PgConnection::connect(&seller.url).await.unwrap();
    for payload in ["'{}'", "'{}'::json", "'{}'::jsonb", "'{}'::text"] {
        for options in ["", ", '{\"priority\": 2, \"max_attempts\": 1}'", ", '{\"delay\": \"1 day\"}'::json"]
        {
            session
                .execute(AssertSqlSafe(format!("select rowlock.enqueue('mail', 't', {payload}{options})")))
                .await
                .unwrap();
        }
    }
    for payloads in ["'[{}, {}]'", "'{\"{}\"}'", "array['{}']", "array['{}'::json]", "array['{}'::jsonb]"] {
        session
            .execute(AssertSqlSafe(format!("select rowlock.enqueue_many('mail', 't', {payloads})")))
            .await
            .unwrap();
    }
    for refused in [
        "'nothing', 't', '{}'",
        "'other', 't', '{}'",
        "'mail', '', '{}'",
        "'mail', 't', '{}', '{\"run_at\": \"no\"}'",
    ] {
        session.execute(AssertSqlSafe(format!("select rowlock.enqueue({refused})"))).await.unwrap_err();
    }
    // Scheduled, and available immediately.
    session.execute("begin; select rowlock.enqueue('mail', 't', '{}'); select pg_sleep(0.1)").await.unwrap();
    session.execute("set constraints all immediate; commit").await.unwrap();
    session.execute("select rowlock.task_state(1), rowlock.cancel_all(array[1, 2])").await.unwrap();
    let db = Db::connect(&seller).await.unwrap();
    db.check_schema().await.unwrap();
    let options = EnqueueOptions { delay: Some(Duration::from_millis(1)), ..Default::default() };
    let one = enqueue(&db, "mail", "t", "{}", &options).await.unwrap();
    let (many, options) = (vec!["{}".to_owned(); 300], EnqueueOptions::default());
    let mut tasks = rowlock_queue::enqueue_many(&db, "mail", "t", &many, &options).await.unwrap();
    tasks.push(one);
    rowlock_queue::cancel(&db, tasks[7]).await.unwrap();
    tasks
}

/// An instance, and one that crashes.
async fn work(test: &TestDb, owner: &Db) {
    let machine = test.login("machine", "'worker', array['mail']").await;
    let db = Db::connect(&machine).await.unwrap();
    db.check_schema().await.unwrap();
    let mut gone = TestInstance::join(&db, "gone").await;
    gone.claim(3).await;
    let mut instance = TestInstance::join(&db, "a").await;
    listen(&machine).await.unwrap().heartbeat(&instance.says(0, 5)).await.unwrap();
    assert!(perform(test, &mut instance).await, "a suspect ran");
    test.silence(gone.id()).await;
    let rescue = format!(
        "select rowlock.rescue(instance, heartbeat) from rowlock.newest_heartbeats() where instance = {}",
        gone.id()
    );
    let rescued: Option<i32> = test.one(rescue).await;
    assert_eq!(rescued, Some(3));
    rowlock_queue::lock_holders(&db).await.unwrap();
    rowlock_queue::leave(&db, instance.id()).await.unwrap();
    rowlock_queue::retry_all_dead(owner, "mail").await.unwrap();
}

/// What a running instance does. Returns whether it ran a suspect.
async fn perform(test: &TestDb, instance: &mut TestInstance) -> bool {
    instance.sleep().await;
    let mut maintainer = Maintainer::of_instance(instance.id(), instance.joined.queue);
    for outcome in [
        Outcome::Complete { result: Some("{}".into()) },
        Outcome::Retry { delay: Duration::ZERO, error: "no".into() },
        Outcome::Dead { error: "no".into() },
        Outcome::Snooze { delay: Duration::from_secs(1) },
        Outcome::Release,
        Outcome::HandlerEnded,
    ] {
        let claimed = instance.claim(20).await;
        let ids: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
        if let Some(token) = claimed.token {
            rowlock_queue::fetch(&instance.db, token, &ids).await.unwrap();
        }
        rowlock_queue::settle(&instance.db, instance.id(), &settlements(&claimed, &outcome)).await.unwrap();
        rowlock_queue::claim_again(&instance.db, instance.id(), 1, &instance.watermarks, Token::random())
            .await
            .unwrap();
        maintainer.note(&instance.heartbeat(1, 5).await.noted);
        maintainer
            .run_once(&instance.db, Some(std::time::Instant::now()), Some(&instance.watermarks))
            .await
            .unwrap();
    }
    test.run("update rowlock.suspect set due = now()").await;
    let token = Token::random();
    let suspect = rowlock_queue::claim_suspect(&instance.db, instance.id(), token, false).await.unwrap();
    if let Some(suspect) = &suspect {
        let ended = Settlement { token, task: suspect.id, outcome: Outcome::HandlerEnded };
        rowlock_queue::settle(&instance.db, instance.id(), &[ended]).await.unwrap();
    }
    rowlock_queue::policy(&instance.db, instance.joined.queue).await.unwrap();
    rowlock_queue::release_unknown_leases(&instance.db, instance.id(), &[]).await.unwrap();
    rowlock_queue::drain(&instance.db, InstanceId(instance.id().0)).await.unwrap();
    suspect.is_some()
}

/// What users read.
async fn look(test: &TestDb, name: &str, tasks: &[TaskId]) {
    let db = Db::connect(&test.login(name, "'reader', array['mail']").await).await.unwrap();
    db.check_schema().await.unwrap();
    assert_eq!(rowlock_queue::queue_stats(&db).await.unwrap().len(), 1);
    see(&db, tasks).await;
}

async fn see(db: &Db, tasks: &[TaskId]) {
    for state in rowlock_queue::TaskState::ALL {
        rowlock_queue::list_tasks(db, Some("mail"), state, 10, None).await.unwrap();
    }
    for task in &tasks[..20] {
        rowlock_queue::describe_task(db, *task).await.unwrap().expect("it is there");
    }
    rowlock_queue::audit(db).await.unwrap();
    rowlock_queue::scaling_decisions(db, "mail", &DecidedAt::Any, 10).await.unwrap();
    rowlock_queue::arrivals(db, "mail", Duration::from_hours(24)).await.unwrap();
}

/// What the operator and users with the owner's login do.
async fn own(db: &Db, tasks: &[TaskId]) {
    let (identity, overview) = tokio::join!(rowlock_queue::identity(db), rowlock_queue::overview(db));
    assert_eq!(identity.unwrap().started_at, overview.unwrap().started_at);
    let queue = rowlock_queue::declare(db, &declaration("mail")).await.unwrap();
    rowlock_queue::adopt(db, &declaration("mail"), Some("nobody")).await.unwrap();
    rowlock_queue::request_notify(db, &[queue]).await.unwrap();
    record(db).await;
    end_pod(db).await;
    see(db, tasks).await;
    rowlock_queue::cancel(db, tasks[40]).await.unwrap();
    rowlock_queue::retry(db, &tasks[..3]).await.unwrap();
    rowlock_queue::declare(db, &declaration("to-go")).await.unwrap();
    enqueue(db, "to-go", "t", "{}", &EnqueueOptions::default()).await.unwrap();
    rowlock_queue::delete_queue(db, "to-go", true).await.unwrap();
    Maintainer::new().run_once(db, None, None).await.unwrap();
}

/// What the operator does when a handler and a pod end.
async fn end_pod(db: &Db) {
    let (queue, owner, uid) = ("mail", "tests", "6b7ee2c4-1f1c-4a53-9c0e-5d1b1f4f3a10");
    let joined = rowlock_queue::join_in_pod(db, queue, "pod", 10, Some(uid)).await.unwrap();
    let watermarks = joined.watermarks.clone();
    let mut instance = TestInstance { db: db.clone(), joined, watermarks };
    for outcome in [Some(Outcome::HandlerEnded), None] {
        enqueue(db, queue, "t", "{}", &EnqueueOptions::default()).await.unwrap();
        let claimed = instance.claim(1).await;
        assert_eq!(claimed.tasks.len(), 1);
        if let Some(outcome) = outcome {
            instance.settle(&claimed, &outcome).await;
        }
    }
    let how = "OOMKilled, exit code 137".to_owned();
    let ended = EndedHandler { queue: queue.into(), owner: owner.into(), uid: uid.into(), how: how.clone() };
    assert_eq!(rowlock_queue::name_handler_end(db, &ended).await.unwrap(), 1);
    let pods = vec![(uid.to_owned(), 0)];
    let drain = DrainPods { queue: queue.into(), owner: owner.into(), pods, most: 1 };
    assert_eq!(rowlock_queue::drain_pods(db, &drain).await.unwrap().len(), 1);
    let pod = EndedPod { queue: queue.into(), owner: owner.into(), uid: uid.into(), how };
    assert_eq!(rowlock_queue::rescue_pod(db, &pod).await.unwrap(), Some(1));
}

/// What scales queues records why.
async fn record(db: &Db) {
    let record = ScalingRecord {
        queue: "mail".into(),
        owner: "tests".into(),
        age_seconds: 1.5,
        pods_before: 0,
        pods: 2,
        workers: 2,
        reason: "Backlog".into(),
        demand: Some(2),
        figures: None,
        detail: Some("none".into()),
    };
    rowlock_queue::record_scaling_decisions(db, &[record]).await.unwrap();
    let minute = DecidedAt::Ago(Duration::from_mins(1));
    assert!(rowlock_queue::scaling_decisions(db, "mail", &minute, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_function_sets_search_path_or_qualifies_every_name() {
    let test = TestDb::empty().await;
    // A body that is parsed when the function is created stays bound; the wrappers of enqueue call qualified
    // names with exact types.
    let open = "select coalesce(string_agg(p.oid::regprocedure::text, ' '), '') from pg_proc p
      where p.pronamespace = 'rowlock'::regnamespace and p.prosqlbody is null
        and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)
        and not (p.proname in ('enqueue', 'enqueue_many') and p.prosrc ~ '^ \
        select rowlock[.]enqueue(_many)?[(]')";
    assert_eq!(test.one::<String>(open).await, "");
}
