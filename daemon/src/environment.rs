//! Checks the environment of this process.

use rowlock_crds::{UnknownVariable, check_variables};

/// Refuses an unknown variable that starts with `ROWLOCK_`: a misspelt one would otherwise be ignored.
///
/// # Errors
///
/// Names the variable and the known one with the most similar name.
pub fn check_environment() -> Result<(), UnknownVariable> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let all: Vec<(String, String)> =
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    check_variables(all.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}
