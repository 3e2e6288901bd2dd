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

impl Metric {
    /// Whether it is a counter that counts seconds, fractions of them too.
    fn counts_seconds(&self) -> bool {
        (self.kind, self.unit) == (MetricKind::Counter, Unit::Seconds)
    }
}

/// Records read from the input topic or file.
pub const EVENTS: &str = "clicktide_events_total";
/// Bytes of those records' values.
pub const EVENT_BYTES: &str = "clicktide_event_bytes_total";
/// Events rejected by validation; label `reason`.
pub const REJECTED_EVENTS: &str = "clicktide_rejected_events_total";
/// Valid events whose every window was closed.
pub const LATE_EVENTS: &str = "clicktide_late_events_total";
/// Copies of events that are remembered.
pub const DUPLICATE_EVENTS: &str = "clicktide_duplicate_events_total";
/// Events of pages beyond the limit.
pub const OTHER_PAGES_EVENTS: &str = "clicktide_other_pages_events_total";
/// Results committed.
pub const RESULTS: &str = "clicktide_results_total";
/// Bytes of their keys and values.
pub const RESULT_BYTES: &str = "clicktide_result_bytes_total";
/// Views in the latest committed window.
pub const WINDOW_VIEWS: &str = "clicktide_window_views";
/// Clicks in it.
pub const WINDOW_CLICKS: &str = "clicktide_window_clicks";
/// Purchases in it.
pub const WINDOW_CONVERSIONS: &str = "clicktide_window_conversions";
/// Pages with an event in it.
pub const WINDOW_PAGES: &str = "clicktide_window_pages";
/// Views of the page with the most views in it.
pub const WINDOW_TOP_PAGE_VIEWS: &str = "clicktide_window_top_page_views";
/// Window ends committed.
pub const TICKS: &str = "clicktide_ticks_total";
/// The watermark of an input partition; label `partition`.
pub const PARTITION_WATERMARK: &str = "clicktide_watermark_timestamp_seconds";
/// Whether an input partition is idle; label `partition`.
pub const IDLE: &str = "clicktide_idle";
/// The job's watermark.
pub const JOB_WATERMARK: &str = "clicktide_job_watermark_timestamp_seconds";
/// The last committed window end.
pub const COMMITTED_WINDOW_END: &str = "clicktide_committed_window_end_timestamp_seconds";
/// Records not yet read; label `partition`.
pub const CONSUMER_LAG: &str = "clicktide_consumer_lag_records";
/// From a window's close to its readable results.
pub const WINDOW_CLOSE_TO_COMMIT: &str = "clicktide_window_close_to_commit_seconds";
/// From a window's end in event time to its readable results.
pub const END_TO_END: &str = "clicktide_end_to_end_seconds";
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
/// When the last checkpoint was taken.
pub const CHECKPOINT_TAKEN: &str = "clicktide_checkpoint_taken_timestamp_seconds";
/// How long the dataflow takes over a closed window.
pub const WINDOW_PROCESSING: &str = "clicktide_window_processing_seconds";
/// Dead letters committed.
pub const DEAD_LETTERS: &str = "clicktide_dead_letters_total";
/// Sanitised events committed.
pub const SANITISED_EVENTS: &str = "clicktide_sanitised_events_total";
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
/// Generated records that are not clean events; label `kind`.
pub const GENERATED_INJECTED: &str = "clicktide_generator_injected_total";
/// How far the generator is behind its schedule.
pub const GENERATOR_SCHEDULE_LAG: &str = "clicktide_generator_schedule_lag_seconds";
/// The rate that the generator's schedule prescribes.
pub const GENERATOR_TARGET_RATE: &str = "clicktide_generator_target_events_per_second";
/// From a generated event's send to its acknowledgement.
pub const GENERATOR_ACKNOWLEDGEMENT: &str = "clicktide_generator_acknowledgement_seconds";
/// Rows that arrangements and sliding operators keep; labels `worker` and `arrangement`.
pub const ARRANGEMENT_ROWS: &str = "clicktide_arrangement_rows";
/// Rows that wait for their tick before they are arranged; labels `worker` and `arrangement`.
pub const ARRANGEMENT_WAITING_ROWS: &str = "clicktide_arrangement_waiting_rows";
/// What rows are kept under; labels `worker` and `arrangement`.
pub const ARRANGEMENT_KEYS: &str = "clicktide_arrangement_keys";
/// The batches that hold the rows; labels `worker` and `arrangement`.
pub const ARRANGEMENT_BATCHES: &str = "clicktide_arrangement_batches";
/// Merges of two batches into one; labels `worker` and `arrangement`.
pub const ARRANGEMENT_MERGES: &str = "clicktide_arrangement_merges_total";
/// How often timely has scheduled an operator; labels `worker` and `operator`.
pub const OPERATOR_ACTIVATIONS: &str = "clicktide_operator_activations_total";
/// How long operators have run; labels `worker` and `operator`.
pub const OPERATOR_BUSY: &str = "clicktide_operator_busy_seconds_total";
/// Messages sent to operators in other workers; labels `worker` and `operator`.
pub const EXCHANGED_MESSAGES: &str = "clicktide_exchanged_messages_total";
/// The records in those messages; labels `worker` and `operator`.
pub const EXCHANGED_RECORDS: &str = "clicktide_exchanged_records_total";
/// How often a worker had nothing to do; label `worker`.
pub const WORKER_PARKS: &str = "clicktide_worker_parks_total";
/// How long a worker had nothing to do; label `worker`.
pub const WORKER_PARKED: &str = "clicktide_worker_parked_seconds_total";
/// How long ago a worker was stepped; label `worker`.
pub const WORKER_STEP_AGE: &str = "clicktide_worker_step_age_seconds";
/// How long ago another process was heard of; label `process`.
pub const HEARTBEAT_AGE: &str = "clicktide_heartbeat_age_seconds";
/// Where the process is in its life; label `phase`.
pub const PHASE: &str = "clicktide_phase";
/// Requests of a Kafka client; labels `client` and `broker`, as in all that follow but where it says otherwise.
pub const KAFKA_REQUESTS: &str = "clicktide_kafka_requests_total";
/// Requests on their way, or waiting for it.
pub const KAFKA_REQUESTS_IN_FLIGHT: &str = "clicktide_kafka_requests_in_flight";
/// Requests or answers that failed.
pub const KAFKA_REQUEST_ERRORS: &str = "clicktide_kafka_request_errors_total";
/// Requests that were not answered in time.
pub const KAFKA_REQUEST_TIMEOUTS: &str = "clicktide_kafka_request_timeouts_total";
/// Requests that were made again.
pub const KAFKA_REQUEST_RETRIES: &str = "clicktide_kafka_request_retries_total";
/// Bytes sent.
pub const KAFKA_SENT_BYTES: &str = "clicktide_kafka_sent_bytes_total";
/// Bytes received.
pub const KAFKA_RECEIVED_BYTES: &str = "clicktide_kafka_received_bytes_total";
/// Mean time from a request to its answer.
pub const KAFKA_ROUND_TRIP_MEAN: &str = "clicktide_kafka_round_trip_mean_seconds";
/// 99th percentile of the same.
pub const KAFKA_ROUND_TRIP_P99: &str = "clicktide_kafka_round_trip_p99_seconds";
/// Attempts to connect.
pub const KAFKA_CONNECTS: &str = "clicktide_kafka_connects_total";
/// Connections lost.
pub const KAFKA_DISCONNECTS: &str = "clicktide_kafka_disconnects_total";
/// Messages produced; label `client`.
pub const KAFKA_SENT_MESSAGES: &str = "clicktide_kafka_sent_messages_total";
/// Messages consumed; label `client`.
pub const KAFKA_RECEIVED_MESSAGES: &str = "clicktide_kafka_received_messages_total";
/// Messages that a producer has not got rid of yet; label `client`.
pub const KAFKA_SEND_QUEUE_MESSAGES: &str = "clicktide_kafka_send_queue_messages";
/// Their bytes; label `client`.
pub const KAFKA_SEND_QUEUE_BYTES: &str = "clicktide_kafka_send_queue_bytes";
/// Messages that a consumer has fetched ahead; label `client`.
pub const KAFKA_FETCH_QUEUE_MESSAGES: &str = "clicktide_kafka_fetch_queue_messages";
/// Their bytes; label `client`.
pub const KAFKA_FETCH_QUEUE_BYTES: &str = "clicktide_kafka_fetch_queue_bytes";
/// Answers of the schema registry; label `outcome`.
pub const SCHEMA_REQUESTS: &str = "clicktide_schema_requests_total";
/// Schemas that are known by their ids.
pub const SCHEMAS: &str = "clicktide_schemas";
/// Whether an input partition waits for a schema; label `partition`.
pub const AWAITS_SCHEMA: &str = "clicktide_awaits_schema";
/// Requests to the HTTP server; labels `route` and `status`.
pub const HTTP_REQUESTS: &str = "clicktide_http_requests_total";
/// Log lines that were not written, as they repeat.
pub const LOG_LINES_SUPPRESSED: &str = "clicktide_log_lines_suppressed_total";
/// Processor time of the process.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
/// File descriptors that are open.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// File descriptors that may be open.
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
/// Threads of the process.
pub const PROCESS_THREADS: &str = "process_threads";
/// When the process began.
pub const PROCESS_START_TIME: &str = "process_start_time_seconds";
/// Resident memory of the process.
pub const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
/// Address space of the process.
pub const VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
/// How large its address space may be.
pub const VIRTUAL_MEMORY_MAX: &str = "process_virtual_memory_max_bytes";
/// What was built; labels `version` and `profile`.
pub const BUILD_INFO: &str = "clicktide_build_info";

