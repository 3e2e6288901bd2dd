//! When a checkpoint is taken, and what goes into its manifest: a state machine in worker 0, which does no I/O.
//!
//! ```text
//!  due ──broadcast──▶ every worker: capture ─▶ its process's writer ─▶ written (from every process)
//!                                                                        │ all have
//!                     finished ◀── the writer of process 0 ◀── finish ◀──┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clicktide_dataflows::time::Tick;
use serde::Serialize;

use super::restore::Restore;
use super::writer::Command;
use super::{Manifest, ObjectRef, ResumePoint, names};
use crate::committer::Epoch;
use crate::progress::{IdleAdvance, JobStart, PartitionCut};

/// What is committed, as far as a checkpoint has to know it. Follows the epochs.
#[derive(Clone, Debug)]
pub struct Committed {
    through: Option<Tick>,
    cuts: BTreeMap<i32, PartitionCut>,
    resume: BTreeMap<i32, VecDeque<ResumePoint>>,
    idle_advances: Vec<IdleAdvance>,
    window_size_ms: i64,
}

impl Committed {
    /// What is committed when a run begins.
    pub fn at(start: &JobStart, window_size_ms: i64) -> Self {
        let mut resume: BTreeMap<i32, VecDeque<ResumePoint>> = BTreeMap::new();
        for point in start.restore.iter().flat_map(|restore| &restore.resume) {
            resume.entry(point.partition).or_default().push_back(*point);
        }
        for cut in &start.input {
            // Of what is before the cut, nothing is in a window that is still open.
            let after = start.committed_through.map_or(Tick::MIN, |through| Tick(through.0 - window_size_ms));
            resume
                .entry(cut.partition)
                .or_insert_with(|| VecDeque::from([cut.place().resume_point(cut.partition, after)]));
        }
        Committed {
            through: start.committed_through,
            cuts: start.input.iter().map(|cut| (cut.partition, *cut)).collect(),
            resume,
            idle_advances: start.idle_advances.clone(),
            window_size_ms,
        }
    }

    /// Takes in an epoch that is final.
    pub fn follow(&mut self, epoch: &Epoch) {
        self.through = epoch.through.max(self.through);
        self.cuts.extend(epoch.cuts.iter().map(|cut| (cut.partition, *cut)));
        for point in &epoch.resume {
            let points = self.resume.entry(point.partition).or_default();
            // The same place with a later tick says more.
            while points.pop_back_if(|last| last.offset >= point.offset).is_some() {}
            points.push_back(*point);
        }
        let expired = self.through.map(|through| Tick(through.0.saturating_sub(self.window_size_ms)));
        for points in self.resume.values_mut() {
            while points.get(1).is_some_and(|second| Some(second.after) <= expired) {
                points.pop_front();
            }
        }
        for advance in &epoch.idle_advances {
            // While a partition stays idle its floor rises at one place, where the last says all.
            let same =
                |known: &IdleAdvance| (known.partition, known.next_offset) == (advance.partition, advance.next_offset);
            self.idle_advances.retain(|known| !same(known));
            self.idle_advances.push(*advance);
        }
        let cuts = &self.cuts;
        self.idle_advances
            .retain(|advance| cuts.get(&advance.partition).is_none_or(|cut| cut.replay_from <= advance.next_offset));
    }
}

/// [`Committed`], as the committing thread writes it and worker 0 reads it.
pub type SharedCommitted = Arc<Mutex<Committed>>;

/// A savepoint that somebody waits for.
pub struct SavepointRequest {
    /// Its manifest's name: [`names::savepoint`].
    pub name: String,
    /// Told what came of it.
    pub reply: Box<dyn FnOnce(Result<Taken, String>) + Send>,
}

/// The savepoints that are asked for, from any thread.
#[derive(Clone, Default)]
pub struct SavepointRequests(Arc<Mutex<VecDeque<SavepointRequest>>>);

impl SavepointRequests {
    /// Asks for one.
    pub fn ask(&self, request: SavepointRequest) {
        self.lock().push_back(request);
    }

    fn take(&self) -> Option<SavepointRequest> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SavepointRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A checkpoint or savepoint that has been taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Its name in the store.
    pub name: String,
    /// The window end through which it goes, ms.
    pub through_ms: i64,
    /// The events that it refers to.
    pub events: u64,
    /// The bytes that were written for it: objects and manifest.
    pub bytes_written: u64,
    /// The bytes of all that it refers to.
    pub bytes: u64,
    /// From the request to the end, ms.
    pub took_ms: i64,
}

/// How checkpoints are taken.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// The job's name.
    pub job: String,
    /// The configuration that gives its events their meaning, as JSON.
    pub configuration: String,
    /// The id of the input topic, if it has one.
    pub topic_id: Option<String>,
    /// From the end of one to the beginning of the next, ms.
    pub interval_ms: i64,
    /// How many processes write.
    pub processes: usize,
}

/// Decides when a checkpoint is taken, and puts it together.
pub struct Coordinator {
    settings: CoordinatorSettings,
    generation: i64,
    committed: SharedCommitted,
    requests: SavepointRequests,
    objects: Vec<ObjectRef>,
    number: u64,
    last_ms: i64,
    last_through: Option<Tick>,
    running: Option<Running>,
}

struct Running {
    manifest: Manifest,
    began_ms: i64,
    missing: BTreeSet<usize>,
    failed: Option<String>,
    bytes_written: u64,
    savepoint: Option<SavepointRequest>,
}

impl Running {
    /// The manifest's name.
    fn name(&self) -> String {
        let Manifest { through, generation, .. } = self.manifest;
        self.savepoint.as_ref().map_or_else(|| names::checkpoint(through, generation), |request| request.name.clone())
    }
}

