//! Topics with transactions are read to where they ended, against a real Kafka.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clicktide::avro::{ProgressRecord, encode_progress_record};
use clicktide::kafka::progress::read_progress;
use clicktide::kafka::scan::{End, Scan, ScanError, ScanRange, scan};
use clicktide::progress::{IdleAdvance, JobState, PartitionCut, Progress};
use support::topics::{Topic, Transactions};

const WAIT: Duration = Duration::from_secs(20);

/// Partition, offset and value.
type Found = (i32, i64, String);

/// Everything in the topic.
fn read(topic: &Topic, from: &[(i32, i64)], end: End) -> Result<(Vec<ScanRange>, Vec<Found>), ScanError> {
    let settings =
        Scan { brokers: &topic.brokers, properties: &BTreeMap::new(), topic: &topic.name, end, timeout: WAIT };
    let mut records = Vec::new();
    let ranges = scan(
        &settings,
        &from.iter().copied().collect(),
        &mut |record| {
            let value = String::from_utf8_lossy(record.payload.unwrap_or(b"none")).into_owned();
            records.push((record.partition, record.offset, value));
            ControlFlow::Continue(())
        },
        &mut |_, _| {},
    )?;
    Ok((ranges, records))
}

#[test]
fn transactions_and_their_markers() {
    let Some(brokers) = support::brokers() else { return };
    let topic = Topic::create(&brokers, "scan", 3, &[]);
    let record = |partition, offset, value: &str| (partition, offset, value.to_owned());
    assert_eq!(read(&topic, &[], End::LastStable).unwrap().1, []);

    let transactions = Transactions::new(&brokers);
    transactions.commit(|| {
        topic.produce(&transactions, 0, "k", "a");
        topic.produce(&transactions, 1, "k", "b");
    });
    transactions.abort(|| topic.produce(&transactions, 0, "k", "aborted"));
    // A commit returns before its markers are written.
    support::eventually("the markers are written", WAIT, || {
        let (ranges, _) = read(&topic, &[], End::LastStable).unwrap();
        (ranges[0].until == 4 && ranges[1].until == 2).then_some(())
    });
    for end in [End::LastStable, End::HighWatermark { wait: WAIT }] {
        let (ranges, records) = read(&topic, &[], end).unwrap();
        // Two records of partition 0 and two markers.
        assert_eq!(ranges[0], ScanRange { partition: 0, first: 0, from: 0, until: 4 });
        assert_eq!(records, [record(0, 0, "a"), record(1, 0, "b")]);
        assert_eq!(read(&topic, &[(0, 1), (1, 0)], end).unwrap().1, [record(1, 0, "b")]);
        assert_eq!(read(&topic, &[(0, 4)], end).unwrap().1, [record(1, 0, "b")]);
    }

    // An open transaction ends the one, and is waited for by the other.
    transactions.begin();
    topic.produce(&transactions, 0, "k", "c");
    transactions.flush();
    assert_eq!(read(&topic, &[], End::LastStable).unwrap().1, [record(0, 0, "a"), record(1, 0, "b")]);
    let error = read(&topic, &[], End::HighWatermark { wait: Duration::from_millis(300) }).unwrap_err();
    assert!(matches!(&error, ScanError::OpenTransaction { partition: 0, position: 4, until: 5, .. }), "{error}");
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| read(&topic, &[], End::HighWatermark { wait: WAIT }).unwrap().1);
        std::thread::sleep(Duration::from_secs(1));
        transactions.end();
        assert_eq!(reader.join().unwrap(), [record(0, 0, "a"), record(0, 4, "c"), record(1, 0, "b")]);
    });
}

#[test]
fn transactions_that_end_while_they_are_waited_for() {
    let Some(brokers) = support::brokers() else { return };
    let topic = Topic::create(&brokers, "scan", 1, &[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let transactions = Transactions::new(&brokers);
            for number in 0_u64.. {
                transactions.begin();
                topic.produce(&transactions, 0, "k", "v");
                transactions.flush();
                std::thread::sleep(Duration::from_millis(number % 40));
                if number.is_multiple_of(5) {
                    transactions.end()
                } else {
                    transactions.abort_open()
                }
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // More readers than processors, so that the client's own threads lag behind.
        let readers: Vec<_> = (0..8)
            .map(|_| {
                threads.spawn(|| {
                    for _ in 0..40 {
                        let (ranges, records) = read(&topic, &[], End::HighWatermark { wait: WAIT }).unwrap();
                        assert!(records.len() as i64 <= ranges[0].until);
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn errors_name_what_is_wrong() {
    let Some(brokers) = support::brokers() else { return };
    let topic = Topic::create(&brokers, "scan", 1, &[]);
    let error = read(&topic, &[(0, 1)], End::LastStable).unwrap_err();
    assert!(matches!(error, ScanError::OutOfRange { partition: 0, offset: 1, first: 0, end: 0, .. }), "{error}");
    let error = read(&topic, &[(7, 0)], End::LastStable).unwrap_err();
    assert!(matches!(error, ScanError::Partition { partition: 7, partitions: 1, .. }), "{error}");
    let unknown = Topic { name: support::unique("none"), ..topic };
    let error = read(&unknown, &[], End::LastStable).unwrap_err();
    assert!(matches!(error, ScanError::Topic { .. }), "{error}");

    let nowhere = Scan {
        brokers: "127.0.0.1:1",
        properties: &BTreeMap::new(),
        topic: "t",
        end: End::LastStable,
        timeout: Duration::from_millis(300),
    };
    let error = scan(&nowhere, &BTreeMap::new(), &mut |_| ControlFlow::Continue(()), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, ScanError::Unreachable { .. }), "{error}");
}

#[test]
fn the_latest_progress_holds() {
    let Some(brokers) = support::brokers() else { return };
    let topic = Topic::create(&brokers, "progress", 1, &[("cleanup.policy", "compact")]);
    let read = || read_progress(&brokers, &BTreeMap::new(), &topic.name);
    assert_eq!(read().unwrap(), Default::default());

    let transactions = Transactions::new(&brokers);
    let write = |record: &ProgressRecord| {
        topic.produce(&transactions, 0, &record.key(), encode_progress_record(record));
    };
    let progress = |committed_through| Progress {
        job: "j".to_owned(),
        generation: 1,
        began_after: None,
        topic_id: None,
        committed_through: Some(committed_through),
        state: JobState::Running,
        configuration: "{}".to_owned(),
        input: vec![PartitionCut::start(0, 5, None)],
    };
    let idle = |next_offset, floor_ms| IdleAdvance { partition: 0, next_offset, floor_ms };
    let commit = |through, idle_advances: &[IdleAdvance]| {
        transactions.commit(|| {
            idle_advances.iter().for_each(|advance| write(&ProgressRecord::IdleAdvance(*advance)));
            write(&ProgressRecord::Progress(progress(through)));
        });
    };
    commit(10, &[idle(12, 1), idle(3, 2)]);
    commit(20, &[idle(12, 3), idle(4, 4)]);
    transactions.abort(|| write(&ProgressRecord::Progress(progress(30))));
    transactions.commit(|| topic.tombstone(&transactions, 0, "idle/0/4"));
    let committed = read().unwrap();
    assert_eq!(committed.progress, Some(progress(20)));
    assert_eq!(committed.idle_advances, [idle(3, 2), idle(12, 3)]);

    transactions.commit(|| topic.produce(&transactions, 0, "progress", "what"));
    let error = read().unwrap_err().to_string();
    assert!(
        error.contains(&topic.name) && error.contains("partition 0") && error.contains("not a progress"),
        "{error}"
    );
}
