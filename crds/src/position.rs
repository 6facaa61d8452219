//! Finds the line of a field in a YAML text.
//!
//! The YAML parser itself finds it: a visitor walks down to the field and fails there on purpose, and the
//! parser's error contains the line. So it works for flow style, comments and anchors as well as for block
//! style.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Deserializer;

use crate::field_error::FieldError;

/// More documents than a generator writes into one file.
const MOST_DOCUMENTS: usize = 10_000;

/// Deeper than any real manifest. The parser's time grows with the square of the depth.
const DEEPEST: usize = 500;

/// Finds a text that would keep the parser busy for minutes, with the line. It is refused before it is
/// parsed.
pub(crate) fn too_much(text: &str) -> Option<(usize, FieldError)> {
    let (mut documents, mut depth) = (1, 0_usize);
    for (index, line) in text.lines().enumerate() {
        if is_marker(line) {
            (documents, depth) = (documents + 1, 0);
        }
        let error = |problem: &str, hint: &str| Some((index + 1, FieldError::new("document", problem, hint)));
        if documents > MOST_DOCUMENTS {
            return error("the file has more than 10000 documents", "split it");
        }
        let marks = line.split_ascii_whitespace().take_while(|word| ["-", "?"].contains(word)).count();
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => continue,
            }
            if depth > DEEPEST {
                break;
            }
        }
        if depth.max(marks) > DEEPEST {
            return error("is nested more than 500 deep", "reduce the nesting");
        }
    }
    None
}

/// Whether a document begins on this line.
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// Where the content of a document begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// The first byte of its first line.
    offset: usize,
    /// The number of lines before that.
    lines: usize,
}

/// The positions of the documents of a text, found in one pass.
pub(crate) struct Positions<'a> {
    text: &'a str,
    documents: Deserializer<'a>,
    last: Position,
}

impl<'a> Positions<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, documents: Deserializer::from_str(text), last: Position::default() }
    }

    /// The position of the next document. If the parser does not report one, the position of the previous
    /// document.
    pub(crate) fn next_document(&mut self) -> Position {
        let root = self.documents.next().and_then(|document| {
            let found = Probe { steps: &[] }.deserialize(document).err()?;
            Some(found.location()?.line().saturating_sub(1))
        });
        while root.is_some_and(|root| self.last.lines < root) {
            let Some(end) = self.text[self.last.offset..].find('\n') else { break };
            self.last = Position { offset: self.last.offset + end + 1, lines: self.last.lines + 1 };
        }
        self.last
    }
}

/// The line (from 1) of a field such as `spec.retry.backoff.delays[1]` in the document at that position. If
/// the field is not written, the line of its nearest parent.
pub(crate) fn line_of(text: &str, position: Position, field: &str) -> usize {
    let rest = text.get(position.offset..).unwrap_or_default();
    // The parser reads ahead, so it gets only this document and not the ones after it.
    let next =
        rest.match_indices("\n---").find(|(at, _)| rest[at + 1..].lines().next().is_some_and(is_marker));
    let (steps, document) = (steps(field), next.map_or(rest, |(at, _)| &rest[..=at]));
    let found = (0..=steps.len()).rev().find_map(|depth| line_at(document, &steps[..depth]));
    position.lines + found.unwrap_or(1)
}

fn line_at(text: &str, steps: &[Step]) -> Option<usize> {
    let document = Deserializer::from_str(text).next()?;
    Probe { steps }.deserialize(document).err()?.location().map(|location| location.line())
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        steps.extend(pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())));
        steps.extend(pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()).map(Step::Item));
    }
    steps
}

/// Deserializes nothing. It fails at the end of its steps.
struct Probe<'a> {
    steps: &'a [Step],
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Any value at the end of the steps is an error. A scalar before that ends the walk.
impl Probe<'_> {
    fn arrive<E: de::Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.arrive()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.arrive()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.arrive()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.arrive()?;
        let Some((Step::Item(wanted), rest)) = self.steps.split_first() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut index = 0;
        loop {
            let more = if index == *wanted {
                items.next_element_seed(Probe { steps: rest })?
            } else {
                items.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if more.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.arrive()?;
        let Some((Step::Key(wanted), rest)) = self.steps.split_first() else {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(found) = entries.next_key_seed(Key { wanted, last: rest.is_empty() })? {
            if found {
                entries.next_value_seed(Probe { steps: rest })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Tells whether a key is the wanted one. If the walk ends at that key it fails there, because the line of a
/// field is the line of its key.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.last) {
            (true, true) => Err(E::custom("here")),
            (found, _) => Ok(found),
        }
    }
}
