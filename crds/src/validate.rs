//! What the types of a manifest cannot express.

use std::ops::RangeInclusive;

use crate::explain::{FieldError, expected};
use crate::{Backoff, Dur, MAX_RETRY_DELAY, Manifest, RetryPolicy, TaskQueueSpec, annotations, containers};

/// Names of pods get a suffix of up to 11 characters and must fit in the 63 of a label.
const LONGEST_NAME: usize = 52;
/// A namespace is a label.
const LONGEST_NAMESPACE: usize = 63;
/// A thousand pods of ten; past that the database is the limit, not we.
const TOTAL: RangeInclusive<u32> = 0..=10_000;
/// What one claim may ask for.
const PER_POD: RangeInclusive<u32> = 1..=1000;
const MAX_ATTEMPTS: RangeInclusive<u16> = 1..=1000;
/// A list that somebody still reads; longer backoffs are exponential.
const MOST_DELAYS: usize = 100;
const FACTOR: RangeInclusive<u32> = 1..=100;
/// Billions of open tasks are a mistake somewhere else.
const BACKLOG: RangeInclusive<u64> = 1..=1_000_000_000;
/// Payloads are read whole into memory, one per worker; large things belong into object storage.
const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=64 * 1024 * 1024;

pub(crate) fn validate(manifest: &Manifest) -> Vec<FieldError> {
    let mut errors = Errors(Vec::new());
    errors.name("metadata.name", &manifest.name, LONGEST_NAME);
    if let Some(namespace) = &manifest.namespace {
        errors.name("metadata.namespace", namespace, LONGEST_NAMESPACE);
    }
    if let Some(queue_name) = &manifest.spec.queue_name {
        errors.name("spec.queueName", queue_name, LONGEST_NAME);
    }
    if manifest.dev_command().is_some_and(|command| command.trim().is_empty()) {
        let field = format!("metadata.annotations.{}", annotations::DEV_COMMAND);
        errors.add(&field, "is empty", "write the command that starts the handler, or take it out");
    }
    errors.workers(&manifest.spec);
    errors.handler(&manifest.spec);
    errors.retry(&manifest.spec.retry);
    errors.rest(&manifest.spec);
    errors.0
}

struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: &str, problem: impl Into<String>, cure: impl Into<String>) {
        self.0.push(FieldError::new(field, problem, cure));
    }

    /// Lower case letters, digits and dashes, neither first nor last a dash: the grammar of Kubernetes
    /// labels, and the check of `rowlock.queue.name`.
    fn name(&mut self, field: &str, name: &str, longest: usize) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let cure = format!("use at most {longest} of a-z, 0-9 and `-`, first and last not a `-`");
        if name.is_empty() {
            self.add(field, "is empty", cure);
        } else if name.len() > longest {
            self.add(field, format!("has {} characters", name.len()), cure);
        } else if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
            let problem =
                if wrong == '.' { "has a dot".to_owned() } else { format!("has the character `{wrong}`") };
            self.add(field, problem, cure);
        } else if name.starts_with('-') || name.ends_with('-') {
            self.add(field, "starts or ends with `-`", cure);
        }
    }

    /// A number within a range.
    fn within<N: PartialOrd + std::fmt::Display>(
        &mut self,
        field: &str,
        number: &N,
        range: &RangeInclusive<N>,
    ) {
        if !range.contains(number) {
            let cure = expected(field).map_or_else(
                || format!("make it a number from {} to {}", range.start(), range.end()),
                |expected| format!("make it {expected}"),
            );
            self.add(field, format!("is {number}"), cure);
        }
    }

    fn not_zero(&mut self, field: &str, dur: Dur, example: &str) {
        if dur.is_zero() {
            self.add(field, "is no time at all", format!("make it longer, such as {example}"));
        }
    }

    fn workers(&mut self, spec: &TaskQueueSpec) {
        let workers = &spec.workers;
        self.within("spec.workers.total", &workers.total, &TOTAL);
        self.within("spec.workers.perPod", &workers.per_pod, &PER_POD);
        let Some(autoscaling) = &workers.autoscaling else { return };
        if autoscaling.min > workers.total {
            let problem = format!("is {}, more than workers.total ({})", autoscaling.min, workers.total);
            self.add("spec.workers.autoscaling.min", problem, "lower it, or raise workers.total");
        }
        self.not_zero("spec.workers.autoscaling.waitTarget", autoscaling.wait_target, "5s");
    }

    fn handler(&mut self, spec: &TaskQueueSpec) {
        let http = &spec.handler.http;
        self.within("spec.handler.http.port", &http.port, &(1..=u16::MAX));
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
        if !http.path.starts_with('/') || http.path.contains(odd) {
            let problem = format!("is `{}`", http.path);
            self.add("spec.handler.http.path", problem, "write a path alone, such as /tasks");
        }
        let Some(template) = &spec.template else { return };
        let names = template.pointer("/spec/containers").and_then(serde_json::Value::as_array);
        let has_handler = names.is_some_and(|list| list.iter().any(|c| c["name"] == containers::HANDLER));
        if !template.is_object() {
            self.add("spec.template", "is not a mapping", "write a pod template: spec.containers and so on");
        } else if !has_handler {
            let problem = format!("has no container `{}`", containers::HANDLER);
            self.add(
                "spec.template.spec.containers",
                problem,
                "give the container that does the tasks this name",
            );
        }
    }

    fn retry(&mut self, retry: &RetryPolicy) {
        self.within("spec.retry.maxAttempts", &retry.max_attempts, &MAX_ATTEMPTS);
        self.within("spec.retry.jitterPercent", &retry.jitter_percent, &(0..=100));
        for (index, status) in retry.final_statuses.iter().enumerate() {
            if !(300..=599).contains(status) {
                let cure = "write statuses of failed answers, from 300 to 599";
                self.add(&format!("spec.retry.final[{index}]"), format!("is {status}"), cure);
            }
        }
        match &retry.backoff {
            Backoff::Fixed(delay) => self.delay("spec.retry.backoff.fixed", *delay),
            Backoff::Delays(delays) => {
                let field = "spec.retry.backoff.delays";
                if delays.is_empty() {
                    self.add(field, "is empty", "write at least one delay, such as [15s]");
                } else if delays.len() > MOST_DELAYS {
                    let cure = format!("write at most {MOST_DELAYS}, or use exponential");
                    self.add(field, format!("has {} delays", delays.len()), cure);
                }
                for (index, delay) in delays.iter().enumerate() {
                    self.delay(&format!("{field}[{index}]"), *delay);
                }
            }
            Backoff::Exponential { initial, factor, max } => {
                let field = "spec.retry.backoff.exponential";
                self.not_zero(&format!("{field}.initial"), *initial, "1s");
                self.within(&format!("{field}.factor"), factor, &FACTOR);
                self.delay(&format!("{field}.max"), *max);
                if max < initial {
                    let problem = format!("is {max}, shorter than initial ({initial})");
                    self.add(&format!("{field}.max"), problem, "make it at least as long as initial");
                }
            }
        }
    }

    fn delay(&mut self, field: &str, delay: Dur) {
        if delay.0 > MAX_RETRY_DELAY {
            self.add(field, format!("is {delay}"), format!("make it at most {}", Dur(MAX_RETRY_DELAY)));
        }
    }

    fn rest(&mut self, spec: &TaskQueueSpec) {
        self.not_zero("spec.timeout", spec.timeout, "60s");
        self.within("spec.limits.backlog", &spec.limits.backlog, &BACKLOG);
        self.within("spec.limits.payloadBytes", &spec.limits.payload_bytes, &PAYLOAD_BYTES);
        if let Some(database) = &spec.database {
            for (field, text) in [("name", &database.secret_ref.name), ("key", &database.secret_ref.key)] {
                if text.is_empty() {
                    let field = format!("spec.database.secretRef.{field}");
                    self.add(&field, "is empty", "write which Secret and which of its keys has the URL");
                }
            }
        }
    }
}
