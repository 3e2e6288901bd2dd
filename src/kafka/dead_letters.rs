//! Dead letters, looked at and sent back: one topic read once, and part of it written to another, in transactions.
//!
//! ```text
//!  dead letters ──scan──▶ those of one reason ──▶ the events topic, in the partition they came from ─┐ in one
//!                  ▲                                                                                 ├ transaction,
//!                  └──────── the place up to which they have been sent back: a consumer group's ◀────┘ batch by batch
//! ```
//!
//! Which letters of a reason have been sent back is kept as the offsets of a consumer group, committed with them (KIP-98): so each
//! is sent back once, whatever fails, and however often somebody asks for it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use super::cause::Witness;
use super::client::{Cause, ClientError, Connection, LogContext};
use super::scan::{self, End, Scan, ScanError, ScanRecord};
use crate::exit::Exit;
use crate::source::DeadLetterPayload;

/// A dead letter, as it stands in its topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When it was written, ms since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Why the record did not count.
    pub reason: String,
    /// The topic that it came from.
    pub source_topic: String,
    /// The partition that it came from.
    pub source_partition: i32,
    /// Its offset there.
    pub source_offset: i64,
    /// How many bytes the record had, if it was cut.
    pub cut_from_bytes: Option<u64>,
    /// What is kept of it.
    pub kept: DeadLetterPayload,
    /// How many bytes are kept.
    pub bytes: usize,
    /// The bytes that are kept.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

/// The headers of a dead letter.
pub mod headers {
    /// Why the record did not count: a label.
    pub const REASON: &str = "reason";
    /// The topic that it came from.
    pub const SOURCE_TOPIC: &str = "source-topic";
    /// The partition that it came from, a number.
    pub const SOURCE_PARTITION: &str = "source-partition";
    /// Its offset there, a number.
    pub const SOURCE_OFFSET: &str = "source-offset";
    /// How many bytes the record had, if not all are kept.
    pub const CUT_FROM_BYTES: &str = "cut-from-bytes";
    /// What the value is: the `original` bytes, the `sanitised` event, or `nothing`.
    pub const PAYLOAD: &str = "payload";
    /// Of an event that was sent back: where it stands among the dead letters, `topic/partition/offset`.
    pub const REPLAYED_FROM: &str = "replayed-from";
}

impl Letter {
    /// The dead letter that a record is; none if its headers do not say where it came from, and why.
    fn of(record: &ScanRecord<'_>) -> Option<Letter> {
        let text = |name| std::str::from_utf8(record.header(name)?).ok();
        let payload = record.payload.unwrap_or_default().to_vec();
        Some(Letter {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            reason: text(headers::REASON)?.to_owned(),
            source_topic: text(headers::SOURCE_TOPIC)?.to_owned(),
            source_partition: text(headers::SOURCE_PARTITION)?.parse().ok()?,
            source_offset: text(headers::SOURCE_OFFSET)?.parse().ok()?,
            cut_from_bytes: text(headers::CUT_FROM_BYTES).and_then(|bytes| bytes.parse().ok()),
            // Before there was the header there were no sanitised ones.
            kept: text(headers::PAYLOAD).map_or(Some(DeadLetterPayload::Original), DeadLetterPayload::named)?,
            bytes: payload.len(),
            payload,
        })
    }

    /// Whether all of the record is here, as it came.
    fn whole(&self) -> bool {
        self.kept == DeadLetterPayload::Original && self.cut_from_bytes.is_none() && !self.payload.is_empty()
    }
}

/// How long to go without an answer of the brokers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the dead letters of `topic` that are committed, from the offsets of `from` on or from the beginning, until `each` breaks off.
/// Returns how many records are none.
///
/// # Errors
/// When the topic can't be read, or an offset of `from` is not there.
pub fn read_letters(
    connection: &Connection,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    each: &mut dyn FnMut(Letter) -> ControlFlow<()>,
) -> Result<u64, ScanError> {
    let properties = connection.properties.to_map();
    let settings =
        Scan { brokers: &connection.brokers, properties: &properties, topic, end: End::LastStable, timeout: TIMEOUT };
    let mut strange = 0;
    let mut each = |record: &ScanRecord<'_>| match Letter::of(record) {
        Some(letter) => each(letter),
        None => {
            strange += 1;
            ControlFlow::Continue(())
        }
    };
    scan::scan(&settings, from, &mut each, &mut |_, _| {})?;
    Ok(strange)
}

