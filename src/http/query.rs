//! Which pages are asked for, and in which order.

use std::cmp::Ordering;

use clicktide_dataflows::event::PageAnalytics;

use super::view::PageSort;

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The greatest first: the default.
    #[default]
    Desc,
    /// The least first.
    Asc,
}

/// Some of a window's pages, in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageSelection {
    /// What they are sorted by.
    pub sort: PageSort,
    /// Which end comes first.
    pub order: Order,
    /// Only those whose key has this in it.
    pub contains: String,
}

impl PageSelection {
    /// Whether a page is among them.
    pub fn matches(&self, page: &PageAnalytics) -> bool {
        page.page_url.contains(&self.contains)
    }

    /// The order of two pages.
    pub fn compare(&self, a: &PageAnalytics, b: &PageAnalytics) -> Ordering {
        match self.order {
            Order::Desc => self.sort.compare(a, b),
            Order::Asc => self.sort.compare(b, a),
        }
    }
}
