//! What a job says about itself: where it is in event time, what it has counted, and whether its processes are well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clicktide_dataflows::time::Windows;
use metrics::{Counter, Gauge, counter, gauge};
use serde::Serialize;
use utoipa::ToSchema;

use super::cluster::{
    CheckpointsSnapshot, ClusterSnapshot, FailureSnapshot, OpenWindows, PartitionSnapshot, ProcessSnapshot,
    TakenSnapshot, WindowsSnapshot, WorkerSnapshot,
};
use crate::avro::wire::SchemaId;
use crate::metrics as names;
use crate::report::{Phase, ProcessReport, WorkerReport};

/// Which process of which job this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The job's name.
    pub job: String,
    /// The process's index, from 0.
    pub process: usize,
    /// Processes in the cluster.
    pub processes: usize,
    /// Workers in this process, as in every other.
    pub workers: usize,
    /// The windows that the job computes.
    pub windows: Windows,
    /// How far events of a partition may come out of order before they are late, ms.
    pub disorder_bound_ms: i64,
}

/// Where the reading of an input partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// The worker that reads it.
    pub worker: usize,
    /// The offset of the next record to read.
    pub position: i64,
    /// One past its last record, as far as the broker has told.
    pub high_watermark: i64,
    /// Its watermark in event time, ms, if it has one yet.
    pub watermark_ms: Option<i64>,
    /// Whether it is idle and holds the others back no longer.
    pub idle: bool,
    /// The schema that it waits for before it goes on, if so.
    pub awaited: Option<SchemaId>,
}

/// A checkpoint that has been taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CheckpointStatus {
    /// Its name in the store.
    pub name: String,
    /// The window end through which it goes, ms.
    pub through_ms: i64,
    /// How long it took, ms.
    pub took_ms: i64,
    /// The events that it refers to.
    pub events: u64,
    /// The bytes of all that it refers to.
    pub bytes: u64,
    /// Those of them that were written for it.
    pub bytes_written: u64,
}

/// Tells how long ago every other process was heard.
type HeardFrom = Box<dyn Fn() -> Vec<(usize, Duration)> + Send + Sync>;

/// Tells what is waited for from the schema registry, in a line each.
type RegistryWaits = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// What a job says about itself in one of its processes, shared by the pipeline, which writes it, and the HTTP server, which
/// reads it.
///
/// All workers tell each other how they stand, so that every process can speak for the cluster. The setters are cheap (an
/// atomic, or a short lock that no request holds for long) and may be called from any thread. What is set here and is a
/// metric is exported as such too, so create the status after [`crate::metrics::install`].
pub struct Status {
    identity: ProcessIdentity,
    started: Instant,
    started_at_ms: i64,
    run: OnceLock<String>,
    phase: Mutex<(Phase, u64)>,
    notice: Mutex<Option<String>>,
    /// Since when (uptime, ms) and why Kafka does not answer, if it does not; none where it is not asked.
    kafka_silence: Mutex<Option<Option<(String, u64)>>>,
    watermark_ms: Mutex<Option<i64>>,
    /// The last committed window end (ms) and the uptime (ms) then.
    committed: Mutex<Option<(i64, u64)>>,
    partitions_expected: AtomicUsize,
    partitions: Mutex<BTreeMap<i32, Partition>>,
    /// By worker in this process: the uptime (ms) when it last stepped, or [`NEVER_STEPPED`].
    stepped_ms: Vec<AtomicI64>,
    workers: Mutex<BTreeMap<usize, HeardWorker>>,
    heard_from: OnceLock<HeardFrom>,
    registry_waits: OnceLock<RegistryWaits>,
    results: AtomicU64,
    results_counter: Counter,
    dead_letters: AtomicU64,
    checkpoints: Mutex<Option<Checkpoints>>,
    /// By process: uptime (ms) and events read, about once a second, for the rates.
    samples: Mutex<BTreeMap<usize, VecDeque<(u64, u64)>>>,
}

const NEVER_STEPPED: i64 = -1;

/// Seconds over which the rates of events are taken.
const RATE_SECONDS: usize = 10;

