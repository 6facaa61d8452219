//! The SQL functions of this release: `sql/`, one file per verb, most with a Rust file of the same
//! name.

use sha2::{Digest, Sha256};
use sqlx::{Executor, PgConnection};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(include_str!(concat!("../sql/", $name, ".sql"))),*]
    };
}

/// In the order of application. Bodies are not checked while the files are applied, so functions may call
/// each other in any order. `roles` is last, because it revokes rights on all others.
///
/// A file replaces the functions in it and may be applied any number of times. If the arguments, their names
/// or the result of a function change, its file first drops it (`drop function if exists …` with the old
/// arguments). If instances of the previous release still call it, the old form stays next to the new one.
const FILES: &[&str] = files![
    "mutex",
    "ids",
    "partitions",
    "partition_turn",
    "enqueue_options",
    "enqueue_checks",
    "payloads",
    "enqueue",
    "enqueue_many",
    "late_commit",
    "instances",
    "watermarks",
    "allocate",
    "heartbeat",
    "claim",
    "fetch",
    "claim_with_payloads",
    "requeue",
    "outcomes",
    "suspects",
    "settle",
    "take_back",
    "release",
    "move_due",
    "watermark_sweep",
    "rescue",
    "drain_pods",
    "pod_runs",
    "backlog",
    "maintenance",
    "retention",
    "expired_partitions",
    "declare",
    "statistics",
    "scaling_decisions",
    "arrivals",
    "inspect",
    "list_tasks",
    "cancel",
    "retry",
    "delete_queue",
    "audit",
    "roles",
];

/// A function may call one that a later file creates, and tables have no partitions yet.
const UNCHECKED: &str = "set local check_function_bodies = off";

/// The SHA-256 of all files, in hex. It shows whether the functions in a database are those of this build.
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
    use crate::SCHEMA_VERSION;

    /// Each release, the version of its schema, and the digest of its functions. No release is listed yet.
    const RELEASES: &[(&str, i32, &str)] = &[];

    /// Two builds with the same version and other functions replace each other's in a database, again and
    /// again.
    #[test]
    fn other_functions_than_those_of_a_release_have_a_new_schema_version() {
        for (release, version, recorded) in RELEASES {
            assert!(
                *version < SCHEMA_VERSION || (*version == SCHEMA_VERSION && *recorded == digest()),
                "release {release} has other functions in version {version} of the schema: add a migration, \
                 which may be empty"
            );
        }
    }

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
