//! Replays a load through an autoscaler.

use rowlock_crds::TaskQueueSpec;

use crate::laws::{Fixed, Keda, Knative, LawKind, Rowlock, keda};
use crate::load::{Load, QueueLoad};
use crate::oracle::oracle;
use crate::outcome::Outcome;
use crate::score::{Sample, Score};
use crate::world::{ScaleIn, World};

/// Replays a load through an autoscaler. The same seed gives the same score.
#[must_use]
pub fn replay(load: &Load, law: LawKind, seed: u64) -> Score {
    Score::of(run(load, &specs(load), law, seed, false).0)
}

/// The same, with a sample of each second.
#[must_use]
pub fn replay_traced(load: &Load, law: LawKind, seed: u64) -> (Score, Vec<Sample>) {
    replay_specs(load, &specs(load), law, seed)
}

/// The same, where the operator decides by the whole spec of each queue, in the order of the load: also by
/// `scaleDownAfter`, `prefer` and the modes `Fixed` and `External`. The other laws see the load alone.
#[must_use]
pub fn replay_specs(load: &Load, specs: &[TaskQueueSpec], law: LawKind, seed: u64) -> (Score, Vec<Sample>) {
    let (outcome, samples) = run(load, specs, law, seed, true);
    (Score::of(outcome), samples)
}

/// What the manifests of the load say.
fn specs(load: &Load) -> Vec<TaskQueueSpec> {
    load.queues.iter().map(QueueLoad::spec).collect()
}

fn run(
    load: &Load,
    specs: &[TaskQueueSpec],
    law: LawKind,
    seed: u64,
    traced: bool,
) -> (Outcome, Vec<Sample>) {
    // Only Rowlock knows which pods are idle.
    let scale_in = if law == LawKind::Rowlock { ScaleIn::IdleFirst } else { ScaleIn::Random };
    let world = World::new(load, scale_in, seed);
    let world = if traced { world.trace() } else { world };
    let outcome = match law {
        LawKind::Rowlock => world.run(&mut Rowlock::new(load, specs)),
        LawKind::KedaDefault => world.run(&mut Keda::new(keda::DEFAULTS, load)),
        LawKind::KedaTuned => world.run(&mut Keda::new(keda::TUNED, load)),
        LawKind::Knative => world.run(&mut Knative::new(load)),
        LawKind::Fixed => world.run(&mut Fixed),
        LawKind::Oracle => return oracle(load, seed, traced),
    };
    outcome.unwrap_or_default()
}