struct Partition {
    status: PartitionStatus,
    /// Of a partition that this process reads: the others export their own.
    gauges: Option<PartitionGauges>,
}

struct PartitionGauges {
    watermark: Gauge,
    lag: Gauge,
    idle: Gauge,
    awaits_schema: Gauge,
}

struct HeardWorker {
    report: WorkerReport,
    /// This process's uptime (ms) when the report came.
    heard_ms: u64,
}

#[derive(Clone, Default)]
struct Checkpoints {
    interval_ms: i64,
    /// The last one, and the wall clock (ms) then.
    last: Option<(CheckpointStatus, i64)>,
    /// Why the last attempt has failed, if it has, and the wall clock (ms) then.
    failure: Option<(String, i64)>,
}

impl Status {
    /// The status of a process that is starting.
    pub fn new(identity: ProcessIdentity) -> Status {
        let workers = identity.workers;
        Status {
            identity,
            started: Instant::now(),
            started_at_ms: wall_clock_ms(),
            run: OnceLock::new(),
            phase: Mutex::new((Phase::Starting, 0)),
            notice: Mutex::default(),
            kafka_silence: Mutex::default(),
            watermark_ms: Mutex::default(),
            committed: Mutex::default(),
            partitions_expected: AtomicUsize::new(0),
            partitions: Mutex::default(),
            stepped_ms: (0..workers).map(|_| AtomicI64::new(NEVER_STEPPED)).collect(),
            workers: Mutex::default(),
            heard_from: OnceLock::new(),
            registry_waits: OnceLock::new(),
            results: AtomicU64::new(0),
            results_counter: counter!(names::RESULTS),
            dead_letters: AtomicU64::new(0),
            checkpoints: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// Says which run of the job this is, by its generation, and over how many partitions. Said once, before it runs. Returns
    /// the run's id.
    pub fn set_run(&self, generation: i64, partitions: usize) -> &str {
        self.partitions_expected.store(partitions, Relaxed);
        self.run.get_or_init(|| format!("{}-{generation}", self.identity.job))
    }

    /// Says how it is known when the other processes were heard. Said once, before the job runs.
    pub fn set_heard_from(&self, heard_from: impl Fn() -> Vec<(usize, Duration)> + Send + Sync + 'static) {
        self.heard_from.get_or_init(|| Box::new(heard_from));
    }

    /// Says how it is known what is waited for from the schema registry. Said once, where there is one.
    pub fn set_registry_waits(&self, waits: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        self.registry_waits.get_or_init(|| Box::new(waits));
    }

    /// What is waited for from the schema registry, in a line each; none where there is no registry.
    pub fn registry_waits(&self) -> Option<Vec<String>> {
        self.registry_waits.get().map(|waits| waits())
    }

    /// Says what the process is doing now.
    pub fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = (phase, self.uptime_ms());
    }

    /// Says that what earlier runs have committed has been computed again.
    pub fn replayed(&self) {
        let mut phase = lock(&self.phase);
        if phase.0 == Phase::Replaying {
            *phase = (Phase::Running, self.uptime_ms());
        }
    }

    /// Says something that whoever looks at the dashboard should know, such as unusual window sizes.
    pub fn set_notice(&self, notice: impl Into<String>) {
        *lock(&self.notice) = Some(notice.into());
    }

    /// Says that Kafka answers, or why it does not.
    pub fn set_kafka_silence(&self, reason: Option<String>) {
        *lock(&self.kafka_silence) = Some(reason.map(|reason| (reason, self.uptime_ms())));
    }

    /// Says that worker `worker` of this process, counted from 0, is alive. To be called at every step or so.
    pub fn worker_stepped(&self, worker: usize) {
        if let Some(stepped) = self.stepped_ms.get(worker) {
            stepped.store(i64::try_from(self.uptime_ms()).unwrap_or(i64::MAX), Relaxed);
        }
    }

    /// Says what a worker of any process has said of itself.
    pub fn set_worker(&self, report: &WorkerReport) {
        let heard = HeardWorker { report: report.clone(), heard_ms: self.uptime_ms() };
        lock(&self.workers).insert(report.worker, heard);
    }

    /// Says where the job's watermark is, ms.
    pub fn set_watermark(&self, watermark_ms: i64) {
        *lock(&self.watermark_ms) = Some(watermark_ms);
        gauge!(names::JOB_WATERMARK).set(seconds(watermark_ms));
    }

    /// Says that everything up to this window end, ms, is committed. One that is not after the last is ignored.
    pub fn set_committed(&self, window_end_ms: i64) {
        let mut committed = lock(&self.committed);
        if committed.is_none_or(|(last_ms, _)| last_ms < window_end_ms) {
            *committed = Some((window_end_ms, self.uptime_ms()));
            gauge!(names::COMMITTED_WINDOW_END).set(seconds(window_end_ms));
        }
    }

    /// Says where the reading of a partition stands; `own` if this process reads it.
    pub fn set_partition(&self, status: PartitionStatus, own: bool) {
        let mut partitions = lock(&self.partitions);
        let partition = partitions.entry(status.partition).or_insert_with(|| Partition { status, gauges: None });
        partition.status = status;
        if !own {
            return;
        }
        let PartitionGauges { watermark, lag, idle, awaits_schema } = partition.gauges.get_or_insert_with(|| {
            let gauge = |name| gauge!(name, "partition" => status.partition.to_string());
            PartitionGauges {
                watermark: gauge(names::PARTITION_WATERMARK),
                lag: gauge(names::CONSUMER_LAG),
                idle: gauge(names::IDLE),
                awaits_schema: gauge(names::AWAITS_SCHEMA),
            }
        });
        lag.set(status.lag_records() as f64);
        idle.set(f64::from(u8::from(status.idle)));
        awaits_schema.set(f64::from(u8::from(status.awaited.is_some())));
        if let Some(watermark_ms) = status.watermark_ms {
            watermark.set(seconds(watermark_ms));
        }
    }

    /// Counts results committed.
    pub fn add_results(&self, n: u64) {
        self.results.fetch_add(n, Relaxed);
        self.results_counter.increment(n);
    }

    /// Counts dead letters committed.
    pub fn add_dead_letters(&self, n: u64) {
        self.dead_letters.fetch_add(n, Relaxed);
    }

    /// Says that checkpoints are taken, and how often.
    pub fn set_checkpoint_interval(&self, interval_ms: i64) {
        lock(&self.checkpoints).get_or_insert_default().interval_ms = interval_ms;
    }

    /// Says what has come of a checkpoint.
    pub fn set_checkpoint(&self, outcome: Result<CheckpointStatus, String>) {
        let mut checkpoints = lock(&self.checkpoints);
        let checkpoints = checkpoints.get_or_insert_default();
        match outcome {
            Ok(taken) => (checkpoints.last, checkpoints.failure) = (Some((taken, wall_clock_ms())), None),
            Err(reason) => checkpoints.failure = Some((reason, wall_clock_ms())),
        }
    }

    /// Remembers how many events there are now, for their rates, and exports what changes by itself. The HTTP server calls it
    /// once a second.
    pub fn sample(&self) {
        self.export_signs_of_life();
        let now_ms = self.uptime_ms();
        let mut samples = lock(&self.samples);
        for (process, (_, events)) in self.reports_by_process() {
            let samples = samples.entry(process).or_default();
            samples.push_back((now_ms, events));
            if samples.len() > RATE_SECONDS + 1 {
                samples.pop_front();
            }
        }
    }

    fn export_signs_of_life(&self) {
        let now = self.phase();
        for phase in Phase::ALL {
            gauge!(names::PHASE, "phase" => phase.label()).set(f64::from(u8::from(phase == now)));
        }
        let (uptime_ms, first_own) = (self.uptime_ms(), self.identity.process * self.identity.workers);
        for (index, stepped_ms) in self.stepped_ms().enumerate() {
            let Some(stepped_ms) = stepped_ms else { continue };
            let age_s = uptime_ms.saturating_sub(stepped_ms) as f64 / 1000.0;
            gauge!(names::WORKER_STEP_AGE, "worker" => (first_own + index).to_string()).set(age_s);
        }
        for (process, age) in self.heard() {
            gauge!(names::HEARTBEAT_AGE, "process" => process.to_string()).set(age.as_secs_f64());
        }
    }

    /// What this process says of itself to the others.
    pub fn process_report(&self, resident_memory_bytes: Option<u64>) -> ProcessReport {
        let process = self.identity.process;
        ProcessReport { process, phase: self.phase(), uptime_ms: self.uptime_ms(), resident_memory_bytes }
    }

    /// Everything it says now.
    pub fn snapshot(&self) -> ClusterSnapshot {
        self.snapshot_at(wall_clock_ms())
    }

    /// Everything it says, at that reading of the wall clock, ms.
    pub fn snapshot_at(&self, now_ms: i64) -> ClusterSnapshot {
        let behind = |watermark_ms: i64| now_ms.saturating_sub(watermark_ms);
        let watermark_ms = *lock(&self.watermark_ms);
        let partitions = self.partitions();
        let workers = self.worker_snapshots(&partitions);
        let mut rejected: BTreeMap<String, u64> = BTreeMap::new();
        for worker in lock(&self.workers).values() {
            for (reason, n) in &worker.report.rejected {
                *rejected.entry(reason.clone()).or_default() += n;
            }
        }
        let processes = self.process_snapshots();
        let rates = || processes.iter().map(|process| process.events_per_second);
        let partition = |status: &PartitionStatus| PartitionSnapshot {
            partition: status.partition,
            worker: status.worker,
            position: status.position,
            high_watermark: status.high_watermark,
            lag_records: status.lag_records(),
            watermark_ms: status.watermark_ms,
            watermark_lag_ms: status.watermark_ms.map(behind),
            idle: status.idle,
            awaited_schema: status.awaited.map(|schema| schema.0),
        };
        let ProcessIdentity { job, windows, disorder_bound_ms, .. } = &self.identity;
        ClusterSnapshot {
            job: job.clone(),
            run: self.run.get().cloned(),
            phase: self.phase(),
            notice: lock(&self.notice).clone(),
            registry_waits: self.registry_waits().unwrap_or_default(),
            started_at_ms: self.started_at_ms,
            now_ms,
            windows: WindowsSnapshot {
                size_ms: windows.size_ms(),
                slide_ms: windows.slide_ms(),
                offset_ms: windows.offset_ms(),
                disorder_bound_ms: *disorder_bound_ms,
            },
            watermark_ms,
            watermark_lag_ms: watermark_ms.map(behind),
            held_back_by: held_back_by(&partitions),
            committed_window_end_ms: self.committed().map(|(window_end_ms, _)| window_end_ms),
            open_windows: watermark_ms.and_then(|watermark_ms| self.open_windows(watermark_ms, &partitions)),
            events: workers.iter().map(|worker| worker.events).sum(),
            events_per_second: rates().flatten().reduce(|sum, rate| sum + rate),
            results: self.results.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            late: workers.iter().map(|worker| worker.late).sum(),
            duplicates: workers.iter().map(|worker| worker.duplicates).sum(),
            other_pages: workers.iter().map(|worker| worker.other_pages).sum(),
            rejected_total: rejected.values().sum(),
            rejected,
            lag_records: partitions.iter().map(PartitionStatus::lag_records).fold(0, i64::saturating_add),
            checkpoints: lock(&self.checkpoints).clone().map(|checkpoints| checkpoints.snapshot(now_ms)),
            processes,
            workers,
            partitions: partitions.iter().map(partition).collect(),
        }
    }

    /// The windows that have begun, by the latest event, and are not closed.
    fn open_windows(&self, watermark_ms: i64, partitions: &[PartitionStatus]) -> Option<OpenWindows> {
        let ProcessIdentity { windows, disorder_bound_ms, .. } = &self.identity;
        let latest_ms = partitions.iter().filter_map(|partition| partition.watermark_ms).max()? + disorder_bound_ms;
        let first_end_ms = windows.tick(watermark_ms).0;
        let last_end_ms = windows.tick_at_or_before(latest_ms + windows.size_ms()).0;
        let count = (last_end_ms - first_end_ms).div_euclid(windows.slide_ms()) + 1;
        Some(OpenWindows { count: u64::try_from(count).ok()?, first_end_ms, last_end_ms })
    }

    /// By process: what it has said of itself last, and what its workers have read.
    fn reports_by_process(&self) -> BTreeMap<usize, (ProcessReport, u64)> {
        let mut processes: BTreeMap<usize, (ProcessReport, u64)> = BTreeMap::new();
        for HeardWorker { report, .. } in lock(&self.workers).values() {
            let (said, events) = processes.entry(report.process.process).or_default();
            if said.uptime_ms <= report.process.uptime_ms {
                *said = report.process;
            }
            *events += report.events;
        }
        processes
    }

    fn process_snapshots(&self) -> Vec<ProcessSnapshot> {
        let heard: BTreeMap<usize, Duration> = self.heard().into_iter().collect();
        let own = self.identity.process;
        let mut reports = self.reports_by_process();
        let (report, _) = reports.entry(own).or_default();
        *report = self.process_report(report.resident_memory_bytes);
        let snapshot = |(process, (report, events)): (usize, (ProcessReport, u64))| ProcessSnapshot {
            process,
            phase: report.phase,
            heard_ms_ago: heard.get(&process).map(|age| millis(*age)),
            uptime_ms: report.uptime_ms,
            workers: self.identity.workers,
            events,
            events_per_second: self.events_per_second(process),
            resident_memory_bytes: report.resident_memory_bytes,
        };
        reports.into_iter().map(snapshot).collect()
    }

    fn worker_snapshots(&self, partitions: &[PartitionStatus]) -> Vec<WorkerSnapshot> {
        let uptime_ms = self.uptime_ms();
        let ProcessIdentity { process, workers, .. } = self.identity;
        let first_own = process * workers;
        let stepped: BTreeMap<usize, Option<u64>> =
            self.stepped_ms().enumerate().map(|(index, stepped_ms)| (first_own + index, stepped_ms)).collect();
        let snapshot = |HeardWorker { report, heard_ms }: &HeardWorker| {
            // Another process's worker steps when it reports.
            let stepped_ms = stepped.get(&report.worker).copied().unwrap_or(Some(*heard_ms));
            let reads = partitions.iter().filter(|partition| partition.worker == report.worker);
            WorkerSnapshot {
                worker: report.worker,
                process: report.process.process,
                stepped_ms_ago: stepped_ms.map(|stepped_ms| uptime_ms.saturating_sub(stepped_ms)),
                partitions: reads.map(|partition| partition.partition).collect(),
                events: report.events,
                late: report.late,
                duplicates: report.duplicates,
                other_pages: report.other_pages,
                rejected: report.rejected.values().sum(),
            }
        };
        lock(&self.workers).values().map(snapshot).collect()
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.phase).0
    }

