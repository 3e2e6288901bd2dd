//! What a seed decides once.

use clicktide::history::HistoryLimits;
use clicktide_dataflows::time::Windows;
use rand::prelude::IndexedRandom;
use rand::{Rng, RngExt};

/// How the job under test is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Commits a second time where the outcome of the first was unknown.
    CommitsAgain,
    /// Leaves idle advances out of its commits, now and then.
    ForgetsIdleAdvance,
    /// Says that a partition need not be read again from before its position.
    CutsTooLate,
    /// Leaves dead letters out of its commits, now and then.
    LosesDeadLetters,
    /// Leaves sanitised events out of its commits, now and then.
    LosesSanitisedEvents,
    /// Commits results without the progress, now and then.
    ForgetsProgress,
    /// Starts without fencing the runs before.
    FencesNobody,
    /// Leaves one of a checkpoint's objects out when it is restored.
    RestoresLess,
    /// Says that nothing before the cut has to be known.
    ForgetsHistory,
    /// Says the same of a checkpoint.
    RestoresWithoutHistory,
}

/// The job and its surroundings, as a seed decides them.
#[derive(Clone, Debug)]
pub struct Plan {
    pub windows: Windows,
    pub bound_ms: i64,
    pub idle_timeout_ms: Option<i64>,
    /// Which copies count, and how many pages are told apart.
    pub history: HistoryLimits,
    /// One in so many records is a copy of an earlier one, of any partition or of the same.
    pub copies: u32,
    /// How far an event may be ahead of its record.
    pub future_ms: i64,
    pub ticks_ahead: i64,
    pub records_in_flight: usize,
    pub late_to_dead_letters: bool,
    /// Partitions at the start.
    pub partitions: usize,
    /// Partitions at most.
    pub partitions_max: usize,
    pub until_end: bool,
    /// Records to arrive.
    pub records: usize,
    /// One in so many records is no event, beside what else goes wrong.
    pub rubbish: u32,
    /// No clock runs ahead of the log's, so that the dataflows' own oracle has to give the same results too.
    pub plain: bool,
    /// Whether producers write in transactions.
    pub transactions: bool,
    /// How often something goes wrong, in thousandths of the steps.
    pub crashes: u32,
    /// How often a commit breaks off, in thousandths of the commits.
    pub broken_commits: u32,
    /// How often time passes, records arrive, are fetched, and are committed, relative to the workers' turns.
    pub paces: [u32; 4],
    /// From one checkpoint to the next, if there are any.
    pub checkpoint_every_ms: Option<i64>,
    /// How many checkpoints are kept.
    pub keep: usize,
    /// How often an object can't be put, in thousandths.
    pub broken_puts: u32,
    /// How often the writer is stepped, relative to the workers' turns, and how often what it wrote is damaged, in thousandths.
    pub writes: u32,
    pub damages: u32,
    /// Checks every commit against the oracle, and not only crashes and the end.
    pub checks_every_commit: bool,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let slide_ms = *[10, 40, 100].choose(rng).expect("there are some");
        let size_ms = match rng.random_range(0..6) {
            0 => slide_ms * rng.random_range(1..=2),
            1..=3 => slide_ms * rng.random_range(5..=8),
            _ => slide_ms * rng.random_range(1..=6) + rng.random_range(1..slide_ms),
        };
        let offset_ms = if rng.random_ratio(1, 3) { rng.random_range(-2 * slide_ms..3 * slide_ms) } else { 0 };
        let windows = Windows::new(size_ms, slide_ms, offset_ms).expect("such windows are possible");
        let plain = rng.random_ratio(1, 8);
        let until_end = rng.random_ratio(1, 8);
        let idle_timeout_ms = (!plain && rng.random_ratio(5, 6)).then(|| slide_ms * rng.random_range(1..=10));
        let partitions = rng.random_range(1..=4);
        let grows = !plain && rng.random_ratio(1, 4);
        // Horizons at which copies count again, and such at which those would be late.
        let horizon_ms = (!plain && rng.random_ratio(1, 2)).then(|| rng.random_range(1..3 * size_ms));
        let pages_max = (!plain && rng.random_ratio(1, 4)).then(|| rng.random_range(1..4));
        let history = HistoryLimits { horizon_ms, pages_max };
        Plan {
            history,
            copies: if history.any() { *[3, 6, 20].choose(rng).expect("there are some") } else { 20 },
            windows,
            bound_ms: if rng.random_ratio(1, 5) { 0 } else { rng.random_range(0..4 * slide_ms) },
            idle_timeout_ms,
            future_ms: slide_ms * rng.random_range(1..=10),
            ticks_ahead: *[1, 2, 4, 64].choose(rng).expect("there are some"),
            records_in_flight: *[1, 8, 10_000].choose(rng).expect("there are some"),
            late_to_dead_letters: rng.random_ratio(2, 3),
            partitions,
            partitions_max: if grows { partitions + rng.random_range(1..=2) } else { partitions },
            until_end,
            records: rng.random_range(5..120),
            rubbish: *[2, 4, 40].choose(rng).expect("there are some"),
            plain,
            transactions: rng.random_ratio(1, 3),
            crashes: *[0, 2, 5, 15, 40].choose(rng).expect("there are some"),
            broken_commits: *[0, 30, 100, 300].choose(rng).expect("there are some"),
            paces: [(); 4].map(|()| rng.random_range(2..=12)),
            checkpoint_every_ms: rng.random_ratio(3, 4).then(|| slide_ms * rng.random_range(1..=12)),
            keep: rng.random_range(1..=3),
            broken_puts: *[0, 50, 200].choose(rng).expect("there are some"),
            writes: rng.random_range(2..=12),
            damages: *[0, 3, 10].choose(rng).expect("there are some"),
            checks_every_commit: rng.random_ratio(1, 10),
        }
    }
}
