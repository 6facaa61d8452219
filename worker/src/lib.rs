//! The Rowlock worker: claims tasks of one queue, calls a handler and settles the outcome.
//!
//! The program `rowlock-worker` sends tasks to an HTTP handler. As a library, the worker runs Rust functions
//! in your own process:
//!
//! ```no_run
//! use rowlock_worker::{Connect, Fail, Shutdown, Task, Worker};
//!
//! async fn send_email(task: Task) -> Result<(), Fail> {
//!     let address: String = task.parse()?;
//!     println!("attempt {} to write to {address}", task.attempt);
//!     Ok(())
//! }
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let connect = Connect::new("postgres://localhost/shop", "my-program", 2);
//! let worker = Worker::builder(connect, "emails").handler("email.send", send_email).build()?;
//! worker.run(Shutdown::new()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `worker/examples/in_process.rs` is a complete program that also stops on signals.
//!
//! Modules in reading order: the API of the crate; how a handler is called; how a task is claimed and
//! settled; how the instance stays alive.

#![warn(missing_docs)]

mod args;
mod error;
mod logging;
mod process;
mod settings;
mod shutdown;
mod worker;

mod handler;
mod task;

mod instance;

mod admin_server;
mod backoff;
mod metrics;
mod throttled_log;
mod traces;

pub use args::{Args, Config};
pub use error::{ConfigError, ExitReason, WorkerError};
pub use handler::api::{Done, Fail, Task};
pub use logging::{LogFormat, install as install_logging};
pub use process::run_process;
pub use rowlock_queue::{Connect, TaskId, Token};
pub use shutdown::Shutdown;
pub use worker::{Builder, Worker};
