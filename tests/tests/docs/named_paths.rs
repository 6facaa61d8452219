//! Every file of the repository that a comment or a page names exists.

use crate::words::files;

/// Kinds of files that text names.
const EXTENSIONS: [&str; 8] = ["rs", "sql", "md", "sh", "py", "yaml", "toml", "tpl"];

/// Characters of a path. Patterns such as `docs/*.md` and `{a,b}.rs` are no paths.
fn is_in_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-./*{}<>:".contains(c)
}

/// The paths in a text that start at the root of the repository, which has these folders.
fn named_paths<'a>(text: &'a str, folders: &[String]) -> Vec<&'a str> {
    let words = text.split(|c| !is_in_path(c)).map(|word| word.trim_matches(['.', ':']));
    words.filter(|word| is_path(word, folders)).collect()
}

fn is_path(word: &str, folders: &[String]) -> bool {
    let is_known = |(folder, _): (&str, &str)| folders.iter().any(|known| known == folder);
    let is_file = word.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension));
    is_file && word.split_once('/').is_some_and(is_known) && !word.contains(['*', '{', '}', '<', '>', ':'])
}

#[test]
fn every_file_that_text_names_exists() {
    let root = rowlock_tests::checkout();
    let files = files();
    let mut folders: Vec<String> =
        files.iter().filter_map(|file| Some(file.path.split_once('/')?.0.to_owned())).collect();
    folders.sort();
    folders.dedup();
    let (mut named, mut missing) = (0, Vec::new());
    for file in files.iter().filter(|file| file.path != "tests/tests/docs/named_paths.rs") {
        for path in named_paths(&file.text, &folders) {
            named += 1;
            if !root.join(path).is_file() {
                missing.push(format!("{}: {path}", file.path));
            }
        }
    }
    assert!(named > 100, "only {named} paths were found");
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}

#[test]
fn paths_from_the_root_are_found_in_text() {
    let folders = ["queue".to_owned(), "docs".to_owned()];
    let text =
        "See `queue/src/claim.rs`, (docs/sql.md). Not docs/*.md, src/lib.rs, queue/src, or other/docs/a.md.";
    assert_eq!(named_paths(text, &folders), ["queue/src/claim.rs", "docs/sql.md"]);
}
