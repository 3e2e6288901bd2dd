//! What a job commits beside its results, and what it resumes from.
//!
//! The output log is the truth: the transaction that holds a tick's results also holds a [`Progress`], so that either
//! both are visible or neither is. Its input cut says from where the windows that are still open can be rebuilt.

use std::collections::BTreeMap;

use clicktide_dataflows::time::{PartitionClock, Tick, Windows};
use serde::{Deserialize, Serialize};

use crate::checkpoint::ResumePoint;
use crate::checkpoint::choose::Probe;
use crate::checkpoint::restore::Restore;

/// How far a job has come: every window that ends at or before `committed_through` is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The job's name.
    pub job: String,
    /// Counts the starts of the job, so that what belongs to an older run can be told.
    pub generation: i64,
    /// The last final window end (ms); none before the first.
    pub committed_through: Option<i64>,
    /// Windows that end at or before this (ms) are another job's, which this one has taken over from; none: all are its own.
    pub began_after: Option<i64>,
    /// Whether the job goes on.
    pub state: JobState,
    /// The configuration that gives the results their meaning, as JSON.
    pub configuration: String,
    /// The id of the input topic, where the brokers know such ids.
    pub topic_id: Option<String>,
    /// Where each partition stands.
    pub input: Vec<PartitionCut>,
}

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// More windows will come.
    Running,
    /// A bounded run has read its whole input and closed all windows.
    Finished,
}

/// One partition's part of the input cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionCut {
    /// The partition.
    pub partition: i32,
    /// The first offset that the job has read, ever: where it began.
    pub began: i64,
    /// The next offset to read. What comes from there on is judged against `committed_through` at least.
    pub position: i64,
    /// Reading again from this offset on, with the clock below, gives all that is in the windows still open.
    pub replay_from: i64,
    /// The partition's clock before `replay_from`, ms.
    #[serde(rename = "clock")]
    pub clock_ms: Option<i64>,
    /// The floor of the partition's watermark before `replay_from`, ms.
    #[serde(rename = "floor")]
    pub floor_ms: Option<i64>,
    /// Where a bounded run ends in this partition.
    pub until: Option<i64>,
    /// What is read from here up to `replay_from` counts in nothing again, and has to be known for what follows to be judged
    /// as before; none where that takes nothing.
    #[serde(default)]
    pub history_from: Option<i64>,
}

impl PartitionCut {
    /// A partition from its beginning, or from wherever a new job starts.
    pub fn start(partition: i32, offset: i64, until: Option<i64>) -> Self {
        PartitionCut {
            partition,
            began: offset,
            position: offset,
            replay_from: offset,
            clock_ms: None,
            floor_ms: None,
            until,
            history_from: None,
        }
    }

    /// The first offset that has to be there still.
    pub fn reads_from(&self) -> i64 {
        self.place().reads_from()
    }

    /// The clock with which reading resumes at `replay_from`.
    pub fn clock(&self) -> PartitionClock {
        PartitionClock { clock_ms: self.clock_ms, floor_ms: self.floor_ms }
    }

    /// Where reading resumes, with all that it takes.
    pub fn place(&self) -> Place {
        Place { offset: self.replay_from, clock: self.clock(), history_from: self.history_from }
    }

    /// The same partition, read again from another place.
    pub fn from_place(self, place: Place) -> Self {
        let Place { offset: replay_from, clock: PartitionClock { clock_ms, floor_ms }, history_from } = place;
        PartitionCut { replay_from, clock_ms, floor_ms, history_from, ..self }
    }
}

/// A floor that idleness has set: applied just before the record at `next_offset` is judged, also by a replay or an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdleAdvance {
    /// The partition.
    pub partition: i32,
    /// The offset of the first record judged with the floor.
    pub next_offset: i64,
    /// The least watermark from there on, ms.
    #[serde(rename = "floor")]
    pub floor_ms: i64,
}

/// What a job has committed beside its results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedProgress {
    /// How far it has come; none before its first commit.
    pub progress: Option<Progress>,
    /// The floors that idleness has set, in order of partition and offset.
    pub idle_advances: Vec<IdleAdvance>,
}

/// Where a run starts: handed by process 0 to all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStart {
    /// This run's generation.
    pub generation: i64,
    /// The last final window end; results at or before it are not committed again.
    pub committed_through: Option<Tick>,
    /// The id of the input topic, where the brokers know such ids.
    pub topic_id: Option<String>,
    /// The partitions of the input.
    pub input: Vec<PartitionCut>,
    /// The idle advances at or after each partition's `replay_from`.
    pub idle_advances: Vec<IdleAdvance>,
    /// What is taken from a checkpoint instead of being read again.
    pub restore: Option<Restore>,
    /// An object that whoever shares the checkpoint store can find.
    pub probe: Option<Probe>,
}

impl JobStart {
    /// A run that begins with nothing, over so many partitions that are read from offset 0 to their ends.
    pub fn fresh(partitions: i32) -> Self {
        let input = (0..partitions).map(|partition| PartitionCut::start(partition, 0, None)).collect();
        JobStart {
            generation: 1,
            committed_through: None,
            topic_id: None,
            input,
            idle_advances: Vec::new(),
            restore: None,
            probe: None,
        }
    }

    /// A partition's part of the cut, with what it is read again from in this run: the input cut, or a later place if a
    /// checkpoint holds what is between.
    pub fn read_from(&self, cut: &PartitionCut) -> PartitionCut {
        let resumed = self.restore.as_ref().and_then(|restore| restore.resume_point(cut.partition));
        resumed.map_or(*cut, |point| cut.from_place(point.place()))
    }

