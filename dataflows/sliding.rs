//! Arranging panes: a differential trace whose contents slide.
//!
//! ```text
//!  panes ──exchange──▶ Unsealed: one heap of rows per (enter, leave)
//!                        │ the frontier passes a tick
//!                        ▼
//!                      seal: sort the panes that enter, merge in the sealed panes that leave
//!                        │ one flat batch, one span
//!                        ▼
//!                      Spine (differential's own)  ──spans──▶ operators that walk the trace
//! ```
//!
//! Stock `arrange` would hold every future retraction in its merge batcher and merge the window at every tick. Here a
//! pane is sorted once, when it is sealed, and the sorted rows are kept for the tick at which they leave, so that a tick
//! costs what changes at it: O(n log n) for the n rows that enter, O(n) for those that leave, and the spine's amortised
//! merging. Kept in memory: the live rows in the trace, and the same rows once more until they leave.
//!
//! Architecture invariant: a batch carries no times. A span holds the changes of exactly one tick, and spans are merged
//! only below every reader's compaction frontier, where all times are alike; so a reader must advance its physical and
//! its logical compaction together, and read the trace only through the bounds of spans it has received.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::spine_fueled::{Merger, Spine, SpineBatch};
use differential_dataflow::trace::{Description, Span, Trace, TraceReader};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::progress::frontier::AntichainRef;
use timely::progress::{Antichain, Stamp};

use crate::pane::{Diff, Pane, Row};
use crate::time::Tick;

/// Sorted, consolidated rows without times.
pub struct FlatBatch<D, R> {
    rows: Vec<(D, R)>,
}

impl<D, R> FlatBatch<D, R> {
    /// The rows, sorted, each once, none of multiplicity zero.
    pub fn rows(&self) -> &[(D, R)] {
        &self.rows
    }
}

impl<D: Row, R: Diff> SpineBatch for FlatBatch<D, R> {
    type Time = Tick;
    type Merger = FlatMerger<D, R>;

    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// A merge of two flat batches, done in steps.
pub struct FlatMerger<D, R> {
    positions: (usize, usize),
    rows: Vec<(D, R)>,
}

impl<D: Row, R: Diff> Merger<FlatBatch<D, R>> for FlatMerger<D, R> {
    fn new(left: &FlatBatch<D, R>, right: &FlatBatch<D, R>, _compaction: AntichainRef<'_, Tick>) -> Self {
        FlatMerger { positions: (0, 0), rows: Vec::with_capacity(left.rows.len() + right.rows.len()) }
    }

    fn work(&mut self, left: &FlatBatch<D, R>, right: &FlatBatch<D, R>, fuel: &mut isize) {
        let before = self.positions.0 + self.positions.1;
        let limit = before.saturating_add(usize::try_from(*fuel).unwrap_or(0));
        merge_rows(&left.rows, &right.rows, &mut self.positions, limit, &mut self.rows);
        *fuel -= (self.positions.0 + self.positions.1 - before) as isize;
    }

