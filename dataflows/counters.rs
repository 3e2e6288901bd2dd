//! The counters of a page, as a difference, and how an operator collects their changes.

use std::collections::HashMap;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::event::PageId;

/// All that the statistics of a page in a window are computed from, as a difference: counters add up, so a change of a
/// page is a change of its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// The place of a page in [`Pages`].
pub type PageSlot = u32;

/// The pages that an operator knows, each with a small number, and what has changed of them since the last tick.
///
/// A page stays known while something refers to it. `C` is the part of the page's counters that the operator is about.
pub struct Pages<C> {
    slots: HashMap<PageId, PageSlot, FixedState>,
    pages: Vec<Page<C>>,
    free: Vec<PageSlot>,
    changed: Vec<PageSlot>,
}

struct Page<C> {
    id: PageId,
    references: u32,
    noted: bool,
    change: C,
}

impl<C> Default for Pages<C> {
    fn default() -> Self {
        Pages { slots: HashMap::default(), pages: Vec::new(), free: Vec::new(), changed: Vec::new() }
    }
}

impl<C: Default + Into<PageCounters>> Pages<C> {
    /// The place of `page`. It is forgotten at the next [`Pages::drain`] that finds it without references.
    #[inline]
    pub fn find(&mut self, page: PageId) -> PageSlot {
        let Pages { slots, pages, free, changed } = self;
        *slots.entry(page).or_insert_with(|| {
            let fresh = Page { id: page, references: 0, noted: true, change: C::default() };
            let slot = match free.pop() {
                Some(slot) => {
                    pages[slot as usize] = fresh;
                    slot
                }
                None => {
                    pages.push(fresh);
                    PageSlot::try_from(pages.len() - 1).expect("pages fit into memory")
                }
            };
            changed.push(slot);
            slot
        })
    }

    /// Refers to a page once more.
    pub fn refer(&mut self, slot: PageSlot) {
        self.pages[slot as usize].references += 1;
    }

    /// Takes one reference back.
    pub fn release(&mut self, slot: PageSlot) {
        self.change(slot);
        self.pages[slot as usize].references -= 1;
    }

    /// The changes of a page, to be added to.
    #[inline]
    pub fn change(&mut self, slot: PageSlot) -> &mut C {
        let page = &mut self.pages[slot as usize];
        if !page.noted {
            page.noted = true;
            self.changed.push(slot);
        }
        &mut page.change
    }

    /// Takes what has changed. Forgets pages that nothing refers to any more.
    pub fn drain(&mut self) -> impl Iterator<Item = (PageId, PageCounters)> {
        let Pages { slots, pages, free, changed } = self;
        changed.drain(..).filter_map(|slot| {
            let page = &mut pages[slot as usize];
            page.noted = false;
            if page.references == 0 {
                slots.remove(&page.id);
                free.push(slot);
            }
            let change = std::mem::take(&mut page.change).into();
            (!change.is_zero()).then_some((page.id, change))
        })
    }
}
