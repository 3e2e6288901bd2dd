//! Event time: window ends as timely's timestamp, window arithmetic, and the clock of one partition.
//!
//! All times are milliseconds since the epoch and all intervals are half-open. An event at `t` enters the windows at
//! [`Windows::tick`]`(t)` and leaves them at `tick(t + size)`: it counts in every window whose end `E` satisfies
//! `enter <= E < leave`. That is Flink's and Beam's assignment of sliding windows, with two numbers per event instead of
//! `size / slide` windows.

use std::fmt;

use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};

/// The end of a window in event time (ms), which is timely's timestamp in every dataflow here.
///
/// There is one tick per slide, not one per event, so that progress is tracked once per window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick(pub i64);

impl Tick {
    /// Before every window end: where a dataflow starts.
    pub const MIN: Tick = Tick(i64::MIN);
    /// After every window end: a row that leaves at `NEVER` stays.
    pub const NEVER: Tick = Tick(i64::MAX);

    /// The least timestamp after this one, which lies between this tick and the next.
    pub fn successor(self) -> Tick {
        Tick(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Tick::MIN => f.write_str("Tick(MIN)"),
            Tick::NEVER => f.write_str("Tick(NEVER)"),
            Tick(end) => write!(f, "Tick({end})"),
        }
    }
}

impl PartialOrder for Tick {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
    fn less_than(&self, other: &Self) -> bool {
        self < other
    }
}

impl TotalOrder for Tick {}

impl Timestamp for Tick {
    type Summary = ();
    fn minimum() -> Self {
        Tick::MIN
    }
}

/// No path in these dataflows advances a timestamp.
impl PathSummary<Tick> for () {
    fn results_in(&self, tick: &Tick) -> Option<Tick> {
        Some(*tick)
    }
    fn followed_by(&self, _other: &Self) -> Option<Self> {
        Some(())
    }
}

/// A dataflow of ticks stands in no other scope.
impl Refines<()> for Tick {
    fn to_inner(_outer: ()) -> Self {
        Tick::MIN
    }
    fn to_outer(self) {}
    fn summarize(_path: ()) {}
}

impl Lattice for Tick {
    fn join(&self, other: &Self) -> Self {
        *self.max(other)
    }
    fn meet(&self, other: &Self) -> Self {
        *self.min(other)
    }
}

/// Sliding windows `[S, S + size)` for every `S` that is a multiple of the slide plus the offset, before 1970 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    size_ms: i64,
    slide_ms: i64,
    offset_ms: i64,
}

/// Why a combination of window size, slide and offset is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowsError {
    /// The slide is zero or negative.
    #[error("window slide is {0} ms; it must be at least 1 ms")]
    SlideNotPositive(i64),
    /// Events would fall between windows.
    #[error(
        "window size ({size_ms} ms) is shorter than its slide ({slide_ms} ms), so that events between two windows would \
         be missed; make the size at least the slide"
    )]
    SizeBelowSlide {
        /// The size asked for.
        size_ms: i64,
        /// The slide asked for.
        slide_ms: i64,
    },
    /// The arithmetic of window ends would overflow.
    #[error("window {field} is {value_ms} ms; it must lie within {limit} ms of zero", limit = Windows::LIMIT_MS)]
    TooLarge {
        /// `size` or `offset`.
        field: &'static str,
        /// The value asked for.
        value_ms: i64,
    },
}

impl Windows {
    /// The greatest size and offset (about 34 years): with it, no window end of a valid event overflows.
    pub const LIMIT_MS: i64 = 1 << 40;

    /// Windows of `size_ms` every `slide_ms`. The size need not be a multiple of the slide.
    ///
    /// # Errors
    /// When the slide is not positive, the size is below the slide, or size or offset exceed [`Self::LIMIT_MS`].
    pub fn new(size_ms: i64, slide_ms: i64, offset_ms: i64) -> Result<Self, WindowsError> {
        if slide_ms <= 0 {
            return Err(WindowsError::SlideNotPositive(slide_ms));
        }
        if size_ms < slide_ms {
            return Err(WindowsError::SizeBelowSlide { size_ms, slide_ms });
        }
        for (field, value_ms) in [("size", size_ms), ("offset", offset_ms)] {
            if value_ms.checked_abs().is_none_or(|ms| ms > Self::LIMIT_MS) {
                return Err(WindowsError::TooLarge { field, value_ms });
            }
        }
        Ok(Self { size_ms, slide_ms, offset_ms })
    }

    /// The length of every window, ms.
    pub fn size_ms(&self) -> i64 {
        self.size_ms
    }

    /// The distance between window ends, ms.
    pub fn slide_ms(&self) -> i64 {
        self.slide_ms
    }

    /// What is added to the multiples of the slide where windows start, ms.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The first window end after `time_ms`.
    ///
    /// ```
    /// # use clicktide_dataflows::time::{Tick, Windows};
    /// let windows = Windows::new(300_000, 10_000, 0).unwrap();
    /// assert_eq!(windows.tick(9_999), Tick(10_000));
    /// assert_eq!(windows.tick(10_000), Tick(20_000));
    /// assert_eq!(windows.tick(-1), Tick(0));
    /// ```
    pub fn tick(&self, time_ms: i64) -> Tick {
        let phase = (self.offset_ms + self.size_ms).rem_euclid(self.slide_ms);
        Tick((time_ms - phase).div_euclid(self.slide_ms) * self.slide_ms + self.slide_ms + phase)
    }

    /// The last window end at or before `time_ms`.
    pub fn tick_at_or_before(&self, time_ms: i64) -> Tick {
        Tick(self.tick(time_ms).0 - self.slide_ms)
    }

