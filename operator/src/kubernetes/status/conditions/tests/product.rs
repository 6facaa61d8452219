//! The conditions for all combinations of pods, limits, Deployments and databases, compared with what kstatus
//! expects.

use rowlock_plan::{Decision, Reason as ScalingReason};
use rowlock_queue::{ARRIVAL_SECONDS, QueueId, QueueStats, Runs};

use super::*;

/// One combination of inputs.
#[derive(Debug, Clone, Copy)]
struct Case {
    problem: Option<Reason>,
    outcome: usize,
    decided: (u32, ScalingReason),
    pods: Pods,
    deployment: Rollout,
    unready_for: Option<u64>,
    was_ready: bool,
    paused: bool,
    contested: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    None,
    Start,
    Slow,
    Crash,
    CrashNextToOneThatWorks,
    Work,
    /// They are ready, but their workers use another database.
    WorkElsewhere,
}

/// The state of the Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rollout {
    NotCreated,
    Done,
    InProgress,
    PodsRejected,
    DeadlineExceeded,
    Paused,
}

const PROBLEMS: [Option<Reason>; 4] =
    [None, Some(Reason::ConnectionFailed), Some(Reason::SecretNotFound), Some(Reason::NotObserved)];
const PODS: [Pods; 7] = [
    Pods::None,
    Pods::Start,
    Pods::Slow,
    Pods::Crash,
    Pods::CrashNextToOneThatWorks,
    Pods::Work,
    Pods::WorkElsewhere,
];
const ROLLOUTS: [Rollout; 6] = [
    Rollout::NotCreated,
    Rollout::Done,
    Rollout::InProgress,
    Rollout::PodsRejected,
    Rollout::DeadlineExceeded,
    Rollout::Paused,
];
/// How long no pod has been ready, in seconds. The last one is longer than [`MAX_UNREADY`].
const UNREADY_FOR: [Option<u64>; 3] = [None, Some(30), Some(660)];

/// The index of the outcome that names something to change, while tasks are run.
const MISMATCH: usize = 3;

fn outcomes() -> [Outcome; 8] {
    let detail = || "so".to_owned();
    [
        Outcome::Done,
        Outcome::Waiting(detail()),
        Outcome::Failed(detail()),
        Outcome::Mismatch(detail()),
        Outcome::Rejected(detail()),
        Outcome::Foreign(detail()),
        Outcome::Forbidden(detail()),
        Outcome::Unsuitable(Reason::TargetNotFound, detail()),
    ]
}

fn decisions() -> Vec<(u32, ScalingReason)> {
    let mut all = vec![
        (1, ScalingReason::NotStarting),
        (2, ScalingReason::Backlog),
        (2, ScalingReason::Fixed),
        (2, ScalingReason::Failing),
    ];
    for pods in [0, 2] {
        let reasons = [
            ScalingReason::Idle,
            ScalingReason::External,
            ScalingReason::Connections,
            ScalingReason::Total,
            ScalingReason::Suspended,
            ScalingReason::Unknown,
        ];
        all.extend(reasons.map(|reason| (pods, reason)));
    }
    all
}

impl Case {
    fn ready(self) -> usize {
        match self.pods {
            Pods::CrashNextToOneThatWorks => 1,
            Pods::Work | Pods::WorkElsewhere => 2,
            _ => 0,
        }
    }

    fn health(self) -> PodHealth {
        let crash = || Some(problem(Reason::CrashLooping));
        let pods = if self.pods == Pods::None { 0 } else { 2 };
        let found = healthy(pods, self.ready());
        match self.pods {
            Pods::Crash => PodHealth { problem: crash(), failing: 2, ..found },
            Pods::CrashNextToOneThatWorks => PodHealth { problem: crash(), failing: 1, ..found },
            Pods::Slow => PodHealth { slow: Some("an image".into()), ..found },
            _ => found,
        }
    }

