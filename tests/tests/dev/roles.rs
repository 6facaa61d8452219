//! An owner without other privileges, and users with one permission each, granted by the owner.

use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;
use rowlock_local::postgres::{Server, ServerConfig};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::harness::{Home, ROWLOCK, Said, until};
use crate::running_command::Dev;

/// A database whose owner has no other privileges, on a server without any schema.
const OWNED: [&str; 2] =
    ["create role owner login password 'secret' nocreaterole", "create database shop owner owner"];

/// An administrator creates the other logins.
const USERS: &str = "create role seller login password 'secret'; create role machine login password 'secret';
    create role viewer login password 'secret';";

/// The owner grants their permissions.
const GRANTS: &str =
    "select rowlock.grant_role('seller', 'producer'), rowlock.grant_role('machine', 'worker', array['mail']),
    rowlock.grant_role('viewer', 'reader')";

#[tokio::test]
async fn an_owner_without_other_rights_migrates_and_grants() {
    let home = Home::new();
    let mut config = ServerConfig::new(home.data());
    config.guard = Some(ROWLOCK.into());
    let mut server = Server::start(&config).await.unwrap();
    run(&server.url("postgres"), OWNED).await;
    let administrator = server.url("shop");
    let as_user = |user: &str| {
        let (_, place) = administrator.split_once('@').unwrap();
        format!("postgres://{user}:secret@{place}")
    };

    let migrated = say(&home, &as_user("owner"), &["migrate"]);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    // The owner's own tasks work without any role.
    let mut dev = Dev::spawn(command(
        &home,
        &as_user("owner"),
        &["dev", "-f", ".", "--database-url", &as_user("owner")],
    ));
    dev.wait_for("metrics   http://");
    let id = || say(&home, &as_user("owner"), &["enqueue", "mail", "send", "{}"]);
    until("the owner enqueues", || id().code == 0);
    let task = id().out.trim().to_owned();
    until("it is done", || state(&home, &as_user("owner"), &task) == "completed");
    dev.stop();

    run(&administrator, [USERS]).await;
    run(&as_user("owner"), [GRANTS]).await;
    let again = say(&home, &as_user("owner"), &["migrate", "--output", "json"]);
    assert!(again.out.contains("\"notes\":[]"), "{again:?}");
    one_role_each(&home, &as_user).await;
    server.stop().await.unwrap();
    home.assert_nothing_runs();
}

async fn one_role_each(home: &Home, as_user: &dyn Fn(&str) -> String) {
    let mut seller = PgConnection::connect(&as_user("seller")).await.unwrap();
    let enqueued =
        seller.fetch_one("select rowlock.enqueue('mail', 'send', '{\"do\": \"ok\"}')::text").await.unwrap();
    let task: String = sqlx::Row::get(&enqueued, 0);
    let refused = seller.execute("select payload from rowlock.task").await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut handler = home.command("python3", &["handler.py"]);
    let handler = Dev::spawn({
        handler.env("PORT", &port);
        handler
    });
    let to = format!("http://127.0.0.1:{port}/tasks");
    let arguments = ["worker", "--queue", "mail", "--handler-url", &to, "--listen", "127.0.0.1:0"];
    let worker = Dev::spawn(command(home, &as_user("machine"), &arguments));
    until("a user with only a worker's rights does it", || {
        state(home, &as_user("owner"), &task) == "completed"
    });
    worker.stop();
    handler.send(Signal::SIGTERM);
    handler.ended();

    let looked = say(home, &as_user("viewer"), &["status"]);
    assert!(looked.code == 0 && looked.out.contains("mail"), "{looked:?}");
    let typed = say(home, &as_user("seller"), &["enqueue", "mail", "send", "{}"]);
    assert_eq!(typed.code, 0, "{typed:?}");
    let mut viewer = PgConnection::connect(&as_user("viewer")).await.unwrap();
    viewer.execute("select * from rowlock.statistics(); select * from rowlock.audit()").await.unwrap();
    let refused = viewer.execute("select rowlock.enqueue('mail', 'send', '{}')").await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
}

async fn run<const N: usize>(url: &str, statements: [&str; N]) {
    let mut session = PgConnection::connect(url).await.unwrap();
    for sql in statements {
        session.execute(AssertSqlSafe(sql.to_owned())).await.expect(sql);
    }
}

fn command(home: &Home, url: &str, arguments: &[&str]) -> Command {
    let mut command = home.command(ROWLOCK, arguments);
    command.env("ROWLOCK_DATABASE_URL", url);
    command
}

fn say(home: &Home, url: &str, arguments: &[&str]) -> Said {
    Said::of(&command(home, url, arguments).output().unwrap())
}

fn state(home: &Home, url: &str, id: &str) -> String {
    let details = say(home, url, &["task", id]).out;
    details.lines().find_map(|line| line.strip_prefix("state     ")).unwrap_or_default().to_owned()
}
