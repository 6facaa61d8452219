//! Permissions of users other than the owner, each with its own login.

use std::time::Duration;

use rowlock_queue::{Db, EnqueueOptions, Error, InstanceId, Maintainer, Outcome, Token, enqueue};
use rowlock_tests::{TestDb, TestInstance, declaration};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

fn code(error: sqlx::Error) -> (String, String) {
    match Error::from(error) {
        Error::Refused { code, message, hint } => (code, format!("{message} {}", hint.unwrap_or_default())),
        Error::Database(sqlx::Error::Database(error)) => {
            (error.code().unwrap_or_default().into_owned(), error.message().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

/// Before the fix, the sweep of an instance with a worker's permissions failed: `least_k` read a table as the
/// caller.
#[tokio::test]
async fn granted_functions_need_no_privilege_on_tables() {
    let test = TestDb::empty().await;
    let invokers = "select coalesce(string_agg(distinct p.proname, ' ' order by p.proname), '') \
            from rowlock.permission_functions() r
      join pg_proc p on p.oid = r.function where not p.prosecdef";
    // The first ones only call the function that is SECURITY DEFINER; the others convert text to a value.
    assert_eq!(test.one::<String>(invokers).await, "as_json as_options as_payloads enqueue enqueue_many");
    let base = "select bool_and(p.prosecdef) from pg_proc p where p.oid in
      ('rowlock.enqueue(text, text, json, jsonb)'::regprocedure, 'rowlock.enqueue_many(text, text, json[], \
      jsonb)'::regprocedure)";
    assert!(test.one::<bool>(base).await);
}

#[tokio::test]
async fn an_instance_with_a_workers_permissions_sweeps_a_late_commit() {
    let test = TestDb::new().await;
    let db = Db::connect(&test.login("machine", "'worker'").await).await.unwrap();
    let mut instance = TestInstance::join(&db, "a").await;
    let mut maintainer = Maintainer::of_instance(instance.id(), instance.joined.queue);
    let mut producer = test.session().await;
    let late = "begin; set constraints all immediate; select rowlock.enqueue('mail', 'send', '{}')";
    producer.execute(late).await.unwrap();
    let k: i64 = test.one("select last_value from rowlock.k_seq").await;
    test.run("select nextval('rowlock.k_seq')").await;
    instance.claim_past(k).await;
    producer.execute("commit").await.unwrap();
    assert!(instance.claim(1).await.tasks.is_empty(), "claims have passed it");
    let since = std::time::Instant::now();
    loop {
        let report = maintainer.run_once(&db, None, Some(&instance.watermarks)).await.unwrap();
        if report.missed_moved > 0 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "nothing was swept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(instance.claim(1).await.tasks.len(), 1);
}

#[tokio::test]
async fn a_workers_permissions_suffice_for_an_instance() {
    let test = TestDb::new().await;
    test.enqueue_many(10).await;
    let login = test.login("machine", "'worker'").await;
    let db = Db::connect(&login).await.unwrap();
    db.check_schema().await.unwrap();
    let mut lost = TestInstance::join(&db, "lost").await;
    lost.claim(2).await;
    test.silence(lost.id()).await;
    let mut instance = TestInstance::join(&db, "a").await;
    instance.sleep().await;
    let claimed = instance.claim(3).await;
    let ids: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
    assert_eq!(rowlock_queue::fetch(&db, claimed.token.unwrap(), &ids).await.unwrap().len(), 3);
    instance.settle(&claimed, &Outcome::Retry { delay: Duration::ZERO, error: "no".into() }).await;
    let report = Maintainer::of_instance(instance.id(), instance.joined.queue)
        .run_once(&db, None, Some(&instance.watermarks))
        .await
        .expect("moving, sweeping, retention");
    assert_eq!(report.due_moved, 3);
    let mut session = PgConnection::connect(&login.url).await.unwrap();
    let rescue = format!(
        "select rowlock.rescue(i, b) from (select unnest(instances), unnest(heartbeats) \
            from rowlock.maintain('-infinity', 1, false, true)) x(i, b) where i = {}",
        lost.id()
    );
    let rescued: Option<i32> = session.fetch_one(AssertSqlSafe(rescue)).await.unwrap().get(0);
    assert_eq!(rescued, Some(2));
    rowlock_queue::release_unknown_leases(&db, instance.id(), &[]).await.unwrap();
    rowlock_queue::drain(&db, instance.id()).await.unwrap();
    rowlock_queue::leave(&db, instance.id()).await.unwrap();
    for refused in [
        "select * from rowlock.queue",
        "select payload from rowlock.task",
        "select * from rowlock.heartbeat",
        "select rowlock.enqueue('mail', 't', '{}')",
        "select rowlock.describe_task(1)",
        "select rowlock.declare_queue('x', '', 1, '{}', 1, 1, false, 1, 1, '1 h', '1 h', '1 h', '1 h')",
        "select rowlock.grant_role(current_user, 'producer')",
    ] {
        assert_eq!(code(session.execute(refused).await.expect_err(refused)).0, "42501", "{refused}");
    }
    assert_eq!(
        code(session.execute("select rowlock.extend_partitions('60 days')").await.unwrap_err()).0,
        "RL005"
    );
}

#[tokio::test]
async fn permissions_in_one_database_do_not_apply_in_another() {
    let (shop, bank) = (TestDb::new().await, TestDb::new().await);
    let seller = shop.login("seller", "'producer'").await;
    let worker = shop.login("worker", "'worker'").await;
    for login in [&seller, &worker] {
        let mut there =
            PgConnection::connect(&login.url.replace(&format!("/{}", shop.name), &format!("/{}", bank.name)))
                .await
                .unwrap();
        for call in ["select rowlock.enqueue('mail', 't', '{}')", "select rowlock.join('mail', 'a', 1)"] {
            assert_eq!(code(there.execute(call).await.unwrap_err()).0, "42501");
        }
    }
    let mut here = PgConnection::connect(&seller.url).await.unwrap();
    here.execute("select rowlock.enqueue('mail', 't', '{}')").await.unwrap();
}

#[tokio::test]
async fn a_producer_of_one_queue_cannot_enqueue_into_or_see_another() {
    let test = TestDb::new().await;
    rowlock_queue::declare(&test.db, &declaration("payroll")).await.unwrap();
    let seller = test.login("seller", "'producer', array['mail']").await;
    // A queue that is declared later is closed as well.
    rowlock_queue::declare(&test.db, &declaration("secret")).await.unwrap();
    let salary = enqueue(&test.db, "payroll", "t", "{}", &EnqueueOptions::default()).await.unwrap();
    let mut session = PgConnection::connect(&seller.url).await.unwrap();
    let own: i64 = session.fetch_one("select rowlock.enqueue('mail', 't', '{}')").await.unwrap().get(0);
    for queue in ["payroll", "secret"] {
        for call in [
            format!("rowlock.enqueue('{queue}', 't', '{{}}')"),
            format!("rowlock.enqueue_many('{queue}', 't', '[1]')"),
        ] {
            let (code, refusal) =
                code(session.execute(AssertSqlSafe(format!("select {call}"))).await.unwrap_err());
            assert!(code == "RL011" && refusal.contains("grant_role"), "{code} {refusal}");
        }
    }
    let (code_of_unknown, refusal) =
        code(session.execute("select rowlock.enqueue('pay', 't', '{}')").await.unwrap_err());
    assert!(
        code_of_unknown == "RL001" && refusal.contains("mail") && !refusal.contains("payroll"),
        "{refusal}"
    );
    let state = format!("select rowlock.task_state({salary})");
    assert_eq!(session.fetch_one(AssertSqlSafe(state)).await.unwrap().get::<Option<String>, _>(0), None);
    let cancel = format!("select rowlock.cancel({salary})");
    assert_eq!(code(session.execute(AssertSqlSafe(cancel)).await.unwrap_err()).0, "RL011");
    let cancel = format!("select outcome from rowlock.cancel_all(array[{own}])");
    assert_eq!(session.fetch_one(AssertSqlSafe(cancel)).await.unwrap().get::<String, _>(0), "cancelled");
    // After `set role` only that role counts, and no longer the superuser's own rights.
    let name = format!("seller_{}", test.name);
    let mut superuser = test.session().await;
    superuser.execute(AssertSqlSafe(format!("set role {name}"))).await.unwrap();
    assert_eq!(
        code(superuser.execute("select rowlock.enqueue('payroll', 't', '{}')").await.unwrap_err()).0,
        "RL011"
    );

    test.run(format!("select rowlock.grant_role('{name}', 'producer')")).await;
    session.execute("select rowlock.enqueue('payroll', 't', '{}')").await.expect(
        "permission on all queues \
        now",
    );
    test.run(format!("select rowlock.revoke_role('{name}')")).await;
    assert_eq!(
        code(session.execute("select rowlock.enqueue('mail', 't', '{}')").await.unwrap_err()).0,
        "42501"
    );
    drop(session);
    superuser.execute("reset role").await.unwrap();
    test.run(format!("drop role {name}")).await;
    assert!(
        !test.one::<bool>("select bool_or(restricted) from rowlock.queue").await,
        "permissions are no longer checked"
    );
}

#[tokio::test]
async fn workers_and_readers_of_one_queue_reach_only_that_queue() {
    let test = TestDb::new().await;
    rowlock_queue::declare(&test.db, &declaration("payroll")).await.unwrap();
    let id = enqueue(&test.db, "payroll", "t", "{\"iban\": 1}", &EnqueueOptions::default()).await.unwrap();
    let machine = Db::connect(&test.login("machine", "'worker', array['mail']").await).await.unwrap();
    let viewer = Db::connect(&test.login("viewer", "'reader', array['mail']").await).await.unwrap();
    let refused = rowlock_queue::join(&machine, "payroll", "a", 1).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { code, .. } if code == "RL011"), "{refused}");
    let theirs = rowlock_queue::join(&test.db, "payroll", "theirs", 1).await.unwrap();
    let watermarks = theirs.watermarks.clone();
    assert!(rowlock_queue::claim(&machine, theirs.instance, 1, &watermarks, Token::random()).await.is_err());
    assert!(rowlock_queue::leave(&machine, theirs.instance).await.is_err());
    assert!(rowlock_queue::drain(&machine, InstanceId(theirs.instance.0)).await.is_err());
    TestInstance::join(&machine, "mine").await.heartbeat(0, 1).await;
    let seen: Vec<_> =
        rowlock_queue::queue_stats(&viewer).await.unwrap().into_iter().map(|queue| queue.name).collect();
    assert_eq!(seen, ["mail"]);
    assert!(rowlock_queue::describe_task(&viewer, id).await.unwrap().is_none());
    assert!(
        rowlock_queue::list_tasks(&viewer, None, rowlock_queue::TaskState::Available, 10, None)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(rowlock_queue::audit(&viewer).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_invalid_grant_is_refused_with_a_hint() {
    let test = TestDb::new().await;
    for (arguments, code_of_ours, hint) in [
        ("'nobody-of-that-name', 'producer'", "RL005", "create role"),
        ("current_user, 'owner'", "RL005", "producer, worker and reader"),
        ("current_user, 'producer', array['mial']", "RL001", "mail"),
    ] {
        let call = format!("select rowlock.grant_role({arguments})");
        let (found, refusal) = code(test.session().await.execute(AssertSqlSafe(call)).await.unwrap_err());
        assert!(found == code_of_ours && refusal.contains(hint), "{arguments}: {found} {refusal}");
    }
}

/// Before the fix, two of them waited for each other, and one failed.
#[tokio::test]
async fn many_sessions_grant_and_revoke_at_once() {
    let test = TestDb::new().await;
    let roles: Vec<String> = (0..4).map(|number| format!("clerk_{number}_{}", test.name)).collect();
    for role in &roles {
        test.run(format!("create role {role}")).await;
    }
    for _ in 0..10 {
        for verb in ["grant_role('{}', 'producer')", "revoke_role('{}')"] {
            let statements = roles.iter().map(|role| format!("select rowlock.{}", verb.replace("{}", role)));
            futures_util::future::join_all(statements.map(|sql| test.run(sql))).await;
        }
    }
    for role in &roles {
        test.run(format!("drop role {role}")).await;
    }
}

#[tokio::test]
async fn no_function_is_executable_by_public() {
    let test = TestDb::new().await;
    let open = "select coalesce(string_agg(p.proname, ' '), '') from pg_proc p
      where p.pronamespace = 'rowlock'::regnamespace and has_function_privilege('public', p.oid, 'execute')";
    assert_eq!(test.one::<String>(open).await, "");
}
