//! `clicktide generate`: synthetic traffic into the events topic, or into files.

mod encoder;
mod files;

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};

use self::encoder::Encoder;
use crate::audit::Totals;
use crate::commands::progress::Teller;
use crate::commands::signals::stop_on_signal;
use crate::commands::status_line::{Voice, span};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::generator::clock::SystemClock;
use crate::generator::report::{Progress, Summary};
use crate::generator::run::{RunError, run};
use crate::generator::send::SendEvent;
use crate::generator::truth::{LiveTruth, Told, TruthError};
use crate::http::{self, GeneratorSite, Health, Server, Site};
use crate::kafka::probe::reach;
use crate::kafka::producer::{EventProducer, ProducerConfig, ProducerError};
use crate::metrics;
use crate::millis::Millis;

/// Where the events go, and what is written about them.
#[derive(Clone, Debug)]
pub struct Generate {
    /// Where the exact results are written, if anywhere.
    pub truth: Option<PathBuf>,
    /// The files that the events go to, each a partition; none: they go to the topic.
    pub output: Vec<PathBuf>,
    /// When the traffic in files begins, ms since the epoch; none: now.
    pub start_ms: Option<i64>,
    /// How it is told what is going on. In JSON, the summary is.
    pub voice: Voice,
}

/// Generates until the configured duration is over or a signal comes.
///
/// # Errors
/// When the topic can't be produced to, or a file can't be written; when not every event was acknowledged.
pub fn generate(generate: Generate, config: &Config) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::new(AtomicBool::new(true)))?;
    let voice = generate.voice;
    let duration = config.generator.duration.map(Millis::duration);
    let mut teller = Teller::new(voice);
    let mut tell = |progress: &Progress| teller.tell(|| told(progress, duration));
    let generated = if generate.output.is_empty() {
        let figures = Arc::new(Figures::default());
        let server = serve(config, &figures)?;
        let generated = produce(config, &stop, generate.truth.as_deref(), |progress| {
            figures.note(progress);
            tell(progress);
        });
        if let Some(server) = server {
            server.stop();
        }
        generated
    } else {
        files::write(&generate, config, &stop, tell)
    };
    drop(teller);
    let generated = generated?;
    if voice.json {
        let line = serde_json::to_string(&generated).map_err(|e| Failure::new(Exit::Failure, e))?;
        println!("{line}");
    } else {
        println!("{generated}");
    }
    let Summary { failed, unknown, .. } = generated.summary;
    match generated.truth {
        _ if failed + unknown > 0 => Err(Failure::new(Exit::Kafka, "not every event was acknowledged")),
        Some(Err(error)) => Err(Failure::new(Exit::Failure, error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// What a run has done, and what its truth has become.
#[derive(Debug)]
pub struct Generated {
    /// What was sent.
    pub summary: Summary,
    /// The truth, if it was asked for.
    pub truth: Option<Result<Told, TruthError>>,
}

/// The summary, with what the truth is made of as `truth`.
impl Serialize for Generated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct WithTruth<'a> {
            #[serde(flatten)]
            summary: &'a Summary,
            #[serde(skip_serializing_if = "Option::is_none")]
            truth: Option<&'a Told>,
        }
        let truth = self.truth.as_ref().and_then(|truth| truth.as_ref().ok());
        WithTruth { summary: &self.summary, truth }.serialize(serializer)
    }
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary)?;
        let Some(Ok(Told { file, totals })) = &self.truth else { return Ok(()) };
        let Totals { counted, late, duplicates, rejected, results } = totals;
        let duplicates = if *duplicates > 0 { format!(", {duplicates} duplicates") } else { String::new() };
        write!(
            f,
            "\ntruth         {results} results of {counted} events counted, {late} late, {rejected} rejected{duplicates}: {}",
            file.display()
        )
    }
}

/// The generator's own health and metrics, if they are wanted.
fn serve(config: &Config, figures: &Arc<Figures>) -> Result<Option<Server>, Failure> {
    let metrics = metrics::install().map_err(|e| Failure::new(Exit::Failure, e))?;
    let Some(address) = config.generator.http_listen else { return Ok(None) };
    let failure = |e| Failure::new(Exit::Configuration, format!("generator.http_listen = {address}: {e}"));
    let shown = Arc::clone(figures);
    let site = GeneratorSite { health: Arc::new(move || shown.health()), metrics, access: config.access() };
    let listener = TcpListener::bind(address).map_err(failure)?;
    http::serve(listener, Site::Generator(site)).map_err(failure).map(Some)
}

