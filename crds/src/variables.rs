//! Finds misspelt environment variables, which would otherwise be ignored.

use crate::env;
use crate::field_error::distance;

/// The prefix of all our variables.
const PREFIX: &str = "ROWLOCK_";

/// Prefixes of variables for tests and benchmarks. The programs under test inherit them.
const TESTS: [&str; 5] =
    ["ROWLOCK_TEST_", "ROWLOCK_CHAOS_", "ROWLOCK_BENCH_", "ROWLOCK_WRITE_", "ROWLOCK_UPDATE"];

/// A variable with our prefix that is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is unknown to Rowlock; {hint}")]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// What to change.
    pub hint: String,
}

/// Checks an environment, given as names and values, for unknown variables with our prefix.
///
/// Kubernetes gives every container variables about the Services of its namespace. Those of a Service whose
/// name begins with `rowlock` are allowed: `ROWLOCK_…_SERVICE_HOST`, `ROWLOCK_…_SERVICE_PORT`,
/// `ROWLOCK_…_PORT_80_TCP_ADDR` and so on.
///
/// # Errors
///
/// The first unknown variable, with the nearest known name.
pub fn check_variables<'a>(
    environment: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), UnknownVariable> {
    let unknown = environment.into_iter().find(|(name, value)| {
        name.starts_with(PREFIX)
            && !env::ALL.contains(name)
            && !TESTS.iter().any(|prefix| name.starts_with(prefix))
            && !is_service_link(name, value)
    });
    let Some((name, _)) = unknown else { return Ok(()) };
    let nearest = env::ALL.iter().map(|known| (distance(name, known), *known)).min();
    let hint = match nearest {
        // All names have the prefix, so it must not count when names are compared.
        Some((apart, known)) if apart <= 1 + (known.len() - PREFIX.len()) / 4 => {
            format!("did you mean {known}?")
        }
        _ => format!("unset it; known variables are {}", env::ALL.join(", ")),
    };
    Err(UnknownVariable { name: name.to_owned(), hint })
}

/// The variables of Kubernetes' service links, which have the form of Docker's older links.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || ends_with_port(name)
        // `…_PORT_80_TCP_PORT` ends with the same word again.
        || name.strip_suffix("_PORT").is_some_and(ends_with_port)
}

fn ends_with_port(name: &str) -> bool {
    name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port(rest))
}

/// `80_TCP`, `80_TCP_PROTO`, `80_TCP_ADDR`.
fn is_port(text: &str) -> bool {
    let mut words = text.split('_');
    words.next().is_some_and(|port| port.parse::<u16>().is_ok())
        && words.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
        && words.next().is_none_or(|what| ["PROTO", "PORT", "ADDR"].contains(&what))
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str, expected: Option<&str>) {
        let message = check_variables([("PATH", "/bin"), (name, value)]).err().map(|error| error.to_string());
        match (message, expected) {
            (None, None) => (),
            (Some(message), Some(expected)) if message.contains(name) && message.contains(expected) => (),
            (message, _) => panic!("{name}={value}: {message:?}"),
        }
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest_name() {
        check("ROWLOCK_SLTOS", "4", Some("did you mean ROWLOCK_SLOTS?"));
        check("ROWLOCK_DATABASE_URI", "postgres://h/d", Some("did you mean ROWLOCK_DATABASE_URL?"));
        check("ROWLOCK_PASSWORD_OF_SOMETHING_ELSE", "x", Some("known variables are ROWLOCK_DATABASE_URL, "));
        check("ROWLOCK_PORT", "9464", Some("unset it"));
        check("ROWLOCK_SLOTS", "4", None);
        check("ROWLOCK_LEASE", "x", None);
        check("rowlock_workers", "4", None);
        check("ROWLOCKS", "4", None);
    }

    #[test]
    fn variables_of_service_links_are_allowed() {
        for (name, value) in [
            ("ROWLOCK_SERVICE_HOST", "10.0.0.1"),
            ("ROWLOCK_OPERATOR_SERVICE_PORT", "9464"),
            ("ROWLOCK_OPERATOR_SERVICE_PORT_METRICS", "9464"),
            ("ROWLOCK_PORT", "tcp://10.0.0.1:80"),
            ("ROWLOCK_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("ROWLOCK_PORT_80_TCP_PROTO", "tcp"),
            ("ROWLOCK_PORT_80_TCP_PORT", "80"),
            ("ROWLOCK_DB_PORT_5432_TCP_ADDR", "10.0.0.1"),
            ("ROWLOCK_DNS_PORT_53_UDP", "udp://10.0.0.1:53"),
        ] {
            check(name, value, None);
        }
    }
}
