//! The taut string: the path between two bounds that bends least. It is the cheapest way to do work, as it
//! changes the number of workers as little as possible.

use super::work::Bounds;

/// A stretch of the string: until when, and how steep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    pub(super) from: f64,
    pub(super) until: f64,
    /// Work per second: workers that are busy.
    pub(super) slope: f64,
}

/// A slope to a point that bounds it.
#[derive(Debug, Clone, Copy)]
struct Tangent {
    slope: f64,
    index: usize,
}

/// From the first point to the last, at its lower bound.
pub(super) fn taut_string(bounds: &[Bounds]) -> Vec<Stretch> {
    let (mut stretches, mut at) = (Vec::new(), 0);
    let Some(mut height) = bounds.first().map(|first| first.least) else { return stretches };
    while at + 1 < bounds.len() {
        let (slope, next) = stretch(bounds, at, height);
        let (from, until) = (bounds[at].at, bounds[next].at);
        stretches.push(Stretch { from, until, slope });
        height += slope * (until - from);
        at = next;
    }
    stretches
}

/// As far as one straight line leads, and where it ends.
fn stretch(bounds: &[Bounds], at: usize, height: f64) -> (f64, usize) {
    let last = bounds.len() - 1;
    let mut low = Tangent { slope: 0.0, index: at + 1 };
    let mut high = Tangent { slope: f64::INFINITY, index: at + 1 };
    for (index, bound) in bounds.iter().enumerate().skip(at + 1) {
        let time = bound.at - bounds[at].at;
        let most = if index == last { bound.least } else { bound.most };
        let (rise, limit) = ((bound.least - height) / time, (most - height) / time);
        if rise > high.slope {
            return (high.slope, high.index);
        }
        if limit < low.slope {
            return (low.slope.max(0.0), low.index);
        }
        if rise >= low.slope {
            low = Tangent { slope: rise, index };
        }
        if limit <= high.slope {
            high = Tangent { slope: limit.max(0.0), index };
        }
    }
    (low.slope.min(high.slope), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bounds: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
        let bounds: Vec<Bounds> =
            bounds.iter().map(|(at, least, most)| Bounds { at: *at, least: *least, most: *most }).collect();
        let flat = |stretch: &Stretch| (stretch.from, stretch.until, stretch.slope);
        taut_string(&bounds).iter().map(flat).collect()
    }

    #[test]
    fn nothing_bends_it_between_wide_bounds() {
        let bounds = [(0.0, 0.0, 0.0), (1.0, 0.0, 5.0), (2.0, 1.0, 8.0), (4.0, 8.0, 8.0)];
        assert_eq!(string(&bounds), [(0.0, 4.0, 2.0)]);
    }

    #[test]
    fn it_bends_around_what_must_be_done_first() {
        let bounds = [(0.0, 0.0, 0.0), (1.0, 4.0, 9.0), (2.0, 4.0, 9.0), (3.0, 5.0, 9.0)];
        assert_eq!(string(&bounds), [(0.0, 1.0, 4.0), (1.0, 3.0, 0.5)]);
    }

    #[test]
    fn it_bends_around_what_cannot_be_done_yet() {
        let bounds = [(0.0, 0.0, 0.0), (2.0, 0.0, 1.0), (3.0, 0.0, 6.0), (4.0, 7.0, 7.0)];
        assert_eq!(string(&bounds), [(0.0, 2.0, 0.5), (2.0, 4.0, 3.0)]);
    }

    #[test]
    fn without_room_it_follows_the_bounds() {
        let bounds = [(0.0, 0.0, 0.0), (1.0, 3.0, 3.0), (2.0, 3.0, 3.0), (3.0, 4.0, 4.0)];
        assert_eq!(string(&bounds), [(0.0, 1.0, 3.0), (1.0, 2.0, 0.0), (2.0, 3.0, 1.0)]);
        assert_eq!(string(&[]), []);
    }
}
