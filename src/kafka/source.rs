//! A topic's partitions as the job's source.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::client::Connection;
use super::describe;
use super::queue::PartitionQueue;
use super::statistics::{self, ClientMetrics, MeasuredContext};
use crate::avro::wire::SchemaId;
use crate::ingest::Record;
use crate::pipeline::{NowMs, OpenPartitions, Waker};
use crate::progress::{JobStart, PartitionCut};
use crate::registry::Schemas;
use crate::source::{LogEnd, ReadPartition, SourceError, SourcePartition};

/// The partitions of a topic.
pub struct KafkaPartitions {
    connection: Connection,
    topic: String,
    ends: Arc<LogEnds>,
    schemas: Option<Arc<Schemas>>,
}

impl KafkaPartitions {
    /// The partitions of `topic`; where they end is asked on a thread of its own, which ends with this.
    ///
    /// # Errors
    /// When the client can't be made from the settings.
    pub fn new(connection: Connection, topic: String, now_ms: NowMs) -> Result<Self, String> {
        let ends = LogEnds::start(&connection, &topic, now_ms)?;
        Ok(KafkaPartitions { connection, topic, ends, schemas: None })
    }

    /// Has each partition wait before a record whose schema is not known yet, if its records are in the wire format of a registry.
    pub fn waiting_for(mut self, schemas: Option<Arc<Schemas>>) -> Self {
        self.schemas = schemas;
        self
    }

    fn consumer(&self, worker: usize, partitions: usize) -> Result<BaseConsumer<MeasuredContext>, String> {
        let mut config = self.connection.client_config().map_err(|e| e.to_string())?;
        // What is fetched ahead, for each partition: much in a backlog, and never more than the whole may take.
        let prefetch_kib = (PREFETCH_KIB / partitions.max(1)).clamp(256, 8_192).to_string();
        for (property, value) in [
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            // Many messages per answer in a backlog, and none waits long when there are few.
            ("fetch.min.bytes", "100000"),
            ("fetch.wait.max.ms", "5"),
            ("queued.min.messages", "100000"),
            ("queued.max.messages.kbytes", &prefetch_kib),
            // Once so much is there, it is looked again soon whether it still is. The default of 1 s starves a fast reader.
            ("fetch.queue.backoff.ms", "5"),
        ] {
            if self.connection.properties.get(property).is_none() {
                config.set(property, value);
            }
        }
        statistics::every(&mut config, self.connection.statistics_interval);
        let metrics = ClientMetrics::of(format!("source-{worker}"));
        config.create_with_context(MeasuredContext(metrics)).map_err(|e| describe(&e))
    }
}

/// What one worker fetches ahead at most.
const PREFETCH_KIB: usize = 64 << 10;

impl OpenPartitions for KafkaPartitions {
    fn open(
        &self,
        worker: usize,
        start: &JobStart,
        cuts: &[PartitionCut],
        waker: Waker,
    ) -> Result<Vec<SourcePartition>, SourceError> {
        if cuts.is_empty() {
            return Ok(Vec::new());
        }
        let error = |cut: &PartitionCut, reason| SourceError {
            log: format!("topic {:?}", self.topic),
            partition: cut.partition,
            position: cut.reads_from(),
            reason,
        };
        let consumer = Arc::new(self.consumer(worker, cuts.len()).map_err(|reason| error(&cuts[0], reason))?);
        self.ends.serve(&consumer);
        if let Some(schemas) = &self.schemas {
            let waker = waker.clone();
            schemas.on_news(move || waker.wake());
        }
        let open = |cut: &PartitionCut| {
            let from = cut.reads_from();
            let queue = PartitionQueue::start(&consumer, &self.topic, cut.partition, from, waker.clone())
                .map_err(|reason| error(cut, reason))?;
            let shown = Arc::new(AtomicI64::new(from));
            self.ends.watch(cut.partition, Arc::clone(&shown));
            let reader = KafkaPartition {
                queue,
                topic: self.topic.clone(),
                partition: cut.partition,
                position: from,
                shown,
                ends: Arc::clone(&self.ends),
                schemas: self.schemas.clone(),
                awaited: None,
            };
            Ok(SourcePartition { reader: Box::new(reader), format: None, cut: *cut, floors: start.floors_of(cut) })
        };
        cuts.iter().map(open).collect()
    }
}

/// One partition of a topic, read in the order of its offsets, transactions committed.
struct KafkaPartition {
    queue: PartitionQueue<MeasuredContext>,
    topic: String,
    partition: i32,
    position: i64,
    /// The position, as whoever asks for the end sees it.
    shown: Arc<AtomicI64>,
    ends: Arc<LogEnds>,
    schemas: Option<Arc<Schemas>>,
    /// The schema of the next record, where it was not known when it was read last.
    awaited: Option<SchemaId>,
}