    fn done(mut self) -> Option<FlatBatch<D, R>> {
        self.rows.shrink_to_fit();
        (!self.rows.is_empty()).then_some(FlatBatch { rows: self.rows })
    }
}

/// Merges sorted rows from `positions` on, adding up equal ones, until both are at their end or `limit` rows are read.
fn merge_rows<D: Row, R: Diff>(
    left: &[(D, R)],
    right: &[(D, R)],
    positions: &mut (usize, usize),
    limit: usize,
    merged: &mut Vec<(D, R)>,
) {
    let (mut l, mut r) = *positions;
    while l < left.len() && r < right.len() && l + r < limit {
        match left[l].0.cmp(&right[r].0) {
            Ordering::Less => {
                merged.push(left[l]);
                l += 1;
            }
            Ordering::Greater => {
                merged.push(right[r]);
                r += 1;
            }
            Ordering::Equal => {
                let mut diff = left[l].1;
                diff.plus_equals(&right[r].1);
                if !diff.is_zero() {
                    merged.push((left[l].0, diff));
                }
                l += 1;
                r += 1;
            }
        }
    }
    if l == left.len() || r == right.len() {
        let take = left.len().min(l.saturating_add(limit.saturating_sub(l + r)));
        merged.extend_from_slice(&left[l..take]);
        l = take;
        let take = right.len().min(r.saturating_add(limit.saturating_sub(l + r)));
        merged.extend_from_slice(&right[r..take]);
        r = take;
    }
    *positions = (l, r);
}

/// The trace of a sliding arrangement.
pub type SlidingTrace<D, R> = TraceAgent<Spine<Rc<FlatBatch<D, R>>>>;
/// A span of a sliding arrangement: the changes of one tick.
pub type SlidingSpan<D, R> = Span<Tick, Rc<FlatBatch<D, R>>>;
/// A sliding arrangement.
pub type SlidingArranged<'scope, D, R> = Arranged<'scope, SlidingTrace<D, R>>;

/// The tick whose changes `span` holds.
pub fn tick_of<D, R>(span: &SlidingSpan<D, R>) -> Tick {
    span.upper().as_option().map_or(Tick::NEVER, |upper| Tick(upper.0 - 1))
}

/// The changes that `span` holds, sorted.
pub fn rows_of<D, R>(span: &SlidingSpan<D, R>) -> &[(D, R)] {
    span.inner.as_ref().map_or(&[], |batch| batch.rows())
}

/// Takes the span with the changes at `tick`, if there is one. `spans` begins at `tick` or after it.
pub fn take_span<D, R>(spans: &mut VecDeque<SlidingSpan<D, R>>, tick: Tick) -> Option<SlidingSpan<D, R>> {
    spans.front().is_some_and(|span| tick_of(span) == tick).then(|| spans.pop_front()).flatten()
}

/// Keeps the earlier one of two capabilities.
pub fn hold_least(held: &mut Option<Capability<Tick>>, received: Option<Capability<Tick>>) {
    let Some(received) = received else { return };
    if held.as_ref().is_none_or(|held| received.time() < held.time()) {
        *held = Some(received);
    }
}

/// Rows not yet sealed, and sealed rows that have yet to leave.
struct Unsealed<D, R> {
    entering: BTreeMap<(Tick, Tick), Vec<(D, R)>>,
    leaving: BTreeMap<Tick, Vec<Rc<FlatBatch<D, R>>>>,
    condense: fn(&mut Vec<(D, R)>),
}

impl<D: Row, R: Diff> Unsealed<D, R> {
    fn insert(&mut self, mut pane: Pane<D, R>) {
        let rows = self.entering.entry((pane.enter, pane.leave)).or_default();
        if rows.is_empty() {
            *rows = pane.rows;
        } else {
            rows.append(&mut pane.rows);
        }
    }

    /// The least tick at which something enters or leaves.
    fn first_tick(&self) -> Option<Tick> {
        let enter = self.entering.first_key_value().map(|((enter, _), _)| *enter);
        let leave = self.leaving.first_key_value().map(|(leave, _)| *leave);
        enter.into_iter().chain(leave).min()
    }

