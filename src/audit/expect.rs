//! The sweep over window ends.

use std::collections::BTreeMap;

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;
use serde::Serialize;

use super::past::{Past, Verdict};
use super::window::Window;
use super::{Click, IdleAdvance, Partition};
use crate::history::HistoryLimits;
use crate::validation::Reason;

/// What is computed.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Size, slide and offset of the windows.
    pub windows: Windows,
    /// How far events of a partition may come out of order, ms.
    pub bound_ms: i64,
    /// The last window end that matters, ms; none for every window of the input.
    pub through_ms: Option<i64>,
    /// Which copies count, and how many pages are told apart.
    pub history: HistoryLimits,
}

impl Definition {
    /// The first window end after `time_ms`.
    pub(super) fn end_after(&self, time_ms: i64) -> i64 {
        // Windows start at multiples of the slide plus the offset, and last for the size.
        let since_end =
            (time_ms - self.windows.offset_ms() - self.windows.size_ms()).rem_euclid(self.windows.slide_ms());
        time_ms - since_end + self.windows.slide_ms()
    }

    /// The stretch of event time, as long as a window, that a time belongs to.
    pub(super) fn epoch(&self, time_ms: i64) -> i64 {
        (time_ms - self.windows.offset_ms()).div_euclid(self.windows.size_ms())
    }

    /// Where it ends, ms.
    pub(super) fn epoch_end(&self, epoch: i64) -> i64 {
        (epoch + 1) * self.windows.size_ms() + self.windows.offset_ms()
    }

    /// The first window end that neither counts any event of a partition that was deleted, nor depends on the watermark
    /// that the deleted ones had left behind, where the first record left was appended at `first_left_ms`.
    ///
    /// The log's times do not fall along a partition, so a deleted record was appended by then, and a valid event is at
    /// most `future_ms` ahead of its record: it has left the windows by the end after `first_left_ms + future_ms + size`.
    /// The watermark was at most `first_left_ms - bound`, which changes in which windows before that an event counts. Nor does
    /// such a window count a copy of a deleted event, which has its time; and where pages are limited, it lies behind the
    /// epoch of the last one.
    pub fn complete_from(&self, first_left_ms: i64, future_ms: i64) -> i64 {
        let last_deleted_ms = first_left_ms.clamp(-FLOOR_MS_MAX / 2, FLOOR_MS_MAX / 2).saturating_add(future_ms.max(0));
        let mut last_deleted_ms = last_deleted_ms.min(FLOOR_MS_MAX);
        if self.history.pages_max.is_some() {
            last_deleted_ms = self.epoch_end(self.epoch(last_deleted_ms)) - 1;
        }
        self.end_after(last_deleted_ms + self.windows.size_ms())
    }
}

/// What became of the records that were read. With an end that matters no more, the last records may not have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Events that count in some window.
    pub counted: u64,
    /// Events all of whose windows were closed.
    pub late: u64,
    /// Copies of events that were remembered.
    pub duplicates: u64,
    /// Records that are not valid events.
    pub rejected: u64,
    /// Results computed.
    pub results: u64,
}

/// A record that counts in no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncounted {
    /// Its partition, by the place among those that were given.
    pub partition: usize,
    /// Its offset.
    pub offset: i64,
    /// The first window end that was open in its partition before it: the tick it belongs to. None before the first event.
    pub tick: Option<i64>,
    /// Why it was rejected; none for an event that came too late.
    pub reason: Option<Reason>,
}

/// A record, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its partition, by the place among those that were given.
    pub partition: usize,
    /// Its offset.
    pub offset: i64,
    /// As in [`Uncounted`].
    pub tick: Option<i64>,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts in some window.
    Counted,
    /// All its windows were closed.
    Late,
    /// It is a copy of one that was remembered, and counts in nothing.
    Copy,
    /// It is not a valid event.
    Rejected(Reason),
}

impl Judged {
    /// The record as one that counts in no window, if it is.
    fn uncounted(self) -> Option<Uncounted> {
        let Judged { partition, offset, tick, fate } = self;
        let reason = match fate {
            Fate::Counted | Fate::Copy => return None,
            Fate::Late => None,
            Fate::Rejected(reason) => Some(reason),
        };
        Some(Uncounted { partition, offset, tick, reason })
    }
}

/// The same as [`expect_judged`], where only the records matter that count in no window, and are no copies.
///
/// # Errors
/// The first that `partitions` yield.
pub fn expect<I, E>(
    definition: &Definition,
    partitions: Vec<Partition<I>>,
    on_result: impl FnMut(PageAnalytics),
    mut on_uncounted: impl FnMut(Uncounted),
) -> Result<Totals, E>
where
    I: Iterator<Item = Result<(i64, Result<Click, Reason>), E>>,
{
    let on_judged = |judged: Judged| judged.uncounted().into_iter().for_each(&mut on_uncounted);
    expect_judged(definition, partitions, on_result, on_judged)
}

