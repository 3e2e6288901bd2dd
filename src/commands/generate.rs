//! `clicktide generate`: synthetic traffic into the events topic.

use std::io::{IsTerminal, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::avro;
use crate::commands::signals::stop_on_signal;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::generator::clock::SystemClock;
use crate::generator::report::{Progress, Summary};
use crate::generator::run::{RunError, run};
use crate::http::{self, GeneratorSite, Health, Site};
use crate::kafka::probe::reach;
use crate::kafka::producer::{EventProducer, ProducerConfig, ProducerError};
use crate::metrics;
use crate::millis::Millis;

/// How the generator tells of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Generate {
    /// Whether the summary is printed as JSON.
    pub json: bool,
}

/// Generates until the configured duration is over or a signal comes.
///
/// # Errors
/// When the topic can't be produced to.
pub fn generate(generate: Generate, config: &Config) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::new(AtomicBool::new(true)))?;
    let metrics = metrics::install().map_err(|e| Failure::new(Exit::Failure, e))?;
    let figures = Arc::new(Figures::default());
    let server = match config.generator.http_listen {
        None => None,
        Some(address) => {
            let failure = |e| Failure::new(Exit::Configuration, format!("generator.http_listen = {address}: {e}"));
            let shown = Arc::clone(&figures);
            let site = GeneratorSite { health: Arc::new(move || shown.health()), metrics };
            let listener = TcpListener::bind(address).map_err(failure)?;
            Some(http::serve(listener, Site::Generator(site)).map_err(failure)?)
        }
    };
    let terminal = std::io::stderr().is_terminal();
    let summary = produce(config, &stop, |progress| {
        figures.note(progress);
        if terminal {
            eprint!("\r\x1b[2K{progress}");
        } else {
            eprintln!("{progress}");
        }
        std::io::stderr().flush().ok();
    });
    if terminal {
        eprintln!();
    }
    if let Some(server) = server {
        server.stop();
    }
    let summary = summary?;
    if generate.json {
        let line = serde_json::to_string(&summary).map_err(|e| Failure::new(Exit::Failure, e))?;
        println!("{line}");
    } else {
        println!("{summary}");
    }
    if summary.failed + summary.unknown > 0 {
        return Err(Failure::new(Exit::Kafka, "not every event was acknowledged"));
    }
    Ok(())
}

/// Produces as the configuration says, until `stop`.
///
/// # Errors
/// When the topic can't be produced to.
pub fn produce(config: &Config, stop: &AtomicBool, report: impl FnMut(&Progress)) -> Result<Summary, Failure> {
    // First, as it can say best why nobody answers.
    reach(&config.connection(), Duration::from_secs(10)).map_err(|e| Failure::new(Exit::Kafka, e))?;
    let producer = ProducerConfig {
        brokers: config.kafka.brokers.clone(),
        topic: config.kafka.events_topic.clone(),
        key: config.generator.key,
        properties: config.kafka.properties.to_map(),
        statistics_interval: config.kafka.statistics_interval.map(Millis::duration),
        connect_timeout: Duration::from_secs(10),
    };
    let mut sink = EventProducer::connect(producer, avro::encode_event as fn(&_, &mut Vec<u8>))
        .map_err(|e: ProducerError| Failure::new(Exit::Kafka, e))?;
    if let Some(balanced) = config.generator.balanced_partitions.filter(|n| *n as usize != sink.partitions()) {
        let partitions = sink.partitions();
        tracing::warn!(balanced, partitions, "generator.balanced_partitions is not the topic's number of partitions");
    }
    match run(&config.generator, &SystemClock::default(), stop, &mut sink, report) {
        Ok(summary) => Ok(summary),
        Err(error @ RunError::Settings(_)) => Err(Failure::new(Exit::Configuration, error)),
        Err(error @ RunError::Send { .. }) => Err(Failure::new(Exit::Kafka, error)),
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