    fn deployment(self) -> Option<Deployment> {
        let wanted = self.decided.0;
        let mut deployment = json!({
            "metadata": { "generation": 1 },
            "spec": { "selector": {}, "template": {}, "paused": self.deployment == Rollout::Paused },
            "status": {
                "observedGeneration": 1,
                "replicas": wanted,
                "updatedReplicas": wanted,
                "readyReplicas": wanted,
            },
        });
        let condition = match self.deployment {
            Rollout::NotCreated => return None,
            Rollout::Done => return serde_json::from_value(deployment).unwrap(),
            Rollout::PodsRejected => {
                json!({ "type": "ReplicaFailure", "status": "True", "message": "quota" })
            }
            Rollout::DeadlineExceeded => json!({
                "type": "Progressing",
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "message": "late",
            }),
            Rollout::InProgress | Rollout::Paused => json!({ "type": "Progressing", "status": "True" }),
        };
        deployment["status"] = json!({
            "observedGeneration": 1,
            "replicas": 3,
            "updatedReplicas": 1,
            "conditions": [condition],
        });
        serde_json::from_value(deployment).unwrap()
    }

    /// Whether a task that arrives now can be expected to start within a minute.
    fn does_tasks(self) -> bool {
        let (wanted, reason) = self.decided;
        let ours = self.outcome < 5;
        // Scaled to zero, and the operator itself scales it up when a task arrives.
        let sleeps = wanted == 0 && matches!(reason, ScalingReason::Idle);
        let is_waking_up =
            wanted > 0 && self.was_ready && self.unready_for == Some(30) && self.pods != Pods::Crash;
        let enough = wanted > 0 || !matches!(reason, ScalingReason::Connections | ScalingReason::Total);
        let works = self.ready() > 0 && enough && self.pods != Pods::WorkElsewhere;
        self.problem.is_none() && ours && !self.paused && (works || sleeps || is_waking_up)
    }

    /// Whether it stays so until a user changes something.
    fn needs_user(self) -> bool {
        self.problem == Some(Reason::SecretNotFound)
            || self.problem.is_none()
                && (self.outcome >= MISMATCH
                    || matches!(self.deployment, Rollout::PodsRejected | Rollout::DeadlineExceeded)
                    || self.unready_for == Some(660))
    }

    fn decided(self, view: &QueueView, outcomes: &[Outcome; 8], spec: &TaskQueueSpec) -> Vec<NewCondition> {
        let foreign_scaling =
            ForeignScaling { managers: vec!["kubectl".into()], found: 5, wanted: 2, mode: ScalingMode::Auto };
        let (problem, health, deployment) = (self.problem.map(problem), self.health(), self.deployment());
        let unready_for = self.unready_for.map(Duration::from_secs);
        decide_conditions(&StatusInputs {
            place: ("shop", "emails"),
            spec,
            problem: problem.as_ref(),
            view: Some(view),
            former: None,
            outcome: &outcomes[self.outcome],
            foreign_scaling: self.contested.then_some(foreign_scaling).as_ref(),
            canary: None,
            now: Timestamp::now(),
            deployment: deployment.as_ref(),
            health: &health,
            is_waking_up: self.was_ready
                && unready_for.is_some_and(|unready_for| unready_for < Duration::from_mins(1)),
            unready_for,
            unjoined_for: (self.pods == Pods::WorkElsewhere).then_some(MAX_UNJOINED),
            worker: &ResourceRequirements::default(),
        })
    }

