//! The generator's way into Kafka: an idempotent producer that measures its acknowledgements.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use super::client::Cause;
use super::statistics::ClientMetrics;
use crate::event::ClickEvent;
use crate::exit::Exit;
use crate::generator::form::Form;
use crate::generator::send::{Admission, Deliveries, SendEvent};
use crate::generator::settings::EventKey;
use crate::generator::truth::Witness;
use crate::ingest::Record;

/// Where and how to produce.
#[derive(Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// The topic of the events.
    pub topic: String,
    /// What a record's key is.
    pub key: EventKey,
    /// Further properties of librdkafka, which win over those set here but for the brokers and the interval of statistics. May hold secrets, so they are not printed.
    pub properties: BTreeMap<String, String>,
    /// How often the metrics are brought up to date with what the client says of itself; none: never.
    pub statistics_interval: Option<Duration>,
    /// How long to look for the brokers and the topic before giving up.
    pub connect_timeout: Duration,
}

impl ProducerConfig {
    /// The properties of a client that produces so.
    pub fn client_config(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Warning);
        DEFAULTS.iter().for_each(|(property, value)| _ = client.set(*property, *value));
        self.properties.iter().for_each(|(property, value)| _ = client.set(property, value));
        // Last, so that the brokers that errors name are those that were asked.
        client.set("bootstrap.servers", &self.brokers);
        client
    }
}

/// Why events cannot be produced.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// A property is not known to librdkafka, or its value is not right. The value is not said, since it may be a secret.
    #[error("librdkafka property {property:?} is unknown, or its value is not usable")]
    Property {
        /// The property.
        property: String,
    },
    /// The properties do not go together, or something that they name cannot be used.
    #[error("cannot make a producer for {brokers}: {source}")]
    Create {
        /// The brokers.
        brokers: String,
        /// What librdkafka says.
        source: Box<KafkaError>,
    },
    /// No broker answered in time.
    #[error("no answer from Kafka at {brokers} about topic {topic:?}: {source}")]
    Unreachable {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// What librdkafka says.
        source: Box<KafkaError>,
    },
    /// The brokers answered that they do not have the topic, or do not let it be used.
    #[error("topic {topic:?} cannot be used at {brokers}: {cause}: {reason}")]
    Topic {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// What is the matter.
        cause: Cause,
        /// What the broker says.
        reason: String,
    },
    /// An event was refused for another reason than a full queue.
    #[error("cannot produce to topic {topic:?} at {brokers}: {source}")]
    Produce {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// What librdkafka says.
        source: Box<KafkaError>,
    },
}

impl ProducerError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            ProducerError::Property { .. } | ProducerError::Create { .. } => Exit::Configuration,
            ProducerError::Topic { cause, .. } => cause.exit(),
            ProducerError::Unreachable { source, .. } | ProducerError::Produce { source, .. } => {
                source.rdkafka_error_code().map_or(Exit::Kafka, |code| Cause::of(code).exit())
            }
        }
    }
}

/// Produces events to one topic.
///
/// Every event is written once and in order within its partition, also when the client has to try again (`enable.idempotence`, `acks=all`),
/// and goes to the partition that Java clients choose for the key. `E` encodes an event at the end of a buffer.
pub struct EventProducer<E = fn(&ClickEvent, &mut Vec<u8>)> {
    producer: ThreadedProducer<DeliveryCounter>,
    config: ProducerConfig,
    encode: E,
    payload: Vec<u8>,
    origin: Instant,
    deliveries: Arc<Mutex<Deliveries>>,
    partitions: usize,
}

/// Set where the configuration does not say otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Java's default for keys, so that others can join with the topic; librdkafka's own default is another hash.
    ("partitioner", "murmur2_random"),
    ("compression.codec", "snappy"),
    // Long enough to batch some thousand events a second, short enough for the 10 ms an acknowledgement may take.
    ("linger.ms", "2"),
    // A broker that is back is found again soon; the default is 10 s.
    ("reconnect.backoff.max.ms", "1000"),
];

/// How often librdkafka says how it is.
const STATISTICS_MS: &str = "100";
/// How long to wait for the producer id before events are sent without.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

