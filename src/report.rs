//! What the processes and workers of a job tell each other of themselves, for whoever watches the job.
//!
//! Every worker hears every report, so that any process, and above all process 0, can speak for the whole cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Connecting; no worker steps yet.
    #[default]
    Starting,
    /// Reading again what was committed before, to rebuild its windows.
    Replaying,
    /// Committing new windows.
    Running,
    /// Asked to stop.
    Stopping,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 4] = [Phase::Starting, Phase::Replaying, Phase::Running, Phase::Stopping];

    /// What it is called in JSON and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Replaying => "replaying",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
        }
    }
}

/// What a process says of itself to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// The process's index.
    pub process: usize,
    /// What it is doing.
    pub phase: Phase,
    /// How long ago it started, ms.
    pub uptime_ms: u64,
    /// The memory it holds, where the system says so.
    pub resident_memory_bytes: Option<u64>,
}

/// What a worker says of itself to the others, and of its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The worker's index in the whole cluster.
    pub worker: usize,
    /// The process it is in.
    pub process: ProcessReport,
    /// Records it has read since the run began.
    pub events: u64,
    /// Those of them that came too late.
    pub late: u64,
    /// Those that were copies of events that are remembered.
    pub duplicates: u64,
    /// Those that count for the page of all that are not told apart.
    pub other_pages: u64,
    /// Those that were rejected, by the reason's label.
    pub rejected: BTreeMap<String, u64>,
}
