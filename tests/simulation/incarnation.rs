//! One run of the job, from its start to its end, with the log's two ends in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use clicktide::avro::ProgressRecord;
use clicktide::checkpoint::choose::{latest_generation, newest, register};
use clicktide::checkpoint::coordinator::{Committed, CoordinatorSettings, SavepointRequest, SavepointRequests, Taken};
use clicktide::checkpoint::names;
use clicktide::checkpoint::restore::Restore;
use clicktide::checkpoint::store::Store;
use clicktide::checkpoint::worker::Checkpoints;
use clicktide::checkpoint::writer::{Writer, WriterSettings};
use clicktide::cluster::{Cluster, ClusterError, assemble};
use clicktide::committer::{CommitEpoch, CommitError, Committing, Epoch, StartCommitter};
use clicktide::ingest::{Ingest, Record};
use clicktide::pipeline::{self, Ended, Job, JobError, ObserveJob, OpenPartitions, Waker};
use clicktide::progress::{JobStart, PartitionCut, Progress};
use clicktide::recovery::{Asked, Recovery, objection};
use clicktide::source::{DeadLetterPayload, LogEnd, ReadPartition, SourceError, SourcePartition, SourceSettings};

use clicktide_dataflows::time::Tick;

use super::baton::Baton;
use super::log::{Fate, Fenced, Message, World};
use super::plan::{Fault, Plan};
use super::shelf::{Reach, Shelf};

pub type SharedWorld = Arc<Mutex<World>>;

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run is given.
pub struct Surroundings {
    pub plan: Plan,
    pub fault: Fault,
    pub ingest: Arc<Ingest>,
    pub world: SharedWorld,
    pub clock: Arc<AtomicI64>,
    pub shelf: Arc<Shelf>,
}

/// A run of the job.
pub struct Incarnation {
    pub number: u32,
    pub workers: usize,
    /// Partitions that it reads.
    pub partitions: usize,
    pub baton: Arc<Baton>,
    pub readers: Arc<Readers>,
    stop: Arc<AtomicBool>,
    committing: Arc<Mutex<Option<Committing>>>,
    failed: Arc<Observed>,
    writer: Option<Mutex<Writer>>,
    savepoints: SavepointRequests,
    reach: Arc<Reach>,
    /// The checkpoint that it was restored from.
    pub restored: Option<String>,
    thread: Option<JoinHandle<Result<Ended, JobError>>>,
}

/// Why a run has not started.
#[derive(Debug)]
pub enum NotStarted {
    /// It was killed, or could not commit.
    Again,
    /// It was refused.
    Refused(String),
}

