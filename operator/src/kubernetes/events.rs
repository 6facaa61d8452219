//! Events that were written of late, so that the same news again is counted and not written once more.
//! Other words are other news: they get an event of their own, or the first message of a reason would stay
//! on show for as long as others follow it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;

/// For so long the same news is counted; as kubelets and controllers do.
const COUNTED_FOR: Duration = Duration::from_mins(6);

/// The most events that are remembered: the oldest is written anew, which does no harm.
const MOST: usize = 1000;

/// The longest note of an event that the API takes.
const LONGEST_NOTE: usize = 1000;

/// Something to be told.
#[derive(Debug, Clone)]
pub(crate) struct News<'a> {
    pub(crate) about: &'a ObjectReference,
    /// Another object that it is about.
    pub(crate) related: Option<ObjectReference>,
    pub(crate) warning: bool,
    pub(crate) reason: &'a str,
    /// What was done, or tried.
    pub(crate) action: &'a str,
    pub(crate) note: String,
}

impl News<'_> {
    /// As long as the API takes it.
    pub(crate) fn short_note(&self) -> String {
        self.note.chars().take(LONGEST_NOTE).collect()
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let of = |one: &ObjectReference| {
            (one.kind.clone(), one.namespace.clone(), one.name.clone(), one.uid.clone())
        };
        (of(self.about), self.related.as_ref().map(of), self.warning, self.reason, self.action)
            .hash(&mut hasher);
        self.short_note().hash(&mut hasher);
        hasher.finish()
    }
}

/// The Deployment of a `TaskQueue`, which has its name.
pub(crate) fn deployment_of(about: &ObjectReference) -> ObjectReference {
    ObjectReference {
        api_version: Some("apps/v1".to_owned()),
        kind: Some("Deployment".to_owned()),
        namespace: about.namespace.clone(),
        name: about.name.clone(),
        ..ObjectReference::default()
    }
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    known: HashMap<u64, Series>,
}

#[derive(Debug)]
struct Series {
    name: String,
    count: i32,
    at: Instant,
}

impl Told {
    /// The event of the same news, if it was told of late, and how often it is told with this time.
    pub(crate) fn again(&mut self, news: &News<'_>, now: Instant) -> Option<(String, i32)> {
        self.known.retain(|_, series| now.duration_since(series.at) < COUNTED_FOR);
        let series = self.known.get_mut(&news.key())?;
        (series.count, series.at) = (series.count.saturating_add(1), now);
        Some((series.name.clone(), series.count))
    }

    /// That is its event.
    pub(crate) fn first(&mut self, news: &News<'_>, name: String, now: Instant) {
        if self.known.len() >= MOST {
            let oldest = self.known.iter().min_by_key(|(_, series)| series.at).map(|(key, _)| *key);
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(news.key(), Series { name, count: 1, at: now });
    }

    /// Its event is not there any more.
    pub(crate) fn forget(&mut self, news: &News<'_>) {
        self.known.remove(&news.key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news<'a>(about: &'a ObjectReference, reason: &'a str, note: &str) -> News<'a> {
        News { about, related: None, warning: true, reason, action: "Reconcile", note: note.to_owned() }
    }

    /// Before this was mended, a second refusal was shown with the words of the first.
    #[test]
    fn the_same_news_is_counted_and_other_words_are_other_news() {
        let (mut told, now) = (Told::default(), Instant::now());
        let emails = ObjectReference { name: Some("emails".into()), ..ObjectReference::default() };
        let letters = ObjectReference { name: Some("letters".into()), ..ObjectReference::default() };
        let first = news(&emails, "TemplateRefused", "imagePullPolicy");
        assert_eq!(told.again(&first, now), None);
        told.first(&first, "emails.1".into(), now);
        assert_eq!(told.again(&first, now), Some(("emails.1".into(), 2)));
        for other in [
            news(&emails, "TemplateRefused", "imagePullpolicy"),
            news(&emails, "PodsRefused", "imagePullPolicy"),
            news(&letters, "TemplateRefused", "imagePullPolicy"),
            News { related: Some(letters.clone()), ..first.clone() },
        ] {
            assert_eq!(told.again(&other, now), None, "{other:?}");
        }
        assert_eq!(told.again(&first, now + COUNTED_FOR), None, "that was long ago");
        told.first(&first, "emails.2".into(), now);
        told.forget(&first);
        assert_eq!(told.again(&first, now), None);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (mut told, now) = (Told::default(), Instant::now());
        let about = ObjectReference::default();
        for number in 0..=MOST {
            let later = now + Duration::from_millis(u64::try_from(number).unwrap());
            told.first(&news(&about, "x", &number.to_string()), String::new(), later);
        }
        assert_eq!(told.known.len(), MOST);
        assert_eq!(told.again(&news(&about, "x", "0"), now), None, "the oldest is forgotten");
    }
}
