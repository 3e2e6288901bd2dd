//! How a run goes on from what the runs before it have committed: the part of a start that asks nobody.
//!
//! ```text
//!  progress and idle advances (committed) ─┐
//!  the newest good checkpoint ─────────────┤
//!  what the run is asked to be ────────────┼─▶ objection, or ─▶ Recovery: what the run commits first, and its JobStart
//!  the bounds of the input's partitions ───┘
//! ```
//!
//! Whoever starts a run fences the older ones first, as what is committed must not change meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use clicktide_dataflows::time::{PartitionClock, Tick, Windows};
use serde::Deserialize;

use crate::checkpoint::Manifest;
use crate::checkpoint::restore::Restore;
use crate::millis::Millis;
use crate::progress::{CommittedProgress, IdleAdvance, JobStart, JobState, PartitionCut, Place, Progress};

/// What a run is asked to be.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The job's name.
    pub job: &'a str,
    /// The topic of its events.
    pub events: &'a str,
    /// That topic's id, where the brokers know such ids.
    pub topic_id: Option<&'a str>,
    /// The topic of its progress.
    pub progress: &'a str,
    /// Whether the job ends where the input ends when it first starts.
    pub until_end: bool,
    /// The configuration that gives the results their meaning, as JSON.
    pub configuration: &'a str,
    /// Says, line by line, how the configuration that results were committed with differs from this run's.
    pub differences: &'a dyn Fn(&str) -> Vec<String>,
    /// Its windows.
    pub windows: Windows,
    /// How far its events may come out of order, ms.
    pub bound_ms: i64,
    /// Whether it keeps the past of its partitions, so that this too is read again.
    pub keeps_history: bool,
    /// Whether it goes on where records it needs are gone.
    pub accept_gap: bool,
    /// The greatest generation that has left a mark beside what is committed; 0 if none has.
    pub generation_seen: i64,
}

/// Which offsets of a partition can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first that is left.
    pub low: i64,
    /// The last stable offset: all before it can be read, transactions committed.
    pub high: i64,
}

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// What the run commits before it reads anything.
    pub progress: Progress,
    /// The floors of partitions that are new, committed with it.
    pub new_advances: Vec<IdleAdvance>,
    /// Floors that nothing needs any more, deleted with it.
    pub outdated: Vec<IdleAdvance>,
    /// What every worker starts from.
    pub start: JobStart,
}

/// The generation of a job that no run has begun yet.
const NOT_BEGUN: i64 = 0;

impl Recovery {
    /// Begins a job that has committed nothing, at the offset in `begins` of each partition of `log`.
    pub fn new_job(asked: &Asked<'_>, begins: &[i64], log: &[Bounds]) -> Self {
        let cut = |(partition, (&offset, bounds)): (usize, (&i64, &Bounds))| {
            PartitionCut::start(partition as i32, offset, asked.until_end.then_some(bounds.high.max(offset)))
        };
        let progress = Progress {
            job: asked.job.to_owned(),
            generation: asked.generation_seen + 1,
            committed_through: None,
            began_after: None,
            state: JobState::Running,
            configuration: asked.configuration.to_owned(),
            topic_id: asked.topic_id.map(str::to_owned),
            input: begins.iter().zip(log).enumerate().map(cut).collect(),
        };
        Self::new(progress, Vec::new(), Vec::new(), log, None)
    }

