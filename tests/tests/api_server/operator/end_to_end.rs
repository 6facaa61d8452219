//! A task from enqueue to completion. Processes on this machine play the pod.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use rowlock_crds::env;
use rowlock_local::process::{Launch, Process, Stop};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::harness::{EMAILS, Harness, until_async};

const TASKS: i64 = 300;

/// A handler that accepts everything. Returns its port.
async fn handler() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                // Small requests arrive in one read; the probe of the port sends nothing.
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    port
}

/// The worker's container of the Deployment, run as a process.
fn worker(harness: &Harness, folder: &tempfile::TempDir) -> Process {
    let pod = harness.deployment()["spec"]["template"]["spec"].clone();
    let variables = pod["containers"][0]["env"].as_array().unwrap().clone();
    let url = folder.path().join("url");
    fs::write(&url, rowlock_tests::server::url(&harness.db.name)).unwrap();
    let value = |variable: &serde_json::Value| {
        let name = variable["name"].as_str().unwrap().to_owned();
        let value = match name.as_str() {
            env::DATABASE_URL_FILE => url.display().to_string(),
            env::INSTANCE_NAME => "emails-1".to_owned(),
            env::POD_UID => "5f0c6a52-6a3c-4d0e-9d0a-0e5b8f1b7c11".to_owned(),
            // Other tests run workers, too.
            env::LISTEN => "127.0.0.1:0".to_owned(),
            _ => variable["value"].as_str().unwrap().to_owned(),
        };
        (name.into(), value.into())
    };
    let launch = Launch {
        program: env!("CARGO_BIN_EXE_rowlock-tests-guard").into(),
        args: vec!["worker".into()],
        env: variables.iter().map(value).collect(),
        without: Vec::new(),
        inherit_env: true,
        folder: None,
        user: None,
        log: Some(folder.path().join("log")),
        stop: Stop {
            signals: vec![Signal::SIGTERM],
            patience: Duration::from_secs(30),
            linger: Duration::ZERO,
        },
        guard: None,
        records: None,
    };
    Process::start(&launch).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_start_pods_and_the_pods_stop_after_the_last_task() {
    let harness = Harness::new("whole").await;
    let handler = json!({ "http": { "port": handler().await } });
    harness.task_queue("emails", &format!("{EMAILS}\nhandler: {handler}"));
    let _operator = harness.operator().await;
    harness.until("Ready", "True Succeeded").await;
    let tasks = usize::try_from(TASKS).unwrap();
    harness.db.enqueue_many(tasks).await;
    harness.until_replicas(4).await;
    let folder = tempfile::tempdir().unwrap();
    let mut worker = worker(&harness, &folder);
    until_async("all tasks are done", || async {
        let (completed, dead, cancelled, open) = harness.db.audited().await;
        if (completed, open) == (TASKS, 0) {
            return Ok(());
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        Err(format!("{completed} {dead} {cancelled} {open}; {log}"))
    })
    .await;
    harness.until_replicas(0).await;
    assert!(worker.stop().await.unwrap().success());
}