impl ReadPartition for KafkaPartition {
    fn read(&mut self, limit: usize, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), SourceError> {
        let mut failed = None;
        let position = &mut self.position;
        let (schemas, awaited) = (self.schemas.as_ref(), &mut self.awaited);
        *awaited = None;
        self.queue.consume(limit, |message| {
            match message.error {
                // After an error nothing more is handed over, and nothing twice.
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                    if failed.is_some() || message.offset < *position => {}
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    if let Some(schemas) = schemas {
                        *awaited = schemas.awaited(message.payload);
                        if awaited.is_some() {
                            return ControlFlow::Break(());
                        }
                    }
                    each(&Record {
                        offset: message.offset,
                        record_timestamp_ms: message.timestamp_ms,
                        payload: message.payload,
                    });
                    *position = message.offset + 1;
                }
                // Everything before this offset has been handed over; the last may have been markers of transactions.
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => *position = message.offset.max(*position),
                code if failed.is_none() => {
                    let code = RDKafkaErrorCode::from(code);
                    let text = String::from_utf8_lossy(message.payload).into_owned();
                    if passes(code) {
                        tracing::warn!(topic = self.topic, partition = self.partition, error = %code, detail = text, "Kafka fetch");
                    } else {
                        failed = Some((code, text));
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
        self.shown.store(*position, Ordering::Relaxed);
        match failed {
            None => Ok(()),
            Some((code, text)) => Err(SourceError {
                log: format!("topic {:?}", self.topic),
                partition: self.partition,
                position: self.position,
                reason: format!("{code}: {text}{}", advice(code)),
            }),
        }
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn end(&self) -> Option<LogEnd> {
        self.ends.of(self.partition)
    }

    fn awaited(&self) -> Option<SchemaId> {
        self.awaited
    }
}

/// Whether librdkafka goes on by itself after this.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::NetworkException
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::ReplicaNotAvailable
            | Code::KafkaStorageError
    )
}

fn advice(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
            "; the records from there on are gone (retention), or the topic was made anew: start a job with another name"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => "; the user needs READ on the topic",
        _ => "",
    }
}

/// Where the partitions of a topic end, asked again and again.
struct LogEnds {
    partitions: Mutex<BTreeMap<i32, Watched>>,
    /// The clients that read them, as long as there are any.
    readers: Mutex<Vec<Weak<BaseConsumer<MeasuredContext>>>>,
    now_ms: NowMs,
    stop: AtomicBool,
}

/// A partition whose end is asked for.
struct Watched {
    position: Arc<AtomicI64>,
    end: Option<LogEnd>,
    /// Whether the last question went unanswered, which is told once.
    unanswered: bool,
}

/// How often the broker is asked while it has not answered for every partition, and after that.
const ASK_FIRST_EVERY: Duration = Duration::from_millis(50);
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

impl LogEnds {
    fn start(connection: &Connection, topic: &str, now_ms: NowMs) -> Result<Arc<Self>, String> {
        let mut config = connection.client_config().map_err(|e| e.to_string())?;
        // With read_committed the answer would be the last stable offset, and say nothing of open transactions.
        config.set("isolation.level", "read_uncommitted");
        statistics::every(&mut config, connection.statistics_interval);
        let metrics = ClientMetrics::of("log-ends");
        let consumer = config.create_with_context(MeasuredContext(metrics)).map_err(|e| describe(&e))?;
        let ends = Arc::new(LogEnds {
            partitions: Mutex::default(),
            readers: Mutex::default(),
            now_ms,
            stop: AtomicBool::new(false),
        });
        let asking = Arc::downgrade(&ends);
        let topic = topic.to_owned();
        let ask = move || {
            while let Some(ends) = asking.upgrade().filter(|ends| !ends.stop.load(Ordering::Relaxed)) {
                ends.serve_readers(&topic);
                let all = ends.ask(&consumer, &topic);
                drop(ends);
                std::thread::sleep(if all { ASK_EVERY } else { ASK_FIRST_EVERY });
            }
        };
        std::thread::Builder::new().name("log-ends".to_owned()).spawn(ask).map_err(|e| e.to_string())?;
        Ok(ends)
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<i32, Watched>> {
        // What is behind this lock is right whatever happened to another holder.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the events of a client served from now on, whether its worker reads or waits.
    fn serve(&self, reader: &Arc<BaseConsumer<MeasuredContext>>) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(reader));
    }

    /// Serves the clients' own events: their statistics, and errors, which librdkafka retries by itself.
    fn serve_readers(&self, topic: &str) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for reader in readers.iter().filter_map(Weak::upgrade) {
            while let Some(event) = reader.poll(Duration::ZERO) {
                if let Err(error) = event {
                    tracing::warn!(topic, %error, "Kafka client");
                }
            }
        }
    }

    fn watch(&self, partition: i32, position: Arc<AtomicI64>) {
        self.partitions().insert(partition, Watched { position, end: None, unanswered: false });
    }

    fn of(&self, partition: i32) -> Option<LogEnd> {
        self.partitions().get(&partition).and_then(|watched| watched.end)
    }

    /// Asks for every partition; returns whether all have been answered for.
    fn ask(&self, consumer: &BaseConsumer<MeasuredContext>, topic: &str) -> bool {
        while consumer.poll(Duration::ZERO).is_some() {}
        let partitions: Vec<i32> = self.partitions().keys().copied().collect();
        for &partition in &partitions {
            let answer = consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT);
            let mut partitions = self.partitions();
            let Some(watched) = partitions.get_mut(&partition) else { continue };
            match &answer {
                Ok((_, high_watermark)) => {
                    let position = watched.position.load(Ordering::Relaxed);
                    let answered_ms = (self.now_ms)();
                    watched.end = Some(LogEnd { high_watermark: *high_watermark, position, answered_ms });
                }
                Err(error) if !watched.unanswered => {
                    // Until it is answered the partition can't be told to be idle.
                    tracing::warn!(topic, partition, error = describe(error), "can't learn where the partition ends");
                }
                Err(_) => {}
            }
            watched.unanswered = answer.is_err();
        }
        let watched = self.partitions();
        !watched.is_empty() && watched.values().all(|watched| watched.end.is_some())
    }
}

impl Drop for KafkaPartitions {
    fn drop(&mut self) {
        self.ends.stop.store(true, Ordering::Relaxed);
    }
}
