//! Builds the programs that rows need, before the measurements and outside the checkout.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::table::root;

#[derive(Debug)]
pub(crate) struct Tools {
    /// The program `rowlock-worker`.
    pub(crate) worker: PathBuf,
    pub(crate) river: PathBuf,
    /// The peers that run on Node, if npm is installed. Their rows say so if not.
    pub(crate) node: Option<NodePeers>,
    pub(crate) handler: PathBuf,
    /// wrk, if it is installed. Its rows say so if not.
    pub(crate) wrk: Option<PathBuf>,
    pub(crate) wrk_script: PathBuf,
}

/// The programs in `bench/peers/node` with their packages, one of which is Node itself.
#[derive(Debug)]
pub(crate) struct NodePeers {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Tools {
    pub(crate) async fn build() -> Result<Self> {
        Ok(Self {
            worker: find_worker()?,
            river: build_go_program("river", "bench/peers/river").await?,
            node: install_node_peers().await?,
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

/// Copies the programs to the cache, and installs exactly the packages of their lock file.
async fn install_node_peers() -> Result<Option<NodePeers>> {
    let Some(npm) = find_on_path("npm") else { return Ok(None) };
    let (source, folder) = (root().join("bench/peers/node"), cache_dir().join("node"));
    fs::create_dir_all(&folder)?;
    for file in fs::read_dir(source)? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
    }
    let mut install = Command::new(npm);
    install.args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(&folder);
    succeeded(install.stdout(Stdio::null()), "npm ci").await?;
    Ok(Some(NodePeers { program: folder.join("node_modules/.bin/node"), folder }))
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
