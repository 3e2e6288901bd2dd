//! The source: partitions of a log into the dataflow, each with its clock as a capability.
//!
//! ```text
//!  reader of partition p ─records─▶ ingest ─▶ activities ─▶ ┐
//!                                     │      page names ─▶  │ under p's capability, which stands at
//!                                     │      notes ──────▶  ┘ p's first open window end
//!                                     └─ clock, replay index
//! ```
//!
//! A worker holds one capability per partition that it reads, so that timely's frontier is the job's watermark. A worker
//! without partitions holds none. Notes go to the committer: dead letters, and the input cut whenever a capability rises.
//!
//! Architecture invariant: only the end of a bounded partition drops a capability. Timely goes on stepping after an error
//! or a signal, and a dropped capability would close windows that are not complete.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageId, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::{Scope, Stream};

use crate::idleness::Watermarks;
use crate::ingest::{Accepted, Format, Ingest, Record};
use crate::progress::{IdleAdvance, PartitionCut, ReplayIndex};
use crate::validation::Reason;

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
}

/// An answer to the question where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset after the last record, whether its transaction is committed or still open.
    pub high_watermark: i64,
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
}

/// What a dead letter holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterPayload {
    /// The record's bytes as they came.
    #[default]
    Original,
    /// Nothing: only the headers say what was rejected.
    Nothing,
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
    /// Its bytes, as far as they are kept.
    pub payload: Vec<u8>,
}

/// What a source tells the committer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// A record that did not count.
    DeadLetter(DeadLetter),
    /// The partition has closed the windows from `tick` on up to its new capability.
    Closed {
        /// The partition's capability before it rose.
        tick: Tick,
        /// Its part of the input cut, good for every commit from `tick` on until the next such note.
        cut: PartitionCut,
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
    /// Records rejected, by the reason's label.
    pub rejected: BTreeMap<String, u64>,
}

impl SourceCounts {
    /// Adds what another worker, or this one at another time, has counted.
    pub fn add(&mut self, other: &SourceCounts) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.late += other.late;
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
    /// The next offset to be read.
    pub position: i64,
    /// Where it ends, as far as known.
    pub high_watermark: Option<i64>,
}

/// What the source operator shares with the loop that steps its worker.
#[derive(Debug)]
pub struct SourceShared {
    /// A clock that does not go back, ms; set before each step.
    pub now_ms: i64,
    /// Set when the job stops: nothing is read any more, and every capability is held.
    pub stopping: bool,
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
    /// Reads it, from the cut's `replay_from` on.
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

/// Records handed over per partition and activation at most, so that the other operators get their turn.
const RECORDS_PER_READ_MAX: usize = 2_048;
/// An answer about the end of a partition that is older than this says nothing about now.
const LOG_END_FRESH_MS: i64 = 3_000;

/// Reads `partitions` into the dataflow of `scope`.
///
/// `committed` is a probe of what has been committed, for flow control: a partition is read only while it is at most so
/// many ticks ahead. Keeps per partition a clock and a replay index (one entry per open tick), and per worker the pages
/// announced within the last window. The operator, whose address is told to `address`, must be activated whenever a reader
/// may have something, the committed frontier has moved or time has passed.
pub fn source<'scope>(
    scope: Scope<'scope, Tick>,
    settings: SourceSettings,
    partitions: Vec<SourcePartition>,
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

