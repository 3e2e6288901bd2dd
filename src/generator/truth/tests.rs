//! The truth of records that arrive by hand.

use super::*;
use crate::event::ClickEvent;
use crate::generator::Model;
use crate::ingest::Format;
use crate::privacy::{HashKey, PageKey};
use crate::validation::Limits;
use clicktide_dataflows::time::Windows;

const START_MS: i64 = 1_700_000_000_000;

fn ingest() -> Ingest {
    Ingest {
        format: Format::Avro(crate::avro::Decoder::default()),
        limits: Limits::default(),
        hash_key: HashKey::new("not used").unwrap(),
        page_key: PageKey::NoQuery,
        windows: Windows::new(2_000, 1_000, 0).unwrap(),
        bound_ms: 0,
    }
}

fn body(timestamp: i64) -> Vec<u8> {
    let mut body = Vec::new();
    let event = ClickEvent {
        user_id: "u".to_owned(),
        session_id: "s".to_owned(),
        page_url: "/a?q".to_owned(),
        timestamp,
        ..Model::blank_event()
    };
    crate::avro::encode_event(&event, &mut body);
    body
}

/// What has become of a truth: the lines of its file, or why there is none.
fn truth(
    end_offsets: &[i64],
    unacknowledged: u64,
    arrive: impl FnOnce(&Witness),
) -> Result<(Vec<String>, Totals), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("truth.jsonl");
    let truth = LiveTruth::begin(&file, ingest(), HistoryLimits::default(), end_offsets).unwrap();
    arrive(&truth.witness());
    let told = truth.finish(unacknowledged);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    match told {
        Ok(told) => {
            assert_eq!((names.len(), &told.file), (1, &file));
            let text = fs::read_to_string(&file).unwrap();
            Ok((text.lines().map(str::to_owned).collect(), told.totals))
        }
        Err(error) => {
            assert_eq!(names.len(), 0, "{error}");
            Err(error.to_string())
        }
    }
}

fn arrives(witness: &Witness, partition: usize, offset: i64, record_timestamp_ms: i64, payload: &[u8]) {
    witness.acknowledged(&Record { offset, record_timestamp_ms: Some(record_timestamp_ms), payload }, partition);
}

#[test]
fn what_arrives_counts_where_and_when_it_arrives() {
    let (lines, totals) = truth(&[0, 7], 0, |witness| {
        arrives(witness, 0, 0, START_MS, &body(START_MS));
        arrives(witness, 1, 7, START_MS, &body(START_MS + 5_500));
        arrives(witness, 0, 1, START_MS, b"nonsense");
        // More than five minutes ahead of the log's own time.
        arrives(witness, 1, 8, START_MS, &body(START_MS + 400_000));
        arrives(witness, 0, 2, START_MS + 9_000, &body(START_MS + 9_000));
        // In the other partition it would be in time.
        arrives(witness, 0, 3, START_MS + 9_000, &body(START_MS + 5_000));
    })
    .unwrap();
    assert_eq!(totals, Totals { counted: 3, late: 1, duplicates: 0, rejected: 2, results: 6 });
    let ends = lines.iter().map(|line| serde_json::from_str::<PageAnalytics>(line).unwrap());
    let ends: Vec<_> = ends.map(|result| (result.window_end - START_MS, result.page_url, result.view_count)).collect();
    let end = |ms: i64| (ms, "/a".to_owned(), 1);
    assert_eq!(ends, [end(1_000), end(2_000), end(6_000), end(7_000), end(10_000), end(11_000)]);
}

#[test]
fn nothing_gives_nothing() {
    assert_eq!(truth(&[0, 0], 0, |_| ()), Ok((Vec::new(), Totals::default())));
}

#[test]
fn what_is_not_certain_is_not_told() {
    let check = |end_offsets: &[i64], unacknowledged, records: &[(usize, i64)], expected: &str| {
        let error = truth(end_offsets, unacknowledged, |witness| {
            records.iter().for_each(|(partition, offset)| arrives(witness, *partition, *offset, START_MS, b""));
        })
        .unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(&[0], 3, &[(0, 0)], "it is not known whether 3 events have arrived");
    check(&[0], 0, &[(0, 1)], "partition 0 has records of others, offset 0 for one");
    check(&[0, 4], 0, &[(0, 0), (1, 4), (1, 6), (1, 7)], "partition 1 has records of others, offset 5 for one");
    check(&[0], 0, &[(0, -1001)], "without telling its offset");
    check(&[0], 0, &[(1, 0)], "partition 1 has been added");
}

#[test]
fn a_file_that_cannot_be_made_is_said_at_once() {
    let error = LiveTruth::begin(Path::new("/no/such/folder/truth.jsonl"), ingest(), HistoryLimits::default(), &[0])
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("can't write the truth to /no/such/folder/truth.jsonl"), "{error}");
}
