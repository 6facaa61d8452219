//! Autoscalers: what they may see of a queue, when they look, and how many pods they ask for.

mod fixed;
pub(crate) mod keda;
mod knative;
mod rowlock;
mod schedule;

use crate::world::World;
pub(crate) use fixed::Fixed;
pub(crate) use keda::Keda;
pub(crate) use knative::Knative;
pub(crate) use rowlock::Rowlock;
pub(crate) use schedule::Schedule;

/// An autoscaler in a simulation. It asks to be woken with [`World::wake`].
pub(crate) trait Law {
    /// The load begins.
    fn begin(&mut self, world: &mut World<'_>);

    /// A moment it has asked for, with the name it gave the timer.
    fn wake(&mut self, world: &mut World<'_>, timer: u32);

    /// A transaction with tasks that could start at once has committed.
    fn committed(&mut self, _world: &mut World<'_>, _queue: u32) {}

    /// A pod is ready, or one is gone.
    fn pods_changed(&mut self, _world: &mut World<'_>) {}
}

/// The autoscalers that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LawKind {
    /// The decisions of our operator.
    Rowlock,
    /// KEDA and the `HorizontalPodAutoscaler`, at their defaults.
    KedaDefault,
    /// KEDA that polls each 5 s, waits 60 s before zero, and makes a `HorizontalPodAutoscaler` with a
    /// `behavior` that stabilises over 60 s.
    KedaTuned,
    /// Knative's pod autoscaler at its defaults.
    Knative,
    /// The cheapest schedule that keeps the wait target and knows the load before it comes. Each queue has
    /// its own, without the budget.
    Oracle,
    /// Always `total`.
    Fixed,
}

impl LawKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Rowlock, Self::KedaDefault, Self::KedaTuned, Self::Knative, Self::Oracle, Self::Fixed];

    /// Its name in tables and pictures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rowlock => "rowlock",
            Self::KedaDefault => "keda",
            Self::KedaTuned => "keda-tuned",
            Self::Knative => "knative",
            Self::Oracle => "oracle",
            Self::Fixed => "fixed",
        }
    }
}
