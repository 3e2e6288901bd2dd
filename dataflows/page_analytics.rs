//! The statistics of every page in every sliding window.
//!
//! ```text
//!                      ┌─page events─▶ visitors ──changes──┐
//!  activities ─▶ file_by_pane                              ├─▶ arrange_pages ─▶ page_windows ─▶ results
//!                      └─session events─▶ sessions ──changes┘                       ▲
//!                                                                                   │
//!  page names ──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Page events are exchanged between workers by page and user, session events by session, changes and names by page. An event is
//! dealt with twice in each of `visitors` and `sessions`, at `enter` and at `leave`, whatever the size and slide of the
//! windows; what that changes of a page's counters is added up before it is exchanged, so a hot page costs no more than another.
//! The sums, differences of [`PageCounters`], are kept in a differential arrangement by page. At every tick each page with a
//! live event yields one result, also when nothing changed. Kept in memory: 20 bytes per event in the window, the users of every
//! page, the pages of every session, the counters and the names of the pages.

use std::collections::{BTreeSet, HashMap};

use differential_dataflow::VecCollection;
use differential_dataflow::difference::{Monoid, Semigroup};
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::implementations::{KeyBatcher, KeySpine};
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use foldhash::fast::FixedState;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;

use crate::counters::PageCounters;
use crate::event::{Activity, PageAnalytics, PageId, PageName};
use crate::logging::{KeptEvent, kept_logger};
use crate::pane::file_by_pane;
use crate::sessions::Sessions;
use crate::sliding::slide;
use crate::time::{Tick, Windows};
use crate::visitors::Visitors;

/// Computes one [`PageAnalytics`] per page and window in which the page has an event.
///
/// In: activities, and before them the names of their pages, both under capabilities at or before `enter`. Out: the
/// results of a window under the window's end, on the worker that keeps the page, once the frontier has passed it.
pub fn page_analytics<'scope>(
    activities: Stream<'scope, Tick, Vec<Activity>>,
    names: Stream<'scope, Tick, Vec<PageName>>,
    windows: Windows,
) -> Stream<'scope, Tick, Vec<PageAnalytics>> {
    let panes = file_by_pane(activities);
    let visitors = slide(panes.page_events, "visitors", Visitors::new(windows));
    let sessions = slide(panes.session_events, "sessions", Sessions::new(windows));
    page_windows(visitors.concat(sessions), names, windows)
}

/// Emits every live page at every tick.
///
/// In: changes of pages' counters, and the pages' names. Out: results, each under its window's end, on the worker that keeps the
/// page. Driven by the frontier, not by the arrival of changes, so that windows in which nothing changed are emitted as well.
/// Costs one pass over the arrangement of pages per tick at which one of them changes.
pub fn page_windows<'scope>(
    changes: VecCollection<'scope, Tick, (PageId, ()), PageCounters>,
    names: Stream<'scope, Tick, Vec<PageName>>,
    windows: Windows,
) -> Stream<'scope, Tick, Vec<PageAnalytics>> {
    let by_page = Exchange::new(|((page, ()), _, _): &((PageId, ()), Tick, PageCounters)| *page);
    let Arranged { stream, mut trace } =
        arrange_core::<_, _, _, PagesTrace>(changes.inner, by_page, "arrange_pages", KeyBatcher::new);
    let by_page = Exchange::new(|name: &PageName| name.page);
    let logger = kept_logger(stream.scope().worker());
    let operator = trace.operator().global_id;
    stream.binary_frontier(names, Pipeline, by_page, "page_windows", move |_capability, _info| {
        let mut names = Names::default();
        // The ticks at which pages change, as far as they have arrived and have yet to be emitted, and where they end.
        let mut changing: BTreeSet<Tick> = BTreeSet::new();
        let mut upper = Antichain::from_elem(Tick::MIN);
        // The counters of the live pages, as of the last tick that was emitted.
        let mut live: Vec<(PageId, PageCounters)> = Vec::new();
        let mut emitted = Tick::MIN;
        // At or before the next tick to emit.
        let mut held: Option<Capability<Tick>> = None;

        move |(input, frontier), (names_input, names_frontier), output| {
            names_input.for_each(|_capability, announced| names.learn(announced.drain(..)));
            input.for_each(|capability, spans| {
                if held.is_none() {
                    held = capability.retain_least(0);
                }
                for span in spans.drain(..) {
                    changing.extend(span.inner.iter().flat_map(ticks_of));
                    upper.clone_from(span.upper());
                }
            });

            loop {
                let quiet = (!live.is_empty()).then(|| windows.next(emitted));
                let Some(tick) = changing.first().copied().into_iter().chain(quiet).min() else {
                    held = None;
                    break;
                };
                let Some(capability) = &mut held else { break };
                capability.downgrade(&tick);
                if frontier.less_equal(&tick) || names_frontier.less_equal(&tick) {
                    break;
                }
                if changing.remove(&tick) {
                    live_pages(&mut trace, &upper, tick, &mut live);
                    logger.iter().for_each(|logger| logger.log(KeptEvent::Keys { operator, keys: live.len() }));
                }
                let mut session = output.session(capability);
                for (page, counters) in &live {
                    session.give(results(names.of(*page), counters, tick, &windows));
                }
                names.forget(tick, &windows);
                emitted = tick;
            }
            if changing.is_empty() {
                trace.advance_upper(&mut upper);
            }
            let since = changing.first().map_or_else(|| upper.clone(), |tick| Antichain::from_elem(*tick));
            if !since.is_empty() {
                // A trace that is compacted up to its end can no longer be read.
                trace.set_logical_compaction(since.borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        }
    })
}

/// The arrangement of pages by their counters: differential's own.
type PagesTrace = KeySpine<PageId, Tick, PageCounters>;
type PagesBatch = <PagesTrace as TraceReader>::Batch;

/// The ticks at which a batch changes something.
fn ticks_of(batch: &PagesBatch) -> BTreeSet<Tick> {
    let mut ticks = BTreeSet::new();
    let mut cursor = batch.cursor();
    while cursor.key_valid(batch) {
        cursor.map_times(batch, |tick, _| {
            ticks.insert(*tick);
        });
        cursor.step_key(batch);
    }
    ticks
}

/// The counters at `tick` of the pages that have an event then, read from the trace as it is before `upper`.
fn live_pages(
    trace: &mut TraceAgent<PagesTrace>,
    upper: &Antichain<Tick>,
    tick: Tick,
    live: &mut Vec<(PageId, PageCounters)>,
) {
    live.clear();
    let batches = trace.batches_through(upper.borrow()).unwrap_or_default();
    let (mut cursor, batches) = cursor_list(batches);
    while let Some(page) = cursor.get_key(&batches) {
        let mut counters = PageCounters::zero();
        cursor.map_times(&batches, |changed, change| {
            if *changed <= tick {
                counters.plus_equals(change);
            }
        });
        if counters.events > 0 {
            live.push((*page, counters));
        }
        cursor.step_key(&batches);
    }
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
