//! Audits a job from its topics: the results recomputed from the input against those published.
//!
//! ```text
//! progress ──▶ P, the last final window end; idle advances; where a bounded run ends
//! results, dead letters, sanitised events ──▶ in memory (to the high watermark of the moment)
//! input, partition by partition ──▶ recomputed up to P ──▶ compared
//! ```
//!
//! The order matters. A transaction's marker reaches the partitions one after the other, so that progress may be readable
//! a moment before the results committed with it; but those have been written by then, so results up to the high watermark
//! of any later moment hold them, once the transactions that were open have ended. What is published meanwhile belongs to
//! windows after P and is left out.
//!
//! Which records matter for the windows up to P? A partition's records count in windows that end after its watermark, and
//! the job's watermark is the least of them. So when P was committed every partition's own watermark was at P or beyond,
//! from its events or from a recorded idle advance, and no record after those that the job had read can enter a window up
//! to P. The records before them matter even where they are older than the windows compared, since they moved the clock
//! that later ones were judged against: the input is read from where the job began. And the audit reads on after the
//! position that the job recorded, until by its own judgement no event can enter at P, so that a job that judges wrongly
//! is found out.
//!
//! Where retention has deleted the beginning of a partition, both the deleted events and the clock that they left are
//! unknown. [`Definition::complete_from`] says from which window end on neither can matter. Sessions cross partitions and
//! pages, so windows before the greatest of these ends are not compared at all. Results and dead letters that retention
//! has deleted are not missed: a partition's results are in order of their windows, and its dead letters in that of their
//! offsets.

mod truth;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use truth::compare_with_truth;

use crate::audit::{
    AuditReport, Click, Comparison, Definition, Fate, IdleAdvance, LetterComparison, LetterKey, Partition,
    SanitisedComparison, expect_judged,
};
use crate::avro::DecodeError;
use crate::avro::wire::{self, decode_result};
use crate::exit::Exit;
use crate::history::HistoryLimits;
use crate::ingest::{Ingest, Record, Sanitised};
use crate::kafka::progress::{ReadProgressError, read_progress};
use crate::kafka::scan::{End, PartitionScan, Scan, ScanError, ScanRange, ScanRecord, ranges, scan};
use crate::progress::{CommittedProgress, JobState, Progress};
use crate::source::LATE;
use crate::validation::Reason;
use crate::work::Work;

/// The topics of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditTopics {
    /// The events.
    pub input: String,
    /// The results.
    pub results: String,
    /// The rejected records; none if the job publishes none.
    pub dead_letters: Option<String>,
    /// The sanitised events; none if the job publishes none.
    pub sanitised_events: Option<String>,
    /// What has been committed.
    pub progress: String,
}

/// What is audited, and how.
#[derive(Clone)]
pub struct AuditSettings {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Further properties of librdkafka. May hold secrets, so they are not printed.
    pub properties: BTreeMap<String, String>,
    /// The job's topics.
    pub topics: AuditTopics,
    /// How the job reads and judges records.
    pub ingest: Ingest,
    /// Which copies the job counts, and how many pages it tells apart.
    pub history: HistoryLimits,
    /// Whether late events are among the dead letters.
    pub late_to_dead_letters: bool,
    /// Compares no windows that end before this, ms.
    pub from_ms: Option<i64>,
    /// Compares no windows that end after this, ms.
    pub through_ms: Option<i64>,
    /// How many examples of each finding are kept.
    pub examples_max: usize,
    /// How long to go without any answer of the brokers, and to wait for an open transaction.
    pub timeout: Duration,
}

