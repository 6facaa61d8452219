//! The checks of `validate.rs` as rules for the API server: in the same order, with the same bounds and
//! messages.

use std::ops::RangeInclusive;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};

use super::cel::{at_field, at_least, at_most, is_duration, not_zero, rule, with_expression, with_old_value};
use crate::bounds::{
    BACKLOG, CANARY_RUNS, EXTRA_DURATION_PERCENT, EXTRA_FAILURE_PERCENT, FACTOR, FINAL_STATUS,
    JITTER_PERCENT, LONGEST_NAME, LONGEST_PATH, LONGEST_SECRET, MAX_ATTEMPTS, MAX_SNOOZES, MOST_DELAYS,
    MOST_FINAL, MOST_RESOURCES, PAYLOAD_BYTES, PER_POD, PORT, REPLICAS, TOTAL,
};
use crate::validate::ONLY_WITH_TEMPLATE;
use crate::{CanarySpec, Dur, MAX_RETRY_DELAY, ScalingMode, duration};

/// A domain name, which is the grammar of most names in Kubernetes.
const DOMAIN_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Adds bounds and rules to the schema of a `TaskQueue`.
pub(super) fn constrain(root: &mut JSONSchemaProps) {
    let mut schema = Schema(root);
    schema.names();
    schema.required_in_a_cluster();
    schema.target();
    schema.workers();
    schema.handler();
    schema.pods();
    schema.retry();
    schema.rest();
}

struct Schema<'a>(&'a mut JSONSchemaProps);

