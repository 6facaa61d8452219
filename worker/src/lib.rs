//! The Rowlock worker: claims tasks of one queue, calls a handler and settles the outcome.
//!
//! The program `rowlock-worker` sends tasks to an HTTP handler. As a library, the worker runs Rust functions
//! in your own process:
//!
//! ```no_run
//! use rowlock_worker::{Connect, ExitReason, Fail, Shutdown, Task, Worker};
//!
//! async fn send_email(task: Task) -> Result<(), Fail> {
//!     let address: String = task.parse()?;
//!     println!("attempt {} to write to {address}", task.attempt);
//!     Ok(())
//! }
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let connect = Connect::new("postgres://localhost/shop", "my-program", 2);
//! let stop = Shutdown::new();
//! loop {
//!     let worker = Worker::builder(connect.clone(), "emails").handler("email.send", send_email).build()?;
//!     match worker.run(stop.clone()).await? {
//!         ExitReason::Drained => return Ok(()),
//!         ExitReason::Fenced(reason) => println!("{reason}: starting a new worker"),
//!     }
//! }
//! # }
//! ```
//!
//! A worker is *fenced* if the database has not answered it until other instances were allowed to run its
//! tasks, for example in an outage. It has then stopped its attempts, and never claims again. The loop starts
//! a new worker, which waits for the database. `stop` ends the loop, because a worker that is fenced does not
//! touch it.
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