impl Incarnation {
    /// Starts the job as the program does over Kafka: look, fence, read what is committed, decide, commit.
    pub fn start(number: u32, workers: usize, surroundings: &Surroundings) -> Result<Self, NotStarted> {
        let Surroundings { plan, fault, ingest, world, clock, shelf } = surroundings;
        let reach = Arc::new(Reach::new(shelf));
        let store: Arc<dyn Store> = Arc::clone(&reach) as Arc<dyn Store>;
        let (start, sink) = begin(plan, *fault, world, plan.checkpoint_every_ms.map(|_| &*store))?;
        let restored = start.restore.as_ref().map(|restore| restore.checkpoint.clone());
        let partitions = start.input.len();
        let readers = Arc::new(Readers { world: Arc::clone(world), known: Mutex::default() });
        let baton = Arc::new(Baton::new(workers));
        let stop = Arc::new(AtomicBool::new(false));
        let committing: Arc<Mutex<Option<Committing>>> = Arc::default();
        let failed = Arc::new(Observed::default());
        let observer = Arc::clone(&failed) as Arc<dyn ObserveJob>;
        let savepoints = SavepointRequests::default();
        let (writer, checkpoints) = plan
            .checkpoint_every_ms
            .map(|interval_ms| {
                let settings = WriterSettings {
                    store: Arc::clone(&store),
                    generation: start.generation,
                    process: 0,
                    workers,
                    keep: plan.keep,
                };
                let (writer, (commands, outcomes)) = Writer::new(settings);
                let settings = CoordinatorSettings {
                    job: JOB.to_owned(),
                    configuration: CONFIGURATION.to_owned(),
                    topic_id: None,
                    interval_ms,
                    processes: 1,
                };
                let committed = Arc::new(Mutex::new(Committed::at(&start, plan.windows.size_ms())));
                let checkpoints = Checkpoints {
                    settings,
                    committed,
                    requests: savepoints.clone(),
                    process: 0,
                    commands: Mutex::new(commands),
                    outcomes: Mutex::new(Some(outcomes)),
                };
                (Mutex::new(writer), checkpoints)
            })
            .unzip();
        let followed = checkpoints.as_ref().map(|checkpoints| Arc::clone(&checkpoints.committed));
        let committed = pipeline::committed(&observer, followed);
        let start_committer: StartCommitter = {
            let committing = Arc::clone(&committing);
            Box::new(move |activator| {
                let (mine, ends) = Committing::new(activator, Box::new(sink), committed);
                *lock(&committing) = Some(mine);
                ends
            })
        };
        let clock = Arc::clone(clock);
        let allocators = assemble(&Cluster::single(workers), "", || Ok::<_, ClusterError>(start.clone()));
        let (allocators, start) = allocators.expect("one process needs no other");
        let job = Job {
            workers,
            source: SourceSettings {
                ingest: Arc::clone(ingest),
                history: plan.history,
                idle_timeout_ms: plan.idle_timeout_ms,
                ticks_ahead: plan.ticks_ahead,
                records_in_flight: plan.records_in_flight,
                late_to_dead_letters: plan.late_to_dead_letters,
                dead_letter_payload: DeadLetterPayload::Original,
                sanitised_events: true,
            },
            start,
            partitions: Box::new(Opening(Arc::clone(&readers))),
            committer: Mutex::new(Some(start_committer)),
            restore_from: Some(store),
            checkpoints,
            observer,
            now_ms: Arc::new(move || clock.load(Ordering::Relaxed)),
            pace: Arc::clone(&baton) as Arc<dyn pipeline::Pace>,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::spawn(move || pipeline::run(allocators, Arc::new(job)));
        baton.assemble();
        Ok(Incarnation {
            number,
            workers,
            partitions,
            baton,
            readers,
            stop,
            committing,
            failed,
            writer,
            savepoints,
            reach,
            restored,
            thread: Some(thread),
        })
    }

    /// Has the committing do what is waiting; whether there was anything.
    pub fn commit(&self) -> bool {
        let mut committing = lock(&self.committing);
        let done = committing.as_mut().and_then(Committing::run_waiting);
        if done == Some(false) {
            // As its thread would have ended.
            *committing = None;
        }
        done.is_some()
    }

    /// Has the checkpoint writer do one thing; whether there was one to do.
    pub fn write(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| lock(writer).run_waiting())
    }

    /// Whether the process was killed while it wrote.
    pub fn killed(&self) -> bool {
        self.reach.dead.load(Ordering::Relaxed)
    }

    /// Asks for a savepoint.
    pub fn ask_savepoint(&self, number: u32) {
        let name = names::savepoint(&format!("s{number}")).expect("such a name is good");
        let failed = Arc::clone(&self.failed);
        let reply = Box::new(move |outcome: Result<Taken, String>| failed.checkpoint(&outcome));
        self.savepoints.ask(SavepointRequest { name, reply });
    }

    /// What has come of checkpoints since this was asked.
    pub fn taken(&self) -> String {
        std::mem::take(&mut lock(&self.failed.taken))
    }

    /// Asks for an orderly stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the job has failed: the process ends then.
    pub fn failed(&self) -> Option<String> {
        lock(&self.failed.error).clone()
    }

