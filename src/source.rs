//! The source: partitions of a log into the dataflow, each with its clock as a capability.
//!
//! ```text
//!  reader of partition p ─records─▶ ingest ─▶ activities ─▶ ┐
//!                                     │      page names ─▶  │ under p's capability, which stands at
//!                                     │      notes ──────▶  ┘ p's first open window end
//!                                     └─ clock, history, replay index
//! ```
//!
//! A worker holds one capability per partition that it reads, so that timely's frontier is the job's watermark. A worker
//! without partitions holds none. Notes go to the committer: dead letters, sanitised events, and the input cut whenever a capability rises.
//!
//! Architecture invariant: only the end of a bounded partition drops a capability. Timely goes on stepping after an error
//! or a signal, and a dropped capability would close windows that are not complete.

mod partition;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageName, UserId};
use clicktide_dataflows::time::Tick;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::{Scope, Stream};

use self::partition::{Announced, InFlight, PartitionSource, RECORDS_PER_READ_MAX, Read, Staged};
use crate::avro::wire::SchemaId;
use crate::checkpoint::ResumePoint;
use crate::checkpoint::restore::Restore;
use crate::history::HistoryLimits;
use crate::idleness::Watermarks;
use crate::ingest::{Format, Ingest, Record};
use crate::progress::{IdleAdvance, PartitionCut};

/// One partition of an ordered log that can be read again from any offset.
pub trait ReadPartition {
    /// Hands over at most `limit` records that have arrived, in the order of their offsets, without waiting.
    ///
    /// # Errors
    /// When the partition can't be read on; what was handed over before stands.
    fn read(&mut self, limit: usize, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), SourceError>;

    /// The offset of the next record to be handed over: past all that never will be (transaction markers).
    fn position(&self) -> i64;

    /// How far the log was known to reach by its latest answer, if there has been one.
    fn end(&self) -> Option<LogEnd>;

    /// Whether nothing will ever come after what has been handed over: true of a file that was read to its end.
    fn exhausted(&self) -> bool {
        false
    }

    /// The schema that has to be known before the next record can be handed over, if that is what it waits for.
    fn awaited(&self) -> Option<SchemaId> {
        None
    }
}

/// An answer to the question where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset after the last record, whether its transaction is committed or still open.
    pub high_watermark: i64,
    /// Where the reader stood when the answer came: the difference is how much it lags.
    pub position: i64,
    /// When the answer came, by the clock that [`SourceShared::now_ms`] is set from.
    pub answered_ms: i64,
}

/// Why a partition can't be read on.
#[derive(Debug, thiserror::Error)]
#[error("can't read partition {partition} of {log} at offset {position}: {reason}")]
pub struct SourceError {
    /// The topic or file.
    pub log: String,
    /// The partition.
    pub partition: i32,
    /// Where it stands.
    pub position: i64,
    /// What happened, and what would help.
    pub reason: String,
}

/// How a source reads.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// How records are read and judged.
    pub ingest: Arc<Ingest>,
    /// What is kept of the past of every partition.
    pub history: HistoryLimits,
    /// After how long without a rise of its watermark a partition that has been read to its end is idle, ms; none: never.
    pub idle_timeout_ms: Option<i64>,
    /// How many slides a partition may be ahead of the committed frontier.
    pub ticks_ahead: i64,
    /// How many records of a worker may be ahead of the committed frontier.
    pub records_in_flight: usize,
    /// Whether late events become dead letters.
    pub late_to_dead_letters: bool,
    /// What is kept of the bytes of a rejected record.
    pub dead_letter_payload: DeadLetterPayload,
    /// Whether valid events, late ones too, also go out sanitised.
    pub sanitised_events: bool,
}

/// What a dead letter holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterPayload {
    /// The record's bytes as they came.
    #[default]
    Original,
    /// The sanitised event, where the record can be decoded, and otherwise nothing.
    Sanitised,
    /// Nothing: only the headers say what was rejected.
    Nothing,
}

impl DeadLetterPayload {
    /// What is kept of `record` where this is asked for: what it is, and the bytes.
    fn of(self, record: &Record<'_>, ingest: &Ingest) -> (DeadLetterPayload, Vec<u8>) {
        match self {
            Self::Original => (Self::Original, record.payload.to_vec()),
            Self::Sanitised => match ingest.sanitised(record) {
                Some(event) => (Self::Sanitised, event.body),
                None => (Self::Nothing, Vec::new()),
            },
            Self::Nothing => (Self::Nothing, Vec::new()),
        }
    }

