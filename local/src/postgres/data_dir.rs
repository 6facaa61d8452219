//! A server's files (data directory, password and log), and the user who owns them.

use super::{ServerConfig, USER};
use crate::error::{Context, Error};
use crate::process::{Launch, Process, Stop, end_recorded};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where root keeps data if the server's user cannot enter the configured folder, for example below `/root`.
const REACHABLE: &str = "/var/lib/rowlock";

/// Only the owner may enter a data directory; PostgreSQL refuses to start otherwise.
const PRIVATE: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const EVERYBODY_ENTERS: u32 = 0o001;
const OPEN_FOLDER: u32 = 0o755;

/// Random bytes in a password.
const PASSWORD_BYTES: usize = 16;

/// How long a signal may take to stop an unfinished `initdb`.
const INITDB_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(super) struct DataDir {
    pub(super) cluster: PathBuf,
    pub(super) log: PathBuf,
    pub(super) records: PathBuf,
    pub(super) password: String,
    pub(super) user: Option<(u32, u32)>,
}

/// Ends processes that an earlier run left behind, and creates the data directory if there is none.
pub(super) async fn ensure(config: &ServerConfig, bin: &Path) -> Result<DataDir, Error> {
    let user = server_user()?;
    let folder = place(config, user)?;
    let records = folder.join("processes");
    end_recorded(&records)?;
    let major = config.version.split('.').next().unwrap_or_default();
    let cluster = folder.join(format!("postgres-{major}"));
    let log = folder.join(format!("postgres-{major}.log"));
    let password_file = folder.join("password");
    let password = ensure_password(&password_file, user)?;
    let data_dir = DataDir { cluster, log, records, password, user };
    if !data_dir.cluster.join("PG_VERSION").exists() {
        create(config, bin, &data_dir, &password_file).await?;
    }
    Ok(data_dir)
}

/// The server's environment. It does not inherit ours, which may name another server.
pub(super) fn environment() -> Vec<(OsString, OsString)> {
    vec![("PATH".into(), "/usr/bin:/bin".into()), ("LC_ALL".into(), "C".into()), ("TZ".into(), "UTC".into())]
}

/// The user and group to run the server as. PostgreSQL refuses to run as root: it then runs as `postgres`,
/// or as `nobody` if there is no such user.
fn server_user() -> Result<Option<(u32, u32)>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some((user.uid.as_raw(), user.gid.as_raw())));
        }
    }
    Err(Error::NoUser)
}

fn place(config: &ServerConfig, user: Option<(u32, u32)>) -> Result<PathBuf, Error> {
    let wanted = &config.data_dir;
    fs::create_dir_all(wanted).with_context(|| format!("cannot create {}", wanted.display()))?;
    let wanted = fs::canonicalize(wanted)?;
    if user.is_none() {
        fs::set_permissions(&wanted, fs::Permissions::from_mode(PRIVATE))?;
        return Ok(wanted);
    }
    fs::set_permissions(&wanted, fs::Permissions::from_mode(OPEN_FOLDER))?;
    if wanted.ancestors().all(everybody_enters) {
        return Ok(wanted);
    }
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    let reachable = Path::new(REACHABLE).join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(&reachable).with_context(|| format!("cannot create {}", reachable.display()))?;
    for folder in [Path::new(REACHABLE), &reachable] {
        fs::set_permissions(folder, fs::Permissions::from_mode(OPEN_FOLDER))?;
    }
    tracing::info!(
        folder = %reachable.display(),
        "the server's user cannot enter the data folder; its data is here"
    );
    Ok(reachable)
}

fn everybody_enters(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & EVERYBODY_ENTERS != 0)
}

fn ensure_password(path: &Path, user: Option<(u32, u32)>) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(password) if !password.is_empty() => return Ok(password),
        Ok(_) => (),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let mut bytes = [0; PASSWORD_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let password = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let fresh = path.with_extension("new");
    fs::write(&fresh, "")?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(PRIVATE_FILE))?;
    fs::write(&fresh, &password)?;
    give(&fresh, user)?;
    fs::rename(&fresh, path)?;
    Ok(password)
}

async fn create(
    config: &ServerConfig,
    bin: &Path,
    data_dir: &DataDir,
    password_file: &Path,
) -> Result<(), Error> {
    // Created under another name and renamed when complete, so that a killed `initdb` leaves no half data
    // directory.
    let fresh = data_dir.cluster.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(PRIVATE))?;
    give(&fresh, data_dir.user)?;
    let mut args: Vec<OsString> = vec!["-D".into(), fresh.clone().into(), "-U".into(), USER.into()];
    args.extend(
        ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"].map(OsString::from),
    );
    args.extend(["--pwfile".into(), password_file.into()]);
    let launch = Launch {
        program: bin.join("initdb"),
        args,
        env: environment(),
        without: Vec::new(),
        inherit_env: false,
        folder: Some(fresh.clone()),
        user: data_dir.user,
        log: Some(data_dir.log.clone()),
        stop: Stop { signals: vec![Signal::SIGTERM], patience: INITDB_PATIENCE, linger: Duration::ZERO },
        guard: config.guard.clone(),
        records: config.guard.as_ref().map(|_| data_dir.records.clone()),
    };
    let mut initdb = Process::start(&launch).with_context(|| "cannot start initdb".to_owned())?;
    let status = initdb.finished().await?;
    if !status.success() {
        return Err(Error::Initdb { status, log: data_dir.log.clone() });
    }
    fs::rename(&fresh, &data_dir.cluster)?;
    Ok(())
}

fn give(path: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
    if let Some((uid, gid)) = user {
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}
