//! Builds the programs that rows need, before the measurements and outside the checkout.

use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::table::root;

#[derive(Debug)]
pub(crate) struct Tools {
    /// The program `rowlock-worker`.
    pub(crate) worker: PathBuf,
    pub(crate) river: PathBuf,
    pub(crate) handler: PathBuf,
    /// wrk, if it is installed. Its rows say so if not.
    pub(crate) wrk: Option<PathBuf>,
    pub(crate) wrk_script: PathBuf,
}

impl Tools {
    pub(crate) async fn build() -> Result<Self> {
        Ok(Self {
            worker: find_worker()?,
            river: build_go_program("river", "bench/peers/river").await?,
            handler: build_go_program("handler", "bench/handler").await?,
            wrk: find_on_path("wrk"),
            wrk_script: root().join("bench/handler/post.lua"),
        })
    }
}

async fn build_go_program(name: &str, folder: &str) -> Result<PathBuf> {
    let program = cache_dir().join(name);
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").current_dir(root().join(folder));
    succeeded(&mut go, "go build").await?;
    Ok(program)
}

/// The worker's executable, in the folder of this program: the Makefile builds both.
fn find_worker() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let worker = here.parent().context("this program has no folder")?.join("rowlock-worker");
    ensure!(worker.is_file(), "{} is missing: run `make bench-main`", worker.display());
    Ok(worker)
}

async fn succeeded(command: &mut Command, what: &str) -> Result<()> {
    let status: ExitStatus =
        command.kill_on_drop(true).status().await.with_context(|| format!("cannot run {what}"))?;
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}

fn cache_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("rowlock/bench")
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}