/// A report, with how much of the time is over and how much is left, where that is known.
fn told(progress: &Progress, duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return format!("generate · {progress}") };
    let duration_s = duration.as_secs_f64();
    let percent = (progress.elapsed_s / duration_s).min(1.0) * 100.0;
    let left_ms = ((duration_s - progress.elapsed_s).max(0.0) * 1_000.0) as i64;
    format!("generate · {percent:.0} % · {} left · {progress}", span(left_ms))
}

/// Produces as the configuration says, until `stop`, and writes the truth to a file, if there is one.
///
/// # Errors
/// When the topic can't be produced to, or the file can't be made.
pub fn produce(
    config: &Config,
    stop: &AtomicBool,
    truth: Option<&Path>,
    report: impl FnMut(&Progress),
) -> Result<Generated, Failure> {
    // First, as it can say best why nobody answers.
    reach(&config.connection(), Duration::from_secs(10)).map_err(|e| Failure::new(e.exit(), e))?;
    let producer = ProducerConfig {
        brokers: config.kafka.brokers.clone(),
        topic: config.kafka.events_topic.clone(),
        key: config.generator.key,
        properties: config.kafka.properties.to_map(),
        statistics_interval: config.kafka.statistics_interval.map(Millis::duration),
        connect_timeout: Duration::from_secs(10),
    };
    let kafka = |e: ProducerError| Failure::new(e.exit(), e);
    let encoder = Encoder::new(config)?;
    let ingest = truth.map(|_| config.ingest()).inspect(|ingest| encoder.teach(ingest));
    let mut sink = EventProducer::connect(producer, encoder.encode).map_err(kafka)?;
    if let Some(balanced) = config.generator.balanced_partitions.filter(|n| *n as usize != sink.partitions()) {
        let partitions = sink.partitions();
        tracing::warn!(balanced, partitions, "generator.balanced_partitions is not the topic's number of partitions");
    }
    let truth = match truth.zip(ingest) {
        Some((file, ingest)) => {
            let end_offsets = sink.end_offsets().map_err(kafka)?;
            if end_offsets.iter().any(|end| *end > 0) {
                tracing::warn!("the topic is not empty: the truth is that of a job which begins where it ends now");
            }
            let truth = LiveTruth::begin(file, ingest, config.history(), &end_offsets);
            let truth = truth.map_err(|e| Failure::new(Exit::Failure, e))?;
            sink.tell(truth.witness());
            Some(truth)
        }
        None => None,
    };
    match run(&config.generator, &SystemClock::default(), stop, &mut sink, report) {
        Ok(summary) => {
            let truth = truth.map(|truth| truth.finish(summary.failed + summary.unknown));
            Ok(Generated { summary, truth })
        }
        Err(error) => {
            let exit = match &error {
                RunError::Settings(_) => Exit::Configuration,
                RunError::Send { source, .. } => source.exit(),
            };
            Err(Failure::new(exit, error))
        }
    }
}

/// What `/metrics/health` says.
#[derive(Default)]
struct Figures {
    progress: Mutex<Option<Progress>>,
    reports: AtomicU64,
}

impl Figures {
    fn note(&self, progress: &Progress) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
    }

    fn health(&self) -> Health {
        let health = Health::default().figure("reports", self.reports.load(Ordering::Relaxed) as f64);
        match &*self.progress.lock().unwrap_or_else(PoisonError::into_inner) {
            None => health.check("generating", true, "starting"),
            Some(progress) => health
                .check("schedule", progress.lag_ms < 1_000.0, format!("{:.0} ms behind the schedule", progress.lag_ms))
                .check("deliveries", progress.failed == 0, format!("{} events were given up", progress.failed))
                .figure("events_sent", progress.sent as f64)
                .figure("events_per_second", progress.events_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_where_it_is_known() {
        let progress = Progress {
            elapsed_s: 15.0,
            sent: 15_000,
            acknowledged: 14_990,
            failed: 0,
            latest_error: None,
            events_per_second: 1_000.0,
            target_events_per_second: 1_000.0,
            lag_ms: 0.4,
            delayed: 0,
            ack_p99_ms: 3.0,
        };
        let line = "15 s: 15000 events, 1000/s of 1000/s, lag 0.4 ms, 14990 acknowledged, 0 failed, ack p99 3.0 ms";
        assert_eq!(told(&progress, None), format!("generate · {line}"));
        let minute = Some(Duration::from_secs(60));
        assert_eq!(told(&progress, minute), format!("generate · 25 % · 45 s left · {line}"));
        let over = Progress { elapsed_s: 61.0, ..progress };
        assert!(told(&over, minute).starts_with("generate · 100 % · 0.0 s left · 61 s"), "{}", told(&over, minute));
    }
}
