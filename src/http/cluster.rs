//! What a job says of the whole cluster at one moment: the document of `/v1/cluster`, and of the stream's `cluster` events.
//!
//! [`Status::snapshot`](super::status::Status::snapshot) makes it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::status::CheckpointStatus;
use crate::report::Phase;

/// The cluster at one moment.
///
/// Counts are sums over all workers since the run began, as they have told last, which they do once a second.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ClusterSnapshot {
    /// The job's name.
    pub job: String,
    /// Which run of the job this is, of all its starts: its name and generation. It is in every log line, too. None before
    /// the processes are together.
    pub run: Option<String>,
    /// What the process that answers is doing.
    pub phase: Phase,
    /// What whoever looks should know.
    pub notice: Option<String>,
    /// What this process waits for from the schema registry, a line each.
    pub registry_waits: Vec<String>,
    /// When the process that answers started, ms, wall clock.
    pub started_at_ms: i64,
    /// When this was said, ms, wall clock.
    pub now_ms: i64,
    /// The windows that the job computes.
    pub windows: WindowsSnapshot,
    /// The job's watermark, ms.
    pub watermark_ms: Option<i64>,
    /// How far it is behind the wall clock, ms.
    pub watermark_lag_ms: Option<i64>,
    /// The partition with the least watermark, which the job's waits for.
    pub held_back_by: Option<i32>,
    /// The last committed window end, ms.
    pub committed_window_end_ms: Option<i64>,
    /// The windows that have begun, by the latest event, and are not closed; none before the first event.
    pub open_windows: Option<OpenWindows>,
    /// Records read.
    pub events: u64,
    /// Records read per second, over the last 10 s.
    pub events_per_second: Option<f64>,
    /// Results committed.
    pub results: u64,
    /// Dead letters committed.
    pub dead_letters: u64,
    /// Late events among the records read.
    pub late: u64,
    /// Copies of remembered events among the records read, which count in nothing.
    pub duplicates: u64,
    /// Events among the records read that count for the page of all that are not told apart.
    pub other_pages: u64,
    /// Rejected events among the records read.
    pub rejected_total: u64,
    /// The same by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Records in all partitions that have not been read yet.
    pub lag_records: i64,
    /// The checkpoints; none where the job takes none.
    pub checkpoints: Option<CheckpointsSnapshot>,
    /// The processes that have been heard, this one included.
    pub processes: Vec<ProcessSnapshot>,
    /// The workers that have been heard.
    pub workers: Vec<WorkerSnapshot>,
    /// The input partitions that are read.
    pub partitions: Vec<PartitionSnapshot>,
}

/// The windows that a job computes, ms.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct WindowsSnapshot {
    /// The length of every window.
    pub size_ms: i64,
    /// The distance between window ends.
    pub slide_ms: i64,
    /// What is added to the multiples of the slide where windows start.
    pub offset_ms: i64,
    /// How far events of a partition may come out of order before they are late.
    pub disorder_bound_ms: i64,
}

/// The windows that events can still enter and that have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OpenWindows {
    /// How many there are.
    pub count: u64,
    /// The end of the first one, ms: it is closed next.
    pub first_end_ms: i64,
    /// The end of the last one, ms.
    pub last_end_ms: i64,
}

/// The checkpoints of a job at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckpointsSnapshot {
    /// How long after one checkpoint the next one is taken, ms.
    pub interval_ms: i64,
    /// The last one of this run, if there is one.
    pub last: Option<TakenSnapshot>,
    /// Why the attempt after it has failed, if it has.
    pub failure: Option<FailureSnapshot>,
}

/// The last checkpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TakenSnapshot {
    /// The checkpoint.
    #[serde(flatten)]
    pub taken: CheckpointStatus,
    /// When it was complete, ms, wall clock.
    pub taken_at_ms: i64,
    /// How long ago that was, ms.
    pub age_ms: i64,
}

/// A failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FailureSnapshot {
    /// When it happened, ms, wall clock.
    pub at_ms: i64,
    /// What happened.
    pub reason: String,
}

/// A process at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProcessSnapshot {
    /// The process's index.
    pub process: usize,
    /// What it is doing.
    pub phase: Phase,
    /// How long ago it gave a sign of life, ms; none of the process that answers.
    pub heard_ms_ago: Option<u64>,
    /// How long ago it started, ms.
    pub uptime_ms: u64,
    /// Its workers.
    pub workers: usize,
    /// Records that they have read.
    pub events: u64,
    /// Records that they have read per second, over the last 10 s.
    pub events_per_second: Option<f64>,
    /// The memory it holds, where the system says so.
    pub resident_memory_bytes: Option<u64>,
}

/// A worker at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WorkerSnapshot {
    /// The worker's index in the whole cluster.
    pub worker: usize,
    /// The process it is in.
    pub process: usize,
    /// How long ago it has shown that it steps, ms.
    pub stepped_ms_ago: Option<u64>,
    /// The input partitions that it reads.
    pub partitions: Vec<i32>,
    /// Records that it has read.
    pub events: u64,
    /// Late events among them.
    pub late: u64,
    /// Copies of remembered events among them.
    pub duplicates: u64,
    /// Events among them of pages that are not told apart.
    pub other_pages: u64,
    /// Rejected events among them.
    pub rejected: u64,
}

/// Where the reading of an input partition stands at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PartitionSnapshot {
    /// The partition.
    pub partition: i32,
    /// The worker that reads it.
    pub worker: usize,
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
    /// Whether it is idle and holds the others back no longer.
    pub idle: bool,
    /// The id of the schema that it waits for before it goes on, if so.
    pub awaited_schema: Option<u32>,
}
