//! Connecting to a database: Secrets, certificates and sessions.

pub(crate) mod session;
pub(crate) mod source;