    /// Lets a job that has finished in one worker finish in all.
    pub fn wind_down(mut self) -> Result<Ended, String> {
        for _ in 0..10_000 {
            if (0..self.workers).filter(|worker| self.baton.give(*worker, 1).is_some()).count() == self.workers {
                return self.join();
            }
        }
        Err("finished in one worker, and not in all".to_owned())
    }

    fn join(&mut self) -> Result<Ended, String> {
        let Some(thread) = self.thread.take() else { return Ok(Ended::Killed) };
        let ended = thread.join().map_err(|_| "the job's thread has panicked".to_owned())?;
        ended.map_err(|error| error.to_string())
    }

    /// Ends the run where it is.
    pub fn kill(mut self) -> Result<Ended, String> {
        self.baton.kill();
        self.join()
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.baton.kill();
        self.join().ok();
    }
}

/// What the job has told its observer.
#[derive(Default)]
struct Observed {
    error: Mutex<Option<String>>,
    taken: Mutex<String>,
}

impl ObserveJob for Observed {
    fn failed(&self, error: &JobError) {
        *lock(&self.error) = Some(error.to_string());
    }

    fn checkpoint(&self, outcome: &Result<Taken, String>) {
        let said = match outcome {
            Ok(Taken { name, events, .. }) => format!(" {name} taken, {events} events"),
            Err(reason) => format!(" no checkpoint: {reason}"),
        };
        lock(&self.taken).push_str(&said);
    }
}

const JOB: &str = "simulated";
const CONFIGURATION: &str = "{}";

fn begin(
    plan: &Plan,
    fault: Fault,
    world: &SharedWorld,
    store: Option<&dyn Store>,
) -> Result<(JobStart, Sink), NotStarted> {
    let differences =
        |committed: &str| if committed == CONFIGURATION { Vec::new() } else { vec![committed.to_owned()] };
    let mut asked = Asked {
        job: JOB,
        events: "events",
        progress: "progress",
        until_end: plan.until_end,
        configuration: CONFIGURATION,
        differences: &differences,
        topic_id: None,
        windows: plan.windows,
        bound_ms: plan.bound_ms,
        keeps_history: plan.history.any(),
        accept_gap: false,
        generation_seen: 0,
    };
    let mut locked = lock(world);
    if let Some(reason) = objection(&asked, &locked.output.committed()) {
        return Err(NotStarted::Refused(reason));
    }
    locked.output.unfenced = fault == Fault::FencesNobody;
    let producer = locked.output.init();
    let committed = locked.output.committed();
    if let Some(reason) = objection(&asked, &committed) {
        return Err(NotStarted::Refused(reason));
    }
    let bounds = locked.bounds();
    // A store that fails is tried again, by whoever supervises the job.
    let again = |_| NotStarted::Again;
    asked.generation_seen = store.map_or(Ok(None), latest_generation).map_err(again)?.unwrap_or(0);
    let recovery = match committed.progress {
        None => Recovery::new_job(&asked, &bounds.iter().map(|bounds| bounds.low).collect::<Vec<_>>(), &bounds),
        Some(progress) => {
            let through = progress.committed_through.map(Tick);
            let newest = store.map(|store| newest(store, JOB, CONFIGURATION, through)).transpose().map_err(again)?;
            let mut restorable = newest.and_then(|(found, _)| found).map(|(name, found)| Restore::of(name, found));
            if fault == Fault::RestoresLess {
                restorable.iter_mut().for_each(|restore| drop(restore.objects.pop()));
            }
            if fault == Fault::RestoresWithoutHistory {
                let points = restorable.iter_mut().flat_map(|restore| &mut restore.resume);
                points.for_each(|point| point.history_from = None);
            }
            let resumed = Recovery::resumed(&asked, progress, committed.idle_advances, &bounds, restorable);
            resumed.map_err(NotStarted::Refused)?
        }
    };
    if let Some(store) = store {
        register(store, recovery.start.generation).map_err(|_| NotStarted::Again)?;
    }
    let Recovery { progress, new_advances, outdated, start } = recovery;
    let forget = outdated.into_iter().map(|advance| Message::Forget(ProgressRecord::IdleAdvance(advance).key()));
    let advances = new_advances.into_iter().map(|advance| Message::Progress(ProgressRecord::IdleAdvance(advance)));
    let own = Message::Progress(ProgressRecord::Progress(progress.clone()));
    let messages = forget.chain(advances).chain([own]).collect();
    let begun = transact(&mut locked, producer, messages);
    if begun.is_err() || std::mem::take(&mut locked.killed) {
        return Err(NotStarted::Again);
    }
    drop(locked);
    Ok((start, Sink { world: Arc::clone(world), producer, progress, fault, commits: 0 }))
}