/// Upper bounds of every histogram's buckets, seconds: 1 ms to 60 s, with bounds at the limits Clicktide must keep
/// (10, 50, 100, 200 and 500 ms).
pub const SECONDS_BUCKETS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of the buckets of [`END_TO_END`], seconds: 1 s to a day, as a backlog is old, with bounds just above the
/// disorder bound (30 s by default), before which no window closes.
pub const END_TO_END_BUCKETS: [f64; 19] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.5, 31.0, 32.0, 35.0, 40.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 10_800.0,
    28_800.0, 86_400.0,
];

/// Every metric there is, in the order of `docs/metrics.md`.
pub const METRICS: &[Metric] = &[
    counter(EVENTS, &[], "Records read from the input, valid or not"),
    bytes(counter(EVENT_BYTES, &[], "Bytes of the values of the records read")),
    counter(REJECTED_EVENTS, &["reason"], "Events rejected by validation, by reason"),
    counter(LATE_EVENTS, &[], "Valid events that came after the last of their windows had closed"),
    counter(DUPLICATE_EVENTS, &[], "Copies of events that `deduplication.horizon` remembers: they count in nothing"),
    counter(OTHER_PAGES_EVENTS, &[], "Events beyond `privacy.pages_max`, which count for the page `(other pages)`"),
    counter(RESULTS, &[], "Results committed: one per page and window"),
    bytes(counter(RESULT_BYTES, &[], "Bytes of the keys and values of the results committed to Kafka")),
    gauge(WINDOW_VIEWS, &[], "Views in the latest committed window, of all pages together"),
    gauge(WINDOW_CLICKS, &[], "Clicks in the latest committed window, on all pages together"),
    gauge(WINDOW_CONVERSIONS, &[], "Purchases in the latest committed window, on all pages together"),
    gauge(WINDOW_PAGES, &[], "Pages with an event in the latest committed window"),
    gauge(WINDOW_TOP_PAGE_VIEWS, &[], "Views of the most viewed page in the latest committed window"),
    counter(TICKS, &[], "Window ends committed, with or without results"),
    timestamp(PARTITION_WATERMARK, &["partition"], "Watermark of an input partition, in event time"),
    gauge(IDLE, &["partition"], "1 while an input partition is idle and holds the others back no longer, else 0"),
    timestamp(JOB_WATERMARK, &[], "Watermark of the job, the least of its partitions', in event time"),
    timestamp(COMMITTED_WINDOW_END, &[], "Last committed window end, in event time"),
    gauge(CONSUMER_LAG, &["partition"], "Records in an input partition that have not been read yet"),
    histogram(
        END_TO_END,
        "From a window's end in event time until its results can be read, by the wall clock; the disorder bound is part of it",
    ),
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
    bytes(gauge(
        CHECKPOINT_WRITTEN,
        &[],
        "Bytes written for the last checkpoint: what has changed since the one before",
    )),
    bytes(gauge(CHECKPOINT_SIZE, &[], "Bytes of all that the last checkpoint refers to")),
    timestamp(CHECKPOINT_WINDOW_END, &[], "Window end through which the last checkpoint goes, in event time"),
    timestamp(CHECKPOINT_TAKEN, &[], "When the last checkpoint was taken, by the wall clock"),
    counter(DEAD_LETTERS, &[], "Dead letters committed"),
    counter(SANITISED_EVENTS, &[], "Sanitised events committed"),
    counter(TRANSACTIONS, &["outcome"], "Transactions by outcome: `committed`, `failed`, `unknown` or `fenced`"),
    gauge(
        PHASE,
        &["phase"],
        "1 for the phase that the process is in, 0 for the others: `starting`, `replaying`, `running`, `stopping`",
    ),
    seconds(gauge(WORKER_STEP_AGE, &["worker"], "Time since a worker of this process was stepped")),
    seconds(gauge(HEARTBEAT_AGE, &["process"], "Time since another process of the cluster was heard of")),
    gauge(ARRANGEMENT_ROWS, &["worker", "arrangement"], "Rows that an arrangement or a sliding operator keeps"),
    gauge(ARRANGEMENT_WAITING_ROWS, &["worker", "arrangement"], "Rows that wait until the watermark lets them in"),
    gauge(
        ARRANGEMENT_KEYS,
        &["worker", "arrangement"],
        "What the rows are kept under: live pages, users of pages, sessions",
    ),
    gauge(ARRANGEMENT_BATCHES, &["worker", "arrangement"], "Batches that hold the rows"),
    counter(ARRANGEMENT_MERGES, &["worker", "arrangement"], "Merges of two batches into one"),
    counter(OPERATOR_ACTIVATIONS, &["worker", "operator"], "How often timely has scheduled an operator"),
    seconds(counter(OPERATOR_BUSY, &["worker", "operator"], "Time in an operator, without those inside it")),
    counter(
        EXCHANGED_MESSAGES,
        &["worker", "operator"],
        "Messages that a worker has sent to an operator in other workers",
    ),
    counter(EXCHANGED_RECORDS, &["worker", "operator"], "Records in those messages"),
    counter(WORKER_PARKS, &["worker"], "How often a worker has slept, as it had nothing to do"),
    seconds(counter(WORKER_PARKED, &["worker"], "Time that a worker has slept, as it had nothing to do")),
    counter(KAFKA_REQUESTS, &["client", "broker"], "Requests sent by a Kafka client"),
    gauge(
        KAFKA_REQUESTS_IN_FLIGHT,
        &["client", "broker"],
        "Requests of a Kafka client that wait to be sent or answered",
    ),
    counter(
        KAFKA_REQUEST_ERRORS,
        &["client", "broker"],
        "Requests of a Kafka client that could not be sent, and answers that could not be read",
    ),
    counter(KAFKA_REQUEST_TIMEOUTS, &["client", "broker"], "Requests of a Kafka client that were not answered in time"),
    counter(KAFKA_REQUEST_RETRIES, &["client", "broker"], "Requests that a Kafka client has made again"),
    bytes(counter(KAFKA_SENT_BYTES, &["client", "broker"], "Bytes sent by a Kafka client")),
    bytes(counter(KAFKA_RECEIVED_BYTES, &["client", "broker"], "Bytes received by a Kafka client")),
    seconds(gauge(KAFKA_ROUND_TRIP_MEAN, &["client", "broker"], "Mean time from a request to its answer, of late")),
    seconds(gauge(
        KAFKA_ROUND_TRIP_P99,
        &["client", "broker"],
        "99th percentile of the time from a request to its answer, of late",
    )),
    counter(KAFKA_CONNECTS, &["client", "broker"], "Attempts of a Kafka client to connect to a broker"),
    counter(
        KAFKA_DISCONNECTS,
        &["client", "broker"],
        "Connections of a Kafka client that have ended or not come about",
    ),
    counter(KAFKA_SENT_MESSAGES, &["client"], "Messages that a Kafka client has produced"),
    counter(KAFKA_RECEIVED_MESSAGES, &["client"], "Messages that a Kafka client has fetched"),
    gauge(KAFKA_SEND_QUEUE_MESSAGES, &["client"], "Messages in a Kafka client that have not been acknowledged yet"),
    bytes(gauge(KAFKA_SEND_QUEUE_BYTES, &["client"], "Bytes of those messages")),
    gauge(
        KAFKA_FETCH_QUEUE_MESSAGES,
        &["client"],
        "Messages in a Kafka client that were fetched ahead and not read yet",
    ),
    bytes(gauge(KAFKA_FETCH_QUEUE_BYTES, &["client"], "Bytes of those messages")),
    counter(
        SCHEMA_REQUESTS,
        &["outcome"],
        "Requests to the schema registry by outcome: `answered`, `missing` (there is no such schema) or `failed`",
    ),
    gauge(SCHEMAS, &[], "Writer schemas that are known by their ids"),
    gauge(AWAITS_SCHEMA, &["partition"], "1 while an input partition waits for the schema of its next record, else 0"),
    counter(HTTP_REQUESTS, &["route", "status"], "Requests to the HTTP server, by route and status"),
    counter(LOG_LINES_SUPPRESSED, &[], "Log lines that were not written, as they only repeat others"),
    counter(GENERATED, &[], "Generated events that the producer has taken over"),
    counter(GENERATED_ACKNOWLEDGED, &[], "Generated events that the broker has acknowledged"),
    counter(GENERATED_FAILED, &[], "Generated events that were given up"),
    counter(GENERATED_DELAYED, &[], "Generated events that found the producer's queue full when they were due"),
    counter(
        GENERATED_INJECTED,
        &["kind"],
        "Generated records that are late, doubled, damaged or unusual in another way, by kind",
    ),
    seconds(gauge(GENERATOR_SCHEDULE_LAG, &[], "Greatest lag of the generator behind its schedule in the last second")),
    gauge(GENERATOR_TARGET_RATE, &[], "The rate that the generator's schedule prescribes, events per second"),
    histogram(GENERATOR_ACKNOWLEDGEMENT, "From the send of a generated event to its acknowledgement"),
    seconds(counter(PROCESS_CPU, &[], "Processor time of the process, user and system")),
    gauge(PROCESS_OPEN_FDS, &[], "File descriptors that the process has open"),
    gauge(PROCESS_MAX_FDS, &[], "File descriptors that the process may have open"),
    gauge(PROCESS_THREADS, &[], "Threads of the process"),
    timestamp(PROCESS_START_TIME, &[], "When the process began, by the wall clock"),
    bytes(gauge(RESIDENT_MEMORY, &[], "Resident memory of the process")),
    bytes(gauge(VIRTUAL_MEMORY, &[], "Address space of the process")),
    bytes(gauge(VIRTUAL_MEMORY_MAX, &[], "How large the address space of the process may be")),
    gauge(BUILD_INFO, &["version", "profile"], "Always 1; the labels say what was built"),
];