    /// The floors to apply in one partition just before the records at given offsets: the recorded idle advances, and what
    /// has been committed from the read position on.
    pub fn floors_of(&self, cut: &PartitionCut) -> BTreeMap<i64, i64> {
        let recorded = self.idle_advances.iter().filter(|advance| advance.partition == cut.partition);
        let committed = self.committed_through.map(|through| (cut.position, through.0));
        let mut floors: BTreeMap<i64, i64> = BTreeMap::new();
        for (offset, floor_ms) in recorded.map(|advance| (advance.next_offset, advance.floor_ms)).chain(committed) {
            let greatest = floors.entry(offset).or_insert(floor_ms);
            *greatest = floor_ms.max(*greatest);
        }
        floors
    }
}

/// A place in a partition from which it can be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The offset of the next record.
    pub offset: i64,
    /// The partition's clock before it.
    pub clock: PartitionClock,
    /// From where its past has to be known, if it has to be.
    pub history_from: Option<i64>,
}

impl Place {
    /// The first offset that has to be there still.
    pub fn reads_from(self) -> i64 {
        self.history_from.unwrap_or(self.offset)
    }

    /// The same where of the past nothing before an offset can be known any more.
    pub fn knowing_from(self, low: i64) -> Self {
        let history_from = self.history_from.map(|from| from.max(low)).filter(|from| *from < self.offset);
        Place { history_from, ..self }
    }

    /// The place as what a checkpoint keeps: all before it entered, or was judged, at or before `after`.
    pub fn resume_point(self, partition: i32, after: Tick) -> ResumePoint {
        let Place { offset, clock, history_from } = self;
        ResumePoint { partition, after, offset, clock, history_from }
    }
}

/// From where a partition has to be read again to rebuild the windows still open, kept while it is read.
///
/// Holds, for every enter tick that could be the answer, the first place with an event that enters then or later: at most
/// one entry per tick in the window.
#[derive(Clone, Debug, Default)]
pub struct ReplayIndex {
    /// Both ticks and offsets increase: an entry with a lesser tick behind a greater one can never be the answer.
    firsts: std::collections::VecDeque<(Tick, Place)>,
}

impl ReplayIndex {
    /// The index of a partition that is read on from the last of `points`, which a checkpoint has kept.
    ///
    /// Before a point nothing enters later than it says, so what enters up to the next point's tick may begin there.
    pub fn resumed(points: &[ResumePoint]) -> Self {
        let mut index = ReplayIndex::default();
        for pair in points.windows(2) {
            index.note(pair[1].after, || pair[0].place());
        }
        index
    }

    /// Notes the record at a place, where offsets increase from call to call: the tick at which its event enters, or with which
    /// its dead letter is committed.
    pub fn note(&mut self, enter: Tick, place: impl FnOnce() -> Place) {
        if self.firsts.back().is_none_or(|(last, _)| *last < enter) {
            self.firsts.push_back((enter, place()));
        }
    }

    /// The cut with which the windows that end after `committed` can be rebuilt; `here` is where the partition stands.
    /// `committed` never falls.
    ///
    /// An event that enters at or before `committed - size` has left every window that ends after `committed`, so the cut
    /// is at the first event that enters later.
    pub fn cut(&mut self, committed: Tick, windows: &Windows, here: Place) -> Place {
        let expired = Tick(committed.0.saturating_sub(windows.size_ms()));
        while self.firsts.pop_front_if(|(enter, _)| *enter <= expired).is_some() {}
        self.firsts.front().map_or(here, |(_, place)| *place)
    }

    /// Where everything can be found that enters after `tick`, which is not before the last cut was; `here` is where the
    /// partition stands.
    pub fn after(&self, tick: Tick, here: Place) -> Place {
        let at = self.firsts.partition_point(|(enter, _)| *enter <= tick);
        self.firsts.get(at).map_or(here, |(_, place)| *place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place whose clock and history show its offset.
    fn place(offset: i64) -> Place {
        let clock = PartitionClock { clock_ms: Some(offset), floor_ms: None };
        Place { offset, clock, history_from: Some(offset - 1) }
    }

    #[test]
    fn the_cut_is_the_first_event_that_is_still_needed() {
        let windows = Windows::new(100, 10, 0).unwrap();
        let mut index = ReplayIndex::default();
        for (offset, enter) in [(0, 10), (1, 200), (2, 150), (3, 300), (4, 260)] {
            index.note(Tick(enter), || place(offset));
        }
        let mut check = |committed, expected| {
            assert_eq!(index.cut(Tick(committed), &windows, place(5)), place(expected), "committed {committed}");
            assert_eq!(index.after(Tick(committed.saturating_sub(100)), place(5)), place(expected));
        };
        check(i64::MIN, 0);
        check(100, 0);
        // Past the first event; the second enters at 200 and stands before the third.
        check(110, 1);
        check(290, 1);
        check(300, 3);
        check(400, 5);
    }

    #[test]
    fn an_index_goes_on_from_the_points_of_a_checkpoint() {
        let windows = Windows::new(100, 10, 0).unwrap();
        let point = |after, offset| place(offset).resume_point(0, Tick(after));
        let mut index = ReplayIndex::resumed(&[point(100, 3), point(110, 7), point(130, 12)]);
        // Read on from offset 12, which enters at 140.
        index.note(Tick(140), || place(14));
        let mut check = |committed, expected| {
            assert_eq!(index.cut(Tick(committed), &windows, place(20)), place(expected), "{committed}");
        };
        check(200, 3);
        check(209, 3);
        check(210, 7);
        check(229, 7);
        check(230, 14);
        check(240, 20);
    }
}
