//! `clicktide generate`: synthetic traffic into the events topic.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::avro;
use crate::avro::wire::SchemaId;
use crate::commands::progress::Teller;
use crate::commands::signals::stop_on_signal;
use crate::commands::status_line::{Voice, span};
use crate::config::Config;
use crate::event::ClickEvent;
use crate::exit::{Exit, Failure};
use crate::generator::clock::SystemClock;
use crate::generator::report::{Progress, Summary};
use crate::generator::run::{RunError, run};
use crate::generator::versions::Versions;
use crate::http::{self, GeneratorSite, Health, Site};
use crate::ingest::Format;
use crate::kafka::probe::reach;
use crate::kafka::producer::{EventProducer, ProducerConfig, ProducerError};
use crate::metrics;
use crate::millis::Millis;
use crate::registry::Subject;

/// Generates until the configured duration is over or a signal comes. In JSON, the summary is told.
///
/// # Errors
/// When the topic can't be produced to.
pub fn generate(voice: Voice, config: &Config) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::new(AtomicBool::new(true)))?;
    let metrics = metrics::install().map_err(|e| Failure::new(Exit::Failure, e))?;
    let figures = Arc::new(Figures::default());
    let server = match config.generator.http_listen {
        None => None,
        Some(address) => {
            let failure = |e| Failure::new(Exit::Configuration, format!("generator.http_listen = {address}: {e}"));
            let shown = Arc::clone(&figures);
            let site = GeneratorSite { health: Arc::new(move || shown.health()), metrics, access: config.access() };
            let listener = TcpListener::bind(address).map_err(failure)?;
            Some(http::serve(listener, Site::Generator(site)).map_err(failure)?)
        }
    };
    let duration = config.generator.duration.map(Millis::duration);
    let mut teller = Teller::new(voice);
    let summary = produce(config, &stop, |progress| {
        figures.note(progress);
        teller.tell(|| told(progress, duration));
    });
    drop(teller);
    if let Some(server) = server {
        server.stop();
    }
    let summary = summary?;
    if voice.json {
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

/// A report, with how much of the time is over and how much is left, where that is known.
fn told(progress: &Progress, duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return format!("generate · {progress}") };
    let duration_s = duration.as_secs_f64();
    let percent = (progress.elapsed_s / duration_s).min(1.0) * 100.0;
    let left_ms = ((duration_s - progress.elapsed_s).max(0.0) * 1_000.0) as i64;
    format!("generate · {percent:.0} % · {} left · {progress}", span(left_ms))
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
    let mut sink =
        EventProducer::connect(producer, encoder(config)?).map_err(|e: ProducerError| Failure::new(Exit::Kafka, e))?;
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

/// Appends an event to a buffer, as records are written.
type Encode = Box<dyn FnMut(&ClickEvent, &mut Vec<u8>)>;

/// How events are written: as bare bodies, or where there is a registry in its wire format. Waits for a registry that does not answer.
///
/// # Errors
/// When the registry refuses.
fn encoder(config: &Config) -> Result<Encode, Failure> {
    let Format::Wire(schemas) = config.format() else { return Ok(Box::new(avro::encode_event)) };
    let publication = config.schema_registry.publication();
    let subject = publication.events(&config.kafka.events_topic);
    let id = |schema| {
        let id = schemas.id_of(publication, &Subject { name: subject.name.clone(), schema });
        id.map(SchemaId::prefix).map_err(|error| Failure::new(Exit::Registry, error))
    };
    let change = config.generator.schema_change;
    let prefix = id(subject.schema)?;
    if !change.enabled {
        return Ok(Box::new(move |event, payload| {
            payload.extend_from_slice(&prefix);
            avro::encode_event(event, payload);
        }));
    }
    let later_prefix = id(avro::CLICK_EVENT_LATER_SCHEMA)?;
    let mut versions = Versions::new(change);
    Ok(Box::new(move |event, payload| {
        if versions.later(event.timestamp) {
            payload.extend_from_slice(&later_prefix);
            avro::encode_later_event(event, payload);
        } else {
            payload.extend_from_slice(&prefix);
            avro::encode_event(event, payload);
        }
    }))
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
