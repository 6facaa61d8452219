//! Every test that docs/testing.md names exists.

use std::{collections::BTreeSet, path::Path};

/// The names of all functions, modules and files of Rust code below a folder.
fn names_below(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            names_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            let text = std::fs::read_to_string(&path).unwrap();
            for keyword in ["fn ", "mod "] {
                names.extend(text.split(keyword).skip(1).map(|rest| {
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
                }));
            }
        }
    }
}

/// `a::b::{c,d}` names a, b, c and d; `*` matches anything.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split([':', '{', '}', ',']).map(str::trim).filter(|part| !part.is_empty() && !part.ends_with('*'))
}

#[test]
fn every_test_named_in_the_page_exists() {
    let root = rowlock_tests::checkout();
    let page = std::fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let mut known = BTreeSet::new();
    for folder in ["crds", "plan", "queue", "worker", "operator", "local", "cli", "daemon", "tests"] {
        names_below(&root.join(folder), &mut known);
    }
    let tables = page.split("## Faults that were found").nth(1).expect("the page has its tables");
    let named: Vec<&str> = tables
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains("::") && !name.contains(' '))
        .collect();
    assert!(named.len() > 100, "{}", named.len());
    let missing: Vec<&str> =
        named.into_iter().filter(|name| parts(name).any(|part| !known.contains(part))).collect();
    assert!(missing.is_empty(), "there are no tests {missing:?}");
}
