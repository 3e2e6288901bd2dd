//! A job's topics are audited against a real Kafka: first as they have to be, then with every fault there is.

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use clicktide::audit::{AuditReport, Click, Definition, IdleAdvance, Partition, Uncounted, expect};
use clicktide::avro::{Decoder, ProgressRecord, encode_event, encode_page_analytics, encode_progress_record};
use clicktide::event::ClickEvent;
use clicktide::history::HistoryLimits;
use clicktide::ingest::{Format, Ingest, Record};
use clicktide::kafka::audit::{AuditError, AuditSettings, AuditTopics, audit};
use clicktide::kafka::scan::{End, Scan, scan};
use clicktide::privacy::{HashKey, PageKey};
use clicktide::progress::{IdleAdvance as Advance, JobState, PartitionCut, Progress};
use clicktide::validation::Limits;
use clicktide::work::Work;
use clicktide_dataflows::event::{EventType, PageAnalytics};
use clicktide_dataflows::time::Windows;
use support::topics::{Topic, Transactions};

const START_MS: i64 = 1_700_000_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);
/// A commit returns before its markers are written, so the last stable offset may be behind what has been committed.
const EVERYTHING: End = End::HighWatermark { wait: TIMEOUT };

fn ingest() -> Ingest {
    Ingest {
        format: Format::Avro(Decoder::default()),
        limits: Limits { future_ms: 5_000, ..Limits::default() },
        hash_key: HashKey::new("test").unwrap(),
        page_key: PageKey::Full,
        windows: Windows::new(10_000, 2_000, 0).unwrap(),
        bound_ms: 3_000,
    }
}

/// Its records are years old, so that retention would delete them in the middle of a test.
fn input_topic(brokers: &str) -> Topic {
    Topic::create(brokers, "input", 2, &[("retention.ms", "-1")])
}

/// Two partitions of a minute: events a few seconds out of order, some of them late, some records rejected.
fn write_input(topic: &Topic, transactions: &Transactions) {
    let event = |number: i64, time_ms: i64| {
        let event_types = [EventType::View, EventType::View, EventType::Click, EventType::Purchase];
        let event = ClickEvent {
            user_id: format!("user {}", number % 17),
            session_id: if number % 50 == 7 { String::new() } else { format!("session {}", number % 29) },
            event_type: event_types[(number % 4) as usize],
            page_url: format!("/page/{}", number % 5),
            product_id: None,
            timestamp: time_ms,
            user_agent: "-".to_owned(),
            ip_address: "-".to_owned(),
            referrer: None,
            session_duration: (number % 3 == 0).then_some(number as i32 % 90),
        };
        let mut body = Vec::new();
        encode_event(&event, &mut body);
        body
    };
    for part in 0..6 {
        let write = || {
            for number in part * 100..(part + 1) * 100 {
                let now_ms = START_MS + number * 100;
                let behind_ms = if number % 40 == 39 { 20_000 } else { number * 7_919 % 2_500 };
                let partition = (number % 3 == 0).into();
                topic.produce_at(transactions, partition, now_ms, &event(number, now_ms - behind_ms));
                if number % 60 == 13 {
                    topic.produce_at(transactions, partition, now_ms, b"no event");
                }
            }
        };
        transactions.commit(write);
        transactions.abort(write);
    }
}

/// Offset, timestamp and payload.
type OwnedRecord = (i64, Option<i64>, Vec<u8>);

/// What the job has to publish, and its topics.
struct Job {
    topics: AuditTopics,
    progress: Progress,
    advances: Vec<Advance>,
    results: Vec<PageAnalytics>,
    uncounted: Vec<Uncounted>,
}

