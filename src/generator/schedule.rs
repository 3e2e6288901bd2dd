//! When each event is due: open-loop, from the settings alone.
//!
//! Let `N(t)` be the integral of the rate from the start of the run to `t`. Event `i` is due when `N(t) = i`. The rate is the daily curve
//! outside bursts and the burst's own inside. It is held constant within slices of at most a second that end where a burst starts or ends,
//! each with exactly its share of the integral, so that inverting `N` is one division per event.

use std::f64::consts::TAU;

use super::settings::Settings;
use super::spells::Spells;

/// The due times of all events of a run, µs after its start: an iterator that never goes back, and ends with the run's duration.
///
/// Constant memory; a few nanoseconds per event.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: Rate,
    /// The end of the run, µs after its start; `u64::MAX` for none.
    end_us: u64,
    slice: Slice,
    /// The number of the next event, from 0.
    next_event: u64,
}

/// The rate over the time of a run.
#[derive(Clone, Debug)]
struct Rate {
    settings: Settings,
    /// When there are bursts.
    bursts: Option<Spells>,
    /// When the run starts, seconds after midnight UTC.
    start_of_day_s: f64,
}

/// A stretch of time with a constant rate.
#[derive(Clone, Copy, Debug)]
struct Slice {
    start_us: u64,
    end_us: u64,
    /// `N` at the start.
    events_before: f64,
    /// `N` at the end.
    events_after: f64,
}

const SECOND_US: u64 = 1_000_000;
const DAY_S: f64 = 86_400.0;
const DAY_MS: i64 = 86_400_000;

impl Schedule {
    /// The schedule of a run that starts at `start_ms`, ms since the epoch, which decides where in the day it is.
    pub fn new(settings: &Settings, start_ms: i64) -> Self {
        let burst = &settings.burst;
        let rate = Rate {
            settings: settings.clone(),
            bursts: burst.enabled.then(|| Spells::new(burst.start, burst.duration, burst.repeat)),
            start_of_day_s: start_ms.rem_euclid(DAY_MS) as f64 / 1_000.0,
        };
        let end_us = settings.duration.map_or(u64::MAX, |duration| duration.as_u64().saturating_mul(1_000));
        let slice = rate.slice(0, 0.0);
        Schedule { rate, end_us, slice, next_event: 0 }
    }

    /// The end of the run, µs after its start; `u64::MAX` for none.
    pub fn end_us(&self) -> u64 {
        self.end_us
    }

    /// The rate prescribed at `offset_us` µs after the start, events per second.
    pub fn rate_at(&self, offset_us: u64) -> f64 {
        self.rate.at(offset_us)
    }

    /// How many events are due before `offset_us` µs after the start.
    ///
    /// `offset_us` must not lie before the event that was taken last. Costs some nanoseconds per second of the run between the two.
    pub fn events_before(&self, offset_us: u64) -> u64 {
        let offset_us = offset_us.min(self.end_us);
        let mut slice = self.slice;
        while slice.end_us < offset_us {
            slice = self.rate.slice(slice.end_us, slice.events_after);
        }
        let within_us = offset_us.saturating_sub(slice.start_us) as f64;
        let share = within_us / (slice.end_us - slice.start_us) as f64;
        let events = slice.events_before + (slice.events_after - slice.events_before) * share;
        events.ceil() as u64
    }

    /// How many of those have not been taken yet.
    pub fn remaining_before(&self, offset_us: u64) -> u64 {
        self.events_before(offset_us).saturating_sub(self.next_event)
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let number = self.next_event as f64;
        while number >= self.slice.events_after {
            if self.slice.end_us >= self.end_us {
                return None;
            }
            self.slice = self.rate.slice(self.slice.end_us, self.slice.events_after);
        }
        let slice = &self.slice;
        let share = (number - slice.events_before) / (slice.events_after - slice.events_before);
        let due_us = slice.start_us + (share * (slice.end_us - slice.start_us) as f64) as u64;
        if due_us >= self.end_us {
            return None;
        }
        self.next_event += 1;
        Some(due_us)
    }
}

