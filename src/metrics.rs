//! The metrics of Clicktide: their names, their descriptions and the Prometheus recorder.
//!
//! [`METRICS`] is the one table of them; `docs/metrics.md` shows the same table, and a test holds the two together.
//! No label ever holds a page, a user or anything else a producer chooses, so the number of series is bounded.

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// What a metric does over time, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One metric: a row of [`METRICS`] and of `docs/metrics.md`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name of its series.
    pub name: &'static str,
    /// What it does over time.
    pub kind: MetricKind,
    /// The unit of its values.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence without a full stop.
    pub meaning: &'static str,
}

/// Records read from the input topic or file.
pub const EVENTS: &str = "clicktide_events_total";
/// Bytes of those records' values.
pub const EVENT_BYTES: &str = "clicktide_event_bytes_total";
/// Events rejected by validation; label `reason`.
pub const REJECTED_EVENTS: &str = "clicktide_rejected_events_total";
/// Valid events whose every window was closed.
pub const LATE_EVENTS: &str = "clicktide_late_events_total";
/// Results committed.
pub const RESULTS: &str = "clicktide_results_total";
/// Window ends committed.
pub const TICKS: &str = "clicktide_ticks_total";
/// The watermark of an input partition; label `partition`.
pub const PARTITION_WATERMARK: &str = "clicktide_watermark_timestamp_seconds";
/// The job's watermark.
pub const JOB_WATERMARK: &str = "clicktide_job_watermark_timestamp_seconds";
/// The last committed window end.
pub const COMMITTED_WINDOW_END: &str = "clicktide_committed_window_end_timestamp_seconds";
/// Records not yet read; label `partition`.
pub const CONSUMER_LAG: &str = "clicktide_consumer_lag_records";
/// From a window's close to its readable results.
pub const WINDOW_CLOSE_TO_COMMIT: &str = "clicktide_window_close_to_commit_seconds";
/// How long commits take.
pub const COMMIT: &str = "clicktide_commit_seconds";
/// Checkpoints and savepoints; label `outcome`.
pub const CHECKPOINTS: &str = "clicktide_checkpoints_total";
/// How long checkpoints take.
pub const CHECKPOINT: &str = "clicktide_checkpoint_seconds";
/// What the last checkpoint wrote.
pub const CHECKPOINT_WRITTEN: &str = "clicktide_checkpoint_written_bytes";
/// What the last checkpoint refers to.
pub const CHECKPOINT_SIZE: &str = "clicktide_checkpoint_size_bytes";
/// The window end of the last checkpoint.
pub const CHECKPOINT_WINDOW_END: &str = "clicktide_checkpoint_window_end_timestamp_seconds";
/// How long the dataflow takes over a closed window.
pub const WINDOW_PROCESSING: &str = "clicktide_window_processing_seconds";
/// Dead letters committed.
pub const DEAD_LETTERS: &str = "clicktide_dead_letters_total";
/// Transactions by how they ended; label `outcome`.
pub const TRANSACTIONS: &str = "clicktide_transactions_total";
/// Events that the generator's producer has taken over.
pub const GENERATED: &str = "clicktide_generator_events_total";
/// Generated events that the broker has acknowledged.
pub const GENERATED_ACKNOWLEDGED: &str = "clicktide_generator_acknowledged_total";
/// Generated events that were given up.
pub const GENERATED_FAILED: &str = "clicktide_generator_failed_total";
/// Generated events that found no room at the producer when they were due.
pub const GENERATED_DELAYED: &str = "clicktide_generator_delayed_total";
/// How far the generator is behind its schedule.
pub const GENERATOR_SCHEDULE_LAG: &str = "clicktide_generator_schedule_lag_seconds";
/// The rate that the generator's schedule prescribes.
pub const GENERATOR_TARGET_RATE: &str = "clicktide_generator_target_events_per_second";
/// From a generated event's send to its acknowledgement.
pub const GENERATOR_ACKNOWLEDGEMENT: &str = "clicktide_generator_acknowledgement_seconds";
/// Resident memory of the process.
pub const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
/// What was built; labels `version` and `profile`.
pub const BUILD_INFO: &str = "clicktide_build_info";

