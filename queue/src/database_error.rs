//! The text of an error of Postgres that has no variant of its own.

use sqlx::postgres::PgDatabaseError;

use crate::foreign_text::shorten;

/// The longest name of a function or a table that is shown. Names of Postgres have at most 63 bytes.
const NAME_LONGEST: usize = 150;

/// The message with its SQLSTATE and where it came from: the function that raised it, and the table or the
/// constraint if Postgres names one. The text of sqlx ends with a line number instead, which is one of
/// Postgres' own source.
pub(crate) fn describe(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(refusal) = error else { return shorten(&error.to_string()) };
    let mut places = vec![refusal.code().unwrap_or_default().into_owned()];
    if let Some(postgres) = refusal.try_downcast_ref::<PgDatabaseError>() {
        places.extend(postgres.r#where().and_then(function_of).map(|name| format!("in {name}")));
        places.extend(postgres.table().map(|table| format!("table {}", shown(table))));
        places.extend(postgres.constraint().map(|constraint| format!("constraint {}", shown(constraint))));
    }
    places.retain(|place| !place.is_empty());
    format!("{} ({})", shorten(refusal.message()), places.join(", "))
}

/// The innermost function of a context with lines like `PL/pgSQL function rowlock.cancel(bigint) line 7 at …`
/// or `SQL function "statistics" statement 1`.
fn function_of(context: &str) -> Option<String> {
    let innermost = context.lines().find_map(|line| {
        line.strip_prefix("PL/pgSQL function ").or_else(|| line.strip_prefix("SQL function "))
    })?;
    let name = innermost.split(['(', ' ']).next()?.replace('"', "");
    (!name.is_empty()).then(|| shown(&name))
}

fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(NAME_LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_function_of_a_context_is_named() {
        for (context, expected) in [
            ("PL/pgSQL function refuse() line 2 at RAISE\nSQL statement \"insert …\"", Some("refuse")),
            (
                "SQL statement \"select 1\"\nPL/pgSQL function rowlock.cancel(bigint) line 7 at PERFORM",
                Some("rowlock.cancel"),
            ),
            ("SQL function \"statistics\" statement 1", Some("statistics")),
            ("while inserting index tuple (0,1) in relation \"ready\"", None),
            ("", None),
        ] {
            assert_eq!(function_of(context).as_deref(), expected, "{context}");
        }
    }
}