    /// As headers and the configuration name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Sanitised => "sanitised",
            Self::Nothing => "nothing",
        }
    }

    /// The one that is named so.
    pub fn named(label: &str) -> Option<Self> {
        [Self::Original, Self::Sanitised, Self::Nothing].into_iter().find(|payload| payload.label() == label)
    }
}

/// A record that did not count, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The first window end that was open in its partition: it is committed with that tick.
    pub tick: Tick,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The reason's label.
    pub reason: String,
    /// What the payload is.
    pub kept: DeadLetterPayload,
    /// Its bytes, as far as they are kept.
    pub payload: Vec<u8>,
}

/// A valid event without its personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanitisedRecord {
    /// The first window end that was open in its partition when it came: it is committed with that tick.
    pub tick: Tick,
    /// Whose event it is: the record's key.
    pub user: UserId,
    /// A bare Avro body of the published schema.
    pub body: Vec<u8>,
}

/// What a source tells the committer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// A record that did not count.
    DeadLetter(DeadLetter),
    /// A valid event as others may see it.
    Sanitised(SanitisedRecord),
    /// The partition has closed the windows from `tick` on up to its new capability.
    Closed {
        /// The partition's capability before it rose.
        tick: Tick,
        /// Its part of the input cut, good for every commit from `tick` on until the next such note.
        cut: PartitionCut,
        /// Where everything can be found that enters after `tick`.
        resume: ResumePoint,
        /// The floor that made it rise, if idleness did: to be committed no later than `tick`.
        idle_advance: Option<IdleAdvance>,
    },
}

/// Counts since the start, of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Records read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events that came too late.
    pub late: u64,
    /// Copies of events that are remembered.
    pub duplicates: u64,
    /// Events that count for the page of all that are not told apart.
    pub other_pages: u64,
    /// Records rejected, by the reason's label.
    pub rejected: BTreeMap<String, u64>,
}

impl SourceCounts {
    /// Adds what another worker, or this one at another time, has counted.
    pub fn add(&mut self, other: &SourceCounts) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.other_pages += other.other_pages;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += count;
        }
    }

    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &SourceCounts) -> SourceCounts {
        let rejected = |(reason, count): (&String, &u64)| {
            (reason.clone(), count - earlier.rejected.get(reason).copied().unwrap_or(0))
        };
        SourceCounts {
            records: self.records - earlier.records,
            bytes: self.bytes - earlier.bytes,
            late: self.late - earlier.late,
            duplicates: self.duplicates - earlier.duplicates,
            other_pages: self.other_pages - earlier.other_pages,
            rejected: self.rejected.iter().map(rejected).collect(),
        }
    }
}

/// What one partition's source says of itself to all the others and to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// The partition.
    pub partition: i32,
    /// Its watermark, ms; none before its first event.
    pub watermark_ms: Option<i64>,
    /// Whether it is idle.
    pub idle: bool,
    /// The next offset to be read, at the time of the last answer about the partition's end if there has been one.
    pub position: i64,
    /// Where it ended then.
    pub high_watermark: Option<i64>,
    /// The schema that it waits for before it goes on, if so.
    pub awaited: Option<SchemaId>,
}

/// What the source operator shares with the loop that steps its worker.
#[derive(Debug)]
pub struct SourceShared {
    /// A clock that does not go back, ms; set before each step.
    pub now_ms: i64,
    /// Set when the job stops: nothing is read any more, and every capability is held.
    pub stopping: bool,
    /// Set while nothing is to be read, as what has been read can't be kept fast enough.
    pub waiting: bool,
    /// What is known of all partitions.
    pub watermarks: Watermarks,
    /// What the partitions of this worker say.
    pub reports: Vec<PartitionReport>,
    /// What this worker has counted.
    pub counts: SourceCounts,
    /// Why reading has ended, if it has.
    pub error: Option<SourceError>,
    /// Whether a partition had more to hand over than it was asked for.
    pub more: bool,
}

impl SourceShared {
    /// Nothing read yet, of a job with so many partitions.
    pub fn new(partitions: usize) -> Self {
        SourceShared {
            now_ms: 0,
            stopping: false,
            waiting: false,
            watermarks: Watermarks::new(partitions),
            reports: Vec::new(),
            counts: SourceCounts::default(),
            error: None,
            more: false,
        }
    }
}