    /// Begins a job that has committed nothing where another one stood at its savepoint.
    ///
    /// If both mean the same, the savepoint's events are taken over. Otherwise they are read again from the input, as they are
    /// to be judged and hashed anew; then the first windows are those that lie behind the savepoint's reach.
    ///
    /// # Errors
    /// Why that can't be, and what would be right.
    pub fn taken_over(
        asked: &Asked<'_>,
        savepoint: Restore,
        manifest: &Manifest,
        log: &[Bounds],
    ) -> Result<Self, String> {
        let before: TakenOver = serde_json::from_str(&manifest.configuration)
            .map_err(|e| format!("the savepoint's configuration can't be read: {e}"))?;
        if before.kafka.events_topic != asked.events {
            return Err(format!(
                "the savepoint is of topic {:?}, and the job reads {:?}",
                before.kafka.events_topic, asked.events
            ));
        }
        plausible(Some(manifest.through.0), manifest.generation, &manifest.input)?;
        let same = (asked.differences)(&manifest.configuration).is_empty();
        let size_ms = before.windows.size.0;
        let reach_ms = manifest.through.0 + (asked.windows.size_ms() - size_ms).max(0);
        let through = asked.windows.tick_at_or_before(reach_ms);
        let mut new_advances = manifest.idle_advances.clone();
        let mut input = Vec::new();
        for cut in &manifest.input {
            // As a floor, which an audit reads too, the clock's effect on what follows is the same.
            let floor_ms = cut.clock().watermark_ms(before.windows.disorder_bound.0);
            let at = |(next_offset, floor_ms)| IdleAdvance { partition: cut.partition, next_offset, floor_ms };
            // What comes from the position on is judged against the window end, by the audit as well.
            let floors = floor_ms.map(|floor_ms| (cut.replay_from, floor_ms));
            new_advances.extend(floors.into_iter().chain([(cut.position, through.0)]).map(at));
            let until = asked.until_end.then(|| bounds_of(cut.partition, log).map_or(0, |bounds| bounds.high));
            let history_from = cut.history_from.filter(|_| asked.keeps_history);
            let cut = PartitionCut { clock_ms: None, floor_ms, until, history_from, ..*cut };
            input.push(PartitionCut { began: cut.reads_from(), ..cut });
        }
        let progress = Progress {
            job: asked.job.to_owned(),
            generation: NOT_BEGUN,
            committed_through: Some(through.0),
            began_after: Some(through.0),
            state: JobState::Running,
            configuration: asked.configuration.to_owned(),
            topic_id: manifest.topic_id.clone(),
            input,
        };
        Self::resume(asked, progress, Vec::new(), new_advances, log, same.then_some(savepoint))
    }

    /// Goes on from `committed`, which is not objected to, over the partitions of `log`; `restorable` is the newest good
    /// checkpoint, which is used if the input reaches back to it.
    ///
    /// # Errors
    /// Why that can't be, and what would be right.
    pub fn resumed(
        asked: &Asked<'_>,
        committed: Progress,
        idle_advances: Vec<IdleAdvance>,
        log: &[Bounds],
        restorable: Option<Restore>,
    ) -> Result<Self, String> {
        Self::resume(asked, committed, idle_advances, Vec::new(), log, restorable)
    }

