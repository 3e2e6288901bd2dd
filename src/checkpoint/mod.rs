//! Checkpoints: the events of the windows that are open, in objects beside Kafka, so that a start need not read them again.
//!
//! ```text
//!  activities ─▶ capture (every worker) ─▶ writer (a thread per process) ─▶ pane objects: what entered since the last
//!                                                     │ all processes have written
//!                                                     ▼
//!                                          manifest (process 0, last, create-only) ─▶ what is no longer needed is deleted
//! ```
//!
//! There is no barrier: the frontier is the barrier. A checkpoint through T holds every event that entered the windows at or
//! before T and has not left them by then, and is taken once T is committed, so that the events that enter by T are all known
//! and none comes after. Restoring is replaying: its events enter the same dataflow again, at T; then the partitions are read
//! from the first offset with an event that enters after T. What is kept are events, with their ids hashed, and not the
//! state of operators: so any number of workers can restore it, and a dataflow that is built otherwise.
//!
//! A store holds, for every job, under its name:
//!
//! | object | what |
//! |---|---|
//! | `generations/G` | the marker of the run with generation G: whoever sees a later one than its own is fenced |
//! | `panes/G-…` | pane objects, written by generation G |
//! | `checkpoints/T-G` | manifests; the newest good one that is not ahead of what is committed is restored |
//! | `savepoints/NAME` | manifests that were asked for, kept until somebody deletes them |
//! | `probes/…` | objects by which processes find out whether they share the store |
//!
//! Architecture invariant: nothing here decides what is committed. Results are right with any usable checkpoint, and with none.

pub mod capture;
pub mod choose;
pub mod coordinator;
pub mod format;
pub mod listing;
pub mod manifest;
pub mod names;
pub mod pane_object;
pub mod prune;
pub mod restore;
pub mod store;
pub mod worker;
pub mod writer;

use clicktide_dataflows::event::{Activity, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick};
use serde::{Deserialize, Serialize};

use crate::progress::{IdleAdvance, PartitionCut, Place};

/// The place from which a partition has to be read again to find all that enters after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The partition.
    pub partition: i32,
    /// Every record before `offset` entered, or was judged, at or before this tick.
    pub after: Tick,
    /// Where to read on.
    pub offset: i64,
    /// The partition's clock just before that.
    pub clock: PartitionClock,
    /// From where the partition's past has to be known there, if it has to be.
    #[serde(default)]
    pub history_from: Option<i64>,
}

impl ResumePoint {
    /// Where to read on, with all that it takes.
    pub fn place(&self) -> Place {
        Place { offset: self.offset, clock: self.clock, history_from: self.history_from }
    }
}

/// A pane object, as a manifest refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its name in the store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The checksum of all its bytes: [`format::checksum`].
    pub checksum: String,
    /// How many events it holds.
    pub events: u64,
    /// The first window end by which all of them have left: no later checkpoint needs it.
    pub needed_until: Tick,
    /// Events in it that entered later don't count: a later run went on from a checkpoint before them, and has read them again.
    pub counts_through: Tick,
}

/// What a checkpoint consists of: everything that a run needs to go on from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job that has written it.
    pub job: String,
    /// The run that has.
    pub generation: i64,
    /// The configuration that gives its events their meaning, as JSON.
    pub configuration: String,
    /// The id of the input topic, where the brokers know such ids.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// Every event that entered at or before this tick, and had not left by then, is in the objects.
    pub through: Tick,
    /// The input cut committed with `through`: from it the windows can be rebuilt without the objects.
    pub input: Vec<PartitionCut>,
    /// Where each partition has to be read on: of each, all points of the last window, the latest last.
    pub resume: Vec<ResumePoint>,
    /// The floors set by idleness at or after each partition's `replay_from`.
    pub idle_advances: Vec<IdleAdvance>,
    /// The pane objects. They may also hold events that entered after `through`, or have left by then: those don't count.
    pub objects: Vec<ObjectRef>,
}

/// What is in a pane object: events, each in the pane it belongs to, and the names of their pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaneObject {
    /// The events, in no order.
    pub activities: Vec<Activity>,
    /// The name of every page that they refer to.
    pub names: Vec<PageName>,
}