impl Job {
    fn new(input: &Topic, through_ms: i64) -> Job {
        let mut partitions: BTreeMap<i32, Vec<OwnedRecord>> = BTreeMap::new();
        let settings = Scan {
            brokers: &input.brokers,
            properties: &BTreeMap::new(),
            topic: &input.name,
            end: EVERYTHING,
            timeout: TIMEOUT,
        };
        let ranges = scan(
            &settings,
            &BTreeMap::new(),
            &mut |record| {
                let payload = record.payload.unwrap_or_default().to_owned();
                partitions.entry(record.partition).or_default().push((record.offset, record.timestamp_ms, payload));
                ControlFlow::Continue(())
            },
            &mut |_, _| {},
        );
        // Partition 1 was idle before a record in its middle, which the floor and those after it makes late.
        let (next_offset, time_ms, _) = partitions[&1][partitions[&1].len() / 2];
        let advances = vec![Advance { partition: 1, next_offset, floor_ms: time_ms.unwrap() + 5_000 }];
        let ingest = ingest();
        let definition = Definition {
            windows: ingest.windows,
            bound_ms: ingest.bound_ms,
            through_ms: Some(through_ms),
            history: HistoryLimits::default(),
        };
        let partitions = partitions.into_iter().map(|(partition, records)| {
            let of_partition = advances.iter().filter(|advance| advance.partition == partition);
            let idle_advances = of_partition
                .map(|advance| IdleAdvance { next_offset: advance.next_offset, floor_ms: advance.floor_ms })
                .collect();
            let ingest = ingest.clone();
            let records = records.into_iter().map(move |(offset, record_timestamp_ms, payload)| {
                let record = Record { offset, record_timestamp_ms, payload: &payload };
                Ok::<_, Infallible>((offset, ingest.read(&record).map(|valid| Click::new(valid, record.payload))))
            });
            Partition { records, idle_advances }
        });
        let (mut results, mut uncounted) = (Vec::new(), Vec::new());
        let Ok(totals) =
            expect(&definition, partitions.collect(), |result| results.push(result), |record| uncounted.push(record));
        uncounted.retain(|record| record.tick.is_none_or(|tick| tick <= through_ms));
        assert!(totals.late > 5 && totals.rejected > 5 && results.len() > 50, "{totals:?}");
        let progress = Progress {
            job: "j".to_owned(),
            generation: 1,
            began_after: None,
            topic_id: None,
            committed_through: Some(through_ms),
            state: JobState::Running,
            configuration: "{}".to_owned(),
            input: ranges.unwrap().iter().map(|range| PartitionCut::start(range.partition, 0, None)).collect(),
        };
        let topic = |prefix| Topic::create(&input.brokers, prefix, 1, &[]).name;
        let topics = AuditTopics {
            input: input.name.clone(),
            results: Topic::create(&input.brokers, "results", 3, &[]).name,
            dead_letters: Some(topic("dead-letters")),
            sanitised_events: None,
            progress: topic("progress"),
        };
        Job { topics, progress, advances, results, uncounted }
    }

    fn topic(&self, brokers: &str, name: &str) -> Topic {
        Topic { brokers: brokers.to_owned(), name: name.to_owned() }
    }

    /// Publishes everything in a few transactions, with aborted ones in between.
    fn publish(&self, brokers: &str) {
        let transactions = Transactions::new(brokers);
        let [results, letters, progress] =
            [&self.topics.results, self.topics.dead_letters.as_ref().unwrap(), &self.topics.progress]
                .map(|name| self.topic(brokers, name));
        let put = |record: ProgressRecord| {
            progress.produce(&transactions, 0, &record.key(), encode_progress_record(&record));
        };
        let write = |through: i64, after: i64| {
            let due = |end: i64| after < end && end <= through;
            for result in self.results.iter().filter(|result| due(result.window_end)) {
                let mut body = Vec::new();
                encode_page_analytics(result, &mut body);
                let partition = i32::from(result.page_url.ends_with('1'));
                results.produce(&transactions, partition, &result.page_url, body);
            }
            for record in self.uncounted.iter().filter(|record| due(record.tick.unwrap_or(i64::MIN + 1))) {
                letters.produce_with_headers(
                    &transactions,
                    b"what it was",
                    &[
                        ("reason", record.reason.map_or("late", |reason| reason.label())),
                        ("source-topic", &self.topics.input),
                        ("source-partition", &record.partition.to_string()),
                        ("source-offset", &record.offset.to_string()),
                    ],
                );
            }
            self.advances.iter().for_each(|advance| put(ProgressRecord::IdleAdvance(*advance)));
            put(ProgressRecord::Progress(Progress { committed_through: Some(through), ..self.progress.clone() }));
        };
        let through = self.progress.committed_through.unwrap();
        let middle = through - 16_000;
        transactions.abort(|| write(middle, i64::MIN));
        transactions.commit(|| write(middle, i64::MIN));
        transactions.commit(|| write(through, middle));
        transactions.abort(|| write(through + 60_000, through));
    }

