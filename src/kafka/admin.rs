//! Topics: making them, and what there is.
//!
//! Nothing here changes or removes a topic. A topic that is there already is compared with what is wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::cause::Witness;
use super::client::{Cause, ClientError, Connection};
use super::described::describe_topic;
use super::probe::{EVENTS_TIMEOUT, reach};

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// On how many brokers each partition is.
    pub replication_factor: i32,
    /// The topic's own configuration, by Kafka's names.
    pub config: BTreeMap<&'static str, String>,
}

/// What has become of a wanted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It was made.
    Created,
    /// It was there, with these differences from what is wanted, as in `partitions: 3, expected 6`. It was left as it is.
    Existing {
        /// The differences; none if it is as it should be.
        differences: Vec<String>,
    },
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
    /// Its configuration, also where it is the broker's default.
    pub config: BTreeMap<String, ConfigValue>,
}

/// One value of a topic's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigValue {
    /// The value.
    pub value: String,
    /// Whether it was set for this topic.
    pub own: bool,
}

/// A partition as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: i32,
    /// The broker that leads it; none if there is none now.
    pub leader: Option<i32>,
    /// The brokers it is on.
    pub replicas: Vec<i32>,
    /// Those of them that have all of it.
    pub in_sync: Vec<i32>,
    /// The first offset that is still there, and the offset after the last record; none while no leader answers.
    pub offsets: Option<(i64, i64)>,
}

/// Makes those topics that are not there, and compares the others. To be called again does no harm.
///
/// # Errors
/// When the brokers cannot be reached, or refuse to make or to describe a topic. Others may have been made by then.
pub fn create_topics(
    connection: &Connection,
    topics: &[TopicSpec],
    timeout: Duration,
) -> Result<Vec<(String, TopicOutcome)>, ClientError> {
    let admin = Admin::connect(connection, timeout)?;
    topics
        .iter()
        .map(|topic| {
            let outcome = match admin.describe(&topic.name)? {
                Some(found) => TopicOutcome::Existing { differences: found.differences(topic) },
                None => admin.create(topic)?,
            };
            Ok((topic.name.clone(), outcome))
        })
        .collect()
}

/// Topics as they are; none for a name that no topic has.
///
/// # Errors
/// When the brokers cannot be reached, or refuse to describe a topic.
pub fn describe_topics(
    connection: &Connection,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<Option<TopicDescription>>, ClientError> {
    let admin = Admin::connect(connection, timeout)?;
    names.iter().map(|name| admin.describe(name)).collect()
}

impl TopicDescription {
    /// How the topic differs from what is wanted, a line for each difference; empty when it is as it should be.
    pub fn differences(&self, wanted: &TopicSpec) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                differences.push(format!("{what}: {found}, expected {wanted}"));
            }
        };
        compare("partitions", self.partitions.len().to_string(), wanted.partitions.to_string());
        // Partitions that are being moved are on more brokers for a while.
        let replicas = self.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0);
        compare("replication factor", replicas.to_string(), wanted.replication_factor.to_string());
        for (name, value) in &wanted.config {
            let found = self.config.get(*name).map_or("nothing", |found| &found.value);
            compare(name, found.to_owned(), value.clone());
        }
        differences
    }
}

impl fmt::Display for TopicDescription {
    /// Some lines without an end of line behind the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for (name, ConfigValue { value, .. }) in self.config.iter().filter(|(_, value)| value.own) {
            write!(f, "\n  {name} = {value}")?;
        }
        for PartitionDescription { partition, leader, replicas, in_sync, offsets } in &self.partitions {
            let leader = leader.map_or("no".to_owned(), |leader| leader.to_string());
            write!(f, "\n  partition {partition}: leader {leader}, replicas {replicas:?}, in sync {in_sync:?}")?;
            if let Some((low, high)) = offsets {
                write!(f, ", offsets {low} to {high}")?;
            }
        }
        Ok(())
    }
}