    /// What must hold for every combination.
    fn check(self, conditions: &[NewCondition]) {
        let [ready, reconciling, stalled, _, _, handler, limited, _] = conditions else {
            panic!("{conditions:?}")
        };
        let holds = |one: &NewCondition| one.holds == Some(true);
        let why = || format!("{self:?}\n{conditions:#?}");
        assert!(!holds(ready) || self.does_tasks(), "ready, but no task starts: {}", why());
        assert!(!holds(stalled) || self.needs_user(), "stalled, but no user action is needed: {}", why());
        assert!(holds(stalled) || !self.needs_user(), "not stalled, but a user has to act: {}", why());
        let works = self.ready() > 0 || self.outcome == MISMATCH;
        assert!(!(holds(ready) && holds(stalled)) || works, "{}", why());
        assert!(!(holds(reconciling) && holds(stalled)), "kstatus does not allow both: {}", why());
        assert!(holds(ready) || ready.reason != Reason::Succeeded, "not ready without a reason: {}", why());
        let all_work = matches!(self.pods, Pods::Work | Pods::WorkElsewhere);
        assert!(!holds(handler) || all_work, "{}", why());
        assert!(self.ready() > 0 || !limited.message.contains("raise workers.total"), "{}", why());
        assert!(conditions.iter().all(|one| !one.message.is_empty()), "{}", why());
        // Flux, `kubectl wait` and Argo wait until kstatus reports Current.
        let current = !holds(reconciling) && !holds(stalled) && holds(ready);
        assert!(!current || self.does_tasks(), "{}", why());
    }
}

fn spec(paused: bool, reason: ScalingReason) -> TaskQueueSpec {
    let suspend_scaling = reason == ScalingReason::Suspended;
    TaskQueueSpec { paused, suspend_scaling, ..TaskQueueSpec::with_workers(20) }
}

fn view((pods_desired, reason): (u32, ScalingReason)) -> QueueView {
    let stats = QueueStats {
        queue: QueueId(1),
        name: "emails".into(),
        paused: false,
        total_workers: 20,
        available: 7,
        scheduled: 0,
        retryable: 0,
        suspects: 0,
        oldest_suspect_seconds: None,
        due_soon: 0,
        running: 0,
        dead: 0,
        oldest_available_seconds: Some(70.0),
        oldest_by_priority: [None; 4],
        completed_total: 0,
        arrivals: [0; ARRIVAL_SECONDS],
        arrivals_second: 0,
        arrivals_known: ARRIVAL_SECONDS,
        enqueued: [0; ARRIVAL_SECONDS],
        newly_dead: 0,
        instances: 0,
        allocated: 0,
        busy: 0,
        runs: Runs::default(),
        mean_running_seconds: None,
    };
    let (demand, inputs, memory) = (None, None, Memory::default());
    QueueView {
        name: "emails".into(),
        owner: None,
        limit: None,
        shortage: None,
        refused: None,
        stats: Some(stats),
        backlog_full: false,
        enqueued: 0,
        instances: pods_desired,
        ready: pods_desired,
        draining: 0,
        settings: QueueSettings::default(),
        decision: Decision { workers_desired: pods_desired, pods_desired, reason, demand, inputs, memory },
        metrics: Vec::new(),
    }
}

/// Before, queues without a single connection, and pods that could not mount a volume, were reported as
/// ready.
#[test]
fn ready_is_true_only_if_tasks_start() {
    let (outcomes, mut cases) = (outcomes(), 0);
    for paused in [false, true] {
        for decided in decisions() {
            let spec = spec(paused, decided.1);
            let view = view(decided);
            for (problem, pods, deployment) in PROBLEMS.iter().flat_map(|problem| {
                let both = PODS.iter().flat_map(|pods| ROLLOUTS.iter().map(move |one| (*pods, *one)));
                both.map(|(pods, rollout)| (*problem, pods, rollout))
            }) {
                for (outcome, unready_for, was_ready) in (0..outcomes.len()).flat_map(|outcome| {
                    UNREADY_FOR.iter().flat_map(move |unready_for| {
                        [(outcome, *unready_for, false), (outcome, *unready_for, true)]
                    })
                }) {
                    let case = Case {
                        problem,
                        outcome,
                        decided,
                        pods,
                        deployment,
                        unready_for,
                        was_ready,
                        paused,
                        contested: was_ready,
                    };
                    // The time is counted only while pods are wanted, none is ready, and the database
                    // answers.
                    let counts = decided.0 > 0 && case.ready() == 0 && problem.is_none();
                    if counts == unready_for.is_some() {
                        case.check(&case.decided(&view, &outcomes, &spec));
                        cases += 1;
                    }
                }
            }
        }
    }
    assert!(cases > 20_000, "{cases}");
}

