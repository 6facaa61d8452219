//! The library's front: build a worker, run it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rowlock_queue::Connect;

use crate::args::{Config, SLOTS_MAX, default_name, parse_handler_url};
use crate::error::ConfigError;
use crate::handler::Handler;
use crate::handler::http::HttpHandler;
use crate::handler::in_process::InProcess;
use crate::handler::task::{Done, Fail, Task};
use crate::instance::url_file::ConnectFiles;

const SLOTS: u32 = 10;
const DRAIN_GRACE: Duration = Duration::from_secs(25);

/// All connections of an instance: one for the heartbeat and NOTIFY, one for all else.
const CONNECTIONS: u32 = 2;

/// One instance of a queue's workers.
pub struct Worker {
    pub(crate) connect: Connect,
    /// What is written there later is followed.
    pub(crate) files: ConnectFiles,
    pub(crate) queue: Arc<str>,
    pub(crate) name: String,
    pub(crate) slots: u32,
    pub(crate) handler: Handler,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) drain_grace: Duration,
    pub(crate) notify: bool,
}

/// Collects what a [`Worker`] needs.
pub struct Builder {
    connect: Connect,
    queue: String,
    name: String,
    slots: u32,
    in_process: InProcess,
    http: Option<Uri>,
    listen: Option<SocketAddr>,
    drain_grace: Duration,
    notify: bool,
}

impl Worker {
    /// A worker for `queue`. Of `connect.max_connections` heartbeat and NOTIFY take one, if there are two; with less the queue is polled.
    #[must_use]
    pub fn builder(connect: Connect, queue: &str) -> Builder {
        Builder {
            connect,
            queue: queue.to_owned(),
            name: default_name(),
            slots: SLOTS,
            in_process: InProcess::default(),
            http: None,
            listen: None,
            drain_grace: DRAIN_GRACE,
            notify: true,
        }
    }

    /// What the binary runs: an HTTP handler and the pages for probes and Prometheus.
    #[must_use]
    pub fn from_config(config: Config) -> Self {
        let Config {
            database_url,
            database_url_file,
            database_ca,
            database_ca_file,
            queue,
            name,
            slots,
            handler_url,
            listen,
            drain_grace,
            log_format: _,
            notify,
        } = config;
        let connect = Connect {
            ca_pem: database_ca,
            ..Connect::new(database_url, format!("rowlock-worker {name}"), CONNECTIONS)
        };
        Self {
            connect,
            files: ConnectFiles { url: database_url_file, ca: database_ca_file },
            queue: queue.into(),
            name,
            slots,
            handler: Handler::Http(Box::new(HttpHandler::new(handler_url, slots))),
            listen: Some(listen),
            drain_grace,
            notify,
        }
    }
}

impl Builder {
    /// The function that does tasks of type `task_type`.
    ///
    /// A panic in it is a failed attempt. It is dropped at an await when its time is over.
    #[must_use]
    pub fn handler<F, R, D>(mut self, task_type: &str, function: F) -> Self
    where
        F: Fn(Task) -> R + Send + Sync + 'static,
        R: Future<Output = Result<D, Fail>> + Send + 'static,
        D: Into<Done>,
    {
        self.in_process.add(task_type, function);
        self
    }

    /// A handler behind HTTP, in place of functions.
    pub fn http_handler(mut self, url: &str) -> Result<Self, ConfigError> {
        self.http = Some(parse_handler_url(url)?);
        Ok(self)
    }

    /// How many slots, which is how many tasks run at a time: 1 to 10,000, 10 by default.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The instance's name in the database and in logs.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` there.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// How long running tasks may take to finish once the worker is asked to stop; 25 s by default.
    #[must_use]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain_grace = grace;
        self
    }

    /// Whether to listen for NOTIFY; without it the queue is polled.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Fails when there is no handler, both forms of it, or a number of slots that no queue takes.
    pub fn build(self) -> Result<Worker, ConfigError> {
        let Self { connect, queue, name, slots, in_process, http, listen, drain_grace, notify } = self;
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(ConfigError(format!("slots({slots}): choose 1 to {SLOTS_MAX}")));
        }
        // NOTIFY arrives on the heartbeat's own connection or not at all: then the queue is polled.
        let notify = notify && 2 <= connect.max_connections;
        let handler = match (http, in_process.is_empty()) {
            (Some(url), true) => Handler::Http(Box::new(HttpHandler::new(url, slots))),
            (None, false) => Handler::InProcess(in_process),
            (None, true) => return Err(ConfigError("a worker needs a handler".to_owned())),
            (Some(_), false) => {
                return Err(ConfigError("a worker has an HTTP handler or functions, not both".to_owned()));
            }
        };
        Ok(Worker {
            connect,
            files: ConnectFiles::default(),
            queue: queue.into(),
            name,
            slots,
            handler,
            listen,
            drain_grace,
            notify,
        })
    }
}

impl std::fmt::Debug for Worker {
    /// Without the connection: its URL carries a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("queue", &self.queue).field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("queue", &self.queue)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(max_connections: u32) -> Builder {
        let connect = Connect::new("postgres://u@h/d", "test", max_connections);
        Worker::builder(connect, "emails").handler("email", async |_| Ok(()))
    }

    #[test]
    fn a_number_of_slots_that_no_queue_takes_is_refused_at_once() {
        for slots in [0, 10_001] {
            let error = builder(2).slots(slots).build().unwrap_err();
            assert!(error.to_string().contains("choose 1 to 10000"), "{error}");
        }
        assert!(builder(2).slots(10_000).build().is_ok());
    }

    #[test]
    fn listening_takes_no_connection_that_was_not_allowed() {
        assert!(!builder(1).build().unwrap().notify);
        assert!(builder(2).build().unwrap().notify);
    }
}
