//! What sessions say about their pages: how many there are, engagement, bounces and durations.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::counters::{PageCounters, PageSlot, Pages};
use crate::event::{Activity, EventType, PageId, SessionId};
use crate::pane::deal;
use crate::sliding::Slide;
use crate::time::{Tick, Windows};

/// An event, as the session it is part of sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEvent {
    session: SessionId,
    page: PageId,
    time_ms: i64,
    /// What the event reports, [`UNREPORTED`] if it does not.
    duration_s: i32,
    /// Whether it is a VIEW, and whether it is another event, to be added up: 1 or 0. Without padding the row is its bytes.
    views: u16,
    others: u16,
}

/// Less than any reported duration.
const UNREPORTED: i32 = -1;

impl SessionEvent {
    /// What the session sees of `activity`.
    pub fn of(activity: &Activity) -> Self {
        let view = activity.event_type == EventType::View;
        SessionEvent {
            session: activity.session,
            page: activity.page,
            time_ms: activity.time_ms,
            duration_s: activity.session_duration_s.unwrap_or(UNREPORTED),
            views: u16::from(view),
            others: u16::from(!view),
        }
    }
}

/// The part of [`PageCounters`] that is about sessions.
#[derive(Clone, Copy, Default)]
struct SessionCounters {
    duration_ms: i128,
    sessions: i64,
    engaged: i64,
    bounced: i64,
}

impl From<SessionCounters> for PageCounters {
    fn from(counters: SessionCounters) -> Self {
        let SessionCounters { duration_ms, sessions, engaged, bounced } = counters;
        PageCounters { duration_ms, sessions, engaged, bounced, ..PageCounters::default() }
    }
}

/// Says what every session that changes means for its pages.
///
/// Keeps for every session its live pages and, per slide in which something happened, when that began; and per event in the
/// window 12 bytes. Costs a look-up per event and, for a session whose duration changes, its live pages, since the mean of
/// each of them does too.
pub struct Sessions {
    windows: Windows,
    pages: Pages<SessionCounters>,
    slots: HashMap<SessionId, u32, FixedState>,
    sessions: Slab<Session>,
    touched: Vec<u32>,
}

impl Sessions {
    /// None, in windows like these.
    pub fn new(windows: Windows) -> Self {
        Sessions {
            windows,
            pages: Pages::default(),
            slots: HashMap::default(),
            sessions: Slab::new(),
            touched: Vec::new(),
        }
    }
}

/// What is kept of an event in the window.
pub struct EnteredSessionEvent {
    session: u32,
    /// Its page's place in the session.
    visit: u32,
    view: bool,
}

impl Slide for Sessions {
    type Row = SessionEvent;
    type Entered = EnteredSessionEvent;

    fn enter(&mut self, rows: &[Vec<SessionEvent>], leave: Tick) -> Vec<EnteredSessionEvent> {
        let Sessions { pages, slots, sessions, touched, .. } = self;
        let rows = deal(rows, |row| row.session);
        let enter = |row: &SessionEvent| {
            let slot = *slots.entry(row.session).or_insert_with(|| {
                u32::try_from(sessions.insert(Session::new(row.session))).expect("sessions fit into memory")
            });
            let session = &mut sessions[slot as usize];
            session.touch(slot, touched);
            session.times.note(row, leave);
            session.views += u32::from(row.views);
            session.others += u32::from(row.others);
            let visit = session.visits.enter(row, pages, session.counted.duration_ms);
            EnteredSessionEvent { session: slot, visit, view: row.views > 0 }
        };
        rows.iter().map(enter).collect()
    }

    #[inline]
    fn leave(&mut self, entered: EnteredSessionEvent) {
        let EnteredSessionEvent { session: slot, visit, view } = entered;
        let Sessions { pages, sessions, touched, .. } = self;
        let session = &mut sessions[slot as usize];
        session.touch(slot, touched);
        session.views -= u32::from(view);
        session.others -= u32::from(!view);
        session.visits.leave(visit, view, pages, session.counted.duration_ms);
    }

    fn keys(&self) -> usize {
        self.slots.len()
    }

    fn changes(&mut self, tick: Tick) -> impl Iterator<Item = (PageId, PageCounters)> {
        let start_ms = tick.0 - self.windows.size_ms();
        let Sessions { pages, slots, sessions, touched, .. } = self;
        for slot in touched.drain(..) {
            let session = &mut sessions[slot as usize];
            session.settle(start_ms, pages);
            if session.is_gone() {
                slots.remove(&session.id);
                sessions.remove(slot as usize);
            }
        }
        pages.drain()
    }
}

/// A session with events in the window.
struct Session {
    id: SessionId,
    /// Events in the window; each of them takes memory, so there can't be as many as these can't count.
    views: u32,
    others: u32,
    /// Whether it is listed to be settled.
    touched: bool,
    times: Times,
    visits: Visits,
    counted: Counted,
}

/// What a session counts for on its pages, as of when it was settled last.
#[derive(Clone, Copy, Default)]
struct Counted {
    /// On each of them.
    duration_ms: i64,
    /// Where it has bounced.
    bounced: Option<PageSlot>,
}

