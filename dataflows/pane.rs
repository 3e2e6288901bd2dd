//! Panes: the rows that enter and leave the windows together.
//!
//! An event contributes `+1` at `enter` and `-1` at `leave`. Filed by that pair, the rows of all events fall into few
//! panes (one a slide, and some for late events), which travel, are sorted and expire as a whole.

use differential_dataflow::difference::Semigroup;
use serde::{Deserialize, Serialize};

use crate::time::Tick;

/// Rows that enter at one tick and leave at another, on their way to the worker that keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pane<D, R> {
    /// The first window end that counts the rows.
    pub enter: Tick,
    /// The first window end that no longer does; [`Tick::NEVER`] for a change that stays.
    pub leave: Tick,
    /// The index of the worker that keeps the rows.
    pub worker: u64,
    /// The rows with their multiplicities, in no order.
    pub rows: Vec<(D, R)>,
}

/// Rows being filed by pane and worker, until they are sent.
///
/// Costs one comparison per row where rows of a pane arrive in a row.
pub struct Filing<D, R> {
    panes: Vec<Pane<D, R>>,
    workers: u64,
    last: usize,
}

/// Rows per message at most, so that a pane travels while it is being filled.
const ROWS_PER_PANE_MAX: usize = 1 << 14;

impl<D, R> Filing<D, R> {
    /// Files for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { panes: Vec::new(), workers: workers as u64, last: 0 }
    }

    /// Files one row; `key` (a hash) decides which worker keeps it.
    #[inline]
    pub fn file(&mut self, enter: Tick, leave: Tick, key: u64, row: D, diff: R) {
        let worker = key % self.workers;
        let fits = |pane: &Pane<D, R>| {
            pane.worker == worker && pane.enter == enter && pane.leave == leave && pane.rows.len() < ROWS_PER_PANE_MAX
        };
        if !self.panes.get(self.last).is_some_and(fits) {
            self.last = self.panes.iter().rposition(fits).unwrap_or_else(|| {
                self.panes.push(Pane { enter, leave, worker, rows: Vec::new() });
                self.panes.len() - 1
            });
        }
        self.panes[self.last].rows.push((row, diff));
    }

    /// Takes all that was filed.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Pane<D, R>> {
        self.last = 0;
        self.panes.drain(..)
    }
}

impl<D, R> IntoIterator for Filing<D, R> {
    type Item = Pane<D, R>;
    type IntoIter = std::vec::IntoIter<Pane<D, R>>;

    fn into_iter(self) -> Self::IntoIter {
        self.panes.into_iter()
    }
}

/// Sorts rows and adds up the multiplicities of equal ones; rows that cancel vanish.
pub fn consolidate<D: Ord, R: Semigroup>(rows: &mut Vec<(D, R)>) {
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1.plus_equals(&next.1);
        }
        same
    });
    rows.retain(|(_, diff)| !diff.is_zero());
}
