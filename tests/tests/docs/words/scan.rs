//! Words of text and code, and phrases of them.

use std::collections::HashMap;

/// A word in lower case: `TaskQueue` and `task_queue` are two words each.
struct Word {
    text: String,
    /// Counted from 1.
    line: usize,
    /// Where it is in the text, in bytes.
    start: usize,
    end: usize,
}

/// Digits separate words as well.
fn words_of(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut line = 1;
    let mut previous: Option<char> = None;
    let mut following = text.chars().skip(1);
    for (at, c) in text.char_indices() {
        let next = following.next();
        if c == '\n' {
            line += 1;
        }
        if c.is_alphabetic() {
            // `fooBar` ends a word before B, and `HTTPServer` before S.
            let starts = match previous {
                Some(before) if before.is_alphabetic() => {
                    c.is_uppercase() && (before.is_lowercase() || next.is_some_and(char::is_lowercase))
                }
                _ => true,
            };
            match words.last_mut() {
                Some(word) if !starts => {
                    word.text.extend(c.to_lowercase());
                    word.end = at + c.len_utf8();
                }
                _ => words.push(Word {
                    text: c.to_lowercase().collect(),
                    line,
                    start: at,
                    end: at + c.len_utf8(),
                }),
            }
        }
        previous = Some(c);
    }
    words
}

const SEPARATORS: &[char] = &['.', ';', ':', ',', '(', ')', '"', '`', '?', '|', '{', '}', '[', ']', '='];

/// A phrase as its words, as it is written in the list, and what to write instead.
struct Phrase {
    words: Vec<String>,
    old: &'static str,
    instead: &'static str,
}

/// Phrases by their first word.
pub(super) struct Phrases(HashMap<String, Vec<Phrase>>);

impl Phrases {
    /// Of a list that separates phrases by `|`.
    pub(super) fn new(list: &[(&'static str, &'static str)]) -> Self {
        let mut phrases: HashMap<String, Vec<Phrase>> = HashMap::new();
        for (olds, instead) in list {
            for old in olds.split('|').map(str::trim) {
                let words: Vec<String> = words_of(old).into_iter().map(|word| word.text).collect();
                phrases.entry(words[0].clone()).or_default().push(Phrase { words, old, instead });
            }
        }
        Self(phrases)
    }

    /// The lines on which a phrase starts, with what was found and what to write instead. A phrase may
    /// continue in the next line of a comment, but not past the end of a sentence.
    pub(super) fn find(&self, text: &str) -> Vec<(usize, &'static str, &'static str)> {
        let words = words_of(text);
        let mut found = Vec::new();
        for (at, word) in words.iter().enumerate() {
            for phrase in self.0.get(&word.text).into_iter().flatten() {
                let here = &words[at..words.len().min(at + phrase.words.len())];
                let is_phrase = here.iter().map(|word| &word.text).eq(&phrase.words)
                    && here.windows(2).all(|pair| !text[pair[0].end..pair[1].start].contains(SEPARATORS));
                if is_phrase {
                    found.push((word.line, phrase.old, phrase.instead));
                }
            }
        }
        found.dedup();
        found
    }
}

/// Whether a line has a name that is no part of a longer one.
pub(super) fn contains_name(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    // A name that starts with `_` is the end of one, as of a metric.
    let may_start = |before: &str| name.starts_with('_') || !before.ends_with(is_part);
    line.match_indices(name)
        .any(|(at, _)| may_start(&line[..at]) && !line[at + name.len()..].starts_with(is_part))
}

#[test]
fn a_phrase_is_found_in_identifiers_and_across_lines() {
    let phrases = Phrases::new(&[("hand back", ""), ("beat|bell", "")]);
    let lines = |text: &str| phrases.find(text).into_iter().map(|(line, ..)| line).collect::<Vec<_>>();
    assert_eq!(lines("let a;\nlet hand_back = 1;\nHandBack;"), [2, 3]);
    assert_eq!(lines("/// to hand\n/// back"), [1]);
    assert_eq!(lines("by hand. Back"), [0; 0]);
    assert_eq!(lines("heartbeat beaten BEAT an HTTPBell1"), [1, 1]);
}

#[test]
fn a_name_is_found_as_a_whole() {
    assert!(contains_name("x: rowlock.tasks(1)", "rowlock.tasks"));
    assert!(!contains_name("rowlock.tasks_of", "rowlock.tasks"));
    assert!(!contains_name("rowlock.dev/template-hash", "rowlock.dev/template"));
    assert!(contains_name("rowlock_worker_allocated_workers{}", "_allocated_workers"));
}
