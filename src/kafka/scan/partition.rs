//! One partition while it is scanned.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::super::client::LogContext;
use super::error::{ScanError, no_answer, reason};
use super::{End, Scan, ScanRange, ScanRecord};

/// One partition while it is scanned, at the reader's own pace.
pub struct PartitionScan {
    consumer: BaseConsumer<LogContext>,
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
    /// A scan of `range`, one of those that [`ranges`](super::ranges) gave, which fetches so many KiB ahead of its reader.
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
                // What is read anew ends with its own word only: see `assign`.
                None if self.reached == Reached::Ending => {}
                None => self.follow_position(),
            }
            if let Reached::Stable(since) = self.reached
                && self.position < self.range.until
            {
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
    ///
    /// A consumer that is closed while this is on its way brings the process down: librdkafka then stops the partition a
    /// second time before the first stop is done (the assertion in its `rd_kafka_assignment_partition_stopped`). A record or
    /// the end of the partition, read after this, shows that it is through.
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
        let (cause, mut reason) = reason(error);
        if let Some(AutoOffsetReset | OffsetOutOfRange) = error.rdkafka_error_code() {
            "it is not in the log any more; retention has deleted it in the meantime".clone_into(&mut reason);
        }
        let (topic, partition) = (self.topic.clone(), self.range.partition);
        ScanError::Read { topic, partition, position: self.position, cause, reason }
    }
}
