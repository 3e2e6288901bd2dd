//! The statistics of every page in every sliding window.
//!
//! ```text
//!                      ┌─counters─▶ (added up per pane) ─────────────────────────────┐
//!  activities ─▶ file_by_pane                                                        │
//!                      ├─(page, user)─▶ arrange ─▶ unique_users ──changes────────────┤
//!                      │                                                             ├─▶ arrange ─▶ page_windows ─▶ results
//!                      ├─(session, page)─▶ arrange ─▶ visits ──changes───────────────┤   by page        ▲
//!                      │                                └─live visits─▶ arrange ─┐   │                  │
//!                      └─session times─▶ arrange ────────────────────▶ sessions ─┴───┘                  │
//!                                                                                                       │
//!  page names ─────────────────────────────────── by page ──────────────────────────────────────────────┘
//! ```
//!
//! Every arrow that is named is exchanged between workers, by a hash of what it names. Two updates per event and
//! arrangement, at `enter` and at `leave`, whatever the size and slide of the windows; at every tick each page with a live
//! event yields one result, also when nothing changed. What is read per change is not quite independent of the slide:
//! [`crate::sessions`] reads one row of times per slide in which a changed session did something. Kept in memory: the rows of the events in the window, twice (see
//! [`crate::sliding`]), and the names of the pages.

use std::collections::{HashMap, VecDeque};

use differential_dataflow::operators::arrange::Arranged;
use foldhash::fast::FixedState;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Capability, Concatenate};

use crate::event::{Activity, PageAnalytics, PageId, PageName};
use crate::page_counts::{PageCounters, file_by_pane};
use crate::pane::consolidate;
use crate::sessions::{fold_by_session, sessions};
use crate::sliding::{SlidingArranged, SlidingSpan, TraceWalk, arrange_sliding, take_span, tick_of};
use crate::time::{Tick, Windows};
use crate::unique_users::unique_users;
use crate::visits::visits;

/// Computes one [`PageAnalytics`] per page and window in which the page has an event.
///
/// In: activities, and before them the names of their pages, both under capabilities at or before `enter`. Out: the
/// results of a window under the window's end, on the worker that keeps the page, once the frontier has passed it.
pub fn page_analytics<'scope>(
    activities: Stream<'scope, Tick, Vec<Activity>>,
    names: Stream<'scope, Tick, Vec<PageName>>,
    windows: Windows,
) -> Stream<'scope, Tick, Vec<PageAnalytics>> {
    let scope = activities.scope();
    let panes = file_by_pane(activities);
    let user_changes = unique_users(arrange_sliding(panes.users, "arrange_users", consolidate));
    let live = visits(arrange_sliding(panes.visits, "arrange_visits", consolidate));
    let session_changes = sessions(
        arrange_sliding(live.visits, "arrange_live_visits", consolidate),
        arrange_sliding(panes.times, "arrange_session_times", fold_by_session),
        windows,
    );
    let changes = scope.concatenate([panes.counts, user_changes, live.changes, session_changes]);
    page_windows(arrange_sliding(changes, "arrange_pages", consolidate), names, windows)
}

/// Emits every live page at every tick.
///
/// In: the arrangement of pages by counters, and their names. Out: results, each under its window's end. Driven by the
/// frontier, not by the arrival of spans, so that windows in which nothing changed are emitted as well. Costs one pass over
/// the live pages per tick.
fn page_windows<'scope>(
    arranged: SlidingArranged<'scope, PageId, PageCounters>,
    names: Stream<'scope, Tick, Vec<PageName>>,
    windows: Windows,
) -> Stream<'scope, Tick, Vec<PageAnalytics>> {
    let Arranged { stream, trace } = arranged;
    let mut walk = TraceWalk::new(trace);
    let by_page = Exchange::new(|name: &PageName| name.page);
    stream.binary_frontier(names, Pipeline, by_page, "page_windows", move |_capability, _info| {
        let mut names = Names::default();
        let mut spans: VecDeque<SlidingSpan<PageId, PageCounters>> = VecDeque::new();
        // The counters of the live pages, as of the last tick that was emitted.
        let mut live: Vec<(PageId, PageCounters)> = Vec::new();
        let mut emitted = Tick::MIN;
        // At or before the next tick to emit.
        let mut held: Option<Capability<Tick>> = None;

        move |(input, frontier), (names_input, names_frontier), output| {
            names_input.for_each(|_capability, announced| names.learn(announced.drain(..)));
            input.for_each(|capability, received| {
                if held.is_none() {
                    held = capability.retain_least(0);
                }
                spans.extend(received.drain(..));
            });

            loop {
                let quiet = (!live.is_empty()).then(|| windows.next(emitted));
                let Some(tick) = spans.front().map(tick_of).into_iter().chain(quiet).min() else {
                    held = None;
                    break;
                };
                let Some(capability) = &mut held else { break };
                capability.downgrade(&tick);
                if frontier.less_equal(&tick) || names_frontier.less_equal(&tick) {
                    break;
                }
                if let Some(span) = take_span(&mut spans, tick) {
                    live.clear();
                    walk.with(&span).layers().for_each(|page, counters| {
                        if counters.events > 0 {
                            live.push((*page, *counters));
                        }
                    });
                    walk.walked(&span);
                }
                let mut session = output.session(capability);
                for (page, counters) in &live {
                    session.give(results(names.of(*page), counters, tick, &windows));
                }
                names.forget(tick, &windows);
                emitted = tick;
            }
            walk.compact();
        }
    })
}

/// The statistics that a page's counters amount to in the window that ends at `end`.
fn results(page_url: &str, counters: &PageCounters, end: Tick, windows: &Windows) -> PageAnalytics {
    // A page with an event has a session, so nothing is divided by zero.
    let sessions = counters.sessions as f64;
    PageAnalytics {
        page_url: page_url.to_owned(),
        window_start: end.0 - windows.size_ms(),
        window_end: end.0,
        view_count: counters.views,
        unique_users: i32::try_from(counters.users).unwrap_or(i32::MAX),
        click_count: counters.clicks,
        conversion_count: counters.purchases,
        engagement_rate: counters.engaged as f64 / sessions,
        bounce_rate: counters.bounced as f64 / sessions,
        avg_session_duration: counters.duration_ms as f64 / sessions / 1_000.0,
    }
}

/// The names of the pages with live events.
#[derive(Default)]
struct Names {
    pages: HashMap<PageId, (String, Tick), FixedState>,
    swept: Option<Tick>,
}

impl Names {
    fn learn(&mut self, announced: impl Iterator<Item = PageName>) {
        for PageName { page, page_url, keep_until } in announced {
            let (_, until) = self.pages.entry(page).or_insert((page_url, keep_until));
            *until = keep_until.max(*until);
        }
    }

    fn of(&self, page: PageId) -> &str {
        // A source announces a page at or before its first event's tick, and both frontiers have passed that.
        &self.pages.get(&page).expect("a page is announced before its events").0
    }

    /// Forgets, once a window size, what no window after `tick` needs.
    fn forget(&mut self, tick: Tick, windows: &Windows) {
        if self.swept.is_none_or(|swept| tick.0 - swept.0 >= windows.size_ms()) {
            self.pages.retain(|_, (_, keep_until)| *keep_until > tick);
            self.swept = Some(tick);
        }
    }
}