impl<E: FnMut(&ClickEvent, &mut Vec<u8>)> EventProducer<E> {
    /// Connects, makes sure that the topic is there, and waits until the producer may send.
    ///
    /// # Errors
    ///
    /// A property is wrong, no broker answers, or the topic does not exist.
    pub fn connect(config: ProducerConfig, encode: E) -> Result<Self, ProducerError> {
        let mut client = config.client_config();
        // Last, so that it is known when the producer is ready.
        client.set("statistics.interval.ms", STATISTICS_MS);

        let origin = Instant::now();
        let deliveries = Arc::new(Mutex::new(Deliveries::default()));
        let (ready, is_ready) = mpsc::channel();
        let context = DeliveryCounter {
            origin,
            deliveries: Arc::clone(&deliveries),
            ready: Mutex::new(Some(ready)),
            witness: OnceLock::new(),
            metrics: ClientMetrics::of("generator"),
            statistics_interval: config.statistics_interval,
            measured: Mutex::default(),
            denied: OnceLock::new(),
        };
        let producer: ThreadedProducer<DeliveryCounter> =
            client.create_with_context(context).map_err(|source| match source {
                KafkaError::ClientConfig(_, _, property, _) => ProducerError::Property { property },
                source => ProducerError::Create { brokers: config.brokers.clone(), source: Box::new(source) },
            })?;
        let partitions = partition_count(&producer, &config)?;
        // Without a producer id events wait in the queue, for half a second if the first try comes too early. That is not the latency
        // of an acknowledgement. A producer that is still not ready later on says why itself.
        let idempotent = client.get("enable.idempotence") == Some("true");
        if idempotent && is_ready.recv_timeout(READY_TIMEOUT.min(config.connect_timeout)).is_err() {
            tracing::warn!(brokers = config.brokers, "the Kafka producer has not got its producer id yet");
        }
        Ok(EventProducer { producer, config, encode, payload: Vec::new(), origin, deliveries, partitions })
    }

    /// Where each partition ends: the offset that the next record will get.
    ///
    /// # Errors
    ///
    /// No broker answers.
    pub fn end_offsets(&self) -> Result<Vec<i64>, ProducerError> {
        let ProducerConfig { brokers, topic, connect_timeout, .. } = &self.config;
        let end = |partition: usize| {
            self.producer
                .client()
                .fetch_watermarks(topic, partition as i32, *connect_timeout)
                .map(|(_, end)| end)
                .map_err(|source| ProducerError::Unreachable {
                    brokers: brokers.clone(),
                    topic: topic.clone(),
                    source: Box::new(source),
                })
        };
        (0..self.partitions).map(end).collect()
    }

    /// Has `witness` told of every record that is acknowledged from now on. There is one witness.
    pub fn tell(&self, witness: Witness) {
        // It is set once, before anything is sent.
        _ = self.producer.client().context().witness.set(witness);
    }

    fn produce_error(&self, source: KafkaError) -> ProducerError {
        let ProducerConfig { brokers, topic, .. } = &self.config;
        ProducerError::Produce { brokers: brokers.clone(), topic: topic.clone(), source: Box::new(source) }
    }
}

fn partition_count(
    producer: &ThreadedProducer<DeliveryCounter>,
    config: &ProducerConfig,
) -> Result<usize, ProducerError> {
    let ProducerConfig { brokers, topic, .. } = config;
    let metadata = producer.client().fetch_metadata(Some(topic), config.connect_timeout).map_err(|source| {
        ProducerError::Unreachable { brokers: brokers.clone(), topic: topic.clone(), source: Box::new(source) }
    })?;
    let refused = |code| refused(config, code);
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(refused(RDKafkaErrorCode::UnknownTopic));
    };
    match found.error() {
        Some(error) => Err(refused(RDKafkaErrorCode::from(error))),
        None => Ok(found.partitions().len()),
    }
}

/// What it means that the brokers refuse the topic.
fn refused(config: &ProducerConfig, code: RDKafkaErrorCode) -> ProducerError {
    let ProducerConfig { brokers, topic, .. } = config;
    let (brokers, topic, cause) = (brokers.clone(), topic.clone(), Cause::of(code));
    ProducerError::Topic { brokers, topic, cause, reason: code.to_string() }
}

impl<E: FnMut(&ClickEvent, &mut Vec<u8>)> SendEvent for EventProducer<E> {
    type Error = ProducerError;

