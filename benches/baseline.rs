//! What a person would write without a dataflow: one thread, hash maps, panes.
//!
//! The yardstick for the dataflow, so it has to be fast; improve it whenever it can be. Every id is looked up once, when
//! its event arrives, and is an index from then on; an event is applied when its window closes and retracted, by pane,
//! when it leaves, without another look-up; indices of what is gone are reclaimed in a sweep once a window size. A
//! session keeps its times and reported durations by pane, and moves the sums of its pages once a tick, if it has to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use clicktide_dataflows::event::{Activity, EventType, PageAnalytics, PageId, SessionId, UserId};
use clicktide_dataflows::time::{Tick, Windows};
use foldhash::fast::FixedState;

use crate::load::Log;

/// Computes every metric of every page and window, ordered by window.
pub fn all_metrics(log: &Log, names: &HashMap<PageId, String>, windows: Windows) -> Vec<PageAnalytics> {
    Baseline::<true>::new(names, windows).run(log)
}

/// Computes counters and distinct users alone; the rates and the mean duration are zero.
pub fn counters_and_uniques(log: &Log, names: &HashMap<PageId, String>, windows: Windows) -> Vec<PageAnalytics> {
    Baseline::<false>::new(names, windows).run(log)
}

/// Looks indices up by key, and hands indices out again that no event refers to any more.
struct Slots<K, V> {
    of_key: HashMap<K, u32, FixedState>,
    values: Vec<V>,
    free: Vec<u32>,
}

impl<K: Copy + Eq + Hash, V> Slots<K, V> {
    fn new() -> Self {
        Slots { of_key: HashMap::default(), values: Vec::new(), free: Vec::new() }
    }

    #[inline]
    fn find(&mut self, key: K, fresh: impl FnOnce() -> V) -> u32 {
        *self.of_key.entry(key).or_insert_with(|| match self.free.pop() {
            Some(slot) => {
                self.values[slot as usize] = fresh();
                slot
            }
            None => {
                self.values.push(fresh());
                (self.values.len() - 1) as u32
            }
        })
    }

    fn sweep(&mut self, unused: impl Fn(&V) -> bool) {
        self.of_key.retain(|_, slot| {
            let gone = unused(&self.values[*slot as usize]);
            if gone {
                self.free.push(*slot);
            }
            !gone
        });
    }
}

#[derive(Default)]
struct Page {
    events: i64,
    views: i64,
    clicks: i64,
    purchases: i64,
    users: i64,
    sessions: i64,
    engaged: i64,
    bounced: i64,
    duration_ms: i128,
    name: String,
}

impl Page {
    #[inline]
    fn count(&mut self, event_type: EventType, sign: i64) {
        self.events += sign;
        match event_type {
            EventType::View => self.views += sign,
            EventType::Click => self.clicks += sign,
            EventType::Purchase => self.purchases += sign,
            EventType::AddToCart | EventType::Search => {}
        }
    }
}

/// A user on a page.
struct Visitor {
    page: u32,
    /// Events in the window.
    live: u32,
    /// Events in the window or yet to enter it.
    referred: u32,
}

/// A session on a page.
struct Visit {
    page: u32,
    session: u32,
    views: u32,
    others: u32,
    /// Events in the window or yet to enter it.
    referred: u32,
    /// Where the session lists it.
    position: u32,
}

/// What a session's events that leave together say about its duration.
struct SessionPane {
    leave: Tick,
    first_ms: i64,
    last_ms: i64,
    duration_s_max: i32,
}

#[derive(Default)]
struct Session {
    views: u64,
    others: u64,
    /// Events in the window or yet to enter it.
    referred: u32,
    touched: bool,
    /// Ordered by `leave`, and so by time.
    panes: VecDeque<SessionPane>,
    /// The live pages, each with its visit.
    pages: Vec<(u32, u32)>,
    duration_s_max: i32,
    /// What the session counts for on each of its pages now.
    duration_ms: i64,
    /// The page it has bounced on.
    bounced: Option<u32>,
}

const UNREPORTED: i32 = -1;

impl Session {
    #[inline]
    fn enter(&mut self, event: &Entering) {
        let mut at = self.panes.len();
        while at > 0 && self.panes[at - 1].leave > event.leave {
            at -= 1;
        }
        if at > 0 && self.panes[at - 1].leave == event.leave {
            let pane = &mut self.panes[at - 1];
            pane.first_ms = pane.first_ms.min(event.time_ms);
            pane.last_ms = pane.last_ms.max(event.time_ms);
            pane.duration_s_max = pane.duration_s_max.max(event.duration_s);
        } else {
            let pane = SessionPane {
                leave: event.leave,
                first_ms: event.time_ms,
                last_ms: event.time_ms,
                duration_s_max: event.duration_s,
            };
            self.panes.insert(at, pane);
        }
        self.duration_s_max = self.duration_s_max.max(event.duration_s);
    }

