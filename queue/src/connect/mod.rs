//! How connections are made. A URL is parsed by a list of known parameters, TLS follows our own rules, and a
//! proxy runs between sqlx and the server.
//!
//! sqlx sends a password in clear to any server that asks for it, trusts the lengths of messages, and checks
//! certificates where `sslmode` says that it must not. So sqlx never sees the network: it talks to a proxy in
//! this process, which talks to the server. This detour is needed because sqlx 0.9 opens connections by
//! itself and accepts no socket that is already connected.
//!
//! In reading order: `options` (what a caller provides: [`Connect`]), `uri`, `params` and `values` (its URL,
//! checked), `target` (what the URL means), `dial` and `tls` (reaching the server), `startup` (the start of a
//! session), `proxy`, `forwarder`, `message_filter`, `notification_filter` and `answer_permits` (everything
//! after the start), `panic_guard` (around sqlx), and `session` (all of it together).

mod answer_permits;
mod dial;
mod dial_error;
mod fault;
mod forwarder;
mod message_filter;
mod notification_filter;
mod options;
mod panic_guard;
mod params;
mod proxy;
mod scram;
mod server_status;
mod session;
mod startup;
mod target;
mod tls;
mod uri;
mod values;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use options::{Access, Connect, UrlTrust};

pub(crate) use panic_guard::{Answer, catch_panic};
pub(crate) use session::{Connector, Session, SessionMode};
