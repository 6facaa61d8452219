//! Condition types of a `TaskQueue` and their reasons: the words that `kubectl wait`, alerts and people use.

/// A condition in the status of a `TaskQueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Tasks are done, or would be if there were any. `Unknown` until the operator has looked.
    Ready,
    /// The cluster is being brought to what the spec says.
    Reconciling,
    /// It cannot be brought there before somebody changes something; the message says what.
    Stalled,
    /// The database answers.
    DatabaseReachable,
    /// The tables in the database are those of this release.
    SchemaReady,
    /// The handlers of the running pods take tasks.
    HandlerHealthy,
    /// More workers would help than there may be.
    ScalingLimited,
    /// Somebody else sets how many pods the Deployment has, against the `TaskQueue`.
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

    /// As the status writes it.
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

/// Why a condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionReason {
    /// Nothing is known yet: the operator has not looked at this `TaskQueue`, or could not find out.
    NotObserved,
    /// As the spec says.
    Succeeded,
    /// Pods start, stop or change.
    Progressing,
    /// `spec.paused` is set.
    Paused,
    /// `spec.suspendScaling` leaves the number of pods to others: tasks wait and no pod runs, or it is not
    /// what `workers.replicas` says.
    Suspended,
    /// Tasks wait and no pod runs, while `workers.scaling: External` leaves the number of pods to others.
    External,
    /// The Secret does not exist.
    SecretNotFound,
    /// The Secret has no such key, or what is there is no URL of a database.
    SecretInvalid,
    /// The certificates of the database's authority are not there or are none, or the server's own cannot be verified.
    CertificateInvalid,
    /// Nothing answers at that address.
    ConnectionFailed,
    /// The database refuses the user, its password or what it asks for.
    AccessDenied,
    /// The database answers, but is another one than before.
    DatabaseChanged,
    /// The tables are being made or changed.
    Migrating,
    /// A migration failed; nothing was changed.
    MigrationFailed,
    /// A newer release has changed the tables.
    SchemaTooNew,
    /// The database is no server that we can use: too old, or not what the URL says.
    DatabaseUnsupported,
    /// The API server refuses the pods that the template makes.
    TemplateRejected,
    /// The cluster lets no more pods in: a quota or a policy.
    PodsRejected,
    /// This release of the operator cannot read the `TaskQueue`.
    Unreadable,
    /// The operator has no rights in this namespace.
    Forbidden,
    /// An object of that name, or the queue in the database, belongs to somebody else.
    OwnedByAnother,
    /// No pod runs, and none has to.
    Idle,
    /// A handler has not opened its port.
    NotListening,
    /// A handler keeps ending.
    CrashLooping,
    /// The image of a container cannot be fetched.
    ImageNotPulled,
    /// A pod finds no place, or its containers cannot be made.
    NotStarting,
    /// `workers.total` is reached.
    Total,
    /// The database has no connections for more.
    Connections,
    /// As many workers as are asked for.
    NotLimited,
    /// Another field manager sets what is the operator's to say.
    ForeignFieldManager,
}

impl ConditionReason {
    /// All of them.
    pub const ALL: [Self; 30] = [
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
        Self::Idle,
        Self::NotListening,
        Self::CrashLooping,
        Self::ImageNotPulled,
        Self::NotStarting,
        Self::Total,
        Self::Connections,
        Self::NotLimited,
        Self::ForeignFieldManager,
    ];

    /// As the status writes it.
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
            Self::Idle => "Idle",
            Self::NotListening => "NotListening",
            Self::CrashLooping => "CrashLooping",
            Self::ImageNotPulled => "ImageNotPulled",
            Self::NotStarting => "NotStarting",
            Self::Total => "Total",
            Self::Connections => "Connections",
            Self::NotLimited => "NotLimited",
            Self::ForeignFieldManager => "ForeignFieldManager",
        }
    }
}
