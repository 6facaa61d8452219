//! All text of the project uses the words of docs/glossary.md, in lines of limited length.

mod old_words;
mod scan;

use std::{path::Path, process::Command};

use old_words::{ALLOWED, OLD_FILE_NAMES, OLD_NAMES, OLD_WORDS};
use scan::{Phrases, contains_name};

/// The lists themselves contain the old words.
const LISTS_OF_OLD_WORDS: &str = "tests/tests/docs/words";

/// Files whose lines may be longer: a program writes them, or they hold test data in one row per case.
const LONG_LINES: &[&str] = &[
    "charts/rowlock-crds/templates/taskqueues.yaml",
    "queue/schema.sql",
    "tests/alerts/databases.test.yaml",
    "tests/alerts/handlers.test.yaml",
    "tests/alerts/operator.test.yaml",
    "tests/alerts/paused.test.yaml",
    "tests/alerts/queues.test.yaml",
    "tests/alerts/silent.test.yaml",
    "tests/alerts/workers.test.yaml",
    "tests/tests/api_server/table.yaml",
];

struct Hit {
    file: String,
    line: usize,
    problem: String,
}

pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// The tracked files that people read.
pub(super) fn files() -> Vec<File> {
    let root = rowlock_tests::checkout();
    let list = Command::new("git")
        .args(["ls-files", "*.rs", "*.sql", "*.md", "*.yaml"])
        .current_dir(&root)
        .output()
        .expect("git lists the files");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let paths = String::from_utf8(list.stdout).unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    // A file that was deleted but not committed yet is listed, too.
    paths.lines().filter_map(|path| Some(File { path: path.to_owned(), text: read(path)? })).collect()
}

/// Fails if there are hits.
fn report(hits: &[Hit]) {
    let failures: Vec<String> =
        hits.iter().map(|hit| format!("{}:{}: {}", hit.file, hit.line, hit.problem)).collect();
    assert!(failures.is_empty(), "{} lines to change:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn old_words_are_gone() {
    let phrases = Phrases::new(OLD_WORDS);
    let mut hits = Vec::new();
    for file in files().iter().filter(|file| !file.path.starts_with(LISTS_OF_OLD_WORDS)) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (line, old, instead) in phrases.find(&file.text) {
            if !is_allowed(old, &file.path, lines[line - 1]) {
                let problem = format!("\"{old}\": write {instead}");
                hits.push(Hit { file: file.path.clone(), line, problem });
            }
        }
        for (index, line) in lines.iter().enumerate() {
            for (old, instead) in OLD_NAMES.iter().filter(|(old, _)| contains_name(line, old)) {
                let problem = format!("`{old}`: its name is {instead}");
                hits.push(Hit { file: file.path.clone(), line: index + 1, problem });
            }
        }
        // A file's name is text, too.
        let stem = Path::new(&file.path).file_stem().unwrap_or_default().to_string_lossy();
        let old_words = phrases.find(&stem).into_iter().map(|(_, old, _)| old);
        for old in old_words.chain(OLD_FILE_NAMES.iter().copied().filter(|old| *old == stem)) {
            let problem = format!("\"{old}\": name the file after its subject");
            hits.push(Hit { file: file.path.clone(), line: 1, problem });
        }
    }
    report(&hits);
}

/// Whether the word has an ordinary meaning there.
fn is_allowed(old: &str, path: &str, line: &str) -> bool {
    let line = line.to_lowercase();
    ALLOWED.iter().any(|allowed| {
        allowed.words.split('|').any(|word| word.trim() == old)
            && path.starts_with(allowed.below)
            && line.contains(allowed.near)
    })
}

#[test]
fn lines_fit() {
    let mut hits = Vec::new();
    for file in files().iter().filter(|file| !LONG_LINES.contains(&file.path.as_str())) {
        let limit = if has_extension(&file.path, "sql") { 100 } else { 110 };
        for (index, line) in file.text.lines().enumerate() {
            let length = line.chars().count();
            if length > limit && !cannot_wrap(&file.path, line, limit) {
                let problem = format!("{length} columns: wrap the line at {limit}");
                hits.push(Hit { file: file.path.clone(), line: index + 1, problem });
            }
        }
    }
    report(&hits);
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// A row of a table, or a line that one word makes too long, as a URL does.
fn cannot_wrap(path: &str, line: &str, limit: usize) -> bool {
    let is_row = has_extension(path, "md") && line.trim_start().starts_with('|');
    let indent = line.len() - line.trim_start().len();
    is_row || line.split_whitespace().any(|word| word.contains("://") && indent + word.len() > limit / 2)
}