impl Coordinator {
    /// Of a run that has just begun.
    pub fn new(
        settings: CoordinatorSettings,
        start: &JobStart,
        committed: SharedCommitted,
        requests: SavepointRequests,
        now_ms: i64,
    ) -> Self {
        let own = |restore: &&Restore| restore.job == settings.job;
        let restored = start.restore.as_ref().filter(own);
        Coordinator {
            generation: start.generation,
            objects: restored.map_or_else(Vec::new, Restore::objects_to_keep),
            last_through: restored.map(|restore| restore.through),
            settings,
            committed,
            requests,
            number: 0,
            last_ms: now_ms,
            running: None,
        }
    }

    /// Whether a checkpoint is being taken.
    pub fn busy(&self) -> bool {
        self.running.is_some()
    }

    /// Begins a checkpoint if it is time, or a savepoint is asked for; `last` if this is the last opportunity. Returns its
    /// number and the window end through which it goes, for all workers to know.
    pub fn begin(&mut self, now_ms: i64, last: bool) -> Option<(u64, Tick)> {
        if self.busy() {
            return None;
        }
        let savepoint = self.requests.take();
        let due = last || now_ms - self.last_ms >= self.settings.interval_ms;
        if savepoint.is_none() && !due {
            return None;
        }
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(through) = committed.through else {
            if let Some(savepoint) = savepoint {
                (savepoint.reply)(Err("nothing is committed yet".to_owned()));
            }
            return None;
        };
        if savepoint.is_none() && self.last_through >= Some(through) {
            return None;
        }
        self.number += 1;
        self.running = Some(Running {
            manifest: Manifest {
                job: self.settings.job.clone(),
                generation: self.generation,
                configuration: self.settings.configuration.clone(),
                topic_id: self.settings.topic_id.clone(),
                through,
                input: committed.cuts.into_values().collect(),
                resume: committed.resume.into_values().flatten().collect(),
                idle_advances: committed.idle_advances,
                objects: Vec::new(),
            },
            began_ms: now_ms,
            missing: (0..self.settings.processes).collect(),
            failed: None,
            bytes_written: 0,
            savepoint,
        });
        Some((self.number, through))
    }

    /// Takes in what a process has written for a checkpoint. Returns what the writer of process 0 has to do, if it was the
    /// last; an error if the checkpoint has come to nothing.
    ///
    /// # Errors
    /// Why there is no checkpoint.
    pub fn written(
        &mut self,
        number: u64,
        process: usize,
        objects: Vec<ObjectRef>,
        error: Option<String>,
        now_ms: i64,
    ) -> Result<Option<Command>, String> {
        let Some(running) = self.running.as_mut().filter(|_| number == self.number) else { return Ok(None) };
        running.bytes_written += objects.iter().map(|object| object.bytes).sum::<u64>();
        self.objects.extend(objects);
        running.missing.remove(&process);
        running.failed = running.failed.take().or(error);
        if !running.missing.is_empty() {
            return Ok(None);
        }
        if let Some(reason) = running.failed.take() {
            self.end(now_ms, Err(reason.clone()));
            return Err(reason);
        }
        let through = running.manifest.through;
        self.objects.retain(|object| object.needed_until > through);
        running.manifest.objects.clone_from(&self.objects);
        let name = running.name();
        Ok(Some(Command::Finish { number, name, manifest: Box::new(running.manifest.clone()) }))
    }

    /// Takes in that the manifest is there, or why not.
    ///
    /// # Errors
    /// Why there is no checkpoint.
    pub fn finished(&mut self, number: u64, bytes: Result<u64, String>, now_ms: i64) -> Result<Option<Taken>, String> {
        let Some(running) = self.running.as_ref().filter(|_| number == self.number) else { return Ok(None) };
        let taken = bytes.map(|manifest_bytes| {
            let Manifest { through, objects, .. } = &running.manifest;
            Taken {
                name: running.name(),
                through_ms: through.0,
                events: objects.iter().map(|object| object.events).sum(),
                bytes_written: running.bytes_written + manifest_bytes,
                bytes: objects.iter().map(|object| object.bytes).sum::<u64>() + manifest_bytes,
                took_ms: now_ms - running.began_ms,
            }
        });
        if taken.is_ok() && running.savepoint.is_none() {
            self.last_through = Some(running.manifest.through);
        }
        self.end(now_ms, taken.clone());
        taken.map(Some)
    }

    fn end(&mut self, now_ms: i64, outcome: Result<Taken, String>) {
        let savepoint = self.running.take().and_then(|running| running.savepoint);
        match savepoint {
            Some(savepoint) => (savepoint.reply)(outcome),
            // A savepoint does not put off the next checkpoint.
            None => self.last_ms = now_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::JobStart;

    #[test]
    fn an_idle_partition_leaves_one_advance() {
        let mut committed = Committed::at(&JobStart::fresh(2), 50);
        let advance = |partition, next_offset, floor_ms| IdleAdvance { partition, next_offset, floor_ms };
        let mut follow = |advances: &[IdleAdvance]| {
            committed.follow(&Epoch {
                through: Some(Tick(10)),
                finished: false,
                windows: Vec::new(),
                dead_letters: Vec::new(),
                sanitised: Vec::new(),
                cuts: Vec::new(),
                resume: Vec::new(),
                idle_advances: advances.to_vec(),
            });
            committed.idle_advances.clone()
        };
        follow(&[advance(0, 7, 100), advance(1, 7, 100)]);
        follow(&[advance(0, 7, 110)]);
        assert_eq!(
            follow(&[advance(0, 7, 120), advance(0, 8, 130)]),
            [advance(1, 7, 100), advance(0, 7, 120), advance(0, 8, 130)]
        );
    }
}
