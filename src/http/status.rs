//! What one process says about itself: where it is in event time, what it has counted, and whether it is well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, counter, gauge};
use serde::Serialize;

use crate::metrics as names;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Connecting; no worker steps yet.
    Starting,
    /// Reading again what was committed before, to rebuild its windows.
    Replaying,
    /// Committing new windows.
    Running,
    /// Asked to stop.
    Stopping,
}

/// Which process of which job this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessIdentity {
    /// The job's name.
    pub job: String,
    /// The process's index, from 0.
    pub process: usize,
    /// Processes in the cluster.
    pub processes: usize,
    /// Workers in this process.
    pub workers: usize,
}

/// Where the reading of an input partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to read.
    pub position: i64,
    /// One past its last record, as far as the broker has told.
    pub high_watermark: i64,
    /// Its watermark in event time, ms, if it has one yet.
    pub watermark_ms: Option<i64>,
    /// Whether it is idle and holds the others back no longer.
    pub idle: bool,
}

/// What one process says about itself, shared by the pipeline, which writes it, and the HTTP server, which reads it.
///
/// The setters are cheap (an atomic, or a short lock that no request holds for long) and may be called from any
/// thread. Every figure set here is exported as a metric too, so the pipeline writes it only once; create the status
/// after [`crate::metrics::install`]. In a cluster the counters are those of this process alone.
#[derive(Debug)]
pub struct Status {
    identity: ProcessIdentity,
    started: Instant,
    started_at_ms: i64,
    phase: Mutex<(Phase, u64)>,
    notice: Mutex<Option<String>>,
    watermark_ms: Mutex<Option<i64>>,
    /// The last committed window end (ms) and the uptime (ms) then.
    committed: Mutex<Option<(i64, u64)>>,
    partitions: Mutex<BTreeMap<i32, Partition>>,
    /// By worker in this process: the uptime (ms) when it last stepped, or [`NEVER_STEPPED`].
    stepped_ms: Vec<AtomicI64>,
    events: Tally,
    results: Tally,
    late: Tally,
    rejected: Mutex<BTreeMap<&'static str, Tally>>,
    /// Uptime (ms) and events read, about once a second, for the rate.
    samples: Mutex<VecDeque<(u64, u64)>>,
}

const NEVER_STEPPED: i64 = -1;

/// Seconds over which the rate of events is taken.
const RATE_SECONDS: usize = 10;

/// A count that is also a metric.
struct Tally {
    count: AtomicU64,
    metric: Counter,
}

impl Tally {
    fn new(metric: Counter) -> Tally {
        Tally { count: AtomicU64::new(0), metric }
    }

    fn add(&self, n: u64) {
        self.count.fetch_add(n, Relaxed);
        self.metric.increment(n);
    }