    fn settings(&self, brokers: &str) -> AuditSettings {
        AuditSettings {
            brokers: brokers.to_owned(),
            properties: BTreeMap::new(),
            topics: self.topics.clone(),
            ingest: ingest(),
            history: HistoryLimits::default(),
            late_to_dead_letters: true,
            from_ms: None,
            through_ms: None,
            examples_max: 3,
            timeout: TIMEOUT,
        }
    }

    fn audit(&self, brokers: &str) -> AuditReport {
        let work = Arc::new(Work::default());
        let report = audit(&self.settings(brokers), &work).unwrap_or_else(|error| panic!("{error}"));
        // The input is not always read to its end.
        assert!((1..=work.total()).contains(&work.done()), "{work:?}");
        report
    }
}

/// P lies so that some windows after it have events.
const THROUGH_MS: i64 = START_MS + 46_000;

#[test]
fn faults_are_found() {
    let Some(brokers) = support::brokers() else { return };
    let input = input_topic(&brokers);
    write_input(&input, &Transactions::new(&brokers));

    let job = Job::new(&input, THROUGH_MS);
    let nothing_yet = audit(&job.settings(&brokers), &Arc::default()).map_err(|error| error.to_string());
    assert!(nothing_yet.unwrap_err().contains("holds no progress"));
    job.publish(&brokers);
    let report = job.audit(&brokers);
    let text = report.to_string();
    assert!(report.agrees(), "{text}");
    assert_eq!((report.results.expected, report.results.actual), (job.results.len() as u64, job.results.len() as u64));
    let windows: std::collections::BTreeSet<i64> = job.results.iter().map(|result| result.window_end).collect();
    let last_line = format!("audit: {} windows, {} results agree", windows.len(), job.results.len());
    assert_eq!(text.lines().last(), Some(last_line.as_str()));
    let letters = report.dead_letters.clone().unwrap();
    assert_eq!((letters.expected, letters.actual), (job.uncounted.len() as u64, job.uncounted.len() as u64));
    assert!(serde_json::to_string(&report).unwrap().contains("\"committed_through\""));

    // The idle advance matters: another gives other results.
    let mut tampered = Job::new(&input, THROUGH_MS);
    tampered.advances[0].floor_ms += 20_000;
    tampered.publish(&brokers);
    assert!(!tampered.audit(&brokers).agrees());

    let mut tampered = Job::new(&input, THROUGH_MS);
    let (results, uncounted) = (&mut tampered.results, &mut tampered.uncounted);
    let missing = results.remove(5);
    results.push(results[10].clone());
    results[20].view_count += 1;
    results.push(PageAnalytics { page_url: "/unexpected".to_owned(), ..results[30].clone() });
    uncounted.remove(3);
    uncounted.push(uncounted[0]);
    uncounted[1].reason = Some(clicktide::validation::Reason::EmptyUserId);
    let counted = Uncounted { offset: uncounted[4].offset + 1, ..uncounted[4] };
    assert!(!uncounted.iter().any(|record| (record.partition, record.offset) == (counted.partition, counted.offset)));
    uncounted.push(counted);
    tampered.publish(&brokers);
    let report = tampered.audit(&brokers);
    let counts = [&report.results.missing.count, &report.results.twice.count, &report.results.different.count];
    assert_eq!((counts, report.results.unexpected.count), ([&1, &1, &1], 1), "{report}");
    assert_eq!(report.results.missing.examples[0].page_url, missing.page_url);
    assert_eq!(report.results.unexpected.examples[0].page_url, "/unexpected");
    assert_eq!(report.results.different.examples[0].fields[0].field, "view_count");
    let letters = report.dead_letters.as_ref().unwrap();
    let counts = [letters.missing.count, letters.twice.count, letters.different.count, letters.unexpected.count];
    assert_eq!((counts, letters.unreadable.count), ([1, 1, 1, 1], 0), "{report}");
    assert!(report.to_string().lines().last().unwrap().starts_with("audit: DIFFERENT: 1 missing, 1 twice"), "{report}");
}

