//! What sessions say about pages: engagement, bounces, durations.
//!
//! ```text
//!  (session, page) by number of events ─┐
//!                                       ├─▶ at each tick, every session that changes ─▶ changes of pages' counters
//!  session times, one a pane ───────────┘
//! ```
//!
//! What a session did on a page adds up, so it is a difference and a page that is visited again costs no row; first, last
//! and greatest do not add up, so they are rows, one per session and pane. Both are folded per pane, so that a robot costs
//! no more than a person who visits as many pages.

use std::collections::VecDeque;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use differential_dataflow::operators::arrange::Arranged;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::event::{Activity, EventType, PageId, SessionId};
use crate::page_counts::{PageChanges, PageCounters, change_panes};
use crate::pane::{Pane, Row, sort_rows};
use crate::sliding::{Layers, SlidingArranged, SlidingSpan, TraceWalk, hold_least, rows_of, take_span, tick_of};
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

/// What the events of a session in one pane say about its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionTimes {
    /// Whose.
    pub session: SessionId,
    /// The first window end that no longer counts the events.
    pub leave: Tick,
    /// The time of the first event, ms.
    pub first_ms: i64,
    /// The time of the last event, ms.
    pub last_ms: i64,
    /// The greatest reported session duration, seconds; [`SessionTimes::UNREPORTED`] where no event reports one.
    pub duration_s_max: i32,
}

impl Row for SessionTimes {
    fn leading_hash(&self) -> u64 {
        self.session
    }
}

impl SessionTimes {
    /// Less than any reported duration.
    pub const UNREPORTED: i32 = -1;

    /// The times of one event.
    pub fn of_event(activity: &Activity) -> Self {
        SessionTimes {
            session: activity.session,
            leave: activity.leave,
            first_ms: activity.time_ms,
            last_ms: activity.time_ms,
            duration_s_max: activity.session_duration_s.unwrap_or(Self::UNREPORTED),
        }
    }
}

/// Folds the times in a pane into one row per session.
pub fn fold_by_session(rows: &mut Vec<(SessionTimes, i64)>) {
    sort_rows(rows);
    rows.dedup_by(|(next, _), (kept, _)| {
        let same = next.session == kept.session;
        if same {
            kept.first_ms = kept.first_ms.min(next.first_ms);
            kept.last_ms = kept.last_ms.max(next.last_ms);
            kept.duration_s_max = kept.duration_s_max.max(next.duration_s_max);
        }
        same
    });
}

/// How long a session is in one window.
#[derive(Clone, Copy)]
struct Duration {
    first_ms: i64,
    last_ms: i64,
    duration_s_max: i32,
}

impl Duration {
    const NONE: Duration = Duration { first_ms: i64::MAX, last_ms: i64::MIN, duration_s_max: SessionTimes::UNREPORTED };

    #[inline]
    fn add(&mut self, times: &SessionTimes) {
        self.first_ms = self.first_ms.min(times.first_ms);
        self.last_ms = self.last_ms.max(times.last_ms);
        self.duration_s_max = self.duration_s_max.max(times.duration_s_max);
    }

    fn ms(&self) -> i128 {
        match self.duration_s_max {
            SessionTimes::UNREPORTED => i128::from(self.last_ms) - i128::from(self.first_ms),
            reported_s => i128::from(reported_s) * 1_000,
        }
    }
}

/// What a session did on one page, before and after a tick.
struct ChangedVisit {
    page: PageId,
    before: EventCounts,
    after: EventCounts,
}

/// Says what every session that changes means for its pages.
///
/// In: the arrangements of visits and of session times. Out: changes of `sessions`, `engaged`, `bounced` and `duration_ms`,
/// at the tick of each span. Keeps nothing beside the arrangements. A session that changes is read whole, as the mean
/// duration of all its pages may change with it: that costs one search of each trace, its live pages, and one row of times
/// a slide.
pub fn sessions<'scope>(
    visits: SlidingArranged<'scope, Visit, EventCounts>,
    times: SlidingArranged<'scope, SessionTimes, i64>,
) -> Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>> {
    let Arranged { stream: visits, trace: visits_trace } = visits;
    let Arranged { stream: times, trace: times_trace } = times;
    let workers = visits.scope().peers();
    let mut visits_walk = TraceWalk::new(visits_trace);
    let mut times_walk = TraceWalk::new(times_trace);
    visits.binary_frontier(times, Pipeline, Pipeline, "sessions", move |_capability, _info| {
        let mut visits_spans: VecDeque<SlidingSpan<Visit, EventCounts>> = VecDeque::new();
        let mut times_spans: VecDeque<SlidingSpan<SessionTimes, i64>> = VecDeque::new();
        // At or before the tick of the first span.
        let mut held: Option<Capability<Tick>> = None;
        let mut changes = PageChanges::default();

        move |(visits, visits_frontier), (times, times_frontier), output| {
            visits.for_each(|capability, spans| {
                hold_least(&mut held, capability.retain_least(0));
                visits_spans.extend(spans.drain(..));
            });
            times.for_each(|capability, spans| {
                hold_least(&mut held, capability.retain_least(0));
                times_spans.extend(spans.drain(..));
            });

            loop {
                let first_ticks = visits_spans.front().map(tick_of).into_iter().chain(times_spans.front().map(tick_of));
                let Some((tick, capability)) = first_ticks.min().zip(held.as_mut()) else {
                    held = None;
                    break;
                };
                capability.downgrade(&tick);
                if visits_frontier.less_equal(&tick) || times_frontier.less_equal(&tick) {
                    break;
                }
                let visits_span = take_span(&mut visits_spans, tick);
                let times_span = take_span(&mut times_spans, tick);
                let (visits_before, times_before) = (visits_walk.before(), times_walk.before());
                let mut changing = Changing {
                    tick,
                    visits: visits_before.layers(),
                    times: times_before.layers(),
                    changed_visits: visits_span.as_ref().map_or(&[], rows_of),
                    changed_times: times_span.as_ref().map_or(&[], rows_of),
                    runs: Vec::new(),
                    pages: Vec::new(),
                };
                while changing.next_session(&mut changes) {}
                output.session(capability).give_iterator(change_panes(&mut changes, tick, workers));
                visits_span.iter().for_each(|span| visits_walk.walked(span));
                times_span.iter().for_each(|span| times_walk.walked(span));
            }
            visits_walk.compact();
            times_walk.compact();
        }
    })
}

