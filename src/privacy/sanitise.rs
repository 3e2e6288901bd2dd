//! A whole event without its personal data: the record of `config/schemas/sanitised-event.avsc`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use clicktide_dataflows::event::EventType;
use serde::{Serialize, Serializer};

use super::{Browser, Device, Domain, HashKey, PageKey, UserAgent, network};
use crate::event::{DecodedEvent, EventDetails};
use crate::validation::{Limits, is_page};

/// The keyed hash of an id. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdHash(pub u64);

impl fmt::Display for IdHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for IdHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An event as others may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SanitisedEvent<'a> {
    /// Who, as a hash: the same for the same user as long as the key is the same.
    pub user_id: IdHash,
    /// In which session, as a hash.
    pub session_id: IdHash,
    /// Did what.
    pub event_type: EventType,
    /// On which page: its key. Empty if the event's is no valid page, of which nobody knows what it holds.
    pub page_url: Cow<'a, str>,
    /// With which product, if any.
    pub product_id: Option<&'a str>,
    /// When, ms since the epoch.
    pub timestamp: i64,
    /// From which network, if known.
    pub ip_address: Option<IpAddr>,
    /// With which browser.
    pub browser: Browser,
    /// On what.
    pub device: Device,
    /// Coming from which page, if known, without its query at least.
    pub referrer: Option<Cow<'a, str>>,
    /// How long the session has lasted so far, seconds, if reported.
    pub session_duration: Option<i32>,
}

/// How events are sanitised.
#[derive(Clone, Copy, Debug)]
pub struct Sanitiser<'a> {
    /// The secret that turns ids into hashes.
    pub hash_key: &'a HashKey,
    /// How much of a URL is the page, and at most of a referrer.
    pub page_key: PageKey,
    /// What is longer is left out.
    pub limits: &'a Limits,
}

impl Sanitiser<'_> {
    /// What is left of an event. It need not be a valid one.
    ///
    /// Allocates for the user agent, and where a URL has user information. The longest outcome is two URLs and an id of the limits'
    /// length, whatever the event.
    pub fn sanitise<'e>(&self, event: &'e DecodedEvent<'_>, details: &'e EventDetails<'_>) -> SanitisedEvent<'e> {
        let DecodedEvent { user_id, session_id, page_url, event_type, timestamp, session_duration } = event;
        let EventDetails { product_id, user_agent, ip_address, referrer } = details;
        let id = |domain, id| IdHash(self.hash_key.hash(domain, id));
        let page = |key: PageKey, url: &'e str| is_page(url, self.limits).then(|| key.apply(url));
        // All that comes before the first page of a visit is a referrer: nobody has chosen what its query says.
        let referrer_key = if self.page_key == PageKey::Full { PageKey::NoQuery } else { self.page_key };
        let UserAgent { browser, device } = UserAgent::of(user_agent.as_deref().unwrap_or_default());
        SanitisedEvent {
            user_id: id(Domain::User, user_id),
            session_id: id(Domain::Session, session_id),
            event_type: *event_type,
            page_url: page(self.page_key, page_url).unwrap_or_default(),
            product_id: product_id.as_deref().filter(|product| product.len() <= self.limits.id_bytes_max),
            timestamp: *timestamp,
            ip_address: ip_address.as_deref().and_then(network),
            browser,
            device,
            referrer: referrer.as_deref().and_then(|referrer| page(referrer_key, referrer)),
            session_duration: *session_duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::valid_event;

    const PAGE: &str = "https://alice:secret@shop.example/cart?email=alice@example.org#top";

    fn details() -> EventDetails<'static> {
        EventDetails {
            product_id: Some("p-1".into()),
            user_agent: Some("Mozilla/5.0 (Android 15; Mobile; rv:145.0) Gecko/145.0 Firefox/145.0".into()),
            ip_address: Some("203.0.113.77".into()),
            referrer: Some("https://search.example/find?q=alice".into()),
        }
    }

    fn event() -> DecodedEvent<'static> {
        DecodedEvent { page_url: PAGE.into(), session_duration: Some(7), ..valid_event() }
    }

    fn check(page_key: PageKey, event: &DecodedEvent<'_>, details: &EventDetails<'_>, expected: &str) {
        let hash_key = HashKey::new("000102030405060708090a0b0c0d0e0f").unwrap();
        let limits = Limits { id_bytes_max: 5, page_url_bytes_max: 90, ..Limits::default() };
        let sanitised = Sanitiser { hash_key: &hash_key, page_key, limits: &limits }.sanitise(event, details);
        assert_eq!(sanitised.user_id.0, hash_key.hash(Domain::User, &event.user_id));
        assert_eq!(sanitised.session_id.0, hash_key.hash(Domain::Session, &event.session_id));
        let mut shown = serde_json::to_value(&sanitised).unwrap();
        for id in ["user_id", "session_id"] {
            let id = shown.as_object_mut().unwrap().remove(id).unwrap();
            assert_eq!(id.as_str().unwrap().len(), 16, "{id}");
        }
        assert_eq!(shown, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }

    #[test]
    fn whole_events() {
        let expected = |page_url: &str, referrer: &str| {
            format!(
                r#"{{"event_type": "VIEW", "page_url": "{page_url}", "product_id": "p-1", "timestamp": 1700000000000,
                "ip_address": "203.0.113.0", "browser": "FIREFOX", "device": "PHONE", "referrer": "{referrer}",
                "session_duration": 7}}"#
            )
        };
        let (event, details) = (event(), details());
        check(PageKey::Full, &event, &details, &expected(PAGE, "https://search.example/find"));
        check(
            PageKey::NoQuery,
            &event,
            &details,
            &expected("https://shop.example/cart", "https://search.example/find"),
        );
        check(PageKey::Path, &event, &details, &expected("/cart", "/find"));
    }

    #[test]
    fn what_is_not_there_or_not_valid_is_left_out() {
        let nothing = r#"{"event_type": "VIEW", "page_url": "", "product_id": null, "timestamp": -3, "ip_address": null,
            "browser": "OTHER", "device": "OTHER", "referrer": null, "session_duration": -1}"#;
        let long = format!("/{}", "x".repeat(90));
        for page_url in ["", "alice", long.as_str()] {
            let event = DecodedEvent {
                user_id: "".into(),
                page_url: page_url.into(),
                timestamp: -3,
                session_duration: Some(-1),
                ..valid_event()
            };
            check(PageKey::Full, &event, &EventDetails::default(), nothing);
            let useless = EventDetails {
                product_id: Some("123456".into()),
                user_agent: Some(page_url.into()),
                ip_address: Some(page_url.into()),
                referrer: Some(page_url.into()),
            };
            check(PageKey::NoQuery, &event, &useless, nothing);
        }
    }

    #[test]
    fn hashes_have_sixteen_digits() {
        assert_eq!(IdHash(0x0a).to_string(), "000000000000000a");
        assert_eq!(IdHash(u64::MAX).to_string(), "ffffffffffffffff");
    }
}
