//! Condition types of a `TaskQueue` and their reasons, which `kubectl wait` and alerts rely on.

/// A condition in the status of a `TaskQueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The queue is processing tasks. `Unknown` until the operator has observed it.
    Ready,
    /// The operator is bringing the cluster to the state of the spec.
    Reconciling,
    /// The operator cannot go on until a user changes something; the message says what.
    Stalled,
    /// The database answers.
    DatabaseReachable,
    /// The schema in the database is that of this release.
    SchemaReady,
    /// The handlers of the running pods accept tasks.
    HandlerHealthy,
    /// More workers are needed than limits allow.
    ScalingLimited,
    /// Another field manager sets the number of pods of the Deployment, against the `TaskQueue`.
    Contested,
}

impl ConditionType {
    /// All of them, in the order of the status.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::DatabaseReachable,
        Self::SchemaReady,
        Self::HandlerHealthy,
        Self::ScalingLimited,
        Self::Contested,
    ];

    /// The name in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::DatabaseReachable => "DatabaseReachable",
            Self::SchemaReady => "SchemaReady",
            Self::HandlerHealthy => "HandlerHealthy",
            Self::ScalingLimited => "ScalingLimited",
            Self::Contested => "Contested",
        }
    }
}

/// Why a condition has its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionReason {
    /// Not known: the operator has not observed the `TaskQueue` yet, or cannot.
    NotObserved,
    /// The state is that of the spec.
    Succeeded,
    /// Pods are being started, stopped or replaced.
    Progressing,
    /// `spec.paused` is set.
    Paused,
    /// `spec.suspendScaling` is set: tasks wait while no pod runs, or the number of pods is not
    /// `workers.replicas`.
    Suspended,
    /// Tasks wait while no pod runs, with `workers.scaling: External`.
    External,
    /// The Secret does not exist.
    SecretNotFound,
    /// The Secret lacks the key, or its value is not the URL of a database.
    SecretInvalid,
    /// The CA certificates are missing or invalid, or the server's certificate cannot be verified.
    CertificateInvalid,
    /// No server answers at the address.
    ConnectionFailed,
    /// The database refuses the user, its password or its statements.
    AccessDenied,
    /// The Secret points to another database than before.
    DatabaseChanged,
    /// The schema is being created or migrated.
    Migrating,
    /// A migration failed; nothing was changed.
    MigrationFailed,
    /// A newer release has migrated the schema.
    SchemaTooNew,
    /// The server cannot be used, for example because it is too old.
    DatabaseUnsupported,
    /// The API server rejects the pod template.
    TemplateRejected,
    /// The API server rejects new pods: a quota or a policy.
    PodsRejected,
    /// This release of the operator cannot read the `TaskQueue`.
    Unreadable,
    /// The operator has no rights in this namespace.
    Forbidden,
    /// An object of that name, or the queue in the database, belongs to another owner.
    OwnedByAnother,
    /// The Deployment of `spec.targetRef` does not exist.
    TargetNotFound,
    /// The Deployment of `spec.targetRef` or its pods do not fit the `TaskQueue`.
    TargetInvalid,
    /// No pod runs, and none is needed.
    Idle,
    /// A handler does not listen on its port.
    NotListening,
    /// A container is crash-looping.
    CrashLooping,
    /// The image of a container cannot be pulled.
    ImageNotPulled,
    /// A pod cannot be scheduled, or its containers cannot be created.
    NotStarting,
    /// Pods are ready, but no instance of the queue is in the database.
    NotJoined,
    /// `workers.total` is reached.
    Total,
    /// The database has no connections left.
    Connections,
    /// Nearly all runs of the handler fail.
    Failing,
    /// The pods with a changed template ran worse than the old ones, so all pods have the old template.
    CanaryFailed,
    /// No limit applies.
    NotLimited,
    /// Another field manager sets a field that the operator should set.
    ForeignFieldManager,
}

impl ConditionReason {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::NotObserved,
        Self::Succeeded,
        Self::Progressing,
        Self::Paused,
        Self::Suspended,
        Self::External,
        Self::SecretNotFound,
        Self::SecretInvalid,
        Self::CertificateInvalid,
        Self::ConnectionFailed,
        Self::AccessDenied,
        Self::DatabaseChanged,
        Self::Migrating,
        Self::MigrationFailed,
        Self::SchemaTooNew,
        Self::DatabaseUnsupported,
        Self::TemplateRejected,
        Self::PodsRejected,
        Self::Unreadable,
        Self::Forbidden,
        Self::OwnedByAnother,
        Self::TargetNotFound,
        Self::TargetInvalid,
        Self::Idle,
        Self::NotListening,
        Self::CrashLooping,
        Self::ImageNotPulled,
        Self::NotStarting,
        Self::NotJoined,
        Self::Total,
        Self::Connections,
        Self::Failing,
        Self::CanaryFailed,
        Self::NotLimited,
        Self::ForeignFieldManager,
    ];

    /// The name in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotObserved => "NotObserved",
            Self::Succeeded => "Succeeded",
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::Suspended => "Suspended",
            Self::External => "External",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretInvalid => "SecretInvalid",
            Self::CertificateInvalid => "CertificateInvalid",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::AccessDenied => "AccessDenied",
            Self::DatabaseChanged => "DatabaseChanged",
            Self::Migrating => "Migrating",
            Self::MigrationFailed => "MigrationFailed",
            Self::SchemaTooNew => "SchemaTooNew",
            Self::DatabaseUnsupported => "DatabaseUnsupported",
            Self::TemplateRejected => "TemplateRejected",
            Self::PodsRejected => "PodsRejected",
            Self::Unreadable => "Unreadable",
            Self::Forbidden => "Forbidden",
            Self::OwnedByAnother => "OwnedByAnother",
            Self::TargetNotFound => "TargetNotFound",
            Self::TargetInvalid => "TargetInvalid",
            Self::Idle => "Idle",
            Self::NotListening => "NotListening",
            Self::CrashLooping => "CrashLooping",
            Self::ImageNotPulled => "ImageNotPulled",
            Self::NotStarting => "NotStarting",
            Self::NotJoined => "NotJoined",
            Self::Total => "Total",
            Self::Connections => "Connections",
            Self::Failing => "Failing",
            Self::CanaryFailed => "CanaryFailed",
            Self::NotLimited => "NotLimited",
            Self::ForeignFieldManager => "ForeignFieldManager",
        }
    }
}