    #[inline]
    fn leave(&mut self, tick: Tick) {
        let mut recompute = false;
        while let Some(pane) = self.panes.front().filter(|pane| pane.leave <= tick) {
            recompute |= pane.duration_s_max == self.duration_s_max && pane.duration_s_max != UNREPORTED;
            self.panes.pop_front();
        }
        if recompute {
            self.duration_s_max = self.panes.iter().map(|pane| pane.duration_s_max).max().unwrap_or(UNREPORTED);
        }
    }

    fn duration_ms(&self) -> i64 {
        match (self.duration_s_max, self.panes.front(), self.panes.back()) {
            (UNREPORTED, Some(first), Some(last)) => last.last_ms - first.first_ms,
            (UNREPORTED, ..) => 0,
            (reported_s, ..) => i64::from(reported_s) * 1_000,
        }
    }
}

/// An event that waits for its first window to close.
struct Entering {
    leave: Tick,
    time_ms: i64,
    duration_s: i32,
    visitor: u32,
    visit: u32,
    event_type: EventType,
}

/// An event that waits for its last window to close.
struct Leaving {
    visitor: u32,
    visit: u32,
    event_type: EventType,
}

struct Baseline<'a, const SESSIONS: bool> {
    names: &'a HashMap<PageId, String>,
    windows: Windows,
    pages: Slots<PageId, Page>,
    visitors: Slots<(u32, UserId), Visitor>,
    visits: Slots<(u32, u32), Visit>,
    sessions: Slots<SessionId, Session>,
    touched: Vec<u32>,
    entering: BTreeMap<Tick, Vec<Entering>>,
    leaving: BTreeMap<Tick, Vec<Leaving>>,
    live: usize,
    emitted: Option<Tick>,
    swept: Option<Tick>,
    results: Vec<PageAnalytics>,
}

impl<'a, const SESSIONS: bool> Baseline<'a, SESSIONS> {
    fn new(names: &'a HashMap<PageId, String>, windows: Windows) -> Self {
        Baseline {
            names,
            windows,
            pages: Slots::new(),
            visitors: Slots::new(),
            visits: Slots::new(),
            sessions: Slots::new(),
            touched: Vec::new(),
            entering: BTreeMap::new(),
            leaving: BTreeMap::new(),
            live: 0,
            emitted: None,
            swept: None,
            results: Vec::new(),
        }
    }

    fn run(mut self, log: &Log) -> Vec<PageAnalytics> {
        let mut from = 0;
        for (until, open) in &log.opens {
            self.read(&log.activities[from..*until]);
            self.close_before(*open);
            from = *until;
        }
        self.read(&log.activities[from..]);
        self.close_before(Tick::NEVER);
        self.results
    }

    fn read(&mut self, activities: &[Activity]) {
        for of_tick in activities.chunk_by(|a, b| a.enter == b.enter) {
            let entering = self.entering.entry(of_tick[0].enter).or_default();
            for activity in of_tick {
                let page = self
                    .pages
                    .find(activity.page, || Page { name: self.names[&activity.page].clone(), ..Page::default() });
                let visitor = self.visitors.find((page, activity.user), || Visitor { page, live: 0, referred: 0 });
                self.visitors.values[visitor as usize].referred += 1;
                let mut visit = 0;
                if SESSIONS {
                    let session = self
                        .sessions
                        .find(activity.session, || Session { duration_s_max: UNREPORTED, ..Session::default() });
                    self.sessions.values[session as usize].referred += 1;
                    visit = self.visits.find((session, page), || Visit {
                        page,
                        session,
                        views: 0,
                        others: 0,
                        referred: 0,
                        position: 0,
                    });
                    self.visits.values[visit as usize].referred += 1;
                }
                entering.push(Entering {
                    leave: activity.leave,
                    time_ms: activity.time_ms,
                    duration_s: activity.session_duration_s.unwrap_or(UNREPORTED),
                    visitor,
                    visit,
                    event_type: activity.event_type,
                });
            }
        }
    }

    /// Closes every window that ends before `open`.
    fn close_before(&mut self, open: Tick) {
        loop {
            let quiet = self.emitted.filter(|_| self.live > 0).map(|emitted| self.windows.next(emitted));
            let entering = self.entering.first_key_value().map(|(tick, _)| *tick);
            let Some(tick) = quiet.into_iter().chain(entering).min().filter(|tick| *tick < open) else { return };
            self.close(tick);
        }
    }

