//! Reads a topic once, from given offsets to where it ended when the scan began, without a consumer group.
//!
//! ```text
//! ask where the partitions begin and end ──▶ read each to that end ──▶ done when the position has reached it
//!  (last stable offset or high watermark)      (read_committed)
//! ```
//!
//! The last offsets of a partition are often transaction markers, which no consumer is ever handed, so the last record
//! does not tell that the end is reached. The client's position does, as it moves past markers; and so does its word that
//! there was no more to fetch, once the partition's last stable offset is known to be at the end or beyond.
//! (librdkafka says "end of partition" at the last stable offset of a `read_committed` client, and answers such a client
//! that asks for the latest offset with the last stable one.)

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// What to read, and where it is.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: &'a str,
    /// Further properties of librdkafka. May hold secrets, so they are not printed.
    pub properties: &'a BTreeMap<String, String>,
    /// The topic.
    pub topic: &'a str,
    /// To where it is read.
    pub end: End,
    /// How long to go without any answer of the brokers.
    pub timeout: Duration,
}

/// Where a scan ends. Either is a moment's answer, taken when the scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last stable offset: all that is committed and not behind a transaction that is still open.
    LastStable,
    /// The high watermark: all that has been written, once the transactions that are still open have ended.
    HighWatermark {
        /// How long to wait for them.
        wait: Duration,
    },
}

/// The part of a partition that a scan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The partition.
    pub partition: i32,
    /// Its first offset that is still there; those before were deleted by retention.
    pub first: i64,
    /// The first offset to be read.
    pub from: i64,
    /// The first offset that is not read any more.
    pub until: i64,
}

/// A record as a scan hands it over.
pub struct ScanRecord<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// When it was created or appended, ms since the epoch, as the topic has it.
    pub timestamp_ms: Option<i64>,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; none for a tombstone.
    pub payload: Option<&'a [u8]>,
    message: &'a BorrowedMessage<'a>,
}

impl ScanRecord<'_> {
    /// The value of the last header of this name, if there is one.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = self.message.headers()?;
        headers.iter().filter(|header| header.key == name).last()?.value
    }
}

/// Why a topic cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A property is not known to librdkafka, or its value is not right. The value is not said, since it may be a secret.
    #[error("librdkafka property {property:?} is unknown, or its value is not usable")]
    Property {
        /// The property.
        property: String,
    },
    /// The properties do not go together, or something that they name cannot be used.
    #[error("cannot make a consumer for {brokers}: {source}")]
    Create {
        /// The brokers.
        brokers: String,
        /// What librdkafka says.
        source: Box<KafkaError>,
    },
    /// No broker answered in time.
    #[error("no answer from Kafka at {brokers} about topic {topic:?} within {timeout:?}: {reason}")]
    Unreachable {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// How long was waited.
        timeout: Duration,
        /// What librdkafka said last.
        reason: String,
    },
    /// The brokers answered that they do not have the topic, or do not give it out.
    #[error("topic {topic:?} cannot be read at {brokers}: {reason}")]
    Topic {
        /// The brokers.
        brokers: String,
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// There is no such partition.
    #[error("topic {topic:?} has no partition {partition}; it has {partitions}, counted from 0")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// The offset to begin at is not in the log, any more or yet.
    #[error("offset {offset} of partition {partition} of topic {topic:?} is not there: it holds {first} to {end}")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The first offset that is there.
        first: i64,
        /// The offset after the last.
        end: i64,
    },
    /// A transaction that was open at the beginning has not ended in time.
    #[error(
        "partition {partition} of topic {topic:?} could be read to offset {position} of {until} only: after {waited:?} a \
         transaction there is still open; it ends with its producer, or after the producer's transaction.timeout.ms"
    )]
    OpenTransaction {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How far it was read.
        position: i64,
        /// How far it was to be read.
        until: i64,
        /// How long was waited.
        waited: Duration,
    },
    /// Reading failed.
    #[error("can't read partition {partition} of topic {topic:?} on at offset {position}: {reason}")]
    Read {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How far it was read.
        position: i64,
        /// What librdkafka says.
        reason: String,
    },
}

