//! The settings of a queue's pods that are not in the template: resources of the worker, and rollouts.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Dur;
use crate::bounds::{LONGEST_QUANTITY, SURGE_PERCENT, SURGE_PODS};

/// The container that Rowlock adds to each pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkerSpec {
    /// Resource requests and limits of the worker container. Default: those of the operator's chart.
    pub resources: ResourcesSpec,
}

/// Resources of a container. Each one named here overrides the value of the operator's chart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResourcesSpec {
    /// Requests by resource, such as cpu or memory.
    #[serde(deserialize_with = "crate::unique_keys::map", skip_serializing_if = "Option::is_none")]
    pub requests: Option<BTreeMap<String, Quantity>>,
    /// Limits by resource, such as cpu or memory.
    #[serde(deserialize_with = "crate::unique_keys::map", skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, Quantity>>,
}

/// How pods are replaced when the template changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// Pods that a rollout adds at a time: a number, or a percentage of the pods, rounded up. Default: 10%.
    pub max_surge: Surge,
    /// Try a changed template on a share of the pods first. Default: all pods get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
}

/// A share of the pods gets a changed template first. Their runs are compared with those of the old pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CanarySpec {
    /// Pods that get the new template first, beside the others: a number, or a percentage of the pods,
    /// rounded up. Default: 10%.
    pub share: Surge,
    /// How many runs of these pods must have ended before the others follow. Default: 50.
    pub min_runs: u64,
    /// How long these pods must have been ready before the others follow. Default: 2m.
    pub min_time: Dur,
    /// How long `minRuns` are waited for. Then what has been seen decides. Default: 30m.
    pub max_time: Dur,
    /// How many more of a hundred runs may fail in the new pods than in the old ones. Default: 5.
    pub extra_failure_percent: u8,
    /// How much longer a run may take on average, in percent. Default: 50.
    pub extra_duration_percent: u16,
}

impl Default for CanarySpec {
    fn default() -> Self {
        Self {
            share: Surge::default(),
            min_runs: 50,
            min_time: Dur::from_secs(120),
            max_time: Dur::from_secs(30 * 60),
            extra_failure_percent: 5,
            extra_duration_percent: 50,
        }
    }
}

/// Pods that a rollout adds at a time.
///
/// ```
/// use rowlock_crds::Surge;
/// let read = |yaml: &str| serde_yaml::from_str::<Surge>(yaml).map_err(|error| error.to_string());
/// assert_eq!(read("25%"), Ok(Surge::Percent(25)));
/// assert_eq!(read("3"), Ok(Surge::Pods(3)));
/// assert!(read("0").is_err() && read("101%").is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    /// A number of pods, from 1 to 1000.
    Pods(u32),
    /// A percentage of the current pods, from 1 to 100, rounded up.
    Percent(u32),
}

/// A pod holds two connections, and a tenth of the database's connections is kept free. So the pods that a
/// rollout adds have enough connections.
impl Default for Surge {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl fmt::Display for Surge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => write!(f, "{pods}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Surge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pods(pods) => serializer.serialize_u32(*pods),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Surge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text("a number of pods or a percentage")).and_then(|text| {
            let parsed = match text.strip_suffix('%') {
                Some(percent) => whole(percent).filter(|n| SURGE_PERCENT.contains(n)).map(Self::Percent),
                None => whole(&text).filter(|n| SURGE_PODS.contains(n)).map(Self::Pods),
            };
            parsed.ok_or_else(|| {
                let hint = "write 1 to 1000, or 1% to 100%";
                de::Error::custom(format!("`{text}` is neither a number of pods nor a percentage; {hint}"))
            })
        })
    }
}

/// A whole number without a sign or leading zeros.
fn whole(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

/// An amount of a resource, such as `100m`, `0.5` or `64Mi`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Quantity(pub String);

/// Suffixes of a quantity, apart from exponents.
const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Whether it is valid. The CRD has the same grammar as a pattern.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(end);
        let number = match number.split_once('.') {
            Some((whole, part)) => digits(whole) && digits(part),
            None => digits(number),
        };
        let power = suffix.strip_prefix(['e', 'E']).map(|text| text.strip_prefix(['-', '+']).unwrap_or(text));
        let power = power.is_some_and(|power| digits(power) && power.len() <= 2);
        self.0.len() <= LONGEST_QUANTITY && number && (power || SUFFIXES.contains(&suffix))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let quantity = Self(deserializer.deserialize_any(Text("a quantity such as 100m or 64Mi"))?);
        if quantity.is_valid() {
            return Ok(quantity);
        }
        let hint = "write a number with a unit, such as 100m or 64Mi";
        Err(de::Error::custom(format!("`{}` is not a quantity; {hint}", quantity.0)))
    }
}

/// Reads a string, or a whole number as a string. Holds what the error says was expected.
struct Text(&'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}
