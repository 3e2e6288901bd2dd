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

mod error;
mod partition;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

pub use error::ScanError;
use error::{no_answer, refusal};
pub use partition::PartitionScan;

use super::cause::Witness;
use super::client::{Cause, Connection, LogContext, fetch_watermarks};

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
    /// The last stable offset: all that is committed and not behind a transaction that is still open. It may be behind a
    /// commit that has just returned, as markers are written after that.
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
    let refused = |(cause, reason)| {
        let (brokers, topic) = (scan.brokers.into(), scan.topic.into());
        ScanError::Topic { brokers, topic, cause, reason }
    };
    let found = metadata.topics().iter().find(|topic| topic.name() == scan.topic);
    let found = found.ok_or_else(|| refused((Cause::UnknownTopic, "it is not there".to_owned())))?;
    if let Some(error) = found.error() {
        return Err(refused(refusal(RDKafkaErrorCode::from(error))));
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    if let Some(partition) = from.keys().find(|partition| !partitions.contains(partition)) {
        let (topic, partition, partitions) = (scan.topic.into(), *partition, partitions.len());
        return Err(ScanError::Partition { topic, partition, partitions });
    }
    let range = |partition: i32| {
        let (first, until) =
            fetch_watermarks(&client, scan.topic, partition, scan.timeout).map_err(|error| scan.no_answer(error))?;
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
    fn client(&self, own: &[(&str, &str)]) -> Result<BaseConsumer<LogContext>, ScanError> {
        let connection = Connection {
            brokers: self.brokers.to_owned(),
            properties: self.properties.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            statistics_interval: None,
        };
        let mut config = connection.client_config()?;
        // Manual assignment needs the name of a group, but joins none.
        config.set("group.id", "clicktide-scan");
        if !self.properties.contains_key("fetch.wait.max.ms") {
            // That there is no more is said at once, and not after the half second that a fetch may wait by default.
            config.set("fetch.wait.max.ms", "10");
        }
        own.iter().for_each(|(property, value)| _ = config.set(*property, *value));
        let attempt = format!("read topic {:?}", self.topic);
        let made = config.create_with_context(LogContext);
        made.map_err(|error| connection.explain(&attempt, &error, &Witness::default()).into())
    }

    fn no_answer(&self, error: KafkaError) -> ScanError {
        no_answer(self.brokers, self.topic, self.timeout, &error)
    }
}
