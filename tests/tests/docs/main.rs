//! Runs the commands of README.md and docs/*.md unchanged, in order, in a clone; checks the arrows of
//! ARCHITECTURE.md, the paths that text names, and the words of all text.
//!
//! The tag of a block says what it is: `sh` and `sql` are run (`sh cluster` by the cluster tier), `output` is
//! the expected output of the block before (`…` matches anything), `yaml` is a manifest that is checked,
//! `text` is ignored. A comment marks a command that runs until Ctrl-C.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests, too, fail where they stand")]

mod alerts;
mod dashboards;
mod dependencies;
mod named_paths;
mod named_tests;
mod sandbox;
mod states;
mod words;

use std::path::Path;

use rowlock_tests::doc_blocks::{Block, Kind, blocks};
use sandbox::Sandbox;

#[test]
fn every_command_in_the_documentation_works() {
    let sandbox = Sandbox::make();
    for page in pages(&sandbox.clone) {
        let blocks = blocks(&page, &std::fs::read_to_string(sandbox.clone.join(&page)).unwrap());
        blocks.iter().filter(|block| block.kind == Kind::Yaml).for_each(check_manifest);
        sandbox.run(&page, &blocks);
    }
    sandbox.end();
}

/// README.md comes first: it creates what the other pages use.
fn pages(clone: &Path) -> Vec<String> {
    let docs = std::fs::read_dir(clone.join("docs")).unwrap();
    let paths = docs.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    let mut pages: Vec<String> =
        pages.map(|page| page.strip_prefix(clone).unwrap().display().to_string()).collect();
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    pages
}

fn check_manifest(block: &Block) {
    let manifests = rowlock_crds::parse_manifests(Path::new(&block.place), &block.text);
    let manifests = manifests.unwrap_or_else(|errors| panic!("{}: {errors:?}", block.place));
    assert_eq!(manifests.len(), 1, "{}", block.place);
}
