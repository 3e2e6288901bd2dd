//! Quiet partitions: what an idle partition's watermark follows.
//!
//! An idle partition does not hold the others back: its floor follows the least watermark of those that are not idle. When
//! all are idle, the watermark goes on from where it stood at wall-clock speed, so that the last windows close. What the
//! floors are set to is recorded ([`crate::progress::IdleAdvance`]), as it comes from the wall clock.

use std::collections::BTreeMap;

/// What is known of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    watermark_ms: Option<i64>,
    idle: bool,
}

/// The watermarks of all partitions, as far as they are known here. Old news only ever delays a floor.
#[derive(Clone, Debug)]
pub struct Watermarks {
    partitions: BTreeMap<i32, Known>,
    expected: usize,
    /// Since when all have been idle, and where the watermark stood then.
    standstill: Option<Standstill>,
}

#[derive(Clone, Copy, Debug)]
struct Standstill {
    watermark_ms: i64,
    since_ms: i64,
}

impl Watermarks {
    /// Nothing is known yet of the `expected` partitions.
    pub fn new(expected: usize) -> Self {
        Watermarks { partitions: BTreeMap::new(), expected, standstill: None }
    }

    /// Notes a partition's watermark (none before its first event) and whether it is idle.
    pub fn update(&mut self, partition: i32, watermark_ms: Option<i64>, idle: bool) {
        self.partitions.insert(partition, Known { watermark_ms, idle });
    }

    /// The least watermark of the partitions that have one.
    pub fn least_ms(&self) -> Option<i64> {
        self.partitions.values().filter_map(|known| known.watermark_ms).min()
    }

    /// The floor of idle partitions at `now_ms` of a clock that does not go back; none while any partition is unknown, or
    /// one that is not idle has no watermark.
    pub fn idle_floor_ms(&mut self, now_ms: i64) -> Option<i64> {
        if self.partitions.len() < self.expected {
            return None;
        }
        if self.partitions.values().all(|known| known.idle) {
            let standstill = match self.standstill {
                Some(standstill) => standstill,
                None => Standstill { watermark_ms: self.least_ms()?, since_ms: now_ms },
            };
            self.standstill = Some(standstill);
            return Some(standstill.watermark_ms + (now_ms - standstill.since_ms));
        }
        self.standstill = None;
        let awake = self.partitions.values().filter(|known| !known.idle);
        awake.map(|known| known.watermark_ms).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_partitions_follow_the_least_that_is_awake() {
        let mut watermarks = Watermarks::new(3);
        watermarks.update(0, Some(100), false);
        watermarks.update(1, Some(300), false);
        assert_eq!(watermarks.idle_floor_ms(0), None, "one partition is not known yet");
        watermarks.update(2, None, false);
        assert_eq!(watermarks.idle_floor_ms(0), None, "one that is awake has no watermark");
        watermarks.update(2, None, true);
        assert_eq!(watermarks.idle_floor_ms(0), Some(100));
        watermarks.update(0, Some(100), true);
        assert_eq!(watermarks.idle_floor_ms(0), Some(300));
    }

    #[test]
    fn when_all_are_idle_the_watermark_goes_on_with_the_wall_clock() {
        let mut watermarks = Watermarks::new(2);
        watermarks.update(0, Some(100), true);
        watermarks.update(1, None, true);
        assert_eq!(watermarks.idle_floor_ms(5_000), Some(100));
        assert_eq!(watermarks.idle_floor_ms(5_070), Some(170));
        // The floors themselves raise the watermarks, which changes nothing.
        watermarks.update(0, Some(170), true);
        watermarks.update(1, Some(170), true);
        assert_eq!(watermarks.idle_floor_ms(6_000), Some(1_100));
        watermarks.update(1, Some(900), false);
        assert_eq!(watermarks.idle_floor_ms(6_100), Some(900));
        watermarks.update(1, Some(900), true);
        watermarks.update(0, Some(900), true);
        assert_eq!(watermarks.idle_floor_ms(7_000), Some(900), "it goes on from where it stood this time");
    }

    #[test]
    fn without_any_event_nothing_moves() {
        let mut watermarks = Watermarks::new(1);
        watermarks.update(0, None, true);
        assert_eq!(watermarks.idle_floor_ms(1_000_000), None);
    }
}