    /// The same with advances that have yet to be committed.
    fn resume(
        asked: &Asked<'_>,
        committed: Progress,
        idle_advances: Vec<IdleAdvance>,
        mut new_advances: Vec<IdleAdvance>,
        log: &[Bounds],
        restorable: Option<Restore>,
    ) -> Result<Self, String> {
        plausible(committed.committed_through, committed.generation, &committed.input)?;
        if let Some((was, is)) = committed.topic_id.as_deref().zip(asked.topic_id).filter(|(was, is)| was != is) {
            return Err(format!(
                "topic {:?} was made anew: its id is {is}, and was {was}; start a job with another name",
                asked.events
            ));
        }
        let mut input = committed.input.clone();
        let low = |partition| bounds_of(partition, log).map_or(i64::MIN, |bounds| bounds.low);
        let reached = |restore: &Restore| {
            let place = |cut: &PartitionCut| restore.resume_point(cut.partition).map_or(cut.place(), |at| at.place());
            asked.accept_gap || input.iter().all(|cut| low(cut.partition) <= place(cut).reads_from())
        };
        let restorable = restorable.map(|restore| restore.no_earlier_than(&committed.input));
        let mut restore = restorable.filter(reached);
        for cut in &mut input {
            made_anew(asked, cut, log)?;
            let point = restore.as_ref().and_then(|restore| restore.resume_point(cut.partition));
            let place = point.map_or(cut.place(), |point| point.place());
            let low = low(cut.partition);
            if low <= place.reads_from() {
                continue;
            }
            if !asked.accept_gap {
                return Err(gone(asked, cut.partition, place.reads_from(), low));
            }
            if low <= place.offset {
                // Of the past, what is left of it is known.
                *cut = cut.from_place(cut.place().knowing_from(low));
                let points = restore.iter_mut().flat_map(|restore| &mut restore.resume);
                for point in points.filter(|point| point.partition == cut.partition) {
                    *point = point.place().knowing_from(low).resume_point(point.partition, point.after);
                }
                continue;
            }
            let floor_ms = place.clock.watermark_ms(asked.bound_ms);
            let partition = cut.partition;
            let place = Place { offset: low, history_from: None, ..place };
            let without_clock = Place { clock: PartitionClock { clock_ms: None, floor_ms }, ..place };
            *cut = PartitionCut { position: low.max(cut.position), ..cut.from_place(without_clock) };
            new_advances.extend(floor_ms.map(|floor_ms| IdleAdvance { partition, next_offset: low, floor_ms }));
            if let Some((restore, point)) = restore.as_mut().zip(point) {
                restore.resume.retain(|other| other.partition != partition);
                restore.resume.push(place.resume_point(partition, point.after));
            }
        }
        let bounded = input.iter().any(|cut| cut.until.is_some());
        for partition in 0..log.len() as i32 {
            if input.iter().any(|cut| cut.partition == partition) {
                continue;
            }
            let bounds = log[partition as usize];
            let begin = bounds.low.max(0);
            if begin > 0 && !asked.accept_gap {
                return Err(gone(asked, partition, 0, begin));
            }
            // A job that takes over starts here, and a bounded one ends where the log does then.
            let until = if committed.generation == NOT_BEGUN { bounds.high } else { 0 };
            // A new partition starts with what has been committed as its floor, which a replay has to know.
            input.push(PartitionCut {
                floor_ms: committed.committed_through,
                position: begin,
                replay_from: begin,
                ..PartitionCut::start(partition, 0, bounded.then_some(until))
            });
            new_advances.extend(committed.committed_through.map(|floor_ms| IdleAdvance {
                partition,
                next_offset: begin,
                floor_ms,
            }));
        }
        let generation = committed.generation.max(asked.generation_seen) + 1;
        let topic_id = asked.topic_id.map(str::to_owned);
        let progress = Progress { generation, topic_id, input, ..committed };
        Ok(Self::new(progress, idle_advances, new_advances, log, restore))
    }

    fn new(
        progress: Progress,
        idle_advances: Vec<IdleAdvance>,
        new_advances: Vec<IdleAdvance>,
        log: &[Bounds],
        restore: Option<Restore>,
    ) -> Self {
        let gone = |advance: &IdleAdvance| {
            bounds_of(advance.partition, log).is_none_or(|bounds| advance.next_offset < bounds.low)
        };
        let replayed = |advance: &IdleAdvance| {
            let mut cuts = progress.input.iter();
            cuts.any(|cut| cut.partition == advance.partition && cut.replay_from <= advance.next_offset)
        };
        let outdated = idle_advances.iter().filter(|advance| gone(advance) && !replayed(advance)).copied().collect();
        // The record of a later one replaces that of an earlier one at the same place, so the greatest is written.
        let mut floors: BTreeMap<(i32, i64), i64> = BTreeMap::new();
        for IdleAdvance { partition, next_offset, floor_ms } in idle_advances.iter().chain(&new_advances) {
            let greatest = floors.entry((*partition, *next_offset)).or_insert(*floor_ms);
            *greatest = *floor_ms.max(greatest);
        }
        let new: BTreeSet<_> = new_advances.iter().map(|advance| (advance.partition, advance.next_offset)).collect();
        let advances = floors.into_iter().map(|((partition, next_offset), floor_ms)| IdleAdvance {
            partition,
            next_offset,
            floor_ms,
        });
        let idle_advances: Vec<_> = advances.collect();
        let new_advances =
            idle_advances.iter().filter(|at| new.contains(&(at.partition, at.next_offset))).copied().collect();
        let start = JobStart {
            generation: progress.generation,
            committed_through: progress.committed_through.map(Tick),
            topic_id: progress.topic_id.clone(),
            input: progress.input.clone(),
            idle_advances,
            restore,
            probe: None,
        };
        Recovery { progress, new_advances, outdated, start }
    }
}

