//! Builds a worker.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rowlock_queue::Connect;

use crate::args::{Config, DEFAULT_DRAIN_GRACE, DEFAULT_SLOTS, MAX_SLOTS, default_name, parse_handler_url};
use crate::error::ConfigError;
use crate::handler::Handler;
use crate::handler::api::{Done, Fail, Task};
use crate::handler::http::HttpHandler;
use crate::handler::in_process::InProcess;
use crate::instance::url_file::ConnectFiles;
use crate::traces::parse_endpoint;

/// Connections of an instance: one for heartbeats and NOTIFY, one for all other statements.
const CONNECTIONS: u32 = 2;

/// A worker of one queue, which [`Worker::run`] runs. While it runs, the database knows it as an instance.
pub struct Worker {
    pub(crate) connect: Connect,
    /// The files that `connect` came from. The worker follows their changes.
    pub(crate) files: ConnectFiles,
    pub(crate) queue: Arc<str>,
    pub(crate) name: String,
    pub(crate) pod_uid: Option<String>,
    pub(crate) slots: u32,
    pub(crate) handler: Handler,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) drain_grace: Duration,
    pub(crate) otlp_endpoint: Option<Uri>,
    pub(crate) poll_only: bool,
}

/// Builds a [`Worker`].
pub struct Builder {
    connect: Connect,
    queue: String,
    name: String,
    slots: u32,
    in_process: InProcess,
    http: Option<Uri>,
    listen: Option<SocketAddr>,
    drain_grace: Duration,
    otlp_endpoint: Option<Uri>,
    poll_only: bool,
}

impl Worker {
    /// Starts to build a worker for `queue`.
    ///
    /// With `connect.max_connections` of 2 or more, one connection is for heartbeats and NOTIFY. With 1,
    /// heartbeats share the only connection, and the worker polls.
    #[must_use]
    pub fn builder(connect: Connect, queue: &str) -> Builder {
        Builder {
            connect,
            queue: queue.to_owned(),
            name: default_name(),
            slots: DEFAULT_SLOTS,
            in_process: InProcess::default(),
            http: None,
            listen: None,
            drain_grace: DEFAULT_DRAIN_GRACE,
            otlp_endpoint: None,
            poll_only: false,
        }
    }

    /// The worker of the program `rowlock-worker`: with an HTTP handler, and a port for probes and
    /// Prometheus.
    #[must_use]
    pub fn from_config(config: Config) -> Self {
        let Config {
            database_url,
            database_url_file,
            database_ca,
            database_ca_file,
            queue,
            name,
            pod_uid,
            slots,
            handler_url,
            listen,
            drain_grace,
            log_format: _,
            otlp_endpoint,
            poll_only,
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
            pod_uid,
            slots,
            handler: Handler::Http(Box::new(HttpHandler::new(handler_url, slots))),
            listen: Some(listen),
            drain_grace,
            otlp_endpoint,
            poll_only,
        }
    }
}

impl Builder {
    /// Runs tasks of type `task_type` with `function`, in this process.
    ///
    /// A panic fails the attempt. The future is dropped when the attempt times out, is cancelled or loses its
    /// lease.
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

    /// Sends tasks to an HTTP handler instead of functions. Fails when `url` is not a plain `http://` URL.
    pub fn http_handler(mut self, url: &str) -> Result<Self, ConfigError> {
        self.http = Some(parse_handler_url(url)?);
        Ok(self)
    }

    /// How many tasks run at a time: 1 to 10,000, by default 10.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Name of the instance in the database and in logs, by default the host's name and the process id.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` on this address. By default they are not served.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// How long running tasks may take to finish once the worker is asked to stop, by default 25 s.
    #[must_use]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain_grace = grace;
        self
    }

    /// Exports a span of each attempt to the collector at `url`, by OTLP over HTTP. By default nothing is
    /// exported. Fails when `url` is not a plain `http://` URL.
    pub fn otlp_endpoint(mut self, url: &str) -> Result<Self, ConfigError> {
        self.otlp_endpoint = Some(parse_endpoint(url)?);
        Ok(self)
    }

    /// Whether the worker only polls for tasks, once a second, and does not listen for NOTIFY. By default it
    /// listens.
    #[must_use]
    pub fn poll_only(mut self, poll_only: bool) -> Self {
        self.poll_only = poll_only;
        self
    }

    /// Fails without a handler, with both an HTTP handler and functions, or with a wrong number of slots.
    pub fn build(self) -> Result<Worker, ConfigError> {
        let Self {
            connect,
            queue,
            name,
            slots,
            in_process,
            http,
            listen,
            drain_grace,
            otlp_endpoint,
            poll_only,
        } = self;
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(ConfigError(format!("slots({slots}): choose 1 to {MAX_SLOTS}")));
        }
        // NOTIFY arrives only on the heartbeat's separate connection.
        let poll_only = poll_only || connect.max_connections < 2;
        let handler = match (http, in_process.is_empty()) {
            (Some(url), true) => Handler::Http(Box::new(HttpHandler::new(url, slots))),
            (None, false) => Handler::InProcess(in_process),
            (None, true) => {
                return Err(ConfigError(
                    "a worker needs a handler: call handler() or http_handler()".to_owned(),
                ));
            }
            (Some(_), false) => {
                return Err(ConfigError("call handler() or http_handler() on a worker, not both".to_owned()));
            }
        };
        Ok(Worker {
            connect,
            files: ConnectFiles::default(),
            queue: queue.into(),
            name,
            pod_uid: None,
            slots,
            handler,
            listen,
            drain_grace,
            otlp_endpoint,
            poll_only,
        })
    }
}

impl std::fmt::Debug for Worker {
    /// Leaves out the connection, whose URL contains a password.
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
    fn a_number_of_slots_that_the_database_refuses_is_refused_by_build() {
        for slots in [0, 10_001] {
            let error = builder(2).slots(slots).build().unwrap_err();
            assert!(error.to_string().contains("choose 1 to 10000"), "{error}");
        }
        assert!(builder(2).slots(10_000).build().is_ok());
    }

    #[test]
    fn a_worker_with_one_connection_only_polls() {
        assert!(builder(1).build().unwrap().poll_only);
        assert!(!builder(2).build().unwrap().poll_only);
        assert!(builder(2).poll_only(true).build().unwrap().poll_only);
    }
}
