//! Claims tasks, calls the handler, settles the outcome.
//!
//! In reading order: what a user touches, the way of one task, what keeps the instance alive.

mod args;
mod config_file;
mod ended;
mod logging;
mod process;
mod stop;
mod worker;

mod answer;
mod connections;
mod heard;
mod http_answer;
mod http_handler;
mod in_process;
mod task;

mod beater;
mod bodies;
mod care;
mod claimer;
mod fence;
mod gate;
mod http;
mod instance;
mod leases;
mod line;
mod metrics;
mod outage;
mod pause;
mod run;
mod settler;
mod shared;
mod starved;
mod url_file;
mod workers;

pub use args::{Args, Config};
pub use ended::{ConfigError, Ended, WorkerError};
pub use logging::{LogFormat, install as install_logging};
pub use process::run_process;
pub use rowlock_queue::{Connect, TaskId, Token};
pub use stop::Stop;
pub use task::{Done, Fail, Task};
pub use worker::{Builder, Worker};
