//! The job: source, dataflow and committer in every worker, and the loop that steps them.
//!
//! ```text
//!                                               restore (what a checkpoint holds)
//!                                                  ▼
//!  partitions p with p mod W = w ─▶ source ─┬───▶ concat ─▶ page_analytics ─▶ commit (worker 0) ─▶ sink
//!                                    ▲  ▲   └─▶ capture ─▶ checkpoint writer     │
//!                                    │  └──────── probe: committed ◀─────────────┘   flow control
//!                                    └───── gossip ◀──▶ the other workers   idleness, checkpoints, orderly stop
//! ```
//!
//! This module alone knows all the parts; it is given readers and a sink, and so runs over Kafka, files or memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clicktide_dataflows::page_analytics::page_analytics;
use clicktide_dataflows::time::Tick;
use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandle;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Concat, Inspect, Probe};
use timely::scheduling::{Activator, SyncActivator};
use timely::worker::Worker;

use crate::checkpoint::capture::{CaptureShared, capture};
use crate::checkpoint::coordinator::{SharedCommitted, Taken};
use crate::checkpoint::restore::restore;
use crate::checkpoint::store::Store;
use crate::checkpoint::worker::{Checkpoints, News, WorkerCheckpoints};
use crate::cluster::Allocators;
use crate::committer::{CommitEpoch, CommitError, CommitterShared, Epoch, StartCommitter, commit, committing_thread};
use crate::dataflow_metrics::DataflowMetrics;
use crate::logging;
use crate::progress::{JobStart, PartitionCut};
use crate::report::{ProcessReport, WorkerReport};
use crate::source::{
    PartitionReport, SourceCounts, SourceError, SourcePartition, SourceSettings, SourceShared, SourceStreams, source,
};

/// Wakes the source of a worker when a reader has something.
#[derive(Clone, Default)]
pub struct Waker(Arc<OnceLock<SyncActivator>>);

impl Waker {
    /// Has the source scheduled; may be called from any thread.
    pub fn wake(&self) {
        if let Some(activator) = self.0.get() {
            // The worker is gone only when the job has ended.
            activator.activate().ok();
        }
    }
}

/// A clock that does not go back, ms from any moment on; the same in all of a process.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's monotonic clock.
pub fn monotonic_clock() -> NowMs {
    let began = Instant::now();
    Arc::new(move || i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX))
}

/// Opens partitions for reading, on the thread of the worker that will read them.
pub trait OpenPartitions: Send + Sync {
    /// Readers for `cuts`, each from where it [reads from](PartitionCut::reads_from) on, in worker `worker` of the job. A reader calls `waker` when it has something after it had nothing.
    ///
    /// # Errors
    /// When a partition can't be read.
    fn open(
        &self,
        worker: usize,
        start: &JobStart,
        cuts: &[PartitionCut],
        waker: Waker,
    ) -> Result<Vec<SourcePartition>, SourceError>;
}

/// Watches a job. Called from worker threads and from the committing thread; must not block.
pub trait ObserveJob: Send + Sync {
    /// A worker of this process has been stepped, and this is what it has counted since the last time.
    fn stepped(&self, worker: usize, counts: &SourceCounts) {
        let _ = (worker, counts);
    }
    /// What this process says of itself to the others.
    fn process(&self) -> ProcessReport {
        ProcessReport::default()
    }
    /// What a worker of any process says of itself, about once a second.
    fn worker(&self, report: &WorkerReport) {
        let _ = report;
    }
    /// What is known of a partition, of any process, and which worker reads it: a worker of this process, if `own`.
    fn partition(&self, report: &PartitionReport, worker: usize, own: bool) {
        let _ = (report, worker, own);
    }
    /// Every window that ends before `first` is final, or was computed again after a restart. Seen in every process.
    fn reached(&self, first: Tick) {
        let _ = first;
    }
    /// A checkpoint or savepoint has been taken, or why not. Seen in worker 0.
    fn checkpoint(&self, outcome: &Result<Taken, String>) {
        let _ = outcome;
    }
    /// An epoch is final.
    fn committed(&self, epoch: Epoch) {
        let _ = epoch;
    }
    /// The job has failed and can't go on. In a program of several processes this is where to exit, as the other workers
    /// and processes would wait for ever.
    fn failed(&self, error: &JobError) {
        let _ = error;
    }
}