const fn counter(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit: Unit::Count, labels, meaning }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { kind: MetricKind::Gauge, ..counter(name, labels, meaning) }
}

const fn bytes(metric: Metric) -> Metric {
    Metric { unit: Unit::Bytes, ..metric }
}

const fn seconds(metric: Metric) -> Metric {
    Metric { unit: Unit::Seconds, ..metric }
}

const fn timestamp(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    seconds(gauge(name, labels, meaning))
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
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(END_TO_END.into()), &END_TO_END_BUCKETS)?;
    Ok(builder.build_recorder())
}

/// Tells the current recorder what each metric means, and records what was built.
pub fn describe() {
    for &Metric { name, kind, unit, meaning, .. } in METRICS {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, meaning),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "profile" => profile).set(1.0);
}

/// The page for Prometheus: what has been recorded, and how the process is doing now.
pub fn page(recorded: &PrometheusHandle) -> String {
    // What the system does not tell is left out.
    metrics_process::Collector::default().collect();
    let mut page = recorded.render();
    // The recorder's counters are whole numbers, so that seconds are counted in a gauge.
    for Metric { name, .. } in METRICS.iter().filter(|metric| metric.counts_seconds()) {
        page = page.replace(&format!("# TYPE {name} gauge\n"), &format!("# TYPE {name} counter\n"));
    }
    page
}

