//! The `spec` of a `TaskQueue`. Every field in it has an effect.

use serde::{Deserialize, Serialize};

use crate::{Dur, PodTemplate, Policy, RetryPolicy, RolloutSpec, TargetRef, WorkerSpec};

/// The queue, the pods that run its tasks, and how many tasks run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::CustomResource, schemars::JsonSchema),
    kube(
        group = "rowlock.dev",
        version = "v1alpha1",
        kind = "TaskQueue",
        namespaced,
        shortname = "tq",
        category = "all",
        category = "rowlock",
        status = "crate::TaskQueueStatus",
        derive = "PartialEq",
        doc = "A queue of background tasks stored in Postgres, and the pods that run them."
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskQueueSpec {
    /// Name of the queue in the database. It cannot change later. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_name: Option<String>,
    /// The database that stores the tasks. Required in a cluster; `rowlock dev` uses its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// How many tasks run at the same time.
    pub workers: WorkersSpec,
    /// How the handler is called.
    #[serde(default)]
    pub handler: HandlerSpec,
    /// The pod template. Its container `handler` runs the tasks, others run beside it. A cluster needs this
    /// or `targetRef`; `rowlock dev` runs a command instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::resource::pod_template"))]
    pub template: Option<PodTemplate>,
    /// Instead of `template`: a Deployment of yours whose pods contain the worker. The operator only scales
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// The container that Rowlock adds to each pod.
    #[serde(default)]
    pub worker: WorkerSpec,
    /// How pods are replaced when the template changes.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How long one attempt may take, such as 90s or 1h30m. Default: 60s.
    #[serde(default = "default_timeout")]
    pub timeout: Dur,
    /// How long finished tasks are kept.
    #[serde(default)]
    pub cleanup: CleanupSpec,
    /// Limits on the tasks that may be enqueued.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// While true, no task starts; running tasks finish. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// While true, the operator does not change the number of pods. Default: false.
    #[serde(default)]
    pub suspend_scaling: bool,
}

/// Where the connection string of the database is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSpec {
    /// The Secret with the URL. You may point it to another database, for example after a restore.
    pub secret_ref: SecretKeyRef,
    /// Certificates (PEM) of the authorities that may have signed the server's certificate. Default: the
    /// public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// The Secret that the pods use instead of `secretRef`: a login with fewer rights. Default: `secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_secret_ref: Option<SecretKeyRef>,
}

/// A key of a Secret or a `ConfigMap` with certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaRef {
    /// Kind of the object that holds the certificates: Secret or `ConfigMap`. Default: Secret.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::resource::ca_kind"))]
    pub kind: CaKind,
    /// Its name, in the namespace of the `TaskQueue`.
    pub name: String,
    /// Its key that holds the certificates. Default: `ca.crt`, as cert-manager and `CloudNativePG` write it.
    #[serde(default = "default_ca_key")]
    pub key: String,
}

/// The kind of object that holds certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum CaKind {
    /// A Secret.
    #[default]
    Secret,
    /// A `ConfigMap`.
    ConfigMap,
}

impl CaKind {
    /// The name in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of the `TaskQueue`.
    pub name: String,
    /// Its key that holds the URL. Default: `uri`, which is what `CloudNativePG` writes.
    #[serde(default = "default_key")]
    pub key: String,
}

/// How many tasks run at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkersSpec {
    /// Slots over all pods: the most tasks that run at the same time. With scaling Fixed, there are always
    /// this many. 0 to 10000.
    pub total: u32,
    /// Slots per pod: the most tasks that one pod runs at the same time. 1 to 1000, default: 10.
    #[serde(default = "default_per_pod")]
    pub per_pod: u32,
    /// What sets the number of pods: Auto, Fixed or External. Default: Auto if `autoscaling` is set,
    /// otherwise Fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::resource::scaling_mode"))]
    pub scaling: Option<ScalingMode>,
    /// With Auto: how the number of slots follows the tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// With External: the number of pods, limited by `total`. Set by `kubectl scale` or an autoscaler. 0 to
    /// 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

/// What sets the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingMode {
    /// The operator, from the tasks, within `autoscaling.min` and `total`.
    Auto,
    /// `total` alone.
    Fixed,
    /// `replicas`, limited by `total`.
    External,
}

