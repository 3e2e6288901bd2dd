//! Sliding: rows that count from one window end to another, tick by tick.
//!
//! ```text
//!  panes ──exchange──▶ entering: rows by (enter, leave)
//!                        │ the frontier passes a tick
//!                        ▼
//!                      Slide::enter every row ──▶ leaving: what is left of the row, by leave
//!                      Slide::leave every row that leaves ◀───────────┘
//!                      Slide::changes ──▶ changes of pages' counters at the tick
//! ```
//!
//! Differential's stock operators would take a row as `+1` at `enter` and `-1` at `leave`, hold the future retractions of the
//! whole window in a merge batcher, and search the trace for every update. Here nothing is sorted and nothing is searched
//! for: a row that enters finds what it belongs to by its hash, and leaves behind numbers with which it finds the same again
//! when it leaves. So a tick costs what changes at it, whatever the size and slide of the windows. Only the changes of
//! pages, a few per tick, become a differential collection.

use std::collections::BTreeMap;

use timely::ExchangeData;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use differential_dataflow::{AsCollection, VecCollection};

use crate::counters::PageCounters;
use crate::event::PageId;
use crate::logging::{KeptEvent, KeptRows, kept_logger};
use crate::pane::Pane;
use crate::time::Tick;

/// What an operator keeps of the rows in the window, and what it makes of them.
pub trait Slide: 'static {
    /// What enters.
    type Row: ExchangeData;
    /// What is kept of a row until it leaves.
    type Entered: 'static;

    /// Counts rows from now on until `leave`; returns what is left of them, in any order.
    fn enter(&mut self, rows: &[Vec<Self::Row>], leave: Tick) -> Vec<Self::Entered>;

    /// Counts a row no more.
    fn leave(&mut self, entered: Self::Entered);

    /// How many it keeps of what rows are found by: an upper bound of those that are live.
    fn keys(&self) -> usize;

    /// Takes the changes of pages' counters, once all that enters and leaves at `tick` has done so.
    fn changes(&mut self, tick: Tick) -> impl Iterator<Item = (PageId, PageCounters)>;
}

/// Slides panes through `state`, on the workers that they name.
///
/// In: panes under capabilities at or before their `enter`. Out: the changes of pages' counters at every tick at which something
/// enters or leaves, at most one per page, tick and worker, under the tick. Keeps the rows that wait for their tick, and
/// [`Slide::Entered`] of each that is in the window.
pub fn slide<'scope, S: Slide>(
    panes: Stream<'scope, Tick, Vec<Pane<S::Row>>>,
    name: &str,
    mut state: S,
) -> VecCollection<'scope, Tick, (PageId, ()), PageCounters> {
    let by_worker = Exchange::new(|pane: &Pane<S::Row>| pane.worker);
    let scope = panes.scope();
    let changes = panes.unary_frontier(by_worker, name, move |_capability, info| {
        let logger = kept_logger(scope.worker());
        let operator = info.global_id;
        let mut entering: BTreeMap<(Tick, Tick), Vec<Vec<S::Row>>> = BTreeMap::new();
        let mut leaving: BTreeMap<Tick, Vec<Vec<S::Entered>>> = BTreeMap::new();
        // At or before the first tick at which something enters or leaves.
        let mut held: Option<Capability<Tick>> = None;
        let mut kept = KeptRows::default();

        move |(input, frontier), output| {
            let before = kept;
            input.for_each(|capability, panes| {
                hold_least(&mut held, capability.retain_least(0));
                for Pane { enter, leave, rows, .. } in panes.drain(..) {
                    kept.waiting += rows.len();
                    kept.batches += 1;
                    entering.entry((enter, leave)).or_default().push(rows);
                }
            });
            loop {
                let first_entering = entering.first_key_value().map(|((enter, _), _)| *enter);
                let first_leaving = leaving.first_key_value().map(|(leave, _)| *leave);
                let first = first_entering.into_iter().chain(first_leaving).min();
                let (Some(tick), Some(capability)) = (first, &mut held) else {
                    held = None;
                    break;
                };
                capability.downgrade(&tick);
                if frontier.less_equal(&tick) {
                    break;
                }
                // First what enters, so that what only changes hands is not forgotten in between.
                while let Some(entry) = entering.first_entry().filter(|entry| entry.key().0 == tick) {
                    let ((_, leave), chunks) = entry.remove_entry();
                    let entered = state.enter(&chunks, leave);
                    kept.waiting -= entered.len();
                    kept.entered += entered.len();
                    kept.batches -= chunks.len() - 1;
                    leaving.entry(leave).or_default().push(entered);
                }
                for rows in leaving.remove(&tick).into_iter().flatten() {
                    kept.entered -= rows.len();
                    kept.batches -= 1;
                    rows.into_iter().for_each(|row| state.leave(row));
                }
                let changes = state.changes(tick).map(|(page, change)| ((page, ()), tick, change));
                output.session(capability).give_iterator(changes);
            }
            if let Some(logger) = logger.as_ref().filter(|_| kept != before) {
                let keys = state.keys();
                logger.log_many([KeptEvent::Rows { operator, rows: kept }, KeptEvent::Keys { operator, keys }]);
            }
        }
    });
    changes.as_collection()
}

/// Keeps the earlier one of two capabilities.
fn hold_least(held: &mut Option<Capability<Tick>>, received: Option<Capability<Tick>>) {
    let Some(received) = received else { return };
    if held.as_ref().is_none_or(|held| received.time() < held.time()) {
        *held = Some(received);
    }
}
