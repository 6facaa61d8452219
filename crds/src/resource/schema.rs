//! Schemas that cannot be derived from a Rust type.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::cel;
use crate::bounds::{LONGEST_CONTAINER_NAME, LONGEST_QUANTITY, MOST_CONTAINERS};
use crate::duration::LONGEST_TEXT;
use crate::{CaKind, Dur, Quantity, ScalingMode, Surge, TargetApiVersion, TargetKind, containers};

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

/// The kinds of object that can hold certificates.
pub(crate) fn ca_kind(_: &mut SchemaGenerator) -> Schema {
    let kinds = [CaKind::Secret, CaKind::ConfigMap].map(CaKind::as_str);
    json_schema!({ "type": "string", "enum": kinds })
}

/// The API versions of a target.
pub(crate) fn target_api_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": [TargetApiVersion::AppsV1] })
}

/// The kinds of a target.
pub(crate) fn target_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": [TargetKind::Deployment] })
}

/// What sets the number of pods.
pub(crate) fn scaling_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ScalingMode::ALL.map(ScalingMode::as_str) })
}

/// A pod template. Unknown fields are preserved, because a later release of Kubernetes may add some. Only the
/// fields that rules check are declared. Lists are keyed by name, so that several field managers can own
/// containers of one template.
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
                    "name": {
                        "description": "Name of the container.",
                        "type": "string", "minLength": 1, "maxLength": LONGEST_CONTAINER_NAME
                    }
                }
            }
        })
    };
    let handler = format!("The containers; the one named `{}` runs the tasks.", containers::HANDLER);
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
                        "description": "Must not be true: it would open the worker's files, with the \
                                        database's URL, to the other containers.",
                        "type": "boolean"
                    },
                    "containers": list(&handler),
                    "initContainers": list("Init containers and sidecars.")
                }
            }
        }
    })
}

/// The conditions: a list keyed by type, with shorter descriptions than those of metav1.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "description": "Type of the condition.", "type": "string", "maxLength": 316 },
                "status": {
                    "description": "Status of the condition.", "type": "string",
                    "enum": ["True", "False", "Unknown"]
                },
                "reason": {
                    "description": "Reason in one word.", "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": { "description": "Reason in a sentence.", "type": "string", "maxLength": 32768 },
                "lastTransitionTime": {
                    "description": "When the status last changed.", "type": "string", "format": "date-time"
                },
                "observedGeneration": {
                    "description": "Generation of the spec that it describes.",
                    "type": "integer", "format": "int64", "minimum": 0
                }
            }
        }
    })
}
