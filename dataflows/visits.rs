//! Sessions on pages: which there are, and which of them are engaged.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use differential_dataflow::operators::arrange::Arranged;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::event::{EventType, PageId, SessionId};
use crate::page_counts::{PageChanges, PageCounters, change_panes};
use crate::pane::{Filing, Pane, Row};
use crate::sliding::{SlidingArranged, TraceWalk, rows_of, tick_of};
use crate::time::Tick;

/// A session on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Visit {
    /// Whose.
    pub session: SessionId,
    /// Where.
    pub page: PageId,
}

impl Row for Visit {
    fn leading_hash(&self) -> u64 {
        self.session
    }
}

/// How many events a session has on a page, as a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// VIEW events.
    pub views: i64,
    /// Other events.
    pub others: i64,
}

impl EventCounts {
    /// What one event counts for.
    pub fn of_event(event_type: EventType) -> Self {
        let viewed = event_type == EventType::View;
        EventCounts { views: i64::from(viewed), others: i64::from(!viewed) }
    }
}

impl IsZero for EventCounts {
    fn is_zero(&self) -> bool {
        *self == EventCounts::default()
    }
}

impl Semigroup for EventCounts {
    fn plus_equals(&mut self, other: &Self) {
        self.views += other.views;
        self.others += other.others;
    }
}

impl Monoid for EventCounts {
    fn zero() -> Self {
        EventCounts::default()
    }
}

impl Abelian for EventCounts {
    fn negate(&mut self) {
        self.views = -self.views;
        self.others = -self.others;
    }
}

/// The two streams of panes that come of visits.
pub struct LiveVisits<'scope> {
    /// Changes of `sessions` and `engaged`.
    pub changes: Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>>,
    /// The visits, each once from its first event in the window to its last.
    pub visits: Stream<'scope, Tick, Vec<Pane<Visit, i64>>>,
}

/// Finds the visits that begin or end, and those that begin or end to be engaged.
///
/// In: the arrangement of visits by number of events. Out: what changes, at the tick of each span. Keeps nothing beside
/// the arrangement. Costs one search of the trace per changed visit.
pub fn visits<'scope>(arranged: SlidingArranged<'scope, Visit, EventCounts>) -> LiveVisits<'scope> {
    let Arranged { stream, trace } = arranged;
    let scope = stream.scope();
    let workers = scope.peers();
    let mut builder = OperatorBuilder::new("visits".to_owned(), scope);
    let mut input = builder.new_input(stream, Pipeline);
    let (changes_output, changes) = builder.new_output();
    let (visits_output, visits) = builder.new_output();
    let mut changes_output = OutputBuilder::from(changes_output);
    let mut visits_output = OutputBuilder::from(visits_output);
    let mut walk = TraceWalk::new(trace);

    builder.build(move |_capabilities| {
        let mut page_changes = PageChanges::default();
        let mut live_visits = Filing::new(workers);
        move |_frontiers| {
            let mut changes_output = changes_output.activate();
            let mut visits_output = visits_output.activate();
            input.for_each(|capability, spans| {
                for span in spans.drain(..) {
                    let tick = tick_of(&span);
                    let batches = walk.before();
                    let mut layers = batches.layers();
                    for (visit, diff) in rows_of(&span) {
                        let mut before = EventCounts::zero();
                        layers.seek(|row| row.cmp(visit), |run| before.plus_equals(&run[0].1));
                        let mut after = before;
                        after.plus_equals(diff);
                        let sessions = i64::from(!after.is_zero()) - i64::from(!before.is_zero());
                        let engaged = i64::from(after.others > 0) - i64::from(before.others > 0);
                        if (sessions, engaged) != (0, 0) {
                            let change = page_changes.entry(visit.page).or_default();
                            change.sessions += sessions;
                            change.engaged += engaged;
                        }
                        if sessions != 0 {
                            live_visits.file(tick, Tick::NEVER, visit.session, *visit, sessions);
                        }
                    }
                    changes_output.session(&capability).give_iterator(change_panes(&mut page_changes, tick, workers));
                    visits_output.session(&capability).give_iterator(live_visits.drain());
                    walk.walked(&span);
                }
            });
            walk.compact();
        }
    });
    LiveVisits { changes, visits }
}
