//! All that pods, limits, Deployments and databases can be together, with kstatus' meaning as the judge.

use rowlock_plan::{Decision, Reason as Settled};
use rowlock_queue::{QueueId, QueueStats};

use super::*;

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
struct Case {
    trouble: Option<Reason>,
    outcome: usize,
    decided: (u32, Settled),
    pods: Pods,
    deployment: Made,
    lacks: Option<u64>,
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
    let said = || "so".to_owned();
    [
        Outcome::Done,
        Outcome::Waiting(said()),
        Outcome::Failed(said()),
        Outcome::Refused(said()),
        Outcome::Foreign(said()),
        Outcome::Forbidden(said()),
    ]
}

fn decisions() -> Vec<(u32, Settled)> {
    let mut all = vec![(1, Settled::Faltering), (2, Settled::Backlog), (2, Settled::Fixed)];
    for pods in [0, 2] {
        let reasons = [
            Settled::MinWorkers,
            Settled::External,
            Settled::Connections,
            Settled::Total,
            Settled::Suspended,
            Settled::Unknown,
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

    fn health(self) -> Health {
        let crash = || Some(trouble(Reason::CrashLooping));
        let pods = if self.pods == Pods::None { 0 } else { 2 };
        let found = healthy(pods, self.ready());
        match self.pods {
            Pods::Crash => Health { trouble: crash(), troubled: 2, ..found },
            Pods::CrashBesideOneThatWorks => Health { trouble: crash(), troubled: 1, ..found },
            Pods::Slow => Health { slow: Some("an image".into()), ..found },
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
        let sleeps = wanted == 0 && matches!(reason, Settled::MinWorkers);
        let wakes = wanted > 0 && self.was_ready && self.lacks == Some(30) && self.pods != Pods::Crash;
        let enough = wanted > 0 || !matches!(reason, Settled::Connections | Settled::Total);
        let works = self.ready() > 0 && enough;
        self.trouble.is_none() && ours && !self.paused && (works || sleeps || wakes)
    }

    /// Whether it stays so until somebody changes something.
    fn needs_somebody(self) -> bool {
        self.trouble == Some(Reason::SecretNotFound)
            || self.trouble.is_none()
                && (self.outcome >= 3
                    || matches!(self.deployment, Made::LetsNoneIn | Made::IsLate)
                    || self.lacks == Some(660))
    }

    fn judged(self, view: &QueueView, outcomes: &[Outcome; 6], spec: &TaskQueueSpec) -> Vec<Verdict> {
        let contest = Contest { managers: vec!["kubectl".into()], theirs: 5, ours: 2 };
        let (trouble, health, deployment) = (self.trouble.map(trouble), self.health(), self.deployment());
        let lacks = self.lacks.map(Duration::from_secs);
        judge(&Seen {
            place: ("shop", "emails"),
            spec,
            trouble: trouble.as_ref(),
            view: Some(view),
            former: None,
            outcome: &outcomes[self.outcome],
            contest: self.contested.then_some(contest).as_ref(),
            deployment: deployment.as_ref(),
            health: &health,
            wakes: self.was_ready && lacks.is_some_and(|lacks| lacks < Duration::from_mins(1)),
            lacks,
            worker: &ResourceRequirements::default(),
        })
    }

    /// What must hold whatever was seen.
    fn check(self, verdicts: &[Verdict]) {
        let [ready, reconciling, stalled, _, _, handler, limited, _] = verdicts else {
            panic!("{verdicts:?}")
        };
        let holds = |one: &Verdict| one.holds == Some(true);
        let why = || format!("{self:?}\n{verdicts:#?}");
        assert!(!holds(ready) || self.does_tasks(), "ready, and nothing runs: {}", why());
        assert!(!holds(stalled) || self.needs_somebody(), "nobody has to act: {}", why());
        assert!(holds(stalled) || !self.needs_somebody(), "somebody has to act: {}", why());
        assert!(!(holds(ready) && holds(stalled)) || self.ready() > 0, "{}", why());
        assert!(!(holds(reconciling) && holds(stalled)), "kstatus knows no such thing: {}", why());
        assert!(holds(ready) || ready.reason != Reason::Succeeded, "why not? {}", why());
        assert!(!holds(handler) || self.ready() > 0 && self.pods == Pods::Work, "{}", why());
        assert!(self.ready() > 0 || !limited.message.contains("raise workers.total"), "{}", why());
        assert!(verdicts.iter().all(|one| !one.message.is_empty()), "{}", why());
        // Flux, `kubectl wait` and Argo go on when kstatus says Current.
        let current = !holds(reconciling) && !holds(stalled) && holds(ready);
        assert!(!current || self.does_tasks(), "{}", why());
    }
}

fn view((pods_desired, reason): (u32, Settled)) -> QueueView {
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
    let (wish, inputs, memory) = (None, None, Memory::default());
    QueueView {
        name: "emails".into(),
        owner: None,
        limit: None,
        refused: None,
        stats: Some(stats),
        instances: pods_desired,
        decision: Decision { workers_desired: pods_desired, pods_desired, reason, wish, inputs, memory },
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
            for (trouble, pods, deployment) in TROUBLES.iter().flat_map(|trouble| {
                let both = PODS.iter().flat_map(|pods| MADE.iter().map(move |made| (*pods, *made)));
                both.map(|(pods, made)| (*trouble, pods, made))
            }) {
                for (outcome, lacks, was_ready) in (0..outcomes.len()).flat_map(|outcome| {
                    LACKS.iter().flat_map(move |lacks| [(outcome, *lacks, false), (outcome, *lacks, true)])
                }) {
                    let case = Case {
                        trouble,
                        outcome,
                        decided,
                        pods,
                        deployment,
                        lacks,
                        was_ready,
                        paused,
                        contested: was_ready,
                    };
                    // It is counted only while there shall be pods, none is ready, and the database answers.
                    let counts = decided.0 > 0 && case.ready() == 0 && trouble.is_none();
                    if counts == lacks.is_some() {
                        case.check(&case.judged(&view, &outcomes, &spec));
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
        trouble: None,
        outcome: 0,
        decided,
        pods,
        deployment,
        lacks: None,
        was_ready: false,
        paused: false,
        contested: false,
    };
    let asleep = case((0, Settled::MinWorkers), Pods::None, Made::Settled);
    let late = |case: Case| Case { lacks: Some(660), ..case };
    let starts = |pods, made| Case { lacks: Some(30), ..case((2, Settled::Backlog), pods, made) };
    for (case, letters, reason) in [
        (asleep, "tff", Reason::Succeeded),
        (case((0, Settled::Connections), Pods::None, Made::Settled), "fff", Reason::Connections),
        (case((0, Settled::Total), Pods::None, Made::Settled), "fff", Reason::Total),
        (case((0, Settled::Suspended), Pods::None, Made::Settled), "fff", Reason::Suspended),
        (case((0, Settled::External), Pods::None, Made::Settled), "fff", Reason::External),
        (case((2, Settled::External), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((0, Settled::Unknown), Pods::None, Made::Settled), "uff", Reason::NotObserved),
        (case((2, Settled::Backlog), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((2, Settled::Connections), Pods::Work, Made::Settled), "tff", Reason::Succeeded),
        (case((2, Settled::Backlog), Pods::Work, Made::IsPaused), "ttf", Reason::Succeeded),
        (starts(Pods::Start, Made::Rolls), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Start, Made::Rolls) }, "ttf", Reason::Progressing),
        (starts(Pods::Slow, Made::Rolls), "ftf", Reason::Progressing),
        (Case { was_ready: true, ..starts(Pods::Crash, Made::Rolls) }, "ftf", Reason::CrashLooping),
        (late(starts(Pods::Crash, Made::Rolls)), "fft", Reason::CrashLooping),
        (late(starts(Pods::Slow, Made::Settled)), "fft", Reason::NotStarting),
        (starts(Pods::Crash, Made::IsLate), "fft", Reason::CrashLooping),
        (
            case((2, Settled::Backlog), Pods::CrashBesideOneThatWorks, Made::IsLate),
            "tft",
            Reason::CrashLooping,
        ),
        (starts(Pods::None, Made::LetsNoneIn), "fft", Reason::PodsRefused),
        (Case { trouble: Some(Reason::ConnectionFailed), ..asleep }, "fff", Reason::ConnectionFailed),
        (Case { trouble: Some(Reason::SecretNotFound), ..asleep }, "fft", Reason::SecretNotFound),
        (Case { paused: true, ..asleep }, "fff", Reason::Paused),
    ] {
        let spec = TaskQueueSpec { paused: case.paused, ..TaskQueueSpec::with_workers(20) };
        let verdicts = case.judged(&view(case.decided), &outcomes(), &spec);
        let letter = |one: &Verdict| one.holds.map_or('u', |holds| if holds { 't' } else { 'f' });
        let said: String = verdicts[..3].iter().map(letter).collect();
        assert_eq!((said.as_str(), verdicts[0].reason), (letters, reason), "{case:?}\n{verdicts:#?}");
    }
}
