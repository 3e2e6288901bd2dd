//! One partition while it is read, and what a worker keeps beside its partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageId, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick};
use foldhash::fast::FixedState;
use timely::dataflow::operators::Capability;

use crate::checkpoint::ResumePoint;
use crate::checkpoint::restore::Restore;

use super::{
    DeadLetter, LATE, Note, PartitionReport, ReadPartition, SanitisedRecord, SourceCounts, SourceError,
    SourcePartition, SourceSettings, SourceShared,
};
use crate::history::History;
use crate::ingest::{Accepted, Ingest, Sanitised};
use crate::progress::{IdleAdvance, PartitionCut, Place, ReplayIndex};
use crate::validation::Reason;

/// Records handed over per partition and activation at most, so that the other operators get their turn.
pub(super) const RECORDS_PER_READ_MAX: usize = 2_048;
/// An answer about the end of a partition that is older than this says nothing about now.
const LOG_END_FRESH_MS: i64 = 3_000;

/// What one read puts together, sent under the capability from before it.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) activities: Vec<Activity>,
    pub(super) names: Vec<PageName>,
    pub(super) notes: Vec<Note>,
}

impl Staged {
    pub(super) fn clear(&mut self) {
        self.activities.clear();
        self.names.clear();
        self.notes.clear();
    }
}

/// How many records were read.
#[derive(Default)]
pub(super) struct Read {
    /// Those that were judged.
    pub(super) judged: usize,
    /// Those before them, which had to be known again.
    pub(super) recalled: usize,
}

/// One partition while it is read.
pub(super) struct PartitionSource {
    reader: Box<dyn ReadPartition>,
    ingest: Arc<Ingest>,
    partition: i32,
    /// Its part of the cut as the run began, from the place on where it is read again.
    cut: PartitionCut,
    floors: BTreeMap<i64, i64>,
    clock: PartitionClock,
    history: History,
    index: ReplayIndex,
    /// What entered up to here is in the dataflow already, from a checkpoint.
    restored_through: Option<Tick>,
    /// A capability per output, at the first open window end; none once a bounded partition has been read to its end.
    pub(super) held: Option<Vec<Capability<Tick>>>,
    /// The first open window end after the first event, from which a partition may run ahead while others have none.
    began: Option<Tick>,
    /// When an event last raised the watermark.
    rose_ms: Option<i64>,
    idle: bool,
    ended: bool,
}

impl PartitionSource {
    pub(super) fn new(partition: SourcePartition, settings: &SourceSettings, restored: Option<&Restore>) -> Self {
        let SourcePartition { reader, format, cut, floors } = partition;
        let ingest = match format {
            Some(format) => Arc::new(Ingest { format, ..(*settings.ingest).clone() }),
            None => Arc::clone(&settings.ingest),
        };
        // A partition that the checkpoint does not know had nothing in it then.
        let of_partition = |restore: &&Restore| restore.resume_point(cut.partition).is_some();
        let restored = restored.filter(of_partition);
        let points = restored.into_iter().flat_map(|restore| &restore.resume);
        let points: Vec<ResumePoint> = points.filter(|point| point.partition == cut.partition).copied().collect();
        PartitionSource {
            reader,
            ingest,
            partition: cut.partition,
            cut,
            floors,
            clock: cut.clock(),
            history: History::new(settings.history, settings.ingest.windows),
            index: ReplayIndex::resumed(&points),
            restored_through: restored.map(|restore| restore.through),
            held: None,
            began: None,
            rose_ms: None,
            idle: false,
            ended: false,
        }
    }

    pub(super) fn open_tick(&self, settings: &SourceSettings) -> Tick {
        self.clock.open_tick(&settings.ingest.windows, settings.ingest.bound_ms)
    }

    /// Whether the partition has to wait for the others.
    pub(super) fn ahead_of(&self, frontier: Tick, settings: &SourceSettings) -> bool {
        let from = if frontier == Tick::MIN { self.began.unwrap_or(Tick::NEVER) } else { frontier };
        let allowed_ms = settings.ticks_ahead.saturating_mul(settings.ingest.windows.slide_ms());
        self.open_tick(settings).0 > from.0.saturating_add(allowed_ms)
    }

