//! Whatever the bytes, nothing panics and nothing but an event counts.

use clicktide::avro::{Decoder, encode_event};
use clicktide::event::ClickEvent;
use clicktide::history::History;
use clicktide::ingest::{Accepted, Format, Ingest, Record};
use clicktide::json::decode_line;
use clicktide::privacy::{Domain, HashKey, PageKey};
use clicktide::validation::{Limits, Reason, validate};
use clicktide_dataflows::event::{Activity, EventType};
use clicktide_dataflows::time::{PartitionClock, Windows};
use proptest::prelude::*;

fn ingest(format: Format, page_key: PageKey) -> Ingest {
    Ingest {
        format,
        limits: Limits::default(),
        hash_key: HashKey::new("robust").unwrap(),
        page_key,
        windows: Windows::new(300_000, 10_000, 0).unwrap(),
        bound_ms: 30_000,
    }
}

fn formats() -> [Format; 2] {
    [Format::Avro(Decoder::default()), Format::JsonLines]
}

/// What `ingest` makes of `payload`; a rejected one must leave the clock as it was.
fn accept<'a>(ingest: &Ingest, record_timestamp_ms: Option<i64>, payload: &'a [u8]) -> Accepted<'a> {
    let mut clock = PartitionClock { clock_ms: Some(1_000_000), floor_ms: Some(5) };
    let before = clock;
    let accepted =
        ingest.accept(&mut clock, &mut History::default(), &Record { offset: 0, record_timestamp_ms, payload });
    if matches!(accepted, Accepted::Rejected(_)) {
        assert_eq!(clock, before);
    }
    accepted
}

fn encode(format: &Format, event: &ClickEvent) -> Vec<u8> {
    match format {
        Format::JsonLines => serde_json::to_vec(event).unwrap(),
        Format::Avro(_) => {
            let mut body = Vec::new();
            encode_event(event, &mut body);
            body
        }
        Format::Wire(_) => unreachable!("not among the formats above: it needs a registry"),
    }
}

prop_compose! {
    /// An event that is mostly, but not always, valid.
    fn any_event()(
        user_id in prop_oneof![9 => "[a-z]{1,9}", 1 => ".{0,300}"],
        session_id in prop_oneof![9 => "\\PC{1,9}", 1 => ".{0,300}"],
        page_url in prop_oneof![5 => "(https?://[a-z.]{1,9})?/[a-z/?#é]{0,20}", 1 => "https?://.{0,20}", 1 => ".{0,30}"],
        kind in 0..5_usize,
        timestamp in prop_oneof![9 => 1..2_000_000_i64, 1 => any::<i64>()],
        session_duration in proptest::option::of(prop_oneof![9 => 0..9_000_i32, 1 => any::<i32>()]),
        (product_id, referrer) in (proptest::option::of(".{0,9}"), proptest::option::of(".{0,9}")),
        user_agent in ".{0,40}",
    ) -> ClickEvent {
        use EventType::{AddToCart, Click, Purchase, Search, View};
        let event_type = [View, Click, AddToCart, Purchase, Search][kind];
        let ip_address = "10.0.0.1".to_owned();
        ClickEvent {
            user_id, session_id, event_type, page_url, product_id, timestamp, user_agent, ip_address, referrer,
            session_duration,
        }
    }
}

