//! The permissions of a connection's user.

use crate::{Db, Result, db::query};

/// Whether the user may call the functions for instances: join, claim, settle.
pub async fn has_worker_permission(db: &Db) -> Result<bool> {
    let statement = "
select coalesce(bool_and(pg_catalog.has_function_privilege(p.oid, 'execute')), false)
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace
where n.nspname operator(pg_catalog.=) 'rowlock'
  and p.proname operator(pg_catalog.=) any (array['join', 'claim', 'settle']::name[])
  and pg_catalog.has_schema_privilege(n.oid, 'usage')";
    db.scalar(query(statement)).await
}