impl Schema<'_> {
    fn names(&mut self) {
        let hint = format!("use at most {LONGEST_NAME} of a-z, 0-9 and `-`, not starting or ending with `-`");
        // Kubernetes itself checks the rest of the name.
        let name =
            format!("self.metadata.name.size() <= {LONGEST_NAME} && !self.metadata.name.contains('.')");
        // A rule's error cannot name a field of the metadata.
        self.rule("", rule(name, format!("metadata.name: {hint}")));
        self.text("spec.queueName", LONGEST_NAME, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &hint);
        // A rule on the field itself would not run when the field is added or removed.
        let name = |object: &str| {
            format!("(has({object}.spec.queueName) ? {object}.spec.queueName : {object}.metadata.name)")
        };
        let message = "cannot change: the tasks are stored under this name; create a new TaskQueue instead";
        let same = rule(format!("{} == {}", name("self"), name("oldSelf")), message);
        self.rule("", at_field(".spec.queueName", same));
    }

    /// Fields that only `rowlock dev` allows to leave out.
    fn required_in_a_cluster(&mut self) {
        let hint = "add `database: { secretRef: { name: NAME, key: KEY } }`, \
                    the Secret with the URL of the database";
        self.rule("spec", rule("has(self.database)", hint));
        let hint = "add `template`, a pod template with a container named `handler`; \
                    or `targetRef: { name: NAME }`, a Deployment of yours whose pods contain the worker";
        self.rule("spec", rule("has(self.template) || has(self.targetRef)", hint));
    }

    /// A target has a pod template of its own, so the fields that shape the operator's pods have no effect.
    fn target(&mut self) {
        let message = "excludes template; remove one of the two";
        let one = rule("!has(self.targetRef) || !has(self.template)", message);
        self.rule("spec", at_field(".targetRef", one));
        let hint = "write the name of a Deployment in the namespace of the TaskQueue";
        self.text("spec.targetRef.name", LONGEST_SECRET, DOMAIN_NAME, hint);
        for (field, inner, message) in ONLY_WITH_TEMPLATE {
            let absent = format!("!has(self.targetRef) || !has(self.{field}) || !has(self.{field}.{inner})");
            self.rule("spec", at_field(&format!(".{field}.{inner}"), rule(absent, *message)));
        }
        // The operator may not delete Deployments, so the one that it made would stay and keep its pods.
        let message = "cannot be added or removed: delete the TaskQueue and create it again; \
                       its tasks are kept";
        let same = rule("has(self.targetRef) == has(oldSelf.targetRef)", message);
        self.rule("spec", at_field(".targetRef", same));
    }

    fn workers(&mut self) {
        self.number("spec.workers.total", TOTAL);
        self.number("spec.workers.perPod", PER_POD);
        self.number("spec.workers.replicas", REPLICAS);
        self.scaling();
        let message = "is more than workers.total; lower it, or raise workers.total";
        let limit =
            "!has(self.autoscaling) || !has(self.autoscaling.min) || self.autoscaling.min <= self.total";
        self.rule("spec.workers", at_field(".autoscaling.min", rule(limit, message)));
        self.number("spec.workers.autoscaling.min", TOTAL);
        self.duration("spec.workers.autoscaling.waitTarget");
        self.rule("spec.workers.autoscaling.waitTarget", not_zero("5s"));
        self.duration("spec.workers.autoscaling.scaleDownAfter");
    }

    /// A setting of one way of scaling is refused in the others.
    fn scaling(&mut self) {
        let is = |mode: ScalingMode| format!("has(self.scaling) && self.scaling == '{}'", mode.as_str());
        // An autoscaler may have set `replicas`, and it stays in the object when a manifest without it
        // changes scaling back to Auto. It has no effect then. Setting it to another value is still refused.
        let unchanged = "oldSelf.hasValue() && has(oldSelf.value().replicas) && \
                     oldSelf.value().replicas == self.replicas";
        let external = format!("!has(self.replicas) || ({}) || ({unchanged})", is(ScalingMode::External));
        let message =
            "is only for workers.scaling External; set workers.scaling to External, or remove replicas";
        self.rule("spec.workers", with_old_value(at_field(".replicas", rule(external, message))));
        let auto = format!("!has(self.autoscaling) || !has(self.scaling) || {}", is(ScalingMode::Auto));
        let message = "is only for workers.scaling Auto; remove it, or set workers.scaling to Auto";
        self.rule("spec.workers", at_field(".autoscaling", rule(auto, message)));
    }

    fn handler(&mut self) {
        self.number("spec.handler.http.port", PORT);
        let path = "^/[-A-Za-z0-9._~!$&\\'()*+,;=:@%/]*$";
        self.text("spec.handler.http.path", LONGEST_PATH, path, "write only a path, such as /tasks");
        let field = "spec.template.spec";
        let message = "has no container `handler`; give this name to the container that runs the tasks";
        let handler = rule("self.containers.exists(c, c.name == 'handler')", message);
        self.rule(field, at_field(".containers", handler));
        let message = "has a container `worker`, a name reserved for Rowlock; give it another name";
        let worker = rule("!self.containers.exists(c, c.name == 'worker')", message);
        self.rule(field, at_field(".containers", worker));
        let message = "`handler` and `worker` are reserved for Rowlock; give the init container another name";
        let init = "!has(self.initContainers) || \
                    !self.initContainers.exists(c, c.name == 'handler' || c.name == 'worker')";
        self.rule(field, at_field(".initContainers", rule(init, message)));
        let message =
            "would open the worker's files, with the database's URL, to the other containers; remove it";
        let unshared = rule("!has(self.shareProcessNamespace) || !self.shareProcessNamespace", message);
        self.rule(field, at_field(".shareProcessNamespace", unshared));
    }

    /// The settings of pods that are not in the template.
    fn pods(&mut self) {
        for field in ["requests", "limits"] {
            let field = format!("spec.worker.resources.{field}");
            self.at(&field).max_properties = length(MOST_RESOURCES);
            let quantity = "type(self) == int ? self >= 0 : \
                            self.matches('^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$')";
            let message = "write a number with a unit, such as 100m or 64Mi";
            self.rule(&format!("{field}{{}}"), rule(quantity, message));
        }
        let surge = "type(self) == int ? self >= 1 && self <= 1000 : \
                     self.matches('^([1-9][0-9]{0,2}|1000|([1-9][0-9]?|100)%)$')";
        for field in ["spec.rollout.maxSurge", "spec.rollout.canary.share"] {
            self.rule(field, rule(surge, "write 1 to 1000, or 1% to 100%"));
        }
        self.canary();
    }

    fn canary(&mut self) {
        let field = "spec.rollout.canary";
        self.number(&format!("{field}.minRuns"), CANARY_RUNS);
        self.number(&format!("{field}.extraFailurePercent"), EXTRA_FAILURE_PERCENT);
        self.number(&format!("{field}.extraDurationPercent"), EXTRA_DURATION_PERCENT);
        self.duration(&format!("{field}.minTime"));
        self.duration(&format!("{field}.maxTime"));
        self.rule(&format!("{field}.maxTime"), not_zero("30m"));
        // One of the two may be left out.
        let default = CanarySpec::default();
        let or = |name: &str, default: Dur| format!("(has(self.{name}) ? self.{name} : '{default}')");
        let (max, min) = (or("maxTime", default.max_time), or("minTime", default.min_time));
        let order = rule(at_least(&max, &min), "make it at least as long as minTime");
        let expression = format!(
            "'is ' + {max} + ', shorter than minTime (' + {min} + '); make it at least as long as minTime'"
        );
        self.rule(field, at_field(".maxTime", with_expression(&expression, order)));
    }

    fn retry(&mut self) {
        self.number("spec.retry.maxAttempts", MAX_ATTEMPTS);
        self.number("spec.retry.jitterPercent", JITTER_PERCENT);
        self.number("spec.retry.maxSnoozes", MAX_SNOOZES);
        self.at("spec.retry.final").max_items = length(MOST_FINAL);
        self.number("spec.retry.final[]", FINAL_STATUS);
        let field = "spec.retry.backoff";
        let one = "has(self.delays) || has(self.exponential) || has(self.fixed)";
        self.rule(field, rule(one, "sets no backoff; set one of delays, exponential or fixed"));
        let more = "!(has(self.delays) && (has(self.exponential) || has(self.fixed))) && \
                    !(has(self.exponential) && has(self.fixed))";
        self.rule(field, rule(more, "sets more than one backoff; keep one of delays, exponential or fixed"));
        self.delay("spec.retry.backoff.fixed");
        self.at("spec.retry.backoff.delays").min_items = Some(1);
        self.at("spec.retry.backoff.delays").max_items = length(MOST_DELAYS);
        self.delay("spec.retry.backoff.delays[]");
        let field = "spec.retry.backoff.exponential";
        self.duration(&format!("{field}.initial"));
        self.rule(&format!("{field}.initial"), not_zero("1s"));
        self.number(&format!("{field}.factor"), FACTOR);
        self.delay(&format!("{field}.max"));
        let order = rule(at_least("self.max", "self.initial"), "make it at least as long as initial");
        let expression =
            "'is ' + self.max + ', shorter than initial (' + self.initial + '); make it at least as long'";
        self.rule(field, at_field(".max", with_expression(expression, order)));
    }

    fn rest(&mut self) {
        self.duration("spec.timeout");
        self.rule("spec.timeout", not_zero("60s"));
        for state in ["completed", "dead", "cancelled"] {
            self.duration(&format!("spec.cleanup.{state}"));
        }
        self.number("spec.limits.backlog", BACKLOG);
        self.number("spec.limits.payloadBytes", PAYLOAD_BYTES);
        self.duration("spec.limits.maxDelay");
        self.rule("spec.limits.maxDelay", not_zero("365d"));
        let hint = "write the name of the Secret and the key that holds the URL";
        self.key_of("spec.database.secretRef", hint);
        self.key_of("spec.database.workerSecretRef", hint);
        self.key_of(
            "spec.database.caRef",
            "write the name of the Secret or ConfigMap and the key that holds the certificates",
        );
    }

    /// A name and a key of a Secret or a `ConfigMap`.
    fn key_of(&mut self, path: &str, hint: &str) {
        self.text(&format!("{path}.name"), LONGEST_SECRET, DOMAIN_NAME, hint);
        self.text(&format!("{path}.key"), LONGEST_SECRET, "^[-._A-Za-z0-9]+$", hint);
    }

    fn number<N: Into<Bound>>(&mut self, path: &str, range: RangeInclusive<N>) {
        let (least, most) = range.into_inner();
        let field = self.at(path);
        field.minimum = Some(least.into().0);
        field.maximum = Some(most.into().0);
    }

    /// A text with a grammar. Editors read the pattern; the rule adds a message.
    fn text(&mut self, path: &str, longest: usize, pattern: &str, message: &str) {
        let field = self.at(path);
        field.max_length = length(longest);
        field.pattern = Some(pattern.replace('\\', ""));
        self.rule(path, rule(format!("self.matches('{pattern}')"), message));
    }

    fn duration(&mut self, path: &str) {
        self.duration_of(path, duration::LONGEST, "is longer than 3650d; choose a shorter duration");
    }

    fn delay(&mut self, path: &str) {
        self.duration_of(path, MAX_RETRY_DELAY, "make it at most 365d");
    }

    fn duration_of(&mut self, path: &str, longest: Duration, message: &str) {
        self.rule(path, is_duration());
        self.rule(path, at_most(longest, message));
    }

    fn rule(&mut self, path: &str, rule: ValidationRule) {
        self.at(path).x_kubernetes_validations.get_or_insert_default().push(rule);
    }

    /// The schema of a field such as `spec.retry.final[]`. `[]` stands for the items of a list, `{}` for the
    /// values of a map.
    fn at(&mut self, path: &str) -> &mut JSONSchemaProps {
        let mut schema = &mut *self.0;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            let (name, values) = name.strip_suffix("{}").map_or((name, false), |name| (name, true));
            let (name, items) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
            let properties = schema.properties.as_mut().expect("a parent has fields");
            schema = properties.get_mut(name).expect("the types have the field");
            if items {
                let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items else {
                    unreachable!("the field is a list")
                };
                schema = item;
            }
            if values {
                let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties else {
                    unreachable!("the field is a map")
                };
                schema = value;
            }
        }
        schema
    }
}

/// A bound in the form that a schema needs.
struct Bound(f64);

impl From<u8> for Bound {
    fn from(number: u8) -> Self {
        Self(number.into())
    }
}

impl From<u16> for Bound {
    fn from(number: u16) -> Self {
        Self(number.into())
    }
}

impl From<u32> for Bound {
    fn from(number: u32) -> Self {
        Self(number.into())
    }
}

impl From<u64> for Bound {
    #[expect(clippy::cast_precision_loss, reason = "no bound comes near 2^53")]
    fn from(number: u64) -> Self {
        Self(number as f64)
    }
}

fn length(length: usize) -> Option<i64> {
    i64::try_from(length).ok()
}
