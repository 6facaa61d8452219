//! All that pods, limits, Deployments and databases can be together, held against kstatus' meaning.

use rowlock_plan::{Decision, Reason as ScalingReason};
use rowlock_queue::{QueueId, QueueStats};

use super::*;

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
struct Case {
    problem: Option<Reason>,
    outcome: usize,
    decided: (u32, ScalingReason),
    pods: Pods,
    deployment: Made,
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
    CrashBesideOneThatWorks,
    Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    No,
    Settled,
    Rolls,
    LetsNoneIn,
    IsLate,
    IsPaused,
}

const TROUBLES: [Option<Reason>; 4] =
    [None, Some(Reason::ConnectionFailed), Some(Reason::SecretNotFound), Some(Reason::NotObserved)];
const PODS: [Pods; 6] =
    [Pods::None, Pods::Start, Pods::Slow, Pods::Crash, Pods::CrashBesideOneThatWorks, Pods::Work];
const MADE: [Made; 6] =
    [Made::No, Made::Settled, Made::Rolls, Made::LetsNoneIn, Made::IsLate, Made::IsPaused];
/// Seconds; the last is longer than anybody waits.
const LACKS: [Option<u64>; 3] = [None, Some(30), Some(660)];

fn outcomes() -> [Outcome; 6] {
    let detail = || "so".to_owned();
    [
        Outcome::Done,
        Outcome::Waiting(detail()),
        Outcome::Failed(detail()),
        Outcome::Rejected(detail()),
        Outcome::Foreign(detail()),
        Outcome::Forbidden(detail()),
    ]
}

fn decisions() -> Vec<(u32, ScalingReason)> {
    let mut all =
        vec![(1, ScalingReason::NotStarting), (2, ScalingReason::Backlog), (2, ScalingReason::Fixed)];
    for pods in [0, 2] {
        let reasons = [
            ScalingReason::MinWorkers,
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
            Pods::CrashBesideOneThatWorks => 1,
            Pods::Work => 2,
            _ => 0,
        }
    }

    fn health(self) -> PodHealth {
        let crash = || Some(problem(Reason::CrashLooping));
        let pods = if self.pods == Pods::None { 0 } else { 2 };
        let found = healthy(pods, self.ready());
        match self.pods {
            Pods::Crash => PodHealth { problem: crash(), failing: 2, ..found },
            Pods::CrashBesideOneThatWorks => PodHealth { problem: crash(), failing: 1, ..found },
            Pods::Slow => PodHealth { slow: Some("an image".into()), ..found },
            _ => found,
        }
    }

    fn deployment(self) -> Option<Deployment> {
        let wanted = self.decided.0;
        let mut made = json!({
            "metadata": { "generation": 1 },
            "spec": { "selector": {}, "template": {}, "paused": self.deployment == Made::IsPaused },
            "status": { "observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": wanted },
        });
        let condition = match self.deployment {
            Made::No => return None,
            Made::Settled => return serde_json::from_value(made).unwrap(),
            Made::LetsNoneIn => json!({ "type": "ReplicaFailure", "status": "True", "message": "quota" }),
            Made::IsLate => {
                json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late" })
            }
            Made::Rolls | Made::IsPaused => json!({ "type": "Progressing", "status": "True" }),
        };
        made["status"] = json!({ "observedGeneration": 1, "replicas": 3, "updatedReplicas": 1, "conditions": [condition] });
        serde_json::from_value(made).unwrap()
    }

    /// Whether a task that comes now starts within a minute, as far as anybody can know.
    fn does_tasks(self) -> bool {
        let (wanted, reason) = self.decided;
        let ours = self.outcome < 4;
        // Whoever scales instead of us wakes it.
        let sleeps = wanted == 0 && matches!(reason, ScalingReason::MinWorkers);
        let is_waking_up =
            wanted > 0 && self.was_ready && self.unready_for == Some(30) && self.pods != Pods::Crash;
        let enough = wanted > 0 || !matches!(reason, ScalingReason::Connections | ScalingReason::Total);
        let works = self.ready() > 0 && enough;
        self.problem.is_none() && ours && !self.paused && (works || sleeps || is_waking_up)
    }

    /// Whether it stays so until somebody changes something.
    fn needs_somebody(self) -> bool {
        self.problem == Some(Reason::SecretNotFound)
            || self.problem.is_none()
                && (self.outcome >= 3
                    || matches!(self.deployment, Made::LetsNoneIn | Made::IsLate)
                    || self.unready_for == Some(660))
    }

    fn decided(self, view: &QueueView, outcomes: &[Outcome; 6], spec: &TaskQueueSpec) -> Vec<NewCondition> {
        let foreign_scaling = ForeignScaling { managers: vec!["kubectl".into()], found: 5, wanted: 2 };
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
            deployment: deployment.as_ref(),
            health: &health,
            is_waking_up: self.was_ready
                && unready_for.is_some_and(|unready_for| unready_for < Duration::from_mins(1)),
            unready_for,
            worker: &ResourceRequirements::default(),
        })
    }

    /// What must hold whatever was seen.
    fn check(self, conditions: &[NewCondition]) {
        let [ready, reconciling, stalled, _, _, handler, limited, _] = conditions else {
            panic!("{conditions:?}")
        };
        let holds = |one: &NewCondition| one.holds == Some(true);
        let why = || format!("{self:?}\n{conditions:#?}");
        assert!(!holds(ready) || self.does_tasks(), "ready, and nothing runs: {}", why());
        assert!(!holds(stalled) || self.needs_somebody(), "nobody has to act: {}", why());
        assert!(holds(stalled) || !self.needs_somebody(), "somebody has to act: {}", why());
        assert!(!(holds(ready) && holds(stalled)) || self.ready() > 0, "{}", why());
        assert!(!(holds(reconciling) && holds(stalled)), "kstatus knows no such thing: {}", why());
        assert!(holds(ready) || ready.reason != Reason::Succeeded, "why not? {}", why());
        assert!(!holds(handler) || self.ready() > 0 && self.pods == Pods::Work, "{}", why());
        assert!(self.ready() > 0 || !limited.message.contains("raise workers.total"), "{}", why());
        assert!(conditions.iter().all(|one| !one.message.is_empty()), "{}", why());
        // Flux, `kubectl wait` and Argo go on when kstatus says Current.
        let current = !holds(reconciling) && !holds(stalled) && holds(ready);
        assert!(!current || self.does_tasks(), "{}", why());
    }
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
        due_soon: 0,
        running: 0,
        dead: 0,
        oldest_available_seconds: Some(70.0),
        oldest_by_priority: [None; 4],
        completed_total: 0,
        arrivals_per_second: 0.0,
        instances: 0,
        allocated: 0,
        busy: 0,
        mean_service_seconds: None,
    };
    let (demand, inputs, memory) = (None, None, Memory::default());
    QueueView {
        name: "emails".into(),
        owner: None,
        limit: None,
        refused: None,
        stats: Some(stats),
        instances: pods_desired,
        decision: Decision { workers_desired: pods_desired, pods_desired, reason, demand, inputs, memory },
        metrics: Vec::new(),
    }
}