    fn close(&mut self, tick: Tick) {
        if let Some(events) = self.leaving.remove(&tick) {
            self.live -= events.len();
            for event in events {
                self.leave(&event);
            }
        }
        if let Some(events) = self.entering.remove(&tick) {
            self.live += events.len();
            for of_pane in events.chunk_by(|a, b| a.leave == b.leave) {
                let leaving = self.leaving.entry(of_pane[0].leave).or_default();
                leaving.extend(of_pane.iter().map(|event| Leaving {
                    visitor: event.visitor,
                    visit: event.visit,
                    event_type: event.event_type,
                }));
                for event in of_pane {
                    self.enter(event);
                }
            }
        }
        while let Some(session) = self.touched.pop() {
            self.settle(session, tick);
        }
        self.emit(tick);
        self.emitted = Some(tick);
        if self.swept.is_none_or(|swept| tick.0 - swept.0 >= self.windows.size_ms()) {
            self.visitors.sweep(|visitor| visitor.referred == 0);
            self.visits.sweep(|visit| visit.referred == 0);
            self.sessions.sweep(|session| session.referred == 0);
            self.swept = Some(tick);
        }
    }

    #[inline]
    fn enter(&mut self, event: &Entering) {
        let visitor = &mut self.visitors.values[event.visitor as usize];
        let page = &mut self.pages.values[visitor.page as usize];
        page.count(event.event_type, 1);
        page.users += i64::from(visitor.live == 0);
        visitor.live += 1;
        if !SESSIONS {
            return;
        }
        let visit = &mut self.visits.values[event.visit as usize];
        let session = &mut self.sessions.values[visit.session as usize];
        if !session.touched {
            session.touched = true;
            self.touched.push(visit.session);
        }
        session.enter(event);
        if visit.views + visit.others == 0 {
            page.sessions += 1;
            page.duration_ms += i128::from(session.duration_ms);
            visit.position = session.pages.len() as u32;
            session.pages.push((visit.page, event.visit));
        }
        if event.event_type == EventType::View {
            visit.views += 1;
            session.views += 1;
        } else {
            page.engaged += i64::from(visit.others == 0);
            visit.others += 1;
            session.others += 1;
        }
    }

    #[inline]
    fn leave(&mut self, event: &Leaving) {
        let visitor = &mut self.visitors.values[event.visitor as usize];
        let page = &mut self.pages.values[visitor.page as usize];
        page.count(event.event_type, -1);
        visitor.live -= 1;
        visitor.referred -= 1;
        page.users -= i64::from(visitor.live == 0);
        if !SESSIONS {
            return;
        }
        let visit = &mut self.visits.values[event.visit as usize];
        let session = &mut self.sessions.values[visit.session as usize];
        if !session.touched {
            session.touched = true;
            self.touched.push(visit.session);
        }
        visit.referred -= 1;
        session.referred -= 1;
        if event.event_type == EventType::View {
            visit.views -= 1;
            session.views -= 1;
        } else {
            visit.others -= 1;
            session.others -= 1;
            page.engaged -= i64::from(visit.others == 0);
        }
        if visit.views + visit.others == 0 {
            page.sessions -= 1;
            page.duration_ms -= i128::from(session.duration_ms);
            let position = visit.position;
            session.pages.swap_remove(position as usize);
            if let Some((_, moved)) = session.pages.get(position as usize) {
                self.visits.values[*moved as usize].position = position;
            }
        }
    }

    /// Brings what a session counts for on its pages up to date.
    fn settle(&mut self, slot: u32, tick: Tick) {
        let session = &mut self.sessions.values[slot as usize];
        session.touched = false;
        session.leave(tick);
        let duration_ms = session.duration_ms();
        let change_ms = duration_ms - session.duration_ms;
        if change_ms != 0 {
            session.duration_ms = duration_ms;
            for (page, _) in &session.pages {
                self.pages.values[*page as usize].duration_ms += i128::from(change_ms);
            }
        }
        let bounces = session.views == 1 && session.others == 0;
        let bounced = bounces.then(|| session.pages[0].0);
        if bounced != session.bounced {
            if let Some(page) = session.bounced {
                self.pages.values[page as usize].bounced -= 1;
            }
            if let Some(page) = bounced {
                self.pages.values[page as usize].bounced += 1;
            }
            session.bounced = bounced;
        }
    }

    fn emit(&mut self, tick: Tick) {
        let share = |part: i64, of: i64| if SESSIONS { part as f64 / of as f64 } else { 0.0 };
        for page in self.pages.values.iter().filter(|page| page.events > 0) {
            self.results.push(PageAnalytics {
                page_url: page.name.clone(),
                window_start: tick.0 - self.windows.size_ms(),
                window_end: tick.0,
                view_count: page.views,
                unique_users: page.users as i32,
                click_count: page.clicks,
                conversion_count: page.purchases,
                engagement_rate: share(page.engaged, page.sessions),
                bounce_rate: share(page.bounced, page.sessions),
                avg_session_duration: if SESSIONS {
                    page.duration_ms as f64 / page.sessions as f64 / 1_000.0
                } else {
                    0.0
                },
            });
        }
    }
}
