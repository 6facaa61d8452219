//! Handlers in Rust, in the worker's process.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::handler::api::{Done, Fail, Retry, Task};
use crate::handler::outcome::{Answer, Reason};

type Running = Pin<Box<dyn Future<Output = Result<Done, Fail>> + Send>>;
type Function = Arc<dyn Fn(Task) -> Running + Send + Sync>;

/// One function per task type.
#[derive(Clone, Default)]
pub(crate) struct InProcess {
    functions: HashMap<String, Function>,
}

impl InProcess {
    pub(crate) fn add<F, R, D>(&mut self, task_type: &str, function: F)
    where
        F: Fn(Task) -> R + Send + Sync + 'static,
        R: Future<Output = Result<D, Fail>> + Send + 'static,
        D: Into<Done>,
    {
        let boxed = move |task| -> Running {
            let running = function(task);
            Box::pin(async move { running.await.map(Into::into) })
        };
        self.functions.insert(task_type.to_owned(), Arc::new(boxed));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Runs one attempt in a separate tokio task, so that a panic ends only the attempt. Dropping this future
    /// aborts it.
    pub(crate) async fn call(&self, task: Task) -> Answer {
        let Some(function) = self.functions.get(&task.task_type).cloned() else {
            return Answer::failed(format!("no handler for type {:?} in this worker", task.task_type));
        };
        // The closure itself may panic too, so it is called inside the tokio task.
        let spawned = AbortOnDropHandle::new(tokio::spawn(async move { function(task).await }));
        match spawned.await {
            Ok(Ok(done)) => Answer::Done { result: done.result },
            Ok(Err(fail)) => match fail.retry {
                Retry::ByPolicy => Answer::failed(fail.error),
                Retry::After(delay) => {
                    Answer::Failed { error: fail.error, delay: Some(delay), reason: Reason::Error }
                }
                Retry::Never => Answer::Final { error: fail.error, reason: Reason::Error },
                Retry::Snooze(delay) => Answer::Snooze { delay },
            },
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => Answer::failed(format!("the handler panicked: {}", panic_text(&*panic))),
                Err(_) => Answer::failed("the handler's task was aborted"),
            },
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is not text")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn task(task_type: &str) -> Task {
        Task {
            id: "7".parse().unwrap(),
            task_type: task_type.into(),
            queue: "q".into(),
            payload: "{\"to\": 1}".into(),
            attempt: 1,
            max_attempts: 3,
            enqueued_at: SystemTime::UNIX_EPOCH,
            deadline: SystemTime::UNIX_EPOCH,
            fencing_token: rowlock_queue::Token(1),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
            tracestate: String::new(),
        }
    }

    async fn check<D>(answer: Result<D, Fail>, expected: Answer)
    where
        D: Into<Done> + Clone + Send + Sync + 'static,
    {
        let mut handlers = InProcess::default();
        handlers.add("email", move |_| {
            let answer = answer.clone();
            async move { answer }
        });
        assert_eq!(handlers.call(task("email")).await, expected);
    }

    #[tokio::test]
    async fn each_answer_becomes_its_outcome() {
        check(Ok(()), Answer::Done { result: None }).await;
        check(Done::with(&[1, 2]), Answer::Done { result: Some("[1,2]".into()) }).await;
        let fail: Result<(), _> = Err(Fail::snooze(Duration::from_secs(5)));
        check(fail, Answer::Snooze { delay: Duration::from_secs(5) }).await;
        let fail: Result<(), _> = Err(Fail::permanent("no such user"));
        check(fail, Answer::Final { error: "no such user".into(), reason: Reason::Error }).await;
        let fail: Result<(), _> = Err(std::io::Error::other("disk").into());
        check(fail, Answer::failed("disk")).await;
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_attempt() {
        let mut handlers = InProcess::default();
        handlers.add("email", |task: Task| async move {
            assert!(task.attempt == 0, "boom {}", task.attempt);
            Ok(())
        });
        assert_eq!(handlers.call(task("email")).await, Answer::failed("the handler panicked: boom 1"));
    }

    #[tokio::test]
    async fn an_error_names_the_task_type_without_a_handler() {
        let answer = InProcess::default().call(task("fax")).await;
        assert_eq!(answer, Answer::failed("no handler for type \"fax\" in this worker"));
    }

    #[tokio::test]
    async fn a_payload_that_does_not_parse_is_a_permanent_failure_and_is_not_quoted() {
        let fail = task("email").parse::<Vec<u8>>().unwrap_err();
        assert_eq!(fail.retry, Retry::Never);
        assert!(!fail.error.contains("to\""), "{}", fail.error);
    }
}