/// Why a job has ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The input can't be read on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The output can't be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What a checkpoint holds can't be read, which was there when the run began.
    #[error("the checkpoint can't be restored: {0}")]
    Restore(String),
    /// A worker thread is gone.
    #[error("a worker thread ended: {0}")]
    Worker(String),
}

/// How a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The input was bounded and all of its windows are committed.
    Finished,
    /// Somebody asked for it: what was complete is committed, the rest is not.
    Stopped,
    /// See [`ObserveJob::failed`].
    Failed,
    /// [`Pace`] said so.
    Killed,
}

/// All that the workers of one process need.
pub struct Job {
    /// Workers in this process, as in every other.
    pub workers: usize,
    /// How partitions are read.
    pub source: SourceSettings,
    /// Where the run starts.
    pub start: JobStart,
    /// Opens the partitions.
    pub partitions: Box<dyn OpenPartitions>,
    /// Takes the results, in worker 0 of the job: made by [`committer`]. None in the other processes.
    pub committer: Mutex<Option<StartCommitter>>,
    /// Where to read what the start says is restored.
    pub restore_from: Option<Arc<dyn Store>>,
    /// How checkpoints are taken, if they are.
    pub checkpoints: Option<Checkpoints>,
    /// Watches.
    pub observer: Arc<dyn ObserveJob>,
    /// What idleness is told by.
    pub now_ms: NowMs,
    /// When workers take their turns.
    pub pace: Arc<dyn Pace>,
    /// Set to have the whole job stop in good order.
    pub stop: Arc<AtomicBool>,
}

/// Commits to `sink` on a thread of its own, seen by `observer`: what [`Job::committer`] is in process 0.
pub fn committer(
    sink: Box<dyn CommitEpoch>,
    observer: &Arc<dyn ObserveJob>,
    checkpoints: Option<&Checkpoints>,
) -> Mutex<Option<StartCommitter>> {
    let followed = checkpoints.map(|checkpoints| Arc::clone(&checkpoints.committed));
    Mutex::new(Some(committing_thread(sink, committed(observer, followed))))
}

/// What sees every epoch that is final: `observer`, after what checkpoints have to know.
pub fn committed(observer: &Arc<dyn ObserveJob>, followed: Option<SharedCommitted>) -> Box<dyn FnMut(Epoch) + Send> {
    let observer = Arc::clone(observer);
    Box::new(move |epoch| {
        if let Some(followed) = &followed {
            followed.lock().unwrap_or_else(PoisonError::into_inner).follow(&epoch);
        }
        observer.committed(epoch);
    })
}

/// Says when a worker takes its turns.
pub trait Pace: Send + Sync {
    /// Waits until a worker of this process may take a turn, in which it may sleep for so long where there is nothing to do.
    /// None: it ends here and now, as if the process had been killed. In its first turn a worker builds its dataflows.
    fn turn(&self, worker: usize) -> Option<Duration>;

    /// A worker of this process takes no more turns. Where it has finished, it still serves the others.
    fn ended(&self, worker: usize, ended: Ended) {
        let _ = (worker, ended);
    }
}

/// Turn after turn, with short naps where there is nothing to do.
pub struct Unpaced;

impl Pace for Unpaced {
    fn turn(&self, _worker: usize) -> Option<Duration> {
        Some(PARK_MAX)
    }
}

/// Runs the workers of this process until the job ends everywhere.
///
/// # Errors
/// When the threads can't be started, or a worker thread panicked.
pub fn run(allocators: Allocators, job: Arc<Job>) -> Result<Ended, JobError> {
    let Allocators { builders, guard, .. } = allocators;
    let config = timely::WorkerConfig::default();
    let guards = timely::execute::execute_from(builders, guard, config, move |worker| run_worker(worker, &job))
        .map_err(JobError::Worker)?;
    let mut ended = Ended::Finished;
    for result in guards.join() {
        match result.map_err(JobError::Worker)? {
            Ended::Finished => {}
            other => ended = other,
        }
    }
    Ok(ended)
}

