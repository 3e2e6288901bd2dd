//! The counters of a page, and the operator that files every event's contributions by pane.

use std::collections::BTreeMap;
use std::collections::HashMap;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::event::{Activity, EventType, PageId};
use crate::pane::{Filing, Pane, Row};
use crate::sessions::SessionTimes;
use crate::sliding::hold_least;
use crate::time::Tick;
use crate::unique_users::Visitor;
use crate::visits::{EventCounts, Visit};

/// All that the statistics of a page in a window are computed from, as a difference: counters add up, so a change of a
/// page is a change of its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCounters {
    /// Events of any type.
    pub events: i64,
    /// VIEW events.
    pub views: i64,
    /// CLICK events.
    pub clicks: i64,
    /// PURCHASE events.
    pub purchases: i64,
    /// Distinct users.
    pub users: i64,
    /// Distinct sessions.
    pub sessions: i64,
    /// Sessions with an event other than a VIEW on the page.
    pub engaged: i64,
    /// Sessions whose only event on any page is one VIEW of this one.
    pub bounced: i64,
    /// The durations of the sessions, added up, ms. Wide enough for 2^64 sessions of any reported duration.
    pub duration_ms: i128,
}

impl PageCounters {
    /// What one event counts for by itself.
    pub fn of_event(event_type: EventType) -> Self {
        PageCounters {
            events: 1,
            views: i64::from(event_type == EventType::View),
            clicks: i64::from(event_type == EventType::Click),
            purchases: i64::from(event_type == EventType::Purchase),
            ..Default::default()
        }
    }
}

impl IsZero for PageCounters {
    fn is_zero(&self) -> bool {
        *self == PageCounters::default()
    }
}

impl Semigroup for PageCounters {
    fn plus_equals(&mut self, other: &Self) {
        self.events += other.events;
        self.views += other.views;
        self.clicks += other.clicks;
        self.purchases += other.purchases;
        self.users += other.users;
        self.sessions += other.sessions;
        self.engaged += other.engaged;
        self.bounced += other.bounced;
        self.duration_ms += other.duration_ms;
    }
}

impl Monoid for PageCounters {
    fn zero() -> Self {
        PageCounters::default()
    }
}

impl Abelian for PageCounters {
    fn negate(&mut self) {
        self.events = -self.events;
        self.views = -self.views;
        self.clicks = -self.clicks;
        self.purchases = -self.purchases;
        self.users = -self.users;
        self.sessions = -self.sessions;
        self.engaged = -self.engaged;
        self.bounced = -self.bounced;
        self.duration_ms = -self.duration_ms;
    }
}

/// Changes of pages' counters, added up per page. Ids are hashes already, but a fast hasher spreads them further.
pub type PageChanges = HashMap<PageId, PageCounters, FixedState>;

/// The four streams of panes that the arrangements are made of.
pub struct PaneStreams<'scope> {
    /// Each page's counters, added up per pane before they are exchanged: a hot page costs a row a slide.
    pub counts: Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>>,
    /// A row per event.
    pub users: Stream<'scope, Tick, Vec<Pane<Visitor, i64>>>,
    /// A row per event.
    pub visits: Stream<'scope, Tick, Vec<Pane<Visit, EventCounts>>>,
    /// A row per event.
    pub times: Stream<'scope, Tick, Vec<Pane<SessionTimes, i64>>>,
}

/// Files what every event contributes by pane and by the worker that keeps it.
///
/// In: activities under capabilities at or before their `enter`. Out: panes; those of users, visits and times at once, those of
/// counters when the frontier has passed their `enter`. Keeps the counters of the pages of unsealed panes. Costs one hash
/// look-up and four short copies per event.
pub fn file_by_pane<'scope>(activities: Stream<'scope, Tick, Vec<Activity>>) -> PaneStreams<'scope> {
    let scope = activities.scope();
    let workers = scope.peers();
    let mut builder = OperatorBuilder::new("file_by_pane".to_owned(), scope);
    let mut input = builder.new_input(activities, Pipeline);
    let (counts_output, counts) = builder.new_output();
    let (users_output, users) = builder.new_output();
    let (visits_output, visits) = builder.new_output();
    let (times_output, times) = builder.new_output();
    let mut counts_output = OutputBuilder::from(counts_output);
    let mut users_output = OutputBuilder::from(users_output);
    let mut visits_output = OutputBuilder::from(visits_output);
    let mut times_output = OutputBuilder::from(times_output);

    builder.build(move |_capabilities| {
        let mut pending: BTreeMap<(Tick, Tick), PageChanges> = BTreeMap::new();
        let mut held: Option<Capability<Tick>> = None;
        let mut count_panes = Filing::new(workers);
        let mut user_panes = Filing::new(workers);
        let mut visit_panes = Filing::new(workers);
        let mut time_panes = Filing::new(workers);

        move |frontiers| {
            let mut counts_output = counts_output.activate();
            let mut users_output = users_output.activate();
            let mut visits_output = visits_output.activate();
            let mut times_output = times_output.activate();

            input.for_each(|capability, activities| {
                // Neighbours are mostly of one pane, which is then looked up once for all of them.
                for run in activities.chunk_by(|a, b| (a.enter, a.leave) == (b.enter, b.leave)) {
                    let (enter, leave) = (run[0].enter, run[0].leave);
                    let pages = pending.entry((enter, leave)).or_default();
                    for activity in run {
                        let Activity { page, user, session, event_type, .. } = *activity;
                        pages.entry(page).or_default().plus_equals(&PageCounters::of_event(event_type));
                        let visitor = Visitor::new(page, user);
                        user_panes.file(enter, leave, visitor.leading_hash(), visitor, 1);
                        visit_panes.file(
                            enter,
                            leave,
                            session,
                            Visit { session, page },
                            EventCounts::of_event(event_type),
                        );
                        time_panes.file(enter, leave, session, SessionTimes::of_event(activity), 1);
                    }
                }
                activities.clear();
                users_output.session(&capability).give_iterator(user_panes.drain());
                visits_output.session(&capability).give_iterator(visit_panes.drain());
                times_output.session(&capability).give_iterator(time_panes.drain());
                hold_least(&mut held, capability.retain_least(0));
            });

            while let (Some(entry), Some(held)) =
                (pending.first_entry().filter(|entry| !frontiers[0].less_equal(&entry.key().0)), &held)
            {
                let ((enter, leave), pages) = entry.remove_entry();
                for (page, counters) in pages {
                    count_panes.file(enter, leave, page, page, counters);
                }
                counts_output.session(&held.delayed(&enter)).give_iterator(count_panes.drain());
            }
            match (pending.first_key_value(), &mut held) {
                (Some(((enter, _), _)), Some(held)) => held.downgrade(enter),
                _ => held = None,
            }
        }
    });
    PaneStreams { counts, users, visits, times }
}

/// Changes of pages' counters at `tick`, as panes for the workers that keep the pages. Leaves `changes` empty.
pub fn change_panes(
    changes: &mut PageChanges,
    tick: Tick,
    workers: usize,
) -> impl Iterator<Item = Pane<PageId, PageCounters>> {
    let mut panes = Filing::new(workers);
    for (page, counters) in changes.drain() {
        if !counters.is_zero() {
            panes.file(tick, Tick::NEVER, page, page, counters);
        }
    }
    panes.into_iter()
}
