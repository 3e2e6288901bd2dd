//! Runs against a clock and a sink that the tests govern.

use std::cell::Cell;

use super::*;
use crate::event::ClickEvent;
use crate::generator::form::Form;
use crate::generator::settings::Burst;
use crate::millis::Millis;

const ORIGIN_MS: i64 = 1_700_000_000_000;

/// A clock that moves when somebody sleeps, or when the sink takes its time.
#[derive(Default)]
struct TestClock {
    now_us: Cell<u64>,
}

impl TestClock {
    fn advance(&self, us: u64) {
        self.now_us.set(self.now_us.get() + us);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.now_us.get())
    }

    fn origin_ms(&self) -> i64 {
        ORIGIN_MS
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration.as_micros() as u64);
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("broken")]
struct Broken;

/// A sink in memory, with faults.
struct TestSink<'a> {
    clock: &'a TestClock,
    stop: &'a AtomicBool,
    /// What each send costs.
    send_us: u64,
    /// While there is no room.
    full_us: std::ops::Range<u64>,
    /// After how many events it breaks, or the run is stopped.
    breaks_after: usize,
    stops_after: usize,
    stops_at_us: u64,
    received: Vec<(u64, ClickEvent)>,
    deliveries: Deliveries,
    flushed: bool,
}

impl<'a> TestSink<'a> {
    fn new(clock: &'a TestClock, stop: &'a AtomicBool) -> Self {
        TestSink {
            clock,
            stop,
            send_us: 0,
            full_us: 0..0,
            breaks_after: usize::MAX,
            stops_after: usize::MAX,
            stops_at_us: u64::MAX,
            received: Vec::new(),
            deliveries: Deliveries::default(),
            flushed: false,
        }
    }
}

impl SendEvent for TestSink<'_> {
    type Error = Broken;

    fn partitions(&self) -> usize {
        3
    }

    fn send(&mut self, event: &ClickEvent, _form: Form) -> Result<Admission, Broken> {
        if self.received.len() >= self.breaks_after {
            return Err(Broken);
        }
        self.clock.advance(self.send_us);
        let now_us = self.clock.now_us.get();
        if now_us >= self.stops_at_us || self.received.len() + 1 >= self.stops_after {
            self.stop.store(true, Ordering::Relaxed);
        }
        if self.full_us.contains(&now_us) {
            return Ok(Admission::QueueFull);
        }
        // Every tenth event fails; the others are acknowledged 2 ms later.
        if self.received.len() % 10 == 9 {
            self.deliveries.fail("timed out".to_owned());
        } else {
            self.deliveries.acknowledge(self.received.len() % 3, Duration::from_millis(2));
        }
        self.received.push((now_us, event.clone()));
        Ok(Admission::Accepted { bytes: 100 })
    }

    fn take_deliveries(&mut self) -> Deliveries {
        std::mem::take(&mut self.deliveries)
    }

    fn flush(&mut self, _timeout: Duration) -> Result<(), Broken> {
        self.flushed = true;
        Ok(())
    }
}

type Outcome = (Result<Summary, RunError<Broken>>, Vec<Progress>, Vec<(u64, ClickEvent)>);

fn run_with(settings: &Settings, change: impl FnOnce(&mut TestSink)) -> Outcome {
    let (clock, stop) = (TestClock::default(), AtomicBool::new(false));
    let mut sink = TestSink::new(&clock, &stop);
    change(&mut sink);
    let mut reports = Vec::new();
    let result = run(settings, &clock, &stop, &mut sink, |progress| reports.push(progress.clone()));
    assert_eq!(sink.flushed, result.is_ok());
    (result, reports, sink.received)
}

fn seconds(seconds: i64) -> Settings {
    Settings { duration: Some(Millis(seconds * 1_000)), ..Settings::default() }
}

#[test]
fn a_run_keeps_its_schedule() {
    let (result, reports, received) = run_with(&seconds(5), |_| ());
    let summary = result.unwrap();
    assert_eq!((summary.sent, summary.acknowledged, summary.failed), (5_000, 4_500, 500));
    assert_eq!((summary.unknown, summary.unsent, summary.delayed, summary.bytes), (0, 0, 0, 500_000));
    assert_eq!(summary.latest_error.as_deref(), Some("timed out"));
    assert!((summary.events_per_second - 1_000.0).abs() < 1.0, "{}", summary.events_per_second);
    assert!(summary.lag_ms_max <= 1.0, "{}", summary.lag_ms_max);
    assert!((summary.ack_p99_ms - 2.0).abs() < 0.02 && summary.by_partition.len() == 3);
    let mix = summary.mix;
    assert_eq!(mix.views + mix.searches + mix.clicks + mix.add_to_cart + mix.purchases, 5_000);
    // One a second, and one at the end.
    assert_eq!(reports.len(), 5);
    assert!(reports[..4].iter().all(|progress| (progress.events_per_second - 1_000.0).abs() < 2.0));
    assert_eq!(reports.last().unwrap().sent, 5_000);
    for (i, (_, event)) in received.iter().enumerate() {
        assert_eq!(event.timestamp, ORIGIN_MS + i as i64);
    }
}