/// Why a run may not go on from what is committed, and what would be right.
pub fn objection(asked: &Asked<'_>, committed: &CommittedProgress) -> Option<String> {
    let committed = committed.progress.as_ref()?;
    let bounded = committed.input.iter().any(|cut| cut.until.is_some());
    let changed = (asked.differences)(&committed.configuration);
    if committed.job != asked.job {
        let owner = &committed.job;
        return Some(format!(
            "its progress topic {:?} belongs to job {owner:?}; give each job its own",
            asked.progress
        ));
    }
    if !changed.is_empty() {
        let lines = changed.join("\n  ");
        return Some(format!(
            "its configuration would change the meaning of what is already committed; start a job with another name \
             (and progress topic), or undo:\n  {lines}"
        ));
    }
    if bounded && !asked.until_end {
        return Some("it was started with --until-end; start an unbounded job under another name".to_owned());
    }
    if !bounded && asked.until_end {
        return Some("it was started without --until-end; start a bounded job under another name".to_owned());
    }
    (committed.state == JobState::Finished)
        .then(|| "it is finished: all of its input has been read and all windows are committed".to_owned())
}

/// Further from the epoch than any time that a run commits, ms, which validation keeps within 2^62; and more than the runs of any
/// job.
const PLAUSIBLE_MAX: u64 = 3 << 61;

/// Refuses numbers that no run has written, before anything is computed with them.
fn plausible(committed_through: Option<i64>, generation: i64, input: &[PartitionCut]) -> Result<(), String> {
    let times = input.iter().flat_map(|cut| [cut.clock_ms, cut.floor_ms]).chain([committed_through]);
    if let Some(number) = times.flatten().chain([generation]).find(|number| number.unsigned_abs() > PLAUSIBLE_MAX) {
        return Err(format!("what is committed says {number} where a time or a count of runs should be"));
    }
    let offsets = input.iter().flat_map(|cut| {
        let PartitionCut { began, position, replay_from, until, history_from, .. } = *cut;
        [Some(began), Some(position), Some(replay_from), until, history_from]
    });
    match offsets.flatten().find(|offset| *offset < 0) {
        Some(offset) => Err(format!("what is committed says {offset} where an offset should be")),
        None => Ok(()),
    }
}

fn bounds_of(partition: i32, log: &[Bounds]) -> Option<&Bounds> {
    log.get(usize::try_from(partition).ok()?)
}

/// What a savepoint's configuration tells whoever takes over.
#[derive(Deserialize)]
struct TakenOver {
    kafka: TakenOverTopics,
    windows: TakenOverWindows,
}

#[derive(Deserialize)]
struct TakenOverTopics {
    events_topic: String,
}

#[derive(Deserialize)]
struct TakenOverWindows {
    size: Millis,
    disorder_bound: Millis,
}

/// Refuses a partition whose records are not those that were read before.
fn made_anew(asked: &Asked<'_>, cut: &PartitionCut, log: &[Bounds]) -> Result<(), String> {
    let (topic, partition) = (asked.events, cut.partition);
    let Some(&Bounds { high, .. }) = bounds_of(partition, log) else {
        return Err(format!(
            "topic {topic:?} has {} partitions and no partition {partition}, which was read before; was it made anew?",
            log.len(),
        ));
    };
    if cut.position > high {
        return Err(format!(
            "partition {partition} of topic {topic:?} ends at {high}, and has been read up to {}: it was made anew, or \
             the broker lost data; start a job with another name",
            cut.position
        ));
    }
    Ok(())
}

/// What to say of records that are needed and are not there.
fn gone(asked: &Asked<'_>, partition: i32, from: i64, low: i64) -> String {
    let past = if asked.keeps_history { ", or by which copies and pages are told," } else { "" };
    format!(
        "{} records of partition {partition} of topic {:?} are gone (offsets {from} to {low}, deleted by retention), which \
         windows still open need{past} and no checkpoint holds; go on without them by --accept-gap, and those windows \
         will lack them, or start a job with another name",
        low.saturating_sub(from),
        asked.events
    )
}

#[cfg(test)]
mod tests {
    use clicktide_dataflows::time::PartitionClock;

    use super::*;
    use crate::checkpoint::ResumePoint;