    fn send(&mut self, event: &ClickEvent, form: Form) -> Result<Admission, ProducerError> {
        // It would be so for every event.
        if let Some(code) = self.producer.client().context().denied.get() {
            return Err(refused(&self.config, *code));
        }
        self.payload.clear();
        form.write_avro(event, &mut self.encode, &mut self.payload);
        let key = self.config.key.of(event);
        let sent_us = self.origin.elapsed().as_micros() as usize;
        let record = BaseRecord::with_opaque_to(&self.config.topic, sent_us).key(key).payload(&self.payload);
        match self.producer.send(record) {
            Ok(()) => Ok(Admission::Accepted { bytes: key.len() + self.payload.len() }),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(Admission::QueueFull),
            Err((source, _)) => Err(self.produce_error(source)),
        }
    }

    /// How many partitions the topic had when the producer connected.
    fn partitions(&self) -> usize {
        self.partitions
    }

    fn take_deliveries(&mut self) -> Deliveries {
        // Partitions that got nothing count too, or a topic would look balanced that is not.
        let next = Deliveries { by_partition: vec![0; self.partitions], ..Deliveries::default() };
        let mut taken = std::mem::replace(&mut *lock(&self.deliveries), next);
        if taken.by_partition.len() < self.partitions {
            taken.by_partition.resize(self.partitions, 0);
        }
        taken
    }

    fn flush(&mut self, timeout: Duration) -> Result<(), ProducerError> {
        match self.producer.flush(timeout) {
            Ok(()) | Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => Ok(()),
            Err(source) => Err(self.produce_error(source)),
        }
    }
}

/// Counts deliveries on the client's own thread.
struct DeliveryCounter {
    origin: Instant,
    deliveries: Arc<Mutex<Deliveries>>,
    /// Told once that the producer has its id.
    ready: Mutex<Option<Sender<()>>>,
    witness: OnceLock<Witness>,
    metrics: ClientMetrics,
    statistics_interval: Option<Duration>,
    /// When the metrics were brought up to date last.
    measured: Mutex<Option<Instant>>,
    /// Why the user may not produce, once the brokers have said so.
    denied: OnceLock<RDKafkaErrorCode>,
}

impl DeliveryCounter {
    /// Remembers that the user may not do this, if that is what an error says.
    fn note(&self, error: &KafkaError) {
        if let Some(code) = error.rdkafka_error_code().filter(|code| Cause::of(*code) == Cause::Authorization) {
            self.denied.get_or_init(|| code);
        }
    }

    /// Whether it is time to bring the metrics up to date again.
    fn measure(&self) -> bool {
        let Some(interval) = self.statistics_interval else { return false };
        let mut measured = lock(&self.measured);
        let due = measured.is_none_or(|measured| measured.elapsed() >= interval);
        if due {
            *measured = Some(Instant::now());
        }
        due
    }
}

impl ClientContext for DeliveryCounter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(facility, "{message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::warn!(facility, "{message}"),
            RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let mut ready = lock(&self.ready);
        let measure = self.measure();
        if ready.is_none() && !measure {
            return;
        }
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return };
        if measure {
            self.metrics.record(&statistics);
        }
        // librdkafka has no call for this, but its statistics say so: the first state in which the producer may send is this one.
        if statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned") {
            // Nobody may be waiting any more, which is as well.
            _ = ready.take().map(|ready| ready.send(()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error);
        tracing::error!(%error, "Kafka producer: {reason}");
    }
}

impl ProducerContext for DeliveryCounter {
    /// When the event was handed over, µs since the origin: a number, so that nothing is allocated for an event.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_us: usize) {
        match result {
            Ok(message) => {
                let latency = self.origin.elapsed().saturating_sub(Duration::from_micros(sent_us as u64));
                let partition = usize::try_from(message.partition()).unwrap_or_default();
                lock(&self.deliveries).acknowledge(partition, latency);
                if let Some(witness) = self.witness.get() {
                    witness.acknowledged(
                        &Record {
                            offset: message.offset(),
                            record_timestamp_ms: message.timestamp().to_millis(),
                            payload: message.payload().unwrap_or_default(),
                        },
                        partition,
                    );
                }
            }
            Err((error, _)) => {
                self.note(error);
                lock(&self.deliveries).fail(error.to_string());
            }
        }
    }
}