    builder.build(move |capabilities| {
        let mut readers: Vec<PartitionSource> =
            partitions.into_iter().map(|partition| PartitionSource::new(partition, &settings, &capabilities)).collect();
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
                let paused = source.ahead_of(frontier, &settings)
                    || (in_flight.total > settings.records_in_flight && held > frontier);
                if !paused {
                    match source.read(&settings, shared, &mut announced, &mut staged) {
                        Ok(records) => {
                            in_flight.add(held, records);
                            shared.more |= records == RECORDS_PER_READ_MAX;
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

/// What one read puts together, sent under the capability from before it.
#[derive(Default)]
struct Staged {
    activities: Vec<Activity>,
    names: Vec<PageName>,
    notes: Vec<Note>,
}

impl Staged {
    fn clear(&mut self) {
        self.activities.clear();
        self.names.clear();
        self.notes.clear();
    }
}

/// One partition while it is read.
struct PartitionSource {
    reader: Box<dyn ReadPartition>,
    ingest: Arc<Ingest>,
    partition: i32,
    began_at: i64,
    until: Option<i64>,
    floors: BTreeMap<i64, i64>,
    clock: PartitionClock,
    index: ReplayIndex,
    /// A capability per output, at the first open window end; none once a bounded partition has been read to its end.
    held: Option<Vec<Capability<Tick>>>,
    /// The first open window end after the first event, from which a partition may run ahead while others have none.
    began: Option<Tick>,
    /// When an event last raised the watermark.
    rose_ms: Option<i64>,
    idle: bool,
    ended: bool,
}

impl PartitionSource {
    fn new(partition: SourcePartition, settings: &SourceSettings, capabilities: &[Capability<Tick>]) -> Self {
        let SourcePartition { reader, format, cut, floors } = partition;
        let ingest = match format {
            Some(format) => Arc::new(Ingest { format, ..(*settings.ingest).clone() }),
            None => Arc::clone(&settings.ingest),
        };
        PartitionSource {
            reader,
            ingest,
            partition: cut.partition,
            began_at: cut.began,
            until: cut.until,
            floors,
            clock: cut.clock(),
            index: ReplayIndex::default(),
            held: Some(capabilities.to_vec()),
            began: None,
            rose_ms: None,
            idle: false,
            ended: false,
        }
    }

    fn open_tick(&self, settings: &SourceSettings) -> Tick {
        self.clock.open_tick(&settings.ingest.windows, settings.ingest.bound_ms)
    }

    /// Whether the partition has to wait for the others.
    fn ahead_of(&self, frontier: Tick, settings: &SourceSettings) -> bool {
        let from = if frontier == Tick::MIN { self.began.unwrap_or(Tick::NEVER) } else { frontier };
        let allowed_ms = settings.ticks_ahead.saturating_mul(settings.ingest.windows.slide_ms());
        self.open_tick(settings).0 > from.0.saturating_add(allowed_ms)
    }

    /// Reads what has arrived into `staged`; returns the number of records.
    fn read(
        &mut self,
        settings: &SourceSettings,
        shared: &mut SourceShared,
        announced: &mut Announced,
        staged: &mut Staged,
    ) -> Result<usize, SourceError> {
        let PartitionSource { reader, ingest, partition, until, floors, clock, index, ended, .. } = self;
        let ingest = &**ingest;
        let before_ms = clock.watermark_ms(ingest.bound_ms);
        let mut records = 0;
        reader.read(RECORDS_PER_READ_MAX, &mut |record| {
            if until.is_some_and(|until| record.offset >= until) {
                *ended = true;
                return;
            }
            records += 1;
            shared.counts.records += 1;
            shared.counts.bytes += record.payload.len() as u64;
            apply_floors(floors, clock, record.offset);
            let before = *clock;
            let dead_letter = |reason: &str| {
                Note::DeadLetter(DeadLetter {
                    tick: before.open_tick(&ingest.windows, ingest.bound_ms),
                    partition: *partition,
                    offset: record.offset,
                    reason: reason.to_owned(),
                    payload: match settings.dead_letter_payload {
                        DeadLetterPayload::Original => record.payload.to_vec(),
                        DeadLetterPayload::Nothing => Vec::new(),
                    },
                })
            };
            match ingest.accept(clock, record) {
                Accepted::Counted { activity, page_url } => {
                    index.note(activity.enter, record.offset, before);
                    staged.names.extend(announced.announce(&activity, &page_url, ingest));
                    staged.activities.push(activity);
                }
                Accepted::Late => {
                    shared.counts.late += 1;
                    if settings.late_to_dead_letters {
                        staged.notes.push(dead_letter(LATE));
                    }
                }
                Accepted::Rejected(reason) => {
                    count_rejected(&mut shared.counts, reason);
                    staged.notes.push(dead_letter(reason.label()));
                }
            }
        })?;
        apply_floors(floors, clock, reader.position());
        *ended |= reader.exhausted() || until.is_some_and(|until| reader.position() >= until);
        if clock.watermark_ms(ingest.bound_ms) > before_ms {
            self.rose_ms = Some(shared.now_ms);
        }
        if self.began.is_none() && clock.clock_ms.is_some() {
            self.began = Some(self.open_tick(settings));
        }
        Ok(records)
    }

    /// Decides whether the partition is idle, and raises its floor if that closes a window.
    fn note_idleness(
        &mut self,
        settings: &SourceSettings,
        paused: bool,
        idle_floor_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<IdleAdvance> {
        let timeout_ms = settings.idle_timeout_ms.filter(|_| self.until.is_none())?;
        let read_to_its_end = self.reader.end().is_some_and(|end| {
            end.high_watermark <= self.reader.position() && now_ms - end.answered_ms <= LOG_END_FRESH_MS
        });
        // A partition without any event yet is idle from the first answer on.
        let quiet = match (self.clock.clock_ms, self.rose_ms) {
            (None, _) => true,
            (Some(_), rose_ms) => now_ms - *self.rose_ms.insert(rose_ms.unwrap_or(now_ms)) >= timeout_ms,
        };
        self.idle = !paused && read_to_its_end && quiet;
        let floor_ms = idle_floor_ms.filter(|_| self.idle)?;
        let windows = &settings.ingest.windows;
        if windows.tick(floor_ms) <= self.open_tick(settings) {
            return None;
        }
        self.clock.raise_floor(floor_ms);
        Some(IdleAdvance { partition: self.partition, next_offset: self.reader.position(), floor_ms })
    }

    /// Notes the input cut when windows were closed since the capability stood at `held`, or the partition has ended.
    fn note_close(
        &mut self,
        held: Tick,
        idle_advance: Option<IdleAdvance>,
        settings: &SourceSettings,
        staged: &mut Staged,
    ) {
        if self.open_tick(settings) <= held && !self.ended {
            return;
        }
        let position = self.reader.position();
        let (replay_from, clock) = self.index.cut(held, &settings.ingest.windows, position, self.clock);
        staged.notes.push(Note::Closed {
            tick: held,
            cut: PartitionCut {
                partition: self.partition,
                began: self.began_at,
                position,
                replay_from,
                clock_ms: clock.clock_ms,
                floor_ms: clock.floor_ms,
                until: self.until,
            },
            idle_advance,
        });
    }

    /// Brings the capabilities to the first open window end, or drops them at the end of a bounded partition.
    fn let_go(&mut self, settings: &SourceSettings) {
        let open = self.open_tick(settings);
        if self.ended {
            self.held = None;
        } else if let Some(held) = &mut self.held {
            for capability in held.iter_mut().filter(|capability| *capability.time() < open) {
                capability.downgrade(&open);
            }
        }
    }

    fn report(&self, settings: &SourceSettings) -> PartitionReport {
        PartitionReport {
            partition: self.partition,
            watermark_ms: self.clock.watermark_ms(settings.ingest.bound_ms),
            idle: self.idle || self.ended,
            position: self.reader.position(),
            high_watermark: self.reader.end().map(|end| end.high_watermark),
        }
    }
}

/// The label of late events among the dead letters.
pub const LATE: &str = "late";

/// Applies the floors recorded for offsets up to `offset`.
fn apply_floors(floors: &mut BTreeMap<i64, i64>, clock: &mut PartitionClock, offset: i64) {
    while let Some(entry) = floors.first_entry().filter(|entry| *entry.key() <= offset) {
        clock.raise_floor(entry.remove());
    }
}

fn count_rejected(counts: &mut SourceCounts, reason: Reason) {
    match counts.rejected.get_mut(reason.label()) {
        Some(count) => *count += 1,
        None => drop(counts.rejected.insert(reason.label().to_owned(), 1)),
    }
}

/// The pages whose names have been sent, and how long the receiver keeps them.
#[derive(Default)]
struct Announced {
    pages: HashMap<PageId, (Tick, Tick), FixedState>,
    swept: Option<Tick>,
}

impl Announced {
    /// The name to send with `activity`, if its page has to be announced (again).
    ///
    /// A name may be used from the tick on with which it was sent, so a partition that is behind sends it once more.
    fn announce(&mut self, activity: &Activity, page_url: &str, ingest: &Ingest) -> Option<PageName> {
        if let Some((from, keep_until)) = self.pages.get(&activity.page)
            && *from <= activity.enter
            && activity.leave <= *keep_until
        {
            return None;
        }
        // Kept for one window more than needed, so that a page is announced once a window and not once a slide.
        let keep_until = Tick(activity.leave.0 + ingest.windows.size_ms());
        self.pages.insert(activity.page, (activity.enter, keep_until));
        Some(PageName { page: activity.page, page_url: page_url.to_owned(), keep_until })
    }

    fn forget(&mut self, frontier: Tick, ingest: &Ingest) {
        let due = self.swept.is_none_or(|swept| frontier.0.saturating_sub(swept.0) >= ingest.windows.size_ms());
        if frontier != Tick::MIN && due {
            self.pages.retain(|_, (_, keep_until)| *keep_until > frontier);
            self.swept = Some(frontier);
        }
    }
}

/// The records of a worker that are ahead of the committed frontier.
#[derive(Default)]
struct InFlight {
    by_tick: BTreeMap<Tick, usize>,
    total: usize,
}

impl InFlight {
    fn add(&mut self, tick: Tick, records: usize) {
        if records > 0 {
            *self.by_tick.entry(tick).or_default() += records;
            self.total += records;
        }
    }

    fn retire(&mut self, frontier: Tick) {
        while let Some(entry) = self.by_tick.first_entry().filter(|entry| *entry.key() < frontier) {
            self.total -= entry.remove();
        }
    }
}
