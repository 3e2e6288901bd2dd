//! What operators tell of what they keep: a log stream of the worker, beside timely's and differential's own.
//!
//! Whoever wants to know registers an action under [`KEPT`] before the dataflow is built; without one nothing is told and
//! nothing costs anything. The stock arrangements tell the same of themselves in `"differential/arrange"`.

use std::time::Duration;

use timely::container::CapacityContainerBuilder;
use timely::logging_core::Logger;
use timely::worker::Worker;

/// The name of the log stream.
pub const KEPT: &str = "clicktide/kept";

/// How events of the log stream are collected.
pub type KeptEventBuilder = CapacityContainerBuilder<Vec<(Duration, KeptEvent)>>;

/// What an operator keeps from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptEvent {
    /// Rows.
    Rows {
        /// The operator's global identifier.
        operator: usize,
        /// How many.
        rows: KeptRows,
    },
    /// What rows are kept under: users of pages, sessions, pages.
    Keys {
        /// The global identifier of the operator that keeps them.
        operator: usize,
        /// How many.
        keys: usize,
    },
}

/// How many rows a sliding operator keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptRows {
    /// Rows that wait until the frontier passes the tick at which they enter.
    pub waiting: usize,
    /// Rows that have entered and have yet to leave.
    pub entered: usize,
    /// The batches in which they came.
    pub batches: usize,
}

/// The worker's log of what is kept, if anybody has registered for it.
pub(crate) fn kept_logger(worker: &Worker) -> Option<Logger<KeptEventBuilder>> {
    worker.logger_for::<KeptEventBuilder>(KEPT)
}
