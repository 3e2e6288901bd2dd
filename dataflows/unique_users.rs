//! Distinct users per page, exact.

use differential_dataflow::operators::arrange::Arranged;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::event::{PageId, UserId};
use crate::page_counts::{PageChanges, PageCounters, change_panes};
use crate::pane::{Pane, Row};
use crate::sliding::{SlidingArranged, TraceWalk, rows_of, tick_of};
use crate::time::Tick;

/// A user on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Visitor {
    /// Page and user in one, which with the page tells the user: popular pages do not crowd the order of the rows.
    page_xor_user: u64,
    page: PageId,
}

impl Visitor {
    /// `user` on `page`.
    pub fn new(page: PageId, user: UserId) -> Self {
        Self { page_xor_user: page ^ user, page }
    }
}

impl Row for Visitor {
    fn leading_hash(&self) -> u64 {
        self.page_xor_user
    }
}

/// Counts the users whose number of events on a page leaves or reaches zero.
///
/// In: the arrangement of visitors by number of events. Out: changes of `users`, at the tick of each span. Keeps
/// nothing beside the arrangement. Costs one search of the trace per changed visitor.
pub fn unique_users<'scope>(
    arranged: SlidingArranged<'scope, Visitor, i64>,
) -> Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>> {
    let Arranged { stream, trace } = arranged;
    let workers = stream.scope().peers();
    let mut walk = TraceWalk::new(trace);
    stream.unary(Pipeline, "unique_users", move |_capability, _info| {
        let mut changes = PageChanges::default();
        move |input, output| {
            input.for_each(|capability, spans| {
                for span in spans.drain(..) {
                    let batches = walk.before();
                    let mut layers = batches.layers();
                    for (visitor, diff) in rows_of(&span) {
                        let mut before = 0;
                        layers.seek(|row| row.cmp(visitor), |run| before += run[0].1);
                        let change = i64::from(before + diff > 0) - i64::from(before > 0);
                        if change != 0 {
                            changes.entry(visitor.page).or_default().users += change;
                        }
                    }
                    output.session(&capability).give_iterator(change_panes(&mut changes, tick_of(&span), workers));
                    walk.walked(&span);
                }
            });
            walk.compact();
        }
    })
}
