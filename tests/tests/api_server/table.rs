//! The table of manifests, `table.yaml`.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Specs that both accept.
    pub(crate) accepted: Vec<String>,
    /// What both refuse.
    pub(crate) refused: Vec<Case>,
    /// What only a cluster refuses.
    pub(crate) cluster: Vec<Case>,
    /// What only `rowlock dev` refuses.
    pub(crate) dev: Vec<Case>,
}

/// A manifest that is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    spec: String,
    #[serde(default = "emails")]
    name: String,
    /// Fields of the valid spec that are left out.
    #[serde(default)]
    without: Vec<String>,
    /// The errors of Rust, one line each.
    #[serde(default)]
    pub(crate) rust: String,
    /// The errors of the API server, one line each.
    #[serde(default)]
    pub(crate) api: String,
}

fn emails() -> String {
    "emails".to_owned()
}

/// The fields of a valid spec, by name.
const SOUND: [(&str, &str); 3] = [
    ("workers", "workers: { total: 10 }"),
    ("database", "database: { secretRef: { name: shop-pg-app } }"),
    ("template", "template: { spec: { containers: [{ name: handler, image: emails:1 }] } }"),
];

pub(crate) fn table() -> Table {
    serde_yaml::from_str(include_str!("table.yaml")).unwrap()
}

/// A valid manifest with these fields replaced.
pub(crate) fn manifest(spec: &str) -> String {
    write("emails", spec, &[])
}

impl Case {
    /// The text of the manifest.
    pub(crate) fn manifest(&self) -> String {
        write(&self.name, &self.spec, &self.without)
    }
}

fn write(name: &str, spec: &str, without: &[String]) -> String {
    let says = |field: &str| spec.lines().any(|line| line.starts_with(field));
    let sound = SOUND.iter().filter(|(field, _)| !says(field) && !without.iter().any(|out| out == field));
    let lines: Vec<String> =
        sound.map(|(_, line)| *line).chain(spec.lines()).map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: rowlock.dev/v1alpha1\nkind: TaskQueue\nmetadata: {{ name: {name:?} }}\nspec:\n{}",
        lines.concat()
    )
}
