//! Names that more than one crate writes down: here once, nowhere else as literals.

/// Group, version and kind of a `TaskQueue`.
pub mod api {
    /// The API group; also the prefix of our annotations and labels.
    pub const GROUP: &str = "rowlock.dev";
    /// The version this build reads.
    pub const VERSION: &str = "v1alpha1";
    /// `GROUP/VERSION`, as a manifest writes it.
    pub const API_VERSION: &str = "rowlock.dev/v1alpha1";
    /// The kind.
    pub const KIND: &str = "TaskQueue";
    /// The operator's name as a field manager, and the value of [`MANAGED_BY`](super::labels::MANAGED_BY) on
    /// what it makes.
    pub const FIELD_MANAGER: &str = "rowlock-operator";
}

/// Annotations on a `TaskQueue`.
pub mod annotations {
    /// Those that mean something on a `TaskQueue`.
    pub const KNOWN: [&str; 2] = [DEV_COMMAND, ADOPT];
    /// The command that `rowlock dev` runs as the handler, in the manifest's folder, with `PORT` set.
    pub const DEV_COMMAND: &str = "rowlock.dev/dev-command";
    /// On a `TaskQueue`: the owner that its queue in the database is taken over from, as a condition names
    /// it.
    pub const ADOPT: &str = "rowlock.dev/adopt";
    /// On objects of ours: the hash of what they were last made from.
    pub const LAST_APPLIED_HASH: &str = "rowlock.dev/last-applied-hash";
    /// On Deployments of ours: the generation of the `TaskQueue` that they were last made from. What changes
    /// although it does not is a change of ours.
    pub const GENERATION: &str = "rowlock.dev/generation";
    /// On Deployments of ours: the hash of their pod template.
    pub const TEMPLATE_HASH: &str = "rowlock.dev/template-hash";
    /// On Deployments of ours whose template the operator has changed for reasons of its own: while their
    /// pods are replaced, others wait.
    pub const ROLLOUT_SLOT: &str = "rowlock.dev/rollout-slot";
}

/// Labels, on a `TaskQueue` and on what is made of it.
pub mod labels {
    /// Those of ours that mean something on a `TaskQueue`.
    pub const KNOWN: [&str; 1] = [CLASS];
    /// On a `TaskQueue`: the class of the operator that shall reconcile it. Left out: of one without a class.
    pub const CLASS: &str = "rowlock.dev/class";
    /// On Deployments and pods: the name of the `TaskQueue`.
    pub const TASK_QUEUE: &str = "rowlock.dev/task-queue";
    /// Who made an object; Kubernetes' own convention.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// What it is; Kubernetes' own convention.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// Which one of them; Kubernetes' own convention.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
}

/// Containers of a worker pod.
pub mod containers {
    /// The container of the pod template that does the tasks; the user's.
    pub const HANDLER: &str = "handler";
    /// The container that claims tasks and calls the handler; ours.
    pub const WORKER: &str = "worker";
}

/// Environment variables of a worker process, and the one of a handler process.
pub mod env {
    /// Connection string of the database.
    pub const DATABASE_URL: &str = "ROWLOCK_DATABASE_URL";
    /// File that holds the connection string, so that the secret is not in the environment.
    pub const DATABASE_URL_FILE: &str = "ROWLOCK_DATABASE_URL_FILE";
    /// A file with the certificates of the authorities that the database's certificate may be signed by.
    pub const DATABASE_CA_FILE: &str = "ROWLOCK_DATABASE_CA_FILE";
    /// Name of the queue in the database.
    pub const QUEUE: &str = "ROWLOCK_QUEUE";
    /// How many slots the instance has: `workers.perPod`.
    pub const SLOTS: &str = "ROWLOCK_SLOTS";
    /// Where the handler listens, with its path.
    pub const HANDLER_URL: &str = "ROWLOCK_HANDLER_URL";
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub const LISTEN: &str = "ROWLOCK_LISTEN";
    /// How long a drain may take before what still runs is abandoned to its lease.
    pub const DRAIN_GRACE: &str = "ROWLOCK_DRAIN_GRACE";
    /// `json` or `text`.
    pub const LOG_FORMAT: &str = "ROWLOCK_LOG_FORMAT";
    /// Name of the instance in the database, in logs and in a task's details; the pod's name.
    pub const INSTANCE_NAME: &str = "ROWLOCK_INSTANCE_NAME";
    /// All of ours, those of the operator too, which its flags name: a program takes what is meant for
    /// another for known.
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
        INSTANCE_NAME,
        "ROWLOCK_NAMESPACE",
        "ROWLOCK_CLASS",
        "ROWLOCK_WORKER_IMAGE",
        "ROWLOCK_WORKER_PULL_POLICY",
        "ROWLOCK_WORKER_PULL_SECRETS",
        "ROWLOCK_WORKER_RESOURCES",
        "ROWLOCK_WORKER_LABELS",
        "ROWLOCK_ALLOWED_DATABASE_HOSTS",
        "ROWLOCK_REFUSED_DATABASE_HOSTS",
        "ROWLOCK_ROLLOUTS_AT_ONCE",
        "ROWLOCK_LEASE",
        "ROWLOCK_SERVICE_ACCOUNT",
        "ROWLOCK_CLUSTER_ROLE",
    ];
    /// Where the handler shall listen: the convention of most web frameworks, hence without our prefix.
    pub const HANDLER_PORT: &str = "PORT";
}
