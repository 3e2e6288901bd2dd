//! A click event as it is on the wire: the record of `config/schemas/clickstream-event.avsc`.

use std::borrow::Cow;

use clicktide_dataflows::event::EventType;
use serde::{Deserialize, Serialize};

/// A whole click event, owned: what the generator makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickEvent {
    /// Who.
    pub user_id: String,
    /// In which session.
    pub session_id: String,
    /// Did what.
    pub event_type: EventType,
    /// On which page.
    pub page_url: String,
    /// With which product, if any.
    pub product_id: Option<String>,
    /// When, ms since the epoch.
    pub timestamp: i64,
    /// The browser's own description.
    pub user_agent: String,
    /// From which address.
    pub ip_address: String,
    /// Coming from which page, if known.
    pub referrer: Option<String>,
    /// How long the session has lasted so far, seconds, if reported.
    pub session_duration: Option<i32>,
}

/// The six fields of a click event that the analytics need, borrowed from the bytes they were decoded from.
///
/// Decoded but not yet validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedEvent<'a> {
    /// Who; may be empty before validation.
    pub user_id: Cow<'a, str>,
    /// In which session; may be empty before validation.
    pub session_id: Cow<'a, str>,
    /// On which page; may be empty before validation.
    pub page_url: Cow<'a, str>,
    /// Did what.
    pub event_type: EventType,
    /// When, ms since the epoch.
    pub timestamp: i64,
    /// How long the session has lasted so far, seconds, if reported.
    pub session_duration: Option<i32>,
}

/// The fields of a click event that only the sanitiser reads, borrowed from the bytes they were decoded from. What is missing, no
/// text, or not UTF-8 is none: nothing depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventDetails<'a> {
    /// With which product.
    pub product_id: Option<Cow<'a, str>>,
    /// The browser's own description.
    pub user_agent: Option<Cow<'a, str>>,
    /// From which address.
    pub ip_address: Option<Cow<'a, str>>,
    /// Coming from which page.
    pub referrer: Option<Cow<'a, str>>,
}
