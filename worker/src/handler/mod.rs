//! What runs the tasks: an HTTP server beside the worker, or functions in the worker's process.

pub(crate) mod answer;
pub(crate) mod http;
pub(crate) mod in_process;
pub(crate) mod readiness_probe;
pub(crate) mod task;

use rowlock_crds::Policy;

use self::answer::Answer;
use self::http::HttpHandler;
use self::in_process::InProcess;
use self::task::Task;

/// What runs the tasks.
#[derive(Clone)]
pub(crate) enum Handler {
    Http(Box<HttpHandler>),
    InProcess(InProcess),
}

impl Handler {
    pub(crate) async fn call(&self, task: Task, policy: &Policy) -> Answer {
        match self {
            // Boxed, so that attempts of in-process handlers do not carry the size of hyper's state.
            Self::Http(handler) => Box::pin(handler.call(task, &policy.retry)).await,
            Self::InProcess(handlers) => handlers.call(task).await,
        }
    }
}