    const LOG: [Bounds; 2] = [Bounds { low: 10, high: 100 }, Bounds { low: 0, high: 50 }];

    fn asked(until_end: bool) -> Asked<'static> {
        let differences = &|committed: &str| if committed == "{}" { Vec::new() } else { vec![committed.to_owned()] };
        Asked {
            job: "j",
            events: "e",
            topic_id: Some("id"),
            progress: "p",
            until_end,
            configuration: "{}",
            differences,
            windows: Windows::new(100, 10, 0).unwrap(),
            bound_ms: 5,
            keeps_history: true,
            accept_gap: false,
            generation_seen: 0,
        }
    }

    fn committed(replay_from: i64, position: i64) -> Progress {
        Progress {
            generation: 4,
            committed_through: Some(700),
            input: vec![PartitionCut { replay_from, position, ..PartitionCut::start(0, 0, None) }],
            ..Recovery::new_job(&asked(false), &[0], &LOG).progress
        }
    }

    #[test]
    fn a_new_job_begins_where_it_is_asked_to_and_ends_where_the_log_does() {
        let Recovery { progress, start, .. } = Recovery::new_job(&asked(true), &[10, 60], &LOG);
        assert_eq!(progress.input, [PartitionCut::start(0, 10, Some(100)), PartitionCut::start(1, 60, Some(60))]);
        assert_eq!((start.generation, start.committed_through, &start.input), (1, None, &progress.input));
    }

    #[test]
    fn numbers_that_no_run_has_written_are_refused() {
        let check = |change: &dyn Fn(&mut Progress), expected: &str| {
            let mut progress = committed(12, 30);
            change(&mut progress);
            let resumed = Recovery::resumed(&asked(false), progress, Vec::new(), &LOG, None);
            assert_eq!(resumed.err().as_deref(), Some(expected));
        };
        let time = "what is committed says 9223372036854775807 where a time or a count of runs should be";
        check(&|progress| progress.committed_through = Some(i64::MAX), time);
        check(&|progress| progress.input[0].clock_ms = Some(i64::MAX), time);
        check(&|progress| progress.generation = i64::MAX, time);
        let offset = "what is committed says -1 where an offset should be";
        check(&|progress| progress.input[0].replay_from = -1, offset);
        check(&|progress| progress.input[0].history_from = Some(-1), offset);
        check(&|progress| progress.input[0].until = Some(-1), offset);
    }

    #[test]
    fn a_resumed_job_gives_new_partitions_a_floor_and_forgets_floors_without_records() {
        let advance = |partition, next_offset| IdleAdvance { partition, next_offset, floor_ms: 600 };
        let advances = vec![advance(0, 9), advance(0, 15), advance(7, 1)];
        let recovery = Recovery::resumed(&asked(false), committed(12, 30), advances.clone(), &LOG, None).unwrap();
        let floor = IdleAdvance { partition: 1, next_offset: 0, floor_ms: 700 };
        assert_eq!(recovery.progress.generation, 5);
        assert_eq!(recovery.progress.input[1], PartitionCut { floor_ms: Some(700), ..PartitionCut::start(1, 0, None) });
        assert_eq!(recovery.new_advances, [floor]);
        assert_eq!(recovery.outdated, [advance(0, 9), advance(7, 1)]);
        assert_eq!(recovery.start.input, recovery.progress.input);
        let mut all = [advances, vec![floor]].concat();
        all.sort_unstable();
        assert_eq!(recovery.start.idle_advances, all);
        assert_eq!(recovery.start.committed_through, Some(Tick(700)));
    }

    #[test]
    fn a_checkpoint_leads_to_nothing_that_is_not_needed_any_more() {
        let clock = PartitionClock { clock_ms: Some(5), floor_ms: None };
        let at = |after, offset| ResumePoint { partition: 0, after: Tick(after), offset, clock, history_from: None };
        let restore = Restore {
            checkpoint: "c".to_owned(),
            job: "j".to_owned(),
            through: Tick(690),
            objects: Vec::new(),
            resume: vec![at(600, 3), at(690, 9), at(695, 20)],
        };
        let progress = Progress {
            input: vec![PartitionCut { clock_ms: Some(7), ..committed(12, 30).input[0] }],
            ..committed(12, 30)
        };
        let recovery = Recovery::resumed(&asked(false), progress, Vec::new(), &LOG, Some(restore)).unwrap();
        let resume = recovery.start.restore.unwrap().resume;
        let places: Vec<_> = resume.iter().map(|point| (point.offset, point.clock.clock_ms)).collect();
        assert_eq!(places, [(12, Some(7)), (12, Some(7)), (20, Some(5))]);
    }

    #[test]
    fn what_can_not_be_read_again_is_refused() {
        let check = |replay_from, position, log: &[Bounds], expected: &str| {
            let refused =
                Recovery::resumed(&asked(false), committed(replay_from, position), Vec::new(), log, None).err();
            assert!(refused.as_deref().is_some_and(|reason| reason.contains(expected)), "{refused:?}");
        };
        check(9, 30, &LOG, "1 records of partition 0 of topic \"e\" are gone");
        check(12, 101, &LOG, "ends at 100, and has been read up to 101");
        check(12, 30, &[], "no partition 0");
    }

    /// A savepoint of windows of 60 with another bound, through 700, of partition 0.
    fn savepoint(configuration: &str) -> Manifest {
        let cut =
            PartitionCut { replay_from: 12, position: 30, clock_ms: Some(655), ..PartitionCut::start(0, 3, None) };
        Manifest {
            job: "old".to_owned(),
            generation: 8,
            configuration: configuration.to_owned(),
            topic_id: Some("id".to_owned()),
            through: Tick(700),
            input: vec![cut],
            resume: vec![Place { offset: 29, ..cut.place() }.resume_point(0, Tick(700))],
            idle_advances: vec![
                IdleAdvance { partition: 0, next_offset: 12, floor_ms: 600 },
                IdleAdvance { partition: 0, next_offset: 30, floor_ms: 745 },
            ],
            objects: Vec::new(),
        }
    }

    const OLD: &str = r#"{"kafka":{"events_topic":"e"},"windows":{"size":"60ms","disorder_bound":"20ms"}}"#;

    #[test]
    fn a_job_that_takes_over_begins_with_the_first_window_that_is_complete() {
        let manifest = savepoint(OLD);
        let restore = Restore::of("savepoints/s".to_owned(), manifest.clone());
        let taken = Recovery::taken_over(&asked(true), restore, &manifest, &LOG).unwrap();
        // What lies 100 before 740 has been read from offset 12 on.
        assert_eq!((taken.progress.committed_through, taken.progress.began_after), (Some(740), Some(740)));
        assert_eq!(taken.start.restore, None);
        let first = PartitionCut {
            began: 12,
            replay_from: 12,
            position: 30,
            floor_ms: Some(635),
            ..PartitionCut::start(0, 0, Some(100))
        };
        let second = PartitionCut { floor_ms: Some(740), ..PartitionCut::start(1, 0, Some(50)) };
        assert_eq!(taken.progress.input, [first, second]);
        let advance = |partition, next_offset, floor_ms| IdleAdvance { partition, next_offset, floor_ms };
        let advances = [advance(0, 12, 635), advance(0, 30, 745), advance(1, 0, 740)];
        assert_eq!(taken.new_advances, advances);
        assert_eq!(taken.start.idle_advances, advances);
        assert_eq!(taken.progress.generation, 1);
    }

    #[test]
    fn the_past_is_read_again_as_far_as_it_is_needed() {
        let mut progress = committed(12, 30);
        progress.input[0].history_from = Some(8);
        let resumed = |accept_gap, low, restorable: Option<Restore>| {
            let log = [Bounds { low, high: 100 }, LOG[1]];
            Recovery::resumed(&Asked { accept_gap, ..asked(false) }, progress.clone(), Vec::new(), &log, restorable)
        };
        let place = |recovery: &Recovery| recovery.start.read_from(&recovery.start.input[0]).place();
        let recovery = resumed(false, 8, None).unwrap();
        assert_eq!((place(&recovery).offset, place(&recovery).history_from), (12, Some(8)));
        let refused = resumed(false, 9, None).unwrap_err();
        assert!(refused.contains("1 records of partition 0 of topic \"e\" are gone (offsets 8 to 9"), "{refused}");
        // The clock stands; of what was before, the rest is known.
        let recovery = resumed(true, 9, None).unwrap();
        assert_eq!((place(&recovery).offset, place(&recovery).history_from), (12, Some(9)));
        assert_eq!(place(&recovery).clock, progress.input[0].clock());
        assert_eq!(resumed(true, 12, None).unwrap().start.input[0].history_from, None);
        let beyond = resumed(true, 14, None).unwrap();
        assert_eq!((place(&beyond).offset, place(&beyond).history_from), (14, None));

        // A checkpoint has a past of its own, which has to be there too.
        let restore = || {
            let point = |after, offset, history_from| {
                let place = Place { offset, history_from: Some(history_from), ..progress.input[0].place() };
                place.resume_point(0, Tick(after))
            };
            let resume = vec![point(690, 12, 8), point(700, 25, 16)];
            Restore { resume, ..Restore::of("c".to_owned(), savepoint(OLD)) }
        };
        let restore = || Restore { through: Tick(700), ..restore() };
        let recovery = resumed(false, 16, Some(restore())).unwrap();
        assert_eq!((place(&recovery).offset, place(&recovery).history_from), (25, Some(16)));
        assert!(resumed(false, 17, Some(restore())).is_err());
        let recovery = resumed(true, 17, Some(restore())).unwrap();
        assert_eq!((place(&recovery).offset, place(&recovery).history_from), (25, Some(17)));
    }

    #[test]
    fn a_job_that_takes_over_knows_what_the_savepoint_reaches_back_to() {
        let mut manifest = savepoint(OLD);
        let from = manifest.input[0].replay_from;
        manifest.input[0].history_from = Some(from - 2);
        let begins = |keeps_history| {
            let restore = Restore::of("savepoints/s".to_owned(), manifest.clone());
            let asked = Asked { keeps_history, ..asked(true) };
            let cut = Recovery::taken_over(&asked, restore, &manifest, &LOG).unwrap().progress.input[0];
            (cut.began, cut.replay_from, cut.history_from)
        };
        assert_eq!(begins(true), (from - 2, from, Some(from - 2)));
        assert_eq!(begins(false), (from, from, None));
    }

    #[test]
    fn a_job_that_takes_over_refuses_what_it_can_not_read() {
        let check = |configuration: &str, log: &[Bounds], expected: &str| {
            let manifest = savepoint(configuration);
            let restore = Restore::of("savepoints/s".to_owned(), manifest.clone());
            let refused = Recovery::taken_over(&asked(false), restore, &manifest, log).err();
            assert!(refused.as_deref().is_some_and(|reason| reason.contains(expected)), "{refused:?}");
        };
        check(OLD, &[Bounds { low: 13, high: 100 }], "1 records of partition 0 of topic \"e\" are gone");
        check(OLD, &[LOG[0], Bounds { low: 5, high: 9 }], "5 records of partition 1 of topic \"e\" are gone");
        check(&OLD.replace(r#""e""#, r#""f""#), &LOG, "is of topic \"f\", and the job reads \"e\"");
        check("{}", &LOG, "configuration can't be read");
    }

    #[test]
    fn objections() {
        let check = |until_end, change: &dyn Fn(&mut Progress), expected: Option<&str>| {
            let mut progress = committed(12, 30);
            change(&mut progress);
            let committed = CommittedProgress { progress: Some(progress), idle_advances: Vec::new() };
            let reason = objection(&asked(until_end), &committed);
            assert!(reason.is_some() == expected.is_some(), "{reason:?}");
            assert!(reason.is_none_or(|reason| reason.contains(expected.unwrap_or_default())));
        };
        check(false, &|_| {}, None);
        check(true, &|_| {}, Some("without --until-end"));
        check(false, &|progress| progress.input[0].until = Some(50), Some("with --until-end"));
        check(false, &|progress| progress.state = JobState::Finished, Some("it is finished"));
        check(false, &|progress| progress.job = "k".to_owned(), Some("belongs to job \"k\""));
        check(false, &|progress| progress.configuration = "size".to_owned(), Some("or undo:\n  size"));
        assert_eq!(objection(&asked(true), &CommittedProgress::default()), None);
    }
}