    fn get(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

#[derive(Debug)]
struct Partition {
    status: PartitionStatus,
    watermark: Gauge,
    lag: Gauge,
}

impl Status {
    /// The status of a process that is starting.
    pub fn new(identity: ProcessIdentity) -> Status {
        let workers = identity.workers;
        Status {
            identity,
            started: Instant::now(),
            started_at_ms: wall_clock_ms(),
            phase: Mutex::new((Phase::Starting, 0)),
            notice: Mutex::default(),
            watermark_ms: Mutex::default(),
            committed: Mutex::default(),
            partitions: Mutex::default(),
            stepped_ms: (0..workers).map(|_| AtomicI64::new(NEVER_STEPPED)).collect(),
            events: Tally::new(counter!(names::EVENTS)),
            results: Tally::new(counter!(names::RESULTS)),
            late: Tally::new(counter!(names::LATE_EVENTS)),
            rejected: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// Says what the process is doing now.
    pub fn set_phase(&self, phase: Phase) {
        *lock(&self.phase) = (phase, self.uptime_ms());
    }

    /// Says something that whoever looks at the dashboard should know, such as unusual window sizes.
    pub fn set_notice(&self, notice: impl Into<String>) {
        *lock(&self.notice) = Some(notice.into());
    }

    /// Says that worker `worker` of this process, counted from 0, is alive. To be called at every step or so.
    pub fn worker_stepped(&self, worker: usize) {
        if let Some(stepped) = self.stepped_ms.get(worker) {
            stepped.store(i64::try_from(self.uptime_ms()).unwrap_or(i64::MAX), Relaxed);
        }
    }

    /// Says where the job's watermark is, ms.
    pub fn set_watermark(&self, watermark_ms: i64) {
        *lock(&self.watermark_ms) = Some(watermark_ms);
        gauge!(names::JOB_WATERMARK).set(seconds(watermark_ms));
    }

    /// Says that everything up to this window end, ms, is committed.
    pub fn set_committed(&self, window_end_ms: i64) {
        *lock(&self.committed) = Some((window_end_ms, self.uptime_ms()));
        gauge!(names::COMMITTED_WINDOW_END).set(seconds(window_end_ms));
    }

    /// Says where the reading of a partition stands.
    pub fn set_partition(&self, status: PartitionStatus) {
        let mut partitions = lock(&self.partitions);
        let partition = partitions.entry(status.partition).or_insert_with(|| {
            let label = status.partition.to_string();
            Partition {
                status,
                watermark: gauge!(names::PARTITION_WATERMARK, "partition" => label.clone()),
                lag: gauge!(names::CONSUMER_LAG, "partition" => label),
            }
        });
        partition.status = status;
        partition.lag.set(status.lag_records() as f64);
        if let Some(watermark_ms) = status.watermark_ms {
            partition.watermark.set(seconds(watermark_ms));
        }
    }

    /// Counts records read, valid or not.
    pub fn add_events(&self, n: u64) {
        self.events.add(n);
    }

    /// Counts results committed.
    pub fn add_results(&self, n: u64) {
        self.results.add(n);
    }

    /// Counts late events.
    pub fn add_late(&self, n: u64) {
        self.late.add(n);
    }

    /// Counts rejected events of one reason of the specification's list.
    pub fn add_rejected(&self, reason: &'static str, n: u64) {
        let mut rejected = lock(&self.rejected);
        let new = || Tally::new(counter!(names::REJECTED_EVENTS, "reason" => reason));
        rejected.entry(reason).or_insert_with(new).add(n);
    }

    /// Remembers how many events there are now, for their rate. The HTTP server calls it once a second.
    pub fn sample(&self) {
        let mut samples = lock(&self.samples);
        samples.push_back((self.uptime_ms(), self.events.get()));
        if samples.len() > RATE_SECONDS + 1 {
            samples.pop_front();
        }
    }

    /// Everything it says now.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.snapshot_at(wall_clock_ms())
    }

    /// Everything it says, at that reading of the wall clock, ms.
    pub fn snapshot_at(&self, now_ms: i64) -> StatusSnapshot {
        let behind = |watermark_ms: i64| now_ms.saturating_sub(watermark_ms);
        let watermark_ms = *lock(&self.watermark_ms);
        let rejected: BTreeMap<_, _> = lock(&self.rejected).iter().map(|(reason, n)| (*reason, n.get())).collect();
        let partition = |Partition { status, .. }: &Partition| PartitionSnapshot {
            partition: status.partition,
            position: status.position,
            high_watermark: status.high_watermark,
            lag_records: status.lag_records(),
            watermark_ms: status.watermark_ms,
            watermark_lag_ms: status.watermark_ms.map(behind),
            idle: status.idle,
        };
        StatusSnapshot {
            identity: self.identity.clone(),
            phase: self.phase(),
            notice: lock(&self.notice).clone(),
            started_at_ms: self.started_at_ms,
            now_ms,
            watermark_ms,
            watermark_lag_ms: watermark_ms.map(behind),
            committed_window_end_ms: lock(&self.committed).map(|(window_end_ms, _)| window_end_ms),
            events: self.events.get(),
            events_per_second: self.events_per_second(),
            results: self.results.get(),
            late: self.late.get(),
            rejected_total: rejected.values().sum(),
            rejected,
            partitions: lock(&self.partitions).values().map(partition).collect(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.phase).0
    }

    /// The process's age when its phase began, ms.
    pub(super) fn phase_began_ms(&self) -> u64 {
        lock(&self.phase).1
    }

    pub(super) fn watermark_ms(&self) -> Option<i64> {
        *lock(&self.watermark_ms)
    }

    pub(super) fn committed(&self) -> Option<(i64, u64)> {
        *lock(&self.committed)
    }

    pub(super) fn partitions(&self) -> Vec<PartitionStatus> {
        lock(&self.partitions).values().map(|partition| partition.status).collect()
    }

    /// By worker: the process's age when it last stepped, ms, if it ever did.
    pub(super) fn stepped_ms(&self) -> impl Iterator<Item = Option<u64>> {
        self.stepped_ms.iter().map(|stepped| u64::try_from(stepped.load(Relaxed)).ok())
    }

    /// The age of the process by a clock that never steps, ms.
    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn events_per_second(&self) -> Option<f64> {
        let samples = lock(&self.samples);
        let ((first_ms, first), (last_ms, last)) = (samples.front()?, samples.back()?);
        let elapsed_ms = last_ms - first_ms;
        (elapsed_ms > 0).then(|| (last - first) as f64 * 1000.0 / elapsed_ms as f64)
    }
}

impl PartitionStatus {
    /// Records not read yet; 0 while the high watermark is not known.
    pub fn lag_records(&self) -> i64 {
        self.high_watermark.saturating_sub(self.position).max(0)
    }
}

/// What a [`Status`] says at one moment, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct StatusSnapshot {
    /// Which process of which job this is.
    #[serde(flatten)]
    pub identity: ProcessIdentity,
    /// What the process is doing.
    pub phase: Phase,
    /// What whoever looks should know.
    pub notice: Option<String>,
    /// When the process started, ms, wall clock.
    pub started_at_ms: i64,
    /// When this was said, ms, wall clock.
    pub now_ms: i64,
    /// The job's watermark, ms.
    pub watermark_ms: Option<i64>,
    /// How far it is behind the wall clock, ms.
    pub watermark_lag_ms: Option<i64>,
    /// The last committed window end, ms.
    pub committed_window_end_ms: Option<i64>,
    /// Records this process has read.
    pub events: u64,
    /// Records it has read per second, over the last 10 s.
    pub events_per_second: Option<f64>,
    /// Results it has committed.
    pub results: u64,
    /// Late events among the records it has read.
    pub late: u64,
    /// Rejected events among the records it has read.
    pub rejected_total: u64,
    /// The same by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// The input partitions it knows of.
    pub partitions: Vec<PartitionSnapshot>,
}

/// Where the reading of an input partition stands at one moment, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionSnapshot {
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to read.
    pub position: i64,
    /// One past its last record.
    pub high_watermark: i64,
    /// Records not read yet.
    pub lag_records: i64,
    /// Its watermark, ms.
    pub watermark_ms: Option<i64>,
    /// How far that is behind the wall clock, ms.
    pub watermark_lag_ms: Option<i64>,
    /// Whether it is idle.
    pub idle: bool,
}

/// The wall clock, ms since the epoch.
fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// A writer that panicked leaves a value that is whole, so poisoning means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::status;

    #[test]
    fn snapshot_as_json() {
        let status = status(1);
        status.set_phase(Phase::Running);
        status.set_watermark(9_000);
        status.set_committed(8_000);
        status.add_events(5);
        status.add_rejected("undecodable", 1);
        status.add_rejected("empty_user_id", 1);
        status.add_rejected("undecodable", 1);
        let partition =
            PartitionStatus { partition: 2, position: 7, high_watermark: 10, watermark_ms: Some(9_500), idle: true };
        status.set_partition(PartitionStatus { position: 3, ..partition });
        status.set_partition(partition);
        let json = serde_json::to_value(status.snapshot_at(10_000)).unwrap();
        let check = |pointer: &str, expected: serde_json::Value| {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json}");
        };
        check("/job", "clicks".into());
        check("/phase", "running".into());
        check("/notice", serde_json::Value::Null);
        check("/watermark_lag_ms", 1_000.into());
        check("/committed_window_end_ms", 8_000.into());
        check("/events", 5.into());
        check("/rejected_total", 3.into());
        check("/rejected/undecodable", 2.into());
        check("/partitions/0/lag_records", 3.into());
        check("/partitions/0/watermark_lag_ms", 500.into());
        check("/partitions/0/idle", true.into());
        assert_eq!(json["partitions"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn figures_are_metrics_too() {
        let recorder = crate::metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let status = status(1);
            status.add_events(5);
            status.add_rejected("undecodable", 2);
            status.set_watermark(1_500);
            status.set_partition(PartitionStatus {
                partition: 2,
                position: 7,
                high_watermark: 10,
                watermark_ms: Some(2_500),
                idle: false,
            });
        });
        let text = recorder.handle().render();
        let check = |line: &str| assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        check("clicktide_events_total 5");
        check("clicktide_late_events_total 0");
        check(r#"clicktide_rejected_events_total{reason="undecodable"} 2"#);
        check("clicktide_job_watermark_timestamp_seconds 1.5");
        check(r#"clicktide_watermark_timestamp_seconds{partition="2"} 2.5"#);
        check(r#"clicktide_consumer_lag_records{partition="2"} 3"#);
    }

    #[test]
    fn rate_of_events() {
        let status = status(1);
        assert_eq!(status.events_per_second(), None);
        lock(&status.samples).extend([(1_000, 50), (2_000, 150), (3_000, 450)]);
        assert_eq!(status.events_per_second(), Some(200.0));
    }
}
