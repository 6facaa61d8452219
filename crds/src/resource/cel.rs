//! Validation rules in CEL, with messages that say what to change.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

/// The grammar of durations. It is the same as that of [`Dur`](crate::Dur).
pub(super) const DURATION: &str = "^([0-9]+(ms|s|m|h|d))+$";

/// A single part whose number of digits already makes it longer than ten years. `duration()` accepts every
/// sum of shorter parts.
const HUGE: &str = "[1-9]([0-9]{4,}d|[0-9]{5,}h|[0-9]{7,}m([^s]|$)|[0-9]{9,}s|[0-9]{12,}ms)";

/// A rule about the field itself.
pub(super) fn rule(rule: impl Into<String>, message: impl Into<String>) -> ValidationRule {
    ValidationRule { rule: rule.into(), message: Some(message.into()), ..ValidationRule::default() }
}

/// A rule whose error names one of several fields, such as `.max`.
pub(super) fn at_field(field: &str, rule: ValidationRule) -> ValidationRule {
    ValidationRule { field_path: Some(field.to_owned()), ..rule }
}

/// A rule whose message is a CEL expression, with a fixed message in case the expression fails.
pub(super) fn with_expression(expression: &str, rule: ValidationRule) -> ValidationRule {
    ValidationRule { message_expression: Some(expression.to_owned()), ..rule }
}

/// A rule that can read the old value, as an optional. For a new object there is no old value.
pub(super) fn with_old_value(rule: ValidationRule) -> ValidationRule {
    ValidationRule { optional_old_self: Some(true), ..rule }
}

/// The text is a duration. Editors read the pattern of the schema; this rule adds a message that says what to
/// write.
pub(super) fn is_duration() -> ValidationRule {
    rule(
        format!("self.matches('{DURATION}')"),
        "write whole numbers with units, such as 500ms, 15s, 1h30m or 7d",
    )
}

/// The duration is not longer than `longest`.
pub(super) fn at_most(longest: Duration, message: &str) -> ValidationRule {
    let rule_text = format!(
        "!self.matches('{DURATION}') || (!self.matches('{HUGE}') && {} <= {})",
        millis("self"),
        longest.as_millis()
    );
    rule(rule_text, message)
}

/// The duration is not zero.
pub(super) fn not_zero(example: &str) -> ValidationRule {
    rule(
        format!("!self.matches('{DURATION}') || self.matches('[1-9]')"),
        format!("is zero; make it longer, such as {example}"),
    )
}

/// One duration is at least as long as another. True if one of the two is not a valid duration.
pub(super) fn at_least(field: &str, other: &str) -> String {
    let valid = |field: &str| format!("{field}.matches('{DURATION}') && !{field}.matches('{HUGE}')");
    format!("!({}) || !({}) || {} >= {}", valid(field), valid(other), millis(field), millis(other))
}

/// The milliseconds of a duration. CEL has all of our units except days. So days are read as nanoseconds,
/// which our durations do not use, and converted afterwards.
fn millis(field: &str) -> String {
    let nanos = format!("int(duration({field}.replace('d', 'ns')))");
    format!("({nanos} / 1000000 + {nanos} % 1000000 * 86400000)")
}