    /// The changes at `tick`, which is the first tick.
    fn seal(&mut self, tick: Tick) -> Option<Rc<FlatBatch<D, R>>> {
        let mut runs: Vec<Rc<FlatBatch<D, R>>> = Vec::new();
        while let Some(entry) = self.entering.first_entry().filter(|entry| entry.key().0 == tick) {
            let ((_, leave), mut rows) = entry.remove_entry();
            (self.condense)(&mut rows);
            if !rows.is_empty() {
                rows.shrink_to_fit();
                let batch = Rc::new(FlatBatch { rows });
                if leave < Tick::NEVER {
                    self.leaving.entry(leave).or_default().push(Rc::clone(&batch));
                }
                runs.push(batch);
            }
        }
        for left in self.leaving.remove(&tick).into_iter().flatten() {
            // Mostly this is the last reference, as the spine has merged its own away: negate in place.
            let mut rows = Rc::try_unwrap(left).map_or_else(|shared| shared.rows.clone(), |own| own.rows);
            for (_, diff) in &mut rows {
                diff.negate();
            }
            runs.push(Rc::new(FlatBatch { rows }));
        }
        // The smallest first: late events make many small panes beside two large ones.
        runs.sort_by_key(|run| std::cmp::Reverse(run.rows.len()));
        while runs.len() > 1 {
            let (one, two) = (runs.pop()?, runs.pop()?);
            let mut rows = Vec::with_capacity(one.rows.len() + two.rows.len());
            merge_rows(&one.rows, &two.rows, &mut (0, 0), usize::MAX, &mut rows);
            let at = runs.partition_point(|run| run.rows.len() > rows.len());
            runs.insert(at, Rc::new(FlatBatch { rows }));
        }
        runs.pop().filter(|run| !run.rows.is_empty())
    }
}

/// Arranges panes on the workers they name: every row is in the trace from its `enter` to its `leave`.
///
/// In: panes, under capabilities at or before their `enter`. Out: one span with updates per tick at which anything changes,
/// sent under that tick, and the trace of all spans. `condense` brings the rows of one pane into order before they are sealed:
/// [`crate::pane::consolidate`], or something that also folds rows of one key into one.
pub fn arrange_sliding<'scope, D: Row, R: Diff>(
    panes: Stream<'scope, Tick, Vec<Pane<D, R>>>,
    name: &str,
    condense: fn(&mut Vec<(D, R)>),
) -> SlidingArranged<'scope, D, R> {
    let scope = panes.scope();
    let mut reader = None;
    let reader_ref = &mut reader;
    let pact = Exchange::new(|pane: &Pane<D, R>| pane.worker);
    let stream = panes.unary_frontier(pact, name, move |_capability, info| {
        let logger = scope
            .worker()
            .logger_for::<differential_dataflow::logging::DifferentialEventBuilder>("differential/arrange")
            .map(Into::into);
        let activator = Some(scope.activator_for(Rc::clone(&info.address)));
        let trace = Spine::new(info.clone(), logger.clone(), activator);
        let (agent, mut writer) = TraceAgent::new(trace, info, logger);
        *reader_ref = Some(agent);

        let mut unsealed = Unsealed { entering: BTreeMap::new(), leaving: BTreeMap::new(), condense };
        // At or before the first unsealed tick; none when nothing is unsealed.
        let mut held: Option<Capability<Tick>> = None;
        let mut upper = Antichain::from_elem(Tick::MIN);

        move |(input, frontier), output| {
            input.for_each(|capability, panes| {
                hold_least(&mut held, capability.retain_least(0));
                for pane in panes.drain(..) {
                    unsealed.insert(pane);
                }
            });

            let sealed = |tick: &Tick| !frontier.less_equal(tick);
            while let (Some(tick), Some(held)) = (unsealed.first_tick().filter(sealed), &held) {
                let next = Antichain::from_elem(tick.successor());
                match unsealed.seal(tick) {
                    Some(batch) => {
                        let bounds = Description::new(upper.clone(), next.clone(), Antichain::from_elem(Tick::MIN));
                        let span = Span::new(bounds, Some(batch));
                        writer.insert(span.clone(), Stamp::from_elem(tick));
                        output.session(&held.delayed(&tick)).give(span);
                    }
                    // All that changed at this tick cancels: readers may skip over it.
                    None => writer.seal(next.clone()),
                }
                upper = next;
            }
            match (unsealed.first_tick(), &mut held) {
                (Some(first), Some(held)) => held.downgrade(&first),
                _ => held = None,
            }
            if !frontier.is_empty() && upper.borrow() != frontier.frontier() {
                upper = frontier.frontier().to_owned();
                writer.seal(upper.clone());
            }
            writer.exert();
        }
    });
    Arranged { stream, trace: reader.expect("the operator's constructor has run") }
}

/// A reader's place in a sliding trace: what has been read, and the batches up to there.
pub struct TraceWalk<D: Row, R: Diff> {
    trace: SlidingTrace<D, R>,
    upper: Antichain<Tick>,
}

impl<D: Row, R: Diff> TraceWalk<D, R> {
    /// A walk from the trace's beginning. It takes the trace: a forgotten clone would hold compaction back for ever.
    pub fn new(trace: SlidingTrace<D, R>) -> Self {
        Self { trace, upper: Antichain::from_elem(Tick::MIN) }
    }

    /// The batches whose sum is the arrangement as far as it has been walked.
    pub fn before(&mut self) -> Batches<D, R> {
        self.through(&self.upper.clone())
    }