/// Which dead letters are sent back, and where.
#[derive(Clone, Debug)]
pub struct ReplaySettings {
    /// The brokers.
    pub connection: Connection,
    /// The job's name.
    pub job: String,
    /// The topic of the dead letters.
    pub letters: String,
    /// The topic of the events.
    pub events: String,
    /// The reason whose cause has been put right.
    pub reason: String,
    /// Only says what would be sent back.
    pub dry_run: bool,
}

/// What has been sent back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Events that were sent back.
    pub sent: u64,
    /// Dead letters of the reason that do not hold the whole record as it came, and so stay where they are.
    pub not_whole: u64,
    /// Dead letters of the reason that came from another topic, or a partition that there is not, and so stay where they are.
    pub elsewhere: u64,
}

/// Why dead letters were not sent back, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// They can't be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A client can't be made, or the brokers refuse.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A transaction did not come about. What was sent back before it stays so; asking again goes on from there.
    #[error(
        "cannot send dead letters back to {topic:?}: {cause}: {reason}; asking again goes on from where this one came to"
    )]
    Transaction {
        /// The topic of the events.
        topic: String,
        /// What is the matter.
        cause: Cause,
        /// What happened.
        reason: String,
    },
}

impl ReplayError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            ReplayError::Scan(error) => error.exit(),
            ReplayError::Client(error) => error.exit(),
            ReplayError::Transaction { cause, .. } => cause.exit(),
        }
    }
}

/// Letters in a transaction.
const BATCH: usize = 1_000;

