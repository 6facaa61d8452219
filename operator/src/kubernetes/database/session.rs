//! Opens the session with a database and prepares its schema.

use rowlock_crds::ConditionReason;
use rowlock_queue::{Connect, Db, Error, Identity};

use crate::kubernetes::config::Config;
use crate::kubernetes::problem::Problem;
use crate::kubernetes::sanitize::sanitize;

/// Connections of a session: one for statistics, one for administration and maintenance.
pub(crate) const CONNECTIONS: u32 = 2;

/// The `application_name` of the operator's sessions.
pub(crate) const NAME: &str = "rowlock-operator";

/// The longest identity: the name of a database, an `@` and a number.
const LONGEST_IDENTITY: usize = 100;

/// How to grant missing rights. The name of the binding is not one of the chart's, so that the chart can
/// create its own later.
pub(crate) fn forbidden(namespace: &str, detail: &str, config: &Config) -> Problem {
    let Config { cluster_role, service_account, lease_namespace, .. } = config;
    // An operator for one namespace has a Role there instead of a ClusterRole.
    let kind = if config.only_namespace().is_some() { "role" } else { "clusterrole" };
    let detail = sanitize(detail);
    let message = format!(
        "the operator has no rights in the namespace `{namespace}`: run `kubectl create rolebinding \
         {cluster_role}-by-hand -n {namespace} --{kind}={cluster_role} \
         --serviceaccount={lease_namespace}:{service_account}` ({detail})"
    );
    Problem::new(ConditionReason::Forbidden, message)
}

/// Connects, and creates or migrates the schema.
pub(crate) async fn open(connect: &Connect) -> Result<Db, Problem> {
    let db = Db::connect(connect).await.map_err(|error| Problem::from(&error))?;
    if let Err(problem) = migrate(&db).await {
        db.close().await;
        return Err(problem);
    }
    Ok(db)
}

/// Creates or migrates the schema, if it is not that of this release.
pub(crate) async fn prepare(db: &Db) -> Result<(), Problem> {
    match db.check_schema().await {
        Err(Error::SchemaMissing | Error::SchemaOlder { .. }) => migrate(db).await,
        other => other.map_err(|error| Problem::from(&error)),
    }
}

async fn migrate(db: &Db) -> Result<(), Problem> {
    let Err(error) = db.migrate().await else { return Ok(()) };
    let found = Problem::from(&error);
    if found.may_pass() || found.is_in_schema() {
        return Err(found);
    }
    let detail = sanitize(&error.to_string());
    let message =
        format!("the tables cannot be created: {detail}; make the user of the URL the owner of the database");
    Err(Problem::new(ConditionReason::MigrationFailed, message))
}

/// Which database it is.
pub(crate) async fn identity(db: &Db) -> Result<Identity, Problem> {
    let Identity { database, started_at } =
        rowlock_queue::identity(db).await.map_err(|error| Problem::from(&error))?;
    // It becomes part of the status, so its length is bounded.
    Ok(Identity { database: database.map(|name| name.chars().take(LONGEST_IDENTITY).collect()), started_at })
}

/// Checks that the pods' login leads to the same database and has the rights of a worker.
pub(crate) async fn check_worker(connect: &Connect, expected: Option<&str>) -> Result<(), Problem> {
    let db = Db::connect(connect).await.map_err(|error| Problem::from(&error))?;
    let checked = check_worker_at(&db, expected).await;
    db.close().await;
    checked
}

async fn check_worker_at(db: &Db, expected: Option<&str>) -> Result<(), Problem> {
    if let (Some(found), Some(expected)) = (identity(db).await?.database, expected)
        && found != expected
    {
        let message = format!(
            "it leads to the database {found}, but secretRef leads to {expected}: both must lead to the same \
             database"
        );
        return Err(Problem::new(ConditionReason::SecretInvalid, sanitize(&message)));
    }
    match rowlock_queue::has_worker_permission(db).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = "its user lacks the rights of a worker: as the owner of the database, run \
                           `select rowlock.grant_role('USER', 'worker')`";
            Err(Problem::new(ConditionReason::AccessDenied, message))
        }
        Err(error) => Err(Problem::from(&error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_command_for_missing_rights_names_the_role_that_exists() {
        let detail = |more: &[&str]| {
            let args = [&["rowlock-operator", "--worker-image", "w", "--cluster-role", "r"] as &[&str], more];
            forbidden("shop", "no `sh`", &Config::parse_from(args.concat())).message
        };
        assert!(
            detail(&[]).contains("create rolebinding r-by-hand -n shop --clusterrole=r "),
            "{}",
            detail(&[])
        );
        let alone = detail(&["--namespace", "shop"]);
        assert!(alone.contains("-n shop --role=r ") && alone.ends_with("(no 'sh')"), "{alone}");
    }
}
