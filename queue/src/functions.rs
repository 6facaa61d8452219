//! The SQL functions of this release: `sql/`, one verb per file beside its Rust twin.

use sha2::{Digest, Sha256};
use sqlx::{Executor, PgConnection};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(include_str!(concat!("../sql/", $name, ".sql"))),*]
    };
}

/// In the order of application. Bodies are not checked while the files are applied, so functions may call
/// each other in any order; `roles` is last, because it takes rights of all others.
///
/// A file replaces what it holds and may be applied any number of times. A function whose arguments, their
/// names or whose result change is dropped first in its file (`drop function if exists …` with the old
/// arguments). One that instances of the release before still call keeps its old form beside the new one.
const FILES: &[&str] = files![
    "mutex",
    "ids",
    "partitions",
    "maintenance_turn",
    "options",
    "limits",
    "payloads",
    "enqueue",
    "enqueue_many",
    "at_commit",
    "instances",
    "watermarks",
    "allocate",
    "heartbeat",
    "claim",
    "fetch",
    "requeue",
    "outcomes",
    "settle",
    "release",
    "move_due",
    "watermark_sweep",
    "rescue",
    "backlog",
    "maintenance",
    "retention",
    "expired_partitions",
    "declare",
    "statistics",
    "inspect",
    "list_tasks",
    "cancel",
    "retry",
    "delete_queue",
    "audit",
    "roles",
];

/// A function may call one that a later file creates, and a table's partitions are not there yet.
const UNCHECKED: &str = "set local check_function_bodies = off";

/// The SHA-256 of all files, in hex: tells whether the functions in a database are those of this build.
pub(crate) fn digest() -> String {
    let mut hash = Sha256::new();
    for file in FILES {
        hash.update(file);
    }
    format!("{:x}", hash.finalize())
}

/// Creates or replaces every function. Call it in the transaction of a migration, which holds the lock.
pub(crate) async fn apply(tx: &mut PgConnection) -> sqlx::Result<()> {
    tx.execute(UNCHECKED).await?;
    for file in FILES {
        tx.execute(*file).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_applied() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let found: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        let applied: BTreeSet<String> = FILES.iter().map(|file| (*file).to_owned()).collect();
        assert_eq!(found, applied);
    }

    #[test]
    fn every_file_can_be_applied_again() {
        for file in FILES {
            let creates = file.lines().filter(|line| line.starts_with("create "));
            let once: Vec<&str> = creates.filter(|line| !line.starts_with("create or replace ")).collect();
            assert_eq!(once, [""; 0]);
        }
    }
}
