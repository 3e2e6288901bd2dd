//! Nothing is allocated for an event, whatever its writer schema and whatever its bytes; nor for a result.

#[path = "../benches/memory.rs"]
mod memory;

use clicktide::avro::{CLICK_EVENT_SCHEMA, Decoder, encode_event, encode_page_analytics};
use clicktide::event::{ClickEvent, DecodedEvent};
use clicktide::history::{History, HistoryLimits};
use clicktide::ingest::{Accepted, Format, Ingest, Record};
use clicktide::privacy::{HashKey, PageKey};
use clicktide::validation::Limits;
use clicktide_dataflows::event::{EventType, PageAnalytics};
use clicktide_dataflows::time::{PartitionClock, Windows};
use memory::CountingAllocator;

/// How often `f` allocates. Others may do so meanwhile, such as the test harness, but not every time.
fn allocations(mut f: impl FnMut()) -> u64 {
    (0..5).map(|_| CountingAllocator::allocations(&mut f).1).min().unwrap_or(u64::MAX)
}

fn event() -> ClickEvent {
    ClickEvent {
        user_id: "user-0001".into(),
        session_id: "session-0001-18bcfe56800".into(),
        event_type: EventType::Click,
        page_url: "https://shop.example.com/produits/\u{e9}t\u{e9}?utm_source=mail".into(),
        product_id: Some("product-0042".into()),
        timestamp: 1_700_000_000_000,
        user_agent: "Mozilla/5.0 (X11; Linux x86_64)".into(),
        ip_address: "192.0.2.1".into(),
        referrer: None,
        session_duration: Some(60),
    }
}

/// A writer schema with all that a plan can do: promotions, unions, defaults, symbols that are not ours, and fields of every
/// kind to pass over.
const EVOLVED: &str = r#"{"type": "record", "name": "Click", "fields": [
    {"name": "labels", "type": {"type": "map", "values": "string"}},
    {"name": "page_url", "type": ["null", "bytes"]},
    {"name": "timestamp", "type": "int"},
    {"name": "list", "type": {"type": "record", "name": "List", "fields": [{"name": "tail", "type": ["null", "List"]}]}},
    {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": ["HOVER", "CLICK"]}},
    {"name": "session_id", "type": "string"},
    {"name": "user_id", "type": "bytes"},
    {"name": "history", "type": {"type": "array", "items": "long"}}
]}"#;

/// `{a: b}`, "/p", 3, a list of two, CLICK, "s", "u", `[1, 1]`.
const EVOLVED_BODY: &[u8] = b"\x02\x02a\x02b\0\x02\x04/p\x06\x02\x02\0\x02\x02s\x02u\x04\x02\x02\0";

/// What docs/guarantees.md says of it: 500 to 8,000 events of a partition in a slide, remembered for four slides.
#[test]
fn a_remembered_event_takes_some_30_bytes() {
    let hash_key = HashKey::new("test").unwrap();
    let (windows, slide_ms) = (Windows::new(40_000, 10_000, 0).unwrap(), 10_000);
    let limits = HistoryLimits { horizon_ms: Some(40_000), pages_max: None };
    let mut event = event();
    let mut all = Vec::new();
    for per_slide in (500..8_000).step_by(250) {
        let mut take_in = || {
            let mut history = History::new(limits, windows);
            for number in 0..per_slide * 8 {
                event.timestamp = number * slide_ms / per_slide;
                let payload = number.to_le_bytes();
                history.take_in(&hash_key, Some(event.timestamp), &decoded(&event), number, &payload);
            }
            history
        };
        let (history, peak_mb) = CountingAllocator::peak_mb(&mut take_in);
        let events = history.remembered();
        assert!(events as i64 >= 4 * per_slide, "{events}");
        all.push(peak_mb * 1e6 / events as f64);
    }
    all.sort_by(f64::total_cmp);
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    println!("bytes per remembered event: {:.1} to {:.1}, {mean:.1} on average", all[0], all[all.len() - 1]);
    // Others may allocate meanwhile, but not every time.
    assert!(all[0] > 17.0 && all[all.len() / 2] < 40.0, "{all:?}");
}

/// What the job reads of it.
fn decoded(event: &ClickEvent) -> DecodedEvent<'_> {
    DecodedEvent {
        user_id: (&event.user_id).into(),
        session_id: (&event.session_id).into(),
        event_type: event.event_type,
        page_url: (&event.page_url).into(),
        timestamp: event.timestamp,
        session_duration: event.session_duration,
    }
}

#[test]
fn nothing_is_allocated_per_event() {
    let mut published = Vec::new();
    encode_event(&event(), &mut published);
    let json = serde_json::to_vec(&event()).unwrap();
    for (format, payload) in [
        (Format::Avro(Decoder::new(CLICK_EVENT_SCHEMA).unwrap()), published.as_slice()),
        (Format::Avro(Decoder::new(EVOLVED).unwrap()), EVOLVED_BODY),
        (Format::JsonLines, &json),
    ] {
        let ingest = Ingest {
            format,
            limits: Limits::default(),
            hash_key: HashKey::new("test").unwrap(),
            page_key: PageKey::NoQuery,
            windows: Windows::new(300_000, 10_000, 0).unwrap(),
            bound_ms: 30_000,
        };
        let accept = |payload: &[u8]| {
            let record = Record { offset: 0, record_timestamp_ms: None, payload };
            matches!(
                ingest.accept(&mut PartitionClock::default(), &mut History::default(), &record),
                Accepted::Counted { .. }
            )
        };
        assert!(accept(payload));
        assert_eq!(allocations(|| assert!(accept(payload))), 0);
        let Format::Avro(decoder) = &ingest.format else { continue };
        // Bodies that are cut off, and such as claim what they like at any place.
        let claim = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let mut bodies: Vec<_> = (0..payload.len()).map(|end| payload[..end].to_owned()).collect();
        bodies.extend((0..payload.len()).map(|end| [&payload[..end], &claim, &payload[end..]].concat()));
        bodies.extend((0..payload.len()).map(|end| [&payload[..end], &[0xff; 12]].concat()));
        let decode_all = || bodies.iter().for_each(|body| drop(decoder.decode(body)));
        assert_eq!(allocations(decode_all), 0);
    }

    let result = PageAnalytics {
        page_url: "https://shop.example.com/".into(),
        window_start: 1_700_000_000_000,
        window_end: 1_700_000_300_000,
        view_count: 1_000,
        unique_users: 10,
        click_count: 100,
        conversion_count: 1,
        engagement_rate: 0.5,
        bounce_rate: 0.25,
        avg_session_duration: 61.5,
    };
    let mut out = Vec::with_capacity(256);
    let mut encode = || {
        out.clear();
        encode_page_analytics(&result, &mut out);
    };
    assert_eq!(allocations(&mut encode), 0);
}
