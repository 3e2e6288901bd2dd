//! What sessions say about their pages: bounces and durations.
//!
//! ```text
//!  visits that are live ───────┐
//!                              ├─▶ at each tick, every session that changes ─▶ changes of pages' counters
//!  session times, one a pane ──┘
//! ```
//!
//! The counters are a join of live visits with what their session counts for, and linear in both: so the rows of a trace's
//! layers need not be added up before they are multiplied.

use std::collections::VecDeque;

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
use crate::time::{Tick, Windows};
use crate::visits::Visit;

/// What the events of a session in one pane say about its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionTimes {
    /// Whose.
    pub session: SessionId,
    /// The time of the first event, ms.
    pub first_ms: i64,
    /// The time of the last event, ms.
    pub last_ms: i64,
    /// The greatest reported session duration, seconds; [`SessionTimes::UNREPORTED`] where no event reports one.
    pub duration_s_max: i32,
    /// VIEW events, saturating: what matters is whether there is only one.
    pub views: u16,
    /// Other events, saturating: what matters is whether there are any.
    pub others: u16,
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
        let viewed = activity.event_type == EventType::View;
        SessionTimes {
            session: activity.session,
            first_ms: activity.time_ms,
            last_ms: activity.time_ms,
            duration_s_max: activity.session_duration_s.unwrap_or(Self::UNREPORTED),
            views: u16::from(viewed),
            others: u16::from(!viewed),
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
            kept.views = kept.views.saturating_add(next.views);
            kept.others = kept.others.saturating_add(next.others);
        }
        same
    });
}

/// A session in one window.
#[derive(Clone, Copy)]
struct Session {
    first_ms: i64,
    last_ms: i64,
    duration_s_max: i32,
    views: i64,
    others: i64,
}

impl Session {
    const EMPTY: Session = Session {
        first_ms: i64::MAX,
        last_ms: i64::MIN,
        duration_s_max: SessionTimes::UNREPORTED,
        views: 0,
        others: 0,
    };

    #[inline]
    fn add(&mut self, times: &SessionTimes, count: i64) {
        self.first_ms = self.first_ms.min(times.first_ms);
        self.last_ms = self.last_ms.max(times.last_ms);
        self.duration_s_max = self.duration_s_max.max(times.duration_s_max);
        self.views += count * i64::from(times.views);
        self.others += count * i64::from(times.others);
    }

    /// What it counts for on each of its pages.
    fn share(&self) -> Share {
        let duration_ms = match self.duration_s_max {
            // Zero where there are no events.
            SessionTimes::UNREPORTED => self.last_ms.max(self.first_ms) - self.first_ms,
            reported_s => i64::from(reported_s) * 1_000,
        };
        Share { bounced: i64::from(self.views == 1 && self.others == 0), duration_ms }
    }
}

/// What a session counts for on each of its pages.
#[derive(Clone, Copy, PartialEq)]
struct Share {
    bounced: i64,
    /// Valid event times lie between 0 and 2^62, so that neither a duration nor a change of one overflows.
    duration_ms: i64,
}

impl Share {
    #[inline]
    fn add_to(&self, page: PageId, live: i64, changes: &mut PageChanges) {
        let change = changes.entry(page).or_default();
        change.bounced += live * self.bounced;
        change.duration_ms += i128::from(live * self.duration_ms);
    }
}

/// Says what every session that changes means for its pages.
///
/// In: the arrangements of live visits and of session times. Out: changes of `bounced` and `duration_ms`, at the tick of
/// each span. Keeps nothing beside the arrangements. Costs, for a session that changes, one search of each trace, one row
/// of times per slide and, if its duration changes, its live visits, since the mean of each of its pages does too.
pub fn sessions<'scope>(
    visits: SlidingArranged<'scope, Visit, i64>,
    times: SlidingArranged<'scope, SessionTimes, i64>,
    windows: Windows,
) -> Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>> {
    let Arranged { stream: visits, trace: visits_trace } = visits;
    let Arranged { stream: times, trace: times_trace } = times;
    let workers = visits.scope().peers();
    let mut visits_walk = TraceWalk::new(visits_trace);
    let mut times_walk = TraceWalk::new(times_trace);
    visits.binary_frontier(times, Pipeline, Pipeline, "sessions", move |_capability, _info| {
        let mut visits_spans: VecDeque<SlidingSpan<Visit, i64>> = VecDeque::new();
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
                    window_start_ms: tick.0 - windows.size_ms(),
                    window_start_ms_before: tick.0 - windows.slide_ms() - windows.size_ms(),
                    visits: visits_before.layers(),
                    times: times_before.layers(),
                    changed_visits: visits_span.as_ref().map_or(&[], rows_of),
                    changed_times: times_span.as_ref().map_or(&[], rows_of),
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
    window_start_ms: i64,
    /// Of the window before.
    window_start_ms_before: i64,
    visits: Layers<'a, Visit, i64>,
    times: Layers<'a, SessionTimes, i64>,
    changed_visits: &'a [(Visit, i64)],
    changed_times: &'a [(SessionTimes, i64)],
}

impl Changing<'_> {
    /// Adds what the changes of the next session mean for its pages to `changes`; false when there is none.
    fn next_session(&mut self, changes: &mut PageChanges) -> bool {
        let with_visits = self.changed_visits.first().map(|(row, _)| row.session);
        let with_times = self.changed_times.first().map(|(row, _)| row.session);
        let Some(session) = with_visits.into_iter().chain(with_times).min() else { return false };
        let changed_visits = take_run(&mut self.changed_visits, |row| row.session == session);
        let changed_times = take_run(&mut self.changed_times, |row| row.session == session);

        // Which rows are in a window their times tell, so the rows that retract them can be passed over.
        let (mut before, mut after) = (Session::EMPTY, Session::EMPTY);
        let read = |run: &[(SessionTimes, i64)]| {
            for (times, count) in run.iter().filter(|(_, count)| *count > 0) {
                if times.first_ms >= self.window_start_ms_before {
                    before.add(times, *count);
                }
                if times.first_ms >= self.window_start_ms {
                    after.add(times, *count);
                }
            }
        };
        self.times.seek(|row| row.session.cmp(&session), read);
        for (times, count) in changed_times.iter().filter(|(_, count)| *count > 0) {
            after.add(times, *count);
        }

        let (before, after) = (before.share(), after.share());
        if before != after {
            let change =
                Share { bounced: after.bounced - before.bounced, duration_ms: after.duration_ms - before.duration_ms };
            self.visits.seek(
                |row| row.session.cmp(&session),
                |run| run.iter().for_each(|(visit, live)| change.add_to(visit.page, *live, changes)),
            );
        }
        for (visit, live) in changed_visits {
            after.add_to(visit.page, *live, changes);
        }
        true
    }
}

/// Takes the rows at the beginning that belong to one session.
fn take_run<'a, D, R>(rows: &mut &'a [(D, R)], belongs: impl Fn(&D) -> bool) -> &'a [(D, R)] {
    let (run, rest) = rows.split_at(rows.iter().take_while(|(row, _)| belongs(row)).count());
    *rows = rest;
    run
}
