//! Checks the arrows of ARCHITECTURE.md and the rules of deny.toml against `cargo metadata`.
//!
//! `cargo deny check` does the same and more. Building it takes longer than all other tests together, so it
//! is optional.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

const CHECKOUT: &str = "..";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The only allowed source of dependencies.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates whose arrows are not drawn, or not all: they may depend on every other one.
const NOT_DRAWN: [&str; 2] = ["rowlock-tests", "rowlock-bench"];

/// The plan does no IO and uses neither clock nor random numbers.
const NOT_IN_PLAN: [&str; 5] = ["tokio", "sqlx", "hyper", "fastrand", "rand"];

/// The arrows of ARCHITECTURE.md: the crates each crate depends on.
struct Arrows(BTreeMap<String, BTreeSet<String>>);

impl Arrows {
    /// A line holds chains of crates between arrows (`a <- b -> c, d`); two spaces or more end a chain.
    fn read() -> Self {
        let page = std::fs::read_to_string(Path::new(CHECKOUT).join("ARCHITECTURE.md")).unwrap();
        let (_, rest) = page.split_once("```text\n").unwrap();
        let (drawing, _) = rest.split_once("```").unwrap();
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for chain in drawing.lines().flat_map(|line| line.split("  ")) {
            let (mut sides, mut heads) = (vec![Vec::new()], Vec::new());
            for word in chain.split_whitespace() {
                match word {
                    "->" | "<-" => {
                        heads.push(word);
                        sides.push(Vec::new());
                    }
                    folder => sides.last_mut().unwrap().push(package(folder.trim_end_matches(','))),
                }
            }
            for (pair, head) in sides.windows(2).zip(heads) {
                let (from, to) = if head == "->" { (&pair[0], &pair[1]) } else { (&pair[1], &pair[0]) };
                for name in to {
                    arrows.entry(name.clone()).or_default();
                }
                for name in from {
                    arrows.entry(name.clone()).or_default().extend(to.iter().cloned());
                }
            }
        }
        Self(arrows)
    }

    /// The crates that a crate reaches over one or more arrows.
    fn reached_from<'a>(&'a self, name: &str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut left: Vec<&String> = self.0[name].iter().collect();
        while let Some(next) = left.pop() {
            if reached.insert(next.as_str()) {
                left.extend(&self.0[next]);
            }
        }
        reached
    }
}

/// The package in a folder.
fn package(folder: &str) -> String {
    if folder == "cli" { "rowlock".to_owned() } else { format!("rowlock-{folder}") }
}

struct Packages {
    all: Vec<Value>,
    rules: String,
}

