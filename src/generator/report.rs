//! What a run says of itself: about once a second, at its end, and as metrics.

use std::fmt;

use clicktide_dataflows::event::EventType;
use metrics::{Counter, Gauge, Histogram};
use serde::Serialize;

use super::injected::Injected;
use super::send::Deliveries;
use crate::metrics as names;

/// How a run is doing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Time since the start, seconds.
    pub elapsed_s: f64,
    /// Events taken over by the producer so far.
    pub sent: u64,
    /// Events acknowledged by the broker so far.
    pub acknowledged: u64,
    /// Events given up so far.
    pub failed: u64,
    /// Why the latest of them was given up.
    pub latest_error: Option<String>,
    /// Rate since the last report, events per second.
    pub events_per_second: f64,
    /// Rate that the schedule prescribes now, events per second.
    pub target_events_per_second: f64,
    /// Greatest lag behind the schedule since the last report, ms.
    pub lag_ms: f64,
    /// Events so far that found no room at the producer when they were due.
    pub delayed: u64,
    /// 99th percentile of the acknowledgement latency since the last report, ms.
    pub ack_p99_ms: f64,
}

/// What a run has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How long it took to send everything, seconds; waiting for the last acknowledgements not counted.
    pub elapsed_s: f64,
    /// Events taken over by the producer.
    pub sent: u64,
    /// Events acknowledged by the broker.
    pub acknowledged: u64,
    /// Events given up.
    pub failed: u64,
    /// Why the latest of them was given up.
    pub latest_error: Option<String>,
    /// Events whose fate was still unknown at the end.
    pub unknown: u64,
    /// Events that were due before the end but not sent, since the run was stopped while it lagged.
    pub unsent: u64,
    /// Events that had happened by the end and were to be sent later.
    pub on_the_way: u64,
    /// Events that found no room at the producer when they were due.
    pub delayed: u64,
    /// Mean rate of sending, events per second.
    pub events_per_second: f64,
    /// Greatest lag behind the schedule, ms.
    pub lag_ms_max: f64,
    /// Median of the acknowledgement latency, ms.
    pub ack_p50_ms: f64,
    /// 99th percentile of the acknowledgement latency, ms.
    pub ack_p99_ms: f64,
    /// Greatest acknowledgement latency, ms.
    pub ack_max_ms: f64,
    /// Size of the keys and values sent, bytes.
    pub bytes: u64,
    /// Acknowledged events by partition.
    pub by_partition: Vec<u64>,
    /// What share of clean events the hash of the keys gives to each partition in the long run.
    pub by_hash: Vec<f64>,
    /// Events sent by type; what was sent twice or damaged too.
    pub mix: MixCounts,
    /// What was sent beside clean events.
    pub injected: Injected,
}

/// Events by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MixCounts {
    /// Views.
    pub views: u64,
    /// Searches.
    pub searches: u64,
    /// Clicks.
    pub clicks: u64,
    /// Additions to the cart.
    pub add_to_cart: u64,
    /// Purchases.
    pub purchases: u64,
}

impl Summary {
    /// By what share of the mean the partition farthest from it differs from it; 0 without acknowledged events.
    pub fn partition_deviation_max(&self) -> f64 {
        deviation_max(self.by_partition.iter().map(|count| *count as f64))
    }

    /// The same of what the hash of the keys gives.
    pub fn hash_deviation_max(&self) -> f64 {
        deviation_max(self.by_hash.iter().copied())
    }
}

fn deviation_max(shares: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let mean = shares.clone().sum::<f64>() / shares.len() as f64;
    // Without partitions the mean is NaN, which is no more than 0 either.
    if mean > 0.0 { shares.map(|share| (share / mean - 1.0).abs()).fold(0.0, f64::max) } else { 0.0 }
}

