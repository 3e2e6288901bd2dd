//! Reads what a job has committed, from its progress topic.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::avro::{ProgressRecord, UndecodableProgress, decode_progress_record};
use crate::exit::Exit;
use crate::kafka::scan::{self, End, Scan, ScanError, ScanRecord};
use crate::progress::CommittedProgress;

/// Why the progress of a job is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReadProgressError {
    /// The topic can't be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A record is none of ours, or of a version that this program does not know.
    #[error("the record at offset {offset} of partition {partition} of topic {topic:?} is {source}")]
    Undecodable {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        source: UndecodableProgress,
    },
}

impl ReadProgressError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            ReadProgressError::Scan(error) => error.exit(),
            ReadProgressError::Undecodable { .. } => Exit::Kafka,
        }
    }
}

/// How long to go without an answer of the brokers.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a transaction that is still open: longer than a dead producer's own stays so.
const WAIT: Duration = Duration::from_secs(60);

/// Reads what is committed in `topic`, which holds the progress of one job, up to its high watermark of this moment.
///
/// The last record of a key holds, and a record without a value deletes its key, as compaction would. A transaction that
/// is open is waited for: what it holds may be the latest progress. Keeps one record per key.
///
/// # Errors
/// When the topic can't be read, a transaction stays open for a minute, or a record is no progress record.
pub fn read_progress(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
) -> Result<CommittedProgress, ReadProgressError> {
    read(brokers, properties, topic, End::HighWatermark { wait: WAIT }, TIMEOUT)
}

/// As [`read_progress`], but waits for no open transaction: what is known may be older.
///
/// # Errors
/// When the topic can't be read or a record is no progress record.
pub fn read_progress_so_far(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
) -> Result<CommittedProgress, ReadProgressError> {
    read(brokers, properties, topic, End::LastStable, TIMEOUT)
}

/// The latest run that is known to have begun, 0 if there was none; gives up when no broker answers for `timeout`.
///
/// # Errors
/// As [`read_progress_so_far`].
pub(in crate::kafka) fn read_generation(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
    timeout: Duration,
) -> Result<i64, ReadProgressError> {
    let committed = read(brokers, properties, topic, End::LastStable, timeout)?;
    Ok(committed.progress.map_or(0, |progress| progress.generation))
}

fn read(
    brokers: &str,
    properties: &BTreeMap<String, String>,
    topic: &str,
    end: End,
    timeout: Duration,
) -> Result<CommittedProgress, ReadProgressError> {
    let mut latest: HashMap<Vec<u8>, ProgressRecord> = HashMap::new();
    let mut undecodable = None;
    let mut each = |record: &ScanRecord<'_>| {
        let key = record.key.unwrap_or_default();
        match record.payload.map(decode_progress_record) {
            None => drop(latest.remove(key)),
            Some(Ok(progress)) => drop(latest.insert(key.to_owned(), progress)),
            Some(Err(source)) => {
                let (topic, partition, offset) = (topic.to_owned(), record.partition, record.offset);
                undecodable = Some(ReadProgressError::Undecodable { topic, partition, offset, source });
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let settings = Scan { brokers, properties, topic, end, timeout };
    scan::scan(&settings, &BTreeMap::new(), &mut each, &mut |_, _| {})?;
    if let Some(undecodable) = undecodable {
        return Err(undecodable);
    }
    let mut committed = CommittedProgress::default();
    for record in latest.into_values() {
        match record {
            ProgressRecord::Progress(progress) => committed.progress = Some(progress),
            ProgressRecord::IdleAdvance(idle_advance) => committed.idle_advances.push(idle_advance),
        }
    }
    committed.idle_advances.sort_unstable();
    Ok(committed)
}
