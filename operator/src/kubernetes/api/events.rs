//! Recent events: an event that repeats is counted, not written again. An event with another message is a new
//! one; otherwise the first message of a reason would be shown for all that follow.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;

/// How long repeated events are counted: the same as in client-go.
const COUNTED_FOR: Duration = Duration::from_mins(6);

/// The most events that are remembered. A forgotten event is written again when it repeats.
const MAX_EVENTS: usize = 1000;

/// The longest note of an event that the API takes.
const LONGEST_NOTE: usize = 1000;

/// An event to publish.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent<'a> {
    pub(crate) regarding: &'a ObjectReference,
    /// Another object that it is about.
    pub(crate) related: Option<ObjectReference>,
    pub(crate) warning: bool,
    pub(crate) reason: &'a str,
    /// What the operator did or tried.
    pub(crate) action: &'a str,
    pub(crate) note: String,
}

impl NewEvent<'_> {
    /// The note, cut to what the API allows.
    pub(crate) fn short_note(&self) -> String {
        self.note.chars().take(LONGEST_NOTE).collect()
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let of = |one: &ObjectReference| {
            (one.kind.clone(), one.namespace.clone(), one.name.clone(), one.uid.clone())
        };
        (of(self.regarding), self.related.as_ref().map(of), self.warning, self.reason, self.action)
            .hash(&mut hasher);
        self.short_note().hash(&mut hasher);
        hasher.finish()
    }
}

/// The Deployment of a `TaskQueue`.
pub(crate) fn deployment_of(regarding: &ObjectReference, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("Deployment".to_owned()),
        namespace: regarding.namespace.clone(),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// The events of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents {
    series: HashMap<u64, Series>,
}

#[derive(Debug)]
struct Series {
    name: String,
    count: i32,
    at: Instant,
}

impl RecentEvents {
    /// The name and the new count of a recent event that repeats.
    pub(crate) fn count_again(&mut self, new_event: &NewEvent<'_>, now: Instant) -> Option<(String, i32)> {
        self.series.retain(|_, series| now.duration_since(series.at) < COUNTED_FOR);
        let series = self.series.get_mut(&new_event.key())?;
        (series.count, series.at) = (series.count.saturating_add(1), now);
        Some((series.name.clone(), series.count))
    }

    /// Remembers the event under the name of its object.
    pub(crate) fn insert(&mut self, new_event: &NewEvent<'_>, name: String, now: Instant) {
        if self.series.len() >= MAX_EVENTS {
            let oldest = self.series.iter().min_by_key(|(_, series)| series.at).map(|(key, _)| *key);
            oldest.map(|oldest| self.series.remove(&oldest));
        }
        self.series.insert(new_event.key(), Series { name, count: 1, at: now });
    }

    /// Forgets an event whose object is gone.
    pub(crate) fn forget(&mut self, new_event: &NewEvent<'_>) {
        self.series.remove(&new_event.key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_event<'a>(regarding: &'a ObjectReference, reason: &'a str, note: &str) -> NewEvent<'a> {
        NewEvent {
            regarding,
            related: None,
            warning: true,
            reason,
            action: "Reconcile",
            note: note.to_owned(),
        }
    }

    /// Before, a second rejection was shown with the message of the first.
    #[test]
    fn a_repeated_event_is_counted_and_another_message_is_a_new_event() {
        let (mut recent, now) = (RecentEvents::default(), Instant::now());
        let emails = ObjectReference { name: Some("emails".into()), ..ObjectReference::default() };
        let letters = ObjectReference { name: Some("letters".into()), ..ObjectReference::default() };
        let first = new_event(&emails, "TemplateRejected", "imagePullPolicy");
        assert_eq!(recent.count_again(&first, now), None);
        recent.insert(&first, "emails.1".into(), now);
        assert_eq!(recent.count_again(&first, now), Some(("emails.1".into(), 2)));
        for other in [
            new_event(&emails, "TemplateRejected", "imagePullpolicy"),
            new_event(&emails, "PodsRejected", "imagePullPolicy"),
            new_event(&letters, "TemplateRejected", "imagePullPolicy"),
            NewEvent { related: Some(letters.clone()), ..first.clone() },
        ] {
            assert_eq!(recent.count_again(&other, now), None, "{other:?}");
        }
        assert_eq!(recent.count_again(&first, now + COUNTED_FOR), None, "that was long ago");
        recent.insert(&first, "emails.2".into(), now);
        recent.forget(&first);
        assert_eq!(recent.count_again(&first, now), None);
    }

    #[test]
    fn the_number_of_remembered_events_is_bounded() {
        let (mut recent, now) = (RecentEvents::default(), Instant::now());
        let regarding = ObjectReference::default();
        for number in 0..=MAX_EVENTS {
            let later = now + Duration::from_millis(u64::try_from(number).unwrap());
            recent.insert(&new_event(&regarding, "x", &number.to_string()), String::new(), later);
        }
        assert_eq!(recent.series.len(), MAX_EVENTS);
        assert_eq!(
            recent.count_again(&new_event(&regarding, "x", "0"), now),
            None,
            "the oldest is forgotten"
        );
    }
}
