//! A clone, a home folder, and a database like a user's: a table of orders and a role of the shop.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use rowlock_tests::doc_blocks::{Block, Kind, missing};

const ROWLOCK: &str = env!("CARGO_BIN_EXE_rowlock-tests-guard");

/// A command with this comment runs in a separate terminal until the end of the page.
const UNTIL_CTRL_C: &str = "# until Ctrl-C";

/// The last line that `rowlock dev` prints when it starts.
const RUNS: &str = "metrics   http://";

const TIMEOUT: Duration = Duration::from_mins(2);

/// Variables that every page may use.
const SETTING: &str =
    "create table orders (id bigint primary key, total numeric not null); create role shop;";

pub(crate) struct Sandbox {
    pub(crate) clone: PathBuf,
    home: TempDir,
    base: Child,
}

impl Sandbox {
    pub(crate) fn make() -> Self {
        let home = tempfile::Builder::new().prefix("rowlock-docs-").tempdir().unwrap();
        // As root, the server runs as another user, who needs access to the folder.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clone = clone(home.path());
        let log = fs::File::create(home.path().join("base.log")).unwrap();
        let base = Command::new(ROWLOCK)
            .args(["dev", "-f", "examples/quickstart", "--data-dir"])
            .arg(home.path().join("base"))
            .current_dir(&clone)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let sandbox = Self { clone, home, base };
        sandbox.wait_for_base();
        let psql = format!("psql -Xq -v ON_ERROR_STOP=1 \"$(cat {})\" -c '{SETTING}'", sandbox.url_file());
        let done = Command::new("bash").args(["-c", &psql]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        sandbox
    }

    fn wait_for_base(&self) {
        let since = Instant::now();
        let log = self.home.path().join("base.log");
        while !fs::read_to_string(&log).unwrap().contains(RUNS) {
            assert!(since.elapsed() < TIMEOUT, "{}", fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn url_file(&self) -> String {
        self.home.path().join("base/database-url").display().to_string()
    }

    /// Runs the commands of a page in one shell and compares their output with the page's.
    pub(crate) fn run(&self, page: &str, blocks: &[Block]) {
        let outputs = self.home.path().join(page.replace('/', "-"));
        fs::create_dir(&outputs).unwrap();
        let script = outputs.join("script");
        fs::write(&script, shell(blocks, &outputs)).unwrap();
        let mut bash = Command::new("bash");
        bash.arg(&script).current_dir(&self.clone).stdin(Stdio::null());
        bash.env("HOME", self.home.path()).env("ROWLOCK_DATABASE_URL_FILE", self.url_file());
        bash.env_remove("ROWLOCK_DATABASE_URL").env("PROFILE", "dev").env("PYTHONDONTWRITEBYTECODE", "1");
        // The variables that cargo sets for tests would make it build `ring` again.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
            bash.env_remove(name);
        }
        bash.env_remove("LD_LIBRARY_PATH");
        for (name, below) in
            [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"), ("XDG_CACHE_HOME", ".cache")]
        {
            let real = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below));
            let known = std::env::var_os(name).map(PathBuf::from).or(real);
            bash.envs(known.map(|path| (name, path)));
        }
        bash.env("CARGO_TARGET_DIR", target());
        let done = bash.output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{page} fails: {errors}\n{}", last_output(&outputs));
        // `None`: processes of other commands.
        let mut printed = None;
        for (number, block) in blocks.iter().enumerate() {
            match block.kind {
                Kind::Sh | Kind::Sql => printed = fs::read_to_string(output(&outputs, number)).ok(),
                Kind::Cluster => printed = None,
                Kind::Output => {
                    let Some(printed) = &printed else { continue };
                    let missing = missing(&block.text, printed);
                    assert_eq!(missing, None, "{}: was not printed; this was:\n{printed}", block.place);
                }
                Kind::Yaml | Kind::Text => (),
            }
        }
    }

    pub(crate) fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.base.id()).unwrap()), Signal::SIGINT).unwrap();
        assert!(self.base.wait().unwrap().success());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Its guards end the processes it started.
        let _ = self.base.kill();
        let _ = self.base.wait();
    }
}

/// One script for all blocks: later blocks see the variables of earlier ones.
fn shell(blocks: &[Block], outputs: &Path) -> String {
    let mut script = String::from("set -eu -o pipefail\n");
    for (number, block) in blocks.iter().enumerate() {
        let out = output(outputs, number).display().to_string();
        match block.kind {
            Kind::Sh => {
                let text = in_background(&block.text, &out);
                write!(script, "echo '{}' >&2\n{{\n{text}}} >'{out}' 2>&1\n", block.place).unwrap();
            }
            Kind::Sql => {
                let sql = outputs.join(format!("{number}.sql"));
                fs::write(&sql, &block.text).unwrap();
                let psql = "psql -X -v ON_ERROR_STOP=1 \"$(cat \"$ROWLOCK_DATABASE_URL_FILE\")\"";
                writeln!(script, "echo '{}' >&2\n{psql} -f '{}' >'{out}' 2>&1", block.place, sql.display())
                    .unwrap();
            }
            _ => (),
        }
    }
    script + "for running in $(jobs -p); do kill -INT \"$running\"; wait \"$running\"; done\n"
}

/// A command that runs until Ctrl-C continues during the page, after it has reported that it runs.
fn in_background(text: &str, out: &str) -> String {
    let mut script = String::new();
    for line in text.lines() {
        if line.contains(UNTIL_CTRL_C) {
            let tries = TIMEOUT.as_secs() * 10;
            writeln!(script, "{} </dev/null &", line.replace(UNTIL_CTRL_C, "")).unwrap();
            writeln!(
                script,
                "for try in $(seq {tries}); do grep -q '{RUNS}' '{out}' && break; sleep 0.1; done"
            )
            .unwrap();
        } else {
            writeln!(script, "{line}").unwrap();
        }
    }
    script
}

fn output(outputs: &Path, number: usize) -> PathBuf {
    outputs.join(format!("{number}.out"))
}

/// The output of the failed block, the newest one.
fn last_output(outputs: &Path) -> String {
    let files = fs::read_dir(outputs).unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<usize>().ok();
    let last = files.filter(|path| path.extension().is_some_and(|kind| kind == "out")).max_by_key(number);
    last.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default()
}

/// Copies the files of the checkout, always to the same path, so that cargo builds only what changed.
fn clone(home: &Path) -> PathBuf {
    let checkout = rowlock_tests::checkout();
    let clone = home.join("clone");
    fs::create_dir(&clone).unwrap();
    // Without git, or if it does not trust the checkout's owner: all files except build output.
    let list = "if git ls-files >/dev/null 2>&1; then git ls-files -z --cached --others --exclude-standard; \
                else find . \\( -name target -o -name .git -o -name .rowlock \\) -prune -o -type f -print0; \
                fi";
    let copy = format!("({list}) | xargs -0 ls -d 2>/dev/null | tar -c -T - | tar -x -C \"$0\"");
    let done = Command::new("bash").args(["-c", &copy]).arg(&clone).current_dir(checkout).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(clone.join("README.md").exists(), "{done:?}");
    clone
}

/// The target folder of this test.
fn target() -> PathBuf {
    Path::new(ROWLOCK).ancestors().nth(2).unwrap().to_owned()
}