/// The changes of one tick and what there was before it, walked session by session.
struct Changing<'a> {
    tick: Tick,
    visits: Layers<'a, Visit, EventCounts>,
    times: Layers<'a, SessionTimes, i64>,
    changed_visits: &'a [(Visit, EventCounts)],
    changed_times: &'a [(SessionTimes, i64)],
    /// The rows of one session, layer by layer.
    runs: Vec<&'a [(Visit, EventCounts)]>,
    pages: Vec<ChangedVisit>,
}

impl Changing<'_> {
    /// Adds what the changes of the next session mean for its pages to `changes`; false when there is none.
    fn next_session(&mut self, changes: &mut PageChanges) -> bool {
        let with_visits = self.changed_visits.first().map(|(row, _)| row.session);
        let with_times = self.changed_times.first().map(|(row, _)| row.session);
        let Some(session) = with_visits.into_iter().chain(with_times).min() else { return false };

        let changed = take_run(&mut self.changed_visits, |row| row.session == session);
        self.runs.clear();
        self.visits.seek(|row| row.session.cmp(&session), |run| self.runs.push(run));
        self.pages.clear();
        merge_visits(&mut self.runs, changed, &mut self.pages);

        // Times leave when they say, so that no multiplicities need to be added up.
        let (mut before, mut after) = (Duration::NONE, Duration::NONE);
        self.times.seek(
            |row| row.session.cmp(&session),
            |run| {
                for (times, _) in run.iter().filter(|(times, count)| *count > 0 && times.leave >= self.tick) {
                    before.add(times);
                    if times.leave > self.tick {
                        after.add(times);
                    }
                }
            },
        );
        let changed = take_run(&mut self.changed_times, |row| row.session == session);
        changed.iter().filter(|(_, count)| *count > 0).for_each(|(times, _)| after.add(times));

        change_pages(&self.pages, &before, &after, changes);
        true
    }
}

/// Takes the rows at the beginning that belong to one session.
fn take_run<'a, D, R>(rows: &mut &'a [(D, R)], belongs: impl Fn(&D) -> bool) -> &'a [(D, R)] {
    let (run, rest) = rows.split_at(rows.iter().take_while(|(row, _)| belongs(row)).count());
    *rows = rest;
    run
}

/// Adds up the visits of one session, page by page, before and with what has `changed`.
fn merge_visits(
    runs: &mut [&[(Visit, EventCounts)]],
    mut changed: &[(Visit, EventCounts)],
    pages: &mut Vec<ChangedVisit>,
) {
    /// The counts at the head of `run` if they are of `page`, which are then taken.
    #[inline]
    fn take(run: &mut &[(Visit, EventCounts)], page: PageId) -> Option<EventCounts> {
        let ((_, counts), rest) = run.split_first().filter(|((visit, _), _)| visit.page == page)?;
        *run = rest;
        Some(*counts)
    }
    while let Some(page) =
        runs.iter().chain([&changed]).filter_map(|run| run.first()).map(|(visit, _)| visit.page).min()
    {
        let mut before = EventCounts::default();
        for run in runs.iter_mut() {
            if let Some(counts) = take(run, page) {
                before.plus_equals(&counts);
            }
        }
        let mut after = before;
        if let Some(counts) = take(&mut changed, page) {
            after.plus_equals(&counts);
        }
        pages.push(ChangedVisit { page, before, after });
    }
}

/// Adds what the change of one session means for its pages to `changes`.
fn change_pages(pages: &[ChangedVisit], before: &Duration, after: &Duration, changes: &mut PageChanges) {
    let (mut all_before, mut all_after) = (EventCounts::default(), EventCounts::default());
    for visit in pages {
        all_before.plus_equals(&visit.before);
        all_after.plus_equals(&visit.after);
    }
    let one_view = EventCounts { views: 1, others: 0 };
    let (bounced_before, bounced_after) = (i64::from(all_before == one_view), i64::from(all_after == one_view));
    for ChangedVisit { page, before: here_before, after: here_after } in pages {
        let (was, is) = (!here_before.is_zero(), !here_after.is_zero());
        let mut change = PageCounters {
            sessions: i64::from(is) - i64::from(was),
            engaged: i64::from(here_after.others > 0) - i64::from(here_before.others > 0),
            ..PageCounters::default()
        };
        if was {
            change.bounced -= bounced_before;
            change.duration_ms -= before.ms();
        }
        if is {
            change.bounced += bounced_after;
            change.duration_ms += after.ms();
        }
        if !change.is_zero() {
            changes.entry(*page).or_default().plus_equals(&change);
        }
    }
}
