//! Drives the schedule: makes each event when it is due and hands it over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::injected::Injected;
use super::model::Model;
use super::report::{Metrics, Progress, Summary};
use super::schedule::Schedule;
use super::send::{Admission, Deliveries, SendEvent};
use super::settings::{Settings, SettingsError};
use super::traffic::{Outgoing, Traffic};

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// It never began: a setting cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Nothing can be sent any more.
    #[error("stopped after {} events: {source}", summary.sent)]
    Send {
        /// Why.
        source: E,
        /// What was done until then.
        summary: Box<Summary>,
    },
}

const REPORT_EVERY_US: u64 = 1_000_000;
/// How long to wait at the end for the events on their way.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// Waits are cut into pieces no longer than this, so that a stop is noticed.
const WAIT_US_MAX: u64 = 50_000;
/// Nor shorter than this: at high rates some events are sent together, up to this late, rather than each with a wake-up of its own.
const WAIT_US_MIN: u64 = 1_000;

/// Sends events as they fall due until the duration is over or `stop` is set, then waits up to 30 s for those on their way.
///
/// Calls `report` about once a second. Each event's timestamp is the wall-clock time at which it was due, however late it is sent.
/// An event that finds no room is sent again until there is: nothing is left out, and how far the run lags behind is reported.
///
/// # Errors
///
/// Where the settings are not valid, or nothing can be sent any more.
pub fn run<S: SendEvent>(
    settings: &Settings,
    clock: &impl Clock,
    stop: &AtomicBool,
    sink: &mut S,
    report: impl FnMut(&Progress),
) -> Result<Summary, RunError<S::Error>> {
    let start = clock.now();
    let start_ms = clock.origin_ms() + start.as_millis() as i64;
    let partitions = u32::try_from(sink.partitions()).unwrap_or(u32::MAX);
    let mut traffic = Traffic::new(settings, start_ms, partitions)?;
    // What the schedule prescribes is asked for while the traffic lends an event.
    let schedule = Schedule::new(settings, start_ms);
    let mut run = Run { clock, start, stop, sink, report, schedule, meter: Meter::new() };
    run.meter.summary.by_hash = Model::shares_by_hash(settings, partitions);
    let (mut unsent_us, mut outcome) = (None, Ok(()));
    while let Some(outgoing) = traffic.next() {
        let due_us = outgoing.due_us;
        let sent = if run.wait_until(due_us) { run.send(outgoing) } else { Ok(false) };
        if !matches!(sent, Ok(true)) {
            unsent_us = Some(due_us);
            outcome = sent.map(|_| ());
            break;
        }
    }
    run.finish(&traffic, unsent_us, outcome)
}

/// A run that is going on.
struct Run<'a, C, S, R> {
    clock: &'a C,
    /// When it started, by the clock.
    start: Duration,
    stop: &'a AtomicBool,
    sink: &'a mut S,
    report: R,
    schedule: Schedule,
    meter: Meter,
}

/// What a run has counted.
struct Meter {
    /// The counts so far; what follows from others is filled in at the end.
    summary: Summary,
    deliveries: Deliveries,
    /// Greatest lag since the last report, µs.
    lag_us: u64,
    reported_at_us: u64,
    /// How many events had been sent, and how many delayed, at the last report.
    reported: (u64, u64),
    /// What had been put in besides at the last report.
    reported_injected: Injected,
    metrics: Metrics,
}

