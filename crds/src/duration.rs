//! Durations in manifests.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, written as `500ms`, `90s`, `1h30m` or `7d`.
///
/// The grammar is `^([0-9]+(ms|s|m|h|d))+$`, the same as the pattern in the CRD: no signs, no fractions, no
/// spaces. So the API server accepts exactly what Rowlock reads. Parts add up.
///
/// ```
/// use rowlock_crds::Dur;
/// let dur: Dur = "1h30m".parse().unwrap();
/// assert_eq!(dur.as_duration().as_secs(), 5400);
/// assert_eq!(Dur::from_secs(90).to_string(), "1m30s");
/// assert!("1.5h".parse::<Dur>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dur(pub Duration);

/// Ten years. A longer duration is a typing error, and Postgres's timestamps are limited too.
pub(crate) const LONGEST: Duration = Duration::from_hours(3650 * 24);

/// The longest printed duration has 19 characters. Rules of the CRD need a bound.
pub(crate) const LONGEST_TEXT: usize = 32;

/// The units with their milliseconds, largest first (the order in which they are printed).
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Why a string is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurError {
    /// The string does not follow the grammar.
    #[error("`{0}` is not a duration; write whole numbers with units, such as 500ms, 15s, 1h30m or 7d")]
    Grammar(String),
    /// The duration is longer than ten years.
    #[error("`{0}` is longer than 3650d; choose a shorter duration")]
    TooLong(String),
    /// The string is longer than the CRD allows.
    #[error("`{0}` has more than 32 characters; write it shorter, such as 1h30m")]
    TooManyCharacters(String),
}

impl Dur {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration as a type of the standard library.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for Dur {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Dur> for Duration {
    fn from(dur: Dur) -> Self {
        dur.0
    }
}

impl FromStr for Dur {
    type Err = DurError;

    fn from_str(text: &str) -> Result<Self, DurError> {
        let grammar = || DurError::Grammar(text.to_owned());
        let too_long = || DurError::TooLong(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() || text.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(grammar)?;
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(grammar());
            }
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_end);
            let millis = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(grammar)?.1;
            let number: u64 = number.parse().map_err(|_| too_long())?;
            total =
                number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(too_long)?;
            rest = next;
        }
        let duration = Duration::from_millis(total);
        if duration > LONGEST {
            Err(too_long())
        } else if text.len() > LONGEST_TEXT {
            Err(DurError::TooManyCharacters(text.to_owned()))
        } else {
            Ok(Self(duration))
        }
    }
}

/// Prints the largest units first, and no fractions of a millisecond.
impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            let count = rest / millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            rest %= millis;
        }
        Ok(())
    }
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurVisitor)
    }
}

struct DurVisitor;

impl de::Visitor<'_> for DurVisitor {
    type Value = Dur;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 500ms, 15s, 1h30m or 7d")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Dur, E> {
        text.parse().map_err(E::custom)
    }
}
