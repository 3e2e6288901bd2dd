//! Objects there and back, and bytes that are none.

use proptest::prelude::*;

use super::*;

fn activity(enter: i64, time_ms: i64, session_duration_s: Option<i32>) -> Activity {
    Activity {
        enter: Tick(enter),
        leave: Tick(enter + 300_000),
        page: 0x0123_4567_89ab_cdef,
        user: u64::MAX,
        session: 3,
        event_type: EventType::Purchase,
        session_duration_s,
        time_ms,
    }
}

/// An object with what there is: two panes, a late event among them, a duration, two names.
fn example() -> PaneObject {
    let activities = vec![
        activity(1_795_737_610_000, 1_795_737_600_000, Some(77)),
        activity(1_795_737_620_000, 1_795_737_611_234, None),
        activity(1_795_737_610_000, 1_795_737_609_999, None),
        Activity { leave: Tick(1_795_737_900_000), ..activity(1_795_737_620_000, 1_795_737_599_999, Some(0)) },
    ];
    let name = |page, page_url: &str| PageName { page, page_url: page_url.into(), keep_until: Tick(1_795_737_999_000) };
    PaneObject { activities, names: vec![name(0x0123_4567_89ab_cdef, "https://shop.example/käse?x=1"), name(0, "")] }
}

fn sorted(mut object: PaneObject) -> PaneObject {
    let key =
        |a: &Activity| (a.enter, a.leave, a.time_ms, a.page, a.user, a.session, a.event_type, a.session_duration_s);
    object.activities.sort_by_key(key);
    object
}

fn any_event_type() -> impl Strategy<Value = EventType> {
    (0u8..5).prop_map(|code| event_type(code).unwrap())
}

prop_compose! {
    fn any_activity()(
        pane in prop_oneof![Just((10, 310)), Just((20, 310)), Just((20, 320)), any::<(i64, i64)>()],
        ids in any::<(u64, u64, u64)>(),
        event_type in any_event_type(),
        session_duration_s in any::<Option<i32>>(),
        time_ms in prop_oneof![0i64..100, -70_000i64..70_000, any::<i64>()],
    ) -> Activity {
        let (enter, leave) = (Tick(pane.0), Tick(pane.1));
        Activity { enter, leave, page: ids.0, user: ids.1, session: ids.2, event_type, session_duration_s, time_ms }
    }
}

prop_compose! {
    fn any_object()(
        activities in prop::collection::vec(any_activity(), 0..40),
        names in prop::collection::vec((any::<u64>(), ".{0,20}", any::<i64>()), 0..6),
    ) -> PaneObject {
        let name = |(page, page_url, keep_until)| PageName { page, page_url, keep_until: Tick(keep_until) };
        PaneObject { activities, names: names.into_iter().map(name).collect() }
    }
}

proptest! {
    #[test]
    fn there_and_back(object in any_object()) {
        let bytes = object.encode();
        prop_assert_eq!(sorted(PaneObject::decode(&bytes).unwrap()), sorted(object));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(PaneObject::decode(&bytes).is_err());
    }

    /// Bytes with a good header and checksum get to where the body is read.
    #[test]
    fn no_body_panics(body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200)) {
        if let Ok(object) = PaneObject::decode(&sealed(VERSION, &body)) {
            prop_assert_eq!(sorted(PaneObject::decode(&object.encode()).unwrap()), sorted(object));
        }
    }

    #[test]
    fn no_body_with_another_byte_panics(object in any_object(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let bytes = object.encode();
        let mut body = bytes[HEADER_BYTES..bytes.len() - CHECKSUM_BYTES].to_vec();
        let place = place.index(body.len());
        body[place] = byte;
        drop(PaneObject::decode(&sealed(VERSION, &body)));
    }
}

fn sealed(version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = example().encode();
    assert!(PaneObject::decode(&bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(PaneObject::decode(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let error = PaneObject::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Truncated(_)), "{length}: {error}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let bytes = example().encode();
    let check = |bytes: &[u8], expected: &str| {
        let error = PaneObject::decode(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"PK\x03\x04", "it is no pane object of Clicktide");
    check(b"", "it is cut off: 0 of 28 bytes are there");
    check(&bytes[..100], &format!("it is cut off: 100 of {} bytes", bytes.len()));
    check(&[&bytes[..], &[0]].concat(), "it is damaged");
    let mut flipped = bytes.clone();
    flipped[50] ^= 1;
    check(&flipped, "it is damaged: its checksum does not fit");
    check(&sealed(2, b"what a later release writes"), "it is of format version 2, and this program reads version 1");
    check(&sealed(1, b""), "it is damaged: a length in it does not fit");
    // Numbers of things that are not there allocate nothing.
    check(&sealed(1, &[0xff; 8]), "4294967295 things of 20 bytes or more don't fit");
    check(&sealed(1, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "4294967295 things of 29 bytes or more don't fit");
    check(&sealed(1, &[0; 9]), "1 bytes follow its last event");
    assert_eq!(PaneObject::decode(&sealed(1, &[0; 8])), Ok(PaneObject::default()));
}

/// Version 1 as it was released: whoever changes the format keeps reading this file.
#[test]
fn the_example_of_version_1() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checkpoint/pane-object-1");
    if std::env::var_os("CLICKTIDE_WRITE_EXAMPLES").is_some() {
        std::fs::write(file, example().encode()).unwrap();
    }
    let object = PaneObject::decode(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(sorted(object), sorted(example()));
}
