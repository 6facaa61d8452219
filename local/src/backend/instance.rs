//! One instance: a worker and the handler that it calls, as two processes.

use super::LocalConfig;
use super::start_watch::StartWatch;
use super::supervised::Supervised;
use crate::process::{Launch, Stop};
use nix::sys::signal::Signal;
use rowlock_crds::{Manifest, env};
use rowlock_daemon::log_filter;
use rowlock_plan::{Instance as Planned, Ports};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a handler may take to end after SIGTERM. No task runs in it by then.
const HANDLER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a handler continues when `rowlock dev` is gone. Its worker releases its tasks in about a
/// second; without the handler they would fail.
const HANDLER_LINGER: Duration = Duration::from_secs(2);

/// What the worker logs unless `RUST_LOG` is set: warnings and errors.
const WORKER_LOG: &str = "warn";

pub(super) struct Instance {
    pub(super) ports: Ports,
    /// From when it was asked for.
    pub(super) start: Option<StartWatch>,
    queue: String,
    planned: Planned,
    command: Option<String>,
    worker: Supervised,
    handler: Option<Supervised>,
    hurried: bool,
}

impl Instance {
    pub(super) fn new(config: &LocalConfig, manifest: &Manifest, planned: Planned, ports: Ports) -> Self {
        let command = manifest.dev_command().map(str::to_owned);
        let worker = Supervised::new("worker", &planned.name, worker_launch(config, &planned));
        let handler = command.as_ref().map(|command| {
            let launch = handler_launch(config, manifest, &planned, command);
            Supervised::new("handler", &planned.name, launch)
        });
        let queue = manifest.queue_name().to_owned();
        Self { ports, start: None, queue, planned, command, worker, handler, hurried: false }
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    pub(super) fn name(&self) -> &str {
        &self.planned.name
    }

    pub(super) fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.worker_port)
    }

    pub(super) fn has_same_settings(&self, other: &Self) -> bool {
        self.planned == other.planned && self.command == other.command
    }

    /// Starts the processes that do not run.
    pub(super) fn ensure_running(&mut self) {
        if let Some(handler) = &mut self.handler {
            handler.ensure_running();
        }
        self.worker.ensure_running();
    }

    /// Stops both, the worker first, because the tasks that it drains need the handler. True when both have
    /// ended.
    pub(super) fn has_stopped(&mut self) -> bool {
        if !self.worker.has_stopped() {
            return false;
        }
        let Some(handler) = &mut self.handler else { return true };
        if self.hurried {
            handler.hurry();
        }
        handler.has_stopped()
    }

    /// Stops without finishing tasks: the worker releases them.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
        self.worker.hurry();
    }

    /// Whether another program has taken the port of one of the two.
    pub(super) fn has_lost_port(&self) -> bool {
        let Ports { handler_port, worker_port } = self.ports;
        self.worker.has_lost_port(worker_port)
            || self.handler.as_ref().is_some_and(|handler| handler.has_lost_port(handler_port))
    }

    /// Whether it can run tasks now.
    pub(super) async fn is_ready(&self) -> bool {
        super::readiness::is_ready(self.ports.worker_port).await
    }
}

fn worker_launch(config: &LocalConfig, planned: &Planned) -> Launch {
    let mut vars = variables(&planned.worker_env);
    vars.push((env::DATABASE_URL.into(), config.database_url.clone().into()));
    if let Some(file) = &config.database_ca_file {
        vars.push((env::DATABASE_CA_FILE.into(), file.into()));
    }
    vars.push((env::LOG_FORMAT.into(), "text".into()));
    if std::env::var_os("RUST_LOG").is_none() {
        vars.push(("RUST_LOG".into(), log_filter(WORKER_LOG).into()));
    }
    Launch {
        program: config.worker.clone(),
        args: config.worker_args.clone(),
        env: vars,
        // Set in the user's terminal for other commands, these would win over the settings of the queue.
        without: env::ALL.iter().copied().filter(|name| *name != env::OTLP_ENDPOINT).collect(),
        stop: Stop { signals: vec![Signal::SIGTERM], patience: planned.grace, linger: Duration::ZERO },
        ..launch(config, &planned.name, "worker")
    }
}

fn handler_launch(config: &LocalConfig, manifest: &Manifest, planned: &Planned, command: &str) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), command.into()],
        env: variables(&planned.handler_env),
        folder: Some(folder_of(&manifest.path)),
        stop: Stop { signals: vec![Signal::SIGTERM], patience: HANDLER_PATIENCE, linger: HANDLER_LINGER },
        ..launch(config, &planned.name, "handler")
    }
}

fn launch(config: &LocalConfig, name: &str, part: &str) -> Launch {
    Launch {
        program: PathBuf::new(),
        args: Vec::new(),
        env: Vec::new(),
        without: Vec::new(),
        inherit_env: true,
        folder: None,
        user: None,
        log: config.log_to_files.then(|| config.logs().join(format!("{name}-{part}.log"))),
        stop: Stop { signals: Vec::new(), patience: Duration::ZERO, linger: Duration::ZERO },
        guard: config.guard.clone(),
        records: config.guard.as_ref().map(|_| config.records()),
    }
}

fn variables(from: &BTreeMap<&'static str, String>) -> Vec<(OsString, OsString)> {
    from.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn folder_of(manifest: &Path) -> PathBuf {
    let folder = manifest.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}