/// Why a job can't be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A topic can't be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The progress can't be read.
    #[error(transparent)]
    Progress(#[from] ReadProgressError),
    /// No job has committed to the progress topic.
    #[error("topic {topic:?} holds no progress: no job has committed anything with it, so nothing is final yet")]
    NoProgress {
        /// The progress topic.
        topic: String,
    },
    /// A record among the results is none.
    #[error("the record at offset {offset} of partition {partition} of topic {topic:?} is no result: {source}")]
    Undecodable {
        /// The results topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The file with the expected results can't be read.
    #[error("{file}:{line}: {reason}")]
    Truth {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl AuditError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            AuditError::Scan(error) => error.exit(),
            AuditError::Progress(error) => error.exit(),
            AuditError::NoProgress { .. } | AuditError::Undecodable { .. } => Exit::Kafka,
            AuditError::Truth { .. } => Exit::Failure,
        }
    }
}

/// Audits what a job has committed so far, also while it runs. `work` is told how many offsets there are to read, and how many of
/// them are read.
///
/// Holds the published results of the windows compared (about 200 bytes each), the dead letters without their payload, hashes of the
/// sanitised events, the events of one window, and 2 MiB per partition of the input that is fetched ahead.
///
/// # Errors
/// See [`AuditError`]. That something differs is no error but what the report says.
pub fn audit(settings: &AuditSettings, work: &Arc<Work>) -> Result<AuditReport, AuditError> {
    let AuditSettings { topics, ingest, examples_max, .. } = settings;
    let CommittedProgress { progress, idle_advances } =
        read_progress(&settings.brokers, &settings.properties, &topics.progress)?;
    let progress = progress.ok_or_else(|| AuditError::NoProgress { topic: topics.progress.clone() })?;
    // A finished run has closed all windows, also those after the last that has results.
    let finished = progress.state == JobState::Finished;
    let final_through = if finished { None } else { Some(progress.committed_through.unwrap_or(i64::MIN)) };
    let mut definition = Definition {
        windows: ingest.windows,
        bound_ms: ingest.bound_ms,
        through_ms: final_through,
        history: settings.history,
    };

    let mut notes = Vec::new();
    let inputs = settings.inputs(&progress, &definition, &mut notes)?;
    let results = settings.results(&mut notes)?;
    let complete_from = inputs.iter().filter_map(|input| input.complete_from).chain(results.complete_from).max();
    // What ends at or before the moment of a take-over is another job's.
    let taken_over = progress.began_after.map(|end_ms| end_ms.saturating_add(1));
    let from = settings.from_ms.max(complete_from).max(taken_over);
    let through = [settings.through_ms, final_through].into_iter().flatten().min();
    if progress.committed_through.is_none() && !finished {
        notes.push("no window is final yet".to_owned());
    } else if from.is_some_and(|from| through.is_some_and(|through| through < from)) {
        notes.push("nothing is left to compare".to_owned());
    }

    let compared = from.unwrap_or(i64::MIN)..=through.unwrap_or(i64::MAX);
    let mut comparison = Comparison::new(compared.clone(), *examples_max);
    let offsets = |range: &ScanRange| u64::try_from(range.until - range.from).unwrap_or(0);
    work.expect(inputs.iter().map(|input| offsets(&input.scan.range())).sum());
    work.expect(results.ranges.iter().map(offsets).sum());
    settings.scan_results(&results.ranges, &mut comparison, work)?;
    let mut letters = settings.published_letters(&mut notes)?;
    let mut sanitised = settings.published_sanitised(&mut notes)?;

    // Dead letters and sanitised events up to P are compared whatever the windows.
    definition.through_ms = if letters.is_some() || sanitised.is_some() { final_through } else { through };
    let last_sanitised = sanitised.is_some().then(|| Rc::new(Cell::new(None)));
    let next_offsets: Vec<Rc<Cell<i64>>> = inputs.iter().map(|input| input.next_offset.clone()).collect();
    let keys: Vec<(ScanRange, Option<i64>)> =
        inputs.iter().map(|input| (input.scan.range(), input.complete_from)).collect();
    let partitions = inputs
        .into_iter()
        .map(|input| input.partition(ingest, &idle_advances, Arc::clone(work), last_sanitised.clone()))
        .collect();
    let mut windows = HashSet::new();
    let totals = expect_judged(
        &definition,
        partitions,
        |result| {
            if compared.contains(&result.window_end) {
                windows.insert(result.window_end);
            }
            comparison.expected(&result);
        },
        |judged| {
            let (range, complete_from) = keys[judged.partition];
            let record = LetterKey { partition: range.partition, offset: judged.offset };
            // The clock may have been further than known, but not beyond where it no longer matters.
            let tick = judged.tick.max(complete_from);
            // As with windows: at the moment of a take-over or before it is another job's.
            let own = progress.began_after.is_none_or(|began| tick.is_some_and(|tick| tick > began));
            // Of which deleted event it may be a copy is not known either.
            let rejected = matches!(judged.fate, Fate::Rejected(_));
            let certain = rejected || complete_from.is_none() || settings.history.horizon_ms.is_none();
            let required = own
                && certain
                && final_through.is_none_or(|through| tick.is_none_or(|tick| tick <= through))
                && (finished || progress.committed_through.is_some());
            let published = sanitised.as_mut().filter(|_| matches!(judged.fate, Fate::Counted | Fate::Late));
            if let Some((published, hash)) = published.zip(last_sanitised.as_ref().and_then(|last| last.get())) {
                published.expected(record, hash, required);
            }
            let reason = match judged.fate {
                Fate::Rejected(reason) => reason.label(),
                Fate::Late if settings.late_to_dead_letters => LATE,
                Fate::Late | Fate::Counted | Fate::Copy => return,
            };
            letters.iter_mut().for_each(|letters| letters.expected(record, reason, required));
        },
    )?;
    let dead_letters = letters.map(|letters| {
        letters.finish(|letter, reason| {
            let Some(place) = keys.iter().position(|(range, _)| range.partition == letter.partition) else {
                return true;
            };
            let (range, complete_from) = keys[place];
            let looked_at = (range.from..next_offsets[place].get()).contains(&letter.offset);
            !looked_at || (complete_from.is_some() && reason == LATE)
        })
    });
    Ok(AuditReport {
        job: progress.job,
        generation: progress.generation,
        state: progress.state,
        committed_through: progress.committed_through,
        compared_from: from,
        compared_through: through,
        windows: windows.len() as u64,
        input: Some(totals),
        results: comparison.finish(),
        dead_letters,
        sanitised_events: sanitised.map(SanitisedComparison::finish),
        notes,
    })
}

