//! When a failed task is retried. Pure functions, defined for every input, without overflow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Dur;

/// The longest delay before a retry: a year. The limit holds for every policy. It keeps `now() + delay` a
/// valid timestamp.
pub const MAX_RETRY_DELAY: Duration = Duration::from_hours(365 * 24);

/// How often and when a failed task is retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in total, including the first. 1 to 1000, default: 6.
    pub max_attempts: u16,
    /// How long to wait after a failed attempt: one of `delays`, `exponential`, `fixed`. Default: delays of
    /// 15s, 30s, 3m and 1h.
    pub backoff: Backoff,
    /// Random spread of each delay in percent, so that tasks that fail together are not retried together. 0
    /// to 100, default: 10.
    pub jitter_percent: u8,
    /// HTTP statuses of the handler after which a retry is useless: the task is dead at once. Default: 400,
    /// 404, 410, 422.
    #[serde(rename = "final")]
    pub final_statuses: Vec<u16>,
    /// How often the handler may snooze a task (429 or 503 with Retry-After) before it is dead. 1 to 1000000.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_snoozes: Option<u32>,
}

/// The delay after each failed attempt, before jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "kube", schemars(with = "BackoffFields"))]
#[serde(try_from = "BackoffFields", into = "BackoffFields")]
pub enum Backoff {
    /// One delay per failed attempt; the last one repeats.
    Delays(Vec<Dur>),
    /// `initial`, then each time `factor` times as long, up to `max`.
    Exponential {
        /// The first delay.
        initial: Dur,
        /// The factor from one delay to the next.
        factor: u32,
        /// The longest delay.
        max: Dur,
    },
    /// Always the same.
    Fixed(Dur),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 6,
            backoff: Backoff::default(),
            jitter_percent: 10,
            final_statuses: vec![400, 404, 410, 422],
            max_snoozes: None,
        }
    }
}

/// A glitch is over in seconds, a rollout in minutes, an outage in hours. So the delays are 15 s, 30 s, 3 min
/// and 1 h.
impl Default for Backoff {
    fn default() -> Self {
        Self::Delays([15, 30, 180, 3600].map(Dur::from_secs).to_vec())
    }
}

impl RetryPolicy {
    /// How long to wait before the next attempt, after `failed_attempts` failed attempts (at least 1).
    ///
    /// The caller passes a random number in `0.0..1.0` as `jitter`: 0.5 gives the delay as written, 0 the
    /// shortest, 1 the longest.
    ///
    /// ```
    /// use rowlock_crds::RetryPolicy;
    /// let policy = RetryPolicy::default();
    /// let delays: Vec<u64> = (1..=5).map(|failed| policy.delay(failed, 0.5).as_secs()).collect();
    /// assert_eq!(delays, [15, 30, 180, 3600, 3600]);
    /// assert_eq!(policy.delay(1, 0.0).as_millis(), 13_500);
    /// ```
    #[must_use]
    pub fn delay(&self, failed_attempts: u16, jitter: f64) -> Duration {
        let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
        let spread = f64::from(self.jitter_percent.min(100)) / 100.0;
        let base = self.backoff.delay(failed_attempts).min(MAX_RETRY_DELAY);
        let seconds = base.as_secs_f64() * (1.0 + spread * (2.0 * jitter - 1.0));
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_RETRY_DELAY).min(MAX_RETRY_DELAY)
    }

    /// Whether this status makes the task dead at once.
    #[must_use]
    pub fn is_final(&self, status: u16) -> bool {
        self.final_statuses.contains(&status)
    }
}

impl Backoff {
    /// The delay after `failed_attempts` failures, without jitter.
    ///
    /// ```
    /// use rowlock_crds::{Backoff, Dur};
    /// let backoff = Backoff::Exponential { initial: Dur::from_secs(1), factor: 2, max: Dur::from_secs(60) };
    /// let delays: Vec<u64> = (1..=8).map(|failed| backoff.delay(failed).as_secs()).collect();
    /// assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    /// ```
    #[must_use]
    pub fn delay(&self, failed_attempts: u16) -> Duration {
        let index = failed_attempts.saturating_sub(1);
        match self {
            Self::Fixed(delay) => delay.0,
            // A manifest without delays is refused when it is read. Here an empty list means: retry at once.
            Self::Delays(delays) => {
                delays.get(usize::from(index)).or(delays.last()).map_or(Duration::ZERO, |delay| delay.0)
            }
            Self::Exponential { initial, factor, max } => {
                let times = u128::from(*factor).max(1).saturating_pow(u32::from(index));
                let grown = initial.0.as_nanos().saturating_mul(times);
                if grown < max.0.as_nanos() { from_nanos(grown) } else { max.0 }
            }
        }
    }
}

/// A duration of that many nanoseconds, or the longest possible one.
fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    let part = u32::try_from(nanos % PER_SECOND).unwrap_or_default();
    u64::try_from(nanos / PER_SECOND).map_or(Duration::MAX, |seconds| Duration::new(seconds, part))
}

/// A backoff as a manifest writes it: exactly one of three fields. A serde enum would need YAML tags.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BackoffFields {
    /// One delay per failed attempt, such as [15s, 1m]; the last one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delays: Option<Vec<Dur>>,
    /// Delays that grow by a factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exponential: Option<ExponentialFields>,
    /// The same delay each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed: Option<Dur>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExponentialFields {
    /// The first delay.
    initial: Dur,
    /// Factor from one delay to the next. 1 to 100, default: 2.
    #[serde(default = "default_factor")]
    factor: u32,
    /// The longest delay.
    max: Dur,
}

const fn default_factor() -> u32 {
    2
}

impl TryFrom<BackoffFields> for Backoff {
    type Error = &'static str;

    fn try_from(fields: BackoffFields) -> Result<Self, &'static str> {
        match (fields.delays, fields.exponential, fields.fixed) {
            (Some(delays), None, None) => Ok(Self::Delays(delays)),
            (None, Some(ExponentialFields { initial, factor, max }), None) => {
                Ok(Self::Exponential { initial, factor, max })
            }
            (None, None, Some(delay)) => Ok(Self::Fixed(delay)),
            (None, None, None) => Err("sets no backoff; set one of delays, exponential or fixed"),
            _ => Err("sets more than one backoff; keep one of delays, exponential or fixed"),
        }
    }
}

impl From<Backoff> for BackoffFields {
    fn from(backoff: Backoff) -> Self {
        let (mut delays, mut exponential, mut fixed) = (None, None, None);
        match backoff {
            Backoff::Delays(list) => delays = Some(list),
            Backoff::Exponential { initial, factor, max } => {
                exponential = Some(ExponentialFields { initial, factor, max });
            }
            Backoff::Fixed(delay) => fixed = Some(delay),
        }
        Self { delays, exponential, fixed }
    }
}
