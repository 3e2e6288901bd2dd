//! Results, dead letters and progress into Kafka, one transaction after another.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Cause, ClientError, Connection, LogContext};
use super::dead_letters::headers;
use super::describe;
use super::progress::read_generation;
use super::statistics::{self, ClientMetrics};
use crate::avro::wire::SchemaId;
use crate::avro::{ProgressRecord, encode_page_analytics, encode_progress_record};
use crate::committer::{CommitEpoch, CommitError, Epoch};
use crate::privacy::IdHash;
use crate::progress::{JobState, Progress};
use crate::source::{DeadLetter, SanitisedRecord};

/// The topics of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTopics {
    /// The events.
    pub events: String,
    /// The results.
    pub results: String,
    /// The records that did not count.
    pub dead_letters: String,
    /// The sanitised events, if they are wanted.
    pub sanitised_events: Option<String>,
    /// What has been committed.
    pub progress: String,
}

/// By which ids a schema registry knows the schemas of what a job publishes; none: it is published as bare Avro bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputSchemas {
    /// Of the results.
    pub results: Option<SchemaId>,
    /// Of the sanitised events.
    pub sanitised_events: Option<SchemaId>,
}

/// A producer whose transactions carry a job's output.
///
/// One transaction per commit holds results, dead letters, sanitised events, idle advances and the progress record. The transactional id is
/// the job's name, so that whoever starts the job next fences this producer (KIP-98).
pub struct KafkaCommitter {
    producer: Arc<BaseProducer<Deliveries>>,
    /// The thread that serves its deliveries.
    serving: Option<JoinHandle<()>>,
    connection: Connection,
    topics: JobTopics,
    timeout: Duration,
    progress: Progress,
    /// The latest run that is known to have begun: this one, or before that the one it follows.
    begun_generation: i64,
    /// Commits the read positions for a group of the job's name: nothing reads them but tools that show lag.
    group: Option<BaseConsumer<LogContext>>,
    /// What results and sanitised events begin with, where there is a registry.
    schemas: OutputSchemas,
    payload: Vec<u8>,
}

/// What has become of the messages that were handed to the producer.
#[derive(Clone, Default)]
struct Deliveries(Arc<(Mutex<Delivered>, Condvar)>);

