//! The visitors of pages: counters, and distinct users, exact.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::counters::{PageCounters, PageSlot, Pages};
use crate::event::{Activity, EventType, PageId, UserId};
use crate::sliding::Slide;
use crate::time::{Tick, Windows};

/// An event, as the page it happened on sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEvent {
    page: PageId,
    user: UserId,
    event_type: EventType,
}

impl PageEvent {
    /// What the page sees of `activity`.
    pub fn of(activity: &Activity) -> Self {
        let Activity { page, user, event_type, .. } = *activity;
        PageEvent { page, user, event_type }
    }
}

/// The part of [`PageCounters`] that is about events and users.
#[derive(Clone, Copy, Default)]
struct VisitorCounters {
    events: i64,
    views: i64,
    clicks: i64,
    purchases: i64,
    users: i64,
}

impl VisitorCounters {
    #[inline]
    fn count(&mut self, event_type: EventType, sign: i64) {
        self.events += sign;
        self.views += sign * i64::from(event_type == EventType::View);
        self.clicks += sign * i64::from(event_type == EventType::Click);
        self.purchases += sign * i64::from(event_type == EventType::Purchase);
    }
}

impl From<VisitorCounters> for PageCounters {
    fn from(counters: VisitorCounters) -> Self {
        let VisitorCounters { events, views, clicks, purchases, users } = counters;
        PageCounters { events, views, clicks, purchases, users, ..PageCounters::default() }
    }
}

/// Counts events by type, and the users whose number of events on a page leaves or reaches zero.
///
/// Keeps every user of a page that has events there in the window, or had some not longer ago than a window's size: most of
/// them come back, so they are forgotten only once a window size, in a sweep. And per event in the window 8 bytes.
pub struct Visitors {
    windows: Windows,
    pages: Pages<VisitorCounters>,
    slots: HashMap<Visitor, u32, FixedState>,
    visitors: Vec<LiveVisitor>,
    free: Vec<u32>,
    /// When those who had no event in the window were last forgotten.
    swept: Option<Tick>,
}

/// A user on a page. The user's hash is in two halves so that map entries are small.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Visitor {
    page: PageSlot,
    user: [u32; 2],
}

impl Visitor {
    fn new(page: PageSlot, user: UserId) -> Self {
        Visitor { page, user: [(user >> 32) as u32, user as u32] }
    }
}

impl Hash for Visitor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let user = u64::from(self.user[0]) << 32 | u64::from(self.user[1]);
        // The user is a hash already; a page's slot is a small number.
        state.write_u64(user ^ u64::from(self.page) << 32);
    }
}

struct LiveVisitor {
    page: PageSlot,
    /// Events in the window; each of them takes memory, so there can't be as many as this can't count.
    events: u32,
}

/// What is kept of an event in the window.
pub struct EnteredPageEvent {
    visitor: u32,
    event_type: EventType,
}

impl Slide for Visitors {
    type Row = PageEvent;
    type Entered = EnteredPageEvent;

    fn enter(&mut self, rows: &[Vec<PageEvent>], _leave: Tick) -> Vec<EnteredPageEvent> {
        let Visitors { pages, slots, visitors, free, .. } = self;
        let mut enter = |PageEvent { page, user, event_type }: &PageEvent| {
            let page = pages.find(*page);
            let slot = *slots.entry(Visitor::new(page, *user)).or_insert_with(|| {
                pages.refer(page);
                let fresh = LiveVisitor { page, events: 0 };
                match free.pop() {
                    Some(slot) => {
                        visitors[slot as usize] = fresh;
                        slot
                    }
                    None => {
                        visitors.push(fresh);
                        u32::try_from(visitors.len() - 1).expect("visitors fit into memory")
                    }
                }
            });
            let live = &mut visitors[slot as usize];
            let change = pages.change(page);
            change.count(*event_type, 1);
            change.users += i64::from(live.events == 0);
            live.events += 1;
            EnteredPageEvent { visitor: slot, event_type: *event_type }
        };
        let mut entered = Vec::with_capacity(rows.iter().map(Vec::len).sum());
        for rows in rows {
            entered.extend(rows.iter().map(&mut enter));
        }
        entered
    }

    #[inline]
    fn leave(&mut self, entered: EnteredPageEvent) {
        let live = &mut self.visitors[entered.visitor as usize];
        live.events -= 1;
        let change = self.pages.change(live.page);
        change.count(entered.event_type, -1);
        change.users -= i64::from(live.events == 0);
    }

    fn keys(&self) -> usize {
        self.slots.len()
    }

    fn changes(&mut self, tick: Tick) -> impl Iterator<Item = (PageId, PageCounters)> {
        if self.swept.is_none_or(|swept| tick.0 - swept.0 >= self.windows.size_ms()) {
            self.swept = Some(tick);
            self.sweep();
        }
        self.pages.drain()
    }
}

impl Visitors {
    /// Nobody, in windows like these.
    pub fn new(windows: Windows) -> Self {
        Visitors {
            windows,
            pages: Pages::default(),
            slots: HashMap::default(),
            visitors: Vec::new(),
            free: Vec::new(),
            swept: None,
        }
    }

    /// Forgets who has no event in the window.
    fn sweep(&mut self) {
        let Visitors { pages, slots, visitors, free, .. } = self;
        slots.retain(|visitor, slot| {
            let stays = visitors[*slot as usize].events > 0;
            if !stays {
                free.push(*slot);
                pages.release(visitor.page);
            }
            stays
        });
    }
}
