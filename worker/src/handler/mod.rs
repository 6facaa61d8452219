//! Runs the tasks: by an HTTP server in the same pod, or by functions in the worker's process.

pub(crate) mod api;
pub(crate) mod end_watch;
pub(crate) mod http;
pub(crate) mod in_process;
pub(crate) mod outcome;
pub(crate) mod readiness_probe;

use rowlock_crds::Policy;

use self::api::Task;
use self::http::HttpHandler;
use self::in_process::InProcess;
use self::outcome::Answer;

/// The handler of the tasks.
#[derive(Clone)]
pub(crate) enum Handler {
    Http(Box<HttpHandler>),
    InProcess(InProcess),
}

impl Handler {
    /// Host and port where it listens; `None`: it runs in this process.
    pub(crate) fn address(&self) -> Option<(String, u16)> {
        match self {
            Self::Http(handler) => Some(handler.address()),
            Self::InProcess(_) => None,
        }
    }

    pub(crate) async fn call(&self, task: Task, policy: &Policy) -> Answer {
        match self {
            // Boxed, so that attempts of in-process handlers do not carry the size of hyper's state.
            Self::Http(handler) => Box::pin(handler.call(task, &policy.retry)).await,
            Self::InProcess(handlers) => handlers.call(task).await,
        }
    }
}
