//! An event as others may see it.

use clicktide::avro::{encode_sanitised_event, sanitised_event_json};
use clicktide::event::{DecodedEvent, EventDetails};
use clicktide::privacy::{HashKey, PageKey, Sanitiser};
use clicktide::validation::Limits;

/// Sanitises an event, valid or not: what comes of it is a body of the published schema, with a network in place of an address,
/// and a referrer without a query.
pub(super) fn check(event: &DecodedEvent<'_>, details: &EventDetails<'_>) {
    let (hash_key, limits) = (HashKey::new("a key").expect("it is not empty"), Limits::default());
    for page_key in [PageKey::Full, PageKey::NoQuery, PageKey::Path] {
        let sanitiser = Sanitiser { hash_key: &hash_key, page_key, limits: &limits };
        let sanitised = sanitiser.sanitise(event, details);
        let mut body = Vec::new();
        encode_sanitised_event(&sanitised, &mut body);
        let json = sanitised_event_json(&body).expect("a body of the published schema");
        assert_eq!(json["user_id"], sanitised.user_id.to_string());
        assert_eq!(json["page_url"], *sanitised.page_url);
        if let (Some(whole), Some(kept)) = (&details.ip_address, sanitised.ip_address) {
            let network = clicktide::privacy::network(&kept.to_string());
            assert_eq!(network, Some(kept), "{kept} of {whole} is no network");
        }
        let referrer = sanitised.referrer.as_deref().unwrap_or_default();
        assert!(!referrer.contains('?'), "{referrer}");
    }
}