    /// The process's age when its phase began, ms.
    pub(super) fn phase_began_ms(&self) -> u64 {
        lock(&self.phase).1
    }

    /// Why Kafka does not answer, and since when (the process's age, ms), if it does not; none where it is not asked.
    pub(super) fn kafka_silence(&self) -> Option<Option<(String, u64)>> {
        lock(&self.kafka_silence).clone()
    }

    pub(super) fn watermark_ms(&self) -> Option<i64> {
        *lock(&self.watermark_ms)
    }

    pub(super) fn committed(&self) -> Option<(i64, u64)> {
        *lock(&self.committed)
    }

    /// How many partitions the job reads, once that is known.
    pub(super) fn partitions_expected(&self) -> usize {
        self.partitions_expected.load(Relaxed)
    }

    pub(super) fn partitions(&self) -> Vec<PartitionStatus> {
        lock(&self.partitions).values().map(|partition| partition.status).collect()
    }

    /// Every other process, and how long ago it was heard.
    pub(super) fn heard(&self) -> Vec<(usize, Duration)> {
        self.heard_from.get().map_or_else(Vec::new, |heard_from| heard_from())
    }

    /// By worker of this process: the process's age when it last stepped, ms, if it ever did.
    pub(super) fn stepped_ms(&self) -> impl Iterator<Item = Option<u64>> {
        self.stepped_ms.iter().map(|stepped| u64::try_from(stepped.load(Relaxed)).ok())
    }