/// Sends back the dead letters of one reason that have not been sent back before.
///
/// Each goes to the partition that it came from, with a header that says so. It is judged as any event that comes now: where its
/// windows are closed it is late. Holds a batch of 1,000 letters.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay_letters(settings: &ReplaySettings) -> Result<Replayed, ReplayError> {
    let replay = Replay::connect(settings)?;
    let mut replayed = Replayed::default();
    let mut batch: Vec<Letter> = Vec::new();
    let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
    let mut failed = None;
    let from = replay.sent_before()?;
    let mut each = |letter: Letter| {
        reached.insert(letter.partition, letter.offset + 1);
        if letter.reason != settings.reason {
            return ControlFlow::Continue(());
        }
        match () {
            () if !replay.came_from_here(&letter) => replayed.elsewhere += 1,
            () if !letter.whole() => replayed.not_whole += 1,
            () => batch.push(letter),
        }
        if batch.len() < BATCH {
            return ControlFlow::Continue(());
        }
        match replay.send_back(&batch, &reached) {
            Ok(()) => {
                replayed.sent += batch.drain(..).count() as u64;
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    read_letters(&settings.connection, &settings.letters, &from, &mut each)?;
    if let Some(error) = failed {
        return Err(error);
    }
    if !batch.is_empty() {
        replay.send_back(&batch, &reached)?;
        replayed.sent += batch.len() as u64;
    }
    Ok(replayed)
}

/// The clients that send back.
struct Replay<'a> {
    settings: &'a ReplaySettings,
    producer: BaseProducer,
    /// How many partitions the topic of the events has.
    partitions: usize,
    /// Of the group that remembers what has been sent back; it joins none.
    group: BaseConsumer<LogContext>,
}

impl Replay<'_> {
    fn connect(settings: &ReplaySettings) -> Result<Replay<'_>, ReplayError> {
        let ReplaySettings { connection, job, events, reason, dry_run, .. } = settings;
        let explain = |attempt: &str, error: &KafkaError| connection.explain(attempt, error, &Witness::default());
        let mut config = connection.client_config()?;
        // Another one at the same time is fenced off, so that none sends twice.
        config.set("transactional.id", format!("{job}-dead-letters-{reason}"));
        let producer: BaseProducer = config.create().map_err(|error| explain("make a producer", &error))?;
        if !dry_run {
            let began = producer.init_transactions(TIMEOUT);
            began.map_err(|error| explain("begin transactions", &error))?;
        }
        let group: BaseConsumer<LogContext> = connection
            .client_config()?
            .set("group.id", format!("{job}-dead-letters-{reason}"))
            .set("enable.auto.commit", "false")
            .create_with_context(LogContext)
            .map_err(|error| explain("make a consumer", &error))?;
        let attempt = format!("read topic {events:?}");
        let metadata = group.fetch_metadata(Some(events), TIMEOUT).map_err(|error| explain(&attempt, &error))?;
        let found = metadata.topics().first();
        if let Some(error) = found.and_then(MetadataTopic::error) {
            return Err(connection.refused(&attempt, RDKafkaErrorCode::from(error)).into());
        }
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        Ok(Replay { settings, producer, partitions, group })
    }

    /// Whether a letter's record can go back to where it came from.
    fn came_from_here(&self, letter: &Letter) -> bool {
        let there_is = usize::try_from(letter.source_partition).is_ok_and(|partition| partition < self.partitions);
        letter.source_topic == self.settings.events && there_is
    }

    /// The offsets from which on the letters of the reason have not been sent back.
    fn sent_before(&self) -> Result<BTreeMap<i32, i64>, ReplayError> {
        let ReplaySettings { connection, letters, .. } = self.settings;
        let explain =
            |error: &KafkaError| connection.explain("read what was sent back before", error, &Witness::default());
        let metadata = self.group.fetch_metadata(Some(letters), TIMEOUT).map_err(|error| explain(&error))?;
        let mut asked = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            asked.add_partition(letters, partition.id());
        }
        let known = self.group.committed_offsets(asked, TIMEOUT).map_err(|error| explain(&error))?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        let mut from: BTreeMap<i32, i64> = known.elements().iter().filter_map(offset).collect();
        // Retention may have passed the place.
        for (partition, from) in &mut from {
            let (first, _) =
                self.group.fetch_watermarks(letters, *partition, TIMEOUT).map_err(|error| explain(&error))?;
            *from = first.max(*from);
        }
        Ok(from)
    }

    /// Sends a batch back, and remembers how far the letters have been looked at, in one transaction.
    fn send_back(&self, batch: &[Letter], reached: &BTreeMap<i32, i64>) -> Result<(), ReplayError> {
        if self.settings.dry_run {
            return Ok(());
        }
        self.transaction(batch, reached).map_err(|error| {
            // Left open, it would keep the job from reading on until it times out.
            if let Err(error) = self.producer.abort_transaction(TIMEOUT) {
                tracing::warn!(error = super::describe(&error), "a transaction stays open until it times out");
            }
            let cause = error.rdkafka_error_code().map_or(Cause::Other, Cause::of);
            ReplayError::Transaction { topic: self.settings.events.clone(), cause, reason: super::describe(&error) }
        })
    }

    fn transaction(&self, batch: &[Letter], reached: &BTreeMap<i32, i64>) -> Result<(), KafkaError> {
        let ReplaySettings { letters, events, .. } = self.settings;
        self.producer.begin_transaction()?;
        for letter in batch {
            let from = format!("{letters}/{}/{}", letter.partition, letter.offset);
            let header = Header { key: headers::REPLAYED_FROM, value: Some(&from) };
            let record = BaseRecord::<(), [u8]>::to(events).partition(letter.source_partition);
            self.send(record.payload(&letter.payload).headers(OwnedHeaders::new().insert(header)))?;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in reached {
            offsets.add_partition_offset(letters, *partition, Offset::Offset(*offset))?;
        }
        // A client that was made with the name of a group has one.
        let unknown = || KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup);
        let group = self.group.group_metadata().ok_or_else(unknown)?;
        self.producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
        self.producer.commit_transaction(TIMEOUT)
    }

    /// Hands a record to the client, once it has room.
    fn send(&self, record: BaseRecord<'_, (), [u8]>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TIMEOUT;
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(Duration::from_millis(10));
                    record = again;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}
