//! How a run of a job begins: fence the older runs, see what they have committed, decide where to read from.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Connection, LogContext, fetch_watermarks};
use super::committer::{JobTopics, KafkaCommitter};
use super::describe;
use super::probe::reach;
use super::progress::{CommittedProgress, read_progress, read_progress_so_far};
use crate::avro::ProgressRecord;
use crate::committer::CommitError;
use crate::progress::{IdleAdvance, JobStart, JobState, PartitionCut, Progress};
use clicktide_dataflows::time::Tick;

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
    let so_far = read_progress_so_far(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)
        .map_err(|e| StartError::Kafka(e.to_string()))?;
    if let Some(reason) = so_far.progress.and_then(|committed| objection(settings, &committed, differences)) {
        return Err(refused(reason));
    }
    let mut committer = KafkaCommitter::connect(kafka, job, topics.clone(), settings.transaction_timeout)?;
    // Fenced: what is visible now, and no transaction is open, stays the last word of the older runs.
    let CommittedProgress { progress, idle_advances } =
        read_progress(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)
            .map_err(|e| StartError::Kafka(e.to_string()))?;

    let log = Log::open(settings)?;
    let (progress, new_advances) = match progress {
        None => (log.new_job(settings)?, Vec::new()),
        Some(committed) => {
            if let Some(reason) = objection(settings, &committed, differences) {
                return Err(refused(reason));
            }
            log.resumed(committed).map_err(refused)?
        }
    };
    let outdated: Vec<String> = idle_advances
        .iter()
        .filter(|advance| log.low(advance.partition).is_none_or(|low| advance.next_offset < low))
        .filter(|advance| {
            !progress
                .input
                .iter()
                .any(|cut| cut.partition == advance.partition && cut.replay_from <= advance.next_offset)
        })
        .map(|advance| ProgressRecord::IdleAdvance(*advance).key())
        .collect();
    let start = JobStart {
        generation: progress.generation,
        committed_through: progress.committed_through.map(Tick),
        input: progress.input.clone(),
        idle_advances: idle_advances.iter().chain(&new_advances).copied().collect(),
    };
    let advances: Vec<_> = new_advances.into_iter().map(ProgressRecord::IdleAdvance).collect();
    committer.begin(progress, &advances, &outdated)?;
    Ok((committer, start))
}

fn objection(
    settings: &StartSettings,
    committed: &Progress,
    differences: &dyn Fn(&str) -> Vec<String>,
) -> Option<String> {
    let bounded = committed.input.iter().any(|cut| cut.until.is_some());
    let changed = differences(&committed.configuration);
    if committed.job != settings.job {
        let owner = &committed.job;
        return Some(format!(
            "its progress topic {:?} belongs to job {owner:?}; give each job its own",
            settings.topics.progress
        ));
    }
    if !changed.is_empty() {
        let lines = changed.join("\n  ");
        return Some(format!(
            "its configuration would change the meaning of what is already committed; start a job with another name \
             (and progress topic), or undo:\n  {lines}"
        ));
    }
    if bounded && !settings.until_end {
        return Some("it was started with --until-end; start an unbounded job under another name".to_owned());
    }
    if !bounded && settings.until_end {
        return Some("it was started without --until-end; start a bounded job under another name".to_owned());
    }
    (committed.state == JobState::Finished)
        .then(|| "it is finished: all of its input has been read and all windows are committed".to_owned())
}

/// The input topic as it is now.
struct Log {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// Low watermark and last stable offset of every partition, in order.
    ends: Vec<(i64, i64)>,
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
        let end = |partition| fetch_watermarks(&consumer, &topic, partition, TIMEOUT).map_err(kafka);
        let ends = (0..partitions as i32).map(end).collect::<Result<Vec<_>, _>>()?;
        Ok(Log { consumer, topic, ends })
    }

    fn low(&self, partition: i32) -> Option<i64> {
        self.ends.get(usize::try_from(partition).ok()?).map(|(low, _)| *low)
    }

    fn new_job(&self, settings: &StartSettings) -> Result<Progress, StartError> {
        let by_time = match settings.from {
            From::Timestamp(ms) => self.offsets_at(ms)?,
            From::Earliest | From::Latest => Vec::new(),
        };
        let cut = |(partition, &(low, high)): (usize, &(i64, i64))| {
            let offset = match settings.from {
                From::Earliest => low,
                From::Latest => high,
                From::Timestamp(_) => by_time.get(partition).copied().flatten().unwrap_or(high),
            };
            PartitionCut::start(partition as i32, offset, settings.until_end.then_some(high.max(offset)))
        };
        Ok(Progress {
            job: settings.job.clone(),
            generation: 1,
            committed_through: None,
            state: JobState::Running,
            configuration: settings.configuration.clone(),
            input: self.ends.iter().enumerate().map(cut).collect(),
        })
    }

    /// The first offset of each partition at or after a time, where there is one.
    fn offsets_at(&self, ms: i64) -> Result<Vec<Option<i64>>, StartError> {
        let kafka = |error| StartError::Kafka(describe(&error));
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.ends.len() as i32 {
            asked.add_partition_offset(&self.topic, partition, Offset::Offset(ms)).map_err(kafka)?;
        }
        let answered = self.consumer.offsets_for_times(asked, TIMEOUT).map_err(kafka)?;
        let offset = |partition| match answered.find_partition(&self.topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        Ok((0..self.ends.len() as i32).map(offset).collect())
    }

    /// What a run goes on from, and the floors of partitions that are new.
    fn resumed(&self, committed: Progress) -> Result<(Progress, Vec<IdleAdvance>), String> {
        let mut input = committed.input.clone();
        let mut advances = Vec::new();
        for cut in &input {
            let Some(&(low, high)) = usize::try_from(cut.partition).ok().and_then(|index| self.ends.get(index)) else {
                return Err(format!(
                    "topic {:?} has {} partitions and no partition {}, which was read before; was it made anew?",
                    self.topic,
                    self.ends.len(),
                    cut.partition
                ));
            };
            if cut.replay_from < low {
                return Err(format!(
                    "{} records of partition {} of topic {:?} are gone (offsets {} to {low}, deleted by retention), which \
                     windows still open need; start a job with another name",
                    low - cut.replay_from,
                    cut.partition,
                    self.topic,
                    cut.replay_from
                ));
            }
            if cut.position > high {
                return Err(format!(
                    "partition {} of topic {:?} ends at {high}, and has been read up to {}: it was made anew, or the broker \
                     lost data; start a job with another name",
                    cut.partition, self.topic, cut.position
                ));
            }
        }
        let bounded = input.iter().any(|cut| cut.until.is_some());
        for partition in 0..self.ends.len() as i32 {
            if input.iter().any(|cut| cut.partition == partition) {
                continue;
            }
            // A new partition starts with what has been committed as its floor, which a replay has to know.
            input.push(PartitionCut {
                floor_ms: committed.committed_through,
                ..PartitionCut::start(partition, 0, bounded.then_some(0))
            });
            advances.extend(committed.committed_through.map(|floor_ms| IdleAdvance {
                partition,
                next_offset: 0,
                floor_ms,
            }));
        }
        Ok((Progress { generation: committed.generation + 1, input, ..committed }, advances))
    }
}