    /// The slide of the job's windows.
    pub(super) fn slide_ms(&self) -> i64 {
        self.identity.windows.slide_ms()
    }

    /// The age of the process by a clock that never steps, ms.
    pub(super) fn uptime_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn events_per_second(&self, process: usize) -> Option<f64> {
        let samples = lock(&self.samples);
        let samples = samples.get(&process)?;
        let ((first_ms, first), (last_ms, last)) = (samples.front()?, samples.back()?);
        let elapsed_ms = last_ms - first_ms;
        (elapsed_ms > 0).then(|| last.saturating_sub(*first) as f64 * 1000.0 / elapsed_ms as f64)
    }
}

impl PartitionStatus {
    /// Records not read yet; 0 while the high watermark is not known.
    pub fn lag_records(&self) -> i64 {
        self.high_watermark.saturating_sub(self.position).max(0)
    }
}

impl Checkpoints {
    fn snapshot(self, now_ms: i64) -> CheckpointsSnapshot {
        let last = |(taken, taken_at_ms): (CheckpointStatus, i64)| TakenSnapshot {
            taken,
            taken_at_ms,
            age_ms: now_ms.saturating_sub(taken_at_ms),
        };
        CheckpointsSnapshot {
            interval_ms: self.interval_ms,
            last: self.last.map(last),
            failure: self.failure.map(|(reason, at_ms)| FailureSnapshot { at_ms, reason }),
        }
    }
}

