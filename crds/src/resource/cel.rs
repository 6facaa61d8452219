//! Rules in CEL, with messages that say what to change.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

/// The grammar of durations, the same as that of [`Dur`](crate::Dur).
pub(super) const DURATION: &str = "^([0-9]+(ms|s|m|h|d))+$";

/// A part alone is longer than ten years, by its digits. Parts below that cannot add up to what `duration()`
/// refuses.
const HUGE: &str = "[1-9]([0-9]{4,}d|[0-9]{5,}h|[0-9]{7,}m([^s]|$)|[0-9]{9,}s|[0-9]{12,}ms)";

/// A rule about the field itself.
pub(super) fn rule(rule: impl Into<String>, message: impl Into<String>) -> ValidationRule {
    ValidationRule { rule: rule.into(), message: Some(message.into()), ..ValidationRule::default() }
}

/// A rule that blames one field of several, such as `.max`.
pub(super) fn blaming(field: &str, rule: ValidationRule) -> ValidationRule {
    ValidationRule { field_path: Some(field.to_owned()), ..rule }
}

/// A rule whose message is an expression, and the message if that fails.
pub(super) fn telling(expression: &str, rule: ValidationRule) -> ValidationRule {
    ValidationRule { message_expression: Some(expression.to_owned()), ..rule }
}

/// A rule that knows what was there before, as an optional: nothing where the object is new.
pub(super) fn remembering(rule: ValidationRule) -> ValidationRule {
    ValidationRule { optional_old_self: Some(true), ..rule }
}

/// The text is a duration. The pattern of the schema says so too, to editors; this says what to write.
pub(super) fn is_duration() -> ValidationRule {
    rule(
        format!("self.matches('{DURATION}')"),
        "write whole numbers with units, such as 500ms, 15s, 1h30m or 7d",
    )
}

/// The duration is at most so long.
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

/// One duration is at least as long as another; true if one of them is none.
pub(super) fn at_least(field: &str, other: &str) -> String {
    let sound = |field: &str| format!("{field}.matches('{DURATION}') && !{field}.matches('{HUGE}')");
    format!("!({}) || !({}) || {} >= {}", sound(field), sound(other), millis(field), millis(other))
}

/// The milliseconds of a duration. CEL knows all our units but days: these are read as nanoseconds, which
/// nothing else of ours fills, and taken out again.
fn millis(field: &str) -> String {
    let nanos = format!("int(duration({field}.replace('d', 'ns')))");
    format!("({nanos} / 1000000 + {nanos} % 1000000 * 86400000)")
}
