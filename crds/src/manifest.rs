//! Reads YAML and returns checked manifests or helpful errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Deserializer;

use crate::field_error::{FieldError, ManifestError, from_serde};
use crate::position::{Position, Positions, line_of, too_much};
use crate::{TaskQueueSpec, annotations, api, unique_keys, validate};

/// One `TaskQueue` as it is written in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The file.
    pub path: PathBuf,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The spec.
    pub spec: TaskQueueSpec,
    source: Source,
}

/// Where the manifest is in its file, for finding lines in it. Empty for a manifest that was built in code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Source {
    text: Arc<str>,
    position: Position,
}

impl Manifest {
    /// A manifest that was not read from a file.
    #[must_use]
    pub fn new(name: impl Into<String>, spec: TaskQueueSpec) -> Self {
        Self {
            path: PathBuf::new(),
            name: name.into(),
            namespace: None,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            spec,
            source: Source::default(),
        }
    }

    /// Name of the queue in the database.
    #[must_use]
    pub fn queue_name(&self) -> &str {
        self.spec.queue_name.as_deref().unwrap_or(&self.name)
    }

    /// The command that starts the handler under `rowlock dev`.
    #[must_use]
    pub fn dev_command(&self) -> Option<&str> {
        self.annotations.get(annotations::DEV_COMMAND).map(String::as_str)
    }

    /// Every problem that the types cannot rule out.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldError> {
        validate::validate(self)
    }

    /// The line of a field such as `spec.workers.total`. If the field is not written, the line of its nearest
    /// parent.
    #[must_use]
    pub fn line_of(&self, field: &str) -> usize {
        line_of(&self.source.text, self.source.position, field)
    }

    /// An error about one of its fields, with file and line.
    #[must_use]
    pub fn error(&self, error: FieldError) -> ManifestError {
        ManifestError { path: self.path.clone(), line: self.line_of(&error.field), error }
    }
}

/// Reads every `TaskQueue` of a YAML text and skips documents of other kinds.
///
/// ```
/// # use std::path::Path;
/// let text = "\
/// apiVersion: rowlock.dev/v1alpha1
/// kind: TaskQueue
/// metadata: { name: emails }
/// spec:
///   workers: { perPod: 10 }
/// ";
/// let errors = rowlock_crds::parse_manifests(Path::new("emails.yaml"), text).unwrap_err();
/// assert_eq!(
///     errors[0].to_string(),
///     "emails.yaml:5: spec.workers.total: is missing; \
///      add it: a whole number from 0 to 10000, workers over all pods, such as `total: 10`"
/// );
/// ```
pub fn parse_manifests(path: &Path, text: &str) -> Result<Vec<Manifest>, Vec<ManifestError>> {
    // Some editors write a byte order mark first. It is not YAML.
    let text: Arc<str> = text.trim_start_matches('\u{feff}').into();
    let mut manifests = Vec::new();
    let mut errors = Vec::new();
    if let Some((line, error)) = too_much(&text) {
        return Err(vec![ManifestError { path: path.to_owned(), line, error }]);
    }
    let mut positions = Positions::of(&text);
    for (head, body) in Deserializer::from_str(&text).zip(Deserializer::from_str(&text)) {
        let position = positions.next_document();
        let fail = |error: FieldError| {
            let line = line_of(&text, position, &error.field);
            ManifestError { path: path.to_owned(), line, error }
        };
        match Head::read(head) {
            Err(error) => {
                let line = error.location().map_or(1, |location| location.line());
                errors.push(ManifestError { path: path.to_owned(), line, error: not_yaml(&error) });
                // After a syntax error it is unclear where the next document starts.
                break;
            }
            Ok(Kind::Other) => {}
            Ok(Kind::Wrong(error)) => errors.push(fail(error)),
            Ok(Kind::TaskQueue) => match serde_path_to_error::deserialize::<_, Document>(body) {
                Err(error) => {
                    errors.push(fail(from_serde(&error.path().to_string(), &error.inner().to_string())));
                }
                Ok(read) => {
                    let manifest = read.into_manifest(path, Source { text: Arc::clone(&text), position });
                    errors.extend(manifest.validate().into_iter().map(|error| manifest.error(error)));
                    manifests.push(manifest);
                }
            },
        }
    }
    errors.extend(check_set(&manifests));
    if errors.is_empty() { Ok(manifests) } else { Err(errors) }
}

