//! Schemas that a Rust type cannot tell.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::cel;
use crate::bounds::{LONGEST_CONTAINER_NAME, LONGEST_QUANTITY, MOST_CONTAINERS};
use crate::duration::LONGEST_TEXT;
use crate::{CaKind, Dur, Quantity, ScalingMode, Surge, containers};

impl JsonSchema for Dur {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": LONGEST_TEXT, "pattern": cel::DURATION })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": LONGEST_QUANTITY })
    }
}

impl JsonSchema for Surge {
    fn schema_name() -> Cow<'static, str> {
        "Surge".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 4 })
    }
}

/// What certificates are in.
pub(crate) fn ca_kind(_: &mut SchemaGenerator) -> Schema {
    let kinds = [CaKind::Secret, CaKind::ConfigMap].map(CaKind::as_str);
    json_schema!({ "type": "string", "enum": kinds })
}

/// Who says how many pods there are.
pub(crate) fn scaling_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ScalingMode::ALL.map(ScalingMode::as_str) })
}

/// A pod template as it was written: a later release of Kubernetes may know fields that we do not. Declared is only what
/// the rules look at; a list by name also lets several field managers own containers of one template.
pub(crate) fn pod_template(_: &mut SchemaGenerator) -> Schema {
    let list = |description: &str| {
        json_schema!({
            "description": description,
            "type": "array",
            "maxItems": MOST_CONTAINERS,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["name"],
                "properties": {
                    "name": { "description": "Name of the container.", "type": "string", "minLength": 1, "maxLength": LONGEST_CONTAINER_NAME }
                }
            }
        })
    };
    let handler = format!("The containers; the one named `{}` does the tasks.", containers::HANDLER);
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["spec"],
        "properties": {
            "spec": {
                "description": "A pod spec, as in a Deployment.",
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["containers"],
                "properties": {
                    "shareProcessNamespace": {
                        "description": "Not true: it would open the worker's files, with the database's URL, to the other containers.",
                        "type": "boolean"
                    },
                    "containers": list(&handler),
                    "initContainers": list("Containers that run before these, or beside them.")
                }
            }
        }
    })
}

/// The conditions, a list by type, with the descriptions of metav1 in fewer words.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "description": "Which condition.", "type": "string", "maxLength": 316 },
                "status": { "description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": {
                    "description": "Why, in one word.", "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": { "description": "Why, in a sentence.", "type": "string", "maxLength": 32768 },
                "lastTransitionTime": {
                    "description": "When the status last changed.", "type": "string", "format": "date-time"
                },
                "observedGeneration": {
                    "description": "The generation of the spec that it is about.",
                    "type": "integer", "format": "int64", "minimum": 0
                }
            }
        }
    })
}