/// What is behind these locks is right whatever happened to another holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::generator::clock::SystemClock;
    use crate::generator::{self, Model, Settings, murmur2};
    use crate::millis::Millis;

    const TOPIC: &str = "clickstream-events";
    const PARTITIONS: usize = 6;

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, PARTITIONS as i32, 1).unwrap();
        cluster
    }

    fn config(brokers: String, key: EventKey, properties: &[(&str, &str)]) -> ProducerConfig {
        ProducerConfig {
            brokers,
            topic: TOPIC.to_owned(),
            key,
            statistics_interval: None,
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            connect_timeout: Duration::from_secs(30),
        }
    }

    fn encode(event: &ClickEvent, payload: &mut Vec<u8>) {
        serde_json::to_writer(payload, event).unwrap();
    }

    fn events(count: usize) -> Vec<ClickEvent> {
        let mut model = Model::new(&Settings::default()).unwrap();
        let mut event = Model::blank_event();
        (0..count)
            .map(|i| {
                model.write_next(i as i64, &mut event);
                event.clone()
            })
            .collect()
    }

    #[test]
    fn events_arrive_in_the_partitions_of_their_keys() {
        let cluster = cluster();
        let check = |key: EventKey| {
            let config = config(cluster.bootstrap_servers(), key, &[]);
            let mut producer = EventProducer::connect(config, encode).unwrap();
            assert_eq!(producer.partitions(), PARTITIONS);
            assert!(lock(&producer.producer.client().context().ready).is_none(), "connected, but not ready to send");
            let mut expected = vec![0; PARTITIONS];
            for event in events(2_000) {
                let bytes = key.of(&event).len() + serde_json::to_vec(&event).unwrap().len();
                assert_eq!(producer.send(&event, Form::Event).unwrap(), Admission::Accepted { bytes });
                expected[murmur2::partition(key.of(&event).as_bytes(), PARTITIONS as u32) as usize] += 1;
            }
            producer.flush(Duration::from_secs(60)).unwrap();
            let deliveries = producer.take_deliveries();
            assert_eq!((deliveries.acknowledged, deliveries.failed), (2_000, 0), "{:?}", deliveries.latest_error);
            assert_eq!(deliveries.by_partition, expected);
            assert_eq!(deliveries.latencies.count(), 2_000);
            // What was taken is not counted again.
            assert_eq!(producer.take_deliveries().acknowledged, 0);
        };
        check(EventKey::UserId);
        check(EventKey::PageUrl);
    }

    #[test]
    fn a_run_delivers_all_its_events() {
        let cluster = cluster();
        let settings = Settings { duration: Some(Millis(300)), balanced_partitions: Some(6), ..Settings::default() };
        let config = config(cluster.bootstrap_servers(), settings.key, &[]);
        let mut producer = EventProducer::connect(config, encode as fn(&ClickEvent, &mut Vec<u8>)).unwrap();
        let stop = AtomicBool::new(false);
        let summary = generator::run(&settings, &SystemClock::new(), &stop, &mut producer, |_| ()).unwrap();
        // However long it took.
        assert_eq!((summary.sent, summary.acknowledged, summary.failed, summary.unknown), (300, 300, 0, 0));
        assert_eq!((summary.unsent, summary.by_partition.len()), (0, PARTITIONS));
    }

    #[test]
    fn a_full_queue_is_said_and_nothing_in_it_is_lost() {
        let cluster = cluster();
        // Events stay in the queue for the linger, far longer than it takes to fill it.
        let properties = [("queue.buffering.max.messages", "10"), ("linger.ms", "60000")];
        let config = config(cluster.bootstrap_servers(), EventKey::UserId, &properties);
        let mut producer = EventProducer::connect(config, encode).unwrap();
        let admissions: Vec<Admission> =
            events(11).iter().map(|event| producer.send(event, Form::Event).unwrap()).collect();
        assert!(admissions[..10].iter().all(|admission| matches!(admission, Admission::Accepted { .. })));
        assert_eq!(admissions[10], Admission::QueueFull);
        producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(producer.take_deliveries().acknowledged, 10);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let check = |config: ProducerConfig, expected: &str| {
            let error = EventProducer::connect(config, encode).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
        };
        let with = |properties: &[(&str, &str)]| config("127.0.0.1:1".to_owned(), EventKey::UserId, properties);
        check(with(&[("no.such", "secret")]), "librdkafka property \"no.such\" is unknown, or its value is not usable");
        check(with(&[("acks", "secret")]), "librdkafka property \"acks\" is unknown, or its value is not usable");
        check(
            ProducerConfig { connect_timeout: Duration::from_millis(100), ..with(&[]) },
            "no answer from Kafka at 127.0.0.1:1 about topic \"clickstream-events\"",
        );
    }
}