/// Computes the results of every window of `partitions`, and gives them to `on_result` in order of window end, then page.
/// `on_judged` hears of every record that was read; those with a tick at or before the last window end that matters are all
/// read.
///
/// It holds the events of one window, and those of the partitions that were read ahead of others: an event is read only
/// when one of its partition could count in the next window. Every window is computed from all of its events, so an event
/// costs `size / slide` visits.
///
/// # Errors
/// The first that `partitions` yield.
pub fn expect_judged<I, E>(
    definition: &Definition,
    partitions: Vec<Partition<I>>,
    mut on_result: impl FnMut(PageAnalytics),
    mut on_judged: impl FnMut(Judged),
) -> Result<Totals, E>
where
    I: Iterator<Item = Result<(i64, Result<Click, Reason>), E>>,
{
    let mut readers: Vec<_> = partitions.into_iter().enumerate().map(Reader::new).collect();
    let mut totals = Totals::default();
    let mut entering: BTreeMap<i64, Vec<Entry>> = BTreeMap::new();
    let mut window = Window::default();
    let mut last_end = None;
    loop {
        // The next window end is the one after the last while something is in the window, else where the next event enters.
        // It is known once no partition can still yield an event that enters at or before it.
        let next_end = loop {
            let after_last =
                last_end.filter(|_| !window.is_empty()).map(|end: i64| end + definition.windows.slide_ms());
            let next_end = after_last.or_else(|| entering.keys().next().copied());
            match readers.iter_mut().find(|reader| reader.may_enter_by(next_end, definition)) {
                None => break next_end,
                Some(reader) => {
                    let Some((judged, entry)) = reader.read(definition)? else { continue };
                    match judged.fate {
                        Fate::Counted => totals.counted += 1,
                        Fate::Late => totals.late += 1,
                        Fate::Copy => totals.duplicates += 1,
                        Fate::Rejected(_) => totals.rejected += 1,
                    }
                    if let Some((enter, entry)) = entry {
                        entering.entry(enter).or_default().push(entry);
                    }
                    on_judged(judged);
                }
            }
        };
        let Some(end) = next_end.filter(|end| definition.through_ms.is_none_or(|through| *end <= through)) else {
            return Ok(totals);
        };
        window.leave(end);
        for entry in entering.remove(&end).into_iter().flatten() {
            window.enter(entry.leave, &entry.click);
        }
        window.results(end, definition.windows.size_ms(), |result| {
            totals.results += 1;
            on_result(result);
        });
        last_end = Some(end);
    }
}

/// An event, and the first window end that no longer counts it.
struct Entry {
    leave: i64,
    click: Click,
}

/// The first window end that counts an event, and the event.
type Entering = (i64, Entry);

/// A partition, and what its past says of lateness.
struct Reader<I> {
    partition: usize,
    records: I,
    /// In descending order of offset, so that the next one is the last.
    idle_advances: Vec<IdleAdvance>,
    /// Window ends at or before this are closed; none while nothing is known.
    watermark_ms: Option<i64>,
    past: Past,
    exhausted: bool,
}

/// Recorded floors beyond this are cut to it: nothing valid lies there, and window ends do not overflow.
const FLOOR_MS_MAX: i64 = 1 << 62;

impl<I, E> Reader<I>
where
    I: Iterator<Item = Result<(i64, Result<Click, Reason>), E>>,
{
    fn new((partition, Partition { records, mut idle_advances }): (usize, Partition<I>)) -> Self {
        idle_advances.sort_by_key(|advance| std::cmp::Reverse(advance.next_offset));
        Self { partition, records, idle_advances, watermark_ms: None, past: Past::default(), exhausted: false }
    }

    /// Whether an event not yet read could enter at or before `end`; with no `end` yet, whether there could be any.
    fn may_enter_by(&self, end: Option<i64>, definition: &Definition) -> bool {
        let first_open = self.watermark_ms.map(|watermark_ms| definition.end_after(watermark_ms));
        !self.exhausted && end.is_none_or(|end| first_open.is_none_or(|first_open| first_open <= end))
    }

    /// The next record, and the event if it counts. None at the end.
    fn read(&mut self, definition: &Definition) -> Result<Option<(Judged, Option<Entering>)>, E> {
        let Some((offset, click)) = self.records.next().transpose()? else {
            self.exhausted = true;
            return Ok(None);
        };
        while let Some(advance) = self.idle_advances.pop_if(|advance| advance.next_offset <= offset) {
            self.watermark_ms = self.watermark_ms.max(Some(advance.floor_ms.clamp(-FLOOR_MS_MAX, FLOOR_MS_MAX)));
        }
        let tick = self.watermark_ms.map(|watermark_ms| definition.end_after(watermark_ms));
        let judged = |fate| Judged { partition: self.partition, offset, tick, fate };
        let mut click = match click {
            Ok(click) => click,
            Err(reason) => return Ok(Some((judged(Fate::Rejected(reason)), None))),
        };
        if self.past.look(definition, self.watermark_ms, &mut click) == Verdict::Copy {
            return Ok(Some((judged(Fate::Copy), None)));
        }
        let first_end = definition.end_after(click.time_ms);
        let enter = tick.map_or(first_end, |tick| first_end.max(tick));
        let leave = definition.end_after(click.time_ms + definition.windows.size_ms());
        // Only now is the event shown to the watermark: it is not late on account of itself.
        let shown_ms = click.record_timestamp_ms.unwrap_or(i64::MAX).min(click.time_ms);
        self.watermark_ms = self.watermark_ms.max(Some(shown_ms - definition.bound_ms));
        Ok(Some(if enter < leave {
            (judged(Fate::Counted), Some((enter, Entry { leave, click })))
        } else {
            (judged(Fate::Late), None)
        }))
    }
}
