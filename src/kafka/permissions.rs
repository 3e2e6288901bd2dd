//! What a job's user has to be allowed, asked before anything begins (KIP-430).

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::cause::Witness;
use super::client::{Cause, ClientError, Connection};
use super::committer::JobTopics;
use super::described::{Undescribed, describe_topic};

/// Whether the user may do with its topics what a job does. A topic that is not there is nobody's to forbid, and brokers that
/// do not tell are taken to allow everything.
///
/// # Errors
/// When it may not: all that is missing. Or when no client can be made.
pub fn may_run(connection: &Connection, topics: &JobTopics, timeout: Duration) -> Result<(), ClientError> {
    let attempt = "run the job";
    let consumer = connection.client_config()?.create_with_context(Witness::default());
    let consumer: BaseConsumer<Witness> =
        consumer.map_err(|error| connection.explain(attempt, &error, &Witness::default()))?;
    let missing = missing(&consumer, topics, timeout);
    if missing.is_empty() {
        return Ok(());
    }
    Err(ClientError::Failed {
        attempt: attempt.to_owned(),
        brokers: connection.brokers.clone(),
        cause: Cause::Authorization,
        reason: missing.join(", "),
    })
}

fn missing<C: ConsumerContext>(consumer: &BaseConsumer<C>, topics: &JobTopics, timeout: Duration) -> Vec<String> {
    let JobTopics { events, results, dead_letters, sanitised_events, progress } = topics;
    let written = [Some(results), Some(dead_letters), sanitised_events.as_ref()].into_iter().flatten();
    let needed = written.map(|topic| (topic, false, true)).chain([(events, true, false), (progress, true, true)]);
    let mut missing = Vec::new();
    for (topic, read, write) in needed {
        let (may_read, may_write) = match describe_topic(consumer, topic, timeout) {
            Ok(described) => (described.read, described.write),
            Err(Undescribed::Refused(RDKafkaErrorCode::TopicAuthorizationFailed)) => (false, false),
            Err(Undescribed::Refused(reason)) => {
                tracing::debug!(topic, %reason, "what the user may do with the topic is not known");
                continue;
            }
            // Nor would there be an answer about the others.
            Err(Undescribed::Unanswered(reason)) => {
                tracing::debug!(topic, reason, "what the user may do with the topics is not known");
                break;
            }
        };
        let lacks = [("READ", read && !may_read), ("WRITE", write && !may_write)];
        missing.extend(lacks.iter().filter(|(_, lacks)| *lacks).map(|(what, _)| format!("{what} on topic {topic:?}")));
    }
    missing
}

/// Whether the user may keep a job's read positions under the group of its name, where tools that show lag look.
///
/// # Errors
/// When the brokers refuse or do not answer in time.
pub fn may_show_positions(
    connection: &Connection,
    job: &str,
    topic: &str,
    timeout: Duration,
) -> Result<(), ClientError> {
    let attempt = format!("use consumer group {job:?}");
    let mut config = connection.client_config()?;
    config.set("group.id", job).set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Witness> = config
        .create_with_context(Witness::default())
        .map_err(|error| connection.explain(&attempt, &error, &Witness::default()))?;
    let witness = consumer.client().context();
    let failed = |error| connection.explain(&attempt, &error, witness);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, 0, Offset::Invalid).map_err(failed)?;
    let start = Instant::now();
    loop {
        // A group that may not be used is looked for on and on.
        match consumer.committed_offsets(asked.clone(), LOOK_EVERY) {
            Ok(_) => return Ok(()),
            Err(error) => {
                while consumer.poll(Duration::ZERO).is_some() {}
                if witness.denied_for().is_some() || start.elapsed() > timeout {
                    return Err(failed(error));
                }
            }
        }
    }
}

/// How often it is looked whether the brokers refuse.
const LOOK_EVERY: Duration = Duration::from_millis(500);
