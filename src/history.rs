//! What the past of a partition says of its next record: whether it is a copy of one that came before, and whether its page
//! is among those that are told apart.
//!
//! ```text
//!  valid event ─▶ remembered? ── yes ─▶ a copy: counts in nothing
//!                     │ no: remembered from now on
//!                     ▼
//!              page among the first so many of its epoch? ── no ─▶ counts for the page of all others
//! ```
//!
//! **Copies.** Two records of a partition are copies if their payloads are equal byte for byte. So they have the same event
//! time `t`, and an event is remembered until the partition's watermark is the horizon past `tick(t)`, the first window end
//! after it. A horizon that is no shorter than the window loses nothing: what is forgotten would be late. Of a payload a
//! keyed fingerprint of 128 bits is kept, filed by `tick(t)`, where a copy would be; forgetting drops all of a tick at once.
//!
//! **Pages.** Event time is cut into epochs as long as a window. In each the first so many pages of the partition, in the
//! order of its offsets, are told apart; the events of all others count for one page, [`OTHER_PAGES`]. A window reaches into
//! two epochs at most.
//!
//! What is known at a place of a partition is a function of the valid events before it whose time is not up by the watermark
//! there, and of nothing else: neither of what was judged late, nor of clocks on the way. That is what makes it cheap to
//! rebuild: the events from [`History::needed_from`] on are taken in again, in their order, before the first is judged.

use std::collections::{BTreeMap, HashSet, VecDeque};

use clicktide_dataflows::event::PageId;
use clicktide_dataflows::time::{Tick, Windows};
use foldhash::fast::FixedState;

use crate::event::DecodedEvent;
use crate::privacy::{Domain, HashKey};

/// The page that stands for all pages beyond the limit: no valid URL is like it.
pub const OTHER_PAGES: &str = "(other pages)";

/// What is kept of the past of every partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryLimits {
    /// For how long the payload of an event is remembered after the first window end behind it, ms; none: copies count.
    pub horizon_ms: Option<i64>,
    /// How many pages of a partition are told apart in an epoch; none: all.
    pub pages_max: Option<usize>,
}

impl HistoryLimits {
    /// Whether anything is kept.
    pub fn any(&self) -> bool {
        self.horizon_ms.is_some() || self.pages_max.is_some()
    }
}

/// The past of one partition, as far as it is still of importance.
///
/// Keeps 16 bytes for each event within the horizon and 8 for each page told apart in two epochs, in hash tables that are
/// between half and seven eighths full.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Nothing is kept without.
    kept: Option<(HistoryLimits, Windows)>,
    /// The fingerprints of payloads, by the first window end after their event.
    remembered: BTreeMap<Tick, HashSet<u128, FixedState>>,
    /// The pages that are told apart, by the end of the epoch, ms.
    pages: BTreeMap<i64, HashSet<PageId, FixedState>>,
    /// Until when events are of importance, ms, with the first offset of one that is for so long. Both increase: of an event
    /// behind one that is of importance for longer, the offset is never the answer.
    firsts: VecDeque<(i64, i64)>,
}

/// What the past says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// It is a copy of one that is remembered.
    Copy,
    /// It is none.
    New {
        /// Whether its page is told apart from others.
        told_apart: bool,
    },
}

impl History {
    /// Of a partition that has none.
    pub fn new(settings: HistoryLimits, windows: Windows) -> Self {
        History { kept: settings.any().then_some((settings, windows)), ..History::default() }
    }