/// What workers tell each other beside the dataflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Gossip {
    /// How a partition stands that this worker reads.
    Partition(usize, PartitionReport),
    /// What I have done so far.
    Worker(WorkerReport),
    /// A checkpoint is being taken.
    Checkpoint(News),
    /// What is logged from now on.
    Logging(String),
    /// Let us stop.
    Stop,
    /// What was complete is committed: let go.
    Stopped,
}

/// How long a worker sleeps at most when nothing wakes it.
const PARK_MAX: Duration = Duration::from_millis(20);
/// How often a source looks around when nothing wakes it.
const ACTIVATE_EVERY_MS: i64 = 20;
/// How often a worker reports what has not changed the course of things.
const REPORT_EVERY_MS: i64 = 250;
/// How often it tells the others of itself.
const TELL_EVERY_MS: i64 = 1_000;

fn run_worker(worker: &mut Worker, job: &Job) -> Ended {
    logging::begin_worker(worker.index());
    let ended = take_turns(worker, job);
    if ended != Ended::Finished {
        // Not drained: a dataflow that is dropped closes no window.
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }
    job.pace.ended(worker.index() % job.workers, ended);
    ended
}

fn take_turns(worker: &mut Worker, job: &Job) -> Ended {
    let turn = |worker: &Worker| job.pace.turn(worker.index() % job.workers);
    if turn(worker).is_none() {
        return Ended::Killed;
    }
    let mut stepper = match WorkerLoop::build(worker, job) {
        Ok(built) => built,
        Err(error) => {
            job.observer.failed(&error);
            job.stop.store(true, Ordering::Relaxed);
            return Ended::Failed;
        }
    };
    let ended = loop {
        let Some(nap) = turn(worker) else { return Ended::Killed };
        if let Some(ended) = stepper.turn(worker, job, nap) {
            break ended;
        }
    };
    stepper.report(worker, job, true);
    ended
}

/// A worker's dataflows and what is shared with them.
struct WorkerLoop {
    source: Rc<RefCell<SourceShared>>,
    committer: Rc<RefCell<CommitterShared>>,
    committed: ProbeHandle<Tick>,
    last_committed: Option<Tick>,
    source_activator: Activator,
    source_activated_ms: i64,
    gossip: InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Gossip>>>,
    heard: Rc<RefCell<Vec<Gossip>>>,
    told: std::collections::BTreeMap<i32, PartitionReport>,
    told_ms: i64,
    told_of_self_ms: Option<i64>,
    reported: SourceCounts,
    stop_told: bool,
    stopping: bool,
    restore_error: Rc<RefCell<Option<String>>>,
    checkpoints: Option<WorkerCheckpoints>,
    metrics: DataflowMetrics,
}

