//! Checks of a manifest that its types cannot express.

use std::ops::RangeInclusive;

use crate::bounds::{
    BACKLOG, CANARY_RUNS, EXTRA_DURATION_PERCENT, EXTRA_FAILURE_PERCENT, FACTOR, FINAL_STATUS,
    JITTER_PERCENT, LONGEST_NAME, LONGEST_NAMESPACE, LONGEST_PATH, LONGEST_SECRET, MAX_ATTEMPTS, MAX_SNOOZES,
    MOST_DELAYS, MOST_FINAL, PAYLOAD_BYTES, PER_POD, PORT, REPLICAS, TOTAL,
};
use crate::field_error::{FieldError, expected, nearest};
use crate::{
    Backoff, Dur, MAX_RETRY_DELAY, Manifest, RetryPolicy, ScalingMode, Surge, TaskQueueSpec, WorkerSpec,
    annotations, api, labels, template,
};

/// Fields that shape the operator's own pods, and what to do where `targetRef` names others.
pub(crate) const ONLY_WITH_TEMPLATE: &[(&str, &str, &str)] = &[
    ("worker", "resources", "is only for `template`; remove it, and set them in the Deployment of targetRef"),
    ("rollout", "maxSurge", "is only for `template`; remove it, and set it in the Deployment of targetRef"),
    ("rollout", "canary", "is only for `template`; remove it: the operator only scales the Deployment"),
];

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
        errors.add(&field, "is empty", "write the command that starts the handler, or remove it");
    }
    errors.0.extend(unknown_names(manifest.annotations.keys(), manifest.labels.keys()));
    errors.workers(&manifest.spec);
    errors.handler(&manifest.spec);
    errors.target(&manifest.spec);
    errors.canary(&manifest.spec);
    errors.retry(&manifest.spec.retry);
    errors.rest(&manifest.spec);
    errors.0
}

/// Annotations and labels that begin with Rowlock's prefix and have no meaning on a `TaskQueue`. They are
/// misspelt or belong to another release.
///
/// `rowlock dev` refuses them. The API server accepts any, so in a cluster the operator reports them in an
/// event.
pub fn unknown_names<'a>(
    annotations: impl IntoIterator<Item = &'a String>,
    labels: impl IntoIterator<Item = &'a String>,
) -> Vec<FieldError> {
    let unknown = |field: &str, name: &str, known: &[&str]| {
        let own = name.strip_prefix(api::GROUP).is_some_and(|rest| rest.starts_with('/'));
        let problem = || format!("`{name}` is unknown to this release");
        (own && !known.contains(&name)).then(|| FieldError::new(field, problem(), nearest(name, known)))
    };
    let annotations = annotations.into_iter();
    let labels = labels.into_iter();
    let annotations =
        annotations.filter_map(|name| unknown("metadata.annotations", name, &annotations::KNOWN));
    annotations.chain(labels.filter_map(|name| unknown("metadata.labels", name, &labels::KNOWN))).collect()
}

struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, field: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.0.push(FieldError::new(field, problem, hint));
    }

    /// Lower case letters, digits and dashes, with no dash at either end. This is the grammar of Kubernetes
    /// labels and of the check on `rowlock.queue.name`.
    fn name(&mut self, field: &str, name: &str, longest: usize) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let hint = format!("use at most {longest} of a-z, 0-9 and `-`, not starting or ending with `-`");
        if name.is_empty() {
            self.add(field, "is empty", hint);
        } else if name.len() > longest {
            self.add(field, format!("has {} characters", name.len()), hint);
        } else if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
            let problem =
                if wrong == '.' { "has a dot".to_owned() } else { format!("has the character `{wrong}`") };
            self.add(field, problem, hint);
        } else if name.starts_with('-') || name.ends_with('-') {
            self.add(field, "starts or ends with `-`", hint);
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
            let hint = expected(field).map_or_else(
                || format!("make it a number from {} to {}", range.start(), range.end()),
                |expected| format!("make it {expected}"),
            );
            self.add(field, format!("is {number}"), hint);
        }
    }

    fn not_zero(&mut self, field: &str, dur: Dur, example: &str) {
        if dur.is_zero() {
            self.add(field, "is zero", format!("make it longer, such as {example}"));
        }
    }

    fn workers(&mut self, spec: &TaskQueueSpec) {
        let workers = &spec.workers;
        self.within("spec.workers.total", &workers.total, &TOTAL);
        self.within("spec.workers.perPod", &workers.per_pod, &PER_POD);
        if let Some(replicas) = &workers.replicas {
            self.within("spec.workers.replicas", replicas, &REPLICAS);
            if workers.scaling() != ScalingMode::External {
                let hint = "set workers.scaling to External, or remove replicas";
                self.add("spec.workers.replicas", "is only for workers.scaling External", hint);
            }
        }
        let Some(autoscaling) = &workers.autoscaling else { return };
        if workers.scaling() != ScalingMode::Auto {
            let hint = "remove it, or set workers.scaling to Auto";
            self.add("spec.workers.autoscaling", "is only for workers.scaling Auto", hint);
        }
        if autoscaling.min > workers.total {
            let problem = format!("is {}, more than workers.total ({})", autoscaling.min, workers.total);
            self.add("spec.workers.autoscaling.min", problem, "lower it, or raise workers.total");
        }
        self.not_zero("spec.workers.autoscaling.waitTarget", autoscaling.wait_target, "5s");
    }

    fn handler(&mut self, spec: &TaskQueueSpec) {
        let http = &spec.handler.http;
        self.within("spec.handler.http.port", &http.port, &PORT);
        let field = "spec.handler.http.path";
        if !is_path(&http.path) {
            self.add(field, format!("is `{}`", http.path), "write only a path, such as /tasks");
        } else if http.path.len() > LONGEST_PATH {
            let problem = format!("has {} characters", http.path.len());
            self.add(field, problem, format!("use at most {LONGEST_PATH}"));
        }
        if let Some(template) = &spec.template {
            self.0.extend(template::check(&template.to_value()));
        }
    }

    fn target(&mut self, spec: &TaskQueueSpec) {
        let Some(target) = &spec.target_ref else { return };
        if spec.template.is_some() {
            self.add("spec.targetRef", "excludes template", "remove one of the two");
        }
        let hint = "write the name of a Deployment in the namespace of the TaskQueue";
        self.secret("spec.targetRef.name", &target.name, is_secret_name, hint);
        let set = [
            spec.worker != WorkerSpec::default(),
            spec.rollout.max_surge != Surge::default(),
            spec.rollout.canary.is_some(),
        ];
        for ((outer, inner, message), _) in ONLY_WITH_TEMPLATE.iter().zip(set).filter(|(_, set)| *set) {
            let (problem, hint) = message.split_once("; ").unwrap_or((message, "remove it"));
            self.add(&format!("spec.{outer}.{inner}"), problem, hint);
        }
    }

    fn canary(&mut self, spec: &TaskQueueSpec) {
        let Some(canary) = &spec.rollout.canary else { return };
        let field = "spec.rollout.canary";
        self.within(&format!("{field}.minRuns"), &canary.min_runs, &CANARY_RUNS);
        let percent = &canary.extra_failure_percent;
        self.within(&format!("{field}.extraFailurePercent"), percent, &EXTRA_FAILURE_PERCENT);
        let percent = &canary.extra_duration_percent;
        self.within(&format!("{field}.extraDurationPercent"), percent, &EXTRA_DURATION_PERCENT);
        self.not_zero(&format!("{field}.maxTime"), canary.max_time, "30m");
        if canary.max_time < canary.min_time {
            let problem = format!("is {}, shorter than minTime ({})", canary.max_time, canary.min_time);
            self.add(&format!("{field}.maxTime"), problem, "make it at least as long as minTime");
        }
    }

    fn retry(&mut self, retry: &RetryPolicy) {
        self.within("spec.retry.maxAttempts", &retry.max_attempts, &MAX_ATTEMPTS);
        self.within("spec.retry.jitterPercent", &retry.jitter_percent, &JITTER_PERCENT);
        if let Some(snoozes) = &retry.max_snoozes {
            self.within("spec.retry.maxSnoozes", snoozes, &MAX_SNOOZES);
        }
        self.final_statuses(&retry.final_statuses);
        match &retry.backoff {
            Backoff::Fixed(delay) => self.delay("spec.retry.backoff.fixed", *delay),
            Backoff::Delays(delays) => {
                let field = "spec.retry.backoff.delays";
                if delays.is_empty() {
                    self.add(field, "is empty", "write at least one delay, such as [15s]");
                } else if delays.len() > MOST_DELAYS {
                    let hint = format!("write at most {MOST_DELAYS}, or use exponential");
                    self.add(field, format!("has {} delays", delays.len()), hint);
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

    fn final_statuses(&mut self, statuses: &[u16]) {
        if statuses.len() > MOST_FINAL {
            let problem = format!("has {} statuses", statuses.len());
            self.add("spec.retry.final", problem, "write each status once");
        }
        for (index, status) in
            statuses.iter().enumerate().filter(|(_, status)| !FINAL_STATUS.contains(status))
        {
            let hint = "use only statuses from 300 to 599";
            self.add(&format!("spec.retry.final[{index}]"), format!("is {status}"), hint);
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
        self.not_zero("spec.limits.maxDelay", spec.limits.max_delay, "365d");
        let Some(database) = &spec.database else { return };
        let hint = "write the name of the Secret and the key that holds the URL";
        self.key_of("spec.database.secretRef", &database.secret_ref.name, &database.secret_ref.key, hint);
        if let Some(worker) = &database.worker_secret_ref {
            self.key_of("spec.database.workerSecretRef", &worker.name, &worker.key, hint);
        }
        if let Some(ca) = &database.ca_ref {
            let hint = "write the name of the Secret or ConfigMap and the key that holds the certificates";
            self.key_of("spec.database.caRef", &ca.name, &ca.key, hint);
        }
    }

    /// A name and a key of a Secret or a `ConfigMap`.
    fn key_of(&mut self, field: &str, name: &str, key: &str, hint: &str) {
        self.secret(&format!("{field}.name"), name, is_secret_name, hint);
        self.secret(&format!("{field}.key"), key, is_secret_key, hint);
    }

    fn secret(&mut self, field: &str, text: &str, allowed: fn(&str) -> bool, hint: &str) {
        if text.is_empty() {
            self.add(field, "is empty", hint);
        } else if text.len() > LONGEST_SECRET || !allowed(text) {
            self.add(field, format!("is `{text}`, which is not valid"), hint);
        }
    }
}

/// A path by RFC 3986. Any other character would end the path, or be refused when the handler is called.
fn is_path(path: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c);
    path.starts_with('/') && path.chars().all(allowed)
}

/// A domain name, which is the grammar of Secret names.
fn is_secret_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('.').all(|label| {
        label.bytes().all(|c| allowed(c) || c == b'-')
            && label.bytes().next().is_some_and(allowed)
            && label.bytes().last().is_some_and(allowed)
    })
}

/// The characters that a key of a Secret or a `ConfigMap` may have.
fn is_secret_key(key: &str) -> bool {
    key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
}