    /// Whether there is anything to be asked and told.
    #[inline]
    pub fn kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Says what is known of the valid `event` whose record, at `offset`, has this payload, and takes it in. `watermark_ms` is
    /// the partition's before it, which never falls.
    ///
    /// Costs a fingerprint of the payload and a look into a hash table, and as much for the page.
    // Beside the path of those who keep no history, which it would slow down.
    #[inline(never)]
    pub fn take_in(
        &mut self,
        hash_key: &HashKey,
        watermark_ms: Option<i64>,
        event: &DecodedEvent<'_>,
        offset: i64,
        payload: &[u8],
    ) -> Recalled {
        let mut recalled = Recalled::New { told_apart: true };
        let Some((HistoryLimits { horizon_ms, pages_max }, windows)) = self.kept else { return recalled };
        self.forget(watermark_ms);
        let mut matters_until_ms = None;
        if let Some(horizon_ms) = horizon_ms {
            let tick = windows.tick(event.timestamp);
            let until_ms = Some(tick.0.saturating_add(horizon_ms));
            if until_ms > watermark_ms {
                if !self.remembered.entry(tick).or_default().insert(hash_key.digest(payload)) {
                    return Recalled::Copy;
                }
                matters_until_ms = until_ms;
            }
        }
        if let Some(pages_max) = pages_max {
            let end_ms = epoch_end_ms(&windows, event.timestamp);
            let until_ms = Some(end_ms.saturating_add(windows.size_ms()));
            // What comes later is late: nobody asks for its page.
            if until_ms > watermark_ms {
                let pages = self.pages.entry(end_ms).or_default();
                let page = hash_key.hash(Domain::Page, &event.page_url);
                let told_apart = pages.contains(&page) || (pages.len() < pages_max && pages.insert(page));
                recalled = Recalled::New { told_apart };
                matters_until_ms = matters_until_ms.max(until_ms);
            }
        }
        if let Some(until_ms) = matters_until_ms
            && self.firsts.back().is_none_or(|(last_ms, _)| *last_ms < until_ms)
        {
            self.firsts.push_back((until_ms, offset));
        }
        recalled
    }

    /// From where the partition has to be read for all to be known that matters at `offset`, where its watermark is
    /// `watermark_ms`: none where nothing before does. It is a place that was reached, or the one that comes next.
    pub fn needed_from(&self, offset: i64, watermark_ms: Option<i64>) -> Option<i64> {
        let up = self.firsts.partition_point(|(until_ms, _)| Some(*until_ms) <= watermark_ms);
        self.firsts.get(up).map(|(_, first)| *first).filter(|first| *first < offset)
    }

    /// How many events are remembered.
    pub fn remembered(&self) -> usize {
        self.remembered.values().map(HashSet::len).sum()
    }

    /// Drops what is of no importance any more.
    fn forget(&mut self, watermark_ms: Option<i64>) {
        let Some((settings, windows)) = self.kept else { return };
        let (horizon_ms, size_ms) = (settings.horizon_ms.unwrap_or(0), windows.size_ms());
        let up = |until_ms: i64| Some(until_ms) <= watermark_ms;
        while let Some(first) =
            self.remembered.first_entry().filter(|first| up(first.key().0.saturating_add(horizon_ms)))
        {
            first.remove();
        }
        while let Some(first) = self.pages.first_entry().filter(|first| up(first.key().saturating_add(size_ms))) {
            first.remove();
        }
        while self.firsts.pop_front_if(|(until_ms, _)| up(*until_ms)).is_some() {}
    }
}

/// The end of the epoch that a time belongs to, ms: epochs are as long as windows, and begin where windows do.
fn epoch_end_ms(windows: &Windows, time_ms: i64) -> i64 {
    let (size_ms, offset_ms) = (windows.size_ms(), windows.offset_ms());
    ((time_ms - offset_ms).div_euclid(size_ms) + 1) * size_ms + offset_ms
}

#[cfg(test)]
mod tests {
    use clicktide_dataflows::event::EventType;
    use proptest::prelude::*;

    use super::*;

    fn windows() -> Windows {
        Windows::new(50, 10, 3).unwrap()
    }

    fn hash_key() -> HashKey {
        HashKey::new("test").unwrap()
    }

