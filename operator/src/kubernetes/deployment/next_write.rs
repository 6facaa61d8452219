//! The write that makes a Deployment what it should be: pure.

use std::sync::Arc;

use serde_json::Value;

use crate::kubernetes::api::field_managers;
use crate::kubernetes::api::kept::Metadata;
use crate::kubernetes::deployment::last_applied::{AppliedObject, has_template};

/// The Deployment in the cluster.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// `None`: there is no such Deployment.
    pub(crate) metadata: Option<Arc<Metadata>>,
    pub(crate) replicas: u32,
    /// Foreign field managers that own parts of its pod template.
    pub(crate) foreign_managers: Vec<String>,
    /// Who has set the number of pods, if it is not the operator's. Empty: the number is not known.
    pub(crate) scalers: Vec<String>,
}

/// A scaler that the API server does not record.
const UNRECORDED: &str = "a client of unknown name (the API server records none if it scales to zero)";

impl Live {
    /// `replicas`: the number of pods, if it is known.
    pub(crate) fn of(metadata: Option<Arc<Metadata>>, replicas: Option<u32>) -> Self {
        let entries = metadata.as_ref().and_then(|metadata| metadata.managed_fields.as_deref());
        let foreign_managers = entries.map(field_managers::foreign).unwrap_or_default();
        let mut scalers = entries.map(field_managers::scalers).unwrap_or_default();
        if scalers.is_empty() && replicas.is_some() {
            scalers.push(UNRECORDED.to_owned());
        }
        Self { metadata, replicas: replicas.unwrap_or_default(), foreign_managers, scalers }
    }

    /// Whether an apply of the object changes the pod template, and so replaces the pods.
    pub(crate) fn gets_template(&self, object: &Value) -> bool {
        let differs = |metadata: &Arc<Metadata>| !has_template(metadata, object);
        !self.foreign_managers.is_empty() || self.metadata.as_ref().is_some_and(differs)
    }
}

/// What the Deployment should be.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) object: &'a Value,
    pub(crate) replicas: u32,
    /// The number of pods is left to others.
    pub(crate) leaves_replicas: bool,
    /// The template must not be applied: it waits for a rollout slot, or the API server rejects it.
    pub(crate) holds_template: bool,
}

/// The next write to the Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// The live object is what is wanted.
    Nothing,
    /// The number of pods alone.
    Scale,
    /// The whole object, by server-side apply.
    Apply,
    /// The whole object, after taking its pod template back from foreign field managers. Server-side apply
    /// alone leaves the fields in place that they added.
    Restore,
}