impl WorkerLoop {
    fn build(worker: &mut Worker, job: &Job) -> Result<Self, JobError> {
        let (index, peers) = (worker.index(), worker.peers());
        let began_ms = (job.now_ms)();
        let metrics = DataflowMetrics::of(worker);
        let cuts: Vec<PartitionCut> = job
            .start
            .input
            .iter()
            .filter(|cut| usize::try_from(cut.partition).is_ok_and(|partition| partition % peers == index))
            .map(|cut| job.start.read_from(cut))
            .collect();
        let waker = Waker::default();
        let partitions = job.partitions.open(index, &job.start, &cuts, waker.clone())?;
        let source_shared = Rc::new(RefCell::new(SourceShared::new(job.start.input.len())));
        let committer_shared = Rc::new(RefCell::new(CommitterShared::default()));
        let committed = ProbeHandle::new();

        let start_committer = (index == 0).then(|| job.committer.lock().ok()?.take()).flatten();
        let mut address = None;
        let mut capture_address = None;
        let capture_shared = Rc::new(RefCell::new(CaptureShared::default()));
        let restore_error = Rc::new(RefCell::new(None));
        let checkpoints = job.checkpoints.as_ref();
        let writer = checkpoints.map(Checkpoints::writer);
        worker.dataflow::<Tick, _, _>(|scope| {
            let SourceStreams { mut activities, mut names, notes } = source(
                scope,
                job.source.clone(),
                partitions,
                job.start.restore.as_ref(),
                committed.clone(),
                Rc::clone(&source_shared),
                &mut |info| address = Some(info),
            );
            let mut capturing = writer.map(|writer| {
                |activities, names| {
                    capture(activities, names, writer, Rc::clone(&capture_shared), &mut |at| {
                        capture_address = Some(at)
                    });
                }
            });
            if let Some(from) = &job.start.restore {
                // What this job's checkpoints hold need not be written again; another job's savepoint may be gone soon.
                let own = checkpoints.is_none_or(|checkpoints| checkpoints.settings.job == from.job);
                if own && let Some(capture) = capturing.take() {
                    capture(activities.clone(), names.clone());
                }
                let objects = from.objects.iter().skip(index).step_by(peers).cloned().collect();
                let store = job.restore_from.clone();
                let (restored, named) = restore(scope, store, from.through, objects, Rc::clone(&restore_error));
                activities = activities.concat(restored);
                names = names.concat(named);
            }
            if let Some(capture) = capturing {
                capture(activities.clone(), names.clone());
            }
            let windows = job.source.ingest.windows;
            let results = page_analytics(activities, names, windows);
            let resumed = job.start.committed_through;
            let done = commit(results, notes, windows, resumed, start_committer, Rc::clone(&committer_shared));
            done.probe_with(&committed);
        });
        let address: Rc<[usize]> = address.unwrap_or_else(|| Rc::from([]));
        waker.0.set(worker.sync_activator_for(address.to_vec())).ok();
        let source_activator = worker.activator_for(address);

        let mut gossip = InputHandle::new();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hearing = Rc::clone(&heard);
        worker.dataflow::<u64, _, _>(|scope| {
            gossip.to_stream(scope).broadcast().inspect(move |said: &Gossip| hearing.borrow_mut().push(said.clone()));
        });
        Ok(WorkerLoop {
            source: source_shared,
            committer: committer_shared,
            committed,
            last_committed: None,
            source_activator,
            source_activated_ms: began_ms,
            gossip,
            heard,
            told: Default::default(),
            told_ms: began_ms,
            told_of_self_ms: None,
            reported: SourceCounts::default(),
            stop_told: false,
            stopping: false,
            restore_error,
            checkpoints: checkpoints.map(|checkpoints| {
                let activator = worker.activator_for(capture_address.unwrap_or_else(|| Rc::from([])));
                WorkerCheckpoints::new(
                    checkpoints,
                    &job.start,
                    (index, job.workers),
                    began_ms,
                    capture_shared,
                    activator,
                )
            }),
            metrics,
        })
    }

    /// Steps the worker once, with all that goes on around it. Returns how the job has ended, if it has.
    fn turn(&mut self, worker: &mut Worker, job: &Job, nap: Duration) -> Option<Ended> {
        let now_ms = (job.now_ms)();
        let more = {
            let mut source = self.source.borrow_mut();
            source.now_ms = now_ms;
            source.waiting = self.checkpoints.as_ref().is_some_and(WorkerCheckpoints::behind);
            source.more
        };
        let committed = self.committed.with_frontier(|frontier| frontier.first().copied());
        if let Some(first) = committed.filter(|_| committed != self.last_committed) {
            job.observer.reached(first);
        }
        if more || committed != self.last_committed || now_ms - self.source_activated_ms >= ACTIVATE_EVERY_MS {
            self.last_committed = committed;
            self.source_activated_ms = now_ms;
            self.source_activator.activate();
        }
        worker.step_or_park(Some(nap));

        let stopped = self.listen(job);
        self.report(worker, job, false);
        if let Some(checkpoints) = &mut self.checkpoints {
            let closed = committed.filter(|first| *first > Tick::MIN);
            let closed = closed.map(|first| job.source.ingest.windows.previous(first));
            let news = checkpoints.turn(closed, now_ms, &|outcome| job.observer.checkpoint(outcome));
            news.into_iter().for_each(|news| self.tell(Gossip::Checkpoint(news)));
        }
        if worker.index() == 0
            && let Some(filter) = logging::levels_to_tell()
        {
            self.tell(Gossip::Logging(filter));
        }
        if let Some(error) = self.error() {
            job.observer.failed(&error);
            job.stop.store(true, Ordering::Relaxed);
            return Some(Ended::Failed);
        }
        if self.committed.done() {
            return Some(Ended::Finished);
        }
        if job.stop.load(Ordering::Relaxed) && !self.stop_told {
            self.stop_told = true;
            self.tell(Gossip::Stop);
        }
        if self.stopping && worker.index() == 0 && self.committer.borrow().sealed && self.last_checkpoint(now_ms) {
            self.tell(Gossip::Stopped);
            // Everybody hears it, this worker too, and lets go then.
            self.committer.borrow_mut().sealed = false;
        }
        stopped.then_some(Ended::Stopped)
    }