#[derive(Default)]
struct Delivered {
    /// Messages that nothing is known of yet.
    pending: usize,
    /// Why the first failed that did.
    failed: Option<KafkaError>,
    /// Whether nobody will ask any more.
    closed: bool,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Delivered> {
        // What is behind this lock is right whatever happened to another holder.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the fate of every message is known; whether it is.
    fn wait(&self, timeout: Duration) -> bool {
        let waited = self.0.1.wait_timeout_while(self.lock(), timeout, |delivered| delivered.pending > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl ClientContext for Deliveries {
    fn stats(&self, statistics: Statistics) {
        ClientMetrics::of("committer").record(&statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let mut delivered = self.lock();
        delivered.pending -= 1;
        if let Err((error, _)) = result {
            delivered.failed.get_or_insert_with(|| error.clone());
        }
        if delivered.pending == 0 {
            self.0.1.notify_all();
        }
    }
}

/// Serves a producer's deliveries on a thread of its own, until [`Delivered::closed`].
///
/// `BaseProducer::poll` returns when its time is over and not before, and spins through the last millisecond of it, so that
/// whoever waits for deliveries must not poll for them.
fn serve_deliveries(producer: &Arc<BaseProducer<Deliveries>>) -> std::io::Result<JoinHandle<()>> {
    let producer = Arc::clone(producer);
    let serve = move || {
        while !producer.context().lock().closed {
            producer.poll(SERVE);
        }
    };
    std::thread::Builder::new().name("deliveries".to_owned()).spawn(serve)
}

impl Drop for KafkaCommitter {
    /// Waits for the thread, so that no connection outlives the committer: for as long as one call serves deliveries.
    fn drop(&mut self) {
        self.deliveries().lock().closed = true;
        self.serving.take().map(JoinHandle::join);
    }
}

/// The largest dead letter: what fits into a message of the size that brokers and clients allow by default, with headers.
const DEAD_LETTER_BYTES_MAX: usize = 900_000;
/// How long a run takes at most, as a rule, from fencing off the others to its first commit.
const ANOTHER_BEGINS: Duration = Duration::from_secs(5);
/// How long to wait for the brokers' word on whether it has.
const ANSWER: Duration = Duration::from_secs(3);
/// How long one call waits inside librdkafka.
const CALL: Duration = Duration::from_secs(5);
/// How long one call serves deliveries.
const SERVE: Duration = Duration::from_millis(250);
/// How often it is looked whether the client has room again, or has done away with what was delivered.
const LOOK_EVERY: Duration = Duration::from_micros(200);

impl KafkaCommitter {
    /// Connects, and fences every earlier producer of this job: nothing of an older run can be committed after this.
    ///
    /// # Errors
    /// When the brokers can't be reached within `timeout`, or refuse transactions.
    pub fn connect(
        connection: &Connection,
        job: &str,
        topics: JobTopics,
        timeout: Duration,
    ) -> Result<Self, CommitError> {
        let client_config = || connection.client_config().map_err(|e: ClientError| CommitError::Failed(e.to_string()));
        let mut config = client_config()?;
        for (property, value) in [
            ("transactional.id", job),
            ("transaction.timeout.ms", &timeout.as_millis().to_string()),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("compression.codec", "gzip"),
            // All of a transaction is there at once; waiting for more would only cost latency.
            ("linger.ms", "0"),
        ] {
            config.set(property, value);
        }
        statistics::every(&mut config, connection.statistics_interval);
        let failed = |error: KafkaError| CommitError::Failed(describe(&error));
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default()).map_err(failed)?;
        let producer = Arc::new(producer);
        let serving = serve_deliveries(&producer)
            .map_err(|e| CommitError::Failed(format!("can't start the thread that serves deliveries: {e}")))?;
        let group = client_config()?
            .set("group.id", job)
            .set("enable.auto.commit", "false")
            .create_with_context(LogContext)
            .inspect_err(|error| {
                tracing::warn!(error = describe(error), "no read positions will be shown for the group")
            })
            .ok();
        let committer = KafkaCommitter {
            producer,
            serving: Some(serving),
            connection: connection.clone(),
            topics,
            timeout,
            progress: Progress {
                job: job.to_owned(),
                generation: 0,
                committed_through: None,
                began_after: None,
                state: JobState::Running,
                configuration: String::new(),
                topic_id: None,
                input: Vec::new(),
            },
            begun_generation: 0,
            group,
            schemas: OutputSchemas::default(),
            payload: Vec::new(),
        };
        let call = format!("init_transactions as {job:?}");
        committer.retried(&call, |producer, wait| producer.init_transactions(wait))?;
        Ok(committer)
    }

    /// Publishes in the wire format of a schema registry what has an id here.
    pub fn with_schemas(mut self, schemas: OutputSchemas) -> Self {
        self.schemas = schemas;
        self
    }

    /// Begins a run: commits `progress`, and forgets the idle advances whose keys are in `outdated`.
    ///
    /// # Errors
    /// See [`CommitEpoch::commit`].
    pub fn begin(
        &mut self,
        progress: Progress,
        advances: &[ProgressRecord],
        outdated: &[String],
    ) -> Result<(), CommitError> {
        self.begun_generation = progress.generation - 1;
        self.progress = progress;
        self.transaction(|committer| {
            for key in outdated {
                committer.send(BaseRecord::<str, [u8]>::to(&committer.topics.progress).key(key.as_str()))?;
            }
            for advance in advances {
                committer.send_progress(advance)?;
            }
            committer.send_progress(&ProgressRecord::Progress(committer.progress.clone()))
        })?;
        self.begun_generation = self.progress.generation;
        Ok(())
    }

    fn transaction(&mut self, send: impl FnOnce(&Self) -> Result<(), CommitError>) -> Result<(), CommitError> {
        let error = match (self.attempt(send), self.producer.client().fatal_error()) {
            (Ok(()), _) => return Ok(()),
            // A producer that was fenced purges its messages, so that whichever call comes first fails for another reason.
            (Err(_), Some((code, text))) if is_fenced(code) => CommitError::Fenced(text),
            (Err(error), _) => error,
        };
        let fenced = matches!(error, CommitError::Fenced(_));
        let another = self.another_has_begun(if fenced { ANOTHER_BEGINS } else { Duration::ZERO });
        Err(match error {
            CommitError::Fenced(text) if !another => CommitError::Unknown(format!(
                "the brokers gave up on this producer, and no other run has begun: {text}"
            )),
            CommitError::Failed(text) | CommitError::Denied(text) | CommitError::Unknown(text) if another => {
                CommitError::Fenced(text)
            }
            error => error,
        })
    }

    /// Whether a run has begun after this one, or does so within `patience`: asked when a transaction has failed.
    ///
    /// The brokers treat a producer whose transaction has timed out like one that was fenced by another, as after a pause of
    /// the machine in the middle of a transaction, and a run that fences may end before it begins. Then there is nobody to
    /// leave the job to. And a run that was itself paused for so long that it has lost its patience, whatever it has not
    /// been told yet, must not be started again to fence the one that took over.
    fn another_has_begun(&self, patience: Duration) -> bool {
        let Connection { brokers, properties, .. } = &self.connection;
        let deadline = Instant::now() + patience;
        loop {
            match read_generation(brokers, &properties.to_map(), &self.topics.progress, ANSWER) {
                Ok(generation) if generation > self.begun_generation => return true,
                Ok(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                Ok(_) => return false,
                Err(error) => {
                    tracing::warn!(%error, "can't learn whether another run has begun");
                    return false;
                }
            }
        }
    }

    fn attempt(&self, send: impl FnOnce(&Self) -> Result<(), CommitError>) -> Result<(), CommitError> {
        let started = Instant::now();
        self.producer.begin_transaction().map_err(|e| classify(&e, "begin_transaction"))?;
        send(self)?;
        self.drain()?;
        self.retried("commit_transaction", |producer, wait| producer.commit_transaction(wait))?;
        metrics::histogram!(crate::metrics::COMMIT).record(started.elapsed());
        Ok(())
    }

    fn send<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(&self, record: BaseRecord<'_, K, P>) -> Result<(), CommitError> {
        let deadline = Instant::now() + self.timeout;
        let mut record = record;
        loop {
            // Counted before it can be delivered.
            self.deliveries().lock().pending += 1;
            let Err((error, again)) = self.producer.send(record) else { return Ok(()) };
            self.deliveries().lock().pending -= 1;
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY);
                    record = again;
                }
                error => return Err(classify(&error, "produce")),
            }
        }
    }

    fn send_progress(&self, record: &ProgressRecord) -> Result<(), CommitError> {
        let body = encode_progress_record(record);
        self.send(BaseRecord::to(&self.topics.progress).key(&record.key()).payload(&body))
    }

    fn send_dead_letter(&self, letter: &DeadLetter) -> Result<(), CommitError> {
        let kept = &letter.payload[..letter.payload.len().min(DEAD_LETTER_BYTES_MAX)];
        let cut = (kept.len() < letter.payload.len()).then(|| letter.payload.len().to_string());
        let (partition, offset) = (letter.partition.to_string(), letter.offset.to_string());
        let payload = letter.kept.label().to_owned();
        let said = [
            (headers::REASON, Some(&letter.reason)),
            (headers::SOURCE_TOPIC, Some(&self.topics.events)),
            (headers::SOURCE_PARTITION, Some(&partition)),
            (headers::SOURCE_OFFSET, Some(&offset)),
            (headers::CUT_FROM_BYTES, cut.as_ref()),
            (headers::PAYLOAD, Some(&payload)),
        ];
        let said = said.into_iter().filter_map(|(key, value)| Some(Header { key, value: Some(value?) }));
        let headers = said.fold(OwnedHeaders::new(), |headers, header| headers.insert(header));
        self.send(BaseRecord::<(), [u8]>::to(&self.topics.dead_letters).payload(kept).headers(headers))
    }

    /// Keyed by the user's hash, so that all events of a user are in one partition.
    fn send_sanitised(&self, topic: &str, event: &SanitisedRecord) -> Result<(), CommitError> {
        let key = IdHash(event.user).to_string();
        let prefix = self.schemas.sanitised_events.map(SchemaId::prefix);
        let prefix = prefix.as_ref().map(<[u8; _]>::as_slice).unwrap_or_default();
        self.send(BaseRecord::to(topic).key(&key).payload(&[prefix, &event.body].concat()))
    }

    /// Waits until all messages are acknowledged. Without this, committing would wait in steps of 100 ms.
    fn drain(&self) -> Result<(), CommitError> {
        let deadline = Instant::now() + self.timeout;
        let known = self.deliveries().wait(self.timeout);
        // The client counts a message until just after it was told of.
        while known && self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        if !known || self.producer.in_flight_count() > 0 {
            let waited_s = self.timeout.as_secs();
            return Err(CommitError::Failed(format!("the brokers did not acknowledge all messages in {waited_s} s")));
        }
        let failed = self.deliveries().lock().failed.take();
        failed.map_or(Ok(()), |error| Err(self.undelivered(&error)))
    }

    /// Why a message was not delivered. Where the brokers refuse a transaction its messages are purged, which says nothing:
    /// the attempt to commit, which then can't succeed, tells what they said.
    fn undelivered(&self, error: &KafkaError) -> CommitError {
        use RDKafkaErrorCode::{PurgeInflight, PurgeQueue};
        let purged = matches!(error.rdkafka_error_code(), Some(PurgeInflight | PurgeQueue));
        match purged.then(|| self.producer.commit_transaction(CALL.min(self.timeout))) {
            Some(Ok(())) => CommitError::Unknown(format!("committed without a message: {}", describe(error))),
            Some(Err(refusal)) => {
                let cause = refusal.rdkafka_error_code().map_or(Cause::Other, Cause::of);
                let text = format!("{cause}: {}", describe(&refusal));
                if cause.denied() { CommitError::Denied(text) } else { CommitError::Failed(text) }
            }
            None => CommitError::Failed(format!("a message was not delivered: {}", describe(error))),
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.context()
    }

    /// Calls until the call succeeds, fails for good, or the timeout has passed.
    fn retried(
        &self,
        call: &str,
        attempt: impl Fn(&BaseProducer<Deliveries>, Duration) -> Result<(), KafkaError>,
    ) -> Result<(), CommitError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match attempt(&self.producer, CALL.min(self.timeout)) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    tracing::debug!(call, error = error.string(), "again");
                }
                Err(error) => return Err(classify(&error, call)),
            }
        }
    }

    fn show_positions(&self) {
        let Some(group) = &self.group else { return };
        let mut positions = TopicPartitionList::new();
        for cut in &self.progress.input {
            // A partition that can't be added is not shown.
            positions.add_partition_offset(&self.topics.events, cut.partition, Offset::Offset(cut.position)).ok();
        }
        if let Err(error) = group.commit(&positions, CommitMode::Async) {
            tracing::debug!(error = describe(&error), "the read positions are not shown for the group");
        }
        while group.poll(Duration::ZERO).is_some() {}
    }
}