/// One transaction, with the fate that the world has in store for it.
fn transact(world: &mut World, producer: i64, messages: Vec<Message>) -> Result<(), CommitError> {
    let fenced = |Fenced| CommitError::Fenced("a later producer has begun".to_owned());
    let fate = world.fate.take().unwrap_or(Fate::Fine);
    let sent = match fate {
        Fate::KilledAfter(sent) => sent,
        _ => messages.len(),
    };
    for message in messages.into_iter().take(sent) {
        world.output.send(producer, message).map_err(fenced)?;
    }
    match fate {
        Fate::Fine => return world.output.commit(producer).map_err(fenced),
        Fate::Fails => world.output.abort(producer),
        // What is open is aborted by whoever comes next.
        Fate::KilledAfter(_) | Fate::KilledDuring { visible: false } | Fate::Unknown { visible: false } => {}
        Fate::KilledDuring { visible: true } | Fate::Unknown { visible: true } => {
            world.output.commit(producer).map_err(fenced)?;
        }
    }
    world.killed = matches!(fate, Fate::KilledAfter(_) | Fate::KilledDuring { .. });
    Err(match fate {
        Fate::Unknown { .. } => CommitError::Unknown("as the seed says".to_owned()),
        _ => CommitError::Failed("as the seed says".to_owned()),
    })
}

/// Commits to the world.
struct Sink {
    world: SharedWorld,
    producer: i64,
    progress: Progress,
    fault: Fault,
    commits: u64,
}

impl CommitEpoch for Sink {
    fn commit(&mut self, epoch: &Epoch) -> Result<(), CommitError> {
        epoch.record_in(&mut self.progress);
        self.commits += 1;
        let now_and_then = self.commits.is_multiple_of(3);
        let results = epoch.windows.iter().flat_map(|window| window.results.iter().cloned().map(Message::Result));
        let letters = epoch.dead_letters.iter().cloned().map(Message::Letter);
        let sanitised = epoch.sanitised.iter().cloned().map(Message::Sanitised);
        let advances = epoch.idle_advances.iter().map(|a| Message::Progress(ProgressRecord::IdleAdvance(*a)));
        let mut progress = self.progress.clone();
        if self.fault == Fault::CutsTooLate {
            progress.input.iter_mut().for_each(|cut| cut.replay_from = cut.position);
        }
        if self.fault == Fault::ForgetsHistory {
            progress.input.iter_mut().for_each(|cut| cut.history_from = None);
        }
        let progress = Message::Progress(ProgressRecord::Progress(progress));
        let mut messages: Vec<Message> =
            results.chain(letters).chain(sanitised).chain(advances).chain([progress]).collect();
        messages.retain(|message| match (self.fault, message) {
            (Fault::ForgetsIdleAdvance, Message::Progress(ProgressRecord::IdleAdvance(_)))
            | (Fault::LosesDeadLetters, Message::Letter(_))
            | (Fault::LosesSanitisedEvents, Message::Sanitised(_))
            | (Fault::ForgetsProgress, Message::Progress(ProgressRecord::Progress(_))) => !now_and_then,
            _ => true,
        });
        let mut world = lock(&self.world);
        let outcome = transact(&mut world, self.producer, messages.clone());
        match outcome {
            Err(CommitError::Unknown(_)) if self.fault == Fault::CommitsAgain => {
                world.output.abort(self.producer);
                transact(&mut world, self.producer, messages)
            }
            outcome => outcome,
        }
    }
}