    fn event(time_ms: i64, page: &str) -> DecodedEvent<'_> {
        DecodedEvent {
            user_id: "u".into(),
            session_id: "s".into(),
            event_type: EventType::View,
            page_url: page.into(),
            timestamp: time_ms,
            session_duration: None,
        }
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        let mut history = History::new(HistoryLimits::default(), windows());
        assert!(!history.kept());
        for _ in 0..2 {
            let recalled = history.take_in(&hash_key(), None, &event(5, "/"), 7, b"same");
            assert_eq!(recalled, Recalled::New { told_apart: true });
        }
        assert_eq!((history.needed_from(9, None), history.remembered()), (None, 0));
    }

    #[test]
    fn a_copy_is_known_until_the_watermark_is_the_horizon_past_the_first_window_end_behind_it() {
        let mut history = History::new(HistoryLimits { horizon_ms: Some(100), pages_max: None }, windows());
        let mut copy = |offset, watermark_ms, payload: &[u8]| {
            history.take_in(&hash_key(), watermark_ms, &event(5, "/"), offset, payload) == Recalled::Copy
        };
        // Windows end at 13: remembered while the watermark is below 113.
        assert!(!copy(0, None, b"one"));
        assert!(copy(1, None, b"one") && copy(2, Some(-40), b"one"));
        assert!(!copy(3, Some(50), b"another"));
        assert!(copy(4, Some(112), b"one") && copy(5, Some(112), b"another"));
        assert!(!copy(6, Some(113), b"one"));
        // What is that old is not remembered again.
        assert!(!copy(7, Some(113), b"one"));
        assert_eq!((history.remembered(), history.needed_from(8, Some(113))), (0, None));
    }

    #[test]
    fn the_first_pages_of_an_epoch_are_told_apart() {
        let mut history = History::new(HistoryLimits { horizon_ms: None, pages_max: Some(2) }, windows());
        let mut offset = 0;
        let mut told_apart = |time_ms, watermark_ms, page| {
            offset += 1;
            let recalled = history.take_in(&hash_key(), watermark_ms, &event(time_ms, page), offset, b"");
            recalled == Recalled::New { told_apart: true }
        };
        // Epochs are [3, 53), [53, 103) and so on.
        assert!(told_apart(3, None, "/a") && told_apart(52, None, "/b"));
        assert!(!told_apart(10, None, "/c") && told_apart(11, None, "/a"));
        assert!(told_apart(53, Some(20), "/c") && told_apart(90, Some(20), "/d") && !told_apart(60, Some(20), "/a"));
        assert!(!told_apart(4, Some(102), "/c"));
        // The first epoch has left all windows: nobody asks.
        assert!(told_apart(4, Some(103), "/c"));
        assert_eq!(history.needed_from(100, Some(103)), Some(5));
        assert_eq!(history.needed_from(100, Some(153)), None);
    }

    #[derive(Clone, Debug)]
    struct Step {
        time_ms: i64,
        page: usize,
        payload: [u8; 3],
        watermark_rises_ms: i64,
    }

    prop_compose! {
        /// Payloads say the time and the page, as they do in truth.
        fn step()(slot in 0..60_u8, more in 0..2_u8, page in 0..4_u8, watermark_rises_ms in 0..12_i64) -> Step {
            let time_ms = i64::from(slot) * 3;
            Step { time_ms, page: usize::from(page), payload: [slot, page, more], watermark_rises_ms }
        }
    }

    proptest! {
        /// Wherever reading begins anew, what is read again from the place that is said to be needed makes no difference.
        #[test]
        fn what_is_needed_is_enough(
            steps in prop::collection::vec(step(), 1..80),
            again_at in any::<prop::sample::Index>(),
            horizon_ms in prop::option::of(1..120_i64),
            pages_max in prop::option::of(1..3_usize),
        ) {
            let limits = HistoryLimits { horizon_ms, pages_max };
            let again_at = again_at.index(steps.len());
            let take_in = |history: &mut History, offset: usize, watermark_ms: i64| {
                let Step { time_ms, page, payload, .. } = steps[offset];
                let page = format!("/{page}");
                let event = event(time_ms, &page);
                history.take_in(&hash_key(), Some(watermark_ms), &event, offset as i64, &payload)
            };
            let mut watermark_ms = -20;
            let mut through = History::new(limits, windows());
            let mut anew = None;
            for (offset, step) in steps.iter().enumerate() {
                if offset == again_at {
                    let from = through.needed_from(offset as i64, Some(watermark_ms)).map_or(offset, |from| from as usize);
                    let mut history = History::new(limits, windows());
                    for offset in from..offset {
                        take_in(&mut history, offset, watermark_ms);
                    }
                    anew = Some(history);
                }
                let recalled = take_in(&mut through, offset, watermark_ms);
                if let Some(anew) = &mut anew {
                    prop_assert_eq!(take_in(anew, offset, watermark_ms), recalled);
                    let here = |history: &History| history.needed_from(offset as i64 + 1, Some(watermark_ms));
                    prop_assert_eq!(here(anew), here(&through));
                }
                watermark_ms += step.watermark_rises_ms;
            }
        }
    }
}