/// How long to wait for the first answer of a broker.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients that can ask about topics.
struct Admin<'a> {
    connection: &'a Connection,
    timeout: Duration,
    admin: AdminClient<Witness>,
    /// Asks for metadata: a consumer does not make the topics that it asks for.
    consumer: BaseConsumer<Witness>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Admin<'a> {
    fn connect(connection: &'a Connection, timeout: Duration) -> Result<Self, ClientError> {
        // First, as it can say best why nobody answers.
        reach(connection, timeout.min(REACH_TIMEOUT))?;
        let config = connection.client_config()?;
        let attempt = "make a client for topics";
        let failed = |error| connection.explain(attempt, &error, &Witness::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| ClientError::Failed {
            attempt: attempt.to_owned(),
            brokers: connection.brokers.clone(),
            cause: Cause::Other,
            reason: error.to_string(),
        })?;
        Ok(Admin {
            connection,
            timeout,
            admin: config.create_with_context(Witness::default()).map_err(failed)?,
            consumer: config.create_with_context(Witness::default()).map_err(failed)?,
            runtime,
        })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    fn create(&self, topic: &TopicSpec) -> Result<TopicOutcome, ClientError> {
        let attempt = format!("create topic {:?}", topic.name);
        let replication = TopicReplication::Fixed(topic.replication_factor);
        let new = NewTopic::new(&topic.name, topic.partitions, replication);
        let new = topic.config.iter().fold(new, |new, (name, value)| new.set(name, value));
        let answer = self.runtime.block_on(self.admin.create_topics([&new], &self.options()));
        let answer = answer.map_err(|error| self.connection.explain(&attempt, &error, self.admin.inner().context()))?;
        match answer.into_iter().next() {
            Some(Ok(_)) => {}
            // Somebody else was faster.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                let found = self.describe(&topic.name)?;
                let differences = found.map(|found| found.differences(topic)).unwrap_or_default();
                return Ok(TopicOutcome::Existing { differences });
            }
            Some(Err((_, code))) => return Err(self.connection.refused(&attempt, code)),
            None => return Err(self.connection.refused(&attempt, RDKafkaErrorCode::Unknown)),
        }
        self.await_leaders(topic)?;
        Ok(TopicOutcome::Created)
    }

    /// Waits until every partition of a new topic has a leader that answers, so that whoever starts next can use it.
    fn await_leaders(&self, topic: &TopicSpec) -> Result<(), ClientError> {
        let start = Instant::now();
        loop {
            let led = |found: TopicDescription| found.partitions.iter().all(|partition| partition.offsets.is_some());
            if self.describe(&topic.name)?.is_some_and(led) {
                return Ok(());
            }
            if start.elapsed() > self.timeout {
                let attempt = format!("wait for the leaders of topic {:?}", topic.name);
                return Err(self.connection.refused(&attempt, RDKafkaErrorCode::OperationTimedOut));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn describe(&self, name: &str) -> Result<Option<TopicDescription>, ClientError> {
        let attempt = format!("describe topic {name:?}");
        let failed = |error| {
            drop(self.consumer.poll(EVENTS_TIMEOUT));
            self.connection.explain(&attempt, &error, self.consumer.client().context())
        };
        let metadata = self.consumer.fetch_metadata(Some(name), self.timeout).map_err(failed)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
            // A topic so new that it has no leaders yet.
            Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(code) => return Err(self.connection.refused(&attempt, code)),
        }
        let mut partitions = Vec::with_capacity(topic.partitions().len());
        for partition in topic.partitions() {
            let leader = Some(partition.leader()).filter(|leader| *leader >= 0 && partition.error().is_none());
            let offsets = match leader.map(|_| self.consumer.fetch_watermarks(name, partition.id(), self.timeout)) {
                Some(Ok(offsets)) => Some(offsets),
                Some(Err(error)) if !moves(&error) => return Err(failed(error)),
                _ => None,
            };
            partitions.push(PartitionDescription {
                partition: partition.id(),
                leader,
                replicas: partition.replicas().to_vec(),
                in_sync: partition.isr().to_vec(),
                offsets,
            });
        }
        partitions.sort_by_key(|partition| partition.partition);
        let config = self.config(name)?;
        Ok(config.map(|config| TopicDescription { name: name.to_owned(), partitions, config }))
    }

    /// None if there is no such topic, or not yet for the broker that was asked.
    fn config(&self, name: &str) -> Result<Option<BTreeMap<String, ConfigValue>>, ClientError> {
        let attempt = format!("describe the configuration of topic {name:?}");
        let asked = [ResourceSpecifier::Topic(name)];
        let answer = self.runtime.block_on(self.admin.describe_configs(&asked, &self.options()));
        let answer = answer.map_err(|error| self.connection.explain(&attempt, &error, self.admin.inner().context()))?;
        let resource = match answer.into_iter().next() {
            Some(Ok(resource)) => resource,
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) => return Ok(None),
            Some(Err(code)) => return Err(self.connection.refused(&attempt, code)),
            None => return Err(self.connection.refused(&attempt, RDKafkaErrorCode::Unknown)),
        };
        if resource.entries.is_empty() {
            // The client hides the broker's word on a single topic, and every topic has entries.
            return match describe_topic(&self.consumer, name, self.timeout) {
                Ok(described) if !described.describe_configs => {
                    Err(self.connection.refused(&attempt, RDKafkaErrorCode::TopicAuthorizationFailed))
                }
                _ => Ok(None),
            };
        }
        let entries = resource.entries.into_iter().filter_map(|entry| {
            let own = entry.source == ConfigSource::DynamicTopic;
            Some((entry.name, ConfigValue { value: entry.value?, own }))
        });
        Ok(Some(entries.collect()))
    }
}

/// Whether a partition just has no leader, or another than it had: a moment after its topic was made, for instance.
fn moves(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let codes = [
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::UnknownPartition,
        Code::UnknownTopicOrPartition,
        Code::ReplicaNotAvailable,
        Code::OffsetNotAvailable,
        Code::KafkaStorageError,
    ];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let partition = |partition, replicas: &[i32]| PartitionDescription {
            partition,
            leader: Some(1),
            replicas: replicas.to_vec(),
            in_sync: vec![1],
            offsets: Some((0, 7)),
        };
        let found = TopicDescription {
            name: "t".into(),
            partitions: vec![partition(0, &[1, 2]), partition(1, &[1])],
            config: [("compression.type".to_owned(), ConfigValue { value: "gzip".into(), own: true })].into(),
        };
        let mut wanted =
            TopicSpec { name: "t".into(), partitions: 2, replication_factor: 1, config: BTreeMap::default() };
        wanted.config.insert("compression.type", "gzip".to_owned());
        assert_eq!(found.differences(&wanted), [""; 0]);
        wanted.partitions = 3;
        wanted.replication_factor = 2;
        wanted.config = [("compression.type", "snappy".to_owned()), ("retention.ms", "5".to_owned())].into();
        assert_eq!(
            found.differences(&wanted),
            [
                "partitions: 2, expected 3",
                "replication factor: 1, expected 2",
                "compression.type: gzip, expected snappy",
                "retention.ms: nothing, expected 5"
            ]
        );
        assert_eq!(
            found.to_string(),
            "t\n  compression.type = gzip\n  partition 0: leader 1, replicas [1, 2], in sync [1], offsets 0 to 7\n  \
             partition 1: leader 1, replicas [1], in sync [1], offsets 0 to 7"
        );
    }
}
