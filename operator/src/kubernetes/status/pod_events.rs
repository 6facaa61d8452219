//! Reads the events of a failing pod, from the kubelet and other controllers.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::kubernetes::api::writer::bounded;
use crate::kubernetes::pods::health::PodRef;

/// How many events are read. A waiting pod gets about one a minute, so older ones do not matter.
const MAX_EVENTS: u32 = 100;

/// The newest warning about a pod, with its reason. `None` if there is none, or events cannot be read.
pub(crate) async fn newest_warning(client: &Client, namespace: &str, pod: &PodRef) -> Option<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&format!("regarding.uid={}", pod.uid)).limit(MAX_EVENTS);
    match bounded(api.list(&params)).await {
        Ok(found) => newest(&found.items),
        Err(error) => {
            tracing::debug!(%error, namespace, pod = pod.name, "the events of a pod cannot be read");
            None
        }
    }
}

fn newest(events: &[Event]) -> Option<String> {
    let warnings = events.iter().filter(|event| event.type_.as_deref() == Some("Warning"));
    let newest = warnings.max_by_key(|event| last_seen(event))?;
    let (reason, note) = (newest.reason.as_deref().unwrap_or_default(), newest.note.as_deref()?);
    Some(format!("{reason}: {}", note.trim()))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    series.or(last).or_else(|| Some(event.event_time.as_ref()?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_newest_warning_is_reported() {
        let events = |all: Value| -> Vec<Event> { serde_json::from_value(all).unwrap() };
        let event = |type_: &str, note: &str, last: &str| {
            json!({
                "metadata": {},
                "eventTime": null,
                "type": type_,
                "reason": "FailedMount",
                "note": note,
                "deprecatedLastTimestamp": last,
            })
        };
        let all = json!([
            event("Warning", "configmap \"old\" not found", "2026-01-01T00:00:00Z"),
            event("Warning", "configmap \"typo\" not found\n", "2026-01-01T00:02:00Z"),
            event("Normal", "pulled", "2026-01-01T00:03:00Z"),
        ]);
        assert_eq!(newest(&events(all)).as_deref(), Some("FailedMount: configmap \"typo\" not found"));
        assert_eq!(newest(&[]), None);
    }
}