pub(crate) fn next_write(last: Option<&AppliedObject>, live: &Live, wanted: &Wanted<'_>) -> Write {
    if wanted.holds_template {
        let scales = live.metadata.is_some() && !wanted.leaves_replicas && wanted.replicas != live.replicas;
        return if scales { Write::Scale } else { Write::Nothing };
    }
    if !live.foreign_managers.is_empty() {
        return Write::Restore;
    }
    let seen = live.metadata.as_deref();
    let is_done = last.is_some_and(|applied| {
        if wanted.leaves_replicas {
            applied.matches_but_for_replicas(wanted.object, seen, live.replicas)
        } else {
            applied.matches(wanted.object, seen)
        }
    });
    if is_done { Write::Nothing } else { Write::Apply }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rowlock_crds::annotations::LAST_APPLIED_HASH;
    use serde_json::json;

    use super::*;

    /// The Deployment of these tests as the operator applied it: three pods, generation 5.
    fn applied() -> AppliedObject {
        AppliedObject { hash: "h1".into(), metadata: metadata("u1", 5), replicas: 3, at: Instant::now() }
    }

    fn metadata(uid: &str, generation: i64) -> Arc<Metadata> {
        let (uid, generation) = (Some(uid.into()), Some(generation));
        Arc::new(Metadata { uid, generation, ..Metadata::default() })
    }

    fn object(hash: &str, replicas: u32) -> Value {
        let annotations = json!({ LAST_APPLIED_HASH: hash });
        json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": replicas } })
    }

    fn live(uid: &str, generation: i64, replicas: u32) -> Live {
        Live { metadata: Some(metadata(uid, generation)), replicas, ..Live::default() }
    }

    fn edited() -> Live {
        Live { foreign_managers: vec!["kubectl-edit".into()], ..live("u1", 6, 3) }
    }

    /// Before, nobody was named who had scaled to zero, so the operator undid it again and again.
    #[test]
    fn a_scaler_without_a_record_is_named_if_the_number_is_known() {
        let scalers = |replicas| Live::of(Some(metadata("u1", 5)), replicas).scalers;
        assert_eq!(scalers(Some(0)), [UNRECORDED]);
        assert_eq!(scalers(None), [] as [String; 0]);
    }

    #[test]
    fn each_difference_leads_to_the_smallest_write_that_mends_it() {
        let none = Live::default;
        let table = [
            ("a new queue", false, none(), "h1", 3, Write::Apply),
            ("a new leader finds a Deployment", false, live("u1", 5, 3), "h1", 3, Write::Apply),
            ("nothing changed", true, live("u1", 5, 3), "h1", 3, Write::Nothing),
            ("the spec changed", true, live("u1", 5, 3), "h2", 3, Write::Apply),
            ("more pods are wanted", true, live("u1", 5, 3), "h1", 4, Write::Apply),
            ("somebody changed the Deployment", true, live("u1", 6, 3), "h1", 3, Write::Apply),
            ("somebody scaled the Deployment", true, live("u1", 6, 9), "h1", 3, Write::Apply),
            ("somebody deleted the Deployment", true, none(), "h1", 3, Write::Apply),
            ("somebody deleted and created it", true, live("u2", 5, 3), "h1", 3, Write::Apply),
            ("somebody edited the template", true, edited(), "h1", 3, Write::Restore),
        ];
        for (case, has_applied, live, hash, replicas, expected) in table {
            let (object, applied) = (object(hash, replicas), has_applied.then(applied));
            let wanted = Wanted { object: &object, replicas, leaves_replicas: false, holds_template: false };
            assert_eq!(next_write(applied.as_ref(), &live, &wanted), expected, "{case}");
        }
    }

    #[test]
    fn a_number_that_others_set_is_no_difference() {
        let table = [
            ("nothing changed", live("u1", 5, 3), "h1", Write::Nothing),
            ("others scaled", live("u1", 6, 9), "h1", Write::Nothing),
            ("others changed something else", live("u1", 6, 3), "h1", Write::Apply),
            ("the spec changed", live("u1", 5, 3), "h2", Write::Apply),
            ("others edited the template", edited(), "h1", Write::Restore),
        ];
        for (case, live, hash, expected) in table {
            let (object, applied) = (object(hash, 7), applied());
            let wanted =
                Wanted { object: &object, replicas: 7, leaves_replicas: true, holds_template: false };
            assert_eq!(next_write(Some(&applied), &live, &wanted), expected, "{case}");
        }
    }

    #[test]
    fn while_the_template_is_held_back_the_queue_still_scales() {
        let table = [
            ("more pods are wanted", live("u1", 5, 3), 4, false, Write::Scale),
            ("the number is right", live("u1", 5, 3), 3, false, Write::Nothing),
            ("others set the number", live("u1", 5, 3), 4, true, Write::Nothing),
            ("there is no Deployment", Live::default(), 4, false, Write::Nothing),
            ("the template was edited too", edited(), 4, false, Write::Scale),
        ];
        for (case, live, replicas, leaves_replicas, expected) in table {
            let (object, applied) = (object("h2", replicas), applied());
            let wanted = Wanted { object: &object, replicas, leaves_replicas, holds_template: true };
            assert_eq!(next_write(Some(&applied), &live, &wanted), expected, "{case}");
        }
    }
}
