//! The environment of this process.

use rowlock_crds::{UnknownVariable, check_variables};

/// Refuses a variable that is named like one of ours and is none: what is misspelt would be ignored, and the
/// default be in force.
///
/// # Errors
///
/// That variable, with the nearest name of ours.
pub fn check_environment() -> Result<(), UnknownVariable> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let all: Vec<(String, String)> =
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    check_variables(all.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}
