//! The line of a field in a YAML text.
//!
//! The YAML parser is asked itself: a visitor walks down to the field and fails there on purpose, and the
//! parser's error says where that was. So flow style, comments and anchors are as good as block style.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Deserializer;

/// The line (from 1) of a field such as `spec.retry.backoff.delays[1]` in the document with that index; of
/// its nearest parent where the field is not written.
pub(crate) fn line_of(text: &str, document: usize, field: &str) -> usize {
    let steps = steps(field);
    (0..=steps.len()).rev().find_map(|depth| line_at(text, document, &steps[..depth])).unwrap_or(1)
}

fn line_at(text: &str, document: usize, steps: &[Step]) -> Option<usize> {
    let document = Deserializer::from_str(text).nth(document)?;
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

/// Deserializes nothing; fails at the end of its steps.
struct Probe<'a> {
    steps: &'a [Step],
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What is met at the end of the steps is an error, whatever it is; a scalar met earlier ends the walk.
impl Probe<'_> {
    fn met<E: de::Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.met()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.met()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.met()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.met()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.met()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.met()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.met()?;
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
        self.met()?;
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

/// Tells whether a key is the wanted one; fails at it where the walk ends there, for the line of a field is
/// that of its key.
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