impl Rate {
    fn at(&self, offset_us: u64) -> f64 {
        if self.burst(offset_us).0 {
            return self.settings.burst.events_per_second;
        }
        let curve = &self.settings.daily_curve;
        let swing = if curve.enabled { curve.amplitude * self.phase(offset_us).cos() } else { 0.0 };
        self.settings.events_per_second * (1.0 + swing)
    }

    /// The slice that starts at `start_us`, where `N` is `events_before`.
    fn slice(&self, start_us: u64, events_before: f64) -> Slice {
        let (bursting, changes_us) = self.burst(start_us);
        let end_us = changes_us.min((start_us / SECOND_US + 1) * SECOND_US);
        let seconds = (end_us - start_us) as f64 / SECOND_US as f64;
        let events = if bursting {
            self.settings.burst.events_per_second * seconds
        } else {
            self.settings.events_per_second * (seconds + self.daily_swing_s(start_us, end_us))
        };
        // The integral of a rate is never negative; rounding at a trough of zero might be.
        Slice { start_us, end_us, events_before, events_after: events_before + events.max(0.0) }
    }

    /// The integral of the daily curve's swing around its mean of 1 between two offsets, in seconds.
    fn daily_swing_s(&self, start_us: u64, end_us: u64) -> f64 {
        let curve = &self.settings.daily_curve;
        if !curve.enabled {
            return 0.0;
        }
        curve.amplitude * DAY_S / TAU * (self.phase(end_us).sin() - self.phase(start_us).sin())
    }

    /// The angle of the daily curve: 0 at the peak.
    fn phase(&self, offset_us: u64) -> f64 {
        let since_peak_s =
            self.start_of_day_s + offset_us as f64 / SECOND_US as f64 - self.settings.daily_curve.peak_hour * 3_600.0;
        since_peak_s / DAY_S * TAU
    }