/// The partition with the least watermark.
fn held_back_by(partitions: &[PartitionStatus]) -> Option<i32> {
    let known = partitions.iter().filter(|partition| partition.watermark_ms.is_some());
    known.min_by_key(|partition| partition.watermark_ms).map(|partition| partition.partition)
}

/// The wall clock, ms since the epoch.
pub(super) fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A writer that panicked leaves a value that is whole, so poisoning means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::status;

    fn worker(worker: usize, process: usize, events: u64) -> WorkerReport {
        let process = ProcessReport { process, phase: Phase::Running, uptime_ms: 5, resident_memory_bytes: Some(7) };
        let rejected = BTreeMap::from([("undecodable".to_owned(), 2), ("empty_user_id".to_owned(), worker as u64)]);
        WorkerReport { worker, process, events, late: 1, duplicates: 3, other_pages: 4, rejected }
    }

    #[test]
    fn snapshot_as_json() {
        let status = status(1);
        status.set_phase(Phase::Running);
        status.set_run(17, 3);
        status.set_heard_from(|| vec![(1, Duration::from_millis(300))]);
        status.set_watermark(9_000);
        status.set_committed(8_000);
        status.set_committed(7_000);
        status.set_worker(&worker(0, 0, 4));
        status.set_worker(&worker(0, 0, 5));
        status.set_worker(&worker(1, 1, 10));
        status.add_results(6);
        status.add_dead_letters(4);
        let partition = PartitionStatus {
            partition: 2,
            worker: 1,
            position: 7,
            high_watermark: 10,
            watermark_ms: Some(9_500),
            idle: true,
            awaited: None,
        };
        status.set_partition(PartitionStatus { position: 3, ..partition }, false);
        status.set_partition(partition, false);
        let json = serde_json::to_value(status.snapshot_at(10_000)).unwrap();
        let check = |pointer: &str, expected: serde_json::Value| {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json:#}");
        };
        check("/job", "clicks".into());
        check("/run", "clicks-17".into());
        check("/phase", "running".into());
        check("/notice", serde_json::Value::Null);
        check("/checkpoints", serde_json::Value::Null);
        check("/watermark_lag_ms", 1_000.into());
        check("/held_back_by", 2.into());
        check("/committed_window_end_ms", 8_000.into());
        check("/events", 15.into());
        check("/results", 6.into());
        check("/dead_letters", 4.into());
        check("/late", 2.into());
        check("/duplicates", 6.into());
        check("/other_pages", 8.into());
        check("/rejected_total", 5.into());
        check("/rejected/undecodable", 4.into());
        check("/lag_records", 3.into());
        check("/processes/0/heard_ms_ago", serde_json::Value::Null);
        check("/processes/1/heard_ms_ago", 300.into());
        check("/processes/1/events", 10.into());
        check("/processes/1/resident_memory_bytes", 7.into());
        check("/workers/0/partitions", serde_json::json!([]));
        check("/workers/1/partitions", serde_json::json!([2]));
        check("/partitions/0/watermark_lag_ms", 500.into());
        check("/partitions/0/idle", true.into());
        assert_eq!(json["partitions"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn open_windows() {
        // Windows of 50 every 10, and events may be 20 out of order.
        let check = |watermark_ms: i64, latest_watermark_ms: i64, expected: (u64, i64, i64)| {
            let status = status(1);
            let partition = PartitionStatus {
                partition: 0,
                worker: 0,
                position: 0,
                high_watermark: 0,
                watermark_ms: Some(latest_watermark_ms),
                idle: false,
                awaited: None,
            };
            status.set_watermark(watermark_ms);
            status.set_partition(partition, true);
            let open = status.snapshot().open_windows.expect("there is an event");
            assert_eq!((open.count, open.first_end_ms, open.last_end_ms), expected);
        };
        // The latest event is at 1,000: the window [1,000, 1,050) has begun.
        check(980, 980, (7, 990, 1_050));
        check(985, 985, (7, 990, 1_050));
        check(990, 990, (7, 1_000, 1_060));
        // Another partition is behind.
        check(900, 990, (16, 910, 1_060));
    }

    #[test]
    fn checkpoints() {
        let status = status(1);
        status.set_checkpoint_interval(30_000);
        let taken = CheckpointStatus {
            name: "checkpoint-1".into(),
            through_ms: 9_000,
            took_ms: 12,
            events: 5,
            bytes: 100,
            bytes_written: 40,
        };
        status.set_checkpoint(Ok(taken));
        status.set_checkpoint(Err("the disk is full".into()));
        let json = |status: &Status| serde_json::to_value(status.snapshot()).unwrap();
        let said = json(&status);
        assert_eq!(said.pointer("/checkpoints/last/name"), Some(&"checkpoint-1".into()), "{said:#}");
        assert_eq!(said.pointer("/checkpoints/failure/reason"), Some(&"the disk is full".into()), "{said:#}");
        let taken = lock(&status.checkpoints).clone().and_then(|checkpoints| checkpoints.last).expect("it was taken");
        status.set_checkpoint(Ok(taken.0));
        assert_eq!(json(&status).pointer("/checkpoints/failure"), Some(&serde_json::Value::Null));
    }

    #[test]
    fn figures_are_metrics_too() {
        let recorder = crate::metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let status = status(1);
            status.set_watermark(1_500);
            status.add_results(4);
            for (partition, own) in [(2, true), (3, false)] {
                let status_of = PartitionStatus {
                    partition,
                    worker: 0,
                    position: 7,
                    high_watermark: 10,
                    watermark_ms: Some(2_500),
                    idle: false,
                    awaited: None,
                };
                status.set_partition(status_of, own);
            }
        });
        let text = recorder.handle().render();
        let has = |line: &str| text.lines().any(|found| found == line);
        let check = |line: &str| assert!(has(line), "no {line:?} in\n{text}");
        check("clicktide_results_total 4");
        check("clicktide_job_watermark_timestamp_seconds 1.5");
        check(r#"clicktide_watermark_timestamp_seconds{partition="2"} 2.5"#);
        check(r#"clicktide_consumer_lag_records{partition="2"} 3"#);
        assert!(!has(r#"clicktide_consumer_lag_records{partition="3"} 3"#), "whoever reads it exports it:\n{text}");
    }

    #[test]
    fn rate_of_events() {
        let status = status(1);
        assert_eq!(status.snapshot().events_per_second, None);
        lock(&status.samples).insert(0, [(1_000, 50), (2_000, 150), (3_000, 450)].into());
        assert_eq!(status.snapshot().events_per_second, Some(200.0));
    }
}
