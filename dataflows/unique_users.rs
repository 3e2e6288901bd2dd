//! Distinct users per page, exact.

use differential_dataflow::operators::arrange::Arranged;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::event::{PageId, UserId};
use crate::page_counts::{PageChanges, PageCounters, change_panes};
use crate::pane::Pane;
use crate::sliding::{SlidingArranged, TraceWalk, tick_of};

/// Counts the users whose number of events on a page leaves or reaches zero.
///
/// In: the arrangement of (page, user) by number of events. Out: changes of `users`, at the tick of each span. Keeps
/// nothing beside the arrangement. Costs one search of the trace per changed (page, user).
pub fn unique_users<'scope>(
    arranged: SlidingArranged<'scope, (PageId, UserId), i64>,
) -> Stream<'scope, crate::time::Tick, Vec<Pane<PageId, PageCounters>>> {
    let Arranged { stream, trace } = arranged;
    let workers = stream.scope().peers();
    let mut walk = TraceWalk::new(trace);
    stream.unary(Pipeline, "unique_users", move |_capability, _info| {
        let mut changes = PageChanges::default();
        move |input, output| {
            input.for_each(|capability, spans| {
                for span in spans.drain(..) {
                    let mut layers = walk.before(&span);
                    for &(key, diff) in span.inner.iter().flat_map(|batch| batch.rows()) {
                        let mut before = 0;
                        layers.seek(|row| row.cmp(&key), |_, count| before += count);
                        let change = i64::from(before + diff > 0) - i64::from(before > 0);
                        if change != 0 {
                            changes.entry(key.0).or_default().users += change;
                        }
                    }
                    drop(layers);
                    output.session(&capability).give_iterator(change_panes(&mut changes, tick_of(&span), workers));
                    walk.walked(&span);
                }
            });
            walk.compact();
        }
    })
}
