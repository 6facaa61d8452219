//! Secrets that point to another database.

use rowlock_tests::{TestDb, server as postgres};
use url::Url;

use super::harness::{EMAILS, Harness, until_async};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_database_url_is_used() {
    let harness = Harness::new("moved").await;
    harness.task_queue("emails", EMAILS);
    let operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let first = harness.get("tq", "emails")["status"]["database"]["identity"].as_str().unwrap().to_owned();
    assert!(first.starts_with(&format!("{}@", harness.db.name)), "{first}");
    // The TaskQueue's status remembers it, not the operator.
    operator.stop().await;
    let other = TestDb::empty().await;
    harness.secret(&postgres::url(&other.name));
    let _operator = harness.operator().await;
    let message = harness.until("DatabaseReachable", "True DatabaseChanged").await;
    assert!(message.contains(&first) && message.contains(&other.name), "{message}");
    harness.until("Ready", "True Succeeded").await;
    harness.until_event("DatabaseChanged").await;
    let queues: i64 = other.one("select count(*) from rowlock.queue where name = 'mail'").await;
    assert_eq!(queues, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_schema_is_created_again() {
    let harness = Harness::new("emptied").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    harness.db.run("drop schema rowlock cascade").await;
    until_async("the queue exists again", || async {
        let there: bool = harness.db.one("select to_regclass('rowlock.queue') is not null").await;
        if !there {
            return Err("no tables".to_owned());
        }
        match harness.db.one::<i64>("select count(*) from rowlock.queue where name = 'mail'").await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    harness.until("Ready", "True Succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_notify_for_an_idle_queue_without_an_instance() {
    let harness = Harness::new("notify").await;
    harness.task_queue("emails", EMAILS);
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let asked = || harness.db.one::<bool>("select notify_until > now() from rowlock.queue");
    until_async("the operator asks for NOTIFY", || async {
        if asked().await { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    harness.db.enqueue().await;
    harness.until_replicas(1).await;
}

/// Users and their Secrets for one database; their queues have the same names.
const TEAMS: [&str; 5] = ["ants", "bees", "cats", "dogs", "emus"];

/// The only user with sessions of the operator. An error has the number of sessions, and all their users.
async fn sole_user(db: &TestDb) -> Result<String, String> {
    let who = "select coalesce(string_agg(distinct usename, ' '), '') from pg_stat_activity
      where datname = current_database() and application_name = 'rowlock-operator'";
    let sessions = "select count(*) from pg_stat_activity
      where datname = current_database() and application_name = 'rowlock-operator'";
    let (who, sessions) = (db.one::<String>(who).await, db.one::<i64>(sessions).await);
    // One session polls, one does all other work, one listens for NOTIFY.
    if who.contains(' ') || who.is_empty() || 3 < sessions {
        return Err(format!("{sessions} of {who}"));
    }
    Ok(who)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poller_serves_all_secrets_of_a_database() {
    let harness = Harness::new("teams").await;
    let role = |team: &str| format!("{}_{team}", harness.db.name);
    for team in TEAMS {
        let role = role(team);
        harness.db.run(format!("create role {role} superuser login password 'secret'")).await;
        let mut url = Url::parse(&postgres::url(&harness.db.name)).unwrap();
        url.set_username(&role).unwrap();
        url.set_password(Some("secret")).unwrap();
        harness.secret_named(team, url.as_str());
        let spec = EMAILS
            .replace("queueName: mail", &format!("queueName: {team}"))
            .replace("name: db", &format!("name: {team}"));
        harness.task_queue(team, &spec);
    }
    let _operator = harness.operator().await;
    for team in TEAMS {
        harness.until_of(team, "Ready", "True Succeeded").await;
    }
    let wakes = |team: &'static str| {
        let harness = &harness;
        async move {
            let sql = format!("select rowlock.enqueue('{team}', 'email', '{{}}')");
            harness.db.run(sql).await;
            harness.until_replicas_of(team, 1).await;
        }
    };
    let first = until_async("one user has all sessions", || sole_user(&harness.db)).await;
    until_async("it asks for NOTIFY for all queues", || async {
        match harness.db.one::<i64>("select count(*) from rowlock.queue where notify_until > now()").await {
            5 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let others: Vec<&str> = TEAMS.into_iter().filter(|team| role(team) != first).collect();
    wakes(others[0]).await;
    // That user may no longer connect.
    harness.db.run(format!("alter role {first} nologin")).await;
    let end = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{first}' \
            and pid <> pg_backend_pid()"
    );
    harness.db.run(end).await;
    let second = until_async("another user has all sessions", || async {
        sole_user(&harness.db).await.and_then(|who| if who == first { Err(who) } else { Ok(who) })
    })
    .await;
    let third = others.into_iter().rfind(|team| role(team) != second).unwrap();
    wakes(third).await;
    // Its condition says so, though other users can read the database.
    let refused = TEAMS.into_iter().find(|team| role(team) == first).unwrap();
    harness.until_of(refused, "DatabaseReachable", "False AccessDenied").await;
    for team in TEAMS {
        harness.kubectl(&["delete", "tq", team]);
    }
}
