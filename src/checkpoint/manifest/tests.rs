//! Manifests there and back, and bytes that are none.

use clicktide_dataflows::time::{PartitionClock, Tick};
use proptest::prelude::*;

use super::*;
use crate::checkpoint::{ObjectRef, ResumePoint};
use crate::progress::{IdleAdvance, PartitionCut};

fn example() -> Manifest {
    let clock = PartitionClock { clock_ms: Some(1_795_737_640_000), floor_ms: None };
    Manifest {
        job: "clicktide".into(),
        generation: 7,
        configuration: r#"{"windows":{"size":"5m","slide":"10s"}}"#.into(),
        topic_id: Some("0q8ZSLmXR6Cw9mO9ZbhAIA".into()),
        through: Tick(1_795_737_610_000),
        input: vec![PartitionCut {
            position: 300,
            replay_from: 200,
            clock_ms: Some(1_795_737_540_000),
            ..PartitionCut::start(0, 100, None)
        }],
        resume: vec![ResumePoint {
            partition: 0,
            after: Tick(1_795_737_610_000),
            offset: 290,
            clock,
            history_from: None,
        }],
        idle_advances: vec![IdleAdvance { partition: 0, next_offset: 250, floor_ms: 1_795_737_500_000 }],
        objects: vec![ObjectRef {
            name: "panes/7-0-1".into(),
            bytes: 12_345,
            checksum: "0123456789abcdef".into(),
            events: 400,
            needed_until: Tick(1_795_737_910_000),
            counts_through: Tick(1_795_737_610_000),
        }],
    }
}

#[test]
fn there_and_back() {
    let check = |manifest: Manifest| assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    check(example());
    let mut remembering = example();
    remembering.input[0].history_from = Some(150);
    remembering.resume[0].history_from = Some(160);
    check(remembering);
    check(Manifest { through: Tick::MIN, input: vec![], resume: vec![], objects: vec![], ..example() });
    check(Manifest { job: "\n\"}\n  }\u{0}ü".into(), generation: i64::MIN, ..example() });
}

#[test]
fn it_is_json_for_people() {
    let text = String::from_utf8(example().encode()).unwrap();
    let begins = "{\n  \"format\": \"clicktide-checkpoint\",\n  \"version\": 1,\n  \"manifest\": {\n    \"job\": \"clicktide\",\n";
    assert!(text.starts_with(begins), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["manifest"]["objects"][0]["events"], 400);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = example().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let error = Manifest::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Truncated(_)), "{length}: {error}");
    }
}

fn sealed(text: &str) -> Vec<u8> {
    format!("{text}{}", tail(text.as_bytes())).into_bytes()
}

#[test]
fn what_is_wrong_is_said() {
    let bytes = example().encode();
    let check = |bytes: &[u8], expected: &str| {
        let error = Manifest::decode(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"{}", "it is no manifest of Clicktide");
    check(b"CTpanes\0", "it is no manifest of Clicktide");
    check(b"", "it is cut off: it ends after 0 bytes");
    check(&bytes[..300], "it is cut off: it ends after 300 bytes");
    let edited = String::from_utf8(bytes.clone()).unwrap().replace("\"generation\": 7", "\"generation\": 8");
    check(edited.as_bytes(), "it is damaged: its checksum does not fit");
    check(&[&bytes[..], b"\n"].concat(), "it is damaged: its checksum does not fit");
    check(&[&bytes[..], b"{"].concat(), "it is damaged: trailing characters");
    check(
        &sealed(&format!("{HEAD}2,\n  \"manifest\": []")),
        "it is of format version 2, and this program reads version 1",
    );
    check(&sealed(&format!("{HEAD}1,\n  \"manifest\": []")), "it is damaged: ");
    check(&sealed(&format!("{HEAD}-1")), "it is damaged: ");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let version = sealed(&format!("{HEAD}{text}"));
        let manifest = sealed(&format!("{HEAD}1,\n  \"manifest\": {text}"));
        prop_assert!(Manifest::decode(&version).is_err() && Manifest::decode(&manifest).is_err());
    }
}

/// Version 1 as it was released: whoever changes the format keeps reading this file.
#[test]
fn the_example_of_version_1() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checkpoint/manifest-1.json");
    if std::env::var_os("CLICKTIDE_WRITE_EXAMPLES").is_some() {
        std::fs::write(file, example().encode()).unwrap();
    }
    assert_eq!(Manifest::decode(&std::fs::read(file).unwrap()), Ok(example()));
}