    /// The offset of the next record to be judged.
    fn position(&self) -> i64 {
        self.reader.position().max(self.cut.replay_from)
    }

    /// Where the partition stands.
    fn here(&self, settings: &SourceSettings) -> Place {
        // What is known of the past is not all there before.
        if self.reader.position() < self.cut.replay_from {
            return Place { clock: self.clock, ..self.cut.place() };
        }
        place(&self.history, &settings.ingest, self.position(), self.clock)
    }

    /// Reads what has arrived into `staged`.
    pub(super) fn read(
        &mut self,
        settings: &SourceSettings,
        shared: &mut SourceShared,
        announced: &mut Announced,
        staged: &mut Staged,
    ) -> Result<Read, SourceError> {
        let PartitionSource {
            reader,
            ingest,
            partition,
            cut,
            floors,
            clock,
            history,
            index,
            ended,
            restored_through,
            ..
        } = self;
        let ingest = &**ingest;
        let PartitionCut { until, replay_from, .. } = *cut;
        let before_ms = clock.watermark_ms(ingest.bound_ms);
        let mut read = Read::default();
        reader.read(RECORDS_PER_READ_MAX, &mut |record| {
            if until.is_some_and(|until| record.offset >= until) {
                *ended = true;
                return;
            }
            if record.offset < replay_from {
                read.recalled += 1;
                return ingest.recall(*clock, history, record);
            }
            read.judged += 1;
            shared.counts.records += 1;
            shared.counts.bytes += record.payload.len() as u64;
            apply_floors(floors, clock, record.offset);
            let before = *clock;
            let open = before.open_tick(&ingest.windows, ingest.bound_ms);
            let dead_letter = |reason: &str| {
                let (kept, payload) = settings.dead_letter_payload.of(record, ingest);
                let reason = reason.to_owned();
                Note::DeadLetter(DeadLetter {
                    tick: open,
                    partition: *partition,
                    offset: record.offset,
                    reason,
                    kept,
                    payload,
                })
            };
            let accepted = ingest.accept(clock, history, record);
            if settings.sanitised_events && matches!(accepted, Accepted::Counted { .. } | Accepted::Late) {
                let sanitised = ingest.sanitised(record);
                staged.notes.extend(sanitised.map(|Sanitised { user, body }| {
                    Note::Sanitised(SanitisedRecord { tick: open, user: user.0, body })
                }));
            }
            match accepted {
                Accepted::Counted { activity, page_url, told_apart } => {
                    index.note(activity.enter, || place(history, ingest, record.offset, before));
                    shared.counts.other_pages += u64::from(!told_apart);
                    if Some(activity.enter) > *restored_through {
                        staged.names.extend(announced.announce(&activity, &page_url, ingest));
                        staged.activities.push(activity);
                    }
                }
                Accepted::Duplicate => shared.counts.duplicates += 1,
                Accepted::Late => {
                    shared.counts.late += 1;
                    index.note(open, || place(history, ingest, record.offset, before));
                    if settings.late_to_dead_letters {
                        staged.notes.push(dead_letter(LATE));
                    }
                }
                Accepted::Rejected(reason) => {
                    count_rejected(&mut shared.counts, reason);
                    index.note(open, || place(history, ingest, record.offset, before));
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
        Ok(read)
    }

    /// Decides whether the partition is idle, and raises its floor if that closes a window.
    pub(super) fn note_idleness(
        &mut self,
        settings: &SourceSettings,
        paused: bool,
        idle_floor_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<IdleAdvance> {
        // What waits for its schema has something to say, however old the answer about its end.
        let paused = paused || self.reader.awaited().is_some();
        let timeout_ms = settings.idle_timeout_ms.filter(|_| self.cut.until.is_none())?;
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
        Some(IdleAdvance { partition: self.partition, next_offset: self.position(), floor_ms })
    }

    /// Notes the input cut when windows were closed since the capability stood at `held`, or the partition has ended: as of
    /// `held`, and where several were closed also as of the last, as it may be long until there is another note.
    pub(super) fn note_close(
        &mut self,
        held: Tick,
        idle_advance: Option<IdleAdvance>,
        settings: &SourceSettings,
        staged: &mut Staged,
    ) {
        let open = self.open_tick(settings);
        if open <= held && !self.ended {
            return;
        }
        staged.notes.push(self.closed(held, idle_advance, settings));
        if open > held {
            let last = settings.ingest.windows.previous(open);
            staged.notes.extend((last > held).then(|| self.closed(last, None, settings)));
        }
    }

    /// What to tell the committer of the windows closed from `tick` on.
    fn closed(&mut self, tick: Tick, idle_advance: Option<IdleAdvance>, settings: &SourceSettings) -> Note {
        let here = self.here(settings);
        let replay = self.index.cut(tick, &settings.ingest.windows, here);
        let resume = self.index.after(tick, here);
        Note::Closed {
            tick,
            cut: PartitionCut { position: here.offset, ..self.cut.from_place(replay) },
            resume: resume.resume_point(self.partition, tick),
            idle_advance,
        }
    }

    /// Brings the capabilities to the first open window end, or drops them at the end of a bounded partition.
    pub(super) fn let_go(&mut self, settings: &SourceSettings) {
        let open = self.open_tick(settings);
        if self.ended {
            self.held = None;
        } else if let Some(held) = &mut self.held {
            for capability in held.iter_mut().filter(|capability| *capability.time() < open) {
                capability.downgrade(&open);
            }
        }
    }

    pub(super) fn report(&self, settings: &SourceSettings) -> PartitionReport {
        PartitionReport {
            partition: self.partition,
            watermark_ms: self.clock.watermark_ms(settings.ingest.bound_ms),
            idle: self.idle || self.ended,
            position: self.reader.end().map_or_else(|| self.reader.position(), |end| end.position),
            high_watermark: self.reader.end().map(|end| end.high_watermark),
            awaited: self.reader.awaited(),
        }
    }
}

/// A place that the partition has reached, with what is known there of its past.
fn place(history: &History, ingest: &Ingest, offset: i64, clock: PartitionClock) -> Place {
    Place { offset, clock, history_from: history.needed_from(offset, clock.watermark_ms(ingest.bound_ms)) }
}

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
pub(super) struct Announced {
    pages: HashMap<PageId, (Tick, Tick), FixedState>,
    swept: Option<Tick>,
}

impl Announced {
    /// The name to send with `activity`, if its page has to be announced (again).
    ///
    /// A name may be used from the tick on with which it was sent, so a partition that is behind sends it once more.
    pub(super) fn announce(&mut self, activity: &Activity, page_url: &str, ingest: &Ingest) -> Option<PageName> {
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

    pub(super) fn forget(&mut self, frontier: Tick, ingest: &Ingest) {
        let due = self.swept.is_none_or(|swept| frontier.0.saturating_sub(swept.0) >= ingest.windows.size_ms());
        if frontier != Tick::MIN && due {
            self.pages.retain(|_, (_, keep_until)| *keep_until > frontier);
            self.swept = Some(frontier);
        }
    }
}

/// The records of a worker that are ahead of the committed frontier.
#[derive(Default)]
pub(super) struct InFlight {
    by_tick: BTreeMap<Tick, usize>,
    pub(super) total: usize,
}

impl InFlight {
    pub(super) fn add(&mut self, tick: Tick, records: usize) {
        if records > 0 {
            *self.by_tick.entry(tick).or_default() += records;
            self.total += records;
        }
    }

    pub(super) fn retire(&mut self, frontier: Tick) {
        while let Some(entry) = self.by_tick.first_entry().filter(|entry| *entry.key() < frontier) {
            self.total -= entry.remove();
        }
    }
}
