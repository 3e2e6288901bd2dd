//! What only the sanitiser reads, and what it writes.

use std::net::IpAddr;

use super::*;
use crate::privacy::{Browser, Device, IdHash, SanitisedEvent};

const BROWSERS: [Browser; 8] = [
    Browser::Other,
    Browser::Chrome,
    Browser::Edge,
    Browser::Firefox,
    Browser::InternetExplorer,
    Browser::Opera,
    Browser::Safari,
    Browser::SamsungInternet,
];
const DEVICES: [Device; 5] = [Device::Other, Device::Desktop, Device::Phone, Device::Tablet, Device::Bot];

proptest! {
    #[test]
    fn details_are_those_of_the_event(event in any_event()) {
        let body = encode(&event);
        prop_assert_eq!(Decoder::default().details(&body), Ok(details(&event)));
    }

    #[test]
    fn there_are_details_wherever_there_is_an_event(event in any_event(), place: prop::sample::Index, bit in 0..8_u32) {
        let mut body = encode(&event);
        let place = place.index(body.len());
        body[place] ^= 1_u8 << bit;
        for end in place..=body.len() {
            let decoder = Decoder::default();
            let decoded = decoder.decode(&body[..end]).is_ok();
            prop_assert!(!decoded || decoder.details(&body[..end]).is_ok());
        }
    }

    #[test]
    fn sanitised_events_agree_with_the_reference(
        (user_id, session_id, timestamp) in any::<(u64, u64, i64)>(),
        kind in 0..EVENT_TYPES.len(),
        page_url in ".*",
        (product_id, referrer) in (proptest::option::of(".*"), proptest::option::of(".*")),
        ip_address: Option<IpAddr>,
        (browser, device) in (0..BROWSERS.len(), 0..DEVICES.len()),
        session_duration: Option<i32>,
    ) {
        let event = SanitisedEvent {
            user_id: IdHash(user_id),
            session_id: IdHash(session_id),
            event_type: EVENT_TYPES[kind].1,
            page_url: page_url.into(),
            product_id: product_id.as_deref(),
            timestamp,
            ip_address,
            browser: BROWSERS[browser],
            device: DEVICES[device],
            referrer: referrer.map(Into::into),
            session_duration,
        };
        let mut body = Vec::new();
        encode_sanitised_event(&event, &mut body);
        prop_assert_eq!(&body, &reference_encode_json(SANITISED_EVENT_SCHEMA, &serde_json::to_value(&event).unwrap()));
        prop_assert_eq!(sanitised_event_json(&body), Some(serde_json::to_value(&event).unwrap()));
        body.push(0);
        prop_assert_eq!(sanitised_event_json(&body), None);
    }
}

/// The details of an event whose writer has these fields for them.
fn written(fields: &[Value], values: &[u8]) -> Option<[Option<String>; 4]> {
    let needed = ["user_id", "session_id", "event_type", "page_url", "timestamp"];
    let mut all: Vec<Value> =
        published_fields().into_iter().filter(|field| needed.iter().any(|name| field["name"] == *name)).collect();
    all.extend_from_slice(fields);
    let body = [b"\x02u\x02s\0\x02/\x02", values].concat();
    let decoder = Decoder::new(&schema_of(&all)).unwrap();
    assert!(decoder.decode(&body).is_ok());
    let EventDetails { product_id, user_agent, ip_address, referrer } = decoder.details(&body).ok()?;
    Some([product_id, user_agent, ip_address, referrer].map(|text| text.map(Into::into)))
}

#[test]
fn a_detail_may_be_missing_or_of_any_type() {
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(written(&[], b""), Some([None, None, None, None]));
    let fields = [
        json!({"name": "referrer", "type": "bytes"}),
        json!({"name": "ip_address", "type": {"type": "array", "items": "int"}}),
        json!({"name": "user_agent", "type": ["int", "string", "null"]}),
        json!({"name": "product_id", "type": {"type": "string", "logicalType": "uuid"}}),
    ];
    assert_eq!(written(&fields, b"\x02r\x02\x08\0\x02\x04UA\x02p"), Some([text("p"), text("UA"), None, text("r")]));
    assert_eq!(written(&fields, b"\x02r\0\x00\x08\x02p"), Some([text("p"), None, None, text("r")]));
    assert_eq!(written(&fields, b"\x02r\0\x04\x02p"), Some([text("p"), None, None, text("r")]));
    // What is not UTF-8 is not there.
    assert_eq!(written(&fields, b"\x02\xff\0\x04\x02\xff"), Some([None, None, None, None]));
}

#[test]
fn of_a_union_of_records_each_has_its_own() {
    let published: Value = serde_json::from_str(CLICK_EVENT_SCHEMA).unwrap();
    let other = json!({"type": "record", "name": "Other", "fields": [
        {"name": "page_url", "type": "string"}, {"name": "timestamp", "type": "int"},
        {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": ["CLICK"]}},
        {"name": "session_id", "type": "bytes"}, {"name": "user_id", "type": "string"},
        {"name": "ip_address", "type": "string"},
    ]});
    let decoder = Decoder::new(&json!(["null", published, other]).to_string()).unwrap();
    let of_other = b"\x04\x02/\x0a\0\x02s\x02u\x02i";
    assert!(decoder.decode(of_other).is_ok());
    let expected = EventDetails { ip_address: Some("i".into()), ..EventDetails::default() };
    assert_eq!(decoder.details(of_other), Ok(expected));
    assert_eq!(decoder.details(b"\0"), Err(DecodeError::UnreadableBranch));
    assert_eq!(decoder.details(b"\x06"), Err(DecodeError::UnknownBranch));
}

#[test]
fn the_sanitised_schema_names_the_symbols_in_their_order() {
    let schema: Value = serde_json::from_str(SANITISED_EVENT_SCHEMA).unwrap();
    let symbols = |name: &str| {
        let field = schema["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).unwrap();
        field["type"]["symbols"].clone()
    };
    assert_eq!(symbols("browser"), serde_json::to_value(BROWSERS).unwrap());
    assert_eq!(symbols("device"), serde_json::to_value(DEVICES).unwrap());
    assert_eq!(symbols("event_type"), json!(EVENT_TYPES.map(|(symbol, _)| symbol)));
}