    /// Whether there is a burst at an offset, and the offset at which that changes.
    fn burst(&self, offset_us: u64) -> (bool, u64) {
        let Some(bursts) = &self.bursts else { return (false, u64::MAX) };
        let spell = bursts.at(offset_us);
        (spell.number.is_some(), spell.until_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generator::settings::{Burst, DailyCurve};
    use crate::millis::Millis;

    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 3_600_000;

    fn steady(events_per_second: f64, duration_ms: i64) -> Settings {
        Settings { events_per_second, duration: Some(Millis(duration_ms)), ..Settings::default() }
    }

    fn daily(amplitude: f64, duration_ms: i64) -> Settings {
        let daily_curve = DailyCurve { enabled: true, peak_hour: 20.0, amplitude };
        Settings { daily_curve, ..steady(1_000.0, duration_ms) }
    }

    #[test]
    fn events_are_evenly_spaced() {
        let check = |rate, expected: &[u64]| {
            let due: Vec<u64> = Schedule::new(&steady(rate, 2_000), 0).collect();
            assert_eq!(due, expected, "{rate} events/s");
        };
        check(4.0, &[0, 250_000, 500_000, 750_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000]);
        check(1.0, &[0, 1_000_000]);
        check(0.5, &[0]);
        check(1.5, &[0, 666_666, 1_333_333]);
    }

    #[test]
    fn the_daily_curve_keeps_the_mean_over_the_day() {
        let check = |amplitude, start_ms| {
            let events = Schedule::new(&daily(amplitude, 24 * HOUR_MS), start_ms).events_before(u64::MAX) as f64;
            assert!((events - 86_400_000.0).abs() <= 1.0, "amplitude {amplitude}, start {start_ms}: {events} events");
        };
        check(0.0, 0);
        check(0.6, 0);
        check(1.0, 0);
        check(0.6, 1_700_000_123_456);
        check(0.6, -1);
    }

    #[test]
    fn the_daily_curve_peaks_at_its_hour() {
        let schedule = Schedule::new(&daily(0.6, 24 * HOUR_MS), 0);
        let check = |hour: u64, expected: f64| {
            let rate = schedule.rate_at(hour * HOUR_MS as u64 * 1_000);
            assert!((rate - expected).abs() < 1e-6, "{hour} h: {rate} events/s");
        };
        check(20, 1_600.0);
        check(8, 400.0);
        check(14, 1_000.0);
        let per_hour = |hour: u64| {
            let until = |hour: u64| schedule.events_before(hour * HOUR_MS as u64 * 1_000);
            until(hour + 1) - until(hour)
        };
        // The integral of 1 + 0.6 cos over the half hours around the peak, in closed form.
        let around_peak = 3_600_000.0 * (1.0 + 0.6 * 24.0 / TAU * (TAU / 24.0).sin());
        assert!((per_hour(20) as f64 - around_peak).abs() < 2.0, "{} against {around_peak}", per_hour(20));
        assert!(per_hour(8) < per_hour(14) && per_hour(14) < per_hour(20));
    }

    #[test]
    fn bursts_come_when_they_should() {
        let check = |burst: Burst, minutes: &[u64]| {
            let settings = Settings { burst, ..steady(1_000.0, minutes.len() as i64 * MINUTE_MS) };
            let mut counts = vec![0; minutes.len()];
            for due_us in Schedule::new(&settings, 0) {
                counts[(due_us / 60_000_000) as usize] += 1;
            }
            assert_eq!(counts, minutes);
        };
        let burst = Burst { enabled: true, ..Burst::default() };
        let (calm, busy) = (60_000, 300_000);
        check(Burst { enabled: false, ..burst }, &[calm, calm, calm]);
        check(burst, &[calm, busy, busy, busy, busy, busy, calm, calm]);
        let short = Burst { duration: Millis(MINUTE_MS), repeat: Some(Millis(3 * MINUTE_MS)), ..burst };
        check(short, &[calm, busy, calm, calm, busy, calm, calm, busy]);
        check(Burst { start: Millis(0), repeat: Some(Millis(MINUTE_MS)), ..short }, &[busy, busy, busy]);
        check(
            Burst { start: Millis(30_500), duration: Millis(59_250), ..burst },
            &[30_500 + 29_500 * 5, 29_750 * 5 + 30_250, calm],
        );
    }

    fn any_settings() -> impl Strategy<Value = Settings> {
        let rate = || prop_oneof![0.5..50.0, 50.0..5_000.0_f64];
        let curve = (any::<bool>(), 0.0..24.0, 0.0..=1.0_f64);
        let burst = (any::<bool>(), rate(), 1..5_000_i64, 0..5_000_i64, proptest::option::of(0..5_000_i64));
        (rate(), 1..20_000_i64, curve, burst).prop_map(|(rate, duration_ms, curve, burst)| {
            let repeat = burst.4.map(|pause_ms| Millis(burst.2 + pause_ms));
            Settings {
                daily_curve: DailyCurve { enabled: curve.0, peak_hour: curve.1, amplitude: curve.2 },
                burst: Burst {
                    enabled: burst.0,
                    events_per_second: burst.1,
                    duration: Millis(burst.2),
                    start: Millis(burst.3),
                    repeat,
                },
                ..steady(rate, duration_ms)
            }
        })
    }

    proptest! {
        #[test]
        fn due_times_never_go_back_and_match_the_integral(settings in any_settings(), start_ms in 0..DAY_MS) {
            prop_assert_eq!(settings.validate(), Ok(()));
            let schedule = Schedule::new(&settings, start_ms);
            let due: Vec<u64> = schedule.clone().collect();
            prop_assert!(due.is_sorted());
            let end_us = settings.duration.unwrap().as_u64() * 1_000;
            prop_assert!(due.iter().all(|due_us| *due_us < end_us));
            for offset_us in [0, end_us / 3, end_us / 2, end_us] {
                let counted = due.iter().filter(|due_us| **due_us < offset_us).count() as u64;
                // Due times are whole microseconds, so the event on the border may fall on either side.
                prop_assert!(counted.abs_diff(schedule.events_before(offset_us)) <= 1);
            }
        }
    }
}
