//! Checks a pod template: it needs a container that runs the tasks, and its names must not collide with those
//! of Rowlock. Kubernetes checks the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::bounds::{LONGEST_CONTAINER_NAME, MOST_CONTAINERS};
use crate::containers::{HANDLER, WORKER};
use crate::field_error::FieldError;
use crate::unique_keys;

/// A pod template, as JSON text. An operator keeps thousands: as values each would take twenty times the
/// memory. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTemplate(Arc<str>);

impl PodTemplate {
    /// Its fields.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // It was made from a value.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Value> for PodTemplate {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        unique_keys::value(deserializer).map(Self::from)
    }
}

impl Serialize for PodTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

/// Every problem of a `spec.template`.
pub(crate) fn check(template: &Value) -> Vec<FieldError> {
    if !template.is_object() {
        let hint = "write a pod template: spec.containers and so on";
        return vec![FieldError::new("spec.template", "is not a mapping", hint)];
    }
    let mut errors = Vec::new();
    let names = names(template, "containers", &[WORKER], &mut errors);
    self::names(template, "initContainers", &[HANDLER, WORKER], &mut errors);
    if !names.contains(HANDLER) {
        let problem = format!("has no container `{HANDLER}`");
        let hint = "give this name to the container that runs the tasks";
        errors.push(FieldError::new("spec.template.spec.containers", problem, hint));
    }
    errors.extend(shared_processes(template));
    errors
}

/// Processes that see each other can read each other's files. One file of the worker has the URL of the
/// database.
fn shared_processes(template: &Value) -> Option<FieldError> {
    let field = "spec.template.spec.shareProcessNamespace";
    match template.pointer("/spec/shareProcessNamespace")? {
        Value::Bool(true) => {
            let problem = "would open the worker's files, with the database's URL, to the other containers";
            Some(FieldError::new(field, problem, "remove it"))
        }
        Value::Bool(false) | Value::Null => None,
        _ => Some(FieldError::new(field, "is neither true nor false", "remove it")),
    }
}

/// The names in a list of containers.
fn names<'a>(
    template: &'a Value,
    list: &str,
    reserved: &[&str],
    errors: &mut Vec<FieldError>,
) -> BTreeSet<&'a str> {
    let field = format!("spec.template.spec.{list}");
    let mut seen = BTreeSet::new();
    let Some(value) = template.pointer(&format!("/spec/{list}")) else { return seen };
    let Some(containers) = value.as_array() else {
        errors.push(FieldError::new(&field, "is not a list", "write a list of containers"));
        return seen;
    };
    if containers.len() > MOST_CONTAINERS {
        let problem = format!("has {} containers", containers.len());
        errors.push(FieldError::new(&field, problem, format!("write at most {MOST_CONTAINERS}")));
    }
    for (index, container) in containers.iter().enumerate() {
        let name = container["name"].as_str().unwrap_or_default();
        let problem = if name.is_empty() || name.len() > LONGEST_CONTAINER_NAME {
            "has no valid container name".to_owned()
        } else if reserved.contains(&name) {
            format!("has the name `{name}`, which is reserved for Rowlock")
        } else if seen.insert(name) {
            continue;
        } else {
            format!("repeats the name `{name}`")
        };
        errors.push(FieldError::new(format!("{field}[{index}]"), problem, "give it a unique name"));
    }
    seen
}