impl MixCounts {
    /// Counts an event.
    pub fn count(&mut self, event_type: EventType) {
        match event_type {
            EventType::View => self.views += 1,
            EventType::Search => self.searches += 1,
            EventType::Click => self.clicks += 1,
            EventType::AddToCart => self.add_to_cart += 1,
            EventType::Purchase => self.purchases += 1,
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} s: {} events, {:.0}/s of {:.0}/s, lag {:.1} ms, {} acknowledged, {} failed, ack p99 {:.1} ms",
            self.elapsed_s,
            self.sent,
            self.events_per_second,
            self.target_events_per_second,
            self.lag_ms,
            self.acknowledged,
            self.failed,
            self.ack_p99_ms,
        )?;
        if self.delayed > 0 {
            write!(f, ", {} delayed by a full queue", self.delayed)?;
        }
        match &self.latest_error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |count: u64| 100.0 * count as f64 / self.sent.max(1) as f64;
        writeln!(
            f,
            "sent          {} events, {} bytes, in {:.1} s: {:.1} events/s",
            self.sent, self.bytes, self.elapsed_s, self.events_per_second
        )?;
        write!(
            f,
            "delivered     {} acknowledged, {} failed, {} unknown",
            self.acknowledged, self.failed, self.unknown
        )?;
        match &self.latest_error {
            Some(error) => writeln!(f, " ({error})")?,
            None => writeln!(f)?,
        }
        writeln!(
            f,
            "schedule      greatest lag {:.1} ms, {} delayed by a full queue, {} due but not sent, {} on their way",
            self.lag_ms_max, self.delayed, self.unsent, self.on_the_way
        )?;
        writeln!(
            f,
            "ack latency   p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.ack_p50_ms, self.ack_p99_ms, self.ack_max_ms
        )?;
        writeln!(
            f,
            "partitions    {:?}, at most {:.1} % from the mean; the hash of the keys gives {:.1} %",
            self.by_partition,
            100.0 * self.partition_deviation_max(),
            100.0 * self.hash_deviation_max()
        )?;
        write!(
            f,
            "mix           {:.1} % views, {:.1} % searches, {:.1} % clicks, {:.1} % add to cart, {:.1} % purchases",
            percent(self.mix.views),
            percent(self.mix.searches),
            percent(self.mix.clicks),
            percent(self.mix.add_to_cart),
            percent(self.mix.purchases)
        )?;
        let injected: Vec<String> = self
            .injected
            .kinds()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        if injected.is_empty() { Ok(()) } else { write!(f, "\ninjected      {}", injected.join(", ")) }
    }
}

/// The metrics of a run, brought up to date with each report rather than with each event.
pub(super) struct Metrics {
    events: Counter,
    acknowledged: Counter,
    failed: Counter,
    delayed: Counter,
    schedule_lag_s: Gauge,
    target_rate: Gauge,
    ack_latency_s: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Metrics {
            events: metrics::counter!(names::GENERATED),
            acknowledged: metrics::counter!(names::GENERATED_ACKNOWLEDGED),
            failed: metrics::counter!(names::GENERATED_FAILED),
            delayed: metrics::counter!(names::GENERATED_DELAYED),
            schedule_lag_s: metrics::gauge!(names::GENERATOR_SCHEDULE_LAG),
            target_rate: metrics::gauge!(names::GENERATOR_TARGET_RATE),
            ack_latency_s: metrics::histogram!(names::GENERATOR_ACKNOWLEDGEMENT),
        }
    }

    /// Takes in what has been sent beside clean events since `before`.
    pub(super) fn update_injected(&self, injected: &Injected, before: &Injected) {
        if injected == before {
            return;
        }
        for ((kind, count), (_, before)) in injected.kinds().zip(before.kinds()) {
            metrics::counter!(names::GENERATED_INJECTED, "kind" => kind).increment(count - before);
        }
    }

    /// Takes in a report and the deliveries since the one before.
    pub(super) fn update(&self, progress: &Progress, sent: u64, delayed: u64, recent: &Deliveries) {
        self.events.increment(sent);
        self.delayed.increment(delayed);
        self.acknowledged.increment(recent.acknowledged);
        self.failed.increment(recent.failed);
        self.schedule_lag_s.set(progress.lag_ms / 1_000.0);
        self.target_rate.set(progress.target_events_per_second);
        for (latency_us, count) in recent.latencies.counts_us() {
            self.ack_latency_s.record_many(latency_us as f64 / 1e6, count as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_deviation_is_the_greatest() {
        let check = |by_partition: &[u64], expected: f64| {
            let summary = Summary { by_partition: by_partition.to_vec(), ..Summary::default() };
            assert!((summary.partition_deviation_max() - expected).abs() < 1e-9, "{by_partition:?}");
        };
        check(&[], 0.0);
        check(&[0, 0], 0.0);
        check(&[5, 5], 0.0);
        check(&[90, 100, 110], 0.1);
        check(&[0, 100, 110, 90], 1.0);
    }

    #[test]
    fn progress_is_one_line() {
        let check = |delayed, latest_error: Option<&str>, end: &str| {
            let progress = Progress {
                elapsed_s: 12.0,
                sent: 12_000,
                acknowledged: 11_990,
                failed: 1,
                latest_error: latest_error.map(str::to_owned),
                events_per_second: 999.6,
                target_events_per_second: 1_000.0,
                lag_ms: 0.42,
                delayed,
                ack_p99_ms: 3.25,
            };
            let line = "12 s: 12000 events, 1000/s of 1000/s, lag 0.4 ms, 11990 acknowledged, 1 failed, ack p99 3.2 ms";
            assert_eq!(progress.to_string(), format!("{line}{end}"));
        };
        check(0, None, "");
        check(2, Some("timed out"), ", 2 delayed by a full queue (timed out)");
    }
}