/// Whether a producer with the same transactional id has begun after this one.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::ProducerFenced | Code::Fenced | Code::InvalidProducerEpoch)
}

/// What an error means for the transaction.
fn classify(error: &KafkaError, call: &str) -> CommitError {
    let text = format!("{call}: {}", describe(error));
    match error.rdkafka_error_code() {
        Some(code) if is_fenced(code) => CommitError::Fenced(text),
        // Also when the client says that the transaction has to be aborted: it may have given up on a request to commit it
        // that the broker had already carried out.
        _ if call == "commit_transaction" => CommitError::Unknown(text),
        Some(code) if Cause::of(code).denied() => CommitError::Denied(format!("{}: {text}", Cause::of(code))),
        _ => CommitError::Failed(text),
    }
}

impl CommitEpoch for KafkaCommitter {
    fn commit(&mut self, epoch: &Epoch) -> Result<(), CommitError> {
        epoch.record_in(&mut self.progress);
        let mut payload = std::mem::take(&mut self.payload);
        let mut result_bytes = 0;
        let outcome = self.transaction(|committer| {
            for result in epoch.windows.iter().flat_map(|window| &window.results) {
                payload.clear();
                payload.extend(committer.schemas.results.iter().flat_map(|id| id.prefix()));
                encode_page_analytics(result, &mut payload);
                result_bytes += result.page_url.len() + payload.len();
                committer.send(BaseRecord::to(&committer.topics.results).key(&result.page_url).payload(&payload))?;
            }
            for letter in &epoch.dead_letters {
                committer.send_dead_letter(letter)?;
            }
            if let Some(topic) = &committer.topics.sanitised_events {
                epoch.sanitised.iter().try_for_each(|event| committer.send_sanitised(topic, event))?;
            }
            for advance in &epoch.idle_advances {
                committer.send_progress(&ProgressRecord::IdleAdvance(*advance))?;
            }
            committer.send_progress(&ProgressRecord::Progress(committer.progress.clone()))
        });
        self.payload = payload;
        let label = match &outcome {
            Ok(()) => "committed",
            Err(CommitError::Failed(_) | CommitError::Denied(_)) => "failed",
            Err(CommitError::Unknown(_)) => "unknown",
            Err(CommitError::Fenced(_)) => "fenced",
        };
        metrics::counter!(crate::metrics::TRANSACTIONS, "outcome" => label).increment(1);
        outcome?;
        metrics::counter!(crate::metrics::RESULT_BYTES).increment(result_bytes as u64);
        metrics::counter!(crate::metrics::DEAD_LETTERS).increment(epoch.dead_letters.len() as u64);
        metrics::counter!(crate::metrics::SANITISED_EVENTS).increment(epoch.sanitised.len() as u64);
        self.show_positions();
        Ok(())
    }
}