#[test]
fn bounded_runs_end_where_they_end() {
    let Some(brokers) = support::brokers() else { return };
    let input = input_topic(&brokers);
    let transactions = Transactions::new(&brokers);
    write_input(&input, &transactions);
    let mut job = Job::new(&input, i64::MAX / 4);
    let last = job.results.iter().map(|result| result.window_end).max();
    // What comes afterwards is not the job's.
    let settings = job.settings(&brokers);
    for cut in &mut job.progress.input {
        let scan = Scan {
            brokers: &brokers,
            properties: &settings.properties,
            topic: &input.name,
            end: EVERYTHING,
            timeout: TIMEOUT,
        };
        let ranges = clicktide::kafka::scan::ranges(&scan, &BTreeMap::new()).unwrap();
        cut.until = Some(ranges[cut.partition as usize].until);
    }
    (job.progress.committed_through, job.progress.state) = (last, JobState::Finished);
    write_input(&input, &transactions);
    job.publish(&brokers);
    let report = job.audit(&brokers);
    assert!(report.agrees() && report.results.expected == job.results.len() as u64, "{report}");
}

#[test]
fn what_retention_has_deleted_is_left_out() {
    let Some(brokers) = support::brokers() else { return };
    let input = input_topic(&brokers);
    write_input(&input, &Transactions::new(&brokers));
    let job = Job::new(&input, THROUGH_MS);
    job.publish(&brokers);
    input.delete_before(0, 150);
    let report = job.audit(&brokers);
    let compared = job.results.iter().filter(|result| Some(result.window_end) >= report.compared_from);
    assert!(report.agrees() && report.notes.len() == 1, "{report}");
    assert_eq!(report.results.expected, compared.count() as u64, "{report}");
    assert!(report.results.expected > 20, "{report}");

    job.topic(&brokers, &job.topics.results).delete_before(0, 150);
    job.topic(&brokers, job.topics.dead_letters.as_ref().unwrap()).delete_before(0, 3);
    let fewer = job.audit(&brokers);
    assert!(fewer.agrees() && fewer.notes.len() == 3, "{fewer}");

    input.delete_before(1, 400);
    let nothing = job.audit(&brokers);
    assert!(nothing.agrees(), "{nothing}");
}

#[test]
fn what_is_no_result_is_named() {
    let Some(brokers) = support::brokers() else { return };
    let input = input_topic(&brokers);
    let transactions = Transactions::new(&brokers);
    write_input(&input, &transactions);
    let job = Job::new(&input, THROUGH_MS);
    job.publish(&brokers);
    let results = job.topic(&brokers, &job.topics.results);
    transactions.commit(|| results.produce(&transactions, 2, "k", "what"));
    let error = audit(&job.settings(&brokers), &Arc::default()).map(|_| ()).unwrap_err();
    assert!(matches!(error, AuditError::Undecodable { partition: 2, offset: 0, .. }), "{error}");
}
