//! What sessions say about pages: engagement, bounces, durations.

use differential_dataflow::operators::arrange::Arranged;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::event::{Activity, EventType, PageId, SessionId};
use crate::page_counts::{PageChanges, PageCounters, change_panes};
use crate::pane::Pane;
use crate::sliding::{SlidingArranged, TraceWalk, tick_of};
use crate::time::Tick;

/// What a session did on one page within one pane.
///
/// A pane holds one row per session and page, however many events there were, so that a robot costs no more than a person
/// who visits as many pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionRow {
    /// Whose.
    pub session: SessionId,
    /// Where.
    pub page: PageId,
    /// The time of the first event, ms.
    pub first_ms: i64,
    /// The time of the last event, ms.
    pub last_ms: i64,
    /// The greatest reported session duration, seconds; [`SessionRow::UNREPORTED`] where no event reports one.
    pub duration_s_max: i32,
    /// VIEW events.
    pub views: u32,
    /// Other events.
    pub others: u32,
}

impl SessionRow {
    /// Less than any reported duration.
    pub const UNREPORTED: i32 = -1;

    /// The row of one event.
    pub fn of_event(activity: &Activity) -> Self {
        let viewed = activity.event_type == EventType::View;
        SessionRow {
            session: activity.session,
            page: activity.page,
            first_ms: activity.time_ms,
            last_ms: activity.time_ms,
            duration_s_max: activity.session_duration_s.unwrap_or(Self::UNREPORTED),
            views: u32::from(viewed),
            others: u32::from(!viewed),
        }
    }
}

/// Folds the rows of a pane into one per session and page.
pub fn fold_by_session_and_page(rows: &mut Vec<(SessionRow, i64)>) {
    rows.sort_unstable_by_key(|(row, _)| (row.session, row.page));
    rows.dedup_by(|(next, _), (kept, _)| {
        let same = (next.session, next.page) == (kept.session, kept.page);
        if same {
            kept.first_ms = kept.first_ms.min(next.first_ms);
            kept.last_ms = kept.last_ms.max(next.last_ms);
            kept.duration_s_max = kept.duration_s_max.max(next.duration_s_max);
            // Beyond four thousand million events of one session on one page within one slide, nothing depends on the count.
            kept.views = kept.views.saturating_add(next.views);
            kept.others = kept.others.saturating_add(next.others);
        }
        same
    });
}

/// A whole session in one window.
#[derive(Clone, Copy)]
struct Session {
    views: i64,
    others: i64,
    first_ms: i64,
    last_ms: i64,
    duration_s_max: i32,
}

impl Session {
    const EMPTY: Session =
        Session { views: 0, others: 0, first_ms: i64::MAX, last_ms: i64::MIN, duration_s_max: SessionRow::UNREPORTED };

    fn add(&mut self, row: &SessionRow, count: i64) {
        if count > 0 {
            self.views += count * i64::from(row.views);
            self.others += count * i64::from(row.others);
            self.first_ms = self.first_ms.min(row.first_ms);
            self.last_ms = self.last_ms.max(row.last_ms);
            self.duration_s_max = self.duration_s_max.max(row.duration_s_max);
        }
    }

    fn duration_ms(&self) -> i128 {
        match self.duration_s_max {
            SessionRow::UNREPORTED => i128::from(self.last_ms) - i128::from(self.first_ms),
            reported_s => i128::from(reported_s) * 1_000,
        }
    }

    /// What this session counts for on one of its pages, given what it did there.
    fn counters_on(&self, here: &Session) -> PageCounters {
        if here.views + here.others == 0 {
            return PageCounters::default();
        }
        PageCounters {
            sessions: 1,
            engaged: i64::from(here.others > 0),
            bounced: i64::from(self.views == 1 && self.others == 0),
            duration_ms: self.duration_ms(),
            ..Default::default()
        }
    }
}

/// A row of one session with its multiplicity before and after a tick.
type ChangedRow = (SessionRow, i64, i64);

/// Says what every session that changes means for its pages.
///
/// In: the arrangement of session rows. Out: changes of `sessions`, `engaged`, `bounced` and `duration_ms`, at the tick of
/// each span. Keeps nothing beside the arrangement. A session that changes is read whole, as the mean duration of all its
/// pages may change with it: that costs one search of the trace and its live rows (one per page and slide at most).
pub fn sessions<'scope>(
    arranged: SlidingArranged<'scope, SessionRow, i64>,
) -> Stream<'scope, Tick, Vec<Pane<PageId, PageCounters>>> {
    let Arranged { stream, trace } = arranged;
    let workers = stream.scope().peers();
    let mut walk = TraceWalk::new(trace);
    stream.unary(Pipeline, "sessions", move |_capability, _info| {
        let mut changes = PageChanges::default();
        let mut rows: Vec<ChangedRow> = Vec::new();
        move |input, output| {
            input.for_each(|capability, spans| {
                for span in spans.drain(..) {
                    let mut layers = walk.before(&span);
                    let changed = span.inner.as_ref().map_or(&[][..], |batch| batch.rows());
                    for of_session in changed.chunk_by(|(a, _), (b, _)| a.session == b.session) {
                        let session = of_session[0].0.session;
                        rows.clear();
                        rows.extend(of_session.iter().map(|(row, diff)| (*row, 0, *diff)));
                        layers.seek(|row| row.session.cmp(&session), |row, count| rows.push((*row, *count, *count)));
                        session_changes(&mut rows, &mut changes);
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

/// Adds what the change of one session means for its pages to `changes`. `rows` may hold a row several times.
fn session_changes(rows: &mut Vec<ChangedRow>, changes: &mut PageChanges) {
    rows.sort_unstable_by(|a, b| (a.0.page, a.0).cmp(&(b.0.page, b.0)));
    rows.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
            kept.2 += next.2;
        }
        same
    });
    let (mut before, mut after) = (Session::EMPTY, Session::EMPTY);
    for (row, count_before, count_after) in rows.iter() {
        before.add(row, *count_before);
        after.add(row, *count_after);
    }
    for on_page in rows.chunk_by(|a, b| a.0.page == b.0.page) {
        let (mut here_before, mut here_after) = (Session::EMPTY, Session::EMPTY);
        for (row, count_before, count_after) in on_page {
            here_before.add(row, *count_before);
            here_after.add(row, *count_after);
        }
        let old = before.counters_on(&here_before);
        let new = after.counters_on(&here_after);
        if old != new {
            let change = changes.entry(on_page[0].0.page).or_default();
            change.sessions += new.sessions - old.sessions;
            change.engaged += new.engaged - old.engaged;
            change.bounced += new.bounced - old.bounced;
            change.duration_ms += new.duration_ms - old.duration_ms;
        }
    }
}
