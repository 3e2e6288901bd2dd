//! How a run of a job begins: fence the older runs, see what they have committed, decide where to read from.

use std::sync::Arc;
use std::time::Duration;

use clicktide_dataflows::time::{Tick, Windows};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ClientError, Connection, LogContext, fetch_watermarks};
use super::committer::{JobTopics, KafkaCommitter, OutputSchemas};
use super::describe;
use super::described::describe_topic;
use super::permissions::may_run;
use super::probe::reach;
use super::progress::{ReadProgressError, read_progress, read_progress_so_far};
use crate::avro::ProgressRecord;
use crate::checkpoint::Manifest;
use crate::checkpoint::choose::{
    ProbeError, RegisterError, Rejected, check_objects, latest_generation, newest, read_manifest, register,
};
use crate::checkpoint::names;
use crate::checkpoint::restore::Restore;
use crate::checkpoint::store::{Store, StoreError};
use crate::committer::CommitError;
use crate::exit::Exit;
use crate::progress::{JobStart, Progress};
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
    /// Its windows.
    pub windows: Windows,
    /// How far events may come out of order, ms.
    pub bound_ms: i64,
    /// Whether it keeps the past of its partitions.
    pub keeps_history: bool,
    /// Whether the brokers can be asked for the id of a topic and for what the user may do. The embedded one does not answer.
    pub can_describe: bool,
    /// Whether to go on where records that are needed are gone.
    pub accept_gap: bool,
    /// Where the job's checkpoints are kept, if they are.
    pub checkpoints: Option<Arc<dyn Store>>,
    /// What a new job begins with, if not with nothing.
    pub savepoint: Option<Savepoint>,
    /// By which ids a schema registry knows the schemas of what is published, if that is in its wire format.
    pub schemas: OutputSchemas,
}

/// A savepoint or checkpoint, of this job or of another.
#[derive(Clone)]
pub struct Savepoint {
    /// The job that has taken it.
    pub job: String,
    /// What the savepoint is called, or the name of the checkpoint's manifest.
    pub name: String,
    /// Where that job's checkpoints are kept.
    pub store: Arc<dyn Store>,
}

/// Why a run does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The brokers do not answer, or refuse.
    #[error("can't start the job: {0}")]
    Client(#[from] ClientError),
    /// The progress can't be read.
    #[error("can't start the job: {0}")]
    Progress(#[from] ReadProgressError),
    /// The brokers do not answer as hoped.
    #[error("can't start the job: {0}")]
    Kafka(String),
    /// The output can't be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The checkpoints can't be got at.
    #[error("can't start the job: {0}")]
    Checkpoints(String),
    /// What has been committed and what is asked for do not go together.
    #[error("job {job:?} can't be resumed: {reason}")]
    Refused {
        /// The job.
        job: String,
        /// Why not, and what would be right.
        reason: String,
    },
}

impl StartError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            StartError::Client(error) => error.exit(),
            StartError::Progress(error) => error.exit(),
            StartError::Kafka(_) => Exit::Kafka,
            StartError::Commit(error) => error.exit(),
            StartError::Checkpoints(_) => Exit::Checkpoints,
            StartError::Refused { .. } => Exit::Refused,
        }
    }
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
    reach(kafka, TIMEOUT)?;
    if settings.can_describe {
        may_run(kafka, topics, TIMEOUT)?;
    }
    let refused = |reason| StartError::Refused { job: job.clone(), reason };
    // What is refused must not fence a run that goes on, so this is asked first. What an open transaction hides is seen
    // below, by when there is none.
    let mut asked = Asked {
        job,
        events: &topics.events,
        topic_id: None,
        progress: &topics.progress,
        until_end: settings.until_end,
        configuration: &settings.configuration,
        differences,
        windows: settings.windows,
        bound_ms: settings.bound_ms,
        keeps_history: settings.keeps_history,
        accept_gap: settings.accept_gap,
        generation_seen: 0,
    };
    let so_far = read_progress_so_far(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)?;
    if let Some(reason) = objection(&asked, &so_far) {
        return Err(refused(reason));
    }
    let mut committer = KafkaCommitter::connect(kafka, job, topics.clone(), settings.transaction_timeout)?
        .with_schemas(settings.schemas);
    // Fenced: what is visible now, and no transaction is open, stays the last word of the older runs.
    let committed = read_progress(&kafka.brokers, &kafka.properties.to_map(), &topics.progress)?;
    if let Some(reason) = objection(&asked, &committed) {
        return Err(refused(reason));
    }

    let log = Log::open(settings)?;
    asked.topic_id = log.topic_id.as_deref();
    let store = settings.checkpoints.as_deref();
    asked.generation_seen = store.map_or(Ok(None), latest_generation)?.unwrap_or(0);
    let recovery = match (committed.progress, &settings.savepoint) {
        (None, None) => {
            if let Some(reason) = store.map_or(Ok(None), |store| orphans(&asked, store))? {
                return Err(refused(reason));
            }
            Recovery::new_job(&asked, &log.begins(settings.from)?, &log.bounds)
        }
        (None, Some(savepoint)) => {
            let (restore, manifest) = read_savepoint(savepoint).map_err(refused)?;
            Recovery::taken_over(&asked, restore, &manifest, &log.bounds).map_err(refused)?
        }
        (Some(progress), savepoint) => {
            let own = store.map_or(Ok(None), |store| newest_checkpoint(&asked, &progress, store))?;
            // Until there is a checkpoint of its own, what the job began with is as good as one, while it is there.
            let restorable = own.or_else(|| begun_with(&asked, &progress, savepoint.as_ref()?));
            let advances = committed.idle_advances;
            Recovery::resumed(&asked, progress, advances, &log.bounds, restorable).map_err(refused)?
        }
    };
    if let Some(store) = store {
        register(store, recovery.start.generation)?;
    }
    let Recovery { progress, new_advances, outdated, start } = recovery;
    let advances: Vec<_> = new_advances.into_iter().map(ProgressRecord::IdleAdvance).collect();
    let outdated: Vec<_> = outdated.into_iter().map(|advance| ProgressRecord::IdleAdvance(advance).key()).collect();
    committer.begin(progress, &advances, &outdated)?;
    Ok((committer, start))
}

