//! Names that more than one crate uses. They are defined here and are not repeated as literals elsewhere.

/// Group, version and kind of a `TaskQueue`.
pub mod api {
    /// The API group. It is also the prefix of Rowlock's annotations and labels.
    pub const GROUP: &str = "rowlock.dev";
    /// The version that this build reads.
    pub const VERSION: &str = "v1alpha1";
    /// `GROUP/VERSION`, as a manifest writes it.
    pub const API_VERSION: &str = "rowlock.dev/v1alpha1";
    /// The kind.
    pub const KIND: &str = "TaskQueue";
    /// The operator's name as a field manager. Also the value of [`MANAGED_BY`](super::labels::MANAGED_BY) on
    /// the objects that it creates.
    pub const FIELD_MANAGER: &str = "rowlock-operator";
}

/// Annotations on a `TaskQueue` and on the operator's objects.
pub mod annotations {
    /// Annotations that a user may set on a `TaskQueue`.
    pub const KNOWN: [&str; 2] = [DEV_COMMAND, ADOPT];
    /// The command that `rowlock dev` runs as the handler, in the manifest's folder, with `PORT` set.
    pub const DEV_COMMAND: &str = "rowlock.dev/dev-command";
    /// On a `TaskQueue`: take the queue in the database over from this owner. A condition shows the owner's
    /// name.
    pub const ADOPT: &str = "rowlock.dev/adopt";
    /// On the operator's objects: the hash of what was last applied.
    pub const LAST_APPLIED_HASH: &str = "rowlock.dev/last-applied-hash";
    /// On the operator's Deployments: the generation of the `TaskQueue` that was last applied. If the object
    /// changes and the generation does not, the reason is a change in the operator.
    pub const GENERATION: &str = "rowlock.dev/generation";
    /// On the operator's Deployments: the hash of their pod template.
    pub const TEMPLATE_HASH: &str = "rowlock.dev/template-hash";
    /// On a Deployment whose template changed because the operator changed: its rollout has a slot. The
    /// rollouts of other queues wait until a slot is free.
    pub const ROLLOUT_SLOT: &str = "rowlock.dev/rollout-slot";
    /// On the operator's Deployments: the part of the `TaskQueue` that their pod template was made from. With
    /// a canary: that of the old template.
    pub const TEMPLATE_SOURCE: &str = "rowlock.dev/template-source";
    /// On a Deployment with a canary: since when, and what has been seen of it.
    pub const CANARY: &str = "rowlock.dev/canary";
}

/// Labels on a `TaskQueue` and on the objects that the operator creates for it.
pub mod labels {
    /// Rowlock's labels that a user may set on a `TaskQueue`.
    pub const KNOWN: [&str; 1] = [CLASS];
    /// On a `TaskQueue`: the class of the operator that must reconcile it. Without the label, an operator
    /// without a class reconciles it.
    pub const CLASS: &str = "rowlock.dev/class";
    /// On Deployments and pods: the name of the `TaskQueue`.
    pub const TASK_QUEUE: &str = "rowlock.dev/task-queue";
    /// The manager of an object; a convention of Kubernetes.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The application that an object belongs to; a convention of Kubernetes.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// The instance of that application; a convention of Kubernetes.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
}

/// Containers of a worker pod.
pub mod containers {
    /// The container of the pod template that runs the tasks. The user defines it.
    pub const HANDLER: &str = "handler";
    /// The container that claims tasks and calls the handler. Rowlock adds it.
    pub const WORKER: &str = "worker";
}

/// Environment variables of a worker process and of a handler process.
pub mod env {
    /// Connection string of the database.
    pub const DATABASE_URL: &str = "ROWLOCK_DATABASE_URL";
    /// File that holds the connection string, so that the secret is not in the environment.
    pub const DATABASE_URL_FILE: &str = "ROWLOCK_DATABASE_URL_FILE";
    /// File with the certificates of the CAs that may have signed the database's certificate.
    pub const DATABASE_CA_FILE: &str = "ROWLOCK_DATABASE_CA_FILE";
    /// Name of the queue in the database.
    pub const QUEUE: &str = "ROWLOCK_QUEUE";
    /// Number of slots of the instance: `workers.perPod`.
    pub const SLOTS: &str = "ROWLOCK_SLOTS";
    /// URL of the handler, with its path.
    pub const HANDLER_URL: &str = "ROWLOCK_HANDLER_URL";
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub const LISTEN: &str = "ROWLOCK_LISTEN";
    /// How long a drain may take. Tasks that still run after that are released.
    pub const DRAIN_GRACE: &str = "ROWLOCK_DRAIN_GRACE";
    /// `json` or `text`.
    pub const LOG_FORMAT: &str = "ROWLOCK_LOG_FORMAT";
    /// Name of the instance in the database, in logs and in a task's details. In a cluster it is the pod's
    /// name.
    pub const INSTANCE_NAME: &str = "ROWLOCK_INSTANCE_NAME";
    /// UID of the pod that the instance runs in. The end of the pod ends the instance's leases.
    pub const POD_UID: &str = "ROWLOCK_POD_UID";
    /// URL of a collector for traces; a convention of OpenTelemetry. Unset: no traces are exported.
    pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    /// All variables of Rowlock, including those behind the operator's flags. Each program accepts all of
    /// them, also those that are meant for another program.
    pub const ALL: &[&str] = &[
        DATABASE_URL,
        DATABASE_URL_FILE,
        DATABASE_CA_FILE,
        QUEUE,
        SLOTS,
        HANDLER_URL,
        LISTEN,
        DRAIN_GRACE,
        LOG_FORMAT,
        OTLP_ENDPOINT,
        INSTANCE_NAME,
        POD_UID,
        "ROWLOCK_NAMESPACE",
        "ROWLOCK_CLASS",
        "ROWLOCK_WORKER_IMAGE",
        "ROWLOCK_WORKER_PULL_POLICY",
        "ROWLOCK_WORKER_PULL_SECRETS",
        "ROWLOCK_WORKER_RESOURCES",
        "ROWLOCK_WORKER_LABELS",
        "ROWLOCK_WORKER_TRACING",
        "ROWLOCK_ALLOWED_DATABASE_HOSTS",
        "ROWLOCK_REFUSED_DATABASE_HOSTS",
        "ROWLOCK_ROLLOUTS_AT_ONCE",
        "ROWLOCK_LEASE",
        "ROWLOCK_SERVICE_ACCOUNT",
        "ROWLOCK_CLUSTER_ROLE",
    ];
    /// The port on which the handler must listen. Most web frameworks use this name, so it has no prefix.
    pub const HANDLER_PORT: &str = "PORT";
}