fn any_page_key() -> impl Strategy<Value = PageKey> {
    prop::sample::select(vec![PageKey::Full, PageKey::NoQuery, PageKey::Path])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes(bytes: Vec<u8>, record_timestamp_ms: Option<i64>, page_key in any_page_key()) {
        for format in formats() {
            let ingest = ingest(format, page_key);
            accept(&ingest, record_timestamp_ms, &bytes);
            ingest.sanitised(&Record { offset: 0, record_timestamp_ms, payload: &bytes });
        }
    }

    #[test]
    fn any_text_of_json(line in r#"[{}\[\]":,0-9a-z\\u ]{0,60}"#) {
        let _ = decode_line(line.as_bytes());
        let _ = decode_line(format!(r#"{{"event_type":"VIEW","timestamp":1,"user_id":{line}}}"#).as_bytes());
    }

    #[test]
    fn an_event_is_the_same_in_both_formats(
        event in any_event(),
        record_timestamp_ms: Option<i64>,
        page_key in any_page_key(),
    ) {
        let [avro, json] = formats().map(|format| ingest(format, page_key));
        let [avro_bytes, json_bytes] = [&avro, &json].map(|ingest| encode(&ingest.format, &event));
        let accepted = accept(&avro, record_timestamp_ms, &avro_bytes);
        prop_assert_eq!(&accepted, &accept(&json, record_timestamp_ms, &json_bytes));
        let sanitised = [(&avro, &avro_bytes), (&json, &json_bytes)].map(|(ingest, payload)| {
            ingest.sanitised(&Record { offset: 0, record_timestamp_ms, payload })
        });
        prop_assert!(sanitised[0].is_some());
        prop_assert_eq!(&sanitised[0], &sanitised[1]);
        if let Accepted::Counted { activity, page_url, .. } = accepted {
            prop_assert_eq!(&*page_url, page_key.apply(&event.page_url));
            prop_assert!(activity.enter < activity.leave);
            let expected = Activity {
                enter: activity.enter,
                leave: avro.windows.leave(event.timestamp),
                page: avro.hash_key.hash(Domain::Page, &page_url),
                user: avro.hash_key.hash(Domain::User, &event.user_id),
                session: avro.hash_key.hash(Domain::Session, &event.session_id),
                event_type: event.event_type,
                session_duration_s: event.session_duration,
                time_ms: event.timestamp,
            };
            prop_assert_eq!(activity, expected);
        }
    }

    #[test]
    fn truncated_and_changed_payloads(event in any_event(), place: prop::sample::Index, bit in 0..8_u32) {
        for format in formats() {
            let ingest = ingest(format, PageKey::Path);
            let mut payload = encode(&ingest.format, &event);
            let place = place.index(payload.len());
            prop_assert_eq!(accept(&ingest, None, &payload[..place]), Accepted::Rejected(Reason::Undecodable));
            payload[place] ^= 1_u8 << bit;
            let accepted = accept(&ingest, Some(1_000_000), &payload);
            let sanitised = ingest.sanitised(&Record { offset: 0, record_timestamp_ms: None, payload: &payload });
            // Whatever can be decoded can be sanitised.
            prop_assert_eq!(sanitised.is_none(), accepted == Accepted::Rejected(Reason::Undecodable));
        }
    }
}

#[test]
fn huge_texts() {
    let huge = "é/".repeat(5_000_000);
    let event = |user_id: &str, session_id: &str, page_url: &str| ClickEvent {
        user_id: user_id.into(),
        session_id: session_id.into(),
        event_type: EventType::View,
        page_url: page_url.into(),
        product_id: None,
        timestamp: 1_000_000,
        user_agent: huge.clone(),
        ip_address: "-".into(),
        referrer: Some(huge.clone()),
        session_duration: None,
    };
    for format in formats() {
        let ingest = ingest(format, PageKey::Path);
        let accept_event = |event| match accept(&ingest, None, &encode(&ingest.format, &event)) {
            Accepted::Rejected(reason) => Some(reason),
            _ => None,
        };
        assert_eq!(accept_event(event(&huge, "s", "/")), Some(Reason::TooLongUserId));
        assert_eq!(accept_event(event("u", &huge, "/")), Some(Reason::TooLongSessionId));
        assert_eq!(accept_event(event("u", "s", &huge)), Some(Reason::TooLongPageUrl));
        assert_eq!(accept_event(event("u", "s", "/")), None);
        let huge =
            ClickEvent { product_id: Some(huge.clone()), ip_address: huge.clone(), ..event(&huge, &huge, &huge) };
        let record = Record { offset: 0, record_timestamp_ms: None, payload: &encode(&ingest.format, &huge) };
        assert!(ingest.sanitised(&record).is_some_and(|sanitised| sanitised.body.len() < 100));
    }
    // Nesting in a field that nobody reads takes no stack.
    let deep = format!(r#"{{"event_type":"VIEW","timestamp":1,"x":{}}}"#, "[".repeat(1_000_000));
    assert!(decode_line(deep.as_bytes()).is_err());
}

#[test]
fn validation_of_huge_texts_by_unlimited_limits() {
    let limits = Limits { id_bytes_max: usize::MAX, page_url_bytes_max: usize::MAX, future_ms: i64::MAX };
    let line = format!(
        r#"{{"event_type":"VIEW","timestamp":1,"user_id":"u","session_id":"s","page_url":"/{}"}}"#,
        "é".repeat(99_999)
    );
    let read = decode_line(line.as_bytes()).unwrap();
    for record_timestamp in [None, Some(i64::MIN), Some(0), Some(i64::MAX)] {
        let expected = if record_timestamp == Some(i64::MIN) { Err(Reason::FutureTimestamp) } else { Ok(()) };
        assert_eq!(validate(&read.event, record_timestamp, &limits), expected);
    }
}