    /// The window end after `tick`.
    pub fn next(&self, tick: Tick) -> Tick {
        Tick(tick.0 + self.slide_ms)
    }

    /// The window end before `tick`.
    pub fn previous(&self, tick: Tick) -> Tick {
        Tick(tick.0 - self.slide_ms)
    }

    /// Where an event at `time_ms` leaves: the first window end after `time_ms + size` no longer counts it.
    pub fn leave(&self, time_ms: i64) -> Tick {
        self.tick(time_ms + self.size_ms)
    }
}

/// The event-time clock of one partition, and with it the judgement of lateness.
///
/// The clock is the greatest `min(timestamp, record timestamp)` seen, so that a producer whose clock runs ahead closes
/// nobody's windows. The watermark `F` is the clock less the bound on disorder, or the floor that idleness has set if
/// that is greater; a window is closed when its end is at or before `F`. This is Flink's bounded-out-of-orderness
/// watermark with one difference: it is kept and applied per partition, so that what is late is a function of the
/// partition's contents alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionClock {
    /// The greatest event time shown so far, ms; none before the first event.
    pub clock_ms: Option<i64>,
    /// The least watermark that idleness or a committed tick grants, ms; none if neither has.
    pub floor_ms: Option<i64>,
}

/// The windows an event counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It counts in every window whose end `E` satisfies `enter <= E < leave`.
    Counts {
        /// The first window end that counts it.
        enter: Tick,
        /// The first window end that no longer does.
        leave: Tick,
    },
    /// Every one of its windows is closed.
    Late,
}

impl PartitionClock {
    /// `F`: no window that ends at or before it is open in this partition. None while nothing is known.
    pub fn watermark_ms(&self, bound_ms: i64) -> Option<i64> {
        self.clock_ms.map(|clock| clock - bound_ms).max(self.floor_ms)
    }

    /// The first window end that is open in this partition, [`Tick::MIN`] while nothing is known.
    pub fn open_tick(&self, windows: &Windows, bound_ms: i64) -> Tick {
        self.watermark_ms(bound_ms).map_or(Tick::MIN, |watermark_ms| windows.tick(watermark_ms))
    }

    /// Judges an event against the watermark as it was before the event, then shows the event to the clock.
    ///
    /// `record_ms` is the log's own timestamp for the record, if it has one.
    pub fn judge(&mut self, windows: &Windows, bound_ms: i64, time_ms: i64, record_ms: Option<i64>) -> Judgement {
        let enter = windows.tick(time_ms).max(self.open_tick(windows, bound_ms));
        let leave = windows.leave(time_ms);
        let shown_ms = record_ms.map_or(time_ms, |record_ms| record_ms.min(time_ms));
        self.clock_ms = self.clock_ms.max(Some(shown_ms));
        if enter < leave { Judgement::Counts { enter, leave } } else { Judgement::Late }
    }

    /// Raises the floor to `floor_ms`; a floor never falls.
    pub fn raise_floor(&mut self, floor_ms: i64) {
        self.floor_ms = self.floor_ms.max(Some(floor_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_would_miss_events_are_refused() {
        fn check(size_ms: i64, slide_ms: i64, offset_ms: i64, expected: &str) {
            let actual = Windows::new(size_ms, slide_ms, offset_ms).map_or_else(|e| e.to_string(), |_| "good".into());
            assert!(actual.contains(expected), "{size_ms} {slide_ms} {offset_ms}: {actual}");
        }
        check(10, 10, 0, "good");
        check(10, 3, -5, "good");
        check(9, 10, 0, "shorter than its slide");
        check(10, 0, 0, "at least 1 ms");
        check(10, -1, 0, "at least 1 ms");
        check(i64::MAX, 1, 0, "window size is");
        check(10, 10, i64::MIN, "window offset is");
    }

    #[test]
    fn an_event_counts_in_the_windows_that_contain_it() {
        for (size, slide, offset) in [(300, 10, 0), (25, 10, 0), (10, 10, 3), (7, 3, -1), (9, 2, 100)] {
            let windows = Windows::new(size, slide, offset).unwrap();
            for time in -40..40 {
                let (enter, leave) = (windows.tick(time), windows.leave(time));
                for end in -400..400 {
                    let is_window = (end - size - offset).rem_euclid(slide) == 0;
                    let contains = is_window && end - size <= time && time < end;
                    let counted = is_window && enter.0 <= end && end < leave.0;
                    assert_eq!(contains, counted, "size {size} slide {slide} offset {offset} time {time} end {end}");
                }
            }
        }
    }

    #[test]
    fn lateness_is_judged_before_the_event_moves_the_clock() {
        let windows = Windows::new(100, 10, 0).unwrap();
        let mut clock = PartitionClock::default();
        // The first event is never late, however old.
        let counts = |enter, leave| Judgement::Counts { enter: Tick(enter), leave: Tick(leave) };
        assert_eq!(clock.judge(&windows, 20, 1_000, None), counts(1_010, 1_110));
        // F = 980: windows that end at 980 are closed, 990 is the first open one.
        assert_eq!(clock.judge(&windows, 20, 900, None), counts(990, 1_010));
        assert_eq!(clock.judge(&windows, 20, 890, None), counts(990, 1_000));
        assert_eq!(clock.judge(&windows, 20, 880, None), Judgement::Late);
        // A clock that runs ahead of the log's moves the watermark only as far as the log's.
        assert_eq!(clock.judge(&windows, 20, 5_000, Some(1_001)), counts(5_010, 5_110));
        assert_eq!(clock.clock_ms, Some(1_001));
        clock.raise_floor(2_000);
        clock.raise_floor(1_500);
        assert_eq!(clock.watermark_ms(20), Some(2_000));
    }
}
