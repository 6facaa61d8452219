//! The same operation for several tasks, of which some may fail.

use crate::failure::Failure;
use rowlock_queue::{Error, TaskId};

/// What happened to each task, in the given order. A failure of one does not stop the others. Once the
/// database cannot be used, the others are not tried.
pub(super) async fn each_task<T>(
    ids: Vec<TaskId>,
    mut operation: impl AsyncFnMut(TaskId) -> Result<T, Error>,
) -> Vec<(TaskId, Result<T, Failure>)> {
    let mut results = Vec::with_capacity(ids.len());
    let mut outage: Option<String> = None;
    for id in ids {
        let result = match &outage {
            Some(error) => Err(Failure::new(format!("not tried: {error}"))),
            None => operation(id).await.map_err(|error| {
                let ends_all = matches!(error, Error::Unreachable(_) | Error::ReadOnly(_) | Error::Timeout);
                outage = ends_all.then(|| error.to_string());
                Failure::from(error)
            }),
        };
        results.push((id, result));
    }
    results
}

/// The failure of the whole command, if an operation failed: the first one, with the number of others.
pub(super) fn first_failure<'a>(failed: impl IntoIterator<Item = (TaskId, &'a Failure)>) -> Option<Failure> {
    let mut failed = failed.into_iter();
    let (id, first) = failed.next()?;
    let others = match failed.count() {
        0 => String::new(),
        1 => " (and another task failed)".to_owned(),
        others => format!(" (and {others} others failed)"),
    };
    Some(Failure {
        code: first.code,
        message: format!("task {id}: {}{others}", first.message),
        hint: first.hint.clone(),
    })
}