impl<C: Clock, S: SendEvent, R: FnMut(&Progress)> Run<'_, C, S, R> {
    fn elapsed_us(&self) -> u64 {
        self.clock.now().saturating_sub(self.start).as_micros() as u64
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until an event is due; returns false if the run was stopped instead.
    fn wait_until(&mut self, due_us: u64) -> bool {
        while !self.stopped() {
            let now_us = self.elapsed_us();
            self.report_if_due(now_us);
            if now_us >= due_us {
                return true;
            }
            self.clock.sleep(Duration::from_micros((due_us - now_us).clamp(WAIT_US_MIN, WAIT_US_MAX)));
        }
        false
    }

    /// Hands a record over, as often as it takes; returns false if the run was stopped before there was room.
    fn send(&mut self, outgoing: &Outgoing) -> Result<bool, S::Error> {
        let Outgoing { event, form, due_us, marks } = outgoing;
        let mut delayed = false;
        loop {
            let admission = self.sink.send(event, *form)?;
            let now_us = self.elapsed_us();
            self.meter.lag(now_us.saturating_sub(*due_us));
            if let Admission::Accepted { bytes } = admission {
                self.meter.summary.sent += 1;
                self.meter.summary.bytes += bytes as u64;
                self.meter.summary.mix.count(event.event_type);
                self.meter.summary.injected.count(*form, marks);
                return Ok(true);
            }
            if !delayed {
                delayed = true;
                self.meter.summary.delayed += 1;
            }
            if self.stopped() {
                return Ok(false);
            }
            self.report_if_due(now_us);
            self.clock.sleep(Duration::from_micros(WAIT_US_MIN));
        }
    }

    fn report_if_due(&mut self, now_us: u64) {
        if now_us - self.meter.reported_at_us >= REPORT_EVERY_US {
            self.report(now_us);
        }
    }

    fn report(&mut self, now_us: u64) {
        let recent = self.sink.take_deliveries();
        let progress = self.meter.progress(now_us, self.schedule.rate_at(now_us), &recent);
        (self.report)(&progress);
    }

    /// `unsent_us` is when the record was due that was asked for and not sent, if there is one.
    fn finish(
        mut self,
        traffic: &Traffic,
        unsent_us: Option<u64>,
        outcome: Result<(), S::Error>,
    ) -> Result<Summary, RunError<S::Error>> {
        let end_us = self.elapsed_us();
        // A producer that takes nothing any more need not be waited for.
        let outcome = outcome.and_then(|()| self.sink.flush(FLUSH_TIMEOUT));
        self.meter.summary.injected.silenced = traffic.silenced();
        // The last report covers what the flush has brought, but its rate is that of sending.
        self.report(end_us.max(self.meter.reported_at_us + 1));
        let Meter { mut summary, deliveries, .. } = self.meter;
        summary.elapsed_s = end_us as f64 / 1e6;
        summary.events_per_second = if end_us > 0 { summary.sent as f64 / summary.elapsed_s } else { 0.0 };
        let in_hand = unsent_us.map(|due_us| u64::from(due_us < end_us));
        summary.unsent = traffic.unsent(end_us) + in_hand.unwrap_or(0);
        summary.on_the_way = traffic.on_the_way(end_us) + in_hand.map_or(0, |due| 1 - due);
        summary.acknowledged = deliveries.acknowledged;
        summary.failed = deliveries.failed;
        summary.unknown = summary.sent.saturating_sub(deliveries.acknowledged + deliveries.failed);
        summary.ack_p50_ms = deliveries.latencies.quantile_ms(0.5);
        summary.ack_p99_ms = deliveries.latencies.quantile_ms(0.99);
        summary.ack_max_ms = deliveries.latencies.max_ms();
        summary.by_partition = deliveries.by_partition;
        summary.latest_error = deliveries.latest_error;
        match outcome {
            Ok(()) => Ok(summary),
            Err(source) => Err(RunError::Send { source, summary: Box::new(summary) }),
        }
    }
}

impl Meter {
    fn new() -> Self {
        Meter {
            summary: Summary::default(),
            deliveries: Deliveries::default(),
            lag_us: 0,
            reported_at_us: 0,
            reported: (0, 0),
            reported_injected: Injected::default(),
            metrics: Metrics::new(),
        }
    }

    fn lag(&mut self, lag_us: u64) {
        self.lag_us = self.lag_us.max(lag_us);
        self.summary.lag_ms_max = self.summary.lag_ms_max.max(lag_us as f64 / 1_000.0);
    }

    /// The progress since the last report, with which the next one begins.
    fn progress(&mut self, now_us: u64, target_events_per_second: f64, recent: &Deliveries) -> Progress {
        self.deliveries.add(recent);
        let Summary { sent, delayed, .. } = self.summary;
        let newly = (sent - self.reported.0, delayed - self.reported.1);
        let progress = Progress {
            elapsed_s: now_us as f64 / 1e6,
            sent,
            acknowledged: self.deliveries.acknowledged,
            failed: self.deliveries.failed,
            latest_error: self.deliveries.latest_error.clone(),
            events_per_second: newly.0 as f64 / ((now_us - self.reported_at_us) as f64 / 1e6),
            target_events_per_second,
            lag_ms: self.lag_us as f64 / 1_000.0,
            delayed,
            ack_p99_ms: recent.latencies.quantile_ms(0.99),
        };
        self.metrics.update(&progress, newly.0, newly.1, recent);
        self.metrics.update_injected(&self.summary.injected, &self.reported_injected);
        self.reported_injected = self.summary.injected;
        (self.lag_us, self.reported_at_us, self.reported) = (0, now_us, (sent, delayed));
        progress
    }
}

#[cfg(test)]
mod tests;