impl Packages {
    fn read() -> Self {
        let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET];
        let printed = Command::new(env!("CARGO")).args(arguments).current_dir(CHECKOUT).output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let mut metadata: Value = serde_json::from_slice(&printed.stdout).unwrap();
        let Value::Array(all) = metadata["packages"].take() else { panic!("no packages") };
        let rules = std::fs::read_to_string(Path::new(CHECKOUT).join("deny.toml")).unwrap();
        Self { all, rules }
    }

    /// The `[dependencies]` of each package, without those of its tests and build.
    fn named(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in &self.all {
            // All versions of a package together.
            named.entry(text(package, "name")).or_default().extend(dependencies(package));
        }
        named
    }

    fn dependencies_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        let package = self.all.iter().filter(move |package| text(package, "name") == name);
        package.flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
    }

    /// The optional dependencies of a package.
    fn optional<'a>(&'a self, name: &'a str) -> BTreeSet<&'a str> {
        let optional = self.dependencies_of(name).filter(|dependency| dependency["optional"] == true);
        optional.map(|dependency| text(dependency, "name")).collect()
    }

    /// The features that a package enables in each crate of the workspace.
    fn asked<'a>(&'a self, name: &'a str) -> Vec<&'a Vec<Value>> {
        let ours =
            self.dependencies_of(name).filter(|dependency| text(dependency, "name").starts_with("rowlock"));
        ours.filter_map(|dependency| dependency["features"].as_array()).collect()
    }

    /// The quoted strings of a rule's list.
    fn rule(&self, start: &str) -> Vec<&str> {
        let (_, rest) =
            self.rules.split_once(start).unwrap_or_else(|| panic!("{start:?} is not in deny.toml"));
        let (list, _) = rest.split_once(']').unwrap();
        list.split('"').skip(1).step_by(2).collect()
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().unwrap().iter();
    all.filter(|dependency| dependency["kind"].is_null()).map(|dependency| text(dependency, "name"))
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let arrows = Arrows::read();
    let packages = Packages::read();
    for (name, named) in packages.named() {
        if !name.starts_with("rowlock") || NOT_DRAWN.contains(&name) {
            continue;
        }
        assert!(arrows.0.contains_key(name), "{name} is not among the arrows of ARCHITECTURE.md");
        let reached = arrows.reached_from(name);
        let ours = named.iter().filter(|other| other.starts_with("rowlock"));
        let others: Vec<_> = ours.filter(|other| !reached.contains(**other)).collect();
        assert!(others.is_empty(), "{name} names {others:?}, and no arrow of ARCHITECTURE.md leads there");
        let missing: Vec<_> = arrows.0[name].iter().filter(|other| !named.contains(other.as_str())).collect();
        assert!(missing.is_empty(), "an arrow of ARCHITECTURE.md leads from {name} to {missing:?}, unnamed");
    }
}

#[test]
fn only_the_queue_uses_postgres_and_the_plan_does_no_io() {
    let packages = Packages::read();
    let named = packages.named();
    let may = packages.rule("{ name = \"sqlx\", wrappers = [");
    let talk = named.iter().filter(|(name, names)| !name.starts_with("sqlx") && names.contains("sqlx"));
    let others: Vec<_> = talk.map(|(name, _)| *name).filter(|name| !may.contains(name)).collect();
    assert!(others.is_empty(), "{others:?} name sqlx");
    assert!(!named.contains_key("openssl"), "rustls is enough");

    // A feature's optional dependencies are absent unless a crate enables it, and the plan does not.
    let asked = packages.asked("rowlock-plan");
    assert!(asked.iter().all(|features| features.is_empty()), "{asked:?}");
    let optional = packages.optional("rowlock-crds");
    let mut reached = BTreeSet::from(["rowlock-plan"]);
    let mut left = vec!["rowlock-plan"];
    while let Some(name) = left.pop() {
        let next = named.get(name).into_iter().flatten();
        let there = next.filter(|next| name != "rowlock-crds" || !optional.contains(*next));
        left.extend(there.filter(|next| reached.insert(next)));
    }
    for name in NOT_IN_PLAN {
        assert!(!reached.contains(name), "plan reaches {name}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry_under_an_allowed_licence() {
    let packages = Packages::read();
    let allowed = packages.rule("[licenses]\nallow = [");
    for package in packages.all.iter().filter(|package| !package["source"].is_null()) {
        let name = text(package, "name");
        assert_eq!(text(package, "source"), REGISTRY, "{name}");
        let licence = Expression::parse_mode(text(package, "license"), ParseMode::LAX)
            .unwrap_or_else(|error| panic!("the licence of {name}: {error}"));
        assert!(licence.evaluate(|asked| allowed.contains(&asked.to_string().as_str())), "{name}: {licence}");
    }
}

#[test]
fn every_version_is_in_the_root_manifest() {
    for name in Arrows::read().0.keys() {
        let folder = name.strip_prefix("rowlock-").unwrap_or("cli");
        let path = Path::new(CHECKOUT).join(folder).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).unwrap();
        let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
        let own = dependencies.lines().take_while(|line| !line.starts_with('['));
        let literal: Vec<_> = own.filter(|line| line.contains("= \"") || line.contains("version")).collect();
        assert!(literal.is_empty(), "{}: {literal:?}", path.display());
    }
}
