//! Code shared by the long-running programs: worker, operator and `rowlock dev`.
//!
//! * [`bind`], [`serve`]: the HTTP port with `/healthz`, `/readyz` and `/metrics`, with limits per client;
//! * [`Signals`]: the signals that ask a program to end;
//! * [`check_environment`]: refuses misspelt environment variables;
//! * [`LogLines`], [`log_filter`]: writes log lines; which ones by default;
//! * [`parse_collector_url`], [`check_sampler`]: the URL of a collector of traces, and which are sampled;
//! * [`raise_open_files`], [`file_limit_advice`]: the limit of open files;
//! * [`program_metrics`]: metrics of the build and of the process.

#![warn(missing_docs)]

mod collector_url;
mod environment;
mod log;
mod open_files;
mod program_metrics;
mod server;
mod signals;

pub use collector_url::{check_sampler, parse_collector_url};
pub use environment::check_environment;
pub use log::{LogLines, log_filter};
pub use open_files::{file_limit_advice, raise_open_files};
pub use program_metrics::program_metrics;
pub use server::{bind, serve};
pub use signals::Signals;
