//! The visitors of pages: counters, and distinct users, exact.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::counters::{PageCounters, PageSlot, Pages};
use crate::event::{Activity, EventType, PageId, UserId};
use crate::sliding::Slide;
use crate::time::Tick;

/// An event, as the page it happened on sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEvent {
    visitor: Visitor,
    event_type: EventType,
}

impl PageEvent {
    /// What the page sees of `activity`.
    pub fn of(activity: &Activity) -> Self {
        let Activity { page, user, event_type, .. } = *activity;
        PageEvent { visitor: Visitor { page, user }, event_type }
    }
}

/// A user on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Visitor {
    page: PageId,
    user: UserId,
}

/// Both are hashes already, and with one of them, what they make together tells the other.
impl Hash for Visitor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.page ^ self.user);
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
/// Keeps every user of a page that has events there in the window, and per event in the window 8 bytes.
#[derive(Default)]
pub struct Visitors {
    pages: Pages<VisitorCounters>,
    slots: HashMap<Visitor, u32, FixedState>,
    visitors: Slab<LiveVisitor>,
}

struct LiveVisitor {
    visitor: Visitor,
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

    #[inline]
    fn enter(&mut self, row: &PageEvent, _leave: Tick) -> EnteredPageEvent {
        let PageEvent { visitor, event_type } = *row;
        let Visitors { pages, slots, visitors } = self;
        let slot = *slots.entry(visitor).or_insert_with(|| {
            let page = pages.find(visitor.page);
            pages.refer(page);
            pages.change(page).users += 1;
            u32::try_from(visitors.insert(LiveVisitor { visitor, page, events: 0 })).expect("visitors fit into memory")
        });
        let live = &mut visitors[slot as usize];
        live.events += 1;
        pages.change(live.page).count(event_type, 1);
        EnteredPageEvent { visitor: slot, event_type }
    }

    #[inline]
    fn leave(&mut self, entered: EnteredPageEvent) {
        let Visitors { pages, slots, visitors } = self;
        let live = &mut visitors[entered.visitor as usize];
        live.events -= 1;
        let page = live.page;
        pages.change(page).count(entered.event_type, -1);
        if live.events == 0 {
            pages.change(page).users -= 1;
            pages.release(page);
            let gone = visitors.remove(entered.visitor as usize);
            slots.remove(&gone.visitor);
        }
    }

    fn changes(&mut self, _tick: Tick) -> impl Iterator<Item = (PageId, PageCounters)> {
        self.pages.drain()
    }
}