#[test]
fn a_burst_is_sent_at_its_rate() {
    let burst = Burst { enabled: true, start: Millis(1_000), duration: Millis(2_000), ..Burst::default() };
    let (result, reports, _) = run_with(&Settings { burst, ..seconds(4) }, |_| ());
    assert_eq!(result.unwrap().sent, 1_000 + 10_000 + 1_000);
    let rates: Vec<f64> = reports.iter().map(|progress| (progress.events_per_second / 100.0).round()).collect();
    assert_eq!(rates[..3], [10.0, 50.0, 50.0]);
}

#[test]
fn a_full_queue_delays_but_loses_nothing() {
    let (result, reports, received) = run_with(&seconds(6), |sink| sink.full_us = 1_500_000..3_500_000);
    let summary = result.unwrap();
    assert_eq!((summary.sent, summary.unsent, summary.delayed), (6_000, 0, 1));
    assert!((2_000.0..2_002.0).contains(&summary.lag_ms_max), "{}", summary.lag_ms_max);
    // The lag is reported while it lasts, and what was due in the meantime keeps its timestamps.
    let lags: Vec<bool> = reports.iter().map(|progress| progress.lag_ms > 400.0).collect();
    assert_eq!(lags, [false, true, true, true, false, false]);
    assert_eq!(reports[2].events_per_second, 0.0);
    assert!(received.iter().enumerate().all(|(i, (_, event))| event.timestamp == ORIGIN_MS + i as i64));
}

#[test]
fn a_slow_sink_does_not_slow_the_schedule() {
    // Twice as slow as the events come: at the end of 2 s, as far behind.
    let (result, _, received) = run_with(&seconds(2), |sink| sink.send_us = 2_000);
    let summary = result.unwrap();
    assert_eq!(summary.sent, 2_000);
    assert!((summary.lag_ms_max - 2_001.0).abs() < 1.0, "{}", summary.lag_ms_max);
    assert!((summary.elapsed_s - 4.0).abs() < 0.01 && (summary.events_per_second - 500.0).abs() < 1.0);
    assert_eq!(received.last().unwrap().1.timestamp, ORIGIN_MS + 1_999);
}

#[test]
fn a_stop_is_noticed() {
    let endless = Settings::default;
    let (result, _, _) = run_with(&endless(), |sink| sink.stops_after = 1_234);
    let summary = result.unwrap();
    assert_eq!((summary.sent, summary.unsent), (1_234, 0));
    // While the queue is full, and then what was due but could not be sent is said.
    let (result, _, _) = run_with(&endless(), |sink| {
        sink.full_us = 1_000_000..u64::MAX;
        sink.stops_at_us = 3_000_000;
    });
    let summary = result.unwrap();
    assert_eq!((summary.sent, summary.unsent), (1_000, 2_000));
    // While nothing is due for a long time.
    let rare = Settings { events_per_second: 0.001, ..endless() };
    let (clock, stop) = (TestClock::default(), AtomicBool::new(false));
    let mut sink = TestSink::new(&clock, &stop);
    let summary = run(&rare, &clock, &stop, &mut sink, |progress| {
        if progress.elapsed_s > 10.0 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.sent, summary.unsent), (1, 0));
    assert!(summary.elapsed_s < 12.0, "{}", summary.elapsed_s);
}

#[test]
fn errors_end_the_run_and_say_what_was_done() {
    let (result, _, received) = run_with(&seconds(5), |sink| sink.breaks_after = 42);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "stopped after 42 events: broken");
    let RunError::Send { summary, .. } = error else { panic!("{error}") };
    assert_eq!((summary.sent, summary.acknowledged + summary.failed, received.len()), (42, 42, 42));
    let (result, ..) = run_with(&Settings { users: 0, ..seconds(5) }, |_| ());
    assert_eq!(result.unwrap_err().to_string(), "generator.users = 0: must be between 1 and 10000000");
}

#[test]
fn the_same_settings_and_start_give_the_same_events() {
    let events = |change: fn(&mut TestSink)| -> Vec<ClickEvent> {
        run_with(&seconds(3), change).2.into_iter().map(|(_, event)| event).collect()
    };
    // However the sink behaves.
    assert_eq!(events(|_| ()), events(|sink| sink.full_us = 500_000..900_000));
    assert_eq!(events(|_| ()), events(|sink| sink.send_us = 3_000));
}

#[test]
fn metrics_say_what_the_summary_says() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let summary = metrics::with_local_recorder(&recorder, || {
        crate::metrics::describe();
        run_with(&seconds(3), |_| ()).0.unwrap()
    });
    let page = recorder.handle().render();
    let check = |metric: &str, expected: u64| {
        let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        assert_eq!(value, Some(expected.to_string().as_str()), "{metric}");
        assert!(page.contains(&format!("# HELP {} ", metric.trim_end_matches("_count"))), "{metric}");
    };
    check("clicktide_generator_events_total", summary.sent);
    check("clicktide_generator_acknowledged_total", summary.acknowledged);
    check("clicktide_generator_failed_total", summary.failed);
    check("clicktide_generator_delayed_total", summary.delayed);
    check("clicktide_generator_schedule_lag_seconds", 0);
    check("clicktide_generator_target_events_per_second", 1_000);
    check("clicktide_generator_acknowledgement_seconds_count", summary.acknowledged);
}