    /// The batches whose sum is the arrangement with `span`, which has been received last.
    pub fn with(&mut self, span: &SlidingSpan<D, R>) -> Batches<D, R> {
        self.through(span.upper())
    }

    fn through(&mut self, upper: &Antichain<Tick>) -> Batches<D, R> {
        Batches(self.trace.batches_through(upper.borrow()).unwrap_or_default())
    }

    /// Lets the trace compact up to the end of `span`, which has been walked.
    pub fn walked(&mut self, span: &SlidingSpan<D, R>) {
        self.upper.clone_from(span.upper());
        self.compact();
    }

    /// Lets the trace compact over what brought no changes; to be called whenever the operator is scheduled.
    pub fn compact(&mut self) {
        let mut upper = self.upper.clone();
        self.trace.advance_upper(&mut upper);
        if !upper.is_empty() {
            // A trace that is compacted up to its end can no longer be read.
            self.upper = upper;
        }
        self.trace.set_logical_compaction(self.upper.borrow());
        self.trace.set_physical_compaction(self.upper.borrow());
    }
}

/// Batches whose sum is an arrangement. They stay readable while the trace goes on.
pub struct Batches<D, R>(Vec<Rc<FlatBatch<D, R>>>);

impl<D: Row, R: Diff> Batches<D, R> {
    /// The batches' rows, to be walked together from the first on.
    pub fn layers(&self) -> Layers<'_, D, R> {
        Layers(self.0.iter().map(|batch| batch.rows()).collect())
    }
}

/// Sorted rows whose sum is an arrangement, or the part of it that has yet to be walked.
#[derive(Clone)]
pub struct Layers<'a, D, R>(Vec<&'a [(D, R)]>);

impl<'a, D: Row, R: Diff> Layers<'a, D, R> {
    /// Walks on, and visits in every layer the run of rows for which `order` is `Equal`.
    ///
    /// `order` compares a row with what is sought. What is sought must increase from call to call. Costs the logarithm of
    /// the distance walked, per layer.
    #[inline]
    pub fn seek(&mut self, order: impl Fn(&D) -> Ordering, mut visit: impl FnMut(&'a [(D, R)])) {
        for rest in &mut self.0 {
            let (_, from) = rest.split_at(gallop(rest, |(row, _)| order(row).is_lt()));
            let (run, after) = from.split_at(gallop(from, |(row, _)| order(row).is_eq()));
            *rest = after;
            if !run.is_empty() {
                visit(run);
            }
        }
    }

    /// Visits every row of the sum with its multiplicity, in order; rows that cancel are left out.
    pub fn for_each(&mut self, mut visit: impl FnMut(&D, &R)) {
        while let Some(least) = self.0.iter().filter_map(|rest| rest.first()).map(|(row, _)| *row).min() {
            let mut sum = R::zero();
            for rest in &mut self.0 {
                if let Some(((_, diff), after)) = rest.split_first().filter(|((row, _), _)| *row == least) {
                    sum.plus_equals(diff);
                    *rest = after;
                }
            }
            if !sum.is_zero() {
                visit(&least, &sum);
            }
        }
    }
}

/// The first position where `before` no longer holds: near by counting, which mispredicts no branch, then by doubling steps
/// (Bentley and Yao, 1976).
#[inline]
fn gallop<T>(items: &[T], mut before: impl FnMut(&T) -> bool) -> usize {
    const BLOCK: usize = 8;
    const BLOCKS_NEAR: usize = 4;
    for block in 0..BLOCKS_NEAR {
        let from = block * BLOCK;
        let Some(near) = items.get(from..from + BLOCK) else {
            return from + items[from..].iter().take_while(|item| before(item)).count();
        };
        let count = near.iter().map(|item| usize::from(before(item))).sum::<usize>();
        if count < BLOCK {
            return from + count;
        }
    }
    let (mut low, mut step) = (BLOCKS_NEAR * BLOCK - 1, 1);
    while items.get(low + step).is_some_and(&mut before) {
        low += step;
        step *= 2;
    }
    let high = items.len().min(low + step);
    low + 1 + items[low + 1..high].partition_point(before)
}