impl Session {
    fn new(id: SessionId) -> Self {
        Session {
            id,
            views: 0,
            others: 0,
            touched: false,
            times: Times::default(),
            visits: Visits::default(),
            counted: Counted::default(),
        }
    }

    #[inline]
    fn touch(&mut self, slot: u32, touched: &mut Vec<u32>) {
        if !self.touched {
            self.touched = true;
            touched.push(slot);
        }
    }

    fn is_gone(&self) -> bool {
        self.views == 0 && self.others == 0
    }

    /// Brings what the session counts for on its pages up to date, in the window that starts at `start_ms`.
    fn settle(&mut self, start_ms: i64, pages: &mut Pages<SessionCounters>) {
        self.touched = false;
        let duration_ms = if self.is_gone() { 0 } else { self.times.duration_ms(start_ms) };
        let change_ms = i128::from(duration_ms - self.counted.duration_ms);
        if change_ms != 0 {
            for page in self.visits.live() {
                pages.change(page).duration_ms += change_ms;
            }
        }
        // With a single event there is a single page.
        let bounces = self.views == 1 && self.others == 0;
        let bounced = self.visits.live().next().filter(|_| bounces);
        if bounced != self.counted.bounced {
            self.counted.bounced.iter().for_each(|page| pages.change(*page).bounced -= 1);
            bounced.iter().for_each(|page| pages.change(*page).bounced += 1);
        }
        self.counted = Counted { duration_ms, bounced };
    }
}

/// When things happened in a session.
///
/// An event that happened later never leaves the window earlier. So the last event outlives all others, and those that leave
/// together are told by the first of them. A session in which all leave together takes no memory beside this.
#[derive(Default)]
struct Times {
    first_ms: i64,
    last_ms: i64,
    /// When the last leaves, and the first of those that leave with it; none before the first event.
    newest: Option<(Tick, i64)>,
    /// In order, the times of events after the first: of those that leave together at least the first.
    later_ms: VecDeque<i64>,
    durations: Durations,
}

impl Times {
    #[inline]
    fn note(&mut self, event: &SessionEvent, leave: Tick) {
        let SessionEvent { time_ms, duration_s, .. } = *event;
        if duration_s != UNREPORTED {
            self.durations.note(time_ms, duration_s);
        }
        match self.newest {
            Some((newest, first_ms)) if newest == leave && first_ms <= time_ms => {
                self.last_ms = self.last_ms.max(time_ms);
            }
            Some((newest, _)) => {
                if time_ms < self.first_ms {
                    self.later_ms.push_front(std::mem::replace(&mut self.first_ms, time_ms));
                } else {
                    let after = self.later_ms.iter().rev().take_while(|other_ms| **other_ms > time_ms).count();
                    self.later_ms.insert(self.later_ms.len() - after, time_ms);
                }
                self.last_ms = self.last_ms.max(time_ms);
                if newest <= leave {
                    self.newest = Some((leave, time_ms));
                }
            }
            None => (self.first_ms, self.last_ms, self.newest) = (time_ms, time_ms, Some((leave, time_ms))),
        }
    }

    /// The session's duration in the window that starts at `start_ms`, which holds one of its events at least; what happened
    /// before is forgotten.
    #[inline]
    fn duration_ms(&mut self, start_ms: i64) -> i64 {
        while self.first_ms < start_ms {
            let Some(next_ms) = self.later_ms.pop_front() else { break };
            self.first_ms = next_ms;
        }
        match self.durations.greatest_s(start_ms) {
            Some(reported_s) => i64::from(reported_s) * 1_000,
            None => self.last_ms - self.first_ms,
        }
    }
}

/// The durations that events of a session reported, with the events' times. Of two the smaller one matters only if it is the
/// later one. While durations grow, as they do, there is one.
#[derive(Default)]
struct Durations {
    greatest: Option<(i64, i32)>,
    /// In the order of their times, each smaller than all before it.
    later: VecDeque<(i64, i32)>,
}

impl Durations {
    fn note(&mut self, time_ms: i64, duration_s: i32) {
        let noted = Some((time_ms, duration_s));
        match self.greatest {
            None => self.greatest = noted,
            Some((greatest_ms, greatest_s)) if duration_s >= greatest_s && time_ms >= greatest_ms => {
                self.greatest = noted;
                while self.later.pop_front_if(|(later_ms, _)| *later_ms <= time_ms).is_some() {}
            }
            Some(greatest) if duration_s > greatest.1 => {
                self.later.push_front(greatest);
                self.greatest = noted;
            }
            Some((greatest_ms, _)) if time_ms > greatest_ms => self.note_smaller(time_ms, duration_s),
            Some(_) => {}
        }
    }

    fn note_smaller(&mut self, time_ms: i64, duration_s: i32) {
        let later = &mut self.later;
        let at = later.len() - later.iter().rev().take_while(|(later_ms, _)| *later_ms > time_ms).count();
        if later.get(at).is_some_and(|(_, later_s)| *later_s >= duration_s) {
            return;
        }
        let outlived = later.range(..at).rev().take_while(|(_, earlier_s)| *earlier_s <= duration_s).count();
        match outlived {
            0 => later.insert(at, (time_ms, duration_s)),
            _ => {
                later[at - outlived] = (time_ms, duration_s);
                later.drain(at - outlived + 1..at);
            }
        }
    }