/// Upper bounds of every histogram's buckets, seconds: 1 ms to 60 s, with bounds at the limits Clicktide must keep
/// (10, 50, 100, 200 and 500 ms).
pub const SECONDS_BUCKETS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Every metric there is, in the order of `docs/metrics.md`.
pub const METRICS: [Metric; 29] = [
    counter(EVENTS, &[], "Records read from the input, valid or not"),
    Metric { unit: Unit::Bytes, ..counter(EVENT_BYTES, &[], "Bytes of the values of the records read") },
    counter(REJECTED_EVENTS, &["reason"], "Events rejected by validation, by reason"),
    counter(LATE_EVENTS, &[], "Valid events that came after the last of their windows had closed"),
    counter(RESULTS, &[], "Results committed: one per page and window"),
    counter(TICKS, &[], "Window ends committed, with or without results"),
    timestamp(PARTITION_WATERMARK, &["partition"], "Watermark of an input partition, in event time"),
    timestamp(JOB_WATERMARK, &[], "Watermark of the job, the least of its partitions', in event time"),
    timestamp(COMMITTED_WINDOW_END, &[], "Last committed window end, in event time"),
    Metric {
        kind: MetricKind::Gauge,
        ..counter(CONSUMER_LAG, &["partition"], "Records in an input partition that have not been read yet")
    },
    histogram(
        WINDOW_CLOSE_TO_COMMIT,
        "From the moment the watermark passes a window's end until its results can be read",
    ),
    histogram(COMMIT, "Duration of one commit: from the first record of a transaction to the broker's answer"),
    histogram(
        WINDOW_PROCESSING,
        "From the moment the watermark passes a window's end until the dataflow is done with it",
    ),
    counter(CHECKPOINTS, &["outcome"], "Checkpoints and savepoints by outcome: `taken` or `failed`"),
    histogram(CHECKPOINT, "Duration of one checkpoint or savepoint: from its beginning until its manifest is written"),
    Metric {
        unit: Unit::Bytes,
        kind: MetricKind::Gauge,
        ..counter(
            CHECKPOINT_WRITTEN,
            &[],
            "Bytes written for the last checkpoint: what has changed since the one before",
        )
    },
    Metric {
        unit: Unit::Bytes,
        kind: MetricKind::Gauge,
        ..counter(CHECKPOINT_SIZE, &[], "Bytes of all that the last checkpoint refers to")
    },
    timestamp(CHECKPOINT_WINDOW_END, &[], "Window end through which the last checkpoint goes, in event time"),
    counter(DEAD_LETTERS, &[], "Dead letters committed"),
    counter(TRANSACTIONS, &["outcome"], "Transactions by outcome: `committed`, `failed`, `unknown` or `fenced`"),
    counter(GENERATED, &[], "Generated events that the producer has taken over"),
    counter(GENERATED_ACKNOWLEDGED, &[], "Generated events that the broker has acknowledged"),
    counter(GENERATED_FAILED, &[], "Generated events that were given up"),
    counter(GENERATED_DELAYED, &[], "Generated events that found the producer's queue full when they were due"),
    Metric {
        kind: MetricKind::Gauge,
        ..histogram(GENERATOR_SCHEDULE_LAG, "Greatest lag of the generator behind its schedule in the last second")
    },
    Metric {
        kind: MetricKind::Gauge,
        ..counter(GENERATOR_TARGET_RATE, &[], "The rate that the generator's schedule prescribes, events per second")
    },
    histogram(GENERATOR_ACKNOWLEDGEMENT, "From the send of a generated event to its acknowledgement"),
    Metric {
        unit: Unit::Bytes,
        kind: MetricKind::Gauge,
        ..counter(RESIDENT_MEMORY, &[], "Resident memory of the process (Linux only)")
    },
    Metric {
        kind: MetricKind::Gauge,
        ..counter(BUILD_INFO, &["version", "profile"], "Always 1; the labels say what was built")
    },
];

const fn counter(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit: Unit::Count, labels, meaning }
}

const fn timestamp(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit: Unit::Seconds, labels, meaning }
}

const fn histogram(name: &'static str, meaning: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, unit: Unit::Seconds, labels: &[], meaning }
}

/// Installs the program's recorder: from here on `metrics::counter!` and its like are kept and can be rendered.
///
/// Call it before anything takes a metric's handle. Its histograms need
/// [`run_upkeep`](PrometheusHandle::run_upkeep) every few seconds; the HTTP server does that.
///
/// # Errors
///
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

/// A recorder with the right buckets that is not installed: for tests, with `metrics::with_local_recorder`.
///
/// # Errors
///
/// Never as it stands: the builder refuses only empty buckets.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?;
    Ok(builder.build_recorder())
}

/// Tells the current recorder what each metric means, and records what was built.
pub fn describe() {
    for Metric { name, kind, unit, meaning, .. } in METRICS {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, meaning),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "profile" => profile).set(1.0);
}

/// Records how much memory the process holds; does nothing where `/proc` does not say.
pub fn record_resident_memory() {
    if let Some(bytes) = resident_memory_bytes() {
        metrics::gauge!(RESIDENT_MEMORY).set(bytes as f64);
    }
}

/// Resident memory of the process, where `/proc` says: from `/proc/self/status`, which, unlike `statm`, needs no page size.
pub fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(metric: &Metric) -> String {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let unit = match metric.unit {
            Unit::Seconds if metric.name.ends_with("_timestamp_seconds") => "seconds since the epoch",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            _ => "count",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {unit} | {} | {} |", metric.name, labels.join(", "), metric.meaning)
    }

    #[test]
    fn documented() {
        let documented: Vec<&str> =
            include_str!("../docs/metrics.md").lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = METRICS.iter().map(row).collect();
        assert_eq!(documented, expected, "docs/metrics.md should have the rows:\n{}", expected.join("\n"));
    }

    #[test]
    fn every_name_is_in_the_table() {
        let names = include_str!("metrics.rs")
            .lines()
            .filter(|line| line.starts_with("pub const "))
            .filter(|line| line.contains(": &str"));
        assert_eq!(names.count(), METRICS.len());
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in METRICS {
            let suffix = match (metric.kind, metric.unit) {
                (MetricKind::Counter, Unit::Bytes) => "_bytes_total",
                (MetricKind::Counter, _) => "_total",
                (_, Unit::Seconds) => "_seconds",
                (_, Unit::Bytes) => "_bytes",
                _ => "",
            };
            assert!(metric.name.ends_with(suffix), "{} should end with {suffix}", metric.name);
        }
    }

    #[test]
    fn rendered() {
        let recorder = recorder().expect("valid buckets");
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            record_resident_memory();
            metrics::counter!(REJECTED_EVENTS, "reason" => "undecodable").increment(2);
            metrics::histogram!(COMMIT).record(0.004);
            recorder.handle().render()
        });
        let check = |line: &str| assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        check(r#"clicktide_rejected_events_total{reason="undecodable"} 2"#);
        check(r#"clicktide_commit_seconds_bucket{le="0.002"} 0"#);
        check(r#"clicktide_commit_seconds_bucket{le="0.005"} 1"#);
        check("# TYPE clicktide_commit_seconds histogram");
        check(
            "# HELP clicktide_commit_seconds Duration of one commit: from the first record of a transaction to the broker's answer",
        );
        #[cfg(target_os = "linux")]
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }
}