/// Reads the topic, one partition after the other, each from `from` on, or from its beginning where `from` has none.
///
/// `each` sees every record before the end, in the order of the partition's offsets, and may break off; `progress` hears
/// after every 10,000 records and at the end of every partition how far that was read. Holds what the client fetches ahead,
/// 8 MiB. Returns what was to be read.
///
/// # Errors
/// See [`ScanError`]. What `each` has seen before an error is not the whole.
pub fn scan(
    scan: &Scan<'_>,
    from: &BTreeMap<i32, i64>,
    each: &mut dyn FnMut(&ScanRecord<'_>) -> ControlFlow<()>,
    progress: &mut dyn FnMut(&ScanRange, i64),
) -> Result<Vec<ScanRange>, ScanError> {
    const PROGRESS_EVERY: u64 = 10_000;
    let ranges = ranges(scan, from)?;
    for range in &ranges {
        let mut partition = PartitionScan::new(scan, *range, 8 << 10)?;
        let mut records: u64 = 0;
        while let Some(flow) = partition.next(&mut *each)? {
            if flow.is_break() {
                return Ok(ranges);
            }
            records += 1;
            if records.is_multiple_of(PROGRESS_EVERY) {
                progress(range, partition.position());
            }
        }
        progress(range, partition.position());
    }
    Ok(ranges)
}

/// Asks where the partitions of the topic begin and end, and so what [`scan`] would read.
///
/// # Errors
/// When no broker answers, or the topic, a partition or an offset of `from` is not there.
pub fn ranges(scan: &Scan<'_>, from: &BTreeMap<i32, i64>) -> Result<Vec<ScanRange>, ScanError> {
    let isolation = match scan.end {
        End::LastStable => "read_committed",
        End::HighWatermark { .. } => "read_uncommitted",
    };
    let client = scan.client(&[("isolation.level", isolation)])?;
    let metadata = client.fetch_metadata(Some(scan.topic), scan.timeout).map_err(|error| scan.no_answer(error))?;
    let refused = |reason: String| ScanError::Topic { brokers: scan.brokers.into(), topic: scan.topic.into(), reason };
    let found = metadata.topics().iter().find(|topic| topic.name() == scan.topic);
    let found = found.ok_or_else(|| refused("it is not there".to_owned()))?;
    if let Some(error) = found.error() {
        return Err(refused(RDKafkaErrorCode::from(error).to_string()));
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    if let Some(partition) = from.keys().find(|partition| !partitions.contains(partition)) {
        let (topic, partition, partitions) = (scan.topic.into(), *partition, partitions.len());
        return Err(ScanError::Partition { topic, partition, partitions });
    }
    let range = |partition: i32| {
        let (first, until) =
            client.fetch_watermarks(scan.topic, partition, scan.timeout).map_err(|error| scan.no_answer(error))?;
        let from = from.get(&partition).copied().unwrap_or(first);
        if !(first..=until).contains(&from) {
            let topic = scan.topic.into();
            return Err(ScanError::OutOfRange { topic, partition, offset: from, first, end: until });
        }
        Ok(ScanRange { partition, first, from, until })
    };
    partitions.into_iter().map(range).collect()
}

impl Scan<'_> {
    fn client(&self, own: &[(&str, &str)]) -> Result<BaseConsumer, ScanError> {
        let mut config = ClientConfig::new();
        // Manual assignment needs the name of a group, but joins none.
        config.set("group.id", "clicktide-scan");
        self.properties.iter().for_each(|(property, value)| _ = config.set(property, value));
        config.set("bootstrap.servers", self.brokers);
        own.iter().for_each(|(property, value)| _ = config.set(*property, *value));
        config.create().map_err(|source| match source {
            KafkaError::ClientConfig(_, _, property, _) => ScanError::Property { property },
            source => ScanError::Create { brokers: self.brokers.to_owned(), source: Box::new(source) },
        })
    }

    fn no_answer(&self, error: KafkaError) -> ScanError {
        no_answer(self.brokers, self.topic, self.timeout, &error)
    }
}

fn no_answer(brokers: &str, topic: &str, timeout: Duration, error: &KafkaError) -> ScanError {
    ScanError::Unreachable { brokers: brokers.to_owned(), topic: topic.to_owned(), timeout, reason: reason(error) }
}

fn reason(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

/// One partition while it is scanned, at the reader's own pace.
pub struct PartitionScan {
    consumer: BaseConsumer,
    brokers: String,
    topic: String,
    range: ScanRange,
    end: End,
    timeout: Duration,
    position: i64,
    /// When the brokers were last known to answer.
    answered: Instant,
    /// What librdkafka complained of last.
    complaint: Option<KafkaError>,
    reached: Reached,
}

/// What is known of the end of what can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// Nothing.
    Unknown,
    /// There was no more to fetch at some last stable offset, since when it is waited for one at the scan's end.
    Stable(Instant),
    /// The last stable offset is at the scan's end or beyond: when there is no more to fetch, all was read.
    Ending,
}

impl PartitionScan {
    /// A scan of `range`, one of those that [`ranges`] gave, which fetches so many KiB ahead of its reader.
    ///
    /// # Errors
    /// When the properties are not usable.
    pub fn new(scan: &Scan<'_>, range: ScanRange, fetch_ahead_kib: u32) -> Result<Self, ScanError> {
        let fetch_ahead = fetch_ahead_kib.to_string();
        let consumer = scan.client(&[
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", &fetch_ahead),
        ])?;
        let mut partition = Self {
            consumer,
            brokers: scan.brokers.to_owned(),
            topic: scan.topic.to_owned(),
            range,
            end: scan.end,
            timeout: scan.timeout,
            position: range.from,
            answered: Instant::now(),
            complaint: None,
            reached: Reached::Unknown,
        };
        if range.from < range.until {
            partition.assign()?;
        }
        Ok(partition)
    }

    /// What it reads.
    pub fn range(&self) -> ScanRange {
        self.range
    }

    /// The offset of the next record to be handed over; the end of the range once all of it was.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Hands the next record to `each` and returns what that returns; nothing at the end. Waits for the brokers.
    ///
    /// # Errors
    /// See [`ScanError`].
    pub fn next<T>(&mut self, each: impl FnOnce(&ScanRecord<'_>) -> T) -> Result<Option<T>, ScanError> {
        const POLL: Duration = Duration::from_millis(20);
        if self.position < self.range.until {
            // A reader may have been away for long.
            self.answered = Instant::now();
        }
        while self.position < self.range.until {
            let error = match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.offset() >= self.range.until => {
                    self.position = self.range.until;
                    break;
                }
                Some(Ok(message)) => {
                    self.position = message.offset() + 1;
                    return Ok(Some(each(&ScanRecord {
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis(),
                        key: message.key(),
                        payload: message.payload(),
                        message: &message,
                    })));
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            match error {
                Some(KafkaError::PartitionEOF(_)) => self.no_more_to_fetch(),
                Some(error) => self.complain(error)?,
                None => self.follow_position(),
            }
            if let Reached::Stable(since) = self.reached {
                self.await_stable_end(since)?;
            }
            if self.answered.elapsed() > self.timeout {
                let complaint = self.complaint.take().unwrap_or(KafkaError::NoMessageReceived);
                return Err(no_answer(&self.brokers, &self.topic, self.timeout, &complaint));
            }
        }
        Ok(None)
    }

    /// Reading goes on at the position; what was fetched before is dropped.
    fn assign(&mut self) -> Result<(), ScanError> {
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&self.topic, self.range.partition, Offset::Offset(self.position));
        added.and_then(|()| self.consumer.assign(&assignment)).map_err(|error| self.read_error(&error))
    }

    /// Takes over the client's position, which moves past transaction markers.
    fn follow_position(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        let found = positions.find_partition(&self.topic, self.range.partition);
        if let Some(Offset::Offset(position)) = found.map(|found| found.offset())
            && position > self.position
        {
            self.position = position.min(self.range.until);
            self.answered = Instant::now();
        }
    }

    fn no_more_to_fetch(&mut self) {
        self.answered = Instant::now();
        self.follow_position();
        match self.reached {
            _ if self.position >= self.range.until => {}
            Reached::Unknown => self.reached = Reached::Stable(Instant::now()),
            Reached::Stable(_) => {}
            // What is left was compacted or aborted: nothing to hand over.
            Reached::Ending => self.position = self.range.until,
        }
    }

    /// Asks whether the last stable offset has reached the scan's end; then reading goes on once more, to the very end.
    fn await_stable_end(&mut self, since: Instant) -> Result<(), ScanError> {
        let wait = match self.end {
            End::LastStable => self.timeout,
            End::HighWatermark { wait } => wait,
        };
        match self.consumer.fetch_watermarks(&self.topic, self.range.partition, self.timeout) {
            Ok((_, stable)) if stable >= self.range.until => {
                self.answered = Instant::now();
                self.reached = Reached::Ending;
                self.assign()
            }
            Ok(_) if since.elapsed() > wait => Err(ScanError::OpenTransaction {
                topic: self.topic.clone(),
                partition: self.range.partition,
                position: self.position,
                until: self.range.until,
                waited: wait,
            }),
            Ok(_) => {
                self.answered = Instant::now();
                Ok(())
            }
            Err(error) => self.complain(error),
        }
    }

    /// Remembers an error that the client recovers from by itself; returns any other.
    fn complain(&mut self, error: KafkaError) -> Result<(), ScanError> {
        use RDKafkaErrorCode::*;
        match error.rdkafka_error_code() {
            Some(
                AutoOffsetReset
                | OffsetOutOfRange
                | UnknownPartition
                | UnknownTopic
                | UnknownTopicOrPartition
                | TopicAuthorizationFailed
                | GroupAuthorizationFailed
                | SaslAuthenticationFailed
                | Authentication
                | Fatal
                | InvalidRecord
                | BadMessage
                | BadCompression,
            ) => Err(self.read_error(&error)),
            _ => {
                self.complaint = Some(error);
                Ok(())
            }
        }
    }

    fn read_error(&self, error: &KafkaError) -> ScanError {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
        let reason = match error.rdkafka_error_code() {
            Some(AutoOffsetReset | OffsetOutOfRange) => {
                "it is not in the log any more; retention has deleted it in the meantime".to_owned()
            }
            _ => reason(error),
        };
        let (topic, partition) = (self.topic.clone(), self.range.partition);
        ScanError::Read { topic, partition, position: self.position, reason }
    }
}