/// The published results before they are read.
struct Results {
    ranges: Vec<ScanRange>,
    /// The first window end of which none were deleted, if some were.
    complete_from: Option<i64>,
}

/// One partition of the input before it is read.
struct Input {
    partition: i32,
    scan: PartitionScan,
    /// The first window end that nothing deleted from it can matter to, if something was.
    complete_from: Option<i64>,
    /// The offset after the last record that was looked at, or the first that was there.
    next_offset: Rc<Cell<i64>>,
}

/// What an end is where nothing can be compared at all.
const NEVER: i64 = i64::MAX;

impl AuditSettings {
    fn scan<'a>(&'a self, topic: &'a str, end: End) -> Scan<'a> {
        let AuditSettings { brokers, properties, timeout, .. } = self;
        Scan { brokers, properties, topic, end, timeout: *timeout }
    }

    /// Results and dead letters are read with the transactions that were open when it began.
    fn scan_published<'a>(&'a self, topic: &'a str) -> Scan<'a> {
        self.scan(topic, End::HighWatermark { wait: self.timeout })
    }

    /// The partitions of the input that the job has read, and what of them is gone.
    fn inputs(
        &self,
        progress: &Progress,
        definition: &Definition,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Input>, AuditError> {
        let scan = self.scan(&self.topics.input, End::LastStable);
        let mut inputs = Vec::new();
        for mut range in ranges(&scan, &BTreeMap::new())? {
            let partition = range.partition;
            let cut = progress.input.iter().find(|cut| cut.partition == partition);
            if cut.is_none() && !progress.input.is_empty() {
                notes.push(format!("the job does not know partition {partition} of the input yet: left out"));
                continue;
            }
            let until = cut.and_then(|cut| cut.until).unwrap_or(range.until).min(range.until);
            let began = cut.map_or(0, |cut| cut.began);
            range = ScanRange { from: range.first.max(began).min(until), until, ..range };
            let complete_from = if range.first > began {
                let first = first_record(&scan, range, |record| record.timestamp_ms)?;
                let from = first.flatten().map_or(NEVER, |first_left_ms| {
                    definition.complete_from(first_left_ms, self.ingest.limits.future_ms)
                });
                notes.push(format!(
                    "retention has deleted the records of partition {partition} of the input before offset {}: {}",
                    range.first,
                    windows_before(from)
                ));
                Some(from)
            } else {
                None
            };
            let next_offset = Rc::new(Cell::new(range.from));
            let scan = PartitionScan::new(&scan, range, 2 << 10)?;
            inputs.push(Input { partition, scan, complete_from, next_offset });
        }
        Ok(inputs)
    }

    /// Where the published results are, and what of them is gone.
    fn results(&self, notes: &mut Vec<String>) -> Result<Results, AuditError> {
        let scan = self.scan_published(&self.topics.results);
        let ranges = ranges(&scan, &BTreeMap::new())?;
        let mut complete_from = None;
        for range in ranges.iter().filter(|range| range.first > 0) {
            let decode = |record: &ScanRecord<'_>| self.result(record).map(|result| result.window_end);
            let first = first_record(&scan, *range, decode)?.transpose()?;
            // More of the first window left may have been deleted.
            let from = first.map_or(NEVER, |window_end| window_end.saturating_add(1));
            notes.push(format!(
                "retention has deleted the first results of partition {}: {}",
                range.partition,
                windows_before(from)
            ));
            complete_from = complete_from.max(Some(from));
        }
        Ok(Results { ranges, complete_from })
    }

    fn scan_results(&self, ranges: &[ScanRange], comparison: &mut Comparison, work: &Work) -> Result<(), AuditError> {
        let mut failed = None;
        let mut each = |record: &ScanRecord<'_>| match self.result(record) {
            Ok(result) => {
                comparison.actual(result);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        // From where it was looked at before: retention may have gone on since.
        let from = ranges.iter().map(|range| (range.partition, range.first)).collect();
        let mut reached = BTreeMap::new();
        let mut progress = |range: &ScanRange, position: i64| {
            let before = reached.insert(range.partition, position).unwrap_or(range.from);
            work.advance(u64::try_from(position - before).unwrap_or(0));
        };
        scan(&self.scan_published(&self.topics.results), &from, &mut each, &mut progress)?;
        failed.map_or(Ok(()), Err)
    }

    fn result(&self, record: &ScanRecord<'_>) -> Result<clicktide_dataflows::event::PageAnalytics, AuditError> {
        decode_result(record.payload.unwrap_or_default()).map_err(|source| AuditError::Undecodable {
            topic: self.topics.results.clone(),
            partition: record.partition,
            offset: record.offset,
            source,
        })
    }

    /// The dead letters about records of the input, if the job publishes any.
    fn published_letters(&self, notes: &mut Vec<String>) -> Result<Option<LetterComparison>, AuditError> {
        let Some(topic) = &self.topics.dead_letters else { return Ok(None) };
        let settings = self.scan_published(topic);
        let ranges = ranges(&settings, &BTreeMap::new())?;
        let trimmed = ranges.iter().any(|range| range.first > 0);
        if trimmed {
            notes.push("retention has deleted the first dead letters: they are not missed".to_owned());
        }
        let mut letters = LetterComparison::new(trimmed, self.examples_max);
        let mut each = |record: &ScanRecord<'_>| {
            let header = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
            let number = |name| header(name).and_then(|value| value.parse::<i64>().ok());
            let about =
                (number("source-partition").and_then(|number| i32::try_from(number).ok()), number("source-offset"));
            match (header("source-topic"), about, header("reason")) {
                // Another job's, in the same topic.
                (Some(topic), ..) if topic != self.topics.input => {}
                (Some(_), (Some(partition), Some(offset)), Some(reason)) => {
                    letters.actual(LetterKey { partition, offset }, reason.to_owned());
                }
                _ => letters.unreadable(format!("partition {}, offset {}", record.partition, record.offset)),
            }
            ControlFlow::Continue(())
        };
        scan(&settings, &BTreeMap::new(), &mut each, &mut |_, _| {})?;
        Ok(Some(letters))
    }

    /// The sanitised events, if the job publishes any.
    fn published_sanitised(&self, notes: &mut Vec<String>) -> Result<Option<SanitisedComparison>, AuditError> {
        let Some(topic) = &self.topics.sanitised_events else { return Ok(None) };
        let settings = self.scan_published(topic);
        let trimmed = ranges(&settings, &BTreeMap::new())?.iter().any(|range| range.first > 0);
        if trimmed {
            notes.push("retention has deleted the first sanitised events: none is missed".to_owned());
        }
        let mut sanitised = SanitisedComparison::new(trimmed, self.examples_max);
        let mut each = |record: &ScanRecord<'_>| {
            let (key, value) = (record.key.unwrap_or_default(), record.payload.unwrap_or_default());
            // A bare body begins with the length of a hash, which no payload in the wire format does.
            let body = wire::split(value).map_or(value, |(_, body)| body);
            sanitised.actual(SanitisedComparison::hash(key, body));
            ControlFlow::Continue(())
        };
        scan(&settings, &BTreeMap::new(), &mut each, &mut |_, _| {})?;
        Ok(Some(sanitised))
    }
}