    /// Takes in what the other workers (and this one) have said; true when all may let go.
    fn listen(&mut self, job: &Job) -> bool {
        let mut stopped = false;
        for said in self.heard.take() {
            match said {
                Gossip::Partition(worker, report) => {
                    let PartitionReport { partition, watermark_ms, idle, .. } = report;
                    self.source.borrow_mut().watermarks.update(partition, watermark_ms, idle);
                    job.observer.partition(&report, worker, self.told.contains_key(&partition));
                }
                Gossip::Worker(report) => job.observer.worker(&report),
                Gossip::Checkpoint(news) => {
                    if let Some(checkpoints) = &mut self.checkpoints {
                        checkpoints.heard(news, (job.now_ms)(), &|outcome| job.observer.checkpoint(outcome));
                    }
                }
                Gossip::Logging(filter) => logging::follow_levels(&filter),
                Gossip::Stop if !self.stopping => {
                    self.stopping = true;
                    self.stop_told = true;
                    self.source.borrow_mut().stopping = true;
                    self.committer.borrow_mut().seal();
                }
                Gossip::Stop => {}
                Gossip::Stopped => stopped = true,
            }
        }
        stopped
    }

    /// Whether an orderly stop need not wait for a checkpoint any more.
    fn last_checkpoint(&mut self, now_ms: i64) -> bool {
        let Some(checkpoints) = &mut self.checkpoints else { return true };
        let (done, begun) = checkpoints.last(now_ms);
        begun.into_iter().for_each(|begun| self.tell(Gossip::Checkpoint(begun)));
        done
    }

    fn error(&mut self) -> Option<JobError> {
        if let Some(reason) = self.restore_error.borrow_mut().take() {
            return Some(JobError::Restore(reason));
        }
        let source = self.source.borrow_mut().error.take().map(JobError::Source);
        source.or_else(|| self.committer.borrow_mut().error.take().map(JobError::Commit))
    }

    fn tell(&mut self, gossip: Gossip) {
        self.gossip.send(gossip);
        self.gossip.flush();
    }

    /// Tells the other workers how the partitions of this one stand, and the observer what was counted.
    fn report(&mut self, worker: &Worker, job: &Job, last: bool) {
        let due = last || (job.now_ms)() - self.told_ms >= REPORT_EVERY_MS;
        let reports = self.source.borrow().reports.clone();
        for report in reports {
            let told = self.told.get(&report.partition);
            let tick = |report: &PartitionReport| report.watermark_ms.map(|ms| job.source.ingest.windows.tick(ms));
            let news = told.is_none_or(|told| told.idle != report.idle || tick(told) != tick(&report));
            if (news || (due && told != Some(&report))) && !last {
                self.told.insert(report.partition, report);
                self.tell(Gossip::Partition(worker.index(), report));
            }
        }
        if due {
            self.told_ms = (job.now_ms)();
            let counts = self.source.borrow().counts.clone();
            job.observer.stepped(worker.index() % job.workers, &counts.since(&self.reported));
            self.reported = counts;
            self.metrics.report();
        }
        if !last && self.told_of_self_ms.is_none_or(|told_ms| self.told_ms - told_ms >= TELL_EVERY_MS) {
            self.told_of_self_ms = Some(self.told_ms);
            let SourceCounts { records, late, duplicates, other_pages, rejected, .. } = self.reported.clone();
            let (worker, process) = (worker.index(), job.observer.process());
            let report = WorkerReport { worker, process, events: records, late, duplicates, other_pages, rejected };
            self.tell(Gossip::Worker(report));
        }
    }
}