/// Ready, Reconciling and Stalled in common situations, and the reason of Ready.
#[test]
fn conditions_of_common_situations() {
    let case = |decided, pods, deployment| Case {
        problem: None,
        outcome: 0,
        decided,
        pods,
        deployment,
        unready_for: None,
        was_ready: false,
        paused: false,
        contested: false,
    };
    let at_zero = case((0, ScalingReason::Idle), Pods::None, Rollout::Done);
    let late = |case: Case| Case { unready_for: Some(660), ..case };
    let starts =
        |pods, rollout| Case { unready_for: Some(30), ..case((2, ScalingReason::Backlog), pods, rollout) };
    for (case, letters, reason) in [
        (at_zero, "tff", Reason::Succeeded),
        (case((0, ScalingReason::Connections), Pods::None, Rollout::Done), "fff", Reason::Connections),
        (case((0, ScalingReason::Total), Pods::None, Rollout::Done), "fff", Reason::Total),
        (case((0, ScalingReason::Suspended), Pods::None, Rollout::Done), "fff", Reason::Suspended),
        (case((0, ScalingReason::External), Pods::None, Rollout::Done), "fff", Reason::External),
        (case((2, ScalingReason::External), Pods::Work, Rollout::Done), "tff", Reason::Succeeded),
        (case((0, ScalingReason::Unknown), Pods::None, Rollout::Done), "uff", Reason::NotObserved),
        (case((2, ScalingReason::Backlog), Pods::Work, Rollout::Done), "tff", Reason::Succeeded),
        (case((2, ScalingReason::Connections), Pods::Work, Rollout::Done), "tff", Reason::Succeeded),
        (case((2, ScalingReason::Backlog), Pods::WorkElsewhere, Rollout::Done), "fff", Reason::NotJoined),
        (case((2, ScalingReason::Backlog), Pods::Work, Rollout::Paused), "ttf", Reason::Succeeded),
        (starts(Pods::Start, Rollout::InProgress), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Start, Rollout::InProgress) }, "ttf", Reason::Progressing),
        (starts(Pods::Slow, Rollout::InProgress), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Crash, Rollout::InProgress) }, "ftf", Reason::CrashLooping),
        (late(starts(Pods::Crash, Rollout::InProgress)), "fft", Reason::CrashLooping),
        (late(starts(Pods::Slow, Rollout::Done)), "fft", Reason::NotStarting),
        (starts(Pods::Crash, Rollout::DeadlineExceeded), "fft", Reason::CrashLooping),
        (
            case((2, ScalingReason::Backlog), Pods::CrashNextToOneThatWorks, Rollout::DeadlineExceeded),
            "tft",
            Reason::CrashLooping,
        ),
        (starts(Pods::None, Rollout::PodsRejected), "fft", Reason::PodsRejected),
        (Case { problem: Some(Reason::ConnectionFailed), ..at_zero }, "fff", Reason::ConnectionFailed),
        (Case { problem: Some(Reason::SecretNotFound), ..at_zero }, "fft", Reason::SecretNotFound),
        (Case { paused: true, ..at_zero }, "fff", Reason::Paused),
    ] {
        let spec = spec(case.paused, case.decided.1);
        let conditions = case.decided(&view(case.decided), &outcomes(), &spec);
        let letter = |one: &NewCondition| one.holds.map_or('u', |holds| if holds { 't' } else { 'f' });
        let detail: String = conditions[..3].iter().map(letter).collect();
        assert_eq!((detail.as_str(), conditions[0].reason), (letters, reason), "{case:?}\n{conditions:#?}");
    }
}
