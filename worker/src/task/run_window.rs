//! The runs that ended in the last two minutes: what heartbeats report for the number of workers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rowlock_queue::Runs;
use tokio::time::Instant;

/// The window advances in steps of this length.
const STEP: Duration = Duration::from_secs(10);

/// The window has this many steps: two minutes, of which up to one step is still to come. Long enough for a
/// mean of slow tasks, short enough that a change of the handler shows soon.
const STEPS: usize = 12;

/// The runs of one instance.
#[derive(Debug)]
pub(crate) struct RunWindow {
    since: Instant,
    /// The steps in which a run ended, oldest first, with their numbers since `since`.
    steps: Mutex<VecDeque<(u64, Runs)>>,
}

impl RunWindow {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), steps: Mutex::default() }
    }

    /// A run completed its task.
    pub(crate) fn completed(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.add(&Runs { completed: 1, seconds, seconds_squared: seconds * seconds, failed: 0 });
    }

    /// A run failed or timed out.
    pub(crate) fn failed(&self) {
        self.add(&Runs { failed: 1, ..Runs::default() });
    }

    /// The sums over the window.
    pub(crate) fn sums(&self) -> Runs {
        let now = self.step();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        expire(&mut steps, now);
        steps.iter().fold(Runs::default(), |sums, (_, runs)| sum(&sums, runs))
    }

    fn add(&self, runs: &Runs) {
        let now = self.step();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match steps.back_mut() {
            // Another thread may have begun the next step meanwhile.
            Some((newest, sums)) if now <= *newest => *sums = sum(sums, runs),
            _ => {
                expire(&mut steps, now);
                steps.push_back((now, *runs));
            }
        }
    }

    fn step(&self) -> u64 {
        self.since.elapsed().as_secs() / STEP.as_secs()
    }
}

fn expire(steps: &mut VecDeque<(u64, Runs)>, now: u64) {
    while steps.front().is_some_and(|(step, _)| step + STEPS as u64 <= now) {
        steps.pop_front();
    }
}

fn sum(one: &Runs, other: &Runs) -> Runs {
    Runs {
        completed: one.completed + other.completed,
        seconds: one.seconds + other.seconds,
        seconds_squared: one.seconds_squared + other.seconds_squared,
        failed: one.failed + other.failed,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sums_are_over_two_minutes() {
        let window = RunWindow::new();
        assert_eq!(window.sums(), Runs::default());
        window.completed(Duration::from_secs(3));
        advance(Duration::from_mins(1)).await;
        window.completed(Duration::from_secs(1));
        window.failed();
        let all = Runs { completed: 2, seconds: 4.0, seconds_squared: 10.0, failed: 1 };
        assert_eq!(window.sums(), all);
        advance(Duration::from_secs(59)).await;
        assert_eq!(window.sums(), all, "119 s ago");
        advance(Duration::from_secs(1)).await;
        let later = Runs { completed: 1, seconds: 1.0, seconds_squared: 1.0, failed: 1 };
        assert_eq!(window.sums(), later, "120 s ago");
        advance(Duration::from_mins(1)).await;
        assert_eq!(window.sums(), Runs::default());
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_keeps_a_bounded_number_of_steps() {
        let window = RunWindow::new();
        for _ in 0..1000 {
            window.completed(Duration::from_secs(1));
            advance(Duration::from_secs(3)).await;
        }
        assert!(window.steps.lock().unwrap().len() <= STEPS);
        let runs = window.sums();
        assert!((36..=40).contains(&runs.completed), "{runs:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_hours_forgets_all_and_breaks_nothing() {
        let window = RunWindow::new();
        window.completed(Duration::from_secs(1));
        advance(Duration::from_hours(5)).await;
        window.failed();
        assert_eq!(window.sums(), Runs { failed: 1, ..Runs::default() });
    }
}
