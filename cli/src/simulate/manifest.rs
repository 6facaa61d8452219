//! The `TaskQueue` to simulate, with the changes of `--set`.

use crate::dev::load_manifest;
use crate::escape::word;
use crate::failure::Failure;
use rowlock_crds::{Manifest, parse_manifests};
use serde::Deserialize;
use serde_yaml::{Deserializer, Mapping, Value};
use std::path::Path;

/// The fields that a simulation follows. `--set` refuses others, since it would have no effect.
const FOLLOWED: [&str; 4] = ["spec.workers", "spec.timeout", "spec.paused", "spec.suspendScaling"];

/// The `TaskQueue` of that name, or the only one, with the changes.
pub(super) fn choose(place: &Path, name: Option<&str>, sets: &[String]) -> Result<Manifest, Failure> {
    let manifest = load_manifest(place, name)?;
    let changed = if sets.is_empty() { manifest } else { set_all(&manifest, sets)? };
    refuse_idle(&changed)?;
    Ok(changed)
}

/// A queue that starts no task, or is not scaled, has nothing to simulate.
fn refuse_idle(manifest: &Manifest) -> Result<(), Failure> {
    let spec = &manifest.spec;
    if spec.workers.total == 0 {
        let problem = format!("{}: spec.workers.total is 0, so that no task starts", manifest.path.display());
        return Err(Failure::usage(problem).hint("add --set spec.workers.total=10"));
    }
    let fields = [
        (spec.paused, "spec.paused", "is true, so that no task starts"),
        (spec.suspend_scaling, "spec.suspendScaling", "is true, so that nothing is scaled"),
    ];
    let Some((_, field, problem)) = fields.into_iter().find(|(holds, ..)| *holds) else { return Ok(()) };
    let hint = format!("add --set {field}=false");
    Err(Failure::usage(format!("{}: {field} {problem}", manifest.path.display())).hint(hint))
}

/// Applies the changes to the document of the manifest, and checks it again.
fn set_all(manifest: &Manifest, sets: &[String]) -> Result<Manifest, Failure> {
    let path = &manifest.path;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let mut document = document(&text, &manifest.name).ok_or_else(|| {
        Failure::usage(format!("{} has changed just now", path.display())).hint("try again")
    })?;
    let mut seen: Vec<&str> = Vec::new();
    for set in sets {
        let (field, value) = split(set)?;
        if seen.contains(&field) {
            return Err(wrong(set, format!("{field} is set twice")).hint("keep one of the two"));
        }
        seen.push(field);
        insert(&mut document, field, value).map_err(|problem| wrong(set, problem))?;
    }
    let text = serde_yaml::to_string(&document).map_err(|error| Failure::new(error.to_string()))?;
    // Lines of this text are in no file; the fields say where it is wrong.
    let parsed = parse_manifests(path, &text).map_err(|errors| {
        let problems: Vec<String> = errors.iter().map(|error| format!("--set: {}", error.error)).collect();
        Failure::usage(problems.join("\n"))
    })?;
    parsed.into_iter().next().ok_or_else(|| Failure::usage("--set: no TaskQueue is left"))
}

fn wrong(set: &str, problem: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("--set {}: {problem}", word(set)))
}

/// The document of the `TaskQueue` of that name.
fn document(text: &str, name: &str) -> Option<Value> {
    let documents = Deserializer::from_str(text.trim_start_matches('\u{feff}'));
    let mut values = documents.filter_map(|document| Value::deserialize(document).ok());
    values.find(|value| value["kind"] == "TaskQueue" && value["metadata"]["name"] == name)
}

/// The field and the value of `FIELD=VALUE`.
fn split(set: &str) -> Result<(&str, Value), Failure> {
    let Some((field, value)) = set.split_once('=') else {
        let hint = "write a field and its value, such as spec.workers.autoscaling.waitTarget=2s";
        return Err(wrong(set, "has no `=`").hint(hint));
    };
    let field = field.trim();
    let is_in = |parent: &str| {
        field.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if !FOLLOWED.iter().any(|parent| is_in(parent)) {
        let problem = "a simulation does not follow this field";
        return Err(wrong(set, problem).hint(format!("it follows {} and what is below", FOLLOWED.join(", "))));
    }
    match serde_yaml::from_str(value.trim()) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
            Ok((field, value))
        }
        _ => Err(wrong(set, "the value is not a single one").hint("set the fields below, one by one")),
    }
}

