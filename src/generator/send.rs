//! Where events go: the boundary between the generator and whatever carries its events.

use std::time::Duration;

use super::form::Form;
use super::latency::Latencies;
use crate::event::ClickEvent;

/// Takes events to be delivered in the background.
///
/// The promise: `send` never waits for a broker. An event is either taken over, and will be counted as acknowledged or as failed once
/// that is known, or refused because there is no room, in which case nothing of it has been kept and it can be sent again.
pub trait SendEvent {
    /// Why nothing can be sent any more.
    type Error: std::error::Error;

    /// Takes an event over in the form given, if there is room.
    ///
    /// # Errors
    ///
    /// Where trying again cannot help.
    fn send(&mut self, event: &ClickEvent, form: Form) -> Result<Admission, Self::Error>;

    /// Over how many partitions events are spread by their keys.
    fn partitions(&self) -> usize;

    /// What has become known of events since the last call.
    fn take_deliveries(&mut self) -> Deliveries;

    /// Waits until the fate of every event is known, or for as long as the timeout.
    ///
    /// # Errors
    ///
    /// Where waiting cannot help. That some are still unknown after the timeout is not an error: they count as neither.
    fn flush(&mut self, timeout: Duration) -> Result<(), Self::Error>;
}

/// Whether an event was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was.
    Accepted {
        /// Size of key and value, bytes.
        bytes: usize,
    },
    /// There was no room for it.
    QueueFull,
}

/// What has become of events.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// Events that the broker has confirmed.
    pub acknowledged: u64,
    /// Events that were given up: lost, or not known to have arrived.
    pub failed: u64,
    /// Acknowledged events by partition.
    pub by_partition: Vec<u64>,
    /// From taking an event over to its acknowledgement.
    pub latencies: Latencies,
    /// Why the latest of the failed ones failed.
    pub latest_error: Option<String>,
}

impl Deliveries {
    /// Counts an acknowledged event.
    pub fn acknowledge(&mut self, partition: usize, latency: Duration) {
        self.acknowledged += 1;
        self.count_partition(partition, 1);
        self.latencies.record(latency);
    }

    /// Counts an event that failed.
    pub fn fail(&mut self, error: String) {
        self.failed += 1;
        self.latest_error = Some(error);
    }

    /// Adds what became known later.
    pub fn add(&mut self, later: &Deliveries) {
        self.acknowledged += later.acknowledged;
        self.failed += later.failed;
        for (partition, count) in later.by_partition.iter().enumerate() {
            self.count_partition(partition, *count);
        }
        self.latencies.add(&later.latencies);
        if later.latest_error.is_some() {
            self.latest_error.clone_from(&later.latest_error);
        }
    }

    fn count_partition(&mut self, partition: usize, count: u64) {
        if self.by_partition.len() <= partition {
            self.by_partition.resize(partition + 1, 0);
        }
        self.by_partition[partition] += count;
    }
}
