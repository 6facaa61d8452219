//! Many hostile tenants at the same time, against an operator in a separate process.

use std::fs;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use rowlock_operator::kubernetes::{Config, run};
use rowlock_tests::{TestDb, server as postgres};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::harness::{EMAILS, Harness, config, until};
use crate::kubectl::ok;
use crate::server::server;

/// Makes this test program run an operator of this class.
const CLASS: &str = "TESTS_OPERATOR_CLASS";

/// The memory that the chart gives an operator.
const LIMIT_KIB: u64 = 256 << 10;

/// Not a test: the tests start this process.
#[tokio::test]
async fn run_an_operator_in_this_process() {
    let Ok(class) = std::env::var(CLASS) else { return };
    let config = Config { namespace: None, class: Some(class.clone()), ..config(&class) };
    run(config, Client::try_default().await.unwrap(), CancellationToken::new()).await.unwrap();
}

/// The operator's process. Dropping it kills it.
struct Operator(Child);

impl Operator {
    /// Starts an operator for `TaskQueues` of the class, wrapped by the command `wrapper`.
    fn start(class: &str, wrapper: &[&str]) -> Self {
        let own = std::env::current_exe().unwrap();
        let test = "operator::hostile::run_an_operator_in_this_process";
        let command = [wrapper, &[own.to_str().unwrap(), test, "--exact", "--nocapture"]].concat();
        let child = Command::new(command[0])
            .args(&command[1..])
            .env("KUBECONFIG", &server().kubeconfig)
            .env(CLASS, class)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// A number in `/proc/PID/status`.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Secret and a `TaskQueue` that names it.
fn hostile(namespace: &str, name: &str, class: &str, url: &str) -> [Value; 2] {
    let mut spec: Value = serde_yaml::from_str(EMAILS).unwrap();
    (spec["queueName"], spec["database"]["secretRef"]["name"]) = (name.into(), name.into());
    [
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace },
                "stringData": { "uri": url } }),
        json!({ "apiVersion": "rowlock.dev/v1alpha1", "kind": "TaskQueue", "spec": spec,
                "metadata": { "name": name, "namespace": namespace,
                              "labels": { "rowlock.dev/class": class } } }),
    ]
}

fn apply(objects: &[Value]) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    ok(&["create", "-f", "-"], &list.to_string());
}

/// Before the fix, each attempt left a thread in the resolver of the C library; at 512 threads no tenant's
/// name was resolved any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_dns_server_that_never_answers_delays_no_other_tenant() {
    const SECRETS: usize = 70;
    let (sound, flood) = (Harness::new("dns-sound").await, Harness::new("dns-flood").await);
    // It never answers. A process that may not open that port uses an unassigned address instead.
    let silent = UdpSocket::bind("127.87.0.53:53");
    let address = if silent.is_ok() { "127.87.0.53" } else { "192.0.2.1" };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(&file, format!("nameserver {address}\noptions timeout:30 attempts:5\n")).unwrap();
    let class = sound.namespace.clone();
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"", file.display());
    let operator = Operator::start(&class, &["unshare", "-rm", "sh", "-c", &mount]);
    let name = |number: usize| format!("flood-{number}");
    let all = (0..SECRETS).flat_map(|number| {
        let hosts: Vec<String> = (0..8).map(|host| format!("h{host}.t{number}.example")).collect();
        hostile(&flood.namespace, &name(number), &class, &format!("postgres://u:p@{}/d", hosts.join(",")))
    });
    apply(&all.collect::<Vec<_>>());
    for number in 0..SECRETS {
        let message = flood.until_of(&name(number), "DatabaseReachable", "False ConnectionFailed").await;
        assert!(message.contains("DNS") && message.contains("'h0.t"), "{message}");
    }
    // By a name that is in /etc/hosts.
    sound.secret(&postgres::url(&sound.db.name).replace("127.0.0.1", "localhost"));
    sound.task_queue("emails", EMAILS);
    sound.kubectl(&["label", "tq", "emails", &format!("rowlock.dev/class={class}")]);
    let since = Instant::now();
    sound.until("Ready", "True Succeeded").await;
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let threads = operator.status("Threads");
    assert!(threads < 20, "{threads} threads");
}

/// A tenant owns its database, so it controls what its functions return.
const FLOOD: &str = "do $do$ begin
  alter function rowlock.statistics() rename to true_statistics;
  execute format('create function rowlock.statistics() returns %s language sql stable
    as $$ select s.* from rowlock.true_statistics() s cross join generate_series(1, 19000)
          where s.name = ''mail'' $$',
    pg_get_function_result('rowlock.true_statistics()'::regprocedure));
  update rowlock.queue set owner = repeat('x', 180);
end $do$";

/// Each answer is bounded, and so are all of them together.
#[tokio::test(flavor = "multi_thread")]
async fn long_answers_of_many_tenants_fit_into_the_operators_memory() {
    const TENANTS: usize = 16;
    let sound = Harness::new("answers-sound").await;
    let class = sound.namespace.clone();
    let database = TestDb::new().await;
    database.run(FLOOD).await;
    let namespace = |number: usize| format!("operator-answers-flood-{number}");
    let named = |n| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace(n) } });
    apply(&(0..TENANTS).map(named).collect::<Vec<_>>());
    let url = postgres::url(&database.name);
    apply(
        &(0..TENANTS)
            .flat_map(|number| hostile(&namespace(number), "flood", &class, &url))
            .collect::<Vec<_>>(),
    );
    sound.task_queue("emails", EMAILS);
    sound.kubectl(&["label", "tq", "emails", &format!("rowlock.dev/class={class}")]);
    let operator = Operator::start(&class, &["env"]);
    sound.until("Ready", "True Succeeded").await;
    let (since, mut most) = (Instant::now(), 0);
    until("some looks are over", || {
        most = most.max(operator.status("RssAnon"));
        if since.elapsed() > Duration::from_secs(20) { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert!(most < LIMIT_KIB, "{most} KiB");
    // Tenants with short answers are still served.
    sound.db.run("select rowlock.enqueue('mail', 'email', '{}')").await;
    let since = Instant::now();
    sound.until_replicas(1).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    eprintln!("{most} KiB at most");
}
