//! Every test that docs/testing.md names exists where the page says.

use std::{collections::BTreeSet, path::Path};

/// A file of Rust code.
struct Source {
    /// Its path and the modules in it.
    modules: BTreeSet<String>,
    functions: BTreeSet<String>,
}

/// Words that follow a keyword.
fn after(text: &str, keyword: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.split(keyword).skip(1).map(name).collect()
}

fn sources_below(folder: &Path, above: &BTreeSet<String>, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let mut modules: BTreeSet<String> = above.iter().cloned().chain(stem).collect();
        if path.is_dir() {
            sources_below(&path, &modules, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            modules.extend(after(&text, "mod "));
            sources.push(Source { modules, functions: after(&text, "fn ") });
        }
    }
}

/// `a::{b,c}` names `a::b` and `a::c`.
fn expanded(name: &str) -> Vec<String> {
    match name.split_once('{') {
        Some((start, list)) => {
            list.trim_end_matches('}').split(',').map(|one| format!("{start}{}", one.trim())).collect()
        }
        None => vec![name.to_owned()],
    }
}

/// Whether a file of these modules has the function, or is the module. `*` at the end matches anything.
fn exists(name: &str, sources: &[Source]) -> bool {
    let mut modules: Vec<&str> = name.split("::").collect();
    let last = modules.pop().unwrap_or_default();
    sources.iter().any(|source| {
        modules.iter().all(|module| source.modules.contains(*module))
            && match last.strip_suffix('*') {
                Some(start) => source.functions.iter().any(|function| function.starts_with(start)),
                None => source.functions.contains(last) || source.modules.contains(last),
            }
    })
}

#[test]
fn every_test_named_in_the_page_exists() {
    let root = rowlock_tests::checkout();
    let page = std::fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let mut sources = Vec::new();
    for folder in ["crds", "plan", "queue", "worker", "operator", "local", "cli", "daemon", "tests"] {
        sources_below(&root.join(folder), &BTreeSet::from([folder.to_owned()]), &mut sources);
    }
    let tables = page.split("## Faults that were found").nth(1).expect("the page has its tables");
    let named: Vec<String> = tables
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains("::") && !name.contains(' '))
        .flat_map(expanded)
        .collect();
    assert!(named.len() > 100, "{}", named.len());
    let missing: Vec<&String> = named.iter().filter(|name| !exists(name, &sources)).collect();
    assert!(missing.is_empty(), "there are no tests {missing:?}");
}
