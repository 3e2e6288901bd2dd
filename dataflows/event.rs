//! What goes into the dataflows and what comes out of them.

use serde::{Deserialize, Serialize};

use crate::time::Tick;

/// What a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventType {
    /// Looked at a page.
    View,
    /// Clicked on something.
    Click,
    /// Put a product into the cart.
    AddToCart,
    /// Bought: a conversion.
    Purchase,
    /// Searched.
    Search,
}

/// A page, as a keyed 64-bit hash of its key. [`PageName`] brings the key itself.
pub type PageId = u64;
/// A user, as a keyed 64-bit hash of the user id.
pub type UserId = u64;
/// A session, as a keyed 64-bit hash of the session id.
pub type SessionId = u64;

/// An event as the dataflows see it: judged by its partition's clock, with ids hashed and nothing personal left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The first window end that counts the event.
    pub enter: Tick,
    /// The first window end that no longer counts it.
    pub leave: Tick,
    /// The page it happened on.
    pub page: PageId,
    /// Who did it.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// What was done.
    pub event_type: EventType,
    /// The session's duration so far as the event reports it, in seconds; never negative.
    pub session_duration_s: Option<i32>,
    /// When it happened, ms.
    pub time_ms: i64,
}

/// The name of a page, sent ahead of its events.
///
/// Sources announce a page again before `keep_until` has passed, so that names of pages nobody visits are forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageName {
    /// The hash under which events refer to the page.
    pub page: PageId,
    /// The page's key: its URL, or what the configuration keeps of it.
    pub page_url: String,
    /// The first window end that no announced event counts in.
    pub keep_until: Tick,
}

/// The statistics of one page in one window: the record of `page-analytics.avsc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageAnalytics {
    /// The page.
    pub page_url: String,
    /// Start of the window, ms, included.
    pub window_start: i64,
    /// End of the window, ms, excluded.
    pub window_end: i64,
    /// Views of the page in the window.
    pub view_count: i64,
    /// Distinct users with any event on the page in the window, exact.
    pub unique_users: i32,
    /// Clicks on the page in the window.
    pub click_count: i64,
    /// Purchases on the page in the window.
    pub conversion_count: i64,
    /// Share of the page's sessions with an event other than a view on it, in [0, 1].
    pub engagement_rate: f64,
    /// Share of the page's sessions whose only event in the window, on any page, is one view of it, in [0, 1].
    pub bounce_rate: f64,
    /// Mean duration in the window of the page's sessions, seconds.
    pub avg_session_duration: f64,
}