/// Sets a field, with the parents that are not there yet.
fn insert(document: &mut Value, field: &str, value: Value) -> Result<(), String> {
    let mut place = document;
    for name in field.split('.') {
        if place.is_null() {
            *place = Value::Mapping(Mapping::new());
        }
        let Value::Mapping(mapping) = place else { return Err(format!("`{name}` would be below a value")) };
        place = mapping.entry(name.into()).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: &str = "kind: ConfigMap
---
apiVersion: rowlock.dev/v1alpha1
kind: TaskQueue
metadata: { name: mail }
spec: { workers: { total: 20 }, timeout: 30s }
---
apiVersion: rowlock.dev/v1alpha1
kind: TaskQueue
metadata: { name: other }
spec: { workers: { total: 1 } }
";

    fn chosen(name: Option<&str>, sets: &[&str]) -> Result<Manifest, String> {
        let folder = std::env::temp_dir().join(format!(
            "rowlock-set-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("queues.yaml");
        std::fs::write(&path, MANIFESTS).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let chosen = choose(&path, name, &sets);
        std::fs::remove_dir_all(&folder).unwrap();
        chosen.map_err(|failure| {
            assert!(failure.is_usage());
            format!("{}; {}", failure.message, failure.hint.unwrap_or_default())
        })
    }

    #[test]
    fn fields_are_set_in_the_manifest_of_that_name() {
        let sets = ["spec.workers.autoscaling.waitTarget=2s", "spec.workers.total=40", "spec.timeout=1m"];
        let spec = chosen(Some("mail"), &sets).unwrap().spec;
        assert_eq!((spec.workers.total, spec.timeout.to_string()), (40, "1m".to_owned()));
        assert_eq!(spec.workers.autoscaling.unwrap().wait_target.to_string(), "2s");
        assert_eq!(chosen(Some("other"), &[]).unwrap().spec.workers.total, 1);
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let cases = [
            ("spec.workers.total", "has no `=`; write a field and its value"),
            ("spec.retry.maxAttempts=3", "does not follow this field; it follows spec.workers, spec.timeout"),
            ("metadata.name=x", "does not follow this field"),
            ("spec.workersx.total=3", "does not follow this field"),
            ("spec.workers.totl=3", "--set: spec.workers.totl"),
            ("spec.workers.autoscaling.waitTarget=fast", "--set: spec.workers.autoscaling.waitTarget: "),
            ("spec.workers.total=99999", "--set: spec.workers.total: "),
            ("spec.workers.total.x=3", "`x` would be below a value"),
            ("spec.workers={total: 3}", "the value is not a single one; set the fields below, one by one"),
            ("spec.paused=true", "spec.paused is true, so that no task starts; add --set spec.paused=false"),
            ("spec.workers.total=0", "spec.workers.total is 0, so that no task starts; add --set spec"),
            ("spec.suspendScaling=true", "so that nothing is scaled; add --set spec.suspendScaling=false"),
        ];
        for (set, wanted) in cases {
            let error = chosen(Some("mail"), &[set]).unwrap_err();
            assert!(error.contains(wanted), "{set}: {error}");
        }
        let twice = chosen(Some("mail"), &["spec.workers.total=1", "spec.workers.total=2"]).unwrap_err();
        assert!(twice.contains("spec.workers.total is set twice; keep one of the two"), "{twice}");
    }

    #[test]
    fn one_of_several_queues_has_to_be_named() {
        let error = chosen(None, &[]).unwrap_err();
        assert!(error.contains("has 2 TaskQueues; name one with --queue: mail, other"), "{error}");
        let error = chosen(Some("mial"), &[]).unwrap_err();
        assert!(error.contains("has no queue `mial`; name one with --queue: mail, other"), "{error}");
    }
}