/// Checks manifests against each other: two of them may not declare the same queue.
#[must_use]
pub fn check_set(manifests: &[Manifest]) -> Vec<ManifestError> {
    let mut seen: BTreeMap<&str, &Manifest> = BTreeMap::new();
    let mut errors = Vec::new();
    for manifest in manifests {
        let Some(first) = seen.get(manifest.queue_name()) else {
            seen.insert(manifest.queue_name(), manifest);
            continue;
        };
        let field = if manifest.spec.queue_name.is_some() { "spec.queueName" } else { "metadata.name" };
        let position = format!("{}:{}", first.path.display(), first.line_of("metadata.name"));
        let problem = format!("the queue `{}` is already declared at {position}", manifest.queue_name());
        errors.push(manifest.error(FieldError::new(field, problem, "give one of the two another name")));
    }
    errors
}

fn not_yaml(error: &serde_yaml::Error) -> FieldError {
    FieldError::new("document", format!("is not valid YAML: {error}"), "correct the syntax at this line")
}

/// The fields that distinguish a `TaskQueue` from other documents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<serde_yaml::Value>,
    kind: Option<serde_yaml::Value>,
}

enum Kind {
    TaskQueue,
    Other,
    Wrong(FieldError),
}

impl Head {
    fn read(document: Deserializer<'_>) -> Result<Kind, serde_yaml::Error> {
        // A leading or trailing `---` leaves an empty document.
        let Some(head) = Option::<Self>::deserialize(document)? else { return Ok(Kind::Other) };
        Ok(head.kind())
    }

    fn kind(&self) -> Kind {
        let text = |value: &Option<serde_yaml::Value>| {
            value.as_ref().and_then(|value| value.as_str().map(str::to_owned))
        };
        let ours =
            text(&self.api_version).is_some_and(|version| version.split('/').next() == Some(api::GROUP));
        match (text(&self.api_version).as_deref(), text(&self.kind).as_deref()) {
            (Some(api::API_VERSION), Some(api::KIND)) => Kind::TaskQueue,
            (version, Some(api::KIND)) => {
                let problem = version.map_or("is missing".to_owned(), |version| format!("is `{version}`"));
                let hint = format!("write `apiVersion: {}`", api::API_VERSION);
                Kind::Wrong(FieldError::new("apiVersion", problem, hint))
            }
            (_, Some(kind)) if ours => {
                let problem = format!("`{kind}` is not a kind of {}", api::GROUP);
                Kind::Wrong(FieldError::new("kind", problem, format!("write `kind: {}`", api::KIND)))
            }
            (_, None) => {
                Kind::Wrong(FieldError::new("kind", "is missing", format!("write `kind: {}`", api::KIND)))
            }
            _ => Kind::Other,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: TaskQueueSpec,
    /// `kubectl get -o yaml` prints it. It is not read.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// Four fields of the metadata are used. The others belong to Kubernetes. Unknown names are refused, as
/// Kubernetes refuses them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default, deserialize_with = "unique_keys::map")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "unique_keys::map")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "finalizers")]
    _finalizers: Option<Vec<String>>,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    /// `kubectl get -o yaml` prints these too.
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: Option<IgnoredAny>,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<IgnoredAny>,
    #[serde(default, rename = "generateName")]
    _generate_name: Option<IgnoredAny>,
    #[serde(default, rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(default, rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(default, rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
    #[serde(default, rename = "uid")]
    _uid: Option<IgnoredAny>,
}

impl Document {
    fn into_manifest(self, path: &Path, source: Source) -> Manifest {
        let Metadata { name, namespace, annotations, labels, .. } = self.metadata;
        let (annotations, labels) = (annotations.unwrap_or_default(), labels.unwrap_or_default());
        Manifest { path: path.to_owned(), name, namespace, annotations, labels, spec: self.spec, source }
    }
}