/// Before this was mended, queues without a single connection, and pods that could not mount, were ready.
#[test]
fn ready_never_lies_whatever_was_seen() {
    let (outcomes, mut cases) = (outcomes(), 0);
    for paused in [false, true] {
        let spec = TaskQueueSpec { paused, ..TaskQueueSpec::with_workers(20) };
        for decided in decisions() {
            let view = view(decided);
            for (problem, pods, deployment) in TROUBLES.iter().flat_map(|problem| {
                let both = PODS.iter().flat_map(|pods| MADE.iter().map(move |made| (*pods, *made)));
                both.map(|(pods, made)| (*problem, pods, made))
            }) {
                for (outcome, unready_for, was_ready) in (0..outcomes.len()).flat_map(|outcome| {
                    LACKS.iter().flat_map(move |unready_for| {
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
                    // It is counted only while there shall be pods, none is ready, and the database answers.
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

/// Ready, Reconciling and Stalled of what people meet, and the reason of the first.
#[test]
fn what_people_meet() {
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
    let at_zero = case((0, ScalingReason::MinWorkers), Pods::None, Made::Settled);
    let late = |case: Case| Case { unready_for: Some(660), ..case };
    let starts = |pods, made| Case { unready_for: Some(30), ..case((2, ScalingReason::Backlog), pods, made) };
    for (case, letters, reason) in [
        (at_zero, "tff", Reason::Succeeded),
        (case((0, ScalingReason::Connections), Pods::None, Made::Settled), "fff", Reason::Connections),
        (case((0, ScalingReason::Total), Pods::None, Made::Settled), "fff", Reason::Total),
        (case((0, ScalingReason::Suspended), Pods::None, Made::Settled), "fff", Reason::Suspended),
        (case((0, ScalingReason::External), Pods::None, Made::Settled), "fff", Reason::External),
        (case((2, ScalingReason::External), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((0, ScalingReason::Unknown), Pods::None, Made::Settled), "uff", Reason::NotObserved),
        (case((2, ScalingReason::Backlog), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((2, ScalingReason::Connections), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((2, ScalingReason::Backlog), Pods::Work, Made::IsPaused), "ttf", Reason::Succeeded),
        (starts(Pods::Start, Made::Rolls), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Start, Made::Rolls) }, "ttf", Reason::Progressing),
        (starts(Pods::Slow, Made::Rolls), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Crash, Made::Rolls) }, "ftf", Reason::CrashLooping),
        (late(starts(Pods::Crash, Made::Rolls)), "fft", Reason::CrashLooping),
        (late(starts(Pods::Slow, Made::Settled)), "fft", Reason::NotStarting),
        (starts(Pods::Crash, Made::IsLate), "fft", Reason::CrashLooping),
        (
            case((2, ScalingReason::Backlog), Pods::CrashBesideOneThatWorks, Made::IsLate),
            "tft",
            Reason::CrashLooping,
        ),
        (starts(Pods::None, Made::LetsNoneIn), "fft", Reason::PodsRejected),
        (Case { problem: Some(Reason::ConnectionFailed), ..at_zero }, "fff", Reason::ConnectionFailed),
        (Case { problem: Some(Reason::SecretNotFound), ..at_zero }, "fft", Reason::SecretNotFound),
        (Case { paused: true, ..at_zero }, "fff", Reason::Paused),
    ] {
        let spec = TaskQueueSpec { paused: case.paused, ..TaskQueueSpec::with_workers(20) };
        let conditions = case.decided(&view(case.decided), &outcomes(), &spec);
        let letter = |one: &NewCondition| one.holds.map_or('u', |holds| if holds { 't' } else { 'f' });
        let detail: String = conditions[..3].iter().map(letter).collect();
        assert_eq!((detail.as_str(), conditions[0].reason), (letters, reason), "{case:?}\n{conditions:#?}");
    }
}
