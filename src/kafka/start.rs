//! How a run of a job begins: fence the older runs, see what they have committed, decide where to read from.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Connection, LogContext};
use super::committer::{JobTopics, KafkaCommitter};
use super::describe;
use super::probe::reach;
use super::progress::{read_progress, read_progress_so_far};
use crate::avro::ProgressRecord;
use crate::committer::CommitError;
use crate::progress::JobStart;
use crate::recovery::{Asked, Bounds, Recovery, objection};

/// Where a job that has committed nothing begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the oldest record of every partition.
    #[default]
    Earliest,
    /// At the end of every partition.
    Latest,
    /// At the first record whose timestamp is at or after this, ms.
    Timestamp(i64),
}

/// What a run is started with.
#[derive(Clone)]
pub struct StartSettings {
    /// How to reach the brokers.
    pub kafka: Connection,
    /// The job's name.
    pub job: String,
    /// Its topics.
    pub topics: JobTopics,
    /// After how long the broker gives up on a transaction whose job is gone.
    pub transaction_timeout: Duration,
    /// Where a new job begins.
    pub from: From,
    /// Whether the job ends where the input ends now.
    pub until_end: bool,
    /// The configuration that gives the results their meaning, as JSON.
    pub configuration: String,
}

/// Why a run does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The brokers do not answer, or not as hoped.
    #[error("can't start the job: {0}")]
    Kafka(String),
    /// The output can't be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What has been committed and what is asked for do not go together.
    #[error("job {job:?} can't be resumed: {reason}")]
    Refused {
        /// The job.
        job: String,
        /// Why not, and what would be right.
        reason: String,
    },
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Begins a run: called in process 0, before any source is built. `differences` says, line by line, how the configuration
/// that results were committed with differs from this run's.
///
/// # Errors
/// See [`StartError`].
pub fn start_job(
    settings: &StartSettings,
    differences: &dyn Fn(&str) -> Vec<String>,
) -> Result<(KafkaCommitter, JobStart), StartError> {
    let StartSettings { kafka, job, topics, .. } = settings;
    // First, as it can say best why nobody answers.
    reach(kafka, TIMEOUT).map_err(|e| StartError::Kafka(e.to_string()))?;
    let refused = |reason| StartError::Refused { job: job.clone(), reason };
    // What is refused must not fence a run that goes on, so this is asked first. What an open transaction hides is seen
    // below, by when there is none.
    let asked = Asked {
        job,
        events: &topics.events,
        progress: &topics.progress,
        until_end: settings.until_end,
        configuration: &settings.configuration,
        differences,
    };
    let so_far = read_progress_so_far(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)
        .map_err(|e| StartError::Kafka(e.to_string()))?;
    if let Some(reason) = objection(&asked, &so_far) {
        return Err(refused(reason));
    }
    let mut committer = KafkaCommitter::connect(kafka, job, topics.clone(), settings.transaction_timeout)?;
    // Fenced: what is visible now, and no transaction is open, stays the last word of the older runs.
    let committed = read_progress(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)
        .map_err(|e| StartError::Kafka(e.to_string()))?;
    if let Some(reason) = objection(&asked, &committed) {
        return Err(refused(reason));
    }

    let log = Log::open(settings)?;
    let recovery = match committed.progress {
        None => Recovery::new_job(&asked, &log.begins(settings.from)?, &log.bounds),
        Some(progress) => Recovery::resumed(&asked, progress, committed.idle_advances, &log.bounds).map_err(refused)?,
    };
    let Recovery { progress, new_advances, outdated, start } = recovery;
    let advances: Vec<_> = new_advances.into_iter().map(ProgressRecord::IdleAdvance).collect();
    let outdated: Vec<_> = outdated.into_iter().map(|advance| ProgressRecord::IdleAdvance(advance).key()).collect();
    committer.begin(progress, &advances, &outdated)?;
    Ok((committer, start))
}

/// The input topic as it is now.
struct Log {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// What can be read of every partition, in order.
    bounds: Vec<Bounds>,
}

impl Log {
    fn open(settings: &StartSettings) -> Result<Self, StartError> {
        let kafka = |error| StartError::Kafka(describe(&error));
        let topic = settings.topics.events.clone();
        // Read committed: the end is the last stable offset.
        let config = settings.kafka.client_config().map_err(|e| StartError::Kafka(e.to_string()));
        let consumer: BaseConsumer<LogContext> =
            config?.set("isolation.level", "read_committed").create_with_context(LogContext).map_err(kafka)?;
        let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT).map_err(kafka)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            let reason = format!("the input topic {topic:?} does not exist; `clicktide topics create` makes it");
            return Err(StartError::Kafka(reason));
        }
        let bounds = |partition| {
            let (low, high) = consumer.fetch_watermarks(&topic, partition, TIMEOUT).map_err(kafka)?;
            Ok(Bounds { low, high })
        };
        let bounds = (0..partitions as i32).map(bounds).collect::<Result<Vec<_>, StartError>>()?;
        Ok(Log { consumer, topic, bounds })
    }

    /// The offset of each partition at which a new job begins.
    fn begins(&self, from: From) -> Result<Vec<i64>, StartError> {
        let by_time = match from {
            From::Timestamp(ms) => self.offsets_at(ms)?,
            From::Earliest | From::Latest => Vec::new(),
        };
        let begin = |(partition, bounds): (usize, &Bounds)| match from {
            From::Earliest => bounds.low,
            From::Latest => bounds.high,
            From::Timestamp(_) => by_time.get(partition).copied().flatten().unwrap_or(bounds.high),
        };
        Ok(self.bounds.iter().enumerate().map(begin).collect())
    }

    /// The first offset of each partition at or after a time, where there is one.
    fn offsets_at(&self, ms: i64) -> Result<Vec<Option<i64>>, StartError> {
        let kafka = |error| StartError::Kafka(describe(&error));
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.bounds.len() as i32 {
            asked.add_partition_offset(&self.topic, partition, Offset::Offset(ms)).map_err(kafka)?;
        }
        let answered = self.consumer.offsets_for_times(asked, TIMEOUT).map_err(kafka)?;
        let offset = |partition| match answered.find_partition(&self.topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        Ok((0..self.bounds.len() as i32).map(offset).collect())
    }
}
