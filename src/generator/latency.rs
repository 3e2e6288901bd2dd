//! Latencies of acknowledgements, as a histogram of constant size.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies from a microsecond to ten minutes, to 1 % of their value; longer ones count as ten minutes.
///
/// Takes about 25 KB, however many there are.
#[derive(Clone)]
pub struct Latencies {
    histogram_us: Histogram<u64>,
}

const LATENCY_US_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

impl Latencies {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_us(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), 1);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Latencies) {
        for (latency_us, count) in other.counts_us() {
            self.record_us(latency_us, count);
        }
    }

    /// The latency, ms, that a share (in [0, 1]) of all latencies do not exceed; 0 without any.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.histogram_us.value_at_quantile(share) as f64 / 1_000.0
    }

    /// The greatest latency, ms; 0 without any.
    pub fn max_ms(&self) -> f64 {
        self.histogram_us.max() as f64 / 1_000.0
    }

    /// How many latencies there are.
    pub fn count(&self) -> u64 {
        self.histogram_us.len()
    }

    /// Each distinct latency, µs, to the precision kept, with how often it was recorded.
    pub fn counts_us(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.histogram_us.iter_recorded().map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
    }

    fn record_us(&mut self, latency_us: u64, count: u64) {
        self.histogram_us.saturating_record_n(latency_us.clamp(1, LATENCY_US_MAX), count);
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS);
        Latencies { histogram_us: histogram_us.expect("these constants are bounds that a histogram can have") }
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} latencies, p99 {} ms", self.count(), self.quantile_ms(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_percent() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let mut twice = latencies.clone();
        twice.add(&latencies);
        let check =
            |actual: f64, expected: f64| assert!((actual / expected - 1.0).abs() < 0.01, "{actual}, not {expected}");
        for latencies in [&latencies, &twice] {
            check(latencies.quantile_ms(0.5), 500.0);
            check(latencies.quantile_ms(0.99), 990.0);
            check(latencies.max_ms(), 1_000.0);
        }
        assert_eq!((latencies.count(), twice.count()), (1_000, 2_000));
    }

    #[test]
    fn extremes_are_kept() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.quantile_ms(0.99), latencies.max_ms(), latencies.count()), (0.0, 0.0, 0));
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max_ms() >= 600_000.0);
    }
}
