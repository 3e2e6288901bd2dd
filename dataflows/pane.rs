//! Panes: the rows that enter and leave the windows together.
//!
//! An event contributes `+1` at `enter` and `-1` at `leave`. Filed by that pair, the rows of all events fall into few
//! panes (one a slide, and some for late events), which travel, are sorted and expire as a whole.

use differential_dataflow::difference::Abelian;
use serde::{Deserialize, Serialize};

use crate::event::PageId;
use crate::time::Tick;

/// What a row of an arrangement is: small, ordered, movable between processes.
pub trait Row: Copy + Ord + Send + Serialize + for<'de> Deserialize<'de> + 'static {
    /// What rows are ordered by first: a hash, so that rows sort by distribution.
    fn leading_hash(&self) -> u64;
}

impl Row for PageId {
    fn leading_hash(&self) -> u64 {
        *self
    }
}

/// What a row's multiplicity is: an Abelian group whose elements can move between processes.
pub trait Diff: Copy + Abelian + Send + Serialize + for<'de> Deserialize<'de> + 'static {}
impl<R: Copy + Abelian + Send + Serialize + for<'de> Deserialize<'de> + 'static> Diff for R {}

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
pub fn consolidate<D: Row, R: Diff>(rows: &mut Vec<(D, R)>) {
    sort_rows(rows);
    rows.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1.plus_equals(&next.1);
        }
        same
    });
    rows.retain(|(_, diff)| !diff.is_zero());
}

/// Sorts rows: deals them out by the first bits of their leading hash, then sorts each of the small parts.
///
/// Costs about a copy per row as long as few rows share a hash, and never more than sorting does.
pub fn sort_rows<D: Row, R: Copy>(rows: &mut Vec<(D, R)>) {
    const ROWS_PER_PART: usize = 4;
    let bits = (rows.len() / ROWS_PER_PART).checked_ilog2().unwrap_or(0);
    if bits == 0 {
        rows.sort_unstable_by_key(|(row, _)| *row);
        return;
    }
    let part_of = |row: &D| (row.leading_hash() >> (u64::BITS - bits)) as usize;
    let mut sizes = vec![0; 1 << bits];
    for (row, _) in rows.iter() {
        sizes[part_of(row)] += 1;
    }
    // Where the next row of each part goes: its start to begin with, its end when all are dealt out.
    let mut next = sizes;
    let mut start = 0;
    for part in &mut next {
        start += std::mem::replace(part, start);
    }
    let mut dealt = rows.clone();
    for row in rows.iter() {
        let at = &mut next[part_of(&row.0)];
        dealt[*at] = *row;
        *at += 1;
    }
    let mut start = 0;
    for end in next {
        dealt[start..end].sort_unstable_by_key(|(row, _)| *row);
        start = end;
    }
    *rows = dealt;
}