/// Resident memory of the process, bytes; none where the system does not tell.
pub fn resident_memory_bytes() -> Option<u64> {
    metrics_process::collector::collect().resident_memory_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMESTAMPS: [&str; 2] = ["_timestamp_seconds", "_start_time_seconds"];

    fn row(metric: &Metric) -> String {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let unit = match metric.unit {
            Unit::Seconds if TIMESTAMPS.iter().any(|end| metric.name.ends_with(end)) => "seconds since the epoch",
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
    fn what_the_documentation_names_is_there() {
        let text = include_str!("../docs/metrics.md");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: Vec<&str> =
            words.filter(|word| word.starts_with("clicktide_") || word.starts_with("process_")).collect();
        assert!(named.len() > METRICS.len());
        for word in named {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part));
            // A name that ends in an underscore is what several begin with.
            let known = |metric: &&Metric| match series {
                Some(name) => metric.name == name && metric.kind == MetricKind::Histogram,
                None => metric.name == word || (word.ends_with('_') && metric.name.starts_with(word)),
            };
            assert!(METRICS.iter().any(|metric| known(&metric)), "docs/metrics.md names {word}");
        }
    }

    #[test]
    fn what_is_to_be_kept_is_a_bucket() {
        // Acknowledgements, fetches, results, windows, and from a window's close to its readable results.
        let limits = [0.01, 0.05, 0.1, 0.2, 0.5];
        assert!(limits.iter().all(|limit| SECONDS_BUCKETS.contains(limit)), "{SECONDS_BUCKETS:?}");
        for buckets in [&SECONDS_BUCKETS[..], &END_TO_END_BUCKETS[..]] {
            assert!(buckets.is_sorted_by(|a, b| a < b), "{buckets:?}");
        }
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
                (MetricKind::Counter, Unit::Seconds) => "_seconds_total",
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
            metrics::counter!(REJECTED_EVENTS, "reason" => "undecodable").increment(2);
            metrics::histogram!(COMMIT).record(0.004);
            metrics::histogram!(END_TO_END).record(30.7);
            metrics::gauge!(OPERATOR_BUSY, "worker" => "0", "operator" => "visitors").increment(0.25);
            page(&recorder.handle())
        });
        let check = |line: &str| assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        check(r#"clicktide_rejected_events_total{reason="undecodable"} 2"#);
        check(r#"clicktide_commit_seconds_bucket{le="0.002"} 0"#);
        check(r#"clicktide_commit_seconds_bucket{le="0.005"} 1"#);
        check("# TYPE clicktide_commit_seconds histogram");
        check(r#"clicktide_end_to_end_seconds_bucket{le="30.5"} 0"#);
        check(r#"clicktide_end_to_end_seconds_bucket{le="31"} 1"#);
        check("# TYPE clicktide_operator_busy_seconds_total counter");
        check(r#"clicktide_operator_busy_seconds_total{worker="0",operator="visitors"} 0.25"#);
        check(
            "# HELP clicktide_commit_seconds Duration of one commit: from the first record of a transaction to the broker's answer",
        );
        #[cfg(target_os = "linux")]
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }
}
