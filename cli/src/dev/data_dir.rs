//! The data folder of `rowlock dev`, locked against a second `rowlock dev`.

use crate::failure::Failure;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The default folder, beside the manifests.
const DATA_DIR: &str = ".rowlock";

/// The connection string contains a password, so only its owner may read the file.
const PRIVATE_FILE: u32 = 0o600;

pub(super) struct DataDir {
    path: PathBuf,
    temporary: bool,
    /// Locked while this process runs; the system unlocks it however the process ends.
    _lock: File,
}

impl DataDir {
    pub(super) fn open(data_dir: Option<PathBuf>, manifests: &Path) -> Result<Self, Failure> {
        let path = data_dir.unwrap_or_else(|| {
            let folder = if manifests.is_dir() { Some(manifests) } else { manifests.parent() };
            folder.unwrap_or(Path::new("")).join(DATA_DIR)
        });
        Self::lock(&path, false)
    }

    pub(super) fn temporary() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("rowlock-demo-{}", std::process::id()));
        Self::lock(&path, true)
    }

    fn lock(path: &Path, temporary: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("--data-dir {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            let message = format!("another `rowlock dev` runs in {}", path.display());
            return Err(Failure::new(message).hint("stop it, or choose another --data-dir"));
        }
        Ok(Self { path, temporary, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the connection string to a file for `psql` and `rowlock`, so that no terminal shows the
    /// password.
    pub(super) fn write_url(&self, url: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join("database-url");
        let mut file =
            File::options().create(true).write(true).truncate(true).mode(PRIVATE_FILE).open(&path)?;
        file.write_all(url.as_bytes())?;
        Ok(path)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "cannot remove the demo's data folder");
        }
    }
}