fn windows_before(complete_from: i64) -> String {
    match complete_from {
        NEVER => "no windows are compared".to_owned(),
        from => format!("windows that end before {from} are not compared"),
    }
}

fn first_record<T>(
    scan: &Scan<'_>,
    range: ScanRange,
    each: impl FnOnce(&ScanRecord<'_>) -> T,
) -> Result<Option<T>, ScanError> {
    PartitionScan::new(scan, range, 64)?.next(each)
}

/// A record's offset, and its event or why it was rejected.
type Read = Result<(i64, Result<Click, Reason>), ScanError>;

impl Input {
    /// Its records as they come in, read with the job's own decoding and validation. `last_sanitised` is told what stands for the
    /// sanitised event of each.
    fn partition<'a>(
        self,
        ingest: &'a Ingest,
        idle_advances: &[crate::progress::IdleAdvance],
        work: Arc<Work>,
        last_sanitised: Option<Rc<Cell<Option<u64>>>>,
    ) -> Partition<impl Iterator<Item = Read> + use<'a>> {
        let Input { partition, mut scan, next_offset, .. } = self;
        let idle_advances = idle_advances.iter().filter(|advance| advance.partition == partition);
        let idle_advances =
            idle_advances.map(|advance| IdleAdvance { next_offset: advance.next_offset, floor_ms: advance.floor_ms });
        let read = move |record: &ScanRecord<'_>| {
            let ScanRecord { offset, timestamp_ms, payload, .. } = *record;
            // Offsets without a record, such as those of transaction markers, are passed over.
            work.advance(u64::try_from(offset + 1 - next_offset.get()).unwrap_or(0));
            next_offset.set(offset + 1);
            let record = Record { offset, record_timestamp_ms: timestamp_ms, payload: payload.unwrap_or_default() };
            if let Some(schemas) = ingest.format.schemas() {
                schemas.wait_for(record.payload);
            }
            if let Some(last) = &last_sanitised {
                let hash = |event: Sanitised| SanitisedComparison::hash(event.user.to_string().as_bytes(), &event.body);
                last.set(ingest.sanitised(&record).map(hash));
            }
            (offset, ingest.read(&record).map(|valid| Click::new(valid, record.payload)))
        };
        Partition {
            idle_advances: idle_advances.collect(),
            records: std::iter::from_fn(move || scan.next(&read).transpose()),
        }
    }
}
