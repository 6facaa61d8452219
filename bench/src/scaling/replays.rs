//! Replays all loads through all laws, on all cores.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rowlock_simulation::{LawKind, replay};

use super::families::Family;
use super::scores::{Figures, Scored, ScoredLoad};

/// What to replay.
#[derive(Debug)]
pub(super) struct Replays {
    pub(super) families: Vec<Family>,
    pub(super) seeds: Range<u64>,
    pub(super) laws: Vec<LawKind>,
    /// Scores of other laws that need no replay.
    pub(super) peers: Vec<Scored>,
}

/// The laws that are compared. A fixed number of pods is none.
pub(super) fn laws(no_oracle: bool) -> Vec<LawKind> {
    let mut laws =
        vec![LawKind::Rowlock, LawKind::KedaDefault, LawKind::KedaTuned, LawKind::Knative, LawKind::Oracle];
    laws.retain(|&law| law != LawKind::Oracle || !no_oracle);
    laws
}

impl Replays {
    /// The scores of all families, in their order. Each load that is done prints a line to stderr.
    pub(super) fn run(&self) -> Vec<Scored> {
        let loads: Vec<(usize, u64)> = (0..self.families.len())
            .flat_map(|family| self.seeds.clone().map(move |seed| (family, seed)))
            .collect();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(&(family, seed)) = loads.get(next.fetch_add(1, Ordering::Relaxed)) {
                let scored = self.replay(&self.families[family], seed);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.push((family, scored));
                eprintln!("{}/{} {}, seed {seed}", done.len(), loads.len(), self.families[family].name);
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        self.by_family(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn replay(&self, family: &Family, seed: u64) -> ScoredLoad {
        let load = family.load(seed);
        let tasks = load.queues.iter().map(|queue| queue.tasks.len()).sum();
        let known = self.known(family, seed, tasks);
        let laws: BTreeMap<String, Figures> = self
            .laws
            .iter()
            .map(|&law| {
                let known = known.and_then(|load| load.of(law)).filter(|_| law != LawKind::Rowlock);
                let figures = known.copied().unwrap_or_else(|| replay(&load, law, seed).into());
                (law.name().to_owned(), figures)
            })
            .collect();
        ScoredLoad { seed, tasks, laws }
    }

    /// The scores of an earlier run, unless the load has changed since.
    fn known(&self, family: &Family, seed: u64, tasks: usize) -> Option<&ScoredLoad> {
        let scored = self.peers.iter().find(|scored| scored.family == family.name)?;
        scored.loads.iter().find(|load| load.seed == seed && load.tasks == tasks)
    }

    fn by_family(&self, mut done: Vec<(usize, ScoredLoad)>) -> Vec<Scored> {
        done.sort_by_key(|(family, load)| (*family, load.seed));
        let mut scored: Vec<Scored> = self
            .families
            .iter()
            .map(|family| Scored { family: family.name.to_owned(), kind: family.kind, loads: Vec::new() })
            .collect();
        for (family, load) in done {
            scored[family].loads.push(load);
        }
        scored
    }
}
