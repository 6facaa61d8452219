//! Errors that say where the problem is, what is wrong, and what to change.

use std::fmt;
use std::path::PathBuf;

use crate::api;

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `spec.workers.total`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to change.
    pub hint: String,
}

impl FieldError {
    /// A new one.
    pub fn new(field: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), hint: hint.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.hint)
    }
}

/// One thing wrong in one file: `FILE:LINE: FIELD: what is wrong; what to change`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {error}", path.display())]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub error: FieldError,
}

/// An error of serde, in the words of somebody who writes a manifest.
///
/// serde's messages are stable enough to be parsed. A message that is not recognised is passed on unchanged.
pub(crate) fn from_serde(path: &str, message: &str) -> FieldError {
    let message = bare(path, message);
    if let Some(rest) = message.strip_prefix("missing field `") {
        let name = rest.split('`').next().unwrap_or_default();
        let field = join(path, name);
        let hint = format!("add it: {}", expected(&field).unwrap_or("it has no default"));
        return FieldError::new(field, "is missing", hint);
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return unknown_field(path, rest);
    }
    if let Some(rest) = message.strip_prefix("duplicate field `") {
        let name = rest.split('`').next().unwrap_or_default();
        return FieldError::new(at(path, name), "is written twice", "keep one of the two");
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let mut words = rest.split('`');
        let name = words.next().unwrap_or_default();
        let known: Vec<&str> = words.skip(1).step_by(2).filter(|word| !word.is_empty()).collect();
        return FieldError::new(path, format!("is `{name}`"), format!("write one of: {}", known.join(", ")));
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        let wanted = expected(path).unwrap_or_else(|| plain(wanted));
        return FieldError::new(
            field_or_document(path),
            format!("is {}", plain_found(found)),
            format!("make it {wanted}"),
        );
    }
    match message.split_once("; ") {
        Some((problem, hint)) => FieldError::new(field_or_document(path), problem, hint),
        None => FieldError::new(field_or_document(path), message, "see the fields of a TaskQueue"),
    }
}

fn unknown_field(path: &str, rest: &str) -> FieldError {
    let mut words = rest.split('`');
    let name = words.next().unwrap_or_default();
    let known: Vec<&str> = words.skip(1).step_by(2).filter(|word| !word.is_empty()).collect();
    FieldError::new(at(path, name), "is not a known field", nearest(name, &known))
}

/// A hint for a name that is not known.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|word| (distance(name, word), *word)).min();
    match nearest {
        Some((apart, word)) if apart <= 1 + word.len() / 4 => format!("did you mean `{word}`?"),
        _ if known.is_empty() => "remove it".to_owned(),
        _ => format!("remove it, or write one of: {}", known.join(", ")),
    }
}

/// What a field accepts, for fields where serde's own words would not help.
pub(crate) fn expected(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiVersion" => api::API_VERSION,
        "kind" => api::KIND,
        "metadata" => "a mapping with at least a `name`",
        "metadata.name" => "at most 52 of a-z, 0-9 and `-`, such as `emails`",
        "spec" => "a mapping with at least `workers: { total: 10 }`",
        "spec.workers" => "a mapping with at least `total`, such as `workers: { total: 10 }`",
        "spec.workers.total" => "a whole number from 0 to 10000, workers over all pods, such as `total: 10`",
        "spec.workers.perPod" | "spec.retry.maxAttempts" => "a whole number from 1 to 1000",
        "spec.workers.replicas" => "a whole number of pods from 0 to 10000",
        "spec.workers.autoscaling.min" => "a whole number from 0 to workers.total",
        "spec.handler.http.port" => "a port from 1 to 65535",
        "spec.retry.maxSnoozes" | "spec.rollout.canary.minRuns" => "a whole number from 1 to 1000000",
        "spec.retry.jitterPercent" | "spec.rollout.canary.extraFailurePercent" => {
            "a whole number from 0 to 100"
        }
        "spec.retry.final" => "a list of HTTP statuses, such as [400, 404]",
        "spec.retry.backoff" => {
            "one of `delays: [15s, 1m]`, `exponential: { initial: 1s, max: 1h }`, `fixed: 10s`"
        }
        "spec.retry.backoff.delays" => "a list of durations, such as [15s, 30s, 3m, 1h]",
        "spec.retry.backoff.exponential.factor" => "a whole number from 1 to 100",
        "spec.database.secretRef" => {
            "`secretRef: { name: NAME, key: KEY }`, the Secret with the URL of the database"
        }
        "spec.database.secretRef.name" | "spec.database.workerSecretRef.name" => "the name of a Secret",
        "spec.targetRef" => {
            "`targetRef: { name: NAME }`, a Deployment of yours whose pods contain the worker"
        }
        "spec.targetRef.name" => "the name of a Deployment",
        "spec.database.caRef.name" => "the name of a Secret or a ConfigMap",
        "spec.rollout.canary" => "a mapping, such as `canary: {}` or `canary: { share: 10% }`",
        "spec.rollout.canary.extraDurationPercent" => "a whole number from 0 to 10000",
        "spec.rollout.maxSurge" | "spec.rollout.canary.share" => {
            "a number of pods from 1 to 1000, or a percentage such as 25%"
        }
        _ => return None,
    })
}

/// Rust's type names in plain words.
fn plain(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" => "a whole number, not negative",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") || other == "a map" => "a mapping of fields",
        other => other,
    }
}

fn plain_found(found: &str) -> String {
    match found.split_once(' ') {
        None if found == "unit" || found == "null" => "empty".to_owned(),
        _ if found == "unit value" => "empty".to_owned(),
        Some(("string", text)) => format!("the string {text}"),
        Some(("integer" | "floating", text)) => {
            format!("the number {}", text.trim_start_matches("point ").replace('`', ""))
        }
        Some(("boolean", text)) => text.replace('`', ""),
        _ => match found {
            "map" => "a mapping of fields".to_owned(),
            "sequence" => "a list".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// The message without the text that `serde_yaml` adds: the path of a parent before it, ` at line 3 column 5`
/// after it.
fn bare<'a>(path: &str, message: &'a str) -> &'a str {
    let message = message.rfind(" at line ").map_or(message, |end| &message[..end]);
    match message.split_once(": ") {
        Some((parent, rest)) if path.starts_with(parent) => rest,
        _ => message,
    }
}

fn field_or_document(path: &str) -> &str {
    if path.is_empty() || path == "." { "document" } else { path }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() || path == "." { name.to_owned() } else { format!("{path}.{name}") }
}

/// The full path of a field that serde names. The given path may already end with the field.
fn at(path: &str, name: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    if last == name { path.to_owned() } else { join(path, name) }
}

/// How many letters must change to turn one word into the other. Upper and lower case count as the same.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *candidate);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
