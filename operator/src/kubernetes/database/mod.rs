//! How a controller gets to its database: Secrets, certificates and connections.

pub(crate) mod session;
pub(crate) mod source;
