//! A folder with a manifest and a handler, `rowlock dev` in it, and the commands of a second terminal.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::running_command::Dev;

/// The command line, built with the tests under another name.
pub(crate) const ROWLOCK: &str = env!("CARGO_BIN_EXE_rowlock-tests-guard");

const HANDLER: &str = include_str!("handler.py");

/// On an idle machine nothing takes a tenth of it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

/// The interval of polling for files, processes and output of commands.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// This variable marks every process started for a test, even if it changes its title.
const MARK: &str = "ROWLOCK_TEST_HOME";

/// The only queue of most tests: at most two instances with one slot each.
pub(crate) const MANIFEST: &str = "apiVersion: rowlock.dev/v1alpha1
kind: TaskQueue
metadata:
  name: mail
  annotations: { rowlock.dev/dev-command: exec python3 handler.py }
spec:
  workers: { total: 2, perPod: 1, autoscaling: { min: 0, scaleDownAfter: 1s } }
";

/// A separate folder, like a user's.
pub(crate) struct Home {
    folder: TempDir,
    url: Option<String>,
}

impl Home {
    /// With [`MANIFEST`]; `rowlock dev` starts its bundled server.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("rowlock-dev-").tempdir().unwrap();
        // As root, the server runs as another user, who needs access to the folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = Self { folder, url: None };
        home.write("handler.py", HANDLER);
        home.write("mail.yaml", MANIFEST);
        home
    }

    /// The same with an existing server.
    pub(crate) fn with_database(url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..Self::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join(".rowlock")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        // Atomically, as an editor does.
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    /// Replaces one text of the manifest by another.
    pub(crate) fn edit(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.path().join("mail.yaml")).unwrap();
        assert!(text.contains(old), "{old:?} is not in\n{text}");
        self.write("mail.yaml", &text.replace(old, new));
    }

    /// Lets waiting handlers answer.
    pub(crate) fn go(&self) {
        self.write("go", "");
    }

    /// Lines that handlers wrote at start and end.
    pub(crate) fn handlers(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("handlers")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn has_started(&self, id: &str) -> bool {
        self.path().join(format!("started-{id}")).exists()
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null()).env(MARK, self.path());
        for name in ["ROWLOCK_DATABASE_URL", "ROWLOCK_DATABASE_URL_FILE", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts `rowlock dev` here and waits until it reports that it runs.
    pub(crate) fn dev(&self) -> Dev {
        self.dev_with(&[])
    }

    pub(crate) fn dev_with(&self, arguments: &[&str]) -> Dev {
        let mut dev = self.begin(arguments);
        dev.wait_for("metrics   http://");
        dev
    }

    /// The same without waiting.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Dev {
        let mut command = self.command(ROWLOCK, &["dev", "-f", "."]);
        command.args(arguments);
        if let Some(url) = &self.url {
            command.args(["--database-url", url]);
        }
        Dev::spawn(command)
    }

    /// A handler on a free port, the command of its worker, and the address of the worker's pages.
    pub(crate) fn worker_without_dev(&self) -> (Dev, Command, SocketAddr) {
        let (port, listen) = (free_address().port().to_string(), free_address());
        let mut handler = self.command("python3", &["handler.py"]);
        handler.env("PORT", &port);
        let url = format!("http://127.0.0.1:{port}/");
        let address = listen.to_string();
        let arguments = ["worker", "--queue", "mail", "--handler-url", &url, "--listen", &address];
        let mut worker = self.command(ROWLOCK, &arguments);
        worker.env("ROWLOCK_DATABASE_URL", self.url.as_deref().unwrap());
        (Dev::spawn(handler), worker, listen)
    }

    /// A command of a second terminal, run to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(ROWLOCK, arguments);
        match &self.url {
            Some(url) => command.env("ROWLOCK_DATABASE_URL", url),
            None => command.env("ROWLOCK_DATABASE_URL_FILE", self.data().join("database-url")),
        };
        Said::of(&command.output().unwrap())
    }

    /// The output of a command that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let printed = self.run(arguments);
        assert_eq!(printed.code, 0, "{arguments:?}: {printed:?}");
        printed.out.trim_end().to_owned()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
        let printed = self.ok(&all);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"))
    }

    /// Enqueues a task of the behaviour `what` and returns its id.
    pub(crate) fn enqueue(&self, what: &str) -> String {
        self.ok(&["enqueue", "mail", "send", &format!("{{\"do\": \"{what}\"}}")])
    }

    /// Enqueues a waiting task once the queue exists.
    pub(crate) fn enqueue_when_declared(&self) -> String {
        until("the queue is declared", || self.run(&["status"]).out.contains("mail"));
        self.enqueue("wait")
    }

    pub(crate) fn state(&self, id: &str) -> String {
        self.json(&["task", id])["state"].as_str().unwrap().to_owned()
    }

    /// A number of the queue `mail` in `rowlock status`.
    pub(crate) fn status(&self, field: &str) -> i64 {
        let queues = self.json(&["status"]);
        let mail = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "mail").unwrap();
        mail[field].as_i64().unwrap()
    }

    /// Processes started here that still run.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = self.path().to_str().unwrap();
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        all.filter(|process| belongs(process, mark)).map(|process| describe(&process)).collect()
    }

    pub(crate) fn assert_nothing_runs(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn belongs(process: &Path, mark: &str) -> bool {
    let has = |file: &str| {
        fs::read(process.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(mark))
    };
    let below = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(mark));
    let is_process = process.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok());
    is_process && (below || has("environ") || has("cmdline"))
}

fn describe(process: &Path) -> String {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    format!("{} {}", process.display(), String::from_utf8_lossy(&words).replace('\0', " "))
}

/// Polls until there is a value.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {what}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// A command's output.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}