/// A partition as it is handed to the source.
pub struct SourcePartition {
    /// Reads it, from where the cut [reads from](PartitionCut::reads_from) on.
    pub reader: Box<dyn ReadPartition>,
    /// How its payloads are written, if not as the settings say: files come in several formats.
    pub format: Option<Format>,
    /// Where it starts.
    pub cut: PartitionCut,
    /// The floors to apply just before given offsets.
    pub floors: BTreeMap<i64, i64>,
}

/// What a source sends into the dataflow.
pub struct SourceStreams<'scope> {
    /// The events that count.
    pub activities: Stream<'scope, Tick, Vec<Activity>>,
    /// The names of their pages, ahead of them.
    pub names: Stream<'scope, Tick, Vec<PageName>>,
    /// What the committer has to know.
    pub notes: Stream<'scope, Tick, Vec<Note>>,
}

/// The label of late events among the dead letters.
pub const LATE: &str = "late";

/// Reads `partitions` into the dataflow of `scope`, without what a checkpoint, `restored`, holds of them.
///
/// `committed` is a probe of what has been committed, for flow control: a partition is read only while it is at most so
/// many ticks ahead. Keeps per partition a clock, a replay index (one entry per open tick) and, if asked to, a history, and per
/// worker the pages announced within the last window. The operator, whose address is told to `address`, must be activated whenever a reader
/// may have something, the committed frontier has moved or time has passed.
pub fn source<'scope>(
    scope: Scope<'scope, Tick>,
    settings: SourceSettings,
    partitions: Vec<SourcePartition>,
    restored: Option<&Restore>,
    committed: ProbeHandle<Tick>,
    shared: Rc<RefCell<SourceShared>>,
    address: &mut dyn FnMut(Rc<[usize]>),
) -> SourceStreams<'scope> {
    let mut builder = OperatorBuilder::new("source".to_owned(), scope);
    address(builder.operator_info().address);
    let (activities_output, activities) = builder.new_output();
    let (names_output, names) = builder.new_output();
    let (notes_output, notes) = builder.new_output();
    let mut activities_output = OutputBuilder::from(activities_output);
    let mut names_output = OutputBuilder::from(names_output);
    let mut notes_output = OutputBuilder::from(notes_output);

    let readers: Vec<PartitionSource> =
        partitions.into_iter().map(|partition| PartitionSource::new(partition, &settings, restored)).collect();
    builder.build(move |capabilities| {
        let mut readers = readers;
        readers.iter_mut().for_each(|reader| reader.held = Some(capabilities.clone()));
        drop(capabilities);
        let mut announced = Announced::default();
        let mut in_flight = InFlight::default();
        let mut staged = Staged::default();

        move |_frontiers| {
            let mut shared = shared.borrow_mut();
            let shared = &mut *shared;
            shared.more = false;
            if shared.stopping || shared.error.is_some() {
                return;
            }
            let frontier = committed.with_frontier(|frontier| frontier.first().copied().unwrap_or(Tick::NEVER));
            in_flight.retire(frontier);
            announced.forget(frontier, &settings.ingest);
            shared.reports.clear();
            let idle_floor_ms = shared.watermarks.idle_floor_ms(shared.now_ms);

            for source in &mut readers {
                let Some(held) = source.held.as_ref().map(|held| *held[0].time()) else { continue };
                let paused = shared.waiting
                    || source.ahead_of(frontier, &settings)
                    || (in_flight.total > settings.records_in_flight && held > frontier);
                if !paused {
                    match source.read(&settings, shared, &mut announced, &mut staged) {
                        Ok(Read { judged, recalled }) => {
                            in_flight.add(held, judged);
                            shared.more |= judged + recalled == RECORDS_PER_READ_MAX;
                        }
                        Err(error) => {
                            shared.error = Some(error);
                            return;
                        }
                    }
                }
                let idle_advance = source.note_idleness(&settings, paused, idle_floor_ms, shared.now_ms);
                source.note_close(held, idle_advance, &settings, &mut staged);
                if let Some(capabilities) = &source.held {
                    activities_output.activate().session(&capabilities[0]).give_container(&mut staged.activities);
                    names_output.activate().session(&capabilities[1]).give_container(&mut staged.names);
                    notes_output.activate().session(&capabilities[2]).give_container(&mut staged.notes);
                }
                staged.clear();
                source.let_go(&settings);
                let report = source.report(&settings);
                shared.watermarks.update(report.partition, report.watermark_ms, report.idle);
                shared.reports.push(report);
            }
        }
    });
    SourceStreams { activities, names, notes }
}