impl ScalingMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Fixed, Self::External];

    /// The name in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Fixed => "Fixed",
            Self::External => "External",
        }
    }
}

impl WorkersSpec {
    /// The scaling mode, with its default.
    #[must_use]
    pub fn scaling(&self) -> ScalingMode {
        let default = if self.autoscaling.is_some() { ScalingMode::Auto } else { ScalingMode::Fixed };
        self.scaling.unwrap_or(default)
    }
}

/// How the number of slots follows the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AutoscalingSpec {
    /// Slots kept while the queue is idle. Default: 0, which means no pods.
    pub min: u32,
    /// Target for how long a task waits before it starts. Not a guarantee. Default: 5s.
    pub wait_target: Dur,
    /// How long fewer slots must be enough before the queue is scaled down. Default: 60s.
    pub scale_down_after: Dur,
    /// What to prefer if short waits and low cost conflict. Default: Balanced.
    pub prefer: ScalingPreference,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self {
            min: 0,
            wait_target: Dur::from_secs(5),
            scale_down_after: Dur::from_secs(60),
            prefer: ScalingPreference::default(),
        }
    }
}

/// What to prefer if short waits and low cost conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ScalingPreference {
    /// Short waits: more slots are kept idle, and for longer.
    ShortWaits,
    /// Short waits at a cost near that of the work itself.
    #[default]
    Balanced,
    /// Low cost: tasks use up the wait target.
    LowCost,
}

/// How the handler is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HandlerSpec {
    /// Over HTTP inside the pod: one POST per attempt.
    pub http: HttpHandlerSpec,
}

/// Address of the handler in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpHandlerSpec {
    /// Port on which the handler listens. Default: 8080.
    pub port: u16,
    /// Path that tasks are posted to. Default: /tasks.
    pub path: String,
}

impl Default for HttpHandlerSpec {
    fn default() -> Self {
        Self { port: 8080, path: "/tasks".to_owned() }
    }
}

/// How long finished tasks are kept before they are deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CleanupSpec {
    /// Completed tasks. Default: 24h.
    pub completed: Dur,
    /// Dead tasks, kept so that somebody can look into them. Default: 7d.
    pub dead: Dur,
    /// Cancelled tasks. Default: 24h.
    pub cancelled: Dur,
}

impl Default for CleanupSpec {
    fn default() -> Self {
        let day = Dur::from_secs(86_400);
        Self { completed: day, dead: Dur::from_secs(7 * 86_400), cancelled: day }
    }
}

/// Limits on the tasks that may be enqueued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Maximum number of waiting tasks that are due within a day. Later ones have another limit of this size.
    /// Enqueueing more is an error. Default: 1000000.
    pub backlog: u64,
    /// Maximum size of one payload in bytes. Default: 1048576.
    pub payload_bytes: u64,
    /// How far ahead a task may be scheduled; scheduling it later is an error. Default: 365d.
    pub max_delay: Dur,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self { backlog: 1_000_000, payload_bytes: 1_048_576, max_delay: Dur::from_secs(365 * 86_400) }
    }
}

impl TaskQueueSpec {
    /// A spec with this number of slots, and defaults for everything else.
    #[must_use]
    pub fn with_workers(total: u32) -> Self {
        Self {
            queue_name: None,
            database: None,
            workers: WorkersSpec {
                total,
                per_pod: default_per_pod(),
                scaling: None,
                autoscaling: None,
                replicas: None,
            },
            handler: HandlerSpec::default(),
            template: None,
            target_ref: None,
            worker: WorkerSpec::default(),
            rollout: RolloutSpec::default(),
            retry: RetryPolicy::default(),
            timeout: default_timeout(),
            cleanup: CleanupSpec::default(),
            limits: LimitsSpec::default(),
            paused: false,
            suspend_scaling: false,
        }
    }

    /// The part that running instances need.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::from(self)
    }
}

pub(crate) const fn default_timeout() -> Dur {
    Dur::from_secs(60)
}

const fn default_per_pod() -> u32 {
    10
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}

fn default_key() -> String {
    "uri".to_owned()
}
