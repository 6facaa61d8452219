//! Claims tasks, calls the handler, settles the outcome.
//!
//! In reading order: what a user of the crate calls, how a handler is called, how a task is claimed and settled, and what keeps
//! the instance alive.

mod args;
mod config_file;
mod error;
mod logging;
mod process;
mod shutdown;
mod worker;

mod handler;
mod task;

mod instance;

mod admin_server;
mod backoff;
mod metrics;
mod throttled_log;

pub use args::{Args, Config};
pub use error::{ConfigError, ExitReason, WorkerError};
pub use handler::task::{Done, Fail, Task};
pub use logging::{LogFormat, install as install_logging};
pub use process::run_process;
pub use rowlock_queue::{Connect, TaskId, Token};
pub use shutdown::Shutdown;
pub use worker::{Builder, Worker};