    /// The greatest that was reported from `start_ms` on; what was reported before is forgotten.
    #[inline]
    fn greatest_s(&mut self, start_ms: i64) -> Option<i32> {
        while self.greatest.is_some_and(|(time_ms, _)| time_ms < start_ms) {
            self.greatest = self.later.pop_front();
        }
        self.greatest.map(|(_, duration_s)| duration_s)
    }
}

/// The pages of one session that it has events on in the window, each at a place that it keeps.
struct Visits {
    /// By place; [`VACANT`] where there is none.
    pages: Vec<PageSlot>,
    /// Of each page. A vacant place holds the next vacant one in `views`.
    counts: Vec<EventCounts>,
    first_vacant: u32,
    /// Where each page is; only once there are too many to look through.
    #[expect(clippy::box_collection, reason = "sessions are many and kept small, and hardly any has it")]
    places: Option<Box<HashMap<PageSlot, u32, FixedState>>>,
}

#[derive(Clone, Copy, Default)]
struct EventCounts {
    views: u32,
    others: u32,
}

/// No page, and no place.
const VACANT: u32 = u32::MAX;
/// Places in a session from which on its pages are indexed.
const INDEXED_FROM: usize = 128;

impl Default for Visits {
    fn default() -> Self {
        Visits { pages: Vec::new(), counts: Vec::new(), first_vacant: VACANT, places: None }
    }
}

impl Visits {
    fn live(&self) -> impl Iterator<Item = PageSlot> {
        self.pages.iter().copied().filter(|page| *page != VACANT)
    }

    /// Counts an event; returns the place of its page.
    #[inline]
    fn enter(&mut self, row: &SessionEvent, pages: &mut Pages<SessionCounters>, counted_ms: i64) -> u32 {
        let page = pages.find(row.page);
        let place = self.place(page).unwrap_or_else(|| {
            pages.refer(page);
            let change = pages.change(page);
            change.sessions += 1;
            change.duration_ms += i128::from(counted_ms);
            self.insert(page)
        });
        let counts = &mut self.counts[place as usize];
        let engages = counts.others == 0 && row.others > 0;
        counts.views += u32::from(row.views);
        counts.others += u32::from(row.others);
        if engages {
            pages.change(page).engaged += 1;
        }
        place
    }

    /// Counts an event on the page at `place` no more.
    #[inline]
    fn leave(&mut self, place: u32, view: bool, pages: &mut Pages<SessionCounters>, counted_ms: i64) {
        let counts = &mut self.counts[place as usize];
        counts.views -= u32::from(view);
        counts.others -= u32::from(!view);
        if counts.others == 0 && !view {
            pages.change(self.pages[place as usize]).engaged -= 1;
        }
        if counts.views == 0 && counts.others == 0 {
            let page = self.remove(place);
            let change = pages.change(page);
            change.sessions -= 1;
            change.duration_ms -= i128::from(counted_ms);
            pages.release(page);
        }
    }

    #[inline]
    fn place(&self, page: PageSlot) -> Option<u32> {
        match &self.places {
            None => position(&self.pages, page).map(|at| at as u32),
            Some(places) => places.get(&page).copied(),
        }
    }

    fn insert(&mut self, page: PageSlot) -> u32 {
        let place = match self.first_vacant {
            VACANT => {
                self.pages.push(page);
                self.counts.push(EventCounts::default());
                (self.pages.len() - 1) as u32
            }
            place => {
                self.pages[place as usize] = page;
                self.first_vacant = std::mem::take(&mut self.counts[place as usize]).views;
                place
            }
        };
        match &mut self.places {
            Some(places) => drop(places.insert(page, place)),
            None if self.pages.len() >= INDEXED_FROM => {
                let places = self.pages.iter().copied().zip(0..).filter(|(page, _)| *page != VACANT);
                self.places = Some(Box::new(places.collect()));
            }
            None => {}
        }
        place
    }

    fn remove(&mut self, place: u32) -> PageSlot {
        let page = std::mem::replace(&mut self.pages[place as usize], VACANT);
        self.counts[place as usize].views = std::mem::replace(&mut self.first_vacant, place);
        if let Some(places) = &mut self.places {
            places.remove(&page);
        }
        page
    }
}

/// Where `page` is: by blocks that are compared as a whole, which mispredicts no branch.
#[inline]
fn position(pages: &[PageSlot], page: PageSlot) -> Option<usize> {
    const BLOCK: usize = 16;
    let (blocks, rest) = pages.as_chunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate() {
        if block.iter().fold(false, |found, other| found | (*other == page)) {
            return block.iter().position(|other| *other == page).map(|at| index * BLOCK + at);
        }
    }
    rest.iter().position(|other| *other == page).map(|at| blocks.len() * BLOCK + at)
}