/// What a run's readers know, each only what it was told.
pub struct Readers {
    world: SharedWorld,
    known: Mutex<BTreeMap<i32, Known>>,
}

/// What one reader knows.
#[derive(Clone, Default)]
struct Known {
    /// All before it has been fetched.
    fetched: i64,
    /// All before it has been read, or will never be there.
    passed: i64,
    position: i64,
    /// Where the log ended when it was asked.
    asked: Option<i64>,
    end: Option<LogEnd>,
    waker: Option<Waker>,
}

impl Readers {
    /// Fetches at most so many records of a partition, and past its end what is no record if `all`. Whether anything came.
    pub fn fetch(&self, partition: i32, records: usize, all: bool) -> bool {
        let world = lock(&self.world);
        let mut known = lock(&self.known);
        let Some(known) = known.get_mut(&partition) else { return false };
        let before = (known.fetched, known.passed);
        let input = &world.input[partition as usize];
        if let Some(last) = input.readable(known.fetched).take(records).last() {
            known.fetched = last.offset + 1;
        }
        if all && input.readable(known.fetched).next().is_none() {
            known.passed = known.passed.max(input.last_stable());
        }
        let came = before != (known.fetched, known.passed);
        if came && let Some(waker) = &known.waker {
            waker.wake();
        }
        came
    }

    /// Asks where a partition ends.
    pub fn ask(&self, partition: i32) {
        let high = lock(&self.world).input[partition as usize].high;
        if let Some(known) = lock(&self.known).get_mut(&partition) {
            known.asked = Some(high);
        }
    }

    /// Has the answer arrive.
    pub fn answer(&self, partition: i32, now_ms: i64) {
        if let Some(known) = lock(&self.known).get_mut(&partition)
            && let Some(high_watermark) = known.asked.take()
        {
            known.end = Some(LogEnd { high_watermark, position: known.position, answered_ms: now_ms });
        }
    }
}

struct Opening(Arc<Readers>);

impl OpenPartitions for Opening {
    fn open(
        &self,
        _worker: usize,
        start: &JobStart,
        cuts: &[PartitionCut],
        waker: Waker,
    ) -> Result<Vec<SourcePartition>, SourceError> {
        let open = |cut: &PartitionCut| {
            let from = cut.reads_from();
            let known = Known { fetched: from, position: from, waker: Some(waker.clone()), ..Known::default() };
            lock(&self.0.known).insert(cut.partition, known);
            let reader = Reader { readers: Arc::clone(&self.0), partition: cut.partition, position: from };
            SourcePartition { reader: Box::new(reader), format: None, cut: *cut, floors: start.floors_of(cut) }
        };
        Ok(cuts.iter().map(open).collect())
    }
}

struct Reader {
    readers: Arc<Readers>,
    partition: i32,
    position: i64,
}

impl ReadPartition for Reader {
    fn read(&mut self, limit: usize, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), SourceError> {
        let world = lock(&self.readers.world);
        let mut known = lock(&self.readers.known);
        let known = known.get_mut(&self.partition).expect("it was opened");
        let mut left = false;
        for (number, entry) in world.input[self.partition as usize].readable(self.position).enumerate() {
            left = entry.offset < known.fetched && number >= limit;
            if entry.offset >= known.fetched || left {
                break;
            }
            each(&Record { offset: entry.offset, record_timestamp_ms: entry.record_ms, payload: &entry.payload });
            self.position = entry.offset + 1;
        }
        if !left {
            self.position = self.position.max(known.passed);
        }
        known.position = self.position;
        Ok(())
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn end(&self) -> Option<LogEnd> {
        lock(&self.readers.known).get(&self.partition).and_then(|known| known.end)
    }
}