/// Why a job that has committed nothing must not begin: there are checkpoints of its name.
fn orphans(asked: &Asked<'_>, store: &dyn Store) -> Result<Option<String>, StoreError> {
    let checkpoints = store.list(names::CHECKPOINTS)?;
    let reason = || {
        format!(
            "there are {} checkpoints of a job of this name, and its progress topic {:?} holds nothing: was it deleted, or is \
             this another Kafka? Give the job another name, or delete its checkpoints (`clicktide checkpoint delete`)",
            checkpoints.len(),
            asked.progress
        )
    };
    Ok((!checkpoints.is_empty()).then(reason))
}

/// The newest good checkpoint of the job that is not ahead of what it has committed.
fn newest_checkpoint(
    asked: &Asked<'_>,
    committed: &Progress,
    store: &dyn Store,
) -> Result<Option<Restore>, StoreError> {
    let (found, rejected) = newest(store, asked.job, asked.configuration, committed.committed_through.map(Tick))?;
    for Rejected { name, reason } in rejected {
        tracing::warn!(checkpoint = name, error = reason, "a checkpoint can't be used");
    }
    Ok(found.map(|(name, manifest)| Restore::of(name, manifest)))
}

/// The savepoint that the job has taken over from, if it is this one and holds events that mean the same.
fn begun_with(asked: &Asked<'_>, committed: &Progress, savepoint: &Savepoint) -> Option<Restore> {
    let (restore, manifest) = read_savepoint(savepoint)
        .inspect_err(|reason| tracing::debug!(error = reason, "what the job began with is not used again"))
        .ok()?;
    let same = (asked.differences)(&manifest.configuration).is_empty();
    (same && committed.began_after == Some(manifest.through.0)).then_some(restore)
}

/// A savepoint's content, checked.
///
/// # Errors
/// Why it can't be used.
fn read_savepoint(savepoint: &Savepoint) -> Result<(Restore, Manifest), String> {
    let Savepoint { job, name: called, store } = savepoint;
    let unusable = |reason: String| format!("savepoint {called:?} of job {job:?} can't be used: {reason}");
    let checkpoint = names::checkpoint_of(called).map(|_| called.clone());
    let name = checkpoint.map_or_else(|| names::savepoint(called), Ok).map_err(|error| error.to_string())?;
    let manifest = read_manifest(&**store, &name).map_err(unusable)?;
    check_objects(&**store, &manifest).map_err(unusable)?;
    Ok((Restore::of(name, manifest.clone()), manifest))
}

/// The input topic as it is now.
struct Log {
    consumer: BaseConsumer<LogContext>,
    topic: String,
    /// Its id, where the brokers know such ids.
    topic_id: Option<String>,
    /// What can be read of every partition, in order.
    bounds: Vec<Bounds>,
}

impl std::convert::From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        StartError::Checkpoints(error.to_string())
    }
}

impl std::convert::From<ProbeError> for StartError {
    fn from(error: ProbeError) -> Self {
        StartError::Checkpoints(error.to_string())
    }
}

impl std::convert::From<RegisterError> for StartError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Fenced { .. } => StartError::Commit(CommitError::Fenced(error.to_string())),
            RegisterError::Store(error) => error.into(),
        }
    }
}

impl Log {
    fn open(settings: &StartSettings) -> Result<Self, StartError> {
        let kafka = |error| StartError::Kafka(describe(&error));
        let topic = settings.topics.events.clone();
        // Read committed: the end is the last stable offset.
        let mut config = settings.kafka.client_config()?;
        let consumer: BaseConsumer<LogContext> =
            config.set("isolation.level", "read_committed").create_with_context(LogContext).map_err(kafka)?;
        let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT).map_err(kafka)?;
        let found = metadata.topics().first();
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        if let Some(error) = found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from) {
            return Err(settings.kafka.refused(&format!("read the input topic {topic:?}"), error).into());
        }
        if partitions == 0 {
            let reason = format!("the input topic {topic:?} does not exist; `clicktide topics create` makes it");
            return Err(StartError::Kafka(reason));
        }
        let bounds = |partition| {
            let (low, high) = fetch_watermarks(&consumer, &topic, partition, TIMEOUT).map_err(kafka)?;
            Ok(Bounds { low, high })
        };
        let bounds = (0..partitions as i32).map(bounds).collect::<Result<Vec<_>, StartError>>()?;
        // An old broker can't be asked either.
        let ask = || match describe_topic(&consumer, &topic, TIMEOUT) {
            Ok(described) => described.id,
            Err(reason) => {
                tracing::debug!(topic, ?reason, "the topic's id is not known");
                None
            }
        };
        let topic_id = settings.can_describe.then(ask).flatten();
        Ok(Log { consumer, topic, topic_id, bounds })
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
